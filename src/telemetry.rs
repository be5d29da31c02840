//! Metrics and the log ([`log`]): what they are named, and the one place where a request's [`Outcome`] becomes both.
//!
//! Called by `server` around each request, and by `admin`, which shows the metrics. Label values come from closed
//! sets, models from a bounded one, so that no client can make more of them. docs/metrics.md lists all.

pub mod decisions;
pub mod histogram;
mod json_lines;
pub mod live;
mod log;
mod process;
mod reloads;
pub mod request_id;
mod request_line;
mod savings;
pub mod series;
mod store;
mod trials;
mod upstreams;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

use decisions::{Asked, Decisions};
use histogram::{Latencies, Latency};
use live::Live;
pub use log::{LogFilter, LogGuard, init_log, log_request};
pub use process::Parts;
use process::ProcessMetrics;
pub use reloads::{ReloadMetrics, ReloadResult};
use request_id::RequestName;
use savings::SavingsMetrics;
use series::{Counts, SeriesShape, Window};
use store::StoreMetrics;
use trials::TrialMetrics;
use upstreams::UpstreamMetrics;

use crate::cache::Cache;
use crate::cache::outcome::{Forward, Layer, Outcome};
use crate::config::Config;
use crate::dialect::Endpoint;
use crate::savings::{Ledger, Saved, Served, Spared};
use crate::trace::SpanCounts;

/// The labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    layer: &'static str,
    detail: &'static str,
}

/// The labels of a rule that spoke.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    detail: &'static str,
    rule: &'static str,
}

/// The labels of a latency.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LayerLabels {
    layer: &'static str,
}

/// The labels of a response.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

/// The classes of status codes (RFC 9110 §15) that an exchange ends with, from 200 on.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    /// The counters of exact hits by endpoint, looked up once rather than at each.
    exact: [OnceLock<Counter>; Endpoint::ALL.len()],
    rules: Family<RuleLabels, Counter>,
    durations: Durations,
    /// In the order of [`CLASSES`].
    responses: [Counter; CLASSES.len()],
    ledger: Arc<Ledger>,
    savings: SavingsMetrics,
    process: ProcessMetrics,
    store: StoreMetrics,
    trials: TrialMetrics,
    reloads: ReloadMetrics,
    upstreams: UpstreamMetrics,
    spans: SpanCounts,
    connections: Gauge,
    embeddings: Counter,
    totals: Totals,
    live: Live,
    decisions: Arc<Decisions>,
}

/// The time until the head of the response, by the layer that gave the reply.
#[derive(Debug)]
struct Durations {
    exact: Latencies,
    semantic: Latencies,
    upstream: Latencies,
}

/// The counters that `/internal/metrics` shows.
#[derive(Debug, Default)]
struct Totals {
    exact_hits: AtomicU64,
    semantic_hits: AtomicU64,
    misses: AtomicU64,
    llm_calls: AtomicU64,
    bypasses: AtomicU64,
    errors: AtomicU64,
}

impl Totals {
    fn by_layer(&self) -> Counts {
        [&self.exact_hits, &self.semantic_hits, &self.misses, &self.bypasses]
            .map(|total| total.load(Ordering::Relaxed))
    }
}

/// The counters of `GET /internal/metrics`.
#[derive(Debug, Serialize)]
pub struct Counters {
    /// Hits of the exact layer.
    pub exact_hits: u64,
    /// Hits of the semantic layer.
    pub semantic_hits: u64,
    /// Requests that were looked up and not found.
    pub misses: u64,
    /// Replies asked of upstream for cacheable requests.
    pub llm_calls: u64,
    /// Embeddings computed or asked for.
    pub embeddings: u64,
    /// Requests that were not looked up.
    pub bypasses: u64,
    /// Responses with status 500 or above.
    pub errors: u64,
    /// Tokens of replies and prompts that upstream did not have to process again, where it had counted them.
    pub tokens_saved: u64,
    /// Hits among the requests looked up, 0 to 1.
    pub hit_rate: f64,
    /// What hits have spared, by model, and in money where prices are configured.
    pub saved: Saved,
}

/// What a request counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Semantic,
    /// It was looked up and not found.
    Miss,
    /// It was not looked up.
    Bypass,
}

impl Kind {
    fn of(outcome: &Outcome) -> Self {
        match (outcome.layer, outcome.forward, outcome.reason) {
            (Layer::Exact, ..) => Self::Exact,
            (Layer::Semantic, ..) => Self::Semantic,
            (Layer::Upstream, Some(Forward::Miss | Forward::Stale), _)
            | (Layer::Upstream, Some(Forward::Request), Some(_)) => Self::Miss,
            (Layer::Upstream, ..) => Self::Bypass,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
            Self::Miss => "upstream",
            Self::Bypass => "bypass",
        }
    }
}

/// What is known of a request besides its outcome.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The cacheable endpoint that was asked; `None` for any other method and path.
    pub endpoint: Option<Endpoint>,
    /// The method.
    pub method: &'a Method,
    /// The path, which may hold anything.
    pub path: &'a str,
    /// `X-Request-Id`.
    pub request_id: RequestName<'a>,
    /// The response's status.
    pub status: StatusCode,
    /// Until the response's head.
    pub elapsed: Duration,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new(config: &Config) -> Self {
        let mut registry = Registry::with_prefix("rejoinder");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "requests",
            "Requests by endpoint, the layer that gave the reply, and the reason of a miss",
            requests.clone(),
        );
        let rules = Family::<RuleLabels, Counter>::default();
        registry.register(
            "rules",
            "Rules that spoke against a stored reply, or against matching a prompt by meaning, by the reason of the miss",
            rules.clone(),
        );
        let duration = Family::<LayerLabels, Latencies>::default();
        registry.register_with_unit(
            "request_duration",
            "Time until the head of the response, by the layer that gave the reply",
            Unit::Seconds,
            duration.clone(),
        );
        let responses = Family::<ClassLabels, Counter>::default();
        registry.register(
            "responses",
            "Responses to clients by the class of their status",
            responses.clone(),
        );
        let ledger = Arc::new(Ledger::new(config.prices.clone(), [config.ask.model.as_str()]));
        let savings = SavingsMetrics::default();
        savings.register(&mut registry);
        let process = ProcessMetrics::default();
        process.register(&mut registry, config);
        let store = StoreMetrics::default();
        store.register(&mut registry);
        let trials = TrialMetrics::default();
        trials.register(&mut registry);
        let reloads = ReloadMetrics::default();
        reloads.register(&mut registry);
        let upstreams = UpstreamMetrics::default();
        upstreams.register(&mut registry);
        let spans = SpanCounts::default();
        spans.register(&mut registry);
        let connections = Gauge::default();
        registry.register("client_connections", "Open connections of clients", connections.clone());
        let embeddings = Counter::default();
        registry.register("embeddings", "Embeddings computed or asked for", embeddings.clone());
        let totals = Totals::default();
        // Looked up once rather than at each request.
        let of_layer = |layer: Layer| duration.get_or_create_owned(&LayerLabels { layer: layer.as_str() });
        let durations = Durations {
            exact: of_layer(Layer::Exact),
            semantic: of_layer(Layer::Semantic),
            upstream: of_layer(Layer::Upstream),
        };
        let responses = CLASSES.map(|class| responses.get_or_create_owned(&ClassLabels { class }));
        Self {
            registry,
            requests,
            exact: Default::default(),
            rules,
            durations,
            responses,
            ledger,
            savings,
            process,
            store,
            trials,
            reloads,
            upstreams,
            spans,
            connections,
            embeddings,
            totals,
            live: Live::new(),
            decisions: Arc::default(),
        }
    }

    /// The counts of exported spans.
    pub fn spans(&self) -> &SpanCounts {
        &self.spans
    }

    /// Counts a request.
    pub fn record(&self, outcome: &Outcome, exchange: &Exchange<'_>) {
        self.count(outcome, exchange);
        if let Some(rule) = outcome.rule {
            self.rules.get_or_create(&RuleLabels { detail: outcome.detail(), rule }).inc();
        }
        self.upstreams.record(outcome, exchange.status);
        let duration = match outcome.layer {
            Layer::Exact => &self.durations.exact,
            Layer::Semantic => &self.durations.semantic,
            Layer::Upstream => &self.durations.upstream,
        };
        duration.observe(exchange.elapsed);
        let counted = match Kind::of(outcome) {
            Kind::Exact => &self.totals.exact_hits,
            Kind::Semantic => &self.totals.semantic_hits,
            Kind::Miss => &self.totals.misses,
            Kind::Bypass => &self.totals.bypasses,
        };
        add(counted, 1);
        if outcome.layer != Layer::Exact {
            self.live.record(outcome);
        }
        let asked = outcome.layer == Layer::Upstream
            && outcome.forward != Some(Forward::Bypass)
            && !outcome.collapsed
            && outcome.timings.upstream.is_some();
        if asked {
            add(&self.totals.llm_calls, 1);
        }
        if exchange.status.is_server_error() {
            add(&self.totals.errors, 1);
        }
        let class = usize::from(exchange.status.as_u16() / 100).wrapping_sub(2);
        if let Some(responses) = self.responses.get(class) {
            responses.inc();
        }
        let served = match outcome.layer {
            Layer::Exact => Served::Exact,
            Layer::Semantic => Served::Semantic,
            Layer::Upstream => return,
        };
        if let Some(meter) = &outcome.meter {
            self.ledger.add(meter, served, Spared { usage: outcome.saved, time: outcome.took });
        }
    }

    fn count(&self, outcome: &Outcome, exchange: &Exchange<'_>) {
        let labels = || RequestLabels {
            endpoint: endpoint_label(exchange),
            layer: outcome.layer.as_str(),
            detail: outcome.detail(),
        };
        let exact = exchange.endpoint.filter(|_| outcome.layer == Layer::Exact);
        match exact.and_then(|endpoint| self.exact.get(endpoint as usize)) {
            Some(counter) => counter.get_or_init(|| self.requests.get_or_create_owned(&labels())).inc(),
            None => self.requests.get_or_create(&labels()).inc(),
        };
    }

    /// What hits have spared.
    pub fn savings(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What becomes of reloads of the configuration.
    pub fn reloads(&self) -> &ReloadMetrics {
        &self.reloads
    }

    /// Who listens to what becomes of requests.
    pub fn decisions(&self) -> &Arc<Decisions> {
        &self.decisions
    }

    /// Tells whoever listens what became of a request.
    pub fn tell(&self, outcome: &Outcome, exchange: &Exchange<'_>, asked: Option<&Asked>) {
        if self.decisions.are_wanted() {
            self.decisions.tell(outcome, exchange, asked);
        }
    }

    /// What the overview shows beyond the counters.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The counts over time. To be asked for, or [`Self::step`] called, after each [`series::STEP`].
    pub fn series(&self, window: Window) -> SeriesShape {
        self.live.series(window, self.totals.by_layer())
    }

    /// Ends a step of the counts over time.
    pub fn step(&self) {
        self.live.advance(self.totals.by_layer());
    }

    /// The time until the head of the response, of exact hits, semantic hits, and upstream's replies.
    pub fn latencies(&self) -> [(Layer, Latency); 3] {
        let Durations { exact, semantic, upstream } = &self.durations;
        [(Layer::Exact, exact), (Layer::Semantic, semantic), (Layer::Upstream, upstream)]
            .map(|(layer, latencies)| (layer, latencies.picture()))
    }

    /// The gauge of open connections.
    pub fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// The text of `GET /metrics` (`OpenMetrics` 1.0, which Prometheus reads), with what the store holds, what trials
    /// have shown, and how the parts do.
    pub fn encode(&self, cache: &Cache, parts: &Parts) -> Result<String, std::fmt::Error> {
        self.store.take_over(&cache.store().usage());
        self.trials.take_over(cache.trials());
        self.savings.take_over(&self.ledger);
        self.process.take_over(parts);
        self.embeddings.inner().store(cache.embeddings(), Ordering::Relaxed);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// The counters of `GET /internal/metrics`.
    pub fn counters(&self, embeddings: u64) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (exact_hits, semantic_hits) = (get(&self.totals.exact_hits), get(&self.totals.semantic_hits));
        let misses = get(&self.totals.misses);
        let looked_up = exact_hits + semantic_hits + misses;
        #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
        let hit_rate =
            if looked_up == 0 { 0.0 } else { (exact_hits + semantic_hits) as f64 / looked_up as f64 };
        Counters {
            exact_hits,
            semantic_hits,
            misses,
            llm_calls: get(&self.totals.llm_calls),
            embeddings,
            bypasses: get(&self.totals.bypasses),
            errors: get(&self.totals.errors),
            tokens_saved: self.ledger.tokens(),
            hit_rate,
            saved: self.ledger.saved(),
        }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// The endpoint, where it is one we know; a client can ask for any path.
fn endpoint_label(exchange: &Exchange<'_>) -> &'static str {
    match exchange.endpoint {
        Some(endpoint) => endpoint.path(),
        None if exchange.path == "/ask" => "/ask",
        None => "other",
    }
}
