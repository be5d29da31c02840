//! The stack that each request of a client passes, put together in one place:
//! record (request id, metrics and log), then trace, then the proxy.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::traced::Traced;
use crate::dialect::Endpoint;
use crate::proxy::body::Body;
use crate::proxy::headers::REQUEST_ID;
use crate::proxy::{Answered, Arrival, Current};
use crate::telemetry::request_id::{GivenId, RequestIds, RequestName};
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
    Recorded {
        recorder: Arc::new(Recorder { ids: RequestIds::new(), metrics, log }),
        inner: Traced { tracer, inner: proxy },
    }
}

/// Names each request, and writes what happened into metrics and log.
#[derive(Debug, Clone)]
struct Recorded<S> {
    recorder: Arc<Recorder>,
    inner: S,
}

#[derive(Debug)]
struct Recorder {
    /// For requests without an `X-Request-Id`.
    ids: RequestIds,
    metrics: Arc<Metrics>,
    /// Whether requests are logged.
    log: Arc<AtomicBool>,
}

impl<S> Service<Request<Incoming>> for Recorded<S>
where
    S: Service<Arrival, Response = Answered, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Recording<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let started = Instant::now();
        let (id, name) = if let Some(sent) = request.headers().get(REQUEST_ID) {
            (None, Name::Sent(sent.clone()))
        } else {
            let given = self.recorder.ids.next();
            (Some(given), Name::Given(given))
        };
        let about =
            About { recorder: Arc::clone(&self.recorder), started, target: Target::of(&request), name };
        Recording { inner: self.inner.call(Arrival { request, id }), about }
    }
}

/// What of a request is needed when its response is there.
#[derive(Debug)]
struct About {
    recorder: Arc<Recorder>,
    started: Instant,
    target: Target,
    name: Name,
}

#[derive(Debug)]
enum Name {
    Sent(HeaderValue),
    Given(GivenId),
}

/// What was asked for.
#[derive(Debug)]
enum Target {
    /// Of most requests it is known without a copy.
    Endpoint(Endpoint),
    Other(Box<(Method, Uri)>),
}

impl Target {
    fn of<B>(request: &Request<B>) -> Self {
        match Endpoint::of_path(request.uri().path()) {
            Some(endpoint) if *request.method() == Method::POST => Self::Endpoint(endpoint),
            _ => Self::Other(Box::new((request.method().clone(), request.uri().clone()))),
        }
    }
}

pin_project! {
    /// See [`Recorded`].
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
        let About { recorder, started, target, name } = recording.about;
        let (endpoint, method, path) = match target {
            Target::Endpoint(endpoint) => (Some(*endpoint), &Method::POST, endpoint.path()),
            Target::Other(other) => (None, &other.0, other.1.path()),
        };
        let exchange = Exchange {
            endpoint,
            method,
            path,
            request_id: match name {
                Name::Sent(value) => RequestName::Sent(value.to_str().unwrap_or_default()),
                Name::Given(id) => RequestName::Given(*id),
            },
            status: response.status(),
            elapsed: started.elapsed(),
        };
        recorder.metrics.record(&outcome, &exchange);
        recorder.metrics.tell(&outcome, &exchange, asked.as_deref());
        if recorder.log.load(Ordering::Relaxed) {
            log_request(&outcome, &exchange);
        }
        Poll::Ready(Ok(response))
    }
}
