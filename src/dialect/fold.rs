//! One JSON object put together from the pieces of a stream, each value kept as the bytes that upstream wrote:
//! a number too long for any type here, or a field that nobody here knows, comes out as it came in.
//!
//! Called by the dialects when they gather a stream.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::Unstorable;
use super::members::entries;

/// More members than any API's object has. Names are searched one after the other, so without a bound a
/// hostile stream could make folding quadratic.
const MOST_MEMBERS: usize = 256;

/// An object that grows, its members in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Folded<'a> {
    members: Vec<(Cow<'a, str>, Part<'a>)>,
}

/// What a member has gathered so far.
#[derive(Debug)]
enum Part<'a> {
    /// A value as it stands in the stream.
    Raw(Cow<'a, str>),
    /// A text, concatenated and not yet escaped.
    Text(String),
    /// An array's items, one after the other.
    Items(Vec<&'a str>),
    /// An object that grows in turn.
    Object(Folded<'a>),
}

impl<'a> Folded<'a> {
    /// The object that `document` is.
    pub(crate) fn of(document: &'a str) -> Result<Self, Unstorable> {
        let mut folded = Self::default();
        for (name, raw) in entries(document).ok_or_else(no_object)? {
            folded.set(name, raw)?;
        }
        Ok(folded)
    }

    /// Sets a member to a value, given as JSON.
    pub(crate) fn set(
        &mut self,
        name: impl Into<Cow<'a, str>>,
        raw: impl Into<Cow<'a, str>>,
    ) -> Result<(), Unstorable> {
        *self.member(name.into())? = Part::Raw(raw.into());
        Ok(())
    }

    /// Whether there is such a member.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(other, _)| other == name)
    }

    /// Appends to a member that is a text; `raw` is a JSON string, or `null`, which adds nothing.
    pub(crate) fn push_text(&mut self, name: impl Into<Cow<'a, str>>, raw: &str) -> Result<(), Unstorable> {
        let Some(more) = parse::<Option<String>>(raw)? else { return Ok(()) };
        match self.member(name.into())? {
            Part::Text(text) => text.push_str(&more),
            other => {
                let mut text = match other {
                    Part::Raw(raw) => parse::<Option<String>>(raw)?.unwrap_or_default(),
                    _ => return Err(Unstorable::Malformed("a text where none was before".to_owned())),
                };
                text.push_str(&more);
                *other = Part::Text(text);
            }
        }
        Ok(())
    }

    /// Appends to a member that is an array; `raw` is an array, or `null`, which adds nothing.
    pub(crate) fn push_items(
        &mut self,
        name: impl Into<Cow<'a, str>>,
        raw: &'a str,
    ) -> Result<(), Unstorable> {
        if raw == "null" {
            return Ok(());
        }
        let more = items(raw)?;
        self.items(name.into())?.extend(more);
        Ok(())
    }

    /// Appends one item, given as JSON, to a member that is an array.
    pub(crate) fn push_item(
        &mut self,
        name: impl Into<Cow<'a, str>>,
        raw: &'a str,
    ) -> Result<(), Unstorable> {
        self.items(name.into())?.push(raw);
        Ok(())
    }

    /// The member that is an object, to be folded into; made where it is absent or `null`.
    pub(crate) fn object(&mut self, name: impl Into<Cow<'a, str>>) -> Result<&mut Self, Unstorable> {
        let part = self.member(name.into())?;
        if let Part::Raw(raw) = &*part {
            *part = Part::Object(match raw {
                Cow::Borrowed("null") => Self::default(),
                Cow::Borrowed(raw) => Self::of(raw)?,
                Cow::Owned(_) => return Err(no_object()),
            });
        }
        match part {
            Part::Object(object) => Ok(object),
            _ => Err(no_object()),
        }
    }

    /// The object as JSON.
    pub(crate) fn write(&self, out: &mut String) {
        out.push('{');
        for (at, (name, part)) in self.members.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(&quoted(name));
            out.push(':');
            match part {
                Part::Raw(raw) => out.push_str(raw),
                Part::Text(text) => out.push_str(&quoted(text)),
                Part::Items(items) => {
                    out.push('[');
                    out.push_str(&items.join(","));
                    out.push(']');
                }
                Part::Object(object) => object.write(out),
            }
        }
        out.push('}');
    }

    fn items(&mut self, name: Cow<'a, str>) -> Result<&mut Vec<&'a str>, Unstorable> {
        let part = self.member(name)?;
        if let Part::Raw(raw) = &*part {
            *part = Part::Items(match raw {
                Cow::Borrowed("null") => Vec::new(),
                Cow::Borrowed(raw) => items(raw)?,
                Cow::Owned(_) => return Err(no_array()),
            });
        }
        match part {
            Part::Items(items) => Ok(items),
            _ => Err(no_array()),
        }
    }

    /// The member of this name, made as `null` where there is none.
    fn member(&mut self, name: Cow<'a, str>) -> Result<&mut Part<'a>, Unstorable> {
        let at = match self.members.iter().position(|(other, _)| *other == name) {
            Some(at) => at,
            None if self.members.len() >= MOST_MEMBERS => {
                return Err(Unstorable::Malformed("an object of too many members".to_owned()));
            }
            None => {
                self.members.push((name, Part::Raw(Cow::Borrowed("null"))));
                self.members.len() - 1
            }
        };
        self.members
            .get_mut(at)
            .map(|(_, part)| part)
            .ok_or_else(|| Unstorable::Malformed("an object without its member".to_owned()))
    }
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The items of an array, each as it stands there.
pub(crate) fn items(raw: &str) -> Result<Vec<&str>, Unstorable> {
    Ok(parse::<Vec<&RawValue>>(raw)?.into_iter().map(RawValue::get).collect())
}

/// Reads a value. An error tells the place and never the content.
pub(crate) fn parse<'a, T: serde::Deserialize<'a>>(raw: &'a str) -> Result<T, Unstorable> {
    serde_json::from_str(raw).map_err(|error| Unstorable::malformed(&error))
}

fn no_object() -> Unstorable {
    Unstorable::Malformed("no object where one belongs".to_owned())
}

fn no_array() -> Unstorable {
    Unstorable::Malformed("no array where one belongs".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folded: &Folded<'_>) -> String {
        let mut out = String::new();
        folded.write(&mut out);
        out
    }

    #[test]
    fn members_grow_and_values_stay_as_they_were_written() {
        let mut folded =
            Folded::of(r#"{"model":"m","n":123456789012345678901234567890,"text":"a","list":null}"#).unwrap();
        folded.push_text("text", r#""\u00e9\n""#).unwrap();
        folded.push_text("text", "null").unwrap();
        folded.push_items("list", r#"[1.10, {"a":2}]"#).unwrap();
        folded.push_item("list", "3").unwrap();
        folded.object("inner").unwrap().set("x", "1e2").unwrap();
        folded.set("model", r#""k""#).unwrap();
        assert_eq!(
            written(&folded),
            r#"{"model":"k","n":123456789012345678901234567890,"text":"aé\n","list":[1.10,{"a":2},3],"inner":{"x":1e2}}"#
        );
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_without_showing_them() {
        let mut folded = Folded::of(r#"{"text":"secret"}"#).unwrap();
        for error in [
            folded.push_text("text", "1").unwrap_err(),
            folded.push_items("text", r#"["x"]"#).unwrap_err(),
            folded.object("text").map(|_| ()).unwrap_err(),
            Folded::of(r#"["secret"]"#).unwrap_err(),
        ] {
            assert!(matches!(&error, Unstorable::Malformed(_)), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_object_has_a_bounded_number_of_members() {
        let mut folded = Folded::default();
        for number in 0..MOST_MEMBERS {
            folded.set(number.to_string(), "1").unwrap();
        }
        assert!(folded.set("more", "1").is_err());
    }
}
