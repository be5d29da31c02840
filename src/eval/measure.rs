//! Counts and their uncertainty: rates at operating points, the area under the ROC curve with `DeLong`'s, how
//! well confidence is calibrated.
//!
//! Called by [`super::report`]. All intervals are of 95 % and take the pairs as independent of each other; pairs
//! that share a prompt are not quite, and make intervals too narrow.

use serde::Serialize;

use super::judge::Judgement;
use crate::cache::decision::Floors;
use crate::cache::outcome::Layer;
use crate::rate::Z;
pub use crate::rate::{Rate, rounded};

/// One judgement with what is known of its pair.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// Whether one reply answers both prompts.
    pub same: bool,
    /// What the cache says.
    pub judgement: &'a Judgement,
}

/// How many pairs that must not be reused it takes until not one reused shows a rate below `rate`: the upper end
/// of Wilson's interval of none in n is z² / (n + z²).
pub fn needed(rate: f64) -> Option<u32> {
    if !(rate > 0.0 && rate <= 1.0) {
        return None;
    }
    // Counting up to the answer needs no conversion of a float to an integer, but a table of all counts.
    let enough = |n: u32| Z * Z / (f64::from(n) + Z * Z) <= rate;
    let (mut low, mut high) = (1, u32::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if enough(middle) { high = middle } else { low = middle + 1 }
    }
    enough(low).then_some(low)
}

/// A number that was single precision all along.
pub fn widened(value: f32) -> f64 {
    rounded(f64::from(value))
}

/// What is reused at one operating point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The least similarity.
    pub similarity_threshold: f64,
    /// The least confidence.
    pub min_confidence: f64,
    /// Right reuse of all reuse.
    pub precision: Rate,
    /// Right reuse of all pairs with one answer.
    pub recall: Rate,
    /// Wrong reuse of all pairs without.
    pub false_hit_rate: Rate,
    /// Reuse of all pairs.
    pub hit_rate: Rate,
}

impl Point {
    /// Counts at an operating point.
    pub fn at(floors: Floors, cases: &[Case<'_>], ways: u32) -> Self {
        let (mut right, mut wrong, mut positive, mut negative) = (0, 0, 0, 0);
        for case in cases {
            let served = u32::from(case.judgement.served(floors));
            if case.same {
                right += served;
                positive += 1;
            } else {
                wrong += served;
                negative += 1;
            }
        }
        Self {
            similarity_threshold: widened(floors.similarity),
            min_confidence: widened(floors.confidence),
            precision: Rate::new(right, right + wrong, ways),
            recall: Rate::new(right, positive, ways),
            false_hit_rate: Rate::new(wrong, negative, ways),
            hit_rate: Rate::new(right + wrong, positive + negative, ways),
        }
    }
}

/// One of the two floors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// `similarity_threshold`
    Similarity,
    /// `cache.min_confidence`
    Confidence,
}

impl Axis {
    /// The operating point with this floor at `value` and the other as it was.
    pub fn with(self, floors: Floors, value: f32) -> Floors {
        match self {
            Self::Similarity => Floors { similarity: value, ..floors },
            Self::Confidence => Floors { confidence: value, ..floors },
        }
    }

    fn of(self, judgement: &Judgement) -> f32 {
        match self {
            Self::Similarity => judgement.similarity.unwrap_or(f32::NEG_INFINITY),
            Self::Confidence => judgement.confidence,
        }
    }
}

/// The operating points along one floor, the other as configured, that `accept` allows: the highest with the
/// recall of the best of them. `None` where none is allowed, or nothing right is reused there.
///
/// `accept` must allow whatever lies above what it allows.
pub fn best(
    axis: Axis,
    floors: Floors,
    cases: &[Case<'_>],
    ways: u32,
    accept: impl Fn(&Point) -> bool,
) -> Option<Point> {
    let open = axis.with(floors, f32::NEG_INFINITY);
    let mut values: Vec<(f32, bool)> = cases
        .iter()
        .filter(|case| case.judgement.found != Ok(Layer::Exact) && case.judgement.served(open))
        .map(|case| (axis.of(case.judgement), case.same))
        .collect();
    values.sort_by(|one, other| other.0.total_cmp(&one.0));
    // Every change of what is reused is at one of these values; how many it takes from the top on is searched by
    // halving, since reuse only grows downwards.
    let mut levels: Vec<f32> = values.iter().map(|(value, _)| *value).collect();
    levels.dedup();
    let allowed = levels.partition_point(|level| accept(&Point::at(axis.with(floors, *level), cases, ways)));
    let bound = levels.get(allowed).copied();
    let lowest = *levels.get(allowed.checked_sub(1)?)?;
    let least = values.iter().rev().find(|(value, same)| *same && *value >= lowest)?.0;
    // Four decimals, rounded down, unless that lets in what is not allowed.
    let short = f32_floor(least);
    let value = if bound.is_some_and(|bound| short <= bound) { least } else { short };
    let point = Point::at(axis.with(floors, value), cases, ways);
    accept(&point).then_some(point)
}

fn f32_floor(value: f32) -> f32 {
    (value * 1e4).floor() / 1e4
}

/// An area under the ROC curve: the probability that a pair with one answer scores above one without.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Area {
    /// The area.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The area with the interval of E. R. `DeLong`, D. M. `DeLong` and D. L. Clarke-Pearson (Biometrics 44, 1988);
/// ties count half. `None` without scores of both kinds.
pub fn area(positive: &[f64], negative: &[f64], ways: u32) -> Option<Area> {
    if positive.is_empty() || negative.is_empty() {
        return None;
    }
    let (positive, negative) = (sorted(positive), sorted(negative));
    let above: Vec<f64> = positive.iter().map(|score| rank(*score, &negative)).collect();
    let below: Vec<f64> = negative.iter().map(|score| 1.0 - rank(*score, &positive)).collect();
    let area = mean(&above);
    let variance = (spread(&above, area) + spread(&below, area)) * f64::from(ways);
    let half = Z * variance.sqrt();
    Some(Area {
        value: rounded(area),
        low: rounded((area - half).max(0.0)),
        high: rounded((area + half).min(1.0)),
    })
}

fn sorted(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The share of sorted scores below a score, equal ones by half.
fn rank(score: f64, sorted: &[f64]) -> f64 {
    let below = sorted.partition_point(|other| *other < score);
    let not_above = sorted.partition_point(|other| *other <= score);
    (amount(below) + amount(not_above)) / (2.0 * amount(sorted.len()))
}

/// The variance of the mean of these components.
fn spread(components: &[f64], mean: f64) -> f64 {
    let n = amount(components.len());
    if n < 2.0 {
        return 0.0;
    }
    components.iter().map(|component| (component - mean).powi(2)).sum::<f64>() / (n - 1.0) / n
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / amount(values.len())
}

/// A count as a number to reckon with; there is no memory for counts that do not fit.
pub fn amount(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// How often confidence comes true.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// The mean distance between confidence and what came true, weighted by the pairs of each bin.
    pub expected_calibration_error: f64,
    /// The mean squared distance between confidence and label.
    pub brier_score: f64,
    /// Ten equal steps of confidence, those without pairs left out.
    pub bins: Vec<Bin>,
}

/// The pairs whose confidence lies in one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bin {
    /// Where the step begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// The mean confidence.
    pub confidence: f64,
    /// How many have one answer.
    pub observed: Rate,
}

/// How often confidence comes true over (confidence, label); `None` without any.
pub fn reliability(scored: &[(f64, bool)], ways: u32) -> Option<Reliability> {
    if scored.is_empty() {
        return None;
    }
    let all = amount(scored.len());
    let mut bins = Vec::new();
    let mut error = 0.0;
    for step in 0_u8..10 {
        let (from, to) = (f64::from(step) / 10.0, f64::from(step + 1) / 10.0);
        let here: Vec<_> = scored
            .iter()
            .filter(|(score, _)| *score >= from && (*score < to || (step == 9 && *score <= to)))
            .collect();
        if here.is_empty() {
            continue;
        }
        let confidence = here.iter().map(|(score, _)| score).sum::<f64>() / amount(here.len());
        let same = u32::try_from(here.iter().filter(|(_, same)| *same).count()).unwrap_or(u32::MAX);
        let observed = Rate::new(same, u32::try_from(here.len()).unwrap_or(u32::MAX), ways);
        error += amount(here.len()) / all * (confidence - observed.value.unwrap_or_default()).abs();
        bins.push(Bin { from, to, confidence: rounded(confidence), observed });
    }
    let brier =
        scored.iter().map(|(score, same)| (score - f64::from(u8::from(*same))).powi(2)).sum::<f64>() / all;
    Some(Reliability { expected_calibration_error: rounded(error), brier_score: rounded(brier), bins })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::decision::MissReason;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 5e-4
    }

    #[test]
    fn what_it_takes_to_show_a_rate() {
        assert_eq!(needed(0.01), Some(381));
        assert_eq!(needed(0.03), Some(125));
        assert!(Rate::new(0, 381, 1).high <= 0.01 && Rate::new(0, 380, 1).high > 0.01);
        assert_eq!(needed(0.0), None);
        assert_eq!(needed(f64::NAN), None);
    }

    /// By hand: of nine comparisons six are won and one is a draw.
    #[test]
    fn the_area_counts_comparisons_and_draws_by_half() {
        let found = area(&[0.9, 0.6, 0.4], &[0.1, 0.6, 0.5], 1).unwrap();
        assert!(near(found.value, 6.5 / 9.0), "{found:?}");
        assert!(found.low < found.value && found.value < found.high);
        assert_eq!(area(&[1.0, 2.0], &[0.0], 1).unwrap(), Area { value: 1.0, low: 1.0, high: 1.0 });
        assert_eq!(area(&[], &[0.0], 1), None);
    }

    /// By hand: the components are each score's share of comparisons won.
    #[test]
    fn the_areas_interval_is_delongs() {
        let positive = [0.8, 0.5, 0.3];
        let negative = [0.1, 0.4, 0.2, 0.7];
        let above = [1.0, 0.75, 0.5];
        let below = [1.0, 2.0 / 3.0, 1.0, 1.0 / 3.0];
        let expected = 0.75;
        let variance = above.iter().map(|v: &f64| (v - expected).powi(2)).sum::<f64>() / 2.0 / 3.0
            + below.iter().map(|v: &f64| (v - expected).powi(2)).sum::<f64>() / 3.0 / 4.0;
        let found = area(&positive, &negative, 1).unwrap();
        assert!(near(found.value, expected), "{found:?}");
        assert!(near(found.low, expected - Z * variance.sqrt()), "{found:?}");
    }

    #[test]
    fn confidence_that_comes_true_has_no_error() {
        let scored: Vec<_> = (0..100).map(|n| (0.75, n % 4 != 0)).collect();
        let found = reliability(&scored, 1).unwrap();
        assert!(found.expected_calibration_error < 1e-9, "{found:?}");
        assert!(near(found.brier_score, 0.1875), "{found:?}");
        let wrong = reliability(&[(1.0, false), (0.0, true)], 1).unwrap();
        assert!(near(wrong.expected_calibration_error, 1.0) && wrong.bins.len() == 2, "{wrong:?}");
        assert_eq!(reliability(&[], 1), None);
    }

    fn judgement(similarity: f32) -> Judgement {
        Judgement {
            found: Ok(Layer::Semantic),
            similarity: Some(similarity),
            confidence: 0.5,
            likeness: None,
            rule: None,
        }
    }

    #[test]
    fn the_best_point_reuses_all_it_may_and_no_more() {
        let floors = Floors { similarity: 0.85, confidence: 0.0 };
        let all = [(0.95, true), (0.91, true), (0.90, false), (0.80, true), (0.7, false), (0.6, true)];
        let judged: Vec<_> = all.iter().map(|(similarity, _)| judgement(*similarity)).collect();
        let cases: Vec<_> =
            all.iter().zip(&judged).map(|((_, same), judgement)| Case { same: *same, judgement }).collect();
        let under =
            |rate: f64| move |point: &Point| point.false_hit_rate.value.is_some_and(|value| value <= rate);
        let found = best(Axis::Similarity, floors, &cases, 1, under(0.0)).unwrap();
        assert!(near(found.similarity_threshold, 0.91), "{found:?}");
        assert_eq!((found.recall.count, found.false_hit_rate.count), (2, 0));
        let found = best(Axis::Similarity, floors, &cases, 1, under(0.5)).unwrap();
        assert!(near(found.similarity_threshold, 0.8), "{found:?}");
        assert_eq!(found.recall.count, 3);
        // Confidence does not tell them apart, and there is one threshold for all or none.
        assert_eq!(best(Axis::Confidence, floors, &cases, 1, under(0.0)), None);
        assert_eq!(best(Axis::Similarity, floors, &[], 1, under(1.0)), None);
    }

    #[test]
    fn what_the_guard_stopped_is_served_nowhere() {
        let stopped =
            Judgement { found: Err(MissReason::GuardRejected), rule: Some("number"), ..judgement(0.99) };
        assert_eq!(stopped.outcome(Floors::NONE), Err(MissReason::GuardRejected));
        let high = Floors { similarity: 0.995, ..Floors::NONE };
        assert_eq!(stopped.outcome(high), Err(MissReason::BelowThreshold), "it was not asked there");
    }

    proptest! {
        #[test]
        fn an_area_lies_in_its_interval(
            positive in proptest::collection::vec(0.0..1.0_f64, 1..30),
            negative in proptest::collection::vec(0.0..1.0_f64, 1..30),
        ) {
            let found = area(&positive, &negative, 1).unwrap();
            prop_assert!((0.0..=1.0).contains(&found.value));
            prop_assert!(found.low <= found.value && found.value <= found.high);
            let turned = area(&negative, &positive, 1).unwrap();
            prop_assert!((found.value + turned.value - 1.0).abs() < 1e-5);
        }
    }
}
