//! Anthropic's Messages API (<https://docs.anthropic.com/en/api/messages>), which Ollama and others serve too.

pub mod messages;
