//! Whether this process can serve, and what it says of its parts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, Uri};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::config::Config;
use crate::embed::EmbedderState;
use crate::store::StoreState;
use crate::telemetry::Parts;

/// How long upstream may take to accept a connection before it counts as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an answer about upstream counts, so that probes do not become a load of their own.
const FRESH: Duration = Duration::from_secs(2);

/// Asks the parts how they are.
#[derive(Clone)]
pub struct Readiness {
    cache: Arc<Cache>,
    upstream: Uri,
    stopping: watch::Receiver<bool>,
    last: Arc<Mutex<Option<(Instant, State)>>>,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok,
    /// It works in part, or has failed of late.
    Degraded,
    /// It does not work.
    Down,
    /// It is switched off.
    Off,
}

/// The body of `GET /readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Report {
    store: State,
    embedder: State,
    upstream: State,
    #[serde(skip)]
    stopping: bool,
}

impl State {
    /// As the report names it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Off => "off",
        }
    }
}

impl Report {
    /// Each part and its state, for the metrics.
    pub(super) fn parts(self) -> Parts {
        [
            ("store", self.store.as_str()),
            ("embedder", self.embedder.as_str()),
            ("upstream", self.upstream.as_str()),
        ]
    }

    /// 503 when it cannot serve: upstream cannot be reached, or the process is shutting down. A broken store or
    /// embedder costs hits, not answers.
    pub(super) fn status(self) -> StatusCode {
        if self.stopping || self.upstream == State::Down {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        }
    }
}

impl Readiness {
    /// Readiness of these parts; `stopping` tells when the process shuts down.
    pub fn new(config: &Config, cache: Arc<Cache>, stopping: watch::Receiver<bool>) -> Self {
        Self { cache, upstream: config.upstream.clone(), stopping, last: Arc::default() }
    }

    /// The same under another configuration.
    pub(super) fn renewed(&self, config: &Config) -> Self {
        let upstream = config.upstream.clone();
        // What was found of another upstream says nothing of this one.
        let last = if upstream == self.upstream { Arc::clone(&self.last) } else { Arc::default() };
        Self { upstream, last, ..self.clone() }
    }

    /// Asks all parts.
    pub(super) async fn check(&self) -> Report {
        let store = match self.cache.store().state() {
            StoreState::Ok => State::Ok,
            StoreState::Degraded(_) => State::Degraded,
            StoreState::Down(_) => State::Down,
        };
        let embedder = self.cache.embedder().map_or(State::Off, |embedder| match embedder.state() {
            EmbedderState::Ok => State::Ok,
            EmbedderState::Degraded => State::Degraded,
            EmbedderState::Down => State::Down,
        });
        Report { store, embedder, upstream: self.upstream().await, stopping: *self.stopping.borrow() }
    }

    async fn upstream(&self) -> State {
        if let Some((at, state)) = *self.last.lock()
            && at.elapsed() < FRESH
        {
            return state;
        }
        let host = self.upstream.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let https = self.upstream.scheme_str() == Some("https");
        let port = self.upstream.port_u16().unwrap_or(if https { 443 } else { 80 });
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
        let state = if matches!(connected, Ok(Ok(_))) { State::Ok } else { State::Down };
        *self.last.lock() = Some((Instant::now(), state));
        state
    }
}
