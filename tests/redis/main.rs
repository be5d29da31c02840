//! Many replicas over one real Redis: what they share, and what becomes of requests when it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod corruption;
mod deployment;
mod failover;
mod faults;
mod harness;
mod replicas;
mod store;
