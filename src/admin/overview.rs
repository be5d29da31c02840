//! `GET /overview`: what the proxy saves, and whether its answers can be trusted, in one document for the dashboard and
//! for `rejoinder stats --watch`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::readiness::State;
use super::{Answer, Refusal, Shared, json_response, trials};
use crate::config::Config;
use crate::rate::rounded;
use crate::savings::Saved;
use crate::store::{Store, StoreState};
use crate::telemetry::histogram::{LatencyShape, edges_ms, similarity_edges};
use crate::telemetry::series::{SeriesShape, Window};

/// Entries that are shown as those used most.
const TOP: usize = 10;

/// For how many times the time that it took to find them out they count: every entry is looked at for that, and no more
/// than a hundredth of a core is to be spent on it.
const FRESH: u32 = 100;

/// Characters that are shown of a prompt.
const SHOWN: usize = 200;

/// The body of `GET /overview`. Durations in the unit that the field's name ends with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overview {
    /// The program's version.
    pub version: String,
    /// What is done with a stored reply that is found by meaning: `reuse`, `observe` or `verified`.
    pub mode: String,
    /// Since when all this is counted.
    pub uptime_s: u64,
    /// The store.
    pub store: StoreShape,
    /// The embedder.
    pub embedder: EmbedderShape,
    /// How sure the cache must be.
    pub thresholds: Thresholds,
    /// Requests so far.
    pub totals: Totals,
    /// What hits saved.
    pub saved: Saved,
    /// Requests over time.
    pub series: SeriesShape,
    /// The time until a reply's head.
    pub latency: LatencyByLayer,
    /// How often a lookup found nothing to serve, by the reason.
    pub miss_reasons: BTreeMap<String, u64>,
    /// How near the nearest prompts were.
    pub similarity: SimilarityShape,
    /// The entries of which most hits were served.
    pub top_entries: Vec<TopEntry>,
}

/// The store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreShape {
    /// `embedded` or `redis`.
    pub kind: String,
    /// How it does.
    pub state: State,
    /// What is amiss, where something is.
    pub problem: Option<String>,
    /// Entries in this process's memory.
    pub entries: u64,
    /// What they take there.
    pub bytes: u64,
    /// The most that they may take.
    pub max_bytes: u64,
}

/// The embedder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmbedderShape {
    /// The model's name; `None` where the exact layer is alone.
    pub model: Option<String>,
    /// How it does.
    pub state: State,
    /// Embeddings asked of it.
    pub embeddings: u64,
}

/// How sure the cache must be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Thresholds {
    /// The similarity from which an entry is a candidate, a cosine.
    pub similarity: f64,
    /// The least confidence, a probability.
    pub confidence: f64,
    /// The share of semantic hits that may be wrong.
    pub max_error: f64,
}

/// Requests so far.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Totals {
    /// All of them.
    pub requests: u64,
    /// Hits of the exact layer.
    pub exact_hits: u64,
    /// Hits of the semantic layer.
    pub semantic_hits: u64,
    /// Requests that were looked up and not found.
    pub misses: u64,
    /// Requests that were not looked up.
    pub bypasses: u64,
    /// Responses with status 500 or above.
    pub errors: u64,
    /// Hits among the requests looked up, 0 to 1.
    pub hit_rate: f64,
}

/// The time until a reply's head, by the layer that gave it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LatencyByLayer {
    /// Between which two of these each count lies: one more than there are counts.
    pub edges_ms: Vec<f64>,
    /// Exact hits.
    pub exact: LatencyShape,
    /// Semantic hits.
    pub semantic: LatencyShape,
    /// Replies of upstream, those to requests that were not looked up included.
    pub upstream: LatencyShape,
}

/// How near the nearest prompts were.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SimilarityShape {
    /// Between which two of these each count lies: one more than there are counts.
    pub edges: Vec<f64>,
    /// Of lookups that were served by meaning.
    pub hits: Vec<u64>,
    /// Of lookups that were not, although something was near.
    pub misses: Vec<u64>,
    /// Of those, the ones that failed for their similarity alone: with a lower threshold each may become a hit, unless
    /// something else speaks against it, which was not asked.
    pub below_threshold: Vec<u64>,
}

/// An entry of which many hits were served.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopEntry {
    /// Its id.
    pub id: String,
    /// The request's model.
    pub model: String,
    /// The beginning of its prompt.
    pub prompt: String,
    /// Hits.
    pub hits: u64,
}

/// The entries used most, and until when that counts.
type Top = (Instant, Vec<TopEntry>);

/// What the overview says of the configuration, and what it remembers.
#[derive(Debug, Clone)]
pub(super) struct Overviews {
    max_error: f64,
    /// The entries used most, and until when that counts.
    top: Arc<Mutex<Option<Top>>>,
}

impl Overviews {
    pub(super) fn new(config: &Config) -> Self {
        Self { max_error: config.max_error, top: Arc::default() }
    }

    /// The same under another configuration.
    pub(super) fn renewed(&self, config: &Config) -> Self {
        Self { top: Arc::clone(&self.top), ..Self::new(config) }
    }

    /// The entries used most; none where the store does not say.
    async fn top(&self, store: &Store) -> Vec<TopEntry> {
        let started = Instant::now();
        if let Some((until, top)) = &*self.top.lock()
            && *until > started
        {
            return top.clone();
        }
        let used = store.most_used(TOP).await.unwrap_or_default();
        let top: Vec<_> = used
            .iter()
            .map(|found| TopEntry {
                id: found.entry.key.id().to_string(),
                model: found.entry.model().to_owned(),
                prompt: found.entry.prompt().chars().take(SHOWN).collect(),
                hits: found.hits,
            })
            .collect();
        let now = Instant::now();
        *self.top.lock() = Some((now + (now - started) * FRESH, top.clone()));
        top
    }

    /// Forgets which entries are used most, since some were removed.
    pub(super) fn forget(&self) {
        *self.top.lock() = None;
    }
}

impl Shared {
    /// `GET /overview?window=`
    pub(super) async fn overview(&self, query: &str) -> Answer {
        let window = window(query)?;
        let cache = &self.cache;
        let counters = self.metrics.counters(cache.embeddings());
        let looked_up = counters.exact_hits + counters.semantic_hits + counters.misses;
        let floors = cache.trials().floors();
        let live = self.metrics.live();
        let [exact, semantic, upstream] = self.metrics.latencies().map(|(_, latency)| latency);
        let similarities = live.similarities();
        let overview = Overview {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: trials::mode(cache.trials()).to_owned(),
            uptime_s: live.started().elapsed().as_secs(),
            store: store_shape(cache.store()),
            embedder: EmbedderShape {
                model: cache.embedder().map(|embedder| embedder.name().to_owned()),
                state: State::of_embedder(cache.embedder()),
                embeddings: counters.embeddings,
            },
            thresholds: Thresholds {
                similarity: rounded(f64::from(floors.similarity)),
                confidence: rounded(f64::from(floors.confidence)),
                max_error: rounded(self.overviews.max_error),
            },
            totals: Totals {
                requests: looked_up + counters.bypasses,
                exact_hits: counters.exact_hits,
                semantic_hits: counters.semantic_hits,
                misses: counters.misses,
                bypasses: counters.bypasses,
                errors: counters.errors,
                hit_rate: counters.hit_rate,
            },
            saved: counters.saved,
            series: self.metrics.series(window),
            latency: LatencyByLayer {
                edges_ms: edges_ms(),
                exact: exact.shape(),
                semantic: semantic.shape(),
                upstream: upstream.shape(),
            },
            miss_reasons: live.reasons().map(|(reason, n)| (reason.as_str().to_owned(), n)).collect(),
            similarity: SimilarityShape {
                edges: similarity_edges(),
                hits: similarities.hits,
                misses: similarities.misses,
                below_threshold: similarities.below_threshold,
            },
            top_entries: self.overviews.top(cache.store()).await,
        };
        Ok(json_response(StatusCode::OK, &overview))
    }
}

fn window(query: &str) -> Result<Window, Refusal> {
    let mut window = Window::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "window" {
            let message = format!("the parameter {name:?} is not known; there is window");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        window = Window::from_name(&value).ok_or_else(|| {
            let names = Window::ALL.map(|(name, _)| name).join(", ");
            Refusal::new(StatusCode::BAD_REQUEST, format!("the parameter \"window\" is none of {names}"))
        })?;
    }
    Ok(window)
}

fn store_shape(store: &Store) -> StoreShape {
    let usage = store.usage();
    let state = store.state();
    StoreShape {
        kind: match store {
            Store::Embedded(_) => "embedded",
            Store::Redis(_) => "redis",
        }
        .to_owned(),
        state: State::of_store(&state),
        problem: match state {
            StoreState::Ok => None,
            StoreState::Degraded(problem) | StoreState::Down(problem) => Some(problem),
        },
        entries: usage.entries,
        bytes: usage.bytes,
        max_bytes: usage.max_bytes,
    }
}
