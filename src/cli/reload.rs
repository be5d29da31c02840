//! Reloads the configuration while `rejoinder serve` runs: on SIGHUP, and when what stands in its files changes.
//!
//! The files are read each second and compared by what they hold, rather than watched by inotify: a Kubernetes
//! `ConfigMap` is replaced by a link two folders up, editors rename, a network file system tells nobody, and a second's
//! delay harms nobody. A change counts when it has stayed the same for [`SETTLED`], so that no half-written file does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::environment;
use crate::config::{Fingerprint, Loader};
use crate::server::Live;
use crate::telemetry::{LogFilter, ReloadResult};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How long a change must have stayed the same.
const SETTLED: Duration = Duration::from_millis(250);

/// What reloads.
pub(super) struct Reloading {
    pub(super) loader: Arc<Loader>,
    pub(super) live: Arc<Live>,
    pub(super) log: LogFilter,
    /// Of the files whose configuration is in force, or was refused.
    pub(super) seen: Fingerprint,
}

impl Reloading {
    /// Reloads until it is dropped.
    pub(super) async fn run(mut self, mut hangup: Hangup) {
        let mut looks = tokio::time::interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = hangup.wait() => {
                    info!("SIGHUP: the configuration is read again");
                    let Some(now) = self.look().await else { continue };
                    self.reload(now).await;
                }
                _ = looks.tick() => {
                    if let Some(now) = self.changed().await {
                        info!("the configuration's files have changed: they are read again");
                        self.reload(now).await;
                    }
                }
            }
        }
    }

    /// What stands in the files now, where it is another and has settled.
    async fn changed(&mut self) -> Option<Fingerprint> {
        let now = self.look().await?;
        if !now.differs(&self.seen) {
            // A calibration may be looked at for the first time.
            self.seen = now;
            return None;
        }
        tokio::time::sleep(SETTLED).await;
        self.look().await.filter(|settled| *settled == now)
    }

    async fn look(&self) -> Option<Fingerprint> {
        let loader = Arc::clone(&self.loader);
        let calibration = self.live.config().cache.calibration;
        blocking(move || loader.fingerprint(calibration.as_deref(), &environment)).await
    }

    async fn reload(&mut self, now: Fingerprint) {
        // Before it is loaded: what changes meanwhile is seen the next time.
        self.seen = now;
        let loader = Arc::clone(&self.loader);
        let Some(read) = blocking(move || loader.load_again(&environment)).await else { return };
        if self.live.reload(read).await == ReloadResult::Applied {
            self.log.follow(&self.live.config());
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|error| warn!(%error, "the configuration's files were not looked at")).ok()
}

/// SIGHUP, heard instead of ending the process, with a file or without: secrets may be in files of their own.
pub(super) struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangup {
    #[cfg(unix)]
    pub(super) fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { signal: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")? })
    }

    #[cfg(unix)]
    async fn wait(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn wait(&mut self) {
        std::future::pending::<()>().await;
    }
}
