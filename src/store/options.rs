//! The store's settings, its errors, and what it tells of itself.

use std::path::PathBuf;
use std::time::Duration;

use super::encryption::EncryptionKeys;

/// How large the store may grow and where it keeps a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes in memory: entries, their embeddings, and what managing them takes. At least [`Self::LEAST_BYTES`].
    /// Default 1 GiB.
    pub max_bytes: u64,
    /// Entries in memory, at least one. Default one million.
    pub max_entries: u64,
    /// The folder with the copy that survives restarts. `None`, the default, keeps none.
    pub data_dir: Option<PathBuf>,
    /// The longest that a change waits before it is written to disk. Default 250 ms.
    pub flush_interval: Duration,
    /// Bytes of entries that may wait to be written; past it new ones stay in memory alone, counted as
    /// [`StoreUsage::writes_dropped`]. Default 64 MiB.
    pub max_unwritten_bytes: u64,
    /// Embeddings that one search looks at, about. A partition of up to as many is scanned whole, so the result
    /// is exact; a larger one is kept in clusters, and a search looks at the nearest. Default 32,768, which is a
    /// third of a millisecond on one core for 384 components.
    pub scan_limit: usize,
    /// The keys by which the copy on disk is encrypted. None, the default, leaves it as it is.
    pub encryption: EncryptionKeys,
}

impl StoreOptions {
    /// The least [`Self::max_bytes`]: a few entries.
    pub const LEAST_BYTES: u64 = 1 << 20;
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            max_entries: 1_000_000,
            data_dir: None,
            flush_interval: Duration::from_millis(250),
            max_unwritten_bytes: 64 << 20,
            scan_limit: 32_768,
            encryption: EncryptionKeys::default(),
        }
    }
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting makes no sense.
    #[error("{0}")]
    Options(String),
    /// Another process has the folder open.
    #[error(
        "{} is in use by another process: stop that one, or give each process a folder of its own (--data-dir)",
        .0.display()
    )]
    InUse(PathBuf),
    /// The folder or a file in it cannot be used.
    #[error("cannot {action} {}: {source}; check that the folder exists on a writable disk and belongs to this user", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The database cannot be used, and neither can a fresh one.
    #[error("cannot open the database {}: {reason}", .path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The settings of the connection to Redis.
    #[error("{0}")]
    Redis(String),
    /// The system gives no random numbers.
    #[error("the system has no source of random numbers: {0}")]
    Random(getrandom::Error),
}

/// Why an operation failed. The caller goes on as on a miss.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The entry is larger than any that fits in.
    #[error("an entry of {bytes} bytes is larger than the {limit} that the store takes")]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// The most.
        limit: u64,
    },
    /// What was to be written to disk was not, by the time the call gave up.
    #[error("writing to disk fails: {0}")]
    Disk(String),
    /// A thread that worked on this ended early.
    #[error("the store is shutting down")]
    Closed,
    /// Redis cannot be reached, or did not answer in time.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// Redis answered with an error.
    #[error("Redis refused: {0}")]
    Refused(String),
}

/// How the store does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreState {
    /// All is well.
    Ok,
    /// Entries are served and taken, but something is amiss: it says what.
    Degraded(String),
    /// Nothing can be served. Never of the embedded store.
    Down(String),
}

/// What the store holds and what became of the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Entries in memory.
    pub entries: u64,
    /// Bytes that they count for, each at least its part of [`StoreOptions::max_bytes`] by
    /// [`StoreOptions::max_entries`].
    pub bytes: u64,
    /// The bound of `bytes`.
    pub max_bytes: u64,
    /// Partitions with an embedding.
    pub partitions: u64,
    /// Entries given up for want of room, since the start.
    pub evicted: u64,
    /// Entries that had expired and were swept, since the start.
    pub expired: u64,
    /// Records on disk that were torn, corrupt, foreign or of a newer schema, skipped and removed, since the
    /// start.
    pub corrupt_skipped: u64,
    /// Values that are encrypted under a key that this process does not have, met since the start and left where
    /// they are.
    pub undecryptable: u64,
    /// Entries that were not written to disk because too much was waiting, since the start.
    pub writes_dropped: u64,
    /// Batches that could not be written to disk, tries again included, or writes that Redis refused, since the
    /// start.
    pub write_failures: u64,
    /// Times that the connection to Redis was lost, since the start.
    pub outages: u64,
    /// Commands that Redis did not answer in time, since the start.
    pub unanswered: u64,
}
