//! A configuration as it was loaded: from where, each value by whom; and how it is loaded again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{Config, ConfigError, Environment, FileConfig, Flags};

/// The environment variables of secrets, and the keys that they give. Each is also read from the file that the variable
/// with `_FILE` behind it names.
pub(super) const SECRETS: [(&str, &str); 5] = [
    ("REJOINDER_ADMIN_TOKEN", "admin.token"),
    ("REJOINDER_EMBEDDER_API_KEY", "embedder_api_key"),
    ("REJOINDER_SECRET", "secret"),
    ("REJOINDER_ENCRYPTION_KEY", "encryption_key"),
    ("REJOINDER_REDIS_PASSWORD", "redis.password"),
];

/// How much of a watched file is looked at.
const WATCHED_BYTES: u64 = 4 << 20;

/// Who gave a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// The environment.
    Environment,
    /// The file.
    File,
    /// Nobody.
    Default,
}

/// A configuration and where it is from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Who gave each of its values, by key.
    pub origins: BTreeMap<String, Origin>,
    /// The file, where there is one.
    pub file: Option<PathBuf>,
}

impl From<Config> for Loaded {
    /// A configuration from nowhere.
    fn from(config: Config) -> Self {
        Self { config, origins: BTreeMap::new(), file: None }
    }
}

/// Loads the configuration, again and again: flags and environment are those of the process's start, the file and the
/// files of secrets are read anew.
#[derive(Debug, Clone)]
pub struct Loader {
    flags: Flags,
    /// The flags that were typed, by key; the others are the environment's.
    typed: BTreeSet<String>,
}

impl Loader {
    /// Loads by these flags, of which `typed` stood on the command line.
    pub fn new(flags: Flags, typed: BTreeSet<String>) -> Self {
        Self { flags, typed }
    }

    /// Loads for the first time.
    pub fn load(&self, environment: Environment<'_>) -> Result<Loaded, ConfigError> {
        self.merge(FileConfig::read, environment)
    }

    /// Loads again. A file that is rather being written than meant is refused.
    pub fn load_again(&self, environment: Environment<'_>) -> Result<Loaded, ConfigError> {
        self.merge(FileConfig::read_again, environment)
    }

    fn merge(
        &self,
        read: impl FnOnce(&Path) -> Result<FileConfig, super::FileError>,
        environment: Environment<'_>,
    ) -> Result<Loaded, ConfigError> {
        let path = self.flags.config.as_deref();
        let file = path.map(read).transpose()?.unwrap_or_default();
        let (flags, of_file) = (Flags::keys(), file.source.keys());
        let config = Config::merge(self.flags.clone(), file, environment)?;
        let origin = |key: &str| {
            let secret = SECRETS.iter().find(|(_, of)| *of == key).map(|(variable, _)| *variable);
            let variable = secret.map_or_else(|| variable(key), str::to_owned);
            // A flag's variable has no _FILE; empty secrets count as absent.
            let set = |name: &str| environment(name).is_some_and(|value| !value.is_empty());
            let by_environment = secret.map_or_else(
                || flags.contains(key) && environment(&variable).is_some(),
                |variable| set(variable) || set(&format!("{variable}_FILE")),
            );
            match () {
                () if self.typed.contains(key) => Origin::Flag,
                () if by_environment => Origin::Environment,
                () if of_file.contains(key) => Origin::File,
                () => Origin::Default,
            }
        };
        let origins = config.values().into_keys().map(|key| (key.clone(), origin(&key))).collect();
        Ok(Loaded { origins, config, file: path.map(Path::to_owned) })
    }

    /// What stands in the files that a configuration comes from. Reads them, so it must not run where others wait.
    pub fn fingerprint(&self, calibration: Option<&Path>, environment: Environment<'_>) -> Fingerprint {
        let secrets = SECRETS.iter().filter_map(|(variable, _)| environment(&format!("{variable}_FILE")));
        let mut hasher = blake3::Hasher::new();
        for path in self.flags.config.iter().cloned().chain(secrets.map(PathBuf::from)) {
            hasher.update(&content(&path));
        }
        let calibration = calibration.map(|path| (path.to_owned(), content(path)));
        Fingerprint { files: *hasher.finalize().as_bytes(), calibration }
    }
}

/// What stands in the files of a configuration: another when one was changed, replaced, or a link on the way to it now
/// leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of the file and those of secrets.
    files: [u8; 32],
    /// Of the calibration that the file names.
    calibration: Option<(PathBuf, [u8; 32])>,
}

impl Fingerprint {
    /// Whether what stood in the files is another now. A calibration that was not looked at before is none.
    pub fn differs(&self, before: &Self) -> bool {
        let recalibrated = match (&self.calibration, &before.calibration) {
            (Some((path, content)), Some((same, before))) => path == same && content != before,
            _ => false,
        };
        recalibrated || self.files != before.files
    }
}

/// A hash of what stands in a file; zeros where it cannot be read, or not twice.
fn content(path: &Path) -> [u8; 32] {
    let read = || -> std::io::Result<[u8; 32]> {
        if !std::fs::metadata(path)?.is_file() {
            return Ok([0; 32]);
        }
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut std::fs::File::open(path)?.take(WATCHED_BYTES), &mut hasher)?;
        Ok(*hasher.finalize().as_bytes())
    };
    read().unwrap_or_default()
}

/// The environment variable of a flag, by its key.
pub(super) fn variable(key: &str) -> String {
    format!("REJOINDER_{}", key.to_ascii_uppercase())
}

/// The tables within tables; other values that look like one are a value.
const TABLES_IN_TABLES: [&str; 1] = ["telemetry.otlp"];

impl Config {
    /// Every value by its key, with its table's name before it: secrets masked, those that are not set left out.
    pub(super) fn values(&self) -> BTreeMap<String, Value> {
        let Ok(Value::Object(members)) = serde_json::to_value(self) else { return BTreeMap::new() };
        let mut values = BTreeMap::new();
        let mut tables: Vec<_> = members.into_iter().collect();
        while let Some((name, value)) = tables.pop() {
            match value {
                Value::Object(inner) if !name.contains('.') || TABLES_IN_TABLES.contains(&name.as_str()) => {
                    tables.extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
                }
                value => drop(values.insert(name, value)),
            }
        }
        values
    }
}
