//! Stored replies on trial: found, not relied upon, and compared with what upstream answers to the same request.
//!
//! A [`Trial`] travels with the request upstream (`proxy`'s fetch); when the fresh reply is gathered, and the client
//! has it, [`Cache::conclude`] compares both behind the request and counts what came out. Mode observe puts every
//! candidate on trial, an audit one that was served, mode verified one that is not trusted yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;
use tracing::debug;

use super::comparison::{Comparison, compare};
use super::decision::{Decision, Floors, MissReason, Policy};
use super::near_misses::NearMisses;
use super::observations::{Audits, Observations, Observed};
use super::outcome::Layer;
use super::verified::{Judgement, Limits, Verified};
use super::{Agreement, Cache, Found, Hit, Miss, Query};
use crate::dialect::Reply;
use crate::store::entry::{Entry, Placed};
use crate::store::evidence::Evidence;

/// The similarity from which a candidate is looked at in mode observe: what is below no setting would serve.
const OBSERVED_FROM: f32 = 0.5;

/// KiB of replies that may wait to be compared. Beyond, comparisons are given up and counted.
const WAITING_KIB: u32 = 32 << 10;

/// KiB that each counts for at least, so that no more than 64 wait.
const LEAST_KIB: u32 = WAITING_KIB / 64;

/// Comparisons at once: requests need the embedder more.
const WORKING: usize = 1;

/// What is put on trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrialOptions {
    /// Whether every candidate is, and none served (mode observe).
    pub observe: bool,
    /// The share of served semantic hits that are audited, 0 to 1.
    pub audit_share: f32,
    /// Near misses that are kept.
    pub near_misses: usize,
    /// What mode verified keeps to; `None` in another mode.
    pub verified: Option<Limits>,
}

impl TrialOptions {
    /// Nothing is put on trial, and nothing kept.
    pub const OFF: Self = Self { observe: false, audit_share: 0.0, near_misses: 0, verified: None };
}

/// A stored reply on trial.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What was found.
    pub hit: Hit,
    /// Why it is on trial.
    pub purpose: Purpose,
}

/// Why a stored reply is on trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Purpose {
    /// Mode observe; whether it would have been served as configured.
    Observation {
        /// Whether it would.
        served: bool,
    },
    /// It was served, and is checked.
    Audit,
    /// Mode verified explores it, judged so.
    Verification(Judgement),
}

impl Trial {
    /// Whether the fresh reply is stored as that of any miss, before the comparison. Not where a stored reply served
    /// or would have: the store then holds what it would in mode reuse.
    pub fn stores_reply(&self) -> bool {
        match self.purpose {
            Purpose::Observation { served } => !served,
            Purpose::Audit => false,
            Purpose::Verification(_) => true,
        }
    }
}

/// What trials have shown, and what bounds them.
#[derive(Debug)]
pub struct Trials {
    options: TrialOptions,
    /// As configured; the cache's own policy has lower floors in mode observe.
    configured: Policy,
    /// What mode observe has seen.
    pub observations: Arc<Observations>,
    /// What audits have found.
    pub audits: Arc<Audits>,
    /// Candidates that fell just short.
    pub near_misses: Arc<NearMisses>,
    verified: Option<Arc<Verified>>,
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

impl Trials {
    /// `evidence` is what the store remembers, asked for in mode verified.
    pub(super) fn new(
        options: TrialOptions,
        configured: Policy,
        evidence: impl FnOnce() -> Vec<Evidence>,
    ) -> Self {
        Self {
            options,
            configured,
            observations: Arc::new(Observations::new(configured.calibration.basis)),
            audits: Arc::default(),
            near_misses: Arc::new(NearMisses::new(options.near_misses)),
            verified: options.verified.map(|limits| recalled(limits, evidence)),
            waiting: Arc::new(Semaphore::new(usize::try_from(WAITING_KIB).unwrap_or(Semaphore::MAX_PERMITS))),
            working: Arc::new(Semaphore::new(WORKING)),
        }
    }

    /// The same under other options and another policy. What mode verified has learned is kept while its limits stay.
    pub(super) fn renewed(
        &self,
        options: TrialOptions,
        configured: Policy,
        evidence: impl FnOnce() -> Vec<Evidence>,
    ) -> Self {
        self.near_misses.keep(options.near_misses);
        let learned = self.verified.as_ref().filter(|_| options.verified == self.options.verified);
        let verified = learned.cloned().or_else(|| options.verified.map(|limits| recalled(limits, evidence)));
        Self {
            options,
            configured,
            observations: Arc::clone(&self.observations),
            audits: Arc::clone(&self.audits),
            near_misses: Arc::clone(&self.near_misses),
            verified,
            waiting: Arc::clone(&self.waiting),
            working: Arc::clone(&self.working),
        }
    }

    /// What is put on trial.
    pub fn options(&self) -> TrialOptions {
        self.options
    }

    /// The operating point that is configured.
    pub fn floors(&self) -> Floors {
        self.configured.floors()
    }

    /// What decides in mode verified.
    pub fn verified(&self) -> Option<&Verified> {
        self.verified.as_deref()
    }

    /// The policy by which candidates are found: in mode observe one that lets in what other settings would serve,
    /// in mode verified one that leaves it to what trials have shown.
    pub(super) fn policy(&self) -> Policy {
        if !self.options.observe && self.verified.is_none() {
            return self.configured;
        }
        let similarity = self.configured.threshold.min(OBSERVED_FROM);
        self.configured.at(Floors { similarity, confidence: 0.0 })
    }

    /// What is on trial in mode observe, as the counts tell it apart.
    fn observed(&self, hit: &Hit, served: bool) -> Observed {
        let Decision { confidence, likeness, .. } = hit.decision;
        let basis = likeness.and_then(|likeness| self.configured.calibration.basis_of(likeness));
        Observed { layer: hit.layer, confidence, basis, served }
    }

    /// Whether a candidate would be served as configured.
    pub(super) fn verdict(&self, query: &Query, hit: &Hit) -> Result<(), MissReason> {
        if hit.layer == Layer::Exact {
            return Ok(());
        }
        let similarity = self.configured.threshold(&query.directives);
        Floors { similarity, ..self.configured.floors() }
            .check(hit.decision.similarity, hit.decision.confidence)
    }
}

/// What decides in mode verified, with what the store remembers.
fn recalled(limits: Limits, evidence: impl FnOnce() -> Vec<Evidence>) -> Arc<Verified> {
    let verified = Verified::new(limits);
    for evidence in evidence() {
        verified.recall(&evidence);
    }
    Arc::new(verified)
}

impl Cache {
    /// What trials have shown.
    pub fn trials(&self) -> &Trials {
        &self.trials
    }

    /// In mode observe, what to say of a lookup and what to put on trial.
    pub fn observe(&self, query: &Query, found: Found) -> (Miss, Option<Trial>) {
        let hit = match found {
            Ok(hit) => hit,
            Err(miss) => {
                self.trials.observations.looked_up(None);
                return (miss, None);
            }
        };
        let verdict = self.trials.verdict(query, &hit);
        let decision = Decision { verdict, ..hit.decision };
        let reason = verdict.err().unwrap_or(MissReason::Observed);
        let miss = Miss { decision: Some(decision), ..Miss::because(reason) };
        self.note_near_miss(query, &hit.entry, &decision);
        self.trials.observations.looked_up(Some(self.trials.observed(&hit, verdict.is_ok())));
        let trial = Trial { hit, purpose: Purpose::Observation { served: verdict.is_ok() } };
        (miss, Some(trial))
    }

    /// Whether a served semantic hit is to be audited: by lot, and not for a request whose reply leaves no trace or
    /// that forbade to ask upstream.
    pub fn draws_audit(&self, query: &Query) -> bool {
        let share = self.trials.options.audit_share;
        let directives = &query.directives;
        let forbidden = directives.is_fleeting() || directives.only_if_cached;
        share > 0.0 && !forbidden && fastrand::f32() < share
    }

    /// Notes a candidate that fell just short.
    pub(super) fn note_near_miss(&self, query: &Query, entry: &Entry, decision: &Decision) {
        let threshold = self.trials.configured.threshold(&query.directives);
        self.trials.near_misses.note(query, entry, decision, threshold);
    }

    /// Compares what is on trial with the fresh reply, behind the request.
    pub fn conclude(self: &Arc<Self>, trial: Trial, query: &Query, fresh: Reply) {
        let entry = &trial.hit.entry;
        // The stored reply's text is read out of its document, and no longer than that.
        let held = [
            entry.content.size(),
            2 * entry.content.document_length(),
            fresh.document.len(),
            fresh.text.len(),
        ];
        let held = held.iter().fold(0_usize, |sum, length| sum.saturating_add(*length)) / 1024;
        // One alone always fits.
        let held = u32::try_from(held).unwrap_or(u32::MAX).clamp(LEAST_KIB, WAITING_KIB);
        let Ok(waiting) = Arc::clone(&self.trials.waiting).try_acquire_many_owned(held) else {
            match (trial.purpose, &self.trials.verified) {
                (Purpose::Observation { .. }, _) => self.trials.observations.dropped(),
                (Purpose::Verification(_), Some(verified)) => verified.dropped(),
                _ => {}
            }
            return;
        };
        let (cache, query) = (Arc::clone(self), query.clone());
        self.behind.spawn(async move {
            // Never closed, so an error cannot be; without one the comparison goes on.
            let working = cache.trials.working.acquire().await;
            let comparison = cache.compare(&trial.hit.entry, &fresh).await;
            drop(working);
            let Some(comparison) = comparison else { return };
            cache.take_note(&trial, &query, fresh, &comparison).await;
            drop(waiting);
        });
    }

    /// `None` where the program is ending.
    async fn compare(&self, entry: &Arc<Entry>, fresh: &Reply) -> Option<Comparison> {
        // To read a large document takes a while.
        let read = Arc::clone(entry);
        let stored = tokio::task::spawn_blocking(move || read.reply()).await.ok()?;
        let comparison = compare(self.embedder.as_ref(), &stored, fresh).await;
        if comparison.similarity.is_some() {
            self.embeddings.fetch_add(2, Ordering::Relaxed);
        }
        Some(comparison)
    }

    async fn take_note(
        self: &Arc<Self>,
        trial: &Trial,
        query: &Query,
        fresh: Reply,
        comparison: &Comparison,
    ) {
        let entry = &trial.hit.entry;
        debug!(entry = %entry.key.id(), ?comparison, purpose = ?trial.purpose, "a stored reply was compared");
        match trial.purpose {
            Purpose::Observation { served } => {
                let observed = self.trials.observed(&trial.hit, served);
                self.trials.observations.compared(observed, comparison.agreement);
            }
            Purpose::Verification(judgement) => self.learn(entry, &judgement, comparison.agreement),
            Purpose::Audit => {
                // Where the entry was removed meanwhile, the reply to its audit is not stored either.
                if comparison.agreement == Agreement::Different && self.poison(query, entry).await {
                    self.trials.audits.poisoned();
                    self.store_reply(query, &fresh, None, None).await;
                }
                // Counted last: whoever sees the count sees what came of it.
                self.trials.audits.compared(comparison.agreement);
            }
        }
    }

    /// Marks an entry as wrong, unless it is another by now. It keeps its place, so that lookups meet it and say why
    /// it does not serve; the next reply to its prompt takes it.
    async fn poison(&self, query: &Query, entry: &Arc<Entry>) -> bool {
        let placed = match &self.embedder {
            Some(embedder) => self.embed(embedder, entry.prompt()).await.ok().map(|embedding| Placed {
                partition: self.partition(query, embedder, entry.prompt()),
                embedding,
            }),
            None => None,
        };
        let poisoned = self.store.poison(&entry.key, entry.created_at, placed.as_ref()).await;
        poisoned.inspect_err(|error| debug!(%error, "an entry was not marked as wrong")).unwrap_or(false)
    }
}
