//! Gathers a reply of `/v1/messages`: one message, or a stream of events folded into it.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{is_tool_result, is_tool_use, stream};
use crate::dialect::{Form, Reply, Unstorable, Usage};

/// Gathers a reply from a whole body.
pub(super) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    match form {
        Form::Json => judge(body.clone()),
        Form::Sse { .. } => judge(stream::fold(body)?),
        Form::Ndjson => Err(Unstorable::Malformed("lines where events belong".to_owned())),
    }
}

/// What decides about a reply.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: Option<String>,
    error: Option<IgnoredAny>,
    content: Option<Vec<Block>>,
    stop_reason: Option<String>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(rename = "input_tokens")]
    input: Option<u64>,
    #[serde(rename = "output_tokens")]
    output: Option<u64>,
    /// Tokens of the prompt that are not among `input_tokens`.
    #[serde(rename = "cache_creation_input_tokens")]
    cache_creation: Option<u64>,
    #[serde(rename = "cache_read_input_tokens")]
    cache_read: Option<u64>,
}

impl Tokens {
    /// `None` where upstream did not count both ways.
    fn usage(&self) -> Option<Usage> {
        let cached = self.cache_read.unwrap_or_default();
        let written = self.cache_creation.unwrap_or_default();
        Some(Usage {
            input: self.input?.saturating_add(cached).saturating_add(written),
            output: self.output?,
            cached,
            reasoning: 0,
        })
    }
}

/// Decides whether a message may be stored, and describes it.
fn judge(document: Bytes) -> Result<Reply, Unstorable> {
    let message: Message =
        serde_json::from_slice(&document).map_err(|error| Unstorable::malformed(&error))?;
    if message.error.is_some() || message.kind.as_deref() == Some("error") {
        return Err(Unstorable::Error);
    }
    match message.stop_reason.as_deref() {
        Some("end_turn" | "stop_sequence" | "tool_use") => {}
        None => return Err(Unstorable::Truncated),
        Some(known @ ("max_tokens" | "refusal" | "pause_turn" | "model_context_window_exceeded")) => {
            return Err(Unstorable::Incomplete(known.to_owned()));
        }
        Some(_) => return Err(Unstorable::Incomplete("for a reason not known here".to_owned())),
    }
    let blocks =
        message.content.ok_or_else(|| Unstorable::Malformed("a message without content".to_owned()))?;
    if !blocks.iter().all(|block| is_known(&block.kind)) {
        return Err(Unstorable::Malformed("a content block of a kind not known here".to_owned()));
    }
    let tool_calls = blocks.iter().any(|block| is_tool_use(&block.kind));
    let text: String =
        blocks.into_iter().filter(|block| block.kind == "text").filter_map(|block| block.text).collect();
    // Thinking alone answers nothing.
    if text.trim().is_empty() && !tool_calls {
        return Err(Unstorable::Empty);
    }
    let usage = message.usage.and_then(|tokens| tokens.usage());
    Ok(Reply { document, text, tool_calls, usage })
}

/// Whether a replay of such a block says what upstream's own stream would say. Beta kinds (`compaction`,
/// `fallback`) change more of the message than their own block.
fn is_known(kind: &str) -> bool {
    matches!(kind, "text" | "thinking" | "redacted_thinking" | "container_upload")
        || is_tool_use(kind)
        || is_tool_result(kind)
}
