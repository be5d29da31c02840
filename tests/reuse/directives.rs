//! What a request asks of the cache (INTERFACE.md, "Directives in a request") is done, and no more.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Ask, Fault, Gate, PARAPHRASE, Proxy, QUESTION, Reply, Simulated, generating, proxy, proxy_with, raw,
    semantic_proxy, streamed, streamed_text_of, text_of, upstream,
};

/// Every cacheable endpoint with a request for it.
fn endpoints() -> Vec<(&'static str, Value)> {
    let mut all = generating(QUESTION);
    all.extend([
        ("/v1/embeddings", json!({"model": "nomic-embed-text", "input": QUESTION})),
        ("/api/embed", json!({"model": "nomic-embed-text", "input": QUESTION})),
        ("/api/embeddings", json!({"model": "nomic-embed-text", "prompt": QUESTION})),
    ]);
    all
}

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

const CHAT: &str = "/v1/chat/completions";

async fn ask(proxy: &Proxy, prompt: &str, headers: &[(&str, &str)]) -> Reply {
    let ask = proxy.post(CHAT, &chat(prompt));
    headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value)).send().await
}

/// The life left to the entry that served a hit, in seconds.
fn ttl(hit: &Reply) -> u64 {
    let mut parameters = hit.cache_status().split("; ");
    parameters.find_map(|parameter| parameter.strip_prefix("ttl=")).unwrap().parse().unwrap()
}

/// The next reply of upstream says this, whatever was asked.
fn answer_next(upstream: &Simulated, text: &str) {
    let document = json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "llama3.2",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    });
    upstream.fault_next(Fault::body("application/json", document.to_string()));
}

#[tokio::test]
async fn no_cache_asks_upstream_and_stores_the_fresh_reply() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    answer_next(&upstream, "the first");
    ask(&proxy, QUESTION, &[]).await;
    answer_next(&upstream, "the second");
    let fresh = ask(&proxy, QUESTION, &[("cache-control", "no-cache")]).await;
    assert_eq!(fresh.cache_status(), "rejoinder; fwd=request; stored");
    assert_eq!(text_of(&fresh.json()), "the second");
    for prompt in [QUESTION, PARAPHRASE] {
        let hit = ask(&proxy, prompt, &[]).await;
        assert!(hit.layer().is_some());
        assert_eq!(
            text_of(&hit.json()),
            "the second",
            "{prompt}: the fresh reply took the place of the first"
        );
    }
    // It need not be first to be stored, nor stored to be asked for.
    assert_eq!(ask(&proxy, "Another.", &[("cache-control", "no-cache")]).await.layer(), None);
    assert_eq!(ask(&proxy, "Another.", &[]).await.layer(), Some("exact"));
}

#[tokio::test]
async fn no_store_neither_looks_up_nor_leaves_a_trace() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    for (path, body) in endpoints() {
        for body in [body.clone(), streamed(&body)] {
            let before = upstream.count();
            let private = proxy.post(path, &body).header("cache-control", "no-store").send().await;
            assert_eq!(private.status, StatusCode::OK, "{path}");
            assert_eq!(private.cache_status(), "rejoinder; fwd=request", "{path}");
            assert_eq!(upstream.count(), before + 1, "{path}");
        }
        let entries = entries(&proxy).await;
        let miss = proxy.post(path, &body).send().await;
        assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate", "{path}");
        assert_eq!(entries + 1, self::entries(&proxy).await, "{path}");
        let private = proxy.post(path, &body).header("cache-control", "no-store").send().await;
        assert_eq!(private.cache_status(), "rejoinder; fwd=request", "{path}: not looked up either");
        assert_eq!(proxy.post(path, &body).send().await.layer(), Some("exact"), "{path}: nor taken out");
    }
    // Whatever else the value holds, and in whatever field line.
    for value in [
        "No-Store",
        "max-age=5, no-store",
        "private,no-store ,x=\"a, b\"",
        "no-store=\"\"",
        "x=\u{e9}, no-store",
    ] {
        assert_eq!(ask(&proxy, "A secret.", &[("cache-control", value)]).await.layer(), None, "{value}");
        assert_eq!(
            ask(&proxy, "A secret.", &[("cache-control", "x"), ("cache-control", value)])
                .await
                .cache_status(),
            "rejoinder; fwd=request",
            "{value}"
        );
    }
    let miss = ask(&proxy, "A secret.", &[]).await;
    assert!(miss.cache_status().starts_with("rejoinder; fwd=miss; stored"), "{}", miss.cache_status());
}

async fn entries(proxy: &Proxy) -> u64 {
    let metrics = Ask::get(&format!("{}/metrics", proxy.admin_url())).send().await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix("rejoinder_store_entries "));
    line.unwrap().parse().unwrap()
}

/// Its reply is its own: it neither waits for another's request nor lends its own to one.
#[tokio::test]
async fn no_store_and_no_cache_share_no_flight() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for directive in ["no-store", "no-cache"] {
        for private_first in [false, true] {
            let prompt = format!("{directive} {private_first}");
            let gate = Gate::new();
            let arrived = upstream.count();
            upstream.set_fault(Fault::none().gate(&gate));
            let both = [("cache-control", directive), ("accept", "*/*")];
            let (private, plain) = (&both[..1], &both[1..]);
            let (first, second) = if private_first { (private, plain) } else { (plain, private) };
            let first = ask(&proxy, &prompt, first);
            let second = async {
                upstream.until_count(arrived + 1).await;
                ask(&proxy, &prompt, second).await
            };
            let open = async {
                upstream.until_count(arrived + 2).await;
                gate.open();
            };
            let (first, second, ()) = tokio::join!(first, second, open);
            upstream.set_fault(Fault::none());
            for reply in [first, second] {
                assert!(!reply.cache_status().contains("collapsed"), "{prompt}: {}", reply.cache_status());
            }
        }
    }
}

#[tokio::test]
async fn only_if_cached_answers_from_the_store_or_not_at_all() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let paraphrases: std::collections::HashMap<_, _> = generating(PARAPHRASE).into_iter().collect();
    for (path, body) in endpoints() {
        let before = upstream.count();
        for body in [body.clone(), streamed(&body)] {
            if path.contains("embed") && body["stream"] == true {
                continue;
            }
            let refused = proxy.post(path, &body).header("cache-control", "only-if-cached").send().await;
            assert_eq!(refused.status, StatusCode::GATEWAY_TIMEOUT, "{path}");
            assert_eq!(refused.header("x-should-retry"), Some("false"), "{path}");
            assert_eq!(refused.header("content-type"), Some("application/json"), "{path}");
            assert_eq!(refused.cache_status(), "rejoinder; fwd=miss; detail=no-candidate", "{path}");
            assert_error(path, &refused, "not_cached", "api_error");
        }
        assert_eq!(upstream.count(), before, "{path}: upstream is not called");

        let miss = proxy.post(path, &body).send().await;
        let hit = proxy.post(path, &body).header("cache-control", "only-if-cached").send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path}");
        assert_eq!(hit.status, StatusCode::OK, "{path}");
        if let Some(paraphrase) = paraphrases.get(path) {
            let hit = proxy.post(path, paraphrase).header("cache-control", "only-if-cached").send().await;
            assert_eq!(hit.layer(), Some("semantic"), "{path}");
            assert_eq!(text_of(&hit.json()), text_of(&miss.json()), "{path}");
        }
    }
    // What is never cached is never in the store: upstream is not called for it either.
    let before = upstream.count();
    for directives in ["only-if-cached, no-cache", "only-if-cached, no-store"] {
        let refused = ask(&proxy, QUESTION, &[("cache-control", directives)]).await;
        assert_eq!(refused.status, StatusCode::GATEWAY_TIMEOUT, "{directives}");
    }
    let unread = Ask::post_bytes(&format!("{}{CHAT}", proxy.url()), "no JSON");
    let refused = unread.header("cache-control", "only-if-cached").send().await;
    assert_eq!(refused.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(upstream.count(), before);
}

/// An error of the proxy's own, in the dialect of the path.
fn assert_error(path: &str, reply: &Reply, code: &str, anthropic: &str) {
    let document = reply.json();
    let message = if path == "/v1/messages" {
        assert_eq!(document["type"], "error", "{path}");
        assert_eq!(document["error"]["type"], anthropic, "{path}");
        &document["error"]["message"]
    } else if path.starts_with("/v1/") {
        let error = document["error"].as_object().unwrap();
        let names: Vec<_> = error.keys().map(String::as_str).collect();
        assert_eq!(names, ["message", "type", "param", "code"], "{path}");
        assert_eq!(error["code"], code, "{path}");
        assert_eq!(error["param"], Value::Null, "{path}");
        &document["error"]["message"]
    } else {
        assert_eq!(document.as_object().unwrap().len(), 1, "{path}");
        &document["error"]
    };
    assert!(message.as_str().is_some_and(|message| message.len() > 10), "{path}: {document}");
}

#[tokio::test]
async fn an_entry_older_than_max_age_does_not_count() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    ask(&proxy, QUESTION, &[]).await;
    for prompt in [QUESTION, PARAPHRASE] {
        let hit = ask(&proxy, prompt, &[("cache-control", "max-age=3600")]).await;
        assert!(hit.layer().is_some(), "{prompt}");
        let hit = ask(&proxy, prompt, &[("cache-control", "max-age=\"3600\", max-age=7200")]).await;
        assert!(hit.layer().is_some(), "{prompt}");
    }
    let miss = ask(&proxy, PARAPHRASE, &[("cache-control", "max-age=0"), ("x-rejoinder-ttl", "0")]).await;
    assert_eq!(miss.cache_status(), "rejoinder; fwd=request; detail=expired");
    answer_next(&upstream, "the fresh reply");
    let miss = ask(&proxy, QUESTION, &[("cache-control", "max-age=0")]).await;
    assert_eq!(miss.cache_status(), "rejoinder; fwd=request; stored; detail=expired");
    for prompt in [QUESTION, PARAPHRASE] {
        assert_eq!(text_of(&ask(&proxy, prompt, &[]).await.json()), "the fresh reply", "{prompt}");
    }
    let refused = ask(&proxy, QUESTION, &[("cache-control", "max-age=0, only-if-cached")]).await;
    assert_eq!(refused.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_time_to_live_is_the_requests_capped_by_the_configured() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.ttl = Duration::from_secs(1000)).await;
    for (asked, expected) in
        [(None, 1000), (Some("300"), 300), (Some("5000"), 1000), (Some("99999999999999999999"), 1000)]
    {
        let prompt = format!("ttl {asked:?}");
        let headers: Vec<_> = asked.iter().map(|ttl| ("x-rejoinder-ttl", *ttl)).collect();
        let miss = ask(&proxy, &prompt, &headers).await;
        assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate");
        let left = ttl(&ask(&proxy, &prompt, &[]).await);
        assert!(left <= expected && left + 60 >= expected, "{asked:?}: {left}");
        // What a hit asks for changes nothing of the entry.
        let left = ttl(&ask(&proxy, &prompt, &[("x-rejoinder-ttl", "1")]).await);
        assert!(left + 60 >= expected, "{asked:?}: {left}");
    }
    let miss = ask(&proxy, "none", &[("x-rejoinder-ttl", "0")]).await;
    assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; detail=no-candidate", "not stored");
    assert_eq!(ask(&proxy, "none", &[]).await.layer(), None);
}

#[tokio::test]
async fn an_expired_entry_is_stale_and_replaced() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.ttl = Duration::from_nanos(1)).await;
    ask(&proxy, QUESTION, &[]).await;
    for _ in 0..2 {
        let stale = ask(&proxy, QUESTION, &[]).await;
        assert_eq!(stale.cache_status(), "rejoinder; fwd=stale; stored; detail=expired");
        assert_eq!(stale.header("age"), None, "nothing stored was served");
    }
    assert_eq!(upstream.count(), 3);
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_refused_in_the_clients_dialect() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut endpoints = endpoints();
    endpoints.push(("/ask", json!({"query": QUESTION})));
    for (path, body) in endpoints {
        for (name, value) in [
            ("cache-control", "max-age"),
            ("cache-control", "max-age=-1"),
            ("cache-control", "no-cache, max-age=soon"),
            ("x-rejoinder-threshold", "high"),
            ("x-rejoinder-threshold", "1.01"),
            ("x-rejoinder-threshold", "-0.1"),
            ("x-rejoinder-threshold", "NaN"),
            ("x-rejoinder-threshold", ""),
            ("x-rejoinder-ttl", "5m"),
            ("x-rejoinder-ttl", "-1"),
            ("x-rejoinder-ttl", "1.5"),
            ("x-rejoinder-ttl", ""),
        ] {
            let refused = proxy.post(path, &body).header(name, value).send().await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}: {name}: {value}");
            assert_error(path, &refused, "bad_directive", "invalid_request_error");
            assert!(refused.text().to_lowercase().contains(name), "{path}: names it: {}", refused.text());
        }
        for name in ["x-rejoinder-threshold", "x-rejoinder-ttl", "x-rejoinder-namespace"] {
            let refused = proxy.post(path, &body).header(name, "0").header(name, "1").send().await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}: two of {name}");
        }
    }
    assert_eq!(upstream.count(), 0);
}

/// Two names that are no text must not be taken for one.
#[tokio::test]
async fn a_namespace_that_is_no_text_is_refused() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = chat(QUESTION).to_string();
    for byte in [b'\xff', b'\xfe'] {
        let mut request = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\nX-Rejoinder-Namespace: ",
            body.len()
        )
        .into_bytes();
        request.push(byte);
        request.extend_from_slice(b"\r\n\r\n");
        request.extend_from_slice(body.as_bytes());
        let (reply, _) = raw(proxy.address(), &request).await;
        assert!(reply.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&reply));
    }
    let named = [("x-rejoinder-namespace", "b\u{fc}cher")];
    assert_eq!(ask(&proxy, QUESTION, &named).await.layer(), None, "text beyond ASCII is text");
    assert_eq!(ask(&proxy, QUESTION, &named).await.layer(), Some("exact"));
}

#[tokio::test]
async fn unknown_directives_are_ignored() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    ask(&proxy, QUESTION, &[]).await;
    for value in [
        "no-transform",
        "max-stale=5",
        "min-fresh=soon",
        "stale-if-error",
        "max-ages=never",
        "community=\"UCI, no-store, no-cache\"",
        ",, ,",
        "",
        "=",
        "\"",
    ] {
        let hit = ask(&proxy, QUESTION, &[("cache-control", value)]).await;
        assert_eq!(hit.layer(), Some("exact"), "{value:?}");
    }
    let hit = ask(&proxy, QUESTION, &[("pragma", "x"), ("x-rejoinder-unknown", "1")]).await;
    assert_eq!(hit.layer(), Some("exact"));
}

#[tokio::test]
async fn no_directive_of_ours_goes_upstream() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let ours = [
        ("x-rejoinder-threshold", "0.9"),
        ("X-Rejoinder-TTL", "300"),
        ("x-rejoinder-namespace", "docs"),
        ("x-rejoinder-entry", "forged"),
        ("x-rejoinder-anything", "1"),
    ];
    let with = |ask: Ask| ours.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
    let mut asks: Vec<Ask> = Vec::new();
    for (path, body) in endpoints() {
        for cache_control in ["x", "no-cache", "no-store"] {
            asks.push(proxy.post(path, &body).header("cache-control", cache_control));
        }
    }
    asks.push(proxy.post("/ask", &json!({"query": "Something else?"})));
    asks.push(Ask::get(&format!("{}/v1/models", proxy.url())));
    asks.push(proxy.post("/api/show", &json!({"model": "llama3.2"})));
    asks.push(Ask::post_bytes(&format!("{}{CHAT}", proxy.url()), "no JSON"));
    for ask in asks {
        let before = upstream.count();
        let context = format!("{ask:?}");
        with(ask).send().await;
        assert_eq!(upstream.count(), before + 1, "{context}");
        let request = upstream.requests().pop().unwrap();
        for (name, _) in &request.headers {
            assert!(!name.to_ascii_lowercase().starts_with("x-rejoinder"), "{context}: {name}");
        }
    }
}

#[tokio::test]
async fn directives_hold_for_streams_too() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(QUESTION) {
        let body = streamed(&body);
        let first = proxy.post(path, &body).header("x-rejoinder-ttl", "100").send().await;
        assert_eq!(first.layer(), None, "{path}");
        let hit = proxy.post(path, &body).header("cache-control", "max-age=50").send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path}");
        assert!(ttl(&hit) <= 100, "{path}");
        assert_eq!(streamed_text_of(hit.text()), streamed_text_of(first.text()), "{path}");
        let fresh = proxy.post(path, &body).header("cache-control", "no-cache").send().await;
        assert_eq!(fresh.cache_status(), "rejoinder; fwd=request; stored", "{path}");
        let not_stored =
            proxy.post(path, &body).header("cache-control", "max-age=0").header("x-rejoinder-ttl", "0");
        let not_stored = not_stored.send().await;
        assert_eq!(not_stored.cache_status(), "rejoinder; fwd=request; detail=expired", "{path}");
    }
}

/// Also where nothing is ever cached: there nothing stored can serve, and a directive is as wrong.
#[tokio::test]
async fn directives_count_where_nothing_is_cached() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for path in ["/v1/models", "/api/tags"] {
        let ask =
            |name: &str, value: &str| Ask::get(&format!("{}{path}", proxy.url())).header(name, value).send();
        let before = upstream.count();
        assert_eq!(
            ask("cache-control", "only-if-cached").await.status,
            StatusCode::GATEWAY_TIMEOUT,
            "{path}"
        );
        assert_eq!(ask("cache-control", "max-age=soon").await.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(ask("x-rejoinder-ttl", "zz").await.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(upstream.count(), before, "{path}");
        assert_eq!(ask("cache-control", "max-age=0").await.status, StatusCode::OK, "{path}");
    }
}
