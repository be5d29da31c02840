//! `POST /api/chat`: a conversation, and its next message.

use bytes::Bytes;

use super::{Shape, form, replay, reply};
use crate::dialect::json::Json;
use crate::dialect::template::Template;
use crate::dialect::turns::{model, take_prompt, turns};
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable, take_outside_scope};

/// Reads a request. Without messages it asks to load or unload the model, and passes through.
pub(crate) fn read(mut body: Json<'_>) -> Option<Request<'_>> {
    let outside = take_outside_scope(&mut body)?;
    let object = body.as_object_mut()?;
    let model = model(object)?;
    let last = turns(object)?.last_mut()?.as_object_mut()?;
    let user = last.get("role")?.as_str()? == "user";
    let prompt = match last.get_mut("content") {
        Some(content) if content.as_str().is_none() => return None,
        // The message's images and all else stay in the scope.
        Some(content) if user => take_prompt(content),
        _ => None,
    };
    Some(Request { model, prompt, scope: body, form: form(&outside), echo: outside.echo })
}

pub(crate) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    reply::gather(Shape::Chat, form, body)
}

pub(crate) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    replay::replay(Shape::Chat, document, form)
}
