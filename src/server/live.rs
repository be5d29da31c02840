//! What of a running proxy follows the configuration, and how another one comes into force.
//!
//! Called by [`super::Server`], which makes it, and by `cli`, which reloads. Everything that can fail is made first; then
//! each part is replaced in one step, which requests pass without a lock. A request keeps the parts it came to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tracing::{debug, error, info, warn};

use super::connection::Settings;
use super::{settings, warn_of_policy};
use crate::admin::Admin;
use crate::cache::Cache;
use crate::cache::calibration::CalibrationError;
use crate::cache::decision::Policy;
use crate::config::{Config, ConfigError, Loaded, Problem, Status};
use crate::models;
use crate::proxy::{Current, Proxy, UpstreamUrlError};
use crate::telemetry::{Metrics, ReloadResult};

/// The parts that follow the configuration.
pub struct Live {
    /// One reload at a time; what is in force.
    config: tokio::sync::Mutex<InForce>,
    pub(super) proxy: Current,
    pub(super) admin: Admin,
    pub(super) connections: Arc<ArcSwap<Settings>>,
    /// Whether requests are logged.
    pub(super) log_requests: Arc<AtomicBool>,
    pub(super) status: Arc<Status>,
    pub(super) metrics: Arc<Metrics>,
}

/// What a change is a change of.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) policy: Policy,
    pub(super) cache: Arc<Cache>,
}

/// Why a configuration that is right by itself did not come into force.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    /// It would be wrong together with what cannot change.
    #[error("{0}: {1}")]
    Together(&'static str, String),
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    #[error(transparent)]
    Upstream(#[from] UpstreamUrlError),
    #[error("the new settings could not be made: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Together(key, reason) => Self::of(key, reason),
            ApplyError::Calibration(error) => Self::of("cache.calibration", error),
            ApplyError::Upstream(error) => Self::of("upstream", error),
            error @ ApplyError::Interrupted(_) => Self { reason: error.to_string(), ..Self::default() },
        }
    }
}

impl Live {
    pub(super) fn new(in_force: InForce, parts: Parts) -> Self {
        let Parts { proxy, admin, status, metrics } = parts;
        let report = status.report();
        metrics.reloads().in_force(report.hash, report.loaded_at);
        Self {
            connections: Arc::new(ArcSwap::from_pointee(Settings::of(&in_force.config))),
            log_requests: Arc::new(AtomicBool::new(in_force.config.log.requests)),
            config: tokio::sync::Mutex::new(in_force),
            proxy,
            admin,
            status,
            metrics,
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.status.report().config
    }

    /// Brings what was loaded into force, as far as it can change; where it is wrong, all stays as it was. Says in log
    /// and metrics how it ended.
    pub async fn reload(&self, loaded: Result<Loaded, ConfigError>) -> ReloadResult {
        let mut in_force = self.config.lock().await;
        let applied = match loaded {
            Ok(loaded) => self.apply(&mut in_force, loaded).await.map_err(Problem::from),
            Err(error) => Err(Problem::from(&error)),
        };
        let result = match applied {
            Ok(result) => result,
            Err(problem) => {
                error!(
                    file = problem.file.as_ref().map(|file| file.display().to_string()),
                    line = problem.line,
                    key = problem.key,
                    reason = problem.reason,
                    "the configuration was not reloaded; the one before stays in force"
                );
                self.status.failed(problem);
                ReloadResult::Rejected
            }
        };
        self.metrics.reloads().reloaded(result);
        result
    }

    async fn apply(&self, in_force: &mut InForce, loaded: Loaded) -> Result<ReloadResult, ApplyError> {
        let before = &in_force.config;
        let mut change = before.change_to(&loaded.config);
        let config = change.config;
        if let Some((key, reason)) = config.problem() {
            let reason = format!("{reason} (with what stays in force until a restart)");
            return Err(ApplyError::Together(key, reason));
        }
        let (cache, judged) = (Arc::clone(&in_force.cache), config.clone());
        // The calibration's file is read.
        let policy = tokio::task::spawn_blocking(move || {
            models::policy(&judged, cache.embedder(), cache.has_verifier())
        });
        let policy = policy.await??;
        if policy.calibration != in_force.policy.calibration && config.cache.calibration.is_some() {
            change.changed.push("cache.calibration".to_owned());
            change.changed.dedup();
        }
        if !change.needs_restart.is_empty() {
            warn!(
                keys = change.needs_restart.join(", "),
                "the configuration has changes that need a restart; until then the old values stay in force"
            );
        }
        let result = if change.changed.is_empty() {
            debug!("the configuration was read again; nothing that can change has");
            ReloadResult::Unchanged
        } else {
            let (cache, settings) = (Arc::clone(&in_force.cache), settings(&config, policy));
            // What the store remembers is recalled, where mode verified begins.
            let cache = tokio::task::spawn_blocking(move || Arc::new(cache.renewed(settings))).await?;
            let proxy = self.proxy.get().renewed(&config, before, Arc::clone(&cache))?;
            warn_of_policy(&config, policy);
            self.replace(&config, proxy, &cache);
            info!(changed = change.changed.join(", "), "the configuration was reloaded");
            *in_force = InForce { config: config.clone(), policy, cache };
            ReloadResult::Applied
        };
        self.status.loaded(Loaded { config, ..loaded }, change.needs_restart);
        let report = self.status.report();
        self.metrics.reloads().in_force(report.hash, report.loaded_at);
        Ok(result)
    }

    /// Whoever follows the configuration is told here; nothing fails any more.
    fn replace(&self, config: &Config, proxy: Proxy, cache: &Arc<Cache>) {
        self.proxy.replace(proxy);
        self.admin.renew(config, Arc::clone(cache));
        self.connections.store(Arc::new(Settings::of(config)));
        self.metrics.savings().set_prices(config.prices.clone());
        self.log_requests.store(config.log.requests, Ordering::Relaxed);
    }
}

/// What [`Live`] is made of.
pub(super) struct Parts {
    pub(super) proxy: Current,
    pub(super) admin: Admin,
    pub(super) status: Arc<Status>,
    pub(super) metrics: Arc<Metrics>,
}
