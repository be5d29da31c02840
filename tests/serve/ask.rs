//! `POST /ask`, the seed lesson's own API: a question in, an answer and how it came about out.

use http::StatusCode;
use rejoinder::config::EmbedderKind;
use serde_json::{Value, json};

use crate::support::{
    Ask, Fault, PARAPHRASE, Proxy, QUESTION, Reply, proxy, proxy_with, semantic_proxy, text_of, upstream,
};

async fn ask(proxy: &Proxy, body: Value) -> Reply {
    proxy.post("/ask", &body).send().await
}

async fn answer(proxy: &Proxy, query: &str) -> Value {
    let reply = ask(proxy, json!({"query": query})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.json()
}

#[tokio::test]
async fn an_answer_says_how_it_came_about() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;

    let miss = answer(&proxy, QUESTION).await;
    let names: Vec<_> = miss.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["response", "from_cache", "similarity", "debug"]);
    assert!(miss["response"].as_str().unwrap().contains(QUESTION));
    assert_eq!(miss["from_cache"], false);
    assert_eq!(miss["similarity"], Value::Null);
    let debug = &miss["debug"];
    assert_eq!(debug["layer"], "upstream");
    assert_eq!(debug["miss_reason"], "no-candidate");
    for name in ["confidence", "entry", "age_s"] {
        assert_eq!(debug.get(name), Some(&Value::Null), "{name}: {debug}");
    }
    assert!(debug["timings_ms"]["upstream"].as_f64().unwrap() > 0.0, "{debug}");
    assert!(debug["timings_ms"]["total"].as_f64() >= debug["timings_ms"]["upstream"].as_f64(), "{debug}");

    for (query, layer) in
        [(QUESTION, "exact"), ("  What is the\tcapital of France? ", "exact"), (PARAPHRASE, "semantic")]
    {
        let hit = answer(&proxy, query).await;
        assert_eq!(hit["response"], miss["response"], "{query}");
        assert_eq!(hit["from_cache"], true, "{query}");
        let debug = &hit["debug"];
        assert_eq!(debug["layer"], layer, "{query}");
        assert_eq!(debug.get("miss_reason"), Some(&Value::Null), "{query}");
        assert_eq!(debug["entry"].as_str().map(str::len), Some(32), "{query}");
        assert!(debug["age_s"].as_u64().is_some_and(|age| age < 3600), "{query}: {debug}");
        let similarity = hit["similarity"].as_f64().unwrap();
        assert_eq!(layer == "exact", (similarity - 1.0).abs() < 1e-9, "{query}: {similarity}");
        assert!((0.5..=1.0).contains(&debug["confidence"].as_f64().unwrap()), "{query}: {debug}");
        assert!(debug["timings_ms"]["exact"].as_f64().is_some(), "{query}: {debug}");
        assert_eq!(debug["timings_ms"]["upstream"], Value::Null, "{query}: {debug}");
    }
    assert_eq!(upstream.count(), 1);

    let other = answer(&proxy, "How do I reverse a list in Python?").await;
    assert_eq!(other["from_cache"], false);
    assert_eq!(other["debug"]["miss_reason"], "below-threshold");
    assert!(other["similarity"].as_f64().unwrap() < 0.8, "the nearest one's");
}

#[tokio::test]
async fn it_asks_the_configured_model_by_the_configured_path() {
    let upstream = upstream().await;
    for path in ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"] {
        let proxy = proxy_with(&upstream, |config| {
            config.ask.path = path.to_owned();
            config.ask.model = "a-model".to_owned();
        })
        .await;
        let miss = answer(&proxy, QUESTION).await;
        let request = upstream.requests().pop().unwrap();
        assert_eq!(request.uri.path(), path);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["model"], "a-model", "{path}");
        assert_eq!(body["stream"], false, "{path}");
        assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()), "{path}");

        // A client's own request of the same shape is the same thing.
        let hit = proxy.post(path, &body).send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path}");
        assert_eq!(text_of(&hit.json()), miss["response"], "{path}");
        assert_eq!(answer(&proxy, QUESTION).await["debug"]["layer"], "exact", "{path}");
    }
    let proxy = proxy(&upstream).await;
    answer(&proxy, QUESTION).await;
    let request = upstream.requests().pop().unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((request.uri.path(), &body["model"]), ("/api/generate", &json!("llama3.2")), "the defaults");
}

#[tokio::test]
async fn bypass_cache_asks_anew_and_stores() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let say = |text: &str| {
        let document = json!({"model": "llama3.2", "created_at": "2025-01-01T00:00:00Z", "response": text, "done": true, "done_reason": "stop"});
        upstream.fault_next(Fault::body("application/json", document.to_string()));
    };
    say("the first");
    assert_eq!(answer(&proxy, QUESTION).await["response"], "the first");
    say("the second");
    let fresh = ask(&proxy, json!({"query": QUESTION, "bypass_cache": true})).await;
    assert_eq!(fresh.cache_status(), "rejoinder; fwd=request; stored");
    assert_eq!(fresh.json()["response"], "the second");
    assert_eq!(fresh.json()["from_cache"], false);
    assert_eq!(fresh.json()["debug"]["miss_reason"], Value::Null, "it was not looked up");
    for body in [json!({"query": QUESTION}), json!({"query": QUESTION, "bypass_cache": false})] {
        let hit = ask(&proxy, body).await.json();
        assert_eq!((&hit["from_cache"], &hit["response"]), (&json!(true), &json!("the second")));
    }
    say("the third");
    let private =
        proxy.post("/ask", &json!({"query": QUESTION})).header("cache-control", "no-store").send().await;
    assert_eq!(private.json()["response"], "the third");
    assert_eq!(private.cache_status(), "rejoinder; fwd=request");
    assert_eq!(answer(&proxy, QUESTION).await["response"], "the second", "no trace of it");
}

#[tokio::test]
async fn an_empty_question_is_refused_and_reaches_nobody() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.embedder = EmbedderKind::Builtin).await;
    for query in ["", " ", "\t\r\n ", "\u{a0}\u{2003}"] {
        for bypass in [false, true] {
            let refused = ask(&proxy, json!({"query": query, "bypass_cache": bypass})).await;
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{query:?}");
            assert_refusal(&refused);
        }
    }
    for body in [
        "{}",
        "{\"query\": null}",
        "{\"query\": 7}",
        "{\"query\": [\"a\"]}",
        "{\"query\": \"a\", \"bypass_cache\": \"yes\"}",
        "{\"query\": \"a\", \"query\": \"b\"}",
        "\"a\"",
        "no JSON",
        "",
        "{\"query\": \"a",
        "{\"query\": \"\\ud800\"}",
    ] {
        let refused = Ask::post_bytes(&format!("{}/ask", proxy.url()), body).send().await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_refusal(&refused);
    }
    assert_eq!(upstream.count(), 0);
    let counters = Ask::get(&format!("{}/internal/metrics", proxy.admin_url())).send().await.json();
    for name in ["llm_calls", "embeddings", "misses", "exact_hits"] {
        assert_eq!(counters[name], 0, "{name}: {counters}");
    }
}

fn assert_refusal(reply: &Reply) {
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let document = reply.json();
    assert_eq!(document.as_object().unwrap().len(), 1, "{document}");
    assert!(document["error"].as_str().is_some_and(|error| error.len() > 5), "{document}");
}

#[tokio::test]
async fn upstreams_failure_is_an_error_and_is_not_stored() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for fault in [
        Fault::status(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::status(StatusCode::TOO_MANY_REQUESTS),
        Fault::reset_before_head(),
        Fault::none().close_after(20),
        Fault::error_inside(),
        Fault::body("application/json", "{\"half\":"),
        Fault::body("text/html", "<p>hello</p>"),
    ] {
        let context = format!("{fault:?}");
        upstream.fault_next(fault);
        let failed = ask(&proxy, json!({"query": QUESTION})).await;
        assert_eq!(failed.status, StatusCode::BAD_GATEWAY, "{context}: {}", failed.text());
        assert_refusal(&failed);
    }
    assert_eq!(answer(&proxy, QUESTION).await["from_cache"], false, "nothing of it was stored");
}

/// What is an answer for a person, though none to be reused.
#[tokio::test]
async fn a_reply_that_is_not_stored_is_still_an_answer() {
    let upstream = upstream().await;
    for path in ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"] {
        let proxy = proxy_with(&upstream, |config| config.ask.path = path.to_owned()).await;
        for _ in 0..2 {
            upstream.fault_next(Fault::stopped_by_length());
            let answer = answer(&proxy, QUESTION).await;
            assert_eq!(answer["from_cache"], false, "{path}");
            assert!(answer["response"].as_str().unwrap().contains(QUESTION), "{path}");
        }
    }
}

#[tokio::test]
async fn who_asks_is_in_its_scope_too() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let as_user = async |key: &str, query: &str| {
        let ask = proxy.post("/ask", &json!({"query": query})).header("authorization", key);
        ask.send().await.json()
    };
    as_user("Bearer a", "Hello.").await;
    as_user("Bearer b", "Hello.").await;
    let first = as_user("Bearer a", QUESTION).await;
    assert_eq!(upstream.requests().last().unwrap().header("authorization"), Some("Bearer a"));
    let other = as_user("Bearer b", QUESTION).await;
    assert_eq!(other["from_cache"], false);
    assert_ne!(other["response"], first["response"]);
    assert_eq!(as_user("Bearer a", QUESTION).await["response"], first["response"]);
    assert_eq!(as_user("Bearer a", QUESTION).await["from_cache"], true);
}

#[tokio::test]
async fn the_directives_of_a_request_hold_here() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let with = async |name: &str, value: &str| {
        proxy.post("/ask", &json!({"query": QUESTION})).header(name, value).send().await
    };
    let refused = with("cache-control", "only-if-cached").await;
    assert_eq!(refused.status, StatusCode::GATEWAY_TIMEOUT);
    assert_refusal(&refused);
    assert_eq!(with("x-rejoinder-ttl", "0").await.json()["from_cache"], false);
    assert_eq!(with("x-rejoinder-namespace", "a").await.json()["from_cache"], false);
    assert_eq!(with("x-rejoinder-namespace", "b").await.json()["from_cache"], false);
    assert_eq!(with("x-rejoinder-namespace", "b").await.json()["from_cache"], true);
    assert_eq!(with("x-rejoinder-namespace", "").await.json()["from_cache"], false);
    let hit = with("cache-control", "only-if-cached").await;
    assert_eq!(hit.layer(), Some("exact"));
    assert_eq!(hit.header("x-rejoinder-entry"), hit.json()["debug"]["entry"].as_str());
    assert!(hit.header("age").is_some());
}

#[tokio::test]
async fn other_methods_of_the_path_pass_through() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let reply = Ask::get(&format!("{}/ask", proxy.url())).send().await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.cache_status(), "rejoinder; fwd=bypass");
    assert_eq!(upstream.count(), 1);
}
