//! Reads what follows a number as part of it where it is: scales, units of time, halves of the day, ordinals.
//!
//! Called by [`super::prepare`].

use super::number::{self, Amount, Part};
use super::prepare::{NumberKind, Piece, amount};
use super::scan::Kind;

/// Joins number words, and reads what follows a number as part of it where it is (`10 a.m.`, `half an hour`).
pub(super) fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for mut piece in pieces {
        let before = out.last_mut();
        if let Some(before) = before
            && let Some(first) = amount(before).cloned()
            && !piece.after_stop
        {
            if let Some(second) = amount(&piece)
                && let Some(whole) = number::join(&first, second)
            {
                set_number(before, whole, None);
                continue;
            }
            if let Some(value) = first.value
                && matches!(piece.text.as_str(), "am" | "pm" | "a.m." | "p.m." | "a.m" | "p.m")
                && let Some(Part::Time(minutes)) = number::half_day(value, piece.text.starts_with('p'))
            {
                before.token.kind = Kind::Time(minutes);
                before.text = format!("time {minutes}");
                before.base.clone_from(&before.text);
                before.number = Some(NumberKind::Time);
                continue;
            }
        }
        if let Kind::Time(_) = piece.token.kind {
            piece.number = Some(NumberKind::Time);
        }
        if let Some(found) = amount(&piece) {
            piece.number = Some(kind_of(found));
        }
        out.push(piece);
    }
    out
}

fn set_number(piece: &mut Piece, amount: Amount, kind: Option<NumberKind>) {
    piece.number = Some(kind.unwrap_or_else(|| kind_of(&amount)));
    piece.text = amount.key();
    piece.base.clone_from(&piece.text);
    piece.token.kind = Kind::Number(amount);
}

fn kind_of(amount: &Amount) -> NumberKind {
    match amount.value {
        Some(value) if amount.spelt && value <= 1.0 => NumberKind::Weak,
        Some(value)
            if !amount.spelt
                && !amount.ordinal
                && value.fract() == 0.0
                && (1000.0..2200.0).contains(&value) =>
        {
            NumberKind::Year
        }
        None if amount.is_dotted() => NumberKind::Version,
        _ => NumberKind::Plain,
    }
}

const MONTHS: &[&str] = &[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
];

/// A day of a month counts the same as an ordinal or not; `second` behind a number is a unit of time.
pub(super) fn ordinals(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let month = |piece: Option<&Piece>| piece.is_some_and(|piece| MONTHS.contains(&piece.text.as_str()));
    let dated: Vec<bool> = (0..pieces.len())
        .map(|at| {
            let before = at.checked_sub(1).and_then(|before| pieces.get(before));
            let after = pieces.get(at + 1);
            let of = after.is_some_and(|piece| piece.text == "of") && month(pieces.get(at + 2));
            let the = before.is_some_and(|piece| piece.text == "the")
                && month(at.checked_sub(2).and_then(|two| pieces.get(two)));
            month(before) || month(after) || of || the
        })
        .collect();
    for (piece, dated) in pieces.iter_mut().zip(dated) {
        if let Some(found) = amount(piece).cloned()
            && dated
            && found.value.is_some_and(|value| value <= 31.0)
        {
            set_number(piece, Amount { ordinal: false, spelt: false, ..found }, Some(NumberKind::Time));
        }
    }
    let mut counted = false;
    for piece in &mut pieces {
        let ordinal_second =
            amount(piece).is_some_and(|found| found.ordinal && found.spelt && found.value == Some(2.0));
        if ordinal_second && counted {
            piece.token.kind = Kind::Word;
            "second".clone_into(&mut piece.text);
            "second".clone_into(&mut piece.base);
            piece.number = None;
        }
        counted = amount(piece).is_some() || matches!(piece.text.as_str(), "per" | "a");
    }
    pieces
}

/// Seconds or months in a unit of time.
const SPANS: &[(&str, f64, &str)] = &[
    ("millisecond", 0.001, "s"),
    ("second", 1.0, "s"),
    ("sec", 1.0, "s"),
    ("s", 1.0, "s"),
    ("minute", 60.0, "s"),
    ("min", 60.0, "s"),
    ("hour", 3600.0, "s"),
    ("hr", 3600.0, "s"),
    ("h", 3600.0, "s"),
    ("day", 86400.0, "s"),
    ("week", 604_800.0, "s"),
    ("month", 1.0, "months"),
    ("year", 12.0, "months"),
    ("yr", 12.0, "months"),
    ("decade", 120.0, "months"),
];

/// Makes one number of an amount and its unit of time, so that half an hour is 30 minutes.
pub(super) fn times(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if let Some((_, scale, unit)) = SPANS
            .iter()
            .find(|(name, ..)| *name == piece.base || *name == piece.text)
            .filter(|_| !piece.after_stop)
        {
            // "half an hour": the article stands between.
            if out.len() >= 2
                && out.last().is_some_and(|last| matches!(last.text.as_str(), "a" | "an" | "of"))
            {
                let before = out.len() - 2;
                let half = out
                    .get(before)
                    .and_then(amount)
                    .is_some_and(|found| found.spelt && found.value.is_some_and(|v| v < 1.0));
                if half {
                    out.pop();
                }
            }
            if let Some(last) = out.last_mut()
                && let Some(value) = amount(last).filter(|found| !found.ordinal).and_then(|found| found.value)
            {
                // "One day" may be no amount at all.
                let weak = last.number == Some(NumberKind::Weak);
                last.text = format!("{} {unit}", value * scale);
                last.base.clone_from(&last.text);
                last.number = Some(if weak { NumberKind::Weak } else { NumberKind::Duration });
                continue;
            }
        }
        out.push(piece);
    }
    out
}
