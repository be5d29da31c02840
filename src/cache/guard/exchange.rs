//! Judges prompts of the same words in which two parts have changed places.
//!
//! Called by [`super::differ`].

use super::lexicon::LEXICON;
use super::prepare::Prepared;

/// Words round which things change places without a difference.
pub(super) const JOINERS: &[&str] = &["and", "or", "vs", "versus", "plus"];

/// How many words may lie between the first and the last of two exchanged parts, both included.
const MOST_EXCHANGED: usize = 32;

/// Two parts that have changed places round what relates them, in prompts otherwise equal word for word: who does what to whom,
/// what is bigger than what, which of two things is so and which otherwise. Certain, since to everything else that
/// compares two prompts they look the same.
pub(super) fn exchanged(one: &Prepared, other: &Prepared) -> bool {
    let asks = |prompt: &Prepared| !prompt.opening.is_empty();
    let turned = |opening| turned(&said(one, opening), &said(other, opening));
    turned(false) || (asks(one) || asks(other)) && turned(true)
}

/// The words of a prompt without its articles, which go with what changes places, and pronouns in the form of a subject, since they
/// change it with their place.
fn said(prompt: &Prepared, opening: bool) -> Vec<&str> {
    let opening = prompt.opening.iter().filter(|_| opening);
    let words = opening.chain(&prompt.frame).map(|word| subject(word));
    words.filter(|word| !matches!(*word, "a" | "an" | "the")).collect()
}

fn subject(word: &str) -> &str {
    match word {
        "me" => "i",
        "us" => "we",
        "him" => "he",
        "her" => "she",
        "them" => "they",
        other => other,
    }
}

fn is_pronoun(word: &str) -> bool {
    matches!(word, "i" | "you" | "we" | "he" | "she" | "they")
}

/// Words that say of how much of something the rest holds: the first line of every file, every line of the first file.
const QUANTIFIERS: &[&str] = &["all", "any", "each", "every", "first", "last", "most", "no", "only", "some"];

fn turned(one: &[&str], other: &[&str]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let equal = |(a, b): &(&&str, &&str)| a == b;
    let before = one.iter().zip(other).take_while(equal).count();
    let behind = one.iter().rev().zip(other.iter().rev()).take_while(equal).count();
    let Some(end) = one.len().checked_sub(behind).filter(|end| *end <= before + MOST_EXCHANGED) else {
        return false;
    };
    let (Some(mine), Some(theirs)) = (one.get(before..end), other.get(before..end)) else { return false };
    let counts = |word: &&str| !LEXICON.is_stop(word) || is_pronoun(word) || QUANTIFIERS.contains(word);
    let says = |part: &[&str]| part.iter().any(counts);
    // Any way to read it: with words that occur twice there may be several.
    (1..mine.len()).any(|first| {
        (first + 1..mine.len()).any(|second| {
            let (front, rest) = mine.split_at(first);
            let (between, back) = rest.split_at(second - first);
            let turned = theirs.starts_with(back)
                && theirs.ends_with(front)
                && theirs.get(back.len()..back.len() + between.len()) == Some(between);
            let around = (one.get(..before).unwrap_or_default(), one.get(end..).unwrap_or_default());
            turned && says(front) && says(back) && relates(front, between, back, around)
        })
    })
}

/// Whether the words between two parts make it matter which comes first. What stands before and behind both tells whether the parts
/// are whole: in "red wine and white wine", wines are joined, not colours.
fn relates(front: &[&str], between: &[&str], back: &[&str], around: (&[&str], &[&str])) -> bool {
    let pronoun = |part: &[&str]| part.iter().any(|word| is_pronoun(word));
    // Between pronouns even a word that is a noun elsewhere is what somebody does: "my brother hit me".
    let persons = pronoun(front) || pronoun(back);
    let relating = |word: &&str| match LEXICON.word(word) {
        _ if LEXICON.is_stop(word) => !DETERMINERS.contains(word) && !COPULAS.contains(word),
        Some(word) => word.parts.starts_with(['v', 'a']) || persons && word.parts.contains('v'),
        None => false,
    };
    let joins = |words: &[&str]| words.iter().any(|word| JOINERS.contains(word));
    let own = own(between, around);
    let all = || around.0.iter().chain(front).chain(between).chain(back).chain(around.1);
    // What is joined, or said of both, may stand either way round; a word beside the joiner belongs to one of them alone.
    if joins(between) {
        // A clause or a number each, and not the members of a list, which may have adjectives.
        let figure = |part: &[&str]| part.iter().any(|word| is_figure(word));
        let clauses = persons || figure(front) || figure(back);
        let describes = |word: &str| {
            LEXICON.word(word).is_some_and(|known| known.parts.starts_with('a')) && !LEXICON.is_stop(word)
        };
        let says = |word: &&str| {
            COPULAS.contains(word) || relating(word) && !JOINERS.contains(word) && !describes(word)
        };
        return !own.iter().all(|word| LEXICON.is_stop(word)) && (own.iter().any(says) || clauses);
    }
    let mutual = |word: &&str| MUTUAL.contains(word);
    // "Mix a with b", and "graze together with", whatever stands before.
    let both_ways = all().any(mutual) && own.iter().all(|word| LEXICON.is_stop(word) || mutual(word))
        || between.iter().rev().find(|word| !LEXICON.is_stop(word)).is_some_and(mutual);
    between.iter().any(relating) && !both_ways
}

fn is_figure(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_digit())
}

/// The words between two parts without those that end either of them, or begin either.
fn own<'a>(between: &'a [&'a str], (before, behind): (&[&str], &[&str])) -> &'a [&'a str] {
    let equal = |(a, b): &(&&str, &&str)| a == b;
    let ends = between.iter().zip(behind).take_while(equal).count();
    let rest = between.get(ends..).unwrap_or_default();
    let begins = rest.iter().rev().zip(before.iter().rev()).take_while(equal).count();
    rest.get(..rest.len() - begins).unwrap_or_default()
}

/// Words that relate nothing.
const DETERMINERS: &[&str] = &["a", "an", "the", "this", "that", "these", "those"];

/// Words round which a question is turned into another form of itself.
const COPULAS: &[&str] =
    &["am", "are", "be", "can", "could", "did", "do", "does", "had", "has", "have", "is", "was", "were"];

/// Words that say of two things what holds both ways round.
const MUTUAL: &[&str] = &[
    "alike",
    "between",
    "border",
    "both",
    "combination",
    "combine",
    "common",
    "compare",
    "comparison",
    "compatible",
    "differ",
    "difference",
    "different",
    "distance",
    "equal",
    "far",
    "friend",
    "marry",
    "meet",
    "mix",
    "mixture",
    "relation",
    "relationship",
    "same",
    "similar",
    "similarity",
    "together",
    "versus",
    "vs",
];
