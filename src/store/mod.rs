//! Where entries live: in this process, on disk too where a data directory is given ([`embedded`]), or in a
//! Redis that many replicas share ([`redis`]); with an index of embeddings beside them, in process either way.
//!
//! Called by `cache` and `admin`. Decides nothing about reuse: an entry is returned as it is stored, expired
//! or not, and the caller judges it. Never sees an HTTP request.

pub mod content;
mod encryption;
pub mod entry;
pub mod evidence;
pub mod redis;
pub mod transfer;

pub(crate) mod embedded;
mod index;
mod listing;
mod memory;
mod options;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use self::embedded::Embedded;
use self::entry::{Candidate, Entry, EntryId, Key, Partition, Placed};
use self::evidence::{Evidence, Observation};
use self::memory::Slot;
use self::redis::{Redis, RedisOptions};
use crate::embed::Embedding;

pub use self::encryption::{EncryptionKeys, EncryptionKeysError};
pub use self::listing::{Cursor, CursorError, Found, ListQuery, Page, Selector};
pub use self::options::{OpenError, StoreError, StoreOptions, StoreState, StoreUsage};

/// The most candidates that one search gives.
const MOST_CANDIDATES: usize = 1024;

/// The secret for keyed hashes, and its changes: replicas that share a store agree on one, which a replica may
/// learn only after it started.
pub type SharedSecret = watch::Receiver<[u8; 32]>;

/// The store. A clone is another handle on the same one; the last to go writes what is left to disk, which
/// [`Store::close`] does without blocking a worker.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process.
    Embedded(Embedded),
    /// In a Redis that replicas share.
    Redis(Redis),
}

impl Store {
    /// Opens the embedded store, reading what the data directory holds. Blocks; call it before serving.
    pub fn open(options: &StoreOptions) -> Result<Self, OpenError> {
        Embedded::open(options).map(Self::Embedded)
    }

    /// Opens the store in Redis. Returns once Redis answered or was found not to: it is tried again for as long
    /// as the store lives, and until then every lookup fails at once.
    pub async fn connect(options: RedisOptions) -> Result<Self, OpenError> {
        Redis::connect(options).await.map(Self::Redis)
    }

    /// The secret for keyed hashes, where the configuration gives none: kept in the data directory or agreed
    /// upon in Redis, else made anew by each process.
    pub fn secret(&self) -> SharedSecret {
        match self {
            Self::Embedded(store) => store.secret(),
            Self::Redis(store) => store.secret(),
        }
    }

    /// The entry of a key, as stored, expired or not.
    pub async fn get(&self, key: &Key) -> Result<Option<Arc<Entry>>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.get(key)),
            Self::Redis(store) => store.get(key).await,
        }
    }

    /// What [`Store::get`] would say at once; `None` where it would have to wait.
    pub fn at_hand(&self, key: &Key) -> Option<AtHand> {
        match self {
            Self::Embedded(store) => {
                let slot = store.slot(key);
                Some(AtHand { entry: slot.as_ref().map(|slot| Arc::clone(&slot.entry)), slot })
            }
            Self::Redis(store) => store.at_hand(key).map(|entry| AtHand { entry: Some(entry), slot: None }),
        }
    }

    /// Counts a hit of what was at hand, as [`Store::record_hit`] does.
    pub fn record_hit_of(&self, found: &AtHand) {
        match (&found.slot, &found.entry) {
            (Some(slot), _) => slot.count_hit(),
            (None, Some(entry)) => self.record_hit(&entry.key),
            (None, None) => {}
        }
    }

    /// Stores an entry: [`Store::get`] of this process finds it when this returns. One of the same key is
    /// replaced, and its embedding goes with it. `placed` is its embedding where that is known already, else
    /// [`Store::place`] adds it.
    #[expect(clippy::unused_async, reason = "the shape of all that changes the store")]
    pub async fn put(&self, entry: Entry, placed: Option<Placed>) -> Result<Arc<Entry>, StoreError> {
        match self {
            Self::Embedded(store) => store.put(entry, placed.as_ref()),
            Self::Redis(store) => store.put(entry, placed),
        }
    }

    /// Puts an entry's embedding into a partition's index, where [`Store::nearest`] of this process finds it
    /// when this returns. `false` where that very entry (key and time) is no longer there, or its embedding does
    /// not fit.
    #[expect(clippy::unused_async, reason = "the shape of all that changes the store")]
    pub async fn place(&self, entry: &Arc<Entry>, placed: Placed) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.place(&entry.key, entry.created_at, &placed)),
            Self::Redis(store) => store.place(entry, placed),
        }
    }

    /// Whether a partition has no embedding, so that none need be made to search it. Asks a store that others
    /// write to what is new there; [`Store::nearest`] afterwards finds it.
    pub async fn is_empty_partition(&self, partition: &Partition) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.is_empty_partition(partition)),
            Self::Redis(store) => store.is_empty_partition(partition).await,
        }
    }

    /// The entries of a partition nearest to an embedding, best first, as stored, expired or not; at most
    /// `limit`, and at most 1024. Similarities are off by less than 0.001 at worst, 0.000002 as a rule
    /// (embeddings are kept in 16 bits a component). All entries are compared in a partition of up to
    /// [`StoreOptions::scan_limit`]; in a larger one those of the nearest clusters are.
    ///
    /// A candidate's entry may lack its reply: [`Store::load`] has it.
    pub async fn nearest(
        &self,
        partition: &Partition,
        query: &Embedding,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        let index = match self {
            Self::Embedded(store) => store.index(),
            Self::Redis(store) => store.index(),
        };
        index.nearest(partition, query, limit.min(MOST_CANDIDATES)).await
    }

    /// A candidate's whole entry, as it is stored now; `None` where it left meanwhile.
    pub async fn load(
        &self,
        partition: &Partition,
        candidate: &Arc<Entry>,
    ) -> Result<Option<Arc<Entry>>, StoreError> {
        match self {
            Self::Embedded(_) => Ok(Some(Arc::clone(candidate))),
            Self::Redis(store) => store.load(partition, candidate).await,
        }
    }

    /// Marks an entry as wrong, if that very entry (key and time) is there and is not marked yet; `false` where not, and
    /// nothing is changed. `placed` is its embedding, which a store in process has to be given again.
    pub async fn poison(
        &self,
        key: &Key,
        created_at: SystemTime,
        placed: Option<&Placed>,
    ) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.poison(key, created_at, placed)),
            Self::Redis(store) => store.poison(key, created_at).await,
        }
    }

    /// Removes an entry. `false` where there is none of this id.
    pub async fn remove(&self, id: &EntryId) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.remove(id)),
            Self::Redis(store) => store.remove(id).await,
        }
    }

    /// Takes out an entry that turned out to be of no use, without holding the request up.
    pub fn discard(&self, key: &Key) {
        match self {
            Self::Embedded(store) => _ = store.remove(&key.id()),
            Self::Redis(store) => store.discard(key),
        }
    }

    /// Counts a hit, which also tells that the entry is used and worth keeping. Free of cost to forget: a
    /// replaced or evicted entry takes its count along.
    pub fn record_hit(&self, key: &Key) {
        match self {
            Self::Embedded(store) => store.record_hit(key),
            Self::Redis(store) => store.record_hit(key),
        }
    }

    /// What was observed of an entry (of this key and time), by this process or another of the store.
    pub async fn evidence(&self, key: &Key, created_at: SystemTime) -> Result<Evidence, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.evidence(key, created_at)),
            Self::Redis(store) => store.evidence(key, created_at).await,
        }
    }

    /// What was observed of all entries that this process has in memory, in the order of their storing: nothing
    /// of a store in Redis, whose entries are met one by one.
    pub fn all_evidence(&self) -> Vec<Evidence> {
        match self {
            Self::Embedded(store) => store.all_evidence(),
            Self::Redis(_) => Vec::new(),
        }
    }

    /// Adds an observation to an entry's evidence, without holding anyone up. Nothing where that very entry (key
    /// and time) is no longer there: a replaced one takes its evidence along.
    pub fn note_evidence(&self, key: &Key, created_at: SystemTime, observation: Observation) {
        match self {
            Self::Embedded(store) => store.note_evidence(key, created_at, observation),
            Self::Redis(store) => store.note_evidence(key, created_at, observation),
        }
    }

    /// How long ago another replica saw upstream accept these credentials; `None` where none did. Always `None`
    /// for a store of one process.
    pub async fn accepted_ago(&self, credential: &[u8; 32]) -> Result<Option<Duration>, StoreError> {
        match self {
            Self::Embedded(_) => Ok(None),
            Self::Redis(store) => store.accepted_ago(credential).await,
        }
    }

    /// Tells other replicas that upstream accepted these credentials just now, or (`None`) refused them; they
    /// may rely on an acceptance for `lifetime`.
    pub fn note_acceptance(&self, credential: &[u8; 32], lifetime: Option<Duration>) {
        match self {
            Self::Embedded(_) => {}
            Self::Redis(store) => store.note_acceptance(credential, lifetime),
        }
    }

    /// The entry of an id. Not a use: looking at an entry does not keep it from being evicted.
    pub async fn find(&self, id: &EntryId) -> Result<Option<Found>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.find(id)),
            Self::Redis(store) => store.find(id).await,
        }
    }

    /// A page of entries, newest first. Looks at every entry, without holding up requests.
    pub async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        match self {
            Self::Embedded(store) => store.list(query).await,
            Self::Redis(store) => store.list(query).await,
        }
    }

    /// The entries of which most hits were served, the most used first; of a store in Redis by the hits that this process
    /// served. Looks at every entry in memory, without holding up requests.
    pub async fn most_used(&self, limit: usize) -> Result<Vec<Found>, StoreError> {
        match self {
            Self::Embedded(store) => store.most_used(limit).await,
            Self::Redis(store) => store.most_used(limit).await,
        }
    }

    /// Removes the entries that a selector selects, and says how many there were.
    pub async fn purge(&self, selector: &Selector) -> Result<u64, StoreError> {
        match self {
            Self::Embedded(store) => store.purge(selector).await,
            Self::Redis(store) => store.purge(selector).await,
        }
    }

    /// How many entries [`Store::purge`] would remove.
    pub async fn count(&self, selector: &Selector) -> Result<u64, StoreError> {
        match self {
            Self::Embedded(store) => store.count(selector).await,
            Self::Redis(store) => store.count(selector).await,
        }
    }

    /// What the store holds, in this process.
    pub fn usage(&self) -> StoreUsage {
        match self {
            Self::Embedded(store) => store.usage(),
            Self::Redis(store) => store.usage(),
        }
    }

    /// How the store does.
    pub fn state(&self) -> StoreState {
        match self {
            Self::Embedded(store) => store.state(),
            Self::Redis(store) => store.state(),
        }
    }

    /// Waits until all that was put is on disk or in Redis.
    pub async fn flush(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.flush().await,
            Self::Redis(store) => store.flush().await,
        }
    }

    /// Writes what is left to disk or Redis and gives either free. Entries put after this are kept in memory
    /// alone.
    pub async fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.close().await,
            Self::Redis(store) => store.close().await,
        }
    }
}

/// What was found without a wait.
#[derive(Debug)]
pub struct AtHand {
    /// The entry, if there is one.
    pub entry: Option<Arc<Entry>>,
    /// Where its hits are counted.
    slot: Option<Arc<Slot>>,
}

/// Milliseconds since the Unix epoch; zero for a clock before it.
fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    whole_milliseconds(since)
}

/// A span in whole milliseconds, as records have it.
fn whole_milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
