//! How requests and replies pass: transparency, dialects, limits, faults, reloads, shutdown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod ask;
mod coalescing;
mod faults;
mod hardness;
mod limits;
mod reload;
mod replay;
mod shutdown;
mod simulated;
mod traffic;
mod transparency;
mod upstreams;
