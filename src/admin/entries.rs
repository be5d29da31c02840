//! `/entries` and `/purge`: what is stored, for people; and taking it out.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Answer, Refusal, json_response};
use crate::cache::Cache;
use crate::dialect::template::rfc3339;
use crate::proxy::body::Body;
use crate::store::entry::EntryId;
use crate::store::{Found, ListQuery, Selector, Store, StoreError};

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
    reply: Cow<'a, str>,
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
            model: &entry.model,
            namespace: &entry.namespace,
            prompt: &entry.prompt,
            reply: entry.text(),
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
    let now = SystemTime::now();
    let entries: Vec<_> = page.entries.iter().map(|found| Shown::new(found, now)).collect();
    let next = page.next.map(|cursor| cursor.to_string());
    Ok(json_response(StatusCode::OK, &json!({"entries": entries, "next_cursor": next})))
}

/// `GET /entries/{id}`
pub(super) async fn show(store: &Store, id: &str) -> Answer {
    let found = store.find(&parse(id)?).await.map_err(unavailable)?.ok_or_else(|| missing(id))?;
    Ok(json_response(StatusCode::OK, &Shown::new(&found, SystemTime::now())))
}

/// `DELETE /entries/{id}`
pub(super) async fn remove(cache: &Cache, id: &str) -> Answer {
    let parsed = parse(id)?;
    let removed = cache.store().remove(&parsed).await.map_err(unavailable)?;
    // What fell just short of it shows its prompt, and goes whether or not the entry is still there.
    cache.trials().near_misses.forget(&parsed);
    if !removed {
        return Err(missing(id));
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
    older_than_s: Option<u64>,
    /// Only says how many there are.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /purge`
pub(super) async fn purge(cache: &Cache, body: Incoming) -> Answer {
    let refused = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let body: Bytes = Limited::new(body, LARGEST)
        .collect()
        .await
        .map_err(|error| refused(format!("the body could not be read: {error}")))?
        .to_bytes();
    let purge: Purge =
        serde_json::from_slice(&body).map_err(|error| refused(format!("the body is wrong: {error}")))?;
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

fn missing(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is no entry {id}"))
}

fn wrong(name: &str, expected: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("the parameter {name:?} is not {expected}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unavailable(error: StoreError) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
