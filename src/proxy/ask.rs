//! `POST /ask`: a question in, an answer and how it came about out (INTERFACE.md, "The seed lesson's own API").
//!
//! Called by [`super`]. Takes the same way as a client's own request to the endpoint it asks by.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, Uri, request};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::cached::Answer;
use super::collect::{Collected, collect};
use super::error::ProxyError;
use super::headers::{Survey, directives, strip_request};
use super::{Answered, Failure, Proxy};
use crate::cache::coalesce::End;
use crate::cache::outcome::{Forward, Layer, Outcome};
use crate::dialect::{Endpoint, Form};

/// The path on the client listener.
pub(super) const PATH: &str = "/ask";

#[derive(Deserialize)]
struct Question {
    query: String,
    #[serde(default)]
    bypass_cache: bool,
}

impl Proxy {
    /// Answers `POST /ask`.
    pub(super) async fn ask(
        &self,
        mut parts: request::Parts,
        incoming: hyper::body::Incoming,
    ) -> Result<Answered, Failure> {
        let started = Instant::now();
        let refuse = |error: ProxyError| Failure::new(error, Outcome::forwarded(Forward::Bypass));
        let collected = collect(incoming, self.settings.max_request_bytes, self.settings.idle, &self.budget)
            .await
            .map_err(|error| refuse(ProxyError::RequestBody(error.to_string())))?;
        let Collected::Whole(body) = collected else {
            return Err(refuse(ProxyError::Unprocessable(
                "the question is larger than max_request_bytes, or than what there is memory for now",
            )));
        };
        let question: Question = serde_json::from_slice(&body).map_err(|_| {
            refuse(ProxyError::Unprocessable(
                "the body must be JSON with a string \"query\" and, if wanted, a boolean \"bypass_cache\"",
            ))
        })?;
        if question.query.trim().is_empty() {
            return Err(refuse(ProxyError::Unprocessable("\"query\" is empty")));
        }
        let mut directives = directives(&parts.headers).map_err(|error| refuse(error.into()))?;
        directives.no_cache |= question.bypass_cache;
        if directives.no_store {
            // A reply of its own, which lives for no time.
            directives.no_cache = true;
            directives.ttl = Some(Duration::ZERO);
        }
        strip_request(&mut parts.headers);
        let endpoint = self.settings.ask_endpoint;
        let body = self.question(endpoint, &question.query);
        rewrite(&mut parts, endpoint);
        let Some(prepared) = self.prepare(endpoint, &parts, Survey::of(&parts.headers), &body, directives)
        else {
            return Err(refuse(ProxyError::Unprocessable(
                "the question cannot be put to the configured endpoint",
            )));
        };
        let asked = self.asked(&prepared, &parts.headers);
        let answer = match self.answer(&prepared, parts, body).await {
            Ok(answer) => answer,
            Err(failure) => return Err(failure.with(asked)),
        };
        let (text, outcome) = match answer {
            Answer::Hit(hit, _, outcome) => (hit.entry.reply().text, outcome),
            Answer::Gathered(reply, _, outcome) => (reply.text, outcome),
            Answer::Upstream(reader, upstream, outcome) => {
                let failed = |message: String| Failure::new(ProxyError::Upstream(message), outcome.clone());
                let end = reader.end().await;
                let text = match end {
                    Some(End::Whole(Some(reply))) => reply.text,
                    // Not stored, yet perhaps an answer: one stopped by length, or a very long one.
                    Some(End::Whole(None)) | None if upstream.status.is_success() => {
                        let body = Limited::new(Body::flight(reader, None), self.settings.max_request_bytes)
                            .collect()
                            .await
                            .map_err(|error| failed(error.to_string()))?;
                        unstored_text(endpoint, &body.to_bytes())
                            .ok_or_else(|| failed("its reply could not be read".to_owned()))?
                    }
                    Some(End::Whole(None)) | None => {
                        return Err(failed(format!("it answered with status {}", upstream.status)));
                    }
                    Some(End::Broken | End::Abandoned) => {
                        return Err(failed("its reply was cut off".to_owned()));
                    }
                };
                (text, outcome)
            }
        };
        let body = answer_body(&text, &outcome, started);
        let mut response = Response::new(Body::Whole(Bytes::from(body.to_string())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Answered { asked, ..Answered::new(response, outcome) })
    }

    /// The body of the request that puts the question.
    fn question(&self, endpoint: Endpoint, query: &str) -> Bytes {
        let model = &self.settings.ask_model;
        let body = match endpoint {
            Endpoint::OllamaChat | Endpoint::OpenAiChat => {
                json!({"model": model, "messages": [{"role": "user", "content": query}], "stream": false})
            }
            _ => json!({"model": model, "prompt": query, "stream": false}),
        };
        body.to_string().into()
    }
}

/// Makes the head of the client's request that of the request which puts the question; who asks stays the same.
fn rewrite(parts: &mut request::Parts, endpoint: Endpoint) {
    parts.uri = Uri::from_static(endpoint.path());
    for name in [CONTENT_LENGTH, CONTENT_ENCODING] {
        parts.headers.remove(name);
    }
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// The text of a whole reply that is not stored.
fn unstored_text(endpoint: Endpoint, body: &Bytes) -> Option<String> {
    if let Ok(reply) = endpoint.gather(Form::Json, body) {
        return Some(reply.text);
    }
    let document: Value = serde_json::from_slice(body).ok()?;
    let text = ["/response", "/message/content", "/choices/0/message/content", "/choices/0/text"]
        .into_iter()
        .find_map(|pointer| document.pointer(pointer)?.as_str())?;
    Some(text.to_owned())
}

fn answer_body(text: &str, outcome: &Outcome, started: Instant) -> Value {
    let millis = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64() * 1000.0);
    let hit = outcome.layer != Layer::Upstream;
    json!({
        "response": text,
        "from_cache": hit,
        "similarity": outcome.decision.map(|decision| decision.similarity.0),
        "debug": {
            "layer": outcome.layer.as_str(),
            "miss_reason": outcome.reason.map(crate::cache::decision::MissReason::as_str),
            "rule": outcome.rule,
            "confidence": outcome.decision.map(|decision| decision.confidence),
            "entry": outcome.entry.map(|entry| entry.id.to_string()),
            "age_s": outcome.entry.map(|entry| entry.age.as_secs()),
            "timings_ms": {
                "exact": millis(outcome.timings.exact),
                "semantic": millis(outcome.timings.semantic),
                "upstream": millis(outcome.timings.upstream),
                "total": millis(Some(started.elapsed())),
            },
        },
    })
}
