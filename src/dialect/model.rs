//! Which model a body asks for, where nothing else is read of it.
//!
//! Called by `proxy`, which chooses the upstream by it, for requests that pass through.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// The member `model` of a JSON object. `None` where there is none, where it is no text, and where two parsers may find
/// two: it comes twice, or also in other case, which Go's `encoding/json`, and so Ollama, takes for the same.
pub fn model_of(body: &[u8]) -> Option<Cow<'_, str>> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let model = deserializer.deserialize_map(Members).ok()?;
    deserializer.end().ok()?;
    model.filter(|model| !model.is_empty())
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut model = None;
        let mut seen = 0;
        while let Some(name) = members.next_key::<Text<'de>>()? {
            if !name.0.eq_ignore_ascii_case("model") {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            seen += 1;
            if name.0 == "model" {
                model = Some(members.next_value::<Text<'de>>()?.0);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(model.filter(|_| seen == 1))
    }
}

/// A string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_read_where_there_is_one_beyond_doubt() {
        for (body, model) in [
            (r#"{"messages":[{"model":"x"}],"model":"llama3.2"}"#, Some("llama3.2")),
            (r#"{"model":"gpt\u002d4"}"#, Some("gpt-4")),
            (r#"{"model":"a","seed":123456789012345678901234567890,"seed":1,"Stream":true}"#, Some("a")),
            (r#"{"model":"a","model":"b"}"#, None),
            (r#"{"model":"a","mod\u0065l":"a"}"#, None),
            (r#"{"model":"a","Model":"b"}"#, None),
            (r#"{"MODEL":"a"}"#, None),
            (r#"{"model":null}"#, None),
            (r#"{"model":""}"#, None),
            (r#"{"model":5}"#, None),
            (r#"{"model":"a"} {"model":"b"}"#, None),
            (r#"{"model":"a""#, None),
            (r#"["model"]"#, None),
            ("", None),
        ] {
            assert_eq!(model_of(body.as_bytes()).as_deref(), model, "{body}");
        }
    }
}
