//! The metrics of what hits have spared.
//!
//! Called by [`super`], which takes them over from the ledger when the metrics are asked for. The ledger bounds the
//! models that are told apart, and the currencies.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::savings::{Counted, Ledger};

/// A count of what comes in fractions.
type Amount = Counter<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
    layer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    model: String,
    layer: &'static str,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    model: String,
    layer: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CurrencyLabels {
    model: String,
    layer: &'static str,
    currency: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabels {
    model: String,
    layer: &'static str,
    what: &'static str,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SavingsMetrics {
    hits: Family<ModelLabels, Counter>,
    tokens: Family<DirectionLabels, Counter>,
    details: Family<KindLabels, Counter>,
    money: Family<CurrencyLabels, Amount>,
    time: Family<ModelLabels, Amount>,
    unknown: Family<WhatLabels, Counter>,
}

impl SavingsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("hits", "Hits by the model asked for and the layer", self.hits.clone());
        registry.register(
            "saved_tokens",
            "Tokens that upstream did not have to process again, where it had counted them",
            self.tokens.clone(),
        );
        registry.register(
            "saved_token_details",
            "Those of rejoinder_saved_tokens that were cached input or reasoning",
            self.details.clone(),
        );
        registry.register(
            "saved_money",
            "What the stored replies that were served cost, at the configured prices",
            self.money.clone(),
        );
        registry.register_with_unit(
            "saved_upstream",
            "How long upstream took for the stored replies that were served",
            Unit::Seconds,
            self.time.clone(),
        );
        registry.register(
            "saved_unknown",
            "Hits whose tokens, price or upstream's time nobody knows, and which are not among what was saved",
            self.unknown.clone(),
        );
    }

    pub(super) fn take_over(&self, ledger: &Ledger) {
        for line in ledger.lines() {
            let (model, layer) = (line.model.to_string(), line.layer);
            let Counted { hits, input, output, cached, reasoning, seconds, money, .. } = &line.counted;
            let labels = ModelLabels { model: model.clone(), layer };
            set(&self.hits.get_or_create(&labels), *hits);
            self.time.get_or_create(&labels).inner().store(seconds.to_bits(), Ordering::Relaxed);
            for (direction, count) in [("input", *input), ("output", *output)] {
                let labels = DirectionLabels { model: model.clone(), layer, direction };
                set(&self.tokens.get_or_create(&labels), count);
            }
            for (kind, count) in [("cached_input", *cached), ("reasoning", *reasoning)] {
                let labels = KindLabels { model: model.clone(), layer, kind };
                set(&self.details.get_or_create(&labels), count);
            }
            for (currency, amount) in money {
                let labels = CurrencyLabels { model: model.clone(), layer, currency: currency.clone() };
                self.money.get_or_create(&labels).inner().store(amount.to_bits(), Ordering::Relaxed);
            }
            for (what, count) in [
                ("usage", line.counted.without_usage),
                ("price", line.counted.without_price),
                ("seconds", line.counted.without_time),
            ] {
                let labels = WhatLabels { model: model.clone(), layer, what };
                set(&self.unknown.get_or_create(&labels), count);
            }
        }
    }
}

fn set(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}
