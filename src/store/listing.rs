//! Entries for people: found by id, listed page by page, purged by what they have in common.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::entry::{Entry, EntryId};
use super::memory::Slot;
use super::{Cause, Inner, Store, StoreError};

/// The most entries on a page.
const PAGE: usize = 1000;

/// An entry as people see it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The entry, as stored.
    pub entry: Arc<Entry>,
    /// Hits served from it since it was stored, or since the program started.
    pub hits: u64,
}

/// Which entries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// A part of the prompt, in whatever case; empty for all.
    pub contains: String,
    /// How many, at least one and at most 1000.
    pub limit: usize,
    /// Where the page before ended; `None` for the first.
    pub cursor: Option<Cursor>,
}

/// One page of entries, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Found>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Cursor>,
}

/// A place in the list of entries, newest first: it stays where it is while entries come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    created_at_ms: u64,
    sequence: u64,
}

/// No text that [`Cursor`] was written as.
#[derive(Debug, thiserror::Error)]
#[error("a cursor is what the page before gave")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.created_at_ms, self.sequence)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            u64::from_str_radix(digits.unwrap_or_default(), 16).map_err(|_| CursorError)
        };
        let (created_at_ms, sequence) = text.split_once('-').ok_or(CursorError)?;
        Ok(Self { created_at_ms: number(created_at_ms)?, sequence: number(sequence)? })
    }
}

/// Which entries to purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Every entry.
    All,
    /// The entries of which all that is given here holds; none where nothing is given.
    Matching {
        /// The request's model.
        model: Option<String>,
        /// The request's namespace; empty for those without one.
        namespace: Option<String>,
        /// Stored longer ago than this.
        older_than: Option<Duration>,
    },
}

impl Selector {
    fn selects(&self, entry: &Entry, now: SystemTime) -> bool {
        match self {
            Self::All => true,
            Self::Matching { model: None, namespace: None, older_than: None } => false,
            Self::Matching { model, namespace, older_than } => {
                model.as_ref().is_none_or(|model| entry.model == *model)
                    && namespace.as_ref().is_none_or(|namespace| entry.namespace == *namespace)
                    && older_than.is_none_or(|age| entry.age(now) > age)
            }
        }
    }
}

impl Store {
    /// The entry of an id. Not a use: looking at an entry does not keep it from being evicted.
    #[expect(clippy::unused_async, reason = "the shape that stores behind a network need")]
    pub async fn find(&self, id: &EntryId) -> Result<Option<Found>, StoreError> {
        Ok(self.0.memory.find(id).map(|slot| found(&slot)))
    }

    /// A page of entries, newest first. Looks at every entry, on a thread for blocking work.
    pub async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let (inner, query) = (Arc::clone(&self.0), query.clone());
        tokio::task::spawn_blocking(move || inner.list(&query)).await.map_err(|_| StoreError::Closed)
    }

    /// Removes the entries that a selector selects, and says how many there were.
    pub async fn purge(&self, selector: &Selector) -> Result<u64, StoreError> {
        let (inner, selector) = (Arc::clone(&self.0), selector.clone());
        let purge = move || inner.purge(&selector, SystemTime::now());
        tokio::task::spawn_blocking(purge).await.map_err(|_| StoreError::Closed)
    }
}

fn found(slot: &Slot) -> Found {
    Found { entry: Arc::clone(&slot.entry), hits: slot.hits.load(Ordering::Relaxed) }
}

fn place(slot: &Slot) -> Cursor {
    let created_at = slot.entry.created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Cursor {
        created_at_ms: u64::try_from(created_at.as_millis()).unwrap_or(u64::MAX),
        sequence: slot.sequence,
    }
}

impl Inner {
    fn list(&self, query: &ListQuery) -> Page {
        let limit = query.limit.clamp(1, PAGE);
        let contains = query.contains.to_lowercase();
        // The newest so far, the oldest of them on top; one more than asked for, to know whether there is a
        // next page.
        let mut newest = BinaryHeap::with_capacity(limit + 2);
        for slot in self.memory.iter() {
            let place = place(&slot);
            let is_passed = query.cursor.is_some_and(|cursor| place >= cursor);
            let is_older = newest.len() > limit
                && newest.peek().is_some_and(|Reverse(Listed { place: oldest, .. })| place <= *oldest);
            if is_passed || is_older || !contains_folded(&slot.entry.prompt, &contains) {
                continue;
            }
            newest.push(Reverse(Listed { place, slot }));
            if newest.len() > limit + 1 {
                newest.pop();
            }
        }
        let mut listed: Vec<_> = newest.into_iter().map(|Reverse(listed)| listed).collect();
        listed.sort_unstable_by(|a, b| b.cmp(a));
        let more = listed.len() > limit;
        listed.truncate(limit);
        Page {
            next: listed.last().filter(|_| more).map(|last| last.place),
            entries: listed.iter().map(|listed| found(&listed.slot)).collect(),
        }
    }

    fn purge(&self, selector: &Selector, now: SystemTime) -> u64 {
        let mut purged = 0;
        for slot in self.memory.iter() {
            if selector.selects(&slot.entry, now) && self.remove(&slot, Cause::Removed) {
                purged += 1;
            }
        }
        purged
    }
}

fn contains_folded(text: &str, folded: &str) -> bool {
    folded.is_empty() || text.to_lowercase().contains(folded)
}

struct Listed {
    place: Cursor,
    slot: Arc<Slot>,
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Listed {}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Listed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}
