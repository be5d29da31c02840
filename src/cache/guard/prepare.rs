//! Folds the tokens of a prompt into units and marks what each may stand for.
//!
//! Called by [`super::compare`] and by the reuse decision (a [`Prepared`] prompt can be compared with several).

use super::counts::{joined, ordinals, times};
use super::events::{Event, events};
use super::lexicon::{LEXICON, Tag, Word};
use super::marks::{asker, asks, negations, places, tense};
use super::number::Amount;
use super::scan::{self, Kind, Span, Token, Verbatim};
use crate::cache::normalise::normalise;

/// A prompt made ready for comparing.
#[derive(Debug)]
pub struct Prepared {
    pub(super) units: Vec<Unit>,
    pub(super) spans: Vec<Span>,
    /// The base forms of all tokens in order, fillers left out: the frame of the sentence.
    pub(super) frame: Vec<String>,
    /// The fillers that the prompt opens with and that may be the question itself: `can you` of "Can you get a cold from a cat?"
    pub(super) opening: Vec<String>,
    /// The whole prompt in lower case, every run of other characters made one blank: for looking up a span
    /// that the other prompt has without its marks.
    pub(super) flat: String,
    /// The same with case and marks kept, for code.
    pub(super) exact: String,
    /// The prompt as the exact layer has it, blanks kept where they may carry meaning.
    pub(super) normal: String,
    /// Whether capitals say nothing.
    pub(super) shouting: bool,
    pub(super) tense: Tense,
    /// What is said to be done, or to come.
    pub(super) events: Vec<Event>,
    /// The role the asker takes: the exchange, and which party.
    pub(super) asker: Option<(u16, bool)>,
    pub(super) asks: Asks,
}

/// When the main clause plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tense {
    pub(super) past: bool,
    pub(super) present: bool,
    pub(super) future: bool,
}

/// What a question word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    Person,
    Time,
    Place,
    Reason,
    Count,
    Duration,
    /// How a thing is done or happens.
    Manner,
    /// A yes or a no.
    Truth,
}

/// Where a unit stands with respect to a movement or comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Plain,
    /// Behind `from` and the like.
    Source,
    /// Behind `to` and the like.
    Target,
    /// Behind `in`, `with` and the like.
    Aside,
}

/// A word, phrase, number or piece of code, with what it may stand for.
#[expect(clippy::struct_excessive_bools, reason = "independent marks, each read alone")]
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Base form; canonical for numbers.
    pub(super) key: String,
    /// Lower case as written, for words.
    pub(super) written: String,
    pub(super) kind: UnitKind,
    pub(super) tags: &'static [Tag],
    /// The poles count the other way round: `not active`.
    pub(super) turned: bool,
    pub(super) word: Option<&'static Word>,
    /// Whether any list has it, so that it is hardly a typing error.
    pub(super) known: bool,
    /// Says too little to count when it is missing on the other side.
    pub(super) light: bool,
    pub(super) name: bool,
    pub(super) verbatim: Option<Verbatim>,
    pub(super) negated: bool,
    /// A comma stands behind it.
    pub(super) comma: bool,
    pub(super) place: Place,
    /// The number as written, before what follows it was made part of it: 10 for ten minutes, 3 for 3 p.m.
    pub(super) figure: Option<f64>,
    /// A number written in words.
    pub(super) spelt: bool,
    /// Number of the first token it was made from, counted in [`Prepared::frame`].
    pub(super) at: usize,
}

impl Unit {
    /// Third rather than three.
    pub(super) fn is_ordinal(&self) -> bool {
        matches!(self.kind, UnitKind::Number(_)) && self.key.ends_with("th")
    }
}

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitKind {
    Word,
    Number(NumberKind),
    Address,
    Code,
}

/// What a number counts, for naming the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberKind {
    Plain,
    /// Spelt in words and possibly no number at all: `one`, `half`, `first`.
    Weak,
    /// A span of time, in seconds or months.
    Duration,
    Year,
    Version,
    Time,
}

/// A token on its way to a unit.
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) base: String,
    pub(super) token: Token,
    pub(super) number: Option<NumberKind>,
    pub(super) after_stop: bool,
    /// See [`Unit::figure`].
    pub(super) figure: Option<f64>,
}

impl Prepared {
    /// Reads a prompt. Linear in its length.
    pub fn new(prompt: &str) -> Self {
        let scan = scan::scan(prompt);
        let shouting = is_shouting(&scan.tokens);
        let (opening, mut pieces) = without_fillers(&scan.tokens);
        if shouting {
            for piece in &mut pieces {
                piece.token.name = false;
                piece.token.capital = false;
            }
        }
        let pieces = times(ordinals(joined(pieces)));
        let frame: Vec<String> = pieces.iter().map(|piece| piece.base.clone()).collect();
        let mut units = units(&pieces);
        places(&mut units, &pieces);
        negations(&mut units, &pieces);
        Self {
            tense: tense(&pieces),
            events: events(&pieces),
            asker: asker(&pieces, &units),
            asks: asks(&pieces),
            flat: flat(prompt),
            normal: normalise(prompt).into_owned(),
            shouting,
            exact: prompt.split_whitespace().collect::<Vec<_>>().join(" "),
            units,
            spans: scan.spans,
            opening,
            frame,
        }
    }
}

/// Whether capitals say nothing: titles, and text in capitals only.
fn is_shouting(tokens: &[Token]) -> bool {
    let words = tokens.iter().filter(|token| token.kind == Kind::Word && token.text.len() > 1);
    let (all, capital) =
        words.fold((0, 0), |(all, capital), token| (all + 1, capital + usize::from(token.capital)));
    all >= 4 && capital * 10 > all * 7
}

/// The prompt's words in lower case, all else made single blanks.
pub(super) fn flat(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(' ');
    let mut parted = true;
    let mut add = |c: char| {
        if c.is_alphanumeric() {
            out.push(c);
            parted = false;
        } else if !parted {
            out.push(' ');
            parted = true;
        }
    };
    for c in text.chars() {
        if c.is_ascii() { add(c.to_ascii_lowercase()) } else { c.to_lowercase().for_each(&mut add) }
    }
    add(' ');
    out
}

/// What is left without the fillers, and which of them may be meant: see [`Prepared::opening`].
fn without_fillers(tokens: &[Token]) -> (Vec<String>, Vec<Piece>) {
    const LONGEST: usize = 8;
    let mut opening = Vec::new();
    let mut pieces = Vec::with_capacity(tokens.len());
    let mut after_stop = true;
    let mut skip = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        if token.kind == Kind::Stop {
            after_stop = true;
            continue;
        }
        if token.kind == Kind::Word && token.verbatim.is_none() {
            let window: Vec<&str> = tokens
                .iter()
                .skip(at)
                .take(LONGEST)
                .take_while(|next| next.kind == Kind::Word && next.verbatim.is_none())
                .map(|next| next.text.as_str())
                .collect();
            let filler = LEXICON.filler(&window);
            if filler > 0 {
                if pieces.is_empty() && filler == 2 && window.get(1) == Some(&"you") {
                    opening = vec![LEXICON.base(&token.text), "you".to_owned()];
                }
                skip = filler - 1;
                continue;
            }
        }
        let text = token.text.clone();
        let base = if token.kind == Kind::Word { LEXICON.base(&text) } else { text.clone() };
        let figure = match &token.kind {
            Kind::Number(amount) => amount.value,
            Kind::Time(minutes) => (minutes % 60 == 0).then(|| f64::from(minutes / 60)),
            _ => None,
        };
        pieces.push(Piece { text, base, token: token.clone(), number: None, after_stop, figure });
        after_stop = false;
    }
    (opening, pieces)
}

pub(super) fn amount(piece: &Piece) -> Option<&Amount> {
    match &piece.token.kind {
        Kind::Number(amount) => Some(amount),
        _ => None,
    }
}

fn units(pieces: &[Piece]) -> Vec<Unit> {
    const LONGEST: usize = 8;
    let words: Vec<(&str, &str)> =
        pieces.iter().map(|piece| (piece.text.as_str(), piece.base.as_str())).collect();
    let mut units = Vec::with_capacity(pieces.len());
    let mut at = 0;
    while let Some(piece) = pieces.get(at) {
        let window = words.get(at..words.len().min(at + LONGEST)).unwrap_or_default();
        // A phrase never crosses the end of a sentence.
        let reach = pieces
            .iter()
            .skip(at + 1)
            .take(LONGEST)
            .position(|next| next.after_stop)
            .map_or(window.len(), |stop| window.len().min(stop + 1));
        let found = LEXICON.longest(window.get(..reach).unwrap_or_default());
        let found = found.filter(|found| !found.everyday || is_special(pieces, at));
        let length = found.as_ref().map_or(1, |found| found.length);
        let tags = found.map_or(&[][..], |found| found.tags);
        // A tagged phrase of stop words (more than, turn on) is a unit; a bare stop word is frame only.
        if length > 1 || !tags.is_empty() || !LEXICON.is_stop(&piece.text) || piece.token.verbatim.is_some() {
            units.push(unit(pieces, at, length, tags));
        }
        at += length;
    }
    units
}

fn unit(pieces: &[Piece], at: usize, length: usize, tags: &'static [Tag]) -> Unit {
    let covered = || pieces.iter().skip(at).take(length);
    let key = covered().map(|piece| piece.base.as_str()).collect::<Vec<_>>().join(" ");
    let written = covered().map(|piece| piece.text.as_str()).collect::<Vec<_>>().join(" ");
    let first = covered().next();
    let kind = match first.map(|piece| (&piece.token.kind, piece.number)) {
        Some((_, Some(number))) if length == 1 => UnitKind::Number(number),
        Some((Kind::Address, _)) => UnitKind::Address,
        Some((Kind::Code | Kind::Operator, _)) => UnitKind::Code,
        _ => UnitKind::Word,
    };
    Unit {
        light: LEXICON.is_light(&key) || LEXICON.is_light(&written) || LEXICON.is_stop(&written),
        known: !tags.is_empty() || LEXICON.knows(&written) || LEXICON.word(&key).is_some(),
        word: LEXICON.word(&key).or_else(|| LEXICON.word(&written)),
        kind,
        tags,
        turned: false,
        name: covered().any(|piece| piece.token.name),
        verbatim: first.and_then(|piece| piece.token.verbatim),
        negated: false,
        comma: covered().next_back().is_some_and(|piece| piece.token.comma),
        place: Place::Plain,
        figure: first.and_then(|piece| piece.figure),
        spelt: first.and_then(amount).is_some_and(|amount| amount.spelt),
        at,
        key,
        written,
    }
}

/// Whether an everyday word (go, rust, c) is meant as a name here.
fn is_special(pieces: &[Piece], at: usize) -> bool {
    let Some(piece) = pieces.get(at) else { return false };
    let before =
        at.checked_sub(1).and_then(|before| pieces.get(before)).map_or("", |piece| piece.text.as_str());
    let after = pieces.get(at + 1).filter(|next| !next.after_stop).map_or("", |next| next.text.as_str());
    if piece.token.capital && !piece.token.begins {
        return true;
    }
    if matches!(before, "in" | "using" | "with") && !matches!(after, "case" | "order" | "time") {
        return true;
    }
    if matches!(
        after,
        "code"
            | "program"
            | "programming"
            | "script"
            | "function"
            | "compiler"
            | "example"
            | "language"
            | "library"
            | "app"
    ) {
        return true;
    }
    piece.token.capital && !LEXICON.is_stop(after) && !matches!(after, "to" | "back" | "ahead")
}
