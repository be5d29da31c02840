//! `/api/generate`, `/api/chat` and the model lists, as Ollama's API document has them
//! (<https://github.com/ollama/ollama/blob/main/docs/api.md>).

use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Stop, logprob_object};

/// Which of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Generate,
    Chat,
}

/// The models that the server lists.
pub(super) const MODELS: [&str; 2] = ["llama3.2:latest", "nomic-embed-text:latest"];

/// The whole reply as one document.
pub(super) fn document(endpoint: Endpoint, asked: &Asked, answer: &Answer) -> Value {
    let text = answer.texts.first().map(|pieces| pieces.concat()).unwrap_or_default();
    let mut members = content(endpoint, &text, &answer.reasoning.concat(), answer);
    if asked.is_true("logprobs") {
        let pieces = answer.texts.first().map(Vec::as_slice).unwrap_or_default();
        let logprobs = pieces.iter().map(|piece| logprob_object(piece)).collect::<Vec<_>>();
        members.push(("logprobs", json!(logprobs)));
    }
    members.extend(end(endpoint, answer));
    line(asked, true, members)
}

/// The reply's lines.
pub(super) fn lines(endpoint: Endpoint, asked: &Asked, answer: &Answer) -> Vec<Bytes> {
    let nothing = Answer {
        texts: Vec::new(),
        reasoning: Vec::new(),
        call: None,
        stop: answer.stop,
        input_tokens: 0,
        output_tokens: 0,
    };
    let mut lines = Vec::new();
    let mut push = |done, members| lines.push(Bytes::from(format!("{}\n", line(asked, done, members))));
    for piece in &answer.reasoning {
        push(false, content(endpoint, "", piece, &nothing));
    }
    if answer.call.is_some() {
        push(false, content(endpoint, "", "", answer));
    }
    for piece in answer.texts.first().into_iter().flatten() {
        let mut members = content(endpoint, piece, "", &nothing);
        if asked.is_true("logprobs") {
            members.push(("logprobs", json!([logprob_object(piece)])));
        }
        push(false, members);
    }
    let mut members = content(endpoint, "", "", &nothing);
    members.extend(end(endpoint, answer));
    push(true, members);
    lines
}

/// The reply to a request without a prompt, which only loads the model or unloads it.
pub(super) fn load(endpoint: Endpoint, asked: &Asked) -> Value {
    let unload = asked.body.get("keep_alive").is_some_and(|keep| keep == 0 || keep == "0" || keep == "0s");
    let mut members = match endpoint {
        Endpoint::Generate => vec![("response", json!(""))],
        Endpoint::Chat => vec![("message", json!({"role": "assistant", "content": ""}))],
    };
    members.push(("done_reason", json!(if unload { "unload" } else { "load" })));
    line(asked, true, members)
}

/// Whether a request asks for nothing but loading or unloading.
pub(super) fn is_load(endpoint: Endpoint, asked: &Asked) -> bool {
    match endpoint {
        Endpoint::Generate => asked.prompt.is_empty(),
        Endpoint::Chat => asked.body.get("messages").and_then(Value::as_array).is_none_or(Vec::is_empty),
    }
}

/// `/api/tags`
pub(super) fn tags() -> Value {
    let models: Vec<Value> = MODELS
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "model": name,
                "modified_at": "2025-01-01T00:00:00Z",
                "size": 2_019_393_189_u32,
                "digest": blake3::hash(name.as_bytes()).to_hex().as_str(),
                "details": details(),
            })
        })
        .collect();
    json!({"models": models})
}

/// `/api/show`
pub(super) fn show() -> Value {
    json!({
        "license": "simulated",
        "modelfile": "# simulated",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": details(),
        "model_info": {"general.architecture": "simulated", "general.parameter_count": 0},
        "capabilities": ["completion", "tools", "thinking", "embedding"],
        "modified_at": "2025-01-01T00:00:00Z",
    })
}

/// The lines of `/api/pull`.
pub(super) fn pull() -> Vec<Bytes> {
    let statuses = ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"];
    statuses.iter().map(|status| Bytes::from(format!("{}\n", json!({"status": status})))).collect()
}

/// The body of an error, and the line of one mid-stream.
pub(super) fn error(message: &str) -> Value {
    json!({"error": message})
}

fn details() -> Value {
    json!({
        "parent_model": "",
        "format": "simulated",
        "family": "simulated",
        "families": ["simulated"],
        "parameter_size": "0B",
        "quantization_level": "none",
    })
}

type Members = Vec<(&'static str, Value)>;

fn line(asked: &Asked, done: bool, members: Members) -> Value {
    let created = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    let mut line = json!({"model": asked.model, "created_at": created});
    if let Some(object) = line.as_object_mut() {
        for (at, (name, value)) in members.into_iter().enumerate() {
            object.insert(name.to_owned(), value);
            if at == 0 && !object.contains_key("done") {
                // After the text, or after the thinking where that follows.
                object.insert("done".to_owned(), json!(done));
            }
        }
    }
    line
}

fn content(endpoint: Endpoint, text: &str, thinking: &str, answer: &Answer) -> Members {
    let mut members = Vec::new();
    let calls = answer.call.as_ref().map(|call| {
        json!([{"id": call.id, "function": {"index": 0, "name": call.name, "arguments": call.arguments}}])
    });
    match endpoint {
        Endpoint::Generate => {
            members.push(("response", json!(text)));
            if !thinking.is_empty() {
                members.push(("thinking", json!(thinking)));
            }
        }
        Endpoint::Chat => {
            let mut message = json!({"role": "assistant", "content": text});
            if let Some(object) = message.as_object_mut() {
                if !thinking.is_empty() {
                    object.insert("thinking".to_owned(), json!(thinking));
                }
                if let Some(calls) = calls {
                    object.insert("tool_calls".to_owned(), calls);
                }
            }
            members.push(("message", message));
        }
    }
    members
}

fn end(endpoint: Endpoint, answer: &Answer) -> Members {
    let mut members = vec![("done_reason", json!(done_reason(answer.stop)))];
    if endpoint == Endpoint::Generate {
        members.push(("context", json!([128_006, 882, 128_007, 271])));
    }
    members.extend([
        ("total_duration", json!(174_560_334_u64)),
        ("load_duration", json!(101_397_084_u64)),
        ("prompt_eval_count", json!(answer.input_tokens)),
        ("prompt_eval_duration", json!(13_074_791_u64)),
        ("eval_count", json!(answer.output_tokens)),
        ("eval_duration", json!(52_479_709_u64)),
    ]);
    members
}

fn done_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Length => "length",
        // Ollama has no filter; servers that imitate it pass the word on.
        Stop::Filter => "content_filter",
        Stop::End | Stop::Refusal | Stop::ToolCall => "stop",
    }
}
