//! The metrics of stored replies on trial: what mode observe and audits have shown.
//!
//! Called by [`super`], which takes them over from the cache when the metrics are asked for.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::cache::comparison::Agreement;
use crate::cache::trial::Trials;

/// A gauge of a share.
type Share = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgreementLabels {
    agreement: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObservationLabels {
    layer: &'static str,
    agreement: &'static str,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TrialMetrics {
    audits: Family<AgreementLabels, Counter>,
    skipped: Counter,
    poisoned: Counter,
    false_hit_rate: Share,
    false_hit_rate_low: Share,
    false_hit_rate_high: Share,
    observations: Family<ObservationLabels, Counter>,
}

impl TrialMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "audits",
            "Audited semantic hits by what the fresh reply said",
            self.audits.clone(),
        );
        for (name, help, counter) in [
            ("audits_skipped", "Hits drawn for an audit for which there was no room", &self.skipped),
            ("audits_poisoned", "Entries that an audit contradicted", &self.poisoned),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            (
                "audit_false_hit_rate",
                "Contradicted hits of those audited with a clear verdict",
                &self.false_hit_rate,
            ),
            ("audit_false_hit_rate_low", "Its 95 % interval's lower end", &self.false_hit_rate_low),
            ("audit_false_hit_rate_high", "Its 95 % interval's upper end", &self.false_hit_rate_high),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "observations",
            "Replies that mode observe would have served, by what the fresh reply said",
            self.observations.clone(),
        );
    }

    pub(super) fn take_over(&self, trials: &Trials) {
        let counts = trials.audits.counts();
        let set = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        for agreement in Agreement::ALL {
            let labels = AgreementLabels { agreement: agreement.as_str() };
            set(&self.audits.get_or_create(&labels), counts.tally.of(agreement));
        }
        set(&self.skipped, counts.skipped);
        set(&self.poisoned, counts.poisoned);
        let rate = counts.tally.error();
        // No number where there is nothing to have a share of.
        self.false_hit_rate.set(rate.value.unwrap_or(f64::NAN));
        self.false_hit_rate_low.set(rate.low);
        self.false_hit_rate_high.set(rate.high);
        for (layer, tally) in trials.observations.configured() {
            for agreement in Agreement::ALL {
                let labels = ObservationLabels { layer: layer.as_str(), agreement: agreement.as_str() };
                set(&self.observations.get_or_create(&labels), tally.of(agreement));
            }
        }
    }
}
