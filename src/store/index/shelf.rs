//! One partition's rows: those lately placed in a flat tail, and in a large partition the rest in clusters.
//!
//! Locks are held to append a row or to take a snapshot, never while searching or clustering.

use std::sync::Arc;

use parking_lot::RwLock;

use super::block::{self, BLOCK_ROWS, Best, Block, Row};
use super::clusters::Clusters;
use super::codes::{Codes, Query};
use crate::store::memory::Slot;

/// One partition's rows.
#[derive(Debug, Default)]
pub(super) struct Shelf(RwLock<Rows>);

#[derive(Debug, Default)]
struct Rows {
    /// Entries placed here and still in the store.
    live: usize,
    /// Rows in memory, those of entries that left included.
    held: usize,
    tail: Vec<Arc<Block>>,
    clusters: Option<Arc<Clusters>>,
}

/// What a partition needs of the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Upkeep {
    /// Nothing.
    None,
    /// [`super::Index::upkeep`], soon.
    Due,
}

impl Shelf {
    /// Appends a row.
    pub(super) fn push(&self, codes: &Codes, slot: &Arc<Slot>, scan_limit: usize) -> Upkeep {
        let slot = Arc::downgrade(slot);
        let mut rows = self.0.write();
        let rows = &mut *rows;
        if let Some(last) = rows.tail.last_mut().filter(|last| last.is_at_capacity()) {
            let (len, live) = (last.len(), last.live());
            if live * 4 <= len * 3 {
                *last = Arc::new(last.without_gone());
                rows.held = rows.held.saturating_sub(len - live);
            }
        }
        block::push(&mut rows.tail, codes.dimension(), Row::new(codes, &slot));
        rows.live += 1;
        rows.held += 1;
        // Asked again with every full block, in case the keeper was busy.
        let asks = rows.tail.last().is_some_and(|last| last.len() == BLOCK_ROWS);
        let grown = (rows.tail.len() - 1) * BLOCK_ROWS >= scan_limit;
        if asks && (grown || is_sparse(rows)) { Upkeep::Due } else { Upkeep::None }
    }

    /// An entry left the store.
    pub(super) fn forget(&self) -> Upkeep {
        let mut rows = self.0.write();
        rows.live = rows.live.saturating_sub(1);
        if rows.live.is_multiple_of(BLOCK_ROWS) && is_sparse(&rows) { Upkeep::Due } else { Upkeep::None }
    }

    /// Whether no entry is here.
    pub(super) fn is_empty(&self) -> bool {
        self.0.read().live == 0
    }

    /// Entries placed here.
    pub(super) fn live(&self) -> usize {
        self.0.read().live
    }

    /// Blocks to look at without a lock.
    pub(super) fn snapshot(&self) -> Snapshot {
        let rows = self.0.read();
        Snapshot { tail: rows.tail.clone(), clusters: rows.clusters.clone() }
    }

    /// Rewrites what has many gone rows and moves a grown tail into clusters. Long; called by the keeper
    /// alone, so that nothing else replaces blocks meanwhile.
    pub(super) fn upkeep(&self, scan_limit: usize) {
        let Snapshot { mut tail, clusters } = self.snapshot();
        // The last block is being written to; the others are only replaced here.
        tail.pop();
        let sparse = is_sparse(&self.0.read());
        if block::count(&tail) >= scan_limit {
            let mut next = clusters.as_deref().cloned();
            for dimension in dimensions(&tail) {
                let added: Vec<_> =
                    tail.iter().filter(|block| block.dimension() == dimension).cloned().collect();
                // Another dimension is another model's: its newer rows replace the older ones' clusters, whose
                // entries are left to the exact layer.
                let base = next.filter(|clusters| clusters.dimension() == dimension);
                next = Some(base.unwrap_or_else(|| Clusters::new(dimension)).absorb(&added));
            }
            self.replace(tail.len(), Vec::new(), next);
        } else if sparse {
            let kept = tail
                .iter()
                .map(|block| match block.live() {
                    0 => None,
                    live if live == block.len() => Some(Arc::clone(block)),
                    _ => Some(Arc::new(block.without_gone())),
                })
                .collect::<Vec<_>>();
            let next = clusters.as_deref().cloned().map(|clusters| clusters.absorb(&[]));
            self.replace(tail.len(), kept.into_iter().flatten().collect(), next);
        }
    }

    /// Puts `kept` in the place of the first `old` blocks of the tail.
    fn replace(&self, old: usize, kept: Vec<Arc<Block>>, clusters: Option<Clusters>) {
        let clusters = clusters.filter(|clusters| clusters.len() > 0).map(Arc::new);
        let mut rows = self.0.write();
        let old = old.min(rows.tail.len());
        rows.tail.splice(..old, kept);
        rows.held = block::count(&rows.tail) + clusters.as_ref().map_or(0, |clusters| clusters.len());
        rows.clusters = clusters;
    }
}

/// Whether more than a quarter of the rows, and more than a block's worth, belong to entries that left.
fn is_sparse(rows: &Rows) -> bool {
    rows.held.saturating_sub(rows.live) > (rows.held / 4).max(BLOCK_ROWS)
}

fn dimensions(blocks: &[Arc<Block>]) -> Vec<usize> {
    let mut dimensions: Vec<_> = blocks.iter().map(|block| block.dimension()).collect();
    dimensions.dedup();
    dimensions
}

/// A partition's rows as they were at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    tail: Vec<Arc<Block>>,
    clusters: Option<Arc<Clusters>>,
}

impl Snapshot {
    /// How many rows a search would look at.
    pub(super) fn cost(&self, scan_limit: usize) -> usize {
        let clustered = self.clusters.as_ref().map_or(0, |clusters| clusters.len());
        self.tail.len() * BLOCK_ROWS + clustered.min(scan_limit)
    }

    /// Looks at the whole tail, and at the nearest clusters until `scan_limit` rows of them were seen.
    pub(super) fn search<'a>(&'a self, query: &Query<'_>, best: &mut Best<'a>, scan_limit: usize) {
        for block in &self.tail {
            best.scan(block);
        }
        if let Some(clusters) = &self.clusters {
            clusters.search(query, best, scan_limit);
        }
    }

    /// All blocks.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.tail.iter().chain(self.clusters.iter().flat_map(|clusters| clusters.blocks()))
    }
}
