//! rejoinder: a transparent caching proxy for OpenAI-, Anthropic- and Ollama-compatible APIs.
//!
//! The library is the program in parts, for its tests and benchmarks; ARCHITECTURE.md is the map.

pub mod admin;
pub mod breaker;
pub mod cache;
mod causes;
pub mod cli;
pub mod config;
pub mod dashboard;
mod decimal;
pub mod dialect;
pub mod embed;
pub mod encoder;
pub mod eval;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod hexadecimal;
pub mod model_pattern;
pub mod models;
pub mod proxy;
pub mod rate;
pub mod savings;
pub mod server;
pub mod simulated;
pub mod store;
pub mod telemetry;
pub mod trace;
pub mod verify;
