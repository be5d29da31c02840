//! `POST /api/embed` and the older `POST /api/embeddings`: texts to vectors, by the exact layer alone.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::dialect::json::Json;
use crate::dialect::template::{Template, Writer};
use crate::dialect::turns::model;
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable, Usage, take_outside_scope};

/// Reads a request: `input` is a text or an array of texts, the older endpoint's `prompt` a text. Without any
/// it asks to load the model, and passes through.
pub(crate) fn read(mut body: Json<'_>) -> Option<Request<'_>> {
    let outside = take_outside_scope(&mut body)?;
    let object = body.as_object_mut()?;
    let model = model(object)?;
    let known = match (object.get("input"), object.get("prompt")) {
        (Some(Json::Text(text)), None) | (None, Some(Json::Text(text))) => !text.is_empty(),
        (Some(Json::Array(texts)), None) => {
            !texts.is_empty() && texts.iter().all(|text| text.as_str().is_some())
        }
        _ => false,
    };
    known.then_some(())?;
    Some(Request { model, prompt: None, scope: body, form: Form::Json, echo: outside.echo })
}

/// What decides about a reply; a vector's numbers are counted and no more.
#[derive(Deserialize)]
struct Vectors {
    error: Option<IgnoredAny>,
    /// `/api/embed`
    embeddings: Option<Vec<Vec<IgnoredAny>>>,
    /// `/api/embeddings`
    embedding: Option<Vec<IgnoredAny>>,
    prompt_eval_count: Option<u64>,
}

pub(crate) fn gather(form: Form, body: &Bytes) -> Result<Reply, Unstorable> {
    if form != Form::Json {
        return Err(Unstorable::Malformed("embeddings in pieces".to_owned()));
    }
    let vectors: Vectors = serde_json::from_slice(body).map_err(|error| Unstorable::malformed(&error))?;
    if vectors.error.is_some() {
        return Err(Unstorable::Error);
    }
    let all = vectors.embeddings.unwrap_or_default();
    let one = vectors.embedding.unwrap_or_default();
    if one.is_empty() && (all.is_empty() || all.iter().any(Vec::is_empty)) {
        return Err(Unstorable::Empty);
    }
    Ok(Reply {
        document: body.clone(),
        text: String::new(),
        tool_calls: false,
        usage: vectors.prompt_eval_count.map(|input| Usage { input, output: 0, ..Usage::default() }),
    })
}

/// The stored document as it is: nothing in it differs from replay to replay.
pub(crate) fn replay(document: &Bytes, form: Form) -> Result<Template, ReplayError> {
    if form != Form::Json {
        return Err(ReplayError("embeddings come as one document".to_owned()));
    }
    let mut writer = Writer::new("", document);
    writer.shared(document.clone());
    writer.finish()
}
