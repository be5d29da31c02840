//! HTTP by hand: a socket to which a test writes bytes and from which it reads until something has come, and the
//! other end of one, for an upstream that does what no HTTP library would.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// After this a test has failed: what it waits for does not come.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for what must come; fails the test where it does not.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("it did not come"))
}

/// Lets everything else in this test's runtime run until this has not changed for a long while of turns. The
/// runtime has one thread, so that each turn is one of everybody's.
pub async fn until_quiet<T: PartialEq>(observe: impl Fn() -> T) -> T {
    const TURNS: usize = 3000;
    let mut last = observe();
    let mut turns = 0;
    while turns < TURNS {
        tokio::task::yield_now().await;
        let now = observe();
        turns = if now == last { turns + 1 } else { 0 };
        last = now;
    }
    last
}

/// One end of a connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).await.unwrap())
    }

    /// Connects with a small receive buffer, so that little is under way when nobody reads.
    pub async fn open_small(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        Self::of(socket.connect(address).await.unwrap())
    }

    /// The next connection to a listener.
    pub async fn accept(listener: &TcpListener) -> Self {
        Self::of(soon(listener.accept()).await.unwrap().0)
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Writes all of it.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Writes all of it, unless the other side is gone.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Writes as much as goes without waiting; how much that was.
    pub fn try_send(&self, bytes: &[u8]) -> usize {
        self.stream.try_write(bytes).unwrap_or_default()
    }

    /// Reads until this has come, and takes out everything up to its end.
    pub async fn until(&mut self, text: impl AsRef<[u8]>) -> String {
        let text = text.as_ref();
        loop {
            if let Some(at) = memchr::memmem::find(&self.received, text) {
                let rest = self.received.split_off(at + text.len());
                let taken = std::mem::replace(&mut self.received, rest);
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let read = soon(self.stream.read_buf(&mut self.received)).await;
            if !matches!(read, Ok(1..)) {
                let (text, received) =
                    (String::from_utf8_lossy(text), String::from_utf8_lossy(&self.received));
                panic!("{text:?} has not come before the end ({read:?}): {received:?}");
            }
        }
    }

    /// Reads one message's head, the empty line included.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Reads this many bytes.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            let read = soon(self.stream.read_buf(&mut self.received)).await.unwrap();
            assert!(read > 0, "the end after {} of {count} bytes", self.received.len());
        }
        let rest = self.received.split_off(count);
        std::mem::replace(&mut self.received, rest)
    }

    /// What has come so far.
    pub fn arrived(&mut self) -> String {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = self.stream.try_read(&mut buffer) {
            self.received.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Reads to the end; an end by a reset is one too.
    pub async fn rest(mut self) -> String {
        let mut buffer = Vec::new();
        // What came before a reset is in the buffer; which of both ends it was makes no difference here.
        let _ = soon(self.stream.read_to_end(&mut buffer)).await;
        self.received.extend_from_slice(&buffer);
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Says that nothing more will be written.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}

/// A free loopback port that is listened on, and the URL of it.
pub async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}
