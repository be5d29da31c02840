//! Measures the reuse decision over labelled pairs: for each, one prompt is stored and the other asked of a real
//! [`crate::cache::Cache`] over an in-memory store, so that what is measured is what serves requests.
//!
//! Called by `cli::eval`. [`pairs`] reads, [`judge`] asks, [`measure`] counts, [`report`] puts together what
//! [`text`] and [`plot`] show, [`fit`] calibrates; [`simulate`] runs verified mode over a stream of the same prompts.

pub mod fit;
pub mod judge;
pub mod measure;
pub mod pairs;
pub mod plot;

pub mod report;
pub mod simulate;
pub mod text;
