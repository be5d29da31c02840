//! A prompt in other words is answered from the semantic layer, and nothing else is.
#![allow(
    clippy::items_after_statements,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::too_many_lines,
    reason = "tables and helpers of tests"
)]

use http::Method;
use rejoinder::config::EmbedderKind;
use serde_json::{Value, json};

use crate::support::{
    Ask, PARAPHRASE, Proxy, QUESTION, Reply, Said, generating, proxy, proxy_with, semantic_proxy, streamed,
    streamed_text_of, text_of, upstream,
};

/// Far from [`QUESTION`], and not alike in form either.
const UNRELATED: &str = "How do I reverse a list in Python?";

fn chat(messages: Value) -> Value {
    json!({"model": "llama3.2", "messages": messages})
}

fn user(prompt: &str) -> Value {
    chat(json!([{"role": "user", "content": prompt}]))
}

async fn counters(proxy: &Proxy) -> Value {
    Ask::get(&format!("{}/internal/metrics", proxy.admin_url())).send().await.json()
}

fn decimal(reply: &Reply, name: &str) -> f64 {
    reply.header(name).unwrap_or_else(|| panic!("no {name}: {:?}", reply.headers)).parse().unwrap()
}

/// Asked right after the miss, while its embedding may still be on its way.
#[tokio::test]
async fn a_paraphrase_hits_right_after_the_miss_in_either_form() {
    let upstream = upstream().await;
    for first_streams in [false, true] {
        let proxy = semantic_proxy(&upstream).await;
        let asked = generating(PARAPHRASE);
        for ((path, stored), (_, asked)) in generating(QUESTION).into_iter().zip(asked) {
            let context = format!("{path}, first streamed: {first_streams}");
            let before = upstream.count();
            let miss = proxy
                .post(path, &if first_streams { streamed(&stored) } else { stored.clone() })
                .send()
                .await;
            assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate", "{context}");
            let expected = if first_streams { streamed_text_of(miss.text()) } else { text_of(&miss.json()) };

            let hit = proxy.post(path, &asked).send().await;
            assert_eq!(hit.layer(), Some("semantic"), "{context}: {}", hit.cache_status());
            assert_eq!(text_of(&hit.json()), expected, "{context}");
            let similarity = decimal(&hit, "x-rejoinder-similarity");
            assert!((0.8..1.0).contains(&similarity), "{context}: {similarity}");
            assert!((0.5..=1.0).contains(&decimal(&hit, "x-rejoinder-confidence")), "{context}");
            assert_eq!(hit.header("x-rejoinder-entry").map(str::len), Some(32), "{context}");
            assert!(hit.header("age").is_some(), "{context}");

            let hit = proxy.post(path, &streamed(&asked)).send().await;
            assert_eq!(hit.layer(), Some("semantic"), "{context}");
            assert_eq!(streamed_text_of(hit.text()), expected, "{context}");
            assert_eq!(upstream.count(), before + 1, "{context}");
        }
    }
}

#[tokio::test]
async fn what_is_not_near_enough_goes_upstream_and_says_how_near_it_was() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    proxy.post("/v1/chat/completions", &user(QUESTION)).send().await;
    let miss = proxy.post("/v1/chat/completions", &user(UNRELATED)).send().await;
    assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=below-threshold");
    assert!(text_of(&miss.json()).contains(UNRELATED));
    assert!(decimal(&miss, "x-rejoinder-similarity") < 0.8);
    assert!(decimal(&miss, "x-rejoinder-confidence") < 0.5);
    assert_eq!(miss.header("x-rejoinder-entry"), None, "no entry served");
    assert_eq!(miss.header("age"), None);
}

#[tokio::test]
async fn a_request_may_raise_the_threshold_and_lower_it_only_where_the_file_allows() {
    let upstream = upstream().await;
    // No paraphrase is as near as this.
    let strict = 0.9999;
    for may_lower in [false, true] {
        let proxy = proxy_with(&upstream, |config| {
            config.embedder = EmbedderKind::Builtin;
            config.similarity_threshold = if may_lower { strict } else { config.similarity_threshold };
            config.cache.allow_lower_threshold = may_lower;
        })
        .await;
        let ask = async |prompt: &str, threshold: Option<&str>| {
            let mut ask = proxy.post("/v1/chat/completions", &user(prompt)).header("x-rejoinder-ttl", "0");
            if let Some(threshold) = threshold {
                ask = ask.header("x-rejoinder-threshold", threshold);
            }
            ask.send().await
        };
        proxy.post("/v1/chat/completions", &user(QUESTION)).send().await;
        let plain = ask(PARAPHRASE, None).await;
        let raised = ask(PARAPHRASE, Some("0.9999")).await;
        let lowered = ask(PARAPHRASE, Some("0.5")).await;
        assert!(raised.cache_status().ends_with("detail=below-threshold"), "{}", raised.cache_status());
        if may_lower {
            assert!(plain.cache_status().ends_with("detail=below-threshold"), "{}", plain.cache_status());
            assert_eq!(lowered.layer(), Some("semantic"));
        } else {
            assert_eq!(plain.layer(), Some("semantic"));
            assert_eq!(lowered.layer(), Some("semantic"));
            let far = ask(UNRELATED, Some("0")).await;
            assert!(far.cache_status().ends_with("detail=below-threshold"), "{}", far.cache_status());
        }
        let equal = ask(QUESTION, Some("1")).await;
        assert_eq!(equal.layer(), Some("exact"), "no threshold keeps an equal prompt from its reply");
    }
}

/// Longer than the built-in embedder reads.
fn long(beginning: &str, end: &str) -> String {
    format!("{beginning} {}{end}", "The cat sat on the mat and looked at the moon. ".repeat(60))
}

#[tokio::test]
async fn long_prompts_that_differ_beyond_the_window_never_match() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let ask = async |beginning: &str, end: &str| {
        proxy.post("/v1/chat/completions", &user(&long(beginning, end))).send().await
    };
    let end = "Count the words.";
    assert_eq!(ask("How do I count words?", end).await.layer(), None);
    // The beginning is the same to the letter, so the embeddings are equal.
    let miss = ask("How do I count words?", "Translate the words.").await;
    assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate");
    assert_eq!(miss.header("x-rejoinder-similarity"), None);
    // As many tokens before it, so that all beyond the window is equal.
    let hit = ask("How can I count words?", end).await;
    assert_eq!(hit.layer(), Some("semantic"), "{}", hit.cache_status());
}

#[tokio::test]
async fn a_conversation_matches_by_its_last_turn_after_equal_ones() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let ask = async |first: &str, last: &str| {
        let messages = json!([
            {"role": "user", "content": first},
            {"role": "assistant", "content": "I know much of it."},
            {"role": "user", "content": last},
        ]);
        proxy.post("/v1/chat/completions", &chat(messages)).send().await
    };
    let stored = ask("Do you know France?", QUESTION).await;
    assert_eq!(stored.layer(), None);
    let hit = ask("Do you know France?", PARAPHRASE).await;
    assert_eq!(hit.layer(), Some("semantic"));
    assert_eq!(text_of(&hit.json()), text_of(&stored.json()));
    // Other words in an earlier turn are another scope, however alike.
    let miss = ask("Do you know of France?", QUESTION).await;
    assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate");
}

/// Conversations that do not end with the user's text, `text` at their end.
fn without_a_question(text: &str) -> Vec<(&'static str, &'static str, Value)> {
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}});
    let ollama_call = json!({"function": {"name": "look_up", "arguments": {}}});
    let asked = json!({"role": "user", "content": "Look it up."});
    let use_block = json!({"type": "tool_use", "id": "call_1", "name": "look_up", "input": {}});
    let result = json!({"type": "tool_result", "tool_use_id": "call_1", "content": text});
    let anthropic = |messages: Value| json!({"model": "llama3.2", "max_tokens": 1024, "messages": messages});
    vec![
        (
            "/v1/chat/completions",
            "tool result",
            chat(json!([
                asked,
                {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": text},
            ])),
        ),
        ("/v1/chat/completions", "prefill", chat(json!([asked, {"role": "assistant", "content": text}]))),
        (
            "/api/chat",
            "tool result",
            chat(json!([
                asked,
                {"role": "assistant", "content": "", "tool_calls": [ollama_call]},
                {"role": "tool", "content": text},
            ])),
        ),
        ("/api/chat", "prefill", chat(json!([asked, {"role": "assistant", "content": text}]))),
        (
            "/v1/messages",
            "tool result",
            anthropic(json!([
                asked,
                {"role": "assistant", "content": [use_block]},
                {"role": "user", "content": [result]},
            ])),
        ),
        (
            "/v1/messages",
            "tool result with text",
            anthropic(json!([
                asked,
                {"role": "assistant", "content": [use_block]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "7"}, {"type": "text", "text": text}]},
            ])),
        ),
        ("/v1/messages", "prefill", anthropic(json!([asked, {"role": "assistant", "content": text}]))),
        (
            "/v1/responses",
            "tool result",
            json!({"model": "llama3.2", "input": [
                asked,
                {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "call_1", "output": text},
            ]}),
        ),
    ]
}

/// An agent must never be fed an old answer to a new tool result.
#[tokio::test]
async fn what_does_not_end_with_the_users_text_is_reused_exactly_or_not_at_all() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let alike = without_a_question(PARAPHRASE);
    for ((path, what, body), (.., alike)) in without_a_question(QUESTION).into_iter().zip(alike) {
        let context = format!("{path} {what}");
        let miss = proxy.post(path, &body).send().await;
        assert!(miss.cache_status().starts_with("rejoinder; fwd=miss; stored"), "{context}: {miss:?}");
        let again = proxy.post(path, &body).send().await;
        let stored = upstream.count();
        assert_eq!(again.layer(), Some("exact"), "{context}");
        let other = proxy.post(path, &alike).send().await;
        assert_eq!(other.layer(), None, "{context}: {}", other.cache_status());
        assert_eq!(upstream.count(), stored + 1, "{context}");
    }
    assert_eq!(counters(&proxy).await["embeddings"], 0, "nothing of it was embedded");
}

#[tokio::test]
async fn a_reply_with_tool_calls_is_reused_exactly_alone() {
    let upstream = upstream().await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tools = |path: &str| match path {
        "/v1/responses" => Some(json!([{"type": "function", "name": "capital", "parameters": schema}])),
        "/v1/messages" => Some(json!([{"name": "capital", "input_schema": schema}])),
        "/v1/chat/completions" | "/api/chat" => {
            Some(json!([{"type": "function", "function": {"name": "capital", "parameters": schema}}]))
        }
        _ => None,
    };
    let proxy = semantic_proxy(&upstream).await;
    let alike = generating(PARAPHRASE);
    for ((path, mut body), (_, mut alike)) in generating(QUESTION).into_iter().zip(alike) {
        let Some(tools) = tools(path) else { continue };
        body["tools"] = tools.clone();
        alike["tools"] = tools;
        let miss = proxy.post(path, &body).send().await;
        let said = Said::in_document(path, &miss.json());
        assert_eq!(said.calls.len(), 1, "{path}: {said:?}");
        let hit = proxy.post(path, &body).send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path}");
        assert_eq!(Said::in_document(path, &hit.json()), said, "{path}");
        let other = proxy.post(path, &alike).send().await;
        assert_eq!(other.layer(), None, "{path}: {}", other.cache_status());
    }
}

#[tokio::test]
async fn several_prompts_and_embeddings_are_reused_exactly_alone() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let completion = |prompt: Value| ("/v1/completions", json!({"model": "llama3.2", "prompt": prompt}));
    let embedding = |text: &str| {
        [
            ("/v1/embeddings", json!({"model": "nomic-embed-text", "input": text})),
            ("/api/embed", json!({"model": "nomic-embed-text", "input": [text]})),
            ("/api/embeddings", json!({"model": "nomic-embed-text", "prompt": text})),
        ]
    };
    let mut pairs =
        vec![(completion(json!([QUESTION, UNRELATED])), completion(json!([PARAPHRASE, UNRELATED])))];
    pairs.extend(embedding(QUESTION).into_iter().zip(embedding(PARAPHRASE)));
    for ((path, stored), (_, alike)) in pairs {
        assert_eq!(proxy.post(path, &stored).send().await.layer(), None, "{path}");
        assert_eq!(proxy.post(path, &stored).send().await.layer(), Some("exact"), "{path}");
        assert_eq!(proxy.post(path, &alike).send().await.layer(), None, "{path}");
    }
    assert_eq!(counters(&proxy).await["embeddings"], 0);
}

#[tokio::test]
async fn without_an_embedder_only_equal_prompts_hit() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    proxy.post("/v1/chat/completions", &user(QUESTION)).send().await;
    assert_eq!(proxy.post("/v1/chat/completions", &user(QUESTION)).send().await.layer(), Some("exact"));
    let miss = proxy.post("/v1/chat/completions", &user(PARAPHRASE)).send().await;
    assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate");
}

#[tokio::test]
async fn the_embedder_is_called_only_after_the_exact_layer_missed() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let ask = async |prompt: &str| proxy.post("/v1/chat/completions", &user(prompt)).send().await;
    ask(QUESTION).await;
    // Waits for the embedding of the prompt stored, and needs one of its own.
    assert_eq!(ask(PARAPHRASE).await.layer(), Some("semantic"));
    assert_eq!(counters(&proxy).await["embeddings"], 2);
    for _ in 0..3 {
        assert_eq!(ask(QUESTION).await.layer(), Some("exact"));
    }
    assert_eq!(counters(&proxy).await["embeddings"], 2);
}

#[tokio::test]
async fn what_was_matched_before_is_matched_again_without_an_embedding_while_its_entry_may_serve() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let ask = async |prompt: &str, headers: &[(&str, &str)]| {
        let ask = proxy.post("/v1/chat/completions", &user(prompt));
        headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value)).send().await
    };
    let embeddings = async || counters(&proxy).await["embeddings"].as_u64().unwrap();
    ask(QUESTION, &[]).await;
    assert_eq!(ask(PARAPHRASE, &[("x-rejoinder-ttl", "0")]).await.layer(), Some("semantic"));
    assert_eq!(embeddings().await, 2);
    let first = ask(PARAPHRASE, &[]).await;
    assert_eq!(embeddings().await, 3, "what is to live for no time leaves no trace");
    let again = ask(PARAPHRASE, &[]).await;
    for name in ["x-rejoinder-entry", "x-rejoinder-similarity"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(again.layer(), Some("semantic"));
    assert_eq!(embeddings().await, 3);

    // What may not serve is looked for as any other.
    let raised = ask(PARAPHRASE, &[("x-rejoinder-threshold", "1"), ("x-rejoinder-ttl", "0")]).await;
    assert!(raised.cache_status().ends_with("detail=below-threshold"), "{}", raised.cache_status());
    assert_eq!(ask(PARAPHRASE, &[]).await.layer(), Some("semantic"));
    assert_eq!(embeddings().await, 4);

    let entry = format!("{}/entries/{}", proxy.admin_url(), first.header("x-rejoinder-entry").unwrap());
    assert_eq!(Ask::new(Method::DELETE, &entry).send().await.status, 204);
    let gone = ask(PARAPHRASE, &[("x-rejoinder-ttl", "0")]).await;
    assert_eq!(gone.cache_status(), "rejoinder; fwd=miss; detail=no-candidate");
    // Another entry of the same key is found as any other.
    ask(QUESTION, &[]).await;
    let before = embeddings().await;
    assert_eq!(ask(PARAPHRASE, &[]).await.layer(), Some("semantic"));
    assert!(embeddings().await > before);
}

#[tokio::test]
async fn what_one_tenant_was_matched_with_is_no_faster_for_another() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let embeddings = async || counters(&proxy).await["embeddings"].as_u64().unwrap();
    for (tenant, embedded) in [("Bearer alice", 2), ("Bearer bob", 4)] {
        for prompt in [QUESTION, PARAPHRASE, PARAPHRASE] {
            let body = user(prompt);
            proxy.post("/v1/chat/completions", &body).header("authorization", tenant).send().await;
        }
        assert_eq!(embeddings().await, embedded, "{tenant}");
    }
}

/// The last text part is the prompt; an image beside it is part of the scope.
#[tokio::test]
async fn text_beside_an_image_matches_only_beside_the_same_image() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let ask = async |image: &str, prompt: &str| {
        let parts = json!([
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{image}")}},
            {"type": "text", "text": prompt},
        ]);
        let body = chat(json!([{"role": "user", "content": parts}]));
        proxy.post("/v1/chat/completions", &body).send().await
    };
    assert_eq!(ask("aGVsbG8=", QUESTION).await.layer(), None);
    assert_eq!(ask("aGVsbG8=", PARAPHRASE).await.layer(), Some("semantic"));
    assert_eq!(ask("d29ybGQ=", QUESTION).await.layer(), None);
}
