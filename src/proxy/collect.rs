//! Bodies that are read here: of requests, to see what they ask, as far as they may be and there is room.
//!
//! Called by the rest of `proxy`, and by `admin` and `cli` for what comes piece by piece. What is not read goes on as it comes
//! ([`super::body`]).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

use super::body::{BodyError, Idle};
use super::budget::{Budget, Buffer};

/// What of a body was read for caching.
#[derive(Debug)]
pub enum Collected {
    /// All of it.
    Whole(Bytes),
    /// It is larger than the limit: what was read, and the rest.
    TooLarge(Vec<Bytes>, Incoming),
    /// The memory for bodies has no room for it: what was read, and the rest.
    NoRoom(Vec<Bytes>, Incoming),
}

/// A body that is being read for caching, up to its second piece: most come in one, which needs no copy, and whose memory
/// is the connection's.
#[derive(Debug)]
pub struct Beginning {
    incoming: Incoming,
    first: Bytes,
    wait: Idle,
}

/// How a body begins.
#[derive(Debug)]
pub enum Begun {
    /// This is all of it.
    Whole(Bytes),
    /// More may follow these.
    Pieces([Bytes; 2]),
}

impl Beginning {
    /// Begins to read; nothing may come for no longer than `idle`.
    pub fn new(incoming: Incoming, idle: Duration) -> Self {
        Self { incoming, first: Bytes::new(), wait: Idle::new(idle) }
    }

    /// Ready once with how it begins.
    ///
    /// # Errors
    /// The other side failed, or nothing came for too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Begun, BodyError>> {
        loop {
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Ok(Begun::Whole(std::mem::take(&mut self.first)))),
                Poll::Pending => return self.wait.poll(cx).map(|limit| Err(BodyError::Idle(limit))),
            };
            self.wait.reset();
            // Trailers go no further: none of the APIs has any.
            let Ok(data) = frame.into_data() else { continue };
            if !self.first.is_empty() {
                return Poll::Ready(Ok(Begun::Pieces([std::mem::take(&mut self.first), data])));
            }
            self.first = data;
            if self.incoming.is_end_stream() {
                return Poll::Ready(Ok(Begun::Whole(std::mem::take(&mut self.first))));
            }
        }
    }

    /// Goes on with a body of at most `limit` bytes, as far as there is room for it.
    ///
    /// # Errors
    /// The other side failed, or nothing came for too long.
    pub async fn rest(self, begun: Begun, limit: usize, budget: &Budget) -> Result<Collected, BodyError> {
        match begun {
            Begun::Whole(body) if body.len() <= limit => Ok(Collected::Whole(body)),
            Begun::Whole(body) => Ok(Collected::TooLarge(vec![body], self.incoming)),
            Begun::Pieces(read) => {
                collect_pieces(self.incoming, read, limit, self.wait.limit(), budget).await
            }
        }
    }
}

/// Whether a body says that it is larger than this.
pub fn is_larger(incoming: &Incoming, limit: usize) -> bool {
    incoming.size_hint().lower() > limit as u64
}

/// Reads a body of at most `limit` bytes, as far as there is room for it.
///
/// # Errors
/// The other side failed, or nothing came for longer than `idle`.
pub async fn collect(
    incoming: Incoming,
    limit: usize,
    idle: Duration,
    budget: &Budget,
) -> Result<Collected, BodyError> {
    if is_larger(&incoming, limit) {
        return Ok(Collected::TooLarge(Vec::new(), incoming));
    }
    let mut beginning = Beginning::new(incoming, idle);
    let begun = std::future::poll_fn(|cx| beginning.poll(cx)).await?;
    beginning.rest(begun, limit, budget).await
}

/// Goes on reading a body that comes in pieces; `read` is what has come of it.
async fn collect_pieces(
    mut incoming: Incoming,
    read: [Bytes; 2],
    limit: usize,
    idle: Duration,
    budget: &Budget,
) -> Result<Collected, BodyError> {
    let mut all = budget.buffer();
    let [first, second] = read;
    // What does not fit makes the rest of it pass: with the pieces before it, as they are.
    let add = |all: &mut Buffer, data: &Bytes| match all.len() + data.len() <= limit {
        true if all.add(data) => None,
        true => Some(Collected::NoRoom as fn(_, _) -> _),
        false => Some(Collected::TooLarge as fn(_, _) -> _),
    };
    if let Some(instead) = add(&mut all, &first).or_else(|| add(&mut all, &second)) {
        return Ok(instead(vec![first, second], incoming));
    }
    while let Some(data) = next_data(&mut incoming, idle).await {
        let data = data?;
        if let Some(instead) = add(&mut all, &data) {
            return Ok(instead(vec![all.freeze(), data], incoming));
        }
    }
    Ok(Collected::Whole(all.freeze()))
}

/// The next piece of a body that is read here; `None` at its end. Trailers go no further: none of the APIs has any.
///
/// # Errors
/// The other side failed, or nothing came for longer than `idle`.
pub async fn next_data(incoming: &mut Incoming, idle: Duration) -> Option<Result<Bytes, BodyError>> {
    let mut wait = Idle::new(idle);
    loop {
        let frame = std::future::poll_fn(|cx| match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Hyper))),
            Poll::Pending => wait.poll(cx).map(|limit| Some(Err(BodyError::Idle(limit)))),
        })
        .await;
        wait.reset();
        match frame?.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}
