//! The partitions that this replica has in memory, and how each is kept the same as its index in Redis.
//!
//! Redis is asked before each search, in one round trip: for the members of the index whose version is not
//! below the oldest of the last few that were seen here. As a rule that is just those few: nothing is new. What
//! is newer is read and placed. If none of the few is there, Redis lost writes that were seen here (a failover,
//! an old snapshot) or they were all replaced, and the whole list of members is compared: since replication and
//! persistence keep the order of writes, one that is still there proves all before it, so there is no silent
//! hole. Entries that left Redis are found out when they are loaded, and go then; those that expired go now and then
//! by themselves.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};

use super::super::entry::{EntryId, Partition};
use super::super::index::{self, Index, Upkeep};
use super::super::memory::Slot;
use super::record::Row;

/// How many of the last versions seen are remembered: one of them replaced or removed need not cost a whole
/// comparison.
const REMEMBERED: usize = 8;

/// Rows looked at to find one that may go for a newer one.
const SAMPLES: usize = 8;

/// What a row takes besides its codes and its entry: its place in the table, allocations rounded up.
const ROW_OVERHEAD: u64 = 96;
/// What a partition takes by itself.
const PARTITION_OVERHEAD: u64 = 768;

/// An entry's place in the history of its index.
pub(super) type Version = u64;

/// All partitions in memory.
pub(super) struct Partitions {
    index: Arc<Index>,
    table: RwLock<HashMap<Partition, Arc<Loaded>>>,
    bytes: AtomicU64,
    capacity: u64,
    clock: AtomicU64,
    sequence: AtomicU64,
    evicted: AtomicU64,
}

/// One partition.
pub(super) struct Loaded {
    pub(super) partition: Partition,
    rows: Mutex<Rows>,
    /// Held by the one who reads rows from Redis, so that many who come at once read them once.
    pub(super) reading: tokio::sync::Mutex<()>,
    used: AtomicU64,
}

#[derive(Default)]
struct Rows {
    by_id: HashMap<EntryId, Held>,
    /// The last versions seen, oldest first.
    recent: VecDeque<(EntryId, Version)>,
    bytes: u64,
    /// Whether the members were listed once, so that newer ones are all that is missing.
    listed: bool,
    /// Counts listings, so that one that ends late does not undo what a later one found.
    listings: u64,
    /// It was given up for want of room; nothing may be put in any more.
    gone: bool,
}

struct Held {
    slot: Arc<Slot>,
    version: Version,
}

/// What a look at the index in Redis told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// These members are not in memory, or in an older version.
    Unknown(Vec<(EntryId, Version)>),
    /// The whole list must be compared.
    Lost,
    /// What was asked for is no longer what is missing.
    Again,
}

/// A listing of all members of an index.
pub(super) struct Listing {
    /// Its number.
    pub(super) number: u64,
    /// The newest version that was there when it began: what is newer is not its business.
    pub(super) upto: Version,
    /// The members.
    pub(super) seen: HashSet<EntryId>,
}

impl Partitions {
    /// Partitions in at most so many bytes, beside an index of their rows.
    pub(super) fn new(index: Arc<Index>, capacity: u64) -> Self {
        Self {
            index,
            table: RwLock::default(),
            bytes: AtomicU64::new(0),
            capacity,
            clock: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// The partition, if it is in memory.
    pub(super) fn get(&self, partition: &Partition) -> Option<Arc<Loaded>> {
        let loaded = self.table.read().get(partition).cloned()?;
        loaded.used.store(self.tick(), Ordering::Relaxed);
        Some(loaded)
    }

    /// The partition, empty and not listed yet where it is new.
    pub(super) fn open(&self, partition: &Partition) -> Arc<Loaded> {
        if let Some(loaded) = self.get(partition) {
            return loaded;
        }
        // Whoever only asks takes room, too.
        self.make_room();
        let used = self.tick();
        let mut table = self.table.write();
        let loaded = table.entry(*partition).or_insert_with(|| {
            self.bytes.fetch_add(PARTITION_OVERHEAD, Ordering::Relaxed);
            Arc::new(Loaded {
                partition: *partition,
                rows: Mutex::new(Rows { bytes: PARTITION_OVERHEAD, ..Rows::default() }),
                reading: tokio::sync::Mutex::default(),
                used: AtomicU64::new(used),
            })
        });
        Arc::clone(loaded)
    }

    /// Puts a row in; an older one goes for it where its partition has no more room. `false` where there is none.
    /// A version of 0 is not known yet, and newer than all others.
    pub(super) fn insert(&self, loaded: &Loaded, version: Version, row: Row) -> bool {
        let id = row.entry.key.id();
        let home = Some((loaded.partition, index::weight(&row.codes)));
        let slot =
            Arc::new(Slot::new(Arc::new(row.entry), self.sequence.fetch_add(1, Ordering::Relaxed), home));
        let bytes = slot.weight.saturating_add(ROW_OVERHEAD);
        let upkeep = {
            let mut rows = loaded.rows.lock();
            if rows.gone {
                return false;
            }
            self.take_out(loaded, &mut rows, &id);
            if rows.bytes.saturating_add(bytes) > self.capacity / 2 {
                let Some(older) = rows.older_than(version) else { return false };
                self.take_out(loaded, &mut rows, &older);
            }
            rows.bytes += bytes;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            let upkeep = self.index.insert(loaded.partition, &row.codes, &slot);
            rows.by_id.insert(id, Held { slot, version });
            upkeep
        };
        self.tend(loaded.partition, upkeep);
        self.make_room();
        true
    }

    /// An entry of a partition is gone.
    pub(super) fn remove(&self, loaded: &Loaded, id: &EntryId) {
        let mut rows = loaded.rows.lock();
        let upkeep = self.take_out(loaded, &mut rows, id);
        drop(rows);
        self.tend(loaded.partition, upkeep);
    }

    /// Takes out the rows of entries that had expired by a time; which they were, by partition. Nobody may ever ask for
    /// them again, and so find out that they left Redis.
    pub(super) fn expire(&self, by: SystemTime) -> Vec<(Partition, Vec<EntryId>)> {
        let all: Vec<_> = self.table.read().values().map(Arc::clone).collect();
        let mut gone = Vec::new();
        for loaded in all {
            let mut rows = loaded.rows.lock();
            let expired = |held: &Held| held.slot.entry.remaining(by).is_zero();
            let ids: Vec<_> =
                rows.by_id.iter().filter(|(_, held)| expired(held)).map(|(id, _)| *id).collect();
            let mut due = false;
            for id in &ids {
                due |= self.take_out(&loaded, &mut rows, id) == Upkeep::Due;
            }
            drop(rows);
            if due {
                self.tend(loaded.partition, Upkeep::Due);
            }
            if !ids.is_empty() {
                gone.push((loaded.partition, ids));
            }
        }
        gone
    }

    /// Gives everything up.
    pub(super) fn clear(&self) {
        let partitions: Vec<_> = self.table.write().drain().map(|(_, loaded)| loaded).collect();
        for loaded in partitions {
            self.retire(&loaded);
        }
    }

    /// Takes out the rows that a listing of all members did not meet: they left Redis unheard. Not those that came
    /// in after it began, nor those that Redis does not have yet.
    pub(super) fn keep_only(&self, loaded: &Loaded, listing: &Listing) {
        let gone: Vec<_> = {
            let rows = loaded.rows.lock();
            if rows.listings != listing.number {
                return;
            }
            let left = |(id, held): &(&EntryId, &Held)| {
                (1..=listing.upto).contains(&held.version) && !listing.seen.contains(*id)
            };
            rows.by_id.iter().filter(left).map(|(id, _)| *id).collect()
        };
        for id in &gone {
            self.remove(loaded, id);
        }
    }

    /// Takes all rows of a partition out and has it listed anew.
    pub(super) fn empty(&self, loaded: &Loaded) {
        let ids: Vec<_> = loaded.rows.lock().by_id.keys().copied().collect();
        for id in &ids {
            self.remove(loaded, id);
        }
        loaded.distrust();
    }

    /// Partitions and bytes held, and rows given up for want of room.
    pub(super) fn usage(&self) -> (u64, u64, u64) {
        let partitions = u64::try_from(self.table.read().len()).unwrap_or(u64::MAX);
        (partitions, self.bytes.load(Ordering::Relaxed), self.evicted.load(Ordering::Relaxed))
    }

    /// How many bytes may be held.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn take_out(&self, loaded: &Loaded, rows: &mut Rows, id: &EntryId) -> Upkeep {
        let Some(held) = rows.by_id.remove(id) else { return Upkeep::None };
        let bytes = held.slot.weight.saturating_add(ROW_OVERHEAD);
        rows.bytes = rows.bytes.saturating_sub(bytes);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        held.slot.leave();
        match held.slot.unplace() {
            Some(_) => self.index.forget(&loaded.partition),
            None => Upkeep::None,
        }
    }

    /// Gives up the partitions that were not asked for the longest, a tenth at a time.
    fn make_room(&self) {
        if self.bytes.load(Ordering::Relaxed) <= self.capacity {
            return;
        }
        let mut by_use: Vec<_> = {
            let table = self.table.read();
            table.values().map(|loaded| (loaded.used.load(Ordering::Relaxed), Arc::clone(loaded))).collect()
        };
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, loaded) in by_use {
            if self.bytes.load(Ordering::Relaxed) <= self.capacity / 10 * 9 {
                return;
            }
            let removed = self.table.write().remove(&loaded.partition).is_some();
            if removed {
                let rows = self.retire(&loaded);
                self.evicted.fetch_add(rows, Ordering::Relaxed);
            }
        }
    }

    /// Takes all rows of a partition that is out of the table out of the index.
    fn retire(&self, loaded: &Loaded) -> u64 {
        let mut rows = loaded.rows.lock();
        rows.gone = true;
        let ids: Vec<_> = rows.by_id.keys().copied().collect();
        for id in &ids {
            self.take_out(loaded, &mut rows, id);
        }
        self.bytes.fetch_sub(rows.bytes, Ordering::Relaxed);
        rows.bytes = 0;
        u64::try_from(ids.len()).unwrap_or(u64::MAX)
    }

    fn tend(&self, partition: Partition, upkeep: Upkeep) {
        if upkeep == Upkeep::Due {
            let index = Arc::clone(&self.index);
            tokio::task::spawn_blocking(move || index.upkeep(&partition));
        }
    }
}

impl Loaded {
    /// From which version on to ask for members; `None` where none was seen, and all must be listed.
    pub(super) fn since(&self) -> Option<Version> {
        let rows = self.rows.lock();
        let first = rows.recent.front().map_or(0, |(_, version)| *version);
        Some(first).filter(|_| rows.listed && !rows.gone)
    }

    /// What the members from [`Loaded::since`] on tell.
    pub(super) fn compare(&self, since: Version, members: &[(EntryId, Version)]) -> News {
        let rows = self.rows.lock();
        let seen = |member: &(EntryId, Version)| rows.recent.contains(member);
        // Another may have moved on meanwhile; what it remembers is then newer than what was asked for.
        if rows.recent.front().map_or(0, |(_, version)| *version) != since || !rows.listed {
            return News::Again;
        }
        if !rows.recent.is_empty() && !members.iter().any(seen) {
            return News::Lost;
        }
        News::Unknown(members.iter().filter(|member| rows.lacks(member)).copied().collect())
    }

    /// Those of a list that are not in memory in this version.
    pub(super) fn lacking(&self, members: &[(EntryId, Version)]) -> Vec<(EntryId, Version)> {
        let rows = self.rows.lock();
        members.iter().filter(|member| rows.lacks(member)).copied().collect()
    }

    /// The version under which Redis has an entry that was put in before that was known.
    pub(super) fn confirm(&self, id: &EntryId, version: Version) {
        if let Some(held) = self.rows.lock().by_id.get_mut(id) {
            held.version = held.version.max(version);
        }
    }

    /// Has all members listed anew before the next search.
    pub(super) fn distrust(&self) {
        self.rows.lock().listed = false;
    }

    /// A listing began with these members, the newest of all, newest last. Gives its number.
    pub(super) fn listed(&self, members: &[(EntryId, Version)]) -> u64 {
        let number = {
            let mut rows = self.rows.lock();
            rows.listed = true;
            rows.recent.clear();
            rows.listings += 1;
            rows.listings
        };
        self.note(members);
        number
    }

    /// Notes members as seen, newest last.
    pub(super) fn note(&self, members: &[(EntryId, Version)]) {
        let mut rows = self.rows.lock();
        let newest = rows.recent.back().map_or(0, |(_, version)| *version);
        for member in members.iter().filter(|(_, version)| *version > newest) {
            rows.recent.push_back(*member);
        }
        let over = rows.recent.len().saturating_sub(REMEMBERED);
        rows.recent.drain(..over);
    }
}

impl Rows {
    /// The oldest of a few rows that are older than a version.
    fn older_than(&self, version: Version) -> Option<EntryId> {
        let rank = |version: Version| version.wrapping_sub(1);
        let few = self.by_id.iter().take(SAMPLES).map(|(id, held)| (rank(held.version), *id));
        few.min().filter(|(oldest, _)| *oldest < rank(version)).map(|(_, id)| id)
    }

    fn lacks(&self, (id, version): &(EntryId, Version)) -> bool {
        // Lower, too: after a failover to a server whose clock is behind.
        self.by_id.get(id).is_none_or(|held| held.version != *version)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::index::codes::Codes;
    use crate::store::tests::{Random, entry, key, partition};

    fn partitions(bytes: u64) -> Partitions {
        Partitions::new(Arc::new(Index::new(1000)), bytes)
    }

    fn row(number: u64) -> Row {
        let codes = Codes::of(Random(number).direction(16).values()).unwrap();
        Row { entry: entry(number), codes }
    }

    fn members(numbers: std::ops::Range<u64>) -> Vec<Member> {
        numbers.map(|number| (key(number).id(), 100 + number)).collect()
    }

    type Member = (EntryId, Version);

    #[test]
    fn news_are_what_is_newer_and_a_history_that_is_another_is_found_out() {
        let partitions = partitions(1 << 20);
        let loaded = partitions.open(&partition(1));
        assert_eq!(loaded.since(), None);
        loaded.listed(&[]);
        assert_eq!(loaded.since(), Some(0), "there is nothing, and that is known");
        assert_eq!(loaded.compare(0, &members(0..1)), News::Unknown(members(0..1)));
        let first = members(0..20);
        for (number, (_, version)) in (0..).zip(&first) {
            assert!(partitions.insert(&loaded, *version, row(number)));
        }
        loaded.listed(&first);
        // The last eight are remembered.
        assert_eq!(loaded.since(), Some(112));
        assert_eq!(loaded.compare(112, &members(12..20)), News::Unknown(Vec::new()));
        assert_eq!(loaded.compare(112, &members(12..22)), News::Unknown(members(20..22)));
        // All but one were replaced or removed: the one proves what was before it.
        assert_eq!(loaded.compare(112, &members(15..16)), News::Unknown(Vec::new()));
        // The same ids under other versions are another history; so is nothing at all.
        let other: Vec<_> = members(12..20).into_iter().map(|(id, version)| (id, version + 1)).collect();
        assert_eq!(loaded.compare(112, &other), News::Lost);
        assert_eq!(loaded.compare(112, &[]), News::Lost);
    }

    #[test]
    fn an_entry_shown_before_its_version_was_known_is_not_read_again() {
        let partitions = partitions(1 << 20);
        let loaded = partitions.open(&partition(1));
        partitions.insert(&loaded, 0, row(1));
        assert_eq!(loaded.lacking(&[(key(1).id(), 101)]), [(key(1).id(), 101)]);
        loaded.confirm(&key(1).id(), 101);
        assert!(loaded.lacking(&[(key(1).id(), 101)]).is_empty());
        assert_eq!(loaded.lacking(&[(key(1).id(), 102)]), [(key(1).id(), 102)], "replaced since");
    }

    #[test]
    fn rows_that_left_are_forgotten_and_bytes_are_counted_back() {
        let partitions = partitions(1 << 20);
        let loaded = partitions.open(&partition(1));
        for number in 0..10 {
            partitions.insert(&loaded, number, row(number));
        }
        let number = loaded.listed(&[]);
        let listing = |number| Listing { number, upto: 7, seen: HashSet::from([key(3).id(), key(4).id()]) };
        partitions.keep_only(&loaded, &listing(number - 1));
        assert_eq!(partitions.index.len(&partition(1)), 10, "a listing that ends late undoes nothing");
        partitions.keep_only(&loaded, &listing(number));
        // Number 0 is not known to Redis yet, 8 and 9 came after the listing began.
        assert_eq!(partitions.index.len(&partition(1)), 5);
        partitions.remove(&loaded, &key(3).id());
        partitions.clear();
        assert_eq!(partitions.index.len(&partition(1)), 0);
        assert_eq!(partitions.usage(), (0, 0, 0));
        assert!(!partitions.insert(&loaded, 1, row(1)), "a partition given up takes nothing more");
    }

    #[test]
    fn what_has_expired_goes_unasked_and_what_has_not_stays() {
        let partitions = partitions(1 << 20);
        let loaded = partitions.open(&partition(1));
        let empty = partitions.usage().1;
        let now = SystemTime::now();
        for number in 0..10 {
            let mut row = row(number);
            row.entry.created_at = now;
            row.entry.ttl = Duration::from_secs(number + 1);
            partitions.insert(&loaded, number + 1, row);
        }
        assert_eq!(partitions.expire(now), []);
        let gone = partitions.expire(now + Duration::from_secs(4));
        let [(of, ids)] = gone.as_slice() else { panic!("{gone:?}") };
        let ids: HashSet<_> = ids.iter().copied().collect();
        assert_eq!((*of, ids), (partition(1), (0..4).map(|number| key(number).id()).collect()));
        assert_eq!(partitions.index.len(&partition(1)), 6);
        partitions.expire(now + Duration::from_mins(1));
        assert_eq!(partitions.index.len(&partition(1)), 0);
        assert_eq!(partitions.usage().1, empty, "their bytes are counted back");
    }

    #[test]
    fn the_partitions_not_asked_for_the_longest_go_first() {
        let partitions = partitions(64 << 10);
        for number in 0..200 {
            let loaded = partitions.open(&partition(number));
            partitions.insert(&loaded, 1, row(number));
            // Asked for again and again.
            assert!(partitions.get(&partition(0)).is_some());
        }
        let (count, bytes, evicted) = partitions.usage();
        assert!(bytes <= 64 << 10 && evicted > 0 && count < 200, "{bytes} {evicted} {count}");
        assert_eq!(partitions.index.len(&partition(0)), 1);
        assert_eq!(partitions.index.len(&partition(1)), 0);
    }

    #[test]
    fn one_partition_takes_no_more_than_half() {
        let partitions = partitions(64 << 10);
        let loaded = partitions.open(&partition(1));
        let taken = (0..200).filter(|number| partitions.insert(&loaded, *number + 10, row(*number))).count();
        // Newer ones were taken for older ones all the time; older ones are not.
        let held = partitions.index.len(&partition(1));
        assert!(taken == 200 && held > 10 && held < 100, "{taken} {held}");
        assert!(!partitions.insert(&loaded, 1, row(1000)), "older than all that were looked at");
    }
}
