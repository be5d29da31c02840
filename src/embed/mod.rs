//! Text to [`Embedding`]: the model inside the program, or a server that speaks Ollama's or OpenAI's API.
//!
//! Called by `cache`, off its hot path: only after the exact layer missed. Knows nothing of entries or HTTP
//! requests of clients.

mod builtin;
pub(crate) mod remote;

pub use remote::{ApiKey, RemoteOptions};

use std::sync::Arc;

use builtin::Builtin;
use remote::{Api, Remote};

use crate::encoder::threads::Threads;
use crate::encoder::weights::DamagedModel;

/// Cosine similarity of two embeddings of one model, -1 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Similarity(pub f32);

/// A text's place in the space of one model: a vector of length one, so that a dot product is the cosine.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Arc<[f32]>);

impl Embedding {
    /// Scales a vector to length one. `None` where it has no direction: empty, all zeros, or not finite.
    pub fn new(mut values: Vec<f32>) -> Option<Self> {
        let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
        let scale = |values: &mut [f32], length: f32| {
            for value in values {
                *value /= length;
            }
        };
        // Squares of the smallest numbers are not exact in 32 bits, and those of the largest infinite: such a vector is brought
        // near one first.
        if !(1e-15..1e15).contains(&length(&values)) {
            let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            if !largest.is_normal() {
                return None;
            }
            scale(&mut values, largest);
        }
        let length = length(&values);
        if !length.is_normal() {
            return None;
        }
        scale(&mut values, length);
        Some(Self(values.into()))
    }

    /// The components.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// Cosine similarity; `None` between different dimensions, which are different models.
    pub fn similarity(&self, other: &Self) -> Option<Similarity> {
        (self.0.len() == other.0.len())
            .then(|| Similarity(self.0.iter().zip(&*other.0).map(|(a, b)| a * b).sum()))
    }
}

/// Why a text was not embedded. None is the client's problem: the request goes upstream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EmbedError {
    /// The queue is full, or the circuit breaker is open after repeated failures.
    #[error("the embedder is overloaded or was switched off after repeated failures")]
    Unavailable,
    /// The text holds nothing but blanks and control characters.
    #[error("there is nothing to embed in the text")]
    Empty,
    /// The embedder did not answer in time.
    #[error("the embedder did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The embedder answered with something else than an embedding, or failed.
    #[error("the embedder failed: {0}")]
    Failed(String),
}

/// Why there is no embedder: the program does not start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EmbedderError {
    /// The weights inside the program are not those it was built for.
    #[error(transparent)]
    Model(#[from] DamagedModel),
    /// The server's URL is none that can be used.
    #[error("{url} is no URL of an embedder: {reason}")]
    Url {
        /// The URL, without credentials.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// How the embedder does, for readiness and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbedderState {
    /// The last texts were embedded.
    Ok,
    /// The last text was not, or the embedder is tried again after failures.
    Degraded,
    /// Nothing is embedded for now.
    Down,
}

/// Turns texts into embeddings. Cheap to clone; all clones share one model, queue and circuit breaker.
#[derive(Debug, Clone)]
pub struct Embedder {
    kind: Arc<Kind>,
    memo: Option<Arc<Memo>>,
}

/// Embeddings of late, by the text.
type Memo = quick_cache::sync::Cache<String, Embedding>;

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, behind an `Arc`")]
enum Kind {
    Builtin(Builtin),
    Remote(Remote),
}

impl Embedder {
    /// The model inside the program, on these threads. Loading it takes a fraction of a second.
    pub fn builtin(threads: Threads) -> Result<Self, EmbedderError> {
        Ok(Self::of(Kind::Builtin(Builtin::load(threads)?)))
    }

    /// A model that an Ollama server runs, by `/api/embed`; where that is missing by the older
    /// `/api/embeddings`, whose window is shorter.
    pub fn ollama(options: RemoteOptions) -> Result<Self, EmbedderError> {
        Ok(Self::of(Kind::Remote(Remote::new(Api::Ollama, options)?)))
    }

    /// A model behind OpenAI's `/v1/embeddings`.
    pub fn openai(options: RemoteOptions) -> Result<Self, EmbedderError> {
        Ok(Self::of(Kind::Remote(Remote::new(Api::OpenAi, options)?)))
    }

    fn of(kind: Kind) -> Self {
        Self { kind: Arc::new(kind), memo: None }
    }

    /// The same embedder, which embeds none of the last `texts` again, about. For work on many texts that come
    /// again and again; not for clients' requests, where the time of an answer would tell what others asked.
    #[must_use]
    pub fn remembering(self, texts: usize) -> Self {
        Self { memo: Some(Arc::new(Memo::new(texts))), ..self }
    }

    /// The model's identity: its embeddings may be compared with those of the same name only.
    pub fn name(&self) -> &str {
        match &*self.kind {
            Kind::Builtin(builtin) => builtin.name(),
            Kind::Remote(remote) => remote.name(),
        }
    }

    /// Byte offset, on a character's boundary, up to which [`Self::embed`] reads the text. Texts may be compared
    /// by meaning only where what follows is equal.
    pub fn window(&self, text: &str) -> usize {
        match &*self.kind {
            Kind::Builtin(builtin) => builtin.window(text),
            Kind::Remote(remote) => remote.window(text),
        }
    }

    /// Embeds the text up to its [`Self::window`].
    pub async fn embed(&self, text: &str) -> Result<Embedding, EmbedError> {
        match &self.memo {
            Some(memo) => memo.get_or_insert_async(text, self.embed_now(text)).await,
            None => self.embed_now(text).await,
        }
    }

    async fn embed_now(&self, text: &str) -> Result<Embedding, EmbedError> {
        match &*self.kind {
            Kind::Builtin(builtin) => builtin.embed(text).await,
            Kind::Remote(remote) => remote.embed(text).await,
        }
    }

    /// How the embedder does.
    pub fn state(&self) -> EmbedderState {
        match &*self.kind {
            Kind::Builtin(builtin) => builtin.state(),
            Kind::Remote(remote) => remote.state(),
        }
    }
}
