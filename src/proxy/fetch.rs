//! One request to upstream for everyone who waits for its reply: streams it into the flight, gathers it, and
//! stores it once it is whole.
//!
//! Called by [`super::cached`]; runs as a task of its own, so that it lives as long as anyone reads, and ends
//! when the last reader goes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tracing::debug;

use super::body::Body;
use super::budget::{Budget, Buffer};
use super::decode::decode;
use super::error::ProxyError;
use super::headers::{forbids_storing, strip_response};
use super::permits::Permit;
use super::spans::{self, Call};
use super::upstream::Upstream;
use crate::cache::coalesce::{End, Leader, Reader};
use crate::cache::outcome::Outcome;
use crate::cache::trial::Trial;
use crate::cache::{Cache, Hit, Query};
use crate::dialect::{Form, Reply};
use crate::store::entry::{Key, Placed};
use crate::trace::{Span, Trace, within};

/// What shares a flight: the key, and what of the directives decides which entries count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlightKey {
    /// The exact key.
    pub key: Key,
    /// The threshold asked for, as bits.
    pub threshold: Option<u32>,
    /// The `max-age` asked for.
    pub max_age: Option<Duration>,
    /// The form, among those who found that they cannot share a reply of another.
    pub form: Option<Form>,
}

/// The publishing side.
pub type FlightLeader = Leader<FlightKey, Head, Option<Reply>>;
/// The reading side.
pub type FlightReader = Reader<Head, Option<Reply>>;

/// What a flight begins with.
#[derive(Debug)]
pub enum Head {
    /// The semantic layer found a reply after all.
    Hit(Hit),
    /// Upstream's reply; its body follows in chunks.
    Upstream(Arc<UpstreamHead>),
    /// No reply; everyone gets the error.
    Failed(ProxyError),
}

/// The head of upstream's reply.
#[derive(Debug)]
pub struct UpstreamHead {
    /// The status.
    pub status: StatusCode,
    /// The headers that travel.
    pub headers: HeaderMap,
    /// The form that was asked for upstream.
    pub form: Form,
    /// What happened.
    pub outcome: Outcome,
}

/// How many times the size of its document a stream may have and still be gathered: each token comes in a chunk
/// of its own.
const STREAM_FRAMING: usize = 16;

/// A request on its way upstream.
pub struct Fetch {
    /// The way.
    pub upstream: Arc<Upstream>,
    /// Where the reply is stored.
    pub cache: Arc<Cache>,
    /// The request, its headers stripped.
    pub parts: request::Parts,
    /// Its body, as it goes upstream.
    pub body: Bytes,
    /// The form asked for upstream.
    pub form: Form,
    /// What it asks.
    pub query: Query,
    /// The prompt's place, where the lookup came so far.
    pub place: Option<Placed>,
    /// A stored reply to be compared with upstream's.
    pub trial: Option<Trial>,
    /// What happened so far.
    pub outcome: Outcome,
    /// Whether the reply may be stored, as far as the request tells.
    pub storable: bool,
    /// The largest reply that is stored.
    pub limit: usize,
    /// How long the slowest reader may keep the others waiting.
    pub patience: Duration,
    /// Held until upstream has answered.
    pub permit: Permit,
    /// Memory for the reply while it is gathered.
    pub budget: Budget,
    /// The trace of the request that asks.
    pub trace: Option<Trace>,
}

/// A reply being gathered.
struct Gathering {
    form: Form,
    coding: Option<String>,
    /// `None` once it is larger than what is stored, or there was no room for it.
    body: Option<Buffer>,
}

impl Fetch {
    /// Fetches, and publishes into the flight. Boxed, since a task that is spawned is copied several times, and this one is
    /// large.
    pub fn run(mut self, leader: FlightLeader) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let trace = self.trace.take();
        Box::pin(within(trace, self.fetch(leader)))
    }

    async fn fetch(self, leader: FlightLeader) {
        let started = Instant::now();
        let Self {
            upstream,
            cache,
            mut parts,
            body,
            form,
            query,
            place,
            trial,
            mut outcome,
            storable,
            limit,
            patience,
            permit,
            budget,
            trace: _,
        } = self;
        let idle = upstream.idle();
        let call = Call { model: Some(&query.model), stream: Some(form.is_stream()) };
        let mut span = spans::begin(Trace::current().as_ref(), &upstream, &call, &mut parts);
        // What storing will want to know of the request is looked for while upstream is asked, behind the first poll of what
        // sends: over a connection that is there the request is out by then.
        let meanwhile = async {
            tokio::task::yield_now().await;
            if storable {
                cache.leanings(&query);
            }
        };
        let exchange = async { tokio::join!(biased; upstream.send(parts, Body::Whole(body)), meanwhile) };
        let (sent, ()) = tokio::select! {
            sent = exchange => sent,
            () = leader.deserted() => return,
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                span.fail(error.code());
                span.finish();
                leader.begin(Head::Failed(error));
                leader.finish(End::Whole(None));
                return;
            }
        };
        outcome.timings.upstream = Some(started.elapsed());
        spans::answered(&mut span, response.status());
        note_credentials(&cache, &query, response.status());
        let gathering = Gathering::of(&response, form, &query, &budget).filter(|_| storable);
        let (parts, body) = response.into_parts();
        let mut headers = parts.headers;
        strip_response(&mut headers);
        let head = UpstreamHead { status: parts.status, headers, form, outcome };
        let document = gathering.as_ref().is_some_and(|gathering| gathering.form == Form::Json);
        // In one place, however often it is handed on: what moves is a large task.
        let transfer = Box::new(Transfer {
            started,
            leader,
            body,
            idle,
            patience,
            limit,
            gathering,
            cache,
            query,
            place,
            trial,
            span,
        });
        if document {
            transfer.document(head).await;
        } else {
            transfer.stream(head).await;
        }
        drop(permit);
    }
}

/// Remembers whether upstream accepted the caller's credentials.
fn note_credentials(cache: &Cache, query: &Query, status: StatusCode) {
    let Some(credential) = query.credential else { return };
    if status.is_success() {
        cache.accept(credential);
    } else if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        cache.refuse(&credential);
    }
}

impl Gathering {
    /// Whether a reply may be stored, as far as its head tells.
    fn of(response: &Response<Incoming>, asked: Form, query: &Query, budget: &Budget) -> Option<Self> {
        let headers = response.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let form = Form::of_media_type(text(CONTENT_TYPE)?)?;
        let expected = std::mem::discriminant(&form) == std::mem::discriminant(&asked);
        let zero = query.directives.ttl.is_some_and(|ttl| ttl.is_zero());
        if response.status() != StatusCode::OK || forbids_storing(headers) || !expected || zero {
            return None;
        }
        let coding = text(CONTENT_ENCODING).map(str::to_owned);
        Some(Self { form, coding, body: Some(budget.buffer()) })
    }

    /// Takes a chunk of a reply whose document may have `limit` bytes.
    fn add(&mut self, chunk: &Bytes, limit: usize) {
        let limit = if self.form.is_stream() { limit.saturating_mul(STREAM_FRAMING) } else { limit };
        if let Some(body) = &mut self.body
            && (body.len() + chunk.len() > limit || !body.add(chunk))
        {
            self.body = None;
        }
    }
}

/// Upstream's body on its way into the flight.
struct Transfer {
    /// When upstream was asked.
    started: Instant,
    leader: FlightLeader,
    body: Incoming,
    /// How long upstream may pause.
    idle: Duration,
    /// How long the slowest reader may keep the others waiting.
    patience: Duration,
    limit: usize,
    /// `None` where the reply is not stored.
    gathering: Option<Gathering>,
    cache: Arc<Cache>,
    query: Query,
    place: Option<Placed>,
    trial: Option<Trial>,
    /// Ends when upstream's reply does.
    span: Span,
}

impl Transfer {
    /// A document is there all at once, more or less. Holding its head until its end, or the limit, costs nothing
    /// and allows to say truly whether it is stored.
    async fn document(mut self: Box<Self>, mut head: UpstreamHead) {
        let mut chunks = Vec::new();
        let ended = loop {
            match self.next().await {
                Ok(chunk) => chunks.push(chunk),
                Err(how) => break Some(how),
            }
            if self.gathering.as_ref().is_none_or(|gathering| gathering.body.is_none()) {
                break None;
            }
        };
        let reply = match ended {
            Some(Ended::Whole) => self.gathered(),
            Some(Ended::Deserted) => return,
            Some(Ended::Broken) | None => None,
        };
        if let Some(reply) = &reply {
            head.outcome.stored = self.store(reply).await;
        }
        self.leader.begin(Head::Upstream(Arc::new(head)));
        for chunk in chunks {
            self.leader.publish(chunk, self.patience).await;
        }
        match ended {
            Some(Ended::Whole) => self.finish(reply),
            Some(Ended::Broken | Ended::Deserted) => self.leader.finish(End::Broken),
            None => self.pass_on().await,
        }
    }

    /// A stream is passed on as it comes. Whether it will be stored is a promise: if it ends well.
    async fn stream(self: Box<Self>, mut head: UpstreamHead) {
        head.outcome.stored = self.gathering.is_some() && self.stores();
        self.leader.begin(Head::Upstream(Arc::new(head)));
        self.pass_on().await;
    }

    async fn pass_on(mut self: Box<Self>) {
        loop {
            match self.next().await {
                Ok(chunk) => self.leader.publish(chunk, self.patience).await,
                Err(Ended::Whole) => break,
                Err(Ended::Broken | Ended::Deserted) => return self.leader.finish(End::Broken),
            }
        }
        let reply = self.gathered();
        if let Some(reply) = &reply {
            self.store(reply).await;
        }
        self.finish(reply);
    }

    /// Ends the flight with the whole reply, and then has it compared with what is on trial.
    fn finish(self, reply: Option<Reply>) {
        let fresh = if self.trial.is_some() { reply.clone() } else { None };
        self.leader.finish(End::Whole(reply));
        if let (Some(trial), Some(fresh)) = (self.trial, fresh) {
            self.cache.conclude(trial, &self.query, fresh);
        }
    }

    /// Whether a reply that may be stored is.
    fn stores(&self) -> bool {
        self.trial.as_ref().is_none_or(Trial::stores_reply)
    }

    /// The next chunk, or how it ended.
    async fn next(&mut self) -> Result<Bytes, Ended> {
        loop {
            let frame = tokio::select! {
                frame = tokio::time::timeout(self.idle, self.body.frame()) => frame,
                () = self.leader.deserted() => return Err(Ended::Deserted),
            };
            match frame {
                Ok(Some(Ok(frame))) => {
                    // Trailers end here: none of the APIs has any, and a shared reply has no place for them.
                    let Ok(chunk) = frame.into_data() else { continue };
                    if let Some(gathering) = &mut self.gathering {
                        gathering.add(&chunk, self.limit);
                    }
                    return Ok(chunk);
                }
                Ok(None) => return Err(Ended::Whole),
                Ok(Some(Err(error))) => {
                    self.breaks_off("upstream_disconnected");
                    debug!(%error, "upstream broke its reply off");
                    return Err(Ended::Broken);
                }
                Err(_) => {
                    self.breaks_off("upstream_timeout");
                    debug!(idle = ?self.idle, "upstream paused for too long");
                    return Err(Ended::Broken);
                }
            }
        }
    }

    fn breaks_off(&mut self, kind: &'static str) {
        self.span.fail(kind);
        self.span.finish();
    }

    /// Stores a reply before anyone hears of its end: whoever asks again then finds it.
    async fn store(&mut self, reply: &Reply) -> bool {
        if !self.stores() {
            return false;
        }
        let took = Some(self.started.elapsed());
        self.cache.store_reply(&self.query, reply, took, self.place.take()).await
    }

    /// The whole reply, if it may be stored.
    fn gathered(&mut self) -> Option<Reply> {
        let reply = self.gather();
        if let Some(reply) = &reply {
            spans::replied(&mut self.span, reply);
        }
        self.span.finish();
        reply
    }

    fn gather(&mut self) -> Option<Reply> {
        let Gathering { form, coding, body } = self.gathering.take()?;
        let body = body?.freeze();
        let limit = if form.is_stream() { self.limit.saturating_mul(STREAM_FRAMING) } else { self.limit };
        let plain = decode(coding.as_deref(), &body, limit)
            .inspect_err(|error| debug!(%error, "a reply is not stored"))
            .ok()?;
        let gathered = self.query.endpoint.gather(form, &plain);
        let reply = gathered.inspect_err(|reason| debug!(%reason, "a reply is not stored")).ok()?;
        (reply.document.len() <= self.limit).then_some(reply)
    }
}

/// How a body ended.
enum Ended {
    Whole,
    Broken,
    Deserted,
}
