//! A collector of traces: takes OTLP over HTTP on a real socket, and decodes it by OpenTelemetry's own definitions.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
use prost::Message as _;
use rejoinder::config::{Config, Otlp};
use tokio::sync::watch;

use super::wire::listener;

/// A running collector. It stops with the test's runtime.
pub struct Collector {
    url: String,
    received: Arc<watch::Sender<Vec<Export>>>,
}

/// One request of an exporter.
#[derive(Debug, Clone)]
pub struct Export {
    pub path: String,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    pub resource: Resource,
    pub scope: ScopeSpans,
}

impl Collector {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::answering(StatusCode::OK).await
    }

    /// One that answers with this status.
    pub async fn answering(status: StatusCode) -> Self {
        let (listener, url) = listener().await;
        let received = Arc::new(watch::Sender::new(Vec::new()));
        let exports = Arc::clone(&received);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let exports = Arc::clone(&exports);
                let service = service_fn(move |request| take(Arc::clone(&exports), status, request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, received }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Has a proxy export here.
    pub fn configure(&self, config: &mut Config) {
        config.telemetry.otlp = Otlp { endpoint: Some(self.url.parse().unwrap()), ..Otlp::default() };
    }

    /// All requests so far.
    pub fn exports(&self) -> Vec<Export> {
        self.received.borrow().clone()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.exports().into_iter().flat_map(|export| export.scope.spans).collect()
    }

    /// Waits until the spans are as wanted; fails the test where they do not become so.
    pub async fn until(&self, wanted: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let mut receiving = self.received.subscribe();
        let becoming = receiving.wait_for(|_| wanted(&self.spans()));
        let became = tokio::time::timeout(Duration::from_mins(1), becoming).await.is_ok();
        let spans = self.spans();
        assert!(became, "the spans stay {spans:#?}");
        spans
    }

    /// Waits until this many requests of clients have been traced.
    pub async fn until_requests(&self, count: usize) -> Vec<Span> {
        self.until(|spans| spans.iter().filter(|span| span.kind() == SpanKind::Server).count() >= count).await
    }
}

async fn take(
    exports: Arc<watch::Sender<Vec<Export>>>,
    status: StatusCode,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let mut decoded = ExportTraceServiceRequest::decode(bytes.clone()).unwrap();
    assert_eq!(decoded.resource_spans.len(), 1, "one resource");
    let mut spans = decoded.resource_spans.remove(0);
    assert_eq!(spans.scope_spans.len(), 1, "one scope");
    for span in &spans.scope_spans[0].spans {
        let mut keys: Vec<_> = span.attributes.iter().map(|attribute| &attribute.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), span.attributes.len(), "each attribute once: {span:?}");
    }
    let export = Export {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        bytes,
        resource: spans.resource.unwrap(),
        scope: spans.scope_spans.remove(0),
    };
    exports.send_modify(|exports| exports.push(export));
    let mut response = Response::new(Full::from(ExportTraceServiceResponse::default().encode_to_vec()));
    *response.status_mut() = status;
    Ok(response)
}

/// An attribute as text; `None` where there is none.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?;
    Some(text(&value))
}

fn text(value: &AnyValue) -> String {
    match value.value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(value) => value.to_string(),
        Value::DoubleValue(value) => format!("{value:.4}"),
        Value::ArrayValue(array) => array.values.iter().map(text).collect::<Vec<_>>().join(","),
        other => panic!("{other:?}"),
    }
}

/// What tests say of a span.
pub trait Told {
    /// An attribute as text.
    fn told(&self, key: &str) -> Option<String>;
    /// `error.type`, where its status says so too.
    fn error(&self) -> Option<String>;
}

impl Told for Span {
    fn told(&self, key: &str) -> Option<String> {
        attribute(&self.attributes, key)
    }

    fn error(&self) -> Option<String> {
        let error = self.told("error.type");
        let status = self.status.as_ref().is_some_and(|status| status.code() == SpanStatus::Error);
        assert_eq!(status, error.is_some(), "status and attribute agree: {self:?}");
        error
    }
}

/// The one span of this kind; fails the test unless there is exactly one.
pub fn only(spans: &[Span], kind: SpanKind) -> &Span {
    let mut found = spans.iter().filter(|span| span.kind() == kind);
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        _ => panic!("not one {kind:?} in {spans:#?}"),
    }
}

/// Bytes in hexadecimal digits, as headers have ids.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
