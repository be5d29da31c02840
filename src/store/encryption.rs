//! Encryption at rest: what the stores write, sealed by XChaCha20-Poly1305 under keys of the configuration.
//!
//! Called by the records of both stores alone. Each value has a random nonce of 192 bits, and what it belongs to
//! (its kind, its place, its version, its key's id) as associated data, so that none is taken for another.
//! A sealed value is its version (1 byte), its key's id (8), the nonce (24), the ciphertext, and the tag (16).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use parking_lot::Mutex;

use crate::hexadecimal;

/// The version written, and the only one read: the first byte of a sealed value. No JSON document begins with it.
pub(super) const VERSION: u8 = 1;

/// Bytes of a key's id.
pub(super) const ID_BYTES: usize = 8;

const NONCE_BYTES: usize = 24;

const TAG_BYTES: usize = 16;

/// What stands before the ciphertext.
const HEAD_BYTES: usize = 1 + ID_BYTES + NONCE_BYTES;

/// The keys of encryption at rest: the first encrypts, all decrypt. None, the default, switches it off.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EncryptionKeys(Vec<[u8; 32]>);

/// Why a text holds no keys. Never says what stands there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncryptionKeysError {
    /// One of them is none.
    #[error(
        "key {0} is not 32 bytes in hexadecimal or base64; `openssl rand -hex 32` makes one (of several keys, each \
         has a line of its own: the first encrypts, the others decrypt what is there)"
    )]
    Key(usize),
    /// A key of one byte repeated.
    #[error(
        "key {0} is one byte repeated, which anyone can guess; `openssl rand -hex 32` makes a random one"
    )]
    Trivial(usize),
}

impl EncryptionKeys {
    /// The keys of a text: each 32 bytes in hexadecimal or base64, parted by line breaks, spaces or commas.
    pub fn parse(text: &str) -> Result<Self, EncryptionKeysError> {
        let words = text.split([',', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty());
        let keys = words.enumerate().map(|(at, word)| {
            let key = hexadecimal::hash(word.to_ascii_lowercase().as_bytes()).or_else(|| base64(word));
            let key = key.ok_or(EncryptionKeysError::Key(at + 1))?;
            let [first, rest @ ..] = key;
            if rest.iter().all(|byte| *byte == first) {
                return Err(EncryptionKeysError::Trivial(at + 1));
            }
            Ok(key)
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKeys({})", self.0.len())
    }
}

/// 32 bytes of base64, of either alphabet, padded or not.
fn base64(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_suffix('=').unwrap_or(text);
    if digits.len() != 43 {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(32), 0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    // What is left over of the last digit is zero in what an encoder wrote.
    bytes.try_into().ok().filter(|_| bits.trailing_zeros() >= 2)
}

/// Seals and opens values, and counts those that it has no key for.
pub(super) struct Encryption {
    keys: Vec<Key>,
    unreadable: AtomicU64,
    /// When the last was met.
    met: Mutex<Option<Instant>>,
}

struct Key {
    id: [u8; ID_BYTES],
    cipher: XChaCha20Poly1305,
}

/// Why a sealed value was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It is of a key that is not here.
    Locked,
    /// It is not what was sealed, or belongs elsewhere.
    Broken,
}

/// The id of the key that a sealed value is of.
pub(super) fn key_id(sealed: &[u8]) -> Option<&[u8; ID_BYTES]> {
    sealed.strip_prefix(&[VERSION])?.first_chunk()
}

impl Encryption {
    /// With these keys; with none it is off.
    pub(super) fn new(keys: &EncryptionKeys) -> Arc<Self> {
        let keys = keys.0.iter().map(|key| {
            let id = blake3::derive_key("rejoinder v1 encryption key id", key);
            let cipher = blake3::derive_key("rejoinder v1 encryption at rest", key);
            Key {
                id: id.first_chunk().copied().unwrap_or_default(),
                cipher: XChaCha20Poly1305::new(&cipher.into()),
            }
        });
        let keys: Vec<_> = keys.collect();
        if let Some(key) = keys.first() {
            tracing::info!(key_id = id_shown(key.id), keys = keys.len(), "entries are encrypted at rest");
        }
        Arc::new(Self { keys, unreadable: AtomicU64::new(0), met: Mutex::new(None) })
    }

    /// Whether what is written is encrypted.
    pub(super) fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The ids of all keys, one after another.
    pub(super) fn ids(&self) -> Vec<u8> {
        self.keys.iter().flat_map(|key| key.id).collect()
    }

    /// Whether a value is sealed under the key that encrypts now.
    pub(super) fn is_current(&self, sealed: &[u8]) -> bool {
        self.keys.first().is_some_and(|key| Some(&key.id) == key_id(sealed))
    }

    /// Seals a value of this context. `None` where it is off, or the system gave no random bytes.
    pub(super) fn seal(&self, context: &[&[u8]], value: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + value.len() + TAG_BYTES);
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let associated = associated(key.id, context);
        let text = sealed.get_mut(HEAD_BYTES..)?;
        let tag = key.cipher.encrypt_inout_detached(&XNonce::from(nonce), &associated, text.into()).ok()?;
        sealed.extend_from_slice(&tag);
        Some(sealed)
    }

    /// Opens a value sealed for this context. One that is of a key that is not here is counted.
    pub(super) fn open(&self, context: &[&[u8]], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        self.open_unproved(context, sealed).inspect_err(|error| {
            if let (Unopened::Locked, Some(id)) = (error, key_id(sealed)) {
                self.note_locked(*id);
            }
        })
    }

    /// The same of a value that nothing proves to be whole: garbage may look like a value of another key.
    pub(super) fn open_unproved(&self, context: &[&[u8]], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (&VERSION, rest) = sealed.split_first().ok_or(Unopened::Broken)? else {
            return Err(Unopened::Broken);
        };
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or(Unopened::Broken)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Unopened::Broken)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(Unopened::Broken)?;
        let key = self.keys.iter().find(|key| key.id == *id).ok_or(Unopened::Locked)?;
        let mut value = text.to_vec();
        let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
        key.cipher
            .decrypt_inout_detached(&nonce, &associated(*id, context), value.as_mut_slice().into(), &tag)
            .map_err(|_| Unopened::Broken)?;
        Ok(value)
    }

    /// Values met that are of a key that is not here.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Whether one was met within this time.
    pub(super) fn met_within(&self, time: Duration) -> bool {
        self.met.lock().is_some_and(|met| met.elapsed() < time)
    }

    /// Counts it, and says so once.
    fn note_locked(&self, id: [u8; ID_BYTES]) {
        *self.met.lock() = Some(Instant::now());
        if self.unreadable.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(
                key_id = id_shown(id),
                own_key_id = self.keys.first().map(|key| id_shown(key.id)),
                "an entry is encrypted under a key that this process does not have: such entries are misses here and \
                 stay where they are; give that key by REJOINDER_ENCRYPTION_KEY, after the first, or purge all"
            );
        }
    }
}

/// What a value belongs to, in an encoding in which no two are alike.
fn associated(id: [u8; ID_BYTES], context: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.push(VERSION);
    out.extend_from_slice(&id);
    for part in context {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// An id as the log shows it.
fn id_shown(id: [u8; ID_BYTES]) -> String {
    format!("{:016x}", u64::from_be_bytes(id))
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encryption with keys made of these bytes.
    pub(crate) fn keys(of: &[u8]) -> EncryptionKeys {
        EncryptionKeys(of.iter().map(|byte| blake3::derive_key("a key of the tests", &[*byte])).collect())
    }

    #[test]
    fn keys_are_read_in_either_form_and_others_are_named_without_being_shown() {
        let hex = "00112233445566778899aabbccddeeff0123456789ABCDEF0123456789abcdef";
        let text = "ABEiM0RVZneImaq7zN3u/wEjRWeJq83vASNFZ4mrze8=";
        let one = EncryptionKeys::parse(hex).unwrap();
        assert_eq!(one, EncryptionKeys::parse(text).unwrap());
        assert_eq!(one, EncryptionKeys::parse(&text.replace('/', "_").replace('=', "")).unwrap());
        assert_eq!(EncryptionKeys::parse(&format!("{hex}\r\n{text}\n")).unwrap().0.len(), 2);
        assert!(EncryptionKeys::parse(" \n").unwrap().is_empty());
        for wrong in ["canary", &hex[1..], &text[1..], &text.replace("8=", "9="), &format!("{text}=")] {
            let error = EncryptionKeys::parse(&format!("{hex},{wrong}")).unwrap_err();
            assert_eq!(error, EncryptionKeysError::Key(2), "{wrong}");
            assert!(!error.to_string().contains(wrong));
        }
        assert_eq!(EncryptionKeys::parse(&"0".repeat(64)), Err(EncryptionKeysError::Trivial(1)));
        assert!(!format!("{one:?}").contains("17"));
    }

    proptest! {
        #[test]
        fn a_value_is_opened_in_its_context_alone(
            value: Vec<u8>, kind: Vec<u8>, place: Vec<u8>, at: prop::sample::Index, bit in 0_u32..8, cut: bool
        ) {
            let one = Encryption::new(&keys(&[1]));
            let context: [&[u8]; 2] = [&kind, &place];
            let sealed = one.seal(&context, &value).unwrap();
            prop_assert_eq!(one.open(&context, &sealed), Ok(value.clone()));
            prop_assert_ne!(&sealed, &one.seal(&context, &value).unwrap());
            prop_assert!(one.is_current(&sealed));
            // Rotated: it is read, and no longer current.
            let rotated = Encryption::new(&keys(&[2, 1]));
            prop_assert_eq!(rotated.open(&context, &sealed), Ok(value.clone()));
            prop_assert!(!rotated.is_current(&sealed));
            for other in [Encryption::new(&keys(&[2])), Encryption::new(&keys(&[]))] {
                prop_assert_eq!(other.open(&context, &sealed), Err(Unopened::Locked));
                prop_assert_eq!(other.unreadable(), 1);
            }
            let elsewhere: [&[u8]; 2] = [&place, &kind];
            if kind != place {
                prop_assert_eq!(one.open(&elsewhere, &sealed), Err(Unopened::Broken));
            }
            prop_assert_eq!(one.open(&context[..1], &sealed), Err(Unopened::Broken));
            let mut changed = sealed;
            let at = at.index(changed.len());
            if cut { changed.truncate(at); } else { changed[at] ^= 1 << bit; }
            prop_assert!(one.open(&context, &changed).is_err());
        }

        #[test]
        fn any_bytes_are_opened_without_a_panic(sealed: Vec<u8>) {
            prop_assert!(Encryption::new(&keys(&[1])).open(&[], &sealed).is_err());
        }
    }
}
