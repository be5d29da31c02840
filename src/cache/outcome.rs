//! What happened to one request: the one value from which `Cache-Status`, the metrics, the log line and
//! `/ask`'s debug are all written.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::decision::{Decision, MissReason};
use super::{Hit, Miss};
use crate::decimal::decimal;
use crate::dialect::Usage;
use crate::savings::Meter;
use crate::store::entry::EntryId;

/// Which layer gave the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The key was equal.
    Exact,
    /// A prompt of the same meaning was.
    Semantic,
    /// Neither.
    Upstream,
}

/// Why a request went upstream (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Nothing stored could be used.
    Miss,
    /// The client asked for it.
    Request,
    /// The entry had expired.
    Stale,
    /// The request is of a kind that is never cached.
    Bypass,
}

/// What happened to one request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which layer gave the reply.
    pub layer: Layer,
    /// The name of the upstream it was sent to, or was to be; `None` where none was to be asked.
    pub upstream: Option<Arc<str>>,
    /// Why it went upstream; `None` for a hit.
    pub forward: Option<Forward>,
    /// Why no stored reply served; `None` for a hit and where none was looked for.
    pub reason: Option<MissReason>,
    /// The judgement of the entry served, or of the nearest one that was not.
    pub decision: Option<Decision>,
    /// The guard's rule by which no stored reply served.
    pub rule: Option<&'static str>,
    /// The entry served.
    pub entry: Option<ServedEntry>,
    /// Whether upstream's reply is stored. On a stream: whether it will be if it ends well.
    pub stored: bool,
    /// Whether the reply is shared with another request that asked first (RFC 9211 §2.6).
    pub collapsed: bool,
    /// The tokens of the stored reply that served a hit, where upstream had counted them.
    pub saved: Option<Usage>,
    /// How long upstream took for the stored reply that served a hit, where that is known.
    pub took: Option<Duration>,
    /// Where what a hit saved is counted; `None` for what is no hit.
    pub meter: Option<Meter>,
    /// Where the time went.
    pub timings: Timings,
}

/// The entry that served a hit.
#[derive(Debug, Clone, Copy)]
pub struct ServedEntry {
    /// Its name.
    pub id: EntryId,
    /// When it was stored.
    pub created_at: SystemTime,
    /// Since when it is.
    pub age: Duration,
    /// How much of its life is left.
    pub remaining: Duration,
}

/// How long each step took; `None` for a step not taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Lookup by key.
    pub exact: Option<Duration>,
    /// Lookup by meaning, the embedding included.
    pub semantic: Option<Duration>,
    /// Until upstream's whole reply was there (`/ask`), or its head.
    pub upstream: Option<Duration>,
}

impl Outcome {
    /// A reply from the cache.
    pub fn hit(hit: &Hit, now: SystemTime, timings: Timings) -> Self {
        let (age, cost) = (hit.entry.age(now), hit.entry.cost());
        let entry = ServedEntry {
            id: hit.entry.key.id(),
            created_at: hit.entry.created_at,
            age,
            remaining: hit.entry.ttl.saturating_sub(age),
        };
        Self {
            layer: hit.layer,
            upstream: None,
            forward: None,
            reason: None,
            decision: Some(hit.decision),
            rule: None,
            entry: Some(entry),
            stored: false,
            collapsed: false,
            saved: cost.usage,
            took: cost.took,
            meter: None,
            timings,
        }
    }

    /// A reply from upstream, since nothing stored served.
    pub fn miss(miss: &Miss, timings: Timings) -> Self {
        let forward = if miss.reason == MissReason::Expired { Forward::Stale } else { Forward::Miss };
        let forward = if miss.by_directive { Forward::Request } else { forward };
        Self {
            reason: Some(miss.reason),
            decision: miss.decision,
            rule: miss.rule,
            timings,
            ..Self::forwarded(forward)
        }
    }

    /// The same, sent to the upstream of this name.
    #[must_use]
    pub fn to(self, upstream: &Arc<str>) -> Self {
        Self { upstream: Some(Arc::clone(upstream)), ..self }
    }

    /// A reply from upstream, without a look at what is stored.
    pub fn forwarded(forward: Forward) -> Self {
        Self {
            layer: Layer::Upstream,
            upstream: None,
            forward: Some(forward),
            reason: None,
            decision: None,
            rule: None,
            entry: None,
            stored: false,
            collapsed: false,
            saved: None,
            took: None,
            meter: None,
            timings: Timings::default(),
        }
    }
}

impl Outcome {
    /// What happened, in one word: the reason of a miss, else why it went upstream, else `hit`.
    pub fn detail(&self) -> &'static str {
        match (self.reason, self.forward) {
            (Some(reason), _) => reason.as_str(),
            (None, Some(forward)) => forward.as_str(),
            (None, None) => "hit",
        }
    }
}

impl Layer {
    /// The token for headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
            Self::Upstream => "upstream",
        }
    }
}

impl Forward {
    /// The token for headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
        }
    }
}

impl Outcome {
    /// Writes this proxy's member of `Cache-Status` (RFC 9211 §2).
    ///
    /// # Errors
    /// `out` fails.
    pub fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        out.write_str("rejoinder")?;
        match (&self.entry, self.forward) {
            (Some(entry), _) => {
                out.write_str("; hit; ttl=")?;
                out.write_str(decimal(entry.remaining.as_secs(), &mut [0; 20]))?;
                out.write_str("; detail=")?;
                out.write_str(self.layer.as_str())?;
            }
            (None, Some(forward)) => {
                out.write_str("; fwd=")?;
                out.write_str(forward.as_str())?;
            }
            (None, None) => {}
        }
        if self.stored {
            out.write_str("; stored")?;
        }
        if self.collapsed {
            out.write_str("; collapsed")?;
        }
        if let Some(reason) = self.reason {
            out.write_str("; detail=")?;
            out.write_str(reason.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}
