//! The log: where its lines go, which are written, and the line of each request.
//!
//! Begun by `cli`, told of a reload by `server`, which also has a line written for each request.

use std::sync::OnceLock;
use std::time::SystemTime;

use tracing::{Level, enabled, warn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::Exchange;
use super::json_lines::JsonLines;
use super::request_line;
use super::writer::{Lines, Writing};
use crate::cache::outcome::{Layer, Outcome};
use crate::config::{Config, LogFormat};

/// The log's lines, where they are ours and JSON.
static JSON: OnceLock<Lines> = OnceLock::new();

/// Writes the line of a request, if such lines are wanted.
pub fn log_request(outcome: &Outcome, exchange: &Exchange<'_>) {
    // Most lines are those of exact hits, and are written without a way through the subscriber's layers.
    if outcome.layer == Layer::Exact
        && let Some(lines) = JSON.get()
    {
        if enabled!(target: request_line::TARGET, Level::INFO) {
            lines.append(|text, stamp| request_line::write(text, stamp, SystemTime::now(), exchange));
        }
        return;
    }
    request_line::tell(outcome, exchange);
}

/// Keeps the log's writer alive; what is still to be written is when this is dropped.
#[derive(Debug)]
pub struct LogGuard {
    _writing: Writing,
    filter: LogFilter,
}

/// Changes what is logged.
#[derive(Debug, Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogGuard {
    /// What changes what is logged.
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }
}

impl LogFilter {
    /// Logs what the configuration says from now on, unless `RUST_LOG` says what.
    pub fn follow(&self, config: &Config) {
        // Without a log that is ours there is none to change.
        if let Err(error) = self.0.reload(env_filter(config)) {
            warn!(%error, "what is logged was not changed");
        }
    }
}

/// What is logged: by `RUST_LOG`, or the configuration.
fn env_filter(config: &Config) -> EnvFilter {
    let filter = std::env::var("RUST_LOG").ok().unwrap_or_else(|| config.log.filter.clone());
    // The configuration was checked; a wrong RUST_LOG leaves the default.
    EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Begins to log to standard error, by a thread of its own so that no request waits for it.
///
/// # Errors
/// The system gave no thread.
pub fn init_log(config: &Config) -> std::io::Result<LogGuard> {
    let (filter, handle) = reload::Layer::new(env_filter(config));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let format = config.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let (lines, writing) = Lines::start(std::io::stderr())?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
    // A second initialisation, as in tests that start several proxies, leaves the first in place.
    let _ = match format {
        LogFormat::Text => registry.with(layer.with_ansi(terminal)).try_init(),
        LogFormat::Json => registry.with(layer.event_format(JsonLines)).try_init().map(|()| {
            let _ = JSON.set(lines);
        }),
    };
    Ok(LogGuard { _writing: writing, filter: LogFilter(handle) })
}
