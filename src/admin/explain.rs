//! `POST /explain`: what each layer would make of a request, and from what evidence. No upstream is asked, nothing stored,
//! nothing counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::{Answer, Refusal, json_response};
use crate::config::Config;
use crate::proxy::Current;
use crate::proxy::explain::{Explained, Explanation, Looked, Question, Step, Upstream};
use crate::rate::rounded;
use crate::store::entry::Entry;

/// Explanations at once: each may hold a body, and takes the embedder's and the verifier's time from requests.
const AT_ONCE: usize = 2;

/// What a body may be larger than the largest request, in bytes.
const AROUND: usize = 64 << 10;

/// The longest path with its query string.
const LONGEST: usize = 8192;

/// Characters that are shown of a candidate's prompt.
const SHOWN: usize = 1000;

/// The body of `POST /explain`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked<'a> {
    path: String,
    /// As it would be sent, to the byte.
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

/// The answer.
#[derive(Debug, Serialize)]
struct Shape {
    layers: (LayerShape, LayerShape, UpstreamShape),
    normalised_prompt: Option<String>,
    would_serve: Option<Served>,
}

#[derive(Debug, Serialize)]
struct LayerShape {
    layer: &'static str,
    /// `hit`, `miss` or `skipped`.
    decision: &'static str,
    detail: &'static str,
    rule: Option<&'static str>,
    entry: Option<String>,
    micros: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<CandidateShape>>,
}

#[derive(Debug, Serialize)]
struct CandidateShape {
    entry: String,
    prompt: String,
    similarity: f64,
    rules: Vec<&'static str>,
    /// The log odds that one reply answers both prompts, as the verifier has it; `None` where it was not asked.
    verifier: Option<f64>,
    confidence: f64,
    freshness: f64,
    /// `serve`, or the reason why not.
    decision: &'static str,
}

#[derive(Debug, Serialize)]
struct UpstreamShape {
    layer: &'static str,
    decision: &'static str,
    detail: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Served {
    entry: String,
    reply: String,
}

/// What explanations need besides the proxy.
#[derive(Debug, Clone)]
pub(super) struct Explanations {
    room: Arc<Semaphore>,
    largest: usize,
}

impl Explanations {
    pub(super) fn new(config: &Config) -> Self {
        let largest = config.limits.max_request_bytes.as_usize().saturating_add(AROUND);
        Self { room: Arc::new(Semaphore::new(AT_ONCE)), largest }
    }

    /// The same under another configuration; those under way count on.
    pub(super) fn renewed(&self, config: &Config) -> Self {
        Self { room: Arc::clone(&self.room), ..Self::new(config) }
    }

    /// `POST /explain`, by the proxy in force when its turn comes.
    pub(super) async fn answer(&self, proxy: &Current, body: Incoming) -> Answer {
        let refused = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
        // Never closed, so an error cannot be; without one it goes on.
        let _room = self.room.acquire().await;
        let body: Bytes = Limited::new(body, self.largest)
            .collect()
            .await
            .map_err(|error| refused(format!("the body could not be read: {error}")))?
            .to_bytes();
        let asked: Asked<'_> =
            serde_json::from_slice(&body).map_err(|error| refused(format!("the body is wrong: {error}")))?;
        let question = asked.question(&body).map_err(refused)?;
        let explanation = proxy.get().explain(question).await.map_err(|error| refused(error.to_string()))?;
        Ok(json_response(StatusCode::OK, &Shape::of(&explanation)))
    }
}

/// Whether a byte may stand in a path with a query string.
fn is_of_a_target(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._~!$&'()*+,;=:@%?-".contains(&byte)
}

impl Asked<'_> {
    fn question(self, whole: &Bytes) -> Result<Question, String> {
        let wrong = "\"path\" is no path (RFC 3986) of at most 8192 characters that begins with a slash";
        if self.path.len() > LONGEST || !self.path.starts_with('/') || !self.path.bytes().all(is_of_a_target)
        {
            return Err(wrong.to_owned());
        }
        let target: Uri = self.path.parse().map_err(|_| wrong.to_owned())?;
        let mut headers = HeaderMap::new();
        for (name, values) in self.headers {
            let values = match values {
                Values::One(value) => vec![value],
                Values::Many(values) => values,
            };
            // The value may be a secret and is not repeated.
            let wrong = || format!("the header {name:?} has a name or value that no header can have");
            let header = HeaderName::try_from(&name).map_err(|_| wrong())?;
            for value in values {
                let value = HeaderValue::try_from(value).map_err(|_| wrong())?;
                let added = headers.try_append(header.clone(), value);
                added.map_err(|_| "there are too many headers".to_owned())?;
            }
        }
        Ok(Question { target, headers, body: whole.slice_ref(self.body.get().as_bytes()) })
    }
}

impl Shape {
    fn of(explanation: &Explanation) -> Self {
        let Explanation { prompt, exact, semantic, candidates, upstream, served } = explanation;
        let candidates = candidates.iter().map(CandidateShape::of).collect();
        Self {
            layers: (
                LayerShape::of("exact", exact, None),
                LayerShape::of("semantic", semantic, Some(candidates)),
                UpstreamShape::of(*upstream),
            ),
            normalised_prompt: prompt.clone(),
            would_serve: served.as_ref().map(|entry| Served { entry: id(entry), reply: entry.reply().text }),
        }
    }
}

impl LayerShape {
    fn of(layer: &'static str, step: &Step, candidates: Option<Vec<CandidateShape>>) -> Self {
        let (decision, detail, rule, entry) = match &step.looked {
            Looked::Skipped(reason) => ("skipped", *reason, None, None),
            Looked::Miss(miss) => ("miss", miss.reason.as_str(), miss.rule, miss.candidate.as_ref()),
            Looked::Unreadable(entry) => ("miss", "poisoned", None, Some(entry)),
            Looked::Hit(hit) => ("hit", "hit", None, Some(&hit.entry)),
        };
        let micros = u64::try_from(step.took.as_micros()).unwrap_or(u64::MAX);
        Self { layer, decision, detail, rule, entry: entry.map(|entry| id(entry)), micros, candidates }
    }
}

impl CandidateShape {
    fn of(explained: &Explained) -> Self {
        let Explained { seen, freshness } = explained;
        let decision = &seen.decision;
        let likeness = decision.likeness.as_ref();
        let differences = likeness.and_then(|likeness| likeness.differences);
        let soft = differences.into_iter().flat_map(|differences| differences.soft.iter());
        let certain = differences.and_then(|differences| differences.certain);
        Self {
            entry: id(&seen.entry),
            prompt: seen.entry.prompt().chars().take(SHOWN).collect(),
            similarity: rounded(f64::from(decision.similarity.0)),
            rules: certain.into_iter().chain(soft).map(crate::cache::guard::Rule::name).collect(),
            verifier: likeness.and_then(|likeness| likeness.score).map(|score| rounded(f64::from(score.0))),
            confidence: rounded(f64::from(decision.confidence)),
            freshness: rounded(f64::from(*freshness)),
            decision: decision.verdict.err().map_or("serve", crate::cache::decision::MissReason::as_str),
        }
    }
}

impl UpstreamShape {
    fn of(upstream: Upstream) -> Self {
        let (decision, detail) = match upstream {
            Upstream::Asked(reason) => ("would be asked", Some(reason)),
            Upstream::NotNeeded => ("not needed", None),
            Upstream::Forbidden => ("would not be asked", Some("only-if-cached")),
        };
        Self { layer: "upstream", decision, detail }
    }
}

fn id(entry: &Entry) -> String {
    entry.key.id().to_string()
}
