//! `/v1/responses` (<https://platform.openai.com/docs/api-reference/responses>) and its events
//! (<https://platform.openai.com/docs/api-reference/responses-streaming>).

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Asked, Stop, logprob_object};
use super::openai::halves;
use super::unix_seconds;

/// The document of `/v1/responses`.
pub(super) fn document(asked: &Asked, answer: &Answer) -> Value {
    response(asked, answer, true)
}

/// The events of `/v1/responses`.
pub(super) fn events(asked: &Asked, answer: &Answer) -> Vec<Bytes> {
    let mut events = Events::default();
    events.push("response.created", json!({"response": response(asked, answer, false)}));
    events.push("response.in_progress", json!({"response": response(asked, answer, false)}));
    for (index, item) in output(asked, answer).into_iter().enumerate() {
        let mut started = item.clone();
        if let Some(started) = started.as_object_mut() {
            for (name, start) in [("content", json!([])), ("summary", json!([])), ("arguments", json!(""))] {
                if started.contains_key(name) {
                    started.insert(name.to_owned(), start);
                }
            }
            started.insert("status".to_owned(), json!("in_progress"));
        }
        events.push("response.output_item.added", json!({"output_index": index, "item": started}));
        let place = json!({"item_id": item.get("id"), "output_index": index});
        match item.get("type").and_then(Value::as_str) {
            Some("reasoning") => events.reasoning(&place, &answer.reasoning),
            Some("function_call") => {
                let arguments = item.get("arguments").and_then(Value::as_str).unwrap_or_default();
                for part in halves(arguments) {
                    events
                        .push("response.function_call_arguments.delta", with(&place, json!({"delta": part})));
                }
                events.push(
                    "response.function_call_arguments.done",
                    with(&place, json!({"arguments": arguments})),
                );
            }
            _ => events.message(&place, &item, asked, answer),
        }
        events.push("response.output_item.done", json!({"output_index": index, "item": item}));
    }
    let last = if status(answer) == "completed" { "response.completed" } else { "response.incomplete" };
    events.push(last, json!({"response": response(asked, answer, true)}));
    events.0
}

/// The event of an error mid-stream.
pub(super) fn error_event(sequence_number: usize, message: &str) -> Bytes {
    let event = json!({
        "type": "error",
        "sequence_number": sequence_number,
        "code": "server_error",
        "message": message,
        "param": null,
    });
    Bytes::from(format!("event: error\ndata: {event}\n\n"))
}

#[derive(Default)]
struct Events(Vec<Bytes>);

impl Events {
    fn push(&mut self, name: &str, members: Value) {
        let event = with(&json!({"type": name, "sequence_number": self.0.len()}), members);
        self.0.push(Bytes::from(format!("event: {name}\ndata: {event}\n\n")));
    }

    fn reasoning(&mut self, place: &Value, pieces: &[String]) {
        let place = with(place, json!({"summary_index": 0}));
        let part = |text: &str| with(&place, json!({"part": {"type": "summary_text", "text": text}}));
        self.push("response.reasoning_summary_part.added", part(""));
        for piece in pieces {
            self.push("response.reasoning_summary_text.delta", with(&place, json!({"delta": piece})));
        }
        let text = pieces.concat();
        self.push("response.reasoning_summary_text.done", with(&place, json!({"text": text})));
        self.push("response.reasoning_summary_part.done", part(&text));
    }

    fn message(&mut self, place: &Value, item: &Value, asked: &Asked, answer: &Answer) {
        let place = with(place, json!({"content_index": 0}));
        let refused = answer.stop == Stop::Refusal;
        let pieces = answer.texts.first().map(Vec::as_slice).unwrap_or_default();
        let logprobs = wants_logprobs(asked);
        let empty = part(&[], refused, logprobs);
        self.push("response.content_part.added", with(&place, json!({"part": empty})));
        for piece in pieces {
            if refused {
                self.push("response.refusal.delta", with(&place, json!({"delta": piece})));
            } else {
                let logprobs: Vec<Value> = logprobs.then(|| logprob_object(piece)).into_iter().collect();
                self.push(
                    "response.output_text.delta",
                    with(&place, json!({"delta": piece, "logprobs": logprobs})),
                );
            }
        }
        let whole = item.pointer("/content/0").cloned().unwrap_or_default();
        if refused {
            self.push("response.refusal.done", with(&place, json!({"refusal": whole.get("refusal")})));
        } else {
            let done = json!({"text": whole.get("text"), "logprobs": whole.get("logprobs")});
            self.push("response.output_text.done", with(&place, done));
        }
        self.push("response.content_part.done", with(&place, json!({"part": whole})));
    }
}

/// The response object; before the end without output and usage.
fn response(asked: &Asked, answer: &Answer, ended: bool) -> Value {
    let echoed = |name: &str, default: Value| {
        asked.body.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(default)
    };
    let reason = match answer.stop {
        Stop::Length => Some("max_output_tokens"),
        Stop::Filter => Some("content_filter"),
        Stop::End | Stop::Refusal | Stop::ToolCall => None,
    };
    let mut response = json!({
        "id": asked.id("resp_"),
        "object": "response",
        "created_at": unix_seconds(),
        "status": if ended { status(answer) } else { "in_progress" },
        "background": false,
        "completed_at": ended.then(unix_seconds),
        "error": null,
        "incomplete_details": reason.filter(|_| ended).map(|reason| json!({"reason": reason})),
        "model": asked.model,
        "output": if ended { output(asked, answer) } else { Vec::new() },
    });
    let defaults = [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("prompt_cache_key", Value::Null),
        ("reasoning", json!({"effort": null, "summary": null})),
        ("safety_identifier", Value::Null),
        ("service_tier", json!("default")),
        ("store", json!(true)),
        ("temperature", json!(1.0)),
        ("text", json!({"format": {"type": "text"}, "verbosity": "medium"})),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_logprobs", json!(0)),
        ("top_p", json!(1.0)),
        ("truncation", json!("disabled")),
        ("user", Value::Null),
    ];
    if let Some(response) = response.as_object_mut() {
        for (name, default) in defaults {
            response.insert(name.to_owned(), echoed(name, default));
        }
        response.insert("usage".to_owned(), if ended { usage(answer) } else { Value::Null });
    }
    response
}

fn status(answer: &Answer) -> &'static str {
    if matches!(answer.stop, Stop::Length | Stop::Filter) { "incomplete" } else { "completed" }
}

/// The output items.
fn output(asked: &Asked, answer: &Answer) -> Vec<Value> {
    let mut items = Vec::new();
    if !answer.reasoning.is_empty() {
        items.push(json!({
            "id": asked.id("rs_"),
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": answer.reasoning.concat()}],
        }));
    }
    if let Some(call) = &answer.call {
        items.push(json!({
            "id": asked.id("fc_"),
            "type": "function_call",
            "status": "completed",
            "arguments": call.arguments.to_string(),
            "call_id": call.id,
            "name": call.name,
        }));
    } else {
        let pieces = answer.texts.first().map(Vec::as_slice).unwrap_or_default();
        items.push(json!({
            "id": asked.id("msg_"),
            "type": "message",
            "status": status(answer),
            "role": "assistant",
            "content": [part(pieces, answer.stop == Stop::Refusal, wants_logprobs(asked))],
        }));
    }
    items
}

fn part(pieces: &[String], refused: bool, logprobs: bool) -> Value {
    let text = pieces.concat();
    if refused {
        return json!({"type": "refusal", "refusal": text});
    }
    let logprobs: Vec<Value> =
        pieces.iter().filter(|_| logprobs).map(|piece| logprob_object(piece)).collect();
    json!({"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text})
}

fn wants_logprobs(asked: &Asked) -> bool {
    let include = asked.body.get("include").and_then(Value::as_array);
    include.is_some_and(|include| include.iter().any(|name| name == "message.output_text.logprobs"))
}

fn usage(answer: &Answer) -> Value {
    json!({
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning.len()},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    })
}

/// The members of both objects, in order.
fn with(first: &Value, second: Value) -> Value {
    let mut members: Map<String, Value> = first.as_object().cloned().unwrap_or_default();
    if let Value::Object(second) = second {
        members.extend(second);
    }
    Value::Object(members)
}
