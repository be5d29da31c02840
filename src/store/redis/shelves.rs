//! The partitions that this replica has in memory, and how each is kept the same as its index in Redis.
//!
//! Redis is asked before each search, in one round trip: for the members of the index whose version is not
//! below the oldest of the last few that were seen here. As a rule that is just those few: nothing is new. What
//! is newer is read and placed. If none of the few is there, Redis lost writes that were seen here (a failover,
//! an old snapshot) or they were all replaced, and the whole list of members is compared: since replication and
//! persistence keep the order of writes, one that is still there proves all before it, so there is no silent
//! hole. Entries that left Redis are found out when they are loaded, and go then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::super::entry::{EntryId, Partition};
use super::super::index::{self, Index, Upkeep};
use super::super::memory::Slot;
use super::record::Row;

/// How many of the last versions seen are remembered: one of them replaced or removed need not cost a whole
/// comparison.
const REMEMBERED: usize = 8;

/// What a row takes besides its codes and its entry: its place in the table, allocations rounded up.
const ROW_OVERHEAD: u64 = 96;
/// What a partition takes by itself.
const SHELF_OVERHEAD: u64 = 768;

/// An entry's place in the history of its index.
pub(super) type Version = u64;

/// All partitions in memory.
pub(super) struct Shelves {
    index: Arc<Index>,
    table: RwLock<HashMap<Partition, Arc<Shelf>>>,
    bytes: AtomicU64,
    capacity: u64,
    clock: AtomicU64,
    sequence: AtomicU64,
    evicted: AtomicU64,
}

/// One partition.
pub(super) struct Shelf {
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
}

impl Shelves {
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
    pub(super) fn get(&self, partition: &Partition) -> Option<Arc<Shelf>> {
        let shelf = self.table.read().get(partition).cloned()?;
        shelf.used.store(self.tick(), Ordering::Relaxed);
        Some(shelf)
    }

    /// The partition, empty and not listed yet where it is new.
    pub(super) fn open(&self, partition: &Partition) -> Arc<Shelf> {
        if let Some(shelf) = self.get(partition) {
            return shelf;
        }
        let used = self.tick();
        let mut table = self.table.write();
        let shelf = table.entry(*partition).or_insert_with(|| {
            self.bytes.fetch_add(SHELF_OVERHEAD, Ordering::Relaxed);
            Arc::new(Shelf {
                partition: *partition,
                rows: Mutex::new(Rows { bytes: SHELF_OVERHEAD, ..Rows::default() }),
                reading: tokio::sync::Mutex::default(),
                used: AtomicU64::new(used),
            })
        });
        Arc::clone(shelf)
    }

    /// Puts a row in. `false` where there is no room for it.
    pub(super) fn insert(&self, shelf: &Shelf, version: Version, row: Row) -> bool {
        let id = row.entry.key.id();
        let home = Some((shelf.partition, index::weight(&row.codes)));
        let slot =
            Arc::new(Slot::new(Arc::new(row.entry), self.sequence.fetch_add(1, Ordering::Relaxed), home));
        let bytes = slot.weight.saturating_add(ROW_OVERHEAD);
        let upkeep = {
            let mut rows = shelf.rows.lock();
            if rows.gone
                || (rows.bytes.saturating_add(bytes) > self.capacity / 2 && !rows.by_id.contains_key(&id))
            {
                return false;
            }
            self.take_out(shelf, &mut rows, &id);
            rows.bytes += bytes;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            let upkeep = self.index.insert(shelf.partition, &row.codes, &slot);
            rows.by_id.insert(id, Held { slot, version });
            upkeep
        };
        self.tend(shelf.partition, upkeep);
        self.make_room();
        true
    }

    /// An entry of a partition is gone.
    pub(super) fn remove(&self, shelf: &Shelf, id: &EntryId) {
        let mut rows = shelf.rows.lock();
        let upkeep = self.take_out(shelf, &mut rows, id);
        drop(rows);
        self.tend(shelf.partition, upkeep);
    }

    /// Gives everything up.
    pub(super) fn clear(&self) {
        let shelves: Vec<_> = self.table.write().drain().map(|(_, shelf)| shelf).collect();
        for shelf in shelves {
            self.retire(&shelf);
        }
    }

    /// The rows that have been listed but are not in a list of all members: they left Redis unheard.
    pub(super) fn keep_only(&self, shelf: &Shelf, members: &HashSet<EntryId>) {
        let gone: Vec<_> =
            shelf.rows.lock().by_id.keys().filter(|id| !members.contains(*id)).copied().collect();
        for id in &gone {
            self.remove(shelf, id);
        }
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

    fn take_out(&self, shelf: &Shelf, rows: &mut Rows, id: &EntryId) -> Upkeep {
        let Some(held) = rows.by_id.remove(id) else { return Upkeep::None };
        let bytes = held.slot.weight.saturating_add(ROW_OVERHEAD);
        rows.bytes = rows.bytes.saturating_sub(bytes);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        held.slot.leave();
        match held.slot.unplace() {
            Some(_) => self.index.forget(&shelf.partition),
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
            table.values().map(|shelf| (shelf.used.load(Ordering::Relaxed), Arc::clone(shelf))).collect()
        };
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, shelf) in by_use {
            if self.bytes.load(Ordering::Relaxed) <= self.capacity / 10 * 9 {
                return;
            }
            let removed = self.table.write().remove(&shelf.partition).is_some();
            if removed {
                let rows = self.retire(&shelf);
                self.evicted.fetch_add(rows, Ordering::Relaxed);
            }
        }
    }

    /// Takes all rows of a partition that is out of the table out of the index.
    fn retire(&self, shelf: &Shelf) -> u64 {
        let mut rows = shelf.rows.lock();
        rows.gone = true;
        let ids: Vec<_> = rows.by_id.keys().copied().collect();
        for id in &ids {
            self.take_out(shelf, &mut rows, id);
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

impl Shelf {
    /// From which version on to ask for members; `None` where none was seen, and all must be listed.
    pub(super) fn since(&self) -> Option<Version> {
        let rows = self.rows.lock();
        rows.recent.front().filter(|_| rows.listed && !rows.gone).map(|(_, version)| *version)
    }

    /// What the members from [`Shelf::since`] on tell.
    pub(super) fn compare(&self, since: Version, members: &[(EntryId, Version)]) -> News {
        let rows = self.rows.lock();
        let seen = |member: &(EntryId, Version)| rows.recent.contains(member);
        // Another may have moved on meanwhile; what it remembers is then newer than what was asked for.
        let moved = rows.recent.front().is_none_or(|(_, first)| *first > since);
        if !moved && !members.iter().any(seen) {
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

    /// Notes members as seen, newest last; `whole` where all members there are were listed.
    pub(super) fn note(&self, members: &[(EntryId, Version)], whole: bool) {
        let mut rows = self.rows.lock();
        if whole {
            rows.listed = true;
            rows.recent.clear();
        }
        let newest = rows.recent.back().map_or(0, |(_, version)| *version);
        for member in members.iter().filter(|(_, version)| *version > newest) {
            rows.recent.push_back(*member);
        }
        let over = rows.recent.len().saturating_sub(REMEMBERED);
        rows.recent.drain(..over);
    }
}

impl Rows {
    fn lacks(&self, (id, version): &(EntryId, Version)) -> bool {
        self.by_id.get(id).is_none_or(|held| held.version < *version)
    }
}
