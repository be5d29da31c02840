//! `POST /v1/embeddings` (<https://platform.openai.com/docs/api-reference/embeddings>): the exact layer alone.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::reply::malformed;
use super::request;
use crate::dialect::json::Json;
use crate::dialect::template::{Template, Writer};
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable, Usage, take_outside_scope};

/// Reads a request: all of it is the scope, `encoding_format` too, so that a reply is replayed as it came.
pub(crate) fn read(mut body: Json<'_>) -> Option<Request<'_>> {
    let outside = take_outside_scope(&mut body)?;
    let object = body.as_object()?;
    let model = request::model(object)?;
    if outside.stream == Some(true) || !matches!(object.get("input")?, Json::Text(_) | Json::Array(_)) {
        return None;
    }
    Some(Request { model, prompt: None, scope: body, form: Form::Json, echo: outside.echo })
}

/// Of a reply only what judging it needs: the numbers are never read.
#[derive(Deserialize)]
struct Document<'a> {
    error: Option<IgnoredAny>,
    #[serde(borrow)]
    data: Option<Vec<Item<'a>>>,
    usage: Option<Counted>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Deserialize)]
struct Counted {
    prompt_tokens: Option<u64>,
}

/// Gathers a reply.
pub(crate) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    if form != Form::Json {
        return Err(malformed("a stream"));
    }
    let document: Document<'_> =
        serde_json::from_slice(body).map_err(|error| Unstorable::malformed(&error))?;
    if document.error.is_some() {
        return Err(Unstorable::Error);
    }
    let data = document.data.ok_or_else(|| malformed("no data"))?;
    if data.is_empty() {
        return Err(Unstorable::Empty);
    }
    for Item { embedding } in &data {
        // Numbers, or their bytes in base64.
        let text = embedding.get();
        if !text.starts_with(['[', '"']) {
            return Err(malformed("an embedding"));
        }
        if text.get(1..text.len() - 1).is_none_or(|inner| inner.trim().is_empty()) {
            return Err(Unstorable::Empty);
        }
    }
    let usage = document.usage.and_then(|usage| usage.prompt_tokens);
    Ok(Reply {
        document: body.clone(),
        text: String::new(),
        tool_calls: false,
        usage: usage.map(|input| Usage { input, output: 0, ..Usage::default() }),
    })
}

/// Replays a stored reply as it is.
pub(crate) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    if form != Form::Json {
        return Err(ReplayError("embeddings have no stream".to_owned()));
    }
    let mut writer = Writer::new("", document);
    writer.shared(document.clone());
    writer.finish()
}
