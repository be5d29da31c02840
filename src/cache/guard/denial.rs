//! Judges negations: one that reaches a word on one side and not on the other.
//!
//! Called by [`super::differ`].

use super::lexicon::LEXICON;
use super::marks::NEGATORS;
use super::pair::Pairing;
use super::prepare::Prepared;
use super::relate::denies;

/// What negations say: nothing, that the prompts differ, or that they may.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    Same,
    /// One side denies, and the other may do so in other words.
    Unclear,
    Differs,
}

/// Compares the negations of both prompts.
pub(super) fn denial(pairing: &Pairing<'_>) -> Denial {
    if quotes_denial(pairing) {
        return Denial::Same;
    }
    let (mut gained, mut lost) = (false, false);
    let count = |prompt: &Prepared| prompt.units.iter().filter(|unit| unit.negated).count();
    let (mut one, mut other) = (count(pairing.one), count(pairing.other));
    let mut otherwise = false;
    for (a, b) in pairing.pairs().filter(|(a, b)| a.negated != b.negated) {
        if denies(a, b) {
            // Denied here, and said by its opposite there.
            otherwise = true;
            *(if a.negated { &mut one } else { &mut other }) -= 1;
        } else {
            gained |= b.negated;
            lost |= a.negated;
        }
    }
    if one == other {
        return if gained && lost || otherwise { Denial::Unclear } else { Denial::Same };
    }
    // A negation that turns an opposite round is judged with the opposites.
    let turned = |prompt: &Prepared| prompt.units.iter().filter(|unit| unit.turned).count();
    if one + turned(pairing.one) == other + turned(pairing.other) {
        return Denial::Unclear;
    }
    let (denying, plain) =
        if one > other { (pairing.one, pairing.other) } else { (pairing.other, pairing.one) };
    let absent = |word: &&String| !denying.frame.contains(word);
    if plain.frame.iter().filter(absent).any(|word| is_privative(word)) || keeps_from(plain) {
        return Denial::Unclear;
    }
    // A negation that reaches a word the other prompt has, without one there.
    let reached = if one > other { lost } else { gained };
    if reached { Denial::Differs } else { Denial::Unclear }
}

/// Whether both prompts deny the same words, one of them within a quotation: a "no-fault" divorce.
pub(super) fn quotes_denial(pairing: &Pairing<'_>) -> bool {
    let quotes = |prompt: &Prepared| {
        prompt.units.iter().any(|unit| unit.verbatim.is_some() && NEGATORS.contains(&unit.written.as_str()))
    };
    let denied = |prompt: &'_ Prepared| -> Vec<(String, Option<String>)> {
        let negators = prompt.frame.iter().enumerate().filter(|(_, word)| NEGATORS.contains(&word.as_str()));
        negators.map(|(at, word)| (word.clone(), prompt.frame.get(at + 1).cloned())).collect()
    };
    quotes(pairing.one) != quotes(pairing.other) && denied(pairing.one) == denied(pairing.other)
}

/// Keep the cat from scratching.
fn keeps_from(prompt: &Prepared) -> bool {
    let mut words = prompt.frame.iter();
    words.any(|word| word == "keep") && words.any(|word| word == "from")
}

/// Whether a word denies without being a negator: `blind`, `fail`, `unmotivated`, `headerless`.
fn is_privative(word: &str) -> bool {
    const PREFIXES: &[&str] = &["un", "in", "im", "ir", "il", "dis", "non", "mis", "de"];
    const SHORTEST: usize = 4;
    PRIVATIVES.contains(&word)
        || word.ends_with("less") && word.len() > 6
        || PREFIXES.iter().any(|prefix| {
            word.strip_prefix(prefix)
                .is_some_and(|stem| stem.len() >= SHORTEST && LEXICON.word(&LEXICON.base(stem)).is_some())
        })
}

const PRIVATIVES: &[&str] = &[
    "abandon",
    "absence",
    "absent",
    "alone",
    "although",
    "apart",
    "avoid",
    "ban",
    "bare",
    "besides",
    "blank",
    "blind",
    "block",
    "break",
    "broken",
    "cancel",
    "cease",
    "crash",
    "dead",
    "deaf",
    "decline",
    "deny",
    "despite",
    "die",
    "drop",
    "dumb",
    "elude",
    "empty",
    "error",
    "exclude",
    "fail",
    "failing",
    "failure",
    "fake",
    "false",
    "flat",
    "forbid",
    "forbidden",
    "forget",
    "forgotten",
    "forgot",
    "free",
    "freeze",
    "frozen",
    "headless",
    "hide",
    "ignore",
    "instead",
    "lack",
    "lacking",
    "leave",
    "left",
    "lose",
    "lost",
    "miss",
    "missing",
    "mute",
    "naked",
    "neglect",
    "negative",
    "null",
    "obstruct",
    "off",
    "omit",
    "outside",
    "overdue",
    "prevent",
    "problem",
    "prohibit",
    "quit",
    "rather",
    "refuse",
    "reject",
    "remove",
    "rid",
    "rude",
    "sans",
    "save",
    "sealed",
    "secret",
    "shut",
    "skip",
    "stop",
    "stuck",
    "survive",
    "trouble",
    "vain",
    "vegan",
    "vegetarian",
    "void",
    "wrong",
    "zero",
    "beyond",
    "otherwise",
    "else",
    "different",
    "unless",
    "until",
    "never",
    "away",
    "quiet",
    "silent",
    "calm",
    "raw",
];
