//! `GET /near-misses`: candidates that fell just short of being served, and why; gone with their entries.

use http::{Method, StatusCode};
use rejoinder::config::{Config, EmbedderKind};
use serde_json::{Value, json};

use crate::support::{Ask, PARAPHRASE, Proxy, QUESTION, Reply, Simulated, proxy_with, upstream};

const CHAT: &str = "/v1/chat/completions";

/// Two that look alike and want different answers.
const COUNTED: &str = "How many days are there in 3 weeks?";
const LOOK_ALIKE: &str = "How many days are there in 4 weeks?";

/// Far from it.
const UNRELATED: &str = "How do I reverse a list in Python?";

async fn start(upstream: &Simulated, customise: impl FnOnce(&mut Config)) -> Proxy {
    proxy_with(upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        // No paraphrase is as near as this, and each is near it.
        config.similarity_threshold = 0.98;
        customise(config);
    })
    .await
}

async fn ask_with(proxy: &Proxy, prompt: &str, headers: &[(&str, &str)]) -> Reply {
    let body = json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]});
    let ask = headers.iter().fold(proxy.post(CHAT, &body), |ask, (name, value)| ask.header(name, value));
    ask.send().await
}

async fn ask(proxy: &Proxy, prompt: &str) -> Reply {
    ask_with(proxy, prompt, &[]).await
}

async fn near_misses(proxy: &Proxy, query: &str) -> Vec<Value> {
    let reply = Ask::get(&format!("{}/near-misses{query}", proxy.admin_url())).send().await;
    assert_eq!(reply.status, StatusCode::OK);
    reply.json()["near_misses"].as_array().unwrap().clone()
}

fn prompts(near_misses: &[Value]) -> Vec<&str> {
    near_misses.iter().map(|near| near["prompt"].as_str().unwrap()).collect()
}

async fn entry_of(proxy: &Proxy, prompt: &str) -> String {
    let entries = Ask::get(&format!("{}/entries", proxy.admin_url())).send().await.json();
    let entries = entries["entries"].as_array().unwrap().clone();
    let entry = entries.iter().find(|entry| entry["prompt"] == prompt).unwrap();
    entry["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_falls_just_short_is_shown_with_the_evidence() {
    let upstream = upstream().await;
    let proxy = start(&upstream, |config| {
        config.similarity_threshold = 0.7;
        config.cache.min_confidence = Some(0.0);
    })
    .await;
    let namespace = [("x-rejoinder-namespace", "docs")];
    ask_with(&proxy, COUNTED, &namespace).await;
    let rejected = ask_with(&proxy, LOOK_ALIKE, &namespace).await;
    assert!(rejected.cache_status().ends_with("detail=guard-rejected"), "{}", rejected.cache_status());
    let shown = near_misses(&proxy, "").await;
    assert_eq!(shown.len(), 1, "{shown:?}");
    for (name, expected) in [
        ("model", json!("llama3.2")),
        ("namespace", json!("docs")),
        ("prompt", json!(LOOK_ALIKE)),
        ("stored_prompt", json!(COUNTED)),
        ("entry", json!(entry_of(&proxy, COUNTED).await)),
        ("reason", json!("guard-rejected")),
    ] {
        assert_eq!(shown[0][name], expected, "{name}: {shown:?}");
    }
    assert!(shown[0]["at"].as_str().unwrap().ends_with('Z'));
    assert!(shown[0]["rule"].is_string(), "{shown:?}");
    for (name, header) in [("similarity", "x-rejoinder-similarity"), ("confidence", "x-rejoinder-confidence")]
    {
        let said: f64 = rejected.header(header).unwrap().parse().unwrap();
        assert!((shown[0][name].as_f64().unwrap() - said).abs() < 1e-3, "{name}: {shown:?}");
    }
}

#[tokio::test]
async fn the_newest_come_first_and_what_is_far_off_does_not() {
    let upstream = upstream().await;
    let proxy = start(&upstream, |_| {}).await;
    for prompt in [QUESTION, UNRELATED, PARAPHRASE, "Which city is the capital of France?"] {
        ask(&proxy, prompt).await;
    }
    let shown = near_misses(&proxy, "").await;
    assert_eq!(prompts(&shown), ["Which city is the capital of France?", PARAPHRASE], "{shown:?}");
    assert_eq!(shown[1]["reason"], "below-threshold");
    assert_eq!(shown[1]["rule"], Value::Null);
    assert_eq!(near_misses(&proxy, "?limit=1").await, shown[..1]);
    let wrong = Ask::get(&format!("{}/near-misses?limit=many", proxy.admin_url())).send().await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn they_are_bounded_in_number_and_can_be_off() {
    let upstream = upstream().await;
    for most in [0, 1] {
        let proxy = start(&upstream, |config| config.cache.near_misses = most).await;
        for prompt in [QUESTION, PARAPHRASE, "Which city is the capital of France?"] {
            ask(&proxy, prompt).await;
        }
        assert_eq!(near_misses(&proxy, "").await.len(), most);
    }
}

#[tokio::test]
async fn a_request_that_leaves_no_trace_leaves_none_here() {
    let upstream = upstream().await;
    let proxy = start(&upstream, |_| {}).await;
    ask(&proxy, QUESTION).await;
    ask_with(&proxy, PARAPHRASE, &[("cache-control", "no-store")]).await;
    ask_with(&proxy, PARAPHRASE, &[("x-rejoinder-ttl", "0")]).await;
    let asked = proxy.post("/ask", &json!({"query": PARAPHRASE})).header("cache-control", "no-store");
    asked.send().await;
    assert_eq!(near_misses(&proxy, "").await, [] as [Value; 0]);
}

#[tokio::test]
async fn they_go_with_either_of_their_entries() {
    let upstream = upstream().await;
    for removed in [QUESTION, PARAPHRASE] {
        let proxy = start(&upstream, |_| {}).await;
        ask(&proxy, QUESTION).await;
        ask(&proxy, PARAPHRASE).await;
        assert_eq!(near_misses(&proxy, "").await.len(), 1);
        let id = entry_of(&proxy, removed).await;
        let url = format!("{}/entries/{id}", proxy.admin_url());
        assert_eq!(Ask::new(Method::DELETE, &url).send().await.status, StatusCode::NO_CONTENT);
        assert_eq!(near_misses(&proxy, "").await.len(), 0, "{removed}");
    }
}

#[tokio::test]
async fn a_purge_takes_those_of_what_it_purges() {
    let upstream = upstream().await;
    let proxy = start(&upstream, |_| {}).await;
    for namespace in ["a", "b"] {
        for prompt in [QUESTION, PARAPHRASE] {
            ask_with(&proxy, prompt, &[("x-rejoinder-namespace", namespace)]).await;
        }
    }
    let purge = async |body: Value| {
        Ask::post(&format!("{}/purge", proxy.admin_url()), &body).send().await;
        near_misses(&proxy, "").await.iter().map(|near| near["namespace"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(purge(json!({"namespace": "c"})).await, ["b", "a"]);
    assert_eq!(purge(json!({"older_than_s": 3600})).await, ["b", "a"]);
    assert_eq!(purge(json!({"namespace": "a"})).await, ["b"]);
    assert_eq!(purge(json!({"all": true})).await, [] as [Value; 0]);
}
