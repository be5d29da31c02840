//! A circuit breaker: after failures in a row, a server is left alone for a while, then tried by one request.
//!
//! Used where a failing server must not cost every request its timeout: remote embedders, stores. Knows nothing
//! of what it protects; the time is given, never taken.
//!
//! Source: Nygard, "Release It!", second edition 2018, section 5.2.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// When a breaker opens and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub failures: NonZeroU32,
    /// How long it stays open the first time. Each failed trial doubles that.
    pub backoff: Duration,
    /// What the doubling ends at.
    pub longest_backoff: Duration,
}

impl Default for BreakerSettings {
    /// Five failures; one second, up to 30.
    fn default() -> Self {
        Self {
            failures: const { NonZeroU32::new(5).unwrap() },
            backoff: Duration::from_secs(1),
            longest_backoff: Duration::from_secs(30),
        }
    }
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything; the number of failures since the last success.
    Closed {
        /// Fewer than open it.
        failures: u32,
    },
    /// Nothing, until the backoff is over.
    Open,
    /// One trial at a time: the backoff is over, or the trial is on its way.
    HalfOpen,
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    circuit: Circuit,
    /// Counts openings and closings: what a request from before one tells is no news after it.
    era: u64,
}

#[derive(Debug, Clone, Copy)]
enum Circuit {
    Closed { failures: u32 },
    Open { until: Instant, backoff: Duration, trial: bool },
}

/// Leave to make one request. Say how it went; dropped without a word, as when the caller gives up, it counts
/// as nothing, and another may make the trial.
#[derive(Debug)]
#[must_use = "how the request went must be said"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    era: u64,
    said: bool,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, inner: Mutex::new(Inner { circuit: Circuit::Closed { failures: 0 }, era: 0 }) }
    }

    /// Asks for leave; `None` means not to try.
    pub fn admit(&self, now: Instant) -> Option<Permit<'_>> {
        let mut inner = self.inner.lock();
        match &mut inner.circuit {
            Circuit::Closed { .. } => {}
            Circuit::Open { until, trial, .. } if !*trial && now >= *until => *trial = true,
            Circuit::Open { .. } => return None,
        }
        Some(Permit { breaker: self, era: inner.era, said: false })
    }

    /// What the breaker lets through at this moment.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.inner.lock().circuit {
            Circuit::Closed { failures } => BreakerState::Closed { failures },
            Circuit::Open { until, trial, .. } if trial || now >= until => BreakerState::HalfOpen,
            Circuit::Open { .. } => BreakerState::Open,
        }
    }
}

impl Permit<'_> {
    /// The server answered: the breaker closes.
    pub fn succeeded(mut self) {
        self.said = true;
        let mut inner = self.breaker.inner.lock();
        if inner.era == self.era {
            if matches!(inner.circuit, Circuit::Open { .. }) {
                inner.era += 1;
            }
            inner.circuit = Circuit::Closed { failures: 0 };
        }
    }

    /// The server did not answer, or not as it should.
    pub fn failed(mut self, now: Instant) {
        self.said = true;
        let settings = &self.breaker.settings;
        let mut inner = self.breaker.inner.lock();
        if inner.era != self.era {
            return;
        }
        let backoff = match inner.circuit {
            Circuit::Closed { failures } if failures + 1 < settings.failures.get() => {
                inner.circuit = Circuit::Closed { failures: failures + 1 };
                return;
            }
            Circuit::Closed { .. } => settings.backoff,
            Circuit::Open { backoff, .. } => backoff.saturating_mul(2).min(settings.longest_backoff),
        };
        inner.era += 1;
        // A clock cannot be set so far ahead that it has no such instant, but the sum says otherwise.
        let until = now.checked_add(backoff).unwrap_or(now);
        inner.circuit = Circuit::Open { until, backoff, trial: false };
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.said {
            return;
        }
        let mut inner = self.breaker.inner.lock();
        if inner.era == self.era
            && let Circuit::Open { trial, .. } = &mut inner.circuit
        {
            *trial = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Instant) {
        let settings = BreakerSettings {
            failures: NonZeroU32::new(3).unwrap(),
            backoff: Duration::from_secs(10),
            longest_backoff: Duration::from_secs(25),
        };
        (Breaker::new(settings), Instant::now())
    }

    fn fail(breaker: &Breaker, now: Instant) {
        breaker.admit(now).unwrap().failed(now);
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn opens_after_failures_in_a_row() {
        let (breaker, now) = breaker();
        fail(&breaker, now);
        fail(&breaker, now);
        assert_eq!(breaker.state(now), BreakerState::Closed { failures: 2 });
        breaker.admit(now).unwrap().succeeded();
        assert_eq!(breaker.state(now), BreakerState::Closed { failures: 0 });
        for _ in 0..3 {
            fail(&breaker, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(breaker.admit(now + seconds(9)).is_none());
    }

    #[test]
    fn one_trial_decides() {
        let (breaker, mut now) = breaker();
        for _ in 0..3 {
            fail(&breaker, now);
        }
        // 10 seconds, doubled, and no more than the longest.
        for backoff in [10, 20, 25, 25] {
            assert!(breaker.admit(now + seconds(backoff - 1)).is_none());
            now += seconds(backoff);
            assert_eq!(breaker.state(now), BreakerState::HalfOpen);
            let trial = breaker.admit(now).unwrap();
            assert!(breaker.admit(now).is_none());
            trial.failed(now);
            assert_eq!(breaker.state(now), BreakerState::Open);
        }
        now += seconds(25);
        breaker.admit(now).unwrap().succeeded();
        assert_eq!(breaker.state(now), BreakerState::Closed { failures: 0 });
        fail(&breaker, now);
        assert_eq!(breaker.state(now), BreakerState::Closed { failures: 1 });
    }

    #[test]
    fn a_trial_given_up_leaves_room_for_another() {
        let (breaker, now) = breaker();
        for _ in 0..3 {
            fail(&breaker, now);
        }
        let now = now + seconds(10);
        drop(breaker.admit(now).unwrap());
        breaker.admit(now).unwrap().succeeded();
        assert_eq!(breaker.state(now), BreakerState::Closed { failures: 0 });
    }

    #[test]
    fn late_news_is_none() {
        let (breaker, now) = breaker();
        let early: Vec<_> = (0..5).map(|_| breaker.admit(now).unwrap()).collect();
        for permit in early {
            permit.failed(now);
        }
        // The fourth and fifth failure belong to the time before the opening, and did not prolong it.
        let now = now + seconds(10);
        let late = breaker.admit(now).unwrap();
        late.succeeded();
        assert_eq!(breaker.state(now), BreakerState::Closed { failures: 0 });
    }
}
