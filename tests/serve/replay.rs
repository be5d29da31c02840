//! A reply is stored once and replayed as the client asks: whole, in its dialect's own framing, in either form.
#![allow(
    clippy::items_after_statements,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::too_many_lines,
    reason = "tables and helpers of tests"
)]

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Ask, Fault, Gate, QUESTION, Reply, Said, encodings, generating, proxy, proxy_with, streamed,
    streamed_text_of, text_of, upstream, values_of,
};

fn said(path: &str, reply: &Reply, stream: bool) -> Said {
    assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
    if stream { Said::in_stream(path, reply.text()) } else { Said::in_document(path, &reply.json()) }
}

/// The request in the form asked for. The streams of chats and completions carry usage only where asked.
fn in_form(path: &str, body: &Value, stream: bool) -> Value {
    if !stream {
        return body.clone();
    }
    let mut body = streamed(body);
    if path == "/v1/chat/completions" || path == "/v1/completions" {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

/// The requests of every generating endpoint that bring out all that the endpoint can say, and a check that it
/// was said.
fn rich() -> Vec<(&'static str, &'static str, Value)> {
    let schema =
        json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
    let function = json!({"name": "weather", "description": "the weather", "parameters": schema});
    let mut all = Vec::new();
    for (path, body) in generating(QUESTION) {
        all.push((path, "plain", body));
    }
    for (path, mut body) in generating("Think about Rome.") {
        match path {
            "/v1/chat/completions" => body["reasoning_effort"] = json!("high"),
            "/v1/responses" => body["reasoning"] = json!({"effort": "high", "summary": "auto"}),
            "/v1/messages" => body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024}),
            "/v1/completions" => continue,
            _ => body["think"] = json!(true),
        }
        all.push((path, "reasoning", body));
    }
    for (path, mut body) in generating("How likely is rain?") {
        match path {
            "/v1/completions" => body["logprobs"] = json!(2),
            "/v1/responses" => body["include"] = json!(["message.output_text.logprobs"]),
            "/v1/messages" => continue,
            _ => body["logprobs"] = json!(true),
        }
        all.push((path, "logprobs", body));
    }
    for (path, mut body) in generating("The weather in Oslo, by the tool.") {
        body["tools"] = match path {
            "/v1/responses" => json!([{"type": "function", "name": "weather", "parameters": schema}]),
            "/v1/messages" => json!([{"name": "weather", "input_schema": schema}]),
            "/v1/chat/completions" | "/api/chat" => json!([{"type": "function", "function": function}]),
            _ => continue,
        };
        all.push((path, "calls", body));
    }
    for (path, mut body) in generating("Three ways to say hello.") {
        if path == "/v1/chat/completions" || path == "/v1/completions" {
            body["n"] = json!(3);
            all.push((path, "choices", body));
        }
    }
    all
}

#[tokio::test]
async fn every_reply_comes_back_whole_in_either_form_whichever_form_brought_it() {
    let upstream = upstream().await;
    for first_streams in [false, true] {
        // A proxy of its own for each direction, so that each miss is one.
        let proxy = proxy(&upstream).await;
        for (path, what, body) in rich() {
            let context = format!("{path} {what}, first streamed: {first_streams}");
            let before = upstream.count();
            let miss = proxy.post(path, &in_form(path, &body, first_streams)).send().await;
            assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate", "{context}");
            let expected = said(path, &miss, first_streams);
            match what {
                "reasoning" => assert!(expected.reasoning.contains("thinking about"), "{context}"),
                "logprobs" => assert!(expected.logprobs.len() > 5, "{context}"),
                "calls" => assert_eq!(expected.calls[0].1, "weather", "{context}"),
                "choices" => assert_eq!(expected.texts.len(), 3, "{context}"),
                _ => assert!(expected.texts[0].contains(QUESTION), "{context}"),
            }
            assert!(expected.usage.is_some() && !expected.finish.is_empty(), "{context}: {expected:?}");
            for streams in [false, true, first_streams] {
                let hit = proxy.post(path, &in_form(path, &body, streams)).send().await;
                assert_eq!(hit.layer(), Some("exact"), "{context}");
                assert_eq!(said(path, &hit, streams), expected, "{context}, again streamed: {streams}");
                let kind = match (streams, path.starts_with("/api")) {
                    (false, _) => "application/json",
                    (true, false) => "text/event-stream; charset=utf-8",
                    (true, true) => "application/x-ndjson",
                };
                assert_eq!(hit.header("content-type"), Some(kind), "{context}");
            }
            assert_eq!(upstream.count(), before + 1, "{context}");
        }
    }
}

/// A document that upstream answered with is replayed with its own bytes, but for what each replay renews.
#[tokio::test]
async fn a_document_is_replayed_as_upstream_wrote_it() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, what, body) in rich() {
        let mut miss = proxy.post(path, &body).send().await.json();
        let mut hit = proxy.post(path, &body).send().await.json();
        for name in ["id", "created", "created_at", "completed_at"] {
            let (miss, hit) = (miss.as_object_mut().unwrap(), hit.as_object_mut().unwrap());
            assert_eq!(miss.contains_key(name), hit.contains_key(name), "{path} {what} {name}");
            miss.remove(name);
            hit.remove(name);
        }
        assert_eq!(miss.to_string(), hit.to_string(), "{path} {what}");
    }
}

#[tokio::test]
async fn a_refusal_comes_back() {
    let upstream = upstream().await;
    for first_streams in [false, true] {
        let proxy = proxy(&upstream).await;
        for path in ["/v1/chat/completions", "/v1/responses"] {
            let (_, body) =
                generating("Help me to rob a bank.").into_iter().find(|(p, _)| *p == path).unwrap();
            upstream.fault_next(Fault::refused());
            let miss = proxy.post(path, &in_form(path, &body, first_streams)).send().await;
            let expected = said(path, &miss, first_streams);
            assert!(expected.refusal.contains("I refuse"), "{path}: {expected:?}");
            for streams in [false, true] {
                let hit = proxy.post(path, &in_form(path, &body, streams)).send().await;
                assert_eq!(hit.layer(), Some("exact"), "{path}");
                assert_eq!(said(path, &hit, streams), expected, "{path} {streams}");
            }
        }
    }
}

#[tokio::test]
async fn embeddings_come_back_byte_for_byte() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in [
        ("/v1/embeddings", json!({"model": "nomic-embed-text", "input": QUESTION})),
        ("/v1/embeddings", json!({"model": "nomic-embed-text", "input": [QUESTION, "and"]})),
        ("/v1/embeddings", json!({"model": "nomic-embed-text", "input": [[1, 2], [3]]})),
        ("/v1/embeddings", json!({"model": "nomic-embed-text", "input": "x", "encoding_format": "base64"})),
        ("/api/embed", json!({"model": "nomic-embed-text", "input": QUESTION})),
        ("/api/embed", json!({"model": "nomic-embed-text", "input": [QUESTION, "and"]})),
        ("/api/embeddings", json!({"model": "nomic-embed-text", "prompt": QUESTION})),
    ] {
        let miss = proxy.post(path, &body).send().await;
        assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate", "{path} {body}");
        let hit = proxy.post(path, &body).send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path} {body}");
        assert_eq!(hit.body, miss.body, "{path} {body}");
        assert_eq!(hit.header("content-type"), Some("application/json"));
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Where a document of each endpoint has its id and time, and the value of the oldest time it could have.
const DATED: [(&str, &str, Option<&str>); 6] = [
    ("/v1/chat/completions", "id", Some("created")),
    ("/v1/completions", "id", Some("created")),
    ("/v1/responses", "id", Some("created_at")),
    ("/v1/messages", "id", None),
    ("/api/generate", "", Some("created_at")),
    ("/api/chat", "", Some("created_at")),
];

#[tokio::test]
async fn id_and_time_are_fresh_but_for_the_id_of_a_response() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let started = now();
    for (path, body) in generating(QUESTION) {
        let (_, id, created) = DATED.into_iter().find(|(p, ..)| *p == path).unwrap();
        // What upstream answers, made old.
        let mut old = Ask::post(&format!("{}{path}", upstream.url()), &body).send().await.json();
        if let Some(created) = created {
            old[created] = if path.starts_with("/api") { json!("2020-01-01T00:00:00Z") } else { json!(17) };
        }
        upstream.fault_next(Fault::body("application/json", old.to_string()));
        assert_eq!(proxy.post(path, &body).send().await.json(), old, "{path}");

        let first = proxy.post(path, &body).send().await.json();
        let second = proxy.post(path, &body).send().await.json();
        if let Some(created) = created {
            match &first[created] {
                Value::String(time) => {
                    let time = humantime::parse_rfc3339(time).unwrap();
                    assert!(time.duration_since(UNIX_EPOCH).unwrap().as_secs() >= started, "{path}: {first}");
                }
                seconds => assert!(seconds.as_u64().unwrap() >= started, "{path}: {first}"),
            }
        }
        if path == "/v1/responses" {
            assert_eq!(first["id"], old["id"], "previous_response_id must work upstream");
            assert_eq!(second["id"], old["id"]);
        } else if !id.is_empty() {
            let ids = [&old[id], &first[id], &second[id]].map(|id| id.as_str().unwrap().to_owned());
            assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{path}: {ids:?}");
            let prefix = ids[0].split_inclusive(['-', '_']).next().unwrap();
            assert!(ids.iter().all(|id| id.starts_with(prefix) && id.len() == ids[0].len()), "{ids:?}");
        }
        // The same in a stream, where every chunk has one id.
        let stream = proxy.post(path, &streamed(&body)).send().await;
        assert_eq!(stream.layer(), Some("exact"));
        if path == "/v1/chat/completions" || path == "/v1/completions" {
            let chunks = values_of(stream.text());
            let distinct: std::collections::HashSet<_> =
                chunks.iter().map(|chunk| chunk["id"].as_str().unwrap()).collect();
            assert_eq!(distinct.len(), 1, "{path}");
            assert!(!distinct.contains(old["id"].as_str().unwrap()), "{path}");
            assert!(chunks.iter().all(|chunk| chunk["created"].as_u64().unwrap() >= started), "{path}");
        }
    }
}

#[tokio::test]
async fn a_response_that_upstream_does_not_keep_is_not_given_to_others() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    // Its id means nothing to upstream, so that whoever got it could not go on by previous_response_id.
    let unkept = json!({"model": "llama3.2", "input": QUESTION, "store": false});
    for _ in 0..2 {
        assert_eq!(proxy.post("/v1/responses", &unkept).send().await.layer(), None);
    }
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn a_response_echoes_the_callers_own_fields() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let ask = |stream: bool, own: Value| {
        let mut body = json!({"model": "llama3.2", "input": QUESTION, "stream": stream});
        body.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        proxy.post("/v1/responses", &body)
    };
    let echoed = |response: &Value| {
        ["metadata", "user", "store", "prompt_cache_key", "safety_identifier"]
            .map(|name| response[name].clone())
    };
    let first = json!({"metadata": {"whose": "first"}, "user": "first", "safety_identifier": "1"});
    let second =
        json!({"metadata": {"whose": "second"}, "user": "second", "store": false, "prompt_cache_key": "2"});

    let miss = ask(false, first).send().await;
    assert_eq!(miss.layer(), None);
    assert_eq!(echoed(&miss.json())[1], "first");
    let expected = [json!({"whose": "second"}), json!("second"), json!(false), json!("2"), Value::Null];
    let hit = ask(false, second.clone()).send().await;
    assert_eq!(hit.layer(), Some("exact"));
    assert_eq!(echoed(&hit.json()), expected);
    let hit = ask(true, second).send().await;
    assert_eq!(hit.layer(), Some("exact"));
    let mut responses = 0;
    for event in values_of(hit.text()).iter().filter(|event| event.get("response").is_some()) {
        assert_eq!(echoed(&event["response"]), expected, "{event}");
        responses += 1;
    }
    assert_eq!(responses, 3, "created, in_progress, completed");
    let hit = ask(false, json!({})).send().await;
    assert_eq!(hit.layer(), Some("exact"));
    assert_eq!(echoed(&hit.json()), [json!({}), Value::Null, json!(true), Value::Null, Value::Null]);
    assert!(!hit.text().contains("first") && !hit.text().contains("second"), "{}", hit.text());
}

#[tokio::test]
async fn a_stream_has_usage_only_for_a_client_that_asked() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let (_, body) = generating(QUESTION).into_iter().find(|(p, _)| *p == path).unwrap();
        let plain = streamed(&body);
        let asking = in_form(path, &body, true);

        // The miss is what upstream would have sent without being asked, byte for byte but for id and time.
        let direct = Ask::post(&format!("{}{path}", upstream.url()), &plain).send().await;
        let miss = proxy.post(path, &plain).send().await;
        assert_eq!(miss.layer(), None);
        let sent: Value = serde_json::from_slice(&upstream.requests().last().unwrap().body).unwrap();
        assert_eq!(sent["stream_options"], json!({"include_usage": true}), "asked on the client's behalf");
        let neutral = |stream: &str| {
            let values = values_of(stream);
            values.into_iter().fold(stream.to_owned(), |text, value| {
                text.replace(value["id"].as_str().unwrap(), "ID").replace(&value["created"].to_string(), "T")
            })
        };
        assert_eq!(neutral(miss.text()), neutral(direct.text()), "{path}");
        assert!(!miss.text().contains("usage"), "{path}");

        let hit = proxy.post(path, &plain).send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path}");
        assert!(!hit.text().contains("usage"), "{path}: {}", hit.text());
        assert!(hit.text().ends_with("data: [DONE]\n\n"), "{path}");

        let hit = proxy.post(path, &asking).send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path}");
        let chunks = values_of(hit.text());
        let (last, others) = chunks.split_last().unwrap();
        assert_eq!(last["choices"], json!([]), "{path}");
        assert_eq!(last["usage"]["prompt_tokens"], 6, "{path}");
        assert!(others.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)), "{path}");

        let hit = proxy.post(path, &body).send().await.json();
        assert_eq!(hit["usage"], last["usage"], "{path}");
    }
}

#[tokio::test]
async fn usage_that_is_not_known_is_left_out() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.cache.include_usage = false).await;
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let (_, body) = generating(QUESTION).into_iter().find(|(p, _)| *p == path).unwrap();
        proxy.post(path, &streamed(&body)).send().await;
        let sent: Value = serde_json::from_slice(&upstream.requests().last().unwrap().body).unwrap();
        assert_eq!(sent.get("stream_options"), None, "the configuration says not to ask");
        let hit = proxy.post(path, &body).send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path}");
        assert_eq!(Said::in_document(path, &hit.json()).usage, None, "{path}");
        let hit = proxy.post(path, &in_form(path, &body, true)).send().await;
        assert_eq!(hit.layer(), Some("exact"), "{path}");
        assert_eq!(Said::in_stream(path, hit.text()).usage, None, "{path}");
    }
}

#[tokio::test]
async fn ollama_streams_unless_told_otherwise() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, mut body) in generating(QUESTION).into_iter().filter(|(path, _)| path.starts_with("/api")) {
        body.as_object_mut().unwrap().remove("stream");
        for layer in [None, Some("exact")] {
            let reply = proxy.post(path, &body).send().await;
            assert_eq!(reply.layer(), layer, "{path}");
            assert_eq!(reply.header("content-type"), Some("application/x-ndjson"), "{path}");
            let lines = values_of(reply.text());
            assert!(reply.text().ends_with('\n'));
            let (last, others) = lines.split_last().unwrap();
            assert!(!others.is_empty() && others.iter().all(|line| line["done"] == false), "{path}");
            assert_eq!(last["done"], true, "{path}");
            for name in [
                "total_duration",
                "load_duration",
                "prompt_eval_count",
                "prompt_eval_duration",
                "eval_count",
                "eval_duration",
            ] {
                assert!(
                    last[name].as_u64().is_some_and(|value| value > 0),
                    "{path} {layer:?} {name}: {last}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_hit_has_its_own_headers_and_none_of_another_exchange() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    const THEIRS: [(&str, &str); 8] = [
        ("set-cookie", "session=theirs"),
        ("x-ratelimit-remaining-requests", "59"),
        ("x-request-id", "req_theirs"),
        ("request-id", "req_theirs"),
        ("openai-processing-ms", "7"),
        ("access-control-allow-origin", "https://theirs.example"),
        ("access-control-expose-headers", "x-theirs"),
        ("cache-status", "cdn; hit"),
    ];
    let fault = THEIRS.into_iter().fold(Fault::none(), |fault, (name, value)| {
        fault.header(HeaderName::from_static(name), HeaderValue::from_static(value))
    });
    for (path, body) in generating(QUESTION) {
        upstream.fault_next(fault.clone());
        let miss = proxy.post(path, &body).send().await;
        for (name, value) in THEIRS {
            assert_eq!(miss.header(name), Some(value), "{path}: relayed on a miss");
        }
        assert_eq!(miss.header("server"), Some("rejoinder-simulated"));
        assert_eq!(
            miss.headers.get_all("cache-status").iter().count(),
            2,
            "upstream's is kept, ours appended"
        );
        assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate");
        for ours in ["age", "x-rejoinder-entry", "x-rejoinder-similarity", "x-rejoinder-confidence"] {
            assert_eq!(miss.header(ours), None, "{path}: {ours} on a miss without a candidate");
        }

        for body in [body.clone(), streamed(&body)] {
            let hit = proxy.post(path, &body).send().await;
            let stream = body["stream"] == true;
            let mut names: Vec<_> = hit.headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            let framing = if stream { "transfer-encoding" } else { "content-length" };
            let mut expected = vec![
                "age",
                "cache-status",
                framing,
                "content-type",
                "date",
                "x-rejoinder-confidence",
                "x-rejoinder-entry",
                "x-rejoinder-similarity",
            ];
            expected.sort_unstable();
            assert_eq!(names, expected, "{path} {stream}");
            let ttl: u64 = hit
                .cache_status()
                .strip_prefix("rejoinder; hit; ttl=")
                .and_then(|rest| rest.strip_suffix("; detail=exact"))
                .unwrap_or_else(|| panic!("{}", hit.cache_status()))
                .parse()
                .unwrap();
            let age: u64 = hit.header("age").unwrap().parse().unwrap();
            assert!(age < 3600 && ttl <= 86_400 && ttl + age >= 86_399, "{age} {ttl}");
            let decimal = |name| hit.header(name).unwrap().parse::<f64>().unwrap();
            assert!((decimal("x-rejoinder-similarity") - 1.0).abs() < f64::EPSILON);
            assert!((0.9..=1.0).contains(&decimal("x-rejoinder-confidence")));
            let entry = hit.header("x-rejoinder-entry").unwrap();
            assert!(entry.len() == 32 && entry.bytes().all(|b| b.is_ascii_hexdigit()), "{entry}");
        }
    }
}

/// Undoes a content coding with the decoders of the encoders' own makers.
fn decoded(name: &str, body: &[u8]) -> String {
    use std::io::Read;
    let mut text = String::new();
    let read = match name {
        "gzip" => flate2::read::MultiGzDecoder::new(body).read_to_string(&mut text),
        "deflate" => flate2::read::ZlibDecoder::new(body).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(body, 4096).read_to_string(&mut text),
        _ => {
            let mut out = Vec::with_capacity(1 << 20);
            ruzstd::decoding::FrameDecoder::new().decode_all_to_vec(body, &mut out).unwrap();
            out.as_slice().read_to_string(&mut text)
        }
    };
    read.unwrap();
    text
}

#[tokio::test]
async fn a_compressed_reply_is_relayed_as_it_came_and_its_hit_is_not_compressed() {
    let upstream = upstream().await;
    for encoding in encodings::ALL {
        for streams in [false, true] {
            let proxy = proxy(&upstream).await;
            for (path, body) in generating(QUESTION) {
                let context = format!("{path} {} {streams}", encoding.name);
                let body = if streams { streamed(&body) } else { body };
                upstream.fault_next(Fault::none().encoded(encoding));
                let miss = proxy.post(path, &body).header("accept-encoding", encoding.name).send().await;
                assert_eq!(miss.header("content-encoding"), Some(encoding.name), "{context}");
                assert_eq!(
                    miss.cache_status(),
                    "rejoinder; fwd=miss; stored; detail=no-candidate",
                    "{context}"
                );
                let relayed = decoded(encoding.name, &miss.body);
                let hit = proxy.post(path, &body).header("accept-encoding", encoding.name).send().await;
                assert_eq!(hit.layer(), Some("exact"), "{context}");
                assert_eq!(hit.header("content-encoding"), None, "{context}");
                if streams {
                    assert_eq!(streamed_text_of(hit.text()), streamed_text_of(&relayed), "{context}");
                } else {
                    let relayed = serde_json::from_str(&relayed).unwrap();
                    assert_eq!(text_of(&hit.json()), text_of(&relayed), "{context}");
                }
            }
        }
    }
}

/// Also where upstream compresses although it was asked not to: what arrives is passed on at once.
#[tokio::test]
async fn a_compressed_stream_is_not_held_up() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(QUESTION) {
        let gate = Gate::new();
        upstream.fault_next(Fault::none().encoded(encodings::GZIP).gate_after(200, &gate));
        let mut stream = proxy.post(path, &streamed(&body)).header("accept-encoding", "gzip").open().await;
        stream.until_bytes(200).await;
        assert_eq!(gate.waiting(), 1, "{path}");
        gate.open();
        stream.finish().await.unwrap();
    }
}

#[tokio::test]
async fn spellings_of_one_prompt_are_one_and_what_may_carry_meaning_is_kept() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let layer = async |prompt: &str| {
        let (path, body) = generating(prompt).remove(0);
        proxy.post(path, &body).send().await.layer().map(str::to_owned)
    };
    for (stored, asked, same) in [
        ("What is Rust?", "  What \t is  Rust?\r\n", true),
        ("caf\u{e9} or tea", "cafe\u{301} or tea", true),
        ("first\nsecond", "first\r\nsecond", true),
        ("What is Go?", "what is go?", false),
        ("one  two\nthree", "one two\nthree", false),
        ("say `a  b`", "say `a b`", false),
        ("say \"a  b\"", "say \"a b\"", false),
        ("ab", "a b", false),
    ] {
        assert_eq!(layer(stored).await, None, "{stored:?}");
        assert_eq!(layer(asked).await.is_some(), same, "{stored:?} and {asked:?}");
    }
}

#[tokio::test]
async fn a_list_of_one_prompt_is_that_prompt() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let ask = async |prompt: Value| {
        let body = json!({"model": "llama3.2", "prompt": prompt});
        let reply = proxy.post("/v1/completions", &body).send().await;
        (reply.layer().map(str::to_owned), text_of(&reply.json()))
    };
    let (miss, text) = ask(json!("a")).await;
    assert_eq!(miss, None);
    assert_eq!(ask(json!(["a"])).await, (Some("exact".to_owned()), text));
    for several in [json!(["a", "b"]), json!(["b", "a"]), json!([1, 2, 3]), json!([[1, 2], [3]])] {
        assert_eq!(ask(several.clone()).await.0, None, "{several}");
        assert_eq!(ask(several.clone()).await.0.as_deref(), Some("exact"), "{several}");
    }
}
