//! Vectors of word pieces, as they stand in a model's file: half of it, and a text needs only a few.
//!
//! Shared by the embedder and the verifier, which was trained with the embedder's vectors as they are.

use super::layers::InferenceError;
use super::weights::{DamagedModel, HIDDEN, Quantised, Reader, VOCABULARY};

/// The embedder's file, which begins with them.
static FILE: &[u8] = include_bytes!("../../models/all-minilm-l6-v2.bin");

/// Version included: another content gets another number, and the embedder another name.
const MAGIC: &[u8] = b"RJMINI01";

/// A vector for each word piece.
#[derive(Debug, Clone, Copy)]
pub struct Words(Quantised<'static>);

impl Words {
    /// Those of the embedder's file, and what follows them there.
    pub fn load() -> Result<(Self, Reader<'static>), DamagedModel> {
        let mut reader = Reader::new(FILE, MAGIC)?;
        Ok((Self(reader.matrix(VOCABULARY, HIDDEN)?), reader))
    }

    /// Writes a piece's vector into a row of [`HIDDEN`] numbers.
    pub fn look_up(&self, id: u32, row: &mut [f32]) -> Result<(), InferenceError> {
        let id = usize::try_from(id).map_err(|_| InferenceError::UnknownPiece)?;
        self.0.widen_row(id, row).ok_or(InferenceError::UnknownPiece)
    }
}
