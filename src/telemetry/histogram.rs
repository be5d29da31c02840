//! Counts of what was measured, in buckets: without a lock and without memory of single values.
//!
//! Filled by [`super::Metrics`]; shown by `/metrics` and by the admin listener's overview.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use serde::{Deserialize, Serialize};

use crate::rate::rounded;

/// Upper bounds of the latencies' buckets, in seconds: 10 µs to 5 minutes, each 2.4 times the one before.
const BOUNDS: [f64; 20] = bounds();

const fn bounds() -> [f64; 20] {
    let (mut bounds, mut bound, mut at) = ([0.0; 20], 0.000_01, 0);
    while at < bounds.len() {
        #[expect(clippy::indexing_slicing, reason = "of a constant, checked when it is compiled")]
        {
            bounds[at] = bound;
        }
        bound *= 2.4;
        at += 1;
    }
    bounds
}

/// Buckets of a similarity from 0 to 1, each 0.02 wide.
pub const SIMILARITY_BUCKETS: usize = 50;

/// Latencies, as a Prometheus histogram. A clone is another handle on the same one.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// One for each bound, and one for what is beyond the last.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A picture of [`Latencies`].
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

/// [`Latency`] as people see it: counts between [`edges_ms`], and what is estimated from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyShape {
    /// How many lay between each two edges; the last counts what is beyond as well.
    pub counts: Vec<u64>,
    /// The median in milliseconds, within its bucket estimated; `None` where nothing was measured.
    pub p50_ms: Option<f64>,
    /// The 99th percentile, likewise.
    pub p99_ms: Option<f64>,
}

impl Latencies {
    /// Counts one.
    pub fn observe(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let at = BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(bucket) = self.0.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        // Overflows after 580 years.
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.0.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn picture(&self) -> Latency {
        let mut counts = [0; BOUNDS.len() + 1];
        for (count, bucket) in counts.iter_mut().zip(&self.0.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        Latency { counts, sum: Duration::from_nanos(self.0.nanoseconds.load(Ordering::Relaxed)) }
    }
}

impl TypedMetric for Latencies {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Latencies {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Latency { counts, sum } = self.picture();
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// The edges between which [`LatencyShape::counts`] counts, in milliseconds: one more than there are counts.
pub fn edges_ms() -> Vec<f64> {
    std::iter::once(0.0).chain(BOUNDS.map(milliseconds)).collect()
}

fn milliseconds(seconds: f64) -> f64 {
    rounded(seconds * 1000.0)
}

impl Latency {
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// As people see it.
    pub fn shape(&self) -> LatencyShape {
        let mut counts = self.counts.to_vec();
        let beyond = counts.pop().unwrap_or_default();
        if let Some(last) = counts.last_mut() {
            *last += beyond;
        }
        LatencyShape {
            p50_ms: self.quantile(0.5).map(milliseconds),
            p99_ms: self.quantile(0.99).map(milliseconds),
            counts,
        }
    }

    /// The value below which this share lies, in seconds, taken to be spread evenly over its bucket.
    fn quantile(&self, share: f64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let as_number = |count: u64| count as f64;
        let wanted = as_number(self.count()) * share;
        let (mut below, mut lower) = (0, 0.0);
        for (count, bound) in self.counts.iter().zip(BOUNDS) {
            let with = below + count;
            if *count > 0 && as_number(with) >= wanted {
                let part = (wanted - as_number(below)) / as_number(*count);
                return Some(lower + (bound - lower) * part);
            }
            (below, lower) = (with, bound);
        }
        (self.count() > 0).then_some(lower)
    }
}

/// How many similarities lay in each fiftieth from 0 to 1. What is below counts as 0.
#[derive(Debug)]
pub struct Similarities([AtomicU64; SIMILARITY_BUCKETS]);

impl Default for Similarities {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Similarities {
    /// Counts one.
    pub fn note(&self, similarity: f32) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 49; what is no number is 0"
        )]
        // The smallest step above keeps 0.7, which is no binary number, in the bucket that begins with it.
        let at = ((similarity.clamp(0.0, 1.0) * 50.0 + 1e-4) as usize).min(SIMILARITY_BUCKETS - 1);
        if let Some(bucket) = self.0.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were in each.
    pub fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }
}

/// The edges of the buckets of [`Similarities`]: one more than there are counts.
pub fn similarity_edges() -> Vec<f64> {
    (0_u32..=50).map(|step| f64::from(step) / 50.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_their_buckets() {
        let latencies = Latencies::default();
        assert_eq!(latencies.picture().shape().p50_ms, None);
        for _ in 0..98 {
            latencies.observe(Duration::from_millis(3));
        }
        for _ in 0..2 {
            latencies.observe(Duration::from_secs(2));
        }
        let picture = latencies.picture();
        let LatencyShape { counts, p50_ms, p99_ms } = picture.shape();
        assert_eq!((counts.iter().sum::<u64>(), counts.len() + 1), (100, edges_ms().len()));
        assert!(p50_ms.is_some_and(|p50| (1.0..5.0).contains(&p50)), "{p50_ms:?}");
        assert!(p99_ms.is_some_and(|p99| (1000.0..4000.0).contains(&p99)), "{p99_ms:?}");
    }

    #[test]
    fn what_is_beyond_all_bounds_is_in_the_last_bucket() {
        let latencies = Latencies::default();
        latencies.observe(Duration::from_hours(1));
        assert_eq!(latencies.picture().shape().counts.last(), Some(&1));
    }

    #[test]
    fn a_similarity_is_in_the_bucket_that_begins_with_it() {
        for (similarity, at) in
            [(0.0, 0), (-1.0, 0), (0.7, 35), (0.719, 35), (0.98, 49), (1.0, 49), (f32::NAN, 0)]
        {
            let similarities = Similarities::default();
            similarities.note(similarity);
            assert_eq!(similarities.counts().get(at), Some(&1), "{similarity}");
        }
        assert_eq!(similarity_edges().len(), SIMILARITY_BUCKETS + 1);
    }
}
