//! What the layers would find for a request, and why: the lookups that serve, without their effects. Nothing is counted,
//! stored or put on trial, and upstream is not asked (the embedder is).
//!
//! Called by `proxy` for `POST /explain`.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::debug;

use super::decision::{Decision, MissReason};
use super::outcome::Layer;
use super::semantic::{Asked, Purpose};
use super::verified::Choice;
use super::{Cache, Found, Hit, Miss, Query};

pub use super::semantic::Seen;

impl Cache {
    /// What the exact layer would find.
    pub async fn explain_exact(&self, query: &Query, now: SystemTime) -> Found {
        let (entry, decision) = self.equal(query, now).await?;
        let hit = Hit { entry, layer: Layer::Exact, decision };
        if self.trials.options().observe { Err(self.would_observe(query, &hit)) } else { Ok(hit) }
    }

    /// What the semantic layer would find, and every candidate that it would judge on the way, nearest first; the one that the prompt
    /// was matched with before, where it serves. In mode verified: if no lot fell on the request.
    pub async fn explain_semantic(&self, query: &Query, now: SystemTime) -> (Found, Vec<Seen>) {
        match self.remembered(query, now).await {
            Ok(Some((entry, decision))) => {
                let seen = vec![Seen { entry: Arc::clone(&entry), decision }];
                return (Ok(Hit { entry, layer: Layer::Semantic, decision }), seen);
            }
            Ok(None) => {}
            Err(miss) => return (Err(miss), Vec::new()),
        }
        let (prompt, placed) = match self.locate(query, Purpose::Explain).await {
            Ok(located) => located,
            Err(miss) => return (Err(miss), Vec::new()),
        };
        let mut asked = Asked::new(query, prompt, now);
        asked.seen = Some(Vec::new());
        let nearest = self.nearest(&mut asked, &placed).await;
        let mut seen = asked.seen.unwrap_or_default();
        let found = match nearest {
            Ok((entry, decision)) => {
                self.explain_trial(query, Hit { entry, layer: Layer::Semantic, decision }).await
            }
            Err(miss) => Err(miss),
        };
        // What trials say against the last one, which the policy found good enough, is said of it too.
        if let (Err(Miss { decision: Some(decision), .. }), Some(last)) = (&found, seen.last_mut())
            && last.decision.verdict.is_ok()
        {
            last.decision = *decision;
        }
        (found, seen)
    }

    /// How fresh an entry is, 0 to 1: what its confidence is multiplied by.
    pub fn freshness(&self, seen: &Seen, now: SystemTime) -> f32 {
        self.policy.freshness(&seen.entry, now)
    }

    /// What the modes that try stored replies would say of a candidate.
    async fn explain_trial(&self, query: &Query, hit: Hit) -> Found {
        if self.trials.options().observe {
            return Err(self.would_observe(query, &hit));
        }
        let Some(verified) = self.trials.verified() else { return Ok(hit) };
        let evidence = match self.store.evidence(&hit.entry.key, hit.entry.created_at).await {
            Ok(evidence) => evidence,
            Err(error) => {
                debug!(%error, "the store did not answer");
                return Err(Miss::because(MissReason::StoreUnavailable));
            }
        };
        match verified.judge(&evidence, hit.decision.confidence).choice {
            Choice::Serve => Ok(hit),
            Choice::Decline => Err(refused(&hit, MissReason::LowConfidence)),
            Choice::Explore => Err(refused(&hit, MissReason::Exploring)),
        }
    }

    fn would_observe(&self, query: &Query, hit: &Hit) -> Miss {
        refused(hit, self.trials.verdict(query, hit).err().unwrap_or(MissReason::Observed))
    }
}

fn refused(hit: &Hit, reason: MissReason) -> Miss {
    let decision = Decision { verdict: Err(reason), ..hit.decision };
    Miss { decision: Some(decision), ..Miss::because(reason) }.of(&hit.entry)
}
