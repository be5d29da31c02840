//! Anthropic's Messages API (<https://docs.anthropic.com/en/api/messages>), which Ollama and others serve too.

pub mod messages;
#[cfg(test)]
mod properties;
mod replay;
mod reply;
mod stream;
#[cfg(test)]
mod tests;

/// The kind of a content block in which a model calls a tool, its own or the server's.
fn is_tool_use(kind: &str) -> bool {
    kind == "tool_use" || kind.ends_with("_tool_use")
}

/// The kind of a content block that holds what a tool answered.
fn is_tool_result(kind: &str) -> bool {
    kind == "tool_result" || kind.ends_with("_tool_result")
}
