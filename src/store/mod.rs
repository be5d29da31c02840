//! Where entries live: in process, bounded by bytes and entries, on disk too where a data directory is given,
//! with an index of embeddings beside it.
//!
//! Called by `cache` and `admin`. Decides nothing about reuse: an entry is returned as it is stored, expired
//! or not, and the caller judges it. Never sees an HTTP request.

pub mod entry;

mod disk;
mod index;
mod keeper;
mod listing;
mod load;
mod memory;
mod options;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;

use self::disk::Disk;
use self::entry::{Candidate, Entry, EntryId, Key, Partition, Placed};
use self::index::codes::Codes;
use self::index::{Index, Upkeep};
use self::keeper::Keeper;
use self::memory::{Memory, Slot};
use crate::embed::Embedding;

pub use self::listing::{Cursor, CursorError, Found, ListQuery, Page, Selector};
pub use self::options::{OpenError, StoreError, StoreOptions, StoreState, StoreUsage};

/// The most candidates that one search gives.
const MOST_CANDIDATES: usize = 1024;

/// Rows that are searched on the caller's thread: a hundred microseconds on one core. More are searched on a
/// thread for blocking work.
const SEARCHED_INLINE: usize = 8192;

/// Locks that put changes of one key in order; two keys that share one merely wait a microsecond.
const KEY_LOCKS: usize = 64;

/// The embedded store. A clone is another handle on the same one; the last to go writes what is left to disk,
/// which [`Store::close`] does without blocking a worker.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

/// The store behind its handles. The keeper and the writer reach it by weak references.
struct Inner {
    memory: Memory,
    index: Arc<Index>,
    /// Set once, before anyone else has the store; empty without a data directory.
    disk: OnceLock<Disk>,
    keeper: Keeper,
    secret: [u8; 32],
    sequence: AtomicU64,
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

impl Store {
    /// Opens the store, reading what the data directory holds. Blocks; call it before serving.
    pub fn open(options: &StoreOptions) -> Result<Self, OpenError> {
        load::open(options).map(Self)
    }

    /// The secret for keyed hashes: kept in the data directory, else made anew by each process.
    pub fn secret(&self) -> [u8; 32] {
        self.0.secret
    }

    /// The entry of a key, as stored, expired or not.
    #[expect(clippy::unused_async, reason = "the shape that stores behind a network need")]
    pub async fn get(&self, key: &Key) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.0.memory.get(key).map(|slot| Arc::clone(&slot.entry)))
    }

    /// Stores an entry: [`Store::get`] finds it when this returns. One of the same key is replaced, and its
    /// embedding goes with it.
    #[expect(clippy::unused_async, reason = "the shape that stores behind a network need")]
    pub async fn put(&self, entry: Entry) -> Result<Arc<Entry>, StoreError> {
        let entry = Arc::new(compact(entry));
        let bytes = memory::weight(&entry);
        let limit = self.0.memory.largest();
        if bytes > limit {
            return Err(StoreError::TooLarge { bytes, limit });
        }
        self.0.put(Arc::clone(&entry));
        Ok(entry)
    }

    /// Puts an entry's embedding into a partition's index, where [`Store::nearest`] finds it when this returns.
    /// `false` where that very entry (key and time) is no longer there, or its embedding does not fit.
    #[expect(clippy::unused_async, reason = "the shape that stores behind a network need")]
    pub async fn place(&self, key: &Key, created_at: SystemTime, placed: Placed) -> Result<bool, StoreError> {
        Ok(self.0.place(key, created_at, &placed))
    }

    /// The entries of a partition nearest to an embedding, best first, as stored, expired or not; at most
    /// `limit`, and at most 1024. Similarities are off by less than 0.001 at worst, 0.000002 as a rule
    /// (embeddings are kept in 16 bits a component). All entries are compared in a partition of up to
    /// [`StoreOptions::scan_limit`]; in a larger one those of the nearest clusters are.
    pub async fn nearest(
        &self,
        partition: &Partition,
        query: &Embedding,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        let limit = limit.min(MOST_CANDIDATES);
        let Some(search) = self.0.index.search(partition) else { return Ok(Vec::new()) };
        if search.cost() <= SEARCHED_INLINE {
            return Ok(search.run(query, limit));
        }
        let query = query.clone();
        tokio::task::spawn_blocking(move || search.run(&query, limit)).await.map_err(|_| StoreError::Closed)
    }

    /// Whether a partition has no embedding, so that none need be made to search it.
    #[expect(clippy::unused_async, reason = "the shape that stores behind a network need")]
    pub async fn is_empty_partition(&self, partition: &Partition) -> Result<bool, StoreError> {
        Ok(self.0.index.len(partition) == 0)
    }

    /// Removes an entry. `false` where there is none of this id.
    #[expect(clippy::unused_async, reason = "the shape that stores behind a network need")]
    pub async fn remove(&self, id: &EntryId) -> Result<bool, StoreError> {
        let removed = self.0.memory.find(id).is_some_and(|slot| self.0.remove(&slot, Cause::Removed));
        Ok(removed)
    }

    /// Counts a hit, which also tells that the entry is used and worth keeping. Free of cost to forget: a
    /// replaced or evicted entry takes its count along.
    pub fn record_hit(&self, key: &Key) {
        if let Some(slot) = self.0.memory.get(key) {
            slot.hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the store holds.
    pub fn usage(&self) -> StoreUsage {
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
            writes_dropped: disk.map_or(0, Disk::dropped),
            write_failures: disk.map_or(0, Disk::failures),
        }
    }

    /// How the store does.
    pub fn state(&self) -> StoreState {
        match self.0.disk.get().and_then(Disk::failing) {
            None => StoreState::Ok,
            Some(reason) => StoreState::Degraded(format!("entries are kept in memory alone: {reason}")),
        }
    }

    /// Waits until all that was put is on disk.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let Some(disk) = self.0.disk.get() else { return Ok(()) };
        disk.flush().await.map_err(|_| StoreError::Closed)?
    }

    /// Writes what is left to disk and gives the data directory free. Entries put after this are kept in memory
    /// alone.
    pub async fn close(&self) -> Result<(), StoreError> {
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

/// The entry without room to spare, which a cache of many would pay for many times.
fn compact(mut entry: Entry) -> Entry {
    entry.model.shrink_to_fit();
    entry.namespace.shrink_to_fit();
    entry.prompt.shrink_to_fit();
    entry.reply.text.shrink_to_fit();
    // The document may be a part of a larger buffer, which would live as long as the entry.
    entry.reply.document = Bytes::copy_from_slice(&entry.reply.document);
    entry
}

impl Inner {
    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    fn key_lock(&self, key: &Key) -> Option<&Mutex<()>> {
        // The other end of the key than the table's hash is made of.
        let [.., last] = key.0;
        self.key_locks.get(usize::from(last) % KEY_LOCKS)
    }

    fn put(&self, entry: Arc<Entry>) {
        let key = entry.key;
        let slot = Arc::new(Slot::new(entry, self.next_sequence(), None));
        let guard = self.key_lock(&key).map(Mutex::lock);
        let out = self.memory.insert(Arc::clone(&slot));
        drop(guard);
        self.retire_pushed_out(&out, &slot);
        if let Some(disk) = self.disk.get().filter(|_| !slot.is_gone()) {
            disk.put(slot);
        }
    }

    fn place(&self, key: &Key, created_at: SystemTime, placed: &Placed) -> bool {
        let Some(codes) = Codes::of(placed.embedding.values()) else { return false };
        let guard = self.key_lock(key).map(Mutex::lock);
        // No newer entry of this key comes in between; it can only be evicted or removed.
        let Some(old) = self.memory.peek(key).filter(|slot| slot.entry.created_at == created_at) else {
            return false;
        };
        let home = Some((placed.partition, index::weight(&codes)));
        let slot = Arc::new(Slot::new(Arc::clone(&old.entry), old.sequence, home));
        if slot.weight > self.memory.largest() {
            return false;
        }
        slot.hits.store(old.hits.load(Ordering::Relaxed), Ordering::Relaxed);
        // Into the index first: once in memory it may be evicted, and must be there to be forgotten.
        self.tend(&placed.partition, self.index.insert(placed.partition, &codes, &slot));
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
            disk.place(slot, placed.partition, codes);
        }
        true
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

#[cfg(test)]
mod tests;
