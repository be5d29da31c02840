//! What the admin listener shows: the API, its access rules, metrics, traces, and what the cache would have served.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod api;
mod audits;
mod entries;
mod metrics;
mod near_misses;
mod observe;
mod traces;
