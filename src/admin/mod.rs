//! What operators see: health, metrics, entries, all of them in and out, and what stored replies on trial have shown.
//!
//! Called by `server` as the service of the admin listener. Loopback is no authentication against a browser:
//! `Host` and `Origin` are checked on every path but the probes', and the token where one is set.

mod access;
mod entries;
mod explain;
pub mod overview;
mod readiness;
mod routes;
mod transfer;
pub(crate) mod trials;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::Service;
use serde::Serialize;
use serde_json::json;

use access::Access;
use explain::Explanations;
use overview::Overviews;
pub use readiness::Readiness;
use routes::{Resource, Route};
use transfer::Transfers;

use crate::cache::Cache;
use crate::config::{Config, Status};
use crate::dashboard;
use crate::proxy::Current;
use crate::proxy::body::Body;
use crate::telemetry::{self, Metrics};

/// The description of all that is here (`OpenAPI` 3.1), as `GET /openapi.json` gives it.
const OPEN_API: &str = include_str!("openapi.json");

/// The service of the admin listener. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Admin {
    shared: Arc<ArcSwap<Shared>>,
}

/// What is looked at.
pub struct Parts {
    /// What is stored.
    pub cache: Arc<Cache>,
    /// Explains requests.
    pub proxy: Current,
    /// What happened.
    pub metrics: Arc<Metrics>,
    /// How the parts are.
    pub readiness: Readiness,
    /// The configuration in force.
    pub status: Arc<Status>,
}

/// What requests are answered from, under one configuration. What lasts is shared with those before and after it.
#[derive(Clone)]
struct Shared {
    access: Access,
    cache: Arc<Cache>,
    proxy: Current,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    transfers: Transfers,
    overviews: Overviews,
    explanations: Explanations,
    status: Arc<Status>,
}

/// An answer that is not what was asked for.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
    allow: Option<&'static str>,
    /// Whether a browser should ask its user for the token.
    challenge: bool,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), allow: None, challenge: false }
    }
}

type Answer = Result<Response<Body>, Refusal>;

impl Admin {
    /// The service for `config`, listening on `address`.
    pub fn new(config: &Config, address: SocketAddr, parts: Parts) -> Self {
        let Parts { cache, proxy, metrics, readiness, status } = parts;
        let shared = Shared {
            access: Access::new(&config.admin, address),
            cache,
            proxy,
            metrics,
            readiness,
            transfers: Transfers::new(config),
            overviews: Overviews::new(config),
            explanations: Explanations::new(config),
            status,
        };
        Self { shared: Arc::new(ArcSwap::from_pointee(shared)) }
    }

    /// Answers whatever comes from now on under another configuration.
    pub fn renew(&self, config: &Config, cache: Arc<Cache>) {
        let shared = self.shared.load();
        let renewed = Shared {
            access: shared.access.renewed(&config.admin),
            readiness: shared.readiness.renewed(config),
            transfers: shared.transfers.renewed(config),
            overviews: shared.overviews.renewed(config),
            explanations: shared.explanations.renewed(config),
            cache,
            ..Shared::clone(&shared)
        };
        self.shared.store(Arc::new(renewed));
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answer = self.route(request).await;
        let mut response = answer.unwrap_or_else(|refusal| {
            let mut response = json_response(refusal.status, &json!({"error": refusal.message}));
            if let Some(allow) = refusal.allow {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            }
            if refusal.challenge {
                let challenge =
                    HeaderValue::from_static("Basic realm=\"rejoinder admin\", charset=\"UTF-8\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        });
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // The dashboard brings its own.
        headers
            .entry(CONTENT_SECURITY_POLICY)
            .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let found = Route::of_path(path);
        if !found.is_some_and(|(route, _)| route.is_open()) {
            self.access.check(&parts)?;
        }
        if let Some(asset) = dashboard::asset(path) {
            return page(&parts.method, asset);
        }
        let Some((route, part)) = found else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}")));
        };
        if !route.allows(&parts.method) {
            return Err(not_allowed(&parts.method, route.allow));
        }
        let query = parts.uri.query().unwrap_or_default();
        let (cache, trials) = (&self.cache, self.cache.trials());
        match route.resource {
            Resource::Audits => Ok(trials::audits(trials)),
            Resource::Config => Ok(json_response(StatusCode::OK, &self.status.report())),
            Resource::Counters => {
                Ok(json_response(StatusCode::OK, &self.metrics.counters(cache.embeddings())))
            }
            Resource::Decisions => self.decisions(),
            Resource::Entries => entries::list(cache.store(), query).await,
            Resource::Entry if parts.method == Method::DELETE => self.remove(part).await,
            Resource::Entry => entries::show(cache.store(), self.metrics.live(), part).await,
            Resource::Explain => self.explanations.answer(&self.proxy, body).await,
            Resource::Export => self.transfers.export(cache, query).await,
            Resource::Health => Ok(json_response(StatusCode::OK, &json!({"status": "ok"}))),
            Resource::Import => self.transfers.import(cache, body).await,
            Resource::Metrics => self.prometheus().await,
            Resource::NearMisses => trials::near_misses(trials, query),
            Resource::Observations => Ok(trials::observations(cache)),
            Resource::OpenApi => Ok(whole("application/json", Bytes::from_static(OPEN_API.as_bytes()))),
            Resource::Overview => self.overview(query).await,
            Resource::Purge => {
                let purged = entries::purge(cache, body).await?;
                self.proxy.get().forget();
                self.overviews.forget();
                self.metrics.live().forget_all();
                Ok(purged)
            }
            Resource::Readiness => {
                let readiness = self.readiness.check().await;
                Ok(json_response(readiness.status(), &readiness))
            }
            Resource::Verified => Ok(trials::verified(trials)),
        }
    }

    /// `GET /decisions`
    fn decisions(&self) -> Answer {
        let pieces = self.metrics.decisions().listen();
        let pieces =
            pieces.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
        let mut response = Response::new(Body::Produced(pieces));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok(response)
    }

    async fn remove(&self, id: &str) -> Answer {
        let removed = entries::remove(&self.cache, id).await?;
        self.proxy.get().forget();
        self.overviews.forget();
        if let Ok(id) = id.parse() {
            self.metrics.live().forget(&id);
        }
        Ok(removed)
    }

    async fn prometheus(&self) -> Answer {
        let states: telemetry::Parts = self.readiness.check().await.parts();
        let text = self
            .metrics
            .encode(&self.cache, &states)
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        Ok(whole("application/openmetrics-text; version=1.0.0; charset=utf-8", text.into()))
    }
}

/// A file of the dashboard. It is no part of the API: the dashboard's own room says what there is.
fn page(method: &Method, asset: dashboard::Asset) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(not_allowed(method, "GET, HEAD"));
    }
    let mut response = whole(asset.content_type, Bytes::from_static(asset.bytes));
    let policy = HeaderValue::from_static(dashboard::CONTENT_SECURITY_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

fn not_allowed(method: &Method, allow: &'static str) -> Refusal {
    let message = format!("{method} is not possible here, only {allow}");
    Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message) }
}

fn whole(kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Whole(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Plain values serialise; should one not, the status still says what happened.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = whole("application/json", body.into());
    *response.status_mut() = status;
    response
}

impl Service<Request<Incoming>> for Admin {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let shared = self.shared.load_full();
        Box::pin(async move { Ok(shared.answer(request).await) })
    }
}
