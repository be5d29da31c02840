//! Exports made for tests: lines that a rejoinder with [`SECRET`] takes, as many as are wanted.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fmt::Write as _;
use std::time::SystemTime;

use rejoinder::cache::key::Keys;
use rejoinder::config::{Config, Secret};
use rejoinder::store::entry::Scope;
use serde_json::{Value, json};

/// The secret of the proxies that share entries.
pub const SECRET: &str = "a secret of the tests";

/// Gives a proxy the secret.
pub fn with_secret(config: &mut Config) {
    config.secret = Some(Secret::new(SECRET.to_owned()));
}

/// The first line.
pub fn header() -> String {
    let check = hex(&Keys::new(SECRET.as_bytes()).check());
    json!({"rejoinder": "export", "schema": 1, "check": check}).to_string() + "\n"
}

/// The last line.
pub fn end(entries: usize) -> String {
    json!({"end": {"entries": entries, "unreadable": 0}}).to_string() + "\n"
}

/// An entry of `POST /api/generate`, stored just now, with a reply of at least so many bytes. There are seven scopes.
pub fn entry(number: usize, bytes: usize) -> Value {
    let scope = Scope([u8::try_from(number % 7).unwrap(); 32]);
    let prompt = format!("What is number {number}?");
    let document = json!({
        "model": "llama3.2", "created_at": "2026-01-01T00:00:00Z",
        "response": format!("It is {number}. {}", "x".repeat(bytes)), "done": true, "done_reason": "stop",
    });
    json!({
        "key": hex(&Keys::new(SECRET.as_bytes()).exact(&scope, Some(&prompt)).0),
        "scope": hex(&scope.0),
        "endpoint": "/api/generate",
        "model": "llama3.2",
        "namespace": "",
        "prompt": prompt,
        "document": document.to_string(),
        "created_at_ms": now_ms(),
        "ttl_ms": 3_600_000,
    })
}

/// A whole export of so many entries.
pub fn export(entries: usize, bytes: usize) -> String {
    let lines: String = (0..entries).map(|number| entry(number, bytes).to_string() + "\n").collect();
    header() + &lines + &end(entries)
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
