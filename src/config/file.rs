//! The TOML file: the same keys as the flags, in snake case, and tables for the rest.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::{
    Admin, Ask, CacheSettings, EmbedderKind, Embedding, Limits, Log, LogFormat, Mode, Place, Redis, RedisUrl,
    Secret, Telemetry, Timeouts, secret, units, upstreams,
};
use crate::savings::prices::Prices;
use upstreams::FileUpstreams;

/// What a file sets. A key it does not have is left to the default; one that nobody knows is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileConfig {
    pub(super) listen: Option<SocketAddr>,
    pub(super) admin_listen: Option<SocketAddr>,
    #[serde(deserialize_with = "upstreams::of_file")]
    pub(super) upstream: Option<FileUpstreams>,
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
    #[serde(deserialize_with = "secret::of_file")]
    pub(super) encryption_key: Option<Secret>,
    pub(super) admin: Admin,
    pub(super) cache: CacheSettings,
    pub(super) embedding: Embedding,
    pub(super) redis: Redis,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) ask: Ask,
    pub(super) log: Log,
    pub(super) prices: Prices,
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
    /// It is not one that would be meant while the program runs.
    #[error("the configuration {} {problem}", path.display())]
    Unlikely {
        /// The file.
        path: PathBuf,
        /// What it is.
        problem: &'static str,
    },
    /// It is no TOML, or a key is unknown or has a value of the wrong kind.
    #[error("{}:{line}: {key}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key, or what stands where one should.
        key: String,
        /// Why.
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

    /// Reads a file that may be changed under our eyes. An empty one is rather being written, or was when the disk was
    /// full, than meant to set everything to its default; and a pipe was read once already.
    pub fn read_again(path: &Path) -> Result<Self, FileError> {
        let unlikely = |problem| Err(FileError::Unlikely { path: path.to_owned(), problem });
        let metadata =
            std::fs::metadata(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        if !metadata.is_file() {
            return unlikely("is no regular file, so it cannot be read a second time");
        }
        let read = Self::read(path)?;
        if read.source.text.is_empty() {
            return unlikely("is empty; for nothing but defaults, leave a comment in it");
        }
        Ok(read)
    }

    /// Reads a file's text; `path` is named in errors.
    pub fn parse(path: &Path, text: String) -> Result<Self, FileError> {
        match toml::from_str::<Self>(&text) {
            Ok(config) => Ok(Self { source: Source { path: path.to_owned(), text }, ..config }),
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let line = line_at(&text, start);
                // A value's own error does not name its key; the line does.
                let at = text.lines().nth(line - 1).unwrap_or_default().trim();
                // No more of the line than its first word: what follows may be a secret.
                let word = at.split(['=', ' ', '\t']).next().unwrap_or_default();
                // A table is named without its brackets.
                let key = word.trim_matches(['[', ']']).to_owned();
                Err(FileError::Parse {
                    path: path.to_owned(),
                    line,
                    key,
                    message: error.message().to_owned(),
                })
            }
        }
    }
}

/// The line of a byte, from 1.
fn line_at(text: &str, byte: usize) -> usize {
    text.get(..byte).unwrap_or_default().matches('\n').count() + 1
}

impl Source {
    /// Where a key was set, with its table's name before it: file, line and key, or the key alone where the file does
    /// not have it.
    pub(super) fn place(&self, key: &str) -> Place {
        let line = self.byte(key).map(|byte| line_at(&self.text, byte));
        Place { file: line.map(|line| (self.path.clone(), line)), key: key.to_owned() }
    }

    fn byte(&self, key: &str) -> Option<usize> {
        let document = DeTable::parse(&self.text).ok()?;
        let mut table = document.get_ref();
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            let (name, value) = table.get_key_value(part)?;
            if parts.peek().is_none() {
                return Some(name.span().start);
            }
            let DeValue::Table(inner) = value.get_ref() else { return None };
            table = inner;
        }
        None
    }

    /// The keys that it sets, each with its table's name before it.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        let table = self.text.parse::<toml::Table>().unwrap_or_default();
        let mut keys = BTreeSet::new();
        for (name, value) in table {
            match value {
                toml::Value::Table(inner) => keys.extend(inner.keys().map(|key| format!("{name}.{key}"))),
                _ => drop(keys.insert(name)),
            }
        }
        keys
    }

    /// Where a key was set in one of several tables of the same name, counted from 0; or the place of all of them, where
    /// they are written in another way than `[[table]]`.
    pub(super) fn place_in_table(&self, table: &str, nth: usize, key: &str) -> Place {
        let (array, own) = (format!("[[{table}]]"), format!("[{table}."));
        let lines = || self.text.lines().map(str::trim).enumerate();
        let Some((start, _)) = lines().filter(|(_, line)| *line == array).nth(nth) else {
            return self.place(table);
        };
        let within = || {
            lines().skip(start + 1).take_while(|(_, line)| !line.starts_with('[') || line.starts_with(&own))
        };
        let found = within().find(|(_, line)| sets(line, key));
        let found = found.or_else(|| within().find(|(_, line)| !line.starts_with('#') && line.contains(key)));
        let line = found.map_or(start, |(at, _)| at) + 1;
        Place { file: Some((self.path.clone(), line)), key: format!("{table}.{key}") }
    }
}

/// Whether a line sets a key.
fn sets(line: &str, key: &str) -> bool {
    line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
}
