//! `POST /v1/chat/completions`
//! (<https://platform.openai.com/docs/api-reference/chat>).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::borrowed::BorrowedValue;
use super::chunks::Chunks;
use super::fold::{self, Choice};
use super::reply::{self, malformed, pieces};
use super::request;
use crate::dialect::json::Json;
use crate::dialect::template::Template;
use crate::dialect::turns::settle;
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable, take_outside_scope};

/// Reads a request: the prompt is the text of the last message, where that is the user's.
pub(crate) fn read(mut body: Json<'_>) -> Option<Request<'_>> {
    let outside = take_outside_scope(&mut body)?;
    let form = request::form(&outside)?;
    let object = body.as_object_mut()?;
    let model = request::model(object)?;
    let repeated = request::reply_repeats_prompt(object);
    let messages = object.get_mut("messages")?.as_array_mut()?;
    for message in messages.iter_mut() {
        let message = message.as_object_mut()?;
        settle(message);
        if !request::is_message(message) {
            return None;
        }
    }
    let last = messages.last_mut()?.as_object_mut()?;
    let prompt =
        if request::is_users(last) && !repeated { request::take_user_text(last, "text") } else { None };
    Some(Request { model, prompt, scope: body, form, echo: outside.echo })
}

/// Gathers a reply.
pub(crate) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    match form {
        Form::Json => judge(body.clone()),
        Form::Sse { .. } => {
            judge(Bytes::from(fold::fold::<ChatChoice>(body, "chat.completion")?.to_string()))
        }
        Form::Ndjson => Err(malformed("NDJSON")),
    }
}

/// Whether a document is a whole reply, and what is in it.
fn judge(bytes: Bytes) -> Result<Reply, Unstorable> {
    let document = reply::parse(&bytes)?;
    let mut text = None;
    let mut tool_calls = false;
    for choice in reply::whole_choices(&document)? {
        let message = choice
            .get("message")
            .filter(|message| message.is_object())
            .ok_or_else(|| malformed("no message"))?;
        if message.get("audio").is_some_and(|audio| !audio.is_null()) {
            // It can be neither streamed in pieces nor kept beyond the hour at which upstream forgets it.
            return Err(malformed("audio"));
        }
        let content = text_of(message, "content")?;
        let refusal = text_of(message, "refusal")?;
        let calls = message
            .get("tool_calls")
            .and_then(BorrowedValue::as_array)
            .is_some_and(|calls| !calls.is_empty())
            || message.get("function_call").is_some_and(BorrowedValue::is_object);
        if content.trim().is_empty() && refusal.trim().is_empty() && !calls {
            return Err(Unstorable::Empty);
        }
        tool_calls |= calls
            || matches!(
                choice.get("finish_reason").and_then(BorrowedValue::as_str),
                Some("tool_calls" | "function_call")
            );
        text.get_or_insert(if content.is_empty() { refusal } else { content });
    }
    let text = text.unwrap_or_default().to_owned();
    let usage = reply::usage(&document, "prompt_tokens", "completion_tokens");
    Ok(Reply { document: bytes, text, tool_calls, usage })
}

fn text_of<'d>(message: &'d BorrowedValue<'_>, name: &str) -> Result<&'d str, Unstorable> {
    match message.get(name) {
        None | Some(BorrowedValue::Null) => Ok(""),
        Some(BorrowedValue::Text(text)) => Ok(text),
        // Lists of parts, as some servers answer with, have no known form in a stream.
        Some(_) => Err(malformed(name)),
    }
}

/// A choice as its deltas arrive.
#[derive(Default)]
struct ChatChoice {
    message: Map<String, Value>,
    tool_calls: BTreeMap<u64, Map<String, Value>>,
    logprobs: Value,
    has_logprobs: bool,
    finish_reason: Value,
    rest: Map<String, Value>,
}

impl Choice for ChatChoice {
    fn absorb(&mut self, part: Map<String, Value>) -> Result<(), Unstorable> {
        for (name, value) in part {
            match (name.as_str(), value) {
                ("delta", Value::Object(delta)) => self.absorb_delta(delta)?,
                ("delta" | "finish_reason", Value::Null) => {}
                ("delta" | "message", _) => return Err(malformed("a delta")),
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

    fn finish(mut self) -> Map<String, Value> {
        let mut message = Map::new();
        message.insert("role".to_owned(), self.message.shift_remove("role").unwrap_or("assistant".into()));
        message.insert("content".to_owned(), self.message.shift_remove("content").unwrap_or_default());
        message.extend(self.message);
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.into_values().map(Value::Object).collect();
            message.insert("tool_calls".to_owned(), calls);
        }
        let mut choice = Map::new();
        choice.insert("message".to_owned(), Value::Object(message));
        if self.has_logprobs {
            choice.insert("logprobs".to_owned(), self.logprobs);
        }
        choice.insert("finish_reason".to_owned(), self.finish_reason);
        choice.extend(self.rest);
        choice
    }
}

impl ChatChoice {
    fn absorb_delta(&mut self, delta: Map<String, Value>) -> Result<(), Unstorable> {
        for (name, value) in delta {
            match (name.as_str(), value) {
                ("role", value) => fold::keep_same(&mut self.message, name, value)?,
                ("audio", value) if !value.is_null() => return Err(malformed("audio")),
                ("tool_calls", Value::Array(calls)) => {
                    for call in calls {
                        self.absorb_call(call)?;
                    }
                }
                ("tool_calls", Value::Null) => {}
                ("tool_calls", _) => return Err(malformed("tool_calls")),
                ("function_call", Value::Object(more)) => {
                    let call = self.message.entry(name).or_insert_with(|| Value::Object(Map::new()));
                    let Value::Object(call) = call else { return Err(malformed("function_call")) };
                    absorb_function(call, more)?;
                }
                (_, Value::String(text)) => fold::append_text(&mut self.message, name, text)?,
                (_, value) => fold::keep_once(&mut self.message, name, value)?,
            }
        }
        Ok(())
    }

    /// Takes in part of a tool call. Parts without an index cannot be told apart.
    fn absorb_call(&mut self, part: Value) -> Result<(), Unstorable> {
        let Value::Object(mut part) = part else { return Err(malformed("a tool call")) };
        let index = part.shift_remove("index").and_then(|index| index.as_u64());
        let call = self.tool_calls.entry(index.ok_or_else(|| malformed("a tool call's index"))?).or_default();
        for (name, value) in part {
            match value {
                // `function` and `custom`, and whatever comes to be called in their place.
                Value::Object(more) => {
                    let callee = call.entry(name).or_insert_with(|| Value::Object(Map::new()));
                    let Value::Object(callee) = callee else { return Err(malformed("a tool call")) };
                    absorb_function(callee, more)?;
                }
                value => fold::keep_same(call, name, value)?,
            }
        }
        Ok(())
    }
}

/// Takes in part of what is called: its arguments arrive in pieces, all else whole.
fn absorb_function(callee: &mut Map<String, Value>, part: Map<String, Value>) -> Result<(), Unstorable> {
    for (name, value) in part {
        match (name.as_str(), value) {
            ("arguments" | "input", Value::String(text)) => fold::append_text(callee, name, text)?,
            (_, value) => fold::keep_same(callee, name, value)?,
        }
    }
    Ok(())
}

/// Replays a stored reply.
pub(crate) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    match form {
        Form::Json => reply::replay_json(document),
        Form::Sse { usage } => {
            let stored = document;
            let document = reply::stored(stored)?;
            let mut chunks = Chunks::new(stored, &document, "chat.completion.chunk", usage)?;
            let choices = document.get("choices").and_then(Value::as_array);
            let choices = choices.ok_or_else(|| ReplayError("no choices".to_owned()))?;
            for (at, choice) in choices.iter().enumerate() {
                stream_choice(&mut chunks, choice, at + 1 == choices.len())?;
            }
            chunks.finish()
        }
        Form::Ndjson => Err(ReplayError("chats have no NDJSON".to_owned())),
    }
}

/// Streams one choice.
fn stream_choice(chunks: &mut Chunks, choice: &Value, last: bool) -> Result<(), ReplayError> {
    let missing = |what: &str| ReplayError(what.to_owned());
    let choice = choice.as_object().ok_or_else(|| missing("a choice"))?;
    let message = choice.get("message").and_then(Value::as_object).ok_or_else(|| missing("a message"))?;
    let logprobs = choice.get("logprobs").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut stream = Deltas { chunks, choice, logprobs };

    // The role comes first, and with it what is `null`, or text yet to come.
    let mut opening = Map::new();
    opening.insert("role".to_owned(), message.get("role").cloned().unwrap_or("assistant".into()));
    for (name, value) in message {
        match value {
            Value::Null => opening.insert(name.clone(), Value::Null),
            Value::String(_) if name == "content" => opening.insert(name.clone(), "".into()),
            _ => None,
        };
    }
    stream.delta(Value::Object(opening));

    // Reasoning before the content, as models write them, and so any other text.
    let is_answer = |name: &str| name == "content" || name == "refusal";
    for (name, value) in message.iter().filter(|(name, _)| !is_answer(name)) {
        match (name.as_str(), value) {
            ("role" | "tool_calls" | "function_call", _) | (_, Value::Null) => {}
            (_, Value::String(text)) => stream.text(name, text),
            (_, Value::Array(items)) if items.is_empty() => {}
            _ => stream.delta(json!({ name.as_str(): value })),
        }
    }
    for name in ["content", "refusal"] {
        if let Some(Value::String(text)) = message.get(name) {
            stream.answer(name, text);
        }
    }
    if let Some(Value::Object(call)) = message.get("function_call") {
        stream.function_call(call);
    }
    for (index, call) in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        stream.tool_call(index, call.as_object().ok_or_else(|| missing("a tool call"))?);
    }
    stream.finish(last);
    Ok(())
}

/// The deltas of one choice.
struct Deltas<'a> {
    chunks: &'a mut Chunks,
    choice: &'a Map<String, Value>,
    /// What of the choice's `logprobs` no chunk has carried yet.
    logprobs: Map<String, Value>,
}

impl Deltas<'_> {
    fn chunk(&self, delta: Value, logprobs: Value, finish_reason: Value) -> Map<String, Value> {
        let mut chunk = Map::new();
        chunk.insert("index".to_owned(), self.choice.get("index").cloned().unwrap_or(0.into()));
        chunk.insert("delta".to_owned(), delta);
        if self.choice.contains_key("logprobs") {
            chunk.insert("logprobs".to_owned(), logprobs);
        }
        chunk.insert("finish_reason".to_owned(), finish_reason);
        chunk
    }

    fn delta(&mut self, delta: Value) {
        let chunk = self.chunk(delta, Value::Null, Value::Null);
        self.chunks.choice(&Value::Object(chunk), false);
    }

    fn text(&mut self, name: &str, text: &str) {
        for piece in pieces(text) {
            self.delta(json!({ name: piece }));
        }
    }

    /// Content or refusal: in pieces, or with its log probabilities in one, since only upstream knows which
    /// token is which part of the text.
    fn answer(&mut self, name: &str, text: &str) {
        let Some(own @ Value::Array(_)) = self.logprobs.get_mut(name).map(Value::take) else {
            return self.text(name, text);
        };
        let mut logprobs: Map<_, _> = self.logprobs.keys().map(|name| (name.clone(), Value::Null)).collect();
        logprobs.insert(name.to_owned(), own);
        let chunk = self.chunk(json!({ name: text }), Value::Object(logprobs), Value::Null);
        self.chunks.choice(&Value::Object(chunk), false);
    }

    fn function_call(&mut self, call: &Map<String, Value>) {
        let (header, arguments) = without_arguments(call);
        self.delta(json!({ "function_call": header }));
        for piece in pieces(arguments) {
            self.delta(json!({ "function_call": { "arguments": piece } }));
        }
    }

    fn tool_call(&mut self, index: usize, call: &Map<String, Value>) {
        let mut header = call.clone();
        let mut arguments = "";
        header.shift_insert(0, "index".to_owned(), index.into());
        if let Some(Value::Object(function)) = call.get("function") {
            let (function, its) = without_arguments(function);
            header.insert("function".to_owned(), Value::Object(function));
            arguments = its;
        }
        self.delta(json!({ "tool_calls": [header] }));
        for piece in pieces(arguments) {
            self.delta(json!({ "tool_calls": [{ "index": index, "function": { "arguments": piece } }] }));
        }
    }

    /// The finish chunk, with all that the document says of the choice beside its message.
    fn finish(self, last: bool) {
        let left = self.logprobs.values().any(|value| value.as_array().is_some_and(|list| !list.is_empty()));
        let logprobs = if left { Value::Object(self.logprobs.clone()) } else { Value::Null };
        let reason = self.choice.get("finish_reason").cloned().unwrap_or_default();
        let mut chunk = self.chunk(json!({}), logprobs, reason);
        for (name, value) in self.choice {
            if name != "message" {
                chunk.entry(name.as_str()).or_insert_with(|| value.clone());
            }
        }
        self.chunks.choice(&Value::Object(chunk), last);
    }
}

/// A function's call without its arguments, and these, to be sent in pieces after it.
fn without_arguments(function: &Map<String, Value>) -> (Map<String, Value>, &str) {
    let mut header = function.clone();
    let arguments = function.get("arguments").and_then(Value::as_str).unwrap_or_default();
    if let Some(Value::String(text)) = header.get_mut("arguments") {
        text.clear();
    }
    (header, arguments)
}
