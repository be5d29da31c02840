//! The metrics of the configuration: how its reloads ended, and which one is in force.
//!
//! Called by `server`, which reloads it.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// What could change did.
    Applied,
    /// There was nothing to change.
    Unchanged,
    /// The configuration was wrong, and the one before stays.
    Rejected,
}

impl ReloadResult {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Rejected];

    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct ReloadMetrics {
    reloads: Family<ResultLabels, Counter>,
    successful: Gauge,
    at: Gauge<f64, AtomicU64>,
    hash: Gauge<f64, AtomicU64>,
}

impl ReloadMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "config_reloads",
            "Reloads of the configuration, by how they ended",
            self.reloads.clone(),
        );
        registry.register(
            "config_last_reload_successful",
            "Whether the configuration that was loaded last was right: 1, else 0",
            self.successful.clone(),
        );
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            "When a configuration was last loaded and found right, in seconds since 1970",
            Unit::Seconds,
            self.at.clone(),
        );
        registry.register(
            "config_hash",
            "Equal for processes whose settings in force are equal, secrets aside",
            self.hash.clone(),
        );
        for result in ReloadResult::ALL {
            drop(self.reloads.get_or_create(&ResultLabels { result: result.as_str() }));
        }
    }

    /// A reload ended so.
    pub fn reloaded(&self, result: ReloadResult) {
        self.reloads.get_or_create(&ResultLabels { result: result.as_str() }).inc();
        if result == ReloadResult::Rejected {
            self.successful.set(0);
        }
    }

    /// A configuration of this hash (of 48 bits) was loaded and found right.
    pub fn in_force(&self, hash: u64, at: SystemTime) {
        self.successful.set(1);
        self.at.set(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "48 bits are exact")]
        self.hash.set(hash as f64);
    }
}
