//! How flags, environment, file and defaults become one configuration.

use std::net::SocketAddr;
use std::time::Duration;

use super::{
    Admin, Config, ConfigError, EmbedderKind, FileConfig, Flags, Place, Redis, RedisUrl, Secret, Upstreams,
    secret,
};
use crate::store::redis::RedisUrlError;

/// The default threshold, measured for the built-in embedder (README, "What error to expect"): what is less similar is
/// hardly ever the same question, and the verifier's time is better spent.
const SIMILARITY_THRESHOLD: f32 = 0.7;

/// The same where there is no verifier to judge.
const SIMILARITY_THRESHOLD_ALONE: f32 = 0.85;

/// The default share of wrong semantic hits: one in fifty. Half of it would take twice the trials to show in mode
/// verified, some 800 without a single difference.
const MAX_ERROR: f64 = 0.02;

/// The secrets that the environment gave.
#[derive(Default)]
struct Secrets {
    admin_token: Option<Secret>,
    embedder_api_key: Option<Secret>,
    hash: Option<Secret>,
    encryption_key: Option<Secret>,
    redis_password: Option<Secret>,
}

/// Where secrets come from: the environment, by name. A parameter so that tests need not change the process's.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Merges flags (which clap has merged with the environment), the file they name, and the defaults.
    pub fn load(flags: Flags, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let file = flags.config.as_deref().map(FileConfig::read).transpose()?.unwrap_or_default();
        Self::merge(flags, file, environment)
    }

    pub(super) fn merge(
        flags: Flags,
        mut file: FileConfig,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let source = std::mem::take(&mut file.source);
        let secrets = Secrets {
            admin_token: secret::read("REJOINDER_ADMIN_TOKEN", environment)?,
            embedder_api_key: secret::read("REJOINDER_EMBEDDER_API_KEY", environment)?,
            hash: secret::read("REJOINDER_SECRET", environment)?,
            encryption_key: secret::read("REJOINDER_ENCRYPTION_KEY", environment)?,
            redis_password: secret::read("REJOINDER_REDIS_PASSWORD", environment)?,
        };
        file.redis_url = redis_url(flags.redis_url.as_deref(), environment)?.or(file.redis_url);
        file.telemetry.otlp = file.telemetry.otlp.with_environment(environment)?;
        let upstream = Upstreams::merge(flags.upstream.clone(), file.upstream.take(), &source, environment)?;
        let config = Self::combine(flags, file, upstream, secrets);
        match config.problem() {
            None => Ok(config),
            Some((key, reason)) => Err(ConfigError::Setting { place: source.place(key), reason }),
        }
    }

    fn combine(flags: Flags, file: FileConfig, upstream: Upstreams, secrets: Secrets) -> Self {
        let embedder = flags.embedder.or(file.embedder).unwrap_or(EmbedderKind::Builtin);
        let default_model = match embedder {
            EmbedderKind::OpenAi => "text-embedding-3-small",
            _ => "all-minilm",
        };
        let embedder_model = flags.embedder_model.or(file.embedder_model);
        Self {
            listen: flags.listen.or(file.listen).unwrap_or_else(|| loopback(11435)),
            admin_listen: flags.admin_listen.or(file.admin_listen).unwrap_or_else(|| loopback(11436)),
            embedder_url: flags
                .embedder_url
                .or(file.embedder_url)
                .unwrap_or_else(|| upstream.default.url.clone()),
            upstream,
            data_dir: flags.data_dir.or(file.data_dir),
            redis_url: file.redis_url,
            mode: flags.mode.or(file.mode).unwrap_or_default(),
            max_error: flags.max_error.or(file.max_error).unwrap_or(MAX_ERROR),
            embedder,
            embedder_model: embedder_model.unwrap_or_else(|| default_model.to_owned()),
            embedder_api_key: secrets.embedder_api_key.or(file.embedder_api_key),
            similarity_threshold: flags.similarity_threshold.or(file.similarity_threshold).unwrap_or(
                if file.cache.verifier { SIMILARITY_THRESHOLD } else { SIMILARITY_THRESHOLD_ALONE },
            ),
            ttl: flags.ttl.or(file.ttl).unwrap_or(Duration::from_hours(24)),
            log_format: flags.log_format.or(file.log_format),
            secret: secrets.hash.or(file.secret),
            encryption_key: secrets.encryption_key.or(file.encryption_key),
            admin: Admin { token: secrets.admin_token.or(file.admin.token), ..file.admin },
            cache: file.cache,
            embedding: file.embedding,
            redis: Redis { password: secrets.redis_password.or(file.redis.password), ..file.redis },
            limits: file.limits,
            timeouts: file.timeouts,
            ask: file.ask,
            log: file.log,
            telemetry: file.telemetry,
            prices: file.prices,
        }
    }
}

/// The URL of flag or environment. One that was typed must not hold a password.
fn redis_url(text: Option<&str>, environment: Environment<'_>) -> Result<Option<RedisUrl>, ConfigError> {
    let wrong = |reason: String| ConfigError::Setting { place: Place::of("redis_url"), reason };
    let Some(text) = text else { return Ok(None) };
    let url: RedisUrl = text.parse().map_err(|error: RedisUrlError| wrong(error.to_string()))?;
    let typed = environment("REJOINDER_REDIS_URL").as_deref() != Some(text);
    if typed && url.has_password() {
        return Err(wrong(
            "a password on the command line can be read by every user of this machine; set \
             REJOINDER_REDIS_PASSWORD, REJOINDER_REDIS_PASSWORD_FILE or redis.password in the file"
                .to_owned(),
        ));
    }
    Ok(Some(url))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Default for Config {
    /// The configuration without any flag, file or environment.
    fn default() -> Self {
        Self::combine(Flags::default(), FileConfig::default(), Upstreams::default(), Secrets::default())
    }
}
