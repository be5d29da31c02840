//! The lines of an export: what is written, and what is read back.
//!
//! | line | content |
//! | --- | --- |
//! | first | `rejoinder` (`"export"`), `schema`, `check`: a keyed hash that is the same for the same secret alone |
//! | entry | `key`, `scope` (64 hexadecimal digits each), `endpoint` (its path), `model`, `namespace`, `prompt`, `document` (the reply's JSON document, as a text), `created_at_ms` (since the Unix epoch), `ttl_ms`, `took_ms` (how long upstream took; left out where not known), `poisoned` (left out where false), `embedding` (left out where there is none) |
//! | mark | `cursor`, from which `GET /export` goes on; what stands before it need not be asked for again. `unreadable`: as in the last line, of what stands before it |
//! | last | `end`: how many `entries` there were, and how many were `unreadable` |
//!
//! An embedding has `model` (or none where that is not known), `partition`, and its components: `scale` times the
//! numbers in `components`, four hexadecimal digits each, big-endian, two's complement.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::dialect::Endpoint;
use crate::hexadecimal;
use crate::store::entry::{Entry, Key, Partition, Scope};
use crate::store::transfer::{Home, Kept};

/// The version written, and the only one read.
pub const SCHEMA: u32 = 1;

/// What the first line says that it is.
const EXPORT: &str = "export";

/// The longest reason that is given, in characters: it may quote what it is about.
const REASON: usize = 200;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) rejoinder: String,
    pub(super) schema: u32,
    /// Absent in what another version wrote.
    #[serde(default)]
    pub(super) check: String,
}

/// The last line.
#[derive(Debug, Clone, Copy, Serialize)]
struct Last {
    end: End,
}

/// How many there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Entries given.
    pub entries: u64,
    /// Entries that could not be read: damaged, or stored under another secret.
    pub unreadable: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    scope: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    prompt: Cow<'a, str>,
    #[serde(borrow)]
    document: Cow<'a, str>,
    created_at_ms: u64,
    ttl_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    poisoned: bool,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    embedding: Option<EmbeddingLine<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddingLine<'a> {
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    partition: Cow<'a, str>,
    scale: f32,
    #[serde(borrow)]
    components: Cow<'a, str>,
}

/// What tells the kinds of lines apart.
#[derive(Debug, Deserialize)]
struct Kind {
    rejoinder: Option<IgnoredAny>,
    cursor: Option<IgnoredAny>,
    end: Option<IgnoredAny>,
}

/// What a line says.
#[derive(Debug)]
pub(super) enum Line {
    /// A first line, a mark or a last line: nothing to store.
    Note,
    /// An entry, its reply not read yet.
    Entry(Box<Read>),
}

/// An entry as its line says it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) key: Key,
    pub(super) scope: Scope,
    pub(super) endpoint: Endpoint,
    pub(super) model: String,
    pub(super) namespace: String,
    pub(super) prompt: String,
    pub(super) document: String,
    pub(super) created_at: SystemTime,
    pub(super) ttl: Duration,
    pub(super) took: Option<Duration>,
    pub(super) poisoned: bool,
    pub(super) home: Option<Home>,
}

impl Header {
    pub(super) fn new(check: &[u8; 32]) -> Self {
        Self { rejoinder: EXPORT.to_owned(), schema: SCHEMA, check: hexadecimal::digits(check) }
    }

    /// `None` where the line is no first line of an export.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(line).ok().filter(|header| header.rejoinder == EXPORT)
    }
}

/// A line of plain values, which always have a JSON form, with its end.
pub(super) fn write(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    Some(line)
}

/// The last line.
pub fn last(end: End) -> Vec<u8> {
    write(&Last { end }).unwrap_or_default()
}

/// A mark, with how many entries before it could not be read.
pub fn mark(cursor: &str, unreadable: u64) -> Vec<u8> {
    write(&serde_json::json!({"cursor": cursor, "unreadable": unreadable})).unwrap_or_default()
}

/// An entry's line. `None` where its document is no text, which none that was gathered is.
pub(super) fn entry(entry: &Entry, home: Option<&Home>) -> Option<Vec<u8>> {
    let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let embedding = home.map(|home| {
        let bytes: Vec<u8> = home.embedding.numbers().flat_map(i16::to_be_bytes).collect();
        EmbeddingLine {
            model: home.model.as_deref().map(Cow::Borrowed),
            partition: hexadecimal::digits(&home.partition.0).into(),
            scale: home.embedding.scale(),
            components: hexadecimal::digits(&bytes).into(),
        }
    });
    let document = entry.document();
    write(&EntryLine {
        key: hexadecimal::digits(&entry.key.0).into(),
        scope: hexadecimal::digits(&entry.scope.0).into(),
        endpoint: entry.endpoint.path().into(),
        model: entry.model().into(),
        namespace: entry.namespace().into(),
        prompt: entry.prompt().into(),
        document: std::str::from_utf8(&document).ok()?.into(),
        created_at_ms: milliseconds(entry.created_at.duration_since(UNIX_EPOCH).unwrap_or_default()),
        ttl_ms: milliseconds(entry.ttl),
        took_ms: entry.cost().took.map(milliseconds),
        poisoned: entry.poisoned,
        embedding,
    })
}

/// Reads a line.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn read(line: &[u8]) -> Result<Line, String> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("the line is no JSON object".to_owned());
    }
    let kind: Kind = serde_json::from_slice(line).map_err(|error| shortened(&error))?;
    if kind.rejoinder.is_some() || kind.cursor.is_some() || kind.end.is_some() {
        return Ok(Line::Note);
    }
    let line: EntryLine<'_> = serde_json::from_slice(line).map_err(|error| shortened(&error))?;
    let hash = |name: &str, digits: &str| {
        hexadecimal::hash(digits.as_bytes()).ok_or_else(|| format!("{name} is not 64 hexadecimal digits"))
    };
    let endpoint = Endpoint::of_path(&line.endpoint);
    let created_at = UNIX_EPOCH.checked_add(Duration::from_millis(line.created_at_ms));
    let home = line.embedding.map(|embedding| {
        let partition = Partition(hash("embedding.partition", &embedding.partition)?);
        let kept = kept(embedding.scale, &embedding.components).ok_or("the embedding is damaged")?;
        Ok::<_, String>(Home { partition, model: embedding.model.map(Cow::into_owned), embedding: kept })
    });
    Ok(Line::Entry(Box::new(Read {
        key: Key(hash("key", &line.key)?),
        scope: Scope(hash("scope", &line.scope)?),
        endpoint: endpoint.ok_or("endpoint is none whose replies are stored")?,
        model: line.model.into_owned(),
        namespace: line.namespace.into_owned(),
        prompt: line.prompt.into_owned(),
        document: line.document.into_owned(),
        created_at: created_at.ok_or("created_at_ms is beyond all time")?,
        ttl: Duration::from_millis(line.ttl_ms),
        took: line.took_ms.map(Duration::from_millis),
        poisoned: line.poisoned,
        home: home.transpose()?,
    })))
}

fn kept(scale: f32, components: &str) -> Option<Kept> {
    let bytes = hexadecimal::bytes(components.as_bytes())?;
    let (pairs, rest) = bytes.as_chunks::<2>();
    let numbers: Vec<i16> = pairs.iter().map(|pair| i16::from_be_bytes(*pair)).collect();
    Kept::new(scale, &numbers).filter(|_| rest.is_empty())
}

fn shortened(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let said = text.strip_suffix(&place).unwrap_or(&text);
    let said: String = said.chars().take(REASON).collect();
    format!("{said}, at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::entry as numbered;

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let home = Home {
            partition: Partition([3; 32]),
            model: Some("a model".to_owned()),
            embedding: Kept::new(0.25, &[32_512, -32_512, 0, 127, -128]).unwrap(),
        };
        for (poisoned, home) in [(false, None), (true, Some(home))] {
            let entry = Entry { poisoned, ..numbered(7) };
            let line = super::entry(&entry, home.as_ref()).unwrap();
            assert_eq!(memchr::memchr(b'\n', &line), Some(line.len() - 1), "one line");
            let Line::Entry(read) = read(&line).unwrap() else { panic!("an entry") };
            assert_eq!(read.home, home);
            assert_eq!(
                (read.key, read.scope, read.endpoint, &*read.model, &*read.namespace, &*read.prompt),
                (entry.key, entry.scope, entry.endpoint, entry.model(), entry.namespace(), entry.prompt())
            );
            assert_eq!(read.document.as_bytes(), entry.document());
            assert_eq!((read.created_at, read.ttl, read.poisoned), (entry.created_at, entry.ttl, poisoned));
            assert_eq!(read.took, entry.cost().took);
        }
    }

    #[test]
    fn the_other_lines_are_told_apart() {
        let header = write(&Header::new(&[1; 32])).unwrap();
        assert_eq!(Header::read(&header), Some(Header::new(&[1; 32])));
        for note in [header, mark("e-1f", 0), last(End::default())] {
            assert!(matches!(read(&note), Ok(Line::Note)), "{}", String::from_utf8_lossy(&note));
            assert_eq!(note.last(), Some(&b'\n'));
        }
        assert_eq!(Header::read(b"{\"rejoinder\":\"import\",\"schema\":1}"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line: Vec<u8>) {
            let _ = read(&line);
            let _ = Header::read(&line);
        }

        #[test]
        fn a_changed_line_is_read_without_a_panic(at: prop::sample::Index, byte: u8) {
            let mut line = super::entry(&numbered(7), None).unwrap();
            let at = at.index(line.len());
            line[at] = byte;
            if let Err(reason) = read(&line) {
                prop_assert!(!reason.is_empty() && reason.chars().count() < 300);
            }
        }
    }
}
