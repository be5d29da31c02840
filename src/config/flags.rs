//! The flags of `serve`, and the settings with a closed set of values.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::Uri;
use serde::{Deserialize, Serialize};

use super::parse_duration;

/// The flags of `serve`. Each is also `REJOINDER_<FLAG>` in the environment and a key of the file; the flag
/// wins over the environment, that over the file, that over the default.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts of the command line, which is no Markdown")]
pub struct Flags {
    /// Read settings from this TOML file
    #[arg(long, env = "REJOINDER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where clients connect [default: 127.0.0.1:11435]
    #[arg(long, env = "REJOINDER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// Health, metrics, entries [default: 127.0.0.1:11436]. Another than a loopback address needs an admin
    /// token: REJOINDER_ADMIN_TOKEN, REJOINDER_ADMIN_TOKEN_FILE or `admin.token` in the file
    #[arg(long, env = "REJOINDER_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,

    /// The Ollama-, OpenAI- or Anthropic-compatible server [default: http://127.0.0.1:11434]. A path is kept
    /// as a prefix: with https://host/openai, a request for /v1/models goes to https://host/openai/v1/models.
    /// Where the file has several, by model, this is the URL of the one for all other requests
    #[arg(long, env = "REJOINDER_UPSTREAM", value_name = "URL")]
    pub upstream: Option<Uri>,

    /// Keep the store in this folder, so that it survives restarts and crashes [default: in memory only]
    #[arg(long, env = "REJOINDER_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,

    /// Share the store in this Redis with other replicas: redis://host:port, rediss:// (TLS),
    /// redis+unix:///socket, redis+cluster://host:port,host:port or redis+sentinel://host:port,host:port/master
    /// [default: the store is in this process]. A password: REJOINDER_REDIS_PASSWORD, or its _FILE
    // Text, since an error about a value that cannot be parsed would show it, and it may hold a password.
    #[arg(long, env = "REJOINDER_REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,

    /// What is done with a stored reply that may answer a request [default: reuse]
    #[arg(long, env = "REJOINDER_MODE", value_enum)]
    pub mode: Option<Mode>,

    /// What turns prompts into embeddings [default: builtin]
    #[arg(long, env = "REJOINDER_EMBEDDER", value_enum)]
    pub embedder: Option<EmbedderKind>,

    /// The server of the `ollama` and `openai` embedders [default: the upstream]
    #[arg(long, env = "REJOINDER_EMBEDDER_URL", value_name = "URL")]
    pub embedder_url: Option<Uri>,

    /// The model of the `ollama` and `openai` embedders [default: all-minilm, text-embedding-3-small]
    #[arg(long, env = "REJOINDER_EMBEDDER_MODEL", value_name = "MODEL")]
    pub embedder_model: Option<String>,

    /// Cosine similarity from which a stored prompt is a candidate, 0 to 1 [default: 0.7; 0.85 without the verifier]
    #[arg(long, env = "REJOINDER_SIMILARITY_THRESHOLD", value_name = "SIMILARITY")]
    pub similarity_threshold: Option<f32>,

    /// The error accepted, 0 to 1 [default: 0.02]. In mode reuse: the share of look-alikes that may be reused; in mode
    /// verified: the share of semantic hits that may be wrong
    #[arg(long, env = "REJOINDER_MAX_ERROR", value_name = "SHARE")]
    pub max_error: Option<f64>,

    /// How long an entry lives, as 90s, 15m, 24h or 7d [default: 24h]
    #[arg(long, env = "REJOINDER_TTL", value_name = "DURATION", value_parser = parse_duration)]
    pub ttl: Option<Duration>,

    /// How log lines look [default: text on a terminal, else json]
    #[arg(long, env = "REJOINDER_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

impl Flags {
    /// The keys of the file that are also flags.
    pub(super) fn keys() -> BTreeSet<String> {
        let command = Self::augment_args(clap::Command::new("serve"));
        command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
    }
}

/// What is done with a stored reply that may answer a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is served
    #[default]
    Reuse,
    /// Nothing is served: every request goes upstream, and what would have been served is compared with the reply
    Observe,
    /// It is served once trials have shown that what is trusted as much is right; until then the request goes upstream
    /// and both replies are compared
    Verified,
}

/// What turns prompts into embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbedderKind {
    /// The model inside the program: no download, no server
    Builtin,
    /// A server with Ollama's /api/embed
    Ollama,
    /// A server with OpenAI's /v1/embeddings; key in `REJOINDER_EMBEDDER_API_KEY`
    #[value(name = "openai")]
    #[serde(rename = "openai")]
    OpenAi,
    /// None: exact layer only
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}
