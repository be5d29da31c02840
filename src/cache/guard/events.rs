//! Finds what the asker says of events: what is done, what is being done, what is still to be done.
//!
//! Called by [`super::prepare`]; compared by [`super::differ`]. Only of the asker's own: what holds in general is asked about in the
//! present and the future alike ("What happens if I stop?", "What will happen if I stop?").

use super::lexicon::LEXICON;
use super::prepare::{Piece, Prepared};

/// When something happens, seen from when it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Done,
    Now,
    ToCome,
}

/// What somebody does, and when.
#[derive(Debug)]
pub(super) struct Event {
    /// The base form of its verb.
    verb: String,
    when: When,
}

/// What two prompts say of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// Nothing that differs.
    Alike,
    /// It is done in one and goes on in the other, which may be one thing: "I'm getting an error", "I got an error".
    Unclear,
    /// It is done in one and still to come in the other.
    Differ,
}

/// Compares the events of both prompts.
pub(super) fn times(one: &Prepared, other: &Prepared) -> Times {
    let only = |prompt: &Prepared, verb: &str, when: When| {
        let mut all = prompt.events.iter().filter(|event| event.verb == verb).peekable();
        all.peek().is_some() && all.all(|event| event.when == when)
    };
    let against = |when: When| {
        one.events.iter().any(|Event { verb, .. }| {
            only(one, verb, When::Done) && only(other, verb, when)
                || only(one, verb, when) && only(other, verb, When::Done)
        })
    };
    if against(When::ToCome) {
        Times::Differ
    } else if against(When::Now) {
        Times::Unclear
    } else {
        Times::Alike
    }
}

/// What the asker, or something of the asker's, does: `I am going to quit`, `my wife has quit`.
pub(super) fn events(pieces: &[Piece]) -> Vec<Event> {
    // More is no question about one of them.
    const MOST: usize = 16;
    let text = |at: usize| pieces.get(at).map_or("", |piece| piece.text.as_str());
    // "If I go": no more than thought of. "Did I go": a question about it.
    let thought_of = |at: usize| CONDITIONS.contains(&at.checked_sub(1).map_or("", text));
    let subjects = pieces.iter().enumerate().filter(|(_, piece)| piece.token.verbatim.is_none());
    subjects
        .flat_map(|(at, piece)| match piece.text.as_str() {
            "i" | "we" if !thought_of(at) => at + 1..at + 2,
            // My wife, my old car.
            "my" | "our" if !thought_of(at) => at + 2..at + 4,
            _ => 0..0,
        })
        .filter_map(|at| event(pieces, at))
        .take(MOST)
        .collect()
}

/// The event of the verb that begins at `at`.
fn event(pieces: &[Piece], at: usize) -> Option<Event> {
    let text = |at: usize| pieces.get(at).map_or("", |piece| piece.text.as_str());
    let verb = |at: usize, when: When, is: fn(&Piece) -> bool| {
        let piece = pieces
            .get(at)
            .filter(|piece| !piece.after_stop && piece.token.verbatim.is_none() && is(piece))?;
        Some(Event { verb: piece.base.clone(), when })
    };
    let skipped =
        |at: usize| at + usize::from(matches!(text(at), "already" | "recently" | "now" | "finally" | "soon"));
    let next = skipped(at + 1);
    match text(at) {
        "am" | "are" | "is" if matches!(text(next), "going" | "about") && text(next + 1) == "to" => {
            verb(next + 2, When::ToCome, is_infinitive)
        }
        "am" | "are" | "is" => verb(next, When::Now, is_progressive),
        "will" => verb(next, When::ToCome, is_infinitive),
        "have" | "has" => verb(next, When::Done, is_past),
        _ => verb(skipped(at), When::Done, is_past),
    }
}

fn is_verb(piece: &Piece) -> bool {
    LEXICON.word(&piece.base).is_some_and(|word| word.parts.contains('v'))
}

fn is_infinitive(piece: &Piece) -> bool {
    piece.text == piece.base && is_verb(piece)
}

fn is_progressive(piece: &Piece) -> bool {
    piece.text != piece.base && piece.text.ends_with("ing") && is_verb(piece)
}

fn is_past(piece: &Piece) -> bool {
    let changed = piece.text != piece.base && !piece.text.ends_with("ing") && !piece.text.ends_with('s');
    (changed || UNCHANGED.contains(&piece.text.as_str())) && is_verb(piece)
}

/// Verbs that look in the past as in the present.
const UNCHANGED: &[&str] =
    &["bet", "burst", "cast", "cost", "cut", "hit", "hurt", "put", "quit", "set", "shut", "split", "spread"];

/// Words behind which an event is thought of or asked about, not told.
const CONDITIONS: &[&str] = &[
    "if", "when", "after", "before", "until", "till", "once", "unless", "whether", "do", "did", "does",
    "can", "could", "should", "would", "will", "have", "had", "am", "are",
];
