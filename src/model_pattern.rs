//! Patterns of models' names: which upstream serves a model, and what it costs.
//!
//! Called by `config` and `savings`, which hold them, and by `proxy` for each request whose model matters.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name of a model that is looked at, in bytes; a longer one is no model's.
const LONGEST_MODEL: usize = 256;

/// What stands for other characters.
const WILD: [char; 2] = ['*', '?'];

/// A pattern of models' names: `*` is any run of characters, `?` any one, everything else itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelPattern(String);

impl ModelPattern {
    /// The pattern of a text.
    ///
    /// # Errors
    /// Why it is none: it is empty or too long.
    pub fn new(text: String) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("an empty pattern matches no model; use \"*\" for all".to_owned());
        }
        if text.len() > LONGEST_MODEL {
            return Err(format!("a pattern has {LONGEST_MODEL} bytes at most"));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a model has such a name, in the same case.
    pub fn matches(&self, model: &str) -> bool {
        model.len() <= LONGEST_MODEL && matches(&self.0, model)
    }

    /// Whether it stands for one model alone.
    pub(crate) fn is_name(&self) -> bool {
        !self.0.contains(WILD)
    }

    /// Characters that stand for themselves.
    pub(crate) fn literals(&self) -> usize {
        self.0.chars().filter(|character| !WILD.contains(character)).count()
    }

    /// Whether it certainly matches all that the other does. Some pairs of which that is true are not found.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        if self == other || (other.is_name() && matches(&self.0, &other.0)) {
            return true;
        }
        let Some(before) = self.0.strip_suffix('*') else { return false };
        let literal = before.strip_suffix('*').unwrap_or(before);
        !literal.contains(WILD) && other.0.starts_with(literal)
    }
}

/// Goes back to the last `*` alone, since what an earlier one could take more, the last can too; so the time is the
/// product of both lengths at most.
fn matches(mut pattern: &str, mut text: &str) -> bool {
    // What follows the last `*`, and where in the text that was tried.
    let mut star: Option<(&str, &str)> = None;
    loop {
        let (mut wanted, mut found) = (pattern.chars(), text.chars());
        match (wanted.next(), found.next()) {
            (Some('*'), _) => {
                pattern = wanted.as_str();
                star = Some((pattern, text));
            }
            (Some(character), Some(other)) if character == '?' || character == other => {
                (pattern, text) = (wanted.as_str(), found.as_str());
            }
            (None, None) => return true,
            _ => {
                let Some((after, tried)) = star else { return false };
                let mut rest = tried.chars();
                if rest.next().is_none() {
                    return false;
                }
                (pattern, text) = (after, rest.as_str());
                star = Some((after, text));
            }
        }
    }
}

/// As text it is sorted and found.
impl Borrow<str> for ModelPattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ModelPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let pattern = |text: &str| ModelPattern(text.to_owned());
        for (text, name) in [
            ("gpt-4*", "gpt-4"),
            ("gpt-4*", "gpt-4o-mini"),
            ("llama3.*", "llama3.2:1b"),
            ("*", "anything/at all"),
            ("*mini*", "gpt-4o-mini"),
            ("a*b*c", "a-b-b-c"),
            ("o?", "o1"),
            ("é?", "éü"),
            ("**", "x"),
            ("**", ""),
            ("gpt-4o", "gpt-4o"),
            ("*:8b", "llama3.1:8b"),
            ("a**c", "ac"),
            ("*größe*", "die größe da"),
        ] {
            assert!(pattern(text).matches(name), "{text} {name}");
        }
        for (text, name) in [
            ("gpt-4*", "GPT-4"),
            ("llama3.*", "llama3"),
            ("o?", "o"),
            ("o?", "o12"),
            ("a*b", "a-b-c"),
            ("gpt", "gpt-4"),
            ("gpt-4o*", "xgpt-4o"),
            ("*:8b", "llama3.1:8b-q4"),
            ("aa*a", "aa"),
            ("a*b*c", "acb"),
        ] {
            assert!(!pattern(text).matches(name), "{text} {name}");
        }
        assert!(!pattern("*").matches(&"x".repeat(LONGEST_MODEL + 1)));
        // Not exponential in the number of stars.
        assert!(!pattern(&"*a".repeat(128)).matches(&"a".repeat(127)));
    }
}
