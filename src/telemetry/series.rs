//! What was served over time: counts by layer in steps, three resolutions, a few KiB, in this process alone.
//!
//! Made out of the running totals, which are looked at when a step ends and when somebody asks: no request waits for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// Requests by what became of them: exact hits, semantic hits, misses, bypasses.
pub type Counts = [u64; 4];

/// How long a step of the finest ring is: after each the totals are to be looked at.
pub const STEP: Duration = Duration::from_secs(10);

/// Which ring, by how far back it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Window {
    /// A quarter of an hour in steps of 10 s.
    #[default]
    QuarterHour,
    /// An hour in steps of 10 s.
    Hour,
    /// Six hours in steps of a minute.
    SixHours,
    /// A week in steps of a quarter of an hour.
    Week,
}

impl Window {
    /// Each, by the name it is asked for.
    pub const ALL: [(&'static str, Self); 4] =
        [("15m", Self::QuarterHour), ("1h", Self::Hour), ("6h", Self::SixHours), ("7d", Self::Week)];

    /// The window of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, window)| window)
    }
}

/// Counts in steps, as people see them: a list each, oldest first; the last is the step under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesShape {
    /// How long a step is, in seconds.
    pub step_s: u64,
    /// When the first step began, in seconds since the Unix epoch.
    pub from: u64,
    /// Hits of the exact layer.
    pub exact: Vec<u64>,
    /// Hits of the semantic layer.
    pub semantic: Vec<u64>,
    /// Requests looked up and not found.
    pub upstream: Vec<u64>,
    /// Requests that were not looked up.
    pub bypass: Vec<u64>,
}

/// The rings.
#[derive(Debug)]
pub struct Series {
    started: Instant,
    /// The totals when they were last looked at.
    last: Counts,
    fine: Ring,
    middle: Ring,
    coarse: Ring,
}

#[derive(Debug)]
struct Ring {
    step: Duration,
    most: usize,
    /// The number of the newest slot since the start.
    newest: u64,
    slots: VecDeque<[u32; 4]>,
}

impl Series {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            last: Counts::default(),
            fine: Ring::new(STEP, 360),
            middle: Ring::new(Duration::from_mins(1), 360),
            coarse: Ring::new(Duration::from_mins(15), 672),
        }
    }

    /// Takes over what was counted since the last time, for the step that was under way then.
    pub fn advance(&mut self, now: Instant, totals: Counts) {
        let mut since = [0_u32; 4];
        for ((since, total), last) in since.iter_mut().zip(totals).zip(self.last) {
            *since = u32::try_from(total.saturating_sub(last)).unwrap_or(u32::MAX);
        }
        self.last = totals;
        let elapsed = now.saturating_duration_since(self.started);
        for ring in [&mut self.fine, &mut self.middle, &mut self.coarse] {
            ring.add(since);
            ring.advance(elapsed);
        }
    }

    /// The steps of a window, `time` being the wall clock's at `now`.
    pub fn shape(&self, window: Window, now: Instant, time: SystemTime) -> SeriesShape {
        let (ring, most) = match window {
            Window::QuarterHour => (&self.fine, 90),
            Window::Hour => (&self.fine, 360),
            Window::SixHours => (&self.middle, 360),
            Window::Week => (&self.coarse, 672),
        };
        let passed = ring.slots.len().saturating_sub(most);
        let of = |layer: usize| {
            ring.slots.iter().skip(passed).map(|slot| slot.get(layer).copied().map_or(0, u64::from)).collect()
        };
        let shown = u64::try_from(ring.slots.len() - passed).unwrap_or_default();
        // Counted by the steady clock; only now is it said what the wall clock was.
        let first = (ring.newest + 1).saturating_sub(shown);
        let since_first = now
            .saturating_duration_since(self.started)
            .saturating_sub(ring.step.saturating_mul(u32::try_from(first).unwrap_or(u32::MAX)));
        let from = time.checked_sub(since_first).unwrap_or(SystemTime::UNIX_EPOCH);
        let from = from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        SeriesShape {
            step_s: ring.step.as_secs(),
            from,
            exact: of(0),
            semantic: of(1),
            upstream: of(2),
            bypass: of(3),
        }
    }
}

impl Ring {
    fn new(step: Duration, most: usize) -> Self {
        Self { step, most, newest: 0, slots: VecDeque::from([[0; 4]]) }
    }

    fn add(&mut self, counts: [u32; 4]) {
        let Some(slot) = self.slots.back_mut() else { return };
        for (count, more) in slot.iter_mut().zip(counts) {
            *count = count.saturating_add(more);
        }
    }

    /// Opens the step under way, and empty ones for those that nobody looked at.
    fn advance(&mut self, elapsed: Duration) {
        let newest = elapsed.as_secs() / self.step.as_secs().max(1);
        let steps = usize::try_from(newest.saturating_sub(self.newest)).unwrap_or(usize::MAX);
        for _ in 0..steps.min(self.most) {
            self.slots.push_back([0; 4]);
        }
        while self.slots.len() > self.most {
            self.slots.pop_front();
        }
        self.newest = self.newest.max(newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn what_was_counted_is_in_the_step_in_which_it_was() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let time = |seconds: u64| EPOCH + Duration::from_secs(1_000_000 + seconds);
        let mut series = Series::new(start);
        series.advance(at(3), [1, 0, 2, 0]);
        series.advance(at(10), [3, 0, 2, 0]);
        series.advance(at(45), [3, 1, 2, 5]);
        series.advance(at(47), [4, 1, 2, 5]);
        let shape = series.shape(Window::QuarterHour, at(47), time(47));
        assert_eq!((shape.step_s, shape.from), (10, 1_000_000));
        assert_eq!(shape.exact, [3, 0, 0, 0, 1]);
        assert_eq!((shape.semantic, shape.bypass), (vec![0, 1, 0, 0, 0], vec![0, 5, 0, 0, 0]));
        assert_eq!(series.shape(Window::SixHours, at(47), time(47)).exact, [4]);
        assert_eq!(series.shape(Window::Week, at(47), time(47)).upstream, [2]);
    }

    #[test]
    fn the_rings_are_bounded_and_forget_the_oldest() {
        let start = Instant::now();
        let mut series = Series::new(start);
        let mut total = 0;
        for step in 1..=1000_u64 {
            total += step;
            series.advance(start + STEP * u32::try_from(step).unwrap(), [total, 0, 0, 0]);
        }
        let now = start + STEP * 1000;
        let shape = series.shape(Window::QuarterHour, now, EPOCH + STEP * 1000);
        assert_eq!((shape.exact.len(), shape.from), (90, 9110));
        assert_eq!(shape.exact.iter().rev().take(3).collect::<Vec<_>>(), [&0, &1000, &999]);
        assert_eq!(series.shape(Window::Hour, now, EPOCH + STEP * 1000).exact.len(), 360);
        series.advance(now + Duration::from_hours(24 * 365), [total, 0, 0, 0]);
        let week = series.shape(Window::Week, now, EPOCH);
        assert_eq!((week.exact.len(), week.exact.iter().sum::<u64>()), (672, 0));
    }
}
