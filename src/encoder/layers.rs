//! BERT's layers: vectors of word pieces in, the same in their context out.
//!
//! Called by the embedder's and the verifier's models, which look pieces up before and read the result after. Plain
//! BERT, one text at a time and therefore without padding and masks; products with weights are [`super::product`]'s,
//! those between pieces, in attention, rten-gemm's in float32. Written out rather than run by rten's graph runtime on
//! the same kernels, which took 3.2 instead of 2.6 ms for 12 word pieces and 35 instead of 16 ms for 128, both in
//! float32 (least of 200, one core of a Zen 5 server).
//!
//! Sources: Vaswani et al. 2017, "Attention is all you need"; Devlin et al. 2018, "BERT"; Reimers and Gurevych
//! 2019, "Sentence-BERT" (mean pooling); Wang et al. 2020, "MiniLM".

use rten_gemm::{GemmError, GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{Gelu, Normalize, NormalizeOptions, Softmax, Sum, SumSquareSub};

use super::product::{Dense, Onto, Products, RowBits};
use super::weights::{DamagedModel, HEADS, HIDDEN, INTERMEDIATE, LAYERS, Reader};

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

/// Six layers, and the normalisation before them.
pub struct Encoder {
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

/// Layer normalisation.
struct Norm {
    scale: Vec<f32>,
    bias: Vec<f32>,
}

/// What one thread infers with. Its buffers are kept from one inference to the next so that none allocates.
#[derive(Default)]
pub struct Workspace {
    /// What multiplies with weights.
    pub products: Products,
    /// What multiplies in attention, where there are no weights.
    gemm: GemmExecutor,
    /// A row of [`HIDDEN`] numbers for each piece.
    pub hidden: Vec<f32>,
    attention: Vec<f32>,
    scores: Vec<f32>,
    head: Vec<f32>,
    context: Vec<f32>,
    inner: Vec<f32>,
}

impl Encoder {
    /// Makes the weights of a file ready for this machine's kernel. `attention_bits` are those of what queries, keys and values are
    /// made of, the one product in which 8 bits tell in an embedding.
    pub fn load(
        reader: &mut Reader<'_>,
        products: &Products,
        attention_bits: RowBits,
    ) -> Result<Self, DamagedModel> {
        let norm = Norm::load(reader)?;
        let mut layers = Vec::with_capacity(LAYERS);
        for _ in 0..LAYERS {
            layers.push(Layer {
                attention: Dense::load(reader, products, (HIDDEN, 3 * HIDDEN), attention_bits)?,
                projection: Dense::load(reader, products, (HIDDEN, HIDDEN), RowBits::Eight)?,
                projection_norm: Norm::load(reader)?,
                expansion: Dense::load(reader, products, (HIDDEN, INTERMEDIATE), RowBits::Eight)?,
                contraction: Dense::load(reader, products, (INTERMEDIATE, HIDDEN), RowBits::Eight)?,
                contraction_norm: Norm::load(reader)?,
            });
        }
        Ok(Self { norm, layers })
    }

    /// Turns the vectors of `length` pieces in `work.hidden` into those after the last layer.
    ///
    /// Runs on the calling thread where that is in a rayon pool of its own, see [`super::threads`].
    pub fn apply(&self, length: usize, work: &mut Workspace) -> Result<(), InferenceError> {
        self.norm.apply(&mut work.hidden);
        self.layers.iter().try_for_each(|layer| layer.apply(length, work))
    }
}

impl Layer {
    fn apply(&self, length: usize, work: &mut Workspace) -> Result<(), InferenceError> {
        resize(&mut work.attention, length * 3 * HIDDEN);
        self.attention.apply(&mut work.products, &work.hidden, &mut work.attention, Onto::Nothing)?;
        attend(length, work)?;
        self.projection.apply(&mut work.products, &work.context, &mut work.hidden, Onto::Output)?;
        self.projection_norm.apply(&mut work.hidden);
        resize(&mut work.inner, length * INTERMEDIATE);
        self.expansion.apply(&mut work.products, &work.hidden, &mut work.inner, Onto::Nothing)?;
        Gelu {}.map_mut(&mut work.inner);
        self.contraction.apply(&mut work.products, &work.inner, &mut work.hidden, Onto::Output)?;
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

/// Makes room. What was there does not matter: every product writes its whole output.
pub fn resize(buffer: &mut Vec<f32>, length: usize) {
    buffer.resize(length, 0.0);
}
