//! What was asked and what was answered, in one piece of memory: a cache of many entries would pay for each string's own.
//!
//! Made by the cache and the store, and read through [`super::entry::Entry`]. Never leaves the process: what is on disk and in Redis has
//! encodings of its own.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::dialect::Usage;

/// What documents of the known endpoints have in common, by which short ones are compressed too. Another text is no other format:
/// whatever was compressed by it is gone with the process.
static DICTIONARY: &[u8] = include_bytes!("content/documents.txt");

/// How many bytes a document that is compressed has: of a shorter one hardly anything would be gained, and a longer one would hold
/// its worker for a millisecond, and each of its hits that is not laid out too.
const COMPRESSED: RangeInclusive<usize> = 64..=256 << 10;

/// The most bytes that all but the texts and the document come to as a rule: what is made ready at once is not moved as it grows.
const MOST_NUMBERS: usize = 32;

/// What was asked and what was answered, as they are given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exchange<'a> {
    /// The request's model, for people and purges.
    pub model: &'a str,
    /// The request's namespace (`X-Rejoinder-Namespace`), empty without one.
    pub namespace: &'a str,
    /// The normalised prompt; empty where the whole body is the key.
    pub prompt: &'a str,
    /// The reply's JSON document.
    pub document: &'a [u8],
    /// What the reply cost.
    pub cost: Cost,
}

/// What was asked and what was answered, as they are kept: [`Packed`] in postcard's encoding.
#[derive(Clone)]
pub struct Content(Box<[u8]>);

/// What a reply cost, and each hit saves.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Tokens, where upstream counted them.
    pub usage: Option<Usage>,
    /// How long upstream took for the reply, from the request to its last byte; `None` where that is not known.
    pub took: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
struct Packed<'a> {
    /// What each hit reads, and so stands first.
    cost: Cost,
    model: &'a str,
    namespace: &'a str,
    /// Text, which is looked at as such only where it is asked for: a hit does not depend on the length of its prompt.
    #[serde(borrow)]
    prompt: Raw<'a>,
    document: Document<'a>,
}

#[derive(Serialize, Deserialize)]
enum Document<'a> {
    Plain(#[serde(borrow)] Raw<'a>),
    /// An LZ4 block, and the document's length.
    Compressed(#[serde(borrow)] Raw<'a>, usize),
}

/// Bytes written and read as a whole, where serde's own slice goes byte by byte.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl Content {
    /// Keeps an exchange as it is.
    pub fn new(exchange: &Exchange<'_>) -> Self {
        Self::pack(exchange, Document::Plain(Raw(exchange.document)))
    }

    /// Keeps an exchange with its document compressed, if that makes it smaller.
    pub(super) fn compressed(exchange: &Exchange<'_>) -> Self {
        let document = exchange.document;
        if !COMPRESSED.contains(&document.len()) {
            return Self::new(exchange);
        }
        let block = lz4_flex::block::compress_with_dict(document, DICTIONARY);
        if block.len() >= document.len() {
            return Self::new(exchange);
        }
        Self::pack(exchange, Document::Compressed(Raw(&block), document.len()))
    }

    fn pack(exchange: &Exchange<'_>, document: Document<'_>) -> Self {
        let &Exchange { model, namespace, prompt, cost, .. } = exchange;
        let prompt = Raw(prompt.as_bytes());
        let packed = Packed { cost, model, namespace, prompt, document };
        let kept = match &packed.document {
            Document::Plain(Raw(bytes)) | Document::Compressed(Raw(bytes), _) => bytes.len(),
        };
        let size = model.len() + namespace.len() + packed.prompt.0.len() + kept + MOST_NUMBERS;
        // Plain values in memory can always be encoded.
        let bytes = postcard::to_extend(&packed, Vec::with_capacity(size)).unwrap_or_default();
        Self(bytes.into_boxed_slice())
    }

    /// Reads it; nothing of it is ever damaged, since it is written above alone.
    fn unpack(&self) -> Packed<'_> {
        let nothing = Packed {
            cost: Cost::default(),
            model: "",
            namespace: "",
            prompt: Raw(&[]),
            document: Document::Plain(Raw(&[])),
        };
        postcard::from_bytes(&self.0).unwrap_or(nothing)
    }

    pub(super) fn model(&self) -> &str {
        self.unpack().model
    }

    pub(super) fn namespace(&self) -> &str {
        self.unpack().namespace
    }

    pub(super) fn prompt(&self) -> &str {
        text(self.unpack().prompt)
    }

    pub(super) fn cost(&self) -> Cost {
        postcard::take_from_bytes(&self.0).map(|(cost, _)| cost).unwrap_or_default()
    }

    /// The document, decompressed where it is not as it was; empty where that fails.
    pub(super) fn document(&self) -> Bytes {
        match self.unpack().document {
            Document::Plain(Raw(document)) => Bytes::copy_from_slice(document),
            Document::Compressed(Raw(block), length) => {
                lz4_flex::block::decompress_with_dict(block, length, DICTIONARY).unwrap_or_default().into()
            }
        }
    }

    /// How long the document is, in bytes.
    pub fn document_length(&self) -> usize {
        match self.unpack().document {
            Document::Plain(Raw(document)) => document.len(),
            Document::Compressed(_, length) => length,
        }
    }

    /// Whether both have the same document; where both keep it alike, neither is decompressed.
    pub fn same_document(&self, other: &Self) -> bool {
        match (self.unpack().document, other.unpack().document) {
            (Document::Plain(one), Document::Plain(other))
            | (Document::Compressed(one, _), Document::Compressed(other, _)) => one.0 == other.0,
            _ => self.document() == other.document(),
        }
    }

    /// The same with its document compressed.
    pub(super) fn compress(&self) -> Self {
        let Packed { cost, model, namespace, prompt, document } = self.unpack();
        match document {
            Document::Plain(Raw(document)) => {
                let prompt = text(prompt);
                Self::compressed(&Exchange { model, namespace, prompt, document, cost })
            }
            Document::Compressed(..) => self.clone(),
        }
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

/// What was text when it was packed.
fn text(Raw(bytes): Raw<'_>) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl PartialEq for Content {
    /// Whether the exchanges are equal, however they are kept.
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (self.unpack(), other.unpack());
        self.0 == other.0
            || (one.cost == two.cost
                && (one.model, one.namespace, one.prompt.0) == (two.model, two.namespace, two.prompt.0)
                && self.same_document(other))
    }
}

impl fmt::Debug for Content {
    /// What was asked and answered stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packed { cost, model, namespace, prompt, .. } = self.unpack();
        f.debug_struct("Content")
            .field("model", &model)
            .field("namespace", &namespace)
            .field("prompt_bytes", &prompt.0.len())
            .field("document_bytes", &self.document_length())
            .field("cost", &cost)
            .finish()
    }
}

impl Serialize for Raw<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Raw)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_given(texts: (String, String, String), document: Vec<u8>, often in 0_usize..40, counts: Option<[u64; 4]>, took: Option<u64>) {
            let document = document.repeat(often);
            let usage = counts.map(|[input, output, cached, reasoning]| Usage { input, output, cached, reasoning });
            let exchange = Exchange {
                model: &texts.0,
                namespace: &texts.1,
                prompt: &texts.2,
                document: &document,
                cost: Cost { usage, took: took.map(Duration::from_millis) },
            };
            let plain = Content::new(&exchange);
            for content in [plain.clone(), plain.compress(), plain.compress().compress(), Content::compressed(&exchange)] {
                prop_assert_eq!((content.model(), content.namespace(), content.prompt()), (&*texts.0, &*texts.1, &*texts.2));
                prop_assert_eq!(&content.document()[..], &document[..]);
                prop_assert_eq!(content.document_length(), document.len());
                prop_assert_eq!(content.cost(), exchange.cost);
                prop_assert!(content.size() <= plain.size() + 10);
                prop_assert!(content == plain && content.same_document(&plain));
            }
        }
    }

    #[test]
    fn another_document_is_another() {
        let content = |document: &[u8]| Content::new(&Exchange { document, ..Exchange::default() });
        let (one, other) = (content(&[7; 200]), content(&[8; 200]));
        for (one, other) in
            [(one.clone(), other.clone()), (one.compress(), other.compress()), (one, other.compress())]
        {
            assert!(one != other && !one.same_document(&other));
        }
    }

    #[test]
    fn short_documents_are_compressed_too() {
        let chat = br#"{"id":"chatcmpl-8f3a1c","object":"chat.completion","created":1791234567,"model":"llama3.2","choices":[{"index":0,"message":{"role":"assistant","content":"Paris."},"finish_reason":"stop"}],"usage":{"prompt_tokens":26,"completion_tokens":3,"total_tokens":29}}"#;
        let generate = br#"{"model":"qwen3:8b","created_at":"2026-11-29T10:11:12.131415Z","response":"Paris.","done":true,"done_reason":"stop","total_duration":81234567,"load_duration":1234567,"prompt_eval_count":26,"prompt_eval_duration":7654321,"eval_count":3,"eval_duration":9876543}"#;
        let message = br#"{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"claude-opus-4-1","content":[{"type":"text","text":"Paris."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":26,"output_tokens":3}}"#;
        for document in [&chat[..], generate, message] {
            let content = Content::compressed(&Exchange { document, ..Exchange::default() });
            assert!(5 * content.size() < 3 * document.len(), "{} of {}", content.size(), document.len());
            assert_eq!(content.document(), document);
        }
    }
}
