//! The models that judge prompts, as the configuration has them, and how sure one must be by them.
//!
//! Called by `server` at the start and by `cli` for evaluations, which measure the very models that serve.

use std::num::NonZeroUsize;

use crate::cache::calibration::{Calibration, CalibrationError, CalibrationFile};
use crate::cache::decision::Policy;
use crate::config::{Config, EmbedderKind};
use crate::embed::{ApiKey, Embedder, EmbedderError, RemoteOptions};
use crate::encoder::threads::{Threads, ThreadsOptions};
use crate::encoder::weights::DamagedModel;
use crate::verify::Verifier;

/// Why there are no models.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The embedder cannot be made.
    #[error(transparent)]
    Embedder(#[from] EmbedderError),
    /// The system gave no threads for the models inside the program.
    #[error("the threads of the built-in models could not be started: {0}")]
    Threads(std::io::Error),
    /// The verifier cannot be made.
    #[error(transparent)]
    Verifier(#[from] DamagedModel),
    /// The calibration cannot be used.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
}

/// What judges prompts.
pub struct Models {
    /// The embedder; `None` where the exact layer is alone.
    pub embedder: Option<Embedder>,
    /// The verifier; `None` where it is switched off, or there is nothing to verify.
    pub verifier: Option<Verifier>,
}

impl Models {
    /// Loads those of the configuration, which takes a fraction of a second. Those inside the program share threads.
    pub fn load(config: &Config) -> Result<Self, ModelsError> {
        let settings = &config.embedding;
        let threads = NonZeroUsize::new(settings.threads).unwrap_or(ThreadsOptions::default().threads);
        let options = ThreadsOptions { threads, queue: settings.queue, timeout: settings.timeout };
        let threads = Threads::start(&options).map_err(ModelsError::Threads)?;
        let embedder = embedder(config, &threads)?;
        let wanted = embedder.is_some() && config.cache.verifier;
        let verifier = wanted.then(|| Verifier::load(threads)).transpose()?;
        Ok(Self { embedder, verifier })
    }

    /// How sure one must be by them, with the calibration that the configuration names.
    pub fn policy(&self, config: &Config) -> Result<Policy, CalibrationError> {
        policy(config, self.embedder.as_ref(), self.verifier.is_some())
    }
}

/// How sure one must be by an embedder, and a verifier where there is one.
///
/// # Errors
/// The calibration that the configuration names cannot be used.
pub fn policy(
    config: &Config,
    embedder: Option<&Embedder>,
    has_verifier: bool,
) -> Result<Policy, CalibrationError> {
    let default = if has_verifier { Calibration::VERIFIER } else { Calibration::SIMILARITY };
    let calibration = match (&config.cache.calibration, embedder) {
        (Some(path), Some(embedder)) => CalibrationFile::read(path, embedder.name(), default.basis)?,
        _ => default,
    };
    Ok(Policy {
        threshold: config.similarity_threshold,
        may_lower: config.cache.allow_lower_threshold,
        min_confidence: config
            .cache
            .min_confidence
            .unwrap_or_else(|| default.least_confidence(config.max_error)),
        freshness_half_life: config.cache.freshness_half_life,
        calibration,
    })
}

/// The embedder of the configuration; `None` where it has none.
fn embedder(config: &Config, threads: &Threads) -> Result<Option<Embedder>, EmbedderError> {
    let settings = &config.embedding;
    let remote = || RemoteOptions {
        // The configuration was refused if its key cannot be sent.
        api_key: config.embedder_api_key.as_ref().and_then(|key| ApiKey::new(key.expose())),
        timeout: settings.timeout,
        window: settings.window_chars,
        ..RemoteOptions::new(config.embedder_url.clone(), config.embedder_model.as_str())
    };
    Ok(match config.embedder {
        EmbedderKind::Off => None,
        EmbedderKind::Builtin => Some(Embedder::builtin(threads.clone())?),
        EmbedderKind::Ollama => Some(Embedder::ollama(remote())?),
        EmbedderKind::OpenAi => Some(Embedder::openai(remote())?),
    })
}
