//! The finished configuration, which everything else is given.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use serde::Serialize;

use super::units::{self, duration};
use super::{
    Admin, Ask, CacheSettings, EmbedderKind, Embedding, Limits, Log, LogFormat, Mode, Redis, RedisUrl,
    Secret, Telemetry, Timeouts, Upstreams,
};
use crate::savings::prices::Prices;

/// Every setting in force, as `check-config` prints it: secrets masked, written as the file would be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Health, metrics, entries.
    pub admin_listen: SocketAddr,
    /// The servers in front of which the proxy stands.
    pub upstream: Upstreams,
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
    /// The keys of encryption at rest, the one that encrypts first; `None` stores entries in plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_key: Option<Secret>,
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
    /// What upstream charges, by model.
    pub prices: Prices,
}
