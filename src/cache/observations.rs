//! What became of stored replies that were compared with fresh ones: counts, and the rates they make.
//!
//! Called by [`super::trial`], which counts, and by `admin`, which shows. Bounded: counts alone, no prompt and no
//! reply. Held in memory, so that a restart begins anew.

mod by_basis;

use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use by_basis::ByBasis;
pub use by_basis::{ComparedByBasis, Step};

use super::calibration::Basis;
use super::comparison::Agreement;
use super::outcome::Layer;
use crate::rate::{Rate, rounded};

/// Steps of confidence that are told apart.
const BINS: usize = 100;

/// Candidates of one kind, and how those that were compared came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Stored replies that were found.
    pub found: u64,
    /// Of these: the fresh reply said the same.
    pub same: u64,
    /// It said something else.
    pub different: u64,
    /// It could not be told.
    pub unclear: u64,
}

impl Tally {
    fn add(&mut self, agreement: Agreement) {
        match agreement {
            Agreement::Same => self.same += 1,
            Agreement::Different => self.different += 1,
            Agreement::Unclear => self.unclear += 1,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            found: self.found + other.found,
            same: self.same + other.same,
            different: self.different + other.different,
            unclear: self.unclear + other.unclear,
        }
    }

    /// Those compared.
    pub fn compared(&self) -> u64 {
        self.same + self.different + self.unclear
    }

    /// The number of one verdict.
    pub fn of(&self, agreement: Agreement) -> u64 {
        match agreement {
            Agreement::Same => self.same,
            Agreement::Different => self.different,
            Agreement::Unclear => self.unclear,
        }
    }

    /// Different ones of those with a clear verdict: the estimated error.
    pub fn error(&self) -> Rate {
        rate(self.different, self.same + self.different)
    }

    /// Different and unclear ones of those compared: the error if every unclear one were wrong.
    pub fn error_if_unclear_is_wrong(&self) -> Rate {
        rate(self.different + self.unclear, self.compared())
    }
}

fn rate(count: u64, of: u64) -> Rate {
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Rate::new(small(count), small(of), 1)
}

/// A stored reply that mode observe found, as the counts tell it apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// The layer.
    pub layer: Layer,
    /// How sure the cache was, a probability.
    pub confidence: f32,
    /// What that was reckoned from, as [`Basis`] says; `None` in the exact layer.
    pub basis: Option<f32>,
    /// Whether it would have been served as configured.
    pub served: bool,
}

/// What mode observe has seen.
#[derive(Debug)]
pub struct Observations {
    since: SystemTime,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    requests: u64,
    dropped: u64,
    exact: Tally,
    semantic: Tally,
    /// The semantic layer by confidence, whatever is configured.
    by_confidence: [Tally; BINS],
    /// The same by what confidence is reckoned from.
    by_basis: ByBasis,
}

impl Observations {
    /// Nothing yet, of a confidence that is reckoned from this.
    pub fn new(basis: Basis) -> Self {
        let counts = Counts {
            requests: 0,
            dropped: 0,
            exact: Tally::default(),
            semantic: Tally::default(),
            by_confidence: [Tally::default(); BINS],
            by_basis: ByBasis::new(basis),
        };
        Self { since: SystemTime::now(), counts: Mutex::new(counts) }
    }

    /// A request was looked up, and this was found.
    pub fn looked_up(&self, found: Option<Observed>) {
        let mut counts = self.counts.lock();
        counts.requests += 1;
        if let Some(observed) = found {
            counts.each(observed, |tally| tally.found += 1);
        }
    }

    /// What was found was compared.
    pub fn compared(&self, observed: Observed, agreement: Agreement) {
        let mut counts = self.counts.lock();
        counts.each(observed, |tally| tally.add(agreement));
        if let Some(basis) = observed.basis {
            counts.by_basis.add(basis, agreement);
        }
    }

    /// What was found was not compared, since too many comparisons waited.
    pub fn dropped(&self) {
        self.counts.lock().dropped += 1;
    }

    /// What would have been served as configured, by layer: exact, semantic.
    pub fn configured(&self) -> [(Layer, Tally); 2] {
        let counts = self.counts.lock();
        [(Layer::Exact, counts.exact), (Layer::Semantic, counts.semantic)]
    }

    /// All of it, for people and programs.
    pub fn report(&self, min_confidence: f32) -> ObservationReport {
        let counts = self.counts.lock();
        let requests = counts.requests;
        let mut points = Vec::with_capacity(BINS);
        let mut sum = Tally::default();
        for (step, tally) in counts.by_confidence.iter().enumerate().rev() {
            sum = sum.plus(*tally);
            let floor = f64::from(u32::try_from(step).unwrap_or(u32::MAX)) / 100.0;
            points.push(OperatingPoint::new(Some(floor), sum, requests));
        }
        points.reverse();
        ObservationReport {
            since: crate::dialect::template::rfc3339(self.since),
            requests,
            comparisons_dropped: counts.dropped,
            exact: OperatingPoint::new(None, counts.exact, requests),
            semantic: OperatingPoint::new(
                Some(rounded(f64::from(min_confidence))),
                counts.semantic,
                requests,
            ),
            semantic_points: points,
            compared: counts.by_basis.report(),
        }
    }
}

impl Counts {
    fn each(&mut self, observed: Observed, change: impl Fn(&mut Tally)) {
        match observed.layer {
            Layer::Exact => change(&mut self.exact),
            Layer::Semantic => {
                if observed.served {
                    change(&mut self.semantic);
                }
                if let Some(tally) = self.by_confidence.get_mut(bin(observed.confidence)) {
                    change(tally);
                }
            }
            Layer::Upstream => {}
        }
    }
}

/// The step that a confidence lies in.
fn bin(confidence: f32) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number between 0 and 99; what is no number becomes 0"
    )]
    // A little more, so that 0.29, which is a little less as a float, is in the step that begins there.
    let bin = (confidence * 100.0 + 1e-4).clamp(0.0, 99.0) as usize;
    bin
}

/// The document of `GET /observations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservationReport {
    /// Since when it is counted, RFC 3339.
    pub since: String,
    /// Requests looked up.
    pub requests: u64,
    /// Comparisons given up because too many waited.
    pub comparisons_dropped: u64,
    /// The exact layer. Its error is the upstream's own variation: how often it answers the very same differently.
    pub exact: OperatingPoint,
    /// The semantic layer as configured.
    pub semantic: OperatingPoint,
    /// The semantic layer at each step of `cache.min_confidence`, with a `similarity_threshold` out of its way.
    pub semantic_points: Vec<OperatingPoint>,
    /// The compared candidates of the semantic layer by what confidence is reckoned from, for a calibration.
    pub compared: ComparedByBasis,
}

/// What would be served at one operating point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// The least confidence; absent for the exact layer, which needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f64>,
    /// The counts.
    #[serde(flatten)]
    pub tally: Tally,
    /// Found ones of all requests looked up.
    pub hit_rate: Rate,
    /// See [`Tally::error`].
    pub error: Rate,
    /// See [`Tally::error_if_unclear_is_wrong`].
    pub error_if_unclear_is_wrong: Rate,
}

impl OperatingPoint {
    fn new(min_confidence: Option<f64>, tally: Tally, requests: u64) -> Self {
        Self {
            min_confidence,
            tally,
            hit_rate: rate(tally.found, requests),
            error: tally.error(),
            error_if_unclear_is_wrong: tally.error_if_unclear_is_wrong(),
        }
    }
}

/// What audits of served semantic hits have found.
#[derive(Debug, Default)]
pub struct Audits(Mutex<AuditCounts>);

/// The counts of audits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AuditCounts {
    /// Hits that were drawn and asked upstream (`found`), and how the comparisons came out.
    #[serde(flatten)]
    pub tally: Tally,
    /// Hits that were drawn and not asked upstream, for want of room there or among audits.
    pub skipped: u64,
    /// Entries that were marked as wrong.
    pub poisoned: u64,
}

impl Audits {
    /// A hit is being asked upstream.
    pub fn begun(&self) {
        self.0.lock().tally.found += 1;
    }

    /// A hit was drawn and not asked upstream.
    pub fn skipped(&self) {
        self.0.lock().skipped += 1;
    }

    /// A hit's reply was compared.
    pub fn compared(&self, agreement: Agreement) {
        self.0.lock().tally.add(agreement);
    }

    /// An entry was marked as wrong.
    pub fn poisoned(&self) {
        self.0.lock().poisoned += 1;
    }

    /// The counts.
    pub fn counts(&self) -> AuditCounts {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn semantic(confidence: f32, served: bool) -> Observed {
        Observed { layer: Layer::Semantic, confidence, basis: Some(confidence), served }
    }

    #[test]
    fn a_point_counts_all_at_or_above_its_confidence() {
        let observations = Observations::new(Basis::Similarity);
        for (confidence, agreement) in
            [(0.95, Agreement::Same), (0.75, Agreement::Different), (0.29, Agreement::Different)]
        {
            let observed = semantic(confidence, confidence >= 0.75);
            observations.looked_up(Some(observed));
            observations.compared(observed, agreement);
        }
        observations.looked_up(None);
        let report = observations.report(0.75);
        let at = |step: usize| report.semantic_points.get(step).copied().unwrap();
        assert_eq!((at(96).tally.found, at(95).tally.found), (0, 1));
        assert_eq!((at(76).tally.found, at(75).tally.found), (1, 2));
        assert_eq!((at(30).tally.found, at(29).tally.found, at(0).tally.found), (2, 3, 3));
        assert_eq!(at(75).error.value, Some(0.5));
        assert_eq!(at(75).hit_rate.value, Some(0.5));
        assert_eq!(report.semantic.tally, at(75).tally);
        assert!(at(75).error.low > 0.0 && at(75).error.high < 1.0);
        assert_eq!(at(99).error.value, None, "nothing to have an error");
    }

    #[test]
    fn the_exact_layer_is_counted_by_itself_and_unclear_apart() {
        let observations = Observations::new(Basis::Similarity);
        let exact = Observed { layer: Layer::Exact, confidence: 1.0, basis: None, served: true };
        for agreement in [Agreement::Same, Agreement::Same, Agreement::Different, Agreement::Unclear] {
            observations.looked_up(Some(exact));
            observations.compared(exact, agreement);
        }
        let report = observations.report(0.75);
        assert_eq!(report.exact.error.value, Some(0.333_333));
        assert_eq!(report.exact.error_if_unclear_is_wrong.value, Some(0.5));
        assert_eq!(report.semantic_points.first().unwrap().tally.found, 0);
    }

    proptest! {
        #[test]
        fn any_confidence_has_a_step(confidence: f32) {
            prop_assert!(bin(confidence) < BINS);
        }
    }
}
