//! Judges what two prompts say in the same words and write otherwise: blanks, case, signs, the order within a figure.
//!
//! Called by [`super::differ`] before the words are paired, since what pairs is what reads alike: words without their case,
//! numbers without their order, most signs not at all. All that it finds is certain. Linear in the length of the prompts.

use std::collections::{BTreeMap, HashSet};

use super::Rule;
use super::prepare::Prepared;
use super::scan::{Span, Verbatim};
use super::shape::is_address;
use super::verbatim::letters;

/// The rule that speaks of a difference in spelling.
pub(super) fn differs(one: &Prepared, other: &Prepared) -> Option<Rule> {
    [forms(one, other), aligned(one, other), layout(one, other)].into_iter().flatten().min()
}

/// What reads alike, and how it is written, in the order of appearance.
type Forms<'a> = BTreeMap<(Rule, String), Vec<&'a str>>;

/// More ways of writing one thing than this are not compared.
const MOST_FORMS: usize = 48;

/// The prompts write a thing in two ways of which each means another thing.
fn forms(one: &Prepared, other: &Prepared) -> Option<Rule> {
    let (mine, theirs) = (written(one), written(other));
    let literal = speaks(one, other, LITERAL);
    let shouting = one.shouting || other.shouting;
    let apart = |((rule, reads), mine): (&(Rule, String), &Vec<&str>)| {
        let theirs = theirs.get(&(*rule, reads.clone()))?;
        let (mine, theirs) = (without(mine, theirs), without(theirs, mine));
        let means = |a: &str, b: &str| match rule {
            _ if shouting && !literal && a.eq_ignore_ascii_case(b) => false,
            Rule::Unit => is_other_unit(a, b),
            Rule::Quoted => is_other_text(a, b, literal),
            _ => true,
        };
        mine.iter().any(|a| theirs.iter().any(|b| means(a, b))).then_some(*rule)
    };
    mine.iter().filter_map(apart).min()
}

/// Those of the one list that the other does not have as often.
fn without<'a>(mine: &[&'a str], theirs: &[&str]) -> Vec<&'a str> {
    let mut theirs = theirs.to_vec();
    let lacks = |form: &&&str| match theirs.iter().position(|other| other == *form) {
        Some(at) => {
            theirs.swap_remove(at);
            false
        }
        None => true,
    };
    mine.iter().filter(lacks).copied().collect()
}

/// Whatever of a prompt may be written in a way that means another thing.
fn written(prompt: &Prepared) -> Forms<'_> {
    let mut forms = Forms::new();
    let mut add = |rule: Rule, reads: String, form| {
        let forms: &mut Vec<_> = forms.entry((rule, reads)).or_default();
        if forms.len() < MOST_FORMS {
            forms.push(form);
        }
    };
    let mut counted = false;
    for chunk in prompt.exact.split(' ') {
        let core = core(chunk);
        let number = core.starts_with(|c: char| c.is_ascii_digit());
        let symbol = core.trim_start_matches(|c: char| c.is_ascii_digit() || ".,-".contains(c));
        if (number || counted) && is_cased(symbol) {
            add(Rule::Unit, symbol.to_ascii_lowercase(), symbol);
        }
        counted = number && symbol.is_empty();
        if let Some((rule, reads)) = figure(core) {
            add(rule, reads, core);
        } else if core.len() == 2
            && core.starts_with('-')
            && core.ends_with(|c: char| c.is_ascii_alphabetic())
        {
            add(Rule::Code, core.to_ascii_lowercase(), core);
        } else if core.contains('/')
            && is_address(core)
            && let Some(path) = path(core)
        {
            add(Rule::Address, core.to_lowercase(), path);
        }
    }
    for span in prompt.spans.iter().filter(|span| span.kind == Verbatim::Quoted) {
        let letters = letters(&span.text);
        if !letters.is_empty() {
            add(Rule::Quoted, letters, &span.text);
        }
    }
    forms
}

/// A chunk without the marks round it; one of signs alone is left as it is.
fn core(chunk: &str) -> &str {
    const AROUND: &str = "'\"`()[]{}*,;";
    if !chunk.contains(char::is_alphanumeric) {
        return chunk;
    }
    chunk
        .trim_start_matches(|c| AROUND.contains(c))
        .trim_end_matches(|c| AROUND.contains(c) || ".:?!".contains(c))
}

/// Units before which a prefix of m is a thousandth and one of M a million.
const PREFIXED: &[&str] = &["A", "C", "F", "Hz", "J", "N", "Pa", "V", "W", "Wh", "eV", "g", "m", "\u{3a9}"];

/// Whether it may be a unit that is another one in other case.
fn is_cased(symbol: &str) -> bool {
    symbol.strip_prefix(['m', 'M']).is_some_and(|unit| PREFIXED.contains(&unit)) || bits(symbol).is_some()
}

/// Whether two units that differ by case alone are two: milliwatts and megawatts, megabits and megabytes. What is written
/// in capitals or small letters throughout (5 KG, 100 mb) says nothing by them.
fn is_other_unit(one: &str, other: &str) -> bool {
    match (bits(one), bits(other)) {
        (Some(one), Some(other)) => one != other,
        _ => one != other && one.get(1..) == other.get(1..),
    }
}

/// Whether an amount of data is one of bits, where its case tells: `Mb` and `MB/s`, not `mb`.
fn bits(symbol: &str) -> Option<bool> {
    let symbol = symbol.strip_suffix("/s").or_else(|| symbol.strip_suffix("ps")).unwrap_or(symbol);
    match symbol.strip_prefix(['K', 'M', 'G', 'T', 'P'])? {
        "b" | "ib" => Some(true),
        "B" | "iB" => Some(false),
        _ => None,
    }
}

/// What a figure of several numbers or letters reads like in any order: a date, a score, a ratio, a point, a difference. A
/// year must stand at the same end.
fn figure(core: &str) -> Option<(Rule, String)> {
    const MOST_PARTS: usize = 4;
    let sign = core.chars().find(|c| "/-:,".contains(*c))?;
    let parts: Vec<&str> = core.split(sign).collect();
    if parts.len() > MOST_PARTS || !parts.iter().all(|part| is_operand(part)) {
        return None;
    }
    let year = parts.iter().position(|part| part.len() == 4);
    let rule = match parts.len() {
        _ if core.contains(|c: char| c.is_alphabetic()) => Rule::Code,
        3 => Rule::Date,
        _ => Rule::Number,
    };
    let mut sorted = parts;
    sorted.sort_unstable();
    Some((rule, format!("{sign}{year:?}{}", sorted.join(" "))))
}

/// A number or a single letter.
fn is_operand(text: &str) -> bool {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if first.is_ascii_digit() => chars.all(|c| c.is_ascii_digit() || c == '.'),
        Some(first) => first.is_alphabetic() && chars.next().is_none(),
        None => false,
    }
}

/// The part of an address whose case counts: not the host, no e-mail address, no path of Windows.
fn path(address: &str) -> Option<&str> {
    if address.contains(['@', '\\']) {
        return None;
    }
    let (host, path) = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => address.split_once('/')?,
    };
    let hosted = address.contains("://") || host.contains(char::is_alphanumeric) && host.contains('.');
    // `/month` and `/B.Tech` are prose.
    let rooted = host.is_empty() && !path.contains('/');
    (!rooted).then(|| if hosted { path } else { address }.trim_end_matches('/'))
}

/// Words of prompts in which a text is a row of characters, each of which counts.
const LITERAL: &[&str] = &[
    "alphabet",
    "anagram",
    "ascii",
    "base64",
    "capitalise",
    "capitalize",
    "capital",
    "cipher",
    "decode",
    "encode",
    "encrypt",
    "hash",
    "lowercase",
    "md5",
    "palindrome",
    "regex",
    "reverse",
    "rot13",
    "select",
    "sha1",
    "sha256",
    "string",
    "uppercase",
];

/// Whether one of the prompts has one of these words.
fn speaks(one: &Prepared, other: &Prepared, of: &[&str]) -> bool {
    one.frame.iter().chain(&other.frame).any(|word| of.contains(&word.as_str()))
}

/// Whether two quotations of the same letters are two texts: other blanks, or other case where it tells. Text of several
/// lines may be broken otherwise, and beside a mark a blank says little.
fn is_other_text(one: &str, other: &str, literal: bool) -> bool {
    let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    if solid(one) != solid(other) {
        return false;
    }
    let wrapped = one.contains('\n') || other.contains('\n');
    let words = |text: &str| -> Vec<String> {
        let text = if literal { text.to_owned() } else { without_loose(text) };
        if wrapped {
            text.split_whitespace().map(str::to_owned).collect()
        } else {
            text.split(char::is_whitespace).map(str::to_owned).collect()
        }
    };
    let (mine, theirs) = (words(one), words(other));
    let cased = |a: &str, b: &str| a != b && (literal || is_mixed(a) || is_mixed(b));
    mine.len() != theirs.len()
        || mine.iter().zip(&theirs).any(|(a, b)| a.to_lowercase() != b.to_lowercase() || cased(a, b))
}

/// A text without the blanks beside its marks.
fn without_loose(text: &str) -> String {
    let mark = |c: char| !c.is_alphanumeric() && !c.is_whitespace();
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let beside = out.chars().next_back().is_some_and(mark) || chars.peek().copied().is_some_and(mark);
        if !(c.is_whitespace() && beside) {
            out.push(c);
        }
    }
    out
}

/// Whether a word has a capital behind a small letter or its first one, as no word of prose has.
fn is_mixed(text: &str) -> bool {
    text.split(|c: char| !c.is_alphabetic())
        .any(|word| word.contains(char::is_lowercase) && word.chars().skip(1).any(char::is_uppercase))
}

/// What stands between two blanks in the same place of two prompts, and is not the same.
struct Apart<'a> {
    at: usize,
    /// What stands before both, where that is one word.
    before: &'a str,
    mine: &'a str,
    theirs: &'a str,
    /// Nothing follows.
    last: bool,
}

/// Prompts equal but for a sign, or for two operands in each other's place.
fn aligned(one: &Prepared, other: &Prepared) -> Option<Rule> {
    let (mut mine, mut theirs) = (one.exact.split(' ').peekable(), other.exact.split(' '));
    let mut apart: Vec<Apart<'_>> = Vec::new();
    let mut cased = false;
    let mut before = "";
    for at in 0.. {
        let (a, b) = match (mine.next(), theirs.next()) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => break,
            _ => return None,
        };
        let (bare, other_bare) = (core(a), core(b));
        if !bare.eq_ignore_ascii_case(other_bare) {
            if apart.len() == 2 {
                return None;
            }
            apart.push(Apart { at, before, mine: a, theirs: b, last: mine.peek().is_none() });
        } else if bare != other_bare {
            cased |= is_mixed(bare) || is_mixed(other_bare);
        }
        before = if bare.eq_ignore_ascii_case(other_bare) { bare } else { "" };
    }
    if cased && apart.is_empty() && speaks(one, other, CASES) {
        return Some(Rule::Code);
    }
    if let [first, second] = apart.as_slice()
        && let Some(rule) = exchanged(first, second, one)
    {
        return Some(rule);
    }
    apart.iter().filter_map(other_sign).min()
}

/// Words of prompts about the case of a name.
const CASES: &[&str] = &["camel", "kebab", "lowercase", "pascal", "snake", "uppercase"];

/// Signs and words of which the two sides are not the same.
const DIRECTED: &[&str] = &[
    "-", "/", "%", "^", "**", "<", ">", "<=", ">=", "<<", ">>", "->", "=>", "//", "mod", "minus", "over",
    "implies", "divides",
];

/// Two operands have changed places: round an operator that makes a difference of it, or within brackets.
fn exchanged(first: &Apart<'_>, second: &Apart<'_>, prompt: &Prepared) -> Option<Rule> {
    let (a, b) = (core(first.mine), core(second.mine));
    if a != core(second.theirs) || b != core(first.theirs) || !is_operand(a) || !is_operand(b) {
        return None;
    }
    let between: Vec<&str> =
        prompt.exact.split(' ').skip(first.at + 1).take(second.at - first.at - 1).collect();
    let opens = |chunk: &str| chunk.starts_with(['(', '[', '<']);
    let point = opens(first.mine) && opens(first.theirs) && between.iter().all(|part| is_operand(core(part)));
    let directed =
        matches!(between.as_slice(), [sign] if DIRECTED.contains(&core(sign).to_lowercase().as_str()));
    let rule = if [a, b].iter().any(|side| side.starts_with(char::is_alphabetic)) {
        Rule::Code
    } else {
        Rule::Number
    };
    (point || directed).then_some(rule)
}

/// Signs that are no sentence marks, hyphens or the like.
const OPERATORS: &str = "$%&*+:<=>@|~^#\\";

/// Two chunks that differ by a sign, or by the figure of a formula.
fn other_sign(apart: &Apart<'_>) -> Option<Rule> {
    let (a, b) = (core(apart.mine), core(apart.theirs));
    let words = a.contains(char::is_alphanumeric) || b.contains(char::is_alphanumeric);
    if !words {
        return other_operator(apart).then_some(Rule::Code);
    }
    // Of addresses a mark more or less says little, and else they are judged by themselves; so are numbers.
    if [a, b].iter().any(|side| is_address(side) || side.starts_with(|c: char| c.is_ascii_digit())) {
        return None;
    }
    if letters(a) != letters(b) {
        let same = elements(a)? == elements(b)?;
        return same.then_some(Rule::Number);
    }
    let signs = |text: &str| -> String {
        text.chars().filter(|c| !c.is_alphanumeric() && !"'\"`()[]{}_".contains(*c)).collect()
    };
    let (a, b) = (signs(a), signs(b));
    let counts = a != b && a.is_ascii() && b.is_ascii() && !a.is_empty() && !b.is_empty();
    let signs = a + &b;
    // An empty place in a list is a value of it.
    let listed = signs.chars().all(|c| c == ',');
    (counts && (listed || signs.contains(|c| OPERATORS.contains(c)))).then_some(Rule::Code)
}

/// Words behind which a sign is what is talked about, even one that ends a sentence.
const NAMING: &[&str] = &[
    "a",
    "an",
    "and",
    "character",
    "command",
    "do",
    "does",
    "is",
    "of",
    "operator",
    "or",
    "sign",
    "symbol",
    "the",
    "use",
    "using",
];

/// Whether two chunks of signs alone are two operators: of several characters, or named as such. Runs of one sign mark
/// headings and part paragraphs, and all arrows are one.
fn other_operator(apart: &Apart<'_>) -> bool {
    let end = |text: &str| {
        if apart.last { text.trim_end_matches(['.', '?', '!']).to_owned() } else { text.to_owned() }
    };
    let (a, b) = (end(apart.mine), end(apart.theirs));
    if a == b || a.is_empty() || b.is_empty() {
        return false;
    }
    let sign = |text: &str| text.is_ascii() && !text.contains(|c: char| "()[]{}'\"`".contains(c));
    let arrow = |text: &str| text.len() > 1 && text.ends_with('>');
    if !sign(&a) || !sign(&b) || arrow(&a) && arrow(&b) {
        return false;
    }
    let mark = |text: &str| text.chars().all(|c| ".,;?!-".contains(c));
    let plain = |text: &str| text.len() == 1 || mark(text) || text.chars().all(|c| "#*=_".contains(c));
    let named = NAMING.contains(&apart.before.to_lowercase().as_str());
    named || !(plain(&a) && plain(&b))
}

/// The letters of a chemical formula, or of what is built like one: its figures are part of its name.
fn elements(text: &str) -> Option<String> {
    const MOST_LETTERS: usize = 4;
    let letters: String = text.chars().filter(char::is_ascii_alphabetic).collect();
    let formed = text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_digit())
        && letters.len() <= MOST_LETTERS;
    formed.then_some(letters)
}

/// Words of prompts in which lines and blanks are what is asked about.
const LAYOUT: &[&str] = &[" indentation ", " indented ", " lines ", " newlines ", " spaces ", " whitespace "];

/// The same lines otherwise indented or, where little else can differ, otherwise broken. How prose is broken says nothing.
fn layout(one: &Prepared, other: &Prepared) -> Option<Rule> {
    let (mine, theirs) = (lines(&one.normal), lines(&other.normal));
    let code = [&mine, &theirs].iter().any(|lines| lines.iter().skip(1).any(|line| is_code_line(line.text)));
    if code && indents(&mine, &theirs) {
        return Some(Rule::Code);
    }
    if one.exact != other.exact {
        return None;
    }
    let asked = LAYOUT.iter().any(|word| one.flat.contains(word));
    let broken = mine.iter().map(|line| line.text).ne(theirs.iter().map(|line| line.text));
    let code_of = |prompt: &'_ Prepared| -> Vec<Span> {
        prompt.spans.iter().filter(|span| span.kind == Verbatim::Code && !span.is_line()).cloned().collect()
    };
    // Code within a line may be broken with the line.
    let other_code = |(a, b): (&Span, &Span)| a != b && a.text.contains('\n') == b.text.contains('\n');
    let marked = code_of(one).iter().zip(&code_of(other)).any(other_code);
    let stepped = |lines: &[Line<'_>]| ranks(lines.iter()).iter().any(|rank| *rank > 0);
    (asked || marked || broken && code && (stepped(&mine) || stepped(&theirs))).then_some(Rule::Code)
}

/// Whether the lines that both have are the same in the same order, and otherwise indented to one another.
fn indents(mine: &[Line<'_>], theirs: &[Line<'_>]) -> bool {
    let texts =
        |lines: &[Line<'_>]| -> HashSet<String> { lines.iter().map(|line| line.text.to_owned()).collect() };
    let (in_mine, in_theirs) = (texts(mine), texts(theirs));
    let mine: Vec<_> = mine.iter().filter(|line| in_theirs.contains(line.text)).collect();
    let theirs: Vec<_> = theirs.iter().filter(|line| in_mine.contains(line.text)).collect();
    mine.iter().map(|line| line.text).eq(theirs.iter().map(|line| line.text))
        && ranks(mine.into_iter()) != ranks(theirs.into_iter())
}

/// A line that holds anything.
struct Line<'a> {
    /// How far it is indented.
    indent: usize,
    text: &'a str,
}

/// The lines of a prompt, where it has several.
fn lines(text: &str) -> Vec<Line<'_>> {
    const TAB: usize = 8;
    if !text.contains('\n') {
        return Vec::new();
    }
    let width = |line: &str| {
        line.chars().take_while(|c| c.is_whitespace()).map(|c| if c == '\t' { TAB } else { 1 }).sum()
    };
    let line = |line| Line { indent: width(line), text: line.trim() };
    text.lines().map(line).filter(|line| !line.text.is_empty()).collect()
}

/// How deep each line but the first is, whatever the step; the first introduces what follows, which may be indented as a
/// whole.
fn ranks<'a>(lines: impl Iterator<Item = &'a Line<'a>>) -> Vec<usize> {
    let indents: Vec<usize> = lines.skip(1).map(|line| line.indent).collect();
    let mut depths = indents.clone();
    depths.sort_unstable();
    depths.dedup();
    indents.iter().filter_map(|indent| depths.binary_search(indent).ok()).collect()
}

/// Whether a line may be of code or structured data.
fn is_code_line(line: &str) -> bool {
    line.contains(|c: char| "=(){}[];:<>".contains(c))
}
