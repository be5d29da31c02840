//! Embeddings, one index a partition: a search never sees another partition's rows.
//!
//! Called by the store alone. A partition is a flat list while it is small, scanned whole and thus exact, and
//! in clusters when it is large. Rows hold their entries weakly; the store says when one left.

mod block;
mod clusters;
pub(super) mod codes;
mod shelf;

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use self::block::Best;
use self::codes::{Codes, Query};
use self::shelf::Shelf;
pub(super) use self::shelf::Upkeep;
use super::StoreError;
use super::entry::{Candidate, Partition};
use super::memory::Slot;
use crate::embed::Embedding;

/// Locks over the table of partitions; each is held for a look-up only.
const STRIPES: usize = 16;

/// Rows that are searched on the caller's thread: a hundred microseconds on one core. More are searched on a
/// thread for blocking work.
const SEARCHED_INLINE: usize = 8192;

/// Bytes that a row takes besides its two planes: scale, reference, its share of blocks and centres.
const ROW_OVERHEAD: u64 = 96;

type Stripe = RwLock<HashMap<Partition, Arc<Shelf>>>;

/// All partitions' indexes.
#[derive(Debug)]
pub(super) struct Index {
    stripes: [Stripe; STRIPES - 1],
    last: Stripe,
    /// Held while blocks are replaced: two at it would undo each other's work.
    tending: Mutex<()>,
    scan_limit: usize,
}

/// A search prepared: what it will look at is fixed, and no lock is held.
#[derive(Debug)]
pub(super) struct Search {
    partition: Partition,
    snapshot: shelf::Snapshot,
    scan_limit: usize,
}

impl Index {
    /// An empty index. A partition of more than `scan_limit` rows is clustered, and a search of it looks at
    /// about as many.
    pub(super) fn new(scan_limit: usize) -> Self {
        Self {
            stripes: std::array::from_fn(|_| RwLock::default()),
            last: RwLock::default(),
            tending: Mutex::default(),
            scan_limit: scan_limit.max(1),
        }
    }

    fn stripe(&self, partition: &Partition) -> &Stripe {
        let [first, ..] = partition.0;
        self.stripes.get(usize::from(first) % STRIPES).unwrap_or(&self.last)
    }

    fn stripes(&self) -> impl Iterator<Item = &Stripe> {
        self.stripes.iter().chain([&self.last])
    }

    /// Puts a slot's row into a partition.
    pub(super) fn insert(&self, partition: Partition, codes: &Codes, slot: &Arc<Slot>) -> Upkeep {
        let stripe = self.stripe(&partition);
        // Appended under the table's lock, so that an emptied partition is not dropped in between.
        if let Some(shelf) = stripe.read().get(&partition) {
            return shelf.push(codes, slot, self.scan_limit);
        }
        let mut stripe = stripe.write();
        stripe.entry(partition).or_default().push(codes, slot, self.scan_limit)
    }

    /// A slot with a row in this partition left the store.
    pub(super) fn forget(&self, partition: &Partition) -> Upkeep {
        let stripe = self.stripe(partition);
        let (upkeep, is_empty) = match stripe.read().get(partition) {
            Some(rows) => (rows.forget(), rows.is_empty()),
            None => return Upkeep::None,
        };
        if is_empty
            && let Place::Occupied(place) = stripe.write().entry(*partition)
            && place.get().is_empty()
        {
            place.remove();
            return Upkeep::None;
        }
        upkeep
    }

    /// How many entries are placed in a partition.
    pub(super) fn len(&self, partition: &Partition) -> usize {
        self.stripe(partition).read().get(partition).map_or(0, |shelf| shelf.live())
    }

    /// How many partitions have entries.
    pub(super) fn partitions(&self) -> usize {
        self.stripes().map(|stripe| stripe.read().len()).sum()
    }

    /// Prepares a search; `None` where there is nothing to search.
    pub(super) fn search(&self, partition: &Partition) -> Option<Search> {
        let snapshot = self.stripe(partition).read().get(partition)?.snapshot();
        Some(Search { partition: *partition, snapshot, scan_limit: self.scan_limit })
    }

    /// The entries of a partition nearest to an embedding, best first, at most `limit`.
    pub(super) async fn nearest(
        &self,
        partition: &Partition,
        query: &Embedding,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        let Some(search) = self.search(partition) else { return Ok(Vec::new()) };
        if search.cost() <= SEARCHED_INLINE {
            return Ok(search.run(query, limit));
        }
        let query = query.clone();
        tokio::task::spawn_blocking(move || search.run(&query, limit)).await.map_err(|_| StoreError::Closed)
    }

    /// Does what [`Upkeep::Due`] asked for. Long.
    pub(super) fn upkeep(&self, partition: &Partition) {
        let found = self.stripe(partition).read().get(partition).map(Arc::clone);
        if let Some(found) = found {
            let _tending = self.tending.lock();
            found.upkeep(self.scan_limit);
        }
    }

    /// Visits the rows of a partition whose entries are still in the store and wanted.
    pub(super) fn for_each_row_of(
        &self,
        partition: &Partition,
        wanted: impl Fn(&Slot) -> bool,
        mut visit: impl FnMut(&Slot, Codes),
    ) {
        let Some(snapshot) = self.stripe(partition).read().get(partition).map(|shelf| shelf.snapshot())
        else {
            return;
        };
        for row in snapshot.blocks().flat_map(|block| block.rows()) {
            if let Some(slot) = row.slot.upgrade().filter(|slot| slot.is_in(partition) && wanted(slot)) {
                visit(&slot, row.codes());
            }
        }
    }

    /// Visits every row of an entry that is still in the store, to write the disk anew.
    pub(super) fn for_each_row(&self, mut visit: impl FnMut(Arc<Slot>, Codes)) {
        for stripe in self.stripes() {
            let shelves: Vec<_> = stripe.read().values().cloned().collect();
            for snapshot in shelves.iter().map(|shelf| shelf.snapshot()) {
                for row in snapshot.blocks().flat_map(|block| block.rows()) {
                    if let Some(slot) = row.slot.upgrade() {
                        visit(slot, row.codes());
                    }
                }
            }
        }
    }
}

impl Search {
    /// How many rows will be looked at, to choose the thread.
    pub(super) fn cost(&self) -> usize {
        self.snapshot.cost(self.scan_limit)
    }

    /// The best entries, best first. An embedding of another dimension finds nothing.
    pub(super) fn run(&self, embedding: &Embedding, limit: usize) -> Vec<Candidate> {
        let Some(query) = Query::of(embedding.values()) else { return Vec::new() };
        let mut best = Best::new(self.partition, &query, limit);
        self.snapshot.search(&query, &mut best, self.scan_limit);
        best.finish()
    }
}

/// The bytes that a row of these codes takes.
pub(super) fn weight(codes: &Codes) -> u64 {
    u64::try_from(codes.dimension()).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(ROW_OVERHEAD)
}
