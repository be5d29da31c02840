//! Replays a stored message: the document itself, or the named events in which Anthropic streams it
//! (<https://docs.anthropic.com/en/docs/build-with-claude/streaming>).

use std::fmt::Write as _;

use bytes::Bytes;

use super::is_tool_use;
use crate::dialect::fold::{items, parse, quoted};
use crate::dialect::members::{entries, members, one_line, write_with_slots};
use crate::dialect::pieces::pieces;
use crate::dialect::template::{Slot, Template, Writer};
use crate::dialect::{Form, ReplayError};

/// The members of a message that a stream tells at its end, in `message_delta`'s `delta`.
const AT_THE_END: [&str; 4] = ["container", "stop_reason", "stop_sequence", "stop_details"];

/// The members of `usage` that `message_delta` has, cumulative (`MessageDeltaUsage` and its beta form in the
/// official clients). The last four are known at the end alone.
const USAGE_AT_THE_END: [&str; 8] = [
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
    "iterations",
    "fallback_credit",
];

/// Lays a stored message out in the form asked for.
pub(super) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    let text = std::str::from_utf8(document).map_err(|_| no_object())?;
    let members = members(text).ok_or_else(no_object)?;
    let id = members.iter().find(|member| member.name == "id").and_then(|id| text.get(id.value.clone()));
    // An id that is no text stays as it is.
    let id: Option<String> = id.and_then(|raw| parse(raw).ok());
    let mut writer = Writer::new(id.as_deref().unwrap_or_default(), document);
    match form {
        Form::Json => write_with_slots(document, &members, &mut writer, |name| {
            (name == "id" && id.is_some()).then_some(Slot::Id)
        }),
        Form::Sse { .. } => {
            let text = one_line(text);
            events(&mut writer, &entries(&text).ok_or_else(no_object)?, id.is_some())?;
        }
        Form::Ndjson => return Err(ReplayError("messages are not streamed as lines".to_owned())),
    }
    writer.finish()
}

type Members<'a> = [(String, &'a str)];

/// All events of one stream.
fn events(writer: &mut Writer, message: &Members<'_>, has_id: bool) -> Result<(), ReplayError> {
    let usage = find(message, "usage").and_then(entries);
    start(writer, message, usage.as_deref(), has_id);
    let blocks = items(find(message, "content").ok_or_else(no_content)?).map_err(|_| no_content())?;
    for (index, raw) in blocks.into_iter().enumerate() {
        block(writer, index, &entries(raw).ok_or_else(no_content)?)?;
    }
    end(writer, message, usage.as_deref());
    Ok(())
}

/// `message_start`: the message without content, why it stopped, and what its tokens came to.
fn start(writer: &mut Writer, message: &Members<'_>, usage: Option<&Members<'_>>, has_id: bool) {
    writer.raw("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{");
    let mut comma = "";
    for (name, raw) in message.iter().filter(|(name, _)| name != "context_management") {
        writer.raw(comma);
        comma = ",";
        writer.raw(&quoted(name));
        writer.raw(":");
        match name.as_str() {
            "id" if has_id => writer.slot(Slot::Id),
            "content" => writer.raw("[]"),
            "usage" => match usage {
                Some(usage) => writer.raw(&usage_at_start(usage)),
                None => writer.raw(raw),
            },
            _ if AT_THE_END.contains(&name.as_str()) => writer.raw("null"),
            _ => writer.raw(raw),
        }
    }
    writer.raw("}}\n\n");
}

/// The usage of `message_start`: the prompt's tokens, and the one that has been written so far.
fn usage_at_start(usage: &Members<'_>) -> String {
    let members = usage.iter().filter_map(|(name, raw)| match name.as_str() {
        "output_tokens" => Some((name, if matches!(*raw, "0" | "null") { *raw } else { "1" })),
        "output_tokens_details" | "server_tool_use" | "iterations" | "fallback_credit" => None,
        _ => Some((name, *raw)),
    });
    object(members)
}

/// `message_delta` and `message_stop`.
fn end(writer: &mut Writer, message: &Members<'_>, usage: Option<&Members<'_>>) {
    let pick = |members: &Members<'_>, names: &[&str]| {
        object(
            members.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(name, raw)| (name, *raw)),
        )
    };
    let mut data = format!("\"delta\":{}", pick(message, &AT_THE_END));
    if let Some(usage) = usage {
        let _ = write!(data, ",\"usage\":{}", pick(usage, &USAGE_AT_THE_END));
    }
    if let Some(raw) = find(message, "context_management") {
        let _ = write!(data, ",\"context_management\":{raw}");
    }
    event(writer, "message_delta", &data);
    writer.raw("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

/// The events of one content block.
fn block(writer: &mut Writer, index: usize, members: &Members<'_>) -> Result<(), ReplayError> {
    let kind: String = find(members, "type").and_then(|raw| parse(raw).ok()).ok_or_else(no_content)?;
    let parts = match kind.as_str() {
        "text" => text_parts(members),
        "thinking" => thinking_parts(members),
        kind if is_tool_use(kind) => input_parts(members),
        _ => Parts::default(),
    };
    let begun = object(members.iter().map(|(name, raw)| {
        (name, parts.emptied.iter().find(|(emptied, _)| emptied == name).map_or(*raw, |(_, empty)| *empty))
    }));
    event(writer, "content_block_start", &format!("\"index\":{index},\"content_block\":{begun}"));
    for delta in parts.deltas {
        event(writer, "content_block_delta", &format!("\"index\":{index},\"delta\":{delta}"));
    }
    event(writer, "content_block_stop", &format!("\"index\":{index}"));
    Ok(())
}

/// How a content block is told in parts.
#[derive(Default)]
struct Parts {
    /// Members that are empty at the start, and what empty is.
    emptied: Vec<(&'static str, &'static str)>,
    /// What fills them.
    deltas: Vec<String>,
}

fn text_parts(members: &Members<'_>) -> Parts {
    let mut parts = Parts { emptied: vec![("text", "\"\"")], deltas: Vec::new() };
    let text = text_of(members, "text");
    parts.deltas.extend(pieces(&text).map(|piece| delta("text_delta", "text", &quoted(piece))));
    let citations = find(members, "citations").and_then(|raw| items(raw).ok()).unwrap_or_default();
    // A delta must bring something: with one that is nothing, they stay where they are.
    if !citations.is_empty() && !citations.contains(&"null") {
        parts.emptied.push(("citations", "[]"));
        parts.deltas.extend(citations.iter().map(|raw| delta("citations_delta", "citation", raw)));
    }
    parts
}

fn thinking_parts(members: &Members<'_>) -> Parts {
    let mut parts = Parts { emptied: vec![("thinking", "\"\""), ("signature", "\"\"")], deltas: Vec::new() };
    let thinking = text_of(members, "thinking");
    parts.deltas.extend(pieces(&thinking).map(|piece| delta("thinking_delta", "thinking", &quoted(piece))));
    let signature = text_of(members, "signature");
    if !signature.is_empty() {
        parts.deltas.push(delta("signature_delta", "signature", &quoted(&signature)));
    }
    parts
}

/// A tool's input, which streams as text that makes JSON when it is joined. The first part is empty, as in
/// Anthropic's own streams; an empty input has no other.
fn input_parts(members: &Members<'_>) -> Parts {
    let Some((input, fields)) = find(members, "input").and_then(|raw| Some((raw, entries(raw)?))) else {
        return Parts::default();
    };
    let mut deltas = vec![delta("input_json_delta", "partial_json", "\"\"")];
    if !fields.is_empty() {
        deltas.extend(pieces(input).map(|piece| delta("input_json_delta", "partial_json", &quoted(piece))));
    }
    Parts { emptied: vec![("input", "{}")], deltas }
}

fn find<'a>(members: &Members<'a>, wanted: &str) -> Option<&'a str> {
    members.iter().find(|(name, _)| name == wanted).map(|(_, raw)| *raw)
}

/// The text of a member; empty where it has none.
fn text_of(members: &Members<'_>, name: &str) -> String {
    find(members, name).and_then(|raw| parse(raw).ok()).unwrap_or_default()
}

fn delta(kind: &str, name: &str, raw: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"{name}\":{raw}}}")
}

fn event(writer: &mut Writer, name: &str, data: &str) {
    writer.raw(&format!("event: {name}\ndata: {{\"type\":\"{name}\",{data}}}\n\n"));
}

/// An object of these members, in their order.
fn object<'m>(members: impl Iterator<Item = (&'m String, &'m str)>) -> String {
    let all: Vec<_> = members.map(|(name, raw)| format!("{}:{raw}", quoted(name))).collect();
    format!("{{{}}}", all.join(","))
}

fn no_object() -> ReplayError {
    ReplayError("no JSON object".to_owned())
}

fn no_content() -> ReplayError {
    ReplayError("a message without content blocks".to_owned())
}
