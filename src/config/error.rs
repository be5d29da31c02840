//! Why there is no configuration to run with.

use std::path::PathBuf;

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
        /// Where it was set: the file, line and key; or the key, where flag or environment gave it.
        place: String,
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
