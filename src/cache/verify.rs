//! Mode verified at work: a candidate is served or explored as [`super::verified`] decides, and what a comparison
//! finds becomes evidence, in the store with the entry.
//!
//! Called by the semantic layer, and when a trial is concluded. The client waits for neither comparison nor judge.

use tracing::debug;

use super::comparison::Agreement;
use super::decision::{Decision, MissReason};
use super::trial::{Purpose, Trial};
use super::verified::{Choice, Judgement};
use super::{Cache, Found, Hit, Miss, Query};
use crate::store::entry::Entry;

impl Cache {
    /// Whether a candidate that was found by meaning may serve, in mode verified; else the miss that explores it.
    pub(super) async fn verify(&self, query: &Query, hit: Hit) -> Found {
        let Some(verified) = self.trials.verified() else { return Ok(hit) };
        let evidence = match self.store.evidence(&hit.entry.key, hit.entry.created_at).await {
            Ok(evidence) => evidence,
            Err(error) => {
                debug!(%error, "the store did not answer; the request goes upstream");
                return Err(Miss::because(MissReason::StoreUnavailable));
            }
        };
        let directives = &query.directives;
        // Nothing is compared where upstream must not be asked, and what forbids traces leaves no evidence either: what
        // is trusted serves such requests without a lot.
        let comparable = !directives.only_if_cached && !directives.is_fleeting();
        let draw = if comparable { fastrand::f32() } else { 1.0 };
        let judgement = verified.decide(&evidence, hit.decision.confidence, draw);
        let miss = |reason| {
            let decision = Decision { verdict: Err(reason), ..hit.decision };
            Miss { decision: Some(decision), ..Miss::because(reason) }.of(&hit.entry)
        };
        match judgement.choice {
            Choice::Serve => {
                self.store.record_hit(&hit.entry.key);
                Ok(hit)
            }
            Choice::Decline => Err(miss(MissReason::LowConfidence)),
            Choice::Explore => {
                let miss = miss(MissReason::Exploring);
                if !comparable {
                    return Err(miss);
                }
                verified.explored();
                let trial = Some(Trial { hit, purpose: Purpose::Verification(judgement) });
                Err(Miss { trial: trial.map(Box::new), ..miss })
            }
        }
    }

    /// Takes note of what the comparison of an explored entry found. What is unclear is no evidence.
    pub(super) fn learn(&self, entry: &Entry, judgement: &Judgement, agreement: Agreement) {
        let Some(verified) = self.trials.verified() else { return };
        let same = match agreement {
            Agreement::Same => Some(true),
            Agreement::Different => Some(false),
            Agreement::Unclear => None,
        };
        if let Some(same) = same {
            let observation = verified.note(judgement, same, fastrand::u32(..));
            self.store.note_evidence(&entry.key, entry.created_at, observation);
        }
        // Counted last: whoever sees the count finds the evidence.
        verified.compared(agreement);
    }
}
