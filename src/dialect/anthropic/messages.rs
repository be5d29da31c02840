//! `POST /v1/messages`: a conversation, and its next message.

use bytes::Bytes;

use super::{is_tool_result, replay, reply};
use crate::dialect::json::{Json, Object};
use crate::dialect::template::Template;
use crate::dialect::turns::{model, plain, take_prompt, turns};
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable, take_outside_scope};

/// Reads a request. One that names a `container` works on what earlier requests left there, and passes
/// through.
pub(crate) fn read(mut body: Json<'_>) -> Option<Request<'_>> {
    let outside = take_outside_scope(&mut body)?;
    let object = body.as_object_mut()?;
    if object.get("container").is_some() {
        return None;
    }
    let model = model(object)?;
    let last = turns(object)?.last_mut()?.as_object_mut()?;
    let user = last.get("role")?.as_str()? == "user";
    let content = last.get_mut("content")?;
    let known =
        content.as_str().is_some() || content.as_array().is_some_and(|parts| parts.iter().all(is_part));
    known.then_some(())?;
    let prompt = if user { user_text(content) } else { None };
    let form = if outside.stream == Some(true) { Form::Sse { usage: true } } else { Form::Json };
    Some(Request { model, prompt, scope: body, form, echo: outside.echo })
}

/// Whether a content part is of a shape known here: it says its kind, and a text part has its text.
fn is_part(part: &Json<'_>) -> bool {
    part.as_object().filter(|part| plain(part)).is_some_and(|part| match kind(part) {
        Some("text") => part.get("text").is_some_and(|text| text.as_str().is_some()),
        Some(_) => true,
        None => false,
    })
}

fn kind<'p>(part: &'p Object<'_>) -> Option<&'p str> {
    part.get("type").and_then(Json::as_str)
}

/// Takes the text of the user's message out: a plain string, or the last text part. A message with a tool's
/// result is no question of the user's and is left whole.
fn user_text(content: &mut Json<'_>) -> Option<String> {
    let Some(parts) = content.as_array_mut() else { return take_prompt(content) };
    let kinds: Vec<_> =
        parts.iter().map(|part| part.as_object().and_then(kind).unwrap_or_default()).collect();
    if kinds.iter().any(|kind| is_tool_result(kind)) {
        return None;
    }
    let at = kinds.iter().rposition(|kind| *kind == "text")?;
    let alone = parts.len() == 1;
    let part = parts.get_mut(at)?.as_object_mut()?;
    let bare = part.len() == 2;
    let prompt = take_prompt(part.get_mut("text")?)?;
    if alone && bare {
        // One text part says the same as the plain string.
        *content = Json::Prompt;
    }
    Some(prompt)
}

/// Gathers a reply from a whole body.
pub(crate) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    reply::gather(form, body)
}

/// Lays a stored message out in the form asked for.
pub(crate) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    replay::replay(document, form)
}
