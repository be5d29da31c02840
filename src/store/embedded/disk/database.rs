//! The database file: two tables, opened or begun anew, whatever state it was left in.
//!
//! redb 4, one file, copy on write, checksums in every page. A crash leaves the last commit. Damage that the
//! file system or a disk did is found when the file is opened, and its pages are never trusted: what can still
//! be read is taken over into a fresh file, each record proving itself by its digest.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::folder::{self, Folder};
use super::record::{RecordError, Seal};
use crate::store::OpenError;
use crate::store::entry::{Entry, Partition};
use crate::store::evidence::Evidence;
use crate::store::index::codes::Codes;

/// Sequence to entry. Sequences rise, so pages fill in order and the newest are read first.
const ENTRIES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("entries");
/// The same sequences to embeddings, where an entry has one.
const EMBEDDINGS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("embeddings");
/// The same sequences to what was observed of the entry, where something was. Earlier versions know no such table.
const EVIDENCE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("evidence");

/// Pages kept in memory. The entries are in memory already, so the file is read once and then only written.
const CACHE_BYTES: usize = 8 << 20;

/// A record as it is read.
#[derive(Debug)]
pub(in crate::store) struct Stored {
    pub(in crate::store) sequence: u64,
    pub(in crate::store) entry: Entry,
    pub(in crate::store) placed: Option<(Partition, Codes)>,
    pub(in crate::store) evidence: Evidence,
}

/// What the reader says to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Verdict {
    /// It was taken.
    Keep,
    /// It is not wanted.
    Drop,
    /// Neither it nor any older one is wanted.
    Stop,
}

/// What reading a database came to.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Numbers of records to remove: not wanted, or not usable.
    pub(super) removable: Vec<u64>,
    /// How many of them are not usable.
    pub(super) broken: u64,
    /// Numbers of records that no key is here for; they stay.
    pub(super) locked: Vec<u64>,
    /// Whether one was read that is not encrypted as it would be now.
    pub(super) stale: bool,
    /// The highest sequence in use.
    pub(super) last: u64,
    /// Whether the database is a fresh one, without what was taken.
    pub(super) fresh: bool,
}

/// Changes to be written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<(u64, Vec<u8>)>,
    pub(super) embeddings: Vec<(u64, Vec<u8>)>,
    pub(super) evidence: Vec<(u64, Vec<u8>)>,
    pub(super) deleted: Vec<u64>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.records().next().is_none() && self.deleted.is_empty()
    }

    /// Bytes of its records.
    pub(super) fn bytes(&self) -> usize {
        self.records().map(|(_, record)| record.len()).sum()
    }

    fn records(&self) -> impl Iterator<Item = &(u64, Vec<u8>)> {
        self.entries.iter().chain(&self.embeddings).chain(&self.evidence)
    }
}

/// Why the database could not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum DatabaseError {
    /// The file's content cannot be trusted.
    #[error("{0}")]
    Corrupt(String),
    /// The system refused: no space, no permission, a failing disk.
    #[error("{0}")]
    Io(String),
}

impl DatabaseError {
    fn new(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            // A file cut short, or none of the library's, is damage, not a failing disk.
            redb::Error::Io(error)
                if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                Self::Io(error.to_string())
            }
            error @ redb::Error::PreviousIo => Self::Io(error.to_string()),
            error => Self::Corrupt(error.to_string()),
        }
    }
}

/// Runs a call into redb, which may panic on a file that something else wrote to.
fn guarded<T>(call: impl FnOnce() -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
    // Nothing of ours is left half changed: what a call touches is dropped when it fails.
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(DatabaseError::Corrupt("the database library gave up on it".into())))
}

/// Opens the file, checking every page, or begins one.
pub(super) fn open(path: &Path) -> Result<Database, DatabaseError> {
    open_with(path, true)
}

fn open_with(path: &Path, check: bool) -> Result<Database, DatabaseError> {
    guarded(|| {
        let file = folder::create(path).map_err(|error| DatabaseError::Io(error.to_string()))?;
        let backend = FileBackend::new(file).map_err(DatabaseError::new)?;
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(check)
            .create_with_backend(backend)
            .map_err(DatabaseError::new)
    })
}

/// Opens the folder's database and gives its records, newest first, to `take` for as long as it says that it
/// wants them. A database that cannot be trusted is moved aside and its readable records begin a fresh one.
pub(super) fn load(
    folder: &Folder,
    seal: &Seal,
    mut take: impl FnMut(Stored) -> Verdict,
) -> Result<(Database, Read), OpenError> {
    let path = folder.database();
    let fail = |reason: DatabaseError| OpenError::Database { path: path.clone(), reason: reason.to_string() };
    let first = open(&path).and_then(|database| {
        let read = guarded(|| read(&database, seal, &mut take))?;
        Ok((database, read))
    });
    let reason = match first {
        Ok(opened) => return Ok(opened),
        Err(error @ DatabaseError::Io(_)) => return Err(fail(error)),
        Err(DatabaseError::Corrupt(reason)) => reason,
    };
    // Unchecked this time, for what can be read all the same. The file is not ours to write to any more.
    let salvaged = open_with(&path, false).and_then(|database| guarded(|| read(&database, seal, &mut take)));
    let aside = folder::move_aside(&path).map_err(|source| OpenError::Io {
        action: "move aside",
        path: path.clone(),
        source,
    })?;
    tracing::error!(database = %path.display(), moved_to = %aside.display(), reason,
        salvaged = salvaged.is_ok(), "the database is damaged; a fresh one is begun with what could be read");
    let database = open(&path).map_err(fail)?;
    // The numbers of what was lost must not be used again, should some of it have been given to `take`.
    let last = salvaged.map_or(u64::MAX / 2, |read| read.last);
    Ok((database, Read { last, fresh: true, ..Read::default() }))
}

/// Reads all records, newest first.
fn read(
    database: &Database,
    seal: &Seal,
    take: &mut impl FnMut(Stored) -> Verdict,
) -> Result<Read, DatabaseError> {
    let mut read = Read::default();
    let transaction = database.begin_read().map_err(DatabaseError::new)?;
    let entries = match transaction.open_table(ENTRIES) {
        Ok(entries) => entries,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(read),
        Err(error) => return Err(DatabaseError::new(error)),
    };
    let beside = |definition| match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(DatabaseError::new(error)),
    };
    let (embeddings, evidence) = (beside(EMBEDDINGS)?, beside(EVIDENCE)?);
    let mut before = u64::MAX;
    let mut wanted = true;
    for record in entries.range::<u64>(..).map_err(DatabaseError::new)?.rev() {
        let (sequence, record) = record.map_err(DatabaseError::new)?;
        let sequence = sequence.value();
        // A damaged tree can lead in circles.
        if sequence >= before {
            return Err(DatabaseError::Corrupt("its records are out of order".into()));
        }
        before = sequence;
        read.last = read.last.max(sequence);
        let of = |table: &Option<Table>| match table {
            Some(table) => table.get(sequence).map_err(DatabaseError::new),
            None => Ok(None),
        };
        let (placed, observed) = (of(&embeddings)?, of(&evidence)?);
        read.stale |= ![Some(&record), placed.as_ref(), observed.as_ref()]
            .into_iter()
            .flatten()
            .all(|record| seal.is_current(record.value()));
        let stored = seal.read_entry(sequence, record.value()).and_then(|entry| {
            let placed = placed.map(|placed| seal.read_embedding(sequence, placed.value())).transpose()?;
            let evidence =
                observed.map(|observed| seal.read_evidence(sequence, observed.value())).transpose()?;
            Ok(Stored { sequence, entry, placed, evidence: evidence.unwrap_or_default() })
        });
        match stored {
            Ok(stored) => {
                let verdict = if wanted { take(stored) } else { Verdict::Stop };
                wanted = verdict != Verdict::Stop;
                if verdict != Verdict::Keep {
                    read.removable.push(sequence);
                }
            }
            Err(RecordError::Locked) => read.locked.push(sequence),
            Err(error) => {
                tracing::warn!(sequence, %error, "a record on disk is skipped and removed");
                read.broken += 1;
                read.removable.push(sequence);
            }
        }
    }
    for beside in embeddings.iter().chain(&evidence) {
        find_orphans(&entries, beside, &mut read)?;
    }
    Ok(read)
}

type Table = redb::ReadOnlyTable<u64, &'static [u8]>;

/// Embeddings and evidence whose entry was never written, since too much was waiting to be.
fn find_orphans(entries: &Table, beside: &Table, read: &mut Read) -> Result<(), DatabaseError> {
    for record in beside.range::<u64>(..).map_err(DatabaseError::new)? {
        let (sequence, _) = record.map_err(DatabaseError::new)?;
        if entries.get(sequence.value()).map_err(DatabaseError::new)?.is_none() {
            read.removable.push(sequence.value());
        }
    }
    Ok(())
}

/// Writes a batch; durable when it returns.
pub(super) fn write(database: &Database, batch: &Batch) -> Result<(), DatabaseError> {
    guarded(|| {
        let mut transaction = database.begin_write().map_err(DatabaseError::new)?;
        transaction.set_durability(Durability::Immediate).map_err(DatabaseError::new)?;
        {
            let mut entries = transaction.open_table(ENTRIES).map_err(DatabaseError::new)?;
            for (sequence, record) in &batch.entries {
                entries.insert(sequence, record.as_slice()).map_err(DatabaseError::new)?;
            }
            let mut embeddings = transaction.open_table(EMBEDDINGS).map_err(DatabaseError::new)?;
            for (sequence, record) in &batch.embeddings {
                embeddings.insert(sequence, record.as_slice()).map_err(DatabaseError::new)?;
            }
            let mut evidence = transaction.open_table(EVIDENCE).map_err(DatabaseError::new)?;
            for (sequence, record) in &batch.evidence {
                evidence.insert(sequence, record.as_slice()).map_err(DatabaseError::new)?;
            }
            // Last, since a deleted entry's number never comes again.
            for sequence in &batch.deleted {
                entries.remove(sequence).map_err(DatabaseError::new)?;
                embeddings.remove(sequence).map_err(DatabaseError::new)?;
                evidence.remove(sequence).map_err(DatabaseError::new)?;
            }
        }
        transaction.commit().map_err(DatabaseError::new)
    })
}

/// Moves live pages together and gives the rest of the file back, so that what was deleted is not left in
/// free pages.
pub(super) fn compact(database: &mut Database) -> Result<(), DatabaseError> {
    guarded(|| database.compact().map(|_| ()).map_err(DatabaseError::new))
}
