//! Ollama's own API (<https://github.com/ollama/ollama/blob/main/docs/api.md>).

pub mod chat;
pub mod embed;
pub mod generate;
