//! A client's socket with limits on the waits for a client: for its first bytes, by which HTTP/2 is told from HTTP/1.1, for
//! the head of each request of HTTP/1.1, for a stream of HTTP/2 where none is open, and until it reads what is written to it.
//!
//! Called by [`super::connection`]. hyper could limit the second wait, by a timer of its own for each request, which costs
//! a tenth of what it takes to read and answer one. Here one timer serves a whole connection: it is set when a wait begins
//! and its time has passed, which is once in a while, and looks then at how long the wait has been.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::half_close::{Exchange, KeptEnd};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// What a connection of HTTP/2 begins with (RFC 9113 §3.4). Until it differs from this, hyper waits for more.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    version: Spoken,
    /// How long a head may take from when it is waited for.
    head: Duration,
    /// Since when one is waited for; `None` until that begins.
    since: Option<Instant>,
    /// Streams of HTTP/2 that were through when that wait was looked at.
    streams: u64,
    /// Ends no later than the wait for a head may.
    timer: Pin<Box<Sleep>>,
    /// Whether the connection's task is told when the timer ends.
    is_armed: bool,
    /// How long the client may leave what is written to it.
    idle: Duration,
    /// Since it does.
    stalled: Option<Pin<Box<Sleep>>>,
    exchange: Exchange,
    /// The end of the client's bytes, where it is kept back.
    end: Option<KeptEnd>,
}

/// What a client speaks.
#[derive(Debug)]
enum Spoken {
    /// This is still to come of what HTTP/2 begins with.
    Unknown(&'static [u8]),
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2, of which a head may come at any time.
    Http2,
}

impl Spoken {
    /// The same, after the client has said more.
    fn after(self, read: &[u8]) -> Self {
        let Self::Unknown(expected) = self else { return self };
        if read.starts_with(expected) {
            return Self::Http2;
        }
        expected.strip_prefix(read).map_or(Self::Http1, Self::Unknown)
    }
}

impl Socket {
    /// Waits for each head until `head` has passed, and for each piece to be taken for `idle`.
    pub(super) fn new(stream: TcpStream, head: Duration, idle: Duration, exchange: Exchange) -> Self {
        Self {
            stream,
            version: Spoken::Unknown(PREFACE),
            head,
            since: Some(Instant::now()),
            streams: 0,
            timer: Box::pin(tokio::time::sleep(head)),
            is_armed: false,
            idle,
            stalled: None,
            exchange,
            end: None,
        }
    }

    /// Ready when a head has not come in time.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // While something is written the wait has not begun; the reply may have to be taken first.
        if self.stalled.is_some() || !self.awaits_head() {
            return Poll::Pending;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        // A timer that ends sooner is as good. What it tells is the connection's one task, always.
        if self.is_armed && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        let until = since + self.head;
        loop {
            if self.timer.as_mut().poll(context).is_pending() {
                self.is_armed = true;
                return Poll::Pending;
            }
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(until);
            self.is_armed = false;
        }
    }

    /// Whether nothing goes on, so that a head is what comes next.
    fn awaits_head(&mut self) -> bool {
        if !matches!(self.version, Spoken::Http2) {
            return self.exchange.awaits_head();
        }
        let through = self.exchange.streams_through();
        if through.is_none_or(|through| through != self.streams) {
            self.since = None;
        }
        self.streams = through.unwrap_or(self.streams);
        through.is_some()
    }

    /// Limits how long a write may wait.
    fn limited<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        // Over HTTP/2 something is written though nobody asks anything: answers to PING, and our own.
        if !matches!(self.version, Spoken::Http2) {
            self.since = None;
        }
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let idle = self.idle;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        stalled.as_mut().poll(context).map(|()| Err(timed_out("the client takes nothing")))
    }
}

impl Socket {
    /// Ready with the end of the client's bytes, or with an error where it has left.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writing = self.stalled.is_some();
        match &mut self.end {
            Some(end) => end.poll(&self.stream, writing, context),
            None => Poll::Ready(Ok(())),
        }
    }
}

fn timed_out(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, problem)
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.is_some() {
            return self.poll_end(context);
        }
        let before = buffer.filled().len();
        let room = buffer.remaining();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if room > 0 && buffer.filled().len() == before && matches!(polled, Poll::Ready(Ok(()))) {
            self.end = KeptEnd::of(&self.exchange);
            return self.poll_end(context);
        }
        if polled.is_pending() {
            return self.poll_late(context).map(|()| Err(timed_out("no head came from the client")));
        }
        if let Spoken::Unknown(expected) = self.version {
            let read = buffer.filled().get(before..).unwrap_or_default();
            self.version = Spoken::Unknown(expected).after(read);
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limited(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.limited(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // With the last of a reply the wait for the next head begins, also where hyper waits for bytes already and does
        // not ask for more. Whoever is late is told so when it does.
        let _ = self.poll_late(context);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
