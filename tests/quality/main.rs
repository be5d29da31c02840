//! What is reused rightly and wrongly, over the labelled prompts that lie here: by the guard, by the whole decision, and by
//! meaning over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod guard;
mod reuse;
mod stream;
