//! Which credentials upstream has accepted, and when: a hit is served only to a caller whom upstream would
//! have served, as far as we know, so that a revoked key stops working here too.
//!
//! Called by `proxy` through [`super::Cache`]. Holds keyed hashes, never a credential.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use super::key::CredentialId;

/// The credentials that upstream accepted of late. Bounded: the least used are forgotten, which costs their
/// owners a miss.
#[derive(Debug)]
pub struct Credentials {
    accepted: Arc<Cache<CredentialId, Acceptance>>,
    /// Counts refusals: what was asked of others before one is no news after it.
    refusals: Arc<AtomicU64>,
    lifetime: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Acceptance {
    at: Instant,
    /// When others were told.
    told: Instant,
}

/// The part of an acceptance's lifetime after which others are told again: telling at each request would cost a
/// write each.
const TELL_AFTER: u32 = 8;

/// How many credentials are remembered.
const CAPACITY: usize = 100_000;

impl Credentials {
    /// Remembers each acceptance for `lifetime` (`credential_ttl`).
    pub fn new(lifetime: Duration) -> Self {
        Self { accepted: Arc::new(Cache::new(CAPACITY)), refusals: Arc::default(), lifetime }
    }

    /// The same acceptances, each remembered for `lifetime`.
    #[must_use]
    pub fn lasting(&self, lifetime: Duration) -> Self {
        Self { accepted: Arc::clone(&self.accepted), refusals: Arc::clone(&self.refusals), lifetime }
    }

    /// How long an acceptance counts.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Upstream answered a request with these credentials with success. `true` where others are to be told.
    pub fn accept(&self, credential: CredentialId, now: Instant) -> bool {
        let told = self.accepted.get(&credential).map(|before| before.told);
        let tell = told.is_none_or(|told| now.saturating_duration_since(told) >= self.lifetime / TELL_AFTER);
        let told = if tell { now } else { told.unwrap_or(now) };
        self.accepted.insert(credential, Acceptance { at: now, told });
        tell
    }

    /// How many refusals there were, to be said to [`Self::accepted_elsewhere`].
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }

    /// Another process saw them accepted so long ago; it was asked when there had been so many refusals. Whether a hit may
    /// be served on the strength of that.
    pub fn accepted_elsewhere(
        &self,
        credential: CredentialId,
        ago: Duration,
        refusals: u64,
        now: Instant,
    ) -> bool {
        let Some(at) = now.checked_sub(ago).filter(|_| ago < self.lifetime) else { return false };
        self.accepted.insert(credential, Acceptance { at, told: at });
        // Looked at behind the insertion, so that a refusal takes it out, or is seen here.
        let holds = self.refusals() == refusals;
        if !holds {
            self.accepted.remove(&credential);
        }
        holds
    }

    /// Upstream refused them (401 or 403).
    pub fn refuse(&self, credential: &CredentialId) {
        self.refusals.fetch_add(1, Ordering::SeqCst);
        self.accepted.remove(credential);
    }

    /// Whether a hit may be served. A caller without credentials has none that could be revoked.
    pub fn may_be_served(&self, credential: Option<&CredentialId>, now: Instant) -> bool {
        credential.is_none_or(|credential| {
            self.accepted
                .get(credential)
                .is_some_and(|accepted| now.saturating_duration_since(accepted.at) < self.lifetime)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::{Identity, Keys};

    #[test]
    fn an_acceptance_lasts_its_time_and_ends_with_a_refusal() {
        let identity = Identity { credentials: vec![("authorization", b"Bearer a")], ..Identity::default() };
        let id = Keys::new(b"s").credential(&identity).unwrap();
        let credentials = Credentials::new(Duration::from_secs(10));
        let start = Instant::now();
        assert!(credentials.may_be_served(None, start));
        assert!(!credentials.may_be_served(Some(&id), start));
        assert!(credentials.accept(id, start), "others are told");
        assert!(!credentials.accept(id, start + Duration::from_secs(1)), "but not each time");
        credentials.accept(id, start);
        assert!(credentials.may_be_served(Some(&id), start + Duration::from_secs(9)));
        assert!(!credentials.may_be_served(Some(&id), start + Duration::from_secs(10)));
        credentials.refuse(&id);
        let elsewhere =
            |ago, refusals| credentials.accepted_elsewhere(id, Duration::from_secs(ago), refusals, start);
        assert!(elsewhere(4, credentials.refusals()));
        assert!(!credentials.may_be_served(Some(&id), start + Duration::from_secs(6)));
        credentials.refuse(&id);
        assert!(!elsewhere(10, credentials.refusals()));
        let before = credentials.refusals();
        credentials.refuse(&id);
        assert!(!elsewhere(4, before), "refused here while others were asked");
        assert!(!credentials.may_be_served(Some(&id), start));
        credentials.accept(id, start);
        credentials.refuse(&id);
        assert!(!credentials.may_be_served(Some(&id), start));
    }
}
