//! `POST /v1/completions`, the text completions
//! (<https://platform.openai.com/docs/api-reference/completions>).

use bytes::Bytes;
use serde_json::{Map, Value};

use super::borrowed::BorrowedValue;
use super::chunks::Chunks;
use super::fold::{self, Choice};
use super::reply::{self, malformed, pieces};
use super::request;
use crate::dialect::json::Json;
use crate::dialect::template::Template;
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable, take_outside_scope};

/// Reads a request: a list of one prompt is that prompt; of several, or of token numbers, it stays in the scope.
pub(crate) fn read(mut body: Json<'_>) -> Option<Request<'_>> {
    let outside = take_outside_scope(&mut body)?;
    let form = request::form(&outside)?;
    let object = body.as_object_mut()?;
    let model = request::model(object)?;
    let repeated = request::reply_repeats_prompt(object);
    let prompt = match object.get_mut("prompt") {
        // The model begins from nothing.
        None => None,
        Some(prompt) => {
            let known = match &*prompt {
                Json::Text(_) => true,
                Json::Array(items) => {
                    items.iter().all(|item| matches!(item, Json::Text(_) | Json::Number(_) | Json::Array(_)))
                }
                _ => false,
            };
            if !known {
                return None;
            }
            if let Json::Array(items) = prompt
                && let [Json::Text(_)] = items.as_slice()
            {
                *prompt = items.remove(0);
            }
            if repeated { None } else { request::take_text(prompt) }
        }
    };
    Some(Request { model, prompt, scope: body, form, echo: outside.echo })
}

/// Gathers a reply.
pub(crate) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    match form {
        Form::Json => judge(body.clone()),
        Form::Sse { .. } => {
            judge(Bytes::from(fold::fold::<TextChoice>(body, "text_completion")?.to_string()))
        }
        Form::Ndjson => Err(malformed("NDJSON")),
    }
}

/// Whether a document is a whole reply, and what is in it.
fn judge(bytes: Bytes) -> Result<Reply, Unstorable> {
    let document = reply::parse(&bytes)?;
    let mut first = None;
    for choice in reply::whole_choices(&document)? {
        let text = choice.get("text").and_then(BorrowedValue::as_str).ok_or_else(|| malformed("no text"))?;
        if text.trim().is_empty() {
            return Err(Unstorable::Empty);
        }
        if choice.get("logprobs").is_some_and(|logprobs| !logprobs.is_null() && !logprobs.is_object()) {
            return Err(malformed("logprobs"));
        }
        first.get_or_insert(text);
    }
    let text = first.unwrap_or_default().to_owned();
    let usage = reply::usage(&document, "prompt_tokens", "completion_tokens");
    Ok(Reply { document: bytes, text, tool_calls: false, usage })
}

/// A choice as its pieces arrive.
#[derive(Default)]
struct TextChoice {
    text: String,
    logprobs: Value,
    has_logprobs: bool,
    finish_reason: Value,
    rest: Map<String, Value>,
}

impl Choice for TextChoice {
    fn absorb(&mut self, part: Map<String, Value>) -> Result<(), Unstorable> {
        for (name, value) in part {
            match (name.as_str(), value) {
                ("text", Value::String(text)) => self.text.push_str(&text),
                ("text" | "finish_reason", Value::Null) => {}
                ("text", _) => return Err(malformed("text")),
                ("logprobs", value) => {
                    self.has_logprobs = true;
                    fold::append_logprobs(&mut self.logprobs, value)?;
                }
                ("finish_reason", value) => self.finish_reason = value,
                (_, value @ Value::Array(_)) => fold::keep_once(&mut self.rest, name, value)?,
                (_, value) => fold::keep_last(&mut self.rest, name, value),
            }
        }
        Ok(())
    }

    fn finish(self) -> Map<String, Value> {
        let mut choice = Map::new();
        choice.insert("text".to_owned(), self.text.into());
        if self.has_logprobs {
            choice.insert("logprobs".to_owned(), self.logprobs);
        }
        choice.insert("finish_reason".to_owned(), self.finish_reason);
        choice.extend(self.rest);
        choice
    }
}

/// Replays a stored reply.
pub(crate) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    match form {
        Form::Json => reply::replay_json(document),
        Form::Sse { usage } => {
            let stored = document;
            let document = reply::stored(stored)?;
            let mut chunks = Chunks::new(stored, &document, "text_completion", usage)?;
            let choices = document.get("choices").and_then(Value::as_array);
            let choices = choices.ok_or_else(|| ReplayError("no choices".to_owned()))?;
            for (at, choice) in choices.iter().enumerate() {
                stream_choice(&mut chunks, choice, at + 1 == choices.len())?;
            }
            chunks.finish()
        }
        Form::Ndjson => Err(ReplayError("text completions have no NDJSON".to_owned())),
    }
}

/// Streams one choice: its text in pieces, or with its log probabilities in one, then the reason of its end.
fn stream_choice(chunks: &mut Chunks, choice: &Value, last: bool) -> Result<(), ReplayError> {
    let choice = choice.as_object().ok_or_else(|| ReplayError("a choice".to_owned()))?;
    let text = choice.get("text").and_then(Value::as_str).ok_or_else(|| ReplayError("no text".to_owned()))?;
    let index = choice.get("index").cloned().unwrap_or(0.into());
    let chunk = |text: &str, logprobs: Value, reason: Value| {
        let mut chunk = Map::new();
        chunk.insert("text".to_owned(), text.into());
        chunk.insert("index".to_owned(), index.clone());
        if choice.contains_key("logprobs") {
            chunk.insert("logprobs".to_owned(), logprobs);
        }
        chunk.insert("finish_reason".to_owned(), reason);
        chunk
    };
    match choice.get("logprobs") {
        None | Some(Value::Null) => {
            for piece in pieces(text) {
                chunks.choice(&Value::Object(chunk(piece, Value::Null, Value::Null)), false);
            }
        }
        Some(logprobs) => {
            chunks.choice(&Value::Object(chunk(text, logprobs.clone(), Value::Null)), false);
        }
    }
    let mut end = chunk("", Value::Null, choice.get("finish_reason").cloned().unwrap_or_default());
    for (name, value) in choice {
        end.entry(name.as_str()).or_insert_with(|| value.clone());
    }
    chunks.choice(&Value::Object(end), last);
    Ok(())
}
