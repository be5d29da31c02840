//! Entries in memory, bounded by weight: what is used stays, what is not is given up.
//!
//! Called by the store alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::entry::{Entry, EntryId, Key, Partition};
use super::evidence::{Evidence, Observation};
use super::{OpenError, StoreOptions};

/// What an entry takes besides its own bytes: the slot, the table's cell with its spare room, counters of
/// shared references and what an allocator rounds up.
const OVERHEAD: u64 = 336;

/// The least room of a shard: an entry must fit in one, and those of the default `max_entry_bytes` (1 MiB) do many times.
const SHARD_BYTES: u64 = 16 << 20;
/// More shards than threads ever meet in.
const MOST_SHARDS: u64 = 64;

/// An entry in the store, and what the store knows of it. Replaced as a whole, never changed but for counters.
#[derive(Debug)]
pub(super) struct Slot {
    /// The entry.
    pub(super) entry: Arc<Entry>,
    /// The number of its `put`: its name on disk, and what tells it from a later entry of the same key.
    pub(super) sequence: u64,
    /// Hits served from it.
    pub(super) hits: AtomicU64,
    /// What was observed of it. About 800 bytes at most that its weight leaves out: few entries are explored at all.
    evidence: Mutex<Option<Box<Evidence>>>,
    /// The partition with its embedding.
    pub(super) home: Option<Partition>,
    /// Bytes that it counts for.
    pub(super) weight: u64,
    gone: AtomicBool,
    unplaced: AtomicBool,
}

impl Slot {
    /// A slot of an entry; `row` is the weight of its embedding.
    pub(super) fn new(entry: Arc<Entry>, sequence: u64, home: Option<(Partition, u64)>) -> Self {
        let weight = weight(&entry).saturating_add(home.map_or(0, |(_, row)| row));
        Self {
            entry,
            sequence,
            hits: AtomicU64::new(0),
            evidence: Mutex::default(),
            home: home.map(|(partition, _)| partition),
            weight,
            gone: AtomicBool::new(false),
            unplaced: AtomicBool::new(false),
        }
    }

    /// The slot with what was observed of its entry before.
    pub(super) fn with_evidence(self, evidence: Evidence) -> Self {
        let evidence = Some(evidence).filter(|evidence| !evidence.is_empty()).map(Box::new);
        Self { evidence: Mutex::new(evidence), ..self }
    }

    /// What was observed of its entry.
    pub(super) fn evidence(&self) -> Evidence {
        self.evidence.lock().as_deref().cloned().unwrap_or_default()
    }

    /// Adds to what was observed of its entry.
    pub(super) fn observe(&self, observation: Observation) {
        self.evidence.lock().get_or_insert_default().add(observation);
    }

    /// Counts a hit.
    pub(super) fn count_hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the entry belongs to this partition, by this slot, and is still in the store.
    pub(super) fn is_in(&self, partition: &Partition) -> bool {
        self.home.as_ref() == Some(partition) && !self.unplaced.load(Ordering::Acquire) && !self.is_gone()
    }

    /// Notes that its row is not to be found any more, and says where it was; `None` where that was noted
    /// before, or there is none.
    pub(super) fn unplace(&self) -> Option<Partition> {
        self.home.filter(|_| !self.unplaced.swap(true, Ordering::AcqRel))
    }

    /// Whether the entry left the store.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Notes that it left; `false` where that was noted before.
    pub(super) fn leave(&self) -> bool {
        !self.gone.swap(true, Ordering::AcqRel)
    }
}

/// Bytes that an entry takes in memory.
pub(super) fn weight(entry: &Entry) -> u64 {
    let own = size_of::<Entry>().saturating_add(entry.content.size());
    u64::try_from(own).unwrap_or(u64::MAX).saturating_add(OVERHEAD)
}

#[derive(Debug, Clone)]
struct Weigh {
    least: u64,
}

impl Weighter<EntryId, Arc<Slot>> for Weigh {
    fn weight(&self, _: &EntryId, slot: &Arc<Slot>) -> u64 {
        slot.weight.max(self.least)
    }
}

/// Collects what an operation pushed out.
#[derive(Debug, Clone)]
struct Collect;

impl Lifecycle<EntryId, Arc<Slot>> for Collect {
    type RequestState = Vec<Arc<Slot>>;

    fn on_evict(&self, out: &mut Self::RequestState, _: EntryId, slot: Arc<Slot>) {
        out.push(slot);
    }
}

/// The entries.
#[derive(Debug)]
pub(super) struct Memory {
    /// By ids, which are half of a key: who gets a slot looks whether it is that very key's.
    slots: Cache<EntryId, Arc<Slot>, Weigh, DefaultHashBuilder, Collect>,
    largest: u64,
    least: u64,
}

impl Memory {
    /// Room for what the options allow. The bound of entries is kept by weight: each weighs at least its part.
    pub(super) fn new(options: &StoreOptions) -> Result<Self, OpenError> {
        let shards = (options.max_bytes / SHARD_BYTES).clamp(1, MOST_SHARDS);
        // A power of two below, since the cache would round up.
        let shards = 1_u64 << shards.ilog2();
        // Each shard gets a whole number of bytes, and no more in sum than allowed.
        let bytes = options.max_bytes / shards * shards;
        let least = bytes.div_ceil(options.max_entries.max(1));
        let items = bytes / least.max(OVERHEAD);
        let mut builder = OptionsBuilder::new();
        builder
            .weight_capacity(bytes)
            .estimated_items_capacity(usize::try_from(items).unwrap_or(usize::MAX))
            .shards(usize::try_from(shards).unwrap_or(1));
        if options.max_entries == 1 {
            // A single entry takes all the room; none can be kept for what was not used yet.
            builder.hot_allocation(1.0);
        }
        let built = builder.build().map_err(|error| OpenError::Options(error.to_string()))?;
        let slots = Cache::with_options(built, Weigh { least }, DefaultHashBuilder::default(), Collect);
        // The cache keeps a thirtieth of each shard for what was not used yet.
        let largest = slots.shard_capacity() / 10 * 9;
        Ok(Self { slots, largest, least })
    }

    /// The weight that an entry must not exceed to fit in at all.
    pub(super) fn largest(&self) -> u64 {
        self.largest
    }

    /// The slot of a key. Counts as a use.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Slot>> {
        self.slots.get(&key.id()).filter(|slot| slot.entry.key == *key)
    }

    /// The slot of a key, without counting as a use.
    pub(super) fn peek(&self, key: &Key) -> Option<Arc<Slot>> {
        self.slots.peek(&key.id()).filter(|slot| slot.entry.key == *key)
    }

    /// The slot of an id, without counting as a use.
    pub(super) fn find(&self, id: &EntryId) -> Option<Arc<Slot>> {
        self.slots.peek(id)
    }

    /// Puts a slot in. Returns what had to go for it: the slot it replaced, those evicted, or itself.
    pub(super) fn insert(&self, slot: Arc<Slot>) -> Vec<Arc<Slot>> {
        let mut out = Vec::new();
        self.slots.insert_with_lifecycle(slot.entry.key.id(), slot, &mut out);
        out
    }

    /// Puts a slot in the place of the one of the same id, if there is one. Returns whether it did, and what
    /// had to go for it, the slot it replaced included.
    pub(super) fn replace(&self, slot: Arc<Slot>) -> (bool, Vec<Arc<Slot>>) {
        let mut out = Vec::new();
        let replaced = self.slots.replace_with_lifecycle(slot.entry.key.id(), slot, true, &mut out);
        (replaced.is_ok(), out)
    }

    /// Takes the slot of this key and sequence out.
    pub(super) fn remove(&self, key: &Key, sequence: u64) -> Option<Arc<Slot>> {
        self.slots.remove_if(&key.id(), |slot| slot.sequence == sequence).map(|(_, slot)| slot)
    }

    /// Visits every slot; none is kept locked meanwhile.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<Slot>> + '_ {
        self.slots.iter().map(|(_, slot)| slot)
    }

    /// What a slot counts for here: its weight, or its part of the bound.
    pub(super) fn charge(&self, slot: &Slot) -> u64 {
        slot.weight.max(self.least)
    }

    /// Entries held.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.slots.len()).unwrap_or(u64::MAX)
    }

    /// Bytes held, each entry counted with at least its part of the bound.
    pub(super) fn weight(&self) -> u64 {
        self.slots.weight()
    }

    /// Bytes that may be held.
    pub(super) fn capacity(&self) -> u64 {
        self.slots.capacity()
    }
}
