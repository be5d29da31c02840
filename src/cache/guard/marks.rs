//! Marks what a prompt says about its units: movement, negation, tense, who asks, what is asked for.
//!
//! Called by [`super::prepare`].

use super::lexicon::{LEXICON, Tag};
use super::prepare::{Asks, Piece, Place, Tense, Unit, UnitKind};

/// Marks what stands behind `from`, `to`, `in` and the like.
pub(super) fn places(units: &mut [Unit], pieces: &[Piece]) {
    const REACH: usize = 5;
    for unit in units.iter_mut() {
        let mut place = Place::Plain;
        for before in (unit.at.saturating_sub(REACH)..unit.at).rev() {
            let Some(piece) = pieces.get(before) else { break };
            if pieces.get(before + 1).is_some_and(|next| next.after_stop) {
                break;
            }
            place = match piece.text.as_str() {
                "from" if is_hindered(pieces, before) => Place::Plain,
                "from" | "off" | "departing" | "leaving" => Place::Source,
                // Before a verb it only makes an infinitive.
                "to" if is_infinitive(pieces, before + 1) => Place::Plain,
                "to" | "into" | "onto" | "arriving" | "until" | "till" | "thru" => Place::Target,
                // From Monday through Friday.
                "through" if began(pieces, before) => Place::Target,
                "in" | "at" if before.checked_sub(1).and_then(|at| pieces.get(at)).is_some_and(arrives) => {
                    Place::Target
                }
                "in" | "on" | "with" | "using" | "for" | "at" | "about" | "of" | "by" => Place::Aside,
                "and" | "or" | "is" | "are" | "do" | "does" | "i" | "that" | "which" | "when" | "while" => {
                    Place::Plain
                }
                other if LEXICON.word(other).is_some_and(|word| word.parts == "v") => Place::Plain,
                _ => continue,
            };
            break;
        }
        unit.place = place;
    }
    for at in 1..pieces.len() {
        if is_journey(pieces, at) {
            for (end, place) in [(at - 1, Place::Source), (at, Place::Target)] {
                let found = units.binary_search_by_key(&end, |unit| unit.at).ok();
                if let Some(unit) = found.and_then(|found| units.get_mut(found)) {
                    unit.place = place;
                }
            }
        }
    }
}

/// Whether the piece at `at` is where something goes from the piece before it: flights Boston-Miami, an EUR/USD conversion.
fn is_journey(pieces: &[Piece], at: usize) -> bool {
    let moves = |at: Option<usize>| {
        at.and_then(|at| pieces.get(at)).is_some_and(|piece| MOVES.contains(&piece.base.as_str()))
    };
    let piece = pieces.get(at).filter(|piece| piece.token.linked && piece.token.verbatim.is_none());
    // Else it is one of the ends: light-minutes to years.
    let ends = pieces.get(at + 1).is_some_and(|next| matches!(next.text.as_str(), "to" | "into" | "from"));
    piece.is_some() && !ends && (moves(at.checked_sub(2)) || moves(Some(at + 1)))
}

/// Words that say that two words linked by a hyphen or a slash are where something comes from and where it goes.
const MOVES: &[&str] = &[
    "flight",
    "fly",
    "train",
    "bus",
    "coach",
    "ferry",
    "ticket",
    "route",
    "drive",
    "convert",
    "conversion",
    "converter",
    "translate",
    "translation",
    "translator",
];

fn arrives(piece: &Piece) -> bool {
    matches!(piece.text.as_str(), "arrive" | "arrives" | "arriving")
}

/// Whether the `from` at `at` only says what is not to happen: stop the cat from scratching.
fn is_hindered(pieces: &[Piece], at: usize) -> bool {
    const REACH: usize = 6;
    let gerund = |piece: &Piece| piece.text.ends_with("ing") && piece.text != piece.base;
    let hinders = |piece: &Piece| HINDERING.contains(&piece.base.as_str());
    let before = pieces.get(at.saturating_sub(REACH)..at).unwrap_or_default();
    pieces.get(at + 1).is_some_and(gerund) && before.iter().any(hinders)
}

/// Words that keep somebody from doing something.
const HINDERING: &[&str] = &[
    "stop",
    "keep",
    "prevent",
    "discourage",
    "ban",
    "forbid",
    "prohibit",
    "deter",
    "dissuade",
    "block",
    "save",
    "protect",
];

/// Whether a `from` stands before the piece at `at`.
fn began(pieces: &[Piece], at: usize) -> bool {
    const REACH: usize = 4;
    pieces.get(at.saturating_sub(REACH)..at).unwrap_or_default().iter().any(|piece| piece.text == "from")
}

/// Whether the piece at `at`, right behind `to`, is a verb in the infinitive, or denies one.
fn is_infinitive(pieces: &[Piece], at: usize) -> bool {
    let Some(piece) = pieces.get(at) else { return false };
    if matches!(piece.text.as_str(), "not" | "never") {
        return true;
    }
    let verb = LEXICON.word(&piece.text).is_some_and(|word| word.parts.contains('v'));
    let ends = pieces
        .get(at + 1)
        .is_none_or(|next| next.after_stop || matches!(next.text.as_str(), "in" | "on" | "from" | "for"));
    verb && !piece.token.capital && !ends
}

const AUXILIARIES: &[&str] = &[
    "do", "does", "did", "is", "are", "was", "were", "will", "would", "can", "could", "should", "has", "have",
];

pub(super) const NEGATORS: &[&str] = &[
    "not", "no", "non", "never", "without", "none", "nor", "neither", "nobody", "nothing", "nowhere",
    "hardly", "except",
];

/// Marks the unit a negation reaches; one that lies on an axis of opposites is turned round instead.
pub(super) fn negations(units: &mut Vec<Unit>, pieces: &[Piece]) {
    for (at, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.token.verbatim.is_none()) {
        if NEGATORS.contains(&piece.text.as_str()) && !is_idle(pieces, at) {
            negate(units, pieces, at);
        }
    }
    units.retain(|unit| !NEGATORS.contains(&unit.written.as_str()) || unit.verbatim.is_some());
}

/// Words behind which `no` is an answer or a number: say no to, the phone no. of.
const IDLE_BEHIND: &[&str] = &["to", "or", "and", "from", "of", "in", "for", "on", "at", "each"];

/// `or not`, `why not`, `not only`, `say no to`, `order no. 7`: no negation of anything said.
fn is_idle(pieces: &[Piece], at: usize) -> bool {
    let text = |at: usize| pieces.get(at).map_or("", |piece| piece.text.as_str());
    let before = at.checked_sub(1).map_or("", text);
    let last = pieces.get(at + 1).is_none_or(|next| next.after_stop);
    let number = pieces.get(at + 1).is_some_and(|next| next.number.is_some());
    if text(at) == "no" && (last || number || before == "or" || IDLE_BEHIND.contains(&text(at + 1))) {
        return true;
    }
    (before == "or" && (last || matches!(text(at + 1), "a" | "the")))
        || text(at + 1) == "only"
        || (before == "why" && last)
}

/// Applies the negator at `at`.
fn negate(units: &mut [Unit], pieces: &[Piece], at: usize) {
    // Words between a negator and what it reaches.
    const REACH: usize = 12;
    let text = |at: usize| pieces.get(at).map_or("", |piece| piece.text.as_str());
    let behind = units.partition_point(|unit| unit.at <= at);
    let before = behind.checked_sub(1);
    // Part of a phrase that is a unit of its own (no more than, not working).
    let part_of = |unit: &Unit| {
        unit.kind == UnitKind::Word && unit.key.contains(' ') && at < unit.at + unit.key.split(' ').count()
    };
    if before.and_then(|before| units.get(before)).is_some_and(part_of) {
        return;
    }
    // "Why won't it connect": the subject stands between, the verb is what is denied.
    let inverted = AUXILIARIES.contains(&at.checked_sub(1).map_or("", text))
        && at.checked_sub(2).map_or("why", text).starts_with("wh");
    let denied = |unit: &&mut Unit| {
        !inverted || unit.at > at + 1 && unit.word.is_some_and(|word| word.parts.contains('v'))
    };
    let same_sentence = |unit: &&mut Unit| {
        (at + 1..=unit.at).all(|next| pieces.get(next).is_some_and(|piece| !piece.after_stop))
    };
    let reached = units.iter_mut().skip(behind).take(REACH).find(denied);
    if let Some(unit) = reached.filter(|unit| unit.at - at <= REACH).filter(same_sentence) {
        if unit.tags.iter().copied().any(is_pole) && (inverted || unit.at - at <= 3) {
            unit.turned = !unit.turned;
        } else {
            unit.negated = !unit.negated;
        }
    } else if let Some(unit) = before.and_then(|before| units.get_mut(before)) {
        // Nothing behind it: it reaches what stands before.
        unit.negated = true;
    }
}

fn is_pole(tag: Tag) -> bool {
    matches!(tag, Tag::Pole { .. })
}

pub(super) fn tense(pieces: &[Piece]) -> Tense {
    let mut tense = Tense::default();
    let mut first = true;
    for (at, piece) in pieces.iter().enumerate() {
        if piece.token.verbatim.is_some() {
            continue;
        }
        let next = |ahead: usize| pieces.get(at + ahead).map_or("", |piece| piece.text.as_str());
        match piece.text.as_str() {
            "was" | "were" | "did" if first => {
                (tense.past, first) = (true, false);
            }
            "is" | "are" | "do" | "does" | "am" if first => {
                (tense.present, first) = (true, false);
            }
            "will" => {
                (tense.future, first) = (true, false);
            }
            "going" if next(1) == "to" => tense.future = true,
            "has" | "have" if first && (1..4).any(|ahead| next(ahead) == "been") => {
                (tense.past, first) = (true, false);
            }
            "yesterday" | "ago" | "previously" => tense.past = true,
            "tomorrow" | "upcoming" => tense.future = true,
            "last" if is_period(next(1)) => tense.past = true,
            "next" if is_period(next(1)) => tense.future = true,
            _ => {}
        }
    }
    tense
}

fn is_period(word: &str) -> bool {
    matches!(
        word,
        "week" | "month" | "year" | "night" | "weekend" | "summer" | "winter" | "decade" | "century"
    )
}

/// The role the asker takes: `I'm the landlord`, `as a buyer`, and the other one for `my tenant`.
pub(super) fn asker(pieces: &[Piece], units: &[Unit]) -> Option<(u16, bool)> {
    let text = |at: Option<usize>| at.and_then(|at| pieces.get(at)).map_or("", |piece| piece.text.as_str());
    let mut found = None;
    for unit in units {
        for tag in unit.tags {
            let Tag::Role { pair, first } = tag else { continue };
            if unit.written.starts_with("i ") || unit.written.starts_with("as ") {
                return Some((*pair, *first));
            }
            let (one, two) = (text(unit.at.checked_sub(1)), text(unit.at.checked_sub(2)));
            let three = text(unit.at.checked_sub(3));
            if matches!(one, "a" | "an" | "the" | "his" | "her" | "their" | "your" | "our")
                && (two == "as" || (two == "am" && three == "i"))
            {
                return Some((*pair, *first));
            }
            if one == "my" && found.is_none() {
                found = Some((*pair, !*first));
            }
        }
    }
    found
}

pub(super) fn asks(pieces: &[Piece]) -> Asks {
    for (at, piece) in pieces.iter().enumerate().take(12) {
        if piece.token.verbatim.is_some() {
            continue;
        }
        let next = pieces.get(at + 1).map_or("", |piece| piece.base.as_str());
        let period =
            matches!(next, "second" | "minute" | "hour" | "day" | "week" | "month" | "year" | "time");
        return match piece.text.as_str() {
            "who" | "whom" | "whose" => Asks::Person,
            "when" if at == 0 || piece.after_stop => Asks::Time,
            "what" | "which" if matches!(next, "time" | "date" | "year" | "day" | "month") => Asks::Time,
            "where" => Asks::Place,
            "why" => Asks::Reason,
            "how" if matches!(next, "many" | "much") => {
                let counted = pieces.get(at + 2).map_or("", |piece| piece.base.as_str());
                match counted {
                    "second" | "minute" | "hour" | "day" | "week" | "month" | "year" | "time" => {
                        Asks::Duration
                    }
                    _ if next == "many" => Asks::Count,
                    _ => Asks::Nothing,
                }
            }
            "how" if next == "long" => Asks::Duration,
            _ if period => continue,
            "how" if next == "come" => Asks::Reason,
            "how" if AUXILIARIES.contains(&pieces.get(at + 1).map_or("", |piece| piece.text.as_str())) => {
                Asks::Manner
            }
            "what" | "which" | "how" => Asks::Nothing,
            auxiliary if at == 0 && AUXILIARIES.contains(&auxiliary) => Asks::Truth,
            _ => continue,
        };
    }
    Asks::Nothing
}
