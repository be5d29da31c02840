//! The forward pass of all-MiniLM-L6-v2: word pieces to a vector of length one.
//!
//! Called by the inference threads of `super`. Plain BERT, one text at a time and therefore without padding and
//! masks; the matrix products are rten-gemm's, weights packed for its kernels once at start. Written out rather
//! than run by rten's graph runtime on the same kernels, which took 3.2 instead of 2.6 ms for 12 word pieces and
//! 35 instead of 16 ms for 128 (least of 200, one core of a Zen 5 server).
//!
//! Sources: Vaswani et al. 2017, "Attention is all you need"; Devlin et al. 2018, "BERT"; Reimers and Gurevych
//! 2019, "Sentence-BERT" (mean pooling); Wang et al. 2020, "MiniLM".

use rten_gemm::{BiasVector, GemmError, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{Gelu, Normalize, NormalizeOptions, Softmax, Sum, SumSquareSub};

use super::weights::{DamagedModel, HEADS, HIDDEN, INTERMEDIATE, LAYERS, Quantised, Reader, VOCABULARY};
use super::wordpiece::WINDOW;

const HEAD_WIDTH: usize = HIDDEN / HEADS;
/// One over the square root of a head's width, 32.
const ATTENTION_SCALE: f32 = 0.176_776_7;
/// `layer_norm_eps` of the model's `config.json`.
const EPSILON: f32 = 1e-12;

/// Why a text was not embedded: a fault of the program, not of the text.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// A word piece without a vector, or more of them than the model has places.
    #[error("the text was split into pieces the model does not have")]
    UnknownPiece,
    /// Dimensions that do not fit each other.
    #[error("a matrix product failed: {0}")]
    Product(#[from] GemmError),
    /// Buffers of another size than their matrix.
    #[error("a matrix has another shape than its values")]
    Shape,
}

/// The loaded model; shared by all inference threads.
pub struct Model {
    words: Quantised<'static>,
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query, key and value side by side.
    attention: Dense,
    projection: Dense,
    projection_norm: Norm,
    expansion: Dense,
    contraction: Dense,
    contraction_norm: Norm,
}

/// A matrix product and what is added to it.
struct Dense {
    weights: PackedBMatrix<f32>,
    bias: Vec<f32>,
}

/// Layer normalisation.
struct Norm {
    scale: Vec<f32>,
    bias: Vec<f32>,
}

/// What one thread infers with. Its buffers are kept from one inference to the next so that none allocates.
#[derive(Default)]
pub struct Workspace {
    /// The kernel for this machine, the same in all threads and the one the weights were packed for.
    gemm: GemmExecutor,
    hidden: Vec<f32>,
    attention: Vec<f32>,
    scores: Vec<f32>,
    head: Vec<f32>,
    context: Vec<f32>,
    inner: Vec<f32>,
}

impl Model {
    /// Widens the weights of the file and packs them for this machine's widest vector instructions. The word
    /// vectors, half of the file, stay in it: a text needs only a few of them.
    pub fn load(file: &'static [u8]) -> Result<Self, DamagedModel> {
        let gemm = GemmExecutor::new();
        let mut reader = Reader::new(file)?;
        let words = reader.matrix(VOCABULARY, HIDDEN)?;
        let positions = reader.vector(WINDOW * HIDDEN)?;
        let norm = Norm::load(&mut reader)?;
        let mut layers = Vec::with_capacity(LAYERS);
        for _ in 0..LAYERS {
            layers.push(Layer {
                attention: Dense::load(&mut reader, &gemm, HIDDEN, 3 * HIDDEN)?,
                projection: Dense::load(&mut reader, &gemm, HIDDEN, HIDDEN)?,
                projection_norm: Norm::load(&mut reader)?,
                expansion: Dense::load(&mut reader, &gemm, HIDDEN, INTERMEDIATE)?,
                contraction: Dense::load(&mut reader, &gemm, INTERMEDIATE, HIDDEN)?,
                contraction_norm: Norm::load(&mut reader)?,
            });
        }
        reader.finish()?;
        Ok(Self { words, positions, norm, layers })
    }

    /// The mean of the word pieces' vectors after the last layer. Not yet scaled to length one.
    ///
    /// Runs on the calling thread where that is in a rayon pool of its own, see `super::worker`.
    pub fn infer(&self, ids: &[u32], work: &mut Workspace) -> Result<Vec<f32>, InferenceError> {
        self.look_up(ids, &mut work.hidden)?;
        self.norm.apply(&mut work.hidden);
        for layer in &self.layers {
            layer.apply(ids.len(), work)?;
        }
        let mut pooled = vec![0.0; HIDDEN];
        for row in work.hidden.chunks_exact(HIDDEN) {
            for (sum, value) in pooled.iter_mut().zip(row) {
                *sum += value;
            }
        }
        // Dividing by their number is left out: only the direction counts.
        Ok(pooled)
    }

    fn look_up(&self, ids: &[u32], hidden: &mut Vec<f32>) -> Result<(), InferenceError> {
        resize(hidden, ids.len() * HIDDEN);
        let positions = self.positions.chunks_exact(HIDDEN);
        if ids.len() > positions.len() {
            return Err(InferenceError::UnknownPiece);
        }
        for ((id, row), position) in ids.iter().zip(hidden.chunks_exact_mut(HIDDEN)).zip(positions) {
            usize::try_from(*id)
                .ok()
                .and_then(|id| self.words.widen_row(id, row))
                .ok_or(InferenceError::UnknownPiece)?;
            for (value, offset) in row.iter_mut().zip(position) {
                *value += offset;
            }
        }
        Ok(())
    }
}

impl Layer {
    fn apply(&self, length: usize, work: &mut Workspace) -> Result<(), InferenceError> {
        resize(&mut work.attention, length * 3 * HIDDEN);
        self.attention.apply(&work.gemm, &work.hidden, &mut work.attention, Onto::Nothing)?;
        attend(length, work)?;
        self.projection.apply(&work.gemm, &work.context, &mut work.hidden, Onto::Output)?;
        self.projection_norm.apply(&mut work.hidden);
        resize(&mut work.inner, length * INTERMEDIATE);
        self.expansion.apply(&work.gemm, &work.hidden, &mut work.inner, Onto::Nothing)?;
        Gelu {}.map_mut(&mut work.inner);
        self.contraction.apply(&work.gemm, &work.inner, &mut work.hidden, Onto::Output)?;
        self.contraction_norm.apply(&mut work.hidden);
        Ok(())
    }
}

/// Every word piece's mixture of all pieces' values, by each head in its own part of the width.
fn attend(length: usize, work: &mut Workspace) -> Result<(), InferenceError> {
    resize(&mut work.scores, length * length);
    resize(&mut work.head, length * HEAD_WIDTH);
    resize(&mut work.context, length * HIDDEN);
    let attention = NdTensorView::try_from_data([length, 3, HEADS, HEAD_WIDTH], work.attention.as_slice())
        .map_err(|_| InferenceError::Shape)?;
    for head in 0..HEADS {
        let query = attention.slice((.., 0, head));
        let key = attention.slice((.., 1, head));
        let value = attention.slice((.., 2, head));
        let options = GemmOptions { alpha: ATTENTION_SCALE, ..GemmOptions::default() };
        work.gemm.gemm(
            &mut work.scores,
            GemmInputA::Unpacked(query),
            GemmInputB::Unpacked(key.transposed()),
            options,
        )?;
        for row in work.scores.chunks_exact_mut(length) {
            Softmax::new_mut(row).dispatch();
        }
        work.gemm.gemm(
            &mut work.head,
            GemmInputA::Unpacked(matrix(&work.scores, length, length)?),
            GemmInputB::Unpacked(value),
            GemmOptions::default(),
        )?;
        let rows = work.context.chunks_exact_mut(HIDDEN);
        for (row, part) in rows.zip(work.head.chunks_exact(HEAD_WIDTH)) {
            if let Some(place) = row.chunks_exact_mut(HEAD_WIDTH).nth(head) {
                place.copy_from_slice(part);
            }
        }
    }
    Ok(())
}

/// What a product is added to, its bias apart.
#[derive(Clone, Copy)]
enum Onto {
    Nothing,
    /// What the output holds: the connection past the layer.
    Output,
}

impl Dense {
    fn load(
        reader: &mut Reader<'_>,
        gemm: &GemmExecutor,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, DamagedModel> {
        let weights = reader.matrix(outputs, inputs)?.widen();
        let weights =
            matrix(&weights, outputs, inputs).map_err(|_| DamagedModel("a matrix has another size"))?;
        Ok(Self { weights: gemm.prepack_b(weights.transposed()), bias: reader.vector(outputs)? })
    }

    fn apply(
        &self,
        gemm: &GemmExecutor,
        input: &[f32],
        output: &mut [f32],
        onto: Onto,
    ) -> Result<(), InferenceError> {
        let inputs = self.weights.rows();
        let beta = match onto {
            Onto::Nothing => 0.0,
            Onto::Output => 1.0,
        };
        gemm.gemm(
            output,
            GemmInputA::Unpacked(matrix(input, input.len() / inputs, inputs)?),
            GemmInputB::Packed(&self.weights),
            GemmOptions { beta, bias: Some(BiasVector::Row(&self.bias)), ..GemmOptions::default() },
        )?;
        Ok(())
    }
}

impl Norm {
    fn load(reader: &mut Reader<'_>) -> Result<Self, DamagedModel> {
        Ok(Self { scale: reader.vector(HIDDEN)?, bias: reader.vector(HIDDEN)? })
    }

    fn apply(&self, hidden: &mut [f32]) {
        #[expect(clippy::cast_precision_loss, reason = "384 is exact")]
        const WIDTH: f32 = HIDDEN as f32;
        for row in hidden.chunks_exact_mut(HIDDEN) {
            let mean = Sum::new(row).dispatch() / WIDTH;
            let variance = SumSquareSub::new(row, mean).dispatch() / WIDTH;
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: 1.0 / (variance + EPSILON).sqrt(),
                element_scale: Some(&self.scale),
                element_bias: Some(&self.bias),
                ..NormalizeOptions::default()
            };
            Normalize::new_mut(row, options).dispatch();
        }
    }
}

fn matrix(values: &[f32], rows: usize, columns: usize) -> Result<Matrix<'_>, InferenceError> {
    Matrix::try_from_data([rows, columns], values).map_err(|_| InferenceError::Shape)
}

/// What was there does not matter: every product writes its whole output.
fn resize(buffer: &mut Vec<f32>, length: usize) {
    buffer.resize(length, 0.0);
}

#[cfg(test)]
mod tests {
    use super::super::{VOCABULARY as PIECES, WEIGHTS};
    use super::*;
    use crate::embed::Embedding;
    use std::collections::HashMap;

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
        let model = Model::load(WEIGHTS).unwrap();
        let mut work = Workspace::default();
        let mut embeddings: HashMap<String, Embedding> = HashMap::new();
        let mut embed = |text: &String| {
            let embedding =
                || Embedding::new(model.infer(&PIECES.split(text).ids, &mut work).unwrap()).unwrap();
            embeddings.entry(text.clone()).or_insert_with(embedding).clone()
        };
        let rows = rows(include_str!("../../../tests/data/embedding_pairs.csv"));
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
        let model = Model::load(WEIGHTS).unwrap();
        let mut work = Workspace::default();
        let short = PIECES.split("a short text").ids;
        let fresh = model.infer(&short, &mut work).unwrap();
        model.infer(&PIECES.split(&"a much longer text ".repeat(100)).ids, &mut work).unwrap();
        assert_eq!(model.infer(&short, &mut work).unwrap(), fresh);
    }

    #[test]
    fn pieces_the_model_does_not_have_are_an_error() {
        let model = Model::load(WEIGHTS).unwrap();
        let mut work = Workspace::default();
        assert!(matches!(model.infer(&[101, 30522, 102], &mut work), Err(InferenceError::UnknownPiece)));
        assert!(matches!(model.infer(&[7; WINDOW + 1], &mut work), Err(InferenceError::UnknownPiece)));
    }
}
