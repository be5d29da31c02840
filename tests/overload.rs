//! Under more than it can do the program still answers whom it can, and its memory stays what the configuration says:
//! measured from outside, on a process of its own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::items_after_statements,
    clippy::too_many_lines,
    reason = "helpers of tests fail the test"
)]

mod support;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderValue};
use serde_json::Value;
use support::program::{file, rejoinder};
use support::wire::listener;
use support::{Ask, Connection, Fault, Wire, encodings, generating, soon, streamed, upstream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

const MEBIBYTE: usize = 1 << 20;
const CHAT: &str = "/v1/chat/completions";

/// A running `rejoinder serve`.
struct Program {
    child: Child,
    clients: SocketAddr,
    admin: SocketAddr,
    _config: tempfile::NamedTempFile,
}

impl Program {
    async fn start(upstream: &str, config: &str) -> Self {
        let config = file(".toml", &format!("[log]\nrequests = false\n{config}"));
        let path = config.path().to_str().unwrap();
        let free = "127.0.0.1:0";
        let arguments = ["serve", "--listen", free, "--admin-listen", free, "--upstream", upstream];
        let mut command = rejoinder(&[&arguments[..], &["--embedder", "off", "--config", path]].concat());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut addresses = Vec::new();
        while addresses.len() < 2 {
            let line = soon(log.next_line()).await.unwrap().unwrap_or_else(|| panic!("it does not start"));
            let line: Value = serde_json::from_str(&line).unwrap();
            addresses.extend(line["address"].as_str().map(|address| address.parse::<SocketAddr>().unwrap()));
        }
        // Nobody else reads what it says; a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { child, clients: addresses[0], admin: addresses[1], _config: config }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.clients)
    }

    /// A line of its `/proc/PID/status`, in bytes.
    fn status(&self, name: &str) -> usize {
        let id = self.child.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Its resident memory.
    fn memory(&self) -> usize {
        self.status("VmRSS")
    }

    /// The most that its resident memory has ever been.
    fn peak(&self) -> usize {
        self.status("VmHWM")
    }

    /// How many connections of clients it says that it has.
    async fn connections(&self) -> usize {
        let metrics = Ask::get(&format!("http://{}/metrics", self.admin)).send().await;
        let text = metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix("rejoinder_client_connections ")).unwrap();
        line.parse().unwrap()
    }
}

/// How many files this process, and so its children, may have open.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}

#[tokio::test]
async fn thousands_of_connections_cost_little_and_keep_nobody_out() {
    const WANTED: usize = 5000;
    let count = WANTED.min(files().saturating_sub(300) * 9 / 10);
    if count < WANTED {
        eprintln!("only {count} of {WANTED} connections are tried: ulimit -n is {}", files());
    }
    let upstream = upstream().await;
    let program = Program::start(&upstream.url(), "[timeouts]\nrequest_head = \"10m\"").await;
    let (path, body) = generating("stored").remove(0);
    let hit = || Ask::post(&program.url(path), &body);
    assert_eq!(hit().send().await.status, StatusCode::OK);
    let before = program.memory();
    let mut open = Vec::new();
    let request = hit_bytes(&body);
    for index in 0..count {
        let mut stream = soon(TcpStream::connect(program.clients)).await.unwrap();
        match index % 4 {
            0 => {}
            // In the middle of a head, and of a body.
            1 => stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHo").await.unwrap(),
            2 => stream.write_all(&request[..request.len() - 9]).await.unwrap(),
            // Kept alive after a hit.
            _ => {
                stream.write_all(&request).await.unwrap();
                let mut read = [0; 2048];
                assert!(soon(stream.read(&mut read)).await.unwrap() > 0);
                assert!(read.starts_with(b"HTTP/1.1 200 "));
            }
        }
        open.push(stream);
    }
    let counted = async {
        while program.connections().await < count {
            tokio::task::yield_now().await;
        }
    };
    soon(counted).await;
    let each = program.memory().saturating_sub(before) / count;
    assert!(each < 40 * 1024, "{each} bytes a connection");
    assert_eq!(soon(hit().send()).await.layer(), Some("exact"));
    for (path, body) in generating("among thousands") {
        assert_eq!(soon(Ask::post(&program.url(path), &body).send()).await.status, StatusCode::OK);
    }
    for path in ["/healthz", "/readyz"] {
        let reply = soon(Ask::get(&format!("http://{}{path}", program.admin)).send()).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
    }
    drop(open);
    let gone = async {
        while program.connections().await > 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(gone).await;
}

fn hit_bytes(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("POST {CHAT} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Reads all that comes and answers each request with this, once its body has come.
async fn answers(listener: TcpListener, reply: String) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let reply = reply.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 256 * 1024];
            let mut tail = Vec::new();
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                tail.extend_from_slice(&buffer[read.saturating_sub(5)..read]);
                tail.drain(..tail.len().saturating_sub(5));
                if tail == b"0\r\n\r\n" {
                    let _ = stream.write_all(reply.as_bytes()).await;
                    return;
                }
            }
        });
    }
}

#[tokio::test]
async fn bodies_of_100_megabytes_pass_in_little_memory() {
    let (listener, url) = listener().await;
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    tokio::spawn(answers(listener, reply.to_owned()));
    let program = Program::start(&url, "[limits]\nmax_buffer_bytes = \"16MiB\"").await;
    let before = program.memory();
    let uploads: Vec<_> = [CHAT, "/api/show", CHAT, "/v1/files", CHAT, CHAT]
        .into_iter()
        .map(|path| {
            let address = program.clients;
            tokio::spawn(async move {
                let mut client = Wire::open(address).await;
                // By chunks, so that nobody knows how much is to come.
                client
                    .send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"))
                    .await;
                let piece = format!("{MEBIBYTE:x}\r\n{}\r\n", " ".repeat(MEBIBYTE));
                for _ in 0..100 {
                    client.send(&piece).await;
                }
                client.send("0\r\n\r\n").await;
                let head = client.head().await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
            })
        })
        .collect();
    for upload in uploads {
        upload.await.unwrap();
    }
    let grown = program.peak().saturating_sub(before) / MEBIBYTE;
    assert!(grown < 48, "{grown} MiB more");
}

#[tokio::test]
async fn readers_that_do_not_read_cost_little_memory() {
    let (listener, url) = listener().await;
    let config = "[timeouts]\nidle = \"2s\"\n[limits]\nmax_buffer_bytes = \"16MiB\"";
    let program = Program::start(&url, config).await;
    let before = program.memory();
    let mut clients = Vec::new();
    let mut pours = Vec::new();
    for (index, (path, media_type)) in [
        (CHAT, "text/event-stream"),
        (CHAT, "application/json"),
        ("/x", "text/html"),
        ("/api/chat", "application/x-ndjson"),
        ("/api/pull", "application/x-ndjson"),
        ("/v1/messages", "text/event-stream"),
    ]
    .into_iter()
    .enumerate()
    {
        let all = generating(&format!("slow {index}"));
        let body =
            all.into_iter().find(|(known, _)| *known == path).map(|(_, body)| body).unwrap_or_default();
        let body = if media_type == "application/json" {
            body
        } else if body.is_null() {
            Value::Null
        } else {
            streamed(&body)
        };
        let body = body.to_string();
        let mut client = Wire::open_small(program.clients).await;
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        clients.push(client);
        let mut server = Wire::accept(&listener).await;
        server.head().await;
        pours.push(tokio::spawn(async move {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            server.send(head).await;
            let piece = format!("{MEBIBYTE:x}\r\n{}\r\n", "x".repeat(MEBIBYTE));
            for _ in 0..100 {
                // In the end the reader is given up.
                if server.write(piece.as_bytes()).await.is_err() {
                    return;
                }
            }
            panic!("{media_type}: all was taken though nobody read");
        }));
    }
    for pour in pours {
        soon(pour).await.unwrap();
    }
    let grown = program.peak().saturating_sub(before) / MEBIBYTE;
    assert!(grown < 64, "{grown} MiB more");
    drop(clients);
}

#[tokio::test]
async fn bombs_are_defused_in_little_memory() {
    let upstream = upstream().await;
    let program = Program::start(&upstream.url(), "").await;
    let (path, body) = generating("bomb").remove(0);
    soon(Ask::post(&program.url(path), &body).send()).await;
    let before = program.memory();
    for (coding, bomb) in encodings::bombs() {
        for (body, media_type) in [(body.clone(), "application/json"), (streamed(&body), "text/event-stream")]
        {
            let fault = Fault::body(media_type, bomb.clone());
            upstream.set_fault(fault.header(CONTENT_ENCODING, HeaderValue::from_static(coding)));
            let ask = Ask::post(&program.url(path), &body).header("accept-encoding", coding);
            let reply = soon(ask.header("cache-control", "no-cache").send()).await;
            assert!(reply.status == StatusCode::OK && reply.body == bomb, "{coding}");
        }
        let grown = program.peak().saturating_sub(before) / MEBIBYTE;
        assert!(grown < 80, "{grown} MiB more after {coding} of {} bytes", bomb.len());
    }
}

#[tokio::test]
async fn hits_and_operators_are_answered_when_upstream_is_full_and_slow() {
    let (listener, url) = listener().await;
    let config = "[limits]\nmax_upstream_requests = 4\nmax_queued_requests = 8\n[timeouts]\nqueue = \"5m\"";
    let program = Program::start(&url, config).await;
    let (path, body) = generating("stored").remove(0);
    // The reply to what will be a hit.
    let stored = tokio::spawn(Ask::post(&program.url(path), &body).send());
    let mut server = Wire::accept(&listener).await;
    server.until(&body.to_string()).await;
    let document = r#"{"id":"c","object":"chat.completion","created":1,"model":"llama3.2","choices":[{"index":0,"message":{"role":"assistant","content":"kept"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{document}",
            document.len()
        ))
        .await;
    assert!(soon(stored).await.unwrap().cache_status().contains("stored"));
    // Upstream takes requests and answers none.
    let mut waiting = Vec::new();
    for index in 0..12 {
        let (path, body) = generating(&format!("waits {index}")).remove(index % 6);
        waiting.push(tokio::spawn(Ask::post(&program.url(path), &body).send()));
    }
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(Wire::accept(&listener).await);
    }
    // When the queue is full, all else is refused at once.
    let (_, over) = generating("one too many").remove(0);
    let refused = async {
        let mut attempts = Vec::new();
        loop {
            let mut attempt =
                tokio::spawn(Ask::post(&program.url(path), &over).header("cache-control", "no-cache").send());
            match tokio::time::timeout(Duration::from_millis(200), &mut attempt).await {
                Ok(reply) => return (reply.unwrap(), attempts),
                Err(_) => attempts.push(attempt),
            }
        }
    };
    let (refused, _attempts) = soon(refused).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    let mut connection = Connection::open(program.clients).await.unwrap();
    for _ in 0..200 {
        let hit = soon(connection.send(Ask::post(&program.url(path), &body))).await.unwrap();
        assert_eq!(hit.layer(), Some("exact"));
    }
    for path in ["/healthz", "/metrics", "/entries"] {
        let reply = soon(Ask::get(&format!("http://{}{path}", program.admin)).send()).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
    }
    drop(servers);
    for asked in waiting {
        asked.abort();
    }
}
