//! Shares and their uncertainty: a count of a total with Wilson's interval of 95 %.
//!
//! Called by whatever measures: `eval` over labelled pairs, `cache` over live traffic. Knows neither.

use serde::{Deserialize, Serialize};

/// The standard normal quantile of a two-sided interval of 95 %.
pub(crate) const Z: f64 = 1.959_963_984_540_054;

/// A share with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// How many of them.
    pub count: u32,
    /// Of how many.
    pub of: u32,
    /// The share; absent where there is nothing to have a share of.
    pub value: Option<f64>,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Rate {
    /// A share of cases. `ways` is how many cases each pair has: more cases of a pair are no more evidence.
    pub fn new(count: u32, of: u32, ways: u32) -> Self {
        let value = (of > 0).then(|| f64::from(count) / f64::from(of));
        let (low, high) = value.map_or((0.0, 1.0), |share| wilson(share, f64::from(of) / f64::from(ways)));
        Self { count, of, value: value.map(rounded), low: rounded(low), high: rounded(high) }
    }
}

/// Wilson's score interval (E. B. Wilson, Journal of the American Statistical Association 22, 1927).
fn wilson(share: f64, trials: f64) -> (f64, f64) {
    let square = Z * Z;
    let centre = share + square / (2.0 * trials);
    let half = Z * (share * (1.0 - share) / trials + square / (4.0 * trials * trials)).sqrt();
    let scale = 1.0 + square / trials;
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

/// Six decimals: more are noise, and differ between machines.
pub fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 5e-4
    }

    /// The figures of R's `binom::binom.wilson`.
    #[test]
    fn wilsons_interval_is_that_of_the_books() {
        let rate = Rate::new(10, 100, 1);
        assert!(near(rate.low, 0.0552) && near(rate.high, 0.1744), "{rate:?}");
        let none = Rate::new(0, 277, 1);
        assert!(none.low.abs() < 1e-9 && near(none.high, 0.0137), "{none:?}");
        let both_ways = Rate::new(20, 200, 2);
        assert_eq!((both_ways.low, both_ways.high), (rate.low, rate.high));
        assert_eq!(Rate::new(0, 0, 1).value, None);
    }

    proptest! {
        #[test]
        fn a_rate_lies_in_its_interval(count in 0_u32..500, more in 0_u32..500, ways in 1_u32..3) {
            let rate = Rate::new(count, count + more, ways);
            if let Some(value) = rate.value {
                prop_assert!(rate.low <= value + 1e-6 && value <= rate.high + 1e-6);
            }
        }
    }
}
