//! The proxy: a request in, the one upstream's reply out, or a stored one in its place.
//!
//! Called by `server` as a tower service. Knows HTTP, and hands plain values to `cache`.

mod ask;
pub mod body;
mod cached;
mod decode;
pub mod error;
pub mod explain;
mod fetch;
pub mod headers;
mod layouts;
mod pass;
mod readings;
mod trial;
mod upstream;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName, Method, Request, Response, Version, request};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tower::Service;

use body::{Body, Collected, collect};
use cached::Prepared;
use error::ProxyError;
use fetch::{FlightKey, Head};
use headers::{directives, is_framing_known, join_cookies, strip_request, write_outcome};
use layouts::Layouts;
use pass::Upgrade;
use readings::Readings;
use upstream::Upstream;
pub use upstream::UpstreamUrlError;

use crate::cache::Cache;
use crate::cache::coalesce::Flights;
use crate::cache::directives::Directives;
use crate::cache::outcome::{Forward, Outcome};
use crate::config::Config;
use crate::dialect::{Endpoint, Reply};
use crate::telemetry::decisions::{Asked, Decisions};

/// The proxy. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Proxy {
    cache: Arc<Cache>,
    upstream: Arc<Upstream>,
    flights: Arc<Flights<FlightKey, Head, Option<Reply>>>,
    layouts: Arc<Layouts>,
    readings: Arc<Readings>,
    settings: Arc<Settings>,
    /// Room for audits.
    audits: Arc<Semaphore>,
    /// Who wants to know what becomes of requests.
    decisions: Arc<Decisions>,
}

/// What of the configuration a request's way depends on.
#[derive(Debug)]
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
    /// It goes on as it comes, for this reason.
    Untouched(Body, Forward),
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
    /// A proxy in front of the configuration's upstream.
    ///
    /// # Errors
    /// Its URL is none that requests can go to.
    pub fn new(
        config: &Config,
        cache: Arc<Cache>,
        decisions: Arc<Decisions>,
    ) -> Result<Self, UpstreamUrlError> {
        let settings = Settings {
            scope_headers: config.cache.scope_headers.clone(),
            scope_user: config.cache.scope_user,
            include_usage: config.cache.include_usage,
            max_entry_bytes: config.limits.max_entry_bytes.as_usize(),
            max_request_bytes: config.limits.max_request_bytes.as_usize(),
            idle: config.timeouts.idle,
            ask_endpoint: Endpoint::of_path(&config.ask.path).unwrap_or(Endpoint::OllamaGenerate),
            ask_model: config.ask.model.clone(),
            log_prompts: config.log.prompts,
        };
        Ok(Self {
            cache,
            upstream: Arc::new(Upstream::new(config)?),
            flights: Arc::new(Flights::new(settings.max_entry_bytes)),
            layouts: Arc::new(Layouts::new()),
            readings: Arc::new(Readings::new()),
            settings: Arc::new(settings),
            audits: Arc::new(Semaphore::new(trial::AUDITS)),
            decisions,
        })
    }

    async fn handle(self, request: Request<Incoming>) -> Answered {
        let (mut parts, incoming) = request.into_parts();
        let path = parts.uri.clone();
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut parts.headers);
        }
        let answered = match (&parts.method, Endpoint::of_path(parts.uri.path())) {
            _ if !is_framing_known(&parts.headers) => {
                let error = ProxyError::BadRequest("the body has a transfer coding that is not known here");
                Err(Failure::new(error, Outcome::forwarded(Forward::Bypass)))
            }
            (&Method::POST, Some(endpoint)) => self.cacheable(endpoint, parts, incoming).await,
            (&Method::POST, None) if parts.uri.path() == ask::PATH => {
                Box::pin(self.ask(parts, incoming)).await
            }
            _ => Box::pin(self.other(parts, incoming)).await,
        };
        let mut answered = answered.unwrap_or_else(|Failure(failed)| {
            let Failed { error, outcome, asked } = *failed;
            Answered { asked, ..Answered::new(error.response(path.path()), outcome) }
        });
        write_outcome(answered.response.headers_mut(), &answered.outcome);
        answered
    }

    async fn cacheable(
        &self,
        endpoint: Endpoint,
        mut parts: request::Parts,
        incoming: Incoming,
    ) -> Result<Answered, Failure> {
        let bypass = Outcome::forwarded(Forward::Bypass);
        let directives =
            directives(&parts.headers).map_err(|error| Failure::new(error.into(), bypass.clone()))?;
        strip_request(&mut parts.headers);
        let only_if_cached = directives.only_if_cached;
        let (body, outcome) = match self.read(&parts.headers, incoming, &directives).await? {
            Read::Whole(body) => match self.prepare(endpoint, &parts, &body, directives) {
                Some(prepared) => {
                    if self.settings.log_prompts {
                        prepared.log_prompt(&parts.headers);
                    }
                    let asked = self.asked(&prepared);
                    return match self.answer(&prepared, parts, body).await {
                        Ok(answer) => Ok(Answered { asked, ..prepared.respond(answer) }),
                        Err(failure) => Err(failure.with(asked)),
                    };
                }
                None => (Body::Whole(body), bypass),
            },
            Read::Untouched(body, forward) => (body, Outcome::forwarded(forward)),
        };
        // Of what is never stored there is nothing to answer with, and upstream is not to be asked.
        if only_if_cached {
            return Err(Failure::new(ProxyError::OnlyIfCached, outcome));
        }
        Box::pin(self.pass(parts, body, None, outcome)).await
    }

    /// What a request asks, if anybody wants to know.
    fn asked(&self, prepared: &Prepared) -> Option<Box<Asked>> {
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
        if directives.no_store {
            return Ok(Read::Untouched(Body::relayed(incoming, idle, None), Forward::Request));
        }
        if headers.contains_key(CONTENT_ENCODING) {
            return Ok(Read::Untouched(Body::relayed(incoming, idle, None), Forward::Bypass));
        }
        match collect(incoming, self.settings.max_request_bytes, idle).await {
            Ok(Collected::Whole(body)) => Ok(Read::Whole(body)),
            Ok(Collected::Larger(read, rest)) => {
                Ok(Read::Untouched(Body::continued(read, rest, idle), Forward::Bypass))
            }
            Err(error) => {
                let error = ProxyError::RequestBody(error.to_string());
                Err(Failure::new(error, Outcome::forwarded(Forward::Bypass)))
            }
        }
    }

    async fn other(&self, mut parts: request::Parts, incoming: Incoming) -> Result<Answered, Failure> {
        let upgrade = Upgrade::of(&mut parts);
        strip_request(&mut parts.headers);
        let body = Body::relayed(incoming, self.settings.idle, None);
        self.pass(parts, body, upgrade, Outcome::forwarded(Forward::Bypass)).await
    }
}

impl Service<Request<Incoming>> for Proxy {
    type Response = Answered;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answered, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let proxy = self.clone();
        Box::pin(async move { Ok(proxy.handle(request).await) })
    }
}
