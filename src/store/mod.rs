//! Where entries live: in process, bounded by bytes and entries, on disk too where a data directory is given,
//! with an index of embeddings beside it.
//!
//! Called by `cache` and `admin`. Decides nothing about reuse: an entry is returned as it is stored, expired
//! or not, and the caller judges it. Never sees an HTTP request.

pub mod entry;
