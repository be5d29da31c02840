//! Which stored reply may be reused for which request: scopes, directives, meaning, trust.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod directives;
mod exact_only;
mod persistence;
mod remote_embedder;
mod scope;
mod semantic;
mod verified;
