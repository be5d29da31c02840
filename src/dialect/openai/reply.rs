//! Judging and replaying what the endpoints' replies have in common.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::borrowed::BorrowedValue;
use crate::dialect::members::members;
use crate::dialect::template::{Slot, Template, Writer};
use crate::dialect::{ReplayError, Unstorable, Usage};

/// Reads a reply that came as one document. A report of an error is none.
pub(super) fn parse(body: &[u8]) -> Result<BorrowedValue<'_>, Unstorable> {
    let document: BorrowedValue<'_> =
        serde_json::from_slice(body).map_err(|error| Unstorable::malformed(&error))?;
    if !document.is_object() {
        return Err(malformed("no JSON object"));
    }
    if document.get("error").is_some_and(|error| !error.is_null()) {
        return Err(Unstorable::Error);
    }
    Ok(document)
}

/// The error for a reply of no known shape.
pub(super) fn malformed(what: &str) -> Unstorable {
    Unstorable::Malformed(what.to_owned())
}

/// The error for a reply that ended for this reason. One that is not known may hold anything, and errors are
/// logged.
pub(super) fn incomplete(reason: &str) -> Unstorable {
    const KNOWN: [&str; 9] = [
        "cancelled",
        "content_filter",
        "error",
        "in_progress",
        "incomplete",
        "length",
        "max_output_tokens",
        "max_tokens",
        "queued",
    ];
    let known = KNOWN.contains(&reason);
    Unstorable::Incomplete(if known { reason } else { "for a reason not known here" }.to_owned())
}

/// The choices of a reply in the order of their indexes, each with the reason why it ended, which must be a good one.
pub(super) fn whole_choices<'d, 'a>(
    document: &'d BorrowedValue<'a>,
) -> Result<&'d [BorrowedValue<'a>], Unstorable> {
    let choices =
        document.get("choices").and_then(BorrowedValue::as_array).ok_or_else(|| malformed("no choices"))?;
    if choices.is_empty() {
        return Err(Unstorable::Empty);
    }
    let mut before = None;
    for choice in choices {
        // As a stream has them: there a choice is known by its index alone, so that two of one would become one.
        let index = choice.get("index").map_or(Some(0), BorrowedValue::as_u64);
        let index = index.filter(|index| before.is_none_or(|before| before < *index));
        before = Some(index.ok_or_else(|| malformed("a choice's index"))?);
        // A gateway whose own upstream failed says so where the reply would be.
        if choice.get("error").is_some_and(|error| !matches!(error, BorrowedValue::Null)) {
            return Err(Unstorable::Error);
        }
        match choice.get("finish_reason") {
            // OpenAI's reasons for a whole reply, then those that servers which imitate it use for the same.
            Some(BorrowedValue::Text(reason)) => match reason.as_ref() {
                "stop" | "tool_calls" | "function_call" | "eos" | "eos_token" | "stop_sequence"
                | "end_turn" => {}
                _ => return Err(incomplete(reason)),
            },
            Some(BorrowedValue::Null) | None => return Err(Unstorable::Truncated),
            Some(_) => return Err(malformed("finish_reason")),
        }
    }
    Ok(choices)
}

/// The tokens of `usage`, counted under these names; `None` where upstream did not count both. What it tells of them
/// beyond stands in objects of the same names with `_details`.
pub(super) fn usage(document: &BorrowedValue<'_>, input: &str, output: &str) -> Option<Usage> {
    let usage = document.get("usage")?;
    let detail = |of: &str, name: &str| {
        usage
            .get(&format!("{of}_details"))
            .and_then(|details| details.get(name)?.as_u64())
            .unwrap_or_default()
    };
    Some(Usage {
        input: usage.get(input)?.as_u64()?,
        output: usage.get(output)?.as_u64()?,
        cached: detail(input, "cached_tokens"),
        reasoning: detail(output, "reasoning_tokens"),
    })
}

/// A stored document, to be replayed.
pub(super) fn stored(document: &Bytes) -> Result<Value, ReplayError> {
    serde_json::from_slice(document).map_err(|error| ReplayError(error.to_string()))
}

/// Replays a document as it was stored, but for a fresh `id` and `created`.
pub(super) fn replay_json(document: &Bytes) -> Result<Template, ReplayError> {
    #[derive(Deserialize)]
    struct Identified<'a> {
        #[serde(borrow)]
        id: Option<Cow<'a, str>>,
    }
    let id = serde_json::from_slice(document).ok().and_then(|identified: Identified<'_>| identified.id);
    let id = id.unwrap_or_default();
    let mut writer = Writer::new(&id, document);
    splice(&mut writer, document, |_, name, is_number| match name {
        "id" if !id.is_empty() => Some(Writer::mark(Slot::Id)),
        "created" if is_number => Some(Writer::mark(Slot::Created)),
        _ => None,
    })?;
    writer.finish()
}

/// Appends a stored document without a copy, but for the members for which `renew` has a slot: it is given the
/// member's name and whether its value is a number.
pub(super) fn splice(
    writer: &mut Writer,
    document: &Bytes,
    mut renew: impl FnMut(&mut Writer, &str, bool) -> Option<Value>,
) -> Result<(), ReplayError> {
    let text = std::str::from_utf8(document).map_err(|error| ReplayError(error.to_string()))?;
    let mut written = 0;
    for member in members(text).ok_or_else(|| ReplayError("no JSON object".to_owned()))? {
        let is_number = text
            .get(member.value.clone())
            .is_some_and(|value| value.starts_with(|first: char| first.is_ascii_digit()));
        if let Some(slot) = renew(writer, &member.name, is_number) {
            writer.shared(document.slice(written..member.value.start));
            writer.json(&slot);
            written = member.value.end;
        }
    }
    writer.shared(document.slice(written..));
    Ok(())
}

/// How many characters a piece of streamed text has at most: as much as a few tokens, so that no line of a
/// stream is long.
const PIECE: usize = 256;

/// Cuts text into the pieces of a stream, after white space where there is any.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let window = match rest.char_indices().nth(PIECE) {
            Some((end, _)) => rest.split_at(end).0,
            None => rest,
        };
        let cut = if window.len() == rest.len() {
            rest.len()
        } else {
            let space = window.char_indices().rev().find(|(_, c)| c.is_whitespace());
            space.map_or(window.len(), |(at, c)| at + c.len_utf8())
        };
        let (piece, after) = rest.split_at(cut);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_end_after_white_space() {
        let text = "word ".repeat(200);
        let found: Vec<_> = pieces(&text).collect();
        assert!(found.len() > 3 && found.iter().all(|piece| piece.ends_with(' ')));
        assert_eq!(pieces("").count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_are_the_text(text in "(\\PC|[ \n]){0,900}") {
            let found: Vec<_> = pieces(&text).collect();
            prop_assert_eq!(found.concat(), text.as_str());
            prop_assert!(found.iter().all(|piece| (1..=PIECE).contains(&piece.chars().count())));
        }
    }
}
