//! A configuration of any text, see [`crate::fuzzing`].

use std::path::Path;

use super::{Config, FileConfig, Flags, Secret};

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let file = match FileConfig::parse(Path::new("file"), text.clone().into_owned()) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    // What names a file would be read.
    if text.contains("_file") {
        return;
    }
    let keys = file.source.keys();
    assert!(keys.iter().all(|key| !key.is_empty()));
    let Ok(config) = Config::merge(Flags::default(), file, &|_| None) else { return };
    let shown = |config: &Config| format!("{config:?} {:?}", config.values());
    let Ok(default) = Config::merge(Flags::default(), FileConfig::default(), &|_| None) else { return };
    let (shown, default) = (shown(&config), shown(&default));
    let secrets = [&config.secret, &config.embedder_api_key, &config.admin.token, &config.redis.password];
    for secret in secrets.into_iter().flatten().map(Secret::expose) {
        // One that stands twice in the file may be shown as something else.
        if secret.len() >= 12 && text.matches(secret).count() == 1 && !default.contains(secret) {
            assert!(!shown.contains(secret), "a secret shows");
        }
    }
}
