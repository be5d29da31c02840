//! Concurrent requests for one thing make one request upstream, and each client gets what it asked for.
#![allow(
    clippy::items_after_statements,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::too_many_lines,
    reason = "tables and helpers of tests"
)]

use std::collections::HashMap;

use http::{HeaderName, HeaderValue, StatusCode};
use rejoinder::config::EmbedderKind;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::wire::until_quiet;
use crate::support::{
    Ask, Fault, Gate, Reply, Simulated, Stream, encodings, generating, proxy, proxy_with, soon, streamed,
    streamed_text_of, text_of, upstream,
};

const PROMPT: &str = "What is the capital of France?";

/// Starts these requests at once and returns when nothing more happens: all wait at upstream's gate, or for one that
/// does.
async fn all_waiting(
    upstream: &Simulated,
    gate: &Gate,
    asks: impl IntoIterator<Item = Ask>,
) -> Vec<JoinHandle<Reply>> {
    let asks: Vec<_> = asks.into_iter().map(|ask| tokio::spawn(ask.send())).collect();
    soon(gate.until_arrived(1)).await;
    until_quiet(|| upstream.count()).await;
    asks
}

async fn replies(asks: Vec<JoinHandle<Reply>>) -> Vec<Reply> {
    let mut replies = Vec::new();
    for ask in asks {
        replies.push(soon(ask).await.unwrap());
    }
    replies
}

fn is_collapsed(reply: &Reply) -> bool {
    reply.cache_status().contains("; collapsed")
}

/// A reply's text, in whatever form it is.
fn said(reply: &Reply) -> String {
    if reply.text().starts_with('{') && reply.header("content-type").unwrap().starts_with("application/json")
    {
        text_of(&reply.json())
    } else {
        streamed_text_of(reply.text())
    }
}

fn with_usage(body: &Value) -> Value {
    let mut body = streamed(body);
    body["stream_options"] = json!({"include_usage": true});
    body
}

fn header(fault: Fault, name: &'static str, value: &'static str) -> Fault {
    fault.header(HeaderName::from_static(name), HeaderValue::from_static(value))
}

#[tokio::test]
async fn equal_requests_make_one_request_upstream() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(PROMPT) {
        for body in [body.clone(), {
            let mut body = streamed(&body);
            body["seed"] = json!(1);
            body
        }] {
            let expected = said(&Ask::post(&format!("{}{path}", upstream.url()), &body).send().await);
            let gate = Gate::new();
            upstream.set_fault(Fault::none().gate(&gate));
            let before = upstream.count();
            let asks = all_waiting(&upstream, &gate, (0..8).map(|_| proxy.post(path, &body))).await;
            gate.open();
            let replies = replies(asks).await;
            assert_eq!(upstream.count(), before + 1, "{path}");
            assert_eq!(replies.iter().filter(|reply| is_collapsed(reply)).count(), 7, "{path}");
            for reply in replies {
                assert_eq!((reply.status, said(&reply)), (StatusCode::OK, expected.clone()), "{path}");
                assert!(
                    reply.cache_status().starts_with("rejoinder; fwd=miss; "),
                    "{}",
                    reply.cache_status()
                );
            }
            upstream.set_fault(Fault::none());
        }
    }
}

#[tokio::test]
async fn embeddings_are_shared_too() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in [
        ("/v1/embeddings", json!({"model": "nomic-embed-text", "input": ["a", "b"]})),
        ("/api/embed", json!({"model": "nomic-embed-text", "input": "a"})),
        ("/api/embeddings", json!({"model": "nomic-embed-text", "prompt": "a"})),
    ] {
        let gate = Gate::new();
        upstream.set_fault(Fault::none().gate(&gate));
        let before = upstream.count();
        let asks = all_waiting(&upstream, &gate, (0..4).map(|_| proxy.post(path, &body))).await;
        gate.open();
        let replies = replies(asks).await;
        assert_eq!(upstream.count(), before + 1, "{path}");
        assert!(replies.iter().all(|reply| reply.body == replies[0].body), "{path}");
    }
}

#[tokio::test]
async fn each_client_gets_the_form_it_asked_for() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(PROMPT) {
        // Each form leads once.
        for turn in 0..3 {
            let mut body = body.clone();
            body["seed"] = json!(turn);
            let mut forms = [body.clone(), streamed(&body), with_usage(&body)];
            forms.rotate_left(turn);
            let gate = Gate::new();
            upstream.set_fault(Fault::none());
            let text = said(&Ask::post(&format!("{}{path}", upstream.url()), &body).send().await);
            upstream.set_fault(Fault::none().gate(&gate));
            let before = upstream.count();
            let mut asks = all_waiting(&upstream, &gate, [proxy.post(path, &forms[0])]).await;
            let more = forms.iter().chain(&forms).map(|body| proxy.post(path, body));
            asks.extend(all_waiting(&upstream, &gate, more).await);
            gate.open();
            let replies = replies(asks).await;
            assert_eq!(upstream.count(), before + 1, "{path} {turn}");
            for (reply, body) in replies.iter().zip([&forms[0]].into_iter().chain(&forms).chain(&forms)) {
                assert_eq!(said(reply), text, "{path} {body}");
                let is_document = reply.header("content-type").unwrap().starts_with("application/json");
                assert_eq!(is_document, body["stream"] == false, "{path}");
                if path.starts_with("/v1/c") && !is_document {
                    let usage = body.get("stream_options").is_some();
                    assert_eq!(
                        reply.text().contains("\"usage\":{"),
                        usage,
                        "{path} {body}: {}",
                        reply.text()
                    );
                    assert_eq!(reply.text().contains("\"usage\""), usage, "{path} {body}: {}", reply.text());
                    assert!(reply.text().ends_with("data: [DONE]\n\n"), "{path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_latecomer_gets_the_stream_from_its_start() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(PROMPT) {
        let body = streamed(&body);
        let gate = Gate::new();
        upstream.set_fault(Fault::none().gate_after(600, &gate));
        let before = upstream.count();
        let mut first = soon(proxy.post(path, &body).open()).await;
        soon(gate.until_waiting(1)).await;
        let shares = path != "/v1/responses";
        let second = tokio::spawn(proxy.post(path, &body).open());
        until_quiet(|| upstream.count()).await;
        if !shares {
            // Each such stream echoes its own request: the second is laid out anew at the end of the first.
            gate.open();
        }
        let mut second = soon(second).await.unwrap();
        if shares {
            // Both have what upstream has sent so far, before it goes on.
            soon(first.next()).await.unwrap().unwrap();
            soon(second.until_bytes(first.received().len())).await;
        }
        gate.open();
        soon(first.finish()).await.unwrap();
        soon(second.finish()).await.unwrap();
        if shares {
            assert_eq!(second.received(), first.received(), "{path}");
        }
        assert_eq!(streamed_text_of(&second.text()), streamed_text_of(&first.text()), "{path}");
        assert_eq!(upstream.count(), before + 1, "{path}");
    }
}

#[tokio::test]
async fn a_collapsed_reply_has_nothing_of_the_other_exchange_but_its_content() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let (path, body) = generating(PROMPT).remove(0);
    for body in [body.clone(), with_usage(&body)] {
        for status in [200, 429] {
            let gate = Gate::new();
            let mut fault = Fault::none().gate(&gate);
            if status != 200 {
                fault = Fault::status(StatusCode::from_u16(status).unwrap()).gate(&gate);
            }
            fault = header(header(fault, "set-cookie", "session=1"), "x-request-id", "req_1");
            fault =
                header(header(fault, "x-ratelimit-remaining-requests", "9"), "openai-organization", "org");
            fault =
                header(header(fault, "access-control-allow-origin", "https://a.example"), "retry-after", "3");
            upstream.set_fault(fault);
            let asks = all_waiting(
                &upstream,
                &gate,
                (0..3).map(|_| proxy.post(path, &body).header("x-rejoinder-ttl", "0")),
            )
            .await;
            gate.open();
            let replies = replies(asks).await;
            let (collapsed, own): (Vec<_>, Vec<_>) = replies.into_iter().partition(is_collapsed);
            assert_eq!((collapsed.len(), own.len()), (2, 1));
            assert_eq!(own[0].header("set-cookie"), Some("session=1"));
            for reply in collapsed {
                assert_eq!(reply.status.as_u16(), status);
                assert_eq!(reply.body, own[0].body);
                let mut names: Vec<_> = reply.headers.keys().map(HeaderName::as_str).collect();
                names.retain(|name| !["content-length", "transfer-encoding"].contains(name));
                names.sort_unstable();
                assert_eq!(names, ["cache-status", "content-type", "date", "retry-after"]);
            }
        }
    }
}

#[tokio::test]
async fn the_one_who_asked_first_may_leave() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(PROMPT) {
        for (name, body, fault) in [
            ("before the head", body.clone(), Fault::none()),
            ("before the head", streamed(&body), Fault::none()),
            ("in the middle", streamed(&body), Fault::none()),
        ] {
            let mut body = body;
            body["seed"] = json!(format!("{name}{}", body["stream"]));
            let gate = Gate::new();
            let fault =
                if name == "in the middle" { fault.gate_after(600, &gate) } else { fault.gate(&gate) };
            upstream.set_fault(fault);
            let before = upstream.count();
            let first = tokio::spawn(soon_open(proxy.post(path, &body)));
            soon(gate.until_waiting(1)).await;
            let others = all_waiting(&upstream, &gate, (0..2).map(|_| proxy.post(path, &body))).await;
            first.abort();
            drop(first.await);
            until_quiet(|| upstream.abandoned()).await;
            gate.open();
            for reply in replies(others).await {
                assert!(said(&reply).contains(PROMPT), "{path} {name}");
            }
            assert_eq!((upstream.count(), upstream.abandoned()), (before + 1, 0), "{path} {name}");
        }
    }
}

/// Opens a stream and holds it until the task is aborted.
async fn soon_open(ask: Ask) -> Stream {
    let mut stream = ask.open().await;
    while let Some(Ok(_)) = stream.next().await {}
    std::future::pending().await
}

#[tokio::test]
async fn when_all_have_left_upstream_may_stop() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut left = 0;
    for (path, body) in generating(PROMPT) {
        for (body, after) in [
            (body.clone(), None),
            (streamed(&body), None),
            (streamed(&body), Some(300)),
            (body.clone(), Some(50)),
        ] {
            let gate = Gate::new();
            upstream.set_fault(match after {
                Some(bytes) => Fault::none().gate_after(bytes, &gate),
                None => Fault::none().gate(&gate),
            });
            let asks = all_waiting(&upstream, &gate, (0..3).map(|_| proxy.post(path, &body))).await;
            for ask in &asks {
                assert_eq!(upstream.abandoned(), left, "{path}: someone still waits");
                ask.abort();
                until_quiet(|| upstream.abandoned()).await;
            }
            left += 1;
            soon(upstream.until_abandoned(left)).await;
            // Nothing of it is left: the next asks anew.
            upstream.set_fault(Fault::none());
            let mut other = body.clone();
            other["seed"] = json!(left);
            let before = upstream.count();
            let reply = soon(proxy.post(path, &other).send()).await;
            assert!(!is_collapsed(&reply) && upstream.count() == before + 1, "{path}");
        }
        let before = upstream.count();
        let reply = soon(proxy.post(path, &body).send()).await;
        assert!(reply.cache_status().starts_with("rejoinder; fwd=miss; stored"), "{path}");
        assert_eq!(upstream.count(), before + 1, "{path}");
    }
}

#[tokio::test]
async fn what_fails_fails_for_all_alike() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(PROMPT) {
        for body in [body.clone(), streamed(&body)] {
            for (status, fault) in [
                (502, Fault::reset_before_head()),
                (502, Fault::raw("garbage")),
                (500, Fault::status(StatusCode::INTERNAL_SERVER_ERROR)),
                (429, Fault::status(StatusCode::TOO_MANY_REQUESTS)),
            ] {
                let gate = Gate::new();
                upstream.set_fault(fault.gate(&gate));
                let before = upstream.count();
                let asks = all_waiting(&upstream, &gate, (0..5).map(|_| proxy.post(path, &body))).await;
                gate.open();
                let replies = replies(asks).await;
                assert_eq!(upstream.count(), before + 1, "{path} {status}");
                assert!(replies.iter().all(|reply| reply.status.as_u16() == status), "{path} {replies:?}");
                assert!(replies.iter().all(|reply| reply.body == replies[0].body), "{path}");
                assert_eq!(replies.iter().filter(|reply| is_collapsed(reply)).count(), 4, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_cut_is_a_cut_for_all() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(PROMPT) {
        let body = streamed(&body);
        let gate = Gate::new();
        upstream.set_fault(Fault::none().gate_after(300, &gate).close_after(350));
        let before = upstream.count();
        let mut first = soon(proxy.post(path, &body).open()).await;
        soon(gate.until_waiting(1)).await;
        if path == "/v1/responses" {
            // Each such stream echoes its own request, so that others cannot take it as it comes; they wait for
            // its end, and then ask for themselves.
            let other = tokio::spawn(proxy.post(path, &body).try_open());
            until_quiet(|| upstream.count()).await;
            gate.open();
            assert!(soon(first.finish()).await.is_err(), "{path}");
            let mut other = soon(other).await.unwrap().unwrap();
            assert!(soon(other.finish()).await.is_err(), "{path}");
            assert!(upstream.count() <= before + 2);
            continue;
        }
        let mut second = soon(proxy.post(path, &body).open()).await;
        gate.open();
        for stream in [&mut first, &mut second] {
            assert!(soon(stream.finish()).await.is_err(), "{path}: a clean end");
        }
        assert_eq!(second.received(), first.received(), "{path}");
        assert!(second.received().len() > 300, "{path}: {}", second.text());
        assert_eq!(upstream.count(), before + 1, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_the_same_is_not_shared() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.cache.scope_headers = vec![HeaderName::from_static("x-team")];
    })
    .await;
    let body = generating(PROMPT).remove(0).1;
    let distinct = [
        ("authorization", "Bearer a"),
        ("authorization", "Bearer b"),
        ("authorization", "bearer a"),
        ("x-api-key", "Bearer a"),
        ("api-key", "Bearer a"),
        ("x-goog-api-key", "Bearer a"),
        ("cookie", "a=1"),
        ("openai-organization", "a"),
        ("openai-project", "a"),
        ("openai-beta", "a"),
        ("anthropic-version", "a"),
        ("anthropic-beta", "a"),
        ("x-team", "red"),
        ("x-team", "blue"),
        ("x-rejoinder-namespace", "a"),
        ("x-rejoinder-namespace", "b"),
        ("x-rejoinder-threshold", "0.9"),
        ("x-rejoinder-threshold", "0.91"),
        ("cache-control", "max-age=10"),
        ("cache-control", "max-age=11"),
        ("cache-control", "no-cache"),
        ("cache-control", "no-cache"),
        ("cache-control", "no-store"),
        ("cache-control", "no-store"),
        ("x-no-matter", "1"),
    ];
    for (path, body) in [("/v1/chat/completions", body.clone()), ("/v1/chat/completions", streamed(&body))] {
        let mut body = body;
        body["seed"] = body["stream"].clone();
        let gate = Gate::new();
        upstream.set_fault(Fault::none().gate(&gate));
        let before = upstream.count();
        let asks = distinct.map(|(name, value)| proxy.post(path, &body).header(name, value));
        let asks = all_waiting(&upstream, &gate, asks).await;
        assert_eq!(upstream.count(), before + distinct.len(), "{path}: something was shared");
        gate.open();
        for (reply, sent) in replies(asks).await.iter().zip(distinct) {
            assert!(!is_collapsed(reply) && reply.layer().is_none(), "{sent:?}: {}", reply.cache_status());
            assert_eq!(reply.status, StatusCode::OK);
        }
    }
    // Two queries, two paths: not the same either.
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let before = upstream.count();
    let other = json!({"model": "llama3.2", "prompt": "x", "stream": false});
    let paths = ["/api/generate", "/api/generate?a", "/api/generate?b", "/v1/completions"];
    let asks = all_waiting(&upstream, &gate, paths.map(|path| proxy.post(path, &other))).await;
    assert_eq!(upstream.count(), before + paths.len());
    gate.open();
    assert!(replies(asks).await.iter().all(|reply| !is_collapsed(reply)));
}

#[tokio::test]
async fn a_client_that_takes_no_coding_gets_none() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for encoding in encodings::ALL {
        for (path, body) in generating(PROMPT) {
            let mut body = body;
            body["seed"] = json!(encoding.name);
            let gate = Gate::new();
            upstream.set_fault(Fault::none().encoded(encoding).gate(&gate));
            let before = upstream.count();
            let first = proxy.post(path, &body).header("accept-encoding", encoding.name);
            let first = all_waiting(&upstream, &gate, [first]).await;
            let asks = [
                proxy.post(path, &body),
                proxy.post(path, &body).header("accept-encoding", "identity"),
                proxy.post(path, &body).header("accept-encoding", &format!("{};q=0, *;q=0", encoding.name)),
                proxy.post(path, &body).header("accept-encoding", &format!("x-y, {}; q=0.5", encoding.name)),
                proxy.post(path, &body).header("accept-encoding", "*"),
            ];
            let others = all_waiting(&upstream, &gate, asks).await;
            gate.open();
            let first = replies(first).await.remove(0);
            assert_eq!(first.header("content-encoding"), Some(encoding.name), "{path}");
            let others = replies(others).await;
            for reply in &others[..3] {
                assert_eq!(reply.header("content-encoding"), None, "{path} {}", encoding.name);
                assert!(said(reply).contains(PROMPT), "{path}");
            }
            for reply in &others[3..] {
                let coding = reply.header("content-encoding");
                assert!(coding == Some(encoding.name) || said(reply).contains(PROMPT), "{path}");
                assert!(coding.is_none() || reply.body == first.body, "{path}");
            }
            assert_eq!(upstream.count(), before + 1, "{path} {}", encoding.name);
        }
    }
}

#[tokio::test]
async fn a_large_reply_reaches_the_quick_and_the_slow() {
    const SIZE: usize = 150_000;
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_entry_bytes.0 = 20_000).await;
    for (path, body) in generating(PROMPT) {
        if !["/v1/chat/completions", "/api/generate"].contains(&path) {
            continue;
        }
        let body = with_usage(&body);
        let gate = Gate::new();
        upstream.set_fault(Fault::huge(SIZE).in_pieces_of(30_000).gate_after(5_000, &gate));
        let before = upstream.count();
        let mut slow = soon(proxy.post(path, &body).open()).await;
        soon(gate.until_waiting(1)).await;
        let mut quick = soon(proxy.post(path, &body).open()).await;
        let leaves = soon(proxy.post(path, &body).open()).await;
        until_quiet(|| upstream.count()).await;
        gate.open();
        // The quick one reads as far as it goes; the slow one and the one that will leave do not read.
        let quick = tokio::spawn(async move {
            quick.finish().await.unwrap();
            quick
        });
        until_quiet(|| upstream.count()).await;
        drop(leaves);
        soon(slow.finish()).await.unwrap();
        let quick = soon(quick).await.unwrap();
        assert!(quick.received() == slow.received(), "{path}");
        assert_eq!(streamed_text_of(&slow.text()).len(), SIZE, "{path}");
        assert_eq!(upstream.count(), before + 1, "{path}");
    }
}

#[tokio::test]
async fn a_large_reply_in_the_wrong_form_holds_nobody_up() {
    // Beyond the limit and the window within which upstream may be ahead of the slowest reader.
    const STREAM: usize = 5_000;
    const DOCUMENT: usize = 80_000;
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_entry_bytes.0 = 10_000).await;
    for (path, body) in generating(PROMPT) {
        for size in [STREAM, DOCUMENT] {
            if size == DOCUMENT && path != "/api/generate" {
                continue;
            }
            let mut body = body.clone();
            body["seed"] = json!(size);
            let stream = streamed(&body);
            let (leads, follows) = if size == STREAM { (&stream, &body) } else { (&body, &stream) };
            let gate = Gate::new();
            upstream.set_fault(Fault::huge(size).gate(&gate));
            let mut asks = all_waiting(&upstream, &gate, [proxy.post(path, leads)]).await;
            let others = [follows, follows, follows].map(|body| proxy.post(path, body));
            asks.extend(all_waiting(&upstream, &gate, others).await);
            gate.open();
            for reply in replies(asks).await {
                assert_eq!((reply.status, said(&reply).len()), (StatusCode::OK, size), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_reply_that_cannot_be_shared_is_asked_for_once_for_each_form() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating(PROMPT) {
        // A reply stopped by its length is not stored, and so not laid out anew in another form.
        let (first, second) = (Gate::new(), Gate::new());
        upstream.set_fault(Fault::stopped_by_length().gate(&second));
        upstream.fault_next(Fault::stopped_by_length().gate(&first));
        let before = upstream.count();
        let mut asks = all_waiting(&upstream, &first, [proxy.post(path, &body)]).await;
        asks.extend(all_waiting(&upstream, &first, (0..4).map(|_| proxy.post(path, &streamed(&body)))).await);
        assert_eq!(upstream.count(), before + 1);
        first.open();
        // The four want one form and share a second request; what echoes its own request is asked for by each.
        let more = if path == "/v1/responses" { 4 } else { 1 };
        soon(second.until_waiting(more)).await;
        second.open();
        for reply in replies(asks).await {
            assert!(said(&reply).contains("[simulated]"), "{path}");
        }
        assert_eq!(upstream.count(), before + 1 + more, "{path}");
    }
}

#[tokio::test]
async fn a_reply_found_by_meaning_is_found_for_all() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.embedder = EmbedderKind::Builtin).await;
    let (path, body) = generating(PROMPT).remove(0);
    let first = proxy.post(path, &body).send().await;
    let body = generating("What's the capital of France?").remove(0).1;
    let asks: Vec<_> = (0..6).map(|_| tokio::spawn(proxy.post(path, &body).send())).collect();
    for reply in replies(asks).await {
        assert_eq!(reply.layer(), Some("semantic"), "{}", reply.cache_status());
        assert_eq!(said(&reply), said(&first));
    }
    assert_eq!(upstream.count(), 1);
}

/// Numbers without a pattern, the same at each run: Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn each_of_many_at_once_gets_its_own_answer() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_entry_bytes.0 = 5_000).await;
    let keys = ["Bearer a", "Bearer b"];
    let mut expected = HashMap::new();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..4 {
        let mut asks = Vec::new();
        for _ in 0..50 {
            let prompt = format!("prompt {}", dice.below(3));
            let (path, body) = generating(&prompt).swap_remove(dice.below(6));
            let key = keys[dice.below(2)];
            let body = match dice.below(3) {
                0 => body,
                1 => streamed(&body),
                _ => with_usage(&body),
            };
            // The simulated server's text depends on all of the request that matters.
            let name = (path, prompt, key);
            if !expected.contains_key(&name) {
                upstream.fault_next(Fault::none());
                let direct =
                    Ask::post(&format!("{}{path}", upstream.url()), &body).header("authorization", key);
                expected.insert(name.clone(), said(&direct.send().await));
            }
            let control = ["max-age=100", "no-cache", "no-store", "max-age=0", "x"][dice.below(5)];
            let ask = proxy.post(path, &body).header("authorization", key).header("cache-control", control);
            asks.push((name, ask, dice.below(8) == 0));
        }
        upstream.set_fault(if round % 2 == 0 { Fault::none() } else { Fault::none().in_pieces_of(37) });
        let running: Vec<_> =
            asks.into_iter().map(|(name, ask, leaves)| (name, leaves, tokio::spawn(ask.send()))).collect();
        tokio::task::yield_now().await;
        for (name, leaves, ask) in running {
            if leaves {
                ask.abort();
                continue;
            }
            let reply = soon(ask).await.unwrap();
            assert_eq!(said(&reply), expected[&name], "{name:?}: {}", reply.cache_status());
        }
    }
    assert!(distinct(&expected) == expected.len(), "the replies do not tell one request from another");
}

fn distinct<K>(texts: &HashMap<K, String>) -> usize {
    texts.values().collect::<std::collections::HashSet<_>>().len()
}

/// RFC 9111 §4: what may not be stored answers no other request than its own.
#[tokio::test]
async fn a_reply_that_upstream_wants_stored_nowhere_is_shared_with_nobody() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for value in ["no-store", "private, No-Store=\"x\""] {
        for (path, body) in generating(PROMPT) {
            let gate = Gate::new();
            upstream.set_fault(header(Fault::none().gate(&gate), "cache-control", value));
            let before = upstream.count();
            let asks = all_waiting(&upstream, &gate, (0..4).map(|_| proxy.post(path, &body))).await;
            gate.open();
            for reply in replies(asks).await {
                assert_eq!((reply.status, is_collapsed(&reply)), (StatusCode::OK, false), "{path}");
            }
            assert_eq!(upstream.count(), before + 4, "{path}");
        }
    }
}
