//! A stored reply as a stream of chunks, for the two endpoints that have them: each chunk carries the reply's
//! head, one part of one choice, and `"usage": null` where the client asked for the chunk of usage at the end.
//!
//! Called by `chat` and `completions`, which know what the parts of a choice are.

use bytes::Bytes;
use serde_json::Value;

use crate::dialect::ReplayError;
use crate::dialect::template::{Slot, Template, Writer};

/// Writes a stream of chunks.
pub(super) struct Chunks {
    writer: Writer,
    has_id: bool,
    has_created: bool,
    /// `object`, as a member.
    object: String,
    /// What each chunk has from there up to the choices' opening bracket.
    head: String,
    /// What each chunk ends with.
    tail: &'static str,
    /// `usage`, for the chunk at the end.
    usage: Option<String>,
    /// Top-level members of the document that the last chunk with a choice carries, as `,"name":value` each.
    extra: String,
}

/// The members of a document that each of its chunks repeats.
const REPEATED: [&str; 3] = ["model", "service_tier", "system_fingerprint"];

impl Chunks {
    /// A stream of the chunks of a document, as it is stored and as it was read, which call themselves `object`. `usage`: the client asked for it.
    pub(super) fn new(
        stored: &Bytes,
        document: &Value,
        object: &str,
        usage: bool,
    ) -> Result<Self, ReplayError> {
        let members = document.as_object().ok_or_else(|| ReplayError("no JSON object".to_owned()))?;
        let id = members.get("id").and_then(Value::as_str).unwrap_or_default();
        let mut head = String::new();
        let mut extra = String::new();
        for (name, value) in members {
            let member = || format!(",{}:{value}", Value::from(name.as_str()));
            match name.as_str() {
                "id" | "object" | "created" | "choices" | "usage" => {}
                name if REPEATED.contains(&name) => head.push_str(&member()),
                _ => extra.push_str(&member()),
            }
        }
        head.push_str(",\"choices\":[");
        let usage = members.get("usage").filter(|counted| usage && counted.is_object()).map(Value::to_string);
        Ok(Self {
            writer: Writer::new(id, stored),
            has_id: !id.is_empty(),
            has_created: members.get("created").is_some_and(Value::is_number),
            object: format!("\"object\":{}", Value::from(object)),
            head,
            tail: if usage.is_some() { "],\"usage\":null" } else { "]" },
            usage,
            extra,
        })
    }

    fn begin(&mut self) {
        self.writer.raw("data: {");
        if self.has_id {
            self.writer.raw("\"id\":");
            self.writer.slot(Slot::Id);
            self.writer.raw(",");
        }
        self.writer.raw(&self.object);
        if self.has_created {
            self.writer.raw(",\"created\":");
            self.writer.slot(Slot::Created);
        }
        self.writer.raw(&self.head);
    }

    /// A chunk with part of one choice. The last one also carries what the document says of the whole reply.
    pub(super) fn choice(&mut self, choice: &Value, last: bool) {
        self.begin();
        self.writer.raw(&choice.to_string());
        self.writer.raw(self.tail);
        if last {
            self.writer.raw(&self.extra);
        }
        self.writer.raw("}\n\n");
    }

    /// The chunk of usage, if it was asked for and is known, and the end of the stream.
    pub(super) fn finish(mut self) -> Result<Template, ReplayError> {
        if let Some(usage) = self.usage.take() {
            self.begin();
            self.writer.raw("],\"usage\":");
            self.writer.raw(&usage);
            self.writer.raw("}\n\n");
        }
        self.writer.raw("data: [DONE]\n\n");
        self.writer.finish()
    }
}
