//! A simulated model server: it speaks the wire formats of OpenAI, Anthropic and Ollama in all their forms, and
//! has no model. Every reply is labelled (`Server: rejoinder-simulated`, a text that begins with `[simulated]`)
//! and depends on the whole request, so that a cache in front of it that mixes requests up is found out.
//!
//! `rejoinder demo`, the tests and the benchmarks use it. It speaks HTTP/1.1 over hyper; what no HTTP library
//! would do (resets, garbage, cut messages) is done on the socket, by a [`Fault`].

mod answer;
mod anthropic;
mod body;
mod embedding;
mod fault;
mod ollama;
mod openai;
mod record;
mod responses;
mod service;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use body::Cutter;
pub use fault::{Encoder, Encoding, Fault, Gate};
pub use record::Recorded;
use record::{Head, Socket};

/// How the server behaves throughout; the default answers at once and asks for no key.
#[derive(Debug, Clone)]
pub struct SimulatedOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Passes between the whole request and the head of the reply.
    pub delay_to_first_byte: Duration,
    /// Passes between the pieces of a streamed reply.
    pub delay_between_chunks: Duration,
    /// Where set, requests without this key (`Authorization: Bearer`, `x-api-key` or `api-key`) get a 401.
    pub required_key: Option<String>,
    /// A path prefix, as of a gateway: `/team-a` makes the chat endpoint `/team-a/v1/chat/completions`.
    pub prefix: String,
    /// How many requests are remembered, the latest ones.
    pub remember: usize,
}

impl Default for SimulatedOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            delay_to_first_byte: Duration::ZERO,
            delay_between_chunks: Duration::ZERO,
            required_key: None,
            prefix: String::new(),
            remember: 1000,
        }
    }
}

/// A running server. Dropping it stops it and breaks its connections.
#[derive(Debug)]
pub struct Simulated {
    address: SocketAddr,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    options: SimulatedOptions,
    state: Mutex<State>,
    counts: watch::Sender<Counts>,
}

#[derive(Debug)]
struct State {
    required_key: Option<String>,
    fault: Fault,
    next_faults: VecDeque<Fault>,
    requests: VecDeque<Recorded>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    connections: usize,
    received: usize,
    abandoned: usize,
}

enum Command {
    StopListening(oneshot::Sender<()>),
    ListenAgain(oneshot::Sender<io::Result<()>>),
}

impl Simulated {
    /// Starts a server on the current tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(options: SimulatedOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                required_key: options.required_key.clone(),
                fault: Fault::none(),
                next_faults: VecDeque::new(),
                requests: VecDeque::new(),
            }),
            counts: watch::Sender::new(Counts::default()),
            options,
        });
        let (commands, receiver) = mpsc::channel(1);
        let task = tokio::spawn(accept_loop(listener, address, receiver, Arc::clone(&shared)));
        Ok(Self { address, shared, commands, task })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, the path prefix included, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.shared.options.prefix)
    }

    /// The requests received, oldest first, as many as are remembered.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state.lock().requests.iter().cloned().collect()
    }

    /// How many requests have been received, whether or not they were answered.
    pub fn count(&self) -> usize {
        self.shared.counts.borrow().received
    }

    /// How many connections have been accepted.
    pub fn connections(&self) -> usize {
        self.shared.counts.borrow().connections
    }

    /// How many exchanges the client left before the reply had been sent whole (faults that cut a reply do not
    /// count).
    pub fn abandoned(&self) -> usize {
        self.shared.counts.borrow().abandoned
    }

    /// Waits until this many requests have been received.
    pub async fn until_count(&self, count: usize) {
        // The sender lives as long as this server, so waiting cannot fail.
        let _ = self.shared.counts.subscribe().wait_for(|counts| counts.received >= count).await;
    }

    /// Waits until the client has left this many exchanges.
    pub async fn until_abandoned(&self, count: usize) {
        let _ = self.shared.counts.subscribe().wait_for(|counts| counts.abandoned >= count).await;
    }

    /// From now on every exchange goes like this, unless [`Self::fault_next`] has something for it.
    pub fn set_fault(&self, fault: Fault) {
        self.shared.state.lock().fault = fault;
    }

    /// One exchange goes like this: the next that has no fault of its own yet.
    pub fn fault_next(&self, fault: Fault) {
        self.shared.state.lock().next_faults.push_back(fault);
    }

    /// Changes the key that requests need from now on.
    pub fn require_key(&self, key: Option<&str>) {
        self.shared.state.lock().required_key = key.map(str::to_owned);
    }

    /// Closes the listening socket and all connections: further connections are refused.
    ///
    /// # Errors
    /// The server has stopped.
    pub async fn stop_listening(&self) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::StopListening(done)).await.map_err(stopped)?;
        wait.await.map_err(stopped)
    }

    /// Listens on the same address again.
    ///
    /// # Errors
    /// The server has stopped, or something else has taken the port.
    pub async fn listen_again(&self) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::ListenAgain(done)).await.map_err(stopped)?;
        wait.await.map_err(stopped)?
    }

    /// Stops, and returns when all connections are closed.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // Its only other end is the abort just asked for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn stopped<E>(_: E) -> io::Error {
    io::Error::other("the simulated server has stopped")
}

impl Shared {
    fn take_fault(&self) -> Fault {
        let mut state = self.state.lock();
        state.next_faults.pop_front().unwrap_or_else(|| state.fault.clone())
    }

    /// Remembers a request; returns how many came before it.
    fn record(&self, request: Recorded) -> usize {
        {
            let mut state = self.state.lock();
            if state.requests.len() >= self.options.remember {
                state.requests.pop_front();
            }
            if self.options.remember > 0 {
                state.requests.push_back(request);
            }
        }
        let mut before = 0;
        self.counts.send_modify(|counts| {
            before = counts.received;
            counts.received = before.saturating_add(1);
        });
        before
    }
}

/// One request and its reply; dropped before [`Self::finish`] it counts as abandoned by the client.
#[derive(Debug)]
struct Exchange {
    shared: Arc<Shared>,
    finished: AtomicBool,
}

impl Exchange {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), finished: AtomicBool::new(false) }
    }

    fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.finished.load(Ordering::Relaxed) {
            self.shared.counts.send_modify(|counts| counts.abandoned = counts.abandoned.saturating_add(1));
        }
    }
}

/// Waits before the next attempt when the system has no sockets left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

async fn accept_loop(
    listener: TcpListener,
    address: SocketAddr,
    mut commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(listener.as_ref()) => match accepted {
                Ok(stream) => {
                    shared.counts.send_modify(|counts| counts.connections = counts.connections.saturating_add(1));
                    connections.spawn(connection(stream, Arc::clone(&shared)));
                }
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            command = commands.recv() => match command {
                Some(Command::StopListening(done)) => {
                    listener = None;
                    connections.shutdown().await;
                    // The asker may have left; nothing is lost.
                    let _ = done.send(());
                }
                Some(Command::ListenAgain(done)) => {
                    let bound = TcpListener::bind(address).await.map(|bound| listener = Some(bound));
                    let _ = done.send(bound);
                }
                None => return,
            },
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

/// Serves one connection. Its errors are the client's leaving, which the exchanges count.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let head = Head::default();
    let cutter = Cutter::default();
    let service = {
        let (head, cutter) = (head.clone(), cutter.clone());
        service_fn(move |request| {
            Box::pin(service::serve(Arc::clone(&shared), cutter.clone(), head.clone(), request))
        })
    };
    let io = TokioIo::new(Socket::new(stream, head));
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service);
    let cut = std::future::poll_fn(|context| {
        if Pin::new(&mut connection).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        // hyper has written what there was before the cut.
        cutter.take().map_or(Poll::Pending, |cut| Poll::Ready(Some(cut)))
    })
    .await;
    let Some(cut) = cut else { return };
    let mut stream = connection.into_parts().io.into_inner().into_stream();
    // Whether the client still listens makes no difference: this is the connection's end.
    let _ = match cut {
        fault::Cut::Close => stream.shutdown().await,
        fault::Cut::Reset => stream.set_zero_linger(),
        fault::Cut::Raw(bytes) => match stream.write_all(&bytes).await {
            Ok(()) => stream.shutdown().await,
            Err(error) => Err(error),
        },
    };
}

/// The clock of `created` and its like.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_secs()).unwrap_or_default()
}
