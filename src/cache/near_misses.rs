//! Candidates that fell just short of being served, for people who choose a threshold.
//!
//! Called by [`super`], which notes them, and by `admin`, which shows them and takes them out with their entries.
//! Bounded in number, bytes and time, in memory alone. Entries that leave otherwise than by a person here (evicted,
//! replaced, removed by another replica) leave theirs behind until then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::Query;
use super::decision::{Decision, MissReason};
use crate::dialect::template::rfc3339;
use crate::store::Selector;
use crate::store::entry::{Entry, EntryId};

/// How far below the threshold a similarity may be and still be near.
pub const MARGIN: f32 = 0.1;

/// Characters of a prompt that are kept.
const SHOWN: usize = 1000;

/// A candidate that fell just short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NearMiss {
    /// When, RFC 3339.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// The request's model.
    pub model: String,
    /// The request's namespace, empty without one.
    pub namespace: String,
    /// The prompt asked, its first 1000 characters.
    pub prompt: String,
    /// The prompt stored, likewise.
    pub stored_prompt: String,
    /// The stored entry's id.
    #[serde(serialize_with = "shown")]
    pub entry: EntryId,
    /// Cosine of the prompts' embeddings.
    pub similarity: f32,
    /// How sure the cache was, a probability.
    pub confidence: f32,
    /// Why it did not serve.
    #[serde(serialize_with = "reason")]
    pub reason: MissReason,
    /// The guard's rule that spoke against it.
    pub rule: Option<&'static str>,
    /// The id under which the asked prompt's own reply is stored, if it is.
    #[serde(skip)]
    asked: EntryId,
    /// When the entry was stored.
    #[serde(skip)]
    stored_at: SystemTime,
    /// When the first of the two replies has outlived its time, and the near miss with it.
    #[serde(skip)]
    until: SystemTime,
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

fn shown<S: Serializer>(id: &EntryId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn reason<S: Serializer>(reason: &MissReason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str())
}

/// The latest near misses.
#[derive(Debug)]
pub struct NearMisses {
    most: AtomicUsize,
    list: Mutex<VecDeque<NearMiss>>,
}

impl NearMisses {
    /// A list of so many at most; 0 keeps none.
    pub fn new(most: usize) -> Self {
        Self { most: AtomicUsize::new(most), list: Mutex::new(VecDeque::new()) }
    }

    /// From now on keeps so many at most, and gives up the oldest of what is beyond.
    pub(super) fn keep(&self, most: usize) {
        let mut list = self.list.lock();
        self.most.store(most, Ordering::Relaxed);
        let beyond = list.len().saturating_sub(most);
        list.drain(..beyond);
    }

    /// Notes a candidate, if it fell just short: below a threshold by no more than [`MARGIN`], not sure enough, or
    /// stopped by the guard.
    pub(super) fn note(&self, query: &Query, entry: &Entry, decision: &Decision, threshold: f32) {
        let Err(reason) = decision.verdict else { return };
        let near = match reason {
            MissReason::BelowThreshold => decision.similarity.0 >= threshold - MARGIN,
            MissReason::LowConfidence | MissReason::GuardRejected => true,
            _ => false,
        };
        // A request whose reply is to live for no time leaves no prompt behind either.
        if !near || self.most.load(Ordering::Relaxed) == 0 || query.directives.is_fleeting() {
            return;
        }
        let now = SystemTime::now();
        let life = query.directives.ttl.unwrap_or(Duration::MAX).min(entry.remaining(now));
        let cut = |text: &str| text.chars().take(SHOWN).collect::<String>();
        let near_miss = NearMiss {
            at: now,
            model: cut(&query.model),
            namespace: cut(&query.directives.namespace),
            prompt: cut(query.prompt.as_deref().unwrap_or_default()),
            stored_prompt: cut(entry.prompt()),
            entry: entry.key.id(),
            similarity: decision.similarity.0,
            confidence: decision.confidence,
            reason,
            rule: decision.rule.map(super::guard::Rule::name),
            asked: query.key.id(),
            stored_at: entry.created_at,
            until: now.checked_add(life).unwrap_or(now),
        };
        let mut list = self.list.lock();
        // Read again, under the lock: it may be another by now.
        let most = self.most.load(Ordering::Relaxed);
        while !list.is_empty() && list.len() >= most {
            list.pop_front();
        }
        if most > 0 {
            list.push_back(near_miss);
        }
    }

    /// The latest whose entries have not outlived their time, newest first.
    pub fn latest(&self, limit: usize) -> Vec<NearMiss> {
        let now = SystemTime::now();
        let mut list = self.list.lock();
        list.retain(|near| near.until > now);
        list.iter().rev().take(limit).cloned().collect()
    }

    /// Takes out those of a removed entry, whichever of the two prompts it was stored under.
    pub fn forget(&self, id: &EntryId) {
        self.list.lock().retain(|near| near.entry != *id && near.asked != *id);
    }

    /// Takes out those of purged entries, whichever of the two prompts they were stored under.
    pub fn purge(&self, selector: &Selector) {
        let now = SystemTime::now();
        let mut list = self.list.lock();
        match selector {
            Selector::All => list.clear(),
            Selector::Matching { model, namespace, older_than } => list.retain(|near| {
                let old = |since: SystemTime| {
                    older_than.is_none_or(|limit| now.duration_since(since).unwrap_or_default() > limit)
                };
                let selected = model.as_ref().is_none_or(|model| *model == near.model)
                    && namespace.as_ref().is_none_or(|namespace| *namespace == near.namespace)
                    && (old(near.stored_at) || old(near.at));
                !selected
            }),
        }
    }
}
