//! JSON as the cache needs it: borrowed, strict about what parsers may read differently, and with one
//! canonical encoding per value.
//!
//! Called by the dialects, to read requests; by `cache::key`, which hashes the canonical encoding.
//! Knows nothing of any API.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Why a body is not read. Such a body is never an error of the proxy's: it goes upstream untouched.
#[derive(Debug, thiserror::Error)]
#[error("not unambiguous JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// A JSON value (RFC 8259) that borrows from the body it was read from.
///
/// Reading refuses what two parsers may read differently (RFC 8259 §4 and §6): names that repeat within an
/// object, also where they differ in case alone (Go's `encoding/json`, and so Ollama, folds case), and numbers
/// beyond the integers that every parser keeps.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number; `1.0` and `1` are equal.
    Number(Number),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
    /// The place from which the prompt was taken: what remains around it is the scope.
    Prompt,
}

/// A number, with one representation per value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number in the range of `i64`, however it was written.
    Integer(i64),
    /// A whole number above `i64::MAX`, in the range of `u64`.
    Large(u64),
    /// Anything else; never whole and below 2^53, never NaN or infinite.
    Float(f64),
}

/// An object's members, in the order they came in: a model that is shown an object, a schema say, answers in that order.
/// Where it says nothing, a dialect sorts them ([`Object::sort`]).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Json<'a>)>,
}

impl<'a> Json<'a> {
    /// Reads a whole body.
    ///
    /// # Errors
    /// Not JSON, nested deeper than 128, or ambiguous as the type's documentation says.
    pub fn parse(body: &'a [u8]) -> Result<Self, JsonError> {
        Ok(serde_json::from_slice(body)?)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The members of an object, to be changed.
    pub fn as_object_mut(&mut self) -> Option<&mut Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Json<'a>]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The items of an array, to be changed.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Json<'a>>> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Appends the canonical encoding: equal values give equal bytes and different values different bytes,
    /// since every part is preceded by its kind and its length. Objects with their members in another order are
    /// different values. It is made to be hashed, not to be read back.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(b'n'),
            Self::Bool(false) => out.push(b'f'),
            Self::Bool(true) => out.push(b't'),
            Self::Number(Number::Integer(value)) => {
                out.push(b'i');
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Number(Number::Large(value)) => {
                out.push(b'u');
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Number(Number::Float(value)) => {
                out.push(b'd');
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            Self::Text(text) => encode_text(text, out),
            Self::Array(items) => {
                out.push(b'a');
                encode_length(items.len(), out);
                for item in items {
                    item.encode(out);
                }
            }
            Self::Object(object) => {
                out.push(b'o');
                encode_length(object.members.len(), out);
                for (name, value) in &object.members {
                    encode_text(name, out);
                    value.encode(out);
                }
            }
            Self::Prompt => out.push(b'p'),
        }
    }

    /// The value as `serde_json` has it, for a reply that echoes part of its request.
    pub fn to_value(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null | Self::Prompt => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(Number::Integer(value)) => Value::from(*value),
            Self::Number(Number::Large(value)) => Value::from(*value),
            Self::Number(Number::Float(value)) => Value::from(*value),
            Self::Text(text) => Value::String(text.to_string()),
            Self::Array(items) => Value::Array(items.iter().map(Json::to_value).collect()),
            Self::Object(object) => Value::Object(
                object.members.iter().map(|(name, value)| (name.to_string(), value.to_value())).collect(),
            ),
        }
    }
}

fn encode_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.push(b's');
    encode_length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

impl<'a> Object<'a> {
    /// The value of a member; `null` counts as absent.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.position(name)
            .and_then(|at| self.members.get(at))
            .map(|(_, value)| value)
            .filter(|v| **v != Json::Null)
    }

    /// The value of a member, to be changed; `null` counts as absent.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Json<'a>> {
        let at = self.position(name)?;
        self.members.get_mut(at).map(|(_, value)| value).filter(|v| **v != Json::Null)
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &str) -> Option<Json<'a>> {
        self.position(name).map(|at| self.members.remove(at).1)
    }

    /// Sorts the members by name, so that their order no longer counts. Not those of the members' own objects.
    pub fn sort(&mut self) {
        self.members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    }

    /// Drops the members that are `null`: in a request they count as absent.
    pub fn drop_nulls(&mut self) {
        self.members.retain(|(_, value)| *value != Json::Null);
    }

    /// All members, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.members.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|(other, _)| other == name)
    }

    /// Takes members as they came in, unless two names could be taken for one.
    fn new(members: Vec<(Cow<'a, str>, Json<'a>)>) -> Option<Self> {
        let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        let repeated = names.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
        let plain = names.iter().all(|name| name.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()));
        if repeated || !(plain || distinct_when_folded(&members)) {
            return None;
        }
        Some(Self { members })
    }
}

/// Whether no two names fold to one, by the folding of Go's `encoding/json`: simple case folding, under which
/// the long s and the Kelvin sign are letters of ASCII.
fn distinct_when_folded(members: &[(Cow<'_, str>, Json<'_>)]) -> bool {
    let mut seen = HashSet::with_capacity(members.len());
    members.iter().all(|(name, _)| {
        let folded: String = name
            .chars()
            .flat_map(char::to_lowercase)
            .map(|c| match c {
                '\u{17f}' => 's',
                other => other,
            })
            .collect();
        seen.insert(folded)
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

/// 2^53: up to here every whole number is one `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(Number::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(i64::try_from(value).map_or(Number::Large(value), Number::Integer)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        if value.abs() > EXACT {
            // A whole number this large may have lost digits on the way here, or will lose them upstream.
            return Err(E::custom("a number beyond the exact integers"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole and at most 2^53")]
        let number = if value.fract() == 0.0 { Number::Integer(value as i64) } else { Number::Float(value) };
        Ok(Json::Number(number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            members.push((name, map.next_value()?));
        }
        Object::new(members)
            .map(Json::Object)
            .ok_or_else(|| de::Error::custom("a name that repeats within an object"))
    }
}

/// A member's name, borrowed where it holds no escape.
#[derive(Debug, PartialEq)]
pub(super) struct Name<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Json::parse(text.as_bytes()).unwrap().encode(&mut out);
        out
    }

    #[test]
    fn spacing_and_spelling_of_numbers_do_not_matter() {
        assert_eq!(
            encoded(r#"{"a":1,"b":[2.50,true]}"#),
            encoded(" { \"a\": 1.0,\n \"b\" : [ 2.5, true ] } ")
        );
        assert_eq!(encoded(r#""\u0061""#), encoded(r#""a""#));
        assert_eq!(encoded("-0.0"), encoded("0"));
    }

    #[test]
    fn different_values_have_different_encodings() {
        let all = [
            "null",
            "false",
            "true",
            "0",
            "1",
            "0.5",
            "\"\"",
            "\"a\"",
            "[]",
            "[[]]",
            "{}",
            r#"{"a":null}"#,
            r#"["a","b"]"#,
            r#"["ab"]"#,
            r#"["ab",""]"#,
            "18446744073709551615",
            "-1",
            r#"{"a":"b"}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"b":2,"a":1}"#,
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(encoded(a), encoded(b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn only_the_members_sorted_are_in_any_order() {
        let sorted = |text: &str| {
            let mut json = Json::parse(text.as_bytes()).unwrap();
            json.as_object_mut().unwrap().sort();
            let mut out = Vec::new();
            json.encode(&mut out);
            out
        };
        assert_eq!(sorted(r#"{"b":1,"a":2}"#), sorted(r#"{"a":2,"b":1}"#));
        assert_ne!(sorted(r#"{"a":{"b":1,"c":2}}"#), sorted(r#"{"a":{"c":2,"b":1}}"#));
    }

    #[test]
    fn what_parsers_may_read_differently_is_refused() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"prompt":"x","Prompt":"y"}"#,
            "{\"key\":1,\"\u{212a}ey\":2}",
            "{\"s\":1,\"\u{17f}\":2}",
            "100000000000000000001",
            "1e400",
            "\"\\ud800\"",
            "{} {}",
            "\u{feff}{}",
            "NaN",
            "01",
        ] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(Json::parse(deep.as_bytes()).is_err());
        assert!(Json::parse(br#"{"additionalProperties":1,"A":2,"b":3}"#).is_ok());
    }
}
