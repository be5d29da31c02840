use std::path::Path;

use super::*;
use crate::config::{Config, FileConfig, Flags};

const TWO: &str = r#"
[[upstream]]
name = "openai"
models = ["gpt-4*", "o?"]
url = "https://api.openai.com"
api_key_env = "OPENAI_API_KEY"

[[upstream]]
name = "claude"
models = ["claude-*"]
url = "https://api.anthropic.com"
api_key_env = "ANTHROPIC_API_KEY"
api_key_header = "x-api-key"
timeouts = { first_byte = "20m" }

[[upstream]]
name = "local"
url = "http://127.0.0.1:11434/prefix"
[upstream.timeouts]
connect = "1s"
"#;

fn environment(name: &str) -> Option<String> {
    match name {
        "OPENAI_API_KEY" => Some("sk-openai-canary\n".to_owned()),
        "ANTHROPIC_API_KEY" => Some("sk-anthropic-canary".to_owned()),
        "EMPTY" => Some(" \n".to_owned()),
        "TWO_LINES" => Some("a\nb".to_owned()),
        _ => None,
    }
}

fn parse_with(flags: Flags, text: &str) -> Result<Config, ConfigError> {
    Config::merge(flags, FileConfig::parse(Path::new("r.toml"), text.to_owned())?, &environment)
}

fn parse(text: &str) -> Config {
    parse_with(Flags::default(), text).unwrap()
}

fn error(text: &str) -> String {
    parse_with(Flags::default(), text).unwrap_err().to_string()
}

#[test]
fn tables_are_read_with_their_keys_and_their_own_timeouts() {
    let upstream = parse(TWO).upstream;
    let names: Vec<_> = upstream.all().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["openai", "claude", "local"]);
    let keys: Vec<_> = upstream.all().map(|one| one.api_key.as_ref().map(Secret::expose)).collect();
    assert_eq!(keys, [Some("sk-openai-canary"), Some("sk-anthropic-canary"), None]);
    let [openai, claude] = &upstream.by_model[..] else { panic!() };
    assert_eq!(claude.api_key_header, ApiKeyHeader::XApiKey);
    assert_eq!(openai.timeouts, UpstreamTimeouts::default());
    assert_eq!(claude.timeouts.first_byte, Some(Duration::from_mins(20)));
    assert_eq!(upstream.default.timeouts.connect, Some(Duration::from_secs(1)));
    assert_eq!(parse(TWO).embedder_url, "http://127.0.0.1:11434/prefix");
    assert!(upstream.warnings.is_empty());
}

#[test]
fn a_key_is_read_of_a_file_without_the_blanks_around_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "sk-canary\n").unwrap();
    let text = format!(
        "[[upstream]]\nname = \"a\"\nurl = \"http://a\"\napi_key_file = \"{}\"\n",
        file.path().display()
    );
    let default = parse(&text).upstream.default;
    assert_eq!(default.api_key.as_ref().map(Secret::expose), Some("sk-canary"));
    assert!(!format!("{default:?}").contains("canary"));
}

#[test]
fn the_flag_sets_the_url_of_the_default_alone() {
    let flags = || Flags { upstream: Some(Uri::from_static("http://10.0.0.1:1")), ..Flags::default() };
    let set = parse_with(flags(), TWO).unwrap().upstream;
    assert_eq!((set.default.name.as_str(), set.default.url.host()), ("local", Some("10.0.0.1")));
    assert_eq!(set.by_model, parse(TWO).upstream.by_model);
    let one = parse_with(flags(), "upstream = \"http://10.0.0.2\"").unwrap().upstream;
    assert_eq!(one, Upstreams::from(Uri::from_static("http://10.0.0.1:1")));
    // Without a table for all other requests, it is the flag or Ollama.
    let (only, _) = TWO.split_once("[[upstream]]\nname = \"local\"").unwrap();
    assert_eq!(parse_with(flags(), only).unwrap().upstream.default.url.host(), Some("10.0.0.1"));
    assert_eq!(parse(only).upstream.default, Upstream::from(Uri::from_static(UPSTREAM)));
}

#[test]
fn it_is_written_as_it_is_read_and_never_with_a_key() {
    for text in [
        TWO,
        "upstream = \"http://10.0.0.2/v1\"",
        TWO.split_once("[[upstream]]\nname = \"local\"").unwrap().0,
    ] {
        let config = parse(text);
        let written = toml::to_string(&config).unwrap();
        assert_eq!(parse(&written), config, "{written}");
        let shown = written + &format!("{config:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[test]
fn an_error_names_line_key_and_reason() {
    let with = |line: &str| format!("[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n{line}\n");
    let second = |line: &str| format!("{}{}", with("models = [\"a\"]"), with("models = [\"b\"]\n") + line);
    for (text, expected) in [
        (with("models = []"), "r.toml:4: upstream.models: with no pattern"),
        (with("models = [\"a\", \"\"]"), "r.toml:4: models: an empty pattern"),
        (with("modles = [\"a\"]"), "r.toml:4: modles: unknown field"),
        (
            with("api_key_env = \"MISSING\""),
            "r.toml:4: upstream.api_key_env: the environment has no variable",
        ),
        (with("api_key_env = \"EMPTY\""), "r.toml:4: upstream.api_key_env: the key is empty"),
        (with("api_key_env = \"TWO_LINES\""), "r.toml:4: upstream.api_key_env: the key has characters"),
        (with("api_key_file = \"/no/such\""), "r.toml:4: upstream.api_key_file: the file cannot be read"),
        (
            with("api_key_env = \"A\"\napi_key_file = \"/b\""),
            "r.toml:5: upstream.api_key_file: the key comes either",
        ),
        (with("api_key_header = \"x-api-key\""), "r.toml:4: upstream.api_key_header: there is no key"),
        (with("api_key_header = \"x-key\""), "r.toml:4: api_key_header: unknown variant"),
        (with("timeouts = { idle = 0 }"), "r.toml:4: upstream.idle: with 0 every request"),
        (with("[upstream.timeouts]\nidle = 0"), "r.toml:5: upstream.idle: with 0 every request"),
        (second(""), "r.toml:6: upstream.name: another upstream is named \"a\" too"),
        (with("").replace("\"a\"", "\"a b\""), "r.toml:2: upstream.name: a name is"),
        (with("").replace("http://a", "ftp://a"), "r.toml:3: upstream.url: ftp://a/ is no URL of the form"),
        (with("").replace("http://a", "http://u:canary@a"), "r.toml:3: upstream.url: a URL with a user name"),
        (
            with("") + &with("").replace("\"a\"", "\"b\""),
            "r.toml:6: upstream.name: there is an upstream without models",
        ),
        (
            with("models = [\"a\"]").replace("\"a\"\nurl", "\"default\"\nurl"),
            "r.toml:2: upstream.name: without a table",
        ),
        (
            with("").replace("http://a", "http://127.0.0.1:11435"),
            "r.toml:1: upstream: http://127.0.0.1:11435/: this is",
        ),
        ("[upstream]\nurl = \"http://a\"".to_owned(), "r.toml:1: upstream: invalid type"),
        ("[[upstream]]\nname = \"a\"".to_owned(), "r.toml:1: upstream: missing field `url`"),
        ("upstream = 5".to_owned(), "r.toml:1: upstream: invalid type"),
    ] {
        let error = error(&text);
        assert!(
            error.starts_with(expected) && !error.contains("canary"),
            "{error}, not {expected}, of\n{text}"
        );
    }
    let one = |n| format!("[[upstream]]\nname = \"{n}\"\nmodels = [\"{n}\"]\nurl = \"http://a\"\n");
    let many = (0..=MOST).map(one).collect::<Vec<_>>().concat();
    assert!(error(&many).contains("64 upstreams at most"));
}

#[test]
fn a_pattern_that_nothing_reaches_is_warned_of() {
    let tables = |first: &str, second: &str| {
        let one = |name, models| {
            format!("[[upstream]]\nname = \"{name}\"\nmodels = {models}\nurl = \"http://a\"\n")
        };
        parse(&(one("a", first) + &one("b", second))).upstream.warnings
    };
    for (first, second) in [
        (r#"["*"]"#, r#"["gpt-4"]"#),
        (r#"["**"]"#, r#"["gpt-*"]"#),
        (r#"["gpt-4*"]"#, r#"["x", "gpt-4o*mini"]"#),
        (r#"["gpt-?o"]"#, r#"["gpt-4o"]"#),
        (r#"["a", "gpt-?o"]"#, r#"["gpt-?o"]"#),
    ] {
        let warnings = tables(first, second);
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.starts_with("r.toml:7: upstream.models: no request reaches"), "{warning}");
    }
    for (first, second) in [
        (r#"["gpt-4*"]"#, r#"["gpt-*"]"#),
        (r#"["gpt-4o"]"#, r#"["gpt-4*", "*"]"#),
        (r#"["?"]"#, r#"["??"]"#),
    ] {
        assert_eq!(tables(first, second), [""; 0]);
    }
}
