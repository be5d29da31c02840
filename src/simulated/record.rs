//! What arrived: requests as they were received, header names and order as on the wire.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Uri};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One request as it was received.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// The request target as sent.
    pub uri: Uri,
    /// The header lines as on the wire: order, repetition and letter case kept, outer blanks trimmed.
    pub headers: Vec<(String, String)>,
    /// The body, its transfer coding removed.
    pub body: Bytes,
}

impl Recorded {
    /// The values of a header, its name compared without case.
    pub fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The first value of a header, its name compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// The longest request head that is kept.
const LONGEST_HEAD: usize = 64 * 1024;

/// The bytes of the request head that is arriving on a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Head(Arc<Mutex<HeadState>>);

#[derive(Debug, Default)]
struct HeadState {
    bytes: Vec<u8>,
    complete: bool,
}

impl Head {
    fn read(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        if state.complete {
            return;
        }
        let before = state.bytes.len();
        state.bytes.extend_from_slice(bytes);
        let end = memchr::memmem::find(
            state.bytes.get(before.saturating_sub(3)..).unwrap_or_default(),
            b"\r\n\r\n",
        );
        if let Some(end) = end {
            state.bytes.truncate(before.saturating_sub(3) + end);
            state.complete = true;
        } else if state.bytes.len() > LONGEST_HEAD {
            state.complete = true;
        }
    }

    /// The header lines of the head that has just arrived.
    pub(super) fn take(&self) -> Vec<(String, String)> {
        let bytes = std::mem::take(&mut self.0.lock().bytes);
        String::from_utf8_lossy(&bytes)
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// The request's body has been read: the next bytes are the next head.
    pub(super) fn expect_next(&self) {
        self.0.lock().complete = false;
    }
}

/// A socket that shows what is read from it to a [`Head`].
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    head: Head,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, head: Head) -> Self {
        Self { stream, head }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(read) = buffer.filled().get(before..).filter(|read| !read.is_empty()) {
            self.head.read(read);
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
