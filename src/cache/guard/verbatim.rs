//! Judges verbatim spans (quotations, code) and the code, addresses and operators left over.
//!
//! Called by [`super::differ`].

use super::Rule;
use super::prepare::{Prepared, Unit, UnitKind, flat};
use super::scan::{Span, Verbatim};

/// What is to be said of the verbatim parts: the rule, and whether it speaks for sure.
pub(super) type Spoken = Option<(Rule, bool)>;

/// More marked spans than this are not judged one by one.
const MOST_SPANS: usize = 48;

/// A verbatim span of one prompt must stand in the other, marked or not, and marked ones in the same order.
pub(super) fn spans(one: &Prepared, other: &Prepared) -> Spoken {
    if one.spans == other.spans {
        return None;
    }
    if one.spans.len().max(other.spans.len()) > MOST_SPANS {
        return Some((Rule::Code, true));
    }
    let (mine, theirs) = (missing(one, other), missing(other, one));
    if mine.is_empty() && theirs.is_empty() {
        return order(one, other);
    }
    let rule = mine.iter().chain(&theirs).copied().min()?;
    // On one side alone it may be a name in quotation marks, or what the other describes.
    Some((rule, !mine.is_empty() && !theirs.is_empty()))
}

fn missing(one: &Prepared, other: &Prepared) -> Vec<Rule> {
    // A longer quotation of the other's own is another text, not the place where this one stands.
    let within = |span: &Span| {
        let own = letters(&span.text);
        other.spans.iter().filter(|longer| !one.spans.contains(longer)).any(|longer| {
            let theirs = letters(&longer.text);
            theirs.len() > own.len() && theirs.contains(&own)
        })
    };
    one.spans
        .iter()
        .filter(|span| !other.spans.contains(span) && (within(span) || !stands_in(span, other)))
        .map(rule_of)
        .collect()
}

fn stands_in(span: &Span, other: &Prepared) -> bool {
    // Long enough that it cannot stand in the other by chance when blanks and marks are left out.
    const TELLING: usize = 10;
    if other.spans.contains(span) {
        return true;
    }
    match span.kind {
        // Code counts character by character, also where the other prompt has it without marks.
        Verbatim::Code => {
            let text = span.text.split_whitespace().collect::<Vec<_>>().join(" ");
            let marked = other.spans.iter().any(|span| span.kind == Verbatim::Code);
            other.exact.contains(&text) && !marked
        }
        Verbatim::Quoted => {
            let text = flat(&span.text);
            let letters = letters(&span.text);
            (other.flat.contains(&text) && !text.trim().is_empty())
                || (letters.len() >= TELLING && self::letters(&other.exact).contains(&letters))
        }
    }
}

/// Letters and digits in lower case, without what stands between them.
pub(super) fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Spans that both prompts have, in another order: a difference unless they are only compared or listed.
fn order(one: &Prepared, other: &Prepared) -> Spoken {
    let shared = |from: &Prepared, to: &Prepared| -> Vec<Span> {
        from.spans.iter().filter(|span| to.spans.contains(span)).cloned().collect()
    };
    let (left, right) = (shared(one, other), shared(other, one));
    let (a, b) = left.iter().zip(&right).find(|(a, b)| a != b)?;
    let rule = rule_of(a).min(rule_of(b));
    if commutes(one, a, b) || commutes(other, a, b) {
        return None;
    }
    let directed = DIRECTING.iter().any(|word| one.frame.iter().any(|mine| mine == word))
        && DIRECTING.iter().any(|word| other.frame.iter().any(|theirs| theirs == word));
    Some((rule, directed))
}

/// Words that give each of two quotations a part of its own.
const DIRECTING: &[&str] = &["with", "by", "to", "into", "from", "before", "after", "than"];

/// Whether only words that join stand between two spans.
fn commutes(prompt: &Prepared, one: &Span, other: &Span) -> bool {
    const JOINING: &[&str] =
        &["and", "or", "vs", "versus", "same", "as", "the", "is", "different", "between", "mean"];
    let between = |first: &str, second: &str| {
        let (_, rest) = prompt.exact.split_once(first)?;
        let (between, _) = rest.split_once(second)?;
        Some(flat(between).split_whitespace().all(|word| JOINING.contains(&word)))
    };
    // Whichever stands first: the other way round nothing is found, or more than joins.
    between(&marked(one), &marked(other)) == Some(true) || between(&marked(other), &marked(one)) == Some(true)
}

/// The text of a span up to the first line break and blank, as it stands in [`Prepared::exact`].
fn marked(span: &Span) -> String {
    span.text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn rule_of(span: &Span) -> Rule {
    match span.kind {
        Verbatim::Code => Rule::Code,
        Verbatim::Quoted => Rule::Quoted,
    }
}

/// Code, addresses and operators left over.
pub(super) fn left_over(left: &[&Unit], right: &[&Unit], one: &Prepared, other: &Prepared) -> Spoken {
    let (mine, theirs) = (unsaid(left, right, other), unsaid(right, left, one));
    let rule = mine.iter().chain(&theirs).copied().min()?;
    Some((rule, !mine.is_empty() && !theirs.is_empty()))
}

fn unsaid(units: &[&Unit], theirs: &[&Unit], other: &Prepared) -> Vec<Rule> {
    let rule = |unit: &&&Unit| match (unit.kind, unit.verbatim) {
        (UnitKind::Address, _) => Some(Rule::Address),
        (UnitKind::Code, _) | (_, Some(Verbatim::Code)) => Some(Rule::Code),
        _ => None,
    };
    let mut squeezed = None;
    units
        .iter()
        .filter_map(|unit| Some((unit, rule(&unit)?)))
        .filter(|(unit, _)| {
            let squeezed: &mut String = squeezed.get_or_insert_with(|| squeeze(&other.exact));
            let text = squeeze(&unit.written);
            if text.contains(char::is_alphanumeric) {
                !squeezed.contains(text.as_str())
            } else {
                // A sign alone stands for a word; only against another sign it counts.
                let signs = || theirs.iter().filter(|other| is_sign(other));
                signs().next().is_some() && !signs().any(|other| squeeze(&other.written) == text)
            }
        })
        .map(|(_, rule)| rule)
        .collect()
}

/// Code that stands in prompts of the same letters and digits without marks: other brackets or operators, or another path, are other
/// code.
pub(super) fn skeletons(one: &Prepared, other: &Prepared) -> Spoken {
    if !one.flat.chars().filter(|c| *c != ' ').eq(other.flat.chars().filter(|c| *c != ' ')) {
        return None;
    }
    let paths = |prompt: &Prepared| -> Vec<String> {
        let path = |unit: &&Unit| unit.kind == UnitKind::Address && unit.written.contains(['/', '\\']);
        prompt.units.iter().filter(path).map(|unit| unit.written.to_lowercase()).collect()
    };
    if paths(one) != paths(other) {
        return Some((Rule::Address, true));
    }
    let (mine, theirs) = (skeleton(&one.exact)?, skeleton(&other.exact)?);
    (mine != theirs).then_some((Rule::Code, true))
}

/// The brackets and operators of a text, each with how many letters and digits stand before it; None where none of them shows that it is code. Commas count between brackets only, a
/// dot where it stands alone within a sentence, as a folder does.
fn skeleton(text: &str) -> Option<Vec<(usize, char)>> {
    let mut skeleton = Vec::new();
    let (mut open, mut shows, mut before, mut letters) = (0_usize, false, ' ', 0_usize);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let next = rest.peek().copied().unwrap_or(' ');
        let alone =
            before == ' ' && next == ' ' && rest.clone().nth(1).is_some_and(|c| c == '-' || c.is_lowercase());
        let c = match c {
            '\u{d7}' => '*',
            '\u{f7}' => '/',
            other => other,
        };
        let counts = match c {
            '[' | '{' | '(' => {
                open += 1;
                true
            }
            ']' | '}' | ')' => {
                open = open.saturating_sub(1);
                true
            }
            '<' | '>' | '=' | ';' | '|' | '*' | '/' => true,
            ',' => open > 0,
            '?' => next != ' ' && open > 0,
            '.' => alone,
            _ => false,
        };
        if counts {
            skeleton.push((letters, c));
            // What stands in prose as well shows nothing.
            shows |= match c {
                '(' => before.is_alphanumeric() || next == '(' || next.is_ascii_digit(),
                ')' | ',' | '?' | ';' => false,
                '/' | '.' => alone,
                _ => true,
            };
        }
        letters += usize::from(c.is_alphanumeric());
        before = c;
    }
    shows.then_some(skeleton)
}

/// An operator standing alone.
fn is_sign(unit: &Unit) -> bool {
    unit.kind == UnitKind::Code && !unit.written.contains(char::is_alphanumeric)
}

/// Without blanks, underscores and marks of quotation, in lower case, so that `2 + 3` is `2+3`.
fn squeeze(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '_' | '`' | '\'' | '"'))
        .map(|c| match c {
            '\u{d7}' | '\u{b7}' => '*',
            '\u{f7}' => '/',
            '\u{b2}' => '2',
            '\u{b3}' => '3',
            other => other,
        })
        .filter(|c| *c != '^')
        .flat_map(char::to_lowercase)
        .collect()
}
