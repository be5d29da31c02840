//! Which upstream a request goes to: that of its model, or the default.
//!
//! Called by the rest of `proxy`. Only a body that is read anyway is looked into.

use std::sync::Arc;

use super::upstream::{Upstream, UpstreamUrlError};
use crate::config::Config;
use crate::dialect::model::model_of;
use crate::model_pattern::ModelPattern;

/// Every upstream of the configuration.
#[derive(Debug)]
pub(super) struct Upstreams {
    /// In the order in which they are asked.
    by_model: Vec<(Vec<ModelPattern>, Arc<Upstream>)>,
    default: Arc<Upstream>,
}

impl Upstreams {
    /// The upstreams of a configuration.
    ///
    /// # Errors
    /// The URL of one of them is none that requests can go to.
    pub(super) fn new(config: &Config) -> Result<Self, UpstreamUrlError> {
        let make = |upstream| Upstream::new(upstream, config).map(Arc::new);
        let by_model = config.upstream.by_model.iter();
        let by_model = by_model.map(|one| Ok((one.models.clone().unwrap_or_default(), make(one)?)));
        Ok(Self {
            by_model: by_model.collect::<Result<_, UpstreamUrlError>>()?,
            default: make(&config.upstream.default)?,
        })
    }

    /// Whether those of two configurations are others.
    pub(super) fn differ(one: &Config, other: &Config) -> bool {
        one.upstream != other.upstream
            || one.timeouts != other.timeouts
            || one.limits.max_upstream_requests != other.limits.max_upstream_requests
            || one.limits.max_queued_requests != other.limits.max_queued_requests
    }

    /// The one for requests whose model is not known.
    pub(super) fn default(&self) -> &Arc<Upstream> {
        &self.default
    }

    /// Whether the model matters at all.
    pub(super) fn are_several(&self) -> bool {
        !self.by_model.is_empty()
    }

    /// The first that takes this model; empty stands for none.
    pub(super) fn of_model(&self, model: &str) -> &Arc<Upstream> {
        if model.is_empty() {
            return &self.default;
        }
        let takes = |models: &[ModelPattern]| models.iter().any(|pattern| pattern.matches(model));
        self.by_model.iter().find(|(models, _)| takes(models)).map_or(&self.default, |(_, upstream)| upstream)
    }

    /// The one for the model that a whole body asks for.
    pub(super) fn of_body(&self, body: &[u8]) -> &Arc<Upstream> {
        if !self.are_several() {
            return &self.default;
        }
        model_of(body).map_or(&self.default, |model| self.of_model(&model))
    }
}
