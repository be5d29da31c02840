//! The program from outside: its help, its configuration, its exit codes, its log.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::collector::attribute;
use crate::support::program::{output, rejoinder};
use crate::support::serving::{Serving, serve};
use crate::support::{Ask, Collector, Fault, Gate, QUESTION, Recorded, generating, streamed, upstream};

/// Longer than anything here may take; a test that waits for it fails.
const DEADLINE: Duration = Duration::from_secs(30);

async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    output(rejoinder(arguments)).await
}

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("rejoinder.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn help_names_every_command_and_every_flag_with_its_default() {
    let (code, help, _) = run(&["--help"]).await;
    assert_eq!(code, Some(0));
    for command in ["serve", "demo", "eval", "stats", "check-config", "completions"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {help}");
    }
    let (code, help, _) = run(&["serve", "--help"]).await;
    assert_eq!(code, Some(0));
    for (flag, default) in [
        ("--listen", "127.0.0.1:11435"),
        ("--admin-listen", "127.0.0.1:11436"),
        ("--upstream", "http://127.0.0.1:11434"),
        ("--data-dir", ""),
        ("--mode", "reuse"),
        ("--embedder", "builtin"),
        ("--embedder-url", ""),
        ("--embedder-model", ""),
        ("--similarity-threshold", "0."),
        ("--ttl", "24h"),
        ("--log-format", "json"),
        ("--config", ""),
    ] {
        assert!(help.contains(flag) && help.contains(default), "{flag}: {help}");
        let variable = format!("REJOINDER_{}", flag[2..].to_uppercase().replace('-', "_"));
        assert!(help.contains(&variable), "{variable}: {help}");
    }
    assert!(!help.contains("--admin-token") && !help.contains("--secret"), "a secret is never a flag");
    let (code, version, _) = run(&["--version"]).await;
    assert_eq!((code, version.trim()), (Some(0), concat!("rejoinder ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["serv"][..],
        &[],
        &["serve", "--lisen", "x"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--ttl", "soon"],
        &["stats", "--admin", "ftp://x"],
        &["entries", "list", "--admin", "127.0.0.1:1"],
        &["purge", "--all", "--yes", "--admin", "zz"],
    ] {
        let (code, _, error) = run(arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(!error.is_empty(), "{arguments:?}");
    }
}

/// The commands that the help of this one lists, with all below them.
async fn commands() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut next = 0;
    while next < all.len() {
        let arguments: Vec<&str> = all[next].iter().map(String::as_str).chain(["--help"]).collect();
        let (code, help, _) = run(&arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}");
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let listed = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
        let names = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        let below = names.map(|name| [all[next].clone(), vec![name.to_owned()]].concat()).collect::<Vec<_>>();
        all.extend(below);
        next += 1;
    }
    all
}

#[tokio::test]
async fn the_help_of_each_command_ends_with_its_exit_codes() {
    let commands = commands().await;
    assert!(commands.len() > 14 && commands.contains(&vec!["entries".to_owned(), "rm".to_owned()]));
    for command in commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let (_, help, _) = run(&arguments).await;
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, codes) = help.rsplit_once("Exit codes: ").unwrap_or_else(|| panic!("{command:?}: {help}"));
        assert!(
            codes.starts_with("0 ") && codes.contains(" 2 ") && !codes.contains("\n\n"),
            "{command:?}: {codes}"
        );
    }
}

#[tokio::test]
async fn each_command_has_a_manual_page_with_its_options_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = run(&["man", "--folder", folder.path().to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{error}");
    let mut pages: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort_unstable();
    let mut wanted: Vec<_> = commands()
        .await
        .iter()
        .map(|command| [&["rejoinder".to_owned()], &command[..]].concat().join("-") + ".1")
        .collect();
    wanted.sort_unstable();
    assert_eq!(pages, wanted);
    for name in &pages {
        let page = std::fs::read_to_string(folder.path().join(name)).unwrap();
        for section in ["TH ", "SH NAME", "SH SYNOPSIS", "SH DESCRIPTION", "SH \"EXIT STATUS\""] {
            assert!(
                page.lines().any(|line| line.starts_with(&format!(".{section}"))),
                "{name}: {section}: {page}"
            );
        }
        // Where the program that typesets them is, it minds nothing.
        let typeset = tokio::process::Command::new("groff")
            .args(["-man", "-K", "utf8", "-Tutf8", "-ww", "-z"])
            .arg(folder.path().join(name))
            .output();
        match typeset.await {
            Ok(output) => {
                assert!(output.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => eprintln!("not typeset, since groff is not here: {error}"),
        }
    }
    let page = std::fs::read_to_string(folder.path().join("rejoinder-serve.1")).unwrap();
    for text in [r"\-\-max\-error", r"REJOINDER_MAX_ERROR", "0 stopped by SIGTERM"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let (code, printed, _) = run(&["man"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(printed, std::fs::read_to_string(folder.path().join("rejoinder.1")).unwrap());
    let (code, _, error) = run(&["man", "--folder", "/no/such/folder"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("/no/such/folder"), "{error}");
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]).await;
        assert_eq!(code, Some(0), "{shell}");
        assert!(script.contains("check-config"), "{shell}");
    }
}

#[tokio::test]
async fn check_config_prints_what_is_in_force_with_secrets_masked() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        folder.path(),
        "ttl = \"2h\"\nupstream = \"https://models.example/prefix\"\nsecret = \"canary-a\"\n\n\
         [admin]\ntoken = \"canary-b\"\n\n[limits]\nmax_entry_bytes = \"2MiB\"\n",
    );
    let mut command = rejoinder(&["check-config", &path]);
    command.env("REJOINDER_EMBEDDER_API_KEY", "canary-c").env("REJOINDER_LISTEN", "127.0.0.1:4");
    let (code, printed, error) = output(command).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(!(printed.clone() + &error).contains("canary"), "{printed}{error}");
    for line in [
        "ttl = \"2h\"",
        "upstream = \"https://models.example/prefix\"",
        "listen = \"127.0.0.1:4\"",
        "secret = \"***\"",
        "token = \"***\"",
        "embedder_api_key = \"***\"",
        "max_entry_bytes = \"2MiB\"",
        "embedder = \"builtin\"",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    let mut command = rejoinder(&["check-config", "--json", &path]);
    command.env("REJOINDER_EMBEDDER_API_KEY", "canary-c").env("REJOINDER_LISTEN", "127.0.0.1:4");
    let (code, json, error) = output(command).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(!json.contains("canary"), "{json}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["ttl"], &json["listen"]), (&json!("2h"), &json!("127.0.0.1:4")));
    assert_eq!((&json["admin"]["token"], &json["similarity_threshold"]), (&json!("***"), &json!(0.7)));
    // What it prints is a configuration.
    let again = file(folder.path(), &printed);
    let (code, reprinted, error) = run(&["check-config", &again]).await;
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(reprinted, printed);
}

#[tokio::test]
async fn check_config_shows_upstreams_without_their_keys_and_warns_of_patterns_that_nothing_reaches() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[[upstream]]\nname = \"all\"\nmodels = [\"*\"]\nurl = \"https://a.example\"\n\
                api_key_env = \"KEY_OF_ALL\"\n\n[[upstream]]\nname = \"none\"\nmodels = [\"gpt-*\"]\n\
                url = \"https://b.example\"\n";
    let path = file(folder.path(), text);
    let mut command = rejoinder(&["check-config", &path]);
    command.env("KEY_OF_ALL", "canary");
    let (code, printed, error) = output(command).await;
    assert_eq!(code, Some(0), "{error}");
    let warning = format!(
        "warning: {path}:9: upstream.models: no request reaches \"gpt-*\", since \"*\" of \"all\" comes"
    );
    assert!(error.starts_with(&warning), "{error}");
    assert!(
        printed.contains("[[upstream]]") && printed.contains("api_key_env = \"KEY_OF_ALL\""),
        "{printed}"
    );
    assert!(!(printed + &error).contains("canary"));
    let (code, _, error) = run(&["check-config", &path]).await;
    assert_eq!(code, Some(2));
    assert!(
        error.contains(&format!("{path}:5: upstream.api_key_env: the environment has no variable")),
        "{error}"
    );
}

#[tokio::test]
async fn the_configuration_that_comes_with_it_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rejoinder.toml");
    let (code, printed, error) = run(&["check-config", path.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{error}");
    let (_, defaults, _) = run(&["check-config"]).await;
    assert_eq!(printed, defaults, "it shows the defaults");
}

#[tokio::test]
async fn a_wrong_configuration_is_exit_code_2_with_key_line_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (text, line, key, reason) in [
        ("\n\nlistn = \"127.0.0.1:1\"\n", 3, "listn", "unknown field"),
        ("ttl = \"soon\"", 1, "ttl", "no duration"),
        ("listen = \"nowhere\"", 1, "listen", "invalid socket address"),
        ("# a comment\nupstream = \"ftp://x\"", 2, "upstream", "no URL of the form"),
        ("similarity_threshold = 7", 1, "similarity_threshold", "not between 0 and 1"),
        ("admin_listen = \"0.0.0.0:11436\"", 1, "admin_listen", "REJOINDER_ADMIN_TOKEN"),
        ("[limits]\nmax_bytes = \"much\"", 2, "max_bytes", "no size"),
        ("[limits]\nmax_connections = -1", 2, "max_connections", "invalid value"),
        ("[cache]\nscope_headers = [\"a b\"]", 2, "scope_headers", "no header name"),
        ("[nowhere]\nx = 1", 1, "nowhere", "unknown field"),
        ("ttl = \"1h\"\nttl = \"2h\"", 2, "ttl", "duplicate key"),
        ("secret = \"canary\" oops", 1, "secret", ""),
        ("secret = [\"canary\"]", 1, "secret", "a secret is a string"),
        ("ttl = \"1h\"\nencryption_key = \"canary\"", 2, "encryption_key", "key 1 is not 32 bytes"),
        ("[admin]\ntoken = 5", 2, "token", "a secret is a string"),
    ] {
        let path = file(folder.path(), text);
        for arguments in [&["check-config", &path][..], &["serve", "--config", &path]] {
            let (code, printed, error) = run(arguments).await;
            assert_eq!((code, printed.as_str()), (Some(2), ""), "{text}: {error}");
            assert!(error.contains(&format!("{path}:{line}: ")), "{text}: {error}");
            assert!(error.contains(key) && error.contains(reason), "{text}: {error}");
            assert!(!error.contains("canary"), "{text}: {error}");
        }
        let (code, printed, _) = run(&["check-config", "--json", &path]).await;
        let Value::Object(said) = serde_json::from_str(&printed).unwrap() else { panic!("{printed}") };
        assert_eq!((code, said["error"]["line"].as_u64()), (Some(2), Some(line)), "{text}: {printed}");
        assert_eq!(said["error"]["file"], path.as_str(), "{text}");
        let named = said["error"]["key"].as_str().unwrap().trim_matches(['[', ']']);
        assert!(named.ends_with(key), "{text}: {printed}");
        assert!(said["error"]["reason"].as_str().unwrap().contains(reason), "{text}: {printed}");
        assert!(!printed.contains("canary"), "{text}: {printed}");
    }
    let (code, _, error) = run(&["check-config", "/no/such/file.toml"]).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("/no/such/file.toml"), "{error}");
    let mut command = rejoinder(&["check-config"]);
    command.env("REJOINDER_SECRET_FILE", "/no/such/secret");
    let (code, _, error) = output(command).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("REJOINDER_SECRET_FILE") && error.contains("/no/such/secret"), "{error}");
    let mut command = rejoinder(&["check-config"]);
    command.env("REJOINDER_TTL", "soon");
    let (code, _, error) = output(command).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("soon"), "{error}");
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "ttl = \"3h\"\nlisten = \"127.0.0.1:3\"\nembedder = \"off\"\n");
    let line = async |arguments: &[&str], environment: &[(&str, &str)], key: &str| {
        let mut command = rejoinder(&[&["check-config"], arguments].concat());
        command.envs(environment.iter().copied());
        let (code, printed, error) = output(command).await;
        assert_eq!(code, Some(0), "{error}");
        let start = format!("{key} = ");
        printed.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
    };
    let environment = [("REJOINDER_TTL", "2h")];
    assert_eq!(line(&[], &[], "ttl").await, "\"1day\"");
    assert_eq!(line(&["--config", &path], &[], "ttl").await, "\"3h\"");
    assert_eq!(line(&["--config", &path], &environment, "ttl").await, "\"2h\"");
    assert_eq!(line(&["--config", &path, "--ttl", "1h"], &environment, "ttl").await, "\"1h\"");
    assert_eq!(line(&["--config", &path], &environment, "listen").await, "\"127.0.0.1:3\"");
    assert_eq!(line(&[], &[("REJOINDER_CONFIG", &path)], "embedder").await, "\"off\"");
}

#[tokio::test]
async fn it_serves_and_says_where_and_ends_with_0_on_sigterm_and_sigint() {
    let upstream = upstream().await;
    for signal in ["TERM", "INT"] {
        let mut serving = Serving::start(serve(&upstream.url())).await;
        let operators = serving.until("listening for operators").await;
        let admin = operators["address"].as_str().unwrap().to_owned();
        assert_eq!(Ask::get(&format!("http://{admin}/healthz")).send().await.status, 200);
        let (path, body) = generating(QUESTION).remove(0);
        let url = format!("http://{}{path}", serving.clients);
        assert_eq!(Ask::post(&url, &body).send().await.layer(), None);
        assert_eq!(Ask::post(&url, &body).send().await.layer(), Some("exact"));
        serving.signal(signal).await;
        let (code, log) = serving.end().await;
        assert_eq!(code, Some(0), "{signal}: {log}");
        assert!(log.contains("shutting down") && log.contains("stopped"), "{log}");
    }
}

/// As systemd does with `Type=notify`.
#[tokio::test]
async fn the_service_manager_is_told_that_it_serves_and_that_it_ends() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = tokio::net::UnixDatagram::bind(&socket).unwrap();
    let told = async || {
        let mut message = [0; 64];
        let length =
            tokio::time::timeout(DEADLINE, manager.recv(&mut message)).await.expect("it says it").unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let mut command = serve(&upstream.url());
    command.env("NOTIFY_SOCKET", &socket);
    let mut serving = Serving::start(command).await;
    assert_eq!(told().await, "READY=1");
    let (path, body) = generating(QUESTION).remove(0);
    assert_eq!(Ask::post(&format!("http://{}{path}", serving.clients), &body).send().await.status, 200);
    serving.signal("TERM").await;
    assert_eq!(told().await, "STOPPING=1");
    assert_eq!(serving.end().await.0, Some(0));

    let mut command = serve(&upstream.url());
    command.env("NOTIFY_SOCKET", folder.path().join("nobody"));
    serving = Serving::start(command).await;
    let warning = serving.until("the service manager cannot be told").await;
    assert!(warning["socket"].as_str().unwrap().ends_with("nobody"), "{warning}");
    serving.signal("TERM").await;
    assert_eq!(serving.end().await.0, Some(0), "it serves all the same");
}

#[tokio::test]
async fn the_standard_variables_switch_traces_on_and_the_log_says_once_that_nobody_takes_them() {
    let (upstream, collector) = (upstream().await, Collector::answering(http::StatusCode::BAD_REQUEST).await);
    let mut command = serve(&upstream.url());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).env("OTEL_SERVICE_NAME", "cache");
    let serving = Serving::start(command).await;
    let (path, body) = generating(QUESTION).remove(0);
    for count in 1..=2 {
        Ask::post(&format!("http://{}{path}", serving.clients), &body).send().await;
        collector.until_requests(count).await;
    }
    let export = &collector.exports()[0];
    assert_eq!(attribute(&export.resource.attributes, "service.name").as_deref(), Some("cache"));
    serving.signal("TERM").await;
    let (code, log) = serving.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("the collector does not take spans").count(), 1, "{log}");
    assert!(log.contains("it answered with status 400"), "{log}");
}

#[tokio::test]
async fn an_open_stream_is_finished_before_it_ends() {
    let upstream = upstream().await;
    let mut serving = Serving::start(serve(&upstream.url())).await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(100, &gate));
    let (path, body) = generating(QUESTION).remove(0);
    let url = format!("http://{}{path}", serving.clients);
    let mut stream = Ask::post(&url, &streamed(&body)).open().await;
    gate.until_waiting(1).await;
    serving.signal("TERM").await;
    serving.until("shutting down: open requests may finish").await;
    gate.open();
    stream.finish().await.unwrap();
    assert!(stream.text().ends_with("data: [DONE]\n\n"), "{}", stream.text());
    assert_eq!(serving.end().await.0, Some(0));
}

#[tokio::test]
async fn an_address_in_use_is_said_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin-listen"] {
        let other = if flag == "--listen" { "--admin-listen" } else { "--listen" };
        let (code, _, error) =
            run(&["serve", flag, &address, other, "127.0.0.1:0", "--embedder", "off"]).await;
        assert_eq!(code, Some(1), "{flag}: {error}");
        assert!(error.contains(&address) && error.contains("another program listens there"), "{error}");
    }
}

/// Not even at the finest level, in anyone's library: who asks, what was asked, what was answered.
#[tokio::test]
async fn the_log_holds_no_credential_no_prompt_and_no_reply() {
    let upstream = upstream().await;
    let mut command = serve(&upstream.url());
    command.env("RUST_LOG", "trace").env("REJOINDER_ADMIN_TOKEN", "canary-token");
    command.env("REJOINDER_SECRET", "canary-secret").env("KEY_OF_KEYED", "canary-key");
    let folder = tempfile::tempdir().unwrap();
    let keyed = format!(
        "[[upstream]]\nname = \"keyed\"\nmodels = [\"keyed\"]\nurl = \"{}\"\napi_key_env = \"KEY_OF_KEYED\"\n",
        upstream.url()
    );
    command.args(["--config", &file(folder.path(), &keyed)]);
    let serving = Serving::start(command).await;
    let mut asks = Vec::new();
    for (path, body) in generating("canary-prompt") {
        asks.push((path, body.clone()));
        asks.push((path, streamed(&body)));
        asks.push((path, body));
    }
    asks.push(("/ask", json!({"query": "canary-question"})));
    asks.push(("/v1/models", json!({"canary-body": 1})));
    asks.push(("/v1/completions", json!({"model": "keyed", "prompt": "canary-prompt"})));
    for (path, name) in [("/v1/embeddings", "input"), ("/api/embed", "input"), ("/api/embeddings", "prompt")]
    {
        let mut body = json!({"model": "m"});
        body[name] = json!("canary-text");
        asks.push((path, body));
    }
    // Of the wrong kind or not known, where an error would like to show what it found.
    let mut wrong = json!({"response": 5});
    for name in
        ["data", "embeddings", "message", "content", "choices", "output", "usage", "stop_reason", "done"]
    {
        wrong[name] = json!("canary");
    }
    let unknown = json!({
        "choices": [{"message": {"content": "a"}, "text": "a", "finish_reason": "canary"}],
        "status": "canary",
        "output": [],
        "done": true,
        "done_reason": "canary",
        "stop_reason": "canary",
    });
    let (document, events) = ("application/json", "text/event-stream");
    let faults = [
        Fault::none(),
        Fault::error_inside(),
        Fault::body(document, "{\"canary-reply\": "),
        Fault::body(document, wrong.to_string()),
        Fault::body(document, unknown.to_string()),
        Fault::body(events, "data: {\"type\": \"response.completed\", \"output_index\": \"canary\"}\n\n"),
        Fault::body(events, "data: {\"choices\": \"canary\", \"index\": \"canary\"}\n\n"),
        Fault::body(events, "data: canary\n\n"),
        Fault::body("application/x-ndjson", "{\"done\": \"canary\", \"response\": [\"canary\"]}\n"),
    ];
    for (path, body) in asks {
        for fault in faults.clone() {
            upstream.set_fault(fault);
            let ask = Ask::post(&format!("http://{}{path}?key=canary-query", serving.clients), &body);
            let ask = ["authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key"]
                .iter()
                .fold(ask, |ask, name| ask.header(name, "canary-credential"));
            ask.header("cache-control", "no-cache")
                .header("x-rejoinder-namespace", "canary-namespace")
                .send()
                .await;
        }
    }
    let with_key = |request: &&Recorded| request.header("authorization") == Some("Bearer canary-key");
    assert_eq!(upstream.requests().iter().filter(with_key).count(), faults.len());
    serving.signal("TERM").await;
    let (code, log) = serving.end().await;
    assert_eq!(code, Some(0));
    let told = log.lines().filter(|line| line.contains("a reply is not stored")).count();
    assert!(told > 50, "{told} replies: the log was on, and had something to say");
    let leaks: Vec<_> = log.lines().filter(|line| line.contains("canary")).take(5).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[tokio::test]
async fn a_line_for_each_request_says_what_happened_and_the_prompt_only_where_wanted() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    for prompts in [false, true] {
        let path = file(folder.path(), &format!("log.prompts = {prompts}\n"));
        let mut command = serve(&upstream.url());
        command.args(["--config", &path]);
        let mut serving = Serving::start(command).await;
        let (path, body) = generating(QUESTION).remove(0);
        let url = format!("http://{}{path}", serving.clients);
        Ask::post(&url, &body).header("x-request-id", "mine").send().await;
        let line = serving.until("").await;
        assert_eq!(line["request_id"], "mine", "{line}");
        assert_eq!(upstream.requests().last().unwrap().header("x-request-id"), Some("mine"));
        assert_eq!(
            (&line["method"], &line["path"], &line["status"]),
            (&json!("POST"), &json!(path), &json!(200))
        );
        assert_eq!((&line["layer"], &line["detail"]), (&json!("upstream"), &json!("no-candidate")), "{line}");
        Ask::post(&url, &body).send().await;
        let line = serving.until("").await;
        assert_eq!(line["layer"], "exact", "{line}");
        assert!(line["request_id"].as_str().is_some_and(|id| id.len() > 10), "one was made: {line}");
        // What is to leave no trace leaves none here.
        let url = format!("http://{}/ask", serving.clients);
        for (name, value) in [("cache-control", "no-store"), ("x-rejoinder-ttl", "0")] {
            Ask::post(&url, &json!({"query": "a canary"})).header(name, value).send().await;
        }
        serving.signal("TERM").await;
        let (_, log) = serving.end().await;
        assert_eq!(log.contains(QUESTION), prompts, "{log}");
        assert!(!log.contains("canary"), "{log}");
    }
}

#[tokio::test]
async fn the_log_is_json_where_nobody_looks_and_text_where_asked_for() {
    let mut command = serve("http://127.0.0.1:9");
    command.args(["--log-format", "text"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = tokio::time::timeout(DEADLINE, log.next_line()).await.unwrap().unwrap().unwrap();
    assert!(line.contains("listening for clients") && line.contains("INFO"), "{line}");
    assert!(!line.contains('\u{1b}'), "no colours where nobody looks: {line:?}");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn the_demo_shows_each_case_and_ends_with_0() {
    let (code, printed, error) = run(&["demo"]).await;
    assert_eq!(code, Some(0), "{printed}{error}");
    assert!(printed.contains("simulated upstream (no model)"), "{printed}");
    for case in ["cold", "exact hit", "whitespace", "paraphrase hit", "look-alike", "bypass", "streaming hit"]
    {
        assert!(
            printed.lines().any(|line| line.starts_with(case) && line.ends_with(" ok")),
            "{case}: {printed}"
        );
    }
}

#[tokio::test]
async fn a_health_check_tells_the_living_from_the_dead() {
    let upstream = upstream().await;
    let mut serving = Serving::start(serve(&upstream.url())).await;
    let operators = serving.until("listening for operators").await;
    let admin = operators["address"].as_str().unwrap().to_owned();
    let (code, _, error) = run(&["healthcheck", "--admin-listen", &admin]).await;
    assert_eq!(code, Some(0), "{error}");
    serving.signal("TERM").await;
    serving.end().await;
    let (code, _, error) = run(&["healthcheck", "--admin-listen", &admin]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains(&admin), "{error}");
}
