//! `rejoinder entries` against a running proxy: what is stored, for people and as JSON, and removing it.

use rejoinder::config::Secret;
use serde_json::{Value, json};

use crate::support::exports::{export, with_secret};
use crate::support::program::{output, rejoinder};
use crate::support::{Ask, Proxy, fill, proxy, proxy_with, upstream};

const PATH: &str = "/api/generate";

async fn entries(proxy: &Proxy, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = proxy.admin_url();
    output(rejoinder(&[&["entries"], arguments, &["--admin", &admin]].concat())).await
}

async fn listed(proxy: &Proxy, arguments: &[&str]) -> Value {
    let (code, text, error) = entries(proxy, &[&["list", "--json"], arguments].concat()).await;
    assert_eq!((code, error.as_str()), (Some(0), ""));
    serde_json::from_str(&text).unwrap()
}

fn prompts(page: &Value) -> Vec<&str> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["prompt"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn entries_are_listed_newest_first_and_searched() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    assert_eq!(listed(&proxy, &[]).await, json!({"entries": [], "next_cursor": null}));
    let (code, text, error) = entries(&proxy, &["list"]).await;
    assert_eq!((code, text.as_str()), (Some(0), ""));
    assert!(error.contains("no such entries"), "{error}");

    fill(&proxy, &[("m", "", "one apple"), ("n", "docs", "two\npears"), ("m", "", "three Apples")]).await;
    assert_eq!(prompts(&listed(&proxy, &[]).await), ["three Apples", "two\npears", "one apple"]);
    assert_eq!(prompts(&listed(&proxy, &["--query", "APPLE"]).await), ["three Apples", "one apple"]);
    let first = listed(&proxy, &["--limit", "2"]).await;
    assert_eq!(prompts(&first), ["three Apples", "two\npears"]);
    assert!(first["next_cursor"].is_string());

    let (_, text, error) = entries(&proxy, &["list", "--limit", "2"]).await;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "headings and an entry a line: {text}");
    assert!(lines[1].contains("three Apples") && lines[2].contains("two pears"), "{text}");
    assert!(lines[2].contains("n / docs"), "{text}");
    let id = lines[2].split_whitespace().next().unwrap();
    assert_eq!(id, first["entries"][1]["id"]);
    assert!(error.contains("--all"), "{error}");
}

#[tokio::test]
async fn all_are_listed_over_many_pages() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, with_secret).await;
    let import = Ask::post_bytes(&format!("{}/import", proxy.admin_url()), export(130, 10)).send().await;
    assert_eq!(import.json()["imported"], 130);
    assert_eq!(prompts(&listed(&proxy, &[]).await).len(), 20);
    assert_eq!(prompts(&listed(&proxy, &["--limit", "120"]).await).len(), 120);
    let all = listed(&proxy, &["--all"]).await;
    let mut prompts = prompts(&all);
    prompts.sort_unstable();
    prompts.dedup();
    assert_eq!((prompts.len(), &all["next_cursor"]), (130, &Value::Null));
}

#[tokio::test]
async fn one_is_shown_whole_and_cannot_steer_the_terminal() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    fill(&proxy, &[("m", "docs", "Why is\nthe sky \u{1b}]0;blue\u{7}?")]).await;
    let entry = listed(&proxy, &[]).await["entries"][0].clone();
    let id = entry["id"].as_str().unwrap();
    let (code, text, _) = entries(&proxy, &["show", id]).await;
    assert_eq!(code, Some(0));
    for part in
        [id, PATH, "docs", "Why is\nthe sky", entry["reply"].as_str().unwrap().lines().next().unwrap()]
    {
        assert!(text.contains(&part.replace(['\u{1b}', '\u{7}'], "\u{FFFD}")), "{part}: {text}");
    }
    let (_, list, _) = entries(&proxy, &["list"]).await;
    assert!(!(text + &list).contains(['\u{1b}', '\u{7}']), "{list}");
    let (code, text, _) = entries(&proxy, &["show", id, "--json"]).await;
    // With what speaks for it besides.
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &shown["status"]), (Some(0), &json!("fresh")));
    for (name, value) in entry.as_object().unwrap() {
        assert_eq!(shown[name], *value, "{name}");
    }
}

#[tokio::test]
async fn removed_ones_are_gone_and_missing_ones_are_named() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    fill(&proxy, &[("m", "", "1"), ("m", "", "2"), ("m", "", "3")]).await;
    let page = listed(&proxy, &[]).await;
    let ids: Vec<_> = (0..3).map(|at| page["entries"][at]["id"].as_str().unwrap()).collect();
    let (code, text, error) = entries(&proxy, &["rm", ids[0]]).await;
    assert_eq!((code, text.as_str(), error.as_str()), (Some(0), "1 removed\n", ""));
    let (code, text, error) = entries(&proxy, &["rm", "--json", ids[0], ids[1]]).await;
    assert_eq!(code, Some(1), "one was not there");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document, json!({"removed": [ids[1]], "missing": [ids[0]]}));
    assert!(error.contains(ids[0]), "{error}");
    assert_eq!(prompts(&listed(&proxy, &[]).await), ["1"]);
    let (code, _, error) = entries(&proxy, &["show", ids[0]]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("there is no entry") && error.contains("entries list"), "{error}");
    for wrong in [&["rm"][..], &["rm", "x"], &["show"], &["list", "--limit", "0"], &[]] {
        assert_eq!(entries(&proxy, wrong).await.0, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn an_error_names_its_cause_and_the_remedy() {
    let upstream = upstream().await;
    let token = proxy_with(&upstream, |config| config.admin.token = Some(Secret::new("x".to_owned()))).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, cause, remedy) in [
        (format!("http://{free}"), "refused", "rejoinder serve"),
        (upstream.url(), "not rejoinder's admin listener", "client listener"),
        (token.admin_url(), "refuses the admin token", "REJOINDER_ADMIN_TOKEN"),
    ] {
        let id = "0".repeat(32);
        for command in [&["list"][..], &["show", &id], &["rm", &id]] {
            let (code, _, error) =
                output(rejoinder(&[&["entries"], command, &["--admin", &url]].concat())).await;
            assert_eq!(code, Some(1), "{url}");
            assert!(error.contains(cause) && error.contains(remedy), "{url} {command:?}: {error}");
        }
    }
}
