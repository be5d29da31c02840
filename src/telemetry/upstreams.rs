//! The metrics of requests that were sent upstream, by upstream.
//!
//! Called by [`super::Metrics`]. Names come from the configuration, so that no client can make more of them.

use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::cache::outcome::Outcome;

/// The labels of a request that was sent upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    upstream: String,
    status: &'static str,
}

/// The labels of a latency.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct UpstreamMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<UpstreamLabels, Histogram>,
}

impl Default for UpstreamMetrics {
    fn default() -> Self {
        // A millisecond to nine minutes.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.6, 15));
        Self { requests: Family::default(), durations: Family::new_with_constructor(histogram) }
    }
}

impl UpstreamMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "upstream_requests",
            "Requests of clients sent upstream, by upstream and what came of them",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "upstream_duration",
            "Time until the head of upstream's reply, by upstream",
            Unit::Seconds,
            self.durations.clone(),
        );
    }

    /// Counts a request, if one was sent upstream for it; `status` is that of the response to the client.
    pub(super) fn record(&self, outcome: &Outcome, status: StatusCode) {
        let Some(upstream) = outcome.upstream.as_ref().filter(|_| !outcome.collapsed) else { return };
        if let Some(waited) = outcome.timings.upstream {
            let labels = UpstreamLabels { upstream: name(upstream) };
            self.durations.get_or_create(&labels).observe(waited.as_secs_f64());
        }
        let status = label(outcome, status);
        self.requests.get_or_create(&RequestLabels { upstream: name(upstream), status }).inc();
    }
}

fn name(upstream: &Arc<str>) -> String {
    upstream.as_ref().to_owned()
}

/// The class of upstream's status, or why there is none.
fn label(outcome: &Outcome, status: StatusCode) -> &'static str {
    if outcome.timings.upstream.is_none() {
        return match status {
            StatusCode::GATEWAY_TIMEOUT => "timeout",
            StatusCode::SERVICE_UNAVAILABLE => "shed",
            _ => "failed",
        };
    }
    match status.as_u16() {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}
