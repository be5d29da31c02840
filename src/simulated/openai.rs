//! `/v1/chat/completions` and `/v1/completions`, as OpenAI's API reference has them
//! (<https://platform.openai.com/docs/api-reference/chat>), with Ollama's `reasoning` field.

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Call, Stop, logprob, logprob_object};
use super::unix_seconds;

/// The document of `/v1/chat/completions`.
pub(super) fn chat(asked: &Asked, answer: &Answer) -> Value {
    let choices: Vec<Value> = answer
        .texts
        .iter()
        .enumerate()
        .map(|(index, pieces)| {
            let text = pieces.concat();
            let refused = answer.stop == Stop::Refusal;
            let mut message = json!({
                "role": "assistant",
                "content": if refused || answer.call.is_some() { Value::Null } else { json!(text) },
                "refusal": if refused { json!(text) } else { Value::Null },
            });
            if !answer.reasoning.is_empty() {
                insert(&mut message, "reasoning", json!(answer.reasoning.concat()));
            }
            if let Some(call) = &answer.call {
                insert(&mut message, "tool_calls", json!([tool_call(call, &call.arguments.to_string())]));
            }
            let logprobs = asked.is_true("logprobs").then(|| logprobs(pieces));
            json!({
                "index": index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": finish_reason(answer.stop),
            })
        })
        .collect();
    json!({
        "id": asked.id("chatcmpl-"),
        "object": "chat.completion",
        "created": unix_seconds(),
        "model": asked.model,
        "choices": choices,
        "usage": usage(answer),
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    })
}

/// The events of `/v1/chat/completions`.
pub(super) fn chat_events(asked: &Asked, answer: &Answer) -> Vec<Bytes> {
    let stream = Stream::new(asked, "chatcmpl-", "chat.completion.chunk");
    let mut events = Vec::new();
    let mut push = |index: usize, delta: Value, logprobs: Option<Value>, finish: Option<&str>| {
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        events.push(stream.chunk(&json!([choice])));
    };
    for index in 0..answer.texts.len() {
        push(index, json!({"role": "assistant", "content": "", "refusal": null}), None, None);
    }
    for piece in &answer.reasoning {
        push(0, json!({"reasoning": piece}), None, None);
    }
    let field = if answer.stop == Stop::Refusal { "refusal" } else { "content" };
    for (index, pieces) in answer.texts.iter().enumerate() {
        for piece in pieces {
            let logprobs = asked.is_true("logprobs").then(|| logprobs(std::slice::from_ref(piece)));
            push(index, json!({field: piece}), logprobs, None);
        }
    }
    if let Some(call) = &answer.call {
        let mut first = tool_call(call, "");
        insert(&mut first, "index", json!(0));
        push(0, json!({"tool_calls": [first]}), None, None);
        for part in halves(&call.arguments.to_string()) {
            push(0, json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}), None, None);
        }
    }
    for index in 0..answer.texts.len() {
        push(index, json!({}), None, Some(finish_reason(answer.stop)));
    }
    stream.end(events, answer)
}

/// The document of `/v1/completions`.
pub(super) fn completions(asked: &Asked, answer: &Answer) -> Value {
    let choices: Vec<Value> = answer
        .texts
        .iter()
        .enumerate()
        .map(|(index, pieces)| {
            json!({
                "text": pieces.concat(),
                "index": index,
                "logprobs": asked.count("logprobs", 5).map(|_| text_logprobs(pieces, 0)),
                "finish_reason": finish_reason(answer.stop),
            })
        })
        .collect();
    json!({
        "id": asked.id("cmpl-"),
        "object": "text_completion",
        "created": unix_seconds(),
        "model": asked.model,
        "choices": choices,
        "usage": usage(answer),
        "system_fingerprint": "fp_simulated",
    })
}

/// The events of `/v1/completions`.
pub(super) fn completions_events(asked: &Asked, answer: &Answer) -> Vec<Bytes> {
    let stream = Stream::new(asked, "cmpl-", "text_completion");
    let mut events = Vec::new();
    for (index, pieces) in answer.texts.iter().enumerate() {
        let mut offset = 0;
        for piece in pieces {
            let logprobs =
                asked.count("logprobs", 5).map(|_| text_logprobs(std::slice::from_ref(piece), offset));
            offset += piece.chars().count();
            events.push(stream.chunk(
                &json!([{"text": piece, "index": index, "logprobs": logprobs, "finish_reason": null}]),
            ));
        }
        events.push(stream.chunk(
            &json!([{"text": "", "index": index, "logprobs": null, "finish_reason": finish_reason(answer.stop)}]),
        ));
    }
    stream.end(events, answer)
}

/// The body of an error.
pub(super) fn error(kind: &str, message: &str, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// What all chunks of one stream share.
struct Stream {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    usage: bool,
}

impl Stream {
    fn new(asked: &Asked, prefix: &str, object: &'static str) -> Self {
        let options = asked.body.get("stream_options");
        let usage = options.and_then(|options| options.get("include_usage")?.as_bool()).unwrap_or_default();
        Self { id: asked.id(prefix), object, created: unix_seconds(), model: asked.model.clone(), usage }
    }

    fn value(&self, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
            "choices": choices,
        })
    }

    fn chunk(&self, choices: &Value) -> Bytes {
        let mut value = self.value(choices);
        if self.usage {
            insert(&mut value, "usage", Value::Null);
        }
        data(&value)
    }

    fn end(&self, mut events: Vec<Bytes>, answer: &Answer) -> Vec<Bytes> {
        if self.usage {
            let mut value = self.value(&json!([]));
            insert(&mut value, "usage", usage(answer));
            events.push(data(&value));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }
}

/// One unnamed event.
pub(super) fn data(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

/// A text in two parts, cut at a character.
pub(super) fn halves(text: &str) -> Vec<String> {
    let middle = text.chars().count() / 2;
    let parts = [text.chars().take(middle).collect::<String>(), text.chars().skip(middle).collect()];
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

fn insert(value: &mut Value, name: &str, member: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(name.to_owned(), member);
    }
}

fn tool_call(call: &Call, arguments: &str) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}

fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Refusal => "stop",
        Stop::Length => "length",
        Stop::Filter => "content_filter",
        Stop::ToolCall => "tool_calls",
    }
}

fn usage(answer: &Answer) -> Value {
    json!({
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": answer.reasoning.len(), "audio_tokens": 0},
    })
}

fn logprobs(pieces: &[String]) -> Value {
    let content: Vec<Value> = pieces.iter().map(|piece| logprob_object(piece)).collect();
    json!({"content": content, "refusal": null})
}

/// The older form of `/v1/completions`; `offset` counts the characters before these pieces.
fn text_logprobs(pieces: &[String], offset: usize) -> Value {
    let offsets: Vec<usize> = pieces
        .iter()
        .scan(offset, |at, piece| {
            let here = *at;
            *at += piece.chars().count();
            Some(here)
        })
        .collect();
    let probabilities: Vec<f64> = pieces.iter().map(|piece| logprob(piece)).collect();
    let top: Vec<Value> = pieces.iter().map(|piece| json!({piece.as_str(): logprob(piece)})).collect();
    json!({"tokens": pieces, "token_logprobs": probabilities, "top_logprobs": top, "text_offset": offsets})
}
