//! The files of deploy/ and the packages, held to what the program does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod files;
mod load_balancer;
mod packaging;
