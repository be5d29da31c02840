//! Text to the word pieces of BERT uncased: the model's alphabet.
//!
//! Called by the models inside the program. An own implementation rather than a crate's, because the window needs
//! byte offsets into the text as it came, because text of a client must never become a control token (a prompt
//! that says `[SEP]` is five characters here, where the reference makes it a separator), and because what it
//! does is small. Ids are checked against the Python `tokenizers` package in the tests. Over all of Unicode they
//! differ for some 700 characters newer than that package's tables, of which the model knows none.
//!
//! Source: Devlin et al. 2018, "BERT", and `BertNormalizer`, `BertPreTokenizer` and `WordPiece` of
//! <https://docs.rs/tokenizers>.

use std::collections::HashMap;
use std::ops::ControlFlow;

use unicode_normalization::char::decompose_canonical;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Word pieces the model reads at most, the two that frame every text included (`max_seq_length` in
/// `sentence_bert_config.json`; the `tokenizer.json` beside it says 128, which sentence-transformers overrides).
pub const WINDOW: usize = 256;

/// Bytes looked at, at most: a text of words without end costs no more than this. 254 words of 64 letters.
const WINDOW_BYTES: usize = 16 * 1024;

/// Letters of a word beyond which it is unknown as a whole (`max_input_chars_per_word`).
const LONGEST_WORD: usize = 100;

/// What stands for a word in none of whose parts the model is at home.
pub const UNKNOWN: u32 = 100;
/// The piece before a text.
pub const START: u32 = 101;
/// The piece after a text, and between two.
pub const END: u32 = 102;

/// The vocabulary, ready for look-ups.
#[derive(Debug)]
pub struct WordPiece {
    /// Pieces that begin a word.
    first: HashMap<&'static str, u32>,
    /// Pieces that go on with one, without their `##`.
    next: HashMap<&'static str, u32>,
    /// Letters of the longest piece: nothing longer is looked up.
    longest: usize,
}

/// A text as the model reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Ids of the word pieces between the two that frame them; at most [`WINDOW`]. Two mean an empty text.
    pub ids: Vec<u32>,
    /// Byte offset up to which the text was read: before the first word that does not fit as a whole.
    pub read: usize,
}

impl WordPiece {
    /// Reads a vocabulary: one piece a line, its id the line's number from 0.
    pub fn new(vocabulary: &'static str) -> Self {
        let mut first = HashMap::new();
        let mut next = HashMap::new();
        let mut longest = 0;
        for (id, piece) in (0..).zip(vocabulary.lines()) {
            let (pieces, piece) = match piece.strip_prefix("##") {
                Some(rest) if !rest.is_empty() => (&mut next, rest),
                _ => (&mut first, piece),
            };
            longest = longest.max(piece.chars().count());
            pieces.insert(piece, id);
        }
        Self { first, next, longest }
    }

    /// Whether the model reads all of the text, by a rule that costs nothing and errs towards `false`: no
    /// character gives more pieces than it has bytes (checked over all of Unicode in the tests).
    pub fn fits_at_sight(text: &str) -> bool {
        text.len() <= WINDOW - 2
    }

    /// Splits as much of a text as the model reads.
    pub fn split(&self, text: &str) -> Pieces {
        let visible = text.get(..text.floor_char_boundary(WINDOW_BYTES)).unwrap_or(text);
        let mut words =
            Words { vocabulary: self, ids: vec![START], word: String::new(), letters: 0, start: 0 };
        let read = match words.read(visible) {
            ControlFlow::Continue(()) => visible.len(),
            ControlFlow::Break(offset) => offset,
        };
        words.ids.push(END);
        Pieces { ids: words.ids, read }
    }

    /// The longest piece that `text` starts with, and what follows it.
    fn longest_piece<'a>(
        &self,
        text: &'a str,
        pieces: &HashMap<&'static str, u32>,
    ) -> Option<(u32, &'a str)> {
        let mut end = text.char_indices().nth(self.longest).map_or(text.len(), |(offset, _)| offset);
        while end > 0 {
            let (candidate, rest) = text.split_at_checked(end)?;
            if let Some(&id) = pieces.get(candidate) {
                return Some((id, rest));
            }
            end = candidate.char_indices().next_back()?.0;
        }
        None
    }
}

/// Gathers the letters of one word after the other. A break carries the offset of the word that did not fit.
struct Words<'v> {
    vocabulary: &'v WordPiece,
    ids: Vec<u32>,
    word: String,
    letters: usize,
    start: usize,
}

impl Words<'_> {
    fn read(&mut self, text: &str) -> ControlFlow<usize> {
        for (offset, original) in text.char_indices() {
            if is_whitespace(original) {
                self.end_word()?;
            } else if is_chinese(original) {
                self.end_word()?;
                self.normalise(offset, original)?;
                self.end_word()?;
            } else if !is_dropped(original) {
                self.normalise(offset, original)?;
            }
        }
        self.end_word()
    }

    /// Accents and case go; punctuation is a word of its own.
    fn normalise(&mut self, offset: usize, original: char) -> ControlFlow<usize> {
        if original.is_ascii() {
            return self.place(offset, original.to_ascii_lowercase());
        }
        let mut outcome = ControlFlow::Continue(());
        decompose_canonical(original, |part| {
            if part.general_category() == GeneralCategory::NonspacingMark {
                return;
            }
            for letter in part.to_lowercase() {
                if outcome.is_continue() {
                    outcome = self.place(offset, letter);
                }
            }
        });
        outcome
    }

    fn place(&mut self, offset: usize, letter: char) -> ControlFlow<usize> {
        if letter.is_whitespace() {
            return self.end_word();
        }
        if is_punctuation(letter) {
            self.end_word()?;
            self.letter(offset, letter);
            return self.end_word();
        }
        self.letter(offset, letter);
        ControlFlow::Continue(())
    }

    fn letter(&mut self, offset: usize, letter: char) {
        if self.letters == 0 {
            self.start = offset;
        }
        self.letters += 1;
        if self.letters <= LONGEST_WORD {
            self.word.push(letter);
        }
    }

    fn end_word(&mut self) -> ControlFlow<usize> {
        if self.letters == 0 {
            return ControlFlow::Continue(());
        }
        let before = self.ids.len();
        if self.letters > LONGEST_WORD || !self.push_pieces() {
            self.ids.truncate(before);
            self.ids.push(UNKNOWN);
        }
        self.word.clear();
        self.letters = 0;
        // One place stays free for the closing piece.
        if self.ids.len() >= WINDOW {
            self.ids.truncate(before);
            return ControlFlow::Break(self.start);
        }
        ControlFlow::Continue(())
    }

    /// `false` where some part of the word is in no piece.
    fn push_pieces(&mut self) -> bool {
        let mut rest = self.word.as_str();
        let mut pieces = &self.vocabulary.first;
        while !rest.is_empty() {
            let Some((id, after)) = self.vocabulary.longest_piece(rest, pieces) else {
                return false;
            };
            self.ids.push(id);
            rest = after;
            pieces = &self.vocabulary.next;
        }
        true
    }
}

fn is_whitespace(character: char) -> bool {
    // U+000B, U+000C and U+0085 are control characters to the reference, which drops them.
    matches!(character, '\t' | '\n' | '\r') || (character.is_whitespace() && !character.is_control())
}

fn is_dropped(character: char) -> bool {
    use GeneralCategory::{Control, Format, PrivateUse};
    character == '\u{fffd}' || matches!(character.general_category(), Control | Format | PrivateUse)
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation()
        || character.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// The blocks of Chinese characters, each of which is a word: `_is_chinese_char` of BERT, whose 0x2B820 is 0x2B920
/// in the `tokenizers` package.
fn is_chinese(character: char) -> bool {
    matches!(u32::from(character),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use super::super::VOCABULARY;

    #[derive(serde::Deserialize)]
    struct Line {
        text: String,
        ids: Vec<u32>,
    }

    #[test]
    fn ids_are_those_of_the_reference() {
        let lines = include_str!("../../tests/data/wordpieces.jsonl");
        let mut checked = 0;
        for line in lines.lines() {
            let Line { text, ids } = serde_json::from_str(line).unwrap();
            let ours = VOCABULARY.split(&text);
            if ids.len() <= WINDOW {
                assert_eq!(ours, Pieces { read: text.len(), ids }, "{text:?}");
            } else {
                let kept = ours.ids.len() - 1;
                assert_eq!(ours.ids[..kept], ids[..kept], "{text:?}");
                assert!(ours.read < text.len());
            }
            checked += 1;
        }
        assert!(checked > 200, "{checked}");
    }

    #[test]
    fn no_character_gives_more_pieces_than_bytes() {
        for character in '\0'..=char::MAX {
            let text = format!("a{character}b");
            let pieces = VOCABULARY.split(&text).ids.len() - 2;
            assert!(pieces <= text.len(), "{character:?}");
        }
    }

    #[test]
    fn control_tokens_of_a_client_are_plain_text() {
        let ids = VOCABULARY.split("[CLS] [SEP] [PAD] [MASK] [UNK]").ids;
        assert!(
            !ids[1..ids.len() - 1].iter().any(|id| [0, UNKNOWN, START, END, 103].contains(id)),
            "{ids:?}"
        );
    }

    #[test]
    fn a_long_text_is_cut_before_the_word_that_does_not_fit() {
        let text = "word ".repeat(253) + "unaffable tail";
        let pieces = VOCABULARY.split(&text);
        assert_eq!(pieces.ids.len(), 255);
        assert_eq!(&text[pieces.read..], "unaffable tail");
        let text = "word ".repeat(254);
        assert_eq!(VOCABULARY.split(&text).read, text.len());
        assert_eq!(VOCABULARY.split(&text).ids.len(), WINDOW);
    }

    #[test]
    fn a_word_without_end_costs_no_more_than_the_window() {
        let pieces = VOCABULARY.split(&"\u{e9}".repeat(1_000_000));
        assert_eq!(pieces, Pieces { ids: vec![START, UNKNOWN, END], read: WINDOW_BYTES });
    }

    proptest! {
        #[test]
        fn the_part_read_gives_the_same_pieces_alone(text in "(\\PC|[a-z]{1,12}|[ .,\n]){0,600}", more in "\\PC{0,20}") {
            let pieces = VOCABULARY.split(&text);
            prop_assert!(pieces.ids.len() <= WINDOW);
            let alone = VOCABULARY.split(&text[..pieces.read]);
            prop_assert_eq!(&alone.ids, &pieces.ids);
            prop_assert_eq!(alone.read, pieces.read);
            if pieces.read < text.len() {
                // What follows changes nothing in the window, as long as it does not go on with a word there: a
                // longer word can have fewer pieces.
                prop_assert_eq!(VOCABULARY.split(&format!("{text} {more}")), pieces);
            } else if WordPiece::fits_at_sight(&text) {
                prop_assert_eq!(pieces.read, text.len());
            }
        }
    }
}
