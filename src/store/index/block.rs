//! Rows of an index, a few hundred together: what a scan reads lies side by side, and a snapshot of a
//! partition is a list of counted references to blocks.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use super::codes::{Codes, Query};
use crate::store::entry::{Candidate, Partition};
use crate::store::memory::Slot;

/// Rows a block holds. Small enough that copying one, when a writer meets a reader, takes microseconds.
pub(super) const BLOCK_ROWS: usize = 256;

/// Rows of one dimension. The slots are held weakly: an entry that left the store frees its memory at once,
/// and its row goes when the block is next rewritten.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    dimension: usize,
    high: Vec<i8>,
    low: Vec<i8>,
    scales: Vec<f32>,
    slots: Vec<Weak<Slot>>,
}

/// One row of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) high: &'a [i8],
    pub(super) low: &'a [i8],
    pub(super) scale: f32,
    pub(super) slot: &'a Weak<Slot>,
}

impl Block {
    /// An empty block for rows of this dimension.
    pub(super) fn new(dimension: usize) -> Self {
        Self { dimension, ..Self::default() }
    }

    /// Whether a row of this dimension fits in.
    pub(super) fn takes(&self, dimension: usize) -> bool {
        self.dimension == dimension && self.len() < BLOCK_ROWS
    }

    /// Rows, those of entries that left included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the next row would make it allocate: the moment to look for rows that can go instead.
    pub(super) fn is_at_capacity(&self) -> bool {
        self.slots.len() == self.slots.capacity()
    }

    /// Rows whose entries are still in the store.
    pub(super) fn live(&self) -> usize {
        self.slots.iter().filter(|slot| slot.strong_count() > 0).count()
    }

    /// Appends a row.
    pub(super) fn push(&mut self, row: Row<'_>) {
        self.make_room();
        self.high.extend_from_slice(row.high);
        self.low.extend_from_slice(row.low);
        self.scales.push(row.scale);
        self.slots.push(Weak::clone(row.slot));
    }

    /// Grows by halves up to a whole block: a scope of three entries must not pay for three hundred.
    fn make_room(&mut self) {
        let rows = self.slots.len();
        if rows < self.slots.capacity() {
            return;
        }
        let more = (rows / 2).clamp(1, BLOCK_ROWS.saturating_sub(rows).max(1));
        self.high.reserve_exact(more * self.dimension);
        self.low.reserve_exact(more * self.dimension);
        self.scales.reserve_exact(more);
        self.slots.reserve_exact(more);
    }

    /// A copy without the rows whose entries left.
    pub(super) fn without_gone(&self) -> Self {
        let mut kept = Self::new(self.dimension);
        for row in self.rows().filter(|row| row.slot.strong_count() > 0) {
            kept.push(row);
        }
        kept
    }

    /// Gives back memory kept for more rows.
    pub(super) fn shrink(&mut self) {
        self.high.shrink_to_fit();
        self.low.shrink_to_fit();
        self.scales.shrink_to_fit();
        self.slots.shrink_to_fit();
    }

    /// The rows in order.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let high = self.high.chunks_exact(self.dimension.max(1));
        let low = self.low.chunks_exact(self.dimension.max(1));
        high.zip(low).zip(&self.scales).zip(&self.slots).map(|(((high, low), &scale), slot)| Row {
            high,
            low,
            scale,
            slot,
        })
    }

    fn row(&self, number: usize) -> Option<Row<'_>> {
        let start = number * self.dimension;
        Some(Row {
            high: self.high.get(start..start + self.dimension)?,
            low: self.low.get(start..start + self.dimension)?,
            scale: *self.scales.get(number)?,
            slot: self.slots.get(number)?,
        })
    }

    /// How many components its rows have.
    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// The high plane and the scales, for [`super::codes::nearest`].
    pub(super) fn planes(&self) -> (&[i8], &[f32]) {
        (&self.high, &self.scales)
    }
}

impl<'a> Row<'a> {
    /// The row of a slot's codes.
    pub(super) fn new(codes: &'a Codes, slot: &'a Weak<Slot>) -> Self {
        Self { high: &codes.high, low: &codes.low, scale: codes.scale, slot }
    }

    /// The codes by themselves.
    pub(super) fn codes(&self) -> Codes {
        Codes { high: self.high.into(), low: self.low.into(), scale: self.scale }
    }
}

/// Appends a row to the last block of a list, or to a new one.
pub(super) fn push(blocks: &mut Vec<Arc<Block>>, dimension: usize, row: Row<'_>) {
    if let Some(block) = blocks.last_mut().filter(|block| block.takes(dimension)) {
        // Copies the block where a reader holds it; the reader goes on with what it saw.
        Arc::make_mut(block).push(row);
    } else {
        let mut block = Block::new(dimension);
        block.push(row);
        blocks.push(Arc::new(block));
    }
}

/// Rows in a list of blocks.
pub(super) fn count(blocks: &[Arc<Block>]) -> usize {
    blocks.iter().map(|block| block.len()).sum()
}

/// The best rows met so far: more of them than asked for, since ranks are a little off, so that the exact
/// similarities decide among these.
pub(super) struct Best<'a> {
    partition: Partition,
    query: &'a Query<'a>,
    limit: usize,
    room: usize,
    heap: BinaryHeap<Ranked<'a>>,
    scratch: Vec<f32>,
}

struct Ranked<'a> {
    rank: f32,
    slot: Arc<Slot>,
    row: Row<'a>,
}

impl<'a> Best<'a> {
    /// For the best `limit` rows of a partition.
    pub(super) fn new(partition: Partition, query: &'a Query<'a>, limit: usize) -> Self {
        let room = limit.saturating_mul(4).saturating_add(16);
        Self {
            partition,
            query,
            limit,
            room,
            heap: BinaryHeap::new(),
            scratch: Vec::with_capacity(BLOCK_ROWS),
        }
    }

    /// Looks at every row of a block.
    pub(super) fn scan(&mut self, block: &'a Block) {
        if block.dimension != self.query.dimension() {
            return;
        }
        self.scratch.clear();
        self.query.rank(&block.high, &block.scales, &mut self.scratch);
        for (number, &rank) in self.scratch.iter().enumerate() {
            if self.heap.len() >= self.room && self.heap.peek().is_some_and(|worst| rank <= worst.rank) {
                continue;
            }
            let Some(row) = block.row(number) else { continue };
            // The slot knows its own partition; a row in the wrong one must never be served.
            let slot = row.slot.upgrade().filter(|slot| slot.is_in(&self.partition));
            let Some(slot) = slot else { continue };
            self.heap.push(Ranked { rank, slot, row });
            if self.heap.len() > self.room {
                self.heap.pop();
            }
        }
    }

    /// The best rows with their exact similarities, best first; of equals the newest.
    pub(super) fn finish(self) -> Vec<Candidate> {
        let mut scored: Vec<_> = self
            .heap
            .into_iter()
            .map(|Ranked { slot, row, .. }| (self.query.similarity(row.high, row.low, row.scale), slot))
            .collect();
        scored.sort_unstable_by(|(a, a_slot), (b, b_slot)| {
            b.0.total_cmp(&a.0).then(b_slot.sequence.cmp(&a_slot.sequence))
        });
        scored.truncate(self.limit);
        scored
            .into_iter()
            .map(|(similarity, slot)| Candidate { entry: Arc::clone(&slot.entry), similarity })
            .collect()
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked<'_> {}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked<'_> {
    /// The worst rank is the greatest, so that the heap gives it up first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank.total_cmp(&self.rank)
    }
}
