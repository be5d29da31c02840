//! What goes wrong upstream: the client sees it as it was, nothing of it is stored, and the next request is none the
//! worse.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use rejoinder::config::EmbedderKind;
use serde_json::{Value, json};

use crate::support::{
    Ask, Connection, Fault, Gate, Proxy, Simulated, Wire, encodings, generating, proxy, proxy_with, soon,
    streamed, streamed_text_of, text_of, upstream,
};

const PROMPT: &str = "What is the capital of France?";

/// Every generating endpoint, unstreamed and streamed. Streams ask for their usage themselves, so that the proxy has
/// nothing to take out and bytes can be compared; their prompt is another, since one entry serves both forms.
fn all_forms() -> Vec<(&'static str, Value)> {
    let streams = generating(&format!("{PROMPT} Streamed.")).into_iter().map(|(path, body)| {
        let mut body = streamed(&body);
        if matches!(path, "/v1/chat/completions" | "/v1/completions") {
            body["stream_options"] = json!({"include_usage": true});
        }
        (path, body)
    });
    generating(PROMPT).into_iter().chain(streams).collect()
}

fn is_stream(body: &Value) -> bool {
    body["stream"] == true
}

/// What came of an exchange.
#[derive(Debug)]
struct Seen {
    status: StatusCode,
    content: Vec<u8>,
    whole: bool,
    cache_status: String,
}

impl Seen {
    async fn of(ask: Ask) -> Self {
        let mut stream = soon(ask.open()).await;
        let whole = soon(stream.finish()).await.is_ok();
        let cache_status = stream.headers.get_all("cache-status").iter().next_back();
        let cache_status = cache_status.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        Self { status: stream.status, content: stream.received().to_vec(), whole, cache_status }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// A document without what names this one reply and its time.
fn without_names(seen: &Seen) -> Value {
    let mut document: Value = serde_json::from_slice(&seen.content).unwrap();
    for name in ["id", "created", "created_at", "completed_at", "total_duration", "load_duration"] {
        document.as_object_mut().unwrap().remove(name);
    }
    if let Some(items) = document.get_mut("output").and_then(Value::as_array_mut) {
        for item in items {
            item.as_object_mut().unwrap().remove("id");
        }
    }
    document
}

/// The same request again, now that all is well, reaches upstream; and once more, it is a hit.
async fn nothing_was_stored(upstream: &Simulated, proxy: &Proxy, path: &str, body: &Value) {
    let count = upstream.count();
    upstream.set_fault(Fault::none());
    let fresh = Seen::of(proxy.post(path, body)).await;
    assert!(fresh.status.is_success() && fresh.whole, "{path}: {fresh:?}");
    assert_eq!(upstream.count(), count + 1, "{path}: something was stored: {}", fresh.cache_status);
    assert!(fresh.cache_status.starts_with("rejoinder; fwd=miss; stored"), "{path}: {}", fresh.cache_status);
    let hit = Seen::of(proxy.post(path, body)).await;
    assert_eq!(upstream.count(), count + 1, "{path}: {}", hit.cache_status);
    assert!(hit.cache_status.contains("detail=exact"), "{path}: {}", hit.cache_status);
}

/// Checks the proxy's own error in the dialect of the path.
fn assert_error(path: &str, document: &Value, kind: &str, code: &str) -> String {
    let message = match path {
        "/v1/messages" => {
            let expected =
                json!({"type": "error", "error": {"type": kind, "message": document["error"]["message"]}});
            assert_eq!(document, &expected, "{path}");
            &document["error"]["message"]
        }
        path if path.starts_with("/v1/") => {
            let message = &document["error"]["message"];
            let error = json!({"message": message, "type": "server_error", "param": null, "code": code});
            assert_eq!(document, &json!({"error": error}), "{path}");
            message
        }
        _ => {
            assert_eq!(document, &json!({"error": document["error"]}), "{path}");
            &document["error"]
        }
    };
    message.as_str().unwrap_or_else(|| panic!("{path}: no message in {document}")).to_owned()
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_a_502_until_it_returns() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let kept = generating("stored before").remove(0);
    proxy.post(kept.0, &kept.1).send().await;
    upstream.stop_listening().await.unwrap();
    for (path, body) in all_forms() {
        let reply = soon(proxy.post(path, &body).send()).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.cache_status(), "rejoinder; fwd=miss; detail=no-candidate");
        let message = assert_error(path, &reply.json(), "api_error", "upstream_unreachable");
        assert!(message.starts_with("upstream could not be reached or broke off: "), "{message}");
    }
    for path in ["/v1/models", "/api/tags", "/v1/messages/count_tokens"] {
        let reply = soon(Ask::get(&format!("{}{path}", proxy.url())).send()).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{path}");
        let path = path.strip_suffix("/count_tokens").unwrap_or(path);
        assert_error(path, &reply.json(), "api_error", "upstream_unreachable");
    }
    // What is stored is served all the same.
    assert_eq!(proxy.post(kept.0, &kept.1).send().await.layer(), Some("exact"));
    upstream.listen_again().await.unwrap();
    for (path, body) in all_forms() {
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn a_break_before_the_reply_is_a_502_and_asked_but_once() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let faults = [
        Fault::reset_before_head(),
        Fault::close_before_head(),
        Fault::raw("\u{0}\u{1}garbage\r\n\r\n"),
        Fault::raw("HTTP/1.1 200 OK\r\nContent-Le"),
        Fault::raw("HTTP/1.1 2000 OK\r\n\r\n"),
        Fault::raw(""),
    ];
    for (path, body) in all_forms() {
        for (index, fault) in faults.iter().enumerate() {
            let mut body = body.clone();
            body["seed"] = json!(index);
            // Also on a connection that has served before, where a client library likes to try again.
            soon(Ask::get(&format!("{}/api/tags", proxy.url())).send()).await;
            let count = upstream.count();
            upstream.set_fault(fault.clone());
            let reply = soon(proxy.post(path, &body).send()).await;
            assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{path} {fault:?}");
            assert_error(path, &reply.json(), "api_error", "upstream_unreachable");
            assert_eq!(upstream.count(), count + 1, "{path} {fault:?}: asked again");
            upstream.set_fault(Fault::none());
            if index == 0 {
                nothing_was_stored(&upstream, &proxy, path, &body).await;
            }
        }
    }
    upstream.set_fault(Fault::close_before_head());
    let count = upstream.count();
    let passed = soon(Ask::post_bytes(&format!("{}/api/create", proxy.url()), "{}").send()).await;
    assert_eq!((passed.status, upstream.count()), (StatusCode::BAD_GATEWAY, count + 1));
}

#[tokio::test]
async fn a_cut_reply_is_a_cut_reply() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in all_forms() {
        for bytes in [0, 1, 100, 300] {
            for fault in [Fault::none().close_after(bytes), Fault::none().reset_after(bytes)] {
                upstream.set_fault(fault.clone());
                let seen = Seen::of(proxy.post(path, &body)).await;
                assert_eq!(seen.status, StatusCode::OK, "{path}");
                assert!(!seen.whole, "{path} {fault:?}: a clean end of a cut reply");
                assert_eq!(seen.content.len(), bytes, "{path} {fault:?}");
                let direct = Seen::of(Ask::post(&format!("{}{path}", upstream.url()), &body)).await;
                assert_eq!(direct.content.len(), bytes);
                let promised = is_stream(&body) == seen.cache_status.contains("stored");
                assert!(promised, "{path}: {}", seen.cache_status);
            }
        }
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
    // Also where the proxy takes the usage out again that it has asked for.
    for (path, body) in generating("usage nobody asked for").into_iter().take(2) {
        let body = streamed(&body);
        upstream.set_fault(Fault::none().close_after(700));
        let seen = Seen::of(proxy.post(path, &body)).await;
        let null = 14 * seen.text().matches("data: ").count();
        assert!(!seen.whole && seen.content.len() + null >= 700, "{path}: {}", seen.text());
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
    let url = format!("{}/api/pull", proxy.url());
    upstream.set_fault(Fault::none().close_after(10));
    let passed = Seen::of(Ask::post(&url, &json!({"model": "llama3.2"}))).await;
    assert!(!passed.whole && passed.content.len() == 10);
}

#[tokio::test]
async fn a_length_that_is_not_true_is_a_cut_or_obeyed() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(PROMPT) {
        let length = HeaderValue::from_static("100000");
        upstream.set_fault(Fault::none().header(http::header::CONTENT_LENGTH, length));
        let seen = Seen::of(proxy.post(path, &body)).await;
        assert!(!seen.whole && !seen.cache_status.contains("stored"), "{path}: {seen:?}");
        assert!(text_of(&serde_json::from_slice(&seen.content).unwrap()).contains(PROMPT), "{path}");

        let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}\
            HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
        upstream.set_fault(Fault::raw(smuggled));
        let seen = Seen::of(proxy.post(path, &body)).await;
        assert!(seen.whole && seen.content == b"{}", "{path}: {seen:?}");
        // The rest is nobody's reply.
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn a_stall_before_the_head_is_a_504() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.timeouts.first_byte = Duration::from_millis(50)).await;
    let gate = Gate::new();
    let mut left = 0;
    for (path, body) in all_forms() {
        upstream.set_fault(Fault::none().gate(&gate));
        let reply = soon(proxy.post(path, &body).send()).await;
        assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{path}");
        assert_error(path, &reply.json(), "timeout_error", "upstream_timeout");
        // Upstream need not work on.
        left += 1;
        soon(upstream.until_abandoned(left)).await;
    }
    upstream.set_fault(Fault::none().gate(&gate));
    let passed = soon(Ask::get(&format!("{}/v1/models", proxy.url())).send()).await;
    assert_eq!(passed.status, StatusCode::GATEWAY_TIMEOUT);
    soon(upstream.until_abandoned(left + 1)).await;
}

#[tokio::test]
async fn nothing_of_a_reply_that_never_began_is_stored() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.timeouts.first_byte = Duration::from_secs(2)).await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let asks: Vec<_> = generating(PROMPT)
        .into_iter()
        .map(|(path, body)| tokio::spawn(proxy.post(path, &body).send()))
        .collect();
    for ask in asks {
        assert_eq!(soon(ask).await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    }
    for (path, body) in generating(PROMPT) {
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn a_stall_in_the_middle_is_a_cut() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.timeouts.idle = Duration::from_secs(1)).await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(100, &gate));
    let forms = all_forms();
    let asks: Vec<_> =
        forms.iter().map(|(path, body)| tokio::spawn(Seen::of(proxy.post(path, body)))).collect();
    for ((path, _), ask) in forms.iter().zip(asks) {
        let seen = soon(ask).await.unwrap();
        assert_eq!((seen.status, seen.whole, seen.content.len()), (StatusCode::OK, false, 100), "{path}");
    }
    let pull = Ask::post(&format!("{}/api/pull", proxy.url()), &json!({"model": "llama3.2"}));
    upstream.set_fault(Fault::none().gate_after(20, &gate));
    let passed = Seen::of(pull).await;
    assert_eq!((passed.whole, passed.content.len()), (false, 20));
    soon(upstream.until_abandoned(forms.len() + 1)).await;
    for (path, body) in forms {
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn an_upstream_that_takes_no_more_of_an_upload_is_given_up() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.timeouts.idle = Duration::from_millis(100);
        config.timeouts.first_byte = Duration::from_millis(100);
    })
    .await;
    let gate = Gate::new();
    for path in ["/api/create", "/v1/chat/completions"] {
        upstream.set_fault(Fault::none().gate_before_body(&gate));
        let mut client = Wire::open(proxy.address()).await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 1 << 30)).await;
        let piece = vec![b'x'; 64 * 1024];
        // The client has more whenever it can be sent.
        let mut open = true;
        while open {
            tokio::select! {
                head = client.head() => {
                    assert!(head.starts_with("HTTP/1.1 504 "), "{path}: {head}");
                    open = false;
                }
                () = tokio::task::yield_now() => {}
            }
            client.try_send(&piece);
        }
    }
}

#[tokio::test]
async fn errors_are_relayed_with_their_headers_and_not_stored() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let headers = [
        ("retry-after", "20"),
        ("retry-after-ms", "20000"),
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-requests", "1s"),
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("x-request-id", "req_7"),
        ("x-should-retry", "true"),
        ("www-authenticate", "Bearer"),
        ("set-cookie", "a=1"),
    ];
    for (path, body) in all_forms() {
        for status in
            [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 501, 502, 503, 504, 529, 201, 202, 206, 302]
        {
            let mut fault = Fault::status(StatusCode::from_u16(status).unwrap());
            for (name, value) in headers {
                fault = fault.header(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            upstream.set_fault(fault);
            let direct = Ask::post(&format!("{}{path}", upstream.url()), &body).send().await;
            let count = upstream.count();
            for _ in 0..2 {
                let reply = proxy.post(path, &body).send().await;
                assert_eq!(reply.status.as_u16(), status, "{path}");
                if status >= 400 {
                    assert_eq!(reply.body, direct.body, "{path} {status}");
                }
                for (name, value) in headers {
                    assert_eq!(reply.header(name), Some(value), "{path} {status}");
                }
                assert_eq!(reply.cache_status(), "rejoinder; fwd=miss; detail=no-candidate");
            }
            assert_eq!(upstream.count(), count + 2, "{path} {status}");
        }
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn what_is_no_whole_answer_is_relayed_and_not_stored() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_entry_bytes.0 = 10_000).await;
    let no_store = |value| Fault::none().header(http::header::CACHE_CONTROL, HeaderValue::from_static(value));
    let faults = [
        ("length", Fault::stopped_by_length()),
        ("filter", Fault::filtered()),
        ("empty", Fault::empty()),
        ("error inside", Fault::error_inside()),
        ("huge", Fault::huge(12_000)),
        ("huge, in small pieces", Fault::huge(12_000).in_pieces_of(1000)),
        ("no-store", no_store("no-store")),
        ("no-store among others", no_store("private, max-age=0 , No-Store")),
        (
            "gzip that is none",
            Fault::none().header(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
        ),
        (
            "an unknown coding",
            Fault::none().header(http::header::CONTENT_ENCODING, HeaderValue::from_static("x-y")),
        ),
    ];
    for (path, body) in all_forms() {
        for (name, fault) in &faults {
            upstream.set_fault(fault.clone());
            let direct = Seen::of(Ask::post(&format!("{}{path}", upstream.url()), &body)).await;
            let count = upstream.count();
            for _ in 0..2 {
                let seen = Seen::of(proxy.post(path, &body)).await;
                assert!(seen.whole && seen.status == direct.status, "{path} {name}: {seen:?}");
                if *name == "error inside" {
                    assert!(seen.text().contains("simulated failure inside"), "{path}");
                    assert_eq!(seen.text().contains("[DONE]"), direct.text().contains("[DONE]"));
                } else if is_stream(&body) {
                    assert_eq!(
                        streamed_text_of(&seen.text()),
                        streamed_text_of(&direct.text()),
                        "{path} {name}"
                    );
                } else {
                    assert_eq!(without_names(&seen), without_names(&direct), "{path} {name}");
                }
                assert!(
                    seen.cache_status.starts_with("rejoinder; fwd=miss"),
                    "{path} {name}: {}",
                    seen.cache_status
                );
                assert!(is_stream(&body) || !seen.cache_status.contains("stored"), "{path} {name}");
            }
            assert_eq!(upstream.count(), count + 2, "{path} {name}: stored");
        }
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn a_stream_that_ends_cleanly_but_too_early_is_not_stored() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in all_forms().into_iter().filter(|(_, body)| is_stream(body)) {
        let (media_type, separator) = if path.starts_with("/api") {
            ("application/x-ndjson", "\n")
        } else {
            ("text/event-stream", "\n\n")
        };
        upstream.set_fault(Fault::none());
        let direct = Seen::of(Ask::post(&format!("{}{path}", upstream.url()), &body)).await.text();
        let ends: Vec<usize> = direct.match_indices(separator).map(|(at, found)| at + found.len()).collect();
        // What follows the last event that says anything is not needed; all before is.
        let last = ends.len() - if direct.contains("[DONE]") { 3 } else { 1 };
        for end in [0, ends[0], ends[last / 2], ends[last - 1], ends[last / 2] + 9, direct.len() / 2] {
            upstream.set_fault(Fault::body(media_type, direct[..end].to_owned()));
            let count = upstream.count();
            for _ in 0..2 {
                let seen = Seen::of(proxy.post(path, &body)).await;
                assert!(seen.whole && seen.text() == direct[..end], "{path} {end}: {seen:?}");
            }
            assert_eq!(upstream.count(), count + 2, "{path}: stored after {end} of {} bytes", direct.len());
        }
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn a_successful_answer_of_another_kind_is_relayed_and_not_stored() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let bodies = [
        ("text/html", "<html>Please log in</html>"),
        ("application/json", "{\"error\": {\"message\": \"no\"}}"),
        ("application/json", "{\"error\": \"no\"}"),
        ("application/json", "{}"),
        ("application/json", "[]"),
        ("application/json", "null"),
        ("application/json", ""),
        ("application/json", "{\"id\": \"x\", \"choices\": []}"),
        ("application/json", "not JSON"),
        ("text/plain", "{\"response\": \"x\", \"done\": true}"),
        ("text/event-stream", "data: [DONE]\n\n"),
        ("text/event-stream", ""),
        ("text/event-stream", "data: {\n\ndata: }\n\n"),
        ("text/event-stream", "\u{0}\n\n"),
        ("application/x-ndjson", "{\"error\": \"no\"}\n"),
        ("application/x-ndjson", "{}\n{}\n"),
        ("application/octet-stream", "\u{0}\u{1}"),
    ];
    for (path, body) in all_forms() {
        for (media_type, content) in bodies {
            upstream.set_fault(Fault::body(media_type, content));
            let count = upstream.count();
            for _ in 0..2 {
                let reply = soon(proxy.post(path, &body).send()).await;
                assert_eq!((reply.status, reply.text()), (StatusCode::OK, content), "{path}");
                assert_eq!(reply.header("content-type"), Some(media_type), "{path}");
            }
            assert_eq!(upstream.count(), count + 2, "{path}: stored {content}");
        }
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn an_encoded_reply_that_is_cut_or_swells_is_not_stored() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_entry_bytes.0 = 50_000).await;
    for (path, body) in all_forms() {
        for encoding in encodings::ALL {
            let direct_of = async |fault: Fault| {
                upstream.set_fault(fault.encoded(encoding));
                let ask = Ask::post(&format!("{}{path}", upstream.url()), &body);
                Seen::of(ask).await
            };
            let ask = || proxy.post(path, &body).header("accept-encoding", encoding.name);
            let count = upstream.count();
            let mut asked = 3;
            if !is_stream(&body) {
                // Decoded it is far larger than it comes.
                let bomb = direct_of(Fault::huge(200_000)).await;
                assert!(bomb.content.len() < 20_000, "{encoding:?} does not compress");
                let seen = Seen::of(ask()).await;
                assert!(seen.whole, "{path} {encoding:?}");
                assert!(!seen.cache_status.contains("stored"), "{path} {encoding:?}");
                asked += 2;
            }
            let whole = direct_of(Fault::none()).await.content.len();
            upstream.set_fault(Fault::none().encoded(encoding).close_after(whole - 20));
            let seen = Seen::of(ask()).await;
            assert!(!seen.whole, "{path} {encoding:?}");
            let again = Seen::of(ask()).await;
            assert!(again.cache_status.starts_with("rejoinder; fwd=miss"), "{path}: {}", again.cache_status);
            assert_eq!(upstream.count(), count + asked, "{path} {encoding:?}");
        }
        nothing_was_stored(&upstream, &proxy, path, &body).await;
    }
}

#[tokio::test]
async fn a_client_that_breaks_its_request_off_leaves_nothing_behind() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.timeouts.idle = Duration::from_secs(1)).await;
    let (path, body) = generating("half a request").remove(0);
    let text = body.to_string();
    let length = text.len();
    for ends in [false, true] {
        let mut client = Wire::open(proxy.address()).await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{}",
                &text[..20]
            ))
            .await;
        if ends {
            client.half_close().await;
        }
        let reply = client.rest().await;
        // It may have been asked whether it is still there.
        let reply = reply.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&reply);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 400 "), "{reply}");
    }
    assert_eq!(upstream.count(), 0);
    nothing_was_stored(&upstream, &proxy, path, &body).await;
}

#[tokio::test]
async fn a_connection_survives_what_goes_wrong_behind_it() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut connection = Connection::open(proxy.address()).await.unwrap();
    for (path, body) in generating("one connection") {
        upstream.fault_next(Fault::reset_before_head());
        let failed = soon(connection.send(proxy.post(path, &body))).await.unwrap();
        assert_eq!(failed.status, StatusCode::BAD_GATEWAY);
        let fine = soon(connection.send(proxy.post(path, &body))).await.unwrap();
        assert_eq!(fine.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_broken_embedder_costs_nothing_but_hits_by_meaning() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.embedding.timeout = Duration::ZERO;
    })
    .await;
    for (path, body) in all_forms() {
        let other = body.to_string().replace(PROMPT, "Which city is France's capital?");
        let other = serde_json::from_str(&other).unwrap();
        let count = upstream.count();
        for (body, expected) in [(&body, 1), (&other, 2), (&body, 2), (&other, 2)] {
            let seen = Seen::of(proxy.post(path, body)).await;
            assert!(seen.whole && seen.status.is_success(), "{path}");
            assert_eq!(upstream.count(), count + expected, "{path}: {}", seen.cache_status);
        }
    }
}
