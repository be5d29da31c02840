//! Folds the events of a stream into the message that Anthropic would have answered unstreamed, as its official
//! clients do (`accumulate_event` in the Python one's `lib/streaming/_messages.py`), but with each value as
//! upstream wrote it, and refusing what cannot be folded faithfully.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::is_tool_use;
use crate::dialect::Unstorable;
use crate::dialect::fold::{Folded, parse};
use crate::dialect::members::entries;
use crate::dialect::sse::events;

/// An event's `data`, as far as any kind of event has it.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "type")]
    kind: String,
    index: Option<usize>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    context_management: Option<&'a RawValue>,
}

/// A delta of a content block.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    signature: Option<&'a RawValue>,
    #[serde(borrow)]
    citation: Option<&'a RawValue>,
    partial_json: Option<String>,
}

/// A message on its way.
#[derive(Default)]
struct Message<'a> {
    started: Option<Folded<'a>>,
    blocks: Vec<Block<'a>>,
    stopped: bool,
}

/// A content block on its way.
struct Block<'a> {
    kind: String,
    members: Folded<'a>,
    /// A tool's input, as text that makes JSON when it is whole.
    input: String,
    open: bool,
}

/// Folds the bytes of a whole stream.
pub(super) fn fold(body: &Bytes) -> Result<Bytes, Unstorable> {
    let all: Vec<_> = events(body).collect();
    let mut message = Message::default();
    for event in &all {
        let data = std::str::from_utf8(&event.data).map_err(|_| unexpected("an event that is not UTF-8"))?;
        // Servers that imitate Anthropic's API may end as OpenAI's does.
        if event.name == "ping" || data == "[DONE]" {
            continue;
        }
        if event.name == "error" {
            return Err(Unstorable::Error);
        }
        message.take(&parse(data)?)?;
    }
    message.finish()
}

impl<'a> Message<'a> {
    fn take(&mut self, event: &Data<'a>) -> Result<(), Unstorable> {
        match event.kind.as_str() {
            "ping" => Ok(()),
            "error" => Err(Unstorable::Error),
            _ if self.stopped => Err(unexpected("an event after the last one")),
            "message_start" if self.started.is_none() => {
                self.started = Some(Folded::of(required(event.message)?)?);
                Ok(())
            }
            "content_block_start" => self.start_block(event.index, required(event.content_block)?),
            "content_block_delta" => self.block(event.index)?.take(parse(required(event.delta)?)?),
            "content_block_stop" => {
                let block = self.block(event.index)?;
                block.open = false;
                block.close()
            }
            "message_delta" => self.update(event),
            "message_stop" => {
                self.stopped = true;
                Ok(())
            }
            // Whatever an event of a new kind says would be missing from the replay.
            _ => Err(unexpected("an event of a kind not known here, or out of order")),
        }
    }

    fn start_block(&mut self, index: Option<usize>, raw: &'a str) -> Result<(), Unstorable> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }
        if index != Some(self.blocks.len()) {
            return Err(unexpected("a content block out of order"));
        }
        let kind = parse::<Kind>(raw)?.kind;
        self.blocks.push(Block { kind, members: Folded::of(raw)?, input: String::new(), open: true });
        Ok(())
    }

    /// The open block of this index.
    fn block(&mut self, index: Option<usize>) -> Result<&mut Block<'a>, Unstorable> {
        index
            .and_then(|index| self.blocks.get_mut(index))
            .filter(|block| block.open)
            .ok_or_else(|| unexpected("an event of a content block that is not open"))
    }

    /// Takes a `message_delta`: why the message stopped, and the tokens so far.
    fn update(&mut self, event: &Data<'a>) -> Result<(), Unstorable> {
        let message = self.started.as_mut().ok_or_else(|| unexpected("an event before the first one"))?;
        overlay(message, required(event.delta)?)?;
        if let Some(usage) = event.usage {
            overlay(message.object("usage")?, usage.get())?;
        }
        if let Some(management) = event.context_management {
            message.set("context_management", management.get())?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Bytes, Unstorable> {
        let (Some(mut message), true) = (self.started, self.stopped) else {
            return Err(Unstorable::Truncated);
        };
        if self.blocks.iter().any(|block| block.open) {
            return Err(Unstorable::Truncated);
        }
        let mut content = String::from("[");
        for (at, block) in self.blocks.iter().enumerate() {
            if at > 0 {
                content.push(',');
            }
            block.members.write(&mut content);
        }
        content.push(']');
        message.set("content", content)?;
        let mut document = String::new();
        message.write(&mut document);
        Ok(Bytes::from(document))
    }
}

impl<'a> Block<'a> {
    fn take(&mut self, delta: Delta<'a>) -> Result<(), Unstorable> {
        match (delta.kind.as_str(), self.kind.as_str()) {
            ("text_delta", "text") => self.members.push_text("text", required(delta.text)?),
            ("citations_delta", "text") => self.members.push_item("citations", required(delta.citation)?),
            ("thinking_delta", "thinking") => self.members.push_text("thinking", required(delta.thinking)?),
            ("signature_delta", "thinking") => self.members.set("signature", required(delta.signature)?),
            ("input_json_delta", kind) if is_tool_use(kind) => {
                self.input.push_str(&delta.partial_json.ok_or_else(incomplete)?);
                Ok(())
            }
            _ => Err(unexpected("a delta that does not belong to its block")),
        }
    }

    fn close(&mut self) -> Result<(), Unstorable> {
        let input = std::mem::take(&mut self.input);
        if input.trim().is_empty() {
            return Ok(());
        }
        parse::<&RawValue>(&input)?;
        self.members.set("input", input)
    }
}

/// Sets the members of `raw`; a `null` does not displace a value.
fn overlay<'a>(object: &mut Folded<'a>, raw: &'a str) -> Result<(), Unstorable> {
    for (name, value) in entries(raw).ok_or_else(incomplete)? {
        if value != "null" || !object.has(&name) {
            object.set(name, value)?;
        }
    }
    Ok(())
}

fn required(raw: Option<&RawValue>) -> Result<&str, Unstorable> {
    raw.map(RawValue::get).ok_or_else(incomplete)
}

fn incomplete() -> Unstorable {
    Unstorable::Malformed("an event without what its kind requires".to_owned())
}

fn unexpected(what: &str) -> Unstorable {
    Unstorable::Malformed(what.to_owned())
}
