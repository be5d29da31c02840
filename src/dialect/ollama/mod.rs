//! Ollama's own API (<https://github.com/ollama/ollama/blob/main/docs/api.md>, the fields in `api/types.go`).

pub mod chat;
pub mod embed;
pub mod generate;
#[cfg(test)]
mod properties;
mod replay;
mod reply;
#[cfg(test)]
mod tests;

use crate::dialect::{Form, Outside};

/// Where an endpoint's reply has its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `/api/generate`: `response`, `thinking` and `tool_calls` beside the rest.
    Generate,
    /// `/api/chat`: `content`, `thinking` and `tool_calls` inside `message`.
    Chat,
}

impl Shape {
    /// The name of the member that holds the text.
    const fn text(self) -> &'static str {
        match self {
            Self::Generate => "response",
            Self::Chat => "content",
        }
    }
}

/// The form in which a client of `/api/generate` or `/api/chat` wants its reply: streaming is the default.
fn form(outside: &Outside<'_>) -> Form {
    if outside.stream == Some(false) { Form::Json } else { Form::Ndjson }
}
