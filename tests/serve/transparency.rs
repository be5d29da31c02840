//! Whoever talks through the proxy talks as if to the server behind it: every request arrives as it was sent, every
//! reply comes back as it was given, at once, and nothing else happens.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::wire::{listener, until_quiet};
use crate::support::{
    Ask, Connection, Fault, Gate, Proxy, Recorded, Reply, Simulated, SimulatedOptions, Wire, encodings,
    generating, proxy, proxy_to, proxy_with, soon, streamed, streamed_text_of, upstream,
};

fn header(fault: Fault, name: &'static str, value: &'static str) -> Fault {
    fault.header(HeaderName::from_static(name), HeaderValue::from_static(value))
}

/// The header lines that a request arrived with, without those that say where to: each hop has its own.
fn lines(recorded: &Recorded) -> Vec<(String, String)> {
    let own = ["host", "x-request-id"];
    let mut lines: Vec<_> = recorded
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .collect();
    lines.sort();
    lines
}

/// A reply's headers without what the proxy may add, and the time.
fn relayed(reply: &Reply) -> HeaderMap {
    let mut headers = reply.headers.clone();
    headers.remove("cache-status");
    headers.remove("date");
    headers
}

/// Sends a request to upstream itself and through the proxy: neither side can tell the difference.
async fn same_both_ways(
    upstream: &Simulated,
    proxy: &Proxy,
    target: &str,
    ask: impl Fn(&str) -> Ask,
) -> Reply {
    let before = upstream.requests().len();
    let direct = ask(&format!("{}{target}", upstream.url())).send().await;
    let through = ask(&format!("{}{target}", proxy.url())).send().await;
    assert_eq!(through.status, direct.status, "{target}");
    assert_eq!(through.body, direct.body, "{target}");
    assert_eq!(relayed(&through), relayed(&direct), "{target}");
    let [first, second] = upstream.requests().split_off(before).try_into().unwrap();
    assert_eq!(second.method, first.method, "{target}");
    assert_eq!(second.uri, first.uri, "{target}");
    assert_eq!(lines(&second), lines(&first), "{target}");
    assert_eq!(second.body, first.body, "{target}");
    through
}

#[tokio::test]
async fn any_method_path_query_and_body_go_through() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let targets = [
        "/v1/models",
        "/v1/models/llama3.2:latest",
        "/api/tags",
        "/",
        "/no/such/path",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/v1/chat%2Fcompletions",
        "/a/../b/./c",
        "/%2e%2e/x?y=..%2f",
        "/api/show?x=1&x=2&y=%20+&z",
        "/?",
        "//two",
        "/;p=1/!$&'()*,=:@~",
    ];
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "post", "QUERY"];
    for target in targets {
        for method in methods {
            let reply = same_both_ways(&upstream, &proxy, target, |url| {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let ask = Ask::post_bytes(url, "{\"model\": \"llama3.2\"}  \u{0} as it is");
                ask.method(method).header("content-type", "x/y").header("x-one", "1").header("x-one", "2")
            })
            .await;
            assert_eq!(reply.cache_status(), "rejoinder; fwd=bypass");
        }
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            same_both_ways(&upstream, &proxy, target, |url| Ask::new(method.clone(), url)).await;
        }
    }
}

#[tokio::test]
async fn statuses_are_relayed_and_redirects_not_followed() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let statuses = [200, 201, 202, 204, 205, 206, 207, 299, 300, 301, 302, 303, 304, 307, 308, 399];
    let errors =
        [400, 401, 402, 403, 404, 405, 408, 409, 413, 418, 422, 429, 499, 500, 502, 503, 504, 529, 599];
    for status in statuses.into_iter().chain(errors) {
        let fault = Fault::status(StatusCode::from_u16(status).unwrap());
        let fault = header(header(fault, "location", "http://127.0.0.1:1/elsewhere"), "etag", "\"e\"");
        upstream.set_fault(header(fault, "retry-after", "7"));
        for method in [Method::GET, Method::HEAD] {
            let reply =
                same_both_ways(&upstream, &proxy, "/v1/models", |url| Ask::new(method.clone(), url)).await;
            assert_eq!(reply.status.as_u16(), status);
            assert_eq!(reply.header("location"), Some("http://127.0.0.1:1/elsewhere"));
        }
        let (path, body) = generating("hello").remove(0);
        let through = proxy.post(path, &body).header("cache-control", "no-cache").send().await;
        assert_eq!((through.status.as_u16(), through.header("etag")), (status, Some("\"e\"")));
    }
}

#[tokio::test]
async fn a_head_says_how_long_the_body_would_be() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    let asked = tokio::spawn(Ask::new(Method::HEAD, &format!("{}/v1/models", proxy.url())).send());
    let mut server = Wire::accept(&listener).await;
    assert!(server.head().await.starts_with("HEAD /v1/models HTTP/1.1\r\n"));
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nContent-Type: x/y\r\n\r\n").await;
    let reply = soon(asked).await.unwrap();
    assert_eq!((reply.header("content-length"), reply.body.len()), (Some("1234"), 0));

    // The connection is as good as before, on both sides.
    let asked = tokio::spawn(Ask::get(&format!("{}/x", proxy.url())).header("if-none-match", "\"e\"").send());
    assert!(server.head().await.contains("if-none-match: \"e\"\r\n"));
    server.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"e\"\r\n\r\n").await;
    let reply = soon(asked).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("etag"), reply.body.len()), (304, Some("\"e\""), 0));
}

#[tokio::test]
async fn headers_travel_as_they_are_and_those_of_a_hop_do_not() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    let mut client = Wire::open(proxy.address()).await;
    client
        .send(
            "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nX-Twice: b\r\nX-Twice: a\r\nX-Twice: b\r\n\
             X-Empty:\r\nX-Odd: \u{fc}\tx\r\nAccept-Encoding: gzip, br\r\nUser-Agent: me\r\n\
             Connection: keep-alive, X-Hop, Authorization\r\nX-Hop: 1\r\nAuthorization: Bearer k\r\n\
             Keep-Alive: timeout=5\r\nProxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\n\
             TE: gzip\r\nUpgrade: h2c\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-Rejoinder-Namespace: mine\r\nX-Rejoinder-Made-Up: 1\r\nX-Request-Id: r1\r\nDate: then\r\n\r\n",
        )
        .await;
    let mut server = Wire::accept(&listener).await;
    let head = server.head().await;
    let address = url.strip_prefix("http://").unwrap();
    let mut lines: Vec<_> = head.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_by_key(|line| line.split(':').next().map(str::to_owned));
    let host = format!("host: {address}");
    assert_eq!(
        lines,
        [
            "GET /v1/models HTTP/1.1",
            "accept-encoding: gzip, br",
            "authorization: Bearer k",
            "date: then",
            "forwarded: for=1.2.3.4",
            &host,
            "user-agent: me",
            "x-empty: ",
            "x-forwarded-for: 1.2.3.4",
            "x-odd: \u{fc}\tx",
            "x-request-id: r1",
            "x-twice: b",
            "x-twice: a",
            "x-twice: b",
        ]
    );

    server
        .send(
            "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Odd: \u{fc}\r\n\
             X-Empty:\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Authenticate: Basic\r\nTrailer: x-t\r\nUpgrade: h2c\r\nServer: me\r\nDate: now\r\n\
             Via: 1.1 cdn\r\nAge: 77\r\nX-Rejoinder-Entry: forged\r\nX-Rejoinder-Similarity: 1\r\n\
             Cache-Status: cdn; hit, rejoinder; hit; ttl=9; detail=exact\r\nAccess-Control-Allow-Origin: *\r\n\r\nok",
        )
        .await;
    let head = client.head().await;
    let mut lines: Vec<_> = head.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_by_key(|line| line.split(':').next().map(str::to_owned));
    assert_eq!(
        lines,
        [
            "HTTP/1.1 200 Fine",
            "access-control-allow-origin: *",
            "cache-status: cdn; hit, rejoinder; hit; ttl=9; detail=exact",
            "cache-status: rejoinder; fwd=bypass",
            "content-length: 2",
            "date: now",
            "server: me",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "trailer: x-t",
            "via: 1.1 cdn",
            "x-empty: ",
            "x-odd: \u{fc}",
        ]
    );
    assert_eq!(client.take(2).await, b"ok");
}

#[tokio::test]
async fn upstreams_headers_come_back_on_a_miss_and_cannot_pass_for_ours() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating("which headers?") {
        for body in [body.clone(), streamed(&body)] {
            let fault = header(header(Fault::none(), "x-rejoinder-entry", "forged"), "age", "5");
            let fault = header(header(fault, "x-rejoinder-anything", "forged"), "cache-status", "cdn; hit");
            let fault = header(header(fault, "set-cookie", "a=1"), "set-cookie", "b=2");
            upstream.fault_next(header(fault, "x-ratelimit-remaining-requests", "3"));
            let ask = proxy.post(path, &body).header("cache-control", "no-cache");
            let reply = ask
                .header("x-rejoinder-similarity", "1")
                .header("cache-status", "rejoinder; hit")
                .send()
                .await;
            let statuses: Vec<_> = reply.headers.get_all("cache-status").iter().collect();
            assert_eq!(statuses, ["cdn; hit", "rejoinder; fwd=request; stored"], "{path}");
            assert!(!reply.headers.contains_key("age"));
            assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("x-rejoinder")));
            assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 2);
            assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("3"));
            assert_eq!(reply.header("server"), Some("rejoinder-simulated"));
            let sent = upstream.requests().pop().unwrap();
            assert!(!sent.headers.iter().any(|(name, _)| name.starts_with("x-rejoinder")), "{path}");
        }
    }
}

#[tokio::test]
async fn everything_goes_to_the_one_upstream_whatever_the_target_says() {
    let options = SimulatedOptions { prefix: "/team-a".to_owned(), ..Default::default() };
    let upstream = Simulated::start(options).await.unwrap();
    let proxy = proxy(&upstream).await;
    let host = upstream.address().to_string();
    for (target, arrives) in [
        ("/v1/models", "/team-a/v1/models"),
        ("http://127.0.0.1:1/v1/models", "/team-a/v1/models"),
        ("http://evil.example", "/team-a/"),
        ("http://u:p@evil.example/x?y", "/team-a/x?y"),
        ("//evil.example/x", "/team-a//evil.example/x"),
        ("/@evil.example/", "/team-a/@evil.example/"),
        ("/v1/a..b/...", "/team-a/v1/a..b/..."),
        ("/?..", "/team-a/?.."),
    ] {
        let mut client = Wire::open(proxy.address()).await;
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"))
            .await;
        client.rest().await;
        let sent = upstream.requests().pop().unwrap_or_else(|| panic!("{target}"));
        assert_eq!(sent.uri, arrives, "{target}");
        assert_eq!(sent.header_values("host").collect::<Vec<_>>(), [&host], "{target}");
    }
    let count = upstream.count();
    for target in [
        "/../v1/models",
        "/v1/..",
        "/..;/x",
        "/%2e%2e/x",
        "/.%2E/x",
        "/..%2fx",
        "/a/..%5cx",
        "/a/..\\x",
        "http://evil.example/../x",
    ] {
        let mut client = Wire::open(proxy.address()).await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
        let reply = client.rest().await;
        let above = upstream.requests().iter().any(|request| !request.uri.path().starts_with("/team-a/"));
        assert!(!above, "{target} left the prefix");
        assert!(reply.starts_with("HTTP/1.1 400 "), "{target}: {reply}");
    }
    for request in
        ["CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443", "OPTIONS * HTTP/1.1\r\nHost: h"]
    {
        let mut client = Wire::open(proxy.address()).await;
        client.send(format!("{request}\r\nConnection: close\r\n\r\n")).await;
        assert!(client.rest().await.starts_with("HTTP/1.1 400 "), "{request}");
    }
    assert_eq!(upstream.count(), count);
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut client = Wire::open(proxy.address()).await;
    client.send("PUT /simulated/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    // Each piece comes back before the next is sent.
    for piece in ["first", "second \r\n", "\u{0}third"] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
        client.until(format!("\r\n{piece}\r\n")).await;
    }
    client.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
}

#[tokio::test]
async fn every_event_of_a_stream_comes_at_once() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut all: Vec<_> =
        generating("piece by piece").into_iter().map(|(path, body)| (path, streamed(&body))).collect();
    all.push(("/api/pull", json!({"model": "llama3.2"})));
    for (path, body) in all {
        let separator = if path.starts_with("/api") { "\n" } else { "\n\n" };
        let mut asked = body.clone();
        if matches!(path, "/v1/chat/completions" | "/v1/completions") {
            // As the proxy asks, to know how many bytes of upstream's make so many events.
            asked["stream_options"] = json!({"include_usage": true});
        }
        let direct = Ask::post(&format!("{}{path}", upstream.url()), &asked).send().await;
        let ends: Vec<usize> =
            direct.text().match_indices(separator).map(|(at, found)| at + found.len()).collect();
        for events in [1, 2, ends.len() / 2] {
            let gate = Gate::new();
            upstream.fault_next(Fault::none().gate_after(ends[events - 1], &gate));
            let mut stream = soon(proxy.post(path, &body).header("cache-control", "no-cache").open()).await;
            // Upstream stands still, and all that it has sent comes.
            while stream.text().matches(separator).count() < events {
                soon(stream.next()).await.unwrap().unwrap();
            }
            soon(gate.until_waiting(1)).await;
            gate.open();
            soon(stream.finish()).await.unwrap();
            assert_eq!(streamed_text_of(&stream.text()), streamed_text_of(direct.text()), "{path}");
        }
    }
}

#[tokio::test]
async fn an_expectation_is_answered_before_the_body_is_sent() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for path in ["/api/show", "/v1/chat/completions"] {
        let body = json!({"model": "llama3.2", "messages": [{"role": "user", "content": "hi"}]}).to_string();
        let mut client = Wire::open(proxy.address()).await;
        let length = body.len();
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n"
            ))
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 100 "));
        client.send(&body).await;
        assert!(client.rest().await.starts_with("HTTP/1.1 200 "));
        let sent = upstream.requests().pop().unwrap();
        assert_eq!((sent.body.as_ref(), sent.header("expect")), (body.as_bytes(), None));
    }
    // A request that is refused by its head alone asks for no body.
    let mut client = Wire::open(proxy.address()).await;
    client
        .send(
            "POST /api/chat HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\
             X-Rejoinder-TTL: soon\r\n\r\n",
        )
        .await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn trailers_travel_both_ways() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    let mut client = Wire::open(proxy.address()).await;
    client
        .send(
            "PUT /x HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTrailer: x-sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nX-Other: no\r\n\r\n",
        )
        .await;
    let mut server = Wire::accept(&listener).await;
    let head = server.head().await;
    assert!(head.contains("te: trailers\r\n") && head.contains("trailer: x-sum\r\n"), "{head}");
    assert_eq!(server.until("\r\n\r\n").await.to_ascii_lowercase(), "2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
    server
        .send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check, Cache-Status, X-Rejoinder-Entry\r\n\
             \r\n2\r\nok\r\n0\r\nX-Check: 8\r\nCache-Status: rejoinder; hit\r\nX-Rejoinder-Entry: forged\r\n\r\n",
        )
        .await;
    client.head().await;
    assert_eq!(client.until("\r\n\r\n").await.to_ascii_lowercase(), "2\r\nok\r\n0\r\nx-check: 8\r\n\r\n");
}

#[tokio::test]
async fn a_tunnel_opens_when_upstream_says_so_and_not_before() {
    const ASK: &str = "GET /v1/realtime?model=x HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    let mut client = Wire::open(proxy.address()).await;
    // What the client says too early is not passed on before upstream has agreed.
    client.send([ASK, "early"].concat()).await;
    let mut server = Wire::accept(&listener).await;
    let head = server.head().await;
    assert!(head.starts_with("GET /v1/realtime?model=x HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    assert!(head.contains("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "{head}");
    server
        .send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\nhello")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("x-a: 1\r\n"), "{head}");
    assert_eq!(client.take(5).await, b"hello");
    assert_eq!(server.take(5).await, b"early");
    for round in 0..3 {
        client.send(format!("\u{0}\r\nto {round}")).await;
        assert_eq!(server.take(7).await, format!("\u{0}\r\nto {round}").as_bytes());
        server.send(format!("from {round}")).await;
        assert_eq!(client.take(6).await, format!("from {round}").as_bytes());
    }
    // An end goes through, each way for itself.
    client.half_close().await;
    server.send("last").await;
    drop(server);
    assert_eq!(client.rest().await, "last");
}

#[tokio::test]
async fn no_tunnel_without_upstreams_consent() {
    const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nUpgrade: websocket\r\n\r\nno";
    const SWITCHED: &str =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\ntunnel";
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    let mut client = Wire::open(proxy.address()).await;
    client.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let mut server = Wire::accept(&listener).await;
    server.head().await;
    server.send(REFUSED).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 403 ") && !head.contains("upgrade"), "{head}");
    assert_eq!(client.take(2).await, b"no");
    // Still HTTP: what follows is a request, and one for this path alone.
    client.send("GET /after HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(server.head().await.starts_with("GET /after HTTP/1.1\r\n"));
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "));

    // An upstream that switches although nobody asked for it.
    for ask in ["GET /x", "POST /v1/chat/completions"] {
        let mut client = Wire::open(proxy.address()).await;
        client
            .send(format!("{ask} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
            .await;
        server.head().await;
        server.send(SWITCHED).await;
        let reply = client.rest().await;
        assert!(reply.starts_with("HTTP/1.1 502 ") && !reply.contains("tunnel"), "{reply}");
        server = {
            let mut client = Wire::open(proxy.address()).await;
            client.send("GET /again HTTP/1.1\r\nHost: h\r\n\r\n").await;
            let mut server = Wire::accept(&listener).await;
            server.head().await;
            server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            client.head().await;
            server
        };
    }
}

/// Writes into a connection until nothing goes any more, whatever is waited for, or all of `total` is out.
fn pour(server: &Wire, written: &mut usize, total: usize, piece: &[u8]) {
    while *written < total {
        let sent = server.try_send(&piece[..piece.len().min(total - *written)]);
        if sent == 0 {
            return;
        }
        *written += sent;
    }
}

/// What may be on its way between a writer and a reader who does not read: the buffers of the sockets on both
/// sides of the proxy (4 MiB to send and 6 MiB to receive on Linux), and little in it.
const ON_ITS_WAY: usize = 24 << 20;
const LARGE: usize = 64 << 20;

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    let body = generating("a lot").remove(0).1.to_string();
    for path in ["/large", "/v1/chat/completions"] {
        let length = body.len();
        let request = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut client = Wire::open_small(proxy.address()).await;
        client.send(request).await;
        let mut server = Wire::accept(&listener).await;
        server.until(&body).await;
        server
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {LARGE}\r\n\r\n"
            ))
            .await;
        let piece = vec![b'x'; 64 * 1024];
        let written = std::cell::Cell::new(0);
        let more = || {
            let mut now = written.get();
            pour(&server, &mut now, LARGE, &piece);
            written.set(now);
            now
        };
        let stopped = until_quiet(more).await;
        assert!(stopped < ON_ITS_WAY, "{path}: {stopped} bytes were taken though nobody read");
        assert!(client.head().await.contains(&format!("content-length: {LARGE}\r\n")));
        let mut read = 0;
        while read < LARGE {
            let part = (LARGE - read).min(1 << 20);
            while more() < (read + part).min(LARGE) {
                tokio::task::yield_now().await;
            }
            assert!(client.take(part).await.iter().all(|byte| *byte == b'x'));
            read += part;
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_read_stops_the_upload() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    // Also where the body is read for caching first: beyond the limit it streams.
    for path in ["/upload", "/v1/chat/completions"] {
        let mut client = Wire::open(proxy.address()).await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        let piece = vec![b'x'; 64 * 1024];
        let written = std::cell::Cell::new(0);
        let more = || {
            let mut now = written.get();
            pour(&client, &mut now, LARGE, &piece);
            written.set(now);
            now
        };
        let mut server = Wire::accept(&listener).await;
        assert!(server.head().await.contains(&format!("content-length: {LARGE}\r\n")));
        let stopped = until_quiet(more).await;
        assert!(stopped < ON_ITS_WAY, "{path}: {stopped} bytes were taken though nobody read");
        let mut read = 0;
        while read < LARGE {
            let part = (LARGE - read).min(1 << 20);
            while more() < (read + part).min(LARGE) {
                tokio::task::yield_now().await;
            }
            assert!(server.take(part).await.iter().all(|byte| *byte == b'x'));
            read += part;
        }
        server.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 204 "));
    }
}

#[tokio::test]
async fn an_answer_before_the_uploads_end_is_given_at_once() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    let mut client = Wire::open(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nbegun").await;
    let mut server = Wire::accept(&listener).await;
    server.until("\r\n\r\nbegun").await;
    server.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!").await;
    assert!(client.head().await.starts_with("HTTP/1.1 413 "));
    assert_eq!(client.take(3).await, b"no!");
}

#[tokio::test]
async fn what_is_no_request_known_here_goes_through_untouched_and_uncached() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.limits.max_request_bytes.0 = 100_000).await;
    let long =
        json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(200_000)}]}).to_string();
    let deep = format!("{{\"model\":\"m\",\"messages\":{}{}}}", "[".repeat(40_000), "]".repeat(40_000));
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"not JSON".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"{".to_vec(),
        b"{\"model\":\"m\"} trailing".to_vec(),
        b"{\"model\":\"m\",\"model\":\"n\",\"prompt\":\"x\"}".to_vec(),
        b"{\"Model\":\"m\",\"prompt\":\"x\",\"stream\":false}".to_vec(),
        b"{\"model\":\"m\",\"messages\":\"odd\",\"prompt\":{\"odd\":1},\"input\":7}".to_vec(),
        b"{\"model\":\"m\",\"prompt\":\"x\",\"input\":\"x\",\"seed\":1e400}".to_vec(),
        "\u{feff}{\"model\":\"m\",\"prompt\":\"x\"}".into(),
        deep.into(),
        long.into(),
    ];
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/api/generate",
        "/api/chat",
    ] {
        for body in &bodies {
            for round in 0..2 {
                let before = upstream.count();
                let url = format!("{}{path}", proxy.url());
                let ask = Ask::post_bytes(&url, body.clone()).header("content-type", "application/json");
                let reply = soon(ask.send()).await;
                let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
                assert_eq!(reply.cache_status(), "rejoinder; fwd=bypass", "{path} {shown} {round}");
                assert_eq!(upstream.count(), before + 1, "{path} {shown}");
                let sent = upstream.requests().pop().unwrap();
                assert!(sent.body == body.as_slice(), "{path} {shown}");
            }
        }
    }
    // A body in a content coding is not for the proxy to open.
    for (path, body) in generating("encoded") {
        for _ in 0..2 {
            let url = format!("{}{path}", proxy.url());
            let reply =
                Ask::post_bytes(&url, body.to_string()).header("content-encoding", "identity").send().await;
            assert_eq!(reply.cache_status(), "rejoinder; fwd=bypass");
            let sent = upstream.requests().pop().unwrap();
            assert_eq!(sent.header("content-encoding"), Some("identity"));
            assert_eq!(sent.body, body.to_string());
        }
    }
}

#[tokio::test]
async fn a_request_of_unknown_length_is_cached_like_any_other() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = generating("in chunks").remove(0).1.to_string();
    for status in ["fwd=miss; stored; detail=no-candidate", "hit; "] {
        let mut client = Wire::open(proxy.address()).await;
        client
            .send("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
            .await;
        for piece in body.as_bytes().chunks(7) {
            client.send(format!("{:x};ext=1\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece))).await;
        }
        client.send("0\r\n\r\n").await;
        let reply = client.rest().await;
        assert!(reply.contains(&format!("cache-status: rejoinder; {status}")), "{reply}");
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn what_frames_a_body_upstream_is_one_header_and_the_right_one() {
    let (listener, url) = listener().await;
    let proxy = proxy_to(&url, |_| {}).await;
    for (request, framing, arrives) in [
        ("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "content-length: 0", ""),
        ("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", "content-length: 2", "hi"),
        ("GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", "content-length: 2", "hi"),
        (
            "GET /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "transfer-encoding: chunked",
            "2\r\nhi\r\n0\r\n\r\n",
        ),
        (
            "DELETE /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "transfer-encoding: chunked",
            "2\r\nhi\r\n0\r\n\r\n",
        ),
        ("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", "", ""),
        ("DELETE /x HTTP/1.1\r\nHost: h\r\n\r\n", "", ""),
        // Whatever a client says of its connection, what frames the body stays.
        (
            "POST /x HTTP/1.1\r\nHost: h\r\nConnection: Content-Length, Host\r\nContent-Length: 2\r\n\r\nhi",
            "content-length: 2",
            "hi",
        ),
    ] {
        let mut client = Wire::open(proxy.address()).await;
        client.send(request).await;
        let mut server = Wire::accept(&listener).await;
        let head = server.head().await;
        let framed: Vec<_> =
            head.lines().filter(|l| l.starts_with("content-length") || l.starts_with("transfer")).collect();
        let expected: Vec<_> = Some(framing).filter(|framing| !framing.is_empty()).into_iter().collect();
        assert_eq!(framed, expected, "{request:?}");
        assert_eq!(server.take(arrives.len()).await, arrives.as_bytes());
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(server.rest().await, "", "{request:?}: more than the body");
    }
}

#[tokio::test]
async fn an_old_client_gets_no_chunks() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (path, body) in generating("from the past") {
        let body = streamed(&body).to_string();
        for kind in ["fwd=miss", "hit"] {
            let mut client = Wire::open(proxy.address()).await;
            client
                .send(format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
                .await;
            let reply = client.rest().await;
            let (head, content) = reply.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("rejoinder; {kind}")) && !head.contains("chunked"),
                "{path}: {head}"
            );
            assert!(streamed_text_of(content).contains("from the past"), "{path}: {content}");
        }
        assert_eq!(upstream.requests().pop().unwrap().header_values("host").count(), 1);
    }
}

#[tokio::test]
async fn content_codings_pass_as_they_came() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for encoding in encodings::ALL {
        upstream.set_fault(Fault::none().encoded(encoding));
        let reply = same_both_ways(&upstream, &proxy, "/v1/models", |url| {
            Ask::get(url).header("accept-encoding", encoding.name)
        })
        .await;
        assert_eq!(reply.headers[CONTENT_ENCODING], encoding.name);
        let fixed = Fault::body("application/json", "{\"not\": \"for us\"}").encoded(encoding);
        upstream.set_fault(fixed.clone());
        for (path, body) in generating("coded") {
            for body in [body.clone(), streamed(&body)] {
                same_both_ways(&upstream, &proxy, path, |url| {
                    Ask::post(url, &body)
                        .header("accept-encoding", encoding.name)
                        .header("cache-control", "no-store")
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn connections_are_used_again_on_both_sides() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut connection = Connection::open(proxy.address()).await.unwrap();
    for number in 0..5 {
        let (path, body) = generating(&format!("number {number}")).remove(number);
        for body in [body.clone(), streamed(&body), body] {
            let reply = connection.send(proxy.post(path, &body)).await.unwrap();
            assert_eq!(reply.status, StatusCode::OK);
        }
        let models = connection.send(Ask::get(&format!("{}/v1/models", proxy.url()))).await.unwrap();
        assert_eq!(models.status, StatusCode::OK);
        upstream.set_fault(Fault::status(StatusCode::BAD_REQUEST));
        let refused = connection.send(proxy.post("/v1/chat/completions", &json!([]))).await.unwrap();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        upstream.set_fault(Fault::none());
    }
    assert_eq!(upstream.connections(), 1);
}

type H2 = http2::SendRequest<Full<Bytes>>;

async fn h2(proxy: &Proxy) -> H2 {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask_h2(sender: &mut H2, request: http::request::Builder, body: impl Into<Bytes>) -> Reply {
    let response = soon(sender.send_request(request.body(Full::new(body.into())).unwrap())).await.unwrap();
    let (head, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap();
    let trailers = body.trailers().cloned();
    Reply { status: head.status, headers: head.headers, body: body.to_bytes(), trailers }
}

#[tokio::test]
async fn clients_of_http2_get_the_same() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut client = h2(&proxy).await;
    let url = |path: &str| format!("http://evil.example{path}");
    let models = ask_h2(&mut client, Request::get(url("/v1/models?x=%20")), "").await;
    assert_eq!(models.body, Ask::get(&format!("{}/v1/models", upstream.url())).send().await.body);
    let sent = &upstream.requests()[0];
    assert_eq!(sent.uri, "/v1/models?x=%20");
    assert_eq!(sent.header_values("host").collect::<Vec<_>>(), [upstream.address().to_string()]);

    for (path, body) in generating("over HTTP/2") {
        for body in [body.clone(), streamed(&body)] {
            let body = body.to_string();
            let post = || Request::post(url(path)).header("cookie", "a=1").header("cookie", "b=2");
            let first = ask_h2(&mut client, post(), body.clone()).await;
            let sent = upstream.requests().pop().unwrap();
            // Cookies divided for compression are one again (RFC 9113 §8.2.3).
            assert_eq!(sent.header_values("cookie").collect::<Vec<_>>(), ["a=1; b=2"], "{path}");
            let count = upstream.count();
            let over_h1 =
                Ask::post_bytes(&format!("{}{path}", proxy.url()), body).header("cookie", "a=1; b=2");
            let second = over_h1.send().await;
            assert_eq!(second.layer(), Some("exact"), "{path}: {first:?}");
            assert_eq!(upstream.count(), count);
            assert_eq!(first.status, StatusCode::OK);
        }
    }
    // A body streams, and a cut is one here too.
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(300, &gate).close_after(400));
    let body = streamed(&generating("cut").remove(0).1).to_string();
    let request = Request::post(url("/v1/chat/completions")).body(Full::new(body.into())).unwrap();
    let mut body = soon(client.send_request(request)).await.unwrap().into_body();
    soon(gate.until_waiting(1)).await;
    gate.open();
    let end = loop {
        match soon(body.frame()).await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(_))), "a clean end of a cut stream");
    // The connection is none the worse.
    upstream.set_fault(Fault::none());
    assert_eq!(ask_h2(&mut client, Request::get(url("/api/tags")), "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn many_streams_of_one_http2_connection_do_not_wait_for_each_other() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut client = h2(&proxy).await;
    let gate = Gate::new();
    upstream.fault_next(Fault::none().gate(&gate));
    let slow = generating("slow").remove(0).1.to_string();
    let request = Request::post("http://h/v1/chat/completions").body(Full::new(slow.into())).unwrap();
    let slow = tokio::spawn(client.send_request(request));
    soon(gate.until_waiting(1)).await;
    let quick = generating("quick").remove(0).1.to_string();
    let quick = ask_h2(&mut client, Request::post("http://h/v1/chat/completions"), quick).await;
    assert_eq!(quick.status, StatusCode::OK);
    gate.open();
    assert_eq!(soon(slow).await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_reply_with_two_framings_is_framed_once() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let replies = [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
    ];
    let body = generating("framing").remove(0).1;
    for reply in replies {
        upstream.set_fault(Fault::raw(reply));
        let asks = [Ask::get(&format!("{}/x", proxy.url())), proxy.post("/v1/chat/completions", &body)];
        for ask in asks {
            let got = soon(ask.try_send()).await.unwrap_or_else(|error| panic!("{reply:?}: {error}"));
            assert_eq!((got.status, got.text()), (StatusCode::OK, "hello"), "{reply:?}");
            let framings = got.headers.get_all("content-length").iter().count()
                + got.headers.get_all("transfer-encoding").iter().count();
            assert_eq!(framings, 1, "{reply:?}: {:?}", got.headers);
        }
    }
    let refused = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n folded\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 5\r\n\r\nhello",
        "\u{0}\u{1} garbage\r\n\r\n",
        "HTTP/0.9\r\n\r\n",
    ];
    for reply in refused {
        upstream.set_fault(Fault::raw(reply));
        let asks = [Ask::get(&format!("{}/x", proxy.url())), proxy.post("/v1/chat/completions", &body)];
        for ask in asks {
            let got = soon(ask.send()).await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{reply:?}: {got:?}");
        }
    }
}
