//! The top-level members of a JSON document and where each value stands in it, found without rebuilding it.
//!
//! Called by the dialects: to cut a stored document around what each replay renews, and to take an injected
//! `usage` out of a stream's chunk, with every other byte as upstream wrote it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::template::{Slot, Writer};

/// A top-level member: its name, and the bytes of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name, unescaped.
    pub name: String,
    /// Where the value stands, in bytes of the document.
    pub value: Range<usize>,
}

/// The top-level members of `document` in their order; `None` where it is no JSON object.
pub fn members(document: &str) -> Option<Vec<Member>> {
    struct Members(usize);
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<Member>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                // The raw value borrows from the document, so its address tells its place.
                let start = value.get().as_ptr() as usize - self.0;
                members.push(Member { name, value: start..start + value.get().len() });
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(document);
    let members = deserializer.deserialize_map(Members(document.as_ptr() as usize)).ok()?;
    deserializer.end().ok()?;
    Some(members)
}

/// The top-level members of `document` in their order, each value as it stands there.
pub(crate) fn entries(document: &str) -> Option<Vec<(String, &str)>> {
    let members = members(document)?;
    Some(members.into_iter().filter_map(|m| document.get(m.value).map(|value| (m.name, value))).collect())
}

/// The document on one line, for framings that end at a line break. Line breaks stand between the tokens of a
/// JSON document, never inside a string, so blanks in their place say the same.
pub(crate) fn one_line(document: &str) -> Cow<'_, str> {
    if document.contains(['\n', '\r']) {
        Cow::Owned(document.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(document)
    }
}

/// Writes `document` as it is and without a copy, with slots in place of those of its `members` that `slot_of`
/// names. `members` are the document's own, as [`members()`] found them.
pub(crate) fn write_with_slots(
    document: &Bytes,
    members: &[Member],
    writer: &mut Writer,
    slot_of: impl Fn(&str) -> Option<Slot>,
) {
    let mut written = 0;
    for member in members {
        if let Some(slot) = slot_of(&member.name) {
            writer.shared(document.slice(written..member.value.start));
            writer.slot(slot);
            written = member.value.end;
        }
    }
    writer.shared(document.slice(written..));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Echo;

    #[test]
    fn values_are_found_where_they_stand() {
        let document = " { \"id\" : \"a\\u00e9\", \"n\": {\"id\": 1}, \"c\":17 } ";
        let found: Vec<_> =
            members(document).unwrap().into_iter().map(|m| (m.name, document[m.value].to_owned())).collect();
        assert_eq!(
            found,
            [("id", "\"a\\u00e9\""), ("n", "{\"id\": 1}"), ("c", "17")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
        assert_eq!(members("[1]"), None);
        assert_eq!(members("{} x"), None);
    }

    #[test]
    fn slots_replace_values_and_leave_the_rest() {
        let document = Bytes::from_static(b"{ \"t\" : 1, \"text\":\"t\", \"t\":[2] }\n");
        let members = members(std::str::from_utf8(&document).unwrap()).unwrap();
        let mut writer = Writer::new("", &document);
        write_with_slots(&document, &members, &mut writer, |name| (name == "t").then_some(Slot::Created));
        let rendered = writer.finish().unwrap().render(&Echo::default(), std::time::SystemTime::UNIX_EPOCH);
        assert_eq!(rendered, "{ \"t\" : 0, \"text\":\"t\", \"t\":0 }\n");
    }
}
