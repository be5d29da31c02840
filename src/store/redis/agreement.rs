//! The secret of keyed hashes, where the configuration gives none and the replicas agree upon one in Redis.
//!
//! Called by [`super`] when a connection is made, and from time to time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, warn};

use super::core::Core;
use super::dial::Connection;
use super::link;
use super::record::Seal;
use super::scripts::{Call, Scripts};

/// How often the secret in Redis is looked at: it may have been evicted, or be another since Redis lost its data.
const AGREE_EVERY: Duration = Duration::from_secs(5);

/// Keeps this replica's secret the one that all agreed upon.
#[derive(Clone)]
pub(super) struct Agreement {
    pub(super) core: Arc<Core>,
    pub(super) secret: watch::Sender<[u8; 32]>,
}

impl Agreement {
    /// Looks from time to time whether it still is.
    pub(super) async fn keep(self) {
        loop {
            tokio::time::sleep(link::jittered(AGREE_EVERY)).await;
            let call = self.call();
            match self.core.link.run::<Vec<u8>>(&self.core.scripts.agree, &call).await {
                Ok(secret) => self.adopt(&secret),
                Err(error) => debug!(%error, "the secret in Redis was not looked at"),
            }
        }
    }

    /// Agrees over a connection that is not in use yet.
    pub(super) async fn agree_over(&self, mut connection: Connection) -> Result<(), ::redis::RedisError> {
        let script = &self.core.scripts.agree;
        match self.call().in_full(script).query_async::<Vec<u8>>(&mut connection).await {
            Ok(secret) => self.adopt(&secret),
            // Redis is there but takes no writes; what is agreed upon later is adopted then.
            Err(error) if Scripts::is_refusal(&error) => {
                warn!(reason = link::shown(&error), "no secret was agreed upon in Redis");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn call(&self) -> Call {
        Call::default().key(self.core.names.secret()).argument(*self.secret.borrow())
    }

    fn adopt(&self, secret: &[u8]) {
        let Ok(secret) = <[u8; 32]>::try_from(secret) else { return };
        if *self.secret.borrow() != secret {
            // The seal first: an entry found by a key of the new secret must not look like damage.
            let mut seal = self.core.seal.write();
            *seal = Seal::new(&secret, Arc::clone(seal.encryption()));
            drop(seal);
            self.secret.send_replace(secret);
            debug!("took over the secret that the replicas agreed upon");
        }
    }
}
