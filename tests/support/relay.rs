//! A relay between the proxy and a server behind it, by which tests cut, hold up and heal the way between them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the way is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// Everything passes.
    #[default]
    Open,
    /// Nothing that the client sends passes.
    RequestsHeld,
    /// Nothing that the server sends passes.
    AnswersHeld,
    /// Nothing passes in either direction; connections stay open, and new ones are accepted.
    Held,
    /// What the server sends passes this much later.
    Slow(Duration),
    /// All connections are closed, and new ones at once.
    Cut,
}

/// A relay on a free loopback port. What is held up is neither lost nor changed: it arrives when the way is open
/// again and the connection still there, as with TCP.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    way: watch::Sender<Way>,
    breaks: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to this address.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = watch::Sender::new(Way::Open);
        let breaks = watch::Sender::new(0);
        let task = tokio::spawn(accept(listener, target, way.subscribe(), breaks.subscribe()));
        Self { address, way, breaks, task }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the way is like this.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
        if way == Way::Cut {
            self.break_connections();
        }
    }

    /// Opens the way again.
    pub fn heal(&self) {
        self.set(Way::Open);
    }

    /// Closes all connections; new ones are accepted.
    pub fn break_connections(&self) {
        self.breaks.send_modify(|count| *count += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    way: watch::Receiver<Way>,
    mut breaks: watch::Receiver<u64>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                if *way.borrow() != Way::Cut {
                    connections.spawn(relay(client, target, way.clone()));
                }
            }
            Ok(()) = breaks.changed() => connections.shutdown().await,
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(client: TcpStream, target: SocketAddr, way: watch::Receiver<Way>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // The relay must not add a wait of its own; a socket that refuses is closed already.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = copy(from_client, to_server, way.clone(), |way| match way {
        Way::RequestsHeld | Way::Held => None,
        _ => Some(Duration::ZERO),
    });
    let answers = copy(from_server, to_client, way, |way| match way {
        Way::AnswersHeld | Way::Held => None,
        Way::Slow(delay) => Some(delay),
        _ => Some(Duration::ZERO),
    });
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

/// Copies until either side ends or fails, each piece after a delay; waits where there is none because nothing passes.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    delay: impl Fn(Way) -> Option<Duration>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(now) = way.wait_for(|way| delay(*way).is_some()).await.map(|way| *way) else { return };
        if let Some(delay) = delay(now).filter(|delay| !delay.is_zero()) {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
