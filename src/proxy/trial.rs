//! Requests that go upstream although a stored reply may answer them: all of them in mode observe, and some of those
//! whose client was served already, as audits.
//!
//! Called by [`super::cached`]. What is on trial travels with the fetch; the cache compares it with the reply.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::request;
use http_body_util::BodyExt as _;
use tracing::debug;

use super::body::Body;
use super::cached::{Answer, Prepared};
use super::error::ProxyError;
use super::{Failure, Proxy};
use crate::cache::Hit;
use crate::cache::outcome::{Forward, Outcome, Timings};
use crate::cache::trial::{Purpose, Trial};

/// Audits upstream at once; a hit that is drawn while there are as many is not audited.
pub(super) const AUDITS: usize = 8;

impl Proxy {
    /// Answers a request from upstream, alone, and puts on trial what the cache would have served.
    pub(super) async fn observed(
        &self,
        prepared: &Prepared,
        parts: request::Parts,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let query = prepared.query();
        let mut timings = Timings::default();
        let started = Instant::now();
        let exact = self.cache.exact(query, SystemTime::now()).await;
        timings.exact = Some(started.elapsed());
        let found = match exact {
            Ok(hit) => Ok(hit),
            Err(exact) => {
                let started = Instant::now();
                let semantic = self.cache.semantic(query, SystemTime::now()).await;
                timings.semantic = Some(started.elapsed());
                semantic.map_err(|semantic| exact.then(semantic))
            }
        };
        if query.directives.only_if_cached {
            let outcome = match &found {
                Ok(_) => Outcome::forwarded(Forward::Miss),
                Err(miss) => Outcome::miss(miss, timings),
            };
            return Err(Failure::new(ProxyError::OnlyIfCached, outcome));
        }
        let (miss, trial) = self.cache.observe(query, found);
        let outcome = Outcome::miss(&miss, timings);
        self.fetch_alone(prepared, parts, body, outcome, (miss.place, trial)).await
    }

    /// Asks upstream what a served hit was asked, behind the client's back, if the lot falls on it and there is room.
    pub(super) fn audit(&self, prepared: &Prepared, parts: request::Parts, body: Bytes, hit: &Hit) {
        if !self.cache.draws_audit(prepared.query()) {
            return;
        }
        let audits = &self.cache.trials().audits;
        let Ok(room) = Arc::clone(&self.audits).try_acquire_owned() else { return audits.skipped() };
        let trial = Trial { hit: hit.clone(), purpose: Purpose::Audit };
        let outcome = Outcome::forwarded(Forward::Miss);
        let fetch = match self.fetch(prepared, parts, body, (None, Some(trial)), outcome) {
            Ok(fetch) => fetch,
            Err(error) => {
                debug!(%error, "a hit was not audited");
                return audits.skipped();
            }
        };
        audits.begun();
        let (leader, reader) = self.flights.alone();
        tokio::spawn(async move {
            // A fetch goes on for as long as somebody reads.
            let read = async {
                let mut body = Body::flight(reader, None);
                while let Some(Ok(_)) = body.frame().await {}
            };
            tokio::join!(fetch.run(leader), read);
            drop(room);
        });
    }
}
