//! The store in Redis, which any number of replicas share: Redis is the source of truth, and what a replica
//! holds in process can be lost at any time.
//!
//! Called by [`super::Store`] alone. In process are whole entries of late ([`hot`]), to spare round trips, and the
//! embeddings of the partitions asked for ([`partitions`]), to be searched. Redis being slow, full, read-only or
//! gone costs hits, never an answer: every command has a limit of time, and a connection that does not answer is
//! given up and made anew ([`link`]).

mod agreement;
mod census;
mod core;
mod dial;
mod hot;
mod link;
mod names;
mod nodes;
mod partitions;
pub(crate) mod record;
mod scripts;
mod tracking;
pub mod transfer;
mod url;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::debug;

use self::agreement::Agreement;
use self::core::{Core, CoreParts};
use self::dial::{Connection, DialOptions, Dialler};
use self::hot::Hot;
use self::link::{Link, LinkError};
use self::names::Names;
use self::record::{Row, Seal};
use self::writer::{Lanes, Write};
use super::content::{Content, Exchange};
use super::encryption::{Encryption, EncryptionKeys};
use super::entry::{Entry, EntryId, Key, Partition, Placed};
use super::evidence::{Evidence, Observation};
use super::index::Index;
use super::index::codes::Codes;
use super::listing::{Found, ListQuery, MostUsed, Page, Selector};
use super::{
    OpenError, SharedSecret, StoreError, StoreOptions, StoreState, StoreUsage, memory, milliseconds,
};

pub use self::url::{RedisUrl, RedisUrlError};

/// Entries whose hits are remembered here, to tell which are used most.
const TALLIED: usize = 4096;

/// How often hits are counted in Redis.
const COUNT_HITS_EVERY: Duration = Duration::from_secs(1);

/// How many times as long as one command a lookup may take to bring a partition up to date.
const REFRESH_TIMEOUTS: u32 = 3;

/// How long the store is said to be degraded after an entry was met that no key is here for.
const LOCKED: Duration = Duration::from_mins(5);

/// How far replicas' clocks may be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// How often rows of entries that have expired are taken out of memory and out of their index in Redis.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);

/// How long closing waits for what is left to be written.
const CLOSING: Duration = Duration::from_secs(2);

/// Partitions whose members are gone that may wait to be tidied up.
const GONE_QUEUE: usize = 1024;

/// Where Redis is and what a replica may take for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// Where Redis is.
    pub url: RedisUrl,
    /// Certificates of authorities to trust in the place of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What all names of keys begin with.
    pub key_prefix: String,
    /// How long connecting may take, the handshake included.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub command_timeout: Duration,
    /// Bytes of whole entries in process; 0 keeps none.
    pub hot_max_bytes: u64,
    /// How long one is served before Redis is asked whether it is still the same.
    pub hot_max_age: Duration,
    /// Bytes of embeddings in process.
    pub index_max_bytes: u64,
    /// Entries in one index; the least useful are given up beyond.
    pub max_entries_per_scope: u64,
    /// Bytes of entries that may wait to be written.
    pub max_unwritten_bytes: u64,
    /// As [`StoreOptions::scan_limit`].
    pub scan_limit: usize,
    /// The embedder's name, written beside each embedding.
    pub model: String,
    /// The secret of the configuration; `None` agrees upon one in Redis.
    pub secret: Option<Vec<u8>>,
    /// The keys by which entries are encrypted. None, the default, leaves them as they are.
    pub encryption: EncryptionKeys,
}

impl RedisOptions {
    /// The defaults, for a Redis.
    pub fn new(url: RedisUrl) -> Self {
        Self {
            url,
            ca_file: None,
            key_prefix: "rejoinder".to_owned(),
            connect_timeout: Duration::from_millis(200),
            command_timeout: Duration::from_millis(50),
            hot_max_bytes: 64 << 20,
            hot_max_age: Duration::from_secs(30),
            index_max_bytes: 512 << 20,
            max_entries_per_scope: 1_000_000,
            max_unwritten_bytes: 64 << 20,
            scan_limit: StoreOptions::default().scan_limit,
            model: String::new(),
            secret: None,
            encryption: EncryptionKeys::default(),
        }
    }
}

/// The handle.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    lanes: Lanes,
    hits: Arc<Mutex<HashMap<EntryId, u64>>>,
    /// Hits that were taken out of `hits` to be counted in Redis: of the entries that this process served most.
    tally: Mutex<HashMap<EntryId, u64>>,
    command_timeout: Duration,
    secret: watch::Sender<[u8; 32]>,
    tasks: Vec<AbortHandle>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Redis {
    /// See [`super::Store::connect`].
    pub(super) async fn connect(options: RedisOptions) -> Result<Self, OpenError> {
        let dialler = Dialler::new(&DialOptions {
            url: &options.url,
            ca_file: options.ca_file.as_ref(),
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
        })?;
        let link = Link::new(dialler, options.command_timeout);
        let names = Names::new(&options.key_prefix);
        let mut own = [0; 32];
        getrandom::fill(&mut own).map_err(OpenError::Random)?;
        let (gone, gone_members) = mpsc::channel(GONE_QUEUE);
        let core = Arc::new(Core::new(CoreParts {
            link: link.clone(),
            names: names.clone(),
            seal: Seal::new(options.secret.as_deref().unwrap_or(&own), Encryption::new(&options.encryption)),
            hot: Arc::new(Hot::new(options.hot_max_bytes, options.hot_max_age)),
            index: Arc::new(Index::new(options.scan_limit)),
            index_bytes: options.index_max_bytes,
            model: options.model,
            gone,
        }));
        let secret = watch::Sender::new(own);
        let agreement =
            options.secret.is_none().then(|| Agreement { core: Arc::clone(&core), secret: secret.clone() });
        let lanes = Lanes::start(&core, options.max_unwritten_bytes, options.max_entries_per_scope);
        let hits = Arc::default();
        let mut tried = link.epoch();
        let mut tasks = vec![
            tokio::spawn(keep(link.clone(), agreement.clone())).abort_handle(),
            tokio::spawn(tidy(Arc::clone(&core), gone_members)).abort_handle(),
            tokio::spawn(expire(Arc::clone(&core))).abort_handle(),
        ];
        if core.hot.relies_on_notices() {
            let listening = tracking::listen(link, Arc::clone(&core.hot), names);
            tasks.push(tokio::spawn(listening).abort_handle());
        }
        if let Some(agreement) = agreement {
            tasks.push(tokio::spawn(agreement.keep()).abort_handle());
        }
        let inner = Arc::new(Inner {
            core,
            lanes,
            hits,
            tally: Mutex::default(),
            command_timeout: options.command_timeout,
            secret,
            tasks,
        });
        tokio::spawn(count_hits(Arc::downgrade(&inner)));
        // The first try has an end, whichever; a store that is not there yet must not keep the proxy from serving.
        let _ = tokio::time::timeout(options.connect_timeout * 5, tried.changed()).await;
        Ok(Self(inner))
    }

    pub(super) fn secret(&self) -> SharedSecret {
        self.0.secret.subscribe()
    }

    pub(super) fn index(&self) -> &Arc<Index> {
        &self.0.core.index
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Arc<Entry>>, StoreError> {
        self.0.core.get(key).await
    }

    pub(super) fn at_hand(&self, key: &Key) -> Option<Arc<Entry>> {
        self.0.core.at_hand(key)
    }

    /// Takes an entry in: at once in process, in Redis behind the request.
    pub(super) fn put(&self, entry: Entry, placed: Option<Placed>) -> Result<Arc<Entry>, StoreError> {
        let entry = Arc::new(entry);
        let core = &self.0.core;
        let limit = self.0.lanes.most_bytes();
        let bytes = memory::weight(&entry);
        if bytes > limit {
            return Err(StoreError::TooLarge { bytes, limit });
        }
        let id = entry.key.id();
        core.hot.forget(&id);
        core.hot.keep(core.hot.ticket(&id), &entry, None);
        if !core.link.is_up() {
            core.dropped.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::Unavailable("it is kept in this process alone, for a while".to_owned()));
        }
        if let Some(placed) = &placed {
            self.show(&entry, placed);
        }
        let [tag, ..] = id.0;
        let partition = placed.as_ref().map(|placed| placed.partition);
        if self.0.lanes.send(tag, Write::Put(Arc::clone(&entry), placed)) {
            return Ok(entry);
        }
        core.dropped.fetch_add(1, Ordering::Relaxed);
        core.forget(&id, partition.as_ref());
        Err(StoreError::Unavailable("too much is waiting to be written".to_owned()))
    }

    pub(super) fn place(&self, entry: &Arc<Entry>, placed: Placed) -> Result<bool, StoreError> {
        if !self.show(entry, &placed) {
            return Ok(false);
        }
        let [tag, ..] = entry.key.0;
        if self.0.lanes.send(tag, Write::Place(Arc::clone(entry), placed)) {
            return Ok(true);
        }
        self.0.core.dropped.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Unavailable("too much is waiting to be written".to_owned()))
    }

    /// Puts an entry's embedding into this process's index, before Redis has it.
    fn show(&self, entry: &Arc<Entry>, placed: &Placed) -> bool {
        let Some(codes) = Codes::of(placed.embedding.values()) else { return false };
        let partitions = &self.0.core.partitions;
        let row = Row { entry: without_reply(entry), codes };
        partitions.insert(&partitions.open(&placed.partition), 0, row)
    }

    pub(super) async fn is_empty_partition(&self, partition: &Partition) -> Result<bool, StoreError> {
        let core = &self.0.core;
        // Many small waits must not become a long one.
        let limit = self.0.command_timeout * REFRESH_TIMEOUTS;
        let refreshed = tokio::time::timeout(limit, core.refresh(partition)).await;
        let late = || Err(StoreError::Unavailable("the index was not read in time".to_owned()));
        match refreshed.unwrap_or_else(|_| late()) {
            Ok(()) => Ok(core.index.len(partition) == 0),
            // What is in process may still be of use.
            Err(StoreError::Unavailable(reason)) if core.index.len(partition) > 0 => {
                debug!(reason, "searching what is in process");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn load(
        &self,
        partition: &Partition,
        candidate: &Entry,
    ) -> Result<Option<Arc<Entry>>, StoreError> {
        let core = &self.0.core;
        let found = core.get(&candidate.key).await?;
        if found.is_none() {
            let id = candidate.key.id();
            core.forget(&id, Some(partition));
            core.forget_members(*partition, vec![id]);
        }
        // Of one key the prompt is the same, unless the row was tampered with.
        Ok(found.filter(|entry| entry.prompt() == candidate.prompt()))
    }

    pub(super) async fn poison(&self, key: &Key, created_at: SystemTime) -> Result<bool, StoreError> {
        self.0.lanes.flush_briefly().await;
        self.0.core.poison(key, created_at).await
    }

    pub(super) async fn remove(&self, id: &EntryId) -> Result<bool, StoreError> {
        self.0.lanes.flush_briefly().await;
        self.0.core.remove(id).await
    }

    /// Takes out an entry that turned out to be of no use: at once here, in Redis behind the request.
    pub(super) fn discard(&self, key: &Key) {
        let (core, id) = (Arc::clone(&self.0.core), key.id());
        core.hot.forget(&id);
        tokio::spawn(async move {
            if let Err(error) = core.remove(&id).await {
                debug!(%error, "an entry of no use was not removed");
            }
        });
    }

    pub(super) fn record_hit(&self, key: &Key) {
        *self.0.hits.lock().entry(key.id()).or_default() += 1;
    }

    /// Those of the entries served most that are still there.
    pub(super) async fn most_used(&self, limit: usize) -> Result<Vec<Found>, StoreError> {
        let mut used = Vec::new();
        for (hits, id) in self.0.most_served(limit) {
            if let Some(Found { entry, .. }) = self.0.core.find(&id).await? {
                used.push(Found { entry, hits });
            } else {
                self.0.tally.lock().remove(&id);
            }
        }
        Ok(used)
    }

    pub(super) async fn evidence(&self, key: &Key, created_at: SystemTime) -> Result<Evidence, StoreError> {
        self.0.core.evidence(key, created_at).await
    }

    pub(super) fn note_evidence(&self, key: &Key, created_at: SystemTime, observation: Observation) {
        let [tag, ..] = key.0;
        if !self.0.lanes.send(tag, Write::Evidence(*key, created_at, observation)) {
            self.0.core.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) async fn accepted_ago(&self, credential: &[u8; 32]) -> Result<Option<Duration>, StoreError> {
        let core = &self.0.core;
        let mut cmd = redis::cmd("GET");
        cmd.arg(core.names.credential(credential));
        let at: Option<Vec<u8>> = match core.link.ask(&cmd).await {
            // Another type of value is as good as none, and is overwritten by the next acceptance.
            Err(LinkError::Refused(_)) => None,
            answer => answer?,
        };
        let at = at.as_deref().and_then(record::moment);
        Ok(at.and_then(|at| match SystemTime::now().duration_since(at) {
            Ok(ago) => Some(ago),
            // Of a replica whose clock is ahead: a little counts as now, more as nothing.
            Err(ahead) => (ahead.duration() < CLOCK_TOLERANCE).then_some(Duration::ZERO),
        }))
    }

    pub(super) fn note_acceptance(&self, credential: &[u8; 32], lifetime: Option<Duration>) {
        let [tag, ..] = *credential;
        let accepted = lifetime.map(|lifetime| (milliseconds(SystemTime::now()), lifetime));
        if !self.0.lanes.send(tag, Write::Credential(*credential, accepted)) {
            self.0.core.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) async fn find(&self, id: &EntryId) -> Result<Option<Found>, StoreError> {
        self.0.core.find(id).await
    }

    pub(super) async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.0.core.list_page(query).await
    }

    /// What was put before this was called is purged too.
    pub(super) async fn purge(&self, selector: &Selector) -> Result<u64, StoreError> {
        self.0.lanes.flush_briefly().await;
        self.0.core.purge(selector).await
    }

    /// What was put before this was called is counted too.
    pub(super) async fn count(&self, selector: &Selector) -> Result<u64, StoreError> {
        self.0.lanes.flush_briefly().await;
        self.0.core.count(selector).await
    }

    pub(super) fn usage(&self) -> StoreUsage {
        let core = &self.0.core;
        let (entries, hot_bytes) = core.hot.usage();
        let (partitions, index_bytes, evicted) = core.partitions.usage();
        StoreUsage {
            entries,
            bytes: hot_bytes + index_bytes,
            max_bytes: core.hot.capacity() + core.partitions.capacity(),
            partitions,
            evicted,
            expired: 0,
            corrupt_skipped: core.damaged.load(Ordering::Relaxed),
            undecryptable: core.seal.read().encryption().unreadable(),
            writes_dropped: core.dropped.load(Ordering::Relaxed),
            write_failures: core.failed.load(Ordering::Relaxed),
            outages: core.link.outages(),
            unanswered: core.link.unanswered(),
        }
    }

    pub(super) fn state(&self) -> StoreState {
        match self.0.core.link.state() {
            StoreState::Ok if self.0.core.seal.read().encryption().met_within(LOCKED) => {
                StoreState::Degraded("some entries are encrypted under a key that is not here".to_owned())
            }
            state => state,
        }
    }

    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.0.count_hits();
        self.0.lanes.flush().await;
        Ok(())
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let flushed = tokio::time::timeout(CLOSING, self.flush()).await;
        for task in &self.0.tasks {
            task.abort();
        }
        flushed.unwrap_or_else(|_| Err(StoreError::Unavailable("not all was written in time".to_owned())))
    }
}

impl Inner {
    /// Has the hits since the last time counted in Redis.
    fn count_hits(&self) {
        let hits = std::mem::take(&mut *self.hits.lock());
        self.tally(&hits);
        let mut by_scope: HashMap<_, Vec<_>> = HashMap::new();
        for (id, count) in hits {
            by_scope.entry(id.tag()).or_default().push((id, count));
        }
        for (tag, hits) in by_scope {
            let [lane, ..] = tag;
            // Counts are for people and for choosing what to give up; to lose some does no harm.
            let _ = self.lanes.send(lane, Write::Hits(tag, hits));
        }
    }
}

impl Inner {
    /// Remembers hits of the entries served most.
    fn tally(&self, hits: &HashMap<EntryId, u64>) {
        let mut tally = self.tally.lock();
        for (id, count) in hits {
            *tally.entry(*id).or_default() += count;
        }
        if tally.len() > TALLIED {
            let mut all: Vec<_> = tally.drain().collect();
            all.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
            tally.extend(all.into_iter().take(TALLIED / 2));
        }
    }

    /// The ids of the entries that this process served most, with their hits.
    fn most_served(&self, limit: usize) -> Vec<(u64, EntryId)> {
        let waiting = self.hits.lock().clone();
        let mut all = self.tally.lock().clone();
        for (id, count) in waiting {
            *all.entry(id).or_default() += count;
        }
        let mut most = MostUsed::new(limit);
        for (id, count) in all {
            most.push(count, || id);
        }
        most.finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// An entry as a row of an index has it: of its content the prompt alone.
fn without_reply(entry: &Entry) -> Entry {
    let content = Content::new(&Exchange { prompt: entry.prompt(), ..Exchange::default() });
    Entry { content, ..entry.clone() }
}

/// Keeps the connection; a new one is asked for the secret before anything else.
async fn keep(link: Link, agreement: Option<Agreement>) {
    link.keep(async move |mut connection: Connection| {
        redis::cmd("PING").query_async::<redis::Value>(&mut connection).await?;
        match &agreement {
            Some(agreement) => agreement.agree_over(connection).await,
            None => Ok(()),
        }
    })
    .await;
}

async fn tidy(core: Arc<Core>, mut gone: mpsc::Receiver<(Partition, Vec<EntryId>)>) {
    while let Some((partition, ids)) = gone.recv().await {
        if let Err(error) = core.tidy(&core.names.index(&partition), Some(&partition), &ids).await {
            debug!(%error, "an index was not tidied up; that waits until its members are met again");
        }
    }
}

/// Forgets what has expired on every replica's clock. Redis lets the entries go by itself, but not their rows here, nor
/// the members of the index.
async fn expire(core: Arc<Core>) {
    loop {
        tokio::time::sleep(link::jittered(EXPIRE_EVERY)).await;
        let by = SystemTime::now().checked_sub(CLOCK_TOLERANCE).unwrap_or(SystemTime::UNIX_EPOCH);
        let core = Arc::clone(&core);
        let swept = tokio::task::spawn_blocking(move || {
            for (partition, ids) in core.partitions.expire(by) {
                core.forget_members(partition, ids);
            }
        });
        if let Err(error) = swept.await {
            debug!(%error, "expired entries were not taken out of memory");
        }
    }
}

async fn count_hits(inner: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(COUNT_HITS_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.count_hits();
    }
}
