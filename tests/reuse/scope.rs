//! A reply is served only to the scope that earned it: whatever can change a reply keeps requests apart, and what
//! cannot does not.
#![allow(
    clippy::items_after_statements,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::single_match_else,
    clippy::too_many_lines,
    reason = "tables and helpers of tests"
)]

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rejoinder::config::{EmbedderKind, Secret};
use serde_json::{Map, Value, json};

use crate::support::{
    Ask, PARAPHRASE, Proxy, QUESTION, Reply, Simulated, generating, proxy, proxy_with, raw, semantic_proxy,
    text_of, upstream,
};

const CHAT: &str = "/v1/chat/completions";

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

/// What a request's body is changed by.
type Change = fn(&mut Value);

/// Changes that can change the reply, for each endpoint. Members that the proxy does not know are among them.
fn changes(path: &str) -> Vec<(&'static str, Change)> {
    let mut all: Vec<(&'static str, Change)> = vec![
        ("another model", |body| body["model"] = json!("llama3.2:1b")),
        ("an unknown member", |body| body["unheard_of"] = json!(false)),
        ("an unknown member of another name", |body| body["unheard_of_"] = json!(false)),
        ("an unknown member of another kind", |body| body["unheard_of"] = json!("false")),
        ("an unknown member in depth", |body| body["unheard_of"] = json!({"a": [{"b": 1}]})),
        ("another in depth", |body| body["unheard_of"] = json!({"a": [{"b": 2}]})),
        ("an empty list", |body| body["unheard_of"] = json!([])),
        ("an empty object", |body| body["unheard_of"] = json!({})),
        ("temperature", |body| body["temperature"] = json!(0.7)),
        ("another temperature", |body| body["temperature"] = json!(0.700_001)),
        ("seed", |body| body["seed"] = json!(7)),
        ("a null in depth", |body| body["unheard_of"] = json!({"a": null})),
        ("a schema", |body| body["format"] = json!({"properties": {"reasoning": 1, "answer": 1}})),
        ("its members in another order", |body| {
            body["format"] = json!({"properties": {"answer": 1, "reasoning": 1}});
        }),
        ("tools", |body| body["tools"] = json!([{"type": "function", "function": {"a": 1, "b": 1}}])),
        ("a tool's members in another order", |body| {
            body["tools"] = json!([{"type": "function", "function": {"b": 1, "a": 1}}]);
        }),
    ];
    let messages: [(&'static str, Change); 9] = [
        ("a system turn", |body| insert_turn(body, json!({"role": "system", "content": "Be brief."}))),
        ("another system turn", |body| insert_turn(body, json!({"role": "system", "content": "Be long."}))),
        ("a developer turn", |body| insert_turn(body, json!({"role": "developer", "content": "Be brief."}))),
        ("an earlier turn", |body| insert_turn(body, json!({"role": "user", "content": "Hello."}))),
        ("an earlier turn of another", |body| {
            insert_turn(body, json!({"role": "assistant", "content": "Hello."}));
        }),
        ("a name", |body| last_turn(body)["name"] = json!("Ann")),
        ("an unknown member of a turn", |body| last_turn(body)["unheard_of"] = json!(1)),
        ("tools", |body| body["tools"] = json!([{"type": "function", "function": {"name": "f"}}])),
        ("other tools", |body| body["tools"] = json!([{"type": "function", "function": {"name": "g"}}])),
    ];
    match path {
        "/v1/chat/completions" => {
            all.extend(messages);
            all.extend::<[(&'static str, Change); 14]>([
                ("top_p", |body| body["top_p"] = json!(0.5)),
                ("n", |body| body["n"] = json!(2)),
                ("stop", |body| body["stop"] = json!(["\n"])),
                ("max_tokens", |body| body["max_tokens"] = json!(1000)),
                ("max_completion_tokens", |body| body["max_completion_tokens"] = json!(1000)),
                ("presence_penalty", |body| body["presence_penalty"] = json!(1)),
                ("logit_bias", |body| body["logit_bias"] = json!({"50256": -100})),
                ("logprobs", |body| body["logprobs"] = json!(true)),
                ("response_format", |body| body["response_format"] = json!({"type": "json_object"})),
                ("tool_choice", |body| body["tool_choice"] = json!("none")),
                ("reasoning_effort", |body| body["reasoning_effort"] = json!("low")),
                ("an image", |body| {
                    add_part(body, json!({"type": "image_url", "image_url": {"url": "data:,a"}}));
                }),
                ("another image", |body| {
                    add_part(body, json!({"type": "image_url", "image_url": {"url": "data:,b"}}));
                }),
                ("an earlier text part", |body| add_part(body, json!({"type": "text", "text": "See."}))),
            ]);
        }
        "/v1/completions" => all.extend::<[(&'static str, Change); 6]>([
            ("suffix", |body| body["suffix"] = json!("the end")),
            ("echo", |body| body["echo"] = json!(true)),
            ("best_of", |body| body["best_of"] = json!(2)),
            ("n", |body| body["n"] = json!(2)),
            ("stop", |body| body["stop"] = json!("\n")),
            ("max_tokens", |body| body["max_tokens"] = json!(1000)),
        ]),
        "/v1/responses" => all.extend::<[(&'static str, Change); 9]>([
            ("instructions", |body| body["instructions"] = json!("Be brief.")),
            ("other instructions", |body| body["instructions"] = json!("Be long.")),
            ("previous_response_id", |body| body["previous_response_id"] = json!("resp_1")),
            ("another previous_response_id", |body| body["previous_response_id"] = json!("resp_2")),
            ("include", |body| body["include"] = json!(["message.output_text.logprobs"])),
            ("reasoning", |body| body["reasoning"] = json!({"effort": "low"})),
            ("text", |body| body["text"] = json!({"format": {"type": "json_object"}})),
            ("tools", |body| body["tools"] = json!([{"type": "function", "name": "f"}])),
            ("truncation", |body| body["truncation"] = json!("auto")),
        ]),
        "/v1/messages" => {
            all.extend(messages);
            all.extend::<[(&'static str, Change); 7]>([
                ("max_tokens", |body| body["max_tokens"] = json!(1000)),
                ("system", |body| body["system"] = json!("Be brief.")),
                ("system in parts", |body| body["system"] = json!([{"type": "text", "text": "Be brief."}])),
                ("thinking", |body| body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024})),
                ("top_k", |body| body["top_k"] = json!(5)),
                ("stop_sequences", |body| body["stop_sequences"] = json!(["\n"])),
                ("cache_control on the text", |body| {
                    let text = last_turn(body)["content"].take();
                    last_turn(body)["content"] =
                        json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]);
                }),
            ]);
        }
        _ => {
            all.extend::<[(&'static str, Change); 5]>([
                ("options", |body| body["options"] = json!({"temperature": 0.5})),
                ("other options", |body| body["options"] = json!({"temperature": 0.6})),
                ("format", |body| body["format"] = json!("json")),
                ("think", |body| body["think"] = json!(true)),
                ("template", |body| body["template"] = json!("{{ .Prompt }}")),
            ]);
            if path == "/api/chat" {
                all.extend(messages);
                all.push(("images", |body| last_turn(body)["images"] = json!(["aGVsbG8="])));
            } else {
                all.extend::<[(&'static str, Change); 5]>([
                    ("system", |body| body["system"] = json!("Be brief.")),
                    ("raw", |body| body["raw"] = json!(true)),
                    ("context", |body| body["context"] = json!([1, 2])),
                    ("suffix", |body| body["suffix"] = json!("the end")),
                    ("images", |body| body["images"] = json!(["aGVsbG8="])),
                ]);
            }
        }
    }
    all
}

fn insert_turn(body: &mut Value, turn: Value) {
    body["messages"].as_array_mut().unwrap().insert(0, turn);
}

fn last_turn(body: &mut Value) -> &mut Value {
    body["messages"].as_array_mut().unwrap().last_mut().unwrap()
}

/// Puts a part before the text of the last turn.
fn add_part(body: &mut Value, part: Value) {
    let text = last_turn(body)["content"].take();
    last_turn(body)["content"] = json!([part, {"type": "text", "text": text}]);
}

#[tokio::test]
async fn every_change_of_a_body_is_another_scope() {
    let upstream = upstream().await;
    // Each scope gets an entry, so that each change is told apart from all others too.
    let exact = proxy(&upstream).await;
    let semantic = semantic_proxy(&upstream).await;
    for ((path, body), (_, paraphrase)) in generating(QUESTION).into_iter().zip(generating(PARAPHRASE)) {
        let mut texts = vec![text_of(&exact.post(path, &body).send().await.json())];
        assert_eq!(semantic.post(path, &body).send().await.layer(), None);
        for (what, change) in changes(path) {
            let mut changed = body.clone();
            change(&mut changed);
            let reply = exact.post(path, &changed).send().await;
            assert_eq!(reply.layer(), None, "{path}: {what}");
            let again = exact.post(path, &changed).send().await;
            assert_eq!(again.layer(), Some("exact"), "{path}: {what}: {}", again.cache_status());
            texts.push(again.text().to_owned());

            let mut changed = paraphrase.clone();
            change(&mut changed);
            // Not stored, so that only the first entry could answer.
            let reply = semantic.post(path, &changed).header("x-rejoinder-ttl", "0").send().await;
            assert_eq!(reply.cache_status(), "rejoinder; fwd=miss; detail=no-candidate", "{path}: {what}");
        }
        let distinct: std::collections::HashSet<_> = texts.iter().collect();
        assert_eq!(distinct.len(), texts.len(), "{path}");
        // The check can fail: without a change it is a hit.
        assert_eq!(semantic.post(path, &paraphrase).send().await.layer(), Some("semantic"), "{path}");
    }
}

#[tokio::test]
async fn every_change_of_an_embeddings_body_is_another_key() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, text, others) in [
        (
            "/v1/embeddings",
            "input",
            vec![
                ("encoding_format", json!("base64")),
                ("dimensions", json!(8)),
                ("input_type", json!("query")),
            ],
        ),
        ("/api/embed", "input", vec![("truncate", json!(false)), ("options", json!({"num_ctx": 9}))]),
        ("/api/embeddings", "prompt", vec![("options", json!({"num_ctx": 9}))]),
    ] {
        let mut body = json!({"model": "nomic-embed-text"});
        body[text] = json!("Hello there");
        assert_eq!(proxy.post(path, &body).send().await.layer(), None);
        let mut changes = others;
        changes.extend([
            ("model", json!("another")),
            (text, json!("hello there")),
            // Blanks may carry meaning for a vector.
            (text, json!("Hello  there")),
            (text, json!("Hello there ")),
        ]);
        for (name, value) in changes {
            let mut changed = body.clone();
            changed[name] = value;
            assert_eq!(proxy.post(path, &changed).send().await.layer(), None, "{path}: {changed}");
        }
        assert_eq!(proxy.post(path, &body).send().await.layer(), Some("exact"), "{path}");
    }
}

#[tokio::test]
async fn what_cannot_change_the_content_stays_out_of_the_scope() {
    let upstream = upstream().await;
    let exact = proxy(&upstream).await;
    let semantic = semantic_proxy(&upstream).await;
    for ((path, body), (_, paraphrase)) in generating(QUESTION).into_iter().zip(generating(PARAPHRASE)) {
        exact.post(path, &body).send().await;
        semantic.post(path, &body).send().await;
        for (name, value) in [
            ("stream", json!(true)),
            ("stream_options", json!({"include_usage": true})),
            ("keep_alive", json!("5m")),
            ("user", json!("someone")),
            ("safety_identifier", json!("someone")),
            ("prompt_cache_key", json!("key")),
            ("metadata", json!({"trace": "1"})),
            ("store", json!(true)),
            ("service_tier", json!("flex")),
            // `null` counts as absent.
            ("temperature", Value::Null),
            ("tools", Value::Null),
            ("system", Value::Null),
            ("unheard_of", Value::Null),
            ("stream", Value::Null),
            ("user", Value::Null),
        ] {
            let with = |body: &Value| {
                let mut body = body.clone();
                body[name] = value.clone();
                body
            };
            let hit = exact.post(path, &with(&body)).send().await;
            assert_eq!(hit.layer(), Some("exact"), "{path}: {name} {}", hit.cache_status());
            if name != "system" && name != "tools" {
                let hit = semantic.post(path, &with(&paraphrase)).send().await;
                assert_eq!(hit.layer(), Some("semantic"), "{path}: {name} {}", hit.cache_status());
            }
        }
        for (name, value) in [
            ("user-agent", "another/1.0"),
            ("accept", "*/*"),
            ("accept-language", "fr"),
            ("x-stainless-retry-count", "1"),
            ("x-request-id", "mine"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("x-forwarded-for", "192.0.2.1"),
            ("origin", "https://app.example"),
            ("host", "another.example"),
        ] {
            let hit = exact.post(path, &body).header(name, value).send().await;
            assert_eq!(hit.layer(), Some("exact"), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn order_spacing_and_spelling_never_matter() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let spellings = [
        r#"{"model":"m","messages":[{"role":"user","content":"Hi é"}],"temperature":1,"options":{"a":1,"b":[0.5,2]}}"#,
        r#"{"options":{"a":1,"b":[0.5,2]},"temperature":1,"messages":[{"content":"Hi é","role":"user"}],"model":"m"}"#,
        "{ \"model\" : \"m\",\r\n\t\"messages\" : [ { \"role\" : \"user\" , \"content\" : \"Hi é\" } ] , \
         \"temperature\" : 1 , \"options\" : { \"a\" : 1 , \"b\" : [ 0.5 , 2 ] } }\n",
        r#"{"model":"m","messages":[{"role":"user","content":"Hi é"}],"temperature":1.0,"options":{"a":1e0,"b":[5e-1,2.0]}}"#,
        r#"{"\u006dodel":"\u006d","messages":[{"role":"us\u0065r","content":"Hi \u00e9"}],"temperature":10e-1,"options":{"a":1,"b":[0.50,2]}}"#,
    ];
    for path in [CHAT, "/api/chat"] {
        for (number, body) in spellings.into_iter().enumerate() {
            let ask = Ask::post_bytes(&format!("{}{path}", proxy.url()), body);
            let reply = ask.header("content-type", "application/json").send().await;
            let expected = if number == 0 { None } else { Some("exact") };
            assert_eq!(reply.layer(), expected, "{path}: {body}");
        }
    }
}

#[tokio::test]
async fn what_parsers_may_read_differently_is_passed_through_uncached() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for body in [
        r#"{"model":"m","messages":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"b"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"a"}],"Messages":[{"role":"user","content":"b"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"a"}],"Temperature":1}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"a","Content":"b"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"a"}],"m\u006fdel":"n"}"#,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"me\u{17f}\u{17f}ages\":[]}",
        r#"{"model":"m","messages":[{"role":"user","content":"a"}],"seed":100000000000000000001}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"a"}]} {}"#,
        "\u{feff}{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
        r#"{"model":"m","messages":"a"}"#,
        r#"{"model":"m","messages":[]}"#,
        r#"["model"]"#,
        "no JSON",
        "",
    ] {
        for path in [CHAT, "/api/chat", "/v1/messages"] {
            let before = upstream.count();
            for _ in 0..2 {
                let ask = Ask::post_bytes(&format!("{}{path}", proxy.url()), body.to_owned());
                let reply = ask.header("content-type", "application/json").send().await;
                assert_eq!(reply.cache_status(), "rejoinder; fwd=bypass", "{path}: {body}");
                assert_eq!(upstream.requests().last().unwrap().body, body, "{path}: as it came");
            }
            assert_eq!(upstream.count(), before + 2, "{path}: {body}");
        }
    }
    // A body in a content coding is not read either.
    for _ in 0..2 {
        let reply = proxy.post(CHAT, &chat("a")).header("content-encoding", "gzip").send().await;
        assert_eq!(reply.cache_status(), "rejoinder; fwd=bypass");
    }
}

#[tokio::test]
async fn what_changes_state_upstream_passes_through() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in [
        ("/v1/responses", json!({"model": "m", "input": "a", "background": true})),
        ("/v1/responses", json!({"model": "m", "input": "a", "conversation": "conv_1"})),
        ("/v1/responses", json!({"model": "m", "input": "a", "conversation": {"id": "conv_1"}})),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 9, "container": "c", "messages": [{"role": "user", "content": "a"}]}),
        ),
        ("/api/generate", json!({"model": "m"})),
        ("/api/generate", json!({"model": "m", "prompt": "", "keep_alive": 0})),
        ("/api/chat", json!({"model": "m", "messages": []})),
    ] {
        for _ in 0..2 {
            let reply = proxy.post(path, &body).send().await;
            assert_eq!(reply.cache_status(), "rejoinder; fwd=bypass", "{path}: {body}");
        }
    }
}

/// Asks with these headers, so that upstream accepts them as credentials, something that nobody else asks.
async fn accept(proxy: &Proxy, headers: &[(&str, &str)]) {
    let body = chat(&format!("Hello from {headers:?}"));
    assert_eq!(ask_with(proxy, &body, headers).await.status, StatusCode::OK);
}

async fn ask_with(proxy: &Proxy, body: &Value, headers: &[(&str, &str)]) -> Reply {
    let ask = headers.iter().fold(proxy.post(CHAT, body), |ask, (name, value)| ask.header(name, value));
    ask.send().await
}

const CREDENTIALS: [&str; 5] = ["authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key"];
const OTHERS: [&str; 5] =
    ["openai-organization", "openai-project", "openai-beta", "anthropic-version", "anthropic-beta"];

#[tokio::test]
async fn every_header_that_says_who_asks_or_what_for_is_in_the_scope() {
    let upstream = upstream().await;
    let exact = proxy(&upstream).await;
    let semantic = semantic_proxy(&upstream).await;
    ask_with(&semantic, &chat(QUESTION), &[]).await;
    for name in CREDENTIALS.into_iter().chain(OTHERS) {
        let variants: [&[(&str, &str)]; 7] = [
            &[],
            &[(name, "Bearer a")],
            &[(name, "Bearer b")],
            &[(name, "bearer a")],
            &[(name, "Bearer a"), (name, "Bearer b")],
            &[(name, "Bearer b"), (name, "Bearer a")],
            &[(name, "Bearer a, Bearer b")],
        ];
        let mut texts = Vec::new();
        for headers in variants {
            // Upstream knows them all, so that only the scope keeps them apart.
            accept(&exact, headers).await;
            let body = chat(&format!("{QUESTION} {name}"));
            let miss = ask_with(&exact, &body, headers).await;
            assert_eq!(
                miss.cache_status(),
                "rejoinder; fwd=miss; stored; detail=no-candidate",
                "{headers:?}"
            );
            let hit = ask_with(&exact, &body, headers).await;
            assert_eq!(hit.layer(), Some("exact"), "{headers:?}");
            assert_eq!(text_of(&hit.json()), text_of(&miss.json()), "{headers:?}");
            texts.push(text_of(&hit.json()));

            if !headers.is_empty() {
                // The first entry is nobody's in particular; nothing else is stored that could answer.
                let headers = [headers, &[("x-rejoinder-ttl", "0")]].concat();
                accept(&semantic, &headers).await;
                let reply = ask_with(&semantic, &chat(PARAPHRASE), &headers).await;
                assert_eq!(reply.cache_status(), "rejoinder; fwd=miss; detail=no-candidate", "{headers:?}");
            }
        }
        let distinct: std::collections::HashSet<_> = texts.iter().collect();
        assert_eq!(distinct.len(), texts.len(), "{name}: {texts:#?}");
    }
    assert_eq!(ask_with(&semantic, &chat(PARAPHRASE), &[]).await.layer(), Some("semantic"));
}

/// One credential in another's place, and the text of two moved across their boundary.
#[tokio::test]
async fn credentials_cannot_be_shifted_into_one_another() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let variants: [&[(&str, &str)]; 7] = [
        &[("x-api-key", "k")],
        &[("api-key", "k")],
        &[("authorization", "k")],
        &[("api-key", "a"), ("x-api-key", "b")],
        &[("api-key", "b"), ("x-api-key", "a")],
        &[("api-key", "ab"), ("x-api-key", "")],
        &[("api-key", ""), ("x-api-key", "ab")],
    ];
    for headers in variants {
        accept(&proxy, headers).await;
        assert_eq!(ask_with(&proxy, &chat(QUESTION), headers).await.layer(), None, "{headers:?}");
        assert_eq!(ask_with(&proxy, &chat(QUESTION), headers).await.layer(), Some("exact"), "{headers:?}");
    }
}

fn sent(upstream: &Simulated, name: &str) -> Vec<String> {
    upstream.requests().last().unwrap().header_values(name).map(str::to_owned).collect()
}

/// Who asks here is who asks upstream, whatever a client writes into `Connection` or its trailers.
#[tokio::test]
async fn the_identity_that_scopes_is_the_identity_forwarded() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.cache.scope_headers = vec![HeaderName::from_static("x-team")];
    })
    .await;
    let anonymous = ask_with(&proxy, &chat(QUESTION), &[]).await;
    let alice = [("authorization", "Bearer alice")];
    accept(&proxy, &alice).await;

    let nominated = [("authorization", "Bearer alice"), ("connection", "close, Authorization")];
    let reply = ask_with(&proxy, &chat(QUESTION), &nominated).await;
    assert_eq!(reply.layer(), None, "not the anonymous caller's");
    assert_ne!(text_of(&reply.json()), text_of(&anonymous.json()));
    assert_eq!(sent(&upstream, "authorization"), ["Bearer alice"]);
    assert_eq!(ask_with(&proxy, &chat(QUESTION), &alice).await.layer(), Some("exact"), "it is hers");

    // A header that is not forwarded says nothing of who asks upstream.
    let dropped = [("x-team", "red"), ("connection", "x-team")];
    let reply = ask_with(&proxy, &chat("Which team?"), &dropped).await;
    assert_eq!((reply.layer(), sent(&upstream, "x-team")), (None, vec![]));
    assert_eq!(ask_with(&proxy, &chat("Which team?"), &[("x-team", "red")]).await.layer(), None);
    assert_eq!(sent(&upstream, "x-team"), ["red"]);
    assert_eq!(ask_with(&proxy, &chat("Which team?"), &[]).await.layer(), Some("exact"));

    // A credential in the trailers of a request is none, here or upstream.
    let body = chat("Who am I?").to_string();
    let request = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nTrailer: authorization\r\n\r\n{:x}\r\n{body}\r\n0\r\n\
         Authorization: Bearer alice\r\n\r\n",
        body.len()
    );
    let (reply, _) = raw(proxy.address(), request.as_bytes()).await;
    assert!(String::from_utf8_lossy(&reply).contains("fwd=miss; stored"), "{reply:?}");
    assert_eq!(sent(&upstream, "authorization"), [""; 0]);
    assert_eq!(ask_with(&proxy, &chat("Who am I?"), &alice).await.layer(), None, "the trailer named nobody");
    assert_eq!(ask_with(&proxy, &chat("Who am I?"), &[]).await.layer(), Some("exact"));
}

#[tokio::test]
async fn the_query_string_and_the_path_are_in_the_scope() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut texts = Vec::new();
    for query in ["", "?", "?api-version=1", "?api-version=2", "?a=1&b=2", "?b=2&a=1", "?a=1%26b=2"] {
        let path = format!("{CHAT}{query}");
        let miss = proxy.post(&path, &chat(QUESTION)).send().await;
        assert_eq!(miss.layer(), None, "{query:?}");
        let hit = proxy.post(&path, &chat(QUESTION)).send().await;
        assert_eq!(hit.layer(), Some("exact"), "{query:?}");
        assert_eq!(upstream.requests().last().unwrap().uri.to_string(), path);
        texts.push(text_of(&hit.json()));
    }
    // The same body, to another endpoint that takes it.
    assert_eq!(proxy.post("/api/chat", &chat(QUESTION)).send().await.layer(), None);
    // A path that is spelt otherwise is no endpoint of ours.
    for path in
        ["/v1/chat/completions/", "//v1/chat/completions", "/v1/chat/./completions", "/V1/chat/completions"]
    {
        let reply = proxy.post(path, &chat(QUESTION)).send().await;
        assert_eq!(reply.cache_status(), "rejoinder; fwd=bypass", "{path}");
    }
}

#[tokio::test]
async fn namespaces_and_configured_headers_and_users_keep_apart() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.cache.scope_headers =
            vec![HeaderName::from_static("x-team"), HeaderName::from_static("x-plan")];
        config.cache.scope_user = true;
    })
    .await;
    let variants: [&[(&str, &str)]; 10] = [
        &[],
        &[("x-rejoinder-namespace", "docs-v1")],
        &[("x-rejoinder-namespace", "docs-v2")],
        &[("x-rejoinder-namespace", "Docs-v2")],
        &[("x-team", "red")],
        &[("x-team", "blue")],
        &[("x-plan", "red")],
        &[("x-team", "red"), ("x-plan", "red")],
        &[("x-team", "red"), ("x-team", "red")],
        &[("x-team", "red"), ("x-rejoinder-namespace", "docs-v2")],
    ];
    for headers in variants {
        for user in [None, Some("ann"), Some("bob")] {
            let mut body = chat(QUESTION);
            body["user"] = json!(user);
            let miss = ask_with(&proxy, &body, headers).await;
            assert_eq!(miss.layer(), None, "{headers:?} {user:?}");
            let hit = ask_with(&proxy, &body, headers).await;
            assert_eq!(hit.layer(), Some("exact"), "{headers:?} {user:?}");
        }
    }
    // Outer blanks of a header's value are none of it (RFC 9110 §5.5), and the header is not forwarded.
    let hit = ask_with(&proxy, &chat(QUESTION), &[("x-rejoinder-namespace", " docs-v1 ")]).await;
    assert_eq!(hit.layer(), Some("exact"));
}

/// An entry's id comes from its key, so that two proxies with one secret show whether their scopes are one.
#[tokio::test]
async fn another_upstream_is_another_scope() {
    let upstream = upstream().await;
    let port = upstream.address().port();
    let entry = async |url: String| {
        let proxy = proxy_with(&upstream, |config| {
            config.upstream = url.parse().unwrap();
            config.secret = Some(Secret::new("one secret".to_owned()));
        })
        .await;
        proxy.post(CHAT, &chat(QUESTION)).send().await;
        let hit = proxy.post(CHAT, &chat(QUESTION)).send().await;
        hit.header("x-rejoinder-entry").unwrap().to_owned()
    };
    let by_address = entry(format!("http://127.0.0.1:{port}")).await;
    assert_eq!(entry(format!("http://127.0.0.1:{port}")).await, by_address);
    assert_ne!(entry(format!("http://localhost:{port}")).await, by_address);
}

/// A key that upstream no longer accepts stops working here too.
#[tokio::test]
async fn a_revoked_key_has_no_more_hits() {
    let upstream = upstream().await;
    upstream.require_key(Some("k1"));
    for semantic in [false, true] {
        let proxy = if semantic { semantic_proxy(&upstream).await } else { proxy(&upstream).await };
        upstream.require_key(Some("k1"));
        let key = [("authorization", "Bearer k1")];
        assert_eq!(ask_with(&proxy, &chat(QUESTION), &key).await.layer(), None);
        assert_eq!(ask_with(&proxy, &chat(QUESTION), &key).await.layer(), Some("exact"));
        if semantic {
            assert_eq!(ask_with(&proxy, &chat(PARAPHRASE), &key).await.layer(), Some("semantic"));
        }

        upstream.require_key(Some("k2"));
        let refused = ask_with(&proxy, &chat("Something not stored."), &key).await;
        assert_eq!(
            refused.status,
            StatusCode::UNAUTHORIZED,
            "upstream's answer, from which the proxy learns"
        );
        for prompt in [QUESTION, PARAPHRASE] {
            let refused = ask_with(&proxy, &chat(prompt), &key).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
            assert_eq!(refused.cache_status(), "rejoinder; fwd=miss; detail=credential-unverified");
        }
        upstream.require_key(Some("k1"));
        let fresh = [("authorization", "Bearer k1"), ("cache-control", "no-cache")];
        assert_eq!(ask_with(&proxy, &chat("Anything."), &fresh).await.status, StatusCode::OK);
        assert_eq!(ask_with(&proxy, &chat(QUESTION), &key).await.layer(), Some("exact"), "accepted again");
    }
}

/// Of one caller's acceptance nothing follows for another's key, nor for none.
#[tokio::test]
async fn a_key_counts_only_once_upstream_has_accepted_it() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.cache.credential_ttl = Duration::ZERO).await;
    let key = [("authorization", "Bearer k1")];
    for _ in 0..2 {
        let reply = ask_with(&proxy, &chat(QUESTION), &key).await;
        assert_eq!(
            reply.cache_status(),
            "rejoinder; fwd=miss; stored; detail=credential-unverified",
            "an acceptance that counts for no time"
        );
    }
    assert_eq!(ask_with(&proxy, &chat(QUESTION), &[]).await.layer(), None);
    assert_eq!(ask_with(&proxy, &chat(QUESTION), &[]).await.layer(), Some("exact"), "no key to be revoked");
}

/// Bodies over few names and values, so that equal ones come up often.
fn bodies() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        Just(Value::Null),
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(1.0)),
        Just(json!("1")),
        Just(json!([])),
        Just(json!([1, null])),
        Just(json!({"b": 1, "a": [2]})),
        Just(json!({"a": [2], "b": 1.0})),
    ];
    let name = prop_oneof![Just("seed"), Just("x"), Just("user"), Just("metadata"), Just("store")];
    let prompt = prop_oneof![Just("one"), Just("two"), Just(" one ")];
    let system = prop_oneof![Just(None), Just(Some("s")), Just(Some("t"))];
    (prompt, system, proptest::collection::vec((name, value), 0..3), any::<bool>()).prop_map(
        |(prompt, system, members, first)| {
            let mut body = Map::new();
            let mut fixed = chat(prompt);
            if let Some(system) = system {
                insert_turn(&mut fixed, json!({"role": "system", "content": system}));
            }
            let Value::Object(fixed) = fixed else { return Value::Null };
            if first {
                body.extend(fixed.clone());
            }
            body.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
            body.extend(fixed);
            Value::Object(body)
        },
    )
}

/// What of a body decides, written by hand: without what stays out, sorted at the top, numbers by value, prompt trimmed.
fn decisive(body: &Value) -> String {
    fn members(members: &Map<String, Value>) -> Vec<String> {
        members.iter().map(|(name, value)| format!("{name:?}:{}", plain(value))).collect()
    }
    fn plain(value: &Value) -> String {
        match value {
            Value::Number(number) => format!("#{}", number.as_f64().unwrap()),
            Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(",")),
            Value::Object(object) => format!("{{{}}}", members(object).join(",")),
            other => other.to_string(),
        }
    }
    let mut body = body.as_object().unwrap().clone();
    body.retain(|name, value| !value.is_null() && !["user", "metadata", "store"].contains(&name.as_str()));
    let last = body["messages"].as_array_mut().unwrap().last_mut().unwrap();
    last["content"] = json!(last["content"].as_str().unwrap().trim());
    let mut top = members(&body);
    top.sort();
    top.join(",")
}

/// Through the whole stack: a request is a hit exactly where an equal one came before, and gets its text.
#[tokio::test]
async fn random_bodies_hit_exactly_where_an_equal_one_came_before() {
    let upstream = upstream().await;
    let mut runner = TestRunner::default();
    let mut hits = 0;
    for _ in 0..4 {
        let proxy = proxy(&upstream).await;
        let mut stored: HashMap<String, String> = HashMap::new();
        for _ in 0..100 {
            let body = bodies().new_tree(&mut runner).unwrap().current();
            let reply = proxy.post(CHAT, &body).send().await;
            let text = text_of(&reply.json());
            match stored.get(&decisive(&body)) {
                Some(first) => {
                    assert_eq!(reply.layer(), Some("exact"), "{body}");
                    assert_eq!(text, *first, "{body}");
                    hits += 1;
                }
                None => {
                    assert_eq!(reply.layer(), None, "{body}");
                    assert!(!stored.values().any(|other| *other == text), "{body}");
                    stored.insert(decisive(&body), text);
                }
            }
        }
    }
    assert!(hits > 50, "{hits} of 400: too few to show anything");
}

/// The same over both layers and three callers: whatever is served, its text is one that upstream gave in answer
/// to a request of the same scope.
#[tokio::test]
async fn whatever_is_served_was_earned_by_its_scope() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.similarity_threshold = 0.6;
    })
    .await;
    let mut runner = TestRunner::default();
    let requests = (
        prop_oneof![Just(QUESTION), Just(PARAPHRASE), Just("Tell me the capital of France.")],
        0..3_usize,
        prop_oneof![Just(None), Just(Some("s")), Just(Some("t"))],
    );
    let callers: [&[(&str, &str)]; 3] =
        [&[], &[("authorization", "Bearer a")], &[("authorization", "Bearer b")]];
    let mut earned: HashMap<(usize, Option<&str>), Vec<String>> = HashMap::new();
    let mut semantic = 0;
    for _ in 0..60 {
        let (prompt, caller, system) = requests.new_tree(&mut runner).unwrap().current();
        let mut body = chat(prompt);
        if let Some(system) = system {
            insert_turn(&mut body, json!({"role": "system", "content": system}));
        }
        let reply = ask_with(&proxy, &body, callers[caller]).await;
        let text = text_of(&reply.json());
        let own = earned.entry((caller, system)).or_default();
        match reply.layer() {
            Some(layer) => {
                assert!(own.contains(&text), "{caller} {body}: {text}");
                semantic += usize::from(layer == "semantic");
            }
            None => own.push(text),
        }
    }
    assert!(semantic > 0);
}
