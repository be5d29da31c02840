//! What of a configuration may change while the program runs, and what another one would change.
//!
//! A setting is reloadable unless [`FIXED`] names it: what has it then takes it over in `server`'s `Live::apply`.

use std::collections::BTreeSet;

use super::{Config, EmbedderKind, Secret};

/// Names the settings that need a restart, and keeps them.
macro_rules! fixed {
    ($($($part:ident).+),+ $(,)?) => {
        /// The keys, and the tables, that cannot change while the program runs: what is opened, or made of them, at
        /// the start is in use by every request.
        pub const FIXED: &[&str] = &[$(stringify!($($part).+)),+];

        fn keep(new: &mut Config, before: &Config) {
            $(new.$($part).+ = before.$($part).+.clone();)+
        }
    };
}

fixed!(
    listen,
    admin_listen,
    data_dir,
    redis_url,
    redis,
    embedder,
    embedder_url,
    embedder_model,
    embedder_api_key,
    embedding,
    secret,
    encryption_key,
    log_format,
    telemetry,
    cache.verifier,
    limits.max_bytes,
    limits.max_entries,
    limits.max_connections,
);

/// Whether a key needs a restart to change.
pub fn is_fixed(key: &str) -> bool {
    FIXED
        .iter()
        .any(|fixed| key.strip_prefix(fixed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// A change of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What is in force after it.
    pub config: Config,
    /// The keys whose values differ from those before.
    pub changed: Vec<String>,
    /// The keys that differ and are not in force until the program is started anew.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// What becomes of this one where `wanted` is to come into force.
    pub fn change_to(&self, wanted: &Self) -> Change {
        let mut config = wanted.clone();
        keep(&mut config, self);
        if matches!(self.embedder, EmbedderKind::Builtin | EmbedderKind::Off) {
            // Nobody uses these, and the URL follows upstream's.
            config.embedder_url.clone_from(&wanted.embedder_url);
            config.embedder_model.clone_from(&wanted.embedder_model);
            config.embedder_api_key.clone_from(&wanted.embedder_api_key);
        }
        Change { changed: differing(self, &config), needs_restart: differing(&config, wanted), config }
    }
}

/// The keys whose values differ.
fn differing(one: &Config, other: &Config) -> Vec<String> {
    if one == other {
        return Vec::new();
    }
    let (ones, others) = (one.values(), other.values());
    let mut keys: BTreeSet<String> =
        ones.keys().chain(others.keys()).filter(|key| ones.get(*key) != others.get(*key)).cloned().collect();
    // Secrets are shown alike, whatever they are.
    let secrets = |config: &Config| -> [(&str, Option<Secret>); 5] {
        [
            ("admin.token", config.admin.token.clone()),
            ("embedder_api_key", config.embedder_api_key.clone()),
            ("secret", config.secret.clone()),
            ("encryption_key", config.encryption_key.clone()),
            ("redis.password", config.redis.password.clone()),
        ]
    };
    for ((key, secret), (_, other)) in secrets(one).into_iter().zip(secrets(other)) {
        if secret != other {
            keys.insert(key.to_owned());
        }
    }
    if one.redis_url != other.redis_url {
        keys.insert("redis_url".to_owned());
    }
    if keys.is_empty() {
        keys.insert("a secret".to_owned());
    }
    keys.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_can_change_does_and_what_cannot_is_named() {
        let before = Config::default();
        let mut wanted = before.clone();
        wanted.ttl = Duration::from_secs(1);
        wanted.admin.token = Some(Secret::new("canary".to_owned()));
        wanted.listen = "127.0.0.1:1".parse().unwrap();
        wanted.limits.max_bytes.0 *= 2;
        wanted.redis.password = Some(Secret::new("canary".to_owned()));
        let change = before.change_to(&wanted);
        assert_eq!(change.changed, ["admin.token", "ttl"]);
        assert_eq!(change.needs_restart, ["limits.max_bytes", "listen", "redis.password"]);
        assert_eq!(change.config.ttl, wanted.ttl);
        assert_eq!(change.config.listen, before.listen);
        let none = change.config.change_to(&change.config);
        assert_eq!((none.changed.len(), none.needs_restart.len()), (0, 0));
    }

    #[test]
    fn a_secret_that_is_replaced_by_another_is_a_change() {
        let mut before = Config::default();
        before.admin.token = Some(Secret::new("one".to_owned()));
        let mut wanted = before.clone();
        wanted.admin.token = Some(Secret::new("two".to_owned()));
        assert_eq!(before.change_to(&wanted).changed, ["admin.token"]);
    }

    #[test]
    fn every_fixed_name_is_a_key_or_a_table() {
        let values = toml::Value::try_from(Config::default()).unwrap();
        let optional =
            ["data_dir", "redis_url", "embedder_api_key", "secret", "encryption_key", "log_format"];
        for fixed in FIXED {
            let found = fixed.split('.').try_fold(&values, |value, part| value.get(part));
            assert!(found.is_some() || optional.contains(fixed), "{fixed}");
        }
        assert!(is_fixed("redis.key_prefix") && is_fixed("cache.verifier") && is_fixed("listen"));
        assert!(!is_fixed("cache.verified_confidence") && !is_fixed("redis_urls") && !is_fixed("ttl"));
    }
}
