//! The tables of the file: their keys, meanings and defaults.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::units::{self, Bytes, duration};
use super::{Secret, secret};
use crate::cache::guard::Leanings;
use crate::cache::rules::Rules;

/// `[admin]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Needed for another than a loopback address, and honoured on loopback too.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "secret::of_file")]
    pub token: Option<Secret>,
    /// Names under which a browser may reach the admin listener, besides its address and localhost.
    pub hosts: Vec<String>,
}

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "switches that do not depend on one another")]
pub struct CacheSettings {
    /// How long upstream's acceptance of credentials counts: a key revoked there serves hits no longer than this.
    #[serde(with = "duration")]
    pub credential_ttl: Duration,
    /// Whether the verifier judges candidates; without it similarity and the guard do.
    pub verifier: bool,
    /// The least confidence (probability of one answer × freshness) of a semantic hit, 0 to 1; `None` takes the one
    /// that keeps to `max_error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f32>,
    /// What `rejoinder eval --calibrate` wrote for the embedder in use; `None` takes the built-in embedder's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
    /// After how many lifetimes an entry's confidence would be half of what it was; positive.
    pub freshness_half_life: f32,
    /// The rules by which a prompt is never matched by meaning.
    #[serde(with = "units::rules")]
    pub exact_only: Leanings,
    /// The longest that the reply to a prompt about the moment lives, where the rule `moment` is in force.
    #[serde(with = "duration")]
    pub moment_ttl: Duration,
    /// Whether `X-Rejoinder-Threshold` may lower the threshold too.
    pub allow_lower_threshold: bool,
    /// Request headers that belong to the scope, besides the credentials and those of the APIs.
    #[serde(with = "units::header_names")]
    pub scope_headers: Vec<HeaderName>,
    /// Whether the request's `user` field belongs to the scope.
    pub scope_user: bool,
    /// Ask upstream for the usage of a stream, and take it out again for a client that did not ask.
    pub include_usage: bool,
    /// The share of semantic hits that are also asked upstream, behind the request, and compared; 0 to 1.
    pub audit_share: f32,
    /// Candidates that fell just short, kept in memory for `GET /near-misses`; 0 keeps none.
    pub near_misses: usize,
    /// The probability with which mode verified keeps to `max_error`.
    pub verified_confidence: f64,
    /// Of replies that say the same, a share that comparisons find to differ at least; where they err less, or miss more
    /// of those that differ, more than `max_error` may be wrong. 0 counts each difference found as one.
    pub comparison_error: f64,
}

/// `[embedding]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Embedding {
    /// Threads of the built-in embedder; 0 takes half of the cores.
    pub threads: usize,
    /// Prompts that may wait for the built-in embedder; beyond, requests go upstream unembedded.
    pub queue: NonZeroUsize,
    /// How long embedding a prompt may take, waiting included.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How many characters of a prompt a remote embedder is given; the rest must be equal.
    pub window_chars: usize,
}

/// `[redis]`: what a replica takes of Redis, and for itself. Used with `redis_url`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// The password, where it does not stand in the URL.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "secret::of_file")]
    pub password: Option<Secret>,
    /// Certificates of authorities (PEM) to trust in the place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What the names of all keys begin with: fleets that share a Redis and not a cache have different ones.
    pub key_prefix: String,
    /// How long connecting may take.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long an answer may take before the request goes on without.
    #[serde(with = "duration")]
    pub command_timeout: Duration,
    /// Memory of this process for whole entries, which spare a round trip; 0 keeps none.
    pub hot_max_bytes: Bytes,
    /// How long such an entry is served before Redis is asked whether it is still the same; 0 asks each time, and serves none
    /// while Redis is gone.
    #[serde(with = "duration")]
    pub hot_max_age: Duration,
    /// Memory of this process for embeddings.
    pub index_max_bytes: Bytes,
    /// Entries of one scope that are found by meaning; the least useful are given up beyond.
    pub max_entries_per_scope: u64,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of the store.
    pub max_bytes: Bytes,
    /// Entries of the store.
    pub max_entries: u64,
    /// The largest reply that is stored.
    pub max_entry_bytes: Bytes,
    /// The largest request that is read for caching; a larger one is streamed through.
    pub max_request_bytes: Bytes,
    /// The largest head of a request.
    pub max_head_bytes: Bytes,
    /// Connections of clients at once.
    pub max_connections: usize,
    /// Requests upstream at once; beyond, they wait.
    pub max_upstream_requests: usize,
    /// Requests that wait for a place upstream; beyond, 503.
    pub max_queued_requests: usize,
    /// Memory for requests and replies that are being read, all together. What does not fit goes through uncached, or is
    /// answered 503 where there are several upstreams and it is not read which one it is for.
    pub max_buffer_bytes: Bytes,
}

/// `[timeouts]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Connecting to upstream.
    #[serde(with = "duration")]
    pub connect: Duration,
    /// From the request's end to the head of upstream's reply.
    #[serde(with = "duration")]
    pub first_byte: Duration,
    /// Between two pieces of a body, either way.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// Until a place upstream is free, where all are taken.
    #[serde(with = "duration")]
    pub queue: Duration,
    /// Until a client's request head is complete, and how long a connection is kept on which nothing is asked.
    #[serde(with = "duration")]
    pub request_head: Duration,
    /// How long an unused connection to upstream is kept.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
    /// How long after SIGTERM new requests are still taken while `/readyz` already says no, so that a load balancer
    /// has heard of it before a connection is refused.
    #[serde(with = "duration")]
    pub notice: Duration,
    /// How long open requests may take to finish after that; then they are answered 503, or cut off.
    #[serde(with = "duration")]
    pub drain: Duration,
}

/// `[ask]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ask {
    /// The model that `POST /ask` asks.
    pub model: String,
    /// The endpoint by which it asks: `/api/generate`, `/api/chat`, `/v1/chat/completions` or `/v1/completions`.
    pub path: String,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged, in the syntax of tracing's `EnvFilter`, as `info` or `rejoinder=debug`.
    pub filter: String,
    /// One line a request.
    pub requests: bool,
    /// Whether those lines may hold the prompt.
    pub prompts: bool,
}

impl CacheSettings {
    /// The rules of prompts that are never matched by meaning.
    pub fn rules(&self) -> Rules {
        Rules { exact_only: self.exact_only, moment_ttl: self.moment_ttl }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            credential_ttl: Duration::from_hours(1),
            verifier: true,
            min_confidence: None,
            calibration: None,
            freshness_half_life: 7.0,
            exact_only: Rules::DEFAULT.exact_only,
            moment_ttl: Rules::DEFAULT.moment_ttl,
            allow_lower_threshold: false,
            scope_headers: Vec::new(),
            scope_user: false,
            include_usage: true,
            audit_share: 0.0,
            near_misses: 200,
            verified_confidence: 0.95,
            comparison_error: 0.0,
        }
    }
}

impl Default for Embedding {
    fn default() -> Self {
        let queue = const { NonZeroUsize::new(64).unwrap() };
        Self { threads: 0, queue, timeout: Duration::from_secs(5), window_chars: 2000 }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            password: None,
            ca_file: None,
            key_prefix: "rejoinder".to_owned(),
            connect_timeout: Duration::from_millis(200),
            command_timeout: Duration::from_millis(50),
            hot_max_bytes: Bytes(64 << 20),
            hot_max_age: Duration::from_secs(30),
            index_max_bytes: Bytes(512 << 20),
            max_entries_per_scope: 1_000_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: Bytes(512 << 20),
            max_entries: 1_000_000,
            max_entry_bytes: Bytes(1 << 20),
            max_request_bytes: Bytes(8 << 20),
            max_head_bytes: Bytes(64 << 10),
            max_connections: 10_000,
            max_upstream_requests: 1024,
            max_queued_requests: 256,
            max_buffer_bytes: Bytes(256 << 20),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            // The official clients themselves give a model ten minutes.
            first_byte: Duration::from_mins(10),
            idle: Duration::from_mins(5),
            queue: Duration::from_secs(1),
            request_head: Duration::from_secs(30),
            keep_alive: Duration::from_secs(90),
            notice: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

impl Default for Ask {
    fn default() -> Self {
        Self { model: "llama3.2".to_owned(), path: "/api/generate".to_owned() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), requests: true, prompts: false }
    }
}
