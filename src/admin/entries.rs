//! `/entries` and `/purge`: what is stored, for people; and taking it out.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::{Answer, Refusal, json_response};
use crate::cache::Cache;
use crate::dialect::template::rfc3339;
use crate::proxy::body::Body;
use crate::rate::rounded;
use crate::store::entry::EntryId;
use crate::store::evidence::Evidence;
use crate::store::{Found, ListQuery, Selector, Store, StoreError};
use crate::telemetry::histogram::{SIMILARITY_BUCKETS, similarity_edges};
use crate::telemetry::live::Live;

/// Entries on a page where the request does not say.
const PAGE: usize = 50;

/// The largest body of `POST /purge`, in bytes.
const LARGEST: usize = 64 * 1024;

/// An entry as `GET /entries` shows it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: String,
    path: &'static str,
    model: &'a str,
    namespace: &'a str,
    prompt: &'a str,
    reply: String,
    created_at: String,
    age_s: u64,
    ttl_s: u64,
    hits: u64,
}

impl<'a> Shown<'a> {
    fn new(found: &'a Found, now: SystemTime) -> Self {
        let entry = &found.entry;
        Self {
            id: entry.key.id().to_string(),
            path: entry.endpoint.path(),
            model: entry.model(),
            namespace: entry.namespace(),
            prompt: entry.prompt(),
            reply: entry.reply().text,
            created_at: rfc3339(entry.created_at),
            age_s: entry.age(now).as_secs(),
            ttl_s: entry.ttl.as_secs(),
            hits: found.hits,
        }
    }
}

/// `GET /entries?q=&limit=&cursor=`
pub(super) async fn list(store: &Store, query: &str) -> Answer {
    let mut asked = ListQuery { limit: PAGE, ..ListQuery::default() };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "q" => asked.contains = value.into_owned(),
            "limit" => asked.limit = value.parse().map_err(|_| wrong("limit", "a whole number"))?,
            "cursor" if value.is_empty() => {}
            "cursor" => {
                asked.cursor = Some(value.parse().map_err(|_| wrong("cursor", "what the page before gave"))?);
            }
            _ => return Err(wrong(&name, "known; there are q, limit and cursor")),
        }
    }
    let page = store.list(&asked).await.map_err(unavailable)?;
    // A page of large replies takes a while to read.
    let shown = tokio::task::spawn_blocking(move || {
        let now = SystemTime::now();
        let entries: Vec<_> = page.entries.iter().map(|found| Shown::new(found, now)).collect();
        json!({"entries": entries, "next_cursor": page.next.map(|cursor| cursor.to_string())})
    });
    let shown = shown.await.map_err(|_| unavailable(StoreError::Closed))?;
    Ok(json_response(StatusCode::OK, &shown))
}

/// An entry as `GET /entries/{id}` shows it.
#[derive(Debug, Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    shown: Shown<'a>,
    /// `fresh`, `expired`, or `poisoned` where its reply was found wrong and is not served.
    status: &'static str,
    scope: ScopeShape<'a>,
    /// Whether the model called tools: then the exact layer alone serves it.
    tool_calls: bool,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    hit_similarities: HitSimilarities,
    evidence: EvidenceShape,
}

/// What of an entry's scope may be shown: the rest is known as a hash alone.
#[derive(Debug, Serialize)]
struct ScopeShape<'a> {
    path: &'static str,
    model: &'a str,
    namespace: &'a str,
}

/// How near the prompts were that the entry was served for by meaning, as far as this process remembers.
#[derive(Debug, Serialize)]
struct HitSimilarities {
    edges: Vec<f64>,
    counts: Vec<u64>,
}

/// What mode verified has observed of the entry, and whether a check found its reply wrong.
#[derive(Debug, Serialize)]
struct EvidenceShape {
    same: usize,
    different: usize,
    contradicted: bool,
    trials: Vec<TrialShape>,
}

/// One trial: how sure the cache was, and whether upstream said the same.
#[derive(Debug, Serialize)]
struct TrialShape {
    confidence: f64,
    same: bool,
}

impl EvidenceShape {
    fn new(evidence: &Evidence, contradicted: bool) -> Self {
        let observations = evidence.observations();
        let same = observations.iter().filter(|observation| observation.same).count();
        let trials = observations.iter().map(|observation| TrialShape {
            confidence: rounded(f64::from(observation.score)),
            same: observation.same,
        });
        Self { same, different: observations.len() - same, contradicted, trials: trials.collect() }
    }
}

/// `GET /entries/{id}`
pub(super) async fn show(store: &Store, live: &Live, id: &str) -> Answer {
    let id = parse(id)?;
    let found = store.find(&id).await.map_err(unavailable)?.ok_or_else(|| missing(&id))?;
    let entry = &found.entry;
    let evidence = store.evidence(&entry.key, entry.created_at).await.map_err(unavailable)?;
    let now = SystemTime::now();
    let status = match (entry.poisoned, entry.remaining(now).is_zero()) {
        (true, _) => "poisoned",
        (false, true) => "expired",
        (false, false) => "fresh",
    };
    let edges = similarity_edges();
    let counts = live.similarities_of(&id, entry.created_at);
    let usage = entry.cost().usage;
    let shown = Whole {
        shown: Shown::new(&found, now),
        status,
        scope: ScopeShape { path: entry.endpoint.path(), model: entry.model(), namespace: entry.namespace() },
        tool_calls: entry.tool_calls,
        prompt_tokens: usage.map(|usage| usage.input),
        completion_tokens: usage.map(|usage| usage.output),
        hit_similarities: HitSimilarities {
            counts: counts.unwrap_or_else(|| vec![0; SIMILARITY_BUCKETS]),
            edges,
        },
        evidence: EvidenceShape::new(&evidence, entry.poisoned),
    };
    Ok(json_response(StatusCode::OK, &shown))
}

/// `DELETE /entries/{id}`
pub(super) async fn remove(cache: &Cache, id: &str) -> Answer {
    let parsed = parse(id)?;
    let removed = cache.store().remove(&parsed).await.map_err(unavailable)?;
    // What fell just short of it shows its prompt, and goes whether or not the entry is still there.
    cache.trials().near_misses.forget(&parsed);
    if !removed {
        return Err(missing(&parsed));
    }
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// The body of `POST /purge`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    #[serde(default)]
    all: bool,
    model: Option<String>,
    namespace: Option<String>,
    #[serde(default, deserialize_with = "seconds")]
    older_than_s: Option<u64>,
    /// Only says how many there are.
    #[serde(default)]
    dry_run: bool,
}

/// The most that a document's number says exactly.
const MOST_SECONDS: u64 = (1 << 53) - 1;

/// A whole number, also one that is written with a point.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, and neither is lost in bounds"
    )]
    let whole =
        number.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|number| number as u64);
    let whole = number.as_u64().or(whole).filter(|whole| *whole <= MOST_SECONDS);
    whole.map(Some).ok_or_else(|| serde::de::Error::custom("older_than_s is no whole number of seconds"))
}

/// `POST /purge`
pub(super) async fn purge(cache: &Cache, body: Incoming) -> Answer {
    let refused = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let body: Bytes = Limited::new(body, LARGEST)
        .collect()
        .await
        .map_err(|error| refused(format!("the body could not be read: {error}")))?
        .to_bytes();
    // An object alone: an array would be taken for its values in their order.
    let purge = serde_json::from_slice::<serde_json::Map<_, _>>(&body);
    let purge = purge.and_then(|object| serde_json::from_value::<Purge>(object.into()));
    let purge = purge.map_err(|error| refused(format!("the body is wrong: {error}")))?;
    // An empty text is a variable that was not set, as a rule, and not the entries without a namespace.
    for (name, value) in [("model", &purge.model), ("namespace", &purge.namespace)] {
        if value.as_ref().is_some_and(|value| value.trim().is_empty()) {
            return Err(refused(format!("{name} is empty: nothing selected, nothing purged")));
        }
    }
    let selected = purge.model.is_some() || purge.namespace.is_some() || purge.older_than_s.is_some();
    let selector = match (purge.all, selected) {
        (true, false) => Selector::All,
        (false, true) => Selector::Matching {
            model: purge.model,
            namespace: purge.namespace,
            older_than: purge.older_than_s.map(Duration::from_secs),
        },
        (true, true) => {
            return Err(refused("\"all\" and a filter contradict each other; give one".to_owned()));
        }
        (false, false) => {
            let message =
                "nothing selected, nothing purged: give \"all\": true, or model, namespace or older_than_s";
            return Err(refused(message.to_owned()));
        }
    };
    if purge.dry_run {
        let count = cache.store().count(&selector).await.map_err(unavailable)?;
        return Ok(json_response(StatusCode::OK, &json!({"would_purge": count})));
    }
    let purged = cache.store().purge(&selector).await.map_err(unavailable)?;
    cache.trials().near_misses.purge(&selector);
    Ok(json_response(StatusCode::OK, &json!({"purged": purged})))
}

fn parse(id: &str) -> Result<EntryId, Refusal> {
    id.parse().map_err(|error: crate::store::entry::EntryIdError| {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
    })
}

fn missing(id: &EntryId) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is no entry {id}"))
}

fn wrong(name: &str, expected: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("the parameter {name:?} is not {expected}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unavailable(error: StoreError) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
