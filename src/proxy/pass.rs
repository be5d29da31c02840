//! The way of everything that is not cached: streamed both ways, byte for byte.
//!
//! Called by [`super`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use super::body::Body;
use super::error::ProxyError;
use super::headers::{lists, strip_response};
use super::permits::Permit;
use super::spans::{self, Call};
use super::upstream::Upstream;
use super::{Answered, Failure, Proxy};
use crate::cache::outcome::Outcome;
use crate::trace::Trace;

/// A client's wish to speak another protocol after this request (RFC 9110 §7.8), as for a WebSocket.
pub(super) struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// The wish of a request, before its headers are stripped.
    pub(super) fn of(parts: &mut request::Parts) -> Option<Self> {
        let asks = lists(&parts.headers, &CONNECTION, "upgrade");
        let protocol = parts.headers.get(UPGRADE).filter(|_| asks)?.clone();
        Some(Self { protocol, client: parts.extensions.remove::<OnUpgrade>()? })
    }
}

impl Proxy {
    /// Forwards a request whose headers were stripped, and relays the reply.
    pub(super) async fn pass(
        &self,
        upstream: &Upstream,
        mut parts: request::Parts,
        body: Body,
        upgrade: Option<Upgrade>,
        mut outcome: Outcome,
    ) -> Result<Answered, Failure> {
        let started = Instant::now();
        outcome.upstream = Some(Arc::clone(upstream.name()));
        let permit = upstream.permits().take().await.map_err(|error| Failure::new(error, outcome.clone()))?;
        if let Some(upgrade) = &upgrade {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, upgrade.protocol.clone());
        }
        let head_only = parts.method == Method::HEAD;
        let mut span = spans::begin(Trace::current().as_ref(), upstream, &Call::UNREAD, &mut parts);
        let sent = upstream.send(parts, body).await;
        let mut response = sent.map_err(|error| {
            span.fail(error.code());
            span.finish();
            Failure::new(error, outcome.clone())
        })?;
        spans::answered(&mut span, response.status());
        outcome.timings.upstream = Some(started.elapsed());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                let error = ProxyError::Upstream("it switched protocols without being asked".to_owned());
                return Err(Failure::new(error, outcome));
            };
            span.finish();
            let protocol = response.headers().get(UPGRADE).cloned();
            join(upgrade.client, hyper::upgrade::on(&mut response), upstream.idle(), permit);
            let (mut head, _) = response.into_parts();
            strip_response(&mut head.headers);
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            if let Some(protocol) = protocol {
                head.headers.insert(UPGRADE, protocol);
            }
            return Ok(Answered::new(Response::from_parts(head, Body::Empty), outcome));
        }
        let (mut head, incoming) = response.into_parts();
        strip_response(&mut head.headers);
        let body = Body::relayed(incoming, upstream.idle(), Some(permit));
        let body = body.traced(span, head_only.then_some(0));
        Ok(Answered::new(Response::from_parts(head, body), outcome))
    }
}

/// Joins two connections that both left HTTP, until either ends, or neither has said anything for `idle`, or up to twice
/// that. Only after upstream's 101 (RFC 9110 §15.2.2). It holds its place upstream as any other request.
fn join(client: OnUpgrade, upstream: OnUpgrade, idle: Duration, permit: Permit) {
    tokio::spawn(async move {
        let _permit = permit;
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => return debug!(%error, "an upgrade did not come about"),
        };
        let said = Arc::new(AtomicU64::new(0));
        let mut client = Heard { stream: TokioIo::new(client), said: Arc::clone(&said) };
        let mut upstream = Heard { stream: TokioIo::new(upstream), said: Arc::clone(&said) };
        let silence = async {
            let mut before = 0;
            loop {
                tokio::time::sleep(idle).await;
                let now = said.load(Ordering::Relaxed);
                if now == before {
                    break;
                }
                before = now;
            }
        };
        tokio::select! {
            joined = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {
                if let Err(error) = joined {
                    debug!(%error, "an upgraded connection ended");
                }
            }
            () = silence => debug!(?idle, "nothing came over an upgraded connection"),
        }
    });
}

/// One side of two joined connections; what is read from it is counted.
struct Heard<S> {
    stream: S,
    said: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.said.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
