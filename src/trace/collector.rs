//! The collector: requests of OTLP over HTTP, again where that may help
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! Called by [`super::export`].

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

use crate::causes::causes;
use crate::config::Otlp;

/// How often a batch is sent at most.
const ATTEMPTS: u32 = 4;

/// The wait before the second attempt; it doubles.
const BACKOFF: Duration = Duration::from_secs(1);

/// The longest wait that a collector may ask for.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// The largest answer of a collector that is read.
const ANSWER_BYTES: usize = 64 << 10;

/// Why spans cannot be exported as configured.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The URL.
    #[error("telemetry.otlp.endpoint is no URL that spans can go to")]
    Endpoint,
    /// A header; its value is a secret.
    #[error("telemetry.otlp.headers: {0} cannot be sent")]
    Header(String),
}

/// What a collector says of a batch.
pub(super) struct Taken {
    /// How many of them it did not take.
    pub(super) refused: u64,
    /// Why not.
    pub(super) cause: String,
}

/// Why a batch was not taken.
pub(super) struct Failure {
    pub(super) cause: String,
    /// Whether it may be taken later.
    again: bool,
    /// When, where the collector said so.
    after: Option<Duration>,
}

/// Where spans go.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    pub(super) url: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

impl Collector {
    pub(super) fn new(otlp: &Otlp) -> Result<Self, ExportError> {
        let url = otlp.url().filter(|url| url.host().is_some()).ok_or(ExportError::Endpoint)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &otlp.headers {
            let wrong = || ExportError::Header(name.clone());
            let mut text = HeaderValue::from_str(value.expose()).map_err(|_| wrong())?;
            text.set_sensitive(true);
            headers.insert(name.parse::<HeaderName>().map_err(|_| wrong())?, text);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("rejoinder/", env!("CARGO_PKG_VERSION"))));
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { client, url, headers, timeout: otlp.export_timeout })
    }

    /// Sends a batch, again while that may help.
    pub(super) async fn send_again(&self, request: &Bytes) -> Result<Taken, String> {
        let mut backoff = BACKOFF;
        for _ in 1..ATTEMPTS {
            match self.send(request).await {
                Ok(taken) => return Ok(taken),
                Err(failure) if !failure.again => return Err(failure.cause),
                Err(failure) => {
                    tokio::time::sleep(failure.after.unwrap_or(backoff).min(LONGEST_BACKOFF)).await;
                    backoff *= 2;
                }
            }
        }
        self.send(request).await.map_err(|failure| failure.cause)
    }

    /// Sends a batch once.
    pub(super) async fn send(&self, request: &Bytes) -> Result<Taken, Failure> {
        let later = |cause: String| Failure { cause, again: true, after: None };
        match tokio::time::timeout(self.timeout, self.exchange(request.clone())).await {
            Ok(answer) => answer,
            Err(_) => Err(later(format!("it did not answer within {:?}", self.timeout))),
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<Taken, Failure> {
        let later = |cause: String| Failure { cause, again: true, after: None };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let response = self.client.request(request).await.map_err(|error| later(causes(&error)))?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let again = matches!(
                head.status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            );
            let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let cause = format!("it answered with status {}", head.status);
            return Err(Failure { cause, again, after: after.map(Duration::from_secs) });
        }
        // It has taken the spans: whatever else is wrong with its answer is no reason to send them again.
        let answer =
            Limited::new(body, ANSWER_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
        let answer = answer.ok().and_then(|answer| ExportTraceServiceResponse::decode(answer).ok());
        let partial = answer.and_then(|answer| answer.partial_success).unwrap_or_default();
        let refused = u64::try_from(partial.rejected_spans).unwrap_or(0);
        Ok(Taken { refused, cause: format!("it refused some: {}", super::cut(&partial.error_message)) })
    }
}
