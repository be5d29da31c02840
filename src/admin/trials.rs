//! `/observations`, `/verified`, `/audits` and `/near-misses`: what stored replies on trial have shown.
//!
//! Called by `admin`, which answers with these documents, and by `rejoinder stats`, which reads them.

use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Answer, Refusal, json_response};
use crate::cache::Cache;
use crate::cache::comparison::Agreement;
use crate::cache::observations::{AuditCounts, ObservationReport};
use crate::cache::trial::Trials;
use crate::proxy::body::Body;
use crate::rate::{Rate, rounded};

/// Near misses on a page where the request does not say.
const PAGE: usize = 50;

/// The body of `GET /observations`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Observations {
    mode: String,
    pub(crate) similarity_threshold: f64,
    pub(crate) min_confidence: f64,
    /// The embedder's name; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedder: Option<String>,
    #[serde(flatten)]
    pub(crate) report: ObservationReport,
}

/// The mode's name, as the configuration has it.
pub(super) fn mode(trials: &Trials) -> &'static str {
    match (trials.options().observe, trials.verified()) {
        (true, _) => "observe",
        (false, Some(_)) => "verified",
        (false, None) => "reuse",
    }
}

/// `GET /observations`
pub(super) fn observations(cache: &Cache) -> Response<Body> {
    let trials = cache.trials();
    let floors = trials.floors();
    let body = Observations {
        mode: mode(trials).to_owned(),
        similarity_threshold: rounded(f64::from(floors.similarity)),
        min_confidence: rounded(f64::from(floors.confidence)),
        embedder: cache.embedder().map(|embedder| embedder.name().to_owned()),
        report: trials.observations.report(floors.confidence),
    };
    json_response(StatusCode::OK, &body)
}

/// The body of `GET /verified`; all zeros where the mode is another.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Verified {
    pub(crate) active: bool,
    pub(crate) max_error: f64,
    pub(crate) confidence: f64,
    comparison_error: f64,
    /// The least trust that is served.
    pub(crate) least_trust: Option<f64>,
    pub(crate) setbacks: u32,
    pub(crate) served: u64,
    pub(crate) explored: u64,
    pub(crate) same: u64,
    pub(crate) different: u64,
    pub(crate) unclear: u64,
    comparisons_dropped: u64,
}

/// `GET /verified`
pub(super) fn verified(trials: &Trials) -> Response<Body> {
    let body = trials.verified().map(|verified| {
        let learned = verified.learned();
        let of = |agreement: Agreement| {
            learned.compared.iter().find(|(other, _)| *other == agreement).map_or(0, |(_, count)| *count)
        };
        Verified {
            active: true,
            max_error: learned.limits.max_error,
            confidence: learned.limits.confidence,
            comparison_error: learned.limits.comparison_error,
            least_trust: learned.least_trust.map(|trust| rounded(f64::from(trust))),
            setbacks: learned.setbacks,
            served: learned.served,
            explored: learned.explored,
            same: of(Agreement::Same),
            different: of(Agreement::Different),
            unclear: of(Agreement::Unclear),
            comparisons_dropped: learned.dropped,
        }
    });
    json_response(StatusCode::OK, &body.unwrap_or_default())
}

/// The body of `GET /audits`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Audits {
    pub(crate) audit_share: f64,
    pub(crate) audited: u64,
    pub(crate) same: u64,
    pub(crate) different: u64,
    pub(crate) unclear: u64,
    pub(crate) skipped: u64,
    pub(crate) poisoned: u64,
    pub(crate) false_hit_rate: Rate,
    false_hit_rate_if_unclear_is_wrong: Rate,
}

/// `GET /audits`
pub(super) fn audits(trials: &Trials) -> Response<Body> {
    let AuditCounts { tally, skipped, poisoned } = trials.audits.counts();
    let body = Audits {
        audit_share: rounded(f64::from(trials.options().audit_share)),
        audited: tally.found,
        same: tally.same,
        different: tally.different,
        unclear: tally.unclear,
        skipped,
        poisoned,
        false_hit_rate: tally.error(),
        false_hit_rate_if_unclear_is_wrong: tally.error_if_unclear_is_wrong(),
    };
    json_response(StatusCode::OK, &body)
}

/// `GET /near-misses?limit=`
pub(super) fn near_misses(trials: &Trials, query: &str) -> Answer {
    let wrong = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let mut limit = PAGE;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "limit" {
            return Err(wrong(format!("the parameter {name:?} is not known; there is limit")));
        }
        limit =
            value.parse().map_err(|_| wrong("the parameter \"limit\" is not a whole number".to_owned()))?;
    }
    let latest = trials.near_misses.latest(limit);
    Ok(json_response(StatusCode::OK, &json!({"near_misses": latest})))
}
