//! The way of a request whose reply may be reused: read, named, looked up layer by layer, fetched if need be.
//!
//! Called by [`super`] for the cacheable endpoints, and by [`super::ask`]. The order is the design: exact lookup,
//! then coalescing, then the semantic lookup by whoever leads, then upstream.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Response, request};
use tracing::{info, warn};

use super::body::Body;
use super::error::ProxyError;
use super::fetch::{Fetch, FlightKey, FlightReader, Head, UpstreamHead};
use super::headers::{REQUEST_ID, Survey, accepts_coding, forbids_storing, identity, shared};
use super::permits::Permit;
use super::told::Written;
use super::upstream::Upstream;
use super::{Answered, Failure, Proxy};
use crate::cache::coalesce::{End, Joined};
use crate::cache::directives::Directives;
use crate::cache::key::Identity;
use crate::cache::outcome::{Forward, Outcome, Timings};
use crate::cache::trial::Trial;
use crate::cache::{Hit, Miss, Query};
use crate::dialect::json::Json;
use crate::dialect::openai::usage::UsageFilter;
use crate::dialect::{Echo, Endpoint, Form, ReplayError, Reply};
use crate::savings::{Ledger, Meter};
use crate::store::entry::Placed;
use crate::telemetry::decisions::Asked;
use crate::trace::Trace;

/// A request that was read and named.
#[derive(Debug)]
pub(super) struct Prepared {
    query: Query,
    /// Where it goes if nothing stored serves.
    pub(super) upstream: Arc<Upstream>,
    form: Form,
    echo: Echo,
    /// The body as it goes upstream, where usage is asked for on the client's behalf.
    with_usage: Option<Bytes>,
    /// Where its hits are counted, since the first.
    meter: OnceLock<Meter>,
    /// What its last hit said in our own headers.
    pub(super) written: Written,
}

/// A stored reply that may be served, laid out as this request wants it.
struct Served {
    hit: Hit,
    body: Bytes,
    meter: Meter,
}

/// What a lookup left for the fetch that follows it: the prompt's place, and a stored reply to be compared.
pub(super) type Known = (Option<Placed>, Option<Trial>);

/// What the exact layer found where it found nothing to serve, and how long that took.
pub(super) type Missed = Box<(Miss, Timings)>;

/// What became of waiting for another request's reply.
enum Followed {
    Answer(Box<Result<Answer, Failure>>),
    /// The other was given up before it began.
    Abandoned,
    /// There is a reply, but not one that this request can have too.
    Unshared,
    /// Upstream's reply is for the request alone that asked for it.
    Private,
}

/// What answers a request.
pub(super) enum Answer {
    /// A stored reply.
    Hit(Hit, Bytes, Outcome),
    /// Upstream's reply, as it comes.
    Upstream(FlightReader, Arc<UpstreamHead>, Outcome),
    /// A whole reply of upstream's to another request, which asked for another form.
    Gathered(Reply, Bytes, Outcome),
}

impl Proxy {
    /// Reads and names a request; `None` where it is not ours to judge and passes through.
    pub(super) fn prepare(
        &self,
        endpoint: Endpoint,
        parts: &request::Parts,
        survey: Survey,
        body: &Bytes,
        directives: Directives,
    ) -> Option<Arc<Prepared>> {
        let namespace = directives.namespace.clone();
        // Which upstream it is follows from the body, which need not be read if it was of late.
        let identity = identity(
            &parts.headers,
            survey,
            &self.settings.scope_headers,
            self.upstreams.default().url(),
            parts.uri.query(),
            &namespace,
        );
        // Directives are part of what a request means; few requests have any.
        if directives != Directives::default() {
            return self.read_and_name(endpoint, identity, body, directives).map(Arc::new);
        }
        let request = self.cache.request(endpoint, &identity, body);
        let prices_hold = |prepared: &Arc<Prepared>| {
            prepared.meter.get().is_none_or(|meter| self.savings.is_current(meter))
        };
        if let Some(prepared) = self.readings.get(&request).filter(prices_hold) {
            return Some(prepared);
        }
        let prepared = Arc::new(self.read_and_name(endpoint, identity, body, directives)?);
        self.readings.insert(request, &prepared);
        Some(prepared)
    }

    pub(super) fn read_and_name(
        &self,
        endpoint: Endpoint,
        identity: Identity<'_>,
        body: &Bytes,
        directives: Directives,
    ) -> Option<Prepared> {
        let read = endpoint.read(Json::parse(body).ok()?)?;
        // JSON, so that no user is the empty text, which stands for none where users are told apart.
        let user = || read.echo.get("user").map(ToString::to_string).unwrap_or_default();
        let user = self.settings.scope_user.then(user);
        let upstream = self.upstreams.of_model(&read.model);
        let identity =
            Identity { upstream: upstream.url(), key: upstream.key(), user: user.as_deref(), ..identity };
        let query = self.cache.query(endpoint, &read, &identity, directives);
        let with_usage =
            self.settings.include_usage.then(|| endpoint.ask_for_usage(read.form, body)).flatten();
        Some(Prepared {
            query,
            upstream: Arc::clone(upstream),
            form: read.form,
            echo: read.echo,
            with_usage,
            meter: OnceLock::new(),
            written: Written::default(),
        })
    }

    /// Answers a request whose reply is at hand, which takes no wait. Else what was found out, if anything was.
    pub(super) fn answer_at_hand(&self, prepared: &Prepared) -> Result<Answer, Option<Missed>> {
        if prepared.query.directives.no_cache || self.cache.trials().options().observe {
            return Err(None);
        }
        let (started, now) = (Instant::now(), SystemTime::now());
        let found = self.cache.exact_at_hand(&prepared.query, started, now).ok_or(None)?;
        let served = found.and_then(|hit| self.serve(prepared, hit, now));
        let timings = Timings { exact: Some(started.elapsed()), ..Timings::default() };
        match served {
            Ok(served) => Ok(served.answer(timings, now)),
            Err(miss) => Err(Some(Box::new((miss, timings)))),
        }
    }

    /// Answers a request from the cheapest layer that may.
    pub(super) async fn answer(
        &self,
        prepared: &Prepared,
        parts: request::Parts,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        match self.answer_at_hand(prepared) {
            Ok(answer) => Ok(answer),
            Err(missed) => self.answer_after(prepared, parts, body, missed).await,
        }
    }

    /// Answers a request whose reply is not at hand; `missed` is what was found out by that.
    pub(super) async fn answer_after(
        &self,
        prepared: &Prepared,
        parts: request::Parts,
        body: Bytes,
        missed: Option<Missed>,
    ) -> Result<Answer, Failure> {
        let query = &prepared.query;
        if query.directives.no_cache && query.directives.only_if_cached {
            let outcome = Outcome::forwarded(Forward::Request);
            return Err(Failure::new(ProxyError::OnlyIfCached, outcome));
        }
        if query.directives.no_cache {
            let outcome = Outcome::forwarded(Forward::Request);
            return self.fetch_alone(prepared, parts, body, outcome, Known::default()).await;
        }
        if self.cache.trials().options().observe {
            return self.observed(prepared, parts, body).await;
        }
        let (exact, mut timings) = if let Some(missed) = missed {
            *missed
        } else {
            let started = Instant::now();
            let exact = self.exact(prepared).await;
            let timings = Timings { exact: Some(started.elapsed()), ..Timings::default() };
            match exact {
                Ok(served) => return Ok(served.answer(timings, SystemTime::now())),
                Err(miss) => (miss, timings),
            }
        };
        if query.directives.only_if_cached {
            return match self.semantic(prepared, exact, &mut timings).await {
                Ok(served) => Ok(served.answer(timings, SystemTime::now())),
                Err(miss) => Err(Failure::new(ProxyError::OnlyIfCached, Outcome::miss(&miss, timings))),
            };
        }
        Box::pin(self.coalesced(prepared, parts, body, exact, timings)).await
    }

    /// Joins the flight for the same thing, or leads it.
    async fn coalesced(
        &self,
        prepared: &Prepared,
        parts: request::Parts,
        body: Bytes,
        exact: Miss,
        mut timings: Timings,
    ) -> Result<Answer, Failure> {
        let query = &prepared.query;
        let mut key = FlightKey {
            key: query.key,
            threshold: query.directives.threshold.map(f32::to_bits),
            max_age: query.directives.max_age,
            form: None,
        };
        loop {
            match self.flights.join(&key) {
                Joined::Follower(reader) => {
                    match self.follow(prepared, &parts.headers, reader, &exact, timings).await {
                        Followed::Answer(answer) => return *answer,
                        Followed::Abandoned => {}
                        // Those who want it in the same form can still share one; whoever could not even so asks
                        // alone, for in line they would wait for all the others.
                        Followed::Unshared
                            if key.form.is_none() && query.endpoint != Endpoint::OpenAiResponses =>
                        {
                            key.form = Some(prepared.form);
                        }
                        Followed::Unshared | Followed::Private => {
                            let outcome = Outcome::miss(&exact, timings);
                            return self.fetch_alone(prepared, parts, body, outcome, Known::default()).await;
                        }
                    }
                }
                Joined::Leader(leader, reader) => {
                    // Whoever led before may have finished between our lookup and now.
                    if let Ok(served) = self.exact(prepared).await {
                        return Ok(served.answer(timings, SystemTime::now()));
                    }
                    let mut miss = match self.semantic(prepared, exact, &mut timings).await {
                        Ok(served) => {
                            leader.begin(Head::Hit(served.hit.clone()));
                            leader.finish(End::Whole(None));
                            self.audit(prepared, parts, body, &served.hit);
                            return Ok(served.answer(timings, SystemTime::now()));
                        }
                        Err(miss) => miss,
                    };
                    let outcome = Outcome::miss(&miss, timings).to(prepared.upstream.name());
                    let known = (miss.place.take(), miss.trial.take().map(|trial| *trial));
                    let permit = match prepared.upstream.permits().take().await {
                        Ok(permit) => permit,
                        Err(error) => {
                            leader.begin(Head::Failed(error.clone()));
                            leader.finish(End::Whole(None));
                            return Err(Failure::new(error, outcome));
                        }
                    };
                    let fetch = self.fetch(prepared, parts, body, known, outcome.clone(), permit);
                    tokio::spawn(fetch.run(leader));
                    return lead(reader, outcome).await;
                }
            }
        }
    }

    async fn exact(&self, prepared: &Prepared) -> Result<Served, Miss> {
        let now = SystemTime::now();
        let hit = self.cache.exact(&prepared.query, now).await?;
        self.serve(prepared, hit, now)
    }

    async fn semantic(
        &self,
        prepared: &Prepared,
        exact: Miss,
        timings: &mut Timings,
    ) -> Result<Served, Miss> {
        let started = Instant::now();
        let found = match self.cache.semantic(&prepared.query, SystemTime::now()).await {
            Ok(hit) => self.serve(prepared, hit, SystemTime::now()),
            Err(miss) => Err(miss),
        };
        timings.semantic = Some(started.elapsed());
        found.map_err(|semantic| exact.then(semantic))
    }

    /// Lays a hit out. An entry that cannot be is as good as none, and goes.
    fn serve(&self, prepared: &Prepared, hit: Hit, now: SystemTime) -> Result<Served, Miss> {
        match self.layouts.of(&hit.entry, prepared.form) {
            Ok(template) => {
                let body = template.render(&prepared.echo, now);
                Ok(Served { hit, body, meter: prepared.meter(&self.savings) })
            }
            Err(error) => {
                warn!(entry = %hit.entry.key.id(), %error, "a stored reply cannot be replayed; removing it");
                Err(self.cache.discard(&hit))
            }
        }
    }

    /// A request that does not share: the client wants a reply of its own (`no-cache`), or none could be shared.
    pub(super) async fn fetch_alone(
        &self,
        prepared: &Prepared,
        parts: request::Parts,
        body: Bytes,
        outcome: Outcome,
        known: Known,
    ) -> Result<Answer, Failure> {
        let outcome = outcome.to(prepared.upstream.name());
        let permit = prepared.upstream.permits().take().await;
        let permit = permit.map_err(|error| Failure::new(error, outcome.clone()))?;
        let (leader, reader) = self.flights.alone();
        let fetch = self.fetch(prepared, parts, body, known, outcome.clone(), permit);
        tokio::spawn(fetch.run(leader));
        lead(reader, outcome).await
    }

    pub(super) fn fetch(
        &self,
        prepared: &Prepared,
        mut parts: request::Parts,
        body: Bytes,
        (place, trial): Known,
        outcome: Outcome,
        permit: Permit,
    ) -> Fetch {
        // A shared reply has no place for trailers.
        parts.headers.remove(TE);
        parts.headers.remove(CONNECTION);
        let form = match (&prepared.with_usage, prepared.form) {
            (Some(_), _) => {
                // What is to be taken out of a stream must be readable in it.
                parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
                Form::Sse { usage: true }
            }
            (None, form) => form,
        };
        Fetch {
            upstream: Arc::clone(&prepared.upstream),
            cache: Arc::clone(&self.cache),
            parts,
            body: prepared.with_usage.clone().unwrap_or(body),
            form,
            query: prepared.query.clone(),
            place,
            trial,
            outcome,
            storable: prepared.is_storable(),
            limit: self.settings.max_entry_bytes,
            patience: self.settings.idle,
            budget: self.budget.clone(),
            permit,
            trace: Trace::current(),
        }
    }

    /// Waits for another's reply; `headers` are those of the request that waits.
    async fn follow(
        &self,
        prepared: &Prepared,
        headers: &HeaderMap,
        reader: FlightReader,
        exact: &Miss,
        timings: Timings,
    ) -> Followed {
        let collapsed =
            |outcome: &Outcome| Outcome { collapsed: true, stored: false, timings, ..outcome.clone() };
        let Some(head) = reader.head().await else { return Followed::Abandoned };
        match head.as_ref() {
            Head::Hit(hit) => match self.serve(prepared, hit.clone(), SystemTime::now()) {
                Ok(served) => Followed::Answer(Box::new(Ok(served.answer(timings, SystemTime::now())))),
                Err(_) => Followed::Abandoned,
            },
            Head::Failed(error) => {
                let outcome = collapsed(&Outcome::miss(exact, timings));
                Followed::Answer(Box::new(Err(Failure::new(error.clone(), outcome))))
            }
            Head::Upstream(upstream) => {
                let outcome = collapsed(&upstream.outcome);
                // An error is shared whatever it says: all who wait would meet it, and asking for each would be a stampede.
                if upstream.status.is_success() && forbids_storing(&upstream.headers) {
                    return Followed::Private;
                }
                if prepared.may_share(upstream, headers) {
                    return Followed::Answer(Box::new(Ok(Answer::Upstream(
                        reader,
                        Arc::clone(upstream),
                        outcome,
                    ))));
                }
                let Some(End::Whole(Some(reply))) = reader.end().await else { return Followed::Unshared };
                match prepared.replay(&reply.document) {
                    Ok(body) => Followed::Answer(Box::new(Ok(Answer::Gathered(reply, body, outcome)))),
                    Err(_) => Followed::Unshared,
                }
            }
        }
    }
}

impl Prepared {
    /// What it asks, and for whom.
    pub(super) fn query(&self) -> &Query {
        &self.query
    }

    /// Where its hits are counted, looked up by name once.
    fn meter(&self, savings: &Ledger) -> Meter {
        *self.meter.get_or_init(|| savings.meter(&self.query.model))
    }

    /// How many bytes it keeps in memory, nearly.
    pub(super) fn weight(&self) -> usize {
        let prompt = self.query.prompt.as_ref().map_or(0, String::len);
        let with_usage = self.with_usage.as_ref().map_or(0, Bytes::len);
        1024 + self.query.model.len() + prompt + self.echo.weight() + with_usage
    }

    /// Whether the reply may be given to others. The id of a Responses reply that upstream was asked not to keep
    /// means nothing there, and a later `previous_response_id` would fail.
    fn is_storable(&self) -> bool {
        let kept_upstream = self.echo.get("store") != Some(&serde_json::Value::Bool(false));
        kept_upstream || self.query.endpoint != Endpoint::OpenAiResponses
    }

    /// Whether the bytes that another request's reply comes in are what this one asked for, in a coding that it
    /// takes.
    fn may_share(&self, upstream: &UpstreamHead, headers: &HeaderMap) -> bool {
        let same_form = match (self.form, upstream.form) {
            (Form::Sse { usage: wanted }, Form::Sse { usage }) => usage || !wanted,
            (wanted, form) => wanted == form,
        };
        // Usage cannot be taken out of coded bytes. A Responses reply echoes fields of its own request. An error
        // is one in any form.
        let usage_unasked =
            matches!((self.form, upstream.form), (Form::Sse { usage: false }, Form::Sse { usage: true }));
        let coded = upstream.headers.contains_key(CONTENT_ENCODING);
        let same = same_form && !(usage_unasked && coded) && self.query.endpoint != Endpoint::OpenAiResponses;
        let mut codings = upstream.headers.get_all(CONTENT_ENCODING).iter();
        let coding_taken =
            codings.all(|coding| coding.to_str().is_ok_and(|coding| accepts_coding(headers, coding)));
        coding_taken && (same || !upstream.status.is_success())
    }

    pub(super) fn replay(&self, document: &Bytes) -> Result<Bytes, ReplayError> {
        let template = self.query.endpoint.replay(document, self.form)?;
        Ok(template.render(&self.echo, SystemTime::now()))
    }

    /// Writes the prompt to the log, where the operator asked for that (`log.prompts`).
    pub(super) fn log_prompt(&self, headers: &HeaderMap) {
        let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        info!(target: "rejoinder::prompt", request_id, prompt = self.query.prompt);
    }

    /// What a request was answered with that was asked about like this.
    pub(super) fn answered(
        &self,
        answer: Result<Answer, Failure>,
        asked: Option<Box<Asked>>,
    ) -> Result<Answered, Failure> {
        match answer {
            Ok(answer) => Ok(Answered { asked, ..self.respond(answer, HeaderMap::new()) }),
            Err(failure) => Err(failure.with(asked)),
        }
    }

    /// The response that an answer makes. `room` is an empty map for the headers of a stored reply.
    pub(super) fn respond(&self, answer: Answer, room: HeaderMap) -> Answered {
        match answer {
            Answer::Hit(_, body, outcome) | Answer::Gathered(_, body, outcome) => {
                Answered::new(replayed(self.form, body, room), outcome)
            }
            Answer::Upstream(reader, head, outcome) => {
                Answered::new(self.relayed(reader, &head, &outcome), outcome)
            }
        }
    }

    /// Upstream's reply as this client is to see it: its own exchange's headers, or the content's alone.
    fn relayed(&self, reader: FlightReader, upstream: &UpstreamHead, outcome: &Outcome) -> Response<Body> {
        let asked_for_more =
            matches!((upstream.form, self.form), (Form::Sse { usage: true }, Form::Sse { usage: false }));
        // In a content coding, which upstream was asked not to use, nothing can be found to be taken out.
        let readable = !upstream.headers.contains_key(CONTENT_ENCODING);
        let filter = (asked_for_more && readable && upstream.status.is_success()).then(UsageFilter::default);
        let mut headers =
            if outcome.collapsed { shared(&upstream.headers) } else { upstream.headers.clone() };
        if filter.is_some() {
            headers.remove(CONTENT_LENGTH);
        }
        let mut response = Response::new(Body::flight(reader, filter));
        *response.status_mut() = upstream.status;
        *response.headers_mut() = headers;
        response
    }
}

impl Served {
    fn answer(self, timings: Timings, now: SystemTime) -> Answer {
        let outcome = Outcome { meter: Some(self.meter), ..Outcome::hit(&self.hit, now, timings) };
        Answer::Hit(self.hit, self.body, outcome)
    }
}

/// Waits for the head of a reply that this request asked for itself.
async fn lead(reader: FlightReader, outcome: Outcome) -> Result<Answer, Failure> {
    let Some(head) = reader.head().await else {
        return Err(Failure::new(ProxyError::Upstream("the request was given up".to_owned()), outcome));
    };
    match head.as_ref() {
        Head::Failed(error) => Err(Failure::new(error.clone(), outcome)),
        Head::Upstream(upstream) => {
            Ok(Answer::Upstream(reader, Arc::clone(upstream), upstream.outcome.clone()))
        }
        Head::Hit(_) => Err(Failure::new(ProxyError::Upstream("no reply came".to_owned()), outcome)),
    }
}

fn replayed(form: Form, body: Bytes, mut headers: HeaderMap) -> Response<Body> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    let mut response = Response::new(if form.is_stream() { Body::Streamed(body) } else { Body::Whole(body) });
    *response.headers_mut() = headers;
    response
}
