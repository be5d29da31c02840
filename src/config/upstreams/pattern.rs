//! Patterns of models' names.
//!
//! Called by [`super`], and by `proxy` for each request whose model matters.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name of a model that is looked at, in bytes; a longer one is no model's.
const LONGEST_MODEL: usize = 256;

/// A pattern of models' names: `*` is any run of characters, `?` any one, everything else itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPattern(Vec<char>);

impl ModelPattern {
    /// Whether a model has such a name, in the same case.
    pub fn matches(&self, model: &str) -> bool {
        if model.len() > LONGEST_MODEL {
            return false;
        }
        let model: Vec<char> = model.chars().collect();
        matches(&self.0, &model)
    }

    /// Whether it certainly matches all that the other does. Some pairs of which that is true are not found.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let wild = |pattern: &[char]| pattern.iter().any(|&c| c == '*' || c == '?');
        if self == other || (!wild(&other.0) && matches(&self.0, &other.0)) {
            return true;
        }
        match self.0.split_last() {
            Some(('*', before)) => {
                let literal = before.strip_suffix(&['*']).unwrap_or(before);
                !wild(literal) && other.0.starts_with(literal)
            }
            _ => false,
        }
    }
}

/// Goes back to the last `*` alone, since what an earlier one could take more, the last can too; so the time is the
/// product of both lengths at most.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut star = None;
    while let Some(&character) = text.get(at_text) {
        match pattern.get(at_pattern) {
            Some('*') => {
                star = Some((at_pattern, at_text));
                at_pattern += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == character => {
                at_pattern += 1;
                at_text += 1;
            }
            _ => match &mut star {
                Some((of, taken)) => {
                    *taken += 1;
                    (at_pattern, at_text) = (*of + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at_pattern).all(|&rest| rest == '*')
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|character| fmt::Write::write_char(f, *character))
    }
}

impl Serialize for ModelPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() {
            return Err(de::Error::custom("an empty pattern matches no model; use \"*\" for all"));
        }
        if text.len() > LONGEST_MODEL {
            return Err(de::Error::custom(format!("a pattern has {LONGEST_MODEL} bytes at most")));
        }
        Ok(Self(text.chars().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let pattern = |text: &str| ModelPattern(text.chars().collect());
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
        ] {
            assert!(!pattern(text).matches(name), "{text} {name}");
        }
        assert!(!pattern("*").matches(&"x".repeat(LONGEST_MODEL + 1)));
        // Not exponential in the number of stars.
        assert!(!pattern(&"*a".repeat(128)).matches(&"a".repeat(127)));
    }
}
