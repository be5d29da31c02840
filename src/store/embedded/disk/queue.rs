//! What waits to be written: handed over by the store without waiting, taken in batches by the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::store::StoreError;
use crate::store::entry::Partition;
use crate::store::index::codes::Codes;
use crate::store::memory::Slot;

/// A thing to write.
#[derive(Debug)]
pub(in crate::store) enum Change {
    /// An entry.
    Entry(Arc<Slot>),
    /// The embedding of an entry.
    Embedding(Arc<Slot>, Partition, Codes),
    /// What was observed of an entry, as it is when it is written.
    Evidence(Arc<Slot>),
}

/// The most that the evidence of an entry takes.
const EVIDENCE_BYTES: u64 = 512;

type Waiter = oneshot::Sender<Result<(), StoreError>>;

/// The queue between the store and the writer.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    interval: Duration,
    max_bytes: u64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    work: Work,
    since: Option<Instant>,
    closing: bool,
    ended: bool,
}

/// What the writer is to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Write this.
    Write(Work),
    /// Nothing has come for as long as was said.
    Rest,
    /// End: the store is closed and all is written.
    End,
}

/// A batch.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) changes: Vec<Change>,
    /// Kept outside the bound: eight bytes each, and what was deleted must not come back.
    pub(super) deleted: Vec<u64>,
    /// Whether free pages are to be given back: a person asked for something to be deleted.
    pub(super) compact: bool,
    pub(super) waiters: Vec<Waiter>,
    bytes: u64,
}

impl Work {
    /// Nothing but a compaction.
    pub(super) fn compaction() -> Self {
        Self { compact: true, ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.deleted.is_empty() && self.waiters.is_empty() && !self.compact
    }
}

impl Queue {
    /// An empty queue.
    pub(super) fn new(interval: Duration, max_bytes: u64) -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            interval,
            max_bytes,
            dropped: AtomicU64::new(0),
        }
    }

    /// Entries and embeddings not written because too much was waiting.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Hands a change over, or counts it where too much is waiting.
    pub(super) fn push(&self, change: Change) {
        let bytes = match &change {
            // Written with its document as it was, which compressed may be any part of it.
            Change::Entry(slot) => slot.weight.saturating_add(slot.entry.document_length()),
            Change::Embedding(_, _, codes) => crate::store::index::weight(codes),
            Change::Evidence(_) => EVIDENCE_BYTES,
        };
        self.with(|work| {
            if work.bytes.saturating_add(bytes) > self.max_bytes {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            work.bytes += bytes;
            work.changes.push(change);
        });
    }

    /// Hands the numbers of deleted records over. `compact`: a person asked for it.
    pub(super) fn delete(&self, deleted: impl IntoIterator<Item = u64>, compact: bool) {
        self.with(|work| {
            work.deleted.extend(deleted);
            work.compact |= compact;
        });
    }

    /// Answered when all that was handed over before is on disk, or was tried.
    pub(super) fn flush(&self) -> oneshot::Receiver<Result<(), StoreError>> {
        let (waiter, answer) = oneshot::channel();
        self.with(|work| work.waiters.push(waiter));
        self.wake.notify_one();
        answer
    }

    /// Lets the writer end once all is written.
    pub(super) fn close(&self) {
        self.waiting.lock().closing = true;
        self.wake.notify_one();
    }

    fn with(&self, change: impl FnOnce(&mut Work)) {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            // Nobody will write it: in memory it is, and a waiter learns by its channel closing.
            return;
        }
        change(&mut waiting.work);
        if waiting.since.is_none() && !waiting.work.is_empty() {
            waiting.since = Some(Instant::now());
            self.wake.notify_one();
        }
    }

    /// Waits for work, and for as much more as comes within the interval. Where nothing comes for `quiet`, says
    /// so.
    pub(super) fn take(&self, quiet: Option<Duration>) -> Task {
        let quiet_at = quiet.and_then(|quiet| Instant::now().checked_add(quiet));
        let mut waiting = self.waiting.lock();
        loop {
            let due = waiting.since.and_then(|since| since.checked_add(self.interval));
            match due {
                None if waiting.closing && waiting.work.is_empty() => {
                    waiting.ended = true;
                    return Task::End;
                }
                None => match quiet_at {
                    Some(at) if self.wake.wait_until(&mut waiting, at).timed_out() => {
                        // Work may have come at the last moment; it is taken next.
                        return Task::Rest;
                    }
                    Some(_) => {}
                    None => self.wake.wait(&mut waiting),
                },
                Some(_) if waiting.closing || !waiting.work.waiters.is_empty() => break,
                Some(due) => {
                    if self.wake.wait_until(&mut waiting, due).timed_out() {
                        break;
                    }
                }
            }
        }
        waiting.since = None;
        Task::Write(std::mem::take(&mut waiting.work))
    }

    /// Gives a batch back that could not be written, and waits before the next try. `false` when closed before:
    /// this was the last try.
    pub(super) fn put_back(&self, mut work: Work, wait: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        let newer = std::mem::take(&mut waiting.work);
        work.changes.extend(newer.changes);
        work.deleted.extend(newer.deleted);
        work.compact |= newer.compact;
        work.bytes += newer.bytes;
        work.waiters.extend(newer.waiters);
        waiting.work = work;
        waiting.since = Some(Instant::now());
        if waiting.closing {
            waiting.ended = true;
            return false;
        }
        let until = Instant::now() + wait;
        while !waiting.closing && waiting.work.waiters.is_empty() {
            if self.wake.wait_until(&mut waiting, until).timed_out() {
                break;
            }
        }
        true
    }

    /// No more is taken: what waits is given up, and whoever waits learns it.
    pub(super) fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.ended = true;
        waiting.work = Work::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::content::{Content, Exchange};
    use crate::store::entry::Entry;

    fn queue() -> Queue {
        Queue::new(Duration::from_millis(1), 1000)
    }

    #[test]
    fn a_quiet_queue_says_so_and_a_closed_one_ends() {
        let queue = queue();
        assert!(matches!(queue.take(Some(Duration::from_millis(1))), Task::Rest));
        queue.delete([7], true);
        let Task::Write(work) = queue.take(Some(Duration::from_hours(1))) else { panic!("there is work") };
        assert_eq!((work.deleted, work.compact), (vec![7], true));
        queue.delete([8], false);
        queue.close();
        assert!(matches!(queue.take(None), Task::Write(work) if work.deleted == [8]));
        assert!(matches!(queue.take(None), Task::End));
        assert!(queue.flush().blocking_recv().is_err(), "nobody is left to flush");
    }

    #[test]
    fn what_is_too_much_is_counted_and_deletions_never_are() {
        let queue = queue();
        let codes = |dimension| Codes::of(&vec![1.0; dimension]).unwrap();
        let slot = || {
            let entry = crate::store::tests::entry(1);
            Arc::new(Slot::new(Arc::new(entry), 1, None))
        };
        queue.push(Change::Embedding(slot(), Partition([0; 32]), codes(400)));
        queue.push(Change::Embedding(slot(), Partition([0; 32]), codes(400)));
        queue.delete(0..1000, false);
        assert_eq!(queue.dropped(), 1);
        let Task::Write(work) = queue.take(None) else { panic!("there is work") };
        assert_eq!((work.changes.len(), work.deleted.len()), (1, 1000));
    }

    #[test]
    fn an_entry_counts_for_its_document_as_it_is_written() {
        let queue = Queue::new(Duration::from_millis(1), 50_000);
        let document = vec![b'x'; 100_000];
        let entry = crate::store::tests::entry(1);
        let content = Content::new(&Exchange { document: &document, ..Exchange::default() });
        let large = Entry { content, ..entry.clone() };
        let slot = |entry: Entry| Arc::new(Slot::new(Arc::new(entry.compressed()), 1, None));
        assert!(slot(large.clone()).weight < 10_000, "it is kept compressed");
        queue.push(Change::Entry(slot(large)));
        queue.push(Change::Entry(slot(entry)));
        assert_eq!(queue.dropped(), 1);
        let Task::Write(work) = queue.take(None) else { panic!("there is work") };
        assert_eq!(work.changes.len(), 1);
    }

    #[test]
    fn what_could_not_be_written_comes_again_before_what_is_newer() {
        let queue = queue();
        queue.delete([1], false);
        let Task::Write(work) = queue.take(None) else { panic!("there is work") };
        queue.delete([2], true);
        assert!(queue.put_back(work, Duration::from_millis(1)));
        let Task::Write(work) = queue.take(None) else { panic!("there is work") };
        assert_eq!((&work.deleted, work.compact), (&vec![1, 2], true));
        queue.close();
        assert!(!queue.put_back(work, Duration::from_hours(1)), "that was the last try");
    }
}
