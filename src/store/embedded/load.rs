//! Opening the store: what the data directory holds comes back, newest first, as far as there is room.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use super::Inner;
use super::disk::{self, Change, Contents, Opened, Stored, Verdict};
use super::keeper::{GRACE, Keeper};
use crate::store::entry::Partition;
use crate::store::index::{self, Index, Upkeep};
use crate::store::memory::{Memory, Slot};
use crate::store::{OpenError, StoreOptions};

/// Opens the store.
pub(super) fn open(options: &StoreOptions) -> Result<Arc<Inner>, OpenError> {
    if options.max_bytes < StoreOptions::LEAST_BYTES || options.max_entries == 0 {
        return Err(OpenError::Options(format!(
            "the store needs room: at least {} bytes and one entry",
            StoreOptions::LEAST_BYTES
        )));
    }
    let memory = Memory::new(options)?;
    let mut loader =
        Loader { memory, index: Index::new(options.scan_limit), due: HashSet::new(), pushed_out: Vec::new() };
    let started = Instant::now();
    let opened = match &options.data_dir {
        Some(path) => Some(Opened::read(path, &options.encryption, |stored| loader.take(stored))?),
        None => None,
    };
    let Loader { memory, index, due, pushed_out } = loader;
    if let Some(path) = &options.data_dir {
        let (entries, bytes) = (memory.len(), memory.weight());
        tracing::info!(folder = %path.display(), entries, bytes, took = ?started.elapsed(),
            "the store's entries are back in memory");
    }
    let inner = Arc::new(Inner {
        memory,
        index: Arc::new(index),
        disk: OnceLock::new(),
        keeper: Keeper::default(),
        secret: watch::Sender::new(match &opened {
            Some(opened) => opened.secret,
            None => disk::random()?,
        }),
        sequence: AtomicU64::new(opened.as_ref().map_or(1, Opened::next_sequence)),
        key_locks: std::array::from_fn(|_| parking_lot::Mutex::default()),
        evicted: AtomicU64::new(0),
        expired: AtomicU64::new(0),
    });
    if let Some(opened) = opened {
        let disk = opened.start(options, contents(&inner))?;
        disk.delete(pushed_out, false);
        // The cell is empty: this is the only place that fills it.
        let _ = inner.disk.set(disk);
    }
    for partition in due {
        inner.keeper.tend(partition);
    }
    inner.keeper.start(Arc::downgrade(&inner), Arc::clone(&inner.index))?;
    Ok(inner)
}

/// Everything in the store, for a database that has to be begun anew.
fn contents(inner: &Arc<Inner>) -> Contents {
    let inner = Arc::downgrade(inner);
    Box::new(move |give| {
        let Some(inner) = inner.upgrade() else { return };
        for slot in inner.memory.iter() {
            give(Change::Entry(Arc::clone(&slot)));
            if !slot.evidence().is_empty() {
                give(Change::Evidence(slot));
            }
        }
        inner.index.for_each_row(|slot, codes| {
            if let Some(home) = slot.home {
                give(Change::Embedding(slot, home, codes));
            }
        });
    })
}

struct Loader {
    memory: Memory,
    index: Index,
    due: HashSet<Partition>,
    pushed_out: Vec<u64>,
}

impl Loader {
    fn take(&mut self, stored: Stored) -> Verdict {
        let Stored { sequence, entry, placed, evidence } = stored;
        if let Some(known) = self.memory.peek(&entry.key) {
            // A newer one of its key, or the same met again while a damaged database is read once more.
            return if known.sequence == sequence { Verdict::Keep } else { Verdict::Drop };
        }
        if entry.age(SystemTime::now()) >= entry.ttl.saturating_add(GRACE) {
            return Verdict::Drop;
        }
        let home = placed.as_ref().map(|(partition, codes)| (*partition, index::weight(codes)));
        let slot = Arc::new(Slot::new(Arc::new(entry.compressed()), sequence, home).with_evidence(evidence));
        if slot.weight > self.memory.largest() {
            return Verdict::Drop;
        }
        if self.memory.weight().saturating_add(self.memory.charge(&slot)) > self.memory.capacity() {
            return Verdict::Stop;
        }
        if let Some((partition, codes)) = placed
            && self.index.insert(partition, &codes, &slot) == Upkeep::Due
        {
            self.due.insert(partition);
        }
        // A part of the table can be full before the whole is.
        for gone in self.memory.insert(slot) {
            gone.leave();
            if let Some(home) = gone.unplace() {
                self.index.forget(&home);
            }
            self.pushed_out.push(gone.sequence);
        }
        Verdict::Keep
    }
}
