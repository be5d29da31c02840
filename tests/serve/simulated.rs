//! The simulated upstream is a faithful imitation, and fails as it is told to: other tests rely on both.

use std::io::{ErrorKind, Read};

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Ask, Connection, Fault, Gate, Simulated, SimulatedOptions, encodings, generating, raw, streamed,
    streamed_text_of, text_of, upstream, values_of,
};

const PROMPT: &str = "What is the capital of France?";

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

fn chat_url(upstream: &Simulated) -> String {
    format!("{}/v1/chat/completions", upstream.url())
}

#[tokio::test]
async fn every_form_is_labelled_and_says_the_same() {
    let upstream = upstream().await;
    for (path, body) in generating(PROMPT) {
        let url = format!("{}{path}", upstream.url());
        let whole = Ask::post(&url, &body).send().await;
        assert_eq!(whole.status, StatusCode::OK, "{path}");
        assert_eq!(whole.header("server"), Some("rejoinder-simulated"));
        assert_eq!(whole.header("content-type"), Some("application/json; charset=utf-8"));
        let text = text_of(&whole.json());
        assert!(text.starts_with("[simulated]") && text.contains(PROMPT), "{path}: {text}");

        let stream = Ask::post(&url, &streamed(&body)).send().await;
        let expected = if path.starts_with("/api") { "application/x-ndjson" } else { "text/event-stream" };
        assert!(stream.header("content-type").unwrap().starts_with(expected), "{path}");
        assert_eq!(stream.header("content-length"), None, "{path}");
        assert_eq!(streamed_text_of(stream.text()), text, "{path}");
        assert!(values_of(stream.text()).len() > 5, "{path}: not in pieces");
    }
}

#[tokio::test]
async fn the_reply_depends_on_the_whole_request() {
    let upstream = upstream().await;
    let ask = |path: &str, body: &Value| Ask::post(&format!("{}{path}", upstream.url()), body);
    let plain = text_of(&ask("/v1/chat/completions", &chat(PROMPT)).send().await.json());

    let mut same = vec![];
    for (name, value) in
        [("stream", json!(false)), ("user", json!("u")), ("metadata", json!({})), ("x", Value::Null)]
    {
        let mut body = chat(PROMPT);
        body[name] = value;
        same.push(body);
    }
    for body in same {
        assert_eq!(text_of(&ask("/v1/chat/completions", &body).send().await.json()), plain, "{body}");
    }

    let mut texts = vec![plain];
    for (name, value) in [("temperature", json!(0.5)), ("unknown", json!(1)), ("seed", json!(7))] {
        let mut body = chat(PROMPT);
        body[name] = value;
        texts.push(text_of(&ask("/v1/chat/completions", &body).send().await.json()));
    }
    let mut turns = chat(PROMPT);
    turns["messages"].as_array_mut().unwrap().insert(0, json!({"role": "system", "content": "Be brief."}));
    texts.push(text_of(&ask("/v1/chat/completions", &turns).send().await.json()));
    texts.push(text_of(&ask("/v1/chat/completions?api-version=2", &chat(PROMPT)).send().await.json()));
    for header in [
        "authorization",
        "cookie",
        "api-key",
        "x-api-key",
        "x-goog-api-key",
        "openai-organization",
        "openai-project",
        "openai-beta",
        "anthropic-version",
        "anthropic-beta",
    ] {
        let reply = ask("/v1/chat/completions", &chat(PROMPT)).header(header, "x").send().await;
        texts.push(text_of(&reply.json()));
    }
    let distinct: std::collections::HashSet<_> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len(), "{texts:#?}");
}

#[tokio::test]
async fn usage_comes_in_a_stream_only_when_asked_for() {
    let upstream = upstream().await;
    let mut body = streamed(&chat(PROMPT));
    let without = Ask::post(&chat_url(&upstream), &body).send().await;
    assert!(!without.text().contains("\"usage\""));
    assert!(without.text().ends_with("data: [DONE]\n\n"));

    body["stream_options"] = json!({"include_usage": true});
    let with = values_of(Ask::post(&chat_url(&upstream), &body).send().await.text());
    let (last, others) = with.split_last().unwrap();
    assert!(others.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["prompt_tokens"], 6);
}

#[tokio::test]
async fn a_chat_stream_is_framed_as_openai_does() {
    let upstream = upstream().await;
    upstream.set_fault(Fault::refused());
    let stream = Ask::post(&chat_url(&upstream), &streamed(&chat("x"))).send().await;
    let shape: Vec<(Value, Value)> = values_of(stream.text())
        .into_iter()
        .map(|chunk| {
            let choice = chunk["choices"][0].clone();
            let delta = choice["delta"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            (json!(delta), choice["finish_reason"].clone())
        })
        .collect();
    let refusal = (json!(["refusal"]), Value::Null);
    assert_eq!(
        shape,
        [
            (json!(["role", "content", "refusal"]), Value::Null),
            refusal.clone(),
            refusal.clone(),
            refusal.clone(),
            refusal,
            (json!([]), json!("stop")),
        ]
    );
}

#[tokio::test]
async fn tools_thinking_and_logprobs_come_on_request() {
    let upstream = upstream().await;
    let url = upstream.url();
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": schema}});

    let mut body = chat("the weather in Paris");
    body["tools"] = json!([tool]);
    let called = Ask::post(&chat_url(&upstream), &body).send().await.json();
    assert_eq!(called["choices"][0]["finish_reason"], "tool_calls");
    let arguments =
        called["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    assert!(arguments["city"].as_str().unwrap().starts_with("simulated "));

    let not_asked = {
        let mut body = chat("hello");
        body["tools"] = json!([tool]);
        Ask::post(&chat_url(&upstream), &body).send().await.json()
    };
    assert_eq!(not_asked["choices"][0]["finish_reason"], "stop");

    let mut think = chat(PROMPT);
    think["think"] = json!(true);
    think["stream"] = json!(false);
    let thought = Ask::post(&format!("{url}/api/chat"), &think).send().await.json();
    assert!(thought["message"]["thinking"].as_str().unwrap().starts_with("[simulated] thinking"));

    let mut logprobs = chat(PROMPT);
    logprobs["logprobs"] = json!(true);
    let probable = Ask::post(&chat_url(&upstream), &logprobs).send().await.json();
    let content = probable["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let tokens: String = content.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(tokens, text_of(&probable));
    let stream = values_of(Ask::post(&chat_url(&upstream), &streamed(&logprobs)).send().await.text());
    let streamed_logprobs: Vec<Value> = stream
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(streamed_logprobs, content);
}

#[tokio::test]
async fn embeddings_agree_between_their_forms() {
    let upstream = upstream().await;
    let body = json!({"model": "nomic-embed-text", "input": ["a cat", "a dog"]});
    let numbers = Ask::post(&format!("{}/v1/embeddings", upstream.url()), &body).send().await.json();
    assert_eq!(numbers["data"][1]["index"], 1);
    assert_eq!(numbers["data"][0]["embedding"].as_array().unwrap().len(), 64);
    let ollama = Ask::post(&format!("{}/api/embed", upstream.url()), &body).send().await.json();
    assert_eq!(ollama["embeddings"].as_array().unwrap().len(), 2);
    let older = json!({"model": "nomic-embed-text", "prompt": "a cat"});
    let older = Ask::post(&format!("{}/api/embeddings", upstream.url()), &older).send().await.json();
    assert_eq!(older["embedding"].as_array().unwrap().len(), 64);
}

#[tokio::test]
async fn the_lists_and_the_rest_are_served() {
    let upstream = upstream().await;
    let url = upstream.url();
    for path in ["/", "/v1/models", "/v1/models/llama3.2:latest", "/api/tags", "/api/ps", "/api/version"] {
        assert_eq!(Ask::get(&format!("{url}{path}")).send().await.status, StatusCode::OK, "{path}");
    }
    let show = Ask::post(&format!("{url}/api/show"), &json!({"model": "llama3.2"})).send().await;
    assert_eq!(show.json()["details"]["family"], "simulated");
    let pull = Ask::post(&format!("{url}/api/pull"), &json!({"model": "llama3.2"})).send().await;
    assert_eq!(values_of(pull.text()).last(), Some(&json!({"status": "success"})));
    let load = Ask::post(&format!("{url}/api/generate"), &json!({"model": "m"})).send().await.json();
    assert_eq!(load["done_reason"], "load");
    let unload = Ask::post(&format!("{url}/api/chat"), &json!({"model": "m", "keep_alive": 0})).send().await;
    assert_eq!(unload.json()["done_reason"], "unload");
    let echo = Ask::post_bytes(&format!("{url}/simulated/echo"), "as it is").send().await;
    assert_eq!(echo.text(), "as it is");
}

#[tokio::test]
async fn errors_are_in_the_dialect_of_the_path() {
    let upstream = upstream().await;
    let mut shapes = Vec::new();
    for (path, mut body) in generating("x") {
        body["model"] = json!("no-such-model");
        let reply = Ask::post(&format!("{}{path}", upstream.url()), &body).send().await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        shapes.push((path, reply.json()));
    }
    let message = "model 'no-such-model' not found";
    let openai = json!({"error": {
        "message": message, "type": "invalid_request_error", "param": null, "code": "model_not_found",
    }});
    let anthropic = json!({"type": "error", "error": {"type": "not_found_error", "message": message}});
    for (path, error) in shapes {
        let expected = match path {
            "/v1/messages" => anthropic.clone(),
            path if path.starts_with("/v1") => openai.clone(),
            _ => json!({"error": message}),
        };
        assert_eq!(error, expected, "{path}");
    }
    let bad = Ask::post_bytes(&chat_url(&upstream), "not JSON").send().await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_required_key_is_required_in_each_form() {
    let options = SimulatedOptions { required_key: Some("k".to_owned()), ..Default::default() };
    let upstream = Simulated::start(options).await.unwrap();
    let ask = || Ask::post(&chat_url(&upstream), &chat("x"));
    assert_eq!(ask().send().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask().header("authorization", "Bearer other").send().await.status, StatusCode::UNAUTHORIZED);
    for (name, value) in [("authorization", "Bearer k"), ("x-api-key", "k"), ("api-key", "k")] {
        assert_eq!(ask().header(name, value).send().await.status, StatusCode::OK);
    }
    upstream.require_key(Some("new"));
    assert_eq!(ask().header("x-api-key", "k").send().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn requests_are_recorded_as_they_were_on_the_wire() {
    let upstream = upstream().await;
    let request = b"POST /api/show?a=1&a=2 HTTP/1.1\r\nhost: x\r\nX-B: 1\r\nx-a:  2 \r\nX-B: 3\r\n\
        transfer-encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (reply, end) = raw(upstream.address(), request).await;
    end.unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 400"));
    let [recorded] = upstream.requests().try_into().unwrap();
    assert_eq!(recorded.uri.to_string(), "/api/show?a=1&a=2");
    assert_eq!(&recorded.body[..], b"hello");
    let lines: Vec<String> = recorded.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(lines, ["host=x", "X-B=1", "x-a=2", "X-B=3", "transfer-encoding=chunked", "Connection=close"]);
    assert_eq!(recorded.header_values("x-b").collect::<Vec<_>>(), ["1", "3"]);

    let mut connection = Connection::open(upstream.address()).await.unwrap();
    for number in ["1", "2"] {
        connection.send(Ask::post(&chat_url(&upstream), &chat("x")).header("n", number)).await.unwrap();
    }
    let numbers: Vec<_> =
        upstream.requests()[1..].iter().map(|r| r.header("N").unwrap().to_owned()).collect();
    assert_eq!(numbers, ["1", "2"]);
    assert_eq!((upstream.count(), upstream.connections()), (3, 2));
}

#[tokio::test]
async fn a_prefix_is_part_of_every_path() {
    let options = SimulatedOptions { prefix: "/team-a".to_owned(), remember: 1, ..Default::default() };
    let upstream = Simulated::start(options).await.unwrap();
    assert!(upstream.url().ends_with("/team-a"));
    let ok = Ask::post(&chat_url(&upstream), &chat("x")).send().await;
    assert_eq!(ok.status, StatusCode::OK);
    let bare = format!("http://{}/v1/chat/completions", upstream.address());
    assert_eq!(Ask::post(&bare, &chat("x")).send().await.status, StatusCode::NOT_FOUND);
    assert_eq!((upstream.requests().len(), upstream.count()), (1, 2));
}

#[tokio::test]
async fn pieces_are_sent_when_they_are_there() {
    let upstream = upstream().await;
    let gate = Gate::new();
    for (path, body) in generating(PROMPT) {
        upstream.fault_next(Fault::none().gate_after(200, &gate));
        let mut stream = Ask::post(&format!("{}{path}", upstream.url()), &streamed(&body)).open().await;
        stream.until_bytes(200).await;
        assert_eq!(stream.received().len(), 200, "{path}");
    }
    gate.until_arrived(6).await;
    gate.open();
    upstream.fault_next(Fault::none().gate_after(200, &gate));
    let mut stream = Ask::post(&chat_url(&upstream), &streamed(&chat(PROMPT))).open().await;
    stream.finish().await.unwrap();
    assert!(stream.text().ends_with("[DONE]\n\n"));
}

#[tokio::test]
async fn a_gate_counts_who_waits() {
    let upstream = upstream().await;
    let gate = Gate::new();
    upstream.set_fault(Fault::status(StatusCode::BAD_GATEWAY).gate(&gate));
    let waiting: Vec<_> =
        (0..3).map(|_| tokio::spawn(Ask::post(&chat_url(&upstream), &chat("x")).send())).collect();
    gate.until_waiting(3).await;
    assert_eq!(upstream.count(), 3);
    let [leaves, stays @ ..] = &waiting[..] else { panic!() };
    leaves.abort();
    gate.until_waiting(2).await;
    upstream.until_abandoned(1).await;
    gate.open();
    assert!(stays.len() == 2 && gate.arrived() == 3);
    for reply in waiting.into_iter().skip(1) {
        assert_eq!(reply.await.unwrap().status, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(upstream.abandoned(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_is_noticed() {
    let upstream = upstream().await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(100, &gate));
    let mut stream = Ask::post(&chat_url(&upstream), &streamed(&chat("x"))).open().await;
    stream.until_bytes(100).await;
    drop(stream);
    upstream.until_abandoned(1).await;
    upstream.set_fault(Fault::none());
    Ask::post(&chat_url(&upstream), &chat("x")).send().await;
    Ask::post(&chat_url(&upstream), &streamed(&chat("x"))).send().await;
    assert_eq!(upstream.abandoned(), 1);
}

#[tokio::test]
async fn the_request_body_can_be_left_unread() {
    let upstream = upstream().await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_before_body(&gate));
    let pending = tokio::spawn(Ask::post(&chat_url(&upstream), &chat("x")).send());
    gate.until_waiting(1).await;
    assert_eq!(upstream.count(), 0);
    gate.open();
    assert_eq!(pending.await.unwrap().status, StatusCode::OK);
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

#[tokio::test]
async fn connections_break_as_told() {
    let upstream = upstream().await;
    let request = b"POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n{\"model\":\"m\"}\n";

    upstream.fault_next(Fault::reset_before_head());
    let (bytes, end) = raw(upstream.address(), request).await;
    assert_eq!((bytes.len(), end.unwrap_err().kind()), (0, ErrorKind::ConnectionReset));

    upstream.fault_next(Fault::close_before_head());
    let (bytes, end) = raw(upstream.address(), request).await;
    assert!(bytes.is_empty() && end.is_ok());

    upstream.fault_next(Fault::raw("\u{0}garbage"));
    let (bytes, end) = raw(upstream.address(), request).await;
    assert!(bytes == b"\0garbage" && end.is_ok());

    for (path, body) in generating(PROMPT) {
        let ask = || Ask::post(&format!("{}{path}", upstream.url()), &streamed(&body));
        upstream.fault_next(Fault::none().reset_after(100));
        let mut stream = ask().open().await;
        let error = stream.finish().await.unwrap_err();
        assert_eq!(io_kind(&error), Some(ErrorKind::ConnectionReset), "{path}");
        assert_eq!(stream.received().len(), 100, "{path}");

        upstream.fault_next(Fault::none().close_after(101));
        let mut stream = ask().open().await;
        assert!(stream.finish().await.is_err(), "{path}: an end that looks whole");
        assert_eq!(stream.received().len(), 101, "{path}");
    }

    upstream.fault_next(Fault::none().close_after(10));
    let mut document = Ask::post(&chat_url(&upstream), &chat("x")).open().await;
    assert!(document.finish().await.is_err());
    assert_eq!(document.received().len(), 10);
    assert_eq!(upstream.abandoned(), 0);
}

#[tokio::test]
async fn connections_are_refused_while_it_does_not_listen() {
    let upstream = upstream().await;
    let mut connection = Connection::open(upstream.address()).await.unwrap();
    connection.send(Ask::post(&chat_url(&upstream), &chat("x"))).await.unwrap();
    upstream.stop_listening().await.unwrap();
    assert!(connection.send(Ask::post(&chat_url(&upstream), &chat("x"))).await.is_err());
    let error = Ask::post(&chat_url(&upstream), &chat("x")).try_send().await.unwrap_err();
    assert_eq!(io_kind(&*error), Some(ErrorKind::ConnectionRefused));
    upstream.listen_again().await.unwrap();
    assert_eq!(Ask::post(&chat_url(&upstream), &chat("x")).send().await.status, StatusCode::OK);
    let address = upstream.address();
    upstream.shutdown().await;
    assert_eq!(Connection::open(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn lengths_can_lie() {
    let upstream = upstream().await;
    let length = |value| Fault::none().header(http::header::CONTENT_LENGTH, HeaderValue::from_static(value));
    upstream.fault_next(length("100000"));
    let long = Ask::post(&chat_url(&upstream), &chat("x")).try_send().await;
    assert!(long.is_err(), "a body shorter than its length");

    upstream.fault_next(Fault::raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{} and more"));
    let (bytes, _) =
        raw(upstream.address(), b"POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
    assert!(bytes.ends_with(b"{} and more"));
}

#[tokio::test]
async fn statuses_headers_and_trailers_are_as_told() {
    let upstream = upstream().await;
    let header = |name: &'static str, value: &'static str| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let mut fault = Fault::status(StatusCode::TOO_MANY_REQUESTS);
    let extra = [
        header("retry-after", "7"),
        header("x-ratelimit-remaining-requests", "0"),
        header("x-request-id", "req_1"),
        header("set-cookie", "a=1"),
        header("set-cookie", "b=2"),
        header("access-control-allow-origin", "https://a.example"),
        header("cache-status", "other; hit"),
        header("cache-control", "no-store"),
    ];
    for (name, value) in extra.clone() {
        fault = fault.header(name, value);
    }
    upstream.fault_next(fault);
    let limited = Ask::post(&chat_url(&upstream), &chat("x")).send().await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limited.json()["error"]["code"], "rate_limit_exceeded");
    for (name, value) in extra {
        assert!(limited.headers.get_all(&name).iter().any(|other| other == value), "{name}");
    }

    let (name, value) = header("location", "/elsewhere");
    upstream.fault_next(Fault::status(StatusCode::TEMPORARY_REDIRECT).header(name, value));
    let redirect = Ask::post(&chat_url(&upstream), &chat("x")).send().await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (307, Some("/elsewhere")));

    let (name, value) = header("x-checksum", "1");
    upstream.fault_next(Fault::none().trailer(name.clone(), value.clone()));
    let trailed =
        Ask::post(&chat_url(&upstream), &streamed(&chat("x"))).header("te", "trailers").send().await;
    assert_eq!(trailed.header("trailer"), Some("x-checksum"));
    assert_eq!(trailed.trailers.unwrap().get(name), Some(&value));

    upstream.fault_next(Fault::body("application/json", "{\"error\":\"odd\"}"));
    assert_eq!(Ask::post(&chat_url(&upstream), &chat("x")).send().await.text(), "{\"error\":\"odd\"}");
}

#[tokio::test]
async fn contents_are_as_told_in_every_dialect() {
    let upstream = upstream().await;
    let ask = async |fault: Fault, stream: bool| {
        let mut bodies = Vec::new();
        for (path, body) in generating("x") {
            upstream.fault_next(fault.clone());
            let body = if stream { streamed(&body) } else { body };
            bodies
                .push(Ask::post(&format!("{}{path}", upstream.url()), &body).send().await.text().to_owned());
        }
        bodies
    };
    let ends = |words: [&str; 6], bodies: &[String]| {
        for (word, body) in words.iter().zip(bodies) {
            assert!(body.contains(word), "{word} in {body}");
        }
    };
    let length = [
        "\"finish_reason\":\"length\"",
        "\"finish_reason\":\"length\"",
        "\"reason\":\"max_output_tokens\"",
        "\"stop_reason\":\"max_tokens\"",
        "\"done_reason\":\"length\"",
        "\"done_reason\":\"length\"",
    ];
    let filter = [
        "\"finish_reason\":\"content_filter\"",
        "\"finish_reason\":\"content_filter\"",
        "\"reason\":\"content_filter\"",
        "\"stop_reason\":\"refusal\"",
        "\"done_reason\":\"content_filter\"",
        "\"done_reason\":\"content_filter\"",
    ];
    for stream in [false, true] {
        ends(length, &ask(Fault::stopped_by_length(), stream).await);
        ends(filter, &ask(Fault::filtered(), stream).await);
        for body in ask(Fault::empty(), stream).await {
            assert!(!body.contains("[simulated]"), "{body}");
        }
        for body in ask(Fault::error_inside(), stream).await {
            assert!(body.contains("simulated failure inside"), "{body}");
            assert!(!stream || body.contains("[simulated]"), "not half-way: {body}");
            assert!(!body.contains("[DONE]") && !body.contains("message_stop"), "{body}");
        }
    }
    let huge = ask(Fault::huge(100_000), false).await;
    assert!(huge.iter().all(|body| text_of(&serde_json::from_str(body).unwrap()).len() == 100_000));

    let mut limited = chat(PROMPT);
    limited["max_tokens"] = json!(3);
    let limited = Ask::post(&chat_url(&upstream), &limited).send().await.json();
    assert_eq!(limited["choices"][0]["finish_reason"], "length");
    assert_eq!(limited["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn pieces_may_be_cut_inside_a_character() {
    let upstream = upstream().await;
    upstream.set_fault(Fault::none().in_pieces_of(1));
    for (path, body) in generating("Wie heißt 法国 🦀?") {
        let url = format!("{}{path}", upstream.url());
        let stream = Ask::post(&url, &streamed(&body)).send().await;
        assert!(streamed_text_of(stream.text()).contains("Wie heißt 法国 🦀?"), "{path}");
        let document = Ask::post(&url, &body).send().await;
        assert_eq!(document.header("content-length"), Some(document.body.len().to_string().as_str()));
        assert!(text_of(&document.json()).contains('🦀'), "{path}");
    }
}

fn decode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut decoded),
        "deflate" => flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut decoded),
        "br" => brotli_decompressor::Decompressor::new(bytes, 4096).read_to_end(&mut decoded),
        "zstd" => {
            let mut rest = bytes;
            while !rest.is_empty() {
                ruzstd::decoding::StreamingDecoder::new(&mut rest)
                    .unwrap()
                    .read_to_end(&mut decoded)
                    .unwrap();
            }
            Ok(decoded.len())
        }
        other => panic!("{other}"),
    }
    .unwrap();
    decoded
}

#[tokio::test]
async fn replies_come_in_every_content_coding() {
    let upstream = upstream().await;
    for encoding in encodings::ALL {
        upstream.set_fault(Fault::none().encoded(encoding));
        let document = Ask::post(&chat_url(&upstream), &chat(PROMPT)).send().await;
        assert_eq!(document.header("content-encoding"), Some(encoding.name));
        let decoded: Value = serde_json::from_slice(&decode(encoding.name, &document.body)).unwrap();
        assert!(text_of(&decoded).contains(PROMPT));
        let stream = Ask::post(&chat_url(&upstream), &streamed(&chat(PROMPT))).send().await;
        let decoded = String::from_utf8(decode(encoding.name, &stream.body)).unwrap();
        assert!(streamed_text_of(&decoded).contains(PROMPT), "{}", encoding.name);
    }
    // Decoders see what has been sent so far: the coding is flushed after every piece.
    let gate = Gate::new();
    upstream.set_fault(Fault::none().encoded(encodings::GZIP).gate_after(120, &gate));
    let mut stream = Ask::post(&chat_url(&upstream), &streamed(&chat(PROMPT))).open().await;
    stream.until_bytes(120).await;
    let mut first = [0; 20];
    flate2::read::GzDecoder::new(stream.received()).read_exact(&mut first).unwrap();
    assert_eq!(&first[..7], b"data: {");
}

#[tokio::test]
async fn faults_can_be_asked_for_by_hand() {
    let upstream = upstream().await;
    let ask = |fault: &str| Ask::post(&chat_url(&upstream), &chat("x")).header("x-simulated-fault", fault);
    assert_eq!(ask("status=503").send().await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask("length, no-store").send().await.header("cache-control"), Some("no-store"));
    assert!(ask("reset").try_send().await.is_err());
    assert!(ask("garbage").try_send().await.is_err());
    for wrong in ["explode", "status=9", "status=100", "huge", "reset=many"] {
        let reply = ask(wrong).send().await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(reply.text().contains("known are"), "{wrong}");
    }
    upstream.fault_next(Fault::status(StatusCode::BAD_GATEWAY));
    assert_eq!(ask("empty").send().await.status, StatusCode::OK, "a fault by hand takes none from the queue");
}
