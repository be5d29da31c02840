//! Gathers a reply of `/api/generate` or `/api/chat`: one document, or a stream of them folded into what
//! Ollama would have answered unstreamed (`writeChatResponse` and `GenerateHandler` in its `server/routes.go`).

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Shape;
use crate::dialect::fold::{Folded, parse};
use crate::dialect::members::entries;
use crate::dialect::ndjson::lines;
use crate::dialect::{Form, Reply, Unstorable, Usage};

/// Gathers a reply from a whole body.
pub(super) fn gather(shape: Shape, form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    match form {
        Form::Json => judge(shape, body.clone()),
        Form::Ndjson => judge(shape, fold(shape, body)?),
        Form::Sse { .. } => Err(Unstorable::Malformed("server-sent events from Ollama's own API".to_owned())),
    }
}

/// What decides about a reply.
#[derive(Deserialize)]
struct Document {
    error: Option<IgnoredAny>,
    done: Option<bool>,
    done_reason: Option<String>,
    message: Option<Content>,
    response: Option<String>,
    tool_calls: Option<Vec<IgnoredAny>>,
    /// For its shape alone: a stream must be able to bring it in parts.
    #[serde(rename = "logprobs")]
    _logprobs: Option<Vec<IgnoredAny>>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Content {
    content: Option<String>,
    tool_calls: Option<Vec<IgnoredAny>>,
}

/// Decides whether a document may be stored, and describes it.
fn judge(shape: Shape, document: Bytes) -> Result<Reply, Unstorable> {
    let read: Document = serde_json::from_slice(&document).map_err(|error| Unstorable::malformed(&error))?;
    if read.error.is_some() {
        return Err(Unstorable::Error);
    }
    if read.done != Some(true) {
        return Err(Unstorable::Truncated);
    }
    match read.done_reason.as_deref() {
        // Ollama gave no reason before May 2024.
        None | Some("stop") => {}
        Some("load" | "unload") => return Err(Unstorable::Empty),
        Some("length") => return Err(Unstorable::Incomplete("length".to_owned())),
        Some(_) => return Err(Unstorable::Incomplete("for a reason not known here".to_owned())),
    }
    let (text, calls) = match shape {
        Shape::Generate => (read.response, read.tool_calls),
        Shape::Chat => read.message.map(|message| (message.content, message.tool_calls)).unwrap_or_default(),
    };
    let text = text.unwrap_or_default();
    let tool_calls = calls.is_some_and(|calls| !calls.is_empty());
    // Thinking alone answers nothing.
    if text.trim().is_empty() && !tool_calls {
        return Err(Unstorable::Empty);
    }
    // Ollama leaves a count of zero out.
    let usage = (read.prompt_eval_count.is_some() || read.eval_count.is_some()).then(|| Usage {
        input: read.prompt_eval_count.unwrap_or_default(),
        output: read.eval_count.unwrap_or_default(),
        ..Usage::default()
    });
    Ok(Reply { document, text, tool_calls, usage })
}

/// Folds a stream into one document: texts joined, lists joined, of all else the last value.
fn fold(shape: Shape, body: &Bytes) -> Result<Bytes, Unstorable> {
    let mut whole = Folded::default();
    let mut done = false;
    for line in lines(body) {
        let members = std::str::from_utf8(line.bytes).ok().and_then(entries).ok_or_else(|| {
            if line.ended {
                Unstorable::Malformed("a line that is no object".to_owned())
            } else {
                Unstorable::Truncated
            }
        })?;
        if members.iter().any(|(name, raw)| name == "error" && *raw != "null") {
            return Err(Unstorable::Error);
        }
        if done {
            return Err(Unstorable::Malformed("a line after the last one".to_owned()));
        }
        for (name, raw) in members {
            match name.as_str() {
                "message" if shape == Shape::Chat => fold_message(&mut whole, raw)?,
                "response" | "thinking" if shape == Shape::Generate => whole.push_text(name, raw)?,
                "tool_calls" if shape == Shape::Generate => whole.push_items(name, raw)?,
                "logprobs" => whole.push_items(name, raw)?,
                "done" => {
                    done = parse::<Option<bool>>(raw)?.unwrap_or(false);
                    whole.set(name, raw)?;
                }
                _ => whole.set(name, raw)?,
            }
        }
    }
    if !done {
        return Err(Unstorable::Truncated);
    }
    let mut document = String::new();
    whole.write(&mut document);
    Ok(Bytes::from(document))
}

fn fold_message<'a>(whole: &mut Folded<'a>, raw: &'a str) -> Result<(), Unstorable> {
    if raw == "null" {
        return Ok(());
    }
    let members =
        entries(raw).ok_or_else(|| Unstorable::Malformed("a message that is no object".to_owned()))?;
    let message = whole.object("message")?;
    for (name, raw) in members {
        match name.as_str() {
            "content" | "thinking" => message.push_text(name, raw)?,
            "tool_calls" => message.push_items(name, raw)?,
            _ => message.set(name, raw)?,
        }
    }
    Ok(())
}
