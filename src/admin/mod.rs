//! What operators see: health, metrics, entries, all of them in and out, and what stored replies on trial have shown.
//!
//! Called by `server` as the service of the admin listener. Loopback is no authentication against a browser:
//! `Host` and `Origin` are checked on every path but the probes', and the token where one is set.

mod access;
mod entries;
mod overview;
mod readiness;
mod transfer;
mod trials;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use tower::Service;

use access::Access;
use overview::Overviews;
pub use readiness::Readiness;
use transfer::Transfers;

use crate::cache::Cache;
use crate::config::Config;
use crate::dashboard;
use crate::proxy::body::Body;
use crate::telemetry::Metrics;

/// The service of the admin listener. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    shared: Arc<Shared>,
}

struct Shared {
    access: Access,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    transfers: Transfers,
    overviews: Overviews,
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
    pub fn new(
        config: &Config,
        address: SocketAddr,
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    ) -> Self {
        let access = Access::new(&config.admin, address);
        let transfers = Transfers::new(config);
        let overviews = Overviews::new(config);
        Self { shared: Arc::new(Shared { access, cache, metrics, readiness, transfers, overviews }) }
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
        // The probes of an orchestrator come by address and without a token.
        match path {
            "/healthz" => {
                return get(&parts.method, || Ok(json_response(StatusCode::OK, &json!({"status": "ok"}))));
            }
            "/readyz" => {
                let readiness = self.readiness.check().await;
                return get(&parts.method, || Ok(json_response(readiness.status(), &readiness)));
            }
            _ => {}
        }
        self.access.check(&parts)?;
        if let Some(asset) = dashboard::asset(path) {
            return get(&parts.method, || Ok(page(asset)));
        }
        match path {
            "/metrics" => get(&parts.method, || self.prometheus()),
            "/internal/metrics" => get(&parts.method, || {
                Ok(json_response(StatusCode::OK, &self.metrics.counters(self.cache.embeddings())))
            }),
            "/overview" => {
                allow(&parts.method, &[Method::GET, Method::HEAD], "GET, HEAD")?;
                self.overview(parts.uri.query().unwrap_or_default()).await
            }
            "/entries" => {
                allow(&parts.method, &[Method::GET], "GET")?;
                entries::list(self.cache.store(), parts.uri.query().unwrap_or_default()).await
            }
            "/purge" => {
                allow(&parts.method, &[Method::POST], "POST")?;
                let purged = entries::purge(&self.cache, body).await?;
                self.overviews.forget();
                self.metrics.live().forget_all();
                Ok(purged)
            }
            "/export" => {
                allow(&parts.method, &[Method::GET], "GET")?;
                self.transfers.export(&self.cache, parts.uri.query().unwrap_or_default()).await
            }
            "/import" => {
                allow(&parts.method, &[Method::POST], "POST")?;
                self.transfers.import(&self.cache, body).await
            }
            "/observations" => get(&parts.method, || Ok(trials::observations(self.cache.trials()))),
            "/verified" => get(&parts.method, || Ok(trials::verified(self.cache.trials()))),
            "/audits" => get(&parts.method, || Ok(trials::audits(self.cache.trials()))),
            "/near-misses" => get(&parts.method, || {
                trials::near_misses(self.cache.trials(), parts.uri.query().unwrap_or_default())
            }),
            _ => match path.strip_prefix("/entries/") {
                Some(id) if parts.method == Method::DELETE => self.remove(id).await,
                Some(id) => {
                    allow(&parts.method, &[Method::GET, Method::DELETE], "GET, DELETE")?;
                    entries::show(self.cache.store(), id).await
                }
                None => Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}"))),
            },
        }
    }

    async fn remove(&self, id: &str) -> Answer {
        let removed = entries::remove(&self.cache, id).await?;
        self.overviews.forget();
        if let Ok(id) = id.parse() {
            self.metrics.live().forget(&id);
        }
        Ok(removed)
    }

    fn prometheus(&self) -> Answer {
        let usage = self.cache.store().usage();
        let text = self
            .metrics
            .encode(&usage, self.cache.trials())
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let mut response = Response::new(Body::Whole(text.into()));
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(response)
    }
}

/// A file of the dashboard.
fn page(asset: dashboard::Asset) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Bytes::from_static(asset.bytes)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(dashboard::CONTENT_SECURITY_POLICY));
    response
}

fn get(method: &Method, answer: impl FnOnce() -> Answer) -> Answer {
    allow(method, &[Method::GET, Method::HEAD], "GET, HEAD")?;
    answer()
}

fn allow(method: &Method, methods: &[Method], header: &'static str) -> Result<(), Refusal> {
    if methods.contains(method) {
        return Ok(());
    }
    let message = format!("{method} is not possible here, only {header}");
    Err(Refusal { allow: Some(header), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message) })
}

fn json_response(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Plain values serialise; should one not, the status still says what happened.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::Whole(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Service<Request<Incoming>> for Admin {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(shared.answer(request).await) })
    }
}
