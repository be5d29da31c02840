//! Every setting once: its type, default and meaning, and how flag, environment, file and default merge.
//!
//! Called by `cli`, which hands the finished [`Config`] down. Nothing else reads the environment or a file, but
//! for `RUST_LOG`, which the log takes as every Rust program does; [`telemetry`] knows the variables of OpenTelemetry.

mod change;
mod effective;
mod error;
mod file;
mod flags;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod loaded;
mod merge;
pub mod reference;
mod secret;
mod status;
mod tables;
mod telemetry;
mod units;
mod upstreams;
mod validation;

pub use crate::store::redis::RedisUrl;
pub use change::{Change, FIXED, is_fixed};
pub use effective::Config;
pub use error::{ConfigError, Place, Problem};
pub use file::{FileConfig, FileError};
pub use flags::{EmbedderKind, Flags, LogFormat, Mode};
pub use loaded::{Fingerprint, Loaded, Loader, Origin};
pub use merge::Environment;
pub use secret::Secret;
pub use status::{Failure, Report, Status};
pub use tables::{Admin, Ask, CacheSettings, Embedding, Limits, Log, Redis, Timeouts};
pub use telemetry::{Otlp, OtlpProtocol, Telemetry};
pub use units::Bytes;
pub(crate) use units::parse_duration;
pub use upstreams::{ApiKeyHeader, Upstream, UpstreamTimeouts, Upstreams};

#[cfg(test)]
mod tests;
