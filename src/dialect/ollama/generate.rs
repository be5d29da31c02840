use bytes::Bytes;

use crate::dialect::json::Json;
use crate::dialect::template::Template;
use crate::dialect::{Form, ReplayError, Reply, Request, Unstorable};

pub(crate) fn read(_body: Json<'_>) -> Option<Request<'_>> {
    None
}

pub(crate) fn gather(_form: Form, _body: &Bytes) -> Result<Reply, Unstorable> {
    Err(Unstorable::Empty)
}

pub(crate) fn replay(_document: &Bytes, _form: Form) -> Result<Template, ReplayError> {
    Err(ReplayError(String::new()))
}
