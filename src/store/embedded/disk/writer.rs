//! The thread that writes: one batch after another, each durable before the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redb::Database;

use super::database::{self, Batch, DatabaseError};
use super::folder::{self, Folder};
use super::queue::{Change, Queue, Task, Work};
use super::record::Seal;
use crate::store::StoreError;

/// The wait after a batch could not be written; doubled with each failure, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Up to this size the file is compacted as soon as a person had something deleted: it takes less than a second
/// (measured: 9 s a gigabyte, in which nothing else is written). A larger one waits for a quiet moment.
const COMPACT_AT_ONCE: u64 = 64 << 20;
/// What a quiet moment is: nothing to write for this long.
const QUIET: Duration = Duration::from_secs(10);
/// Bytes of records written together when the whole database is written anew.
const REWRITE_BYTES: usize = 4 << 20;

/// Gives everything in the store to its argument.
pub(in crate::store) type Contents = Box<dyn Fn(&mut dyn FnMut(Change)) + Send>;

/// How writing goes, for the store to tell.
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: Mutex<Option<String>>,
    failures: AtomicU64,
}

impl Health {
    /// Why writing fails, while it does.
    pub(super) fn failing(&self) -> Option<String> {
        self.failing.lock().clone()
    }

    /// Batches that could not be written.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// The writer's own.
pub(super) struct Writer {
    pub(super) folder: Folder,
    pub(super) seal: Seal,
    pub(super) queue: Arc<Queue>,
    pub(super) health: Arc<Health>,
    pub(super) contents: Contents,
    /// `None` after a failure: the library wants it opened anew.
    pub(super) database: Option<Database>,
    /// Whether the database lacks what is in memory, or has it otherwise than it would be written now.
    pub(super) fresh: bool,
    /// Whether a compaction waits for a quiet moment.
    pub(super) compact: bool,
}

impl Writer {
    /// Writes until the queue is closed. The folder's lock goes with it.
    pub(super) fn run(mut self) {
        let (least, most) = RETRY;
        let mut wait = least;
        loop {
            let work = match self.queue.take(self.compact.then_some(QUIET)) {
                Task::Write(work) => work,
                Task::Rest => Work::compaction(),
                Task::End => break,
            };
            match self.write(&work) {
                Ok(()) => {
                    wait = least;
                    self.succeeded();
                    for waiter in work.waiters {
                        // Whoever asked may have gone.
                        let _ = waiter.send(Ok(()));
                    }
                }
                Err(error) => {
                    let work = self.failed(work, &error);
                    if !self.queue.put_back(work, wait) {
                        break;
                    }
                    wait = (wait * 2).min(most);
                }
            }
        }
        drop(self.database.take());
        self.queue.end();
    }

    fn write(&mut self, work: &Work) -> Result<(), DatabaseError> {
        let mut database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        if self.fresh {
            self.rewrite(&database)?;
            self.fresh = false;
            if self.seal.encryption().is_on() {
                tracing::info!("all readable entries on disk are encrypted with the first key");
            }
        }
        let mut batch = Batch { deleted: work.deleted.clone(), ..Batch::default() };
        for change in &work.changes {
            self.add(&mut batch, change);
        }
        if !batch.is_empty() {
            database::write(&database, &batch)?;
        }
        let is_rest = batch.is_empty() && self.compact;
        if work.compact && (is_rest || self.file_bytes() <= COMPACT_AT_ONCE) {
            database::compact(&mut database)?;
            self.compact = false;
        } else {
            self.compact |= work.compact;
        }
        self.database = Some(database);
        Ok(())
    }

    fn file_bytes(&self) -> u64 {
        // Where the size cannot be told, the compaction waits.
        std::fs::metadata(self.folder.database()).map_or(u64::MAX, |metadata| metadata.len())
    }

    /// Opens the database after a failure, or begins one where it was damaged meanwhile.
    fn reopen(&mut self) -> Result<Database, DatabaseError> {
        let path = self.folder.database();
        match database::open(&path) {
            Err(DatabaseError::Corrupt(reason)) => {
                let aside =
                    folder::move_aside(&path).map_err(|error| DatabaseError::Io(error.to_string()))?;
                tracing::error!(database = %path.display(), moved_to = %aside.display(), reason,
                    "the database was damaged; a fresh one is begun with what is in memory");
                self.fresh = true;
                database::open(&path)
            }
            opened => opened,
        }
    }

    /// Writes everything in memory to a fresh database.
    fn rewrite(&self, database: &Database) -> Result<(), DatabaseError> {
        let mut batch = Batch::default();
        let mut outcome = Ok(());
        (self.contents)(&mut |change| {
            if outcome.is_err() {
                return;
            }
            self.add(&mut batch, &change);
            if batch.bytes() >= REWRITE_BYTES {
                outcome = database::write(database, &std::mem::take(&mut batch));
            }
        });
        outcome?;
        database::write(database, &batch)
    }

    /// Adds a change's record, unless its entry left the store meanwhile.
    fn add(&self, batch: &mut Batch, change: &Change) {
        match change {
            Change::Entry(slot) if !slot.is_gone() => {
                if let Some(record) = self.seal.entry(slot.sequence, &slot.entry) {
                    batch.entries.push((slot.sequence, record));
                }
            }
            Change::Embedding(slot, partition, codes) if !slot.is_gone() => {
                if let Some(record) = self.seal.embedding(slot.sequence, partition, codes) {
                    batch.embeddings.push((slot.sequence, record));
                }
            }
            Change::Evidence(slot) if !slot.is_gone() => {
                let record = self.seal.evidence(slot.sequence, &slot.evidence());
                if let Some(record) = record {
                    batch.evidence.push((slot.sequence, record));
                }
            }
            Change::Entry(_) | Change::Embedding(..) | Change::Evidence(_) => {}
        }
    }

    fn succeeded(&self) {
        if self.health.failing.lock().take().is_some() {
            tracing::info!("entries are written to disk again");
        }
    }

    /// Says so once, and tells those who wait.
    fn failed(&self, mut work: Work, error: &DatabaseError) -> Work {
        self.health.failures.fetch_add(1, Ordering::Relaxed);
        if self.health.failing.lock().replace(error.to_string()).is_none() {
            tracing::error!(%error, "entries cannot be written to disk; they are kept in memory meanwhile");
        }
        for waiter in work.waiters.drain(..) {
            let _ = waiter.send(Err(StoreError::Disk(error.to_string())));
        }
        work
    }
}
