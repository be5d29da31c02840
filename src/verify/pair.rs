//! Two prompts as the verifier reads them: one row of word pieces, each with its side and whether the other side has
//! it too.

use std::collections::HashSet;

use super::VerifyError;
use crate::encoder::VOCABULARY;
use crate::encoder::wordpiece::{END, Pieces, START, UNKNOWN, WINDOW};

/// Pieces that frame a pair: one before, one between and one after.
const FRAME: usize = 3;

/// What a piece is. The numbers are rows of the model's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// One that frames the texts.
    Frame = 0,
    /// Of the first text, and the second has it too.
    FirstShared = 1,
    /// Of the first text alone.
    First = 2,
    /// Of the second text, and the first has it too.
    SecondShared = 3,
    /// Of the second text alone.
    Second = 4,
}

/// Kinds of pieces.
pub const KINDS: usize = 5;

/// A pair of texts in pieces; at most [`WINDOW`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairPieces {
    /// The pieces' numbers.
    pub ids: Vec<u32>,
    /// What each is.
    pub kinds: Vec<PieceKind>,
}

impl PairPieces {
    /// Splits two prompts and lays them out. What the model does not see must be equal.
    pub fn of(one: &str, other: &str) -> Result<Self, VerifyError> {
        let (first, second) = (VOCABULARY.split(one), VOCABULARY.split(other));
        if one.get(first.read..) != other.get(second.read..) {
            return Err(VerifyError::TooLong);
        }
        let unknown = |pieces: &Pieces| pieces.ids.contains(&UNKNOWN);
        if one != other && (unknown(&first) || unknown(&second)) {
            return Err(VerifyError::Unreadable);
        }
        Self::new(&first.ids, &second.ids).ok_or(VerifyError::TooLong)
    }

    /// Lays out two texts, each split with its frame. The order does not matter. What both begin or end with is left
    /// out as far as the window asks for that; `None` where that is not enough.
    fn new(one: &[u32], other: &[u32]) -> Option<Self> {
        let (first, second) = (inner(one), inner(other));
        // One order for both ways round, so that the answer is the same.
        let (first, second) = if first <= second { (first, second) } else { (second, first) };
        let (has_first, has_second) = (set(first), set(second));
        let (first, second) = shortened(first, second)?;
        let length = first.len() + second.len() + FRAME;
        let mut pieces = Self { ids: Vec::with_capacity(length), kinds: Vec::with_capacity(length) };
        pieces.push(START, PieceKind::Frame);
        for &id in first {
            pieces.push(id, if has_second.contains(&id) { PieceKind::FirstShared } else { PieceKind::First });
        }
        pieces.push(END, PieceKind::Frame);
        for &id in second {
            pieces
                .push(id, if has_first.contains(&id) { PieceKind::SecondShared } else { PieceKind::Second });
        }
        pieces.push(END, PieceKind::Frame);
        Some(pieces)
    }

    fn push(&mut self, id: u32, kind: PieceKind) {
        self.ids.push(id);
        self.kinds.push(kind);
    }
}

/// The pieces between those that frame a text.
fn inner(ids: &[u32]) -> &[u32] {
    ids.get(1..ids.len().saturating_sub(1)).unwrap_or_default()
}

fn set(ids: &[u32]) -> HashSet<u32> {
    ids.iter().copied().collect()
}

/// Leaves out what both texts begin with, and what both end with, as far as they are too long together. What stands
/// next to a difference is kept the longest.
fn shortened<'a>(first: &'a [u32], second: &'a [u32]) -> Option<(&'a [u32], &'a [u32])> {
    let excess = (first.len() + second.len() + FRAME).saturating_sub(WINDOW);
    let shorter = first.len().min(second.len());
    let mut before = first.iter().zip(second).take_while(|(one, other)| one == other).count();
    let after = first.iter().rev().zip(second.iter().rev()).take_while(|(one, other)| one == other).count();
    let mut after = after.min(shorter - before);
    let (mut start, mut end) = (0, 0);
    // Each piece left out is left out twice, at the end where more is left.
    for _ in 0..excess.div_ceil(2) {
        if before > after {
            (before, start) = (before - 1, start + 1);
        } else {
            (after, end) = (after.checked_sub(1)?, end + 1);
        }
    }
    let kept = |text: &'a [u32]| text.get(start..text.len().checked_sub(end)?);
    Some((kept(first)?, kept(second)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(inner: &[u32]) -> Vec<u32> {
        [&[START], inner, &[END]].concat()
    }

    #[test]
    fn pieces_know_their_side_and_whether_they_are_shared() {
        use PieceKind::{First, FirstShared, Frame, Second, SecondShared};
        let pieces = PairPieces::new(&framed(&[7, 8]), &framed(&[7, 9, 7])).unwrap();
        assert_eq!(pieces.ids, [START, 7, 8, END, 7, 9, 7, END]);
        let kinds = [Frame, FirstShared, First, Frame, SecondShared, Second, SecondShared, Frame];
        assert_eq!(pieces.kinds, kinds);
    }

    #[test]
    fn long_texts_are_shortened_where_they_are_equal() {
        let (mut one, mut other) = (vec![5; 200], vec![5; 200]);
        one[150] = 1;
        other[150] = 2;
        let pieces = PairPieces::new(&framed(&one), &framed(&other)).unwrap();
        assert!(pieces.ids.len() <= WINDOW && pieces.ids.len() + 2 > WINDOW, "{}", pieces.ids.len());
        assert!(pieces.ids.contains(&1) && pieces.ids.contains(&2));
        let different = PairPieces::new(&framed(&[1; 200]), &framed(&[2; 200]));
        assert_eq!(different, None);
    }

    #[test]
    fn what_the_model_does_not_see_is_not_judged() {
        let long = "word ".repeat(300);
        let refused = PairPieces::of(&format!("{long}one"), &format!("{long}two"));
        assert!(matches!(refused, Err(VerifyError::TooLong)), "{refused:?}");
        for (one, other) in [
            ("Explain \u{1f436}", "Explain \u{1f431}"),
            ("\u{4e70}\u{80a1}\u{7968}", "\u{5356}\u{80a1}\u{7968}"),
        ] {
            let refused = PairPieces::of(one, other);
            assert!(matches!(refused, Err(VerifyError::Unreadable)), "{refused:?}");
        }
        assert!(PairPieces::of("Explain this", "explain that").is_ok());
    }

    proptest! {
        #[test]
        fn a_pair_is_the_same_both_ways_and_fits(
            before in 0_usize..250, after in 0_usize..250,
            one in prop::collection::vec(1000_u32..1005, 0..9), other in prop::collection::vec(1000_u32..1005, 0..9),
        ) {
            let text = |middle: &[u32]| {
                let all = [vec![2000; before], middle.to_vec(), vec![3000; after]].concat();
                framed(&all[..all.len().min(254)])
            };
            let (one, other) = (text(&one), text(&other));
            let pair = PairPieces::new(&one, &other);
            prop_assert_eq!(&pair, &PairPieces::new(&other, &one));
            if let Some(pair) = pair {
                prop_assert!(pair.ids.len() <= WINDOW);
                prop_assert_eq!(pair.ids.len(), pair.kinds.len());
            }
            prop_assert!(PairPieces::new(&one, &one).is_some());
        }
    }
}
