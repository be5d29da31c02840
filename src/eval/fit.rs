//! Fits the curve from what confidence is reckoned from to probability (Platt scaling: J. Platt, Advances in Large Margin Classifiers,
//! 1999) to the pairs that no rule stopped, since confidence is asked only of them; or to what mode observe has compared.
//!
//! Called by `cli::eval` for `--calibrate`.

use std::collections::HashMap;

use super::judge::Judged;
use super::measure::reliability;
use super::pairs::Pair;
use crate::cache::calibration::{Basis, Calibration};
use crate::cache::observations::ComparedByBasis;
use crate::cache::outcome::Layer;

/// The least number of pairs of each label; a curve through fewer says nothing.
pub const LEAST: u32 = 20;

/// Parts of the pairs, each left out once to test what the others gave.
const FOLDS: usize = 5;

/// The similarity about which a curve over it is fitted: nearer to the data than 0, where rounding would tell.
const CENTRE: f64 = 0.85;

/// Observed comparisons that are used one by one; of more, each stands for several.
const MOST: u64 = 20_000;

/// A slight pull of the slope towards 0, which keeps it finite where similarity tells the labels apart.
const PULL: f64 = 0.01;

/// A fitted curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The curve.
    pub curve: Calibration,
    /// The pairs it was fitted to.
    pub pairs: u32,
    /// How many of them have one answer.
    pub positive: u32,
    /// The expected calibration error, cross-validated: pairs that share a prompt are never divided, where their prompts
    /// are known.
    pub error: f64,
}

/// Why there is no curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// Too few pairs.
    #[error(
        "of the pairs that no rule stopped, {positive} have one answer and {negative} do not; a calibration takes \
         {LEAST} of each"
    )]
    TooFew {
        /// With one answer.
        positive: u32,
        /// Without.
        negative: u32,
    },
    /// What was judged tells nothing, or the opposite.
    #[error(
        "pairs judged more alike do not have one answer more often: these judgements cannot be calibrated"
    )]
    NoSlope,
}

#[derive(Clone, Copy)]
struct Point {
    basis: f64,
    same: bool,
    group: usize,
}

/// Fits a curve. Deterministic.
pub fn fit(pairs: &[Pair], judged: &[Judged], calibration: Calibration) -> Result<Fit, FitError> {
    let groups = groups(pairs);
    let points: Vec<Point> = pairs
        .iter()
        .zip(judged)
        .zip(groups)
        .filter(|((_, judged), _)| judged.there.found == Ok(Layer::Semantic))
        .filter_map(|((pair, judged), group)| {
            let basis = f64::from(calibration.basis_of(judged.there.likeness?)?);
            Some(Point { basis, same: pair.same, group })
        })
        .collect();
    fit_points(&points, calibration.basis)
}

/// Fits a curve to what mode observe has compared. Deterministic.
pub fn fit_observed(compared: &ComparedByBasis) -> Result<Fit, FitError> {
    let all = compared.steps.iter().map(|step| step.same.saturating_add(step.different));
    let all = all.fold(0_u64, u64::saturating_add);
    let scale = all.div_ceil(MOST).max(1);
    let mut points = Vec::new();
    for step in &compared.steps {
        for (same, count) in [(true, step.same), (false, step.different)] {
            // A lone one is not lost among many.
            for _ in 0..count.div_ceil(scale) {
                points.push(Point { basis: step.value, same, group: points.len() });
            }
        }
    }
    fit_points(&points, compared.basis)
}

fn fit_points(points: &[Point], basis: Basis) -> Result<Fit, FitError> {
    let positive = u32::try_from(points.iter().filter(|point| point.same).count()).unwrap_or(u32::MAX);
    let all = u32::try_from(points.len()).unwrap_or(u32::MAX);
    let negative = all - positive;
    if positive < LEAST || negative < LEAST {
        return Err(FitError::TooFew { positive, negative });
    }
    let curve = curve(points, basis);
    if !curve.intercept.is_finite() || !curve.slope.is_finite() || curve.slope <= 0.0 {
        return Err(FitError::NoSlope);
    }
    Ok(Fit { curve, pairs: all, positive, error: cross_validated(points, basis) })
}

/// The curve of most likelihood, by Newton's method.
fn curve(points: &[Point], basis: Basis) -> Calibration {
    let centre = match basis {
        Basis::Similarity => CENTRE,
        Basis::Verifier => 0.0,
    };
    let (mut intercept, mut slope) = (0.0_f64, 0.0_f64);
    for _ in 0..100 {
        let (mut down, mut tilt) = (0.0, -PULL * slope);
        let (mut flat, mut mixed, mut steep) = (1e-9, 0.0, PULL);
        for Point { basis, same, .. } in points.iter().copied() {
            let x = basis - centre;
            let p = 1.0 / (1.0 + (-(intercept + slope * x)).exp());
            let off = f64::from(u8::from(same)) - p;
            let weight = p * (1.0 - p);
            down += off;
            tilt += off * x;
            flat += weight;
            mixed += weight * x;
            steep += weight * x * x;
        }
        let determinant = flat * steep - mixed * mixed;
        let (up, turn) =
            ((steep * down - mixed * tilt) / determinant, (flat * tilt - mixed * down) / determinant);
        // Full steps may overshoot where labels are nearly told apart.
        let scale = (5.0 / up.abs().max(turn.abs() / 10.0)).min(1.0);
        intercept += up * scale;
        slope += turn * scale;
        if up.abs().max(turn.abs()) < 1e-10 {
            break;
        }
    }
    Calibration { basis, intercept: narrow(intercept - centre * slope), slope: narrow(slope) }
}

#[expect(clippy::cast_possible_truncation, reason = "single precision is what the decision reckons in")]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn cross_validated(points: &[Point], basis: Basis) -> f64 {
    let mut held = Vec::with_capacity(points.len());
    for fold in 0..FOLDS {
        let out = |point: &Point| point.group % FOLDS == fold;
        let kept: Vec<Point> = points.iter().copied().filter(|point| !out(point)).collect();
        let curve = curve(&kept, basis);
        for point in points.iter().filter(|point| out(point)) {
            held.push((f64::from(curve.at(narrow(point.basis))), point.same));
        }
    }
    reliability(&held, 1).map_or(0.0, |found| found.expected_calibration_error)
}

/// The number of each pair's group: pairs that share a prompt, by however many steps, are in one.
fn groups(pairs: &[Pair]) -> Vec<usize> {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut parents: Vec<usize> = Vec::new();
    let mut firsts = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let [one, other] = [&pair.a, &pair.b].map(|prompt| {
            *numbers.entry(prompt.as_str()).or_insert_with(|| {
                parents.push(parents.len());
                parents.len() - 1
            })
        });
        let (one, other) = (root(&mut parents, one), root(&mut parents, other));
        if let Some(parent) = parents.get_mut(one.max(other)) {
            *parent = one.min(other);
        }
        firsts.push(one);
    }
    let mut dense: HashMap<usize, usize> = HashMap::new();
    firsts
        .into_iter()
        .map(|first| {
            let next = dense.len();
            *dense.entry(root(&mut parents, first)).or_insert(next)
        })
        .collect()
}

fn root(parents: &mut [usize], mut at: usize) -> usize {
    while let Some(&parent) = parents.get(at).filter(|parent| **parent != at) {
        let grandparent = parents.get(parent).copied().unwrap_or(parent);
        if let Some(slot) = parents.get_mut(at) {
            *slot = grandparent;
        }
        at = grandparent;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::decision::Likeness;
    use crate::embed::Similarity;
    use crate::eval::judge::Judgement;

    fn judged(similarity: f32) -> Judged {
        let judgement = Judgement {
            found: Ok(Layer::Semantic),
            similarity: Some(similarity),
            confidence: 0.0,
            rule: None,
            likeness: Some(Likeness::of(Similarity(similarity))),
        };
        Judged { there: judgement, back: None }
    }

    fn pair(a: &str, b: &str, same: bool) -> Pair {
        Pair { a: a.into(), b: b.into(), same, kind: String::new(), source: String::new(), line: 1 }
    }

    /// Labels drawn by a known curve, in fixed shares at each similarity.
    #[test]
    fn a_known_curve_is_found_again() {
        let truth = Calibration { basis: Basis::Similarity, intercept: -8.0, slope: 10.0 };
        let (mut pairs, mut all) = (Vec::new(), Vec::new());
        for step in 0_u16..=40 {
            let similarity = 0.6 + f32::from(step) / 100.0;
            for draw in 0_u16..200 {
                let same = f32::from(draw) + 0.5 < 200.0 * truth.at(similarity);
                pairs.push(pair(&format!("a{step} {draw}"), &format!("b{step} {draw}"), same));
                all.push(judged(similarity));
            }
        }
        let found = fit(&pairs, &all, Calibration::SIMILARITY).unwrap();
        assert!((found.curve.slope - 10.0).abs() < 0.1, "{found:?}");
        assert!((found.curve.intercept + 8.0).abs() < 0.1, "{found:?}");
        assert!(found.error < 0.02, "{found:?}");
        assert_eq!(found.pairs, 41 * 200);
    }

    /// The same from counts, however many.
    #[test]
    fn a_known_curve_is_found_again_in_what_was_observed() {
        let truth = Calibration { basis: Basis::Verifier, intercept: 0.5, slope: 0.8 };
        for each in [50.0, 5_000.0] {
            let steps = (-16_i16..=16).map(|step| {
                let value = f64::from(step) / 4.0;
                let same = f64::from(truth.at(narrow(value))) * each;
                let count = |share: f64| format!("{share:.0}").parse().unwrap();
                crate::cache::observations::Step { value, same: count(same), different: count(each - same) }
            });
            let compared = ComparedByBasis { basis: Basis::Verifier, steps: steps.collect() };
            let found = fit_observed(&compared).unwrap();
            assert!((found.curve.slope - 0.8).abs() < 0.05, "{found:?}");
            assert!((found.curve.intercept - 0.5).abs() < 0.05, "{found:?}");
            assert!(found.error < 0.05, "{found:?}");
        }
        let few = ComparedByBasis { basis: Basis::Verifier, steps: Vec::new() };
        assert_eq!(fit_observed(&few), Err(FitError::TooFew { positive: 0, negative: 0 }));
    }

    #[test]
    fn what_cannot_be_calibrated_says_why() {
        let pairs: Vec<_> = (0..60).map(|n| pair(&format!("a{n}"), &format!("b{n}"), n % 2 == 0)).collect();
        let wrong: Vec<_> = pairs.iter().map(|pair| judged(if pair.same { 0.5 } else { 0.9 })).collect();
        assert_eq!(fit(&pairs, &wrong, Calibration::SIMILARITY), Err(FitError::NoSlope));
        let stopped = Judged {
            there: Judgement {
                found: Err(crate::cache::decision::MissReason::GuardRejected),
                ..wrong[0].there
            },
            back: None,
        };
        let all = vec![stopped; 60];
        assert_eq!(
            fit(&pairs, &all, Calibration::SIMILARITY),
            Err(FitError::TooFew { positive: 0, negative: 0 })
        );
        // Told apart wholly: steep, and finite.
        let right: Vec<_> = pairs.iter().map(|pair| judged(if pair.same { 0.9 } else { 0.5 })).collect();
        let found = fit(&pairs, &right, Calibration::SIMILARITY).unwrap();
        assert!(found.curve.slope > 10.0 && found.curve.slope.is_finite(), "{found:?}");
    }

    #[test]
    fn pairs_that_share_a_prompt_are_one_group() {
        let pairs = [
            pair("a", "b", true),
            pair("c", "d", true),
            pair("e", "f", true),
            pair("b", "e", false),
            pair("x", "x", true),
        ];
        assert_eq!(groups(&pairs), [0, 1, 0, 0, 2]);
    }
}
