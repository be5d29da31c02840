//! Clients that close their sending side once they have asked (`nc -N`, old HTTP/1.0 habits) and still wait for the
//! reply. On the wire that looks like a client that has left, for whom upstream must not work on.
//!
//! Called by [`super::connection`] and [`super::socket`]. Which of both it is shows when something is sent: who has left
//! answers with a reset. Before the reply begins, an interim response may be sent, which every client of HTTP/1.1 passes
//! over (RFC 9110 §15.2); so one is, and the end of the client's bytes is kept from hyper until the reset comes or the
//! reply is through. During the reply an end is taken for leaving.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// What tells the living from those who left.
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How long after the probe the first look for a reset is; each further wait is twice as long, up to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Where a connection stands, known to its socket and to the service behind it. Cheap to clone: all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchange(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Where the one exchange of HTTP/1.1 stands.
    stage: AtomicU8,
    /// Streams of HTTP/2 that were begun, and that are through.
    begun: AtomicU64,
    through: AtomicU64,
}

/// A stream of HTTP/2, until it is through.
#[derive(Debug)]
struct Stream(Exchange);

impl Stream {
    fn begin(exchange: &Exchange) -> Self {
        exchange.0.begun.fetch_add(1, Ordering::Relaxed);
        Self(exchange.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.0.through.fetch_add(1, Ordering::Relaxed);
    }
}

/// No request of HTTP/1.1 waits for its reply.
const NONE: u8 = 0;
/// One does.
const AWAITED: u8 = 1;
/// One does, and no other will come.
const LAST: u8 = 2;
/// HTTP is over.
const SWITCHED: u8 = 3;
/// A request of HTTP/1.0 waits for its reply.
const OLD: u8 = 4;
/// The head of a reply is there, and its body is not through.
const REPLYING: u8 = 5;

impl Exchange {
    /// Whether the next thing to come is a head.
    pub(super) fn awaits_head(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == NONE
    }

    /// Streams of HTTP/2 that were begun so far; `None` while one is open.
    pub(super) fn streams_through(&self) -> Option<u64> {
        let through = self.0.through.load(Ordering::Relaxed);
        let begun = self.0.begun.load(Ordering::Relaxed);
        (through == begun).then_some(begun)
    }

    /// The client will send no more: whether a reply is awaited for which its end is to be kept back.
    fn keeps_end(&self) -> bool {
        self.0.stage.compare_exchange(AWAITED, LAST, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The end of a client's bytes, kept back.
#[derive(Debug)]
pub(super) struct KeptEnd {
    exchange: Exchange,
    probed: bool,
    wait: Duration,
    look: Pin<Box<Sleep>>,
}

impl KeptEnd {
    /// Keeps the end back where a reply is awaited.
    pub(super) fn of(exchange: &Exchange) -> Option<Self> {
        exchange.keeps_end().then(|| Self {
            exchange: exchange.clone(),
            probed: false,
            wait: FIRST_LOOK,
            look: Box::pin(tokio::time::sleep(Duration::ZERO)),
        })
    }

    /// Ready when the end is to be passed on, with an error where the client has left. `writing` says that something
    /// is being written, behind which no probe can go.
    pub(super) fn poll(
        &mut self,
        stream: &TcpStream,
        writing: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.look.as_mut().poll(context));
            let state = self.exchange.0.stage.load(Ordering::Relaxed);
            if state == SWITCHED {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = stream.take_error()? {
                return Poll::Ready(Err(error));
            }
            if state == LAST && !self.probed && !writing {
                self.probed = true;
                if stream.try_write(PROBE).is_ok_and(|written| written < PROBE.len()) {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
            }
            self.look = Box::pin(tokio::time::sleep(self.wait));
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// A connection's service, which says when replies are awaited, and that the last one is the last.
#[derive(Debug, Clone)]
pub(super) struct Exchanges<S> {
    pub(super) service: S,
    pub(super) exchange: Exchange,
}

impl<S, B, R> Service<Request<B>> for Exchanges<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<Replying<R>>;
    type Error = S::Error;
    type Future = Awaited<S::Future>;

    fn call(&self, request: Request<B>) -> Self::Future {
        // Over HTTP/2, where there is more than one, no end is kept.
        let (exchange, stream) = match request.version() {
            Version::HTTP_2 => (None, Some(Stream::begin(&self.exchange))),
            version => {
                let state = if version == Version::HTTP_11 { AWAITED } else { OLD };
                self.exchange.0.stage.store(state, Ordering::Relaxed);
                (Some(self.exchange.clone()), None)
            }
        };
        Awaited { reply: self.service.call(request), exchange, stream }
    }
}

pin_project! {
    /// See [`Exchanges`].
    #[derive(Debug)]
    pub(super) struct Awaited<F> {
        #[pin]
        reply: F,
        exchange: Option<Exchange>,
        stream: Option<Stream>,
    }
}

impl<F, R, E> Future for Awaited<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<Replying<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let reply = ready!(this.reply.poll(context));
        let (exchange, stream) = (this.exchange.take(), this.stream.take());
        Poll::Ready(reply.map(|mut reply| {
            if let Some(exchange) = &exchange {
                let last = exchange.0.stage.swap(REPLYING, Ordering::Relaxed) == LAST;
                if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
                    exchange.0.stage.store(SWITCHED, Ordering::Relaxed);
                } else if last {
                    // Whoever has closed its side reads until we close ours.
                    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            reply.map(|body| Replying { body, _end: End(exchange), _stream: stream })
        }))
    }
}

pin_project! {
    /// The body of a reply; when hyper has dropped it, the next head is awaited.
    #[derive(Debug)]
    pub(super) struct Replying<R> {
        #[pin]
        body: R,
        _end: End,
        _stream: Option<Stream>,
    }
}

#[derive(Debug)]
struct End(Option<Exchange>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(Exchange(state)) = &self.0 {
            let _ = state.stage.compare_exchange(REPLYING, NONE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl<R: Body> Body for Replying<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        self.project().body.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
