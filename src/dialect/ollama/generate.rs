//! `POST /api/generate`: one prompt, one text.

use bytes::Bytes;

use super::{Shape, form, replay, reply};
use crate::dialect::json::Json;
use crate::dialect::template::Template;
use crate::dialect::turns::{model, take_prompt};
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable, take_outside_scope};

/// Reads a request. Without a prompt it asks to load or unload the model, and passes through.
pub(crate) fn read(mut body: Json<'_>) -> Option<Request<'_>> {
    let outside = take_outside_scope(&mut body)?;
    let object = body.as_object_mut()?;
    let model = model(object)?;
    let place = object.get_mut("prompt")?;
    if place.as_str()?.is_empty() {
        return None;
    }
    let prompt = take_prompt(place);
    Some(Request { model, prompt, scope: body, form: form(&outside), echo: outside.echo })
}

pub(crate) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    reply::gather(Shape::Generate, form, body)
}

pub(crate) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    replay::replay(Shape::Generate, document, form)
}
