//! The reference of the configuration, `docs/configuration.md`, as the code has it: flags and their variables from the
//! command line's definition, keys, defaults and meanings from `config/rejoinder.toml`, which tests hold to the code, and
//! what a reload changes from [`is_fixed`].
//!
//! Called by `cli`, and by the test that holds the committed page to it.

use std::fmt::Write as _;

use super::loaded::{SECRETS, variable};
use super::{Flags, is_fixed};

/// The file with every key, its meaning and default.
const FILE: &str = include_str!("../../config/rejoinder.toml");

const HEAD: &str = "\
# Configuration reference

<!-- Written by `rejoinder config-reference > docs/configuration.md`; a test holds it to the code. -->

Every setting is a key of the TOML file given by `--config`; those with a flag are also `REJOINDER_<FLAG>` in the
environment. The flag wins over the environment, that over the file, that over the default. A secret is never a flag: it
comes from its variable, from the file that the variable with `_FILE` behind it names, or from the configuration file.
Durations are written as `90s`, `15m`, `24h`, `7d` or a number of seconds, sizes as `512MiB` or a number of bytes.

`rejoinder check-config FILE` says what is wrong with a file, by key, line and reason; `GET /config` on the admin listener
says what is in force, and who gave each value.

## Reloading

The configuration is read again on SIGHUP, and when what stands in its files changes: the one given by `--config`, those
of secrets (`…_FILE`), and `cache.calibration`. They are looked at each second, by what they hold, so that an editor's
renaming and a Kubernetes ConfigMap's links are seen alike; a change counts once it has stayed the same for a moment. Flags
and environment are those of the start and win over the file still.

A configuration is checked whole and comes into force in one step: each request is served by the one it came to. Where it
is wrong, the one before stays, and an error in the log names key, line and reason; so does `last_error` of `GET /config`,
and `rejoinder_config_last_reload_successful` is 0. An empty file is refused, since it is rather one that is being
written. Settings marked *restart* are named in a warning and change when the program is started anew. Entries keep the
`ttl` that they were stored with. A new limit on requests upstream counts those that come after it.

";

/// A setting.
#[derive(Debug, Default)]
struct Setting {
    /// With its table's name before it.
    key: String,
    default: Option<String>,
    meaning: String,
}

/// The settings of the file by table, the first of which has no name.
fn tables() -> Vec<(String, Vec<Setting>)> {
    let mut tables = vec![(String::new(), Vec::new())];
    let mut comment: Vec<&str> = Vec::new();
    // Keys that stand together share the comment before them.
    let mut fresh = true;
    for line in FILE.lines() {
        let bare = line.trim_start_matches(['#', ' ']);
        if bare.starts_with('[') && bare.ends_with(']') && !bare.contains(' ') {
            tables.push((bare.trim_matches(['[', ']']).to_owned(), Vec::new()));
            continue;
        }
        let Some(text) = line.strip_prefix('#') else {
            comment.clear();
            continue;
        };
        let Some((table, settings)) = tables.last_mut() else { continue };
        if let Some((key, default)) = setting(text) {
            let key = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
            settings.push(Setting { key, default, meaning: joined(&comment) });
            fresh = true;
        } else {
            if fresh {
                comment.clear();
                fresh = false;
            }
            comment.push(text.strip_prefix(' ').unwrap_or(text));
        }
    }
    tables
}

/// `#key = value`, where the value is the default, or `# key = value`, where it is an example and there is none.
fn setting(text: &str) -> Option<(&str, Option<String>)> {
    let (key, value) = text.trim_start().split_once(" = ")?;
    let is_key = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then(|| (key, (!text.starts_with(' ')).then(|| value.to_owned())))
}

/// Lines of a comment as one cell of a table; indented ones stay lines.
fn joined(comment: &[&str]) -> String {
    let mut text = String::new();
    for line in comment {
        let separator = if line.starts_with("  ") { "<br>" } else { " " };
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(line.trim());
    }
    text.replace('|', "\\|")
}

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let flags = Flags::keys();
    for (table, settings) in tables() {
        // Writing to a string cannot fail.
        let _ = match table.as_str() {
            "" => write!(page, "## Settings without a table\n\n"),
            table => write!(page, "## `[{table}]`\n\n"),
        };
        page.push_str(
            "| key | flag and environment | default | reload | meaning |\n| --- | --- | --- | --- | --- |\n",
        );
        for Setting { key, default, meaning } in settings {
            let secret = SECRETS.iter().find(|(_, of)| *of == key).map(|(variable, _)| *variable);
            let given = match secret {
                Some(variable) => format!("`{variable}`, `{variable}_FILE`"),
                None if flags.contains(&key) => {
                    format!("`--{}`, `{}`", key.replace('_', "-"), variable(&key))
                }
                None => String::new(),
            };
            let default = default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
            let reload = if is_fixed(&key) { "restart" } else { "yes" };
            let name = key.strip_prefix(&format!("{table}.")).unwrap_or(&key);
            let _ = writeln!(page, "| `{name}` | {given} | {default} | {reload} | {meaning} |");
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_committed_page_is_what_the_code_says() {
        let committed = include_str!("../../docs/configuration.md");
        assert!(
            committed == page(),
            "docs/configuration.md is not up to date: run `rejoinder config-reference > docs/configuration.md`"
        );
    }

    #[test]
    fn every_setting_has_a_meaning_and_every_flag_is_a_setting() {
        let settings: Vec<Setting> = tables().into_iter().flat_map(|(_, settings)| settings).collect();
        for setting in &settings {
            assert!(setting.meaning.len() > 10, "{setting:?}");
        }
        let has = |key: &str| settings.iter().any(|setting| setting.key == key);
        for key in Config::default().values().keys() {
            assert!(has(key), "{key}");
        }
        for flag in Flags::keys() {
            assert!(flag == "config" || has(&flag), "{flag}");
        }
        for (_, key) in SECRETS {
            assert!(has(key), "{key}");
        }
    }
}
