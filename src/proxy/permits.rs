//! The places upstream: how many requests may be there at once, and the short queue of those who wait for one.
//!
//! Called by [`super::upstream`]. What cannot be served soon is said at once, with an estimate of when it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ProxyError;
use crate::config::Config;

/// The places of one upstream.
#[derive(Debug, Clone)]
pub struct Permits {
    free: Arc<Semaphore>,
    /// How many there are.
    most: usize,
    /// How many may wait for one at once.
    most_waiting: usize,
    /// For how long each may.
    wait: Duration,
    waiting: Arc<AtomicUsize>,
    held: Arc<Held>,
}

/// One place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Permit {
    since: Instant,
    held: Arc<Held>,
    _semaphore: OwnedSemaphorePermit,
}

/// How long places were held of late: a moving mean in microseconds, 0 before the first was given back.
#[derive(Debug, Default)]
struct Held(AtomicU64);

/// Counts who waits for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

/// What `Retry-After` says at most: a mean says little about the far future.
const LONGEST: u64 = 60;

impl Permits {
    /// As many as the configuration gives upstream.
    pub fn new(config: &Config) -> Self {
        let most = config.limits.max_upstream_requests.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(most)),
            most,
            most_waiting: config.limits.max_queued_requests,
            wait: config.timeouts.queue,
            waiting: Arc::default(),
            held: Arc::default(),
        }
    }

    /// The next place, in the order of asking.
    ///
    /// # Errors
    /// None becomes free in time, or too many wait for one already.
    pub async fn take(&self) -> Result<Permit, ProxyError> {
        // A free place belongs to who waits longest: the semaphore is fair.
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(self.permit(permit));
        }
        let waiting = Waiting::join(&self.waiting, self.most_waiting).ok_or_else(|| self.overloaded())?;
        let acquired = tokio::time::timeout(self.wait, Arc::clone(&self.free).acquire_owned()).await;
        drop(waiting);
        match acquired {
            Ok(Ok(permit)) => Ok(self.permit(permit)),
            _ => Err(self.overloaded()),
        }
    }

    /// A place for what no client waits for: while at least half of all are free.
    ///
    /// # Errors
    /// More than half are taken.
    pub fn take_spare(&self) -> Result<Permit, ProxyError> {
        if self.free.available_permits() < self.most.div_ceil(2) {
            return Err(self.overloaded());
        }
        let permit = Arc::clone(&self.free).try_acquire_owned();
        permit.map(|permit| self.permit(permit)).map_err(|_| self.overloaded())
    }

    fn permit(&self, permit: OwnedSemaphorePermit) -> Permit {
        Permit { since: Instant::now(), held: Arc::clone(&self.held), _semaphore: permit }
    }

    /// Says when a place is likely to be free for one more: all who wait and this one, served by all places at the
    /// pace of late.
    fn overloaded(&self) -> ProxyError {
        let ahead = self.waiting.load(Ordering::Relaxed).saturating_add(1) as u64;
        let micros = self.held.0.load(Ordering::Relaxed).saturating_mul(ahead) / (self.most as u64).max(1);
        ProxyError::Overloaded { retry_after: micros.div_ceil(1_000_000).clamp(1, LONGEST) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.held.note(self.since.elapsed());
    }
}

impl Held {
    /// One more in the mean, with an eighth of the weight.
    fn note(&self, held: Duration) {
        let now = u64::try_from(held.as_micros()).unwrap_or(u64::MAX / 8).clamp(1, u64::MAX / 8);
        let before = self.0.load(Ordering::Relaxed);
        // Of two that come at once one may be lost, which a mean bears.
        let mean = if before == 0 { now } else { before - before / 8 + now / 8 };
        self.0.store(mean, Ordering::Relaxed);
    }
}

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let joined =
            waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1));
        joined.ok().map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(most: usize, most_waiting: usize, wait: Duration) -> Permits {
        let mut config = Config::default();
        config.limits.max_upstream_requests = most;
        config.limits.max_queued_requests = most_waiting;
        config.timeouts.queue = wait;
        Permits::new(&config)
    }

    fn retry_after(error: &ProxyError) -> u64 {
        let ProxyError::Overloaded { retry_after } = error else { panic!("{error}") };
        *retry_after
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_turn_and_not_for_ever() {
        let permits = permits(1, 2, Duration::from_secs(3));
        let first = permits.take().await.unwrap();
        let mut waiting: Vec<_> = (0..2)
            .map(|_| {
                let permits = permits.clone();
                tokio::spawn(async move { permits.take().await })
            })
            .collect();
        tokio::task::yield_now().await;
        // The queue is full: the next is told at once.
        let begun = tokio::time::Instant::now();
        assert_eq!(retry_after(&permits.take().await.unwrap_err()), 1);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(first);
        let second = waiting.remove(0).await.unwrap().unwrap();
        assert!(waiting.remove(0).await.unwrap().is_err(), "it waited for ever");
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        // One that leaves the queue leaves no trace in it.
        let left = tokio::time::timeout(Duration::from_millis(1), permits.take()).await;
        assert!(left.is_err() && permits.waiting.load(Ordering::Relaxed) == 0);
        drop(second);
        permits.take().await.unwrap();
    }

    #[tokio::test]
    async fn retry_after_follows_how_long_places_are_held() {
        let permits = permits(2, 0, Duration::ZERO);
        let both = (permits.take().await.unwrap(), permits.take().await.unwrap());
        assert_eq!(retry_after(&permits.take().await.unwrap_err()), 1, "nothing is known yet");
        permits.held.note(Duration::from_secs(10));
        assert_eq!(retry_after(&permits.take().await.unwrap_err()), 5);
        for _ in 0..100 {
            permits.held.note(Duration::from_hours(1));
        }
        assert_eq!(retry_after(&permits.take().await.unwrap_err()), 60);
        for _ in 0..400 {
            permits.held.note(Duration::from_millis(3));
        }
        assert_eq!(retry_after(&permits.take_spare().unwrap_err()), 1);
        drop(both);
        assert!(permits.take_spare().is_ok());
    }
}
