//! Whether this process can serve, and what it says of its parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, Uri};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::config::Config;
use crate::embed::{Embedder, EmbedderState};
use crate::store::StoreState;
use crate::telemetry::Parts;

/// How long upstream may take to accept a connection before it counts as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an answer about upstream counts, so that probes do not become a load of their own.
const FRESH: Duration = Duration::from_secs(2);

/// When the upstreams were looked at, and how each was, by name.
type Found = (Instant, BTreeMap<String, State>);

/// Asks the parts how they are.
#[derive(Clone)]
pub struct Readiness {
    cache: Arc<Cache>,
    /// By name.
    upstreams: BTreeMap<String, Uri>,
    stopping: watch::Receiver<bool>,
    last: Arc<Mutex<Option<Found>>>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    store: State,
    embedder: State,
    /// Of all together: degraded where some cannot be reached.
    upstream: State,
    /// Of each by name, where there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    upstreams: BTreeMap<String, State>,
    #[serde(skip)]
    stopping: bool,
}

impl Report {
    /// Each part and its state, for the metrics.
    pub(super) fn parts(&self) -> Parts {
        [
            ("store", self.store.as_str()),
            ("embedder", self.embedder.as_str()),
            ("upstream", self.upstream.as_str()),
        ]
    }

    /// 503 when it cannot serve: no upstream can be reached, or the process is shutting down. A broken store or
    /// embedder costs hits, not answers.
    pub(super) fn status(&self) -> StatusCode {
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
        Self { cache, upstreams: urls(config), stopping, last: Arc::default() }
    }

    /// The same under another configuration.
    pub(super) fn renewed(&self, config: &Config) -> Self {
        let upstreams = urls(config);
        // What was found of other upstreams says nothing of these.
        let last = if upstreams == self.upstreams { Arc::clone(&self.last) } else { Arc::default() };
        Self { upstreams, last, ..self.clone() }
    }

    /// Asks all parts.
    pub(super) async fn check(&self) -> Report {
        let store = State::of_store(&self.cache.store().state());
        let embedder = State::of_embedder(self.cache.embedder());
        let upstreams = self.upstreams().await;
        let upstream = together(&upstreams);
        let upstreams = if upstreams.len() > 1 { upstreams } else { BTreeMap::new() };
        Report { store, embedder, upstream, upstreams, stopping: *self.stopping.borrow() }
    }

    async fn upstreams(&self) -> BTreeMap<String, State> {
        if let Some((at, states)) = &*self.last.lock()
            && at.elapsed() < FRESH
        {
            return states.clone();
        }
        // All at once: one that does not answer must not keep a probe waiting for the others.
        let mut probes = JoinSet::new();
        for (name, url) in self.upstreams.clone() {
            probes.spawn(async move { (name, probe(&url).await) });
        }
        let mut states: BTreeMap<_, _> =
            self.upstreams.keys().map(|name| (name.clone(), State::Down)).collect();
        while let Some(probed) = probes.join_next().await {
            states.extend(probed);
        }
        *self.last.lock() = Some((Instant::now(), states.clone()));
        states
    }
}

fn urls(config: &Config) -> BTreeMap<String, Uri> {
    config.upstream.all().map(|one| (one.name.clone(), one.url.clone())).collect()
}

/// Whether a server accepts connections.
async fn probe(url: &Uri) -> State {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let https = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
    if matches!(connected, Ok(Ok(_))) { State::Ok } else { State::Down }
}

fn together(upstreams: &BTreeMap<String, State>) -> State {
    match upstreams.values().filter(|state| **state == State::Ok).count() {
        0 => State::Down,
        reached if reached < upstreams.len() => State::Degraded,
        _ => State::Ok,
    }
}
