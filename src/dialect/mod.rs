//! The wire formats: bytes to [`Request`] and [`Reply`], and a stored [`Reply`] back to bytes in each form.
//!
//! A dialect knows four things of an endpoint: where the prompt is, what else can change the reply (the
//! scope), how to gather a reply from JSON, server-sent events or NDJSON, and how to replay it in each form.
//! It knows nothing of HTTP headers beyond a media type, and nothing of caching. Called by `proxy` and, for
//! its plain types, by `cache` and `store`.

pub mod anthropic;
mod fold;
pub mod json;
pub mod members;
pub mod model;
pub mod ndjson;
pub mod ollama;
pub mod openai;
mod pieces;
pub mod sse;
pub mod template;
mod turns;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use json::Json;
use template::Template;

/// Whose wire format a path speaks; decides the shape of the proxy's own errors too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// <https://platform.openai.com/docs/api-reference>
    OpenAi,
    /// <https://docs.anthropic.com/en/api/messages>
    Anthropic,
    /// <https://github.com/ollama/ollama/blob/main/docs/api.md>
    Ollama,
}

impl Dialect {
    /// The dialect in which a path's errors are written.
    pub fn of_path(path: &str) -> Self {
        match path {
            "/v1/messages" => Self::Anthropic,
            path if path.starts_with("/v1/messages/") => Self::Anthropic,
            path if path.starts_with("/v1/") => Self::OpenAi,
            _ => Self::Ollama,
        }
    }
}

/// An endpoint whose replies may be reused. Everything else passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    OpenAiChat,
    /// `POST /v1/completions`
    OpenAiCompletions,
    /// `POST /v1/responses`
    OpenAiResponses,
    /// `POST /v1/embeddings`
    OpenAiEmbeddings,
    /// `POST /v1/messages`
    AnthropicMessages,
    /// `POST /api/generate`
    OllamaGenerate,
    /// `POST /api/chat`
    OllamaChat,
    /// `POST /api/embed`
    OllamaEmbed,
    /// `POST /api/embeddings`
    OllamaEmbeddings,
}

/// How a reply travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// One JSON document.
    Json,
    /// Server-sent events (WHATWG HTML §9.2) in the dialect's own framing.
    Sse {
        /// Whether the client asked for a usage chunk (`stream_options.include_usage`; always in dialects whose
        /// streams carry usage anyway).
        usage: bool,
    },
    /// One JSON document a line (Ollama).
    Ndjson,
}

/// What a request asks, read from its body.
#[derive(Debug)]
pub struct Request<'a> {
    /// The `model` field; empty where there is none.
    pub model: String,
    /// The prompt, where the semantic layer may serve this request; `None` leaves it to the exact layer, with
    /// the whole body in the scope.
    pub prompt: Option<String>,
    /// The body without the fields that cannot change the reply's content, [`Json::Prompt`] in the prompt's place.
    pub scope: Json<'a>,
    /// The form in which the client wants its reply.
    pub form: Form,
    /// The fields left out of the scope, for replies that echo them.
    pub echo: Echo,
}

impl Request<'_> {
    /// What the user said earlier in the conversation, as far as it is text.
    pub fn earlier(&self) -> impl Iterator<Item = &str> {
        turns::users_texts(&self.scope)
    }
}

/// The request's own values of the fields that stay out of the scope, by name. Few, so a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Echo(Vec<(&'static str, serde_json::Value)>);

impl Echo {
    /// The caller's value of a field.
    pub fn get(&self, name: &str) -> Option<&serde_json::Value> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// How many bytes it keeps in memory, nearly.
    pub fn weight(&self) -> usize {
        self.0.iter().map(|(_, value)| weight(value)).sum()
    }
}

/// How many bytes a value keeps in memory, nearly: many times as many as it is written with, where it is made of small
/// ones.
fn weight(value: &serde_json::Value) -> usize {
    use serde_json::Value::{Array, Object, String};
    let held: usize = match value {
        String(text) => text.capacity(),
        Array(items) => items.iter().map(weight).sum(),
        // A name is a string of its own, in a node with its value.
        Object(members) => {
            members.iter().map(|(name, value)| 2 * size_of_val(name) + name.len() + weight(value)).sum()
        }
        _ => 0,
    };
    size_of_val(value) + held
}

/// The top-level fields that stay out of the scope: they cannot change the reply's content (INTERFACE.md,
/// "What is cached").
pub const OUTSIDE_SCOPE: [&str; 9] = [
    "keep_alive",
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "user",
];

/// A whole, successful reply as it is stored: the JSON document of the endpoint's unstreamed form, whatever
/// form it arrived in.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The document: upstream's own bytes where it answered with one, else folded together from its stream.
    pub document: Bytes,
    /// The reply's text, for people and for comparing replies; empty for embeddings.
    pub text: String,
    /// Whether the model called tools: such a reply is reused by the exact layer alone.
    pub tool_calls: bool,
    /// Tokens, where upstream counted them.
    pub usage: Option<Usage>,
}

/// Token counts as upstream reported them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt (`prompt_tokens`, `input_tokens`, `prompt_eval_count`), those that upstream had cached
    /// included, also where it counts them apart (Anthropic).
    pub input: u64,
    /// Tokens of the reply (`completion_tokens`, `output_tokens`, `eval_count`).
    pub output: u64,
    /// Those of `input` that upstream had cached (`cached_tokens`, `cache_read_input_tokens`); 0 where it says nothing.
    pub cached: u64,
    /// Those of `output` that were reasoning (`reasoning_tokens`); 0 where upstream says nothing.
    pub reasoning: u64,
}

/// Why a reply is not stored (INTERFACE.md, "Never stored").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// The body is not of the endpoint's shape.
    #[error("the reply is not of a shape known here: {0}")]
    Malformed(String),
    /// The body, or an event of the stream, reports an error.
    #[error("the reply reports an error")]
    Error,
    /// The stream ended without its final event.
    #[error("the stream was cut short")]
    Truncated,
    /// There is no content.
    #[error("the reply is empty")]
    Empty,
    /// Stopped by length, a content filter, or in another way that leaves it incomplete.
    #[error("the reply was stopped before it was whole: {0}")]
    Incomplete(String),
}

/// A stored reply could not be replayed: its document is not what [`Endpoint::gather`] made.
#[derive(Debug, thiserror::Error)]
#[error("the stored reply is not of the endpoint's shape: {0}")]
pub struct ReplayError(pub String);

impl Unstorable {
    /// A reply that cannot be read: the kind of fault and its place, never the content around it.
    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "a value of the wrong kind",
            serde_json::error::Category::Eof => "JSON cut short",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "no JSON",
        };
        Self::Malformed(format!("{kind} at line {} column {}", error.line(), error.column()))
    }
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 9] = [
        Self::OpenAiChat,
        Self::OpenAiCompletions,
        Self::OpenAiResponses,
        Self::OpenAiEmbeddings,
        Self::AnthropicMessages,
        Self::OllamaGenerate,
        Self::OllamaChat,
        Self::OllamaEmbed,
        Self::OllamaEmbeddings,
    ];

    /// The endpoint of a `POST` to this path, if its replies may be reused.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// The endpoint's path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::OpenAiChat => "/v1/chat/completions",
            Self::OpenAiCompletions => "/v1/completions",
            Self::OpenAiResponses => "/v1/responses",
            Self::OpenAiEmbeddings => "/v1/embeddings",
            Self::AnthropicMessages => "/v1/messages",
            Self::OllamaGenerate => "/api/generate",
            Self::OllamaChat => "/api/chat",
            Self::OllamaEmbed => "/api/embed",
            Self::OllamaEmbeddings => "/api/embeddings",
        }
    }

    /// Whose wire format it speaks.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::OpenAiChat | Self::OpenAiCompletions | Self::OpenAiResponses | Self::OpenAiEmbeddings => {
                Dialect::OpenAi
            }
            Self::AnthropicMessages => Dialect::Anthropic,
            Self::OllamaGenerate | Self::OllamaChat | Self::OllamaEmbed | Self::OllamaEmbeddings => {
                Dialect::Ollama
            }
        }
    }

    /// Reads a request. `None` where the body is of no shape known here, or asks for something that is not to
    /// be cached (Ollama's load and unload, a Responses request with `conversation` or `background`): it passes
    /// through, and upstream judges it.
    pub fn read(self, body: Json<'_>) -> Option<Request<'_>> {
        match self {
            Self::OpenAiChat => openai::chat::read(body),
            Self::OpenAiCompletions => openai::completions::read(body),
            Self::OpenAiResponses => openai::responses::read(body),
            Self::OpenAiEmbeddings => openai::embeddings::read(body),
            Self::AnthropicMessages => anthropic::messages::read(body),
            Self::OllamaGenerate => ollama::generate::read(body),
            Self::OllamaChat => ollama::chat::read(body),
            Self::OllamaEmbed | Self::OllamaEmbeddings => ollama::embed::read(body),
        }
    }

    /// The body of a request whose reply has this form, with usage asked for that the client did not ask for, and
    /// every other byte as it was. `None` where there is nothing to ask. Upstream's reply must then go through an
    /// [`openai::usage::UsageFilter`] on its way to the client.
    pub fn ask_for_usage(self, form: Form, body: &[u8]) -> Option<Bytes> {
        match (self, form) {
            (Self::OpenAiChat | Self::OpenAiCompletions, Form::Sse { usage: false }) => {
                openai::usage::ask_for_usage(body)
            }
            _ => None,
        }
    }

    /// Gathers a whole reply from the bytes of a 200 response, decoded, in the form that its media type names.
    ///
    /// # Errors
    /// Whatever must not be stored says why.
    pub fn gather(self, form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
        match self {
            Self::OpenAiChat => openai::chat::gather(form, body),
            Self::OpenAiCompletions => openai::completions::gather(form, body),
            Self::OpenAiResponses => openai::responses::gather(form, body),
            Self::OpenAiEmbeddings => openai::embeddings::gather(form, body),
            Self::AnthropicMessages => anthropic::messages::gather(form, body),
            Self::OllamaGenerate => ollama::generate::gather(form, body),
            Self::OllamaChat => ollama::chat::gather(form, body),
            Self::OllamaEmbed | Self::OllamaEmbeddings => ollama::embed::gather(form, body),
        }
    }

    /// Lays a stored reply out in the form asked for, with slots where each replay differs.
    ///
    /// # Errors
    /// The document is not of the endpoint's shape, or the endpoint has no such form.
    pub fn replay(self, document: &Bytes, form: Form) -> Result<Template, ReplayError> {
        match self {
            Self::OpenAiChat => openai::chat::replay(document, form),
            Self::OpenAiCompletions => openai::completions::replay(document, form),
            Self::OpenAiResponses => openai::responses::replay(document, form),
            Self::OpenAiEmbeddings => openai::embeddings::replay(document, form),
            Self::AnthropicMessages => anthropic::messages::replay(document, form),
            Self::OllamaGenerate => ollama::generate::replay(document, form),
            Self::OllamaChat => ollama::chat::replay(document, form),
            Self::OllamaEmbed | Self::OllamaEmbeddings => ollama::embed::replay(document, form),
        }
    }
}

impl Form {
    /// The form that a response's media type names, its parameters aside; `None` for one that no endpoint uses.
    pub fn of_media_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case("text/event-stream") {
            Some(Self::Sse { usage: true })
        } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
            Some(Self::Ndjson)
        } else {
            None
        }
    }

    /// The media type of a replay, as the servers of the dialects send it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Sse { .. } => "text/event-stream; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// Whether the reply arrives in pieces.
    pub const fn is_stream(self) -> bool {
        !matches!(self, Self::Json)
    }
}

/// The first step of every reader: takes the fields outside the scope out of a body, drops what is `null` and sorts the rest.
/// `None` where the body is no object, or has a top-level name with a capital letter: some servers fold the
/// case of names and would read a field here that we do not see.
pub(crate) fn take_outside_scope<'a>(body: &mut Json<'a>) -> Option<Outside<'a>> {
    let object = body.as_object_mut()?;
    if object.iter().any(|(name, _)| name.chars().any(char::is_uppercase)) {
        return None;
    }
    object.drop_nulls();
    object.sort();
    let mut echo = Vec::new();
    let mut outside = Outside { stream: None, stream_options: None, echo: Echo::default() };
    for name in OUTSIDE_SCOPE {
        let Some(value) = object.remove(name) else { continue };
        match name {
            "stream" => outside.stream = Some(value.as_bool()?),
            "stream_options" => outside.stream_options = Some(value),
            "keep_alive" => {}
            _ => echo.push((name, value.to_value())),
        }
    }
    outside.echo = Echo(echo);
    Some(outside)
}

/// What [`take_outside_scope`] took out.
pub(crate) struct Outside<'a> {
    /// `stream`, where given. A value that is no boolean makes the body one of no known shape.
    pub(crate) stream: Option<bool>,
    /// `stream_options`, where given.
    pub(crate) stream_options: Option<Json<'a>>,
    /// The rest, for replies that echo it.
    pub(crate) echo: Echo,
}
