//! The proxy stops without harm: readiness falls first, nobody new is let in, who is being served is served to the
//! end, and the end comes. (What the program itself does on a signal is tested with the command line.)

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;

use crate::support::{
    Ask, Connection, Fault, Gate, Wire, generating, proxy, proxy_with, soon, streamed, upstream,
};

/// Waits until the readiness probe says 503. It is asked by its address, as an orchestrator does.
async fn until_not_ready(admin: &str) {
    let falls = async {
        while Ask::get(&format!("{admin}/readyz")).send().await.status != StatusCode::SERVICE_UNAVAILABLE {
            tokio::task::yield_now().await;
        }
    };
    soon(falls).await;
}

/// Waits until connections are refused.
async fn until_refused(address: SocketAddr) {
    let refused = async {
        loop {
            match Connection::open(address).await {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    soon(refused).await;
}

#[tokio::test]
async fn who_is_being_served_is_served_to_the_end_and_nobody_else() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let (address, admin) = (proxy.address(), proxy.admin_url());
    assert_eq!(Ask::get(&format!("{admin}/readyz")).send().await.status, StatusCode::OK);
    let mut unused = Wire::open(address).await;
    unused.send("GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n").await;
    unused.head().await;
    let silent = Wire::open(address).await;

    // One of each that is on its way: a stream, a document, one that waits for another's, and one that passes.
    let mut asks = Vec::new();
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(100, &gate));
    for (path, body) in generating("open") {
        for _ in 0..2 {
            asks.push((path, tokio::spawn(proxy.post(path, &streamed(&body)).send())));
        }
    }
    soon(gate.until_waiting(6)).await;
    let (path, body) = generating("before its head").remove(0);
    upstream.set_fault(Fault::none().gate(&gate));
    asks.push((path, tokio::spawn(proxy.post(path, &body).send())));
    asks.push(("/v1/models", tokio::spawn(Ask::get(&format!("{}/v1/models", proxy.url())).send())));
    soon(gate.until_waiting(8)).await;
    // Those that wait for another's are known to have come when they have a connection.
    let connected = async {
        loop {
            let metrics = Ask::get(&format!("{admin}/metrics")).send().await;
            let open = metrics.text().lines().find(|line| line.starts_with("rejoinder_client_connections "));
            if open.is_some_and(|line| line.ends_with(" 16")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(connected).await;

    let stopping = tokio::spawn(proxy.shutdown());
    until_not_ready(&admin).await;
    until_refused(address).await;
    // Whoever is not being served is not kept either.
    unused.rest().await;
    assert_eq!(silent.rest().await, "");
    // The operators still see that it is alive.
    assert_eq!(Ask::get(&format!("{admin}/healthz")).send().await.status, StatusCode::OK);
    assert!(!stopping.is_finished());

    gate.open();
    for (index, (path, ask)) in asks.into_iter().enumerate() {
        let reply = soon(ask).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        let text = reply.text();
        let ends = ["data: [DONE]\n\n", "event: message_stop", "response.completed", "\"done\":true", "}"];
        assert!(ends.iter().any(|end| text.contains(end)), "{path}: {text}");
        // Where the head was not out yet it says that the connection ends, so that no client sends another request.
        if index >= 12 {
            assert_eq!(reply.header("connection"), Some("close"), "{path}");
        }
    }
    soon(stopping).await.unwrap();
    let admin: SocketAddr = admin.strip_prefix("http://").unwrap().parse().unwrap();
    until_refused(admin).await;
    assert_eq!(upstream.abandoned(), 0);
}

/// A load balancer that asks for readiness hears of the end before a connection is refused.
#[tokio::test]
async fn readiness_falls_by_the_notice_before_anybody_is_refused() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.timeouts.notice = Duration::from_hours(1)).await;
    let (url, admin) = (format!("{}/v1/models", proxy.url()), proxy.admin_url());
    let mut connection = Connection::open(proxy.address()).await.unwrap();
    let stopping = tokio::spawn(proxy.shutdown());
    until_not_ready(&admin).await;
    // On a new connection and on one that was there.
    assert_eq!(Ask::get(&url).send().await.status, StatusCode::OK);
    assert_eq!(connection.send(Ask::get(&url)).await.unwrap().status, StatusCode::OK);
    assert!(!stopping.is_finished());
    stopping.abort();
}

#[tokio::test]
async fn an_idle_proxy_stops_at_once() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut connection = Connection::open(proxy.address()).await.unwrap();
    let url = format!("{}/v1/models", proxy.url());
    assert_eq!(connection.send(Ask::get(&url)).await.unwrap().status, StatusCode::OK);
    soon(proxy.shutdown()).await;
    assert!(connection.send(Ask::get(&url)).await.is_err());
}

#[tokio::test]
async fn who_takes_longer_than_may_be_is_cut_off() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.timeouts.drain = Duration::from_millis(100)).await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(100, &gate));
    let (path, body) = generating("for ever").remove(4);
    let mut stream = soon(proxy.post(path, &streamed(&body)).open()).await;
    soon(stream.until_bytes(100)).await;
    soon(proxy.shutdown()).await;
    assert!(soon(stream.finish()).await.is_err(), "a clean end of a stream that was cut");
    // Upstream hears of it too.
    soon(upstream.until_abandoned(1)).await;
}

#[tokio::test]
async fn who_is_not_answered_in_time_hears_so() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.timeouts.drain = Duration::from_millis(300)).await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let mut asks: Vec<_> = generating("never answered")
        .into_iter()
        .map(|(path, body)| (path, tokio::spawn(proxy.post(path, &body).send())))
        .collect();
    asks.push(("/v1/models", tokio::spawn(Ask::get(&format!("{}/v1/models", proxy.url())).send())));
    soon(gate.until_waiting(asks.len())).await;
    soon(proxy.shutdown()).await;
    for (path, ask) in asks {
        let reply = soon(ask).await.unwrap();
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!((reply.header("retry-after"), reply.header("connection")), (Some("1"), Some("close")));
        assert!(reply.text().contains("shutting down"), "{path}: {}", reply.text());
    }
}
