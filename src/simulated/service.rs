//! From one request to one response: recorded, held up, answered by its path, and spoilt as its fault says.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{Answer, Asked};
use super::body::{Cutter, Script};
use super::fault::{At, Content, Cut, Fault};
use super::record::{Head, Recorded};
use super::{Exchange, Shared, anthropic, embedding, ollama, openai, responses};
use crate::dialect::Dialect;

/// The longest request body that is read.
const LONGEST_BODY: usize = 256 * 1024 * 1024;

/// A model that the server does not have.
const NO_SUCH_MODEL: &str = "no-such-model";

const FAULT_HEADER: &str = "x-simulated-fault";

type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// What is to be sent, before delays and faults.
struct Reply {
    status: StatusCode,
    content_type: &'static str,
    pieces: Vec<Bytes>,
    streamed: bool,
}

impl Reply {
    fn json(value: &Value) -> Self {
        Self::text(StatusCode::OK, "application/json; charset=utf-8", value.to_string())
    }

    fn text(status: StatusCode, content_type: &'static str, text: String) -> Self {
        Self { status, content_type, pieces: vec![Bytes::from(text)], streamed: false }
    }

    fn stream(content_type: &'static str, pieces: Vec<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type, pieces, streamed: true }
    }

    fn error(dialect: Dialect, status: StatusCode, message: &str) -> Self {
        Self::text(status, "application/json", error_body(dialect, status, message).to_string())
    }
}

/// Answers one request.
pub(super) async fn serve(
    shared: Arc<Shared>,
    cutter: Cutter,
    head: Head,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let exchange = Exchange::new(&shared);
    let (parts, body) = request.into_parts();
    let lines = head.take();
    let by_hand =
        parts.headers.get(FAULT_HEADER).map(|text| Fault::from_header(text.to_str().unwrap_or_default()));
    let fault = match &by_hand {
        Some(Ok(fault)) => fault.clone(),
        Some(Err(_)) => Fault::none(),
        None => shared.take_fault(),
    };
    if let Some(gate) = fault.before_body.clone() {
        gate.pass().await;
    }
    let recorded = |body| Recorded {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        headers: lines.clone(),
        body,
    };
    if parts.uri.path().strip_prefix(&shared.options.prefix) == Some("/simulated/echo") {
        shared.record(recorded(Bytes::new()));
        exchange.finish();
        return Ok(echo(&parts.headers, body));
    }
    let body = Limited::new(body, LONGEST_BODY).collect().await;
    head.expect_next();
    let (body, reply) = match body {
        Ok(body) => (body.to_bytes(), None),
        Err(error) => (Bytes::new(), Some(error.to_string())),
    };
    let number = shared.record(recorded(body.clone()));
    if let Some(gate) = fault.before_head.clone() {
        gate.pass().await;
    }
    if !shared.options.delay_to_first_byte.is_zero() {
        tokio::time::sleep(shared.options.delay_to_first_byte).await;
    }
    if let Some((At::Head, cut)) = &fault.cut {
        return cut_here(&exchange, &cutter, cut).await;
    }
    let dialect = dialect_of(parts.uri.path());
    let reply = match (reply, by_hand) {
        (Some(error), _) | (_, Some(Err(error))) => Reply::error(dialect, StatusCode::BAD_REQUEST, &error),
        _ => route(&shared, (&parts.method, &parts.uri, &parts.headers), &body, number, &fault),
    };
    Ok(respond(reply, &shared, &fault, (cutter, exchange)))
}

async fn cut_here(exchange: &Exchange, cutter: &Cutter, cut: &Cut) -> Result<Response<Body>, Infallible> {
    exchange.finish();
    cutter.set(cut.clone());
    std::future::pending().await
}

/// Sends the request's body back as it arrives, for tests of bodies that stream both ways.
fn echo(headers: &HeaderMap, body: Incoming) -> Response<Body> {
    let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
    if let Some(content_type) = headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("rejoinder-simulated"));
    response
}

/// Puts the fault on the reply.
fn respond(mut reply: Reply, shared: &Shared, fault: &Fault, ends: (Cutter, Exchange)) -> Response<Body> {
    let mut headers = HeaderMap::new();
    headers.insert(header::SERVER, HeaderValue::from_static("rejoinder-simulated"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if let Some((content_type, body)) = &fault.body {
        headers.insert(header::CONTENT_TYPE, content_type.clone());
        reply.pieces = vec![body.clone()];
    }
    if let Some(encoding) = fault.encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.name));
        let mut encode = (encoding.start)();
        let mut pieces: Vec<Bytes> = reply.pieces.iter().map(|piece| encode(Some(piece)).into()).collect();
        pieces.push(encode(None).into());
        reply.pieces = pieces;
    }
    if !fault.trailers.is_empty() {
        // Trailers need the chunked coding.
        reply.streamed = true;
    }
    if fault.headers.iter().any(|(name, _)| name == header::CONTENT_LENGTH) {
        // A length other than the true one is for hyper to take as it is.
        reply.streamed = true;
    }
    let replaced = [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::SERVER];
    for (name, value) in &fault.headers {
        if replaced.contains(name) {
            headers.insert(name.clone(), value.clone());
        } else {
            headers.append(name.clone(), value.clone());
        }
    }
    let script = Script::new(&reply.pieces, reply.streamed, shared.options.delay_between_chunks, fault, ends);
    let mut response = Response::new(script.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = fault.status.unwrap_or(reply.status);
    *response.headers_mut() = headers;
    response
}

fn route(
    shared: &Shared,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    body: &[u8],
    number: usize,
    fault: &Fault,
) -> Reply {
    let dialect = dialect_of(uri.path());
    let Some(path) = uri.path().strip_prefix(&shared.options.prefix) else {
        return Reply::error(dialect, StatusCode::NOT_FOUND, "not under the prefix");
    };
    let required = shared.state.lock().required_key.clone();
    if required.is_some_and(|key| !holds_key(headers, &key)) {
        return Reply::error(dialect, StatusCode::UNAUTHORIZED, "Incorrect API key provided");
    }
    if let Some(status) = fault.status.filter(|status| status.as_u16() >= 400) {
        return Reply::error(dialect, status, "simulated failure");
    }
    if *method != Method::POST {
        return get(path).unwrap_or_else(|| Reply::error(dialect, StatusCode::NOT_FOUND, "no such path"));
    }
    let asked = match Asked::read((method, uri, headers), body, number) {
        Ok(asked) if asked.model == NO_SUCH_MODEL => {
            let message = format!("model '{NO_SUCH_MODEL}' not found");
            return Reply::error(dialect, StatusCode::NOT_FOUND, &message);
        }
        Ok(asked) => asked,
        Err(message) => return Reply::error(dialect, StatusCode::BAD_REQUEST, message),
    };
    post(path, &asked, fault.content)
        .unwrap_or_else(|| Reply::error(dialect, StatusCode::NOT_FOUND, "no such path"))
}

fn get(path: &str) -> Option<Reply> {
    Some(match path {
        "/" | "" => {
            Reply::text(StatusCode::OK, "text/plain; charset=utf-8", "Ollama is simulated".to_owned())
        }
        "/v1/models" => {
            let models: Vec<Value> = ollama::MODELS.iter().map(|name| model(name)).collect();
            Reply::json(&json!({"object": "list", "data": models}))
        }
        "/api/tags" => Reply::json(&ollama::tags()),
        "/api/ps" => Reply::json(&json!({"models": []})),
        "/api/version" => Reply::json(&json!({"version": "0.0.0-simulated"})),
        _ => {
            let name = path.strip_prefix("/v1/models/").filter(|name| ollama::MODELS.contains(name))?;
            Reply::json(&model(name))
        }
    })
}

fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 1_735_689_600, "owned_by": "simulated"})
}

/// `None` for a path that is not served.
fn post(path: &str, asked: &Asked, content: Content) -> Option<Reply> {
    let simple = match path {
        "/v1/embeddings" => Some(embedding::openai(asked)),
        "/api/embed" => Some(embedding::ollama(asked)),
        "/api/embeddings" => Some(embedding::ollama_older(asked)),
        "/v1/messages/count_tokens" => Some(json!({"input_tokens": asked.prompt.split_whitespace().count()})),
        "/api/show" => Some(ollama::show()),
        "/api/generate" if ollama::is_load(ollama::Endpoint::Generate, asked) => {
            Some(ollama::load(ollama::Endpoint::Generate, asked))
        }
        "/api/chat" if ollama::is_load(ollama::Endpoint::Chat, asked) => {
            Some(ollama::load(ollama::Endpoint::Chat, asked))
        }
        _ => None,
    };
    if let Some(document) = simple {
        return Some(Reply::json(&document));
    }
    if path == "/api/pull" {
        return Some(Reply::stream("application/x-ndjson", ollama::pull()));
    }
    let form = Form::of(path)?;
    let answer = asked.answer(content);
    let streamed = asked.body.get("stream").and_then(Value::as_bool).unwrap_or(form.streams_by_default());
    let inside = content == Content::ErrorInside;
    Some(match (streamed, inside) {
        (false, true) => {
            let error =
                error_body(form.dialect(), StatusCode::INTERNAL_SERVER_ERROR, "simulated failure inside");
            Reply::json(&error)
        }
        (false, false) => Reply::json(&form.document(asked, &answer)),
        (true, _) => {
            let mut pieces = form.pieces(asked, &answer);
            if inside {
                pieces.truncate(pieces.len().div_ceil(2));
                pieces.push(form.error_piece(pieces.len()));
            }
            let content_type = match form {
                Form::Ollama(_) => "application/x-ndjson",
                Form::Messages | Form::Responses => "text/event-stream; charset=utf-8",
                Form::Chat | Form::Completions => "text/event-stream",
            };
            Reply::stream(content_type, pieces)
        }
    })
}

/// The endpoints that generate.
#[derive(Debug, Clone, Copy)]
enum Form {
    Chat,
    Completions,
    Responses,
    Messages,
    Ollama(ollama::Endpoint),
}

impl Form {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Messages,
            "/api/generate" => Self::Ollama(ollama::Endpoint::Generate),
            "/api/chat" => Self::Ollama(ollama::Endpoint::Chat),
            _ => return None,
        })
    }

    fn streams_by_default(self) -> bool {
        matches!(self, Self::Ollama(_))
    }

    fn dialect(self) -> Dialect {
        match self {
            Self::Chat | Self::Completions | Self::Responses => Dialect::OpenAi,
            Self::Messages => Dialect::Anthropic,
            Self::Ollama(_) => Dialect::Ollama,
        }
    }

    fn document(self, asked: &Asked, answer: &Answer) -> Value {
        match self {
            Self::Chat => openai::chat(asked, answer),
            Self::Completions => openai::completions(asked, answer),
            Self::Responses => responses::document(asked, answer),
            Self::Messages => anthropic::document(asked, answer),
            Self::Ollama(endpoint) => ollama::document(endpoint, asked, answer),
        }
    }

    fn pieces(self, asked: &Asked, answer: &Answer) -> Vec<Bytes> {
        match self {
            Self::Chat => openai::chat_events(asked, answer),
            Self::Completions => openai::completions_events(asked, answer),
            Self::Responses => responses::events(asked, answer),
            Self::Messages => anthropic::events(asked, answer),
            Self::Ollama(endpoint) => ollama::lines(endpoint, asked, answer),
        }
    }

    /// The error of a stream that has already sent this many events.
    fn error_piece(self, events: usize) -> Bytes {
        let message = "simulated failure inside";
        let body = error_body(self.dialect(), StatusCode::INTERNAL_SERVER_ERROR, message);
        match self {
            Self::Chat | Self::Completions => openai::data(&body),
            Self::Responses => responses::error_event(events, message),
            Self::Messages => anthropic::event(&body),
            Self::Ollama(_) => Bytes::from(format!("{body}\n")),
        }
    }
}

fn dialect_of(path: &str) -> Dialect {
    if path.contains("/v1/messages") {
        Dialect::Anthropic
    } else if path.contains("/v1/") {
        Dialect::OpenAi
    } else {
        Dialect::Ollama
    }
}

fn error_body(dialect: Dialect, status: StatusCode, message: &str) -> Value {
    match dialect {
        Dialect::OpenAi => {
            let (kind, code) = match status.as_u16() {
                401 => ("invalid_request_error", Some("invalid_api_key")),
                404 => ("invalid_request_error", Some("model_not_found")),
                429 => ("requests", Some("rate_limit_exceeded")),
                400..=499 => ("invalid_request_error", None),
                _ => ("server_error", None),
            };
            openai::error(kind, message, code)
        }
        Dialect::Anthropic => {
            let kind = match status.as_u16() {
                401 => "authentication_error",
                403 => "permission_error",
                404 => "not_found_error",
                429 => "rate_limit_error",
                529 => "overloaded_error",
                400..=499 => "invalid_request_error",
                _ => "api_error",
            };
            anthropic::error(kind, message)
        }
        Dialect::Ollama => ollama::error(message),
    }
}

fn holds_key(headers: &HeaderMap, key: &str) -> bool {
    let value = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    value(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")) == Some(key)
        || value(HeaderName::from_static("x-api-key")) == Some(key)
        || value(HeaderName::from_static("api-key")) == Some(key)
}
