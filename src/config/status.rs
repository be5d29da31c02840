//! The configuration in force, for people: what it is, whose each value is, and how its last reload ended.
//!
//! Kept up by `server`, shown by `admin` as `GET /config`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::{Config, Loaded, Origin, Problem};

/// The configuration in force.
#[derive(Debug)]
pub struct Status(Mutex<Report>);

/// The body of `GET /config`. Secrets are masked.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Every setting in force, as `check-config --json` prints it.
    pub config: Config,
    /// Who gave each, by key.
    pub origins: BTreeMap<String, Origin>,
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    /// Equal for processes with equal settings, secrets aside.
    #[serde(serialize_with = "hexadecimal")]
    pub hash: u64,
    /// When a configuration was last loaded and found right, RFC 3339.
    #[serde(serialize_with = "time")]
    pub loaded_at: SystemTime,
    /// The keys whose new values are not in force until the program is started anew.
    pub needs_restart: Vec<String>,
    /// Why the last reload failed; none where it did not.
    pub last_error: Option<Failure>,
}

/// A reload that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// When, RFC 3339.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// Why.
    #[serde(flatten)]
    pub problem: Problem,
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn hexadecimal<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:012x}"))
}

/// The first 48 bits of a hash of what is shown, which a floating-point number of Prometheus can hold.
fn hash(config: &Config) -> u64 {
    let shown = serde_json::to_vec(config).unwrap_or_default();
    let first = blake3::hash(&shown).as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    u64::from_be_bytes(first) >> 16
}

impl Status {
    /// The configuration that the program starts with.
    pub fn new(loaded: Loaded) -> Self {
        let Loaded { config, origins, file } = loaded;
        let hash = hash(&config);
        let loaded_at = SystemTime::now();
        let report =
            Report { config, origins, file, hash, loaded_at, needs_restart: Vec::new(), last_error: None };
        Self(Mutex::new(report))
    }

    /// Another was loaded, and what it can change is in force.
    pub fn loaded(&self, loaded: Loaded, needs_restart: Vec<String>) {
        let Loaded { config, mut origins, file } = loaded;
        let mut report = self.0.lock();
        // Who gave what is in force is who gave it then.
        for key in &needs_restart {
            match report.origins.get(key) {
                Some(origin) => drop(origins.insert(key.clone(), *origin)),
                None => drop(origins.remove(key)),
            }
        }
        let (hash, loaded_at) = (hash(&config), SystemTime::now());
        *report = Report { config, origins, file, hash, loaded_at, needs_restart, last_error: None };
    }

    /// A reload failed, and what was in force still is.
    pub fn failed(&self, problem: Problem) {
        self.0.lock().last_error = Some(Failure { at: SystemTime::now(), problem });
    }

    /// What `GET /config` answers.
    pub fn report(&self) -> Report {
        self.0.lock().clone()
    }
}
