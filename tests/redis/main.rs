//! Many replicas over one real Redis: what they share, and what becomes of requests when it fails.

#[path = "../support/mod.rs"]
mod support;

mod corruption;
mod deployment;
mod failover;
mod faults;
mod harness;
mod replicas;
mod store;
