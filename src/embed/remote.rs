//! Embedders on a server: Ollama's API and OpenAI's, which many servers speak.
//!
//! Called through [`super::Embedder`]. Every wait and every size has a limit, and a server that keeps failing is
//! left alone for a while (`breaker`). Redirects are not followed: the key goes where it was meant to go.
//!
//! Sources: <https://github.com/ollama/ollama/blob/main/docs/api.md> ("Generate Embeddings" and the older
//! "Generate Embedding"), <https://platform.openai.com/docs/api-reference/embeddings/create>.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{EmbedError, EmbedderError, EmbedderState, Embedding};
use crate::breaker::{Breaker, BreakerSettings, BreakerState, Permit};
use crate::causes::causes;

/// Bytes of an answer read at most: 8,192 dimensions written with 20 digits are 170 KB.
const LARGEST_ANSWER: usize = 1 << 20;

/// Ollama's older API cuts long texts without a word, and two texts that differ after the cut would look equal.
/// Tokenizers make at most one token per byte and a few that frame the text, and the smallest window of Ollama's
/// embedding models is 256 tokens (all-minilm), so a text of this many bytes is not cut.
const OLDER_API_BYTES: usize = 250;

/// A server's key. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

impl ApiKey {
    /// `None` where the key has characters that no header can hold.
    pub fn new(key: &str) -> Option<Self> {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a remote embedder is and what is asked of it.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// `http` or `https`, with a path prefix if need be. OpenAI clients write `/v1` at its end; it counts once.
    pub url: Uri,
    /// The model, by the server's name for it.
    pub model: String,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<ApiKey>,
    /// How long a caller waits at most.
    pub timeout: Duration,
    /// Characters of a text that are sent at most. Must fit the model's own window: Ollama and OpenAI refuse
    /// what does not, other servers may cut it silently.
    pub window: usize,
    /// When the server is left alone.
    pub breaker: BreakerSettings,
}

impl RemoteOptions {
    /// 5 seconds, 2,000 characters (some 500 tokens), no key.
    pub fn new(url: Uri, model: impl Into<String>) -> Self {
        Self {
            url,
            model: model.into(),
            api_key: None,
            timeout: Duration::from_secs(5),
            window: 2000,
            breaker: BreakerSettings::default(),
        }
    }
}

/// Which API the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Ollama,
    OpenAi,
}

/// One server, one model.
#[derive(Debug)]
pub(super) struct Remote {
    api: Api,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    /// Of Ollama before version 0.3.
    older_endpoint: Option<Uri>,
    /// The server has only the older one.
    older: AtomicBool,
    options: RemoteOptions,
    name: String,
    breaker: Breaker,
}

#[derive(Serialize)]
struct OllamaRequest<'a> {
    model: &'a str,
    input: &'a str,
    truncate: bool,
}

#[derive(Deserialize)]
struct OllamaAnswer {
    embeddings: Vec<Vec<f32>>,
}

#[derive(Serialize)]
struct OlderOllamaRequest<'a> {
    model: &'a str,
    prompt: &'a str,
}

#[derive(Deserialize)]
struct OlderOllamaAnswer {
    embedding: Vec<f32>,
}

#[derive(Serialize)]
struct OpenAiRequest<'a> {
    model: &'a str,
    input: &'a str,
    encoding_format: &'a str,
}

#[derive(Deserialize)]
struct OpenAiAnswer {
    data: Vec<OlderOllamaAnswer>,
}

/// Why there is no embedding, and whether that says something about the server.
enum Failure {
    /// The server is at fault or unreachable; its next answer will hardly be better.
    Server(EmbedError),
    /// The server is well and does not like this text.
    Text(EmbedError),
    /// There is no such endpoint, or no such model.
    NotFound,
}

impl Remote {
    pub(super) fn new(api: Api, options: RemoteOptions) -> Result<Self, EmbedderError> {
        let prefix = options.url.path().trim_end_matches('/');
        let (endpoint, older_endpoint, kind) = match api {
            Api::Ollama => {
                let older = endpoint(&options.url, &format!("{prefix}/api/embeddings"))?;
                (endpoint(&options.url, &format!("{prefix}/api/embed"))?, Some(older), "ollama")
            }
            Api::OpenAi => {
                let prefix = prefix.strip_suffix("/v1").unwrap_or(prefix);
                (endpoint(&options.url, &format!("{prefix}/v1/embeddings"))?, None, "openai")
            }
        };
        let name = format!("{kind}/{}", options.model);
        let breaker = Breaker::new(options.breaker.clone());
        let client = client(options.timeout);
        let older = AtomicBool::new(false);
        Ok(Self { api, client, endpoint, older_endpoint, older, options, name, breaker })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn window(&self, text: &str) -> usize {
        if self.older.load(Ordering::Relaxed) {
            return text.floor_char_boundary(OLDER_API_BYTES);
        }
        if text.len() <= self.options.window {
            return text.len();
        }
        text.char_indices().nth(self.options.window).map_or(text.len(), |(offset, _)| offset)
    }

    pub(super) async fn embed(&self, text: &str) -> Result<Embedding, EmbedError> {
        let text = text.get(..self.window(text)).unwrap_or(text);
        if text.trim().is_empty() {
            return Err(EmbedError::Empty);
        }
        let permit = self.breaker.admit(Instant::now()).ok_or(EmbedError::Unavailable)?;
        let limit = self.options.timeout;
        let asked = tokio::time::timeout(limit, self.ask(text)).await;
        match asked.unwrap_or(Err(Failure::Server(EmbedError::Timeout(limit)))) {
            Ok(embedding) => {
                permit.succeeded();
                Ok(embedding)
            }
            Err(Failure::Text(error)) => {
                permit.succeeded();
                Err(error)
            }
            Err(Failure::Server(error)) => Err(self.failed(permit, error)),
            Err(Failure::NotFound) => {
                let problem = "the server has no such model or no embeddings API";
                Err(self.failed(permit, EmbedError::Failed(problem.to_owned())))
            }
        }
    }

    /// Notes that the server failed: in the log once, until it answers again or is left alone.
    fn failed(&self, permit: Permit<'_>, error: EmbedError) -> EmbedError {
        let before = self.state();
        permit.failed(Instant::now());
        let after = self.state();
        if after != before && after == EmbedderState::Down {
            warn!(%error, embedder = self.name(), "the embedder fails and is left alone for a while");
        } else if before == EmbedderState::Ok {
            warn!(%error, embedder = self.name(), "the embedder failed; prompts are found by their keys alone");
        }
        error
    }

    pub(super) fn state(&self) -> EmbedderState {
        match self.breaker.state(Instant::now()) {
            BreakerState::Closed { failures: 0 } => EmbedderState::Ok,
            BreakerState::Closed { .. } | BreakerState::HalfOpen => EmbedderState::Degraded,
            BreakerState::Open => EmbedderState::Down,
        }
    }

    async fn ask(&self, text: &str) -> Result<Embedding, Failure> {
        match self.api {
            Api::OpenAi => self.ask_openai(text).await,
            Api::Ollama if self.older.load(Ordering::Relaxed) => match self.ask_older_ollama(text).await {
                // The server may have been replaced by a newer one.
                Err(Failure::NotFound) => {
                    self.older.store(false, Ordering::Relaxed);
                    self.ask_ollama(text).await
                }
                other => other,
            },
            Api::Ollama => match self.ask_ollama(text).await {
                Err(Failure::NotFound) => self.try_older_ollama(text).await,
                other => other,
            },
        }
    }

    async fn ask_ollama(&self, text: &str) -> Result<Embedding, Failure> {
        let request = OllamaRequest { model: &self.options.model, input: text, truncate: false };
        let answer: OllamaAnswer = self.post(&self.endpoint, &request).await?;
        only(answer.embeddings)
    }

    /// The newer API was not found: that may be for want of the model, which only the older one's answer tells.
    async fn try_older_ollama(&self, text: &str) -> Result<Embedding, Failure> {
        let short = text.get(..text.floor_char_boundary(OLDER_API_BYTES)).unwrap_or(text);
        let embedding = self.ask_older_ollama(short).await?;
        self.older.store(true, Ordering::Relaxed);
        if short.len() < text.len() {
            // The caller counts on the longer window; from now on it will be told the shorter one.
            let reason = "the server has only the older API, which is used for the beginning of a text alone";
            return Err(Failure::Text(EmbedError::Failed(reason.to_owned())));
        }
        Ok(embedding)
    }

    async fn ask_older_ollama(&self, text: &str) -> Result<Embedding, Failure> {
        let endpoint = self.older_endpoint.as_ref().ok_or(Failure::NotFound)?;
        let request = OlderOllamaRequest { model: &self.options.model, prompt: text };
        let answer: OlderOllamaAnswer = self.post(endpoint, &request).await?;
        only(vec![answer.embedding])
    }

    async fn ask_openai(&self, text: &str) -> Result<Embedding, Failure> {
        let request = OpenAiRequest { model: &self.options.model, input: text, encoding_format: "float" };
        let answer: OpenAiAnswer = self.post(&self.endpoint, &request).await?;
        only(answer.data.into_iter().map(|entry| entry.embedding).collect())
    }

    async fn post<A: for<'a> Deserialize<'a>>(
        &self,
        endpoint: &Uri,
        body: &impl Serialize,
    ) -> Result<A, Failure> {
        let body =
            serde_json::to_vec(body).map_err(|error| server(format!("no request could be made: {error}")))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(ApiKey(key)) = &self.options.api_key {
            headers.insert(AUTHORIZATION, key.clone());
        }
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| server(format!("no answer: {}", causes(&error))))?;
        check_status(answer.status())?;
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| server(format!("the answer broke off or is too long: {error}")))?;
        read(&body.to_bytes())
    }
}

fn read<'a, A: Deserialize<'a>>(answer: &'a [u8]) -> Result<A, Failure> {
    // Only the place: the error's own text may quote the answer.
    serde_json::from_slice(answer).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        server(format!("the answer is no embedding, seen at line {line}, column {column}"))
    })
}

/// The body of a refusal may repeat the text: it is neither read nor told.
fn check_status(status: StatusCode) -> Result<(), Failure> {
    let failed = || EmbedError::Failed(format!("the server answered {status}"));
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND => Err(Failure::NotFound),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(Failure::Text(failed()))
        }
        _ => Err(Failure::Server(failed())),
    }
}

fn server(reason: String) -> Failure {
    Failure::Server(EmbedError::Failed(reason))
}

/// One text was sent, so one embedding is due.
fn only(embeddings: Vec<Vec<f32>>) -> Result<Embedding, Failure> {
    let count = embeddings.len();
    match <[Vec<f32>; 1]>::try_from(embeddings) {
        Ok([values]) => Embedding::new(values)
            .ok_or_else(|| server("the embedding is empty, zero or not finite".to_owned())),
        Err(_) => Err(server(format!("{count} embeddings came for one text"))),
    }
}

fn endpoint(base: &Uri, path: &str) -> Result<Uri, EmbedderError> {
    let wrong = |reason| EmbedderError::Url { reason, url: base.to_string() };
    if !matches!(base.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it does not begin with http:// or https://"));
    }
    let authority = base.authority().ok_or_else(|| wrong("it names no server"))?;
    if authority.as_str().contains('@') {
        let reason = "it holds a password; use the API key";
        return Err(EmbedderError::Url { reason, url: "http://***".to_owned() });
    }
    if base.query().is_some() {
        return Err(wrong("it has a query string"));
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path.parse().map_err(|_| wrong("its path is not valid"))?);
    Uri::from_parts(parts).map_err(|_| wrong("it is not valid"))
}

fn client(timeout: Duration) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_max_idle_per_host(16)
        .build(connector)
}
