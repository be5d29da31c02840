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
use crate::cache::verified::Learned;

/// A gauge of a share.
type Share = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgreementLabels {
    agreement: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChoiceLabels {
    choice: &'static str,
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
    asked: Counter,
    skipped: Counter,
    poisoned: Counter,
    false_hit_rate: Share,
    false_hit_rate_low: Share,
    false_hit_rate_high: Share,
    observations: Family<ObservationLabels, Counter>,
    verified: VerifiedMetrics,
}

/// What mode verified has done and learned.
#[derive(Debug, Default)]
struct VerifiedMetrics {
    candidates: Family<ChoiceLabels, Counter>,
    compared: Family<AgreementLabels, Counter>,
    setbacks: Counter,
    least_trust: Share,
}

impl TrialMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "audits",
            "Audited semantic hits by what the fresh reply said",
            self.audits.clone(),
        );
        for (name, help, counter) in [
            ("audit_upstream_requests", "Requests that audits sent upstream", &self.asked),
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
        self.verified.register(registry);
    }

    pub(super) fn take_over(&self, trials: &Trials) {
        let counts = trials.audits.counts();
        let set = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        for agreement in Agreement::ALL {
            let labels = AgreementLabels { agreement: agreement.as_str() };
            set(&self.audits.get_or_create(&labels), counts.tally.of(agreement));
        }
        set(&self.asked, counts.tally.found);
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
        if let Some(verified) = trials.verified() {
            self.verified.take_over(&verified.learned());
        }
    }
}

impl VerifiedMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "verified_candidates",
            "Candidates in mode verified, by what became of them",
            self.candidates.clone(),
        );
        registry.register(
            "verified_compared",
            "Explored candidates by what the fresh reply said",
            self.compared.clone(),
        );
        registry.register(
            "verified_setbacks",
            "Times that mode verified took its trust back",
            self.setbacks.clone(),
        );
        registry.register(
            "verified_least_trust",
            "The least trust that mode verified serves; no number while it serves none",
            self.least_trust.clone(),
        );
    }

    fn take_over(&self, learned: &Learned) {
        let set = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        for (choice, count) in [("served", learned.served), ("explored", learned.explored)] {
            set(&self.candidates.get_or_create(&ChoiceLabels { choice }), count);
        }
        for (agreement, count) in learned.compared {
            let labels = AgreementLabels { agreement: agreement.as_str() };
            set(&self.compared.get_or_create(&labels), count);
        }
        set(&self.setbacks, u64::from(learned.setbacks));
        self.least_trust.set(learned.least_trust.map_or(f64::NAN, f64::from));
    }
}
