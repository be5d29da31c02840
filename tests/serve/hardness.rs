//! Whatever bytes a client or an upstream sends, a request stays one request, goes nowhere else, says nothing that
//! it was not asked, and costs no more than it may: by bytes on sockets, also where a stored reply answers.
#![allow(clippy::items_after_statements, clippy::too_many_lines, reason = "tables and helpers of tests")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::wire::{listener, until_quiet};
use crate::support::{
    Ask, Fault, Gate, Proxy, Simulated, SimulatedOptions, Wire, encodings, generating, proxy, proxy_to,
    proxy_with, soon, streamed, streamed_text_of, upstream,
};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn every_test_that_is_said_to_meet_a_threat_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/threats.md")).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`")).collect();
    assert_eq!(rows.len(), 24);
    for row in rows {
        let mut file = String::new();
        for name in row.split('`').skip(1).step_by(2) {
            if name.strip_suffix(".rs").is_some() {
                file = std::fs::read_to_string(root.join(name))
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            } else if name.contains('_') {
                assert!(file.contains(&format!("fn {name}(")), "{name} is not there: {row}");
            }
        }
    }
}

/// What must never be taken for a request of its own.
const SECOND: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// A chat that asks `prompt`, as bytes.
fn chat(prompt: &str) -> String {
    generating(prompt).remove(0).1.to_string()
}

/// A chat whose reply is stored, by this name.
async fn stored(proxy: &Proxy, prompt: &str) -> String {
    let body = chat(prompt);
    let url = format!("{}{CHAT}", proxy.url());
    let ask = || Ask::post_bytes(&url, body.clone()).header("content-type", "application/json");
    assert_eq!(ask().send().await.status, StatusCode::OK);
    assert_eq!(ask().send().await.layer(), Some("exact"));
    body
}

/// All that comes back for these bytes until everything is still.
async fn sent(upstream: &Simulated, address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut client = Wire::open(address).await;
    client.send(bytes).await;
    until_quiet(|| upstream.count()).await;
    client.arrived()
}

/// Waits until so many clients are connected.
async fn until_connections(proxy: &Proxy, count: usize) {
    let line = format!("rejoinder_client_connections {count}");
    let metrics = format!("{}/metrics", proxy.admin_url());
    let becomes = async {
        while !Ask::get(&metrics).send().await.text().lines().any(|found| found == line) {
            tokio::task::yield_now().await;
        }
    };
    soon(becomes).await;
}

fn statuses(replies: &str) -> Vec<&str> {
    let starts = replies
        .match_indices("HTTP/1.1 ")
        .filter(|(at, _)| *at == 0 || replies[..*at].ends_with(['\n', '}']));
    starts.map(|(at, _)| &replies[at + 9..at + 12]).collect()
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

#[tokio::test]
async fn a_hit_is_framed_as_strictly_as_a_miss() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = stored(&proxy, "framed").await;
    let (length, chunks) = (body.len(), chunked(&body));
    let count = chunks.len();
    let longer = length + SECOND.len();
    // Read in one way the stored chat is asked; in another, it is followed by a request, or is none.
    let doubtful = [
        format!("Content-Length: {length}\r\nContent-Length: {longer}\r\n\r\n{body}"),
        format!("Content-Length: {longer}\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!("Content-Length: {length}, {longer}\r\n\r\n{body}"),
        format!("Content-Length: {length}, {length}\r\n\r\n{body}"),
        format!("Content-Length: +{length}\r\n\r\n{body}"),
        format!("Content-Length: {length}.0\r\n\r\n{body}"),
        format!("Content-Length: {length}\u{b}\r\n\r\n{body}"),
        format!("Content-Length: {length}\r\n {longer}\r\n\r\n{body}"),
        format!("Content-Length : {length}\r\n\r\n{body}"),
        format!("Content-Length: {count}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {count}\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: identity, chunked\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: \"chunked\"\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: chunked;a=b\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: identity\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!("Transfer-Encoding:\r\n chunked\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: chun\u{0}ked\r\n\r\n{chunks}"),
        format!("Transfer-Encoding\u{0}: chunked\r\n\r\n{chunks}"),
        format!("X: y\rContent-Length: {length}\r\n\r\n{body}"),
        format!("X: \u{0}\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!("X Y: z\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!(": z\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!("no colon\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!("Host: evil\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!("Content-Length: {length}\r\nHost: h\r\n\r\n{body}"),
    ];
    for path in [CHAT, "/api/show"] {
        for framed in &doubtful {
            let before = upstream.requests().len();
            let request = format!("POST {path} HTTP/1.1\r\nHost: h\r\n{framed}{SECOND}");
            let reply = sent(&upstream, proxy.address(), request).await;
            let new = upstream.requests().split_off(before);
            assert!(!new.iter().any(|request| request.uri == "/smuggled"), "{framed:?}");
            assert!(new.len() <= usize::from(path != CHAT), "{framed:?} became {new:#?}");
            let all = statuses(&reply);
            assert!(all.len() <= 1, "{framed:?}: {reply}");
            let mut framings = new.iter().flat_map(|new| new.headers.iter()).filter(|(name, _)| {
                name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
            });
            assert!(framings.next().is_none() || framings.next().is_none(), "{framed:?}: {new:#?}");
        }
    }
    // And what is clear is two requests.
    for framed in [
        format!("Content-Length: {length}\r\n\r\n{body}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{};a=\"b\"\r\n", &chunks[..chunks.find('\r').unwrap()])
            + &chunks[chunks.find("\r\n").unwrap() + 2..],
    ] {
        let before = upstream.requests().len();
        let request = format!("POST {CHAT} HTTP/1.1\r\nHost: h\r\n{framed}{SECOND}");
        let reply = sent(&upstream, proxy.address(), request).await;
        assert_eq!(statuses(&reply), ["200", "404"], "{framed:?}: {reply}");
        assert!(reply.contains("rejoinder; hit; "), "{reply}");
        assert_eq!(upstream.requests().split_off(before)[0].uri, "/smuggled");
    }
}

#[tokio::test]
async fn an_old_request_has_no_chunks_on_a_hit_either() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = stored(&proxy, "old").await;
    let count = upstream.count();
    for head in ["Transfer-Encoding: chunked", "Connection: keep-alive\r\nTransfer-Encoding: chunked"] {
        let request = format!("POST {CHAT} HTTP/1.0\r\n{head}\r\n\r\n{}{SECOND}", chunked(&body));
        let mut client = Wire::open(proxy.address()).await;
        client.send(request).await;
        let reply = client.rest().await;
        assert_eq!(statuses(&reply.replace("HTTP/1.0", "HTTP/1.1")), ["400"], "{reply}");
    }
    assert_eq!(upstream.count(), count);
}

#[tokio::test]
async fn no_target_form_leads_a_stored_path_elsewhere() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = stored(&proxy, "targets").await;
    let count = upstream.count();
    let ask = async |start: &str, host: &str| {
        let length = body.len();
        let head = format!("{start} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n\r\n");
        let mut client = Wire::open(proxy.address()).await;
        client.send(format!("{head}{body}")).await;
        client.rest().await
    };
    // Whatever host is named, it is this upstream's reply that is stored.
    for target in ["http://evil.example", "HTTP://EVIL.example:1", "https://u:p@evil.example"] {
        let reply = ask(&format!("POST {target}{CHAT}"), "Host: evil.example\r\n").await;
        assert!(reply.contains("rejoinder; hit; "), "{target}: {reply}");
    }
    // What is no path of ours in these very bytes is none of the cache's business, and travels as sent.
    let near = [
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/chat//completions",
        "/v1/./chat/completions",
        "/x/../v1/chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%2fcompletions",
        "/%76%31/chat/completions",
        "/V1/chat/completions",
        "/v1/chat/completions;x=1",
        "/v1/chat\\completions",
        "/v1/chat/completions%00",
        "/%2e%2E/v1/chat/completions",
    ];
    for (index, target) in near.iter().enumerate() {
        let reply = ask(&format!("POST {target}"), "Host: h\r\n").await;
        assert!(!reply.contains("rejoinder; hit"), "{target}: {reply}");
        assert_eq!(upstream.requests().pop().unwrap().uri, *target);
        assert_eq!(upstream.count(), count + index + 1, "{target}");
    }
    let count = upstream.count();
    for start in [
        "CONNECT h:80",
        "CONNECT /v1/chat/completions",
        "POST *",
        "POST h:80",
        "POST v1/chat/completions",
        "POST",
    ] {
        let reply = ask(start, "Host: h\r\n").await;
        assert_eq!(statuses(&reply), ["400"], "{start}: {reply}");
    }
    // Two hosts are refused, whether a stored reply would answer or not.
    for target in [CHAT, "/v1/models"] {
        for hosts in ["Host: h\r\nHost: evil\r\n", "Host: h\r\nhost: h\r\n"] {
            let reply = ask(&format!("POST {target}"), hosts).await;
            assert!(reply.starts_with("HTTP/1.1 400 ") && reply.contains("more than one Host"), "{reply}");
        }
    }
    assert_eq!(upstream.count(), count);
}

#[tokio::test]
async fn the_prefix_is_not_escaped_by_any_spelling() {
    let options = SimulatedOptions { prefix: "/team-a".to_owned(), ..Default::default() };
    let upstream = Simulated::start(options).await.unwrap();
    let proxy = proxy(&upstream).await;
    let steps = ["..", "%2e%2e", "%2E.", ".%2e", "..;x", "..%00", "%252e%252e"];
    let slashes = ["/", "//", "\\", "%2f", "%5C", "/./", "/;/"];
    for step in steps {
        for slash in slashes {
            for target in
                [format!("/{step}{slash}v1"), format!("/a{slash}{step}"), format!("{slash}{step}{slash}x")]
            {
                let mut client = Wire::open(proxy.address()).await;
                client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
                client.rest().await;
            }
        }
    }
    for request in upstream.requests() {
        // As the loosest of servers would read it: decoded twice, cut at a NUL, parameters dropped.
        let path = request.uri.path().to_ascii_lowercase().replace("%25", "%");
        let path = path.replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
        let climbs = path.split('/').any(|segment| segment.split([';', '%']).next() == Some(".."));
        assert!(path.starts_with("/team-a/") && !climbs, "{} left the prefix", request.uri);
    }
}

#[tokio::test]
async fn who_asks_cannot_be_taken_out_on_the_way() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = stored(&proxy, "whose?").await;
    let length = body.len();
    let identity = [
        "authorization",
        "cookie",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "openai-organization",
        "openai-project",
        "openai-beta",
        "anthropic-version",
        "anthropic-beta",
    ];
    for name in identity {
        for connection in
            [name.to_owned(), format!("close, {}", name.to_ascii_uppercase()), format!(",,{name} ,x")]
        {
            let value = format!("{name}-{}", connection.len());
            let mut client = Wire::open(proxy.address()).await;
            client
                .send(format!(
                    "POST {CHAT} HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\nConnection: {connection}\r\n\
                     Keep-Alive: timeout=1\r\nTE: gzip;q=0.5\r\nTrailer: {name}\r\nProxy-Authorization: Basic eA==\r\n\
                     Proxy-Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            let head = client.head().await;
            assert!(head.contains("rejoinder; fwd=miss"), "{name} by {connection:?}: {head}");
            let request = upstream.requests().pop().unwrap();
            assert_eq!(request.header_values(name).collect::<Vec<_>>(), [value], "{connection:?}");
            for hop in ["keep-alive", "te", "proxy-authorization", "proxy-connection", "connection"] {
                assert_eq!(request.header(hop), None, "{hop}");
            }
        }
    }
}

#[tokio::test]
async fn no_upgrade_of_a_request_that_may_be_cached() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = stored(&proxy, "upgrade").await;
    let length = body.len();
    for protocol in ["h2c", "websocket", "TLS/1.0", "x, h2c"] {
        for prompt in ["upgrade", "upgrade anew"] {
            let body = chat(prompt);
            let before = upstream.requests().len();
            let request = format!(
                "POST {CHAT} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\nCache-Control: max-age=9\r\nContent-Length: {}\r\n\r\n{body}{SECOND}",
                body.len()
            );
            let reply = sent(&upstream, proxy.address(), request).await;
            assert_eq!(statuses(&reply), ["200", "404"], "{protocol}: {reply}");
            for request in &upstream.requests()[before..] {
                for name in ["upgrade", "connection", "http2-settings"] {
                    assert_eq!(request.header(name), None, "{protocol}: {request:?}");
                }
            }
        }
    }
    // A preface in the middle of a connection is no preface.
    let request = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    );
    let reply = sent(&upstream, proxy.address(), request).await;
    assert!(statuses(&reply).len() <= 2 && reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert!(!upstream.requests().iter().any(|request| request.method == "PRI"));
}

#[tokio::test]
async fn chunks_without_end_or_measure_are_refused() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let extension = format!("1;{}", "a".repeat(8_000));
    let extensions = format!("1;{}\r\nx\r\n", "a".repeat(500)).repeat(100);
    let trailers = format!("0\r\n{}", "X-T: 1\r\n".repeat(10_000));
    let trailer = format!("0\r\nX-T: {}", "1".repeat(200_000));
    let bodies = [
        extension.repeat(8),
        extensions,
        trailers,
        trailer,
        "ffffffffffffffff\r\nx".to_owned(),
        "10000000000000000\r\nx".to_owned(),
        "\r\n".repeat(1000),
        "1\r\nxy\r\n".to_owned(),
        "1 1\r\nx\r\n0\r\n\r\n".to_owned(),
    ];
    for path in [CHAT, "/api/pull"] {
        for body in &bodies {
            let before = upstream.requests().len();
            let request = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut client = Wire::open(proxy.address()).await;
            client.send(request).await;
            // The other side may have given up before the end.
            let _ = client.write(body.as_bytes()).await;
            eprintln!("{path} {:?}", &body[..body.len().min(20)]);
            let waits = body.starts_with("ffff");
            if waits {
                until_quiet(|| upstream.count()).await;
            }
            let reply = if waits { client.arrived() } else { client.rest().await };
            let whole = upstream.requests().split_off(before);
            let (text, shown) = (reply.get(..400).unwrap_or(&reply), &body[..body.len().min(20)]);
            // What streams upstream has begun there; of its body nothing is whole.
            assert!(
                whole.iter().all(|request| path != CHAT && request.body.is_empty()),
                "{path} {shown:?}: {whole:?}"
            );
            assert!(
                if waits { reply.is_empty() } else { reply.starts_with("HTTP/1.1 400 ") },
                "{path} {shown:?}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.timeouts.idle = Duration::from_millis(200)).await;
    let body = stored(&proxy, "slow").await;
    let length = body.len();
    for path in [CHAT, "/ask", "/api/show"] {
        for framing in [
            format!("Content-Length: {length}\r\n\r\n{{"),
            "Transfer-Encoding: chunked\r\n\r\n5\r\n{".to_owned(),
        ] {
            let mut client = Wire::open(proxy.address()).await;
            client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\n{framing}")).await;
            let reply = client.rest().await;
            assert!(!reply.contains("HTTP/1.1 2"), "{path}: {reply}");
        }
    }
    assert!(!upstream.requests().iter().any(|request| request.body.as_ref() == b"{"));
}

#[tokio::test]
async fn an_expectation_is_met_on_a_hit_too() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = stored(&proxy, "expected").await;
    let length = body.len();
    let mut client = Wire::open(proxy.address()).await;
    for _ in 0..2 {
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n"
        );
        client.send(head).await;
        assert!(client.head().await.starts_with("HTTP/1.1 100 "));
        client.send(&body).await;
        let head = client.head().await;
        assert!(head.contains("rejoinder; hit; "), "{head}");
        client.until("}").await;
        client.arrived();
        client = Wire::open(proxy.address()).await;
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn whoever_closes_its_side_after_asking_still_gets_the_reply() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    stored(&proxy, "kept").await;
    for (prompt, faulty) in [("kept", false), ("asked anew", true), ("streamed anew", true)] {
        let gate = Gate::new();
        if faulty {
            upstream.fault_next(Fault::none().gate(&gate));
        }
        let body = if prompt.starts_with("streamed") {
            streamed(&serde_json::from_str(&chat(prompt)).unwrap()).to_string()
        } else {
            chat(prompt)
        };
        let mut client = Wire::open(proxy.address()).await;
        client
            .send(format!("POST {CHAT} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        if faulty {
            soon(gate.until_waiting(1)).await;
        }
        client.half_close().await;
        if faulty {
            // It was seen that the client is there.
            assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(gate.waiting(), 1);
            gate.open();
        }
        let reply = client.rest().await;
        let (head, content) = reply.split_once("\r\n\r\n").unwrap();
        let text = if content.contains("data: ") { streamed_text_of(content) } else { content.to_owned() };
        assert!(head.starts_with("HTTP/1.1 200 ") && text.contains(prompt), "{prompt}: {reply}");
        assert!(content.ends_with(['}', '\n']), "{prompt}: {reply}");
        assert!(!faulty || reply.contains("connection: close\r\n"), "{reply}");
    }
    // Whoever has left is not worked for; nor who says in HTTP/1.0 that it may have.
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let gate = Gate::new();
        upstream.fault_next(Fault::none().gate(&gate));
        let mut client = Wire::open(proxy.address()).await;
        let body = chat(&format!("left by {version}"));
        client
            .send(format!("POST {CHAT} {version}\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        soon(gate.until_waiting(1)).await;
        drop(client);
        soon(gate.until_waiting(0)).await;
    }
    // Half a request is none.
    let mut client = Wire::open(proxy.address()).await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Le").await;
    client.half_close().await;
    assert!(!client.rest().await.contains("HTTP/1.1 2"));
}

#[tokio::test]
async fn what_is_replayed_is_never_syntax() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let evil = "x\r\nX-Evil: 1\r\n\r\nHTTP/1.1 200 OK\r\n\r\ndata: [DONE]\n\ndata: {\"evil\": 1}\n\n\u{0}\u{2028}<script>";
    let document = json!({
        "id": evil, "object": "chat.completion", "created": 1, "model": evil, "system_fingerprint": evil,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": evil}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    });
    let media_type = "application/json; x=\"\t\"; charset=evil";
    let fault = Fault::body("application/json", document.to_string())
        .header(CONTENT_TYPE, HeaderValue::from_bytes(media_type.as_bytes()).unwrap())
        .header(HeaderName::from_static("x-request-id"), HeaderValue::from_static("evil"));
    upstream.set_fault(fault);
    let whole: Value = serde_json::from_str(&chat(evil)).unwrap();
    proxy.post(CHAT, &whole).header("x-request-id", "mine").send().await;
    for body in [whole.clone(), streamed(&whole)] {
        let body = body.to_string();
        let mut client = Wire::open(proxy.address()).await;
        client
            .send(format!(
                "POST {CHAT} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        let reply = client.rest().await;
        let (head, content) = reply.split_once("\r\n\r\n").unwrap();
        assert_eq!(statuses(&reply), ["200"], "{reply}");
        assert!(head.contains("rejoinder; hit; "), "{head}");
        for name in head.lines().skip(1).filter_map(|line| line.split(':').next()) {
            let known = [
                "content-type",
                "cache-status",
                "x-rejoinder-similarity",
                "x-rejoinder-confidence",
                "age",
                "x-rejoinder-entry",
                "content-length",
                "transfer-encoding",
                "date",
                "connection",
            ];
            assert!(known.contains(&name), "{name} in {head}");
        }
        assert!(!head.contains("X-Evil") && !content.contains("\r\nX-Evil"), "{reply}");
        let events = content.lines().filter(|line| *line == "data: [DONE]").count();
        assert!(events <= 1 && !content.lines().any(|line| line.starts_with("data: {\"evil\"")), "{content}");
    }
    assert_eq!(upstream.count(), 1, "it was not stored");
}

#[tokio::test]
async fn a_bomb_goes_through_and_is_not_stored() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let (path, body) = generating("bomb").remove(0);
    for (coding, bomb) in encodings::bombs() {
        for (body, media_type) in [(body.clone(), "application/json"), (streamed(&body), "text/event-stream")]
        {
            let fault = Fault::body(media_type, bomb.clone());
            upstream.set_fault(fault.header(CONTENT_ENCODING, HeaderValue::from_static(coding)));
            let reply = soon(proxy.post(path, &body).header("accept-encoding", coding).send()).await;
            assert!(reply.status == StatusCode::OK && reply.body == bomb, "{coding}");
            assert_eq!(reply.header("content-encoding"), Some(coding));
            upstream.set_fault(Fault::none());
            let only = proxy.post(path, &body).header("cache-control", "only-if-cached").send().await;
            assert_eq!(only.status, StatusCode::GATEWAY_TIMEOUT, "{coding} was stored");
        }
    }
}

#[tokio::test]
async fn a_burst_waits_in_turn_and_what_waits_too_long_is_told_when_to_come_back() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.limits.max_upstream_requests = 1;
        config.limits.max_queued_requests = 6;
        config.timeouts.queue = Duration::from_secs(30);
    })
    .await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let first = tokio::spawn(Ask::get(&format!("{}/v1/models", proxy.url())).send());
    soon(gate.until_waiting(1)).await;
    let mut waiting = Vec::new();
    for (path, body) in generating("in the queue") {
        waiting.push((path, tokio::spawn(proxy.post(path, &body).send())));
    }
    // All run in this one thread: when nothing moves any more they are in the queue, and it is full.
    until_quiet(|| upstream.count()).await;
    let models = format!("{}/v1/models", proxy.url());
    let refused = soon(Ask::get(&models).send()).await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
    assert_eq!(upstream.count(), 1, "one at a time");
    gate.open();
    assert_eq!(soon(first).await.unwrap().status, StatusCode::OK);
    for (path, asked) in waiting {
        assert_eq!(soon(asked).await.unwrap().status, StatusCode::OK, "{path}");
    }
    // Who leaves the queue leaves it.
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let first = tokio::spawn(Ask::get(&models).send());
    soon(gate.until_waiting(1)).await;
    let count = upstream.count();
    for (path, body) in generating("leaves the queue") {
        let asked = tokio::spawn(proxy.post(path, &body).send());
        until_quiet(|| upstream.count()).await;
        asked.abort();
    }
    // The first's is still there, and the one by which this is asked is the operators'.
    until_connections(&proxy, 1).await;
    gate.open();
    assert_eq!(soon(first).await.unwrap().status, StatusCode::OK);
    upstream.set_fault(Fault::none());
    assert_eq!(soon(Ask::get(&models).send()).await.status, StatusCode::OK);
    assert_eq!(upstream.count(), count + 1, "nobody asked in the name of those who left");
}

#[tokio::test]
async fn what_waits_too_long_for_a_place_is_refused_in_its_dialect() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.limits.max_upstream_requests = 1;
        config.timeouts.queue = Duration::from_millis(50);
    })
    .await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let first = tokio::spawn(Ask::get(&format!("{}/v1/models", proxy.url())).send());
    soon(gate.until_waiting(1)).await;
    for (path, body) in generating("too late") {
        let reply = soon(proxy.post(path, &body).send()).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(reply.header("retry-after"), Some("1"));
        let error = &reply.json()["error"];
        match path {
            "/v1/messages" => assert_eq!(error["type"], "overloaded_error"),
            path if path.starts_with("/v1/") => assert_eq!(error["code"], "overloaded"),
            _ => assert!(error.is_string()),
        }
    }
    // Those who operate it are not in that queue.
    for path in ["/healthz", "/metrics"] {
        assert_eq!(
            soon(Ask::get(&format!("{}{path}", proxy.admin_url())).send()).await.status,
            StatusCode::OK
        );
    }
    gate.open();
    soon(first).await.unwrap();
}

#[tokio::test]
async fn what_there_is_no_memory_for_goes_through_uncached() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_buffer_bytes.0 = 200_000).await;
    let long = "long ".repeat(50_000);
    for (path, body) in generating(&long) {
        for _ in 0..2 {
            let before = upstream.count();
            let url = format!("{}{path}", proxy.url());
            let reply = soon(Ask::post_bytes(&url, body.to_string()).send()).await;
            assert_eq!(reply.status, StatusCode::OK, "{path}");
            assert_eq!(upstream.requests().pop().unwrap().body, body.to_string().as_bytes(), "{path}");
            assert!(upstream.count() > before && !reply.cache_status().contains("stored"), "{path}");
        }
    }
    // A reply for which there is none.
    upstream.set_fault(Fault::huge(400_000));
    for (path, body) in generating("large") {
        let reply = soon(proxy.post(path, &body).send()).await;
        assert!(reply.status == StatusCode::OK && !reply.cache_status().contains("stored"), "{path}");
    }
    // All of it is there again.
    upstream.set_fault(Fault::huge(100_000));
    for (path, body) in generating("fits") {
        let reply = soon(proxy.post(path, &body).send()).await;
        assert!(reply.cache_status().contains("stored"), "{path}: {}", reply.cache_status());
    }
}

#[tokio::test]
async fn a_stream_of_http2_that_takes_nothing_is_given_up() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |config| config.timeouts.idle = Duration::from_millis(300)).await;
    for path in ["/endless", CHAT] {
        // The connection is read, and answers; the stream has no window.
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        let mut client = http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(1024).adaptive_window(false);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let body = chat("endless");
        let request =
            Request::post(format!("http://h{path}")).body(Full::new(Bytes::from(body.clone()))).unwrap();
        let response = tokio::spawn(sender.send_request(request));
        let mut server = Wire::accept(&listener).await;
        server.until(&body).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let piece = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        let pours = async { while server.write(piece.as_bytes()).await.is_ok() {} };
        soon(pours).await;
        let mut body = soon(response).await.unwrap().unwrap().into_body();
        let end = loop {
            match soon(body.frame()).await {
                Some(Ok(_)) => {}
                end => break end,
            }
        };
        assert!(matches!(end, Some(Err(_))), "{path}: a clean end of what was cut");
    }
}
