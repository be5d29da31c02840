//! Whether two prompts want the same answer: a small model that reads both at once, where an embedding reads each
//! alone and must guess what will matter.
//!
//! Called by `cache` for the best candidates of a semantic lookup, after everything cheaper spoke for them. Knows two
//! texts and gives a number; what follows from it is `cache`'s to say.
//!
//! The model is a cross-encoder (Nogueira and Cho 2019, "Passage Re-ranking with BERT") that began as the built-in
//! embedder and was trained by `scripts/train-verifier` on prompts written for it (`models/verifier/README.md`).

mod model;
pub(crate) mod pair;

use std::sync::Arc;

use crate::encoder::threads::{Threads, ThreadsError};
use crate::encoder::weights::DamagedModel;
use model::Model;
use pair::PairPieces;

/// Log-odds that two prompts want the same answer, as the model has it: not calibrated, finite.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score(pub f32);

/// Why a pair was not verified. None is the client's problem: the request goes upstream.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The prompts differ over more text than the model reads, or in what it does not.
    #[error("the prompts are too long for the verifier, and differ over most of it")]
    TooLong,
    /// One has characters that the model does not know, which all look alike to it.
    #[error("the prompts have characters that the verifier does not know")]
    Unreadable,
    /// The model gave no answer.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// The model gave no number.
    #[error("the verifier's answer is no number")]
    NoNumber,
}

/// The verifier. Cheap to clone; clones share one model.
#[derive(Debug, Clone)]
pub struct Verifier {
    model: Arc<Model>,
    threads: Threads,
}

impl Verifier {
    /// Loads the model, which takes a fraction of a second.
    ///
    /// # Errors
    /// The weights inside the program are not those it was built for.
    pub fn load(threads: Threads) -> Result<Self, DamagedModel> {
        Ok(Self { model: Arc::new(Model::load()?), threads })
    }

    /// How sure the model is that one reply answers both prompts. Symmetric. A few milliseconds.
    pub async fn score(&self, asked: &str, stored: &str) -> Result<Score, VerifyError> {
        let pieces = PairPieces::of(asked, stored)?;
        let model = Arc::clone(&self.model);
        let score = self.threads.run(move |work| model.infer(&pieces, work)).await?;
        if score.is_finite() { Ok(Score(score)) } else { Err(VerifyError::NoNumber) }
    }
}
