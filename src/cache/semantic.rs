//! The semantic layer: the nearest prompts of the same scope, judged.
//!
//! Evidence is gathered in the order of its cost, and no further than something speaks against the entry: what the
//! index knows, then the guard, then the verifier, then the entry as the store has it now.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::debug;

use super::decision::{Decision, Evidence, Likeness, MissReason};
use super::guard::{Prepared, is_english};
use super::matches::Match;
use super::outcome::Layer;
use super::{ARRIVAL_TIMEOUT, Cache, Found, Hit, Miss, Query};
use crate::store::entry::{Candidate, Entry, Placed};
use crate::trace::step;
use crate::verify::VerifyError;

/// How many of the nearest entries are judged: the nearest may be expired or a look-alike, and the next right.
const CANDIDATES: usize = 4;

/// How many of them the verifier is asked of: it takes milliseconds.
const VERIFIED: usize = 2;

/// What is asked, as far as it is known already.
pub(super) struct Asked<'a> {
    query: &'a Query,
    prompt: &'a str,
    /// As the guard reads it; made if a candidate comes so far.
    prepared: Option<Prepared>,
    /// Whether it is in the language that the verifier has learnt.
    english: bool,
    now: SystemTime,
    /// How often the verifier may yet be asked.
    verifications: usize,
    /// The candidates judged so far, where somebody wants to see them.
    pub(super) seen: Option<Vec<Seen>>,
}

/// A candidate that was judged.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The entry, which may lack its reply.
    pub entry: Arc<Entry>,
    /// The judgement, as far as it went.
    pub decision: Decision,
}

/// Why an embedding is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve a request: it counts.
    Serve,
    /// To explain what would be served.
    Explain,
}

impl Cache {
    /// The semantic layer: the entry that the same prompt was matched with before, else the nearest prompts of the same scope,
    /// judged.
    pub async fn semantic(&self, query: &Query, now: SystemTime) -> Found {
        if let Some((entry, decision)) = self.remembered(query, now).await? {
            return Ok(self.hit(entry, Layer::Semantic, decision));
        }
        let (prompt, placed) = self.locate(query, Purpose::Serve).await?;
        let mut found = {
            let mut asked = Asked::new(query, prompt, now);
            let nearest = self.nearest(&mut asked, &placed).await;
            nearest.map(|(entry, decision)| self.hit(entry, Layer::Semantic, decision))
        };
        if self.trials.verified().is_some()
            && let Ok(hit) = found
        {
            found = self.verify(query, hit).await;
        }
        match &mut found {
            Ok(hit) => self.remember(query, hit),
            Err(miss) => {
                if let (Some(entry), Some(decision)) = (&miss.candidate, &miss.decision) {
                    self.note_near_miss(query, entry, decision);
                }
                miss.place = Some(placed);
            }
        }
        found
    }

    /// Remembers what a prompt was matched with, unless its request is to leave no trace.
    fn remember(&self, query: &Query, hit: &Hit) {
        if let Some(likeness) = hit.decision.likeness
            && self.remembers_matches
            && !query.directives.is_fleeting()
        {
            let Entry { key, created_at, .. } = *hit.entry;
            self.matches.note(query.key, Match { entry: key, created_at, likeness });
        }
    }

    /// The very entry that the same prompt was matched with before, if it may serve as it is judged now. A nearer one that came
    /// since is not looked for.
    pub(super) async fn remembered(
        &self,
        query: &Query,
        now: SystemTime,
    ) -> Result<Option<(Arc<Entry>, Decision)>, Miss> {
        let known = self.matches.find(&query.key).filter(|_| self.remembers_matches);
        let Some(known) = known.filter(|_| self.leanings(query).is_empty()) else { return Ok(None) };
        if !self.may_be_served(query).await {
            return Err(Miss::because(MissReason::CredentialUnverified));
        }
        let _span = step("match lookup");
        // What the store says against it is said of the lookup that follows.
        let Ok(Some(entry)) = self.store.get(&known.entry).await else { return Ok(None) };
        let same = entry.key == known.entry
            && entry.created_at == known.created_at
            && entry.scope == query.scope
            && entry.endpoint == query.endpoint;
        // Matched when another rule was in force.
        if !same || !self.rules.of(entry.prompt(), false).is_empty() {
            return Ok(None);
        }
        let evidence =
            Evidence { entry: &entry, likeness: Some(known.likeness), directives: &query.directives, now };
        let decision = self.policy.decide(evidence);
        Ok(decision.verdict.is_ok().then_some((entry, decision)))
    }

    /// Where to look for a request's prompt, which is embedded for it; or why nothing is looked for.
    pub(super) async fn locate<'a>(
        &self,
        query: &'a Query,
        purpose: Purpose,
    ) -> Result<(&'a str, Placed), Miss> {
        let (Some(embedder), Some(prompt)) = (&self.embedder, query.prompt.as_deref()) else {
            return Err(Miss::because(MissReason::NoCandidate));
        };
        if !self.may_be_served(query).await {
            return Err(Miss::because(MissReason::CredentialUnverified));
        }
        if let Some(leaning) = self.leanings(query).first() {
            return Err(Miss { rule: Some(leaning.name()), ..Miss::because(MissReason::ExactOnly) });
        }
        let partition = self.partition(query, embedder, prompt);
        let earlier = self.pending.earlier(&partition);
        if earlier.is_none() {
            match self.store.is_empty_partition(&partition).await {
                // Nothing to compare with: the embedding can wait until the reply has gone.
                Ok(true) => return Err(Miss::because(MissReason::NoCandidate)),
                Ok(false) => {}
                Err(error) => {
                    debug!(%error, "the store did not answer; the request goes upstream");
                    return Err(Miss::because(MissReason::StoreUnavailable));
                }
            }
        }
        let embedding = match purpose {
            Purpose::Serve => self.embed(embedder, prompt).await,
            Purpose::Explain => embedder.embed(prompt).await,
        };
        let embedding = match embedding {
            Ok(embedding) => embedding,
            Err(error) => {
                debug!(%error, "the prompt was not embedded; the request goes upstream");
                return Err(Miss::because(MissReason::EmbedderUnavailable));
            }
        };
        if let Some(earlier) = earlier {
            // Late arrivals are merely not found.
            let _ = tokio::time::timeout(ARRIVAL_TIMEOUT, earlier.arrived()).await;
        }
        Ok((prompt, Placed { partition, embedding }))
    }

    /// The nearest entry that may serve, or what spoke against the nearest of all.
    pub(super) async fn nearest(
        &self,
        asked: &mut Asked<'_>,
        placed: &Placed,
    ) -> Result<(Arc<Entry>, Decision), Miss> {
        let Placed { partition, embedding } = placed;
        let mut span = step("semantic search");
        let candidates = match self.store.nearest(partition, embedding, CANDIDATES).await {
            Ok(candidates) => candidates,
            Err(error) => {
                span.fail("store_unavailable");
                debug!(%error, "the store did not answer; the request goes upstream");
                return Err(Miss::because(MissReason::StoreUnavailable));
            }
        };
        if let Some(nearest) = candidates.first() {
            span.set("rejoinder.similarity", f64::from(nearest.similarity.0));
        }
        drop(span);
        let query = asked.query;
        let mut first = None;
        for Candidate { entry, similarity } in candidates {
            if entry.scope != query.scope || entry.endpoint != query.endpoint {
                continue;
            }
            // Stored when another rule was in force.
            if !self.rules.of(entry.prompt(), false).is_empty() {
                continue;
            }
            let likeness = match self.likeness(asked, &entry, Likeness::of(similarity)).await {
                Ok(likeness) => likeness,
                Err(miss) => {
                    asked.saw(&entry, miss.decision);
                    // Where one was not verified in time, neither will the next be.
                    let given_up = miss.reason == MissReason::VerifierUnavailable;
                    first = first.or(Some(miss.of(&entry)));
                    if given_up {
                        break;
                    }
                    continue;
                }
            };
            // The index may know less than the store, or something older: what is served is judged as it is now.
            let whole = match self.store.load(partition, &entry).await {
                Ok(Some(whole)) if whole.scope == query.scope && whole.endpoint == query.endpoint => whole,
                Ok(_) => continue,
                Err(error) => {
                    debug!(%error, "the store did not answer; the request goes upstream");
                    first = first.or(Some(Miss::because(MissReason::StoreUnavailable)));
                    break;
                }
            };
            let decision = self.policy.decide(asked.evidence(&whole, likeness));
            asked.saw(&whole, Some(decision));
            match decision.or_miss(&whole, asked.now) {
                Ok(decision) => return Ok((whole, decision)),
                Err(miss) => first = first.or(Some(miss.of(&entry))),
            }
        }
        Err(first.unwrap_or_else(|| Miss::because(MissReason::NoCandidate)))
    }

    /// How the prompts compare, or the miss as soon as something speaks against the entry.
    async fn likeness(
        &self,
        asked: &mut Asked<'_>,
        entry: &Arc<Entry>,
        mut likeness: Likeness,
    ) -> Result<Likeness, Miss> {
        let screen = |asked: &Asked<'_>, likeness| {
            self.policy.screen(asked.evidence(entry, likeness)).or_miss(entry, asked.now)
        };
        screen(asked, likeness)?;
        let stored = Prepared::new(entry.prompt());
        let prepared = asked.prepared.get_or_insert_with(|| Prepared::new(asked.prompt));
        let differences = prepared.compare(&stored);
        let judged = asked.english && is_english(entry.prompt());
        likeness.differences = Some(if judged { differences } else { differences.in_doubt() });
        let decision = screen(asked, likeness)?;
        let Some(verifier) = self.verifier.as_ref().filter(|_| self.policy.calibration.needs_score()) else {
            return Ok(likeness);
        };
        let refused = |reason| {
            let decision = Decision { verdict: Err(reason), ..decision };
            Miss { decision: Some(decision), ..Miss::because(reason) }
        };
        asked.verifications =
            asked.verifications.checked_sub(1).ok_or_else(|| refused(MissReason::LowConfidence))?;
        let mut span = step("verify");
        let score = verifier.score(asked.prompt, entry.prompt()).await;
        if !matches!(score, Ok(_) | Err(VerifyError::TooLong | VerifyError::Unreadable)) {
            span.fail("verifier_unavailable");
        }
        drop(span);
        match score {
            Ok(score) => likeness.score = Some(score),
            Err(error @ (VerifyError::TooLong | VerifyError::Unreadable)) => {
                debug!(%error, "the request goes upstream");
                return Err(refused(MissReason::LowConfidence));
            }
            Err(error) => {
                debug!(%error, "the prompts were not verified; the request goes upstream");
                return Err(refused(MissReason::VerifierUnavailable));
            }
        }
        screen(asked, likeness)?;
        Ok(likeness)
    }
}

impl<'query> Asked<'query> {
    pub(super) fn new(query: &'query Query, prompt: &'query str, now: SystemTime) -> Self {
        let english = is_english(prompt);
        Self { query, prompt, prepared: None, english, now, verifications: VERIFIED, seen: None }
    }

    fn saw(&mut self, entry: &Arc<Entry>, decision: Option<Decision>) {
        if let (Some(seen), Some(decision)) = (&mut self.seen, decision) {
            seen.push(Seen { entry: Arc::clone(entry), decision });
        }
    }

    fn evidence<'a>(&'a self, entry: &'a Entry, likeness: Likeness) -> Evidence<'a> {
        Evidence { entry, likeness: Some(likeness), directives: &self.query.directives, now: self.now }
    }
}
