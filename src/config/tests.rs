use std::path::Path;
use std::time::Duration;

use super::upstreams::UPSTREAM;
use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    parse_with(Flags::default(), text, &|_| None)
}

fn parse_with(flags: Flags, text: &str, environment: Environment<'_>) -> Result<Config, ConfigError> {
    Config::merge(flags, FileConfig::parse(Path::new("rejoinder.toml"), text.to_owned())?, environment)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn without_anything_the_defaults_hold() {
    let config = Config::default();
    assert_eq!(config.listen.to_string(), "127.0.0.1:11435");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:11436");
    assert_eq!(config.upstream.default.url, UPSTREAM);
    assert_eq!(config.embedder_url, config.upstream.default.url);
    assert_eq!(config.ttl, Duration::from_hours(24));
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let flags = Flags { ttl: Some(Duration::from_secs(1)), ..Flags::default() };
    let config =
        parse_with(flags, "ttl = \"2h\"\nlisten = \"127.0.0.1:9\"\n[limits]\nmax_bytes = \"1GiB\"", &|_| {
            None
        });
    let config = config.unwrap();
    assert_eq!(config.ttl, Duration::from_secs(1));
    assert_eq!(config.listen.port(), 9);
    assert_eq!(config.limits.max_bytes, Bytes(1 << 30));
    assert_eq!(config.limits.max_entries, Limits::default().max_entries);
}

#[test]
fn an_error_names_file_line_key_and_reason() {
    assert_eq!(
        error("\nttl = 5\nlistn = 1\n").split(',').next(),
        Some("rejoinder.toml:3: listn: unknown field `listn`")
    );
    assert_eq!(
        error("ttl = \"soon\""),
        "rejoinder.toml:1: ttl: \"soon\" is no duration such as 90s, 15m, 24h or 7d"
    );
    assert!(
        error("[limits]\nmax_bytes = \"much\"")
            .starts_with("rejoinder.toml:2: max_bytes: \"much\" is no size")
    );
    assert_eq!(
        error("[cache]\nexact_only = [\"moment\", \"mood\"]"),
        "rejoinder.toml:2: exact_only: \"mood\" is none of the rules context, moment, person, variety, repeat"
    );
    assert!(error("listen = 5").starts_with("rejoinder.toml:1: listen: invalid type"));
    assert!(
        error("upstream = \"ftp://x\"")
            .starts_with("rejoinder.toml:1: upstream: ftp://x/ is no URL of the form")
    );
    assert!(
        error("similarity_threshold = 7")
            .starts_with("rejoinder.toml:1: similarity_threshold: 7 is not between")
    );
    assert!(error("= 1").starts_with("rejoinder.toml:1: "));
}

#[test]
fn what_cannot_run_safely_is_refused_with_the_remedy() {
    assert!(error("admin_listen = \"0.0.0.0:1\"").contains("set REJOINDER_ADMIN_TOKEN"));
    assert!(parse("admin_listen = \"0.0.0.0:1\"\nadmin.token = \"t\"").is_ok());
    assert!(error("upstream = \"http://localhost:11435\"").contains("the proxy's own address"));
    assert!(error("listen = \"0.0.0.0:5\"\nupstream = \"http://127.0.0.1:5\"").contains("own address"));
    assert!(error("upstream = \"http://user:pass@host\"").contains("user name or password"));
    assert!(error("listen = \"127.0.0.1:5\"\nadmin_listen = \"127.0.0.1:5\"").contains("listened for"));
    assert!(parse("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"").is_ok());
    assert!(error("data_dir = \"\"").contains("no folder"));
    assert!(error("ask.path = \"/v1/responses\"").contains("is none of"));
    assert!(error("log.filter = \"a=b=c\"").contains("is no log filter"));
}

#[test]
fn secrets_come_from_the_environment_or_a_file_and_are_never_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from a file\n").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let environment = |name: &str| match name {
        "REJOINDER_ADMIN_TOKEN" => Some("from the environment".to_owned()),
        "REJOINDER_SECRET_FILE" => Some(path.clone()),
        _ => None,
    };
    let config = parse_with(Flags::default(), "admin.token = \"of the file\"", &environment).unwrap();
    assert_eq!(config.admin.token.as_ref().unwrap().expose(), "from the environment");
    assert_eq!(config.secret.as_ref().unwrap().expose(), "from a file");
    let shown = toml::to_string(&config).unwrap() + &format!("{config:?}");
    assert!(shown.contains("***") && !shown.contains("from "), "{shown}");
    let missing = |name: &str| (name == "REJOINDER_SECRET_FILE").then(|| "/nonexistent".to_owned());
    assert!(
        parse_with(Flags::default(), "", &missing)
            .unwrap_err()
            .to_string()
            .starts_with("REJOINDER_SECRET_FILE: cannot read")
    );
}

#[test]
fn an_empty_secret_is_none_and_a_wrong_one_is_not_shown() {
    assert_eq!(parse("secret = \"\"\nadmin.token = \"\"").unwrap().admin.token, None);
    assert!(error("admin_listen = \"0.0.0.0:1\"\nadmin.token = \"\"").contains("no admin token is set"));
    for text in [
        "admin.token = 123456",
        "admin.token hunter2 123456",
        "secret = 123456",
        "embedder_api_key = [123456]",
    ] {
        let error = error(text);
        assert!(!error.contains("123456") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn what_could_not_serve_is_refused() {
    for text in [
        "[limits]\nmax_connections = 0",
        "[limits]\nmax_upstream_requests = 0",
        "[limits]\nmax_entries = 0",
        "[limits]\nmax_bytes = 5",
        "[timeouts]\nfirst_byte = 0",
        "[timeouts]\nconnect = 0",
        "[timeouts]\nidle = 0",
    ] {
        assert!(error(text).starts_with("rejoinder.toml:2: "), "{}", error(text));
    }
}

#[test]
fn the_effective_configuration_can_be_read_back() {
    let config = Config::default();
    assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn the_shipped_file_shows_every_key_with_its_default() {
    let shipped = include_str!("../../config/rejoinder.toml");
    // Uncommenting every setting must give the defaults back, and name every key that there is.
    let active: String = shipped
        .lines()
        .filter_map(|line| match line.strip_prefix("#") {
            Some(setting)
                if !setting.starts_with(' ') && (setting.contains(" = ") || setting.starts_with('[')) =>
            {
                Some(setting)
            }
            Some(_) => None,
            None => Some(line),
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = parse(&active).unwrap();
    let expected = Config::default();
    assert_eq!(
        Config {
            log_format: None,
            data_dir: None,
            embedder_api_key: None,
            secret: None,
            admin: expected.admin.clone(),
            ..config
        },
        expected
    );
    #[allow(clippy::items_after_statements, reason = "read where it is used")]
    fn keys(value: &toml::Value, prefix: &str, out: &mut Vec<String>) {
        if let toml::Value::Table(table) = value {
            for (key, value) in table {
                out.push(format!("{prefix}{key}"));
                keys(value, &format!("{prefix}{key}."), out);
            }
        }
    }
    let (mut shown, mut all) = (Vec::new(), Vec::new());
    keys(&active.parse::<toml::Table>().unwrap().into(), "", &mut shown);
    keys(&toml::Value::try_from(&expected).unwrap(), "", &mut all);
    for key in &all {
        assert!(shown.contains(key), "{key} is missing in config/rejoinder.toml");
    }
}
