//! The admin listener's live side: the overview, decisions as they fall, explanations, an entry's evidence, and the
//! document that describes them all.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

mod support;

use http::StatusCode;
use serde_json::{Value, json};
use support::{Ask, PARAPHRASE, Proxy, QUESTION, Reply, proxy, semantic_proxy, until_admin, upstream};

const CHAT: &str = "/v1/chat/completions";

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

async fn ask(proxy: &Proxy, prompt: &str) -> Reply {
    let reply = proxy.post(CHAT, &chat(prompt)).send().await;
    assert_eq!(reply.status, StatusCode::OK);
    reply
}

async fn get(proxy: &Proxy, path: &str) -> Reply {
    Ask::get(&format!("{}{path}", proxy.admin_url())).send().await
}

async fn overview(proxy: &Proxy) -> Value {
    let reply = get(proxy, "/overview").await;
    assert_eq!((reply.status, reply.header("content-type")), (StatusCode::OK, Some("application/json")));
    reply.json()
}

fn sum(counts: &Value) -> u64 {
    counts.as_array().unwrap_or_else(|| panic!("{counts}")).iter().map(|n| n.as_u64().unwrap()).sum()
}

#[tokio::test]
async fn the_overview_says_what_was_served_and_why_the_rest_was_not() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let empty = overview(&proxy).await;
    assert_eq!((&empty["totals"]["requests"], &empty["saved"]["seconds"]), (&json!(0), &Value::Null));
    for prompt in [QUESTION, QUESTION, PARAPHRASE, "What is the capital of Spain?"] {
        ask(&proxy, prompt).await;
    }
    Ask::get(&format!("{}/v1/models", proxy.url())).send().await;
    // Which entries are used most counts for a while, the longer the longer it takes to find out.
    let seen = until_admin(&proxy, "/overview", |seen| seen["top_entries"][0]["hits"] == 2).await;
    assert_eq!((&seen["mode"], &seen["version"]), (&json!("reuse"), &json!(env!("CARGO_PKG_VERSION"))));
    let totals = json!({
        "requests": 5, "exact_hits": 1, "semantic_hits": 1, "misses": 2, "bypasses": 1, "errors": 0, "hit_rate": 0.5,
    });
    assert_eq!(seen["totals"], totals);
    for (layer, expected) in [("exact", 1), ("semantic", 1), ("upstream", 2), ("bypass", 1)] {
        assert_eq!(sum(&seen["series"][layer]), expected, "{layer}: {}", seen["series"]);
    }
    for (layer, expected) in [("exact", 1), ("semantic", 1), ("upstream", 3)] {
        let latency = &seen["latency"][layer];
        assert_eq!(sum(&latency["counts"]), expected, "{layer}: {latency}");
        assert!(latency["p50_ms"].as_f64().unwrap() <= latency["p99_ms"].as_f64().unwrap(), "{latency}");
        let edges = seen["latency"]["edges_ms"].as_array().unwrap().len();
        assert_eq!(latency["counts"].as_array().unwrap().len() + 1, edges);
    }
    assert_eq!(sum(&seen["miss_reasons"].as_object().unwrap().values().cloned().collect()), 2, "{seen}");
    let similarity = &seen["similarity"];
    assert_eq!((sum(&similarity["hits"]), sum(&similarity["misses"])), (1, 1), "{similarity}");
    assert_eq!(similarity["edges"].as_array().unwrap().len(), 51);
    assert_eq!(similarity["hits"].as_array().unwrap().len(), 50);
    let top = &seen["top_entries"];
    assert_eq!(top[0]["prompt"], QUESTION, "{top}");
    assert!(seen["saved"]["prompt_tokens"].as_u64().unwrap() > 0, "{}", seen["saved"]);
    assert!(seen["saved"]["seconds"].is_number(), "{}", seen["saved"]);
    assert_eq!((&seen["store"]["kind"], &seen["store"]["entries"]), (&json!("embedded"), &json!(2)));
    assert_eq!(seen["embedder"]["state"], "ok");

    // What is removed is shown no more.
    let id = top[0]["id"].as_str().unwrap();
    Ask::new(http::Method::DELETE, &format!("{}/entries/{id}", proxy.admin_url())).send().await;
    assert_eq!(overview(&proxy).await["top_entries"], json!([]));
}

#[tokio::test]
async fn the_windows_of_the_overview_have_their_steps() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    ask(&proxy, QUESTION).await;
    for (window, step) in [("15m", 10), ("1h", 10), ("6h", 60), ("7d", 900)] {
        let series = get(&proxy, &format!("/overview?window={window}")).await.json()["series"].clone();
        assert_eq!(series["step_s"], step, "{window}");
        assert_eq!(sum(&series["upstream"]), 1, "{window}");
    }
    for wrong in ["window=2h", "window=", "windows=15m"] {
        let refused = get(&proxy, &format!("/overview?{wrong}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(refused.json()["error"].as_str().unwrap().contains("window"), "{wrong}");
    }
}
