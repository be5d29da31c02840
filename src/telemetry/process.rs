//! The metrics of the process and its parts: what it is, since when, and how store, embedder and upstream do.
//!
//! Called by [`super`].

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::config::{Config, Mode};

/// The states that a part can be in, as `GET /readyz` names them.
const STATES: [&str; 4] = ["ok", "degraded", "down", "off"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
    state: &'static str,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ProcessMetrics {
    parts: Family<PartLabels, Gauge>,
}

/// How the parts do: the name of each and its state.
pub type Parts = [(&'static str, &'static str); 3];

impl ProcessMetrics {
    pub(super) fn register(&self, registry: &mut Registry, config: &Config) {
        let mode = match config.mode {
            Mode::Reuse => "reuse",
            Mode::Observe => "observe",
            Mode::Verified => "verified",
        };
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("mode", mode)]);
        registry.register("build", "The version that runs, and in which mode", build);
        let started = Gauge::<f64, AtomicU64>::default();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        started.set(now.as_secs_f64());
        registry.register_with_unit("start_time", "Since when it runs (Unix time)", Unit::Seconds, started);
        let max_error = Gauge::<f64, AtomicU64>::default();
        max_error.set(config.max_error);
        registry.register(
            "max_error",
            "The share of semantic hits that may be wrong, as configured",
            max_error,
        );
        registry.register(
            "part_state",
            "1 for the state that a part is in, 0 for the others: how store, embedder and upstream do",
            self.parts.clone(),
        );
    }

    pub(super) fn take_over(&self, parts: &Parts) {
        for (part, current) in parts {
            for state in STATES {
                self.parts.get_or_create(&PartLabels { part, state }).set(i64::from(state == *current));
            }
        }
    }
}
