//! Judges the numbers left over when the units of two prompts are paired.
//!
//! Called by [`super::differ`]. A number that the other prompt has in another form is no difference: 5 years
//! and aged five, `int32` and 32-bit, 3 p.m. and three in the afternoon, 2 for to.

use super::Rule;
use super::counts::span_key;
use super::differ::NEAR;
use super::pair::Pairing;
use super::prepare::{NumberKind, Prepared, Unit, UnitKind};

/// What the numbers say.
pub(super) struct Numbers {
    /// The rule that speaks.
    pub(super) rule: Rule,
    /// Whether it speaks for sure: numbers stand on both sides, or one is written in digits.
    pub(super) sure: bool,
}

/// Numbers left over on either side; `apart` tells how much else differs.
pub(super) fn numbers(
    pairing: &Pairing<'_>,
    left: &[&Unit],
    right: &[&Unit],
    apart: usize,
) -> Option<Numbers> {
    let one = unsaid(left, right, pairing.one, pairing.other);
    let other = unsaid(right, left, pairing.other, pairing.one);
    let weak = |unit: &&(&Unit, NumberKind)| unit.1 == NumberKind::Weak;
    if one.iter().all(|unit| weak(&unit)) && other.iter().all(|unit| weak(&unit)) {
        return None;
    }
    let rule = one
        .iter()
        .chain(&other)
        .map(|(_, kind)| match kind {
            NumberKind::Plain | NumberKind::Weak => Rule::Number,
            NumberKind::Duration => Rule::Unit,
            NumberKind::Year | NumberKind::Time => Rule::Date,
            NumberKind::Version => Rule::Version,
        })
        .min()?;
    let digits = |(unit, kind): &(&Unit, NumberKind)| !unit.spelt && *kind != NumberKind::Weak;
    let chat = |list: &[(&Unit, NumberKind)], prompt: &Prepared| {
        list.iter().all(|(unit, _)| matches!(unit.written.as_str(), "2" | "4"))
            && !prompt.exact.contains(char::is_uppercase)
    };
    let near = apart <= NEAR;
    let sure = match (one.is_empty(), other.is_empty()) {
        (false, false) => true,
        // Left out, or said in words that hold no number: sure only where little else differs.
        (mine, _) => {
            let (list, prompt) = if mine { (&other, pairing.other) } else { (&one, pairing.one) };
            let counted =
                |(unit, kind): &(&Unit, NumberKind)| *kind != NumberKind::Weak && !unit.is_ordinal();
            (near && list.iter().any(digits) || apart == 0 && list.iter().any(counted)) && !chat(list, prompt)
        }
    };
    Some(Numbers { rule, sure })
}

/// Those of the numbers left over that the other prompt does not say in another form.
fn unsaid<'a>(
    mine: &[&'a Unit],
    theirs: &[&Unit],
    one: &Prepared,
    other: &Prepared,
) -> Vec<(&'a Unit, NumberKind)> {
    let numbers: Vec<(&Unit, NumberKind)> = mine
        .iter()
        .filter_map(|unit| match unit.kind {
            UnitKind::Number(kind) => Some((*unit, kind)),
            _ => None,
        })
        .collect();
    if numbers.is_empty() {
        return numbers;
    }
    let figures = figures(other);
    let has = |kind: NumberKind| theirs.iter().any(|unit| unit.kind == UnitKind::Number(kind));
    numbers
        .into_iter()
        .filter(|(unit, kind)| {
            // Two spans of time are compared as such, or ten minutes would be ten seconds.
            let compared = matches!(kind, NumberKind::Duration | NumberKind::Time) && has(*kind);
            let in_text =
                |value: f64| !unit.is_ordinal() && figures.iter().any(|figure| alike(value, *figure));
            let left = |value: f64| {
                theirs.iter().filter_map(|other| other.figure).any(|figure| alike(value, figure))
            };
            let spelt_otherwise = !compared && unit.figure.is_some_and(|value| in_text(value) || left(value));
            let written = *kind == NumberKind::Version && other.exact.contains(&unit.written);
            !(spelt_otherwise || written || is_span(unit, theirs) || is_chat(unit, one, other))
        })
        .collect()
}

/// Every number a prompt holds as a figure: also those within words and code.
fn figures(prompt: &Prepared) -> Vec<f64> {
    let mut all = Vec::new();
    let digit = |c: char| c.is_ascii_digit() || SUPERSCRIPTS.contains(&c);
    let mut rest = prompt.exact.as_str();
    while let Some(start) = rest.find(digit) {
        let run = rest.get(start..).unwrap_or_default();
        let end = run.find(|c: char| !(digit(c) || c == '.' || c == ',')).unwrap_or(run.len());
        let text: String = run
            .get(..end)
            .unwrap_or_default()
            .chars()
            .filter(|c| *c != ',')
            .map(|c| {
                SUPERSCRIPTS
                    .iter()
                    .zip('0'..='9')
                    .find(|(raised, _)| **raised == c)
                    .map_or(c, |(_, plain)| plain)
            })
            .collect();
        all.extend(text.trim_end_matches('.').parse::<f64>().ok());
        rest = run.get(end..).unwrap_or_default();
    }
    all
}

const SUPERSCRIPTS: [char; 10] = [
    '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}',
    '\u{2079}',
];

/// The same figure, or a year and its last two digits.
fn alike(one: f64, other: f64) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let short = |short: f64, long: f64| (30.0..100.0).contains(&short) && near(short + 1900.0, long);
    near(one, other) || short(one, other) || short(other, one)
}

/// Seven days where the other prompt says a week.
fn is_span(unit: &Unit, theirs: &[&Unit]) -> bool {
    theirs.iter().any(|other| {
        let word =
            other.key.strip_prefix("a ").or_else(|| other.key.strip_prefix("an ")).unwrap_or(&other.key);
        other.kind == UnitKind::Word && span_key(word).is_some_and(|key| key == unit.key)
    })
}

/// `4` and `2` where the other prompt says `for` and `to`.
fn is_chat(unit: &Unit, one: &Prepared, other: &Prepared) -> bool {
    let sounds: &[&str] = match unit.written.as_str() {
        "2" => &["to", "too"],
        "4" => &["for"],
        _ => return false,
    };
    let count =
        |prompt: &Prepared| prompt.frame.iter().filter(|word| sounds.contains(&word.as_str())).count();
    count(other) > count(one)
}
