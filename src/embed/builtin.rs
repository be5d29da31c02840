//! The embedder inside the program: all-MiniLM-L6-v2 on the CPU, no server, no download.
//!
//! Called through [`super::Embedder`]. Texts are split into word pieces where the caller runs (microseconds);
//! inference (milliseconds) runs on [`Threads`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use super::{EmbedError, EmbedderState, Embedding};
use crate::encoder::VOCABULARY;
use crate::encoder::layers::{Encoder, InferenceError, Workspace, resize};
use crate::encoder::product::RowBits;
use crate::encoder::threads::{Threads, ThreadsError};
use crate::encoder::weights::{DamagedModel, HIDDEN};
use crate::encoder::wordpiece::{WINDOW, WordPiece};
use crate::encoder::words::Words;

/// Two models are never compared: this goes into what keeps entries apart. Changes with the weights' file.
const NAME: &str = "builtin/all-MiniLM-L6-v2/1";

/// The model, and the threads that compute.
#[derive(Debug)]
pub(super) struct Builtin {
    model: Arc<Model>,
    threads: Threads,
    /// Whether the last text that came was embedded.
    healthy: AtomicBool,
}

/// The loaded model; shared by all inference threads.
struct Model {
    words: Words,
    positions: Vec<f32>,
    encoder: Encoder,
}

impl Builtin {
    /// Loads the model (a fraction of a second).
    pub(super) fn load(threads: Threads) -> Result<Self, DamagedModel> {
        LazyLock::force(&VOCABULARY);
        Ok(Self { model: Arc::new(Model::load()?), threads, healthy: AtomicBool::new(true) })
    }

    #[expect(clippy::unused_self, reason = "the same shape as the other embedders'")]
    pub(super) fn name(&self) -> &str {
        NAME
    }

    #[expect(clippy::unused_self, reason = "the same shape as the other embedders'")]
    pub(super) fn window(&self, text: &str) -> usize {
        if WordPiece::fits_at_sight(text) { text.len() } else { VOCABULARY.split(text).read }
    }

    pub(super) async fn embed(&self, text: &str) -> Result<Embedding, EmbedError> {
        let ids = VOCABULARY.split(text).ids;
        if ids.len() <= 2 {
            return Err(EmbedError::Empty);
        }
        let embedded = self.infer(ids).await;
        self.healthy.store(embedded.is_ok(), Ordering::Relaxed);
        embedded
    }

    async fn infer(&self, ids: Vec<u32>) -> Result<Embedding, EmbedError> {
        let model = Arc::clone(&self.model);
        let values =
            self.threads.run(move |work| model.infer(&ids, work)).await.map_err(|error| match error {
                ThreadsError::Full => EmbedError::Unavailable,
                ThreadsError::Timeout(limit) => EmbedError::Timeout(limit),
                ThreadsError::Inference(_) | ThreadsError::Panicked => EmbedError::Failed(error.to_string()),
            })?;
        Embedding::new(values)
            .ok_or_else(|| EmbedError::Failed("the model's answer has no direction".to_owned()))
    }

    pub(super) fn state(&self) -> EmbedderState {
        if self.healthy.load(Ordering::Relaxed) { EmbedderState::Ok } else { EmbedderState::Degraded }
    }
}

impl Model {
    fn load() -> Result<Self, DamagedModel> {
        let (words, mut reader) = Words::load()?;
        let positions = reader.vector(WINDOW * HIDDEN)?;
        let encoder = Encoder::load(&mut reader, &Workspace::default().products, RowBits::Thirteen)?;
        reader.finish()?;
        Ok(Self { words, positions, encoder })
    }

    /// The mean of the word pieces' vectors after the last layer (Reimers and Gurevych 2019). Not yet scaled to
    /// length one.
    fn infer(&self, ids: &[u32], work: &mut Workspace) -> Result<Vec<f32>, InferenceError> {
        resize(&mut work.hidden, ids.len() * HIDDEN);
        let positions = self.positions.chunks_exact(HIDDEN);
        if ids.len() > positions.len() {
            return Err(InferenceError::UnknownPiece);
        }
        for ((id, row), position) in ids.iter().zip(work.hidden.chunks_exact_mut(HIDDEN)).zip(positions) {
            self.words.look_up(*id, row)?;
            for (value, offset) in row.iter_mut().zip(position) {
                *value += offset;
            }
        }
        self.encoder.apply(ids.len(), work)?;
        let mut pooled = vec![0.0; HIDDEN];
        for row in work.hidden.chunks_exact(HIDDEN) {
            for (sum, value) in pooled.iter_mut().zip(row) {
                *sum += value;
            }
        }
        // Dividing by their number is left out: only the direction counts.
        Ok(pooled)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::threads::ThreadsOptions;
    use std::collections::HashMap;

    fn builtin() -> Builtin {
        Builtin::load(Threads::start(&ThreadsOptions::default()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn paraphrases_are_nearer_than_strangers() {
        let builtin = builtin();
        let anchor = builtin.embed("How do I reset my password?").await.unwrap();
        let near = builtin.embed("What are the steps to change a forgotten password?").await.unwrap();
        let far = builtin.embed("Which wine goes with grilled salmon?").await.unwrap();
        assert_eq!(anchor.values().len(), 384);
        assert!(anchor.similarity(&near).unwrap().0 > 0.7);
        assert!(anchor.similarity(&far).unwrap().0 < 0.2);
        assert_eq!(builtin.state(), EmbedderState::Ok);
    }

    #[tokio::test]
    async fn a_text_is_embedded_up_to_its_window() {
        let builtin = builtin();
        let text = "All work and no play makes Jack a dull boy. ".repeat(50);
        let window = builtin.window(&text);
        assert!(window < text.len());
        assert_eq!(builtin.embed(&text).await.unwrap(), builtin.embed(&text[..window]).await.unwrap());
        assert_eq!(builtin.window("short"), 5);
    }

    #[tokio::test]
    async fn blank_texts_are_an_error_and_no_fault_of_the_embedder() {
        let builtin = builtin();
        for text in ["", "  \n\t", "\0\u{200b}"] {
            assert!(matches!(builtin.embed(text).await, Err(EmbedError::Empty)), "{text:?}");
        }
        assert_eq!(builtin.state(), EmbedderState::Ok);
    }

    #[tokio::test]
    async fn a_fault_shows_in_the_state_until_the_next_text() {
        let builtin = builtin();
        let failed = builtin.infer(vec![101, 30522, 102]).await;
        assert!(matches!(failed, Err(EmbedError::Failed(_))), "{failed:?}");
        assert!(builtin.embed("a text").await.is_ok());
        assert_eq!(builtin.state(), EmbedderState::Ok);
    }

    /// Rows of a CSV file (RFC 4180) as make-model writes it.
    fn rows(text: &str) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut field, mut quoted) = (vec![], vec![], String::new(), false);
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut field)),
                '\n' if !quoted => {
                    row.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut row));
                }
                other => field.push(other),
            }
        }
        rows
    }

    #[test]
    fn similarities_are_those_of_the_float32_model() {
        let model = Model::load().unwrap();
        let mut work = Workspace::default();
        let mut embeddings: HashMap<String, Embedding> = HashMap::new();
        let mut embed = |text: &String| {
            let embedding =
                || Embedding::new(model.infer(&VOCABULARY.split(text).ids, &mut work).unwrap()).unwrap();
            embeddings.entry(text.clone()).or_insert_with(embedding).clone()
        };
        let rows = rows(include_str!("../../tests/data/embedding_pairs.csv"));
        assert_eq!(rows.len(), 101);
        let mut drifts: Vec<f32> = rows[1..]
            .iter()
            .map(|row| {
                let ours = embed(&row[0]).similarity(&embed(&row[1])).unwrap().0;
                (ours - row[2].parse::<f32>().unwrap()).abs()
            })
            .collect();
        drifts.sort_by(f32::total_cmp);
        let (mean, most) = (drifts.iter().sum::<f32>() / 100.0, drifts[99]);
        println!("drift of pair similarities: mean {mean:.5}, 99 % {:.5}, max {most:.5}", drifts[98]);
        assert!(mean <= 0.002, "{mean}");
        assert!(most <= 0.01, "{most}");
    }

    #[test]
    fn an_inference_leaves_nothing_for_the_next() {
        let model = Model::load().unwrap();
        let mut work = Workspace::default();
        let short = VOCABULARY.split("a short text").ids;
        let fresh = model.infer(&short, &mut work).unwrap();
        model.infer(&VOCABULARY.split(&"a much longer text ".repeat(100)).ids, &mut work).unwrap();
        assert_eq!(model.infer(&short, &mut work).unwrap(), fresh);
    }

    #[test]
    fn pieces_the_model_does_not_have_are_an_error() {
        let model = Model::load().unwrap();
        let mut work = Workspace::default();
        assert!(matches!(model.infer(&[101, 30522, 102], &mut work), Err(InferenceError::UnknownPiece)));
        assert!(matches!(model.infer(&[7; WINDOW + 1], &mut work), Err(InferenceError::UnknownPiece)));
    }
}
