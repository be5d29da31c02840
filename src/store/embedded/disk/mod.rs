//! The copy on disk: a folder of its own, written behind by one thread, read whole when the store opens.
//!
//! Called by the store alone. What was handed over is durable within the flush interval and one batch's
//! writing. What was deleted is out of the database by then too. Its bytes may stay in pages that the database
//! holds free until the next writes fill them (redb copies on write and does not blank what it frees). After a
//! person's removal or purge the file is therefore compacted, which moves live pages together and gives the free
//! ones back to the file system: at once up to 64 MiB, else when nothing was written for ten seconds.

mod database;
mod folder;
mod queue;
pub(crate) mod record;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use redb::Database;
use tokio::sync::oneshot;

pub(super) use self::database::{Stored, Verdict};
pub(super) use self::folder::random;
pub(super) use self::queue::Change;
pub(super) use self::writer::Contents;

use self::database::Read;
use self::folder::Folder;
use self::queue::Queue;
use self::record::Seal;
use self::writer::{Health, Writer};
use crate::store::encryption::{Encryption, EncryptionKeys};
use crate::store::entry::Partition;
use crate::store::index::codes::Codes;
use crate::store::memory::Slot;
use crate::store::{OpenError, StoreError, StoreOptions};

/// A folder opened and read, before its writer runs.
pub(super) struct Opened {
    folder: Folder,
    seal: Seal,
    database: Database,
    read: Read,
    /// The secret kept in the folder.
    pub(super) secret: [u8; 32],
}

/// The writer's handle.
#[derive(Debug)]
pub(super) struct Disk {
    queue: Arc<Queue>,
    health: Arc<Health>,
    thread: Mutex<Option<JoinHandle<()>>>,
    broken: u64,
    /// Numbers of records that no key is here for.
    locked: Mutex<Vec<u64>>,
    encryption: Arc<Encryption>,
}

impl Opened {
    /// Opens the folder and gives its records, newest first, to `take`.
    pub(super) fn read(
        path: &Path,
        keys: &EncryptionKeys,
        take: impl FnMut(Stored) -> Verdict,
    ) -> Result<Self, OpenError> {
        let folder = Folder::open(path)?;
        let secret = folder.secret()?;
        let seal = Seal::new(&secret, Encryption::new(keys));
        let (database, read) = database::load(&folder, &seal, take)?;
        // The file may be new; that it is there must survive a crash as its content does.
        folder.sync().map_err(|source| OpenError::Io { action: "sync", path: path.to_owned(), source })?;
        Ok(Self { folder, seal, database, read, secret })
    }

    /// The number after the highest in use.
    pub(super) fn next_sequence(&self) -> u64 {
        self.read.last.saturating_add(1)
    }

    /// Starts the writer. `contents` gives everything in the store, should the database have to be begun anew.
    pub(super) fn start(self, options: &StoreOptions, contents: Contents) -> Result<Disk, OpenError> {
        let queue = Arc::new(Queue::new(options.flush_interval, options.max_unwritten_bytes));
        let health = Arc::new(Health::default());
        let encryption = Arc::clone(self.seal.encryption());
        // What was in plain, or under an older key, must not stay so: neither in its place nor in a free page.
        let rewrite = self.read.fresh || (self.read.stale && encryption.is_on());
        if rewrite || !self.read.removable.is_empty() {
            queue.delete(self.read.removable, rewrite);
        }
        let writer = Writer {
            folder: self.folder,
            seal: self.seal,
            queue: Arc::clone(&queue),
            health: Arc::clone(&health),
            contents,
            database: Some(self.database),
            fresh: rewrite,
            compact: false,
        };
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        let (broken, locked) = (self.read.broken, Mutex::new(self.read.locked));
        Ok(Disk { queue, health, thread: Mutex::new(Some(thread)), broken, locked, encryption })
    }
}

impl Disk {
    /// An entry was put.
    pub(super) fn put(&self, slot: Arc<Slot>) {
        self.queue.push(Change::Entry(slot));
    }

    /// An entry's embedding was placed.
    pub(super) fn place(&self, slot: Arc<Slot>, partition: Partition, codes: Codes) {
        self.queue.push(Change::Embedding(slot, partition, codes));
    }

    /// Something was observed of an entry.
    pub(super) fn observe(&self, slot: Arc<Slot>) {
        self.queue.push(Change::Evidence(slot));
    }

    /// Entries left. `compact`: a person asked for it.
    pub(super) fn delete(&self, sequences: impl IntoIterator<Item = u64>, compact: bool) {
        self.queue.delete(sequences, compact);
    }

    /// Answered when all that was handed over before is on disk, or was tried.
    pub(super) fn flush(&self) -> oneshot::Receiver<Result<(), StoreError>> {
        self.queue.flush()
    }

    /// Writes what is left and ends the writer; the folder is free when this returns. Blocks.
    pub(super) fn close(&self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != thread::current().id()
        {
            // A writer that panicked has already said so, and has let go of the folder.
            let _ = thread.join();
        }
    }

    /// Why writing fails, while it does.
    pub(super) fn failing(&self) -> Option<String> {
        self.health.failing()
    }

    /// Batches that could not be written, tries again included.
    pub(super) fn failures(&self) -> u64 {
        self.health.failures()
    }

    /// Changes given up because too much was waiting.
    pub(super) fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Records that no key is here for, and that are still there.
    pub(super) fn locked(&self) -> usize {
        self.locked.lock().len()
    }

    /// Values that no key was here for, when the folder was read.
    pub(super) fn undecryptable(&self) -> u64 {
        self.encryption.unreadable()
    }

    /// Deletes the records that no key is here for: a person wants all gone. Gives how many.
    pub(super) fn delete_locked(&self) -> u64 {
        let locked = std::mem::take(&mut *self.locked.lock());
        let count = u64::try_from(locked.len()).unwrap_or(u64::MAX);
        if count > 0 {
            self.delete(locked, true);
        }
        count
    }

    /// Records skipped when the folder was read.
    pub(super) fn broken(&self) -> u64 {
        self.broken
    }
}
