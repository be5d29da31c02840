//! What is stored: an entry, its names, and its embedding's place.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use bytes::Bytes;

use super::content::{Content, Cost};
use super::milliseconds;
use crate::dialect::{Endpoint, Form, Reply};
use crate::embed::{Embedding, Similarity};
use crate::hexadecimal;

/// Who and what an entry belongs to: a keyed hash of all but the prompt that can change the reply. Entries of
/// different scopes never serve each other's requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope(pub [u8; 32]);

/// Bytes of a scope with which the names of all that belongs to it begin, by which a store can keep it together.
pub const TAG_BYTES: usize = 8;

/// The exact key: a keyed hash of the scope and the normalised prompt, after the scope's tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(pub [u8; 32]);

/// The set of entries that a semantic lookup may search: a keyed hash of the scope, the embedder's model, and
/// the part of the prompt beyond its window, after the scope's tag. One partition has one index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub [u8; 32]);

/// An entry's name towards people: the first half of its key, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub [u8; 16]);

/// A stored reply and all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The exact key it is stored under.
    pub key: Key,
    /// The scope that earned it.
    pub scope: Scope,
    /// The endpoint whose reply it is.
    pub endpoint: Endpoint,
    /// What was asked and what was answered.
    pub content: Content,
    /// Whether the model called tools: such a reply is reused by the exact layer alone.
    pub tool_calls: bool,
    /// When it was stored, to the millisecond.
    pub created_at: SystemTime,
    /// How long it lives from then.
    pub ttl: Duration,
    /// Set by an operator or a check that found the reply wrong: never served again, and replaced by the next.
    pub poisoned: bool,
}

/// What the index found near a prompt.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The entry, as stored.
    pub entry: std::sync::Arc<Entry>,
    /// Cosine similarity of the prompts' embeddings, off by less than 0.001 at worst.
    pub similarity: Similarity,
}

/// An embedding and where it is searched.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The set it belongs to.
    pub partition: Partition,
    /// The prompt's embedding.
    pub embedding: Embedding,
}

impl Entry {
    /// A time to the millisecond, as entries have it: what is read back is known for the same.
    pub fn moment(time: SystemTime) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds(time))
    }

    /// The same in less memory.
    pub(in crate::store) fn compressed(self) -> Self {
        Self { content: self.content.compress(), ..self }
    }

    /// Since when it is stored; zero where the clock was set back.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.created_at).unwrap_or_default()
    }

    /// The request's model, for people and purges.
    pub fn model(&self) -> &str {
        self.content.model()
    }

    /// The request's namespace (`X-Rejoinder-Namespace`), empty without one.
    pub fn namespace(&self) -> &str {
        self.content.namespace()
    }

    /// The normalised prompt; empty where the whole body is the key.
    pub fn prompt(&self) -> &str {
        self.content.prompt()
    }

    /// The reply's JSON document, decompressed where the store keeps it compressed; empty of a candidate that lacks it.
    pub fn document(&self) -> Bytes {
        self.content.document()
    }

    /// How long the document is, in bytes.
    pub fn document_length(&self) -> u64 {
        u64::try_from(self.content.document_length()).unwrap_or(u64::MAX)
    }

    /// What the reply cost, and each hit saves.
    pub fn cost(&self) -> Cost {
        self.content.cost()
    }

    /// The reply, with its text read out of its document: no store keeps it twice.
    pub fn reply(&self) -> Reply {
        let document = self.document();
        let read = self.endpoint.gather(Form::Json, &document);
        let text = read.map(|reply| reply.text).unwrap_or_default();
        Reply { document, text, tool_calls: self.tool_calls, usage: self.cost().usage }
    }

    /// How much of its life is left; zero where it has expired.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.ttl.saturating_sub(self.age(now))
    }
}

impl Scope {
    /// A hash of something in this scope, with the scope's tag in the place of its first bytes.
    fn tagged(&self, mut hash: [u8; 32]) -> [u8; 32] {
        for (byte, tag) in hash.iter_mut().zip(self.0).take(TAG_BYTES) {
            *byte = tag;
        }
        hash
    }
}

impl Partition {
    /// The partition of this scope with this hash.
    pub fn new(scope: &Scope, hash: [u8; 32]) -> Self {
        Self(scope.tagged(hash))
    }

    /// The tag of its scope.
    pub fn tag(&self) -> [u8; TAG_BYTES] {
        self.0.first_chunk().copied().unwrap_or_default()
    }
}

impl EntryId {
    /// The tag of its scope.
    pub fn tag(&self) -> [u8; TAG_BYTES] {
        self.0.first_chunk().copied().unwrap_or_default()
    }
}

impl Key {
    /// The key in this scope with this hash.
    pub fn new(scope: &Scope, hash: [u8; 32]) -> Self {
        Self(scope.tagged(hash))
    }

    /// The name towards people.
    pub fn id(&self) -> EntryId {
        EntryId(self.0.first_chunk().copied().unwrap_or_default())
    }
}

impl EntryId {
    /// Writes it as 32 hexadecimal digits.
    pub fn text<'a>(&self, out: &'a mut [u8; 32]) -> &'a str {
        hexadecimal::fill(out, &self.0);
        // Digits are text.
        std::str::from_utf8(out).unwrap_or_default()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; 32]))
    }
}

/// No text of 32 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("an entry's id has 32 hexadecimal digits")]
pub struct EntryIdError;

impl std::str::FromStr for EntryId {
    type Err = EntryIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(EntryIdError);
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| EntryIdError)
    }
}

macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            /// The first four bytes: enough to tell apart in a log, too few to be used as a name.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let [a, b, c, d, ..] = self.0;
                write!(f, concat!(stringify!($name), "({:02x}{:02x}{:02x}{:02x}…)"), a, b, c, d)
            }
        }
    )*};
}
redacted!(Scope, Key, Partition);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_and_read() {
        let id = Key([0xab; 32]).id();
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse::<EntryId>().unwrap(), id);
        assert!("xyz".parse::<EntryId>().is_err());
        assert!("+".repeat(32).parse::<EntryId>().is_err());
    }
}
