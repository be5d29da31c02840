//! The TOML file: the same keys as the flags, in snake case, and tables for the rest.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use serde::Deserialize;

use super::{
    Admin, Ask, CacheSettings, EmbedderKind, Embedding, Limits, Log, LogFormat, Mode, Redis, RedisUrl,
    Secret, Telemetry, Timeouts, secret, units,
};

/// What a file sets. A key it does not have is left to the default; one that nobody knows is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileConfig {
    pub(super) listen: Option<SocketAddr>,
    pub(super) admin_listen: Option<SocketAddr>,
    #[serde(deserialize_with = "units::optional_uri")]
    pub(super) upstream: Option<Uri>,
    pub(super) data_dir: Option<PathBuf>,
    #[serde(deserialize_with = "units::optional_redis_url")]
    pub(super) redis_url: Option<RedisUrl>,
    pub(super) mode: Option<Mode>,
    pub(super) max_error: Option<f64>,
    pub(super) embedder: Option<EmbedderKind>,
    #[serde(deserialize_with = "units::optional_uri")]
    pub(super) embedder_url: Option<Uri>,
    pub(super) embedder_model: Option<String>,
    #[serde(deserialize_with = "secret::of_file")]
    pub(super) embedder_api_key: Option<Secret>,
    pub(super) similarity_threshold: Option<f32>,
    #[serde(deserialize_with = "units::duration::option::deserialize")]
    pub(super) ttl: Option<Duration>,
    pub(super) log_format: Option<LogFormat>,
    #[serde(deserialize_with = "secret::of_file")]
    pub(super) secret: Option<Secret>,
    pub(super) admin: Admin,
    pub(super) cache: CacheSettings,
    pub(super) embedding: Embedding,
    pub(super) redis: Redis,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) ask: Ask,
    pub(super) log: Log,
    pub(super) telemetry: Telemetry,
    #[serde(skip)]
    pub(super) source: Source,
}

/// The text a configuration was read from, to say where a setting stands.
#[derive(Debug, Default)]
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or a key is unknown or has a value of the wrong kind.
    #[error("{}:{line}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key and the reason.
        message: String,
    },
}

impl FileConfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        Self::parse(path, text)
    }

    /// Reads a file's text; `path` is named in errors.
    pub fn parse(path: &Path, text: String) -> Result<Self, FileError> {
        match toml::from_str::<Self>(&text) {
            Ok(config) => Ok(Self { source: Source { path: path.to_owned(), text }, ..config }),
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
                // A value's own error does not name its key; the line does.
                let at = text.lines().nth(line - 1).unwrap_or_default().trim();
                // No more of the line than its first word: what follows may be a secret.
                let key = at.split(['=', ' ', '\t']).next().unwrap_or_default();
                let message = format!("{key}: {}", error.message());
                Err(FileError::Parse { path: path.to_owned(), line, message })
            }
        }
    }
}

impl Source {
    /// Where a key was set: file, line and key, or the key alone where the file does not have it.
    pub(super) fn place(&self, key: &str) -> String {
        let set = |line: &str| {
            line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        match self.text.lines().position(set) {
            Some(at) => format!("{}:{}: {key}", self.path.display(), at + 1),
            None => key.to_owned(),
        }
    }
}
