//! What a lookup is asked, and what comes of it.
//!
//! Made by [`super::Cache`]; read by `proxy` and `admin`.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::decision::{Decision, MissReason};
use super::directives::Directives;
use super::guard::{self, Leanings};
use super::key::CredentialId;
use super::outcome::Layer;
use super::trial::Trial;
use crate::dialect::Endpoint;
use crate::store::entry::{Entry, Key, Placed, Scope};

/// A request as the cache sees it.
#[derive(Debug, Clone)]
pub struct Query {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The model asked, for people and purges.
    pub model: String,
    /// The normalised prompt, where the semantic layer may serve the request.
    pub prompt: Option<String>,
    /// Whether the user said the same before in this conversation.
    pub repeated: bool,
    /// Whom its reply belongs to.
    pub scope: Scope,
    /// The exact key.
    pub key: Key,
    /// Who asks; `None` for a caller without credentials.
    pub credential: Option<CredentialId>,
    /// What the client asked of the cache.
    pub directives: Directives,
    /// See [`super::Cache::leanings`].
    pub(super) leanings: OnceLock<Leanings>,
}

/// A stored reply that may be served.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The entry.
    pub entry: Arc<Entry>,
    /// The layer that found it.
    pub layer: Layer,
    /// The judgement.
    pub decision: Decision,
}

/// No stored reply may be served.
#[derive(Debug, Clone)]
pub struct Miss {
    /// Why.
    pub reason: MissReason,
    /// The judgement of the nearest entry, where there was one.
    pub decision: Option<Decision>,
    /// The guard's rule that spoke against it.
    pub rule: Option<&'static str>,
    /// Whether a directive of the client's alone (`max-age`) kept an entry from serving.
    pub by_directive: bool,
    /// The prompt's place, where the lookup came so far; storing the reply uses it again.
    pub place: Option<Placed>,
    /// The nearest entry, where the semantic layer judged one.
    pub candidate: Option<Arc<Entry>>,
    /// A stored reply that is to be compared with upstream's.
    pub trial: Option<Box<Trial>>,
}

impl Decision {
    /// The miss that a decision against an entry is.
    pub(super) fn or_miss(self, entry: &Entry, now: SystemTime) -> Result<Self, Miss> {
        let Err(reason) = self.verdict else { return Ok(self) };
        let alive = entry.remaining(now) > Duration::ZERO;
        Err(Miss {
            decision: Some(self),
            rule: self.rule.map(guard::Rule::name),
            by_directive: reason == MissReason::Expired && alive,
            ..Miss::because(reason)
        })
    }
}

/// What a layer found.
pub type Found = Result<Hit, Miss>;

impl Miss {
    /// The same, of this candidate.
    pub(super) fn of(self, entry: &Arc<Entry>) -> Self {
        Self { candidate: Some(Arc::clone(entry)), ..self }
    }

    pub(super) fn because(reason: MissReason) -> Self {
        Self {
            reason,
            decision: None,
            rule: None,
            by_directive: false,
            place: None,
            candidate: None,
            trial: None,
        }
    }

    /// The miss to report where the exact layer and then the semantic one found nothing: an entry that was
    /// there but could not serve says more than that there was none.
    #[must_use]
    pub fn then(self, semantic: Self) -> Self {
        let tells_more = self.reason == MissReason::NoCandidate || semantic.reason != MissReason::NoCandidate;
        // What a process has by itself says nothing of what the store has.
        if tells_more && self.reason != MissReason::StoreUnavailable {
            return semantic;
        }
        Self { place: semantic.place, trial: semantic.trial, ..self }
    }
}
