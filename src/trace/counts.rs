//! The metrics of exported spans.
//!
//! Counted by [`super::export`], registered by `telemetry`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    reason: &'static str,
}

/// What became of ended spans. Clones count together.
#[derive(Debug, Clone)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub exported: Counter,
    /// Dropped: more ended than the collector took.
    pub queue_full: Counter,
    /// Dropped: the collector could not be reached, or did not take them.
    pub failed: Counter,
    dropped: Family<DropLabels, Counter>,
}

impl Default for SpanCounts {
    fn default() -> Self {
        let dropped = Family::<DropLabels, Counter>::default();
        let of = |reason| dropped.get_or_create_owned(&DropLabels { reason });
        let (queue_full, failed) = (of("queue-full"), of("export-failed"));
        Self { exported: Counter::default(), queue_full, failed, dropped }
    }
}

impl SpanCounts {
    /// Makes them visible.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("spans_exported", "Spans that the collector took", self.exported.clone());
        registry.register(
            "spans_dropped",
            "Spans given up, because too many were waiting or the collector did not take them",
            self.dropped.clone(),
        );
    }
}
