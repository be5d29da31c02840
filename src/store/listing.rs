//! Entries for people: found by id, listed page by page, purged by what they have in common.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::entry::Entry;
use super::milliseconds;

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

/// The entries of which most hits were served, in any order, given one by one.
pub(super) struct MostUsed<T> {
    limit: usize,
    /// The least used on top.
    heap: BinaryHeap<Reverse<Used<T>>>,
}

struct Used<T> {
    hits: u64,
    item: T,
}

impl<T> MostUsed<T> {
    /// Of so many at most.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::with_capacity(limit + 1) }
    }

    /// Takes one with its hits; one without any is not used. `item` is made only where it belongs there by now.
    pub(super) fn push(&mut self, hits: u64, item: impl FnOnce() -> T) {
        let least = self.heap.peek().map_or(0, |Reverse(used)| used.hits);
        if hits == 0 || (self.heap.len() >= self.limit && hits <= least) {
            return;
        }
        self.heap.push(Reverse(Used { hits, item: item() }));
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    /// Those used most with their hits, the most used first.
    pub(super) fn finish(self) -> Vec<(u64, T)> {
        let used = self.heap.into_sorted_vec();
        used.into_iter().map(|Reverse(Used { hits, item })| (hits, item)).collect()
    }
}

impl<T> PartialEq for Used<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hits == other.hits
    }
}

impl<T> Eq for Used<T> {}

impl<T> PartialOrd for Used<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Used<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.hits.cmp(&other.hits)
    }
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
    pub(super) fn selects(&self, entry: &Entry, now: SystemTime) -> bool {
        match self {
            Self::All => true,
            Self::Matching { model: None, namespace: None, older_than: None } => false,
            Self::Matching { model, namespace, older_than } => {
                model.as_ref().is_none_or(|model| entry.model() == *model)
                    && namespace.as_ref().is_none_or(|namespace| entry.namespace() == *namespace)
                    && older_than.is_none_or(|age| entry.age(now) > age)
            }
        }
    }
}

impl Cursor {
    /// The place of an entry; `sequence` puts those of one millisecond in order, the same in each listing.
    pub(super) fn of(created_at: SystemTime, sequence: u64) -> Self {
        Self { created_at_ms: milliseconds(created_at), sequence }
    }
}

impl ListQuery {
    /// What [`is_match`] compares with.
    pub(super) fn folded(&self) -> String {
        self.contains.to_lowercase()
    }
}

/// Whether a prompt contains what [`ListQuery::folded`] gave.
pub(super) fn is_match(prompt: &str, folded: &str) -> bool {
    folded.is_empty() || prompt.to_lowercase().contains(folded)
}

/// Picks a page out of entries that come in any order, holding no more than the page.
pub(super) struct Newest<T> {
    limit: usize,
    cursor: Option<Cursor>,
    /// The oldest on top; one more than asked for, to know whether there is a next page.
    heap: BinaryHeap<Reverse<Listed<T>>>,
}

struct Listed<T> {
    place: Cursor,
    item: T,
}

impl<T> Newest<T> {
    /// For the page that a query asks for.
    pub(super) fn new(query: &ListQuery) -> Self {
        let limit = query.limit.clamp(1, PAGE);
        Self { limit, cursor: query.cursor, heap: BinaryHeap::with_capacity(limit + 2) }
    }

    /// Whether an entry at this place belongs on the page, as far as is known by now.
    pub(super) fn wants(&self, place: Cursor) -> bool {
        let is_passed = self.cursor.is_some_and(|cursor| place >= cursor);
        let is_older = self.heap.len() > self.limit
            && self.heap.peek().is_some_and(|Reverse(oldest)| place <= oldest.place);
        !is_passed && !is_older
    }

    /// Takes an entry that is wanted.
    pub(super) fn push(&mut self, place: Cursor, item: T) {
        self.heap.push(Reverse(Listed { place, item }));
        if self.heap.len() > self.limit + 1 {
            self.heap.pop();
        }
    }

    /// The page's entries, newest first, and where the next page begins.
    pub(super) fn finish(self) -> (Vec<T>, Option<Cursor>) {
        let mut listed: Vec<_> = self.heap.into_iter().map(|Reverse(listed)| listed).collect();
        listed.sort_unstable_by(|a, b| b.cmp(a));
        let more = listed.len() > self.limit;
        listed.truncate(self.limit);
        let next = listed.last().filter(|_| more).map(|last| last.place);
        (listed.into_iter().map(|listed| listed.item).collect(), next)
    }
}

impl<T> PartialEq for Listed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl<T> Eq for Listed<T> {}

impl<T> PartialOrd for Listed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Listed<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}
