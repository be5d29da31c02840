//! What the clients saw.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::client::Reply;

/// One request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Which proxy was asked.
    pub target: SocketAddr,
    /// When.
    pub started: Instant,
    /// Until the whole reply was there.
    pub took: Duration,
    /// What the reply was like.
    pub verdict: Verdict,
    /// `Cache-Status` without the time left; empty where there is none.
    pub status: String,
}

/// What a reply was like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was the request's own.
    Right,
    /// It was another's.
    Wrong(String),
    /// There was none, or an error.
    Failed(String),
}

/// Many requests.
#[derive(Debug, Clone, Default)]
pub struct Report {
    samples: Vec<Sample>,
}

impl Report {
    pub(super) fn new(samples: Vec<Sample>) -> Self {
        Self { samples }
    }

    /// Those of them that began in this time.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        self.filter(|sample| (from..=to).contains(&sample.started))
    }

    /// Those of them that one proxy was asked.
    #[must_use]
    pub fn of(&self, target: SocketAddr) -> Self {
        self.filter(|sample| sample.target == target)
    }

    fn filter(&self, keep: impl Fn(&Sample) -> bool) -> Self {
        Self { samples: self.samples.iter().filter(|sample| keep(sample)).cloned().collect() }
    }

    /// How many there are.
    pub fn sent(&self) -> usize {
        self.samples.len()
    }

    /// What failed.
    pub fn failed(&self) -> Vec<&str> {
        let failed = |sample: &'_ Sample| matches!(sample.verdict, Verdict::Failed(_));
        self.samples.iter().filter(|sample| failed(sample)).map(Sample::problem).collect()
    }

    /// What got another's reply.
    pub fn wrong(&self) -> Vec<&str> {
        let wrong = |sample: &'_ Sample| matches!(sample.verdict, Verdict::Wrong(_));
        self.samples.iter().filter(|sample| wrong(sample)).map(Sample::problem).collect()
    }

    /// How many have this in their `Cache-Status`.
    pub fn with_status(&self, part: &str) -> usize {
        self.samples.iter().filter(|sample| sample.status.split("; ").any(|p| p == part)).count()
    }

    /// How many either layer served.
    pub fn hits(&self) -> usize {
        self.with_status("hit")
    }

    /// How many the exact layer served.
    pub fn exact(&self) -> usize {
        self.with_status("detail=exact")
    }

    /// How many the semantic layer served.
    pub fn semantic(&self) -> usize {
        self.with_status("detail=semantic")
    }

    /// How many found that the store did not answer.
    pub fn without_store(&self) -> usize {
        self.with_status("detail=store-unavailable")
    }

    /// The longest that any took.
    pub fn longest(&self) -> Duration {
        self.samples.iter().map(|sample| sample.took).max().unwrap_or_default()
    }

    /// What this share of them took at most, 0 to 1.
    pub fn within(&self, share: f64) -> Duration {
        let mut times: Vec<_> = self.samples.iter().map(|sample| sample.took).collect();
        times.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a short list"
        )]
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// How often each `Cache-Status` came.
    pub fn statuses(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for sample in &self.samples {
            *counts.entry(sample.status.as_str()).or_default() += 1;
        }
        counts
    }

    /// Prints a row of the table of faults, and fails the test where a request failed or got another's reply, or
    /// there were too few to tell.
    pub fn assert_all_right(&self, what: &str) {
        println!(
            "| {what} | {} | {} | {} | {} | {} | {} | {} ms | {} ms |",
            self.sent(),
            self.failed().len(),
            self.wrong().len(),
            self.exact(),
            self.semantic(),
            self.without_store(),
            self.longest().as_millis(),
            self.within(0.99).as_millis(),
        );
        assert!(self.failed().is_empty() && self.wrong().is_empty(), "{what}: {self}");
        assert!(self.sent() >= 100, "{what}: {self}");
    }
}

impl Sample {
    fn problem(&self) -> &str {
        match &self.verdict {
            Verdict::Right => "",
            Verdict::Wrong(problem) | Verdict::Failed(problem) => problem,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let (failed, wrong) = (self.failed(), self.wrong());
        writeln!(f, "{} sent, {} failed, {} wrong", self.sent(), failed.len(), wrong.len())?;
        for problem in failed.iter().take(SHOWN).chain(wrong.iter().take(SHOWN)) {
            writeln!(f, "  {problem}")?;
        }
        for (status, count) in self.statuses() {
            writeln!(f, "  {count:6} {status}")?;
        }
        write!(f, "  longest {:?}, 99 % within {:?}", self.longest(), self.within(0.99))
    }
}

/// The proxy's member of `Cache-Status` without the time left; empty where there is none.
pub fn status(reply: &Reply) -> String {
    let all = reply.headers.get_all("cache-status");
    let last = all.iter().next_back().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kept: Vec<_> = last.split("; ").filter(|part| !part.starts_with("ttl=")).collect();
    kept.join("; ")
}

/// Which layer served a reply.
pub fn layer(reply: &Reply) -> Option<&'static str> {
    let status = status(reply);
    let has = |part: &str| status.split("; ").any(|p| p == part);
    ["exact", "semantic"].into_iter().find(|layer| has("hit") && has(&format!("detail={layer}")))
}
