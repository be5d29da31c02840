//! Prompts that must not be matched by meaning at all, since what they ask is not all in their words.
//!
//! Called by the reuse decision before it looks for neighbours. The phrases are in
//! `data/leanings.txt`, one class a [`Leaning`].

use std::collections::HashMap;
use std::sync::LazyLock;

use super::lexicon::{Lists, lines};
use super::named;
use super::prepare::flat;
use super::scan;

named! {
    /// What a prompt leans on besides its own words. The names are stable.
    Leaning {
        /// What was said before, or what it was sent with: "the second one", "continue", "is this sentence correct?".
        Context = "context",
        /// The moment of asking: "today", "latest", "now".
        Moment = "moment",
        /// Who asks: "my order", "what did I".
        Person = "person",
        /// Chance or change: "another joke", "random".
        Variety = "variety",
        /// The same prompt before in the same conversation, whose answer did not do. It is in no words of the
        /// prompt's own: the caller says so.
        Repeat = "repeat",
    }
}

/// A set of [`Leaning`]s.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Leanings(u8);

impl Leanings {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Every one.
    pub const ALL: Self = Self((1 << Leaning::ALL.len()) - 1);

    const fn bit(leaning: Leaning) -> u8 {
        1 << leaning as u8
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is in it.
    pub const fn contains(self, leaning: Leaning) -> bool {
        self.0 & Self::bit(leaning) != 0
    }

    /// Puts one in.
    pub fn insert(&mut self, leaning: Leaning) {
        self.0 |= Self::bit(leaning);
    }

    /// The set without one.
    #[must_use]
    pub const fn without(self, leaning: Leaning) -> Self {
        Self(self.0 & !Self::bit(leaning))
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in it, in the order of [`Leaning::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Leaning> {
        Leaning::ALL.iter().copied().filter(move |leaning| self.contains(*leaning))
    }

    /// The first in the order of [`Leaning::ALL`], by which a refusal is named.
    pub fn first(self) -> Option<Leaning> {
        self.iter().next()
    }
}

impl std::fmt::Debug for Leanings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Leaning> for Leanings {
    fn from_iter<I: IntoIterator<Item = Leaning>>(leanings: I) -> Self {
        let mut set = Self::NONE;
        leanings.into_iter().for_each(|leaning| set.insert(leaning));
        set
    }
}

/// A phrase that shows a leaning.
struct Sign {
    leaning: Leaning,
    /// The phrase in lower case between blanks, up to a gap.
    text: String,
    /// What follows a gap of one word, where there is one.
    behind: Option<String>,
    place: Place,
}

impl Sign {
    /// Whether the words begin with the phrase.
    fn begins(&self, words: &str) -> bool {
        self.length(words).is_some()
    }

    /// How much of the words the phrase is, where they begin with it.
    fn length(&self, words: &str) -> Option<usize> {
        let rest = words.strip_prefix(&self.text)?;
        let Some(behind) = &self.behind else { return Some(self.text.len()) };
        let (word, _) = rest.split_once(' ')?;
        rest.get(word.len()..)?.starts_with(behind).then_some(self.text.len() + word.len() + behind.len())
    }
}

/// Where in a prompt a phrase counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Anywhere,
    Start,
    /// At the start of a short prompt, which says nothing else.
    ShortStart,
    End,
    /// In a prompt too short to say itself what is meant.
    Brief,
    /// At the end of such a prompt.
    BriefEnd,
    /// In such a prompt that gives nothing to work on, see [`gives_nothing`].
    Empty,
    Whole,
    /// Shows nothing, and is passed over.
    Nowhere,
}

/// Words in a prompt so short that a pronoun in it can only mean what was said before.
const SHORT: usize = 5;

/// Words in a prompt so short that `the second one` in it is hardly of its own.
const BRIEF: usize = 10;

/// The phrases by their first word.
static SIGNS: LazyLock<Lists<String, Vec<Sign>>> = LazyLock::new(read);

fn read() -> Lists<String, Vec<Sign>> {
    let mut signs = Lists::<String, Vec<Sign>>::default();
    let mut lists = HashMap::new();
    let mut leaning = Leaning::Context;
    for line in lines(include_str!("data/leanings.txt")) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            leaning = Leaning::from_name(name).unwrap_or(leaning);
            continue;
        }
        if let Some((name, list)) = line.strip_prefix('@').and_then(|rest| rest.split_once(" = ")) {
            lists.insert(name, list);
            continue;
        }
        let mut marks = line.chars();
        let (place, phrase) = match (marks.next(), marks.as_str(), line.strip_suffix('$')) {
            (Some('^'), rest, _) => (Place::Start, rest),
            (Some('~'), rest, _) => (Place::ShortStart, rest),
            (Some('%'), rest, _) if rest.ends_with('$') => (Place::BriefEnd, rest),
            (Some('%'), rest, _) => (Place::Brief, rest),
            (Some('&'), rest, _) => (Place::Empty, rest),
            (Some('='), rest, _) => (Place::Whole, rest),
            (Some('!'), rest, _) => (Place::Nowhere, rest),
            (_, _, Some(rest)) => (Place::End, rest),
            _ => (Place::Anywhere, line),
        };
        for phrase in expanded(phrase, &lists) {
            let (text, behind) = match phrase.split_once(" _ ") {
                Some((text, behind)) => (flat(text), Some(flat(behind))),
                None => (flat(&phrase), None),
            };
            if let Some(first) = text.split_whitespace().next() {
                signs.entry(first.to_owned()).or_default().push(Sign { leaning, text, behind, place });
            }
        }
    }
    signs
}

/// A phrase with each of its `(a|b)` and `@list` replaced by each of what they stand for.
fn expanded(phrase: &str, lists: &HashMap<&str, &str>) -> Vec<String> {
    let choice = phrase.split_once('(').and_then(|(before, rest)| {
        let (choice, after) = rest.split_once(')')?;
        Some((before, choice, after))
    });
    let named = || {
        let (before, rest) = phrase.split_once('@')?;
        let (name, after) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
        Some((before, *lists.get(name)?, after))
    };
    match choice.or_else(named) {
        Some((before, choice, after)) => {
            choice.split('|').flat_map(|one| expanded(&format!("{before}{one}{after}"), lists)).collect()
        }
        None => vec![phrase.to_owned()],
    }
}

/// Manners at the ends of a prompt, which leave it as short as it is.
const MANNERS: &[&str] = &[
    "please",
    "pls",
    "ok",
    "okay",
    "so",
    "and",
    "then",
    "hey",
    "hi",
    "hello",
    "thanks",
    "well",
    "can you",
    "could you",
];

/// Prompts that must not be matched by meaning at all; None when there is no objection: the first of [`leanings`].
pub fn exact_only(prompt: &str) -> Option<Leaning> {
    leanings(prompt).first()
}

/// All that a prompt's words lean on; what it quotes does not count. Linear in the length of the prompt.
pub fn leanings(prompt: &str) -> Leanings {
    let text = flat(&scan::unmarked(prompt));
    let (manners, bare) = bare(&text);
    // The blank before where the prompt begins behind its manners.
    let start = manners.saturating_sub(1);
    let mut found = Leanings::NONE;
    let mut at = 0;
    // `flat` puts one blank between words and one at either end, so a word begins behind each blank but the last.
    let words = memchr::memchr_iter(b' ', text.as_bytes()).count() - 1;
    let (short, brief) = (words <= SHORT, words <= BRIEF);
    let mut empty = None;
    while let Some(rest) = text.get(at..).filter(|rest| rest.len() > 1) {
        let word = rest.get(1..).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        let signs = || SIGNS.get(word).into_iter().flatten().filter(|sign| sign.begins(rest));
        let mut nothing = signs().filter(|sign| sign.place == Place::Nowhere);
        if let Some(length) = nothing.find_map(|sign| sign.length(rest)) {
            at += length - 1;
            continue;
        }
        for sign in signs() {
            let applies = match sign.place {
                Place::Anywhere => true,
                Place::Start => at == 0 || at == start,
                Place::ShortStart => at == 0 && short,
                Place::End => rest.len() == sign.text.len(),
                Place::Brief => brief,
                Place::BriefEnd => brief && rest.len() == sign.text.len(),
                Place::Empty => brief && *empty.get_or_insert_with(|| gives_nothing(prompt)),
                Place::Whole | Place::Nowhere => false,
            };
            if applies {
                found.insert(sign.leaning);
            }
        }
        at += word.len() + 1;
    }
    if REASONED.iter().any(|start| bare.starts_with(start)) {
        found = found.without(Leaning::Variety);
    }
    if HOW_TO.iter().any(|start| bare.starts_with(start)) {
        found = found.without(Leaning::Person).without(Leaning::Variety);
    }
    let word = bare.split_whitespace().next().unwrap_or_default();
    let whole = SIGNS.get(word).into_iter().flatten();
    for sign in whole.filter(|sign| sign.place == Place::Whole && sign.text.trim() == bare) {
        found.insert(sign.leaning);
    }
    found
}

/// Whether a prompt has nothing in it that it could ask to be worked on: no quotation, code or equation, nothing behind a colon or in
/// a second line.
fn gives_nothing(prompt: &str) -> bool {
    let says = |text: &str| text.contains(char::is_alphanumeric);
    let mut asked = prompt.trim_start();
    // What only opens is not what something is given behind: "Quick question: is this sentence correct?"
    while let Some((_, rest)) = asked.split_once([':', '\n']).filter(|(before, _)| is_opening(before)) {
        asked = rest.trim_start();
    }
    let behind = |mark| asked.split_once(mark).is_some_and(|(_, text)| says(text));
    !behind(':') && !behind('\n') && !prompt.contains('=') && !scan::quotes(prompt)
}

/// Whether a text is manners alone, or says that a question follows.
fn is_opening(text: &str) -> bool {
    let text = flat(text);
    let (_, bare) = bare(&text);
    bare.is_empty() || MANNERS.contains(&bare) || OPENINGS.contains(&bare)
}

/// What announces a question, or greets, and asks nothing.
const OPENINGS: &[&str] = &[
    "question",
    "quick question",
    "a question",
    "one question",
    "simple question",
    // Behind a greeting, which is manners.
    "there",
    "good morning",
    "good afternoon",
    "good evening",
];

/// Beginnings of questions about how a thing is done, which have one answer for all who ask.
const HOW_TO: &[&str] = &[
    "how do i ",
    "how can i ",
    "how should i ",
    "how do you ",
    "how to ",
    "how would i ",
    "what is the way ",
    "what is the best way ",
    "is there a way ",
    "is there any way ",
    "steps ",
    "where do i ",
    "where can i ",
    "can i ",
    "may i ",
];

/// Beginnings of questions that ask for no choice or chance, though they may be about one: "If I roll two dice, ...".
const REASONED: &[&str] = &[
    "why ",
    "explain ",
    "define ",
    "describe how ",
    "how does ",
    "how do ",
    "how is ",
    "how are ",
    "if i ",
    "if you ",
    "if a ",
    "when i ",
    "when you ",
    "what is the probability ",
    "what are the odds ",
    "what are the chances ",
];

/// The prompt without manners at its ends, and where that begins.
fn bare(text: &str) -> (usize, &str) {
    let mut start = text.len() - text.trim_start().len();
    let mut bare = text.trim();
    loop {
        let before = bare;
        for manner in MANNERS {
            let cut = |rest: &&str| rest.starts_with(' ');
            if let Some(rest) = bare.strip_prefix(manner).filter(cut) {
                let rest = rest.trim_start();
                start += bare.len() - rest.len();
                bare = rest;
            }
            if let Some(rest) = bare.strip_suffix(manner).filter(|rest| rest.ends_with(' ')) {
                bare = rest.trim_end();
            }
        }
        if bare == before {
            return (start, bare);
        }
    }
}
