//! Usage of a stream whose client did not ask for it: the request with `stream_options.include_usage` added, and
//! the reply with the extra taken out again.
//!
//! Called by `proxy`, so that the tokens of a streamed reply are known when it is stored
//! (<https://platform.openai.com/docs/api-reference/chat/create#chat_create-stream_options>).

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::dialect::members::{Member, members};
use crate::dialect::sse::{self, Event, Scanner};

/// The request with usage asked for, every other byte as it was. `None` where it cannot be asked for.
pub(crate) fn ask_for_usage(body: &[u8]) -> Option<Bytes> {
    const ASKED: &str = "{\"include_usage\":true}";
    let text = std::str::from_utf8(body).ok()?;
    let all = members(text)?;
    if all.iter().any(|member| folds_to(member, "stream_options")) {
        return None;
    }
    let Some(options) = all.iter().find(|member| member.name == "stream_options") else {
        let last = all.last()?.value.end;
        return replace(text, last..last, &format!(",\"stream_options\":{ASKED}"));
    };
    let inner = text.get(options.value.clone())?;
    if inner == "null" {
        return replace(text, options.value.clone(), ASKED);
    }
    let inside = members(inner)?;
    if inside.iter().any(|member| folds_to(member, "include_usage")) {
        return None;
    }
    let from = options.value.start;
    if let Some(asked) = inside.iter().find(|member| member.name == "include_usage") {
        return replace(text, from + asked.value.start..from + asked.value.end, "true");
    }
    match inside.last() {
        None => replace(text, options.value.clone(), ASKED),
        Some(last) => {
            let end = from + last.value.end;
            replace(text, end..end, ",\"include_usage\":true")
        }
    }
}

/// Whether a name is another and becomes this one where case is folded, as some servers do: beside it, one that is added
/// would be its repetition.
fn folds_to(member: &Member, name: &str) -> bool {
    let folded = member.name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    member.name != name && folded.eq(name.chars())
}

fn replace(text: &str, range: Range<usize>, with: &str) -> Option<Bytes> {
    Some(Bytes::from([text.get(..range.start)?, with, text.get(range.end..)?].concat()))
}

/// How much of one event is held back while it is not complete. A larger one passes as it is: it is no chunk
/// with nothing but usage in it.
const HELD_LIMIT: usize = 256 * 1024;

/// Takes usage that only the proxy asked for out of a stream, wherever its bytes are cut: the chunk that has
/// nothing else, and the `"usage":null` of all others. Everything else passes byte for byte, held back no longer
/// than until its event is complete.
///
/// A chunk that has both choices and a usage stays as it is: its sender says so unasked.
#[derive(Debug, Default)]
pub struct UsageFilter {
    scanner: Scanner,
    /// The beginning of an event that is not complete.
    held: BytesMut,
    /// Something of the stream was seen, so that no byte order mark can come.
    begun: bool,
    /// The present event is over the limit and passes.
    oversized: bool,
    /// The last event ended with a CR that was the last byte to arrive; whether that event passed. An LF that
    /// comes next is part of it.
    after_cr: Option<bool>,
}

impl UsageFilter {
    /// Takes in what arrived and gives what may pass of it, which can be empty.
    pub fn push(&mut self, mut chunk: Bytes) -> Bytes {
        let mut out = Out::default();
        if let (Some(passed), Some(first)) = (self.after_cr, chunk.first()) {
            self.after_cr = None;
            if *first == b'\n' {
                let line_feed = chunk.split_to(1);
                self.scanner.next_end(&line_feed);
                if passed {
                    out.push(line_feed);
                }
            }
        }
        while let Some(end) = self.scanner.next_end(&chunk) {
            let event = chunk.split_to(end);
            let passed = if std::mem::take(&mut self.oversized) {
                out.push(event);
                true
            } else if self.held.is_empty() {
                self.judge(event, &mut out)
            } else {
                self.held.extend_from_slice(&event);
                let whole = self.held.split().freeze();
                self.judge(whole, &mut out)
            };
            self.begun = true;
            self.after_cr = (chunk.is_empty() && self.scanner.after_cr()).then_some(passed);
        }
        if self.oversized || self.held.len() + chunk.len() > HELD_LIMIT {
            self.oversized = true;
            out.push(self.held.split().freeze());
            out.push(chunk);
        } else {
            self.held.extend_from_slice(&chunk);
        }
        out.into_bytes()
    }

    /// The stream has ended: gives what was still held back.
    pub fn finish(mut self) -> Bytes {
        self.held.split().freeze()
    }

    /// Lets a complete event pass, wholly or in part; whether it did.
    fn judge(&self, event: Bytes, out: &mut Out) -> bool {
        match self.verdict(&event) {
            Verdict::Pass => out.push(event),
            Verdict::Cut(range) => {
                out.push(event.slice(..range.start));
                out.push(event.slice(range.end..));
            }
            Verdict::Drop => return false,
        }
        true
    }

    fn verdict(&self, block: &Bytes) -> Verdict {
        if memmem::find(block, b"\"usage\"").is_none() {
            return Verdict::Pass;
        }
        let bytes = if self.begun { block.as_ref() } else { sse::without_bom(block) };
        let Some(event) = Event::parse(bytes) else { return Verdict::Pass };
        let Ok(data) = std::str::from_utf8(&event.data) else { return Verdict::Pass };
        let Some(all) = members(data) else { return Verdict::Pass };
        let value = |member: &Member| data.get(member.value.clone()).unwrap_or_default();
        let Some(at) = all.iter().position(|member| member.name == "usage") else { return Verdict::Pass };
        let usage = all.get(at).map(value).unwrap_or_default();
        let choices = all.iter().find(|member| member.name == "choices").map(value);
        let no_choices = choices
            .and_then(|list| list.strip_prefix('[')?.strip_suffix(']'))
            .is_some_and(|inner| inner.trim().is_empty());
        if usage != "null" {
            return if no_choices && usage.starts_with('{') { Verdict::Drop } else { Verdict::Pass };
        }
        // The place in the data is a place in the event where the data is one line of it.
        let std::borrow::Cow::Borrowed(line) = event.data else { return Verdict::Pass };
        let offset = line.as_ptr() as usize - block.as_ptr() as usize;
        match without_member(data, &all, at) {
            Some(range) => Verdict::Cut(offset + range.start..offset + range.end),
            None => Verdict::Pass,
        }
    }
}

enum Verdict {
    Pass,
    Drop,
    Cut(Range<usize>),
}

/// What to cut so that one member is gone: from the end of the value before it, or up to the name after it.
fn without_member(document: &str, all: &[Member], at: usize) -> Option<Range<usize>> {
    let end = all.get(at)?.value.end;
    if let Some(before) = at.checked_sub(1) {
        return Some(all.get(before)?.value.end..end);
    }
    let start = document.find('{')? + 1;
    let after = document.get(end..)?.trim_start();
    let comma = usize::from(after.starts_with(','));
    Some(start..document.len() - after.len() + comma)
}

/// What passes: usually one piece, which is then not copied.
#[derive(Default)]
struct Out {
    first: Bytes,
    more: BytesMut,
}

impl Out {
    fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
        } else if self.first.is_empty() {
            self.first = bytes;
        } else {
            if self.more.is_empty() {
                self.more.extend_from_slice(&self.first);
            }
            self.more.extend_from_slice(&bytes);
        }
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}
