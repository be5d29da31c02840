//! A request on its way, as a future: that of an exact hit is small, and done in one poll.
//!
//! Made by [`super::Current`]. What a plain request to a cacheable endpoint is answered with is found out in one poll, once
//! its body is there. All else goes on by the heap, where the many states that it may be in are held.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Version, request};

use super::body::BodyError;
use super::cached::{self, Prepared};
use super::collect::{Beginning, Begun, is_larger};
use super::headers::{REQUEST_ID, Survey, strip_request};
use super::{Answered, Arrival, Failure, Proxy, finished};
use crate::cache::directives::Directives;
use crate::cache::outcome::Forward;
use crate::dialect::Endpoint;
use crate::telemetry::decisions::Asked;
use crate::telemetry::request_id::GivenId;

/// See the module.
pub struct Handling(Stage);

enum Stage {
    /// The body of a plain request is being read. Boxed: a future is moved by each layer that holds it, which costs more
    /// than to allocate this much once.
    Reading(Box<Reading>),
    /// Anything else.
    Going(Pin<Box<dyn Future<Output = Answered> + Send>>),
    /// It is answered.
    Done,
}

/// A request to a cacheable endpoint that asks nothing of the cache, and whose body is framed by its length.
struct Reading {
    proxy: Arc<Proxy>,
    endpoint: Endpoint,
    parts: request::Parts,
    survey: Survey,
    id: Option<GivenId>,
    body: Beginning,
}

/// Why a request is not answered at once, with what is known of it.
enum Rest {
    /// The body is not there whole, or is too large.
    Unread(Result<Begun, BodyError>),
    /// It is of no shape that is cached.
    Unknown(Bytes),
    /// Its reply is not at hand.
    Missed(Box<Missed>),
}

struct Missed {
    prepared: Arc<Prepared>,
    body: Bytes,
    asked: Option<Box<Asked>>,
    found: Option<cached::Missed>,
}

impl Handling {
    /// Begins with a request that came.
    pub(super) fn new(proxy: Arc<Proxy>, Arrival { request, id }: Arrival) -> Self {
        let (mut parts, incoming) = request.into_parts();
        let endpoint = if parts.method == Method::POST { Endpoint::of_path(parts.uri.path()) } else { None };
        let survey = Survey::of(&parts.headers);
        if let Some(endpoint) = endpoint
            && parts.version != Version::HTTP_2
            && survey.is_plain()
            && !is_larger(&incoming, proxy.settings.max_request_bytes)
        {
            if survey.has_hop_by_hop() {
                strip_request(&mut parts.headers);
            }
            let body = Beginning::new(incoming, proxy.settings.idle);
            return Self(Stage::Reading(Box::new(Reading { proxy, endpoint, parts, survey, id, body })));
        }
        call(&mut parts, id);
        Self(Stage::Going(Box::pin(async move {
            let uri = parts.uri.clone();
            proxy.unless_closing(&uri, proxy.handle(parts, incoming)).await
        })))
    }
}

/// Says in the headers what a request is called.
fn call(parts: &mut request::Parts, id: Option<GivenId>) {
    if let Some(id) = id.and_then(|id| id.to_string().try_into().ok()) {
        parts.headers.insert(REQUEST_ID, id);
    }
}

impl Future for Handling {
    type Output = Result<Answered, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stage = &mut self.get_mut().0;
        if let Stage::Reading(reading) = stage {
            let begun = ready!(reading.body.poll(cx));
            match reading.answer(begun) {
                Ok(answered) => return Poll::Ready(Ok(answered)),
                Err(rest) => {
                    if let Stage::Reading(reading) = std::mem::replace(stage, Stage::Done) {
                        *stage = Stage::Going(Box::pin(reading.go_on(rest)));
                    }
                }
            }
        }
        let Stage::Going(going) = stage else { return Poll::Pending };
        let answered = ready!(going.as_mut().poll(cx));
        *stage = Stage::Done;
        Poll::Ready(Ok(answered))
    }
}

impl Reading {
    /// Answers from what is at hand.
    fn answer(&mut self, begun: Result<Begun, BodyError>) -> Result<Answered, Rest> {
        let proxy = &self.proxy;
        let body = match begun {
            Ok(Begun::Whole(body)) if body.len() <= proxy.settings.max_request_bytes => body,
            begun => return Err(Rest::Unread(begun)),
        };
        if proxy.settings.log_prompts {
            call(&mut self.parts, self.id);
        }
        let prepared = proxy.prepare(self.endpoint, &self.parts, self.survey, &body, Directives::default());
        let Some(prepared) = prepared else {
            return Err(Rest::Unknown(body));
        };
        let asked = proxy.asked(&prepared, &self.parts.headers);
        match proxy.answer_at_hand(&prepared) {
            Ok(answer) => {
                // The request's headers have served, and their memory serves the reply's.
                let mut room = std::mem::take(&mut self.parts.headers);
                room.clear();
                let mut answered = Answered { asked, ..prepared.respond(answer, room) };
                prepared.written.write(answered.response.headers_mut(), &answered.outcome);
                Ok(answered)
            }
            Err(found) => Err(Rest::Missed(Box::new(Missed { prepared, body, asked, found }))),
        }
    }

    /// Answers by whatever it takes.
    async fn go_on(self: Box<Self>, rest: Rest) -> Answered {
        let Self { proxy, endpoint, mut parts, id, body, .. } = *self;
        call(&mut parts, id);
        let uri = parts.uri.clone();
        let answering = async {
            let answered = match rest {
                Rest::Missed(missed) => {
                    let Missed { prepared, body, asked, found } = *missed;
                    prepared.answered(proxy.answer_after(&prepared, parts, body, found).await, asked)
                }
                Rest::Unknown(body) => proxy.pass_whole(parts, body, false).await,
                Rest::Unread(begun) => unread(&proxy, endpoint, parts, body, begun).await,
            };
            finished(answered, &uri)
        };
        proxy.unless_closing(&uri, answering).await
    }
}

/// Reads the rest of a body, and answers.
async fn unread(
    proxy: &Proxy,
    endpoint: Endpoint,
    parts: request::Parts,
    body: Beginning,
    begun: Result<Begun, BodyError>,
) -> Result<Answered, Failure> {
    let collected = match begun {
        Ok(begun) => body.rest(begun, proxy.settings.max_request_bytes, &proxy.budget).await,
        Err(error) => Err(error),
    };
    let read = proxy.read_as(collected, Forward::Bypass)?;
    proxy.answer_read(endpoint, parts, read, Directives::default()).await
}
