//! The heart: scopes and keys, the layers, the reuse decision, coalescing. Free of HTTP: plain values in,
//! plain values out.
//!
//! Called by `proxy`, with what `dialect` read; calls `embed` and `store`. It never sees a header map, nor a
//! command of a store.

pub mod behind;
pub mod calibration;
pub mod coalesce;
pub mod comparison;
pub mod credential;
pub mod decision;
pub mod directives;
pub mod explain;
pub mod guard;
pub mod key;
mod matches;
pub mod near_misses;
pub mod normalise;
pub mod observations;
pub mod outcome;
mod pending;
mod query;
pub mod rules;
mod semantic;
pub mod transfer;
pub mod trial;
pub mod verified;
mod verify;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, warn};

use behind::Behind;
use comparison::Agreement;
use credential::Credentials;
use decision::{Decision, Evidence, MissReason, Policy};
use directives::Directives;
use guard::Leanings;
use key::{CredentialId, Identity, KeyRing, RequestId};
use matches::Matches;
use outcome::Layer;
use pending::Pending;
pub use query::{Found, Hit, Miss, Query};
use rules::Rules;
use trial::{TrialOptions, Trials};

use crate::dialect::{Endpoint, Reply, Request};
use crate::embed::{EmbedError, Embedder, Embedding};
use crate::store::Store;
use crate::store::content::{Content, Cost, Exchange};
use crate::store::entry::{Entry, Partition, Placed, Scope};
use crate::trace::{Trace, step, within};
use crate::verify::Verifier;

/// How long a lookup waits for embeddings begun before it; they are ahead of its own in one queue.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything the cache needs to judge and store. What settings can change lies here by value, the rest is shared with
/// the caches made of it by [`Cache::renewed`].
pub struct Cache {
    keys: Arc<KeyRing>,
    store: Store,
    embedder: Option<Embedder>,
    verifier: Option<Verifier>,
    policy: Policy,
    rules: Rules,
    ttl: Duration,
    credentials: Credentials,
    pending: Arc<Pending>,
    matches: Arc<Matches>,
    remembers_matches: bool,
    trials: Trials,
    behind: Arc<Behind>,
    /// Embeddings asked for.
    embeddings: Arc<AtomicU64>,
}

/// What a [`Cache`] is made of.
pub struct Parts {
    /// The secret of the hash keys; `None` takes the store's, which may change where replicas agree upon one.
    pub secret: Option<Vec<u8>>,
    /// Where entries live.
    pub store: Store,
    /// Text to embeddings; `None` leaves the exact layer alone.
    pub embedder: Option<Embedder>,
    /// Judges the best candidates; `None` leaves it to similarity and the guard.
    pub verifier: Option<Verifier>,
    /// What may change while it runs.
    pub settings: Settings,
}

/// What of a [`Cache`] may change while it runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How sure one must be.
    pub policy: Policy,
    /// Which prompts are never matched by meaning.
    pub rules: Rules,
    /// How long an entry lives, unless its request asks for less.
    pub ttl: Duration,
    /// How long upstream's acceptance of credentials counts.
    pub credential_ttl: Duration,
    /// What is compared with upstream's fresh replies.
    pub trials: TrialOptions,
    /// Whether a prompt that was matched by meaning is matched with the same entry again without being looked for: where
    /// nothing but the policy decides what is served.
    pub remembers_matches: bool,
}

impl Cache {
    /// A cache of these parts. In mode verified it reads what the store remembers of all entries, which may take a
    /// while.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let settings = parts.settings;
        let trials = Trials::new(settings.trials, settings.policy, || parts.store.all_evidence());
        Self {
            keys: Arc::new(KeyRing::new(parts.secret.as_deref(), &parts.store)),
            store: parts.store,
            embedder: parts.embedder,
            verifier: parts.verifier,
            policy: trials.policy(),
            trials,
            rules: settings.rules,
            ttl: settings.ttl,
            credentials: Credentials::new(settings.credential_ttl),
            pending: Arc::default(),
            matches: Arc::default(),
            remembers_matches: settings.remembers_matches,
            behind: Arc::default(),
            embeddings: Arc::default(),
        }
    }

    /// The same cache under other settings: the same entries, credentials, evidence and work behind requests. What goes
    /// on under the old ones ends under them. As [`Cache::new`], it may take a while where mode verified begins.
    #[must_use]
    pub fn renewed(&self, settings: Settings) -> Self {
        let trials = self.trials.renewed(settings.trials, settings.policy, || self.store.all_evidence());
        Self {
            keys: Arc::clone(&self.keys),
            store: self.store.clone(),
            embedder: self.embedder.clone(),
            verifier: self.verifier.clone(),
            policy: trials.policy(),
            trials,
            rules: settings.rules,
            ttl: settings.ttl,
            credentials: self.credentials.lasting(settings.credential_ttl),
            pending: Arc::clone(&self.pending),
            matches: Arc::clone(&self.matches),
            remembers_matches: settings.remembers_matches,
            behind: Arc::clone(&self.behind),
            embeddings: Arc::clone(&self.embeddings),
        }
    }

    /// The store, for the admin listener.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Which prompts are never matched by meaning.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The work behind requests, to be ended before the store is closed.
    pub fn behind(&self) -> &Behind {
        &self.behind
    }

    /// The embedder, for the admin listener.
    pub fn embedder(&self) -> Option<&Embedder> {
        self.embedder.as_ref()
    }

    /// Whether there is a verifier.
    pub fn has_verifier(&self) -> bool {
        self.verifier.is_some()
    }

    /// How many embeddings were asked for.
    pub fn embeddings(&self) -> u64 {
        self.embeddings.load(Ordering::Relaxed)
    }

    /// Upstream answered a request with these credentials with success.
    pub fn accept(&self, credential: CredentialId) {
        if self.credentials.accept(credential, Instant::now()) {
            self.store.note_acceptance(&credential.0, Some(self.credentials.lifetime()));
        }
    }

    /// Upstream refused them (401 or 403).
    pub fn refuse(&self, credential: &CredentialId) {
        self.credentials.refuse(credential);
        self.store.note_acceptance(&credential.0, None);
    }

    /// Whether a hit may be served to whoever asks: upstream has accepted the credentials of late, as far as this
    /// process or another of its store knows.
    async fn may_be_served(&self, query: &Query) -> bool {
        let Some(credential) = &query.credential else { return true };
        if self.credentials.may_be_served(Some(credential), Instant::now()) {
            return true;
        }
        let refusals = self.credentials.refusals();
        match self.store.accepted_ago(&credential.0).await {
            Ok(Some(ago)) => self.credentials.accepted_elsewhere(*credential, ago, refusals, Instant::now()),
            Ok(None) => false,
            Err(error) => {
                debug!(%error, "the store did not say whether credentials are known");
                false
            }
        }
    }

    /// Names a request to the byte.
    pub fn request(&self, endpoint: Endpoint, identity: &Identity<'_>, body: &[u8]) -> RequestId {
        self.keys.with(|keys| keys.request(endpoint, identity, body))
    }

    /// Names what a request asks, and for whom.
    pub fn query(
        &self,
        endpoint: Endpoint,
        request: &Request<'_>,
        identity: &Identity<'_>,
        directives: Directives,
    ) -> Query {
        let prompt = request.prompt.as_deref().map(normalise::normalise);
        let repeated = prompt
            .as_deref()
            .is_some_and(|prompt| request.earlier().any(|turn| normalise::normalise(turn) == prompt));
        self.keys.with(|keys| {
            let scope = keys.scope(endpoint, identity, &request.scope);
            Query {
                endpoint,
                repeated,
                model: request.model.clone(),
                key: keys.exact(&scope, prompt.as_deref()),
                scope,
                credential: keys.credential(identity),
                directives,
                prompt: prompt.map(std::borrow::Cow::into_owned),
                leanings: OnceLock::new(),
            }
        })
    }

    /// What a request's prompt leans on besides its own words, of the rules in force. Looked for once, when somebody
    /// first asks: a hit of the exact layer needs none of it, and a miss has time while upstream answers.
    pub fn leanings(&self, query: &Query) -> Leanings {
        *query.leanings.get_or_init(|| {
            query.prompt.as_deref().map_or(Leanings::NONE, |prompt| self.rules.of(prompt, query.repeated))
        })
    }

    /// The exact layer, where the entry is at hand: `None` where the store must be waited for, to look it up or to say
    /// whether it knows these credentials. `started` is now, as `now` is.
    pub fn exact_at_hand(&self, query: &Query, started: Instant, now: SystemTime) -> Option<Found> {
        if !self.credentials.may_be_served(query.credential.as_ref(), started) {
            return None;
        }
        let found = self.store.at_hand(&query.key)?;
        let _span = step("exact lookup");
        let judged = self.judge(found.entry.as_ref(), query, now);
        Some(judged.map(|(entry, decision)| {
            // What is only observed is no use.
            if !self.trials.options().observe {
                self.store.record_hit_of(&found);
            }
            Hit { entry, layer: Layer::Exact, decision }
        }))
    }

    /// The exact layer: one lookup by key.
    pub async fn exact(&self, query: &Query, now: SystemTime) -> Found {
        let _span = step("exact lookup");
        let (entry, decision) = self.equal(query, now).await?;
        Ok(self.hit(entry, Layer::Exact, decision))
    }

    /// The entry of the very key, if it may serve.
    async fn equal(&self, query: &Query, now: SystemTime) -> Result<(Arc<Entry>, Decision), Miss> {
        if !self.may_be_served(query).await {
            return Err(Miss::because(MissReason::CredentialUnverified));
        }
        match self.store.get(&query.key).await {
            Ok(found) => self.judge(found.as_ref(), query, now),
            Err(error) => {
                debug!(%error, "the store did not answer; the request goes upstream");
                Err(Miss::because(MissReason::StoreUnavailable))
            }
        }
    }

    /// What was found by the very key, if it may serve.
    fn judge(
        &self,
        found: Option<&Arc<Entry>>,
        query: &Query,
        now: SystemTime,
    ) -> Result<(Arc<Entry>, Decision), Miss> {
        let Some(entry) = found else { return Err(Miss::because(MissReason::NoCandidate)) };
        // An entry proves that it is the one asked for; another's is worse than none.
        if entry.key != query.key || entry.scope != query.scope || entry.endpoint != query.endpoint {
            return Err(Miss::because(MissReason::NoCandidate));
        }
        let evidence = Evidence { entry, likeness: None, directives: &query.directives, now };
        let decision = self.policy.decide(evidence).or_miss(entry, now)?;
        Ok((Arc::clone(entry), decision))
    }

    fn hit(&self, entry: Arc<Entry>, layer: Layer, decision: Decision) -> Hit {
        // What is only observed is no use, and what is found by meaning may yet be explored.
        let undecided = layer == Layer::Semantic && self.trials.verified().is_some();
        if !self.trials.options().observe && !undecided {
            self.store.record_hit(&entry.key);
        }
        Hit { entry, layer, decision }
    }

    /// Takes an entry out that turned out to be of no use.
    pub fn discard(&self, hit: &Hit) -> Miss {
        self.store.discard(&hit.entry.key);
        Miss::because(MissReason::Poisoned)
    }

    /// Stores a reply. It is found by its key when this returns, and by its meaning once its prompt is embedded,
    /// for which nobody waits but a later lookup of the same scope. `took` is how long upstream took for it.
    pub async fn store_reply(
        self: &Arc<Self>,
        query: &Query,
        reply: &Reply,
        took: Option<Duration>,
        place: Option<Placed>,
    ) -> bool {
        let leanings = self.leanings(query);
        let ttl = [query.directives.ttl, self.rules.ttl(leanings)]
            .into_iter()
            .flatten()
            .fold(self.ttl, Duration::min);
        let entry = Entry {
            key: query.key,
            scope: query.scope,
            endpoint: query.endpoint,
            content: Content::new(&Exchange {
                model: &query.model,
                namespace: &query.directives.namespace,
                prompt: query.prompt.as_deref().unwrap_or_default(),
                document: &reply.document,
                cost: Cost { usage: reply.usage, took },
            }),
            tool_calls: reply.tool_calls,
            created_at: Entry::moment(SystemTime::now()),
            ttl,
            poisoned: false,
        };
        let placeable = !reply.tool_calls && leanings.is_empty();
        let placed = place.filter(|_| placeable);
        let is_placed = placed.is_some();
        let mut span = step("store");
        let entry = match self.store.put(entry, placed).await {
            Ok(entry) => entry,
            Err(error) => {
                span.fail("store_unavailable");
                debug!(%error, "a reply was not stored");
                return false;
            }
        };
        drop(span);
        if placeable && !is_placed {
            self.place(query, &entry);
        }
        true
    }

    /// Embeds an entry's prompt and puts it where the semantic layer finds it.
    fn place(self: &Arc<Self>, query: &Query, entry: &Arc<Entry>) {
        let (Some(embedder), Some(prompt)) = (&self.embedder, query.prompt.as_deref()) else { return };
        let partition = self.partition(query, embedder, prompt);
        let arrival = self.pending.begin(partition);
        let cache = Arc::clone(self);
        let embedder = embedder.clone();
        let entry = Arc::clone(entry);
        tokio::spawn(within(Trace::current(), async move {
            match cache.embed(&embedder, entry.prompt()).await {
                Ok(embedding) => {
                    let placed = Placed { partition, embedding };
                    if let Err(error) = cache.store.place(&entry, placed).await {
                        warn!(%error, "an embedding was not stored; its entry is found by its key alone");
                    }
                }
                Err(error) => {
                    debug!(%error, "a prompt was not embedded; its entry is found by its key alone");
                }
            }
            drop(arrival);
        }));
    }

    async fn embed(&self, embedder: &Embedder, prompt: &str) -> Result<Embedding, EmbedError> {
        self.embeddings.fetch_add(1, Ordering::Relaxed);
        let mut span = step("embed");
        embedder.embed(prompt).await.inspect_err(|_| span.fail("embedder_unavailable"))
    }

    fn partition(&self, query: &Query, embedder: &Embedder, prompt: &str) -> Partition {
        self.partition_of(&query.scope, embedder, prompt)
    }

    fn partition_of(&self, scope: &Scope, embedder: &Embedder, prompt: &str) -> Partition {
        let beyond = prompt.get(embedder.window(prompt)..).unwrap_or_default();
        self.keys.with(|keys| keys.partition(scope, embedder.name(), beyond))
    }
}
