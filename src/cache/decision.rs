//! The reuse decision: one function of the evidence. Nothing else in the program decides whether a stored
//! reply may be served, and nothing is decided twice.
//!
//! Called by the layers of [`super`].

use std::time::{Duration, SystemTime};

use super::directives::Directives;
use super::guard::Rule;
use crate::embed::Similarity;
use crate::store::entry::Entry;

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
            Self::StoreUnavailable => "store-unavailable",
            Self::CredentialUnverified => "credential-unverified",
            Self::ExactOnly => "exact-only",
            Self::Observed => "observed",
            Self::Exploring => "exploring",
        }
    }

    /// Every reason, for the metrics.
    pub const ALL: [Self; 12] = [
        Self::NoCandidate,
        Self::BelowThreshold,
        Self::LowConfidence,
        Self::Expired,
        Self::Poisoned,
        Self::GuardRejected,
        Self::EmbedderUnavailable,
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
    /// The share of its confidence that an entry has kept at the end of its life, 0 to 1.
    pub freshness_floor: f32,
    /// Turns similarity into the probability that both prompts want one answer.
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

/// A logistic curve over similarity: `1 / (1 + exp(-(intercept + slope × similarity)))` (Platt scaling).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// The intercept.
    pub intercept: f32,
    /// The slope; positive.
    pub slope: f32,
}

impl Calibration {
    /// For the built-in embedder behind the guard; fitted by `scripts/calibrate`.
    pub const BUILTIN: Self = Self { intercept: -9.260, slope: 12.557 };

    /// The probability that prompts of this similarity, which the guard let pass, want one answer.
    pub fn probability(&self, similarity: Similarity) -> f32 {
        1.0 / (1.0 + (-self.slope.mul_add(similarity.0, self.intercept)).exp())
    }
}

/// All that the decision rests on.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// The prompts' similarity; `None` where the key itself is equal.
    pub similarity: Option<Similarity>,
    /// The guard's rule by which the prompts differ in something that carries meaning, if one does. Asked only
    /// where all else speaks for the entry, hence a function.
    pub difference: &'a dyn Fn() -> Option<Rule>,
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
    /// Calibrated similarity × freshness.
    pub confidence: f32,
    /// The guard's rule that spoke against it.
    pub rule: Option<Rule>,
}

impl Policy {
    /// Whether an entry's reply may be served.
    pub fn decide(&self, evidence: Evidence<'_>) -> Decision {
        let similarity = evidence.similarity.unwrap_or(Similarity(1.0));
        let freshness = self.freshness(evidence.entry, evidence.now);
        // An equal key needs no probability: it is the same question.
        let probability =
            evidence.similarity.map_or(1.0, |similarity| self.calibration.probability(similarity));
        let confidence = probability * freshness;
        let verdict = self.verdict(evidence, confidence);
        // The guard speaks last, and only of prompts: an equal key has nothing to compare.
        let rule =
            (verdict.is_ok() && evidence.similarity.is_some()).then(|| (evidence.difference)()).flatten();
        let verdict = if rule.is_some() { Err(MissReason::GuardRejected) } else { verdict };
        Decision { verdict, similarity, confidence, rule }
    }

    fn verdict(&self, evidence: Evidence<'_>, confidence: f32) -> Result<(), MissReason> {
        if evidence.entry.poisoned {
            return Err(MissReason::Poisoned);
        }
        let age = evidence.entry.age(evidence.now);
        let too_old = evidence.directives.max_age.is_some_and(|max| age > max);
        if too_old || evidence.entry.remaining(evidence.now) == Duration::ZERO {
            return Err(MissReason::Expired);
        }
        let Some(similarity) = evidence.similarity else { return Ok(()) };
        let floors = Floors { similarity: self.threshold(evidence.directives), ..self.floors() };
        floors.check(similarity, confidence)
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

    /// 1 for a new entry, falling evenly to the floor at the end of its life.
    fn freshness(&self, entry: &Entry, now: SystemTime) -> f32 {
        let lived = entry.age(now).as_secs_f32() / entry.ttl.as_secs_f32().max(f32::EPSILON);
        1.0 - (1.0 - self.freshness_floor) * lived.clamp(0.0, 1.0)
    }
}
