//! The hot tier: whole entries in process, so that a popular one costs no round trip.
//!
//! Redis tells when an entry changed ([`super::tracking`]); what was read before such a notice must not come in
//! after it, so a reader takes a [`Ticket`] before it asks and hands it in with what it got.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::super::entry::{Entry, EntryId, Key};
use super::super::memory::weight;

/// Counters of changes; two entries that share one merely cost each other a reading now and then.
const COUNTERS: usize = 256;

/// Whole entries, bounded in bytes and age.
pub(super) struct Hot {
    entries: Cache<EntryId, Kept, ByBytes>,
    changes: [AtomicU64; COUNTERS],
    trusted: AtomicBool,
    longest: Duration,
    is_on: bool,
}

#[derive(Debug, Clone)]
struct Kept {
    entry: Arc<Entry>,
    since: Instant,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<EntryId, Kept> for ByBytes {
    fn weight(&self, _: &EntryId, kept: &Kept) -> u64 {
        weight(&kept.entry)
    }
}

/// What changed before a reading began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(u64);

impl Hot {
    /// Of at most so many bytes, each entry for at most so long.
    pub(super) fn new(bytes: u64, longest: Duration) -> Self {
        let items = usize::try_from(bytes / 2048).unwrap_or(usize::MAX);
        Self {
            entries: Cache::with_weighter(items.max(16), bytes, ByBytes),
            changes: std::array::from_fn(|_| AtomicU64::new(0)),
            trusted: AtomicBool::new(false),
            longest,
            is_on: bytes > 0 && !longest.is_zero(),
        }
    }

    /// Whether it is to keep anything at all.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The entry of a key, where it may be relied upon: while changes are heard of, or while Redis cannot be
    /// asked (`is_up` false) and nothing better is to be had.
    pub(super) fn get(&self, key: &Key, is_up: bool) -> Option<Arc<Entry>> {
        if !self.is_on || (is_up && !self.trusted.load(Ordering::Acquire)) {
            return None;
        }
        let kept = self.entries.get(&key.id())?;
        (kept.entry.key == *key && kept.since.elapsed() < self.longest).then_some(kept.entry)
    }

    /// Before an entry is read from Redis.
    pub(super) fn ticket(&self, id: &EntryId) -> Ticket {
        Ticket(self.counter(id).map_or(0, |counter| counter.load(Ordering::Acquire)))
    }

    /// Keeps what was read, unless it may have changed since.
    pub(super) fn keep(&self, ticket: Ticket, entry: &Arc<Entry>) {
        let id = entry.key.id();
        if !self.is_on || self.ticket(&id).0 != ticket.0 {
            return;
        }
        self.entries.insert(id, Kept { entry: Arc::clone(entry), since: Instant::now() });
        // A change that came in between found nothing to take out.
        if self.ticket(&id).0 != ticket.0 {
            self.entries.remove(&id);
        }
    }

    /// An entry changed.
    pub(super) fn forget(&self, id: &EntryId) {
        if let Some(counter) = self.counter(id) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
        self.entries.remove(id);
    }

    /// Anything may have changed.
    pub(super) fn forget_all(&self) {
        for counter in &self.changes {
            counter.fetch_add(1, Ordering::AcqRel);
        }
        self.entries.clear();
    }

    /// Whether every change is heard of from now on.
    pub(super) fn trust(&self, trusted: bool) {
        self.trusted.store(trusted, Ordering::Release);
    }

    /// Whether every change is heard of.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    /// Entries and bytes held.
    pub(super) fn usage(&self) -> (u64, u64) {
        (u64::try_from(self.entries.len()).unwrap_or(u64::MAX), self.entries.weight())
    }

    /// How many bytes may be held.
    pub(super) fn capacity(&self) -> u64 {
        self.entries.capacity()
    }

    fn counter(&self, id: &EntryId) -> Option<&AtomicU64> {
        let [.., last] = id.0;
        self.changes.get(usize::from(last) % COUNTERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{entry, key};

    fn hot() -> Hot {
        let hot = Hot::new(1 << 20, Duration::from_mins(1));
        hot.trust(true);
        hot
    }

    #[test]
    fn what_was_read_before_a_change_does_not_come_in_after_it() {
        let hot = hot();
        let (id, read) = (key(1).id(), Arc::new(entry(1)));
        let ticket = hot.ticket(&id);
        hot.forget(&id);
        hot.keep(ticket, &read);
        assert!(hot.get(&key(1), true).is_none());
        hot.keep(hot.ticket(&id), &read);
        assert!(hot.get(&key(1), true).is_some());
        let ticket = hot.ticket(&id);
        hot.forget_all();
        hot.keep(ticket, &read);
        assert!(hot.get(&key(1), true).is_none());
    }

    #[test]
    fn it_is_relied_upon_while_changes_are_heard_of_or_nothing_better_is_to_be_had() {
        let hot = hot();
        hot.keep(hot.ticket(&key(1).id()), &Arc::new(entry(1)));
        assert!(hot.get(&key(1), true).is_some());
        hot.trust(false);
        assert!(hot.get(&key(1), true).is_none(), "Redis can be asked");
        assert!(hot.get(&key(1), false).is_some(), "Redis is gone");
        let same_id = Key({
            let mut other = key(1).0;
            other[31] ^= 1;
            other
        });
        assert!(hot.get(&same_id, false).is_none(), "another key");
    }

    #[test]
    fn it_is_bounded_in_bytes_and_can_be_off() {
        let hot = Hot::new(64 << 10, Duration::from_mins(1));
        for number in 0..1000 {
            hot.keep(hot.ticket(&key(number).id()), &Arc::new(entry(number)));
        }
        let (entries, bytes) = hot.usage();
        assert!(entries > 10 && bytes <= 64 << 10, "{entries} {bytes}");
        let off = Hot::new(0, Duration::from_mins(1));
        off.keep(off.ticket(&key(1).id()), &Arc::new(entry(1)));
        assert!(!off.is_on() && off.get(&key(1), false).is_none());
    }
}
