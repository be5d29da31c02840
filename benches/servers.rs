//! The servers that stand beside the proxy in a benchmark: the simulated upstream, a bare hyper server that answers the
//! bytes of a hit, and a vector database without vectors for the rival that needs one. `scripts/bench` starts them; alone they measure nothing.
//!
//! ```text
//! servers upstream ADDRESS [PAUSE_MS]   a model server without a model; PAUSE_MS between the pieces of a stream
//! servers bare ADDRESS REPLY            the reply in the file REPLY to every request: header lines, an empty
//!                                       line, the body; a line `transfer-encoding: chunked` streams it
//! servers vectors ADDRESS               in the place of a vector database (Qdrant's HTTP API): keeps the point that
//!                                       was put last, and finds it whatever is looked for, as near as can be
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rejoinder::simulated::{Simulated, SimulatedOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.is_empty() {
        println!("these servers are started by scripts/bench");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("servers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["upstream", address] => runtime.block_on(upstream(address.parse()?, Duration::ZERO)),
        ["upstream", address, pause] => {
            runtime.block_on(upstream(address.parse()?, Duration::from_millis(pause.parse()?)))
        }
        ["bare", address, reply] => {
            let reply = std::fs::read(reply).with_context(|| format!("cannot read {reply}"))?;
            runtime.block_on(bare(address.parse()?, Reply::read(&reply)?))
        }
        ["vectors", address] => runtime.block_on(vectors(address.parse()?)),
        _ => bail!("wrong arguments; see the head of benches/servers.rs"),
    }
}

async fn upstream(listen: SocketAddr, pause: Duration) -> anyhow::Result<()> {
    let options =
        SimulatedOptions { listen, delay_between_chunks: pause, remember: 0, ..SimulatedOptions::default() };
    let _server = Simulated::start(options).await?;
    std::future::pending().await
}

/// The one reply of the bare server.
#[derive(Debug, Clone)]
struct Reply {
    headers: HeaderMap,
    body: Bytes,
    chunked: bool,
}

impl Reply {
    fn read(text: &[u8]) -> anyhow::Result<Self> {
        let end = memchr::memmem::find(text, b"\n\n").context("no empty line after the header lines")?;
        let (head, body) = text.split_at(end);
        let mut headers = HeaderMap::new();
        for line in std::str::from_utf8(head)?.lines() {
            let (name, value) = line.split_once(": ").context("a header line without `: `")?;
            headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        let chunked = headers.remove(TRANSFER_ENCODING).is_some();
        let body = Bytes::copy_from_slice(body.get(2..).unwrap_or_default());
        Ok(Self { headers, body, chunked })
    }

    fn response(&self) -> Response<OneFrame> {
        let mut response = Response::new(OneFrame { bytes: Some(self.body.clone()), chunked: self.chunked });
        response.headers_mut().clone_from(&self.headers);
        response
    }
}

/// A body of one frame; chunked, hyper does not know its length beforehand.
struct OneFrame {
    bytes: Option<Bytes>,
    chunked: bool,
}

impl Body for OneFrame {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            Some(bytes) if !self.chunked => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

/// What hyper costs by itself: reads the whole request, as a cache must, and answers.
async fn bare(listen: SocketAddr, reply: Reply) -> anyhow::Result<()> {
    let reply = Arc::new(reply);
    serve(listen, move |request: Request<Incoming>| {
        let reply = Arc::clone(&reply);
        async move {
            request.into_body().collect().await?;
            Ok(reply.response())
        }
    })
    .await
}

/// A search that costs nothing: what a cache takes by meaning is then its own.
async fn vectors(listen: SocketAddr) -> anyhow::Result<()> {
    let last = Arc::new(Mutex::new(Value::Null));
    serve(listen, move |request: Request<Incoming>| {
        let last = Arc::clone(&last);
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await?.to_bytes();
            let mut found = json!(true);
            if path.ends_with("/exists") {
                found = json!({"exists": true});
            } else if path.ends_with("/points/search") {
                let payload = last.lock().clone();
                found =
                    if payload.is_null() { json!([]) } else { json!([{"score": 1.0, "payload": payload}]) };
            } else if path.ends_with("/points") {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                *last.lock() = body.pointer("/points/0/payload").cloned().unwrap_or_default();
            }
            let mut response = Response::new(Full::from(json!({"result": found}).to_string()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        }
    })
    .await
}

async fn serve<B, F, A>(listen: SocketAddr, answer: F) -> anyhow::Result<()>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<B>, hyper::Error>> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service_fn(answer.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("servers: a connection ended: {error}");
            }
        });
    }
}
