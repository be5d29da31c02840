//! Why there is no configuration to run with.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::FileError;

/// Why there is no configuration to run with. Each names the setting, the reason, and what would help.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A setting whose value cannot be used.
    #[error("{place}: {reason}")]
    Setting {
        /// Where it was set.
        place: Place,
        /// Why not, and what would do.
        reason: String,
    },
    /// A file that holds a secret could not be read.
    #[error("{variable}: cannot read {path}: {source}")]
    SecretFile {
        /// The environment variable that names it.
        variable: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Where a setting was set: the file, line and key; or the key, where flag, environment or nothing gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file and the line in it, from 1.
    pub file: Option<(PathBuf, usize)>,
    /// The key, with its table's name before it.
    pub key: String,
}

impl Place {
    /// A key that no file gave.
    pub fn of(key: &str) -> Self {
        Self { file: None, key: key.to_owned() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((path, line)) = &self.file {
            write!(f, "{}:{line}: ", path.display())?;
        }
        f.write_str(&self.key)
    }
}

/// An error in its parts, for programs and for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, where one is to blame.
    pub file: Option<PathBuf>,
    /// The line in it, from 1.
    pub line: Option<usize>,
    /// The key or the environment variable.
    pub key: Option<String>,
    /// Why not, and what would do.
    pub reason: String,
}

impl Problem {
    /// What is wrong with a key, wherever it was set.
    pub fn of(key: &str, reason: impl fmt::Display) -> Self {
        Self { key: Some(key.to_owned()), reason: reason.to_string(), ..Self::default() }
    }
}

impl From<&ConfigError> for Problem {
    fn from(error: &ConfigError) -> Self {
        match error {
            ConfigError::File(FileError::Parse { path, line, key, message }) => Self {
                file: Some(path.clone()),
                line: Some(*line),
                key: Some(key.clone()).filter(|key| !key.is_empty()),
                reason: message.clone(),
            },
            ConfigError::File(error @ (FileError::Read { path, .. } | FileError::Unlikely { path, .. })) => {
                Self { file: Some(path.clone()), reason: error.to_string(), ..Self::default() }
            }
            ConfigError::Setting { place, reason } => {
                let (file, line) = place.file.clone().unzip();
                Self { file, line, ..Self::of(&place.key, reason) }
            }
            ConfigError::SecretFile { variable, path, source } => Self {
                file: Some(path.clone()),
                ..Self::of(variable, format_args!("cannot read {}: {source}", path.display()))
            },
        }
    }
}
