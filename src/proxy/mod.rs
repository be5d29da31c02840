//! The proxy: a request in, the one upstream's reply out, or a stored one in its place.
//!
//! Called by `server` as a service of hyper's. Knows HTTP, and hands plain values to `cache`.

mod ask;
pub mod body;
mod budget;
mod cached;
pub mod collect;
pub(crate) mod decode;
pub mod error;
pub mod explain;
mod fetch;
mod handling;
pub mod headers;
mod layouts;
mod pass;
mod permits;
mod pump;
mod readings;
mod spans;
mod told;
mod traced;
mod trial;
mod upstream;
mod upstreams;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName, Method, Request, Response, Uri, Version, request};
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::sync::{Semaphore, watch};

use body::{Body, BodyError};
use budget::Budget;
use cached::Prepared;
use collect::{Collected, collect};
use error::ProxyError;
use fetch::{FlightKey, Head};
pub use handling::Handling;
use headers::{Survey, directives, is_framing_known, is_host_known, join_cookies, strip_request};
use layouts::Layouts;
use pass::Upgrade;
use readings::Readings;
pub use spans::route;
use upstream::Upstream;
pub use upstream::UpstreamUrlError;
use upstreams::Upstreams;

use crate::cache::Cache;
use crate::cache::coalesce::Flights;
use crate::cache::directives::Directives;
use crate::cache::outcome::{Forward, Outcome};
use crate::config::Config;
use crate::dialect::{Endpoint, Reply};
use crate::savings::Ledger;
use crate::telemetry::decisions::{Asked, Decisions};
use crate::telemetry::request_id::GivenId;

/// The proxy under one configuration.
pub struct Proxy {
    cache: Arc<Cache>,
    upstreams: Arc<Upstreams>,
    flights: Arc<Flights<FlightKey, Head, Option<Reply>>>,
    layouts: Arc<Layouts>,
    readings: Arc<Readings>,
    settings: Arc<Settings>,
    /// Memory for bodies that are being read.
    budget: Budget,
    /// Room for audits.
    audits: Arc<Semaphore>,
    savings: Arc<Ledger>,
    /// Who wants to know what becomes of requests.
    decisions: Arc<Decisions>,
    /// Says when what is still open is not answered any more.
    closing: watch::Sender<bool>,
}

/// The proxy in force, as the service of the client listener. Each request keeps the one it came to, so that none sees
/// two configurations.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Proxy>>);

/// What of the configuration a request's way depends on.
#[derive(Debug, PartialEq)]
struct Settings {
    scope_headers: Vec<HeaderName>,
    scope_user: bool,
    include_usage: bool,
    max_entry_bytes: usize,
    max_request_bytes: usize,
    idle: Duration,
    ask_endpoint: Endpoint,
    ask_model: String,
    log_prompts: bool,
}

/// The body of a request whose reply may be reused.
enum Read {
    /// All of it.
    Whole(Bytes),
    /// It goes on as it comes, for this reason, to this upstream.
    Untouched(Body, Forward, Arc<Upstream>),
}

/// A response, and what happened on its way: for the metrics and the log.
#[derive(Debug)]
pub struct Answered {
    /// The response.
    pub response: Response<Body>,
    /// What happened.
    pub outcome: Outcome,
    /// What was asked, where somebody listens.
    pub asked: Option<Box<Asked>>,
}

/// A request as it comes.
#[derive(Debug)]
pub struct Arrival {
    /// The request.
    pub request: Request<Incoming>,
    /// Its id, where its client gave it none.
    pub id: Option<GivenId>,
}

/// Why the proxy answers with an error of its own, and what happened until then. Boxed: it is rare and large.
#[derive(Debug)]
struct Failure(Box<Failed>);

#[derive(Debug)]
struct Failed {
    error: ProxyError,
    outcome: Outcome,
    asked: Option<Box<Asked>>,
}

impl Failure {
    fn new(error: ProxyError, outcome: Outcome) -> Self {
        Self(Box::new(Failed { error, outcome, asked: None }))
    }
}

impl Failure {
    fn with(mut self, asked: Option<Box<Asked>>) -> Self {
        self.0.asked = asked;
        self
    }
}

impl Answered {
    fn new(response: Response<Body>, outcome: Outcome) -> Self {
        Self { response, outcome, asked: None }
    }
}

impl Proxy {
    /// A proxy in front of the configuration's upstreams, whose hits are counted in `savings`.
    ///
    /// # Errors
    /// The URL of one of them is none that requests can go to.
    pub fn new(
        config: &Config,
        cache: Arc<Cache>,
        savings: Arc<Ledger>,
        decisions: Arc<Decisions>,
    ) -> Result<Self, UpstreamUrlError> {
        let settings = Settings::of(config);
        Ok(Self {
            cache,
            upstreams: Arc::new(Upstreams::new(config)?),
            flights: Arc::new(Flights::new(settings.max_entry_bytes)),
            layouts: Arc::new(Layouts::new()),
            readings: Arc::new(Readings::new()),
            settings: Arc::new(settings),
            budget: Budget::new(config.limits.max_buffer_bytes.as_usize()),
            audits: Arc::new(Semaphore::new(trial::AUDITS)),
            savings,
            decisions,
            closing: watch::Sender::new(false),
        })
    }

    /// Forgets what was read and laid out of late, which holds prompts and replies: for whoever removes entries, of which
    /// nothing is to be left. Where it is asked again it is read and laid out anew.
    pub fn forget(&self) {
        self.readings.clear();
        self.layouts.clear();
    }

    /// The same proxy under another configuration, where `before` was the one so far: what goes on goes on, flights can
    /// still be joined, connections upstream are kept where nothing about them changed.
    ///
    /// # Errors
    /// As [`Proxy::new`].
    pub fn renewed(
        &self,
        config: &Config,
        before: &Config,
        cache: Arc<Cache>,
    ) -> Result<Self, UpstreamUrlError> {
        let settings = Settings::of(config);
        let upstreams = if Upstreams::differ(config, before) {
            // Requests that are under way count against the old limit.
            Arc::new(Upstreams::new(config)?)
        } else {
            Arc::clone(&self.upstreams)
        };
        let flights = if settings.max_entry_bytes == self.settings.max_entry_bytes {
            Arc::clone(&self.flights)
        } else {
            Arc::new(Flights::new(settings.max_entry_bytes))
        };
        // A reading holds the scope, which settings are part of, where it goes, and what the rules say of its prompt.
        let as_before = settings == *self.settings
            && cache.rules() == self.cache.rules()
            && Arc::ptr_eq(&upstreams, &self.upstreams);
        let readings = if as_before { Arc::clone(&self.readings) } else { Arc::new(Readings::new()) };
        let budget = if config.limits.max_buffer_bytes == before.limits.max_buffer_bytes {
            self.budget.clone()
        } else {
            Budget::new(config.limits.max_buffer_bytes.as_usize())
        };
        Ok(Self {
            cache,
            upstreams,
            budget,
            flights,
            layouts: Arc::clone(&self.layouts),
            readings,
            settings: Arc::new(settings),
            audits: Arc::clone(&self.audits),
            savings: Arc::clone(&self.savings),
            decisions: Arc::clone(&self.decisions),
            closing: self.closing.clone(),
        })
    }

    async fn handle(&self, mut parts: request::Parts, incoming: Incoming) -> Answered {
        let (uri, version) = (parts.uri.clone(), parts.version);
        if version == Version::HTTP_2 {
            join_cookies(&mut parts.headers);
        }
        let answered = match (&parts.method, Endpoint::of_path(parts.uri.path())) {
            _ if !is_framing_known(&parts.headers) => {
                let error = ProxyError::Ambiguous("the body has a transfer coding that is not known here");
                Err(Failure::new(error, Outcome::forwarded(Forward::Bypass)))
            }
            _ if !is_host_known(&parts.headers) => {
                let error = ProxyError::Ambiguous("there is more than one Host");
                Err(Failure::new(error, Outcome::forwarded(Forward::Bypass)))
            }
            (&Method::POST, Some(endpoint)) => self.cacheable(endpoint, parts, incoming).await,
            (&Method::POST, None) if parts.uri.path() == ask::PATH => {
                Box::pin(self.ask(parts, incoming)).await
            }
            _ => Box::pin(self.other(parts, incoming)).await,
        };
        let mut answered = finished(answered, &uri);
        if version == Version::HTTP_2 {
            answered.response = answered.response.map(|body| pump::pump(body, self.settings.idle));
        }
        answered
    }

    /// Answers a request, or says that it is not answered any more, where it has come to that.
    async fn unless_closing(&self, uri: &Uri, answering: impl Future<Output = Answered>) -> Answered {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            biased;
            answered = answering => answered,
            _ = closing.wait_for(|closing| *closing) => {
                let outcome = Outcome::forwarded(Forward::Bypass);
                finished(Err(Failure::new(ProxyError::ShuttingDown, outcome)), uri)
            }
        }
    }

    async fn cacheable(
        &self,
        endpoint: Endpoint,
        mut parts: request::Parts,
        incoming: Incoming,
    ) -> Result<Answered, Failure> {
        let bypass = Outcome::forwarded(Forward::Bypass);
        let directives = directives(&parts.headers).map_err(|error| Failure::new(error.into(), bypass))?;
        strip_request(&mut parts.headers);
        let read = self.read(&parts.headers, incoming, &directives).await?;
        self.answer_read(endpoint, parts, read, directives).await
    }

    /// Answers a request whose body was read as far as it is to be.
    async fn answer_read(
        &self,
        endpoint: Endpoint,
        parts: request::Parts,
        read: Read,
        directives: Directives,
    ) -> Result<Answered, Failure> {
        let only_if_cached = directives.only_if_cached;
        let (body, forward, upstream) = match read {
            Read::Whole(body) => {
                match self.prepare(endpoint, &parts, Survey::of(&parts.headers), &body, directives) {
                    Some(prepared) => {
                        let asked = self.asked(&prepared, &parts.headers);
                        let answer = self.answer(&prepared, parts, body).await;
                        return prepared.answered(answer, asked);
                    }
                    None => return self.pass_whole(parts, body, only_if_cached).await,
                }
            }
            Read::Untouched(body, forward, upstream) => (body, forward, upstream),
        };
        self.pass_on(&upstream, parts, body, forward, only_if_cached).await
    }

    /// Passes on what is not ours to judge.
    async fn pass_whole(
        &self,
        parts: request::Parts,
        body: Bytes,
        only_if_cached: bool,
    ) -> Result<Answered, Failure> {
        let upstream = Arc::clone(self.upstreams.of_body(&body));
        self.pass_on(&upstream, parts, Body::Whole(body), Forward::Bypass, only_if_cached).await
    }

    async fn pass_on(
        &self,
        upstream: &Upstream,
        parts: request::Parts,
        body: Body,
        forward: Forward,
        only_if_cached: bool,
    ) -> Result<Answered, Failure> {
        let outcome = Outcome::forwarded(forward);
        // Of what is never stored there is nothing to answer with, and upstream is not to be asked.
        if only_if_cached {
            return Err(Failure::new(ProxyError::OnlyIfCached, outcome));
        }
        Box::pin(self.pass(upstream, parts, body, None, outcome)).await
    }

    /// What a request asks, if anybody wants to know; it is logged where the operator asked for that.
    fn asked(&self, prepared: &Prepared, headers: &HeaderMap) -> Option<Box<Asked>> {
        if self.settings.log_prompts && !prepared.query().directives.is_fleeting() {
            prepared.log_prompt(headers);
        }
        self.decisions.are_wanted().then(|| Asked::new(prepared.query()))
    }

    /// Reads a body for caching, where that may be and it is not too large.
    async fn read(
        &self,
        headers: &HeaderMap,
        incoming: Incoming,
        directives: &Directives,
    ) -> Result<Read, Failure> {
        let idle = self.settings.idle;
        let encoded = headers.contains_key(CONTENT_ENCODING);
        let forward = if directives.no_store { Forward::Request } else { Forward::Bypass };
        let untouched =
            |body, upstream: &Arc<Upstream>| Ok(Read::Untouched(body, forward, Arc::clone(upstream)));
        // What is not to be cached need not be read, unless to see where it goes: who asks for no trace here must not
        // be answered by another upstream for it.
        if encoded || (directives.no_store && !self.upstreams.are_several()) {
            return untouched(Body::relayed(incoming, idle, None), self.upstreams.default());
        }
        match collect(incoming, self.settings.max_request_bytes, idle, &self.budget).await {
            Ok(Collected::Whole(body)) if directives.no_store => {
                let upstream = self.upstreams.of_body(&body);
                untouched(Body::Whole(body), upstream)
            }
            collected => self.read_as(collected, forward),
        }
    }

    /// What a body is that was read for caching; `forward` is why it goes on untouched where it does.
    fn read_as(&self, collected: Result<Collected, BodyError>, forward: Forward) -> Result<Read, Failure> {
        match collected {
            Ok(Collected::Whole(body)) => Ok(Read::Whole(body)),
            // Which upstream it is for is not known, and no other is to see it, nor the credentials with it.
            Ok(Collected::NoRoom(..)) if self.upstreams.are_several() => {
                Err(Failure::new(ProxyError::NoRoom, Outcome::forwarded(Forward::Bypass)))
            }
            Ok(Collected::TooLarge(read, rest) | Collected::NoRoom(read, rest)) => {
                let body = Body::continued(read, rest, self.settings.idle);
                Ok(Read::Untouched(body, forward, Arc::clone(self.upstreams.default())))
            }
            Err(error) => {
                let error = ProxyError::RequestBody(error.to_string());
                Err(Failure::new(error, Outcome::forwarded(Forward::Bypass)))
            }
        }
    }

    async fn other(&self, mut parts: request::Parts, incoming: Incoming) -> Result<Answered, Failure> {
        let outcome = Outcome::forwarded(Forward::Bypass);
        let directives =
            directives(&parts.headers).map_err(|error| Failure::new(error.into(), outcome.clone()))?;
        if directives.only_if_cached {
            return Err(Failure::new(ProxyError::OnlyIfCached, outcome));
        }
        let upgrade = Upgrade::of(&mut parts);
        strip_request(&mut parts.headers);
        let body = Body::relayed(incoming, self.settings.idle, None);
        self.pass(self.upstreams.default(), parts, body, upgrade, outcome).await
    }
}

/// Makes the response, and says in it what happened.
fn finished(answered: Result<Answered, Failure>, uri: &Uri) -> Answered {
    let mut answered = answered.unwrap_or_else(|Failure(failed)| {
        let Failed { error, outcome, asked } = *failed;
        Answered { asked, ..Answered::new(error.response(uri.path()), outcome) }
    });
    told::write(answered.response.headers_mut(), &answered.outcome);
    answered
}

impl Settings {
    fn of(config: &Config) -> Self {
        Self {
            scope_headers: config.cache.scope_headers.clone(),
            scope_user: config.cache.scope_user,
            include_usage: config.cache.include_usage,
            max_entry_bytes: config.limits.max_entry_bytes.as_usize(),
            max_request_bytes: config.limits.max_request_bytes.as_usize(),
            idle: config.timeouts.idle,
            ask_endpoint: Endpoint::of_path(&config.ask.path).unwrap_or(Endpoint::OllamaGenerate),
            ask_model: config.ask.model.clone(),
            log_prompts: config.log.prompts,
        }
    }
}

impl Current {
    /// Serves by this proxy until it is replaced.
    pub fn new(proxy: Proxy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(proxy)))
    }

    /// The proxy in force.
    pub fn get(&self) -> Arc<Proxy> {
        self.0.load_full()
    }

    /// Answers all that is still open with an error, but what upstream has begun to answer.
    pub fn close(&self) {
        self.get().closing.send_replace(true);
    }

    /// Serves whatever comes from now on by this proxy.
    pub fn replace(&self, proxy: Proxy) {
        self.0.store(Arc::new(proxy));
    }
}

impl Service<Arrival> for Current {
    type Response = Answered;
    type Error = std::convert::Infallible;
    type Future = Handling;

    fn call(&self, arrival: Arrival) -> Self::Future {
        Handling::new(self.get(), arrival)
    }
}
