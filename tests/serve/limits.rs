//! No client and no upstream can make the proxy wait for ever, take without bound, or take one message for another.
#![allow(clippy::items_after_statements, reason = "tables and helpers of tests")]

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::wire::{listener, until_quiet};
use crate::support::{
    Ask, Connection, Fault, Gate, Wire, generating, proxy, proxy_to, proxy_with, soon, streamed, upstream,
};

/// All that comes back for these bytes on a connection of their own, until the proxy closes it.
async fn exchange(address: std::net::SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut client = Wire::open(address).await;
    client.send(bytes).await;
    client.rest().await
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_head_bytes.0 = 10_000).await;
    let long = "x".repeat(9_000);
    let fits = format!("GET /v1/models HTTP/1.1\r\nHost: h\r\nX-Long: {long}\r\nConnection: close\r\n\r\n");
    assert!(exchange(proxy.address(), fits).await.starts_with("HTTP/1.1 200 "));
    let count = upstream.count();
    let one = format!("GET /v1/models HTTP/1.1\r\nHost: h\r\nX-Long: {long}{long}\r\n\r\n");
    let many = format!("GET /v1/models HTTP/1.1\r\nHost: h\r\n{}\r\n", "X-Many: 1\r\n".repeat(2_000));
    for request in [one, many] {
        assert!(exchange(proxy.address(), request).await.starts_with("HTTP/1.1 431 "));
    }
    // Without an end.
    let mut client = Wire::open(proxy.address()).await;
    client.send(format!("GET /v1/models HTTP/1.1\r\nX-Long: {long}{long}")).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431 "));
    let target = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(70_000));
    let reply = exchange(proxy.address(), target).await;
    assert!(reply.starts_with("HTTP/1.1 414 ") || reply.starts_with("HTTP/1.1 431 "), "{reply}");
    assert_eq!(upstream.count(), count);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let upstream = upstream().await;
    let proxy =
        proxy_with(&upstream, |config| config.timeouts.request_head = Duration::from_millis(100)).await;
    let beginnings: [&[u8]; 7] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"GET /v1/mod",
        b"GET /v1/models HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: h\r\nX-Slow: ",
        b"\r\n\r\n",
    ];
    for address in [proxy.address(), proxy.admin_address()] {
        for beginning in beginnings {
            let reply = exchange(address, beginning).await;
            assert!(!reply.contains("200"), "{reply}");
        }
    }
    // The time is that of the head alone.
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let asked = tokio::spawn(Ask::get(&format!("{}/v1/models", proxy.url())).send());
    soon(gate.until_waiting(1)).await;
    assert_eq!(exchange(proxy.address(), "G").await, "");
    gate.open();
    assert_eq!(soon(asked).await.unwrap().status, StatusCode::OK);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn the_wait_for_the_next_head_begins_when_a_reply_is_through() {
    let upstream = upstream().await;
    let proxy =
        proxy_with(&upstream, |config| config.timeouts.request_head = Duration::from_millis(300)).await;
    let (path, body) = generating("one that takes long").remove(0);
    let body = streamed(&body).to_string();
    let request = |version| {
        format!(
            "POST {path} HTTP/{version}\r\nHost: h\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(10, &gate));
    let mut waiting = Vec::new();
    for version in ["1.1", "1.0"] {
        let mut client = Wire::open(proxy.address()).await;
        client.send(request(version)).await;
        client.head().await;
        waiting.push(client);
    }
    // While a reply comes, the time of heads passes, for others.
    for _ in 0..2 {
        assert_eq!(exchange(proxy.address(), "G").await, "");
    }
    gate.open();
    for client in waiting {
        assert!(soon(client.rest()).await.contains("[DONE]"), "and the connection is closed in time");
    }
    // So it is behind a hit, and behind what passed through.
    let mut client = Wire::open(proxy.address()).await;
    client.send(request("1.1")).await;
    assert!(soon(client.rest()).await.contains("detail=exact"));
    client = Wire::open(proxy.address()).await;
    client.send("GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(soon(client.rest()).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |config| config.timeouts.idle = Duration::from_millis(200)).await;
    let body = generating("endless").remove(0).1.to_string();
    for path in ["/endless", "/v1/chat/completions"] {
        let mut client = Wire::open_small(proxy.address()).await;
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        let mut server = Wire::accept(&listener).await;
        server.until(&body).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        // Upstream has something to say all the time; the client holds its connection, and reads nothing.
        let piece = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        let pours = async { while server.write(piece.as_bytes()).await.is_ok() {} };
        soon(pours).await;
        drop(client);
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_connections = 2).await;
    let url = format!("{}/v1/models", proxy.url());
    let mut first = Connection::open(proxy.address()).await.unwrap();
    let mut second = Connection::open(proxy.address()).await.unwrap();
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.send(Ask::get(&url)).await.unwrap().status, StatusCode::OK);
    }
    let third = tokio::spawn(Ask::get(&url).send());
    until_quiet(|| upstream.count()).await;
    assert_eq!((upstream.count(), third.is_finished()), (2, false));
    // The operators have a listener of their own.
    assert_eq!(Ask::get(&format!("{}/healthz", proxy.admin_url())).send().await.status, StatusCode::OK);
    drop(second);
    assert_eq!(soon(third).await.unwrap().status, StatusCode::OK);
    assert_eq!(first.send(Ask::get(&url)).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn requests_beyond_what_upstream_may_have_are_shed_and_hits_are_not() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.limits.max_upstream_requests = 2;
        config.limits.max_queued_requests = 0;
    })
    .await;
    for (path, body) in generating("stored") {
        assert_eq!(proxy.post(path, &body).send().await.status, StatusCode::OK);
    }
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(10, &gate));
    let (path, body) = generating("one that takes long").remove(0);
    // One that is cached and one that is not: both hold their places until their end.
    let mut first = soon(proxy.post(path, &streamed(&body)).open()).await;
    let pull = Ask::post(&format!("{}/api/pull", proxy.url()), &json!({"model": "llama3.2"}));
    let mut second = soon(pull.open()).await;
    soon(gate.until_waiting(2)).await;
    let count = upstream.count();
    for (path, body) in generating("one too many") {
        for body in [body.clone(), streamed(&body)] {
            let reply = soon(proxy.post(path, &body).send()).await;
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!(reply.header("retry-after"), Some("1"), "{path}");
            let document: Value = reply.json();
            match path {
                "/v1/messages" => assert_eq!(document["error"]["type"], "overloaded_error"),
                path if path.starts_with("/v1/") => assert_eq!(document["error"]["code"], "overloaded"),
                _ => assert!(document["error"].is_string(), "{document}"),
            }
        }
    }
    let models = soon(Ask::get(&format!("{}/v1/models", proxy.url())).send()).await;
    assert_eq!((models.status, models.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
    // Who asks the same as one that is on its way waits for it, and a hit needs nobody.
    let mut same = soon(proxy.post(path, &streamed(&body)).open()).await;
    for (path, body) in generating("stored") {
        assert_eq!(soon(proxy.post(path, &body).send()).await.layer(), Some("exact"), "{path}");
    }
    assert_eq!(upstream.count(), count);
    gate.open();
    for stream in [&mut first, &mut second, &mut same] {
        soon(stream.finish()).await.unwrap();
    }
    upstream.set_fault(Fault::none());
    let mut places = 0;
    for (path, body) in generating("room again") {
        places += usize::from(soon(proxy.post(path, &body).send()).await.status == StatusCode::OK);
    }
    assert_eq!(places, 6);
}

#[tokio::test]
async fn one_that_leaves_gives_its_place_back() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_upstream_requests = 1).await;
    let gate = Gate::new();
    for (index, (path, body)) in generating("leaves").into_iter().enumerate() {
        upstream.set_fault(Fault::none().gate(&gate));
        let asked = tokio::spawn(proxy.post(path, &body).send());
        soon(gate.until_waiting(1)).await;
        asked.abort();
        soon(upstream.until_abandoned(index + 1)).await;
        upstream.set_fault(Fault::none());
        let next = soon(Ask::get(&format!("{}/v1/models", proxy.url())).send()).await;
        assert_eq!(next.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_reply_of_any_depth_is_relayed() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for depth in [200, 100_000] {
        let deep = format!("{{\"choices\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        let event = format!("data: {deep}\n\ndata: [DONE]\n\n");
        let line = format!("{deep}\n");
        for (path, body) in generating("deep") {
            let bodies =
                [("application/json", &deep), ("text/event-stream", &event), ("application/x-ndjson", &line)];
            for (media_type, content) in bodies {
                upstream.set_fault(Fault::body(media_type, content.clone()));
                for body in [body.clone(), streamed(&body)] {
                    let reply = soon(proxy.post(path, &body).send()).await;
                    assert!(reply.status == StatusCode::OK && reply.text() == content, "{path} {media_type}");
                }
            }
        }
    }
    // And of any number of names, lines and events, up to the size that is looked at.
    let members: Vec<_> = (0..50_000).map(|n| format!("\"{n}\":[]")).collect();
    let wide = format!("{{{},\"z\":1}}", members.join(","));
    let (path, body) = generating("wide").remove(0);
    upstream.set_fault(Fault::body("application/json", wide.clone()));
    assert!(soon(proxy.post(path, &body).send()).await.text() == wide);
    let events = "data: {}\n\n".repeat(50_000);
    upstream.set_fault(Fault::body("text/event-stream", events.clone()));
    assert!(soon(proxy.post(path, &streamed(&body)).send()).await.text() == events);
}

#[tokio::test]
async fn one_request_is_never_two() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    const SECOND: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let chunked = format!("0\r\n\r\n{SECOND}");
    let length = chunked.len();
    let two_ways = [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\ntransfer-encoding:\tChunked\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: xchunked\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked, identity\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: identity\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{chunked}"),
        format!(
            "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n{chunked}"
        ),
        format!(
            "Content-Length: {length}\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
        ),
        format!("Content-Length: {length}\r\nTransfer-Encoding : chunked\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\n Transfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n{chunked}"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{chunked}"),
        format!("Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{chunked}"),
        format!("Content-Length: 0, {length}\r\n\r\n{chunked}"),
        format!("Content-Length: +{length}\r\n\r\n{chunked}"),
        format!("Content-Length: -1\r\n\r\n{chunked}"),
        format!("Content-Length: 0x0\r\n\r\n{SECOND}"),
        format!("Content-Length: 0 0\r\n\r\n{SECOND}"),
        format!("Content-Length:\r\n\r\n{SECOND}"),
        format!("Content-Length: 99999999999999999999\r\n\r\n{SECOND}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{SECOND}"),
        format!("Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{SECOND}"),
        format!("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n{SECOND}"),
        format!("Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n{SECOND}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n{SECOND}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0\n\n{SECOND}"),
        format!("X: \u{0}\r\nContent-Length: 0\r\n\r\n{SECOND}"),
    ];
    for path in ["/api/show", "/v1/chat/completions"] {
        for framed in &two_ways {
            let before = upstream.requests().len();
            let mut client = Wire::open(proxy.address()).await;
            client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\n{framed}")).await;
            until_quiet(|| upstream.count()).await;
            let reply = client.arrived();
            let new = upstream.requests().split_off(before);
            assert!(new.len() <= 1, "{framed:?} became {new:#?}");
            // An answer, or a wait for the rest of one body that has no end here.
            let answers = reply.matches("HTTP/1.1 ").count();
            assert!(answers == 1 || (answers == 0 && new.is_empty()), "{framed:?}: {reply}");
            for request in new {
                assert_ne!(request.uri, "/smuggled", "{framed:?}");
                let framings = ["content-length", "transfer-encoding"];
                let framings: Vec<_> = framings.iter().flat_map(|name| request.header_values(name)).collect();
                assert!(framings.len() <= 1, "{framed:?}: {:?}", request.headers);
            }
        }
    }
    // HTTP/1.0 knows no chunks.
    let old = format!("POST /api/show HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}");
    assert!(
        exchange(proxy.address(), old).await.starts_with("HTTP/1.1 400 ") || upstream.requests().is_empty()
    );
    assert!(!upstream.requests().iter().any(|request| request.uri == "/smuggled"));
}

#[tokio::test]
async fn honest_requests_in_a_row_are_each_answered_in_turn() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let (path, body) = generating("in a row").remove(0);
    let body = body.to_string();
    let length = body.len();
    let post = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}");
    let bad = "POST /api/chat HTTP/1.1\r\nHost: h\r\nX-Rejoinder-TTL: soon\r\nContent-Length: 40\r\n\r\n\
        GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n";
    let last = "GET /v1/models HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    // A miss, a hit, one refused for its head whose body nobody reads, and one that passes.
    let replies = exchange(proxy.address(), [&post, &post, bad, last].concat()).await;
    let statuses: Vec<_> =
        replies.match_indices("HTTP/1.1 ").map(|(at, _)| &replies[at + 9..at + 12]).collect();
    assert!(["200", "200", "400"] == statuses[..3] && statuses.len() <= 4, "{replies}");
    assert!(replies.contains("rejoinder; hit; "), "{replies}");
    assert!(!upstream.requests().iter().any(|request| request.uri == "/smuggled"));
}

/// TCP connects, and the handshake of TLS never comes: the limit is the same for a body that is streamed.
#[tokio::test]
async fn an_upstream_that_never_takes_an_upload_is_given_up() {
    let (listener, url) = listener().await;
    let url = url.replace("http://", "https://");
    let proxy = proxy_to(&url, |config| config.timeouts.idle = Duration::from_millis(300)).await;
    let ask = Ask::post_bytes(&format!("{}/v1/files", proxy.url()), "a file");
    let asked = tokio::spawn(ask.send());
    let _silent = soon(listener.accept()).await.unwrap();
    assert_eq!(soon(asked).await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_connection_of_http2_on_which_nothing_is_asked_is_closed() {
    let upstream = upstream().await;
    let proxy =
        proxy_with(&upstream, |config| config.timeouts.request_head = Duration::from_millis(300)).await;
    for asks in [0, 2] {
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        for _ in 0..asks {
            let gate = Gate::new();
            upstream.set_fault(Fault::none().gate(&gate));
            let request = Request::get("http://h/v1/models").body(Empty::<Bytes>::new()).unwrap();
            let reply = tokio::spawn(sender.send_request(request));
            soon(gate.until_waiting(1)).await;
            // Longer than nothing may be asked.
            tokio::time::sleep(Duration::from_millis(700)).await;
            gate.open();
            let reply = soon(reply).await.unwrap().unwrap();
            assert_eq!(reply.status(), StatusCode::OK);
            soon(reply.into_body().collect()).await.unwrap();
        }
        let _ = soon(connection).await.unwrap();
    }
}

/// Once both sides have left HTTP, and neither says anything any more.
#[tokio::test]
async fn a_joined_connection_that_is_silent_is_closed() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |config| config.timeouts.idle = Duration::from_millis(300)).await;
    let mut client = Wire::open(proxy.address()).await;
    client
        .send("GET /v1/realtime HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let mut server = Wire::accept(&listener).await;
    server.head().await;
    server
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client.send("ping").await;
    server.until("ping").await;
    server.send("pong").await;
    client.until("pong").await;
    assert_eq!(soon(client.rest()).await, "");
    assert_eq!(soon(server.rest()).await, "");
}
