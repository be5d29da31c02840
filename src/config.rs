//! Every setting once: its type, default and meaning, and how flag, environment, file and default merge.
//!
//! Called by `cli`, which hands the finished [`Config`] down. Nothing else reads the environment or a file, but
//! for `RUST_LOG`, which the log takes as every Rust program does; [`telemetry`] knows the variables of OpenTelemetry.

mod file;
mod secret;
mod telemetry;
mod units;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};

use crate::cache::guard::Leanings;
use crate::cache::rules::Rules;
use crate::store::StoreOptions;

pub use crate::store::redis::RedisUrl;
use crate::store::redis::RedisUrlError;
pub use file::{FileConfig, FileError};
pub use secret::Secret;
pub use telemetry::{Otlp, OtlpProtocol, Telemetry};
pub use units::Bytes;
use units::duration;
pub(crate) use units::parse_duration;

/// The default place of Ollama.
const UPSTREAM: &str = "http://127.0.0.1:11434";

/// The endpoints by which `/ask` can ask.
const ASK_PATHS: [&str; 4] = ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"];

/// The default threshold, measured for the built-in embedder (README, "What error to expect"): what is less similar is
/// hardly ever the same question, and the verifier's time is better spent.
const SIMILARITY_THRESHOLD: f32 = 0.7;

/// The same where there is no verifier to judge.
const SIMILARITY_THRESHOLD_ALONE: f32 = 0.85;

/// The default share of wrong semantic hits: one in fifty. Half of it would take twice the trials to show in mode
/// verified, some 800 without a single difference.
const MAX_ERROR: f64 = 0.02;

/// The flags of `serve`. Each is also `REJOINDER_<FLAG>` in the environment and a key of the file; the flag
/// wins over the environment, that over the file, that over the default.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts of the command line, which is no Markdown")]
pub struct Flags {
    /// Read settings from this TOML file
    #[arg(long, env = "REJOINDER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where clients connect [default: 127.0.0.1:11435]
    #[arg(long, env = "REJOINDER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// Health, metrics, entries [default: 127.0.0.1:11436]. Another than a loopback address needs an admin
    /// token: REJOINDER_ADMIN_TOKEN, REJOINDER_ADMIN_TOKEN_FILE or `admin.token` in the file
    #[arg(long, env = "REJOINDER_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,

    /// The Ollama-, OpenAI- or Anthropic-compatible server [default: http://127.0.0.1:11434]. A path is kept
    /// as a prefix: with https://host/openai, a request for /v1/models goes to https://host/openai/v1/models
    #[arg(long, env = "REJOINDER_UPSTREAM", value_name = "URL")]
    pub upstream: Option<Uri>,

    /// Keep the store in this folder, so that it survives restarts and crashes [default: in memory only]
    #[arg(long, env = "REJOINDER_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,

    /// Share the store in this Redis with other replicas: redis://host:port, rediss:// (TLS),
    /// redis+unix:///socket, redis+cluster://host:port,host:port or redis+sentinel://host:port,host:port/master
    /// [default: the store is in this process]. A password: REJOINDER_REDIS_PASSWORD, or its _FILE
    // Text, since an error about a value that cannot be parsed would show it, and it may hold a password.
    #[arg(long, env = "REJOINDER_REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,

    /// What is done with a stored reply that may answer a request [default: reuse]
    #[arg(long, env = "REJOINDER_MODE", value_enum)]
    pub mode: Option<Mode>,

    /// What turns prompts into embeddings [default: builtin]
    #[arg(long, env = "REJOINDER_EMBEDDER", value_enum)]
    pub embedder: Option<EmbedderKind>,

    /// The server of the `ollama` and `openai` embedders [default: the upstream]
    #[arg(long, env = "REJOINDER_EMBEDDER_URL", value_name = "URL")]
    pub embedder_url: Option<Uri>,

    /// The model of the `ollama` and `openai` embedders [default: all-minilm, text-embedding-3-small]
    #[arg(long, env = "REJOINDER_EMBEDDER_MODEL", value_name = "MODEL")]
    pub embedder_model: Option<String>,

    /// Cosine similarity from which a stored prompt is a candidate, 0 to 1 [default: 0.7; 0.85 without the verifier]
    #[arg(long, env = "REJOINDER_SIMILARITY_THRESHOLD", value_name = "SIMILARITY")]
    pub similarity_threshold: Option<f32>,

    /// The error accepted, 0 to 1 [default: 0.02]. In mode reuse: the share of look-alikes that may be reused; in mode
    /// verified: the share of semantic hits that may be wrong
    #[arg(long, env = "REJOINDER_MAX_ERROR", value_name = "SHARE")]
    pub max_error: Option<f64>,

    /// How long an entry lives, as 90s, 15m, 24h or 7d [default: 24h]
    #[arg(long, env = "REJOINDER_TTL", value_name = "DURATION", value_parser = parse_duration)]
    pub ttl: Option<Duration>,

    /// How log lines look [default: text on a terminal, else json]
    #[arg(long, env = "REJOINDER_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// What is done with a stored reply that may answer a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is served
    #[default]
    Reuse,
    /// Nothing is served: every request goes upstream, and what would have been served is compared with the reply
    Observe,
    /// It is served once trials have shown that what is trusted as much is right; until then the request goes upstream
    /// and both replies are compared
    Verified,
}

/// What turns prompts into embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbedderKind {
    /// The model inside the program: no download, no server
    Builtin,
    /// A server with Ollama's /api/embed
    Ollama,
    /// A server with OpenAI's /v1/embeddings; key in `REJOINDER_EMBEDDER_API_KEY`
    #[value(name = "openai")]
    #[serde(rename = "openai")]
    OpenAi,
    /// None: exact layer only
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Every setting in force, as `check-config` prints it: secrets masked, written as the file would be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Health, metrics, entries.
    pub admin_listen: SocketAddr,
    /// The server in front of which the proxy stands.
    #[serde(serialize_with = "units::uri")]
    pub upstream: Uri,
    /// The folder of the store; `None` keeps it in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The Redis that holds the store; `None` keeps it in this process.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "units::optional_shown")]
    pub redis_url: Option<RedisUrl>,
    /// What is done with a stored reply that may answer a request.
    pub mode: Mode,
    /// What turns prompts into embeddings.
    pub embedder: EmbedderKind,
    /// The server of a remote embedder.
    #[serde(serialize_with = "units::uri")]
    pub embedder_url: Uri,
    /// The model of a remote embedder.
    pub embedder_model: String,
    /// The key of a remote embedder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedder_api_key: Option<Secret>,
    /// Cosine similarity from which an entry is a candidate.
    pub similarity_threshold: f32,
    /// The share of semantic hits that may be wrong.
    pub max_error: f64,
    /// How long an entry lives.
    #[serde(with = "duration")]
    pub ttl: Duration,
    /// How log lines look; `None` decides by whether standard error is a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// The secret of the hash keys; `None` lets the store make its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// The admin listener.
    pub admin: Admin,
    /// What is cached, and for whom.
    pub cache: CacheSettings,
    /// The embedder's resources.
    pub embedding: Embedding,
    /// The store in Redis.
    pub redis: Redis,
    /// Limits on what is kept and accepted.
    pub limits: Limits,
    /// Limits on every wait.
    pub timeouts: Timeouts,
    /// `POST /ask`.
    pub ask: Ask,
    /// The log.
    pub log: Log,
    /// Traces.
    pub telemetry: Telemetry,
}

/// `[admin]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Needed for another than a loopback address, and honoured on loopback too.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "secret::of_file")]
    pub token: Option<Secret>,
    /// Names under which a browser may reach the admin listener, besides its address and localhost.
    pub hosts: Vec<String>,
}

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "switches that do not depend on one another")]
pub struct CacheSettings {
    /// How long upstream's acceptance of credentials counts: a key revoked there serves hits no longer than this.
    #[serde(with = "duration")]
    pub credential_ttl: Duration,
    /// Whether the verifier judges candidates; without it similarity and the guard do.
    pub verifier: bool,
    /// The least confidence (probability of one answer × freshness) of a semantic hit, 0 to 1; `None` takes the one
    /// that keeps to `max_error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f32>,
    /// What `rejoinder eval --calibrate` wrote for the embedder in use; `None` takes the built-in embedder's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
    /// After how many lifetimes an entry's confidence would be half of what it was; positive.
    pub freshness_half_life: f32,
    /// The rules by which a prompt is never matched by meaning.
    #[serde(with = "units::rules")]
    pub exact_only: Leanings,
    /// The longest that the reply to a prompt about the moment lives, where the rule `moment` is in force.
    #[serde(with = "duration")]
    pub moment_ttl: Duration,
    /// Whether `X-Rejoinder-Threshold` may lower the threshold too.
    pub allow_lower_threshold: bool,
    /// Request headers that belong to the scope, besides the credentials and those of the APIs.
    #[serde(with = "units::header_names")]
    pub scope_headers: Vec<HeaderName>,
    /// Whether the request's `user` field belongs to the scope.
    pub scope_user: bool,
    /// Ask upstream for the usage of a stream, and take it out again for a client that did not ask.
    pub include_usage: bool,
    /// The share of semantic hits that are also asked upstream, behind the request, and compared; 0 to 1.
    pub audit_share: f32,
    /// Candidates that fell just short, kept in memory for `GET /near-misses`; 0 keeps none.
    pub near_misses: usize,
    /// The probability with which mode verified keeps to `max_error`.
    pub verified_confidence: f64,
    /// Of replies that say the same, a share that comparisons find to differ at least; where they err less, or miss more
    /// of those that differ, more than `max_error` may be wrong. 0 counts each difference found as one.
    pub comparison_error: f64,
}

/// `[embedding]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Embedding {
    /// Threads of the built-in embedder; 0 takes half of the cores.
    pub threads: usize,
    /// Prompts that may wait for the built-in embedder; beyond, requests go upstream unembedded.
    pub queue: NonZeroUsize,
    /// How long embedding a prompt may take, waiting included.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How many characters of a prompt a remote embedder is given; the rest must be equal.
    pub window_chars: usize,
}

/// `[redis]`: what a replica takes of Redis, and for itself. Used with `redis_url`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// The password, where it does not stand in the URL.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "secret::of_file")]
    pub password: Option<Secret>,
    /// Certificates of authorities (PEM) to trust in the place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What the names of all keys begin with: fleets that share a Redis and not a cache have different ones.
    pub key_prefix: String,
    /// How long connecting may take.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long an answer may take before the request goes on without.
    #[serde(with = "duration")]
    pub command_timeout: Duration,
    /// Memory of this process for whole entries, which spare a round trip; 0 keeps none.
    pub hot_max_bytes: Bytes,
    /// How long such an entry is kept.
    #[serde(with = "duration")]
    pub hot_max_age: Duration,
    /// Memory of this process for embeddings.
    pub index_max_bytes: Bytes,
    /// Entries of one scope that are found by meaning; the least useful are given up beyond.
    pub max_entries_per_scope: u64,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of the store.
    pub max_bytes: Bytes,
    /// Entries of the store.
    pub max_entries: u64,
    /// The largest reply that is stored.
    pub max_entry_bytes: Bytes,
    /// The largest request that is read for caching; a larger one is streamed through.
    pub max_request_bytes: Bytes,
    /// The largest head of a request.
    pub max_head_bytes: Bytes,
    /// Connections of clients at once.
    pub max_connections: usize,
    /// Requests upstream at once; beyond, 503.
    pub max_upstream_requests: usize,
}

/// `[timeouts]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Connecting to upstream.
    #[serde(with = "duration")]
    pub connect: Duration,
    /// From the request's end to the head of upstream's reply.
    #[serde(with = "duration")]
    pub first_byte: Duration,
    /// Between two pieces of a body, either way.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// Until a client's request head is complete.
    #[serde(with = "duration")]
    pub request_head: Duration,
    /// How long an unused connection to upstream is kept.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
    /// How long after SIGTERM new requests are still taken while `/readyz` already says no, so that a load balancer
    /// has heard of it before a connection is refused.
    #[serde(with = "duration")]
    pub notice: Duration,
    /// How long open requests may take to finish after that.
    #[serde(with = "duration")]
    pub drain: Duration,
}

/// `[ask]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ask {
    /// The model that `POST /ask` asks.
    pub model: String,
    /// The endpoint by which it asks: `/api/generate`, `/api/chat`, `/v1/chat/completions` or `/v1/completions`.
    pub path: String,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged, in the syntax of tracing's `EnvFilter`, as `info` or `rejoinder=debug`.
    pub filter: String,
    /// One line a request.
    pub requests: bool,
    /// Whether those lines may hold the prompt.
    pub prompts: bool,
}

impl CacheSettings {
    /// The rules of prompts that are never matched by meaning.
    pub fn rules(&self) -> Rules {
        Rules { exact_only: self.exact_only, moment_ttl: self.moment_ttl }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            credential_ttl: Duration::from_hours(1),
            verifier: true,
            min_confidence: None,
            calibration: None,
            freshness_half_life: 7.0,
            exact_only: Rules::DEFAULT.exact_only,
            moment_ttl: Rules::DEFAULT.moment_ttl,
            allow_lower_threshold: false,
            scope_headers: Vec::new(),
            scope_user: false,
            include_usage: true,
            audit_share: 0.0,
            near_misses: 200,
            verified_confidence: 0.95,
            comparison_error: 0.0,
        }
    }
}

impl Default for Embedding {
    fn default() -> Self {
        let queue = const { NonZeroUsize::new(64).unwrap() };
        Self { threads: 0, queue, timeout: Duration::from_secs(5), window_chars: 2000 }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            password: None,
            ca_file: None,
            key_prefix: "rejoinder".to_owned(),
            connect_timeout: Duration::from_millis(200),
            command_timeout: Duration::from_millis(50),
            hot_max_bytes: Bytes(64 << 20),
            hot_max_age: Duration::from_secs(30),
            index_max_bytes: Bytes(512 << 20),
            max_entries_per_scope: 1_000_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: Bytes(512 << 20),
            max_entries: 1_000_000,
            max_entry_bytes: Bytes(1 << 20),
            max_request_bytes: Bytes(8 << 20),
            max_head_bytes: Bytes(64 << 10),
            max_connections: 10_000,
            max_upstream_requests: 1024,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            // The official clients themselves give a model ten minutes.
            first_byte: Duration::from_mins(10),
            idle: Duration::from_mins(5),
            request_head: Duration::from_secs(30),
            keep_alive: Duration::from_secs(90),
            notice: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

impl Default for Ask {
    fn default() -> Self {
        Self { model: "llama3.2".to_owned(), path: "/api/generate".to_owned() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), requests: true, prompts: false }
    }
}

/// Why there is no configuration to run with. Each names the setting, the reason, and what would help.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A setting whose value cannot be used.
    #[error("{place}: {reason}")]
    Setting {
        /// Where it was set: the file, line and key; or the key, where flag or environment gave it.
        place: String,
        /// Why not, and what would do.
        reason: String,
    },
    /// A file that holds a secret could not be read.
    #[error("{variable}: cannot read {path}: {source}")]
    SecretFile {
        /// The environment variable that names it.
        variable: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The secrets that the environment gave.
#[derive(Default)]
struct Secrets {
    admin_token: Option<Secret>,
    embedder_api_key: Option<Secret>,
    hash: Option<Secret>,
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

    fn merge(flags: Flags, mut file: FileConfig, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let source = std::mem::take(&mut file.source);
        let secrets = Secrets {
            admin_token: secret::read("REJOINDER_ADMIN_TOKEN", environment)?,
            embedder_api_key: secret::read("REJOINDER_EMBEDDER_API_KEY", environment)?,
            hash: secret::read("REJOINDER_SECRET", environment)?,
            redis_password: secret::read("REJOINDER_REDIS_PASSWORD", environment)?,
        };
        file.redis_url = redis_url(flags.redis_url.as_deref(), environment)?.or(file.redis_url);
        file.telemetry.otlp = file.telemetry.otlp.with_environment(environment)?;
        let config = Self::combine(flags, file, secrets);
        match config.problem() {
            None => Ok(config),
            Some((key, reason)) => Err(ConfigError::Setting { place: source.place(key), reason }),
        }
    }

    fn combine(flags: Flags, file: FileConfig, secrets: Secrets) -> Self {
        let upstream = flags.upstream.or(file.upstream).unwrap_or_else(|| Uri::from_static(UPSTREAM));
        let embedder = flags.embedder.or(file.embedder).unwrap_or(EmbedderKind::Builtin);
        let default_model = match embedder {
            EmbedderKind::OpenAi => "text-embedding-3-small",
            _ => "all-minilm",
        };
        let embedder_model = flags.embedder_model.or(file.embedder_model);
        Self {
            listen: flags.listen.or(file.listen).unwrap_or_else(|| loopback(11435)),
            admin_listen: flags.admin_listen.or(file.admin_listen).unwrap_or_else(|| loopback(11436)),
            embedder_url: flags.embedder_url.or(file.embedder_url).unwrap_or_else(|| upstream.clone()),
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
            admin: Admin { token: secrets.admin_token.or(file.admin.token), ..file.admin },
            cache: file.cache,
            embedding: file.embedding,
            redis: Redis { password: secrets.redis_password.or(file.redis.password), ..file.redis },
            limits: file.limits,
            timeouts: file.timeouts,
            ask: file.ask,
            log: file.log,
            telemetry: file.telemetry,
        }
    }

    /// The first setting that cannot be used, and why.
    fn problem(&self) -> Option<(&'static str, String)> {
        for (key, uri) in [("upstream", &self.upstream), ("embedder_url", &self.embedder_url)] {
            if let Some(reason) = url_problem(uri) {
                return Some((key, reason));
            }
        }
        if self.upstream_is_itself() {
            let reason = "this is the proxy's own address: every request would come back to it".to_owned();
            return Some(("upstream", reason));
        }
        for (key, share) in [
            ("similarity_threshold", self.similarity_threshold),
            ("min_confidence", self.cache.min_confidence.unwrap_or(0.0)),
            ("audit_share", self.cache.audit_share),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Some((key, format!("{share} is not between 0 and 1")));
            }
        }
        for (key, share, most) in [
            ("max_error", self.max_error, 1.0),
            ("verified_confidence", self.cache.verified_confidence, 1.0),
            ("comparison_error", self.cache.comparison_error, 0.5),
        ] {
            if !(0.0..=most).contains(&share) {
                return Some((key, format!("{share} is not between 0 and {most}")));
            }
        }
        let half_life = self.cache.freshness_half_life;
        if half_life.is_nan() || half_life <= 0.0 {
            return Some(("freshness_half_life", format!("{half_life} is not more than 0")));
        }
        if !self.admin_listen.ip().is_loopback() && self.admin.token.is_none() {
            let reason = format!(
                "{} can be reached from other machines and no admin token is set; set REJOINDER_ADMIN_TOKEN or \
                 admin.token, or listen on 127.0.0.1",
                self.admin_listen
            );
            return Some(("admin_listen", reason));
        }
        let limits = &self.limits;
        for (key, limit) in [
            ("max_connections", limits.max_connections as u64),
            ("max_upstream_requests", limits.max_upstream_requests as u64),
            ("max_entries", limits.max_entries),
        ] {
            if limit == 0 {
                return Some((
                    key,
                    "with 0 nothing could be served; leave the key out for the default".to_owned(),
                ));
            }
        }
        if limits.max_bytes.0 < StoreOptions::LEAST_BYTES {
            return Some((
                "max_bytes",
                format!("the store needs {} bytes at least", StoreOptions::LEAST_BYTES),
            ));
        }
        for (key, wait) in [
            ("connect", self.timeouts.connect),
            ("first_byte", self.timeouts.first_byte),
            ("idle", self.timeouts.idle),
            ("request_head", self.timeouts.request_head),
        ] {
            if wait.is_zero() {
                return Some((
                    key,
                    "with 0 every request would fail; leave the key out for the default".to_owned(),
                ));
            }
        }
        if self.redis_url.is_some() && self.data_dir.is_some() {
            let reason =
                "the store is either in a folder or in Redis; leave out data_dir or redis_url".to_owned();
            return Some(("redis_url", reason));
        }
        if let Some(problem) = self.redis.problem() {
            return Some(problem);
        }
        if let Some(problem) = self.telemetry.otlp.problem() {
            return Some(problem);
        }
        if self.ttl.is_zero() {
            return Some((
                "ttl",
                "an entry that lives for no time is never served; use embedder = \"off\" and \
                 Cache-Control: no-store to switch caching off"
                    .to_owned(),
            ));
        }
        if self.embedder_api_key.as_ref().is_some_and(|key| HeaderValue::from_str(key.expose()).is_err()) {
            return Some(("embedder_api_key", "it has characters that no header can hold".to_owned()));
        }
        if !ASK_PATHS.contains(&self.ask.path.as_str()) {
            return Some(("path", format!("{:?} is none of {}", self.ask.path, ASK_PATHS.join(", "))));
        }
        if let Err(error) = self.log.filter.parse::<tracing_subscriber::EnvFilter>() {
            return Some(("filter", format!("{:?} is no log filter: {error}", self.log.filter)));
        }
        None
    }

    fn upstream_is_itself(&self) -> bool {
        let host = self.upstream.host().unwrap_or_default().trim_matches(['[', ']']);
        let loops =
            |ip: IpAddr| ip == self.listen.ip() || (self.listen.ip().is_unspecified() && ip.is_loopback());
        let same_host = match host.parse::<IpAddr>() {
            Ok(ip) => loops(ip),
            Err(_) => {
                host.eq_ignore_ascii_case("localhost")
                    && (self.listen.ip().is_loopback() || self.listen.ip().is_unspecified())
            }
        };
        same_host && self.listen.port() != 0 && self.upstream.port_u16() == Some(self.listen.port())
    }
}

/// The URL of flag or environment. One that was typed must not hold a password.
fn redis_url(text: Option<&str>, environment: Environment<'_>) -> Result<Option<RedisUrl>, ConfigError> {
    let wrong = |reason: String| ConfigError::Setting { place: "redis_url".to_owned(), reason };
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

impl Redis {
    fn problem(&self) -> Option<(&'static str, String)> {
        let usable = |prefix: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
            !prefix.is_empty() && prefix.len() <= 64 && prefix.bytes().all(plain)
        };
        if !usable(&self.key_prefix) {
            let reason =
                "a prefix is 1 to 64 letters, digits and -_.:/, since others mean something in patterns";
            return Some(("key_prefix", reason.to_owned()));
        }
        for (key, wait) in
            [("connect_timeout", self.connect_timeout), ("command_timeout", self.command_timeout)]
        {
            if wait.is_zero() {
                return Some((
                    key,
                    "with 0 Redis would never be reached; leave the key out for the default".to_owned(),
                ));
            }
        }
        if self.max_entries_per_scope == 0 {
            let reason =
                "with 0 nothing would be found by meaning; use embedder = \"off\" for that".to_owned();
            return Some(("max_entries_per_scope", reason));
        }
        None
    }
}

fn url_problem(uri: &Uri) -> Option<String> {
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => {}
        _ => return Some(format!("{uri} is no URL of the form http://host:port or https://host/prefix")),
    }
    if uri.query().is_some() {
        return Some(format!("{uri} has a query string; give it without"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Some(
            "a URL with a user name or password is not taken; clients send their own credentials".to_owned(),
        );
    }
    None
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Default for Config {
    /// The configuration without any flag, file or environment.
    fn default() -> Self {
        Self::combine(Flags::default(), FileConfig::default(), Secrets::default())
    }
}

#[cfg(test)]
mod tests;
