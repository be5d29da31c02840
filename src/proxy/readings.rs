//! Requests read of late: one that comes again to the byte need not be read and named again.
//!
//! Called by [`super::cached`]. Reading JSON, laying out the scope and hashing it costs more than looking up what it
//! names. What a request means depends on its bytes, its identity, the settings, the rules of which prompts lean on more
//! than their words, and the upstreams to choose from, and all but the first two stay while these readings do: whoever
//! replaces one of them begins with new readings.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::cached::Prepared;
use crate::cache::key::RequestId;

/// How much memory the readings may take, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// How many readings that is, about.
const EXPECTED: usize = 8192;

/// The readings made of late. Bounded: the least used are forgotten, which costs their next request the work anew.
#[derive(Debug)]
pub(super) struct Readings(Cache<RequestId, Arc<Prepared>, Weight>);

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<RequestId, Arc<Prepared>> for Weight {
    fn weight(&self, request: &RequestId, prepared: &Arc<Prepared>) -> u64 {
        (request.weight() + prepared.weight()) as u64
    }
}

impl Readings {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(EXPECTED, MAX_BYTES, Weight))
    }

    /// What a request means, if it was read of late.
    pub(super) fn get(&self, request: &RequestId) -> Option<Arc<Prepared>> {
        self.0.get(request)
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.clear();
    }

    /// Remembers what a request means.
    pub(super) fn insert(&self, request: RequestId, prepared: &Arc<Prepared>) {
        self.0.insert(request, Arc::clone(prepared));
    }
}
