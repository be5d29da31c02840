//! Prompts: normalising is idempotent, the guard is symmetric, and neither they nor the word pieces take long.

use super::two_texts;
use crate::cache::guard::{Prepared, compare, is_english, leanings, numbers};
use crate::cache::normalise::normalise;
use crate::encoder::VOCABULARY;
use crate::encoder::wordpiece::{WINDOW, WordPiece};
use crate::verify::pair::PairPieces;

/// How long a long prompt is, in bytes.
const LONG: usize = 32 << 10;

pub(super) fn check(data: &[u8]) {
    let (one, other) = two_texts(data);
    for text in [&one, &other] {
        let normal = normalise(text);
        assert_eq!(normalise(&normal), normal, "normalising again changes {text:?}");
        alone(&normal);
    }
    pair(&normalise(&one), &normalise(&other));
}

pub(super) fn long(data: &[u8]) {
    let (one, other) = two_texts(data);
    let long = |text: &str| text.repeat(LONG / text.len().max(1));
    let (one, other) = (long(&one), long(&other));
    alone(&normalise(&one));
    pair(&normalise(&one), &normalise(&other));
}

fn alone(text: &str) {
    let _ = (is_english(text), leanings(text), numbers(text));
    let prepared = Prepared::new(text);
    assert!(prepared.compare(&prepared).is_alike(), "a prompt differs from itself: {text:?}");
    let pieces = VOCABULARY.split(text);
    assert!(pieces.ids.len() <= WINDOW);
    let read = text.get(..pieces.read).unwrap();
    let alone = VOCABULARY.split(read);
    assert_eq!((alone.ids, alone.read), (pieces.ids, pieces.read), "the part read has other pieces alone");
    assert!(pieces.read == text.len() || !WordPiece::fits_at_sight(text));
}

fn pair(one: &str, other: &str) {
    assert_eq!(compare(one, other), compare(other, one), "not symmetric: {one:?} {other:?}");
    if let Ok(pieces) = PairPieces::of(one, other) {
        assert_eq!(pieces.ids.len(), pieces.kinds.len());
    }
}
