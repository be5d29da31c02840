//! A report for people, on a terminal.
//!
//! Called by `cli::eval`.

use std::fmt::{self, Display, Formatter};

use super::measure::{Area, Point, Rate, Reliability};
use super::report::{Advice, Group, Report};
use crate::cache::calibration::{Basis, CalibrationFile};

/// The report, written for people.
pub struct Text<'a>(pub &'a Report);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        self.pairs(f)?;
        let areas = &report.area_under_curve;
        writeln!(f, "\nArea under the ROC curve")?;
        writeln!(f, "  similarity alone                       {}", Interval(areas.similarity))?;
        writeln!(f, "  the decision (rules and confidence)    {}", Interval(areas.decision))?;
        self.configured(f)?;
        let floors = report.configured;
        writeln!(
            f,
            "\nBy similarity threshold, confidence of at least {:.2} as configured",
            floors.min_confidence
        )?;
        table(f, &report.by_similarity, |point| point.similarity_threshold, floors)?;
        writeln!(
            f,
            "\nBy least confidence, similarity of at least {:.2} as configured",
            floors.similarity_threshold
        )?;
        table(f, &report.by_confidence, |point| point.min_confidence, floors)?;
        self.recommended(f)?;
        groups(f, "kind", &report.kinds)?;
        groups(f, "source", &report.sources)?;
        self.outcomes(f)?;
        if let Some(found) = &report.reliability {
            reliability(f, found)?;
        }
        let Some(fitted) = &report.calibration else { return Ok(()) };
        write!(f, "\n{}", Fitted(fitted))?;
        writeln!(f, "The figures above are without it.")
    }
}

/// A calibration that was written, told to people.
pub struct Fitted<'a>(pub &'a CalibrationFile);

impl Display for Fitted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let CalibrationFile { basis, intercept, slope, pairs, positive, expected_calibration_error, .. } =
            self.0;
        let basis = match basis {
            Basis::Similarity => "a similarity",
            Basis::Verifier => "log-odds",
        };
        writeln!(
            f,
            "Calibrated by {pairs} pairs that no rule stopped, {positive} of them with one answer: confidence of {basis} s \
             is\n1 / (1 + exp(-({intercept:.3} + {slope:.3} s))). Expected calibration error, cross-validated: \
             {expected_calibration_error:.3}. It holds for traffic\nwith that share of pairs with one answer. Name the \
             file as cache.calibration and measure again, best on other pairs."
        )
    }
}

impl Text<'_> {
    fn pairs(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { pairs, file, embedder, both_ways, .. } = self.0;
        writeln!(
            f,
            "{file}: {} pairs, {} with one answer, {} with different ones; embedder {embedder}",
            pairs.total, pairs.positive, pairs.negative
        )?;
        if *both_ways {
            writeln!(f, "Each pair was asked both ways round; intervals count it once.")?;
        }
        if !pairs.skipped.is_empty() {
            writeln!(f, "{} lines were left out.", pairs.skipped.len())?;
        }
        if pairs.negative_but_equal > 0 {
            writeln!(
                f,
                "{} pairs labelled 0 are one prompt twice, which the exact layer reuses: check their labels.",
                pairs.negative_but_equal
            )?;
        }
        Ok(())
    }

    fn configured(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let point = self.0.configured;
        writeln!(
            f,
            "\nAs configured: similarity of at least {:.2}, confidence of at least {:.2} (95 % intervals)",
            point.similarity_threshold, point.min_confidence
        )?;
        for (name, rate, meaning) in [
            ("precision", point.precision, "right reuse of all reuse"),
            ("recall", point.recall, "right reuse of all pairs with one answer"),
            ("false-hit rate", point.false_hit_rate, "wrong reuse of all pairs with different answers"),
            ("hit rate", point.hit_rate, "reuse of all pairs"),
        ] {
            writeln!(f, "  {name:<15} {}  {meaning}", Whole(rate))?;
        }
        Ok(())
    }

    fn recommended(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let found = &self.0.recommended;
        writeln!(f, "\nTo keep the false-hit rate at or under {}", percent(found.max_error))?;
        for (name, Advice { observed, shown }, value) in [
            ("similarity_threshold", found.similarity_threshold, similarity as fn(&Point) -> f64),
            ("cache.min_confidence", found.min_confidence, confidence),
        ] {
            match observed {
                Some(point) => advise(f, name, value(&point), &point, "on these pairs")?,
                None => writeln!(f, "  {name}: no value does with any right reuse left")?,
            }
            match shown {
                Some(point) if Some(point) == observed => {
                    writeln!(f, "  {:<31} the upper end of its interval is under it too", "")?;
                }
                Some(point) => {
                    advise(f, name, value(&point), &point, "with the upper end of its interval")?;
                }
                None => {}
            }
        }
        match (found.can_be_shown, found.negatives_needed) {
            (true, _) => Ok(()),
            (false, Some(needed)) => writeln!(
                f,
                "  These pairs cannot show it: without a single false hit the interval of {} pairs with different\n  \
                 answers still reaches beyond {}. It takes {needed} of them.",
                self.0.pairs.negative,
                percent(found.max_error)
            ),
            (false, None) => writeln!(f, "  No number of pairs can show an error of nothing at all."),
        }
    }

    fn outcomes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { outcomes, rules, .. } = self.0;
        for (title, counts) in [("What became of them, as configured", outcomes), ("Rules that spoke", rules)]
        {
            if counts.is_empty() {
                continue;
            }
            writeln!(f, "\n{title:<38} one answer  different")?;
            for (name, count) in counts {
                writeln!(f, "  {name:<36} {:>10} {:>10}", count.positive, count.negative)?;
            }
        }
        Ok(())
    }
}

fn similarity(point: &Point) -> f64 {
    point.similarity_threshold
}

fn confidence(point: &Point) -> f64 {
    point.min_confidence
}

fn advise(f: &mut Formatter<'_>, name: &str, value: f64, point: &Point, how: &str) -> fmt::Result {
    writeln!(
        f,
        "  {:<30}  {how}: false-hit rate {}, recall {}",
        format!("{name} = {value:.4}"),
        Whole(point.false_hit_rate),
        Whole(point.recall)
    )
}

fn table(
    f: &mut Formatter<'_>,
    points: &[Point],
    value: fn(&Point) -> f64,
    configured: Point,
) -> fmt::Result {
    writeln!(f, "     from  precision  recall                 false-hit rate         hit rate")?;
    for point in points {
        writeln!(
            f,
            "  {} {:>5.3}  {:<9}  {:<21}  {:<21}  {}",
            if *point == configured { '*' } else { ' ' },
            value(point),
            Share(point.precision).to_string(),
            Spread(point.recall).to_string(),
            Spread(point.false_hit_rate).to_string(),
            Share(point.hit_rate),
        )?;
    }
    Ok(())
}

fn groups(f: &mut Formatter<'_>, what: &str, groups: &[Group]) -> fmt::Result {
    if groups.is_empty() {
        return Ok(());
    }
    let widest =
        groups.iter().map(|group| group.name.chars().count()).max().unwrap_or_default().clamp(12, 40);
    writeln!(f, "\n{:<widest$}    recall                            false-hit rate", format!("By {what}"))?;
    let shown = |rate: Option<Rate>| rate.map_or_else(String::new, |rate| Whole(rate).to_string());
    for group in groups {
        let (recall, wrong) = (shown(group.recall), shown(group.false_hit_rate));
        writeln!(f, "{}", format!("  {:<widest$}  {recall:<32}  {wrong}", group.name).trim_end())?;
    }
    Ok(())
}

fn reliability(f: &mut Formatter<'_>, found: &Reliability) -> fmt::Result {
    writeln!(f, "\nConfidence             pairs   mean  came true")?;
    for bin in &found.bins {
        writeln!(
            f,
            "  {:.1} to {:.1}       {:>9}  {:.3}  {}",
            bin.from,
            bin.to,
            bin.observed.of,
            bin.confidence,
            Spread(bin.observed)
        )?;
    }
    writeln!(
        f,
        "Expected calibration error {:.3}, Brier score {:.3}; both depend on how many of these pairs have one answer.",
        found.expected_calibration_error, found.brier_score
    )
}

fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `.730`
struct Share(Rate);

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.value {
            Some(value) => write!(f, "{value:.3}"),
            None => f.write_str("-"),
        }
    }
}

/// `.730 (.650 to .790)`
struct Spread(Rate);

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.value {
            Some(value) => write!(f, "{value:.3} ({:.3}-{:.3})", self.0.low, self.0.high),
            None => f.write_str("-"),
        }
    }
}

/// `.730 (.650 to .790), 117 of 161`
struct Whole(Rate);

impl Display for Whole {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} of {}", Spread(self.0), self.0.count, self.0.of)
    }
}

/// An area, or a dash.
struct Interval(Option<Area>);

impl Display for Interval {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(area) => write!(f, "{:.3} ({:.3}-{:.3})", area.value, area.low, area.high),
            None => f.write_str("- (all pairs have one label)"),
        }
    }
}
