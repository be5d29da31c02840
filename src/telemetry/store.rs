//! The metrics of the store: what it tells of itself.
//!
//! Called by [`super`], which takes them over when the metrics are asked for.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::store::StoreUsage;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StoreMetrics {
    entries: Gauge,
    bytes: Gauge,
    evicted: Counter,
    expired: Counter,
    corrupt: Counter,
    undecryptable: Counter,
    writes_dropped: Counter,
    write_failures: Counter,
    outages: Counter,
    unanswered: Counter,
}

impl StoreMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("store_entries", "Entries in this process's memory", self.entries.clone());
        registry.register_with_unit(
            "store_size",
            "Memory of the store's entries and embeddings in this process",
            Unit::Bytes,
            self.bytes.clone(),
        );
        for (name, help, counter) in [
            ("store_evicted", "Entries given up in this process for want of room", &self.evicted),
            ("store_expired", "Expired entries that were swept", &self.expired),
            ("store_corrupt", "Stored values that could not be used and were removed", &self.corrupt),
            (
                "store_undecryptable",
                "Stored values met that are encrypted under a key that is not here, and stay",
                &self.undecryptable,
            ),
            ("store_writes_dropped", "Writes given up because too much was waiting", &self.writes_dropped),
            ("store_write_failures", "Writes that failed on disk or in Redis", &self.write_failures),
            ("store_outages", "Times that the connection to Redis was lost", &self.outages),
            ("store_unanswered", "Commands that Redis did not answer in time", &self.unanswered),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    pub(super) fn take_over(&self, usage: &StoreUsage) {
        self.entries.set(i64::try_from(usage.entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
        for (counter, value) in [
            (&self.evicted, usage.evicted),
            (&self.expired, usage.expired),
            (&self.corrupt, usage.corrupt_skipped),
            (&self.undecryptable, usage.undecryptable),
            (&self.writes_dropped, usage.writes_dropped),
            (&self.write_failures, usage.write_failures),
            (&self.outages, usage.outages),
            (&self.unanswered, usage.unanswered),
        ] {
            counter.inner().store(value, Ordering::Relaxed);
        }
    }
}
