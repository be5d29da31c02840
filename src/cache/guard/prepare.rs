//! Folds the tokens of a prompt into units and marks what each may stand for.
//!
//! Called by [`super::compare`] and by the reuse decision (a [`Prepared`] prompt can be compared with several).

use super::lexicon::{LEXICON, Tag, Word};
use super::number::{self, Amount, Part};
use super::scan::{self, Kind, Span, Token, Verbatim};

/// A prompt made ready for comparing.
#[derive(Debug)]
pub struct Prepared {
    pub(super) units: Vec<Unit>,
    pub(super) spans: Vec<Span>,
    /// The base forms of all tokens in order, fillers left out: the frame of the sentence.
    pub(super) frame: Vec<String>,
    /// The whole prompt in lower case, every run of other characters made one blank: for looking up a span
    /// that the other prompt has without its marks.
    pub(super) flat: String,
    /// The same with case and marks kept, for code.
    pub(super) exact: String,
    pub(super) tense: Tense,
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
    pub(super) place: Place,
    /// Number of the first token it was made from, counted in [`Prepared::frame`].
    pub(super) at: usize,
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
struct Piece {
    text: String,
    base: String,
    token: Token,
    number: Option<NumberKind>,
    after_stop: bool,
}

impl Prepared {
    /// Reads a prompt. Linear in its length.
    pub fn new(prompt: &str) -> Self {
        let scan = scan::scan(prompt);
        let shouting = is_shouting(&scan.tokens);
        let mut pieces = without_fillers(&scan.tokens);
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
            asker: asker(&pieces, &units),
            asks: asks(&pieces),
            flat: flat(prompt),
            exact: prompt.split_whitespace().collect::<Vec<_>>().join(" "),
            units,
            spans: scan.spans,
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
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            out.push(c);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    if !out.ends_with(' ') {
        out.push(' ');
    }
    out
}

fn without_fillers(tokens: &[Token]) -> Vec<Piece> {
    const LONGEST: usize = 8;
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
                skip = filler - 1;
                continue;
            }
        }
        let text = token.text.clone();
        let base = if token.kind == Kind::Word { LEXICON.base(&text) } else { text.clone() };
        pieces.push(Piece { text, base, token: token.clone(), number: None, after_stop });
        after_stop = false;
    }
    pieces
}

fn amount(piece: &Piece) -> Option<&Amount> {
    match &piece.token.kind {
        Kind::Number(amount) => Some(amount),
        _ => None,
    }
}

/// Joins number words, and reads what follows a number as part of it where it is (`10 a.m.`, `half an hour`).
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
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
fn ordinals(mut pieces: Vec<Piece>) -> Vec<Piece> {
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
fn times(pieces: Vec<Piece>) -> Vec<Piece> {
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
                let weak = value == 1.0 && amount(last).is_some_and(|found| found.spelt);
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
        place: Place::Plain,
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

/// Marks what stands behind `from`, `to`, `in` and the like.
fn places(units: &mut [Unit], pieces: &[Piece]) {
    const REACH: usize = 5;
    for unit in units {
        let mut place = Place::Plain;
        for (distance, before) in (unit.at.saturating_sub(REACH)..unit.at).rev().enumerate() {
            let Some(piece) = pieces.get(before) else { break };
            if pieces.get(before + 1).is_some_and(|next| next.after_stop) {
                break;
            }
            place = match piece.text.as_str() {
                "from" | "off" | "departing" | "leaving" => Place::Source,
                // Before a verb it only makes an infinitive.
                "to" if distance == 0 && is_infinitive(pieces, unit.at) => Place::Plain,
                "to" | "into" | "onto" | "arriving" => Place::Target,
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
}

/// Whether the piece at `at`, right behind `to`, is a verb in the infinitive.
fn is_infinitive(pieces: &[Piece], at: usize) -> bool {
    let Some(piece) = pieces.get(at) else { return false };
    let verb = LEXICON.word(&piece.text).is_some_and(|word| word.parts.contains('v'));
    let ends = pieces
        .get(at + 1)
        .is_none_or(|next| next.after_stop || matches!(next.text.as_str(), "in" | "on" | "from" | "for"));
    verb && !piece.token.capital && !ends
}

const AUXILIARIES: &[&str] = &[
    "do", "does", "did", "is", "are", "was", "were", "will", "would", "can", "could", "should", "has", "have",
];

const NEGATORS: &[&str] = &[
    "not", "no", "never", "without", "none", "nor", "neither", "nobody", "nothing", "nowhere", "hardly",
    "except",
];

/// Marks the unit a negation reaches; one that lies on an axis of opposites is turned round instead.
fn negations(units: &mut Vec<Unit>, pieces: &[Piece]) {
    let text = |at: usize| pieces.get(at).map_or("", |piece| piece.text.as_str());
    for (at, piece) in pieces.iter().enumerate() {
        let free = piece.text == "free" && at > 0 && piece.token.verbatim.is_none() && !piece.after_stop;
        if piece.token.verbatim.is_some() || !NEGATORS.contains(&piece.text.as_str()) {
            if free
                && let Some(unit) = units
                    .iter_mut()
                    .rev()
                    .find(|unit| unit.at + 1 == at && unit.word.is_some_and(|word| word.parts.contains('n')))
            {
                unit.negated = true;
                units.retain(|unit| unit.at != at);
            }
            continue;
        }
        let before = at.checked_sub(1).map_or("", text);
        let last = pieces.get(at + 1).is_none_or(|next| next.after_stop);
        // "or not", "why not", "not only", "no longer than": no negation of anything said.
        if (before == "or" && (last || matches!(text(at + 1), "a" | "the")))
            || text(at + 1) == "only"
            || (before == "why" && last)
        {
            continue;
        }
        if units
            .iter()
            .any(|unit| unit.at <= at && at < unit.at + unit.key.split(' ').count() && unit.key.contains(' '))
        {
            continue;
        }
        // "Why won't it connect": the subject stands between, the verb is what is denied.
        let inverted =
            AUXILIARIES.contains(&before) && at.checked_sub(2).map_or("why", text).starts_with("wh");
        let denied = |unit: &&mut Unit| {
            unit.at > at
                && (!inverted || unit.at > at + 1 && unit.word.is_some_and(|word| word.parts.contains('v')))
        };
        let reached = units.iter_mut().find(denied);
        let Some(unit) = reached.filter(|unit| {
            (at + 1..=unit.at).all(|next| pieces.get(next).is_some_and(|piece| !piece.after_stop))
        }) else {
            // Nothing behind it: it reaches what stands before.
            if let Some(unit) = units.iter_mut().rev().find(|unit| unit.at < at) {
                unit.negated = true;
            }
            continue;
        };
        if unit.tags.iter().copied().any(is_pole) && unit.at - at <= 3 {
            unit.turned = !unit.turned;
        } else {
            unit.negated = !unit.negated;
        }
    }
    units.retain(|unit| !NEGATORS.contains(&unit.written.as_str()) || unit.verbatim.is_some());
}

fn is_pole(tag: Tag) -> bool {
    matches!(tag, Tag::Pole { .. })
}

fn tense(pieces: &[Piece]) -> Tense {
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
                (tense.past, first) = (true, false)
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
fn asker(pieces: &[Piece], units: &[Unit]) -> Option<(u16, bool)> {
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
            if matches!(one, "a" | "an" | "the") && (two == "as" || (two == "am" && three == "i")) {
                return Some((*pair, *first));
            }
            if one == "my" && found.is_none() {
                found = Some((*pair, !*first));
            }
        }
    }
    found
}

fn asks(pieces: &[Piece]) -> Asks {
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
