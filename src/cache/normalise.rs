//! Normalisation of a prompt for the exact key: two spellings of one prompt become one, and nothing that may
//! carry meaning is lost (INTERFACE.md, "What is cached").
//!
//! Called by [`super`].

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The normal form: Unicode NFC (UAX #15), outer whitespace trimmed, CRLF made LF, and, in a single line
/// without quotation marks or backticks, inner runs of blanks made one space. Case is kept.
///
/// Allocates only where something changes.
pub fn normalise(prompt: &str) -> Cow<'_, str> {
    // ASCII is in NFC; most prompts are found so without a look at each character's properties.
    let mut text = if prompt.is_ascii() || is_nfc_quick(prompt.chars()) == IsNormalized::Yes {
        Cow::Borrowed(prompt)
    } else {
        Cow::Owned(prompt.nfc().collect::<String>())
    };
    if text.contains("\r\n") {
        text = Cow::Owned(with_line_feeds(&text));
    }
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    };
    if has_runs_of_blanks(&text) && !blanks_carry_meaning(&text) {
        return Cow::Owned(
            text.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
        );
    }
    text
}

/// CRLF made LF, also behind further carriage returns, which would be a CRLF the next time.
fn with_line_feeds(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => {
                out.push_str(line.trim_end_matches('\r'));
                out.push('\n');
            }
            None => out.push_str(line),
        }
    }
    out
}

fn has_runs_of_blanks(text: &str) -> bool {
    text.contains('\t') || text.contains("  ")
}

/// Several lines may be code, a table or verse; quotation marks and backticks enclose what is meant to the
/// letter. An apostrophe between letters is neither.
fn blanks_carry_meaning(text: &str) -> bool {
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let apostrophe = matches!(c, '\'' | '\u{2019}')
            && before.is_alphabetic()
            && chars.peek().copied().is_some_and(char::is_alphabetic);
        if !apostrophe && (is_line_break(c) || is_quotation_mark(c)) {
            return true;
        }
        before = c;
    }
    false
}

fn is_line_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Unicode's property `Quotation_Mark`, and the backtick.
fn is_quotation_mark(c: char) -> bool {
    matches!(c, '`' | '"' | '\'' | '«' | '»' | '\u{2018}'..='\u{201f}' | '‹' | '›' | '\u{2e42}' | '「'..='』'
        | '\u{301d}'..='\u{301f}' | '\u{fe41}'..='\u{fe44}' | '＂' | '＇' | '｢' | '｣')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_prompt_become_one() {
        for (raw, normal) in [
            ("  What is Rust? \n", "What is Rust?"),
            ("What  is \t Rust?", "What is Rust?"),
            ("What's  up?", "What's up?"),
            ("a\r\nb", "a\nb"),
            ("a\r\r\nb\rc", "a\nb\rc"),
            ("Caf\u{65}\u{301}", "Café"),
        ] {
            assert_eq!(normalise(raw), normal);
        }
    }

    #[test]
    fn what_may_carry_meaning_is_kept() {
        for text in
            ["a  b\nc", "say \"a  b\"", "'a  b'", "run `a  b`", "sag „a  b“", "if x:\n\tpass", "Rust", "rust"]
        {
            assert_eq!(normalise(text), text);
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC*|(\r\n|[ \t\r\na'\"]){0,12}") {
            let once = normalise(&text).into_owned();
            prop_assert_eq!(normalise(&once), once.as_str());
        }
    }
}
