//! A reply's document as it is judged: borrowed from its bytes, so that a miss allocates little for what it looks at once.
//!
//! Called by [`reply`](super::reply) and the endpoints. Takes and refuses what [`serde_json::Value`] does, by which a
//! stored document is replayed; only their maps, made to be changed and asked often, cost a fifth of a miss.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::dialect::json::Name;

/// A value of a document.
#[derive(Debug, PartialEq)]
pub(super) enum BorrowedValue<'a> {
    Null,
    Bool,
    /// With its value where that is a whole number in the range of `u64`.
    Number(Option<u64>),
    Text(Cow<'a, str>),
    Array(Vec<BorrowedValue<'a>>),
    Object(Vec<(Name<'a>, BorrowedValue<'a>)>),
}

impl BorrowedValue<'_> {
    /// The member of an object; of a name that repeats the last counts.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().rev().find_map(|(other, value)| (other.0 == name).then_some(value))
            }
            _ => None,
        }
    }

    pub(super) fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(value) => *value,
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for BorrowedValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = BorrowedValue<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(BorrowedValue::Null)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(BorrowedValue::Bool)
            }
            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(BorrowedValue::Number(Some(value)))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                // Negative: what is not comes as a `u64`.
                Ok(BorrowedValue::Number(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(BorrowedValue::Number(None))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(BorrowedValue::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(BorrowedValue::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(BorrowedValue::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(BorrowedValue::Object(members))
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Whether both ways of reading see the same wherever a reply is looked at.
    fn agree(read: &BorrowedValue<'_>, value: &Value) -> bool {
        let here = read.as_str() == value.as_str()
            && read.as_u64() == value.as_u64()
            && read.is_null() == value.is_null()
            && read.is_object() == value.is_object()
            && read.as_array().map(<[_]>::len) == value.as_array().map(Vec::len);
        let items = read.as_array().into_iter().flatten().zip(value.as_array().into_iter().flatten());
        let members = value.as_object().into_iter().flatten();
        here && items.into_iter().all(|(read, value)| agree(read, value))
            && members.into_iter().all(|(name, value)| read.get(name).is_some_and(|read| agree(read, value)))
    }

    #[test]
    fn a_document_is_read_as_serde_json_reads_it() {
        let deep = "[".repeat(127) + &"]".repeat(127);
        let too_deep = "[".repeat(129) + &"]".repeat(129);
        for text in [
            r#"{"a":1,"b":[-1,1.5,1e3,18446744073709551615,18446744073709551616],"c":{"d":null,"e":true}}"#,
            r#"{"a":1,"a":"\u00e9","\u0061":["x\ny"]}"#,
            r#""\ud800""#,
            "1e400",
            "{} {}",
            "\u{feff}{}",
            r#"{"a":}"#,
            &deep,
            &too_deep,
        ] {
            match (serde_json::from_str::<BorrowedValue<'_>>(text), serde_json::from_str::<Value>(text)) {
                (Ok(read), Ok(value)) => assert!(agree(&read, &value), "{text}"),
                (read, value) => assert_eq!(read.is_ok(), value.is_ok(), "{text}"),
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_it_is_both_agree(text in "[\\[\\]{}\",:a\\\\u01e.\\- tn]{0,40}") {
            match (serde_json::from_str::<BorrowedValue<'_>>(&text), serde_json::from_str::<Value>(&text)) {
                (Ok(read), Ok(value)) => prop_assert!(agree(&read, &value)),
                (read, value) => prop_assert_eq!(read.is_ok(), value.is_ok()),
            }
        }
    }
}
