//! `rejoinder stats` against a running proxy: what it has served and saved, for people and as JSON.

use rejoinder::config::{EmbedderKind, Mode, Secret};
use serde_json::{Value, json};

use crate::support::program::{output, rejoinder};
use crate::support::{
    PARAPHRASE, Proxy, QUESTION, proxy, proxy_with, saying, semantic_proxy, until_admin, upstream,
};

const CHAT: &str = "/v1/chat/completions";

async fn ask(proxy: &Proxy, prompt: &str) {
    let body = json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]});
    assert_eq!(proxy.post(CHAT, &body).send().await.status, 200);
}

async fn stats(arguments: &[&str]) -> (Option<i32>, String, String) {
    output(rejoinder(&[&["stats"], arguments].concat())).await
}

/// The words of the line that begins with this.
fn line<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
    let line = text.lines().find(|line| line.trim_start().starts_with(beginning));
    line.unwrap_or_else(|| panic!("no {beginning}: {text}")).split_whitespace().collect()
}

#[tokio::test]
async fn it_says_what_was_served_by_which_layer_and_what_it_saved() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    for prompt in [QUESTION, QUESTION, PARAPHRASE, "How do I reverse a list in Python?"] {
        ask(&proxy, prompt).await;
    }
    let (code, text, error) = stats(&["--admin", &proxy.admin_url()]).await;
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert_eq!(line(&text, "requests looked up").last(), Some(&"4"));
    for (name, expected) in [("hits", "2 (50.0 %)"), ("exact", "1 (25.0 %)"), ("semantic", "1 (25.0 %)")] {
        assert_eq!(line(&text, name)[1..].join(" "), expected, "{text}");
    }
    assert_eq!(line(&text, "misses")[1], "2");
    assert!(line(&text, "tokens saved")[2].parse::<u64>().unwrap() > 0, "{text}");
    assert!(line(&text, "embeddings")[1].parse::<u64>().unwrap() > 0, "{text}");
    assert!(!text.contains("observed") && !text.contains("audited"), "nothing to say of these: {text}");

    let (code, text, _) = stats(&["--json", "--admin", &proxy.admin_url()]).await;
    assert_eq!(code, Some(0));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["counters"]["exact_hits"], 1);
    assert_eq!(document["observations"]["requests"], 0);
    assert_eq!(document["audits"]["audited"], 0);
}

#[tokio::test]
async fn it_says_what_was_saved_by_model_and_in_money() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.prices = toml::from_str("'llama*' = {input = 100_000, output = 400_000}").unwrap();
    })
    .await;
    upstream.fault_next(saying("It is Paris."));
    for _ in 0..3 {
        ask(&proxy, QUESTION).await;
    }
    let (code, text, error) = stats(&["--admin", &proxy.admin_url()]).await;
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert_eq!(line(&text, "tokens saved")[2], "14", "{text}");
    assert_eq!(line(&text, "money saved")[2..], ["3.80", "USD"], "{text}");
    let of_model = line(&text, "llama3.2");
    assert_eq!(of_model[..4], ["llama3.2", "2", "6", "8"], "{text}");
    assert_eq!(of_model[5..], ["3.80", "USD"], "{text}");
    assert!(!text.contains("not known"), "{text}");
    let (_, text, _) = stats(&["--json", "--admin", &proxy.admin_url()]).await;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!((document["counters"]["saved"]["money"]["USD"].as_f64().unwrap() - 3.8).abs() < 1e-9, "{text}");
}

#[tokio::test]
async fn it_shows_what_was_observed() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.mode = Mode::Observe;
    })
    .await;
    upstream.set_fault(saying("It is Paris."));
    for prompt in [QUESTION, QUESTION, PARAPHRASE] {
        ask(&proxy, prompt).await;
    }
    until_admin(&proxy, "/observations", |seen| seen["exact"]["same"] == 1 && seen["semantic"]["same"] == 1)
        .await;
    let (code, text, error) = stats(&["--admin", &proxy.admin_url()]).await;
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(text.contains(": 3 requests"), "{text}");
    assert!(line(&text, "exact (upstream's own)").contains(&"1/0/0"), "{text}");
    assert!(line(&text, "semantic as configured").contains(&"1/0/0"), "{text}");
    assert!(line(&text, "semantic, confidence 0.75").contains(&"33.3"), "{text}");
}

#[tokio::test]
async fn it_shows_the_false_hit_rate_of_audits() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.cache.audit_share = 1.0;
    })
    .await;
    upstream.fault_next(saying("It has 2 million people."));
    ask(&proxy, QUESTION).await;
    upstream.fault_next(saying("It has 9 million people."));
    ask(&proxy, PARAPHRASE).await;
    until_admin(&proxy, "/audits", |audits| audits["different"] == 1).await;
    let (_, text, _) = stats(&["--admin", &proxy.admin_url()]).await;
    assert_eq!(line(&text, "audited hits")[2], "1", "{text}");
    assert!(line(&text, "false-hit rate").contains(&"100.0"), "{text}");
    assert_eq!(line(&text, "entries not served again").last(), Some(&"1"), "{text}");
}

#[tokio::test]
async fn a_token_is_taken_from_the_environment() {
    let upstream = upstream().await;
    let proxy =
        proxy_with(&upstream, |config| config.admin.token = Some(Secret::new("letmein".to_owned()))).await;
    let with = async |variable: Option<(&str, &str)>| {
        let mut command = rejoinder(&["stats"]);
        command.env("REJOINDER_ADMIN", proxy.admin_url());
        command.envs(variable);
        output(command).await
    };
    let file = crate::support::program::file("", "letmein\n");
    for variable in
        [("REJOINDER_ADMIN_TOKEN", "letmein"), ("REJOINDER_ADMIN_TOKEN_FILE", file.path().to_str().unwrap())]
    {
        assert_eq!(with(Some(variable)).await.0, Some(0), "{}", variable.0);
    }
    for variable in [None, Some(("REJOINDER_ADMIN_TOKEN", "wrong"))] {
        let (code, text, error) = with(variable).await;
        assert_eq!((code, text.as_str()), (Some(1), ""));
        assert!(
            error.contains("refuses the admin token") && error.contains("REJOINDER_ADMIN_TOKEN"),
            "{error}"
        );
        assert!(!error.contains("wrong"), "{error}");
    }
}

#[tokio::test]
async fn an_error_names_its_cause_and_the_remedy() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, cause, remedy) in [
        (format!("http://{free}"), "refused", "rejoinder serve"),
        (proxy.url(), "not rejoinder's admin listener", "client listener"),
        (upstream.url(), "not rejoinder's admin listener", "http://127.0.0.1:11436"),
        ("http://user:hunter2@x".to_owned(), "is no URL", "http://127.0.0.1:11436"),
    ] {
        let (code, text, error) = stats(&["--admin", &url]).await;
        assert_eq!((code, text.as_str()), (Some(1), ""), "{url}");
        assert!(error.contains(cause) && error.contains(remedy), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// The words that a view must have.
const SHOWN: [&str; 4] = ["requests", "semantic", "tokens saved", "misses by reason"];

#[cfg(unix)]
#[tokio::test]
async fn watched_it_says_it_again_and_again_until_it_is_interrupted() {
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    ask(&proxy, QUESTION).await;
    for json in [true, false] {
        let mut command = rejoinder(&["stats", "--watch", "--every", "100ms", "--admin", &proxy.admin_url()]);
        command.args(json.then_some("--json")).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..3 {
            let line = lines.next_line().await.unwrap().unwrap();
            if json {
                let document: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(document["totals"]["misses"], 1, "{document}");
            } else {
                assert!(line.contains(" misses=1 ") && !line.contains('\u{1b}'), "{line:?}");
            }
        }
        let id = child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert_eq!(child.wait().await.unwrap().code(), Some(0), "json: {json}");
    }
}

/// On a terminal: drawn in place, and the cursor is back after Ctrl-C.
#[cfg(unix)]
#[tokio::test]
async fn on_a_terminal_it_is_redrawn_in_place() {
    const TERMINAL: &str = r#"
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
said = b""
while said.count(b"misses by reason") < 3:
    said += os.read(terminal, 4096)
os.write(terminal, b"\x03")
try:
    while piece := os.read(terminal, 4096):
        said += piece
except OSError:
    pass
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    ask(&proxy, QUESTION).await;
    let mut command = tokio::process::Command::new("python3");
    command.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_rejoinder"), "stats", "--watch", "--every", "100ms"]);
    command.args(["--admin", &proxy.admin_url()]).env("TERM", "xterm").kill_on_drop(true);
    let (code, text, error) = output(command).await;
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(SHOWN.iter().all(|word| text.contains(word)), "{text}");
    let (hidden, shown) = (text.find("\u{1b}[?25l").unwrap(), text.rfind("\u{1b}[?25h").unwrap());
    assert!(hidden < text.find("requests").unwrap() && shown > text.rfind("requests").unwrap(), "{text:?}");
    assert!(text.contains("\u{1b}[J") || text.contains("\u{1b}[0J"), "cleared and drawn anew: {text:?}");
}

#[tokio::test]
async fn watching_what_is_not_there_ends_with_an_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, text, error) = stats(&["--watch", "--admin", &format!("http://{free}")]).await;
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(error.contains("rejoinder serve"), "{error}");
    let (code, _, error) = stats(&["--watch", "--every", "1ms"]).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("100ms"), "{error}");
}
