//! `/v1/messages` (<https://docs.anthropic.com/en/api/messages>) and its events
//! (<https://docs.anthropic.com/en/docs/build-with-claude/streaming>).

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Stop};
use super::openai::halves;

/// The document of `/v1/messages`.
pub(super) fn document(asked: &Asked, answer: &Answer) -> Value {
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        content.push(json!({
            "type": "thinking",
            "thinking": answer.reasoning.concat(),
            "signature": signature(asked),
        }));
    }
    let text = text(answer).concat();
    if let Some(call) = &answer.call {
        content.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}));
    } else if !text.is_empty() {
        content.push(json!({"type": "text", "text": text}));
    }
    message(asked, &json!(content), Some(stop_reason(answer.stop)), answer.input_tokens, answer.output_tokens)
}

/// The events of `/v1/messages`.
pub(super) fn events(asked: &Asked, answer: &Answer) -> Vec<Bytes> {
    let start = message(asked, &json!([]), None, answer.input_tokens, 1);
    let mut events =
        vec![event(&json!({"type": "message_start", "message": start})), event(&json!({"type": "ping"}))];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>| {
        events.push(event(&json!({"type": "content_block_start", "index": index, "content_block": start})));
        for delta in deltas {
            events.push(event(&json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        events.push(event(&json!({"type": "content_block_stop", "index": index})));
        index += 1;
    };
    if !answer.reasoning.is_empty() {
        let thinking = |piece: &String| json!({"type": "thinking_delta", "thinking": piece});
        let signature = json!({"type": "signature_delta", "signature": signature(asked)});
        let deltas = answer.reasoning.iter().map(thinking).chain([signature]).collect();
        block(json!({"type": "thinking", "thinking": "", "signature": ""}), deltas);
    }
    if let Some(call) = &answer.call {
        let parts = halves(&call.arguments.to_string());
        let deltas = [String::new()]
            .iter()
            .chain(&parts)
            .map(|part| json!({"type": "input_json_delta", "partial_json": part}))
            .collect();
        block(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}), deltas);
    } else if !text(answer).is_empty() {
        let deltas = text(answer).iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect();
        block(json!({"type": "text", "text": ""}), deltas);
    }
    events.push(event(&json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(answer.stop), "stop_sequence": null},
        "usage": {"output_tokens": answer.output_tokens},
    })));
    events.push(event(&json!({"type": "message_stop"})));
    events
}

/// The body of an error, and the data of an error event.
pub(super) fn error(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

/// The event named by its data's `type`.
pub(super) fn event(data: &Value) -> Bytes {
    let name = data.get("type").and_then(Value::as_str).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

fn message(asked: &Asked, content: &Value, stop: Option<&str>, input: usize, output: usize) -> Value {
    json!({
        "id": asked.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": null,
        "usage": {
            "input_tokens": input,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output,
            "service_tier": "standard",
        },
    })
}

fn text(answer: &Answer) -> &[String] {
    answer.texts.first().map(Vec::as_slice).unwrap_or_default()
}

fn signature(asked: &Asked) -> String {
    format!("simulated{}", asked.digest)
}

fn stop_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::Length => "max_tokens",
        Stop::Filter | Stop::Refusal => "refusal",
        Stop::ToolCall => "tool_use",
    }
}
