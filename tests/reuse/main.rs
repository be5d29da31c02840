//! Which stored reply may be reused for which request: scopes, directives, meaning, trust.

#[path = "../support/mod.rs"]
mod support;

mod directives;
mod exact_only;
mod persistence;
mod remote_embedder;
mod scope;
mod semantic;
mod verified;
