//! A reply laid out once, with slots for what differs at each replay: a fresh id, the time, the caller's own
//! values of echoed fields.
//!
//! The dialects build a [`Template`] with a [`Writer`]; `proxy` keeps it as long as it is asked for, and renders it.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::{Echo, ReplayError};
use crate::decimal::digits;

/// A place in a reply that is filled anew at each replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// A JSON string: a fresh id in the shape of the stored one, the same wherever it stands in one replay.
    Id,
    /// A JSON number: now, in whole seconds since the Unix epoch.
    Created,
    /// A JSON string: now, as RFC 3339 with nanoseconds in UTC.
    CreatedAt,
    /// The caller's own value of a field: the number that [`Writer::echo`] gave it.
    Echo(usize),
}

/// A reply in one form, ready to be rendered again and again.
#[derive(Debug, Clone, Default)]
pub struct Template {
    pieces: Vec<Piece>,
    id: Id,
    /// The echoed fields: name, and the value for a caller that gave none.
    echoed: Vec<(&'static str, Value)>,
    length: usize,
}

/// The shape of a reply's id.
#[derive(Debug, Clone, Default)]
struct Id {
    /// What all of them begin with (`chatcmpl-`, `msg_`, …), as JSON, behind the quote that comes first.
    prefix: Vec<u8>,
    /// How many random characters follow.
    random: usize,
}

#[derive(Debug, Clone)]
enum Piece {
    Bytes(Bytes),
    /// A slot, and how many bytes it is likely to take.
    Slot(Slot, usize),
}

impl Piece {
    fn filled(&self) -> usize {
        if let Self::Slot(_, length) = self { *length } else { 0 }
    }
}

impl Template {
    /// The bytes of one replay. `now` fills the time slots.
    pub fn render(&self, echo: &Echo, now: SystemTime) -> Bytes {
        if let [Piece::Bytes(whole)] = self.pieces.as_slice() {
            return whole.clone();
        }
        // As much as it takes, as a rule: what fits exactly is handed on as it is.
        let mut out = Vec::with_capacity(self.length + self.pieces.iter().map(Piece::filled).sum::<usize>());
        let mut id: Option<Range<usize>> = None;
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Slot(Slot::Id, _) => {
                    if let Some(id) = &id {
                        out.extend_from_within(id.clone());
                    } else {
                        let from = out.len();
                        self.id.put(&mut out);
                        id = Some(from..out.len());
                    }
                }
                Piece::Slot(Slot::Created, _) => {
                    out.extend_from_slice(digits(unix(now).as_secs(), &mut [0; 20]));
                }
                Piece::Slot(Slot::CreatedAt, _) => put_json(&mut out, &rfc3339(now)),
                Piece::Slot(Slot::Echo(number), _) => {
                    if let Some((name, fallback)) = self.echoed.get(*number) {
                        put_json(&mut out, echo.get(name).unwrap_or(fallback));
                    }
                }
            }
        }
        out.into()
    }

    /// How many bytes a template keeps in memory, nearly.
    pub fn weight(&self) -> usize {
        self.length + self.pieces.len() * size_of::<Piece>() + self.id.length()
    }
}

fn put_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing plain values to memory fails only where a map's key is no string, and here none is.
    let _ = serde_json::to_writer(out, value);
}

/// How many times as long as its document a reply may be laid out, and how many bytes more. A stream repeats a reply's
/// head with each of its parts; without a bound an entry with a long one, and many parts, would grow a thousandfold.
const MOST_GROWTH: usize = 16;
const ROOM: usize = 16 * 1024;

/// Builds a [`Template`].
#[derive(Debug)]
pub struct Writer {
    template: Template,
    text: BytesMut,
    /// How many bytes may still come; `None` where there were more.
    room: Option<usize>,
}

/// Marks a slot inside a `serde_json::Value`: random per process, so no reply's content can hold it.
static MARK: LazyLock<String> = LazyLock::new(|| {
    let mut random = [0u8; 16];
    // Without a random source the mark is the same in every process, which only someone who reads this line
    // and the process's failing random source together could use.
    let _ = getrandom::fill(&mut random);
    random.iter().fold(String::from("slot-"), |mut mark, byte| {
        let _ = write!(mark, "{byte:02x}");
        mark
    })
});

impl Writer {
    /// A writer for replays of a stored document, whose id is `stored_id`; empty where it has none.
    pub fn new(stored_id: &str, document: &[u8]) -> Self {
        let template = Template { id: Id::like(stored_id), ..Template::default() };
        let room = document.len().saturating_mul(MOST_GROWTH).saturating_add(ROOM);
        Self { template, text: BytesMut::new(), room: Some(room) }
    }

    /// Whether there is room for so many bytes more.
    fn has_room(&mut self, length: usize) -> bool {
        self.room = self.room.and_then(|room| room.checked_sub(length));
        self.room.is_some()
    }

    /// A value that stands for a slot inside a document given to [`Writer::json`].
    pub fn mark(slot: Slot) -> Value {
        Value::String(match slot {
            Slot::Id => format!("{}i", *MARK),
            Slot::Created => format!("{}c", *MARK),
            Slot::CreatedAt => format!("{}a", *MARK),
            Slot::Echo(number) => format!("{}e{number}", *MARK),
        })
    }

    /// A slot for the caller's own value of `name`, with the value to show for a caller that gave none.
    pub fn echo(&mut self, name: &'static str, fallback: Value) -> Value {
        self.template.echoed.push((name, fallback));
        Self::mark(Slot::Echo(self.template.echoed.len() - 1))
    }

    /// Appends text as it is.
    pub fn raw(&mut self, text: &str) {
        if self.has_room(text.len()) {
            self.text.extend_from_slice(text.as_bytes());
        }
    }

    /// Appends part of a stored document without a copy.
    pub fn shared(&mut self, bytes: Bytes) {
        self.flush();
        if !bytes.is_empty() && self.has_room(bytes.len()) {
            self.template.length += bytes.len();
            self.template.pieces.push(Piece::Bytes(bytes));
        }
    }

    /// Appends a slot.
    pub fn slot(&mut self, slot: Slot) {
        self.flush();
        let likely = match slot {
            Slot::Id => self.template.id.length(),
            Slot::Created => 10,
            Slot::CreatedAt => 32,
            Slot::Echo(number) => {
                self.template.echoed.get(number).map_or(0, |(_, fallback)| fallback.to_string().len())
            }
        };
        if self.has_room(likely) {
            self.template.pieces.push(Piece::Slot(slot, likely));
        }
    }

    /// Appends a document, its marks turned into slots.
    pub fn json(&mut self, value: &Value) {
        let text = value.to_string();
        let mark = format!("\"{}", *MARK);
        let mut parts = text.split(&mark);
        self.raw(parts.next().unwrap_or_default());
        for part in parts {
            let (mark, rest) = part.split_once('"').unwrap_or((part, ""));
            if let Some(slot) = read_mark(mark) {
                self.slot(slot);
            }
            self.raw(rest);
        }
    }

    /// The template.
    ///
    /// # Errors
    /// It would be many times as long as its document.
    pub fn finish(mut self) -> Result<Template, ReplayError> {
        self.flush();
        match self.room {
            Some(_) => Ok(self.template),
            None => Err(ReplayError(format!("laid out it would be over {MOST_GROWTH} times as long"))),
        }
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            let bytes = self.text.split().freeze();
            self.template.length += bytes.len();
            self.template.pieces.push(Piece::Bytes(bytes));
        }
    }
}

fn read_mark(mark: &str) -> Option<Slot> {
    match mark {
        "i" => Some(Slot::Id),
        "c" => Some(Slot::Created),
        "a" => Some(Slot::CreatedAt),
        echo => echo.strip_prefix('e')?.parse().ok().map(Slot::Echo),
    }
}

impl Id {
    /// The shape of a stored one.
    fn like(stored: &str) -> Self {
        let prefix = stored.rfind(['-', '_']).map_or("", |at| stored.get(..=at).unwrap_or_default());
        let mut quoted = Vec::new();
        put_json(&mut quoted, prefix);
        quoted.pop();
        Self { prefix: quoted, random: stored.len() - prefix.len() }
    }

    /// How many bytes one takes.
    fn length(&self) -> usize {
        self.prefix.len() + self.random + 1
    }

    /// Writes one: random letters and digits behind the prefix. Ids need not be secret, so no system call is made for each.
    fn put(&self, out: &mut Vec<u8>) {
        const CHARACTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        out.extend_from_slice(&self.prefix);
        let mut left = self.random;
        while left > 0 {
            let random = fastrand::u64(..).to_le_bytes();
            // A byte's share of the characters: each comes up four or five times in 256.
            let characters = random.map(|byte| {
                CHARACTERS.get(usize::from(byte) * CHARACTERS.len() / 256).copied().unwrap_or(b'0')
            });
            let taken = left.min(characters.len());
            out.extend_from_slice(characters.get(..taken).unwrap_or_default());
            left -= taken;
        }
        out.push(b'"');
    }
}

fn unix(now: SystemTime) -> Duration {
    // A clock before 1970 reads as 1970 rather than failing a reply.
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// RFC 3339 in UTC with nanoseconds, as Ollama writes it.
pub fn rfc3339(now: SystemTime) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + unix(now)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn slots_are_filled_anew_and_content_is_kept() {
        let mut writer = Writer::new("chatcmpl-abcdefgh", &[]);
        let user = writer.echo("user", Value::Null);
        let text = "a \" quote, slot-, \u{0}";
        writer.raw("data: ");
        writer.json(&json!({"id": Writer::mark(Slot::Id), "created": Writer::mark(Slot::Created),
            "at": Writer::mark(Slot::CreatedAt), "user": user, "text": text, "again": Writer::mark(Slot::Id)}));
        let template = writer.finish().unwrap();
        let now = UNIX_EPOCH + Duration::from_millis(1_500);
        let first = template.render(&Echo::default(), now);
        let value: Value = serde_json::from_slice(first.strip_prefix(b"data: ").unwrap()).unwrap();
        assert_eq!(value["created"], 1);
        assert_eq!(value["at"], "1970-01-01T00:00:01.500000000Z");
        assert_eq!(value["user"], Value::Null);
        assert_eq!(value["text"], text);
        assert_eq!(value["id"], value["again"]);
        let id = value["id"].as_str().unwrap();
        assert!(
            id.starts_with("chatcmpl-") && id.len() == "chatcmpl-abcdefgh".len() && id != "chatcmpl-abcdefgh"
        );
        let echo = Echo(vec![("user", json!("me"))]);
        let second: Value =
            serde_json::from_slice(template.render(&echo, now).strip_prefix(b"data: ").unwrap()).unwrap();
        assert_eq!(second["user"], "me");
        assert_ne!(second["id"], value["id"]);
    }
}
