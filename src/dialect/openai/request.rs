//! Reading what the endpoints' requests have in common: the model, the form, and where a prompt's text stands.

use std::borrow::Cow;

use crate::dialect::json::{Json, Object};
use crate::dialect::{Form, Outside};

/// Fields under which the reply repeats the prompt: the text of another prompt must not come back in it.
/// `echo` is OpenAI's (completions); the others are vLLM's, and `echo` in chats too.
const PROMPT_IN_REPLY: [&str; 3] = ["echo", "prompt_logprobs", "return_token_ids"];

/// The `model` field: empty where there is none, `None` where it is no text.
pub(super) fn model(body: &Object<'_>) -> Option<String> {
    body.get("model").map_or(Some(String::new()), |model| model.as_str().map(str::to_owned))
}

/// The form of a chat's or a text completion's reply; `None` where `stream_options` is of no known shape.
pub(super) fn form(outside: &Outside<'_>) -> Option<Form> {
    let usage = match &outside.stream_options {
        None => false,
        Some(options) => match options.as_object()?.get("include_usage") {
            None => false,
            Some(include) => include.as_bool()?,
        },
    };
    Some(if outside.stream == Some(true) { Form::Sse { usage } } else { Form::Json })
}

/// Whether the reply would repeat the prompt.
pub(super) fn reply_repeats_prompt(body: &Object<'_>) -> bool {
    PROMPT_IN_REPLY.iter().any(|name| body.get(name).is_some_and(|value| value.as_bool() != Some(false)))
}

/// Takes the text out of a place and leaves [`Json::Prompt`] there; `None`, with the place as it was, where it
/// holds no text or nothing but white space, which has no meaning to search by.
pub(super) fn take_text(place: &mut Json<'_>) -> Option<String> {
    if place.as_str()?.trim().is_empty() {
        return None;
    }
    match std::mem::replace(place, Json::Prompt) {
        Json::Text(text) => Some(text.into_owned()),
        _ => None,
    }
}

/// Takes the text of a user's message out of its `content`: a text, or the last part of type `part` in a list.
///
/// A list of one such part, with nothing else in it, becomes what the plain text would have become.
pub(super) fn take_user_text(message: &mut Object<'_>, part: &str) -> Option<String> {
    let content = message.get_mut("content")?;
    let Some(parts) = content.as_array_mut() else { return take_text(content) };
    let alone = parts.len() == 1;
    let last = parts.iter_mut().rev().find_map(|item| {
        let item = item.as_object_mut()?;
        (item.get("type").and_then(Json::as_str) == Some(part)).then_some(item)
    })?;
    let plain = alone && last.len() == 2;
    let text = take_text(last.get_mut("text")?)?;
    if plain {
        *content = Json::Prompt;
    }
    Some(text)
}

/// Whether a message is of a known shape: a role, and a content that is a text, a list of parts, or absent.
pub(super) fn is_message(message: &Object<'_>) -> bool {
    let content = match message.get("content") {
        None | Some(Json::Text(_)) => true,
        Some(Json::Array(parts)) => parts.iter().all(|part| part.as_object().is_some()),
        Some(_) => false,
    };
    content && message.get("role").is_some_and(|role| role.as_str().is_some())
}

/// Whether a message is the user's.
pub(super) fn is_users(message: &Object<'_>) -> bool {
    message.get("role") == Some(&Json::Text(Cow::Borrowed("user")))
}
