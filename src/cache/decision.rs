//! The reuse decision: one function of the evidence. Nothing else in the program decides whether a stored
//! reply may be served, and nothing is decided twice.
//!
//! Called by the layers of [`super`].

use std::time::{Duration, SystemTime};

use super::calibration::Calibration;
use super::directives::Directives;
use super::guard::{Rule, Verdict};
use crate::embed::Similarity;
use crate::store::entry::Entry;
use crate::verify::Score;

/// Why a request was not served from the cache, as `Cache-Status`, the metrics and `/ask` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// Nothing in the scope came near.
    NoCandidate,
    /// The nearest prompt is not similar enough.
    BelowThreshold,
    /// Similar enough, but similarity and freshness together do not carry.
    LowConfidence,
    /// The entry has outlived its time, or the client's `max-age`.
    Expired,
    /// The entry was marked as wrong.
    Poisoned,
    /// The prompts look alike but differ in something that carries meaning.
    GuardRejected,
    /// The prompt could not be embedded.
    EmbedderUnavailable,
    /// The verifier did not answer.
    VerifierUnavailable,
    /// The store did not answer.
    StoreUnavailable,
    /// Upstream has not accepted these credentials of late.
    CredentialUnverified,
    /// The prompt is not to be matched by meaning (it leans on context, moment, person, or asks for variety).
    ExactOnly,
    /// It would have been, but mode observe serves nothing.
    Observed,
    /// Its trust is not proved yet, or the lot fell on it to be checked: mode verified sends it upstream and compares.
    Exploring,
}

impl MissReason {
    /// The token for headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCandidate => "no-candidate",
            Self::BelowThreshold => "below-threshold",
            Self::LowConfidence => "low-confidence",
            Self::Expired => "expired",
            Self::Poisoned => "poisoned",
            Self::GuardRejected => "guard-rejected",
            Self::EmbedderUnavailable => "embedder-unavailable",
            Self::VerifierUnavailable => "verifier-unavailable",
            Self::StoreUnavailable => "store-unavailable",
            Self::CredentialUnverified => "credential-unverified",
            Self::ExactOnly => "exact-only",
            Self::Observed => "observed",
            Self::Exploring => "exploring",
        }
    }

    /// Every reason, for the metrics.
    pub const ALL: [Self; 13] = [
        Self::NoCandidate,
        Self::BelowThreshold,
        Self::LowConfidence,
        Self::Expired,
        Self::Poisoned,
        Self::GuardRejected,
        Self::EmbedderUnavailable,
        Self::VerifierUnavailable,
        Self::StoreUnavailable,
        Self::CredentialUnverified,
        Self::ExactOnly,
        Self::Observed,
        Self::Exploring,
    ];
}

/// How sure one must be. Similarities are cosines, confidences probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The similarity from which an entry is a candidate.
    pub threshold: f32,
    /// Whether a client may ask for less than `threshold`.
    pub may_lower: bool,
    /// The least confidence.
    pub min_confidence: f32,
    /// After how many of its lifetimes an entry's confidence would be half of what it was; positive.
    pub freshness_half_life: f32,
    /// Turns evidence into the probability that both prompts want one answer.
    pub calibration: Calibration,
}

/// The least similarity and confidence at which a candidate is reused: an operating point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floors {
    /// The least similarity, a cosine.
    pub similarity: f32,
    /// The least confidence, a probability.
    pub confidence: f32,
}

impl Floors {
    /// Those that every candidate reaches.
    pub const NONE: Self = Self { similarity: f32::NEG_INFINITY, confidence: f32::NEG_INFINITY };

    /// Whether a candidate reaches both, or which it does not.
    pub fn check(self, similarity: Similarity, confidence: f32) -> Result<(), MissReason> {
        // What is no number must pass neither test.
        if similarity.0.is_nan() || similarity.0 < self.similarity {
            return Err(MissReason::BelowThreshold);
        }
        if confidence.is_nan() || confidence < self.confidence {
            return Err(MissReason::LowConfidence);
        }
        Ok(())
    }
}

/// How two prompts compare: what is known of it so far, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likeness {
    /// The cosine of their embeddings.
    pub similarity: Similarity,
    /// What the guard says of their differences; `None` where it was not asked yet.
    pub differences: Option<Verdict>,
    /// What the verifier says; `None` where it was not asked yet, or there is none.
    pub score: Option<Score>,
}

impl Likeness {
    /// Of prompts that nothing but their embeddings is known of.
    pub const fn of(similarity: Similarity) -> Self {
        Self { similarity, differences: None, score: None }
    }
}

/// All that the decision rests on.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// How the prompts compare; `None` where the key itself is equal.
    pub likeness: Option<Likeness>,
    /// What the client asked for.
    pub directives: &'a Directives,
    /// The time.
    pub now: SystemTime,
}

/// The verdict on one entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// Reuse it, or why not.
    pub verdict: Result<(), MissReason>,
    /// The similarity judged; 1 for an equal key.
    pub similarity: Similarity,
    /// Probability of one answer × freshness: 0 where the guard forbids the reuse. Where the verifier was not asked:
    /// as similarity alone has it.
    pub confidence: f32,
    /// The guard's rule that spoke against it.
    pub rule: Option<Rule>,
    /// How the prompts compare, as far as it was asked; `None` for an equal key.
    pub likeness: Option<Likeness>,
}

impl Policy {
    /// Whether an entry's reply may be served, by all that can be known. What is not known speaks against it.
    pub fn decide(&self, evidence: Evidence<'_>) -> Decision {
        self.weigh(evidence, true)
    }

    /// Whether an entry's reply may not be served, whatever will be known of it: what is not known yet speaks for
    /// it. So that what is dear to know is asked only of what nothing cheaper speaks against.
    pub fn screen(&self, evidence: Evidence<'_>) -> Decision {
        self.weigh(evidence, false)
    }

    fn weigh(&self, evidence: Evidence<'_>, finally: bool) -> Decision {
        let age = evidence.entry.age(evidence.now);
        let freshness = self.freshness_at(evidence.entry, age);
        let state = Self::state(evidence, age);
        let Some(likeness) = evidence.likeness else {
            // An equal key needs no probability: it is the same question.
            let similarity = Similarity(1.0);
            return Decision {
                verdict: state,
                similarity,
                confidence: freshness,
                rule: None,
                likeness: None,
            };
        };
        let Likeness { similarity, differences, .. } = likeness;
        let veto = differences.and_then(|differences| self.calibration.veto(differences));
        // A difference that no reply can answer both sides of leaves no chance.
        let probability = if veto.is_some() { 0.0 } else { self.calibration.probability(likeness) };
        let confidence = probability * freshness;
        let known = self.calibration.basis_of(likeness).is_some();
        let floors = Floors {
            similarity: self.threshold(evidence.directives),
            confidence: if known { self.min_confidence } else { f32::NEG_INFINITY },
        };
        let complete = known && differences.is_some();
        let verdict = match (state, veto) {
            (Err(reason), _) => Err(reason),
            (Ok(()), Some(_)) => {
                let floors = Floors { confidence: f32::NEG_INFINITY, ..floors };
                floors.check(similarity, confidence).and(Err(MissReason::GuardRejected))
            }
            (Ok(()), None) if complete || !finally => floors.check(similarity, confidence),
            (Ok(()), None) => floors.check(similarity, confidence).and(Err(MissReason::LowConfidence)),
        };
        // What is refused for its confidence tells what made it low.
        let rule = match verdict {
            Err(MissReason::GuardRejected) => veto,
            Err(MissReason::LowConfidence) => differences.and_then(Verdict::first),
            _ => None,
        };
        Decision { verdict, similarity, confidence, rule, likeness: Some(likeness) }
    }

    /// Whether the entry is of any use to this request, whatever its prompt.
    fn state(evidence: Evidence<'_>, age: Duration) -> Result<(), MissReason> {
        if evidence.entry.poisoned {
            return Err(MissReason::Poisoned);
        }
        let too_old = evidence.directives.max_age.is_some_and(|max| age > max);
        if too_old || age >= evidence.entry.ttl {
            return Err(MissReason::Expired);
        }
        Ok(())
    }

    /// The operating point, where a request asks for no other.
    pub fn floors(&self) -> Floors {
        Floors { similarity: self.threshold, confidence: self.min_confidence }
    }

    /// The same policy at another operating point.
    #[must_use]
    pub fn at(self, floors: Floors) -> Self {
        Self { threshold: floors.similarity, min_confidence: floors.confidence, ..self }
    }

    /// The threshold of one request: the client's where it is higher, or lowering is allowed.
    pub fn threshold(&self, directives: &Directives) -> f32 {
        match directives.threshold {
            Some(asked) if self.may_lower => asked,
            Some(asked) => asked.max(self.threshold),
            None => self.threshold,
        }
    }

    /// 1 for a new entry, halved with each half-life.
    pub fn freshness(&self, entry: &Entry, now: SystemTime) -> f32 {
        self.freshness_at(entry, entry.age(now))
    }

    fn freshness_at(&self, entry: &Entry, age: Duration) -> f32 {
        let lived = age.as_secs_f32() / entry.ttl.as_secs_f32().max(f32::EPSILON);
        (-lived.clamp(0.0, 1.0) / self.freshness_half_life.max(f32::EPSILON)).exp2()
    }
}
