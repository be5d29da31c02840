//! The span of a call of upstream: what was asked of which model, and what it said of its reply. Names are those of the
//! semantic conventions for generative AI, for HTTP where it is no such call.
//!
//! Called by [`super::fetch`] and [`super::pass`]. What was asked and answered is never in a span.

use std::borrow::Cow;

use http::{Method, StatusCode, request};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use serde::Deserialize;

use super::ask;
use super::upstream::Upstream;
use crate::dialect::{Dialect, Endpoint, Reply};
use crate::trace::{Span, Trace, cut};

/// The reasons that are kept of a reply with many choices.
const REASONS: usize = 16;

/// What is known of a call before it is made.
pub(super) struct Call<'a> {
    /// The model asked for, where the request was read.
    pub model: Option<&'a str>,
    /// Whether a stream is asked for, where the request was read.
    pub stream: Option<bool>,
}

impl Call<'_> {
    /// A call whose body is not read.
    pub(super) const UNREAD: Self = Self { model: None, stream: None };
}

/// The path of a request as one of few, where it is one that is known here.
pub fn route(method: &Method, path: &str) -> Option<&'static str> {
    if *method != Method::POST {
        return None;
    }
    Endpoint::of_path(path).map(Endpoint::path).or_else(|| (path == ask::PATH).then_some(ask::PATH))
}

/// Begins the span of a call, and names it in the call's headers.
pub(super) fn begin(
    trace: Option<&Trace>,
    upstream: &Upstream,
    call: &Call<'_>,
    parts: &mut request::Parts,
) -> Span {
    let Some(trace) = trace else { return Span::NONE };
    let request::Parts { method, uri, headers, .. } = parts;
    trace.call(headers, || {
        let (address, port) = upstream.server();
        let mut attributes =
            vec![KeyValue::new("server.address", address), KeyValue::new("server.port", i64::from(port))];
        let endpoint = Endpoint::of_path(uri.path()).filter(|_| *method == Method::POST);
        let Some(endpoint) = endpoint else {
            let method = cut(method.as_str());
            attributes.push(KeyValue::new("http.request.method", method.clone()));
            attributes.push(KeyValue::new("url.path", cut(uri.path())));
            return (method.into(), attributes);
        };
        let operation = operation(endpoint);
        attributes.push(KeyValue::new("gen_ai.operation.name", operation));
        attributes.push(KeyValue::new("gen_ai.provider.name", provider(endpoint)));
        if call.stream == Some(true) {
            attributes.push(KeyValue::new("gen_ai.request.stream", true));
        }
        let name: Cow<'static, str> = match call.model.filter(|model| !model.is_empty()) {
            Some(model) => {
                let model = cut(model);
                let name = format!("{operation} {model}");
                attributes.push(KeyValue::new("gen_ai.request.model", model));
                name.into()
            }
            None => operation.into(),
        };
        (name, attributes)
    })
}

const fn operation(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::OpenAiChat
        | Endpoint::OpenAiResponses
        | Endpoint::AnthropicMessages
        | Endpoint::OllamaChat => "chat",
        Endpoint::OpenAiCompletions | Endpoint::OllamaGenerate => "text_completion",
        Endpoint::OpenAiEmbeddings | Endpoint::OllamaEmbed | Endpoint::OllamaEmbeddings => "embeddings",
    }
}

/// Whose API it is; whose model, the convention leaves open. Ollama has no name there yet, and takes its own.
const fn provider(endpoint: Endpoint) -> &'static str {
    match endpoint.dialect() {
        Dialect::OpenAi => "openai",
        Dialect::Anthropic => "anthropic",
        Dialect::Ollama => "ollama",
    }
}

/// Says what status upstream answered with.
pub(super) fn answered(span: &mut Span, status: StatusCode) {
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_client_error() || status.is_server_error() {
        span.fail(status.as_u16().to_string());
    }
}

/// What a reply's document says of itself, in any dialect.
#[derive(Deserialize)]
struct Told {
    model: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    /// Anthropic.
    stop_reason: Option<String>,
    /// Ollama.
    done_reason: Option<String>,
    /// Responses.
    status: Option<String>,
}

#[derive(Deserialize)]
struct Choice {
    finish_reason: Option<String>,
}

/// Says what upstream said of its reply.
pub(super) fn replied(span: &mut Span, reply: &Reply) {
    if !span.is_recorded() {
        return;
    }
    if let Some(usage) = reply.usage {
        span.set("gen_ai.usage.input_tokens", i64::try_from(usage.input).unwrap_or(i64::MAX));
        span.set("gen_ai.usage.output_tokens", i64::try_from(usage.output).unwrap_or(i64::MAX));
    }
    // It was read before; what this does not find in it is left out.
    let Ok(told) = serde_json::from_slice::<Told>(&reply.document) else { return };
    if let Some(model) = told.model {
        span.set("gen_ai.response.model", cut(&model));
    }
    let choices = told.choices.into_iter().filter_map(|choice| choice.finish_reason);
    let reasons: Vec<StringValue> = choices
        .chain(told.stop_reason)
        .chain(told.done_reason)
        .chain(told.status)
        .take(REASONS)
        .map(|reason| cut(&reason).into())
        .collect();
    if !reasons.is_empty() {
        span.set("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons)));
    }
}
