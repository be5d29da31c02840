//! Matches of late: with which entry a prompt was answered by meaning, so that asking it again costs neither an embedding, nor a
//! search, nor a verification.
//!
//! Called by the semantic layer, in mode reuse alone: the other modes decide by more than how two prompts compare. That does not
//! change; whether the entry may serve is judged anew each time, and an entry that was replaced is looked for as any other. Both
//! prompts are known by their exact keys, which their scope is part of: nobody's question makes another tenant's faster.

use std::time::SystemTime;

use quick_cache::sync::Cache;

use super::decision::Likeness;
use crate::store::entry::Key;

/// How many are remembered: about 2 MiB.
const MOST: usize = 16_384;

/// A prompt's entry, and how their prompts compare.
#[derive(Debug, Clone, Copy)]
pub(super) struct Match {
    /// The key of the entry.
    pub(super) entry: Key,
    /// When it was stored.
    pub(super) created_at: SystemTime,
    /// The whole comparison.
    pub(super) likeness: Likeness,
}

/// Matches by the key of the prompt that was asked.
#[derive(Debug)]
pub(super) struct Matches(Cache<Key, Match>);

impl Default for Matches {
    fn default() -> Self {
        Self(Cache::new(MOST))
    }
}

impl Matches {
    /// What a prompt was answered with.
    pub(super) fn find(&self, asked: &Key) -> Option<Match> {
        self.0.get(asked)
    }

    /// Remembers it.
    pub(super) fn note(&self, asked: Key, found: Match) {
        self.0.insert(asked, found);
    }
}
