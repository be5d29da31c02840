//! The hot tier: whole entries in process, so that a popular one costs no round trip, or a short one.
//!
//! Redis tells when an entry changed ([`super::tracking`]); what was read before such a notice must not come in
//! after it, so a reader takes a [`Ticket`] before it asks and hands it in with what it got. Where an entry cannot be
//! relied upon, be it that no notices come or that it was read too long ago, Redis is asked for its seal alone, as a cache
//! validates what it holds by its entity tag (RFC 9111 §4.3): the seal is over all that is kept here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::super::entry::{Entry, EntryId, Key};
use super::super::memory::weight;
use super::record::Digest;

/// Counters of changes; two entries that share one merely cost each other a reading now and then.
const COUNTERS: usize = 256;

/// Whole entries, bounded in bytes.
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
    /// What it is sealed with in Redis; `None` of what this process wrote itself and has not read since.
    seal: Option<Digest>,
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
    /// Of at most so many bytes. An entry is served for at most so long before Redis is asked about it.
    pub(super) fn new(bytes: u64, longest: Duration) -> Self {
        let items = usize::try_from(bytes / 2048).unwrap_or(usize::MAX);
        Self {
            entries: Cache::with_weighter(items.max(16), bytes, ByBytes),
            changes: std::array::from_fn(|_| AtomicU64::new(0)),
            trusted: AtomicBool::new(false),
            longest,
            is_on: bytes > 0,
        }
    }

    /// Whether it serves anything that Redis was not asked about, and so must hear of changes.
    pub(super) fn relies_on_notices(&self) -> bool {
        self.is_on && !self.longest.is_zero()
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

    /// The entry of a key that may have changed, and the seal that Redis has if it has not.
    pub(super) fn sealed(&self, key: &Key) -> Option<(Arc<Entry>, Digest)> {
        let kept = self.entries.get(&key.id()).filter(|kept| kept.entry.key == *key)?;
        Some((kept.entry, kept.seal?))
    }

    /// Before an entry is read from Redis.
    pub(super) fn ticket(&self, id: &EntryId) -> Ticket {
        Ticket(self.counter(id).map_or(0, |counter| counter.load(Ordering::Acquire)))
    }

    /// Keeps what was read, and its seal, unless it may have changed since.
    pub(super) fn keep(&self, ticket: Ticket, entry: &Arc<Entry>, seal: Option<Digest>) {
        let id = entry.key.id();
        if !self.is_on || self.ticket(&id).0 != ticket.0 {
            return;
        }
        self.entries.insert(id, Kept { entry: Arc::clone(entry), seal, since: Instant::now() });
        // A change that came in between found nothing to take out.
        if self.ticket(&id).0 != ticket.0 {
            self.entries.remove(&id);
        }
    }

    /// Redis no longer has what is sealed so. What came in meanwhile stays.
    pub(super) fn drop_sealed(&self, id: &EntryId, seal: &Digest) {
        self.entries.remove_if(id, |kept| kept.seal.as_ref() == Some(seal));
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
        hot.keep(ticket, &read, None);
        assert!(hot.get(&key(1), true).is_none());
        hot.keep(hot.ticket(&id), &read, None);
        assert!(hot.get(&key(1), true).is_some());
        let ticket = hot.ticket(&id);
        hot.forget_all();
        hot.keep(ticket, &read, None);
        assert!(hot.get(&key(1), true).is_none());
    }

    #[test]
    fn it_is_relied_upon_while_changes_are_heard_of_or_nothing_better_is_to_be_had() {
        let hot = hot();
        hot.keep(hot.ticket(&key(1).id()), &Arc::new(entry(1)), Some([7; 16]));
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
        assert!(hot.sealed(&key(1)).is_some() && hot.sealed(&same_id).is_none(), "to be asked about");
    }

    #[test]
    fn without_a_time_for_which_it_is_relied_upon_all_is_asked_about() {
        let hot = Hot::new(1 << 20, Duration::ZERO);
        hot.trust(true);
        hot.keep(hot.ticket(&key(1).id()), &Arc::new(entry(1)), Some([7; 16]));
        assert!(hot.get(&key(1), true).is_none() && hot.get(&key(1), false).is_none());
        let (kept, seal) = hot.sealed(&key(1)).unwrap();
        assert_eq!((kept.key, seal), (key(1), [7; 16]));
        hot.forget(&key(1).id());
        assert!(hot.sealed(&key(1)).is_none());
        hot.keep(hot.ticket(&key(1).id()), &Arc::new(entry(1)), None);
        assert!(hot.sealed(&key(1)).is_none(), "its seal is not known");
        hot.keep(hot.ticket(&key(1).id()), &Arc::new(entry(1)), Some([8; 16]));
        hot.drop_sealed(&key(1).id(), &[7; 16]);
        assert!(hot.sealed(&key(1)).is_some(), "came in meanwhile");
        hot.drop_sealed(&key(1).id(), &[8; 16]);
        assert!(hot.sealed(&key(1)).is_none());
    }

    #[test]
    fn it_is_bounded_in_bytes_and_can_be_off() {
        let hot = Hot::new(64 << 10, Duration::from_mins(1));
        for number in 0..1000 {
            hot.keep(hot.ticket(&key(number).id()), &Arc::new(entry(number)), None);
        }
        let (entries, bytes) = hot.usage();
        assert!(entries > 10 && bytes <= 64 << 10, "{entries} {bytes}");
        let off = Hot::new(0, Duration::from_mins(1));
        off.keep(off.ticket(&key(1).id()), &Arc::new(entry(1)), Some([7; 16]));
        assert!(
            !off.relies_on_notices() && off.get(&key(1), false).is_none() && off.sealed(&key(1)).is_none()
        );
    }
}
