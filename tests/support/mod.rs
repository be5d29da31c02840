//! What the tests that drive the program from outside share: a client, encoders, the simulated
//! upstream, the proxy in front of it.
//!
//! The root of each test binary names it a module; the tests take what they need.
#![allow(dead_code, unused_imports, reason = "each test binary takes what it needs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

pub mod client;
pub mod collector;
pub mod deployment;
pub mod encodings;
pub mod exports;
pub mod program;
pub mod promql;
pub mod proxy;
pub mod redis;
pub mod relay;
pub mod said;
pub mod serving;
pub mod traffic;
pub mod wire;

pub use client::{Ask, Connection, Reply, Stream, raw};
pub use collector::Collector;
pub use proxy::{Proxy, fill, proxy, proxy_to, proxy_with, semantic_proxy};
pub use rejoinder::simulated::{Encoding, Fault, Gate, Recorded, Simulated, SimulatedOptions};
pub use said::Said;
pub use traffic::{Report, Traffic, TrafficOptions};
pub use wire::{Wire, soon};

/// A question, and the same in other words.
pub const QUESTION: &str = "What is the capital of France?";
pub const PARAPHRASE: &str = "What is the capital city of France?";

/// An exchange in which upstream's chat completion says this text.
pub fn saying(text: &str) -> Fault {
    let body = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "llama3.2",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    });
    Fault::body("application/json", body.to_string())
}

/// Asks the admin listener for a document until it is as wanted; fails the test where it does not become so.
pub async fn until_admin(
    proxy: &Proxy,
    path: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let url = format!("{}{path}", proxy.admin_url());
    let mut last = serde_json::Value::Null;
    let becoming = async {
        loop {
            last = Ask::get(&url).send().await.json();
            if wanted(&last) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let became = tokio::time::timeout(std::time::Duration::from_mins(1), becoming).await.is_ok();
    assert!(became, "{path} stays {last}");
    last
}

/// A simulated upstream without delays.
pub async fn upstream() -> Simulated {
    Simulated::start(SimulatedOptions::default()).await.unwrap()
}

/// The endpoints that generate, each with a request for it that asks `prompt`, unstreamed.
pub fn generating(prompt: &str) -> Vec<(&'static str, serde_json::Value)> {
    use serde_json::json;
    let messages = json!([{"role": "user", "content": prompt}]);
    vec![
        ("/v1/chat/completions", json!({"model": "llama3.2", "messages": messages, "stream": false})),
        ("/v1/completions", json!({"model": "llama3.2", "prompt": prompt, "stream": false})),
        ("/v1/responses", json!({"model": "llama3.2", "input": prompt, "stream": false})),
        (
            "/v1/messages",
            json!({"model": "llama3.2", "max_tokens": 1024, "messages": messages, "stream": false}),
        ),
        ("/api/generate", json!({"model": "llama3.2", "prompt": prompt, "stream": false})),
        ("/api/chat", json!({"model": "llama3.2", "messages": messages, "stream": false})),
    ]
}

/// The same request, streamed.
pub fn streamed(body: &serde_json::Value) -> serde_json::Value {
    let mut body = body.clone();
    body["stream"] = serde_json::Value::Bool(true);
    body
}

/// The text of a reply to an unstreamed request, in any dialect.
pub fn text_of(document: &serde_json::Value) -> String {
    let pointers = [
        "/choices/0/message/content",
        "/choices/0/text",
        "/output/0/content/0/text",
        "/content/0/text",
        "/message/content",
        "/response",
    ];
    let found = pointers.iter().find_map(|pointer| document.pointer(pointer)?.as_str());
    found.unwrap_or_else(|| panic!("no text in {document}")).to_owned()
}

/// The JSON values of a whole stream, server-sent events or lines, without `[DONE]`.
pub fn values_of(stream: &str) -> Vec<serde_json::Value> {
    stream
        .lines()
        .map(|line| line.strip_prefix("data: ").unwrap_or(line))
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

/// The text of a whole stream, in any dialect.
pub fn streamed_text_of(stream: &str) -> String {
    let pointers =
        ["/choices/0/delta/content", "/choices/0/text", "/delta/text", "/message/content", "/response"];
    values_of(stream)
        .iter()
        .filter_map(|value| {
            if value["type"] == "response.output_text.delta" {
                return value["delta"].as_str().map(str::to_owned);
            }
            pointers.iter().find_map(|pointer| value.pointer(pointer)?.as_str()).map(str::to_owned)
        })
        .collect()
}
