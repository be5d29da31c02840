//! What two units are to each other: the same, able to stand for each other, opposite, exclusive.
//!
//! Called by [`super::pair`] and [`super::differ`]. Every answer is the same in both directions.

use std::mem::{Discriminant, discriminant};

use super::Rule;
use super::lexicon::{LEXICON, Tag};
use super::prepare::{Unit, UnitKind};

/// What makes a unit the word, number or piece of code that it is.
pub(super) fn identity(unit: &Unit) -> (Discriminant<UnitKind>, &str, bool) {
    (discriminant(&unit.kind), &unit.key, unit.turned)
}

/// Whether two units are the same word, number or piece of code.
pub(super) fn same(one: &Unit, other: &Unit) -> bool {
    identity(one) == identity(other)
}

/// How closely two different units can stand for each other, smaller is closer. None: they cannot.
pub(super) fn relation(one: &Unit, other: &Unit) -> Option<u8> {
    if one.kind != UnitKind::Word || other.kind != UnitKind::Word {
        return None;
    }
    if opposite(one, other).is_some() || clash(one, other).is_some() {
        return None;
    }
    if shares_tag(one, other) {
        return Some(0);
    }
    if one.verbatim.is_some() && other.verbatim.is_some() {
        return None;
    }
    if let (Some(a), Some(b)) = (one.word, other.word)
        && a.is_near(b)
        && !(one.name && other.name)
    {
        return Some(1);
    }
    if is_misspelt(one, other) {
        return Some(2);
    }
    if is_shortened(one, other) {
        return Some(3);
    }
    denies(one, other).then_some(4)
}

fn shares_tag(one: &Unit, other: &Unit) -> bool {
    one.tags.iter().any(|a| {
        other.tags.iter().any(|b| match (a, b) {
            (Tag::Pole { axis, first }, Tag::Pole { axis: other_axis, first: other_first }) => {
                axis == other_axis && (*first != one.turned) == (*other_first != other.turned)
            }
            (Tag::Measure(_), _) => false,
            _ => a == b && one.turned == other.turned,
        })
    })
}

/// Whether one is the other with a typing error: an edit or two, and at most one of them a known word.
fn is_misspelt(one: &Unit, other: &Unit) -> bool {
    let known = |unit: &Unit| unit.known;
    if known(one) && known(other) || one.key.contains(' ') || other.key.contains(' ') {
        return false;
    }
    // Two unknown words, or an unknown one with a capital, may be two names.
    if !known(one) && (!known(other) || one.name) || !known(other) && other.name {
        return false;
    }
    let shorter = one.written.chars().count().min(other.written.chars().count());
    let allowed = match shorter {
        0..=3 => 0,
        4..=7 => 1,
        _ => 2,
    };
    allowed > 0 && (edits(&one.written, &other.written, allowed) || edits(&one.key, &other.key, allowed))
}

/// Whether at most `allowed` insertions, deletions, replacements or swaps of neighbours lie between two words.
fn edits(one: &str, other: &str, allowed: usize) -> bool {
    const LONGEST: usize = 40;
    let (a, b): (Vec<char>, Vec<char>) =
        (one.chars().take(LONGEST).collect(), other.chars().take(LONGEST).collect());
    if a.len().abs_diff(b.len()) > allowed {
        return false;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |list: &[usize], index: usize| list.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best =
                (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().is_some_and(|distance| *distance <= allowed)
}

/// Whether one is the beginning of the other and no word itself: `info`, `app`, `postgres`.
fn is_shortened(one: &Unit, other: &Unit) -> bool {
    let (short, long) = if one.key.len() < other.key.len() { (one, other) } else { (other, one) };
    short.key.len() >= 3
        && !short.key.contains(' ')
        && !long.key.contains(' ')
        && long.key.starts_with(&short.key)
        && short.word.is_none()
        && !short.name
}

/// Opposite ends of one axis, or a word and its negating prefix.
pub(super) fn opposite(one: &Unit, other: &Unit) -> Option<Rule> {
    if one.key == other.key && one.turned != other.turned {
        return Some(Rule::Negation);
    }
    let ends = |a: &Tag, b: &Tag| match (a, b) {
        (Tag::Pole { axis, first }, Tag::Pole { axis: other_axis, first: other_first })
            if axis == other_axis && (*first != one.turned) != (*other_first != other.turned) =>
        {
            LEXICON.axes.get(usize::from(*axis)).copied()
        }
        (Tag::Role { pair, first }, Tag::Role { pair: other_pair, first: other_first })
            if pair == other_pair && first != other_first =>
        {
            Some(Rule::Role)
        }
        _ => None,
    };
    // Of several the first in order of declaration, whichever side's tags are gone through first.
    let ends = one.tags.iter().flat_map(|a| other.tags.iter().filter_map(move |b| ends(a, b)));
    if let Some(rule) = ends.min() {
        return Some(rule);
    }
    (one.turned == other.turned && one.negated == other.negated && is_opposed(one, other))
        .then_some(Rule::Antonym)
}

/// Whether one denies what the other says: not clear, unclear.
pub(super) fn denies(one: &Unit, other: &Unit) -> bool {
    one.negated != other.negated && is_opposed(one, other)
}

/// Whether `WordNet` or a prefix makes two words opposites, whatever is denied of them.
fn is_opposed(one: &Unit, other: &Unit) -> bool {
    one.word.is_some_and(|word| word.opposes(&other.key))
        || other.word.is_some_and(|word| word.opposes(&one.key))
        || is_prefixed(&one.key, &other.key)
        || is_prefixed(&other.key, &one.key)
}

/// Pairs of prefixes that turn a word round.
const PREFIXES: &[(&str, &str)] = &[
    ("hyper", "hypo"),
    ("over", "under"),
    ("in", "ex"),
    ("im", "ex"),
    ("inter", "intra"),
    ("up", "down"),
    ("pre", "post"),
    ("macro", "micro"),
    ("max", "min"),
    ("asc", "desc"),
    ("endo", "exo"),
    ("anti", "pro"),
    ("en", "de"),
    ("", "un"),
    ("", "dis"),
    ("", "non"),
    ("", "in"),
    ("", "im"),
    ("", "ir"),
    ("", "il"),
    ("", "de"),
    ("", "anti"),
    ("", "mis"),
    ("", "a"),
];

/// Whether the `a` before a word denies it, as in atypical, and does not as in asleep, await, around: of a quality, or of a word that no
/// list has.
fn is_without(plain: &str, turned: &str) -> bool {
    let Some(turned) = LEXICON.word(turned) else { return true };
    LEXICON.word(plain).is_some_and(|plain| {
        plain.parts.contains('a') && turned.parts.contains('a') && !plain.is_near(turned)
    })
}

fn is_prefixed(one: &str, other: &str) -> bool {
    const SHORTEST: usize = 4;
    // Nearly all pairs end differently; this spares them the table.
    if !one.bytes().rev().take(SHORTEST).eq(other.bytes().rev().take(SHORTEST)) {
        return false;
    }
    PREFIXES.iter().any(|(plain, turned)| {
        let (Some(stem), Some(other_stem)) = (one.strip_prefix(plain), other.strip_prefix(turned)) else {
            return false;
        };
        stem == other_stem && stem.len() >= SHORTEST && (*turned != "a" || is_without(one, other))
    })
}

/// Two groups of one class that exclude each other, or two measures.
pub(super) fn clash(one: &Unit, other: &Unit) -> Option<Rule> {
    let mut found: Option<Rule> = None;
    for a in one.tags {
        for b in other.tags {
            match (a, b) {
                (Tag::Group { class, group }, Tag::Group { class: other_class, group: other_group })
                    if class == other_class =>
                {
                    if group == other_group {
                        return None;
                    }
                    let rule = LEXICON.classes.get(usize::from(*class)).map(|class| class.rule);
                    found = most_telling(found, rule);
                }
                (Tag::Measure(measure), Tag::Measure(other_measure)) if measure != other_measure => {
                    found = most_telling(found, Some(Rule::Comparative));
                }
                (Tag::Synonym(x), Tag::Synonym(y)) if x == y => return None,
                _ => {}
            }
        }
    }
    found
}

/// Of two rules the more telling: "German" names a language before it names a place.
fn most_telling(one: Option<Rule>, other: Option<Rule>) -> Option<Rule> {
    one.into_iter().chain(other).min_by_key(|rule| (*rule == Rule::Entity, *rule))
}
