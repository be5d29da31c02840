//! Compared candidates by what their confidence is reckoned from, so that `rejoinder eval --observed` can fit a
//! calibration to them.
//!
//! Called by the observations. Counts alone, in steps, so that it is bounded and shows no prompt.

use serde::{Deserialize, Serialize};

use super::super::calibration::Basis;
use super::super::comparison::Agreement;

/// Steps to either side of 0.
const REACH: i16 = 100;

const STEPS: usize = 201;

/// The counts.
#[derive(Debug)]
pub(super) struct ByBasis {
    basis: Basis,
    /// Same and different, for each step.
    steps: [(u64, u64); STEPS],
}

/// The width of a step: fine against the spread of prompts of one kind.
fn width(basis: Basis) -> f32 {
    match basis {
        Basis::Similarity => 0.01,
        Basis::Verifier => 0.25,
    }
}

impl ByBasis {
    pub(super) fn new(basis: Basis) -> Self {
        Self { basis, steps: [(0, 0); STEPS] }
    }

    /// A candidate was compared. What could not be told teaches nothing.
    pub(super) fn add(&mut self, value: f32, agreement: Agreement) {
        let reach = f32::from(REACH);
        let step = (value / width(self.basis)).round().clamp(-reach, reach);
        if step.is_nan() {
            return;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number between 0 and twice the reach"
        )]
        let at = (step + reach) as usize;
        if let Some((same, different)) = self.steps.get_mut(at) {
            match agreement {
                Agreement::Same => *same += 1,
                Agreement::Different => *different += 1,
                Agreement::Unclear => {}
            }
        }
    }

    pub(super) fn report(&self) -> ComparedByBasis {
        let width = f64::from(width(self.basis));
        let steps = (-REACH..=REACH).zip(self.steps).filter(|(_, counts)| *counts != (0, 0));
        let steps = steps.map(|(step, (same, different))| {
            let value = crate::rate::rounded(f64::from(step) * width);
            Step { value, same, different }
        });
        ComparedByBasis { basis: self.basis, steps: steps.collect() }
    }
}

/// Candidates of the semantic layer that no rule forbade and whose comparison was clear, by what confidence is
/// reckoned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparedByBasis {
    /// What that is.
    pub basis: Basis,
    /// Its steps with anything in them, ascending.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its middle: log-odds for the verifier, a cosine for similarity.
    pub value: f64,
    /// The fresh reply said the same.
    pub same: u64,
    /// It said something else.
    pub different: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_candidate_is_counted_in_the_step_it_is_nearest_to() {
        let mut counts = ByBasis::new(Basis::Verifier);
        for (value, agreement) in [
            (1.1, Agreement::Same),
            (0.9, Agreement::Different),
            (0.9, Agreement::Unclear),
            (-1e9, Agreement::Different),
            (f32::NAN, Agreement::Same),
        ] {
            counts.add(value, agreement);
        }
        let steps =
            [Step { value: -25.0, same: 0, different: 1 }, Step { value: 1.0, same: 1, different: 1 }];
        assert_eq!(counts.report(), ComparedByBasis { basis: Basis::Verifier, steps: steps.to_vec() });
    }

    proptest! {
        #[test]
        fn a_cosine_is_told_to_half_a_hundredth(value in -1.0_f32..=1.0) {
            let mut counts = ByBasis::new(Basis::Similarity);
            counts.add(value, Agreement::Same);
            let [step] = counts.report().steps[..] else { panic!("{counts:?}") };
            prop_assert!((step.value - f64::from(value)).abs() <= 0.005_001, "{} for {}", step.value, value);
        }
    }
}
