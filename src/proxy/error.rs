//! The proxy's own errors, in the dialect of the path (INTERFACE.md, "Errors of the proxy's own").
//!
//! Called by the rest of `proxy`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Body;
use crate::cache::directives::DirectiveError;
use crate::dialect::Dialect;

/// Why the proxy itself answers with an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProxyError {
    /// The request cannot be forwarded.
    #[error("{0}")]
    BadRequest(&'static str),
    /// Others may read the request differently. Nothing that follows it on its connection is trusted.
    #[error("{0}")]
    Ambiguous(&'static str),
    /// A directive's value cannot be parsed.
    #[error(transparent)]
    Directive(#[from] DirectiveError),
    /// The body broke off before its end.
    #[error("the request's body broke off: {0}")]
    RequestBody(String),
    /// `POST /ask` without a question.
    #[error("{0}")]
    Unprocessable(&'static str),
    /// Upstream cannot be reached, or broke the exchange off before its reply.
    #[error("upstream could not be reached or broke off: {0}")]
    Upstream(String),
    /// Upstream did not answer in time.
    #[error("upstream did not begin to answer within {0:?}")]
    UpstreamTimeout(Duration),
    /// `only-if-cached`, and nothing stored could be used.
    #[error("nothing stored could be used, and the request asked not to call upstream (only-if-cached)")]
    OnlyIfCached,
    /// The memory for bodies is full, and where a body goes is not known before it is read.
    #[error(
        "the memory for bodies that are being read is full (limits.max_buffer_bytes), and which upstream this one is for \
         is not known before it is; try again"
    )]
    NoRoom,
    /// It was not answered before the time for what is open at shutdown had passed.
    #[error("the proxy is shutting down")]
    ShuttingDown,
    /// As many requests are upstream as may be, and as many wait for a place as may, or this one has waited too long.
    #[error("too many requests are waiting for upstream; try again in {retry_after} s")]
    Overloaded {
        /// In seconds, when a place is likely to be free.
        retry_after: u64,
    },
}

/// Tells the official clients not to repeat a request.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl ProxyError {
    /// The status: RFC 9110 §15.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Ambiguous(_) | Self::Directive(_) | Self::RequestBody(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout(_) | Self::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
            Self::Overloaded { .. } | Self::NoRoom | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A stable name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::Ambiguous(_) => "bad_request",
            Self::Directive(_) => "bad_directive",
            Self::RequestBody(_) => "incomplete_body",
            Self::Unprocessable(_) => "empty_query",
            Self::Upstream(_) => "upstream_unreachable",
            Self::UpstreamTimeout(_) => "upstream_timeout",
            Self::OnlyIfCached => "not_cached",
            Self::Overloaded { .. } | Self::NoRoom => "overloaded",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The response, in the dialect of `path`.
    pub fn response(&self, path: &str) -> Response<Body> {
        let status = self.status();
        let message = self.to_string();
        let body = match Dialect::of_path(path) {
            Dialect::OpenAi => {
                let kind = if status.is_client_error() { "invalid_request_error" } else { "server_error" };
                json!({"error": {"message": message, "type": kind, "param": null, "code": self.code()}})
            }
            Dialect::Anthropic => {
                let kind = match self {
                    Self::Overloaded { .. } | Self::NoRoom | Self::ShuttingDown => "overloaded_error",
                    Self::UpstreamTimeout(_) => "timeout_error",
                    _ if status.is_client_error() => "invalid_request_error",
                    _ => "api_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            Dialect::Ollama => json!({"error": message}),
        };
        let mut response = Response::new(Body::Whole(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Overloaded { retry_after } => {
                drop(headers.insert(RETRY_AFTER, HeaderValue::from(*retry_after)));
            }
            Self::NoRoom => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::ShuttingDown => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Ambiguous(_) => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
            Self::OnlyIfCached => drop(headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"))),
            _ => {}
        }
        response
    }
}
