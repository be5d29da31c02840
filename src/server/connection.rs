//! One listener: accepts within limits, serves HTTP/1.1 and h2c on each connection, and drains.
//!
//! Called by [`super::Server`], once for clients and once for operators.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulConnection;
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::half_close::{Exchange, Exchanges};
use super::socket::Socket;
use crate::config::Config;
use crate::proxy::body::Body;
use crate::telemetry::Metrics;

/// A listener and what serves its connections.
pub(super) struct Listener<S> {
    pub(super) socket: TcpListener,
    /// Those in force; a connection keeps the ones it came to.
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) service: S,
    /// Where open connections are counted.
    pub(super) connections: Option<Arc<Metrics>>,
}

/// Limits of a listener.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    max_connections: usize,
    max_head_bytes: usize,
    request_head: Duration,
    idle: Duration,
}

/// How long to wait after the system had no resources for another connection, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The least that hyper takes as a buffer for a head.
const MIN_HEAD_BYTES: usize = 8192;

impl Settings {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            max_connections: config.limits.max_connections.min(Semaphore::MAX_PERMITS),
            max_head_bytes: config.limits.max_head_bytes.as_usize().max(MIN_HEAD_BYTES),
            request_head: config.timeouts.request_head,
            idle: config.timeouts.idle,
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            // The socket limits the wait for a head (socket.rs), by a timer that is not set anew for each.
            .header_read_timeout(None)
            // The end of a client's bytes is taken for its going, for whom upstream must not work on. The socket
            // keeps back what is none (half_close.rs).
            .half_close(false)
            .max_buf_size(self.max_head_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.max_head_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(256)
            .keep_alive_interval(Duration::from_secs(30))
            .adaptive_window(true);
        builder
    }
}

impl<S> Listener<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    /// Accepts and serves until told to stop, then until the last request is finished. Dropped before, it closes all
    /// connections.
    pub(super) async fn run(self) {
        let Self { socket, settings, mut stopping, service, connections } = self;
        let permits = Arc::new(Semaphore::new(settings.load().max_connections));
        let mut open = JoinSet::new();
        loop {
            // Beyond the limit, connections wait in the system's queue rather than in our memory.
            let permit = tokio::select! {
                permit = Arc::clone(&permits).acquire_owned() => permit,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let settings = settings.load();
            let exchange = Exchange::default();
            let service = Exchanges { service: service.clone(), exchange: exchange.clone() };
            let connection = settings
                .builder()
                .serve_connection_with_upgrades(prepare(stream, &settings, exchange), service)
                .into_owned();
            let connection = Ending::new(connection, &stopping);
            let counted = connections.clone();
            while open.try_join_next().is_some() {}
            open.spawn(async move {
                if let Some(metrics) = &counted {
                    metrics.connections().inc();
                }
                if let Err(error) = connection.await {
                    debug!(%error, "a connection ended");
                }
                if let Some(metrics) = &counted {
                    metrics.connections().dec();
                }
                drop(permit);
            });
        }
        drop(socket);
        while open.join_next().await.is_some() {}
    }
}

pin_project! {
    /// A connection that ends when it is told to, once its last request is finished. As hyper's own `GracefulShutdown`, which
    /// asks a lock at each poll whether it was told; here a number says that, after the first.
    struct Ending<C> {
        #[pin]
        connection: C,
        stop: Option<Stop>,
    }
}

/// What tells a connection to end.
struct Stop {
    changes: watch::Receiver<bool>,
    /// Ready when it is told.
    told: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether its task hears of that.
    hears: bool,
}

impl<C> Ending<C> {
    fn new(connection: C, stopping: &watch::Receiver<bool>) -> Self {
        let (changes, mut stopping) = (stopping.clone(), stopping.clone());
        let told = Box::pin(async move {
            // Who tells nothing any more has gone, and with it the listener.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        });
        Self { connection, stop: Some(Stop { changes, told, hears: false }) }
    }
}

impl<C: GracefulConnection> Future for Ending<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let mut this = self.project();
        if let Some(stop) = this.stop
            && (!stop.hears || stop.changes.has_changed().unwrap_or(true))
        {
            stop.hears = true;
            if stop.told.as_mut().poll(context).is_ready() {
                *this.stop = None;
                this.connection.as_mut().graceful_shutdown();
            }
        }
        this.connection.poll(context)
    }
}

fn prepare(stream: TcpStream, settings: &Settings, exchange: Exchange) -> TokioIo<Socket> {
    // Small chunks of a stream go out at once; a socket that cannot be told so still works.
    let _ = stream.set_nodelay(true);
    TokioIo::new(Socket::new(stream, settings.request_head, settings.idle, exchange))
}
