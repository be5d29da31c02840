//! A stored response as the stream of named events that upstream would have sent
//! (<https://platform.openai.com/docs/api-reference/responses-streaming>).
//!
//! Called by `responses`.

use bytes::Bytes;
use memchr::memchr2;
use serde_json::{Map, Value, json};

use super::reply::{self, pieces};
use super::responses::renew;
use crate::dialect::ReplayError;
use crate::dialect::template::{Template, Writer};

/// Lays a stored response out as events.
pub(super) fn replay(document: &Bytes) -> Result<Template, ReplayError> {
    let Value::Object(response) = reply::stored(document)? else {
        return Err(ReplayError("no JSON object".to_owned()));
    };
    let mut events = Events { writer: Writer::new("", document), sequence: 0 };
    for kind in ["response.created", "response.in_progress"] {
        let begun = begun(&mut events.writer, &response);
        events.send(kind, &json!({ "response": begun }));
    }
    let output = response.get("output").and_then(Value::as_array);
    for (index, item) in output.ok_or_else(|| ReplayError("no output".to_owned()))?.iter().enumerate() {
        let item = item.as_object().ok_or_else(|| ReplayError("an item".to_owned()))?;
        let id = item.get("id").and_then(Value::as_str).unwrap_or_default();
        Item { events: &mut events, whole: item, id, index }.send();
    }
    events.completed(document)
}

/// The response before it has any output.
fn begun(writer: &mut Writer, response: &Map<String, Value>) -> Map<String, Value> {
    let before = |(name, value): (&String, &Value)| {
        let value = match name.as_str() {
            "status" => "in_progress".into(),
            "output" => Value::Array(Vec::new()),
            "usage" | "completed_at" => Value::Null,
            name => renew(writer, name, value.is_number()).unwrap_or_else(|| value.clone()),
        };
        (name.clone(), value)
    };
    response.iter().map(before).collect()
}

/// Writes events, each with its number.
struct Events {
    writer: Writer,
    sequence: u64,
}

impl Events {
    fn begin(&mut self, kind: &str) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.writer
            .raw(&format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{sequence}"));
    }

    /// An event with these fields, which are an object.
    fn send(&mut self, kind: &str, fields: &Value) {
        self.begin(kind);
        for (name, value) in fields.as_object().into_iter().flatten() {
            self.writer.raw(&format!(",\"{name}\":"));
            self.writer.json(value);
        }
        self.writer.raw("}\n\n");
    }

    /// The last event, which carries the stored document.
    fn completed(mut self, document: &Bytes) -> Result<Template, ReplayError> {
        self.begin("response.completed");
        self.writer.raw(",\"response\":");
        reply::splice(&mut self.writer, &on_one_line(document), renew)?;
        self.writer.raw("}\n\n");
        self.writer.finish()
    }
}

/// A document without line ends, which would end an event's data. JSON has none within a text, only between
/// its parts, where a blank does as well.
fn on_one_line(document: &Bytes) -> Bytes {
    if memchr2(b'\r', b'\n', document).is_none() {
        return document.clone();
    }
    document.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

/// One item of the output, and the events that bring it.
struct Item<'a> {
    events: &'a mut Events,
    /// The item as stored.
    whole: &'a Map<String, Value>,
    id: &'a str,
    index: usize,
}

/// The members of an item that arrive after it was added, and what they are until then.
fn not_yet(name: &str, value: &Value) -> Option<Value> {
    match (name, value) {
        ("status", _) => Some("in_progress".into()),
        ("content" | "summary", Value::Array(_)) => Some(Value::Array(Vec::new())),
        ("arguments" | "input" | "code", Value::String(_)) => Some("".into()),
        ("result" | "outputs" | "results" | "output" | "encrypted_content", _) => Some(Value::Null),
        _ => None,
    }
}

impl Item<'_> {
    fn send(mut self) {
        let added: Map<_, _> = self
            .whole
            .iter()
            .map(|(name, value)| (name.clone(), not_yet(name, value).unwrap_or_else(|| value.clone())))
            .collect();
        let index = self.index;
        self.events.send("response.output_item.added", &json!({ "output_index": index, "item": added }));
        match self.text("type") {
            "message" | "reasoning" => self.parts(),
            "function_call" => self.streamed("function_call_arguments", "arguments"),
            "custom_tool_call" => self.streamed("custom_tool_call_input", "input"),
            "mcp_call" => {
                self.stage("mcp_call.in_progress");
                self.streamed("mcp_call_arguments", "arguments");
                let failed = self.whole.get("error").is_some_and(|error| !error.is_null());
                self.stage(if failed { "mcp_call.failed" } else { "mcp_call.completed" });
            }
            "code_interpreter_call" => {
                self.stage("code_interpreter_call.in_progress");
                self.streamed("code_interpreter_call_code", "code");
                self.stage("code_interpreter_call.interpreting");
                self.stage("code_interpreter_call.completed");
            }
            "web_search_call" => {
                self.stages([
                    "web_search_call.in_progress",
                    "web_search_call.searching",
                    "web_search_call.completed",
                ]);
            }
            "file_search_call" => self.stages([
                "file_search_call.in_progress",
                "file_search_call.searching",
                "file_search_call.completed",
            ]),
            "image_generation_call" => self.stages([
                "image_generation_call.in_progress",
                "image_generation_call.generating",
                "image_generation_call.completed",
            ]),
            "mcp_list_tools" => self.stages(["mcp_list_tools.in_progress", "mcp_list_tools.completed"]),
            _ => {}
        }
        let item = self.whole;
        self.events.send("response.output_item.done", &json!({ "output_index": index, "item": item }));
    }

    fn text(&self, name: &str) -> &str {
        self.whole.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// An event of this item, with these fields beside its place.
    fn event(&mut self, kind: &str, fields: Value) {
        let mut all = Map::new();
        all.insert("item_id".to_owned(), self.id.into());
        all.insert("output_index".to_owned(), self.index.into());
        if let Value::Object(fields) = fields {
            all.extend(fields);
        }
        self.events.send(&format!("response.{kind}"), &Value::Object(all));
    }

    fn stage(&mut self, kind: &str) {
        self.event(kind, Value::Null);
    }

    fn stages<const N: usize>(&mut self, kinds: [&str; N]) {
        for kind in kinds {
            self.stage(kind);
        }
    }

    /// A text member of the item, in pieces and then whole.
    fn streamed(&mut self, kind: &str, name: &str) {
        let Some(text) = self.whole.get(name).and_then(Value::as_str) else { return };
        for piece in pieces(text) {
            self.event(&format!("{kind}.delta"), json!({ "delta": piece }));
        }
        let mut whole = json!({ name: text });
        if let (Some("function_call"), Some(function), Value::Object(whole)) =
            (self.whole.get("type").and_then(Value::as_str), self.whole.get("name"), &mut whole)
        {
            whole.insert("name".to_owned(), function.clone());
        }
        self.event(&format!("{kind}.done"), whole);
    }

    /// The parts of a message, or of reasoning: of that the summary first.
    fn parts(&mut self) {
        for (member, place) in [("summary", "summary_index"), ("content", "content_index")] {
            let parts = self.whole.get(member).and_then(Value::as_array);
            for (index, part) in parts.into_iter().flatten().enumerate() {
                Part { item: self, whole: part, place, index }.send();
            }
        }
    }
}

/// One part of an item's content or summary.
struct Part<'a, 'b> {
    item: &'a mut Item<'b>,
    /// The part as stored.
    whole: &'a Value,
    /// What the part's index is called.
    place: &'static str,
    index: usize,
}

impl Part<'_, '_> {
    fn send(mut self) {
        let whole = if self.place == "summary_index" { "reasoning_summary_part" } else { "content_part" };
        let mut empty = self.whole.clone();
        for (name, value) in empty.as_object_mut().into_iter().flatten() {
            match value {
                Value::String(text) if name == "text" || name == "refusal" => text.clear(),
                Value::Array(list) if name == "annotations" || name == "logprobs" => list.clear(),
                _ => {}
            }
        }
        self.event(&format!("{whole}.added"), json!({ "part": empty }));
        match self.whole.get("type").and_then(Value::as_str) {
            Some("output_text") => self.output_text(),
            Some("refusal") => self.streamed("refusal", "refusal"),
            Some("summary_text") => self.streamed("reasoning_summary_text", "text"),
            Some("reasoning_text") => self.streamed("reasoning_text", "text"),
            _ => {}
        }
        let part = self.whole;
        self.event(&format!("{whole}.done"), json!({ "part": part }));
    }

    fn event(&mut self, kind: &str, fields: Value) {
        let mut all = Map::new();
        all.insert(self.place.to_owned(), self.index.into());
        if let Value::Object(fields) = fields {
            all.extend(fields);
        }
        self.item.event(kind, Value::Object(all));
    }

    /// A text of the part, in pieces and then whole.
    fn streamed(&mut self, kind: &str, name: &str) {
        let text = self.whole.get(name).and_then(Value::as_str).unwrap_or_default();
        for piece in pieces(text) {
            self.event(&format!("{kind}.delta"), json!({ "delta": piece }));
        }
        self.event(&format!("{kind}.done"), json!({ name: text }));
    }

    /// Text in pieces, or with its log probabilities in one, since only upstream knows which token is which
    /// part of it; then its annotations.
    fn output_text(&mut self) {
        let text = self.whole.get("text").and_then(Value::as_str).unwrap_or_default();
        let logprobs = match self.whole.get("logprobs") {
            Some(Value::Array(list)) => list.as_slice(),
            _ => &[],
        };
        if logprobs.is_empty() {
            for piece in pieces(text) {
                self.event("output_text.delta", json!({ "delta": piece, "logprobs": [] }));
            }
        } else {
            self.event("output_text.delta", json!({ "delta": text, "logprobs": logprobs }));
        }
        let annotations = self.whole.get("annotations").and_then(Value::as_array);
        for (index, annotation) in annotations.into_iter().flatten().enumerate() {
            let fields = json!({ "annotation_index": index, "annotation": annotation });
            self.event("output_text.annotation.added", fields);
        }
        self.event("output_text.done", json!({ "text": text, "logprobs": logprobs }));
    }
}
