//! The dashboard: a browser shows what the proxy did, to its keyboard and to a screen reader too, and no prompt becomes
//! markup. `scripts/test` installs Chromium, and what drives it into `.test-clients/`.
//!
//! The cases are in `tests/dashboard/check.mjs`, which prints a line for each (`cargo test -- --nocapture`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

mod support;

use std::path::Path;
use std::process::Stdio;

use http::{Method, StatusCode};
use rejoinder::config::{EmbedderKind, Secret};
use serde_json::{Value, json};
use support::{Ask, PARAPHRASE, Proxy, QUESTION, proxy, proxy_with, upstream};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const CHAT: &str = "/v1/chat/completions";
const TOKEN: &str = "s3cret: with a colon, and ümlauts";

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

/// Runs the script against a proxy; sends what it waits for, and fails the test unless every case went well.
async fn browse(proxy: &Proxy) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join(".test-clients/dashboard");
    assert!(
        folder.join("node_modules/playwright-core/package.json").exists(),
        "{} lacks Playwright: run scripts/test, which installs it",
        folder.display()
    );
    let mut child = Command::new("node")
        .arg(root.join("tests/dashboard/check.mjs"))
        .args([&proxy.admin_url(), TOKEN])
        .current_dir(folder)
        .env_remove("NODE_OPTIONS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut report = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        println!("{line}");
        if line == "ready for a request" {
            assert_eq!(proxy.post(CHAT, &chat(QUESTION)).send().await.layer(), Some("exact"));
        } else {
            report.push_str(&line);
            report.push('\n');
        }
    }
    let status = child.wait().await.unwrap();
    assert!(status.success(), "{status}\n{report}");
    assert!(report.lines().filter(|line| line.ends_with(": ok")).count() > 40, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_what_the_proxy_did() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.admin.token = Some(Secret::new(TOKEN.to_owned()));
    })
    .await;
    let prompts = [
        QUESTION,
        QUESTION,
        PARAPHRASE,
        "What is the capital of Spain?",
        "<img src=x onerror=alert(1)> What does this tag do?",
    ];
    for prompt in prompts {
        assert_eq!(proxy.post(CHAT, &chat(prompt)).send().await.status, StatusCode::OK);
    }
    browse(&proxy).await;
}

/// Every file that a file of the page names is served, and as what it is: a browser runs nothing else.
#[tokio::test]
async fn its_files_are_served_and_refer_to_nothing_else() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let get = |path: &str| Ask::get(&format!("{}{path}", proxy.admin_url()));
    let page = get("/").send().await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(!page.text().contains("http://") && !page.text().contains("https://"), "{}", page.text());
    let mut files: Vec<String> = page
        .text()
        .split(['"', '\''])
        .filter(|word| word.starts_with("/dashboard/"))
        .map(str::to_owned)
        .collect();
    let mut at = 0;
    while let Some(file) = files.get(at).cloned() {
        let reply = get(&file).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{file}");
        let kind = match file.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            other => panic!("{other:?}"),
        };
        assert_eq!(reply.header("content-type"), Some(kind), "{file}");
        let imported = reply.text().split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
        for name in imported.map(|name| format!("/dashboard/{name}")) {
            if !files.contains(&name) {
                files.push(name);
            }
        }
        at += 1;
    }
    assert!(files.len() > 8, "{files:?}");
    let refused = Ask::new(Method::POST, &format!("{}/", proxy.admin_url())).send().await;
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get("/dashboard/nothing.js").send().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_browser_is_asked_for_the_token_and_every_file_is_behind_it() {
    let upstream = upstream().await;
    let proxy =
        proxy_with(&upstream, |config| config.admin.token = Some(Secret::new("s3cret".to_owned()))).await;
    for path in ["/", "/dashboard/app.js", "/overview"] {
        let ask = Ask::get(&format!("{}{path}", proxy.admin_url()));
        let refused = ask.clone().send().await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(refused.header("www-authenticate").unwrap().starts_with("Basic "), "{path}");
        // `anyone:s3cret`, `anyone:wrong`
        let known = ask.clone().header("authorization", "Basic YW55b25lOnMzY3JldA==").send().await;
        assert_eq!(known.status, StatusCode::OK, "{path}");
        let wrong = ask.clone().header("authorization", "Basic YW55b25lOndyb25n").send().await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED, "{path}");
        // A page elsewhere cannot use what the browser remembers.
        let foreign = ask
            .header("authorization", "Basic YW55b25lOnMzY3JldA==")
            .header("origin", "https://evil.example")
            .send()
            .await;
        assert_eq!(foreign.status, StatusCode::FORBIDDEN, "{path}");
    }
}
