//! Whether this process can serve, and what it says of its parts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, Uri};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::config::Config;
use crate::embed::{Embedder, EmbedderState};
use crate::store::StoreState;

/// How long upstream may take to accept a connection before it counts as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an answer about upstream counts, so that probes do not become a load of their own.
const FRESH: Duration = Duration::from_secs(2);

/// Asks the parts how they are.
pub struct Readiness {
    cache: Arc<Cache>,
    upstream: Uri,
    stopping: watch::Receiver<bool>,
    last: Mutex<Option<(Instant, State)>>,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

impl State {
    /// The token in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Off => "off",
        }
    }

    pub(super) fn of_store(state: &StoreState) -> Self {
        match state {
            StoreState::Ok => Self::Ok,
            StoreState::Degraded(_) => Self::Degraded,
            StoreState::Down(_) => Self::Down,
        }
    }

    pub(super) fn of_embedder(embedder: Option<&Embedder>) -> Self {
        embedder.map_or(Self::Off, |embedder| match embedder.state() {
            EmbedderState::Ok => Self::Ok,
            EmbedderState::Degraded => Self::Degraded,
            EmbedderState::Down => Self::Down,
        })
    }
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

impl Report {
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
        Self { cache, upstream: config.upstream.clone(), stopping, last: Mutex::new(None) }
    }

    /// Asks all parts.
    pub(super) async fn check(&self) -> Report {
        let store = State::of_store(&self.cache.store().state());
        let embedder = State::of_embedder(self.cache.embedder());
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
