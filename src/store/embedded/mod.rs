//! The embedded store: entries in memory, bounded by bytes and entries, on disk too where a data directory is
//! given.
//!
//! Called by [`super::Store`] alone.

pub(crate) mod disk;
pub(super) mod keeper;
mod listing;
mod load;
pub mod transfer;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;

use self::disk::Disk;
use self::keeper::Keeper;
use super::entry::{Entry, EntryId, Key, Partition, Placed};
use super::evidence::{Evidence, Observation};
use super::index::codes::Codes;
use super::index::{self, Index, Upkeep};
use super::memory::{self, Memory, Slot};
use super::{OpenError, SharedSecret, StoreError, StoreOptions, StoreState, StoreUsage};

/// Locks that put changes of one key in order; two keys that share one merely wait a microsecond.
const KEY_LOCKS: usize = 64;

/// The embedded store's handle.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

/// The store behind its handles. The keeper and the writer reach it by weak references.
pub(super) struct Inner {
    pub(super) memory: Memory,
    pub(super) index: Arc<Index>,
    /// Set once, before anyone else has the store; empty without a data directory.
    disk: OnceLock<Disk>,
    keeper: Keeper,
    /// Kept, so that whoever watches it is not told that it ended.
    secret: watch::Sender<[u8; 32]>,
    pub(super) sequence: AtomicU64,
    key_locks: [Mutex<()>; KEY_LOCKS],
    evicted: AtomicU64,
    expired: AtomicU64,
}

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// For want of room.
    Evicted,
    /// It had expired.
    Expired,
    /// A newer one of its key took its place.
    Replaced,
    /// A person removed or purged it.
    Removed,
}

impl Embedded {
    /// See [`super::Store::open`].
    pub(super) fn open(options: &StoreOptions) -> Result<Self, OpenError> {
        load::open(options).map(Self)
    }

    #[cfg(test)]
    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(super) fn secret(&self) -> SharedSecret {
        self.0.secret.subscribe()
    }

    pub(super) fn index(&self) -> &Arc<Index> {
        &self.0.index
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.slot(key).map(|slot| Arc::clone(&slot.entry))
    }

    pub(super) fn slot(&self, key: &Key) -> Option<Arc<Slot>> {
        self.0.memory.get(key)
    }

    pub(super) fn put(&self, entry: Entry, placed: Option<&Placed>) -> Result<Arc<Entry>, StoreError> {
        let entry = Arc::new(entry.compressed());
        let bytes = memory::weight(&entry);
        let limit = self.0.memory.largest();
        if bytes > limit {
            return Err(StoreError::TooLarge { bytes, limit });
        }
        self.0.put(Arc::clone(&entry));
        if let Some(placed) = placed {
            self.0.place(&entry.key, entry.created_at, placed);
        }
        Ok(entry)
    }

    pub(super) fn place(&self, key: &Key, created_at: SystemTime, placed: &Placed) -> bool {
        self.0.place(key, created_at, placed)
    }

    pub(super) fn poison(&self, key: &Key, created_at: SystemTime, placed: Option<&Placed>) -> bool {
        let poisoned = self.0.poison(key, created_at);
        if let Some(placed) = placed.filter(|_| poisoned) {
            self.0.place(key, created_at, placed);
        }
        poisoned
    }

    pub(super) fn is_empty_partition(&self, partition: &Partition) -> bool {
        self.0.index.len(partition) == 0
    }

    pub(super) fn remove(&self, id: &EntryId) -> bool {
        self.0.memory.find(id).is_some_and(|slot| self.0.remove(&slot, Cause::Removed))
    }

    pub(super) fn record_hit(&self, key: &Key) {
        if let Some(slot) = self.0.memory.get(key) {
            slot.count_hit();
        }
    }

    pub(super) fn evidence(&self, key: &Key, created_at: SystemTime) -> Evidence {
        let slot = self.0.memory.peek(key).filter(|slot| slot.entry.created_at == created_at);
        slot.map(|slot| slot.evidence()).unwrap_or_default()
    }

    pub(super) fn all_evidence(&self) -> Vec<Evidence> {
        let slots = self.0.memory.iter();
        let observed = slots.map(|slot| (slot.sequence, slot.evidence()));
        let mut all: Vec<_> = observed.filter(|(_, evidence)| !evidence.is_empty()).collect();
        all.sort_unstable_by_key(|(sequence, _)| *sequence);
        all.into_iter().map(|(_, evidence)| evidence).collect()
    }

    pub(super) fn note_evidence(&self, key: &Key, created_at: SystemTime, observation: Observation) {
        self.0.note_evidence(key, created_at, observation);
    }

    pub(super) fn usage(&self) -> StoreUsage {
        let Inner { memory, index, disk, evicted, expired, .. } = &*self.0;
        let disk = disk.get();
        StoreUsage {
            entries: memory.len(),
            bytes: memory.weight(),
            max_bytes: memory.capacity(),
            partitions: u64::try_from(index.partitions()).unwrap_or(u64::MAX),
            evicted: evicted.load(Ordering::Relaxed),
            expired: expired.load(Ordering::Relaxed),
            corrupt_skipped: disk.map_or(0, Disk::broken),
            undecryptable: disk.map_or(0, Disk::undecryptable),
            writes_dropped: disk.map_or(0, Disk::dropped),
            write_failures: disk.map_or(0, Disk::failures),
            outages: 0,
            unanswered: 0,
        }
    }

    pub(super) fn state(&self) -> StoreState {
        let Some(disk) = self.0.disk.get() else { return StoreState::Ok };
        match (disk.failing(), disk.locked()) {
            (Some(reason), _) => StoreState::Degraded(format!("entries are kept in memory alone: {reason}")),
            (None, 0) => StoreState::Ok,
            (None, locked) => {
                StoreState::Degraded(format!("{locked} entries are encrypted under a key that is not here"))
            }
        }
    }

    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let Some(disk) = self.0.disk.get() else { return Ok(()) };
        disk.flush().await.map_err(|_| StoreError::Closed)?
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let flushed = self.flush().await;
        let inner = Arc::clone(&self.0);
        let closed = tokio::task::spawn_blocking(move || inner.disk.get().map(Disk::close)).await;
        match (flushed, closed) {
            // Closed before.
            (Err(StoreError::Closed), Ok(_)) => Ok(()),
            (flushed, Ok(_)) => flushed,
            (_, Err(_)) => Err(StoreError::Closed),
        }
    }
}

impl Inner {
    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    fn key_lock(&self, key: &Key) -> Option<&Mutex<()>> {
        // By the id, as the table: of two keys that share one, neither changes while the other does.
        let [.., last] = key.id().0;
        self.key_locks.get(usize::from(last) % KEY_LOCKS)
    }

    fn put(&self, entry: Arc<Entry>) {
        self.put_unless(entry, |_| false);
    }

    /// Puts an entry, unless this says no to the one of its key that is there; `false` where it did.
    fn put_unless(&self, entry: Arc<Entry>, keeps: impl FnOnce(&Entry) -> bool) -> bool {
        let key = entry.key;
        let guard = self.key_lock(&key).map(Mutex::lock);
        if self.memory.peek(&key).is_some_and(|there| keeps(&there.entry)) {
            return false;
        }
        let slot = Arc::new(Slot::new(entry, self.next_sequence(), None));
        let out = self.memory.insert(Arc::clone(&slot));
        drop(guard);
        self.retire_pushed_out(&out, &slot);
        if let Some(disk) = self.disk.get().filter(|_| !slot.is_gone()) {
            disk.put(slot);
        }
        true
    }

    fn place(&self, key: &Key, created_at: SystemTime, placed: &Placed) -> bool {
        let Some(codes) = Codes::of(placed.embedding.values()) else { return false };
        self.place_codes(key, created_at, placed.partition, codes)
    }

    fn place_codes(&self, key: &Key, created_at: SystemTime, partition: Partition, codes: Codes) -> bool {
        let guard = self.key_lock(key).map(Mutex::lock);
        // No newer entry of this key comes in between; it can only be evicted or removed.
        let Some(old) = self.memory.peek(key).filter(|slot| slot.entry.created_at == created_at) else {
            return false;
        };
        let home = Some((partition, index::weight(&codes)));
        let slot = Slot::new(Arc::clone(&old.entry), old.sequence, home);
        let slot = Arc::new(slot.with_evidence(old.evidence()));
        if slot.weight > self.memory.largest() {
            return false;
        }
        slot.hits.store(old.hits.load(Ordering::Relaxed), Ordering::Relaxed);
        // Into the index first: once in memory it may be evicted, and must be there to be forgotten.
        self.tend(&partition, self.index.insert(partition, &codes, &slot));
        let (replaced, out) = self.memory.replace(Arc::clone(&slot));
        drop(guard);
        self.retire_pushed_out(&out, &slot);
        if !replaced {
            slot.leave();
            self.unplace(&slot);
        }
        if slot.is_gone() {
            return false;
        }
        if let Some(disk) = self.disk.get() {
            disk.place(slot, partition, codes);
        }
        true
    }

    /// Puts an entry's poisoned copy in its place, without its embedding.
    fn poison(&self, key: &Key, created_at: SystemTime) -> bool {
        let guard = self.key_lock(key).map(Mutex::lock);
        // No newer entry of this key comes in between; it can only be evicted or removed, and is not replaced then.
        let old = self.memory.peek(key).map(|slot| Arc::clone(&slot.entry));
        let Some(old) = old.filter(|entry| entry.created_at == created_at && !entry.poisoned) else {
            return false;
        };
        let entry = Arc::new(Entry { poisoned: true, ..Entry::clone(&old) });
        let slot = Arc::new(Slot::new(entry, self.next_sequence(), None));
        let (replaced, out) = self.memory.replace(Arc::clone(&slot));
        drop(guard);
        self.retire_pushed_out(&out, &slot);
        if !replaced || slot.is_gone() {
            slot.leave();
            return false;
        }
        if let Some(disk) = self.disk.get() {
            disk.put(slot);
        }
        true
    }

    fn note_evidence(&self, key: &Key, created_at: SystemTime, observation: Observation) {
        // The slot must not be exchanged for one with its embedding meanwhile.
        let guard = self.key_lock(key).map(Mutex::lock);
        let slot = self.memory.peek(key).filter(|slot| slot.entry.created_at == created_at);
        let Some(slot) = slot else { return };
        slot.observe(observation);
        drop(guard);
        if let Some(disk) = self.disk.get() {
            disk.observe(slot);
        }
    }

    /// Deals with what an insertion of `slot` pushed out.
    fn retire_pushed_out(&self, out: &[Arc<Slot>], slot: &Arc<Slot>) {
        for gone in out {
            let same_key = gone.entry.key == slot.entry.key;
            if same_key && gone.sequence == slot.sequence && !Arc::ptr_eq(gone, slot) {
                // The same entry, before its embedding was placed.
                self.unplace(gone);
            } else {
                let replaced = same_key && gone.sequence != slot.sequence;
                self.retire(gone, if replaced { Cause::Replaced } else { Cause::Evicted });
            }
        }
    }

    /// Takes a slot's entry out of memory, index and disk. `false` where it had left before.
    fn remove(&self, slot: &Slot, cause: Cause) -> bool {
        match self.memory.remove(&slot.entry.key, slot.sequence) {
            Some(slot) => self.retire(&slot, cause),
            None => false,
        }
    }

    /// Takes an entry that is out of memory out of the index and the disk too. `false` where it had left before.
    fn retire(&self, slot: &Slot, cause: Cause) -> bool {
        if !slot.leave() {
            return false;
        }
        self.unplace(slot);
        match cause {
            Cause::Evicted => _ = self.evicted.fetch_add(1, Ordering::Relaxed),
            Cause::Expired => _ = self.expired.fetch_add(1, Ordering::Relaxed),
            Cause::Replaced | Cause::Removed => {}
        }
        if let Some(disk) = self.disk.get() {
            disk.delete([slot.sequence], cause == Cause::Removed);
        }
        true
    }

    /// Takes a slot's row out of the index.
    fn unplace(&self, slot: &Slot) {
        if let Some(home) = slot.unplace() {
            self.tend(&home, self.index.forget(&home));
        }
    }

    fn tend(&self, partition: &Partition, upkeep: Upkeep) {
        if upkeep == Upkeep::Due {
            self.keeper.tend(*partition);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.stop();
        if let Some(disk) = self.disk.get() {
            disk.close();
        }
    }
}
