//! Scopes and keys: keyed BLAKE3 over an encoding in which no two different inputs look alike.
//!
//! Called by `cache` alone. Everything that can change a reply is in the scope; the prompt joins it in the key.

use parking_lot::RwLock;

use crate::dialect::Endpoint;
use crate::dialect::json::Json;
use crate::store::entry::{Key, Partition, Scope};
use crate::store::{SharedSecret, Store};

/// The keys of the keyed hashes, one per purpose, all derived from one secret, so that nobody without it can
/// test a guess of a prompt or a credential against what is stored.
#[derive(Clone)]
pub struct Keys {
    scope: [u8; 32],
    exact: [u8; 32],
    partition: [u8; 32],
    credential: [u8; 32],
    request: [u8; 32],
    check: [u8; 32],
}

/// The keys in force.
pub enum KeyRing {
    /// Of a secret that stays.
    Fixed(Keys),
    /// Of the secret that the replicas of a store agreed upon, which this one may learn late.
    Agreed {
        /// The secret.
        secret: SharedSecret,
        /// The keys, and what they were made of.
        current: RwLock<([u8; 32], Keys)>,
    },
}

/// What of a request besides its body can change the reply: plain bytes, as they are forwarded.
#[derive(Debug, Clone, Default)]
pub struct Identity<'a> {
    /// The upstream's base URL.
    pub upstream: &'a str,
    /// The query string, as sent.
    pub query: Option<&'a str>,
    /// The headers that say who asks, each value as forwarded, repeated ones in their order.
    pub credentials: Vec<(&'a str, &'a [u8])>,
    /// The key that goes upstream in the place of these, under a name that no header has; `None` where they go
    /// themselves.
    pub key: Option<(&'a str, &'a [u8])>,
    /// The other headers in the scope.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// The namespace of the request; empty without one.
    pub namespace: &'a str,
    /// The request's `user` field, where the configuration puts it into the scope.
    pub user: Option<&'a str>,
}

/// Names a request to the byte, of its identity and its body. It holds the prompt, as what is remembered by it does, and
/// no credentials. Compared to the byte, it takes no hash that nobody can find two requests for, which costs as much as
/// all else of an exact lookup.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Vec<u8>);

impl RequestId {
    /// How many bytes it keeps in memory.
    pub fn weight(&self) -> usize {
        self.0.capacity()
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestId").finish_non_exhaustive()
    }
}

/// The longest body that stands in the name of its request; of a longer one it is a hash.
const LONGEST_BODY: usize = 4096;

/// Names a caller's credentials without holding them: a keyed hash over the upstream and every credential header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialId(pub [u8; 32]);

impl KeyRing {
    /// Keys of the configuration's secret, or of the store's where there is none.
    pub fn new(configured: Option<&[u8]>, store: &Store) -> Self {
        if let Some(secret) = configured {
            return Self::Fixed(Keys::new(secret));
        }
        let secret = store.secret();
        let first = *secret.borrow();
        match store {
            Store::Embedded(_) => Self::Fixed(Keys::new(&first)),
            Store::Redis(_) => Self::Agreed { secret, current: RwLock::new((first, Keys::new(&first))) },
        }
    }

    /// Uses the keys that are in force now.
    pub fn with<T>(&self, work: impl FnOnce(&Keys) -> T) -> T {
        match self {
            Self::Fixed(keys) => work(keys),
            Self::Agreed { secret, current } => {
                let secret = *secret.borrow();
                {
                    let current = current.read();
                    if current.0 == secret {
                        return work(&current.1);
                    }
                }
                *current.write() = (secret, Keys::new(&secret));
                work(&current.read().1)
            }
        }
    }
}

impl Keys {
    /// Derives the keys from the secret (`REJOINDER_SECRET`, or the store's own).
    pub fn new(secret: &[u8]) -> Self {
        Self {
            scope: blake3::derive_key("rejoinder v1 scope", secret),
            exact: blake3::derive_key("rejoinder v1 exact key", secret),
            partition: blake3::derive_key("rejoinder v1 partition", secret),
            credential: blake3::derive_key("rejoinder v1 credential", secret),
            request: blake3::derive_key("rejoinder v1 request", secret),
            check: blake3::derive_key("rejoinder v1 export check", secret),
        }
    }

    /// What is the same for the same secret alone, and does not give it away.
    pub fn check(&self) -> [u8; 32] {
        hash(&self.check, b"")
    }

    /// A request to the byte: whoever sends the same again need not have it read again. For the memory of this process
    /// alone. Under other keys it is another.
    pub fn request(&self, endpoint: Endpoint, identity: &Identity<'_>, body: &[u8]) -> RequestId {
        let mut out = Vec::with_capacity(384 + body.len().min(LONGEST_BODY));
        out.extend_from_slice(&self.request);
        let secrets = [&identity.credentials[..], identity.key.as_slice()];
        if secrets.iter().all(|list| list.is_empty()) {
            optional(&mut out, None);
        } else {
            let mut said = Secret::default();
            headers(&mut said, secrets);
            optional(&mut out, Some(&hash(&self.request, said.bytes())));
        }
        text(&mut out, identity.upstream.as_bytes());
        text(&mut out, endpoint.path().as_bytes());
        optional(&mut out, identity.query.map(str::as_bytes));
        headers(&mut out, [&identity.headers, &[]]);
        text(&mut out, identity.namespace.as_bytes());
        optional(&mut out, identity.user.map(str::as_bytes));
        let whole = body.len() <= LONGEST_BODY;
        out.push(u8::from(whole));
        if whole {
            text(&mut out, body);
        } else {
            out.extend_from_slice(&hash(&self.request, body));
        }
        RequestId(out)
    }

    /// The scope of a request: its identity, its endpoint, and its body with the prompt taken out.
    pub fn scope(&self, endpoint: Endpoint, identity: &Identity<'_>, body: &Json<'_>) -> Scope {
        let mut out = Vec::with_capacity(1024);
        self::identity(&mut out, endpoint, identity);
        body.encode(&mut out);
        Scope(hash(&self.scope, &out))
    }

    /// The exact key: the scope and the normalised prompt. A request without a prompt of its own has its whole
    /// body in the scope.
    pub fn exact(&self, scope: &Scope, prompt: Option<&str>) -> Key {
        let mut out = Vec::with_capacity(48 + prompt.map_or(0, str::len));
        out.extend_from_slice(&scope.0);
        optional(&mut out, prompt.map(str::as_bytes));
        Key::new(scope, hash(&self.exact, &out))
    }

    /// The set of entries a semantic lookup may search. `beyond` is the part of the prompt that the embedder
    /// does not read: only where it is equal may prompts match by meaning.
    pub fn partition(&self, scope: &Scope, embedder: &str, beyond: &str) -> Partition {
        let mut out = Vec::with_capacity(64 + embedder.len() + beyond.len());
        out.extend_from_slice(&scope.0);
        text(&mut out, embedder.as_bytes());
        text(&mut out, beyond.as_bytes());
        Partition::new(scope, hash(&self.partition, &out))
    }

    /// The credentials that upstream sees: the configured key, else the caller's; `None` where it sees none.
    pub fn credential(&self, identity: &Identity<'_>) -> Option<CredentialId> {
        let key = identity.key.as_slice();
        let seen = if key.is_empty() { &identity.credentials } else { key };
        if seen.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(256);
        text(&mut out, identity.upstream.as_bytes());
        headers(&mut out, [seen, &[]]);
        Some(CredentialId(hash(&self.credential, &out)))
    }
}

fn identity(out: &mut Vec<u8>, endpoint: Endpoint, identity: &Identity<'_>) {
    text(out, identity.upstream.as_bytes());
    text(out, endpoint.path().as_bytes());
    optional(out, identity.query.map(str::as_bytes));
    // Whoever asks with other credentials stays apart also where upstream sees the configured key alone.
    headers(out, [&identity.credentials, identity.key.as_slice()]);
    headers(out, [&identity.headers, &[]]);
    text(out, identity.namespace.as_bytes());
    optional(out, identity.user.map(str::as_bytes));
}

fn hash(key: &[u8; 32], input: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, input).as_bytes()
}

/// What an encoding is written to.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What is to be hashed and not kept: without an allocation, as a rule.
struct Secret {
    short: [u8; 256],
    length: usize,
    /// All of it, where it is longer.
    long: Vec<u8>,
}

impl Default for Secret {
    fn default() -> Self {
        Self { short: [0; 256], length: 0, long: Vec::new() }
    }
}

impl Secret {
    fn bytes(&self) -> &[u8] {
        if self.long.is_empty() { self.short.get(..self.length).unwrap_or_default() } else { &self.long }
    }
}

impl Sink for Secret {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if self.long.is_empty()
            && let Some(room) = self.short.get_mut(self.length..end)
        {
            room.copy_from_slice(bytes);
            self.length = end;
            return;
        }
        if self.long.is_empty() {
            self.long = self.bytes().to_vec();
        }
        self.long.extend_from_slice(bytes);
    }
}

fn text(out: &mut impl Sink, bytes: &[u8]) {
    out.put(&(bytes.len() as u64).to_le_bytes());
    out.put(bytes);
}

fn optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    text(out, bytes.unwrap_or_default());
}

/// Two lists of headers as one.
fn headers(out: &mut impl Sink, lists: [&[(&str, &[u8])]; 2]) {
    let count: usize = lists.iter().map(|list| list.len()).sum();
    out.put(&(count as u64).to_le_bytes());
    for (name, value) in lists.into_iter().flatten() {
        text(out, name.as_bytes());
        text(out, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keys {
        Keys::new(b"a secret of the tests")
    }

    fn identity<'a>(parts: &'a [String; 4], headers: &'a [(String, Vec<u8>)]) -> Identity<'a> {
        let [upstream, query, namespace, _] = parts;
        Identity {
            upstream,
            query: (!query.is_empty()).then_some(query),
            credentials: headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect(),
            key: None,
            headers: Vec::new(),
            namespace,
            user: None,
        }
    }

    proptest! {
        #[test]
        fn any_difference_is_another_scope(
            a in any::<[String; 4]>(), b in any::<[String; 4]>(),
            ha in proptest::collection::vec(any::<(String, Vec<u8>)>(), 0..3),
            hb in proptest::collection::vec(any::<(String, Vec<u8>)>(), 0..3),
        ) {
            let body = |parts: &[String; 4]| Json::Text(parts[3].clone().into());
            let scope = |parts: &[String; 4], headers: &[(String, Vec<u8>)]|
                keys().scope(Endpoint::OpenAiChat, &identity(parts, headers), &body(parts));
            prop_assert_eq!(scope(&a, &ha) == scope(&b, &hb), a == b && ha == hb);
            prop_assert_eq!(scope(&a, &ha), scope(&a, &ha));
            let request = |parts: &[String; 4], headers: &[(String, Vec<u8>)]|
                keys().request(Endpoint::OpenAiChat, &identity(parts, headers), parts[3].as_bytes());
            prop_assert_eq!(request(&a, &ha) == request(&b, &hb), a == b && ha == hb);
            prop_assert_eq!(request(&a, &ha), request(&a, &ha));
        }

        #[test]
        fn a_boundary_cannot_be_moved(text in "[a-c]{2,8}", at in 1usize..7) {
            let (left, right) = text.split_at(at.min(text.len() - 1));
            let identity = |upstream, namespace| Identity { upstream, namespace, ..Identity::default() };
            let scope = |upstream, namespace|
                keys().scope(Endpoint::OpenAiChat, &identity(upstream, namespace), &Json::Null);
            prop_assert_ne!(scope(left, right), scope(&text, ""));
            prop_assert_ne!(scope(left, right), scope("", &text));
        }
    }

    #[test]
    fn a_configured_key_and_the_callers_credentials_both_separate() {
        let of = |key: Option<&'static str>, caller: &[&'static str]| {
            let identity = Identity {
                key: key.map(|key| ("configured authorization", key.as_bytes())),
                credentials: caller.iter().map(|value| ("authorization", value.as_bytes())).collect(),
                ..Identity::default()
            };
            (keys().scope(Endpoint::OpenAiChat, &identity, &Json::Null), keys().credential(&identity))
        };
        let all = [
            of(None, &[]),
            of(None, &["a"]),
            of(Some("a"), &[]),
            of(Some("a"), &["a"]),
            of(Some("a"), &["b"]),
            of(Some("b"), &["a"]),
        ];
        for (at, (scope, _)) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|(other, _)| other != scope), "{at}");
        }
        // What upstream accepts or refuses is what it sees.
        assert_eq!((all[2].1, all[3].1), (all[4].1, all[4].1));
        assert!(all[2].1.is_some() && all[2].1 != all[1].1 && all[2].1 != all[5].1);
    }

    #[test]
    fn a_request_is_told_from_others_whatever_its_length_and_holds_no_credentials() {
        let request = |secret: &[u8], identity: &Identity<'_>, body: &[u8]| {
            Keys::new(secret).request(Endpoint::OpenAiChat, identity, body)
        };
        let none = Identity::default();
        let of = |value| Identity { credentials: vec![("authorization", value)], ..Identity::default() };
        let canary = request(b"s", &of(b"Bearer canary"), b"x");
        assert!(!String::from_utf8_lossy(&canary.0).contains("canary"));
        assert_ne!(canary, request(b"s", &of(b"Bearer other"), b"x"));
        assert_ne!(canary, request(b"other", &of(b"Bearer canary"), b"x"));
        let key = Identity { key: Some(("key", b"k")), ..of(b"Bearer canary") };
        assert_ne!(canary, request(b"s", &key, b"x"));
        let mut seen = std::collections::HashSet::new();
        for length in [0, 1, LONGEST_BODY, LONGEST_BODY + 1, 2 * LONGEST_BODY] {
            for last in [b'a', b'b'] {
                let mut body = vec![b' '; length];
                if let Some(end) = body.last_mut() {
                    *end = last;
                }
                assert_eq!(seen.insert(request(b"s", &none, &body)), length > 0 || last == b'a');
            }
        }
    }

    #[test]
    fn a_secret_is_hashed_whole_whatever_its_length() {
        for lengths in [[0, 0], [0, 256], [256, 1], [100, 156], [100, 157], [300, 300]] {
            let (mut secret, mut all) = (Secret::default(), Vec::new());
            for (byte, length) in lengths.into_iter().enumerate() {
                let bytes = vec![u8::try_from(byte).unwrap(); length];
                secret.put(&bytes);
                all.put(&bytes);
            }
            assert_eq!(secret.bytes(), all);
        }
    }

    #[test]
    fn endpoint_secret_and_absence_separate() {
        let none = Identity::default();
        let scope = keys().scope(Endpoint::OpenAiChat, &none, &Json::Null);
        assert_ne!(scope, keys().scope(Endpoint::OllamaChat, &none, &Json::Null));
        assert_ne!(scope, Keys::new(b"another").scope(Endpoint::OpenAiChat, &none, &Json::Null));
        assert_ne!(keys().exact(&scope, None), keys().exact(&scope, Some("")));
        assert_ne!(keys().partition(&scope, "a", "b"), keys().partition(&scope, "ab", ""));
        assert_eq!(keys().credential(&none), None);
    }
}
