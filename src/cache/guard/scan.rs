//! Cuts a prompt into tokens: words, numbers and verbatim spans (code, quotations, addresses).
//!
//! Called by [`super::prepare`]; [`words_of`] also by the word lists, so that both cut alike. Linear
//! in the length of the prompt. Word boundaries are those of UAX #29.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};
use unicode_segmentation::UnicodeSegmentation as _;

use super::number::{self, Amount};
use super::shape::{CONTRACTIONS, IS_AFTER, is_address, is_code, iso_date, shorthand, trim};

/// How a token counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A word.
    Word,
    /// A number written in digits or words.
    Number(Amount),
    /// A time of day, in minutes since midnight.
    Time(u32),
    /// A URL, an e-mail address, a path.
    Address,
    /// A piece of code that is no plain word: an identifier, a flag, an expression.
    Code,
    /// An operator standing alone.
    Operator,
    /// The end of a sentence or clause.
    Stop,
}

/// One token.
#[expect(clippy::struct_excessive_bools, reason = "independent marks, each read alone")]
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// Lower case for words, canonical for numbers, verbatim for addresses and code.
    pub(super) text: String,
    pub(super) kind: Kind,
    /// Begins a sentence, a line or a quotation, so that a capital there says nothing.
    pub(super) begins: bool,
    /// Has a capital or a digit where an ordinary word has none.
    pub(super) name: bool,
    /// Written with a capital first letter.
    pub(super) capital: bool,
    /// Stands inside a verbatim span.
    pub(super) verbatim: Option<Verbatim>,
    /// The second of two words between which a hyphen or a slash stands, and no blank: Boston-Miami.
    pub(super) linked: bool,
    /// A comma stands behind it.
    pub(super) comma: bool,
}

/// What a verbatim span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verbatim {
    /// Between backticks, or an indented line.
    Code,
    /// Between quotation marks.
    Quoted,
}

/// A verbatim span of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) kind: Verbatim,
    /// What stands between the marks, outer blanks removed where they are only typography.
    pub(super) text: String,
}

impl Span {
    /// Whether it is an indented line rather than text between marks.
    pub(super) fn is_line(&self) -> bool {
        self.kind == Verbatim::Code && self.text.starts_with([' ', '\t'])
    }
}

/// A prompt cut up.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) tokens: Vec<Token>,
    pub(super) spans: Vec<Span>,
}

/// The words of a phrase of the lists, cut as prompts are.
pub(super) fn words_of(phrase: &str) -> Vec<String> {
    let mut scan = Scan::default();
    scan.prose(phrase, None);
    scan.tokens
        .into_iter()
        .filter(|token| token.kind != Kind::Stop)
        .map(|token| token.text.to_lowercase())
        .collect()
}

/// Cuts up a prompt.
pub(super) fn scan(prompt: &str) -> Scan {
    let mut scan = Scan::default();
    parts(&normal(prompt), |part| match part {
        Part::Plain(text) => scan.plain(text),
        Part::Marked(kind, inner) => scan.span(kind, inner),
    });
    scan
}

/// The prompt with a mere word in place of what it quotes, but whole where it consists of nothing else.
pub(super) fn unmarked(prompt: &str) -> Cow<'_, str> {
    let normal = normal(prompt);
    // Those of ASCII are found many bytes at once.
    if memchr::memchr3(b'\'', b'"', b'`', normal.as_bytes()).is_none()
        && (normal.is_ascii() || !normal.contains(opens))
    {
        return normal;
    }
    let mut text = String::with_capacity(normal.len());
    let mut says = false;
    parts(&normal, |part| match part {
        Part::Plain(plain) => {
            says |= plain.contains(char::is_alphanumeric);
            text.push_str(plain);
        }
        Part::Marked(..) => text.push_str(" quoted "),
    });
    if says { Cow::Owned(text) } else { normal }
}

/// Whether a prompt quotes anything, or has code in it.
pub(super) fn quotes(prompt: &str) -> bool {
    let mut quotes = false;
    parts(&normal(prompt), |part| quotes |= matches!(part, Part::Marked(..)));
    quotes
}

/// One spelling of blanks, dashes and apostrophes.
fn normal(prompt: &str) -> Cow<'_, str> {
    // Most prompts are of ASCII alone, which is composed as it is.
    if prompt.is_ascii() && !prompt.contains('\r') {
        return Cow::Borrowed(prompt);
    }
    let spelling = |c| match c {
        '\u{2018}' | '\u{2019}' | '\u{02bc}' => Some('\''),
        '\u{2013}' | '\u{2014}' | '\u{2212}' => Some('-'),
        '\u{a0}' | '\u{202f}' | '\u{2009}' => Some(' '),
        '\u{200b}' | '\u{feff}' | '\r' => None,
        other => Some(other),
    };
    Cow::Owned(match is_nfc_quick(prompt.chars()) {
        IsNormalized::Yes => prompt.chars().filter_map(spelling).collect(),
        _ => prompt.nfc().filter_map(spelling).collect(),
    })
}

/// A part of a prompt.
enum Part<'a> {
    /// Text outside marks.
    Plain(&'a str),
    /// What stands between marks.
    Marked(Verbatim, &'a str),
}

/// Gives out the parts of a prompt in order.
fn parts<'a>(normal: &'a str, mut each: impl FnMut(Part<'a>)) {
    let mut rest = normal;
    let mut before = None;
    let mut plain_from = rest;
    let mut hopeless: Vec<char> = Vec::new();
    // `plain_from` is the text not yet given out; `rest` the part of it not yet looked at.
    while let Some((at, mark)) = rest.char_indices().find(|(_, c)| opens(*c)) {
        before = rest.get(..at).and_then(|passed| passed.chars().next_back()).or(before);
        rest = rest.get(at..).unwrap_or_default();
        let end = if hopeless.contains(&mark) { None } else { closing(mark, before, rest) };
        // A mark that nothing closes from here on is not looked for again, or many would cost their square.
        let inside = rest.get(mark.len_utf8()..).unwrap_or_default();
        if end.is_none()
            && !hopeless.contains(&mark)
            && closers(mark).is_some_and(|close| !inside.contains(close))
        {
            hopeless.push(mark);
        }
        if let Some((kind, inner, after)) = end {
            each(Part::Plain(plain_from.get(..plain_from.len() - rest.len()).unwrap_or_default()));
            each(Part::Marked(kind, inner));
            rest = after;
            plain_from = after;
            before = Some('"');
        } else {
            rest = rest.get(mark.len_utf8()..).unwrap_or_default();
            before = Some(mark);
        }
    }
    each(Part::Plain(plain_from));
}

/// If a verbatim span opens at the start of `rest`: its kind, its inside, and what follows it.
fn closing<'a>(mark: char, before: Option<char>, rest: &'a str) -> Option<(Verbatim, &'a str, &'a str)> {
    let spans =
        |kind, (inner, after): (&'a str, &'a str)| (!inner.trim().is_empty()).then_some((kind, inner, after));
    let body = rest.get(mark.len_utf8()..)?;
    match mark {
        '`' if rest.starts_with("```") => spans(Verbatim::Code, rest.strip_prefix("```")?.split_once("```")?),
        '`' => spans(Verbatim::Code, body.split_once('`')?),
        // A mark right behind a digit is a unit (5'10"), not a quotation.
        '"' if before.is_some_and(|c| c.is_ascii_digit()) => None,
        '\'' if before.is_none_or(|c| c.is_whitespace() || c == '(' || c == ':') => single_quoted(rest),
        _ => spans(Verbatim::Quoted, body.split_once(closers(mark)?)?),
    }
}

/// Whether a verbatim span may open with it.
fn opens(mark: char) -> bool {
    mark == '\'' || closers(mark).is_some()
}

/// The marks that close a span opened by this one.
fn closers(mark: char) -> Option<&'static [char]> {
    match mark {
        '`' => Some(&['`']),
        '"' => Some(&['"']),
        '\u{201c}' => Some(&['\u{201d}']),
        '\u{201e}' => Some(&['\u{201c}', '\u{201d}']),
        '\u{ab}' => Some(&['\u{bb}']),
        '\u{300c}' => Some(&['\u{300d}']),
        _ => None,
    }
}

/// A span between single quotation marks: the closing one must end a word, since apostrophes do not.
fn single_quoted(rest: &str) -> Option<(Verbatim, &str, &str)> {
    const LONGEST: usize = 400;
    let body = rest.strip_prefix('\'')?;
    if !body.starts_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    for (at, _) in body.match_indices('\'').take_while(|(at, _)| *at < LONGEST) {
        let (inner, after) = (body.get(..at)?, body.get(at + 1..)?);
        if inner.contains('\n') {
            return None;
        }
        if !after.starts_with(|c: char| c.is_alphanumeric()) && !inner.ends_with(char::is_whitespace) {
            return Some((Verbatim::Quoted, inner, after));
        }
    }
    None
}

impl Scan {
    /// Text outside marks; its indented lines are code.
    fn plain(&mut self, text: &str) {
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.stop();
                if line.starts_with("  ") || line.starts_with('\t') {
                    self.span(Verbatim::Code, line.trim_end());
                    continue;
                }
            }
            self.prose(line, None);
        }
    }

    fn span(&mut self, kind: Verbatim, inner: &str) {
        // Indentation is part of a line of code, and a blank at one end is part of a quotation.
        let counts = match kind {
            _ if inner.contains('\n') => false,
            Verbatim::Code => inner.starts_with("  ") || inner.starts_with('\t'),
            Verbatim::Quoted => inner.starts_with(' ') != inner.ends_with(' '),
        };
        let text = if counts { inner } else { inner.trim() };
        if text.trim().is_empty() {
            return;
        }
        self.spans.push(Span { kind, text: text.to_owned() });
        self.stop_if_open();
        self.prose(inner, Some(kind));
    }

    fn stop(&mut self) {
        self.tokens.push(Token {
            text: String::new(),
            kind: Kind::Stop,
            begins: false,
            name: false,
            capital: false,
            verbatim: None,
            linked: false,
            comma: false,
        });
    }

    /// Marks that what follows begins anew, without ending the sentence.
    fn stop_if_open(&mut self) {
        if self.tokens.is_empty() {
            self.stop();
        }
    }

    fn push(&mut self, text: String, kind: Kind, verbatim: Option<Verbatim>) {
        let begins = self.begins();
        self.tokens.push(Token {
            text,
            kind,
            begins,
            name: false,
            capital: false,
            verbatim,
            linked: false,
            comma: false,
        });
    }

    fn begins(&self) -> bool {
        self.tokens.last().is_none_or(|last| last.kind == Kind::Stop)
    }

    fn prose(&mut self, text: &str, verbatim: Option<Verbatim>) {
        for chunk in text.split_whitespace() {
            self.chunk(chunk, verbatim);
        }
    }

    /// One run of characters between blanks.
    fn chunk(&mut self, chunk: &str, verbatim: Option<Verbatim>) {
        let (core, ends) = trim(chunk);
        if core.is_empty() {
            if ends {
                self.stop();
            }
            return;
        }
        if !core.contains(|c: char| c.is_alphanumeric()) {
            self.symbols(core, verbatim);
        } else if let Some(full) = shorthand(core) {
            for word in full.split(' ') {
                self.word(word.to_owned(), word, verbatim);
            }
        } else if let Some((year, month, day)) = iso_date(core) {
            for part in [day, month, year] {
                for amount in number::read(part).into_iter().flatten() {
                    if let number::Part::Amount(amount) = amount {
                        self.push(amount.key(), Kind::Number(amount), verbatim);
                    }
                }
                if part.starts_with(char::is_alphabetic) {
                    self.word(part.to_owned(), part, verbatim);
                }
            }
        } else if is_address(core) {
            self.push(core.trim_end_matches('/').to_owned(), Kind::Address, verbatim);
        } else if let Some(parts) = number::read(core) {
            for part in parts {
                match part {
                    number::Part::Amount(amount) => self.push(amount.key(), Kind::Number(amount), verbatim),
                    number::Part::Time(minutes) => {
                        self.push(format!("time {minutes}"), Kind::Time(minutes), verbatim);
                    }
                    number::Part::Word(word) => self.word(word, "", verbatim),
                }
            }
        } else if is_code(core) {
            self.push(core.to_owned(), Kind::Code, verbatim);
        } else {
            let core = match core.to_lowercase().strip_suffix("-free") {
                Some(noun) if noun.chars().all(char::is_alphabetic) => {
                    self.word("without".to_owned(), "without", verbatim);
                    core.get(..noun.len()).unwrap_or(core)
                }
                _ => core,
            };
            let first = self.tokens.len();
            for part in core.split(['-', '/']).filter(|part| !part.is_empty()) {
                if part != core
                    && let Some(number::Part::Amount(amount)) =
                        number::read(part).and_then(|parts| parts.into_iter().next())
                {
                    self.push(amount.key(), Kind::Number(amount), verbatim);
                } else {
                    self.words(part, verbatim);
                }
            }
            // Two ends, and not three of a kind.
            if let Some([_, second]) = self.tokens.get_mut(first..) {
                second.linked = core.contains(['-', '/']);
            }
        }
        if chunk.ends_with(',')
            && let Some(last) = self.tokens.last_mut()
        {
            last.comma = true;
        }
        if ends {
            self.stop();
        }
    }

    fn words(&mut self, text: &str, verbatim: Option<Verbatim>) {
        // Names of languages that end in symbols are no words by UAX #29.
        let kept = ["c++", "c#", "f#", "u.s.", "u.k.", "e.g.", "i.e.", "a.m.", "p.m."];
        let lower = text.to_lowercase();
        let lower_dotted = format!("{lower}.");
        if let Some(word) = kept.iter().find(|word| **word == lower || **word == lower_dotted) {
            self.word((*word).to_owned(), text, verbatim);
            return;
        }
        for word in text.unicode_words() {
            for part in word.split('_').filter(|part| !part.is_empty()) {
                self.contracted(part, verbatim);
            }
        }
        // Scripts and emoji that hold no words by UAX #29 still count.
        if text.unicode_words().next().is_none() {
            self.word(lower, text, verbatim);
        }
    }

    /// A word, with what was contracted into it written out.
    fn contracted(&mut self, word: &str, verbatim: Option<Verbatim>) {
        let lower = word.to_lowercase();
        if let Some((_, full)) = CONTRACTIONS.iter().find(|(short, _)| *short == lower) {
            for part in full.split(' ') {
                self.word(part.to_owned(), part, verbatim);
            }
            return;
        }
        if let Some(stem) = lower.strip_suffix("n't") {
            self.word(stem.to_owned(), word, verbatim);
            self.word("not".to_owned(), "not", verbatim);
            return;
        }
        for (suffix, full) in
            [("'re", "are"), ("'ll", "will"), ("'ve", "have"), ("'d", "would"), ("'m", "am")]
        {
            if let Some(stem) = lower.strip_suffix(suffix) {
                self.word(stem.to_owned(), word.get(..stem.len()).unwrap_or(stem), verbatim);
                self.word(full.to_owned(), full, verbatim);
                return;
            }
        }
        if let Some(stem) = lower.strip_suffix("'s") {
            self.word(stem.to_owned(), word.get(..stem.len()).unwrap_or(stem), verbatim);
            if IS_AFTER.contains(&stem) {
                self.word("is".to_owned(), "is", verbatim);
            }
            return;
        }
        // PDFs, GPUs.
        let acronym = word
            .strip_suffix('s')
            .filter(|stem| stem.len() > 1 && stem.bytes().all(|c| c.is_ascii_uppercase()));
        if let Some(stem) = acronym {
            self.word(stem.to_lowercase(), stem, verbatim);
            return;
        }
        self.word(lower.trim_end_matches('\'').to_owned(), word, verbatim);
    }

    fn word(&mut self, text: String, written: &str, verbatim: Option<Verbatim>) {
        let begins = self.begins();
        if let Some(amount) = number::word(&text) {
            self.tokens.push(Token {
                text: amount.key(),
                kind: Kind::Number(amount),
                begins,
                name: false,
                capital: false,
                verbatim,
                linked: false,
                comma: false,
            });
            return;
        }
        // Henry VIII and World War II, not an abbreviation on its own.
        if let Some(value) = number::roman(written)
            && self.tokens.last().is_some_and(|last| last.capital || last.text == "class")
        {
            let amount = number::Amount { ordinal: false, ..value };
            self.push(amount.key(), Kind::Number(amount), verbatim);
            return;
        }
        let capital = written.starts_with(char::is_uppercase);
        let inner = written.chars().skip(1).any(|c| c.is_uppercase() || c.is_ascii_digit());
        let name = (inner || (capital && !begins)) && text != "i";
        self.tokens.push(Token {
            text,
            kind: Kind::Word,
            begins,
            name,
            capital,
            verbatim,
            linked: false,
            comma: false,
        });
    }

    fn symbols(&mut self, core: &str, verbatim: Option<Verbatim>) {
        match core {
            "&" => self.word("and".to_owned(), "and", verbatim),
            "->" | "=>" | "\u{2192}" => self.word("to".to_owned(), "to", verbatim),
            "$" | "%" | "\u{20ac}" | "\u{a3}" | "\u{a5}" => self.word(core.to_owned(), core, verbatim),
            _ if core.contains(|c: char| "+*/=<>^%|~!@#\u{d7}\u{f7}".contains(c)) => {
                self.push(core.to_owned(), Kind::Operator, verbatim);
            }
            // Between figures it subtracts, elsewhere it is a dash.
            "-" if self.tokens.last().is_some_and(|last| {
                matches!(last.kind, Kind::Number(_) | Kind::Code) || last.text.len() == 1
            }) =>
            {
                self.push(core.to_owned(), Kind::Operator, verbatim);
            }
            _ if core.is_ascii() => {}
            // Emoji, signs of other scripts.
            _ => self.word(core.to_lowercase(), core, verbatim),
        }
    }
}
