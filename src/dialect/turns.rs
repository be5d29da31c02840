//! What the readers of a request share: the model, the turns of a conversation, and taking the prompt out.
//!
//! Called by the dialects, after `take_outside_scope`. Knows nothing of what a turn may hold beyond its names.

use super::json::{Json, Object};

/// The `model` of a body; empty where it names none, `None` where it is no text.
pub(crate) fn model(body: &Object<'_>) -> Option<String> {
    match body.get("model") {
        None => Some(String::new()),
        Some(model) => model.as_str().map(str::to_owned),
    }
}

/// Readies a message for the scope. Its members that are `null` are dropped: they count as absent. And its own and those of
/// its content's parts are sorted: of these a model sees the values alone. Of all that is deeper, calls of tools and their
/// arguments, it may see the text, and so the order.
pub(crate) fn settle(message: &mut Object<'_>) {
    message.drop_nulls();
    message.sort();
    let parts = message.get_mut("content").and_then(Json::as_array_mut);
    parts.into_iter().flatten().filter_map(Json::as_object_mut).for_each(Object::sort);
}

/// The `messages` of a body, each settled. `None` where there are none, where one is no object, or where one has a name that a server which folds the case of names
/// would read as another.
pub(crate) fn turns<'b, 'a>(body: &'b mut Object<'a>) -> Option<&'b mut Vec<Json<'a>>> {
    let turns = body.get_mut("messages")?.as_array_mut()?;
    for turn in &mut *turns {
        let turn = turn.as_object_mut()?;
        if !plain(turn) {
            return None;
        }
        settle(turn);
    }
    (!turns.is_empty()).then_some(turns)
}

/// Whether no member's name could be read as another one: Go's `encoding/json`, and so Ollama, folds case, and
/// takes the long s for an s.
pub(crate) fn plain(object: &Object<'_>) -> bool {
    object.iter().all(|(name, _)| !name.chars().any(|c| c.is_uppercase() || c == '\u{17f}'))
}

/// The texts of the user's messages in a scope: the turns before the prompt, which is no text there.
pub(crate) fn users_texts<'s>(scope: &'s Json<'_>) -> impl Iterator<Item = &'s str> {
    let turns = scope.as_object().and_then(|body| body.get("messages").or_else(|| body.get("input")));
    let messages = turns.and_then(Json::as_array).unwrap_or_default().iter().filter_map(Json::as_object);
    let users = messages.filter(|message| message.get("role").and_then(Json::as_str) == Some("user"));
    users.filter_map(|message| message.get("content")).flat_map(|content| {
        let parts = content.as_array().unwrap_or_default().iter().filter_map(Json::as_object);
        let texts = parts.filter_map(|part| part.get("text")?.as_str());
        content.as_str().into_iter().chain(texts)
    })
}

/// Takes the prompt's text out, leaving [`Json::Prompt`] in its place. Blank text stays where it is and is no
/// prompt: there is nothing in it to be compared by meaning. A value that is no text stays too.
pub(crate) fn take_prompt(place: &mut Json<'_>) -> Option<String> {
    if place.as_str()?.trim().is_empty() {
        return None;
    }
    match std::mem::replace(place, Json::Prompt) {
        Json::Text(text) => Some(text.into_owned()),
        _ => None,
    }
}
