//! Text to [`Embedding`]: the model inside the program, or a server that speaks Ollama's or OpenAI's API.
//!
//! Called by `cache`, off its hot path: only after the exact layer missed. Knows nothing of entries or HTTP
//! requests of clients.

use std::sync::Arc;

/// Cosine similarity of two embeddings of one model, -1 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Similarity(pub f32);

/// A text's place in the space of one model: a vector of length one, so that a dot product is the cosine.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Arc<[f32]>);

impl Embedding {
    /// Scales a vector to length one. `None` where it has no direction: empty, all zeros, or not finite.
    pub fn new(mut values: Vec<f32>) -> Option<Self> {
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        if !length.is_normal() {
            return None;
        }
        for value in &mut values {
            *value /= length;
        }
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
    /// The embedder did not answer in time.
    #[error("the embedder did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The embedder answered with something else than an embedding, or failed.
    #[error("the embedder failed: {0}")]
    Failed(String),
}
