//! A text cut into the pieces in which a replay streams it.
//!
//! Called by the dialects when they lay a stored reply out as a stream. Knows nothing of any framing.

use unicode_segmentation::GraphemeCursor;

/// How many characters a piece has at most: a few hundred events for a long reply, each small enough to show
/// at once.
const LONGEST: usize = 256;

/// The pieces of `text`, in order and none empty; together they are the text.
///
/// Each is at most 256 characters long and ends after white space, or else between two grapheme clusters
/// (UAX #29), so that no reader ever shows half an emoji. Only a single cluster of more than 256 characters
/// makes a longer piece.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, next) = rest.split_at_checked(cut(rest)).unwrap_or((rest, ""));
        rest = next;
        Some(piece)
    })
}

/// The length of the first piece, in bytes; never zero where there is text.
fn cut(text: &str) -> usize {
    let Some((limit, _)) = text.char_indices().nth(LONGEST) else { return text.len() };
    let window = text.get(..limit).unwrap_or(text);
    let after_space = window
        .char_indices()
        .rev()
        .filter(|(_, c)| c.is_whitespace())
        .map(|(at, c)| at + c.len_utf8())
        .find(|end| is_boundary(text, *end));
    after_space.unwrap_or_else(|| last_boundary(text, limit))
}

/// Whether a cluster ends at `at`. White space may carry a combining mark.
fn is_boundary(text: &str, at: usize) -> bool {
    GraphemeCursor::new(at, text.len(), true).is_boundary(text, 0).unwrap_or(false)
}

/// The last end of a cluster at or before `limit`, or the first one after it where there is none before.
fn last_boundary(text: &str, limit: usize) -> usize {
    if is_boundary(text, limit) {
        return limit;
    }
    let mut cursor = GraphemeCursor::new(limit, text.len(), true);
    match cursor.prev_boundary(text, 0) {
        Ok(Some(at)) if at > 0 => at,
        _ => {
            let mut cursor = GraphemeCursor::new(limit, text.len(), true);
            cursor.next_boundary(text, 0).ok().flatten().unwrap_or(text.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_segmentation::UnicodeSegmentation;

    use super::*;

    #[test]
    fn short_texts_are_one_piece_and_none_is_no_piece() {
        assert_eq!(pieces("").count(), 0);
        assert_eq!(pieces("one two").collect::<Vec<_>>(), ["one two"]);
    }

    #[test]
    fn long_texts_are_cut_after_white_space() {
        let text = "word ".repeat(100);
        let all: Vec<_> = pieces(&text).collect();
        assert_eq!(all.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [255, 245]);
        assert!(all.iter().all(|piece| piece.ends_with(' ')));
    }

    #[test]
    fn clusters_stay_whole() {
        let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        let text = family.repeat(200);
        assert!(pieces(&text).all(|piece| piece.len() % family.len() == 0));
        let marked = format!("e{}", "\u{301}".repeat(1_000));
        assert_eq!(pieces(&marked).collect::<Vec<_>>(), [marked.as_str()]);
        let spaced = format!("{} \u{301}{}", "a".repeat(200), "a".repeat(200));
        assert!(pieces(&spaced).all(|piece| !piece.starts_with('\u{301}')));
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text(text in "([ab ]|\\PC|\r\n|\u{301}|\u{1f1e6}|\u{200d}){0,1200}") {
            let all: Vec<_> = pieces(&text).collect();
            prop_assert_eq!(all.concat(), text.as_str());
            let ends: std::collections::HashSet<usize> =
                text.grapheme_indices(true).map(|(at, cluster)| at + cluster.len()).collect();
            let mut at = 0;
            for piece in all {
                prop_assert!(!piece.is_empty());
                at += piece.len();
                prop_assert!(ends.contains(&at));
                prop_assert!(piece.chars().count() <= LONGEST || piece.graphemes(true).count() == 1);
            }
        }
    }
}
