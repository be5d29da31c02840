//! Asks the cache about pairs: a prompt is stored, the other asked, in a scope of the pair's own.
//!
//! The cache is asked with every floor taken away ([`Floors::NONE`]), so that one answer holds for each operating
//! point: [`Judgement::outcome`] applies the floors afterwards, by the same function as the decision does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::pairs::Pair;
use crate::cache::decision::{Floors, Likeness, MissReason, Policy};
use crate::cache::directives::Directives;
use crate::cache::key::Identity;
use crate::cache::outcome::Layer;
use crate::cache::rules::Rules;
use crate::cache::trial::TrialOptions;
use crate::cache::{Cache, Parts, Query, Settings, normalise};
use crate::dialect::json::Json;
use crate::dialect::{Endpoint, Form, Reply};
use crate::embed::{EmbedError, Embedder, Embedding, Similarity};
use crate::models::Models;
use crate::store::{OpenError, Selector, Store, StoreOptions};

/// Embeddings kept for prompts that come again: 100 MB of them for 384 components.
const REMEMBERED: usize = 65_536;

/// How often a prompt is tried that the embedder does not embed.
const TRIES: u32 = 4;

/// The wait before the second try; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// What the cache says of one pair, one way round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The layer that serves with every floor taken away, or why none does.
    pub found: Result<Layer, MissReason>,
    /// The prompts' similarity; `None` where one could not be embedded.
    pub similarity: Option<f32>,
    /// How sure the decision was; 0 where it did not come to one.
    pub confidence: f32,
    /// The rule that spoke against it: of the guard, or of the prompts never matched by meaning.
    pub rule: Option<&'static str>,
    /// How the prompts compare, as far as it was asked.
    pub likeness: Option<Likeness>,
}

impl Judgement {
    /// The layer that serves at an operating point, or why none does.
    pub fn outcome(&self, floors: Floors) -> Result<Layer, MissReason> {
        let similarity = Similarity(self.similarity.unwrap_or(f32::NAN));
        match self.found {
            Ok(Layer::Semantic) => {
                floors.check(similarity, self.confidence)?;
                self.found
            }
            // The guard is asked only of what is similar enough, and leaves no confidence.
            Err(MissReason::GuardRejected) => {
                Floors { confidence: f32::NEG_INFINITY, ..floors }.check(similarity, self.confidence)?;
                self.found
            }
            found => found,
        }
    }

    /// Whether a stored reply is served at an operating point.
    pub fn served(&self, floors: Floors) -> bool {
        self.outcome(floors).is_ok()
    }
}

/// What the cache says of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// `a` stored, `b` asked.
    pub there: Judgement,
    /// `b` stored, `a` asked, where that was wanted too.
    pub back: Option<Judgement>,
}

impl Judged {
    /// The judgements, one or two.
    pub fn ways(&self) -> impl Iterator<Item = &Judgement> {
        std::iter::once(&self.there).chain(&self.back)
    }
}

/// Why pairs cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The exact layer is alone.
    #[error("no embedder is configured")]
    NoEmbedder,
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A prompt was not embedded.
    #[error("the prompts of line {line} were not embedded: {source}")]
    Embed {
        /// The pair's line.
        line: u64,
        /// Why.
        source: EmbedError,
    },
    /// The cache did not answer as a cache in memory must.
    #[error("line {line} could not be judged: {reason}")]
    Judge {
        /// The pair's line.
        line: u64,
        /// What it said.
        reason: String,
    },
    /// A worker ended early.
    #[error("a worker failed: {0}")]
    Worker(#[from] tokio::task::JoinError),
    /// The cache did not answer as a cache in memory must, whatever the line.
    #[error("{0}")]
    Unreadable(String),
}

impl JudgeError {
    pub(super) fn unreadable(reason: &str) -> Self {
        Self::Unreadable(reason.to_owned())
    }
}

/// A cache that is asked about pairs.
pub struct Judge {
    cache: Arc<Cache>,
    embedder: Embedder,
    reply: Reply,
    /// Questions so far, of which each has a scope of its own.
    asked: AtomicU64,
}

impl Judge {
    /// A cache of these models, policy and rules, over a store of its own in memory.
    pub fn new(models: Models, policy: Policy, rules: Rules) -> Result<Self, JudgeError> {
        let store = Store::open(&StoreOptions::default())?;
        let embedder = models.embedder.ok_or(JudgeError::NoEmbedder)?.remembering(REMEMBERED);
        let cache = Cache::new(Parts {
            secret: None,
            store,
            embedder: Some(embedder.clone()),
            verifier: models.verifier,
            settings: Settings {
                policy: policy.at(Floors::NONE),
                rules,
                // A pair lives for milliseconds; its entry must not expire meanwhile.
                ttl: Duration::from_hours(24),
                credential_ttl: Duration::from_hours(24),
                trials: TrialOptions::OFF,
                remembers_matches: false,
            },
        });
        Ok(Self { cache: Arc::new(cache), embedder, reply: reply()?, asked: AtomicU64::new(0) })
    }

    /// The embedder's name.
    pub fn embedder(&self) -> &str {
        self.embedder.name()
    }

    /// Judges all pairs, `workers` at a time, and says so after each.
    pub async fn judge_all(
        self: Arc<Self>,
        pairs: Arc<[Pair]>,
        options: Options,
        mut done: impl FnMut(),
    ) -> Result<Vec<Judged>, JudgeError> {
        let next = Arc::new(AtomicUsize::new(0));
        let (sender, mut results) = mpsc::channel(options.workers.max(1) * 4);
        let mut workers = JoinSet::new();
        for _ in 0..options.workers.max(1) {
            let (judge, pairs) = (Arc::clone(&self), Arc::clone(&pairs));
            let (next, sender) = (Arc::clone(&next), sender.clone());
            workers.spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(pair) = pairs.get(at) else { return };
                    let judged = judge.pair(pair, options.both_ways).await;
                    if sender.send((at, judged)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut judged = HashMap::with_capacity(pairs.len());
        while let Some((at, result)) = results.recv().await {
            judged.insert(at, result?);
            done();
        }
        while let Some(ended) = workers.join_next().await {
            ended?;
        }
        Ok((0..pairs.len()).filter_map(|at| judged.remove(&at)).collect())
    }

    async fn pair(&self, pair: &Pair, both_ways: bool) -> Result<Judged, JudgeError> {
        let there = self.ask(pair.line, &pair.a, &pair.b).await?;
        let back = if both_ways { Some(self.ask(pair.line, &pair.b, &pair.a).await?) } else { None };
        Ok(Judged { there, back })
    }

    /// Stores one prompt and asks the other, in a scope that no other question sees.
    async fn ask(&self, line: u64, stored: &str, asked: &str) -> Result<Judgement, JudgeError> {
        let failed = |source| JudgeError::Embed { line, source };
        let first = self.embed(stored).await.map_err(failed)?;
        let second = self.embed(asked).await.map_err(failed)?;
        let cosine = first.zip(second).and_then(|(one, other)| one.similarity(&other));
        let unreadable = |reason: &str| JudgeError::Judge { line, reason: reason.to_owned() };
        let not_read = || unreadable("the dialect does not read the request");
        let name = &self.asked.fetch_add(1, Ordering::Relaxed).to_string();
        let stored = self.query(name, stored).ok_or_else(not_read)?;
        let asked = self.query(name, asked).ok_or_else(not_read)?;
        // Before it is stored: an entry of this age has lost nothing of its freshness.
        let now = SystemTime::now();
        if !self.cache.store_reply(&stored, &self.reply, None, None).await {
            return Err(unreadable("the store did not take it"));
        }
        let found = match self.cache.exact(&asked, now).await {
            Ok(hit) => Ok(hit),
            Err(_) => self.cache.semantic(&asked, now).await,
        };
        // Whether it is there still or was evicted: it must not be there for the next.
        let _ = self.cache.store().remove(&stored.key.id()).await;
        let (found, decision, rule) = match found {
            Ok(hit) => (Ok(hit.layer), Some(hit.decision), None),
            Err(miss) => (Err(miss.reason), miss.decision, miss.rule),
        };
        match found {
            Err(MissReason::EmbedderUnavailable) if cosine.is_some() => {
                return Err(unreadable("the embedder failed"));
            }
            Err(MissReason::StoreUnavailable) => return Err(unreadable("the store failed")),
            Err(MissReason::VerifierUnavailable) => return Err(unreadable("the verifier failed")),
            _ => {}
        }
        Ok(Judgement {
            found,
            similarity: decision.map(|decision| decision.similarity).or(cosine).map(|cosine| cosine.0),
            confidence: decision.map_or(0.0, |decision| decision.confidence),
            rule,
            likeness: decision.and_then(|decision| decision.likeness),
        })
    }

    /// The cache.
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Stores a reply to this query.
    pub(super) async fn store(&self, query: &Query) -> Result<(), JudgeError> {
        let stored = self.cache.store_reply(query, &self.reply, None, None).await;
        if stored { Ok(()) } else { Err(JudgeError::unreadable("the store did not take it")) }
    }

    /// Takes all entries out.
    pub(super) async fn forget_all(&self) -> Result<(), JudgeError> {
        let purged = self.cache.store().purge(&Selector::All).await;
        purged.map(drop).map_err(|error| JudgeError::unreadable(&error.to_string()))
    }

    /// The query of a request that asks this prompt.
    pub(super) fn query(&self, name: &str, prompt: &str) -> Option<Query> {
        let body = json!({"model": "eval", "messages": [{"role": "user", "content": prompt}]}).to_string();
        let request = Endpoint::OpenAiChat.read(Json::parse(body.as_bytes()).ok()?)?;
        let identity = Identity { namespace: name, ..Identity::default() };
        Some(self.cache.query(Endpoint::OpenAiChat, &request, &identity, Directives::default()))
    }

    /// Embeds a prompt as the cache will; `None` where there is nothing in it to embed.
    async fn embed(&self, prompt: &str) -> Result<Option<Embedding>, EmbedError> {
        let prompt = normalise::normalise(prompt);
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match self.embedder.embed(&prompt).await {
                Ok(embedding) => return Ok(Some(embedding)),
                Err(EmbedError::Empty) => return Ok(None),
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait *= 2;
        }
        self.embedder.embed(&prompt).await.map(Some)
    }
}

/// How pairs are judged.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Pairs at the same time.
    pub workers: usize,
    /// Whether each pair is asked both ways round.
    pub both_ways: bool,
}

/// Any reply that may be stored.
fn reply() -> Result<Reply, JudgeError> {
    let document = json!({
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "-"}, "finish_reason": "stop"}],
    });
    let bytes = Bytes::from(document.to_string());
    Endpoint::OpenAiChat
        .gather(Form::Json, &bytes)
        .map_err(|error| JudgeError::Judge { line: 0, reason: error.to_string() })
}
