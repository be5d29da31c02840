//! What would become of a request: read, named and looked up as it would be, and then not answered.
//!
//! Called by `admin` for `POST /explain`. The functions are those of [`super::cached`] and of the cache's layers; nothing
//! is remembered of the request.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Uri};

use super::Proxy;
use super::cached::Prepared;
use super::headers::{Survey, directives, identity, join_cookies, strip_request};
use crate::cache::decision::MissReason;
use crate::cache::directives::DirectiveError;
use crate::cache::explain::Seen;
use crate::cache::{Found, Hit, Miss};
use crate::dialect::Endpoint;
use crate::store::entry::Entry;

/// A request that is not sent.
#[derive(Debug)]
pub struct Question {
    /// Path and query string.
    pub target: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What would become of a request.
#[derive(Debug)]
pub struct Explanation {
    /// The prompt as it is compared; `None` where the request has none that is.
    pub prompt: Option<String>,
    /// The exact layer.
    pub exact: Step,
    /// The semantic layer.
    pub semantic: Step,
    /// The candidates that the semantic layer judged, nearest first.
    pub candidates: Vec<Explained>,
    /// Upstream.
    pub upstream: Upstream,
    /// The entry that would be served.
    pub served: Option<Arc<Entry>>,
}

/// A candidate and how fresh it is, 0 to 1.
#[derive(Debug)]
pub struct Explained {
    /// The candidate.
    pub seen: Seen,
    /// How fresh it is.
    pub freshness: f32,
}

/// What a layer would do, and how long it took.
#[derive(Debug)]
pub struct Step {
    /// What it would do.
    pub looked: Looked,
    /// How long it took.
    pub took: Duration,
}

/// What a layer would do.
#[derive(Debug)]
pub enum Looked {
    /// Nothing, for this reason.
    Skipped(&'static str),
    /// It finds nothing to serve.
    Miss(Box<Miss>),
    /// It finds an entry whose reply cannot be replayed, and would remove it.
    Unreadable(Arc<Entry>),
    /// It serves this.
    Hit(Box<Hit>),
}

/// Whether upstream would be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// It would, for this reason.
    Asked(&'static str),
    /// A stored reply is served.
    NotNeeded,
    /// The client forbids it, and would get an error.
    Forbidden,
}

impl Step {
    fn skipped(reason: &'static str) -> Self {
        Self { looked: Looked::Skipped(reason), took: Duration::ZERO }
    }

    fn hit(&self) -> Option<&Arc<Entry>> {
        if let Looked::Hit(hit) = &self.looked { Some(&hit.entry) } else { None }
    }
}

impl Explanation {
    /// Of a request that is looked up in no layer.
    fn skipped(reason: &'static str, only_if_cached: bool) -> Self {
        Self {
            prompt: None,
            exact: Step::skipped(reason),
            semantic: Step::skipped(reason),
            candidates: Vec::new(),
            upstream: if only_if_cached { Upstream::Forbidden } else { Upstream::Asked(reason) },
            served: None,
        }
    }
}

impl Proxy {
    /// Says what would become of a `POST` of this.
    ///
    /// # Errors
    /// A directive among its headers has a value that cannot be read; the request would be refused.
    pub async fn explain(&self, question: Question) -> Result<Explanation, DirectiveError> {
        let Question { target, mut headers, body } = question;
        let Some(endpoint) = Endpoint::of_path(target.path()) else {
            return Ok(Explanation::skipped("never-cached", false));
        };
        join_cookies(&mut headers);
        let directives = directives(&headers)?;
        strip_request(&mut headers);
        let (no_cache, only_if_cached) = (directives.no_cache, directives.only_if_cached);
        let skipped = |reason| Ok(Explanation::skipped(reason, only_if_cached));
        if directives.no_store {
            return skipped("no-store");
        }
        if headers.contains_key(CONTENT_ENCODING) || body.len() > self.settings.max_request_bytes {
            return skipped("never-cached");
        }
        let namespace = directives.namespace.clone();
        // The model chooses the upstream when the body is read.
        let identity = identity(
            &headers,
            Survey::of(&headers),
            &self.settings.scope_headers,
            self.upstreams.default().url(),
            target.query(),
            &namespace,
        );
        let Some(prepared) = self.read_and_name(endpoint, identity, &body, directives) else {
            return skipped("never-cached");
        };
        let prompt = prepared.query().prompt.clone();
        if no_cache {
            return Ok(Explanation { prompt, ..Explanation::skipped("no-cache", only_if_cached) });
        }
        Ok(Explanation { prompt, ..self.explain_layers(&prepared, only_if_cached).await })
    }

    async fn explain_layers(&self, prepared: &Prepared, only_if_cached: bool) -> Explanation {
        let query = prepared.query();
        let started = Instant::now();
        let found = self.cache.explain_exact(query, SystemTime::now()).await;
        let exact = step(prepared, found, started);
        if let Some(entry) = exact.hit() {
            let served = Some(Arc::clone(entry));
            let upstream = Upstream::NotNeeded;
            return Explanation { exact, upstream, served, ..Explanation::skipped("not-needed", false) };
        }
        // In mode observe what an equal key finds is on trial, and nothing else is looked for.
        if let Looked::Miss(miss) = &exact.looked
            && miss.reason == MissReason::Observed
        {
            let upstream = Upstream::Asked(miss.reason.as_str());
            return Explanation { exact, upstream, ..Explanation::skipped("not-needed", only_if_cached) };
        }
        let (started, now) = (Instant::now(), SystemTime::now());
        let (found, seen) = self.cache.explain_semantic(query, now).await;
        let semantic = step(prepared, found, started);
        let served = semantic.hit().map(Arc::clone);
        let upstream = match (&served, only_if_cached) {
            (Some(_), _) => Upstream::NotNeeded,
            (None, true) => Upstream::Forbidden,
            (None, false) => Upstream::Asked(reason(&exact, &semantic)),
        };
        let candidates =
            seen.into_iter().map(|seen| Explained { freshness: self.cache.freshness(&seen, now), seen });
        let candidates = candidates.collect();
        Explanation { prompt: None, exact, semantic, candidates, upstream, served }
    }
}

fn step(prepared: &Prepared, found: Found, started: Instant) -> Step {
    let looked = match found {
        Ok(hit) if prepared.replay(&hit.entry.document()).is_ok() => Looked::Hit(Box::new(hit)),
        Ok(hit) => Looked::Unreadable(hit.entry),
        Err(miss) => Looked::Miss(Box::new(miss)),
    };
    Step { looked, took: started.elapsed() }
}

/// The reason that `Cache-Status` would give.
fn reason(exact: &Step, semantic: &Step) -> &'static str {
    match (&exact.looked, &semantic.looked) {
        (Looked::Miss(exact), Looked::Miss(semantic)) => (**exact).clone().then((**semantic).clone()).reason,
        (Looked::Unreadable(_), Looked::Miss(semantic)) if semantic.reason != MissReason::NoCandidate => {
            semantic.reason
        }
        _ => MissReason::Poisoned,
    }
    .as_str()
}
