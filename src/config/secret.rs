//! Secrets: never printed, read from the environment or a file that the environment names.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ConfigError, Environment};

/// A secret. Shown and written as `***`, always.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret of an environment variable, or of the file that `<variable>_FILE` names. Empty counts as absent.
    pub fn of_environment(variable: &str, environment: Environment<'_>) -> Result<Option<Self>, ConfigError> {
        read(variable, environment)
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Reads a secret of the file; empty counts as absent, as in the environment. What stands there is never shown,
/// not even in an error.
pub(super) fn of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => Ok(Some(text).filter(|text| !text.is_empty()).map(Secret)),
        _ => Err(de::Error::custom("a secret is a string in quotation marks")),
    }
}

/// The secret of `variable`, or of the file that `<variable>_FILE` names, its final line break aside. Empty
/// counts as absent.
pub(super) fn read(variable: &str, environment: Environment<'_>) -> Result<Option<Secret>, ConfigError> {
    let text = match environment(variable) {
        Some(text) => Some(text),
        None => match environment(&format!("{variable}_FILE")) {
            Some(path) => Some(std::fs::read_to_string(&path).map_err(|source| ConfigError::SecretFile {
                variable: format!("{variable}_FILE"),
                path: path.into(),
                source,
            })?),
            None => None,
        },
    };
    Ok(text
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .filter(|text| !text.is_empty())
        .map(Secret))
}
