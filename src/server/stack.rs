//! The stack that each request of a client passes, put together in one place:
//! request id, then record (metrics and log), then trace, then the proxy.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower::{Layer, Service, ServiceBuilder};

use super::traced::Traces;
use crate::proxy::body::Body;
use crate::proxy::headers::REQUEST_ID;
use crate::proxy::{Answered, Current};
use crate::telemetry::{Exchange, Metrics, log_request};
use crate::trace::Tracer;

/// The stack for clients.
pub(super) fn clients(
    proxy: Current,
    metrics: Arc<Metrics>,
    log: Arc<AtomicBool>,
    tracer: Option<Tracer>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
> + Clone
+ Send
+ 'static {
    ServiceBuilder::new()
        .layer(RequestIds::new())
        .layer(Records { metrics, log })
        .layer(Traces(tracer))
        .service(proxy)
}

/// Gives each request without an `X-Request-Id` one of its own.
#[derive(Debug, Clone)]
struct RequestIds {
    /// Tells this process's ids from another's.
    process: Arc<str>,
    next: Arc<AtomicU64>,
}

impl RequestIds {
    fn new() -> Self {
        let mut random = [0; 8];
        // Without a random source the ids are merely not unique among processes.
        let _ = getrandom::fill(&mut random);
        Self { process: format!("{:016x}-", u64::from_le_bytes(random)).into(), next: Arc::default() }
    }
}

impl<S> Layer<S> for RequestIds {
    type Service = WithRequestId<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WithRequestId { ids: self.clone(), inner }
    }
}

/// See [`RequestIds`].
#[derive(Debug, Clone)]
struct WithRequestId<S> {
    ids: RequestIds,
    inner: S,
}

impl<S, B> Service<Request<B>> for WithRequestId<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if !request.headers().contains_key(REQUEST_ID) {
            let number = self.ids.next.fetch_add(1, Ordering::Relaxed);
            if let Ok(id) = HeaderValue::try_from(format!("{}{number:x}", self.ids.process)) {
                request.headers_mut().insert(REQUEST_ID, id);
            }
        }
        self.inner.call(request)
    }
}

/// Writes what happened into metrics and log.
#[derive(Debug, Clone)]
struct Records {
    metrics: Arc<Metrics>,
    /// Whether requests are logged.
    log: Arc<AtomicBool>,
}

impl<S> Layer<S> for Records {
    type Service = Recorded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Recorded { records: self.clone(), inner }
    }
}

/// See [`Records`].
#[derive(Debug, Clone)]
struct Recorded<S> {
    records: Records,
    inner: S,
}

impl<S, B> Service<Request<B>> for Recorded<S>
where
    S: Service<Request<B>, Response = Answered, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Recording<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let recording = About {
            records: self.records.clone(),
            started: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            request_id: request.headers().get(REQUEST_ID).cloned(),
        };
        Recording { inner: self.inner.call(request), about: recording }
    }
}

/// What of a request is needed when its response is there.
#[derive(Debug)]
struct About {
    records: Records,
    started: Instant,
    method: Method,
    uri: Uri,
    request_id: Option<HeaderValue>,
}

pin_project! {
    /// See [`Records`].
    #[derive(Debug)]
    struct Recording<F> {
        #[pin]
        inner: F,
        about: About,
    }
}

impl<F: Future<Output = Result<Answered, Infallible>>> Future for Recording<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let recording = self.project();
        let Ok(Answered { response, outcome, asked }) = ready!(recording.inner.poll(cx));
        let about = recording.about;
        let exchange = Exchange {
            method: &about.method,
            path: about.uri.path(),
            request_id: about.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
            status: response.status(),
            elapsed: about.started.elapsed(),
        };
        about.records.metrics.record(&outcome, &exchange);
        about.records.metrics.tell(&outcome, &exchange, asked.as_deref());
        if about.records.log.load(Ordering::Relaxed) {
            log_request(&outcome, &exchange);
        }
        Poll::Ready(Ok(response))
    }
}
