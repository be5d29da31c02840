//! A client's socket with limits on two waits that hyper does not limit: for the first bytes, by which HTTP/2 is
//! told from HTTP/1.1, and for a client that does not read what is written to it.
//!
//! Called by [`super::connection`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::half_close::{Exchange, KeptEnd};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// What a connection of HTTP/2 begins with (RFC 9113 §3.4). Until it differs from this, hyper waits for more.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// What of the preface has come, and until when the rest must; `None` once the version is known.
    preface: Option<(&'static [u8], Pin<Box<Sleep>>)>,
    /// How long the client may leave what is written to it.
    idle: Duration,
    /// Since it does.
    stalled: Option<Pin<Box<Sleep>>>,
    exchange: Exchange,
    /// The end of the client's bytes, where it is kept back.
    end: Option<KeptEnd>,
}

impl Socket {
    /// Waits for the first bytes until `head` has passed, and for each piece to be taken for `idle`.
    pub(super) fn new(stream: TcpStream, head: Duration, idle: Duration, exchange: Exchange) -> Self {
        let preface = Some((PREFACE, Box::pin(tokio::time::sleep(head))));
        Self { stream, preface, idle, stalled: None, exchange, end: None }
    }

    /// Limits how long a write may wait.
    fn limited<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
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
        let Some((expected, limit)) = &mut self.preface else { return polled };
        if polled.is_pending() {
            return limit.as_mut().poll(context).map(|()| Err(timed_out("the client says nothing")));
        }
        let read = buffer.filled().get(before..).unwrap_or_default();
        match expected.strip_prefix(read) {
            Some(rest) if !rest.is_empty() => *expected = rest,
            _ => self.preface = None,
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
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
