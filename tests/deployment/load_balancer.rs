//! The load balancer of `deploy/`, as it lies there but for addresses, in front of two replicas: it passes on what it is
//! given as it comes, and a replica that stops, or an upstream that is away, costs no more than it must.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::deployment::{deploy, program, run_program};
use crate::support::{
    Ask, Connection, Fault, Gate, Proxy, Simulated, proxy, proxy_with, soon, streamed, upstream,
};

fn balancer_settings() -> String {
    std::fs::read_to_string(deploy().join("haproxy/haproxy.cfg")).unwrap()
}

#[tokio::test]
async fn haproxy_accepts_its_configuration_and_refuses_a_misspelt_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    let right = balancer_settings();
    for (text, accepted) in
        [(right.clone(), true), (right.replace("balance leastconn", "balance leastcon"), false)]
    {
        std::fs::write(&file, text).unwrap();
        let mut command = program("haproxy");
        command.arg("-c").arg("-f").arg(&file);
        let (valid, said) = run_program(command).await;
        assert_eq!(valid, accepted, "{said}");
        assert!(!said.contains("[WARNING]"), "{said}");
    }
}

/// The load balancer in front of replicas.
struct Balancer {
    url: String,
    /// What it says of itself, which is all but its line for each request.
    log: UnboundedReceiver<String>,
    _process: Child,
    _folder: TempDir,
}

/// The log is read all the time: what `HAProxy` cannot write at once, it drops.
fn lines_but_requests(log: ChildStdout) -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        let mut lines = BufReader::new(log).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if !line.contains(" HTTP/1.1\"") && sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A port that nobody listens on now. Somebody could take it before it is used: then the test fails to start.
fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Replaces all of what must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

impl Balancer {
    /// The configuration as it lies in `deploy/`, with the replicas' addresses in the place of their name.
    async fn start(replicas: &[&Proxy]) -> Self {
        let (port, health) = (free_port(), free_port());
        let servers: Vec<_> = replicas
            .iter()
            .enumerate()
            .map(|(number, replica)| {
                format!(
                    "server replica{number} {} port {}",
                    replica.address(),
                    replica.admin_address().port()
                )
            })
            .collect();
        let mut text = balancer_settings();
        for (from, to) in [
            // A developer's machine may not allow as many open files.
            ("maxconn 5000", "maxconn 100".to_owned()),
            ("bind :11435", format!("bind 127.0.0.1:{port}")),
            ("bind 127.0.0.1:11437", format!("bind 127.0.0.1:{health}")),
            ("server-template replica 16 rejoinder:11435", servers.join("\n    ")),
            (" resolvers names init-addr none", String::new()),
        ] {
            text = replaced(&text, from, &to);
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let mut command = program("haproxy");
        let command = command.arg("-db").arg("-f").arg(&file).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process =
            command.spawn().unwrap_or_else(|error| panic!("haproxy: {error}; scripts/test installs it"));
        let log = lines_but_requests(process.stdout.take().unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listens = async {
            while Connection::open(address).await.is_err() {
                assert!(process.try_wait().unwrap().is_none(), "haproxy ended");
                tokio::task::yield_now().await;
            }
        };
        soon(listens).await;
        Self { url: format!("http://{address}"), log, _process: process, _folder: folder }
    }

    fn ask(&self, prompt: &str) -> (Ask, Value) {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]});
        (Ask::post(&format!("{}/v1/chat/completions", self.url), &body), body)
    }

    /// Waits until it says this in its log.
    async fn until_said(&mut self, what: &str) {
        let said = async { while !self.log.recv().await.expect("more of the log").contains(what) {} };
        soon(said).await;
    }
}

async fn two_replicas(upstream: &Simulated) -> (Proxy, Proxy) {
    (proxy(upstream).await, proxy(upstream).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_balancer_uses_every_replica_and_changes_no_reply() {
    let upstream = upstream().await;
    let (one, two) = two_replicas(&upstream).await;
    let balancer = Balancer::start(&[&one, &two]).await;
    // A store of its own each: what was answered by one is a miss at the other.
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let reply = balancer.ask("the same").0.send().await;
        assert_eq!(reply.status, StatusCode::OK);
        statuses.push(reply.cache_status().split(';').nth(1).unwrap().trim().to_owned());
    }
    assert_eq!(statuses.iter().filter(|status| *status == "fwd=miss").count(), 2, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| *status == "hit").count(), 6, "{statuses:?}");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_balancer_passes_streams_on_as_they_come() {
    let upstream = upstream().await;
    let (one, two) = two_replicas(&upstream).await;
    let balancer = Balancer::start(&[&one, &two]).await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(300, &gate));
    let (_, body) = balancer.ask("a stream");
    let mut stream =
        Ask::post(&format!("{}/v1/chat/completions", balancer.url), &streamed(&body)).open().await;
    // The upstream waits for the gate, so these bytes can only have come by themselves.
    soon(stream.until("chat.completion.chunk")).await;
    assert!(!stream.text().contains("[DONE]"));
    gate.open();
    soon(stream.finish()).await.unwrap();
    assert!(stream.text().contains("[DONE]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_stops_the_model_through_the_load_balancer_too() {
    let upstream = upstream().await;
    let (one, two) = two_replicas(&upstream).await;
    let balancer = Balancer::start(&[&one, &two]).await;
    // In the middle of a stream, and before anything was answered.
    for (number, fault) in [Fault::none().gate_after(300, &Gate::new()), Fault::none().gate(&Gate::new())]
        .into_iter()
        .enumerate()
    {
        upstream.set_fault(fault);
        let (ask, body) = balancer.ask(&format!("leaving {number}"));
        if number == 0 {
            let ask = Ask::post(&format!("{}/v1/chat/completions", balancer.url), &streamed(&body));
            let mut stream = ask.open().await;
            soon(stream.until("chat.completion.chunk")).await;
            drop(stream);
        } else {
            let waiting = tokio::spawn(ask.try_send());
            soon(upstream.until_count(number + 1)).await;
            waiting.abort();
        }
        soon(upstream.until_abandoned(number + 1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_costs_no_request() {
    let upstream = upstream().await;
    // The load balancer asks every second, and believes the second answer; a busy machine gets more.
    let one = proxy_with(&upstream, |config| config.timeouts.notice = Duration::from_secs(8)).await;
    let two = proxy(&upstream).await;
    let mut balancer = Balancer::start(&[&one, &two]).await;
    let stopped = Arc::new(AtomicBool::new(false));
    let address = balancer.url.strip_prefix("http://").unwrap().parse().unwrap();
    let asking: Vec<_> = (0..4)
        .map(|client| {
            let (ask, _) = balancer.ask(&format!("{client} asks"));
            let stopped = Arc::clone(&stopped);
            // Two on a connection for all, two on one for each.
            tokio::spawn(async move {
                let mut kept = Connection::open(address).await.unwrap();
                let mut asked = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let ask = ask.clone();
                    let reply = if client < 2 {
                        kept.send(ask).await.unwrap()
                    } else {
                        ask.try_send().await.unwrap()
                    };
                    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    soon(upstream.until_count(4)).await;
    soon(one.shutdown()).await;
    stopped.store(true, Ordering::Relaxed);
    for client in asking {
        assert!(soon(client).await.unwrap() > 100);
    }
    balancer.until_said("Server ready/replica0 is DOWN").await;
    assert_eq!(balancer.ask("afterwards").0.send().await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_served_while_upstream_is_away() {
    let upstream = upstream().await;
    let (one, two) = two_replicas(&upstream).await;
    let mut balancer = Balancer::start(&[&one, &two]).await;
    for _ in 0..4 {
        assert_eq!(balancer.ask("kept").0.send().await.status, StatusCode::OK);
    }
    upstream.stop_listening().await.unwrap();
    balancer.until_said("backend ready has no server available").await;
    for _ in 0..4 {
        let reply = balancer.ask("kept").0.send().await;
        assert_eq!(reply.layer(), Some("exact"), "{}", reply.text());
    }
    // And what is not stored gets an error in the dialect of the client.
    let reply = balancer.ask("new").0.send().await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert!(reply.json()["error"]["message"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_replica_clients_get_an_error_that_they_can_read() {
    let upstream = upstream().await;
    let (one, two) = two_replicas(&upstream).await;
    let balancer = Balancer::start(&[&one, &two]).await;
    one.shutdown().await;
    two.shutdown().await;
    let reply = balancer.ask("nobody").0.send().await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.json()["error"]["type"], "server_error");
}
