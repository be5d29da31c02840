//! Records on disk: an entry, an embedding, or evidence, as bytes that prove they are whole and ours.
//!
//! A record is its schema version (one byte), its content, and the first half of a keyed BLAKE3 over the kind
//! of record, its number and all before. The key is made of the store's secret, so that a record of another
//! store is as foreign as a damaged one.
//!
//! Where entries are encrypted, the version says so and the content is sealed ([`crate::store::encryption`]) under
//! the kind of record and its number; the digest is over what stands on disk.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::dialect::{Endpoint, Usage};
use crate::store::content::{Content, Cost, Exchange, Raw};
use crate::store::encryption::{Encryption, Unopened};
use crate::store::entry::{Entry, Key, Partition, Scope};
use crate::store::evidence::{Evidence, OBSERVATION_BYTES, Observation};
use crate::store::index::codes::{Codes, MAX_DIMENSION};
use crate::store::{milliseconds, whole_milliseconds};

/// The version written, and the only one read.
pub(super) const SCHEMA: u8 = 1;

/// The version of a record whose content is [`SCHEMA`]'s, encrypted.
const ENCRYPTED: u8 = 2;

const DIGEST_BYTES: usize = 16;

/// Writes and reads records.
#[derive(Debug, Clone)]
pub(super) struct Seal {
    key: [u8; 32],
    encryption: Arc<Encryption>,
}

/// A record that cannot be used; it is skipped, counted and removed, or left where its key is missing alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    /// Damaged, cut short, or written by a store with another secret.
    #[error("torn, corrupt or foreign")]
    Broken,
    /// Whole, but of another schema.
    #[error("of schema {0}, which this version does not read")]
    Schema(u8),
    /// Whole, but not of the shape that its schema promises.
    #[error("not of its schema's shape")]
    Shape,
    /// Whole, and encrypted under a key that is not here.
    #[error("encrypted under a key that is not here")]
    Locked,
}

/// What distinguishes the tables in a digest, so that no record counts in another's place.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Entry = 1,
    Embedding = 2,
    Evidence = 3,
}

/// An entry's content, in postcard's encoding. Its order of fields is schema 1.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    key: [u8; 32],
    scope: [u8; 32],
    endpoint: &'a str,
    model: &'a str,
    namespace: &'a str,
    prompt: &'a str,
    #[serde(borrow)]
    document: Raw<'a>,
    /// The document's text in what older versions wrote; not read.
    text: &'a str,
    tool_calls: bool,
    usage: Option<(u64, u64)>,
    created_at_ms: u64,
    ttl_ms: u64,
    poisoned: bool,
}

/// What stands after [`Stored`], in what older versions wrote not at all.
#[derive(Default, Serialize, Deserialize)]
struct Later {
    took_ms: Option<u64>,
    cached: u64,
    reasoning: u64,
}

impl Seal {
    /// For a store with this secret.
    pub(super) fn new(secret: &[u8; 32], encryption: Arc<Encryption>) -> Self {
        Self { key: blake3::derive_key("rejoinder 2025 store records", secret), encryption }
    }

    /// What counts the records that no key is here for.
    pub(super) fn encryption(&self) -> &Arc<Encryption> {
        &self.encryption
    }

    /// Whether a record is as it would be written now: in plain, or under the key that encrypts.
    pub(super) fn is_current(&self, record: &[u8]) -> bool {
        match record.split_first() {
            Some((&ENCRYPTED, sealed)) => self.encryption.is_current(sealed),
            _ => !self.encryption.is_on(),
        }
    }

    /// An entry as a record. `None` where it cannot be encoded, which plain values in memory always can, or sealed,
    /// for want of random bytes; so for the other kinds.
    pub(super) fn entry(&self, sequence: u64, entry: &Entry) -> Option<Vec<u8>> {
        let (document, Cost { usage, took }) = (entry.document(), entry.cost());
        let stored = Stored {
            key: entry.key.0,
            scope: entry.scope.0,
            endpoint: entry.endpoint.path(),
            model: entry.model(),
            namespace: entry.namespace(),
            prompt: entry.prompt(),
            document: Raw(&document),
            text: "",
            tool_calls: entry.tool_calls,
            usage: usage.map(|usage| (usage.input, usage.output)),
            created_at_ms: milliseconds(entry.created_at),
            ttl_ms: whole_milliseconds(entry.ttl),
            poisoned: entry.poisoned,
        };
        let later = Later {
            took_ms: took.map(whole_milliseconds),
            cached: usage.map_or(0, |usage| usage.cached),
            reasoning: usage.map_or(0, |usage| usage.reasoning),
        };
        let record = postcard::to_extend(&stored, vec![SCHEMA]).ok()?;
        let record = postcard::to_extend(&later, record).ok()?;
        self.close(Kind::Entry, sequence, record)
    }

    /// The entry of a record.
    pub(super) fn read_entry(&self, sequence: u64, record: &[u8]) -> Result<Entry, RecordError> {
        let content = self.open(Kind::Entry, sequence, record)?;
        let (stored, rest) =
            postcard::take_from_bytes::<Stored<'_>>(&content).map_err(|_| RecordError::Shape)?;
        let later = if rest.is_empty() {
            Later::default()
        } else {
            let (later, rest) = postcard::take_from_bytes::<Later>(rest).map_err(|_| RecordError::Shape)?;
            Some(later).filter(|_| rest.is_empty()).ok_or(RecordError::Shape)?
        };
        let endpoint = Endpoint::of_path(stored.endpoint);
        let created_at = UNIX_EPOCH.checked_add(Duration::from_millis(stored.created_at_ms));
        Ok(Entry {
            key: Key(stored.key),
            scope: Scope(stored.scope),
            endpoint: endpoint.ok_or(RecordError::Shape)?,
            content: Content::new(&Exchange {
                model: stored.model,
                namespace: stored.namespace,
                prompt: stored.prompt,
                document: stored.document.0,
                cost: Cost {
                    usage: stored.usage.map(|(input, output)| Usage {
                        input,
                        output,
                        cached: later.cached,
                        reasoning: later.reasoning,
                    }),
                    took: later.took_ms.map(Duration::from_millis),
                },
            }),
            tool_calls: stored.tool_calls,
            created_at: created_at.ok_or(RecordError::Shape)?,
            ttl: Duration::from_millis(stored.ttl_ms),
            poisoned: stored.poisoned,
        })
    }

    /// An embedding's place as a record: partition, dimension, scale, high plane, low plane.
    pub(super) fn embedding(&self, sequence: u64, partition: &Partition, codes: &Codes) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(1 + 32 + 8 + 2 * codes.dimension() + DIGEST_BYTES);
        record.push(SCHEMA);
        record.extend_from_slice(&partition.0);
        record.extend_from_slice(&u32::try_from(codes.dimension()).unwrap_or(u32::MAX).to_le_bytes());
        record.extend_from_slice(&codes.scale.to_le_bytes());
        record.extend(codes.high.iter().chain(&codes.low).map(|byte| byte.cast_unsigned()));
        self.close(Kind::Embedding, sequence, record)
    }

    /// The embedding of a record, and its partition.
    pub(super) fn read_embedding(
        &self,
        sequence: u64,
        record: &[u8],
    ) -> Result<(Partition, Codes), RecordError> {
        let content = self.open(Kind::Embedding, sequence, record)?;
        read_embedding(&content).ok_or(RecordError::Shape)
    }

    /// What was observed of an entry as a record: the observations one after another.
    pub(super) fn evidence(&self, sequence: u64, evidence: &Evidence) -> Option<Vec<u8>> {
        let observations = evidence.observations();
        let mut record = Vec::with_capacity(1 + OBSERVATION_BYTES * observations.len() + DIGEST_BYTES);
        record.push(SCHEMA);
        record.extend(observations.iter().flat_map(|observation| observation.to_bytes()));
        self.close(Kind::Evidence, sequence, record)
    }

    /// The evidence of a record.
    pub(super) fn read_evidence(&self, sequence: u64, record: &[u8]) -> Result<Evidence, RecordError> {
        let content = self.open(Kind::Evidence, sequence, record)?;
        let (observations, rest) = content.as_chunks();
        let read: Option<_> = observations.iter().map(|bytes| Observation::of_bytes(*bytes)).collect();
        read.filter(|_| rest.is_empty()).ok_or(RecordError::Shape)
    }

    /// Ends a record of its schema and its content.
    fn close(&self, kind: Kind, sequence: u64, mut record: Vec<u8>) -> Option<Vec<u8>> {
        if self.encryption.is_on() {
            let sealed = self.encryption.seal(&context(kind, &sequence.to_le_bytes()), record.get(1..)?)?;
            record.truncate(0);
            record.push(ENCRYPTED);
            record.extend_from_slice(&sealed);
        }
        let digest = self.digest(kind, sequence, &record);
        record.extend_from_slice(&digest);
        Some(record)
    }

    /// A record's content, once it is proved whole and ours.
    fn open<'a>(&self, kind: Kind, sequence: u64, record: &'a [u8]) -> Result<Cow<'a, [u8]>, RecordError> {
        let (signed, digest) = record.split_last_chunk::<DIGEST_BYTES>().ok_or(RecordError::Broken)?;
        if self.digest(kind, sequence, signed) != *digest {
            return Err(RecordError::Broken);
        }
        match signed.split_first() {
            Some((&SCHEMA, content)) => Ok(Cow::Borrowed(content)),
            Some((&ENCRYPTED, sealed)) => {
                let opened = self.encryption.open(&context(kind, &sequence.to_le_bytes()), sealed);
                opened.map(Cow::Owned).map_err(|unopened| match unopened {
                    Unopened::Locked => RecordError::Locked,
                    Unopened::Broken => RecordError::Broken,
                })
            }
            Some((&schema, _)) => Err(RecordError::Schema(schema)),
            None => Err(RecordError::Broken),
        }
    }

    fn digest(&self, kind: Kind, sequence: u64, signed: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[kind as u8]).update(&sequence.to_le_bytes()).update(signed);
        hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

/// What a sealed record is and where it stands.
fn context(kind: Kind, sequence: &[u8; 8]) -> [&[u8]; 3] {
    let kind: &[u8] = match kind {
        Kind::Entry => b"entry",
        Kind::Embedding => b"embedding",
        Kind::Evidence => b"evidence",
    };
    [b"disk", kind, sequence]
}

fn read_embedding(content: &[u8]) -> Option<(Partition, Codes)> {
    let (partition, rest) = content.split_first_chunk::<32>()?;
    let (dimension, rest) = rest.split_first_chunk::<4>()?;
    let (scale, planes) = rest.split_first_chunk::<4>()?;
    let dimension = usize::try_from(u32::from_le_bytes(*dimension)).ok()?;
    let scale = f32::from_le_bytes(*scale);
    if dimension == 0 || dimension > MAX_DIMENSION || planes.len() != 2 * dimension || !scale.is_normal() {
        return None;
    }
    let plane = |bytes: &[u8]| bytes.iter().map(|byte| byte.cast_signed()).collect();
    let (high, low) = planes.split_at_checked(dimension)?;
    Some((Partition(*partition), Codes { high: plane(high), low: plane(low), scale }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::encryption::tests::keys;
    use crate::store::tests::{altered, entries};

    fn seal(secret: u8, encrypted: bool) -> Seal {
        Seal::new(&[secret; 32], Encryption::new(&keys(if encrypted { &[1] } else { &[] })))
    }

    proptest! {
        #[test]
        fn an_encrypted_record_shows_nothing_is_of_its_place_and_needs_its_key(entry in entries()) {
            let entry = altered(&entry, |exchange| exchange.prompt = "a canary of a prompt");
            let (one, plain) = (seal(1, true), seal(1, false));
            let record = one.entry(7, &entry).unwrap();
            prop_assert!(memchr::memmem::find(&record, b"canary").is_none());
            prop_assert_eq!(plain.read_entry(7, &record), Err(RecordError::Locked));
            let unencrypted = plain.entry(7, &entry).unwrap();
            prop_assert_eq!(one.read_entry(7, &unencrypted).unwrap(), entry);
            prop_assert!(one.is_current(&record) && !one.is_current(&unencrypted));
            // Sealed again by whoever has the secret, but not the key: in another place it is not opened.
            let mut moved = record[..record.len() - DIGEST_BYTES].to_vec();
            let digest = one.digest(Kind::Entry, 8, &moved);
            moved.extend_from_slice(&digest);
            prop_assert_eq!(one.read_entry(8, &moved), Err(RecordError::Broken));
        }

        #[test]
        fn evidence_comes_back_as_it_was_and_under_its_number_alone(
            seen in proptest::collection::vec((any::<u32>(), 0.0_f32..=1.0, any::<bool>()), 0..50), sequence: u64, encrypted: bool
        ) {
            let seal = seal(1, encrypted);
            let evidence: Evidence =
                seen.into_iter().map(|(id, score, same)| Observation { id, score, same }).collect();
            let record = seal.evidence(sequence, &evidence).unwrap();
            prop_assert_eq!(seal.read_evidence(sequence, &record), Ok(evidence));
            prop_assert_eq!(seal.read_evidence(sequence ^ 1, &record), Err(RecordError::Broken));
        }

        #[test]
        fn an_entry_comes_back_as_it_was_and_under_its_number_alone(
            entry in entries(), sequence: u64, secret: [u8; 32], encrypted: bool
        ) {
            let seal = Seal::new(&secret, Encryption::new(&keys(if encrypted { &[1] } else { &[] })));
            let record = seal.entry(sequence, &entry).unwrap();
            prop_assert_eq!(seal.read_entry(sequence, &record).unwrap(), entry);
            prop_assert_eq!(seal.read_entry(sequence ^ 1, &record), Err(RecordError::Broken));
            prop_assert!(seal.read_embedding(sequence, &record).is_err());
            let other = Seal::new(&secret.map(|byte| !byte), Encryption::new(&keys(if encrypted { &[1] } else { &[] })));
            prop_assert_eq!(other.read_entry(sequence, &record), Err(RecordError::Broken));
        }

        #[test]
        fn a_record_without_what_came_later_is_read(entry in entries()) {
            let seal = seal(1, false);
            let entry = altered(&entry, |exchange| {
                exchange.cost.took = None;
                if let Some(usage) = &mut exchange.cost.usage {
                    (usage.cached, usage.reasoning) = (0, 0);
                }
            });
            let record = seal.entry(1, &entry).unwrap();
            let later = postcard::to_extend(&Later::default(), Vec::new()).unwrap();
            let older = record[..record.len() - DIGEST_BYTES - later.len()].to_vec();
            prop_assert_eq!(seal.read_entry(1, &seal.close(Kind::Entry, 1, older).unwrap()).unwrap(), entry);
        }

        #[test]
        fn a_changed_record_is_broken(entry in entries(), at: prop::sample::Index, bit in 0_u32..8, cut: bool, encrypted: bool) {
            let seal = seal(1, encrypted);
            let mut record = seal.entry(1, &entry).unwrap();
            let at = at.index(record.len());
            if cut {
                record.truncate(at);
            } else {
                record[at] ^= 1_u8 << bit;
            }
            prop_assert_eq!(seal.read_entry(1, &record), Err(RecordError::Broken));
        }

        #[test]
        fn a_sealed_record_of_any_content_is_read_without_a_panic(content: Vec<u8>, encrypted: bool) {
            let seal = seal(1, encrypted);
            let mut record = vec![SCHEMA];
            record.extend_from_slice(&content);
            let _ = seal.read_entry(1, &seal.close(Kind::Entry, 1, record.clone()).unwrap());
            let _ = seal.read_embedding(1, &seal.close(Kind::Embedding, 1, record).unwrap());
        }

        #[test]
        fn an_embedding_comes_back_as_it_was(
            values in prop::collection::vec(-1.0_f32..1.0, 1..500), encrypted: bool
        ) {
            let seal = seal(1, encrypted);
            if let Some(codes) = Codes::of(&values) {
                let record = seal.embedding(9, &Partition([3; 32]), &codes).unwrap();
                prop_assert_eq!(seal.read_embedding(9, &record).unwrap(), (Partition([3; 32]), codes));
            }
        }
    }

    #[test]
    fn a_newer_schema_is_named() {
        let seal = seal(1, false);
        let record = seal.close(Kind::Entry, 1, vec![ENCRYPTED + 1, 2, 3]).unwrap();
        assert_eq!(seal.read_entry(1, &record), Err(RecordError::Schema(ENCRYPTED + 1)));
    }
}
