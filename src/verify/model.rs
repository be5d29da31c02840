//! The verifier's forward pass: a pair's word pieces to log-odds.
//!
//! Called by the threads of [`super::Verifier`]. The vectors of word pieces are the embedder's; positions, kinds,
//! layers and the head are the verifier's own.

use rten_simd::SimdUnaryOp;
use rten_vecmath::Gelu;

use super::pair::{KINDS, PairPieces, PieceKind};
use crate::encoder::layers::{Encoder, InferenceError, Workspace, resize};
use crate::encoder::product::{Dense, Onto, RowBits};
use crate::encoder::weights::{DamagedModel, HIDDEN, Reader};
use crate::encoder::wordpiece::WINDOW;
use crate::encoder::words::Words;

static WEIGHTS: &[u8] = include_bytes!("../../models/verifier/weights.bin");

/// Version included: another content gets another number.
const MAGIC: &[u8] = b"RJVERI01";

/// Log-odds are 0.022 off on average; 13 bits, at twice the arithmetic, would leave 0.020, which is the weights' share.
const ROW_BITS: RowBits = RowBits::Eight;

/// The loaded model.
pub struct Model {
    words: Words,
    positions: Vec<f32>,
    kinds: Vec<f32>,
    encoder: Encoder,
    /// What is seen of both texts to what decides.
    summary: Dense,
    decision: Vec<f32>,
    bias: f32,
}

impl Model {
    /// Makes the weights inside the program ready.
    pub fn load() -> Result<Self, DamagedModel> {
        let mut reader = Reader::new(WEIGHTS, MAGIC)?;
        let products = Workspace::default().products;
        let model = Self {
            words: Words::load()?.0,
            positions: reader.vector(WINDOW * HIDDEN)?,
            kinds: reader.vector(KINDS * HIDDEN)?,
            encoder: Encoder::load(&mut reader, &products, ROW_BITS)?,
            summary: Dense::load(&mut reader, &products, (3 * HIDDEN, HIDDEN), ROW_BITS)?,
            decision: reader.vector(HIDDEN)?,
            bias: reader.vector(1)?.iter().sum(),
        };
        reader.finish()?;
        Ok(model)
    }

    /// Log-odds that both texts want the same answer.
    pub fn infer(&self, pair: &PairPieces, work: &mut Workspace) -> Result<f32, InferenceError> {
        self.look_up(pair, work)?;
        self.encoder.apply(pair.ids.len(), work)?;
        let seen = seen(pair, &work.hidden);
        let mut summary = vec![0.0; HIDDEN];
        self.summary.apply(&mut work.products, &seen, &mut summary, Onto::Nothing)?;
        Gelu {}.map_mut(&mut summary);
        Ok(self.bias + summary.iter().zip(&self.decision).map(|(value, weight)| value * weight).sum::<f32>())
    }

    fn look_up(&self, pair: &PairPieces, work: &mut Workspace) -> Result<(), InferenceError> {
        resize(&mut work.hidden, pair.ids.len() * HIDDEN);
        if pair.ids.len() > WINDOW {
            return Err(InferenceError::UnknownPiece);
        }
        let rows = work.hidden.chunks_exact_mut(HIDDEN).zip(self.positions.chunks_exact(HIDDEN));
        for ((&id, &kind), (row, position)) in pair.ids.iter().zip(&pair.kinds).zip(rows) {
            self.words.look_up(id, row)?;
            let kind = self.kinds.chunks_exact(HIDDEN).nth(kind as usize).ok_or(InferenceError::Shape)?;
            for ((value, position), kind) in row.iter_mut().zip(position).zip(kind) {
                *value += position + kind;
            }
        }
        Ok(())
    }
}

/// What the head sees of both texts: the first piece, which stands for the pair, then the difference and the product
/// of the texts' means.
fn seen(pair: &PairPieces, hidden: &[f32]) -> Vec<f32> {
    let mut means = [vec![0.0_f32; HIDDEN], vec![0.0_f32; HIDDEN]];
    let mut counts = [0.0_f32; 2];
    for (kind, row) in pair.kinds.iter().zip(hidden.chunks_exact(HIDDEN)) {
        let [first, second] = &mut means;
        let (sum, count) = match kind {
            PieceKind::Frame => continue,
            PieceKind::FirstShared | PieceKind::First => (first, 0),
            PieceKind::SecondShared | PieceKind::Second => (second, 1),
        };
        if let Some(count) = counts.get_mut(count) {
            *count += 1.0;
        }
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += value;
        }
    }
    for (mean, count) in means.iter_mut().zip(counts) {
        for value in mean {
            *value /= count.max(1.0);
        }
    }
    let [first, second] = means;
    let mut seen: Vec<f32> = hidden.iter().take(HIDDEN).copied().collect();
    seen.extend(first.iter().zip(&second).map(|(one, other)| (one - other).abs()));
    seen.extend(first.iter().zip(&second).map(|(one, other)| one * other));
    seen
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the verifier's model")
    }
}
