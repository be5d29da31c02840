//! The one body type of everything that travels, either way.
//!
//! Called by `proxy` and `server`. Each kind passes on what it has at once and asks for no more than is taken,
//! so that back-pressure reaches the other side.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;

use super::fetch::FlightReader;
use super::headers::strip_trailers;
use super::permits::Permit;
use super::pump::Pumped;
use super::traced::Traced;
use crate::dialect::openai::usage::UsageFilter;
use crate::trace::Span;

/// A body on its way.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// All of it, of known length.
    Whole(Bytes),
    /// All of it, sent like a stream: without its length ahead.
    Streamed(Bytes),
    /// What comes from the other side, passed on.
    Relayed(Box<Relayed>),
    /// A reply that others may be reading too.
    Flight(Box<Flight>),
    /// What somebody here makes piece by piece, no faster than it is taken.
    Produced(mpsc::Receiver<Result<Bytes, BodyError>>),
    /// What comes by a task of its own, see [`super::pump`].
    Pumped(Pumped),
    /// What broke off, and is about to say so.
    Broken(BodyError),
    /// Any of these, whose end is the end of a span.
    Traced(Box<Traced>),
}

/// A body passed on from one connection to another.
#[derive(Debug)]
pub struct Relayed {
    /// What was read already, the last first.
    prefix: Vec<Bytes>,
    incoming: Incoming,
    idle: Idle,
    /// Held until the body has passed.
    _permit: Option<Permit>,
    /// Whose turn it is; dropped when the body has passed.
    turn: Option<watch::Sender<Turn>>,
}

/// On whom an upload waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// On the client, for the next piece.
    Client,
    /// On upstream, to take the piece it was given.
    Upstream,
}

/// A body on its way upstream, as seen from beside.
#[derive(Debug)]
pub struct Upload(Option<watch::Receiver<Turn>>);

impl Upload {
    /// Resolves when the body has passed, or will not.
    ///
    /// # Errors
    /// Upstream took nothing of it for longer than `limit`. A client that sends nothing is the body's own matter.
    pub async fn passed(mut self, limit: Duration) -> Result<(), BodyError> {
        let Some(turn) = &mut self.0 else { return Ok(()) };
        loop {
            let waits_on = *turn.borrow_and_update();
            // The other end is dropped when the body has passed.
            let passed = match waits_on {
                Turn::Client => turn.changed().await.is_err(),
                Turn::Upstream => match tokio::time::timeout(limit, turn.changed()).await {
                    Ok(changed) => changed.is_err(),
                    Err(_) => return Err(BodyError::Idle(limit)),
                },
            };
            if passed {
                return Ok(());
            }
        }
    }
}

/// A reader's view of a shared reply.
#[derive(Debug)]
pub struct Flight {
    reader: FlightReader,
    filter: Option<UsageFilter>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side failed.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    /// The shared reply was cut off.
    #[error(transparent)]
    Cut(#[from] crate::cache::coalesce::Cut),
    /// The store did not give what was to come.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl BodyError {
    /// A name of few, for spans.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Hyper(_) | Self::Cut(_) => "upstream_disconnected",
            Self::Idle(_) => "upstream_timeout",
            Self::Store(_) => "store_unavailable",
        }
    }
}

impl Body {
    /// The same, ending a span with it. `length` is what its head promises.
    #[must_use]
    pub fn traced(self, span: Span, length: Option<u64>) -> Self {
        if span.is_recorded() { Self::Traced(Box::new(Traced::new(self, span, length))) } else { self }
    }

    /// Passes a body on. More than `idle` between two pieces breaks it off.
    pub fn relayed(incoming: Incoming, idle: Duration, permit: Option<Permit>) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Relayed(Box::new(Relayed {
            prefix: Vec::new(),
            incoming,
            idle: Idle::new(idle),
            _permit: permit,
            turn: None,
        }))
    }

    /// Passes on the rest of a body whose beginning was read.
    pub fn continued(mut prefix: Vec<Bytes>, incoming: Incoming, idle: Duration) -> Self {
        prefix.retain(|piece| !piece.is_empty());
        prefix.reverse();
        let idle = Idle::new(idle);
        Self::Relayed(Box::new(Relayed { prefix, incoming, idle, _permit: None, turn: None }))
    }

    /// Watches a body that is about to go upstream.
    pub fn upload(&mut self) -> Upload {
        let Self::Relayed(relayed) = self else { return Upload(None) };
        // Until it asks for the first piece the wait is for upstream too, which may not have taken the connection yet.
        let (turn, watched) = watch::channel(Turn::Upstream);
        relayed.turn = Some(turn);
        Upload(Some(watched))
    }

    /// A reply that others may be reading too; `filter` takes out what this client did not ask for.
    pub fn flight(reader: FlightReader, filter: Option<UsageFilter>) -> Self {
        Self::Flight(Box::new(Flight { reader, filter }))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        match body {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) | Self::Streamed(bytes) => {
                let bytes = std::mem::take(bytes);
                *body = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Relayed(_) | Self::Flight(_) | Self::Produced(_) | Self::Pumped(_) => {
                let frame = ready!(match body {
                    Self::Relayed(relayed) => relayed.poll(cx),
                    Self::Flight(flight) => flight.poll(cx),
                    Self::Pumped(pieces) => pieces.poll_recv(cx),
                    Self::Produced(pieces) => {
                        pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
                    }
                    _ => Poll::Ready(None),
                });
                let Some(Err(error)) = frame else { return Poll::Ready(frame) };
                // hyper drops what it has not written yet when a body breaks off, even the head; while the body
                // lets it wait it writes.
                *body = Self::Broken(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Traced(traced) => traced.poll(cx),
            Self::Broken(_) => match std::mem::take(body) {
                Self::Broken(error) => Poll::Ready(Some(Err(error))),
                _ => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Relayed(relayed) => relayed.prefix.is_empty() && relayed.incoming.is_end_stream(),
            Self::Traced(traced) => traced.is_end_stream(),
            Self::Streamed(_) | Self::Flight(_) | Self::Produced(_) | Self::Pumped(_) | Self::Broken(_) => {
                false
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relayed(relayed) => {
                let read = relayed.prefix.iter().map(|piece| piece.len() as u64).sum::<u64>();
                let rest = relayed.incoming.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(read));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(read));
                }
                hint
            }
            Self::Traced(traced) => traced.size_hint(),
            Self::Streamed(_) | Self::Flight(_) | Self::Produced(_) | Self::Pumped(_) | Self::Broken(_) => {
                SizeHint::default()
            }
        }
    }
}

impl Relayed {
    fn is_turn_of(&self, side: Turn) {
        if let Some(turn) = &self.turn {
            turn.send_replace(side);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.prefix.pop() {
            self.is_turn_of(Turn::Upstream);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.idle.reset();
                if frame.is_none() || self.incoming.is_end_stream() {
                    self.turn = None;
                }
                self.is_turn_of(Turn::Upstream);
                let without = |mut frame: Frame<Bytes>| {
                    if let Some(trailers) = frame.trailers_mut() {
                        strip_trailers(trailers);
                    }
                    frame
                };
                Poll::Ready(frame.map(|frame| frame.map(without).map_err(BodyError::Hyper)))
            }
            Poll::Pending => {
                self.is_turn_of(Turn::Client);
                let elapsed = ready!(self.idle.poll(cx));
                Poll::Ready(Some(Err(BodyError::Idle(elapsed))))
            }
        }
    }
}

impl Flight {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let chunk = match ready!(self.reader.poll_chunk(cx)) {
                Some(Ok(chunk)) => chunk,
                Some(Err(cut)) => {
                    // What is held back came before the cut; the next poll says that it was one.
                    let rest = self.filter.take().map(UsageFilter::finish).unwrap_or_default();
                    let frame = if rest.is_empty() { Err(cut.into()) } else { Ok(Frame::data(rest)) };
                    return Poll::Ready(Some(frame));
                }
                None => {
                    let rest = self.filter.take().map(UsageFilter::finish).unwrap_or_default();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            };
            let chunk = match &mut self.filter {
                Some(filter) => filter.push(chunk),
                None => chunk,
            };
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
    }
}

/// A limit on waiting, started by the first wait.
#[derive(Debug)]
pub struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    /// A limit on each wait.
    pub fn new(limit: Duration) -> Self {
        Self { limit, sleep: None }
    }

    /// How long each wait may be.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Something came.
    pub fn reset(&mut self) {
        self.sleep = None;
    }

    /// Ready with the limit when the wait has outlasted it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        sleep.as_mut().poll(cx).map(|()| limit)
    }
}
