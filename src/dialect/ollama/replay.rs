//! Replays a stored reply of `/api/generate` or `/api/chat`: the document itself, or lines as Ollama streams
//! them (`streamResponse` in its `server/routes.go`).

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;

use super::Shape;
use crate::dialect::fold::{items, parse, quoted};
use crate::dialect::members::{entries, members, one_line, write_with_slots};
use crate::dialect::pieces::pieces;
use crate::dialect::template::{Slot, Template, Writer};
use crate::dialect::{Form, ReplayError};

/// Lays a stored document out in the form asked for.
pub(super) fn replay(shape: Shape, document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    match form {
        Form::Json => whole(document),
        Form::Ndjson => lines(shape, document),
        Form::Sse { .. } => Err(ReplayError("Ollama's own API has no server-sent events".to_owned())),
    }
}

/// The stored bytes with a fresh `created_at`.
fn whole(document: &Bytes) -> Result<Template, ReplayError> {
    let members = std::str::from_utf8(document).ok().and_then(members).ok_or_else(no_object)?;
    let mut writer = Writer::new("", document);
    write_with_slots(document, &members, &mut writer, |name| {
        (name == "created_at").then_some(Slot::CreatedAt)
    });
    writer.finish()
}

/// What a document holds, each value as it stands there.
struct Stored<'a> {
    /// Members that every line repeats: `"model":"…",` and its like.
    head: String,
    /// Whether there is a `created_at` to renew.
    dated: bool,
    /// A message's `role`.
    role: &'a str,
    /// Whatever else a message has besides its content.
    message: Vec<(String, &'a str)>,
    text: String,
    thinking: String,
    tool_calls: Option<&'a str>,
    logprobs: Option<&'a str>,
    /// All the rest: it comes with the last line.
    rest: Vec<(String, &'a str)>,
}

impl<'a> Stored<'a> {
    fn read(shape: Shape, document: &'a str) -> Result<Self, ReplayError> {
        let mut stored = Self {
            head: String::new(),
            dated: false,
            role: "\"assistant\"",
            message: Vec::new(),
            text: String::new(),
            thinking: String::new(),
            tool_calls: None,
            logprobs: None,
            rest: Vec::new(),
        };
        for (name, raw) in entries(document).ok_or_else(no_object)? {
            match name.as_str() {
                "model" | "remote_model" | "remote_host" => {
                    let _ = write!(stored.head, "{}:{raw},", quoted(&name));
                }
                "created_at" => stored.dated = true,
                "logprobs" => stored.logprobs = Some(raw).filter(|raw| *raw != "null"),
                "message" if shape == Shape::Chat => {
                    for (name, raw) in entries(raw).unwrap_or_default() {
                        match stored.content(shape, name, raw)? {
                            Some((name, raw)) if name == "role" => stored.role = raw,
                            Some(other) => stored.message.push(other),
                            None => {}
                        }
                    }
                }
                _ if shape == Shape::Generate => {
                    if let Some(other) = stored.content(shape, name, raw)? {
                        stored.rest.push(other);
                    }
                }
                _ => stored.rest.push((name, raw)),
            }
        }
        Ok(stored)
    }

    /// Takes a member that is content; hands any other back.
    fn content(
        &mut self,
        shape: Shape,
        name: String,
        raw: &'a str,
    ) -> Result<Option<(String, &'a str)>, ReplayError> {
        match name.as_str() {
            _ if name == shape.text() => self.text = text(raw)?,
            "thinking" => self.thinking = text(raw)?,
            "tool_calls" => self.tool_calls = Some(raw).filter(|raw| *raw != "null"),
            _ => return Ok(Some((name, raw))),
        }
        Ok(None)
    }

    /// The log probabilities line by line, where their tokens are the text: a stream has one token a line then.
    fn by_token(&self) -> Option<Vec<(String, &'a str)>> {
        #[derive(Deserialize)]
        struct Token {
            token: String,
        }
        let all = items(self.logprobs?).ok()?;
        let tokens: Vec<_> =
            all.into_iter().map(|raw| Some((parse::<Token>(raw).ok()?.token, raw))).collect::<Option<_>>()?;
        let mut rest = self.text.as_str();
        for (token, _) in &tokens {
            rest = rest.strip_prefix(token.as_str())?;
        }
        rest.is_empty().then_some(tokens)
    }
}

/// The lines of a stream: thinking, content, tool calls, and the last one with all the rest.
fn lines(shape: Shape, document: &Bytes) -> Result<Template, ReplayError> {
    let text = one_line(std::str::from_utf8(document).map_err(|_| no_object())?);
    let stored = Stored::read(shape, &text)?;
    let mut out = Lines { shape, stored: &stored, writer: Writer::new("", document) };
    for piece in pieces(&stored.thinking) {
        out.thinking(piece);
    }
    let by_token = stored.by_token();
    match &by_token {
        Some(tokens) => tokens.iter().for_each(|(token, raw)| out.text(token, Some(raw))),
        None => pieces(&stored.text).for_each(|piece| out.text(piece, None)),
    }
    if let Some(calls) = stored.tool_calls {
        out.tool_calls(calls);
    }
    out.last(stored.logprobs.filter(|_| by_token.is_none()));
    out.writer.finish()
}

/// Writes the lines of one stream.
struct Lines<'a> {
    shape: Shape,
    stored: &'a Stored<'a>,
    writer: Writer,
}

impl Lines<'_> {
    fn thinking(&mut self, piece: &str) {
        self.open("", &format!(",\"thinking\":{}", quoted(piece)));
        self.writer.raw(",\"done\":false}\n");
    }

    fn text(&mut self, piece: &str, logprob: Option<&str>) {
        self.open(piece, "");
        self.writer.raw(",\"done\":false");
        if let Some(raw) = logprob {
            self.writer.raw(&format!(",\"logprobs\":[{raw}]"));
        }
        self.writer.raw("}\n");
    }

    fn tool_calls(&mut self, raw: &str) {
        self.open("", &format!(",\"tool_calls\":{raw}"));
        self.writer.raw(",\"done\":false}\n");
    }

    fn last(&mut self, logprobs: Option<&str>) {
        let mut others = String::new();
        for (name, raw) in &self.stored.message {
            let _ = write!(others, ",{}:{raw}", quoted(name));
        }
        self.open("", &others);
        for (name, raw) in &self.stored.rest {
            self.writer.raw(&format!(",{}:{raw}", quoted(name)));
        }
        if let Some(raw) = logprobs {
            self.writer.raw(&format!(",\"logprobs\":{raw}"));
        }
        self.writer.raw("}\n");
    }

    /// A line's beginning up to and including its content: the text, and what stands beside it.
    fn open(&mut self, text: &str, beside: &str) {
        self.writer.raw("{");
        self.writer.raw(&self.stored.head);
        if self.stored.dated {
            self.writer.raw("\"created_at\":");
            self.writer.slot(Slot::CreatedAt);
            self.writer.raw(",");
        }
        let content = format!("{}:{}{beside}", quoted(self.shape.text()), quoted(text));
        match self.shape {
            Shape::Generate => self.writer.raw(&content),
            Shape::Chat => {
                let role = self.stored.role;
                self.writer.raw(&format!("\"message\":{{\"role\":{role},{content}}}"));
            }
        }
    }
}

/// The text that a value is; `null` is none.
fn text(raw: &str) -> Result<String, ReplayError> {
    let text: Option<String> = parse(raw).map_err(|error| ReplayError(error.to_string()))?;
    Ok(text.unwrap_or_default())
}

fn no_object() -> ReplayError {
    ReplayError("no JSON object".to_owned())
}
