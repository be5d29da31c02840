//! A large partition's rows in clusters of neighbours, so that a search looks only at the nearest ones: an
//! inverted file (Jégou, Douze, Schmid, 2011) whose clusters split in two when they grow, as in `SPFresh` (Xu et
//! al., SOSP 2023), so that it is never built anew.
//!
//! Chosen over the graph crates by measurement, on one core with 384 components and clustered rows:
//! `instant-distance` 0.6 took 1300 µs a row to build 65,536 rows and searched no faster than a scan of them
//! (0.7 ms); `hnsw_rs` 0.3 took 260 µs a row and 2.9 kB of memory besides the vector at 20,000 rows, searched
//! slower than the scan, and cannot delete. Clusters cost no memory beyond their centres, delete by rewriting a
//! block, and read memory in order.
//!
//! Values of this module are immutable snapshots: the keeper makes the next one beside the one in use.

use std::sync::Arc;

use super::block::{self, BLOCK_ROWS, Best, Block};
use super::codes::Query;
use super::codes::{self, Codes};

/// Rows at which a cluster is split.
const CLUSTER_ROWS: usize = BLOCK_ROWS;
/// Rounds of 2-means for a split; its centres hardly move after these.
const ROUNDS: usize = 6;

/// The clusters of one partition, all of one dimension.
#[derive(Debug, Clone)]
pub(super) struct Clusters {
    dimension: usize,
    /// The centres, in the order of the clusters; their slots are empty.
    centres: Block,
    rows: Vec<Vec<Arc<Block>>>,
}

impl Clusters {
    /// One empty cluster around nothing.
    pub(super) fn new(dimension: usize) -> Self {
        Self { dimension, centres: Block::new(dimension), rows: Vec::new() }
    }

    /// How many components its rows have.
    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// All blocks.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.rows.iter().flatten()
    }

    /// Rows, those of entries that left included.
    pub(super) fn len(&self) -> usize {
        self.blocks().map(|block| block.len()).sum()
    }

    /// Looks at the clusters nearest to the query until `rows` rows were seen.
    pub(super) fn search<'a>(&'a self, query: &Query<'_>, best: &mut Best<'a>, rows: usize) {
        if query.dimension() != self.dimension {
            return;
        }
        let (high, scales) = self.centres.planes();
        let mut ranks = Vec::with_capacity(scales.len());
        query.rank(high, scales, &mut ranks);
        let mut order: Vec<_> = ranks.into_iter().zip(&self.rows).collect();
        order.sort_unstable_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut seen = 0;
        for (_, cluster) in order {
            for block in cluster {
                seen += block.len();
                best.scan(block);
            }
            if seen >= rows {
                break;
            }
        }
    }

    /// Takes more rows in, leaves out those whose entries left, and splits what has grown.
    pub(super) fn absorb(mut self, added: &[Arc<Block>]) -> Self {
        self.drop_gone();
        if self.rows.is_empty() {
            let mut all = Vec::new();
            for block in added {
                gather(&mut all, block);
            }
            self.add_cluster(all);
        } else {
            self.distribute(added);
        }
        self.split_grown();
        for block in self.rows.iter_mut().flatten() {
            // Only what was written just now is not shared with the snapshot in use.
            if let Some(block) = Arc::get_mut(block) {
                block.shrink();
            }
        }
        self
    }

    /// Rewrites blocks of which a quarter is gone, and gives up clusters that shrank to little.
    fn drop_gone(&mut self) {
        let mut scattered = Vec::new();
        for cluster in &mut self.rows {
            let live: usize = cluster.iter().map(|block| block.live()).sum();
            if live * 4 > block::count(cluster) * 3 && live >= CLUSTER_ROWS / 8 {
                continue;
            }
            let mut kept = Vec::new();
            for block in cluster.drain(..) {
                gather(&mut kept, &block);
            }
            if live >= CLUSTER_ROWS / 8 {
                *cluster = kept;
            } else {
                scattered.append(&mut kept);
            }
        }
        self.drop_empty();
        if self.rows.is_empty() {
            self.add_cluster(scattered);
        } else {
            self.distribute(&scattered);
        }
    }

    fn drop_empty(&mut self) {
        let mut centres = Block::new(self.dimension);
        for (centre, _) in self.centres.rows().zip(&self.rows).filter(|(_, cluster)| !cluster.is_empty()) {
            centres.push(centre);
        }
        self.centres = centres;
        self.rows.retain(|cluster| !cluster.is_empty());
    }

    /// Gives each row to the cluster whose centre is nearest.
    fn distribute(&mut self, rows: &[Arc<Block>]) {
        let (high, scales) = self.centres.planes();
        let (mut ranks, mut scratch) = (Vec::new(), Vec::new());
        for block in rows {
            for row in block.rows().filter(|row| row.slot.strong_count() > 0) {
                codes::widen(row.high, &mut ranks);
                let cluster = codes::nearest(&ranks, high, scales, &mut scratch);
                if let Some(cluster) = cluster.and_then(|number| self.rows.get_mut(number)) {
                    block::push(cluster, self.dimension, row);
                }
            }
        }
    }

    fn add_cluster(&mut self, rows: Vec<Arc<Block>>) {
        if let Some(centre) = self.centre(&rows) {
            self.centres.push(block::Row::new(&centre, &std::sync::Weak::new()));
            self.rows.push(rows);
        }
    }

    /// `None` where there are no rows.
    fn centre(&self, rows: &[Arc<Block>]) -> Option<Codes> {
        // Rows that cancel out have no centre; any direction serves them as well as another.
        centre(self.dimension, rows).or_else(|| first(rows))
    }

    /// Splits clusters until none is too large, then gives the rows concerned to whichever centre is nearest
    /// now: a cut through a group of neighbours would otherwise part them for good.
    fn split_grown(&mut self) {
        let mut pile = Vec::new();
        for cluster in &mut self.rows {
            if block::count(cluster) > CLUSTER_ROWS {
                pile.push(std::mem::take(cluster));
            }
        }
        self.drop_empty();
        let mut moved = Vec::new();
        while let Some(cluster) = pile.pop() {
            if block::count(&cluster) > CLUSTER_ROWS {
                pile.extend(split(self.dimension, &cluster));
            } else if let Some(centre) = self.centre(&cluster) {
                self.centres.push(block::Row::new(&centre, &std::sync::Weak::new()));
                self.rows.push(Vec::new());
                moved.extend(cluster);
            }
        }
        self.distribute(&moved);
        self.drop_empty();
    }
}

/// Appends the rows of a block whose entries are still there.
fn gather(blocks: &mut Vec<Arc<Block>>, block: &Block) {
    for row in block.rows().filter(|row| row.slot.strong_count() > 0) {
        block::push(blocks, block.dimension(), row);
    }
}

/// The mean direction of rows.
fn centre(dimension: usize, blocks: &[Arc<Block>]) -> Option<Codes> {
    let mut sums = vec![0.0_f32; dimension];
    for row in blocks.iter().flat_map(|block| block.rows()) {
        for (sum, &high) in sums.iter_mut().zip(row.high) {
            *sum += f32::from(high) * row.scale;
        }
    }
    unit(&sums)
}

/// A direction of length one: what is nearest to it must not depend on how much its rows agree.
fn unit(values: &[f32]) -> Option<Codes> {
    Codes::of(crate::embed::Embedding::new(values.to_vec())?.values())
}

fn first(blocks: &[Arc<Block>]) -> Option<Codes> {
    blocks.iter().flat_map(|block| block.rows()).next().map(|row| row.codes())
}

/// Splits rows in two by 2-means, beginning with the row farthest from the centre and the one farthest from
/// that. Where that would cut off a sliver, which would be probed in vain and leave the rest as large as it
/// was, the cut goes through the middle instead.
fn split(dimension: usize, blocks: &[Arc<Block>]) -> [Vec<Arc<Block>>; 2] {
    let from = centre(dimension, blocks).or_else(|| first(blocks));
    let one = from.and_then(|from| farthest(blocks, &from));
    let other = one.as_ref().and_then(|one| farthest(blocks, one));
    let mut halves = [Vec::new(), Vec::new()];
    if let (Some(one), Some(other)) = (one, other) {
        let mut centres = [one, other];
        for _ in 0..ROUNDS {
            let sides = sides(dimension, blocks, &centres);
            halves = divide(dimension, blocks, sides.iter().map(|side| *side >= 0.0));
            let [left, right] = &halves;
            if block::count(left).min(block::count(right)) < CLUSTER_ROWS / 8 {
                return divide_evenly(dimension, blocks, &sides);
            }
            if let (Some(left), Some(right)) = (centre(dimension, left), centre(dimension, right)) {
                centres = [left, right];
            }
        }
    }
    halves
}

/// How much nearer each row is to the first of two centres than to the second.
fn sides(dimension: usize, blocks: &[Arc<Block>], centres: &[Codes; 2]) -> Vec<f32> {
    let mut pair = Block::new(dimension);
    for centre in centres {
        pair.push(block::Row::new(centre, &std::sync::Weak::new()));
    }
    let (high, scales) = pair.planes();
    let (mut widened, mut ranks) = (Vec::new(), Vec::new());
    let rows = blocks.iter().flat_map(|block| block.rows());
    rows.map(|row| {
        codes::widen(row.high, &mut widened);
        codes::ranks(&widened, high, scales, &mut ranks);
        ranks.iter().copied().reduce(|first, second| first - second).unwrap_or(0.0)
    })
    .collect()
}

fn divide_evenly(dimension: usize, blocks: &[Arc<Block>], sides: &[f32]) -> [Vec<Arc<Block>>; 2] {
    let mut order: Vec<_> = sides.iter().enumerate().collect();
    order.sort_unstable_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut left = vec![false; sides.len()];
    for (row, _) in order.iter().take(sides.len() / 2) {
        if let Some(left) = left.get_mut(*row) {
            *left = true;
        }
    }
    divide(dimension, blocks, left.into_iter())
}

fn divide(dimension: usize, blocks: &[Arc<Block>], left: impl Iterator<Item = bool>) -> [Vec<Arc<Block>>; 2] {
    let mut halves = [Vec::new(), Vec::new()];
    let [one, other] = &mut halves;
    for (row, left) in blocks.iter().flat_map(|block| block.rows()).zip(left) {
        block::push(if left { one } else { other }, dimension, row);
    }
    halves
}

/// The row least similar to `from`.
fn farthest(blocks: &[Arc<Block>], from: &Codes) -> Option<Codes> {
    let (mut ranks, mut scratch) = (Vec::new(), Vec::new());
    codes::widen(&from.high, &mut ranks);
    let mut worst: Option<(f32, block::Row<'_>)> = None;
    for block in blocks {
        let (high, scales) = block.planes();
        codes::ranks(&ranks, high, scales, &mut scratch);
        for (&rank, row) in scratch.iter().zip(block.rows()) {
            if worst.is_none_or(|(least, _)| rank < least) {
                worst = Some((rank, row));
            }
        }
    }
    worst.map(|(_, row)| row.codes())
}
