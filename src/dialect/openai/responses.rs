//! `POST /v1/responses` (<https://platform.openai.com/docs/api-reference/responses>).
//!
//! The stored `id` stays in a replay, because `previous_response_id` must work upstream.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::borrowed::BorrowedValue;
use super::reply::{self, malformed};
use super::{request, response_events};
use crate::dialect::json::{Json, Object};
use crate::dialect::sse;
use crate::dialect::template::{Slot, Template, Writer};
use crate::dialect::turns::settle;
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable, take_outside_scope};

/// Reads a request: the prompt is the input, or the text of its last item where that is a message of the user.
/// What changes state upstream (`conversation`, `background`) passes through.
pub(crate) fn read(mut body: Json<'_>) -> Option<Request<'_>> {
    let outside = take_outside_scope(&mut body)?;
    let form = if outside.stream == Some(true) { Form::Sse { usage: true } } else { Form::Json };
    let object = body.as_object_mut()?;
    let model = request::model(object)?;
    let background = object.get("background").is_some_and(|background| background.as_bool() != Some(false));
    if background || object.get("conversation").is_some() {
        return None;
    }
    // A stored prompt template, or an earlier response, may be all the input there is.
    let needs_no_input = object.get("prompt").is_some() || object.get("previous_response_id").is_some();
    let prompt = match object.get_mut("input") {
        None if needs_no_input => None,
        Some(input @ Json::Text(_)) => request::take_text(input),
        Some(Json::Array(items)) => {
            if !are_items(items) {
                return None;
            }
            last_text(items)
        }
        _ => return None,
    };
    Some(Request { model, prompt, scope: body, form, echo: outside.echo })
}

/// Whether an item of the input is a message: so is one that says nothing of its type.
fn is_message(item: &Object<'_>) -> bool {
    item.get("type").is_none_or(|kind| kind.as_str() == Some("message"))
}

/// Whether the input's items are all of a known shape. Messages are settled.
fn are_items(items: &mut [Json<'_>]) -> bool {
    items.iter_mut().all(|item| {
        let Some(item) = item.as_object_mut() else { return false };
        if is_message(item) {
            settle(item);
            return request::is_message(item);
        }
        item.get("type").is_some_and(|kind| kind.as_str().is_some())
    })
}

/// The text of the last item, where that is a message of the user.
fn last_text(items: &mut [Json<'_>]) -> Option<String> {
    let last = items.last_mut()?.as_object_mut()?;
    let is_prompt = is_message(last) && request::is_users(last);
    if is_prompt { request::take_user_text(last, "input_text") } else { None }
}

/// Gathers a reply.
pub(crate) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    match form {
        Form::Json => judge(body.clone()),
        Form::Sse { .. } => judge(last_word(body)?),
        Form::Ndjson => Err(malformed("NDJSON")),
    }
}

/// Of an event only what gathering needs.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    output_index: Option<u64>,
    error: Option<serde::de::IgnoredAny>,
}

/// The response as the stream's last event has it, which says all that the events before it said in pieces.
fn last_word(body: &[u8]) -> Result<Bytes, Unstorable> {
    let mut items = BTreeMap::new();
    for event in sse::events(body) {
        if *event.data == *b"[DONE]" {
            break;
        }
        let read: Event<'_> =
            serde_json::from_slice(&event.data).map_err(|error| Unstorable::malformed(&error))?;
        if event.name == "error" || read.error.is_some() {
            return Err(Unstorable::Error);
        }
        let kind = if read.kind.is_empty() { &event.name } else { &read.kind };
        match (&**kind, read.response) {
            ("error" | "response.failed" | "response.error", _) => return Err(Unstorable::Error),
            ("response.incomplete", _) => {
                return Err(Unstorable::Incomplete("response.incomplete".to_owned()));
            }
            ("response.completed", Some(response)) => return with_output(response, items),
            ("response.completed", None) => return Err(malformed("no response")),
            ("response.output_item.done", _) => {
                if let (Some(index), Some(item)) = (read.output_index, read.item) {
                    items.insert(index, parse(item)?);
                }
            }
            _ => {}
        }
    }
    Err(Unstorable::Truncated)
}

/// Some servers leave the output out of the last event: then it is what the events before it said.
fn with_output(response: &RawValue, items: BTreeMap<u64, Value>) -> Result<Bytes, Unstorable> {
    // A copy, since a slice would keep the whole stream in memory.
    let as_it_is = || Bytes::copy_from_slice(response.get().as_bytes());
    if items.is_empty() {
        return Ok(as_it_is());
    }
    // Of a name that repeats the last counts, as when the document is judged.
    let mut whole: Map<String, Value> =
        serde_json::from_str(response.get()).map_err(|error| Unstorable::malformed(&error))?;
    let is_left_out = match whole.get("output") {
        None | Some(Value::Null) => true,
        Some(Value::Array(output)) => output.is_empty(),
        Some(_) => false,
    };
    if !is_left_out {
        return Ok(as_it_is());
    }
    whole.insert("output".to_owned(), items.into_values().collect());
    Ok(Bytes::from(Value::Object(whole).to_string()))
}

fn parse(value: &RawValue) -> Result<Value, Unstorable> {
    serde_json::from_str(value.get()).map_err(|error| Unstorable::malformed(&error))
}

/// Whether a document is a whole reply, and what is in it.
fn judge(bytes: Bytes) -> Result<Reply, Unstorable> {
    let document = reply::parse(&bytes)?;
    match document.get("status").and_then(BorrowedValue::as_str) {
        Some("completed") => {}
        Some("failed") => return Err(Unstorable::Error),
        Some(status) => {
            let reason =
                document.get("incomplete_details").and_then(|details| details.get("reason")?.as_str());
            return Err(reply::incomplete(reason.unwrap_or(status)));
        }
        None => return Err(malformed("no status")),
    }
    let output =
        document.get("output").and_then(BorrowedValue::as_array).ok_or_else(|| malformed("no output"))?;
    let (mut text, mut refusal, mut tool_calls) = (String::new(), String::new(), false);
    for item in output {
        match item.get("type").and_then(BorrowedValue::as_str) {
            Some("reasoning" | "compaction") => {}
            Some("message") => {
                if item
                    .get("status")
                    .and_then(BorrowedValue::as_str)
                    .is_some_and(|status| status != "completed")
                {
                    return Err(Unstorable::Incomplete("a message".to_owned()));
                }
                for part in item.get("content").and_then(BorrowedValue::as_array).into_iter().flatten() {
                    let text_of = |name| part.get(name).and_then(BorrowedValue::as_str).unwrap_or_default();
                    text.push_str(text_of("text"));
                    refusal.push_str(text_of("refusal"));
                }
            }
            // Whatever else it is, a tool was called, or upstream's own tool gave a result.
            Some(_) => tool_calls = true,
            None => return Err(malformed("an item")),
        }
    }
    if text.trim().is_empty() && refusal.trim().is_empty() && !tool_calls {
        return Err(Unstorable::Empty);
    }
    let text = if text.is_empty() { refusal } else { text };
    let usage = reply::usage(&document, "input_tokens", "output_tokens");
    Ok(Reply { document: bytes, text, tool_calls, usage })
}

/// Replays a stored reply.
pub(crate) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    match form {
        Form::Json => {
            let mut writer = Writer::new("", document);
            reply::splice(&mut writer, document, renew)?;
            writer.finish()
        }
        Form::Sse { .. } => response_events::replay(document),
        Form::Ndjson => Err(ReplayError("responses have no NDJSON".to_owned())),
    }
}

/// What differs at each replay: the times, and the caller's own values of the fields that stay out of the
/// scope, where upstream echoes them, with the API's default for a caller that gave none.
pub(super) fn renew(writer: &mut Writer, name: &str, is_number: bool) -> Option<Value> {
    match name {
        "created_at" | "completed_at" if is_number => Some(Writer::mark(Slot::Created)),
        "metadata" => Some(writer.echo("metadata", Value::Object(Map::new()))),
        "prompt_cache_key" => Some(writer.echo("prompt_cache_key", Value::Null)),
        "safety_identifier" => Some(writer.echo("safety_identifier", Value::Null)),
        "store" => Some(writer.echo("store", Value::Bool(true))),
        "user" => Some(writer.echo("user", Value::Null)),
        _ => None,
    }
}
