//! The names of keys in Redis. They hold keyed hashes alone: no prompt, no credential, nothing that can be
//! guessed and tested without the secret.
//!
//! All names of one scope have its tag in braces, by which a cluster keeps them in one slot (Redis Cluster
//! specification, "Hash tags"), so that no command crosses slots.

use super::super::entry::{EntryId, Partition, TAG_BYTES};
use crate::hexadecimal;

/// Bytes of an entry's id after its scope's tag.
const REST_BYTES: usize = 16 - TAG_BYTES;

/// Makes names with a prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

/// The first bytes of a scope, of which all its keys, partitions and ids begin.
pub(super) type Tag = [u8; TAG_BYTES];

impl Names {
    /// Names that begin with a prefix.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The hash of an entry.
    pub(super) fn entry(&self, id: &EntryId) -> String {
        let (tag, rest) = id.0.split_at(TAG_BYTES);
        self.name("entry", tag, rest)
    }

    /// The sorted set of a partition's entries by version.
    pub(super) fn index(&self, partition: &Partition) -> String {
        let (tag, rest) = partition.0.split_at(TAG_BYTES);
        self.name("index", tag, rest)
    }

    /// The sorted set of a scope's entries that have no embedding, by version.
    pub(super) fn unplaced(&self, tag: Tag) -> String {
        self.name("index", &tag, &[])
    }

    /// The hash of hit counts of a scope.
    pub(super) fn hits(&self, tag: Tag) -> String {
        self.name("hits", &tag, &[])
    }

    /// When credentials were last accepted.
    pub(super) fn credential(&self, credential: &[u8; 32]) -> String {
        let (tag, rest) = credential.split_at(TAG_BYTES);
        self.name("credential", tag, rest)
    }

    /// The secret of keyed hashes that replicas agreed upon.
    pub(super) fn secret(&self) -> String {
        format!("{}:secret", self.prefix)
    }

    /// What the names of all entries begin with.
    pub(super) fn entries(&self) -> String {
        format!("{}:entry:", self.prefix)
    }

    /// The id in an entry's name; `None` for another name.
    pub(super) fn id_of(&self, name: &[u8]) -> Option<EntryId> {
        let rest = name.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":entry:{")?;
        let (tag, rest) = rest.split_at_checked(2 * TAG_BYTES)?;
        let rest = rest.strip_prefix(b"}")?;
        if rest.len() != 2 * REST_BYTES {
            return None;
        }
        std::str::from_utf8(&[tag, rest].concat()).ok()?.parse().ok()
    }

    fn name(&self, kind: &str, tag: &[u8], rest: &[u8]) -> String {
        let mut name =
            String::with_capacity(self.prefix.len() + kind.len() + 2 * (tag.len() + rest.len()) + 4);
        name.push_str(&self.prefix);
        name.push(':');
        name.push_str(kind);
        name.push_str(":{");
        hexadecimal::write(&mut name, tag);
        name.push('}');
        hexadecimal::write(&mut name, rest);
        name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entrys_name_gives_its_id_back_and_shares_the_tag_of_its_scope(id: [u8; 16], rest: [u8; 24]) {
            let names = Names::new("rejoinder");
            let name = names.entry(&EntryId(id));
            prop_assert_eq!(names.id_of(name.as_bytes()), Some(EntryId(id)));
            let mut partition = [0; 32];
            partition[..TAG_BYTES].copy_from_slice(&id[..TAG_BYTES]);
            partition[TAG_BYTES..].copy_from_slice(&rest);
            let tag = |name: &str| name.split(['{', '}']).nth(1).map(str::to_owned);
            prop_assert_eq!(tag(&name), tag(&names.index(&Partition(partition))));
            prop_assert_eq!(tag(&name), tag(&names.hits(*id.first_chunk().unwrap())));
        }

        #[test]
        fn another_name_is_none(name: Vec<u8>) {
            prop_assert_eq!(Names::new("rejoinder").id_of(&name), None);
        }
    }

    #[test]
    fn names_look_as_documented() {
        let names = Names::new("rejoinder");
        assert_eq!(names.entry(&EntryId([0xab; 16])), "rejoinder:entry:{abababababababab}abababababababab");
        assert!(names.id_of(b"rejoinder:index:{abababababababab}abababababababab").is_none());
        assert!(names.id_of(b"other:entry:{abababababababab}abababababababab").is_none());
    }
}
