//! A span for each request of a client, from its head to the end of its reply's body, where traces are on.
//!
//! Called by [`super::stack`]. Names are those of the semantic conventions for HTTP servers; a query string, the client's
//! address and its `User-Agent` are left out.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_LENGTH, HOST};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::service::Service;
use opentelemetry::KeyValue;
use pin_project_lite::pin_project;

use crate::cache::outcome::Outcome;
use crate::proxy::{Answered, Arrival, route};
use crate::trace::{Span, Trace, Tracer, cut};

/// Traces requests; without a tracer it does nothing.
#[derive(Debug, Clone)]
pub(super) struct Traced<S> {
    pub(super) tracer: Option<Tracer>,
    pub(super) inner: S,
}

impl<S> Service<Arrival> for Traced<S>
where
    S: Service<Arrival, Response = Answered, Error = Infallible>,
{
    type Response = Answered;
    type Error = Infallible;
    type Future = Tracing<S::Future>;

    fn call(&self, arrival: Arrival) -> Self::Future {
        let begun = self.tracer.as_ref().map(|tracer| begin(tracer, &arrival.request));
        Tracing { inner: self.inner.call(arrival), begun }
    }
}

/// A request whose span is open.
#[derive(Debug)]
struct Begun {
    span: Span,
    trace: Trace,
    /// Whether its reply has no body, whatever its headers say.
    is_head: bool,
}

pin_project! {
    /// See [`Traced`].
    #[derive(Debug)]
    pub(super) struct Tracing<F> {
        #[pin]
        inner: F,
        begun: Option<Begun>,
    }
}

impl<F: Future<Output = Result<Answered, Infallible>>> Future for Tracing<F> {
    type Output = Result<Answered, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let tracing = self.project();
        let Ok(mut answered) = ready!(match tracing.begun {
            Some(begun) => begun.trace.enter(|| tracing.inner.poll(cx)),
            None => tracing.inner.poll(cx),
        });
        if let Some(Begun { mut span, is_head, .. }) = tracing.begun.take()
            && span.is_recorded()
        {
            describe(&mut span, &answered);
            let length = if is_head { Some(0) } else { length(&answered.response) };
            answered.response = answered.response.map(|body| body.traced(span, length));
        }
        Poll::Ready(Ok(answered))
    }
}

fn begin<B>(tracer: &Tracer, request: &Request<B>) -> Begun {
    let (method, path) = (request.method(), request.uri().path());
    let known = known(method);
    let route = route(method, path);
    let name: Cow<'static, str> = match (known, route) {
        (Some(method), Some(route)) => format!("{method} {route}").into(),
        (Some(method), None) => method.into(),
        (None, _) => "HTTP".into(),
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", known.unwrap_or("_OTHER")),
        KeyValue::new("url.path", cut(path)),
        KeyValue::new("url.scheme", "http"),
        KeyValue::new(
            "network.protocol.version",
            if request.version() == Version::HTTP_2 { "2" } else { "1.1" },
        ),
    ];
    if known.is_none() {
        attributes.push(KeyValue::new("http.request.method_original", cut(method.as_str())));
    }
    if let Some(route) = route {
        attributes.push(KeyValue::new("http.route", route));
    }
    let of_header = || request.headers().get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
    if let Some(host) = request.uri().authority().cloned().or_else(of_header) {
        attributes.push(KeyValue::new("server.address", cut(host.host())));
        attributes.extend(host.port_u16().map(|port| KeyValue::new("server.port", i64::from(port))));
    }
    let (span, trace) = tracer.request(request.headers(), name, attributes);
    Begun { span, trace, is_head: *method == Method::HEAD }
}

/// The length that a response's head promises, where there is one.
fn length<B>(response: &Response<B>) -> Option<u64> {
    let status = response.status();
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || status.is_informational() {
        return Some(0);
    }
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The methods of RFC 9110 and PATCH, whose names are no more than these.
fn known(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => return None,
    })
}

/// Says what happened, as headers, metrics and log line do.
fn describe(span: &mut Span, Answered { response, outcome, .. }: &Answered) {
    let status = response.status();
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.fail(status.as_u16().to_string());
    }
    let Outcome { layer, decision, entry, collapsed, stored, rule, .. } = outcome;
    span.set("rejoinder.layer", layer.as_str());
    span.set("rejoinder.detail", outcome.detail());
    if let Some(decision) = decision {
        span.set("rejoinder.similarity", f64::from(decision.similarity.0));
        span.set("rejoinder.confidence", f64::from(decision.confidence));
    }
    if let Some(rule) = *rule {
        span.set("rejoinder.rule", rule);
    }
    if let Some(entry) = entry {
        span.set("rejoinder.entry", entry.id.to_string());
    }
    if *collapsed {
        span.set("rejoinder.collapsed", true);
    }
    if *stored {
        span.set("rejoinder.stored", true);
    }
}
