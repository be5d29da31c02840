//! Requests that go upstream although a stored reply may answer them: all of them in mode observe, and some of those
//! whose client was served already, as audits.
//!
//! Called by [`super::cached`]. What is on trial travels with the fetch; the cache compares it with the reply.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::request;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;
use tracing::debug;

use super::body::Body;
use super::cached::{Answer, Prepared};
use super::error::ProxyError;
use super::{Failure, Proxy};
use crate::cache::Hit;
use crate::cache::outcome::{Forward, Outcome, Timings};
use crate::cache::trial::{Purpose, Trial};
use crate::dialect::Endpoint;

/// Audits upstream at once; a hit that is drawn while there are as many is not audited.
pub(super) const AUDITS: usize = 8;

/// What of a request's body may make a second one do something a second time.
#[derive(Deserialize)]
struct Effects {
    store: Option<Value>,
    tools: Option<Value>,
    functions: Option<Value>,
    mcp_servers: Option<Value>,
    web_search_options: Option<Value>,
    plugins: Option<Value>,
    container: Option<Value>,
}

/// Whether upstream may do more for a request than to answer it: keep the reply, or call tools. What cannot be read
/// may.
fn has_effects(endpoint: Endpoint, body: &[u8]) -> bool {
    if endpoint == Endpoint::OpenAiResponses {
        return true;
    }
    let Ok(effects) = serde_json::from_slice::<Effects>(body) else { return true };
    let Effects { store, tools, functions, mcp_servers, web_search_options, plugins, container } = effects;
    store.is_some_and(|store| store != Value::Bool(false))
        || [tools, functions, mcp_servers, web_search_options, plugins, container].iter().any(Option::is_some)
}

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
        let query = prepared.query();
        if !self.cache.draws_audit(query) {
            return;
        }
        let audits = &self.cache.trials().audits;
        if has_effects(query.endpoint, &body) {
            return audits.skipped();
        }
        let Ok(room) = Arc::clone(&self.audits).try_acquire_owned() else { return audits.skipped() };
        let trial = Trial { hit: hit.clone(), purpose: Purpose::Audit };
        let outcome = Outcome::forwarded(Forward::Miss);
        let permit = match prepared.upstream.permits().take_spare() {
            Ok(permit) => permit,
            Err(error) => {
                debug!(%error, "a hit was not audited");
                return audits.skipped();
            }
        };
        let fetch = self.fetch(prepared, parts, body, (None, Some(trial)), outcome, permit);
        audits.begun();
        let (leader, reader) = self.flights.alone();
        self.cache.behind().spawn(async move {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_do_something_twice_is_not_audited() {
        let effects = |body: &str| has_effects(Endpoint::OpenAiChat, body.as_bytes());
        assert!(!effects(r#"{"model":"m","messages":[],"store":false,"tools":null}"#));
        for body in [
            r#"{"store":true}"#,
            r#"{"tools":[]}"#,
            r#"{"functions":[]}"#,
            r#"{"mcp_servers":[]}"#,
            r#"{"web_search_options":{}}"#,
            r#"{"tools":null,"tools":[{}]}"#,
            "[",
        ] {
            assert!(effects(body), "{body}");
        }
        assert!(has_effects(Endpoint::OpenAiResponses, b"{}"));
    }
}
