//! The endpoints' promises, on documents of the shapes that the API's reference describes.

mod gather;
mod read;
mod replay;
mod round_trip;
mod usage;

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use crate::dialect::json::Json;
use crate::dialect::{Echo, Endpoint, Form, Reply, Request, Unstorable};

pub(super) const CHAT: &str = include_str!("data/chat.json");
pub(super) const CHAT_TOOLS: &str = include_str!("data/chat_tools.json");
pub(super) const CHAT_LOGPROBS: &str = include_str!("data/chat_logprobs.json");
pub(super) const COMPLETION: &str = include_str!("data/completion.json");
pub(super) const RESPONSE: &str = include_str!("data/response.json");

pub(super) const SSE: Form = Form::Sse { usage: true };

fn read(endpoint: Endpoint, body: &str) -> Option<Request<'_>> {
    endpoint.read(Json::parse(body.as_bytes()).unwrap())
}

fn gather(endpoint: Endpoint, form: Form, body: &str) -> Result<Reply, Unstorable> {
    endpoint.gather(form, &Bytes::copy_from_slice(body.as_bytes()))
}

/// A replay at a second that is easy to see.
fn replay(endpoint: Endpoint, document: &str, form: Form, echo: &Echo) -> String {
    let template = endpoint.replay(&Bytes::copy_from_slice(document.as_bytes()), form).unwrap();
    let bytes = template.render(echo, UNIX_EPOCH + Duration::from_secs(2_000_000_000));
    String::from_utf8(bytes.to_vec()).unwrap()
}
