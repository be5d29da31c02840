//! `rejoinder purge` against a running proxy: what it selects goes, after asking, and nothing else.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::program::{output, output_with, rejoinder};
use crate::support::redis::{patient_replica, redis};
use crate::support::{Ask, Proxy, proxy, upstream};

const PATH: &str = "/api/generate";

async fn fill(proxy: &Proxy) {
    for (model, namespace, prompt) in [("a", "", "1"), ("a", "docs", "2"), ("b", "docs", "3"), ("b", "", "4")]
    {
        let ask = proxy.post(PATH, &json!({"model": model, "prompt": prompt, "stream": false}));
        let ask = if namespace.is_empty() { ask } else { ask.header("x-rejoinder-namespace", namespace) };
        assert_eq!(ask.send().await.status, 200);
    }
}

async fn prompts(proxy: &Proxy) -> Vec<String> {
    let page = Ask::get(&format!("{}/entries", proxy.admin_url())).send().await.json();
    let entries = page["entries"].as_array().unwrap();
    let mut prompts: Vec<_> =
        entries.iter().map(|entry| entry["prompt"].as_str().unwrap().to_owned()).collect();
    prompts.sort_unstable();
    prompts
}

async fn purge(proxy: &Proxy, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = proxy.admin_url();
    output(rejoinder(&[&["purge"], arguments, &["--admin", &admin]].concat())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_selected_goes_from_either_store_and_a_dry_run_says_how_much() {
    let upstream = upstream().await;
    let redis = redis().await;
    for proxy in [proxy(&upstream).await, patient_replica(&upstream, &redis.url()).await] {
        fill(&proxy).await;
        for (selector, count) in [
            (&["--all"][..], 4),
            (&["--model", "a"], 2),
            (&["--namespace", "docs"], 2),
            (&["--model", "a", "--namespace", "docs"], 1),
            (&["--older-than", "1h"], 0),
        ] {
            let (code, text, error) = purge(&proxy, &[selector, &["--dry-run", "--json"]].concat()).await;
            assert_eq!((code, error.as_str()), (Some(0), ""), "{selector:?}");
            let document: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(document, json!({"would_purge": count}), "{selector:?}");
        }
        assert_eq!(prompts(&proxy).await.len(), 4, "a dry run purges nothing");
        let (code, text, _) = purge(&proxy, &["--model", "a", "--namespace", "docs", "--yes"]).await;
        assert_eq!((code, text.as_str()), (Some(0), "1 entry purged\n"));
        assert_eq!(prompts(&proxy).await, ["1", "3", "4"]);
        let (code, text, _) = purge(&proxy, &["--all", "--dry-run"]).await;
        assert_eq!((code, text.as_str()), (Some(0), "3 entries would be purged; nothing was\n"));
        let (code, text, _) = purge(&proxy, &["--all", "--yes", "--json"]).await;
        assert_eq!((code, text.as_str()), (Some(0), "{\"purged\":3}\n"));
        assert!(prompts(&proxy).await.is_empty());
    }
}

#[tokio::test]
async fn without_a_terminal_a_yes_or_a_selector_nothing_is_purged() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    fill(&proxy).await;
    let (code, _, error) = purge(&proxy, &["--all"]).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("no terminal") && error.contains("--yes"), "{error}");
    for wrong in
        [&[][..], &["--yes"], &["--all", "--model", "a", "--yes"], &["--older-than", "soon", "--yes"]]
    {
        assert_eq!(purge(&proxy, wrong).await.0, Some(2), "{wrong:?}");
    }
    // A variable of a script that was not set.
    for name in ["--model", "--namespace"] {
        assert_eq!(purge(&proxy, &[name, "", "--yes"]).await.0, Some(2), "{name}");
    }
    assert_eq!(prompts(&proxy).await.len(), 4);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{free}");
    let (code, _, error) = output(rejoinder(&["purge", "--all", "--yes", "--admin", &nobody])).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("rejoinder serve"), "{error}");
}

/// The program on a terminal of its own (`script` of util-linux), and what is typed there.
async fn typed(proxy: &Proxy, answer: &str) -> (Option<i32>, String) {
    let program = env!("CARGO_BIN_EXE_rejoinder");
    let line = format!("{program} purge --model a --admin {}", proxy.admin_url());
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]);
    let (code, text, _) = output_with(script, answer).await;
    (code, text)
}

#[tokio::test]
async fn on_a_terminal_it_asks() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    fill(&proxy).await;
    for no in ["n\n", "\n"] {
        let (code, text) = typed(&proxy, no).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("Purge 2 entries (model a, at http://"), "{text}");
        assert!(text.contains("nothing was purged"), "{text}");
        assert_eq!(prompts(&proxy).await.len(), 4);
    }
    let (code, text) = typed(&proxy, "yes\n").await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(prompts(&proxy).await, ["3", "4"]);
}
