//! A body whose end is the end of a span.
//!
//! Called by [`super::body`]; made by `server` for a client's request, and by [`super::pass`] for one of upstream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Body, BodyError};
use crate::trace::Span;

/// See the module.
#[derive(Debug)]
pub struct Traced {
    body: Body,
    span: Span,
    /// How many bytes are to come, where that is known: whoever takes the last does not ask for an end.
    left: Option<u64>,
}

impl Traced {
    /// A body and its span; `length` is what the head promises.
    pub(super) fn new(body: Body, span: Span, length: Option<u64>) -> Self {
        let left = length.or_else(|| body.size_hint().exact());
        let mut traced = Self { body, span, left };
        traced.finish_if_done();
        traced
    }

    fn finish_if_done(&mut self) {
        if self.left == Some(0) || self.body.is_end_stream() {
            self.span.finish();
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
                self.finish_if_done();
            }
            Some(Err(error)) => {
                self.span.fail(error.kind());
                self.span.finish();
            }
            None => self.span.finish(),
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
