//! The machinery of the models inside the program: word pieces, BERT's layers, files of weights, and the threads that
//! compute.
//!
//! Called by `embed` for the built-in embedder and by `verify`. Knows text and numbers, nothing of prompts, entries or
//! what a result is for.

pub mod layers;
pub mod product;
pub mod threads;
pub mod weights;
pub mod wordpiece;
pub mod words;

use std::sync::LazyLock;

use wordpiece::WordPiece;

/// How texts are split, for all models.
pub static VOCABULARY: LazyLock<WordPiece> =
    LazyLock::new(|| WordPiece::new(include_str!("../../models/vocab.txt")));
