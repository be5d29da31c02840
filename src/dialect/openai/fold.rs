//! A stream of chunks folded into the document that the endpoint answers with when it does not stream.
//!
//! Called by `chat` and `completions`, whose choices fold each in their own way ([`Choice`]). Where two chunks
//! say something that this house does not know how to put together, the reply is not stored: a wrong one would
//! be worse.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::reply::malformed;
use crate::dialect::Unstorable;
use crate::dialect::sse;

/// One choice of a reply, as it arrives.
pub(super) trait Choice: Default {
    /// Takes in a choice of one chunk, its index aside.
    fn absorb(&mut self, part: Map<String, Value>) -> Result<(), Unstorable>;
    /// The choice as the unstreamed document has it, its index aside.
    fn finish(self) -> Map<String, Value>;
}

/// Folds a whole stream into the document whose `object` is given.
pub(super) fn fold<C: Choice>(body: &[u8], object: &str) -> Result<Value, Unstorable> {
    let mut head = Map::new();
    let mut rest = Map::new();
    let mut choices: BTreeMap<u64, C> = BTreeMap::new();
    let mut done = false;
    for event in sse::events(body) {
        if event.name == "error" {
            return Err(Unstorable::Error);
        }
        if *event.data == *b"[DONE]" {
            done = true;
            break;
        }
        let chunk: Map<String, Value> =
            serde_json::from_slice(&event.data).map_err(|error| Unstorable::malformed(&error))?;
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(Unstorable::Error);
        }
        for (name, value) in chunk {
            match (name.as_str(), value) {
                // What pads a chunk against eavesdroppers is no part of the reply.
                ("object" | "obfuscation", _) | ("choices", Value::Null) => {}
                ("choices", Value::Array(parts)) => absorb_choices(parts, &mut choices)?,
                ("choices", _) => return Err(malformed("choices")),
                ("id" | "created" | "model", value) => keep_first(&mut head, name, value),
                (_, value) => keep_last(&mut rest, name, value),
            }
        }
    }
    if !done {
        return Err(Unstorable::Truncated);
    }
    let choices = choices.into_iter().map(|(index, choice)| {
        let mut whole = Map::new();
        whole.insert("index".to_owned(), index.into());
        whole.extend(choice.finish());
        Value::Object(whole)
    });
    let mut document = Map::new();
    document.extend(head.remove_entry("id"));
    document.insert("object".to_owned(), object.into());
    document.extend(head.remove_entry("created"));
    document.extend(head.remove_entry("model"));
    document.insert("choices".to_owned(), choices.collect());
    document.extend(rest.shift_remove_entry("usage").filter(|(_, usage)| !usage.is_null()));
    document.extend(rest);
    Ok(Value::Object(document))
}

fn absorb_choices<C: Choice>(parts: Vec<Value>, choices: &mut BTreeMap<u64, C>) -> Result<(), Unstorable> {
    for part in parts {
        let Value::Object(mut part) = part else { return Err(malformed("a choice")) };
        let index = match part.shift_remove("index") {
            // Servers written in Go may leave out what is zero.
            None => 0,
            Some(index) => index.as_u64().ok_or_else(|| malformed("a choice's index"))?,
        };
        choices.entry(index).or_default().absorb(part)?;
    }
    Ok(())
}

/// Keeps the first value that says something: Azure's first chunk has an empty `id` and `model`, and a `created`
/// of zero.
fn keep_first(kept: &mut Map<String, Value>, name: String, value: Value) {
    if kept.get(&name).is_none_or(|old| *old == "" || *old == 0 || old.is_null()) {
        kept.insert(name, value);
    }
}

/// Keeps the last value that is not `null`.
pub(super) fn keep_last(kept: &mut Map<String, Value>, name: String, value: Value) {
    if !(value.is_null() && kept.contains_key(&name)) {
        kept.insert(name, value);
    }
}

/// Appends text to a text member, which may have been `null` or absent until now.
pub(super) fn append_text(
    kept: &mut Map<String, Value>,
    name: String,
    text: String,
) -> Result<(), Unstorable> {
    match kept.get_mut(&name) {
        Some(Value::String(whole)) => whole.push_str(&text),
        None | Some(Value::Null) => {
            kept.insert(name, Value::String(text));
        }
        Some(_) => return Err(malformed(&name)),
    }
    Ok(())
}

/// Keeps a value of unknown meaning. One chunk may bring it; another that brings more of it, in lists or
/// objects, would need a rule to join the two.
pub(super) fn keep_once(kept: &mut Map<String, Value>, name: String, value: Value) -> Result<(), Unstorable> {
    let says_something = |value: &Value| match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => false,
    };
    if says_something(&value) && kept.get(&name).is_some_and(|old| says_something(old) && *old != value) {
        return Err(malformed(&name));
    }
    keep_last(kept, name, value);
    Ok(())
}

/// Appends a chunk's `logprobs` to those before: an object of lists.
pub(super) fn append_logprobs(kept: &mut Value, logprobs: Value) -> Result<(), Unstorable> {
    let logprobs = match logprobs {
        Value::Null => return Ok(()),
        Value::Object(logprobs) => logprobs,
        _ => return Err(malformed("logprobs")),
    };
    let Value::Object(kept) = kept else {
        *kept = Value::Object(logprobs);
        return Ok(());
    };
    for (name, value) in logprobs {
        match (kept.get_mut(&name), value) {
            (Some(Value::Array(whole)), Value::Array(more)) => whole.extend(more),
            (None | Some(Value::Null), value) => {
                kept.insert(name, value);
            }
            (Some(_), Value::Null) => {}
            (Some(_), _) => return Err(malformed("logprobs")),
        }
    }
    Ok(())
}

/// Keeps a value that arrives whole, once or again and again the same.
pub(super) fn keep_same(kept: &mut Map<String, Value>, name: String, value: Value) -> Result<(), Unstorable> {
    let says_nothing = |value: &Value| value.is_null() || *value == "";
    match kept.get(&name) {
        Some(old) if !says_nothing(old) => {
            if !says_nothing(&value) && *old != value {
                return Err(malformed(&name));
            }
        }
        Some(_) if says_nothing(&value) => {}
        _ => {
            kept.insert(name, value);
        }
    }
    Ok(())
}
