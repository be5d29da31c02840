//! `rejoinder demo`: the proxy and a simulated upstream in one process, and the cases that show what it does.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::{failed, runtime};
use crate::config::{Config, Log, Upstreams};
use crate::server::Server;
use crate::simulated::{Simulated, SimulatedOptions};

/// Show what it does.
///
/// Starts a simulated upstream, which is no model, and the proxy in this process on free loopback ports, and
/// sends each case as a client would.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Exit codes: 0 each case behaved as stated; 1 one did not, or it could not start; 2 wrong usage."
)]
pub(super) struct Demo {
    /// Leave both serving afterwards, so that curl and a browser can try them; Ctrl-C ends them
    #[arg(long)]
    keep: bool,
}

/// How long the simulated model thinks: as a small model on a good machine would.
const THINKING: Duration = Duration::from_millis(600);
const BETWEEN_CHUNKS: Duration = Duration::from_millis(20);

/// One request, and what must come of it.
struct Case {
    name: &'static str,
    prompt: &'static str,
    stream: bool,
    no_cache: bool,
    expected: Expected,
}

/// What must come of a case.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Exact,
    Semantic,
    Upstream,
}

const QUESTION: &str = "How do I reverse a list in Python?";

const CASES: [Case; 8] = [
    Case { name: "cold", prompt: QUESTION, stream: false, no_cache: false, expected: Expected::Upstream },
    Case { name: "exact hit", prompt: QUESTION, stream: false, no_cache: false, expected: Expected::Exact },
    Case {
        name: "whitespace-normalised hit",
        prompt: "  How do I  reverse a list in Python?\n",
        stream: false,
        no_cache: false,
        expected: Expected::Exact,
    },
    Case {
        name: "paraphrase hit",
        prompt: "What is the way to reverse a Python list?",
        stream: false,
        no_cache: false,
        expected: Expected::Semantic,
    },
    Case {
        name: "look-alike, must not hit",
        prompt: "How do I reverse a list in Ruby?",
        stream: false,
        no_cache: false,
        expected: Expected::Upstream,
    },
    Case {
        name: "bypass (no-cache)",
        prompt: QUESTION,
        stream: false,
        no_cache: true,
        expected: Expected::Upstream,
    },
    Case {
        name: "streaming hit",
        prompt: QUESTION,
        stream: true,
        no_cache: false,
        expected: Expected::Exact,
    },
    Case {
        name: "streaming paraphrase hit",
        prompt: "How can I reverse a list in Python?",
        stream: true,
        no_cache: false,
        expected: Expected::Semantic,
    },
];

/// What came of a case.
struct Observed {
    cache_status: String,
    similarity: Option<String>,
    first_byte: Duration,
    total: Duration,
    text: String,
}

impl Demo {
    pub(super) fn run(self) -> ExitCode {
        let demo =
            runtime().context("cannot start the runtime").and_then(|runtime| runtime.block_on(self.demo()));
        match demo {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => failed(&error, 1),
        }
    }

    async fn demo(self) -> anyhow::Result<bool> {
        let options = SimulatedOptions {
            delay_to_first_byte: THINKING,
            delay_between_chunks: BETWEEN_CHUNKS,
            ..SimulatedOptions::default()
        };
        let simulated = Simulated::start(options).await.context("cannot start the simulated upstream")?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            listen: any,
            admin_listen: any,
            upstream: simulated
                .url()
                .parse::<Upstreams>()
                .context("the simulated upstream has no usable address")?,
            log: Log { requests: false, ..Log::default() },
            ..Config::default()
        };
        let server = Server::start(config).await?;
        println!("simulated upstream (no model)  {}", simulated.url());
        println!("rejoinder                      http://{}", server.address());
        println!("admin                          http://{}\n", server.admin_address());
        let passed = run_cases(server.address()).await?;
        if self.keep {
            keep(&server).await?;
        }
        server.shutdown().await;
        Ok(passed)
    }
}

async fn run_cases(proxy: SocketAddr) -> anyhow::Result<bool> {
    println!(
        "{:<26} {:<10} {:<10} {:>10} {:>10} {:>10}",
        "case", "expected", "layer", "similarity", "first byte", "total"
    );
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut fresh = None;
    let mut failures = Vec::new();
    for case in &CASES {
        let observed = send(&client, proxy, case).await.with_context(|| format!("case {:?}", case.name))?;
        let problem = judge(case, &observed, fresh.as_deref());
        println!(
            "{:<26} {:<10} {:<10} {:>10} {:>10} {:>10}  {}",
            case.name,
            case.expected.as_str(),
            layer(&observed.cache_status),
            observed.similarity.as_deref().unwrap_or("-"),
            millis(observed.first_byte),
            millis(observed.total),
            if problem.is_none() { "ok" } else { "FAILED" },
        );
        if let Some(problem) = problem {
            failures.push(format!("{}: {problem} (Cache-Status: {})", case.name, observed.cache_status));
        }
        // From here on a hit must give this reply.
        if case.prompt == QUESTION && case.expected == Expected::Upstream {
            fresh = Some(observed.text);
        }
    }
    if failures.is_empty() {
        println!("\nEach of {} cases behaved as stated.", CASES.len());
    } else {
        println!("\n{} of {} cases did not behave as stated:", failures.len(), CASES.len());
        for failure in &failures {
            println!("  {failure}");
        }
    }
    Ok(failures.is_empty())
}

/// What is wrong with what came of a case. `fresh` is upstream's last reply to the question.
fn judge(case: &Case, observed: &Observed, fresh: Option<&str>) -> Option<String> {
    if layer(&observed.cache_status) != case.expected.as_str() {
        return Some(format!("came from {}", layer(&observed.cache_status)));
    }
    let same = fresh == Some(observed.text.as_str());
    match case.expected {
        Expected::Exact | Expected::Semantic if !same => Some("the reply is not the stored one".to_owned()),
        Expected::Upstream if observed.text.is_empty() => Some("the reply is empty".to_owned()),
        _ => None,
    }
}

impl Expected {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
            Self::Upstream => "upstream",
        }
    }
}

fn layer(cache_status: &str) -> &'static str {
    if cache_status.contains("detail=exact") {
        "exact"
    } else if cache_status.contains("detail=semantic") {
        "semantic"
    } else {
        "upstream"
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

async fn send(
    client: &Client<HttpConnector, Full<Bytes>>,
    proxy: SocketAddr,
    case: &Case,
) -> anyhow::Result<Observed> {
    let body = json!({
        "model": "simulated",
        "messages": [{"role": "user", "content": case.prompt}],
        "stream": case.stream,
    });
    let mut request =
        Request::post(format!("http://{proxy}/v1/chat/completions")).header(CONTENT_TYPE, "application/json");
    if case.no_cache {
        request = request.header(CACHE_CONTROL, "no-cache");
    }
    let started = Instant::now();
    let response = client.request(request.body(Full::from(body.to_string()))?).await?;
    let first_byte = started.elapsed();
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    if !head.status.is_success() {
        bail!("status {}: {}", head.status, String::from_utf8_lossy(&body));
    }
    let text = if case.stream { streamed_text(&body)? } else { whole_text(&body)? };
    let header = |name: &str| header(&head.headers, name);
    Ok(Observed {
        cache_status: header("cache-status").unwrap_or_default(),
        similarity: header("x-rejoinder-similarity"),
        first_byte,
        total: started.elapsed(),
        text,
    })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn whole_text(body: &[u8]) -> anyhow::Result<String> {
    let document: Value = serde_json::from_slice(body).context("the reply is no JSON")?;
    let text = document.pointer("/choices/0/message/content").and_then(Value::as_str);
    Ok(text.context("the reply has no content")?.to_owned())
}

fn streamed_text(body: &[u8]) -> anyhow::Result<String> {
    let body = std::str::from_utf8(body).context("the stream is no UTF-8")?;
    let mut text = String::new();
    for data in body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).context("a chunk is no JSON")?;
        text.push_str(chunk.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or_default());
    }
    Ok(text)
}

/// Serves on until Ctrl-C.
async fn keep(server: &Server) -> anyhow::Result<()> {
    let address = server.address();
    println!("\nStill serving; Ctrl-C ends it. Try, twice, and then reworded:\n");
    println!("  curl -i http://{address}/v1/chat/completions -H 'Content-Type: application/json' \\");
    println!(
        "    -d '{{\"model\": \"simulated\", \"messages\": [{{\"role\": \"user\", \"content\": \"{QUESTION}\"}}]}}'"
    );
    println!("  curl -s http://{}/internal/metrics\n", server.admin_address());
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
}
