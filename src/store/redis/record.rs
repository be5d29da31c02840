//! An entry as the fields of a Redis hash, and its embedding as one of them: bytes that prove they are whole
//! and belong together.
//!
//! | field | content |
//! | --- | --- |
//! | `id` | the entry's id, 32 hexadecimal digits |
//! | `query` | the normalised prompt |
//! | `query_hash` | the exact key, 64 hexadecimal digits |
//! | `embedding` | see [`Seal::embedding`]; absent where the prompt was not embedded |
//! | `evidence` | observations, each with a seal of its own, see [`Seal::observation`]; absent without any |
//! | `response` | the reply's JSON document |
//! | `created_at` | milliseconds since the Unix epoch, decimal |
//! | `ttl` | milliseconds, decimal |
//! | `metadata` | JSON: schema version, scope, endpoint, model, namespace, tool calls, usage, poisoned, how long upstream took |
//! | `seal` | the first half of a keyed BLAKE3 over all fields but `embedding` and `evidence`, which have their own |
//!
//! Where entries are encrypted, `query`, `response`, `metadata` and what follows the partition in `embedding` are
//! sealed ([`crate::store::encryption`]) under the field's name, the exact key and `created_at`; the digests are over
//! what stands in Redis. The rest holds nothing of a prompt or a reply: keyed hashes, times, and similarities.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::super::content::{Content, Cost, Exchange};
use super::super::encryption::{self, Encryption, Unopened};
use super::super::entry::{Entry, Key, Partition, Placed, Scope};
use super::super::evidence::{Evidence, MOST_OBSERVATIONS, OBSERVATION_BYTES, Observation};
use super::super::index::codes::{Codes, MAX_DIMENSION};
use super::super::transfer::{Home, Kept};
use super::super::{milliseconds, whole_milliseconds};
use crate::dialect::{Endpoint, Usage};
use crate::hexadecimal::{digits as hex, hash as from_hexadecimal};

/// The version written, and the only one read.
const SCHEMA: u8 = 1;

/// The version of an `embedding` whose content is [`SCHEMA`]'s, encrypted.
const ENCRYPTED: u8 = 2;

const DIGEST_BYTES: usize = 16;

/// What the `seal` field holds.
pub(super) type Digest = [u8; DIGEST_BYTES];

/// Bytes of an observation in the `evidence` field.
const SEALED_BYTES: usize = OBSERVATION_BYTES + DIGEST_BYTES;

/// The most bytes of the `evidence` field.
pub(super) const MOST_EVIDENCE_BYTES: usize = MOST_OBSERVATIONS * SEALED_BYTES;

/// The fields that [`Seal::read`] reads, in its order.
pub(super) const FIELDS: [&str; 7] =
    ["query_hash", "query", "response", "created_at", "ttl", "metadata", "seal"];

/// The fields that [`Seal::read_row`] reads, in its order.
pub(super) const ROW_FIELDS: [&str; 6] =
    ["query_hash", "query", "created_at", "ttl", "metadata", "embedding"];

/// The fields that [`Seal::described`] reads, in its order.
pub(super) const HEAD_FIELDS: [&str; 5] = ["query_hash", "query", "created_at", "ttl", "metadata"];

/// Values of fields, as Redis gave them.
pub(super) type Values = Vec<Option<Vec<u8>>>;

/// The seal among the values of [`FIELDS`], which is proved once they are read.
pub(super) fn seal_of(values: &Values) -> Option<Digest> {
    values.last()?.as_deref()?.try_into().ok()
}

/// Why what stands in Redis cannot be used; it is counted and removed, or left where its key is missing alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// Cut short, changed, or written with another secret.
    #[error("a value is torn, corrupt or foreign")]
    Broken,
    /// Whole, but of another schema.
    #[error("a value is of schema {0}, which this version does not read")]
    Schema(u8),
    /// Encrypted under a key that is not here.
    #[error("a value is encrypted under a key that is not here")]
    Locked,
}

impl From<Unopened> for Damage {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Locked => Self::Locked,
            Unopened::Broken => Self::Broken,
        }
    }
}

/// The `metadata` field.
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    schema: u8,
    scope: String,
    endpoint: Endpoint,
    model: String,
    namespace: String,
    tool_calls: bool,
    usage: Option<(u64, u64)>,
    poisoned: bool,
    // What follows is absent where it is zero or not known, and in what older versions wrote.
    #[serde(default, skip_serializing_if = "is_zero")]
    cached: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    reasoning: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// An entry without its reply, and its embedding: a row of the index.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) entry: Entry,
    pub(super) codes: Codes,
}

/// Writes and reads records.
#[derive(Debug, Clone)]
pub(super) struct Seal {
    key: [u8; 32],
    encryption: Arc<Encryption>,
}

impl Seal {
    /// Seals with a key made of the secret that replicas share.
    pub(super) fn new(secret: &[u8], encryption: Arc<Encryption>) -> Self {
        Self { key: blake3::derive_key("rejoinder v1 redis record", secret), encryption }
    }

    /// What encrypts, and counts the values that no key is here for.
    pub(super) fn encryption(&self) -> &Arc<Encryption> {
        &self.encryption
    }

    /// An entry's fields and values, without its embedding. `None` where they cannot be sealed, for want of random
    /// bytes.
    pub(super) fn write(&self, entry: &Entry) -> Option<Vec<(&'static str, Vec<u8>)>> {
        let Cost { usage, took } = entry.cost();
        let metadata = Metadata {
            schema: SCHEMA,
            scope: hex(&entry.scope.0),
            endpoint: entry.endpoint,
            model: entry.model().to_owned(),
            namespace: entry.namespace().to_owned(),
            tool_calls: entry.tool_calls,
            usage: usage.map(|usage| (usage.input, usage.output)),
            poisoned: entry.poisoned,
            cached: usage.map_or(0, |usage| usage.cached),
            reasoning: usage.map_or(0, |usage| usage.reasoning),
            took_ms: took.map(whole_milliseconds),
        };
        let ttl = whole_milliseconds(entry.ttl);
        // Strings and numbers always have a JSON form.
        let metadata = serde_json::to_vec(&metadata).unwrap_or_default();
        let key = hex(&entry.key.0).into_bytes();
        let created_at = milliseconds(entry.created_at).to_string().into_bytes();
        let (prompt, document) = (entry.prompt().as_bytes(), entry.document());
        let [prompt, document, metadata] = if self.encryption.is_on() {
            let close = |field: &str, value: &[u8]| {
                self.encryption.seal(&[b"redis", field.as_bytes(), &key, &created_at], value)
            };
            [close("query", prompt)?, close("response", &document)?, close("metadata", &metadata)?]
        } else {
            [prompt.to_vec(), document.to_vec(), metadata]
        };
        let sealed = [key, prompt, document, created_at, ttl.to_string().into_bytes(), metadata];
        let seal = self.digest(sealed.iter().map(Vec::as_slice)).to_vec();
        let mut fields = vec![("id", entry.key.id().to_string().into_bytes())];
        fields.extend(FIELDS.into_iter().zip(sealed.into_iter().chain([seal])));
        Some(fields)
    }

    /// The entry whose [`FIELDS`] these are; `None` where there is none.
    pub(super) fn read(&self, values: Values) -> Result<Option<Entry>, Damage> {
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        let values: Vec<_> = values.into_iter().collect::<Option<_>>().ok_or(Damage::Broken)?;
        let [key, prompt, document, created_at, ttl, metadata, seal] =
            <[Vec<u8>; 7]>::try_from(values).map_err(|_| Damage::Broken)?;
        let sealed = [&key, &prompt, &document, &created_at, &ttl, &metadata];
        if self.digest(sealed.into_iter().map(Vec::as_slice)).as_slice() != seal {
            return Err(Damage::Broken);
        }
        let head = Head { key: &key, created_at: &created_at, ttl: &ttl, metadata: &metadata };
        head.entry(&self.encryption, prompt, Some(document), true).map(Some)
    }

    /// The row whose [`ROW_FIELDS`] these are, of an index; `None` where the entry is gone, or was replaced by
    /// one that is not embedded.
    pub(super) fn read_row(&self, partition: &Partition, values: Values) -> Result<Option<Row>, Damage> {
        let [Some(key), Some(prompt), Some(created_at), Some(ttl), Some(metadata), embedding] =
            <[Option<Vec<u8>>; 6]>::try_from(values).map_err(|_| Damage::Broken)?
        else {
            return Ok(None);
        };
        let Some(embedding) = embedding else { return Ok(None) };
        let head = Head { key: &key, created_at: &created_at, ttl: &ttl, metadata: &metadata };
        // Nothing proves the head by itself. That it is of a key that is not here is believed where its embedding is too.
        let sealed = embedding.get(1 + DIGEST_BYTES + 32..).and_then(encryption::key_id);
        let proved = sealed.is_some() && sealed == encryption::key_id(&metadata);
        let entry = head.entry(&self.encryption, prompt, None, proved)?;
        let home = self.read_embedding(&entry, &embedding)?;
        // Replaced by a replica with another embedder, and now of another partition.
        Ok(Some(Row { entry, codes: home.embedding.0 }).filter(|_| home.partition == *partition))
    }

    /// What an entry says of itself in its [`HEAD_FIELDS`], without its reply, and not proved: for people and purges.
    pub(super) fn described(&self, values: Values) -> Option<Entry> {
        let [key, prompt, created_at, ttl, metadata] = <[Option<Vec<u8>>; 5]>::try_from(values).ok()?;
        let (key, created_at, ttl, metadata) = (key?, created_at?, ttl?, metadata?);
        let head = Head { key: &key, created_at: &created_at, ttl: &ttl, metadata: &metadata };
        head.entry(&self.encryption, prompt?, None, false).ok()
    }

    /// The `embedding` field: schema (1 byte), digest (16), partition (32), length of the model's name (2),
    /// the name, dimension (4), scale (4, `f32`), and the components in two bytes each, as two planes of signed
    /// bytes, high then low; numbers little-endian. The digest covers the entry's key and time too, so that no
    /// embedding is taken for another entry's. Encrypted is what follows the partition, under schema 2.
    pub(super) fn embedding(&self, entry: &Entry, placed: &Placed, model: &str) -> Option<Vec<u8>> {
        self.embedding_of(entry, &placed.partition, &Codes::of(placed.embedding.values())?, model)
    }

    /// As [`Seal::embedding`], of an embedding as a store keeps it.
    pub(super) fn embedding_of(
        &self,
        entry: &Entry,
        partition: &Partition,
        codes: &Codes,
        model: &str,
    ) -> Option<Vec<u8>> {
        let model = model.as_bytes();
        let mut content = Vec::with_capacity(64 + model.len() + 2 * codes.dimension());
        content.extend_from_slice(&u16::try_from(model.len()).ok()?.to_le_bytes());
        content.extend_from_slice(model);
        content.extend_from_slice(&u32::try_from(codes.dimension()).ok()?.to_le_bytes());
        content.extend_from_slice(&codes.scale.to_le_bytes());
        content.extend(codes.high.iter().chain(&codes.low).map(|byte| byte.cast_unsigned()));
        let is_on = self.encryption.is_on();
        if is_on {
            content =
                self.encryption.seal(&embedding_context(&entry.key, &time_of(entry), partition), &content)?;
        }
        content.splice(..0, partition.0);
        let mut record = vec![if is_on { ENCRYPTED } else { SCHEMA }];
        record.extend_from_slice(&self.embedding_digest(entry, &content));
        record.extend_from_slice(&content);
        Some(record)
    }

    /// The partition that an `embedding` field names, not proved to be whole.
    pub(super) fn partition_of(record: &[u8]) -> Option<Partition> {
        record.get(1 + DIGEST_BYTES..)?.first_chunk().copied().map(Partition)
    }

    /// The embedding of an `embedding` field, proved to be this entry's.
    pub(super) fn read_embedding(&self, entry: &Entry, record: &[u8]) -> Result<Home, Damage> {
        let (schema, rest) = record.split_first().ok_or(Damage::Broken)?;
        let (digest, content) = rest.split_first_chunk::<DIGEST_BYTES>().ok_or(Damage::Broken)?;
        if self.embedding_digest(entry, content) != *digest {
            return Err(Damage::Broken);
        }
        let (partition, rest) = content.split_first_chunk::<32>().ok_or(Damage::Broken)?;
        let partition = Partition(*partition);
        let content = match *schema {
            SCHEMA => Cow::Borrowed(rest),
            ENCRYPTED => {
                let time = time_of(entry);
                Cow::Owned(self.encryption.open(&embedding_context(&entry.key, &time, &partition), rest)?)
            }
            schema => return Err(Damage::Schema(schema)),
        };
        read_home(partition, &content).ok_or(Damage::Broken)
    }

    /// An observation of the entry of this key and time, with a digest that covers both, so that none is taken for
    /// another entry's. Each has its own since any replica adds to them.
    pub(super) fn observation(&self, key: &Key, created_at: SystemTime, observation: Observation) -> Vec<u8> {
        let mut sealed = observation.to_bytes().to_vec();
        let digest = self.observation_digest(key, created_at, &sealed);
        sealed.extend_from_slice(&digest);
        sealed
    }

    /// The observations of an `evidence` field, and whether there is anything else in it, which is left out.
    pub(super) fn read_evidence(&self, key: &Key, created_at: SystemTime, field: &[u8]) -> (Evidence, bool) {
        let (sealed, rest) = field.as_chunks::<SEALED_BYTES>();
        let mut damaged = !rest.is_empty() || field.len() > MOST_EVIDENCE_BYTES;
        let read = |sealed: &[u8; SEALED_BYTES]| {
            let (observation, digest) = sealed.split_first_chunk::<OBSERVATION_BYTES>()?;
            let whole = self.observation_digest(key, created_at, observation).as_slice() == digest;
            Observation::of_bytes(*observation).filter(|_| whole)
        };
        let evidence = sealed.iter().take(MOST_OBSERVATIONS).filter_map(|sealed| {
            let observation = read(sealed);
            damaged |= observation.is_none();
            observation
        });
        let evidence = evidence.collect();
        (evidence, damaged)
    }

    fn observation_digest(&self, key: &Key, created_at: SystemTime, observation: &[u8]) -> Digest {
        self.digest([&b"observation"[..], &key.0, &milliseconds(created_at).to_le_bytes(), observation])
    }

    fn embedding_digest(&self, entry: &Entry, content: &[u8]) -> Digest {
        self.digest([&b"embedding"[..], &entry.key.0, &milliseconds(entry.created_at).to_le_bytes(), content])
    }

    fn digest<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

/// What a sealed embedding belongs to.
fn embedding_context<'a>(key: &'a Key, time: &'a [u8; 8], partition: &'a Partition) -> [&'a [u8]; 5] {
    [b"redis", b"embedding", &key.0, time, &partition.0]
}

fn time_of(entry: &Entry) -> [u8; 8] {
    milliseconds(entry.created_at).to_le_bytes()
}

/// What follows the partition in an `embedding` field.
fn read_home(partition: Partition, content: &[u8]) -> Option<Home> {
    let (name, rest) = content.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*name)))?;
    let (dimension, rest) = rest.split_first_chunk::<4>()?;
    let (scale, planes) = rest.split_first_chunk::<4>()?;
    let dimension = usize::try_from(u32::from_le_bytes(*dimension)).ok()?;
    let scale = f32::from_le_bytes(*scale);
    if dimension == 0 || dimension > MAX_DIMENSION || planes.len() != 2 * dimension || !scale.is_normal() {
        return None;
    }
    let plane = |bytes: &[u8]| bytes.iter().map(|byte| byte.cast_signed()).collect();
    let (high, low) = planes.split_at_checked(dimension)?;
    Some(Home {
        partition,
        model: String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty()),
        embedding: Kept(Codes { high: plane(high), low: plane(low), scale }),
    })
}

/// The fields that say what an entry is.
struct Head<'a> {
    key: &'a [u8],
    created_at: &'a [u8],
    ttl: &'a [u8],
    metadata: &'a [u8],
}

impl Head<'_> {
    /// The entry, which is without its reply where `document` is not given. Only what is `proved` to be what was written is
    /// counted where no key is here for it.
    fn entry(
        &self,
        encryption: &Encryption,
        mut prompt: Vec<u8>,
        document: Option<Vec<u8>>,
        proved: bool,
    ) -> Result<Entry, Damage> {
        let (mut document, mut metadata) = (document.unwrap_or_default(), Cow::Borrowed(self.metadata));
        // Metadata in plain is a JSON document.
        if self.metadata.first() == Some(&encryption::VERSION) {
            let open = |field: &str, value: &[u8]| {
                let context = [&b"redis"[..], field.as_bytes(), self.key, self.created_at];
                if proved {
                    encryption.open(&context, value)
                } else {
                    encryption.open_unproved(&context, value)
                }
            };
            metadata = Cow::Owned(open("metadata", self.metadata)?);
            prompt = open("query", &prompt)?;
            if !document.is_empty() {
                document = open("response", &document)?;
            }
        }
        let metadata: Metadata = serde_json::from_slice(&metadata).map_err(|_| Damage::Broken)?;
        if metadata.schema != SCHEMA {
            return Err(Damage::Schema(metadata.schema));
        }
        let moment = number(self.created_at).map(Duration::from_millis);
        Ok(Entry {
            key: Key(from_hexadecimal(self.key).ok_or(Damage::Broken)?),
            scope: Scope(from_hexadecimal(metadata.scope.as_bytes()).ok_or(Damage::Broken)?),
            endpoint: metadata.endpoint,
            content: Content::new(&Exchange {
                model: &metadata.model,
                namespace: &metadata.namespace,
                prompt: std::str::from_utf8(&prompt).map_err(|_| Damage::Broken)?,
                document: &document,
                cost: Cost {
                    usage: metadata.usage.map(|(input, output)| Usage {
                        input,
                        output,
                        cached: metadata.cached,
                        reasoning: metadata.reasoning,
                    }),
                    took: metadata.took_ms.map(Duration::from_millis),
                },
            }),
            tool_calls: metadata.tool_calls,
            created_at: moment.and_then(|moment| UNIX_EPOCH.checked_add(moment)).ok_or(Damage::Broken)?,
            ttl: number(self.ttl).map(Duration::from_millis).ok_or(Damage::Broken)?,
            poisoned: metadata.poisoned,
        })
    }
}

/// A decimal number of digits alone.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// A time as the `created_at` field has it.
pub(super) fn moment(text: &[u8]) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(number(text)?))
}
