//! What is reused rightly and wrongly, over the labelled prompts that lie here: by the guard, by the whole decision, and by
//! meaning over HTTP.

#[path = "../support/mod.rs"]
mod support;

mod guard;
mod reuse;
mod stream;
