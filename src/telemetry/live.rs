//! What the admin listener's overview shows beyond the counters: counts over time, why requests missed, how near the
//! nearest prompts were, and how near those were that an entry was served for.
//!
//! Filled by [`super::Metrics`]. Bounded, in this process alone, without prompts and replies. Nothing here is touched by
//! an exact hit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use super::histogram::Similarities;
use super::series::{Counts, Series, SeriesShape, Window};
use crate::cache::decision::MissReason;
use crate::cache::outcome::{Layer, Outcome};
use crate::store::entry::EntryId;

/// Entries of which it is remembered how near the prompts were that they were served for: those used most. 400 bytes
/// each.
const ENTRIES: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Live {
    started: Instant,
    series: Mutex<Series>,
    reasons: [AtomicU64; MissReason::ALL.len()],
    hits: Similarities,
    misses: Similarities,
    below_threshold: Similarities,
    /// By the entry's id; with it when it was stored, since a later one of the same prompt has the same id.
    by_entry: Cache<EntryId, Arc<(SystemTime, Similarities)>>,
}

/// How near the nearest prompts were, in the buckets of [`super::histogram::similarity_edges`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimilarityCounts {
    /// Of lookups that were served by meaning.
    pub hits: Vec<u64>,
    /// Of lookups that were not, although something was near.
    pub misses: Vec<u64>,
    /// Of those, the ones that failed for their similarity alone; what else speaks against them was not asked.
    pub below_threshold: Vec<u64>,
}

impl Live {
    pub(super) fn new() -> Self {
        let started = Instant::now();
        Self {
            started,
            series: Mutex::new(Series::new(started)),
            reasons: Default::default(),
            hits: Similarities::default(),
            misses: Similarities::default(),
            below_threshold: Similarities::default(),
            by_entry: Cache::new(ENTRIES),
        }
    }

    /// Counts a request that was no exact hit.
    pub(super) fn record(&self, outcome: &Outcome) {
        if let Some(count) = outcome.reason.and_then(|reason| self.reasons.get(reason as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // An equal key has no neighbour.
        let Some(decision) = outcome.decision.filter(|decision| decision.likeness.is_some()) else { return };
        let similarity = decision.similarity.0;
        if outcome.layer != Layer::Semantic {
            self.misses.note(similarity);
            if outcome.reason == Some(MissReason::BelowThreshold) {
                self.below_threshold.note(similarity);
            }
            return;
        }
        self.hits.note(similarity);
        let Some(entry) = outcome.entry else { return };
        if let Some(counted) = self.by_entry.get(&entry.id).filter(|counted| counted.0 == entry.created_at) {
            return counted.1.note(similarity);
        }
        let counted = Similarities::default();
        counted.note(similarity);
        self.by_entry.insert(entry.id, Arc::new((entry.created_at, counted)));
    }

    /// Since when all this is counted.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Takes the totals over into the counts over time.
    pub(super) fn advance(&self, totals: Counts) {
        self.series.lock().advance(Instant::now(), totals);
    }

    /// The counts over time.
    pub(super) fn series(&self, window: Window, totals: Counts) -> SeriesShape {
        let mut series = self.series.lock();
        let now = Instant::now();
        series.advance(now, totals);
        series.shape(window, now, SystemTime::now())
    }

    /// How often requests missed for each reason, where they did.
    pub fn reasons(&self) -> impl Iterator<Item = (MissReason, u64)> {
        let counts = MissReason::ALL.into_iter().zip(&self.reasons);
        counts.map(|(reason, count)| (reason, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
    }

    /// How near the nearest prompts were.
    pub fn similarities(&self) -> SimilarityCounts {
        SimilarityCounts {
            hits: self.hits.counts(),
            misses: self.misses.counts(),
            below_threshold: self.below_threshold.counts(),
        }
    }

    /// How near the prompts were that this entry was served for by meaning; `None` where that is not known (any more).
    pub fn similarities_of(&self, id: &EntryId, created_at: SystemTime) -> Option<Vec<u64>> {
        let counted = self.by_entry.peek(id).filter(|counted| counted.0 == created_at)?;
        Some(counted.1.counts())
    }

    /// Forgets an entry that was removed.
    pub fn forget(&self, id: &EntryId) {
        self.by_entry.remove(id);
    }

    /// Forgets all entries, since some were purged.
    pub fn forget_all(&self) {
        self.by_entry.clear();
    }
}
