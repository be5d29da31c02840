//! Reads what follows a number as part of it where it is: scales, units of time, halves of the day, ordinals.
//!
//! Called by [`super::prepare`].

use super::number::{self, Amount, Part};
use super::prepare::{NumberKind, Piece, amount};
use super::scan::Kind;
use super::shape::MONTHS;

/// Joins number words, and reads what follows a number as part of it where it is (`10 a.m.`, `half an hour`).
pub(super) fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for mut piece in pieces {
        if linked(&mut out, &piece) {
            continue;
        }
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
        // "2:30 pm": the half of the day stands apart.
        if let Some(before) = out.last_mut()
            && let Kind::Time(minutes) = before.token.kind
            && !piece.after_stop
            && matches!(piece.text.as_str(), "am" | "pm" | "a.m." | "p.m." | "a.m" | "p.m")
        {
            let half = if piece.text.starts_with('p') { 720 } else { 0 };
            let minutes = if minutes < 780 { minutes % 720 + half } else { minutes };
            before.token.kind = Kind::Time(minutes);
            before.text = format!("time {minutes}");
            before.base.clone_from(&before.text);
            continue;
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

/// Takes out the `and` of two hundred and forty, so that the numbers join, and adds the half of two and a half; tells
/// whether the piece is done with.
fn linked(out: &mut Vec<Piece>, piece: &Piece) -> bool {
    let Some(second) = amount(piece).filter(|second| second.spelt && !piece.after_stop) else { return false };
    let text = |back: usize| {
        out.len().checked_sub(back).and_then(|at| out.get(at)).map_or("", |piece| piece.text.as_str())
    };
    let half = second.value == Some(0.5);
    let words = match (text(1), text(2)) {
        ("and", _) if !half => 1,
        ("a", "and") if half => 2,
        _ => return false,
    };
    let first = out.len().checked_sub(words + 1).and_then(|at| out.get(at)).and_then(amount).cloned();
    let Some((first, value)) = first.and_then(|first| Some((first.clone(), first.value?))) else {
        return false;
    };
    if half && value.fract() == 0.0 {
        out.truncate(out.len() - words);
        if let Some(last) = out.last_mut() {
            set_number(last, Amount { value: Some(value + 0.5), ..first }, None);
        }
        return true;
    }
    if value >= 100.0 && first.spelt {
        out.truncate(out.len() - words);
    }
    false
}

fn set_number(piece: &mut Piece, amount: Amount, kind: Option<NumberKind>) {
    piece.number = Some(kind.unwrap_or_else(|| kind_of(&amount)));
    piece.text = amount.key();
    piece.figure = amount.value;
    piece.base.clone_from(&piece.text);
    piece.token.kind = Kind::Number(amount);
}

fn kind_of(amount: &Amount) -> NumberKind {
    match amount.value {
        Some(value) if (amount.spelt && value <= 1.0) || (!amount.ordinal && amount.value == Some(1.0)) => {
            NumberKind::Weak
        }
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

/// Months cut short.
const SHORT_MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"];

fn is_month(word: &str) -> bool {
    MONTHS.contains(&word) || SHORT_MONTHS.contains(&word)
}

/// A day of a month counts the same as an ordinal or not; `second` behind a number is a unit of time.
pub(super) fn ordinals(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let month = |piece: Option<&Piece>| piece.is_some_and(|piece| is_month(&piece.text));
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
    ("secs", 1.0, "s"),
    ("s", 1.0, "s"),
    ("minute", 60.0, "s"),
    ("min", 60.0, "s"),
    ("mins", 60.0, "s"),
    ("hour", 3600.0, "s"),
    ("hr", 3600.0, "s"),
    ("hrs", 3600.0, "s"),
    ("h", 3600.0, "s"),
    ("day", 86400.0, "s"),
    ("week", 604_800.0, "s"),
    ("wk", 604_800.0, "s"),
    ("wks", 604_800.0, "s"),
    ("fortnight", 1_209_600.0, "s"),
    ("month", 1.0, "months"),
    ("mth", 1.0, "months"),
    ("mths", 1.0, "months"),
    ("year", 12.0, "months"),
    ("yr", 12.0, "months"),
    ("yrs", 12.0, "months"),
    ("yo", 12.0, "months"),
    ("decade", 120.0, "months"),
];

/// The key of one such unit alone: a week is seven days.
pub(super) fn span_key(word: &str) -> Option<String> {
    let (_, scale, unit) = SPANS.iter().find(|(name, ..)| *name == word)?;
    Some(format!("{scale} {unit}"))
}

/// Decades in words.
const DECADES: &[(&str, f64)] = &[
    ("twenties", 20.0),
    ("thirties", 30.0),
    ("forties", 40.0),
    ("fifties", 50.0),
    ("sixties", 60.0),
    ("seventies", 70.0),
    ("eighties", 80.0),
    ("nineties", 90.0),
];

/// Words behind which 30s are no seconds.
const DECADES_BEHIND: &[&str] = &["the", "my", "his", "her", "their", "your", "our", "early", "mid", "late"];

/// Makes a decade of what was last read and the piece behind it, where it is one: the 80s, the nineteen seventies, my thirties. Tells
/// whether the piece is done with.
fn decade(out: &mut Vec<Piece>, piece: &Piece) -> bool {
    let number = |last: Option<&Piece>| last.and_then(amount).and_then(|found| found.value);
    let last = number(out.last());
    if piece.text == "s" && !piece.after_stop {
        let before =
            out.len().checked_sub(2).and_then(|at| out.get(at)).map_or("", |piece| piece.text.as_str());
        let Some(value) = last.filter(|value| value % 10.0 == 0.0) else { return false };
        let tens = (20.0..100.0).contains(&value)
            && ((80.0..81.0).contains(&value) || DECADES_BEHIND.contains(&before));
        if !tens && !(1000.0..2100.0).contains(&value) {
            return false;
        }
        if let Some(last) = out.last_mut() {
            set_decade(last, value);
        }
        return true;
    }
    let Some((_, value)) = DECADES.iter().find(|(name, _)| *name == piece.text) else { return false };
    if last == Some(19.0) && !piece.after_stop {
        out.pop();
    }
    out.push(Piece {
        text: String::new(),
        base: String::new(),
        token: piece.token.clone(),
        number: None,
        figure: None,
        ..*piece
    });
    if let Some(last) = out.last_mut() {
        set_decade(last, *value);
    }
    true
}

/// Of this century's decades and those before 1900 the whole year tells which; else the last two digits do.
fn set_decade(piece: &mut Piece, value: f64) {
    let value = if (1920.0..2000.0).contains(&value) { value - 1900.0 } else { value };
    piece.text = format!("{value} decade");
    piece.base.clone_from(&piece.text);
    piece.number = Some(NumberKind::Year);
    piece.figure = Some(value);
}

/// Makes one number of an amount and its unit of time, so that half an hour is 30 minutes.
pub(super) fn times(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if decade(&mut out, &piece) {
            continue;
        }
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
                summed(&mut out);
                continue;
            }
            if piece.base == "fortnight" {
                let mut piece = piece;
                piece.text = format!("{scale} {unit}");
                piece.base.clone_from(&piece.text);
                piece.number = Some(NumberKind::Duration);
                out.push(piece);
                continue;
            }
        }
        out.push(piece);
    }
    out
}

/// Makes one span of time of two that stand together: 4 hours 30 minutes.
fn summed(out: &mut Vec<Piece>) {
    let seconds = |piece: &Piece| {
        (piece.number == Some(NumberKind::Duration) || piece.number == Some(NumberKind::Weak))
            .then(|| piece.text.strip_suffix(" s")?.parse::<f64>().ok())
            .flatten()
    };
    let [.., first, second] = out.as_slice() else { return };
    let (Some(longer), Some(shorter)) = (seconds(first), seconds(second)) else { return };
    if second.after_stop || longer <= shorter || longer < 3600.0 || shorter >= 3600.0 {
        return;
    }
    out.pop();
    if let Some(last) = out.last_mut() {
        last.text = format!("{} s", longer + shorter);
        last.base.clone_from(&last.text);
        last.number = Some(NumberKind::Duration);
        last.figure = None;
    }
}
