//! Entries of the embedded store on their way out and in.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Embedded, Inner};
use crate::store::entry::{Entry, EntryId, Partition};
use crate::store::memory;
use crate::store::transfer::{ExportCursorError, Exported, Home, Kept, Part, Taken};
use crate::store::{StoreError, index};

/// Entries found in one pass over the memory: their numbers, ids and embeddings are held, no entries.
const PASS: usize = 8192;

/// Entries in a part.
const PART: usize = 64;

/// A walk over all entries, in the order in which they came.
pub struct Walk {
    inner: Arc<Inner>,
    /// The number of the last entry given.
    after: u64,
    /// The last number there was when the walk began: what comes meanwhile does not make it endless.
    last: u64,
    pass: Pass,
}

#[derive(Default)]
struct Pass {
    found: VecDeque<(u64, EntryId)>,
    homes: HashMap<u64, Home>,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("after", &self.after).field("last", &self.last).finish_non_exhaustive()
    }
}

/// The number after which an export goes on.
pub(crate) fn read_cursor(cursor: &str) -> Result<u64, ExportCursorError> {
    let digits = cursor.strip_prefix("e-").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    u64::from_str_radix(digits.unwrap_or_default(), 16).map_err(|_| ExportCursorError)
}

impl Embedded {
    /// See [`crate::store::Store::export`].
    pub(in crate::store) fn export(&self, cursor: Option<&str>) -> Result<Walk, ExportCursorError> {
        Ok(Walk {
            inner: Arc::clone(&self.0),
            after: cursor.map(read_cursor).transpose()?.unwrap_or(0),
            last: self.0.sequence.load(Ordering::Acquire),
            pass: Pass::default(),
        })
    }

    /// See [`crate::store::Store::import`].
    pub(in crate::store) fn import(&self, entry: Entry, home: Option<&Home>) -> Result<Taken, StoreError> {
        let entry = Arc::new(entry.compressed());
        let row = home.map_or(0, |home| index::weight(&home.embedding.0));
        let bytes = memory::weight(&entry).saturating_add(row);
        let limit = self.0.memory.largest();
        if bytes > limit {
            return Err(StoreError::TooLarge { bytes, limit });
        }
        if !self.0.put_unless(Arc::clone(&entry), |there| there.created_at >= entry.created_at) {
            return Ok(Taken::Already);
        }
        if let Some(Home { partition, embedding, .. }) = home {
            self.0.place_codes(&entry.key, entry.created_at, *partition, embedding.0.clone());
        }
        Ok(if self.0.memory.peek(&entry.key).is_some() { Taken::Stored } else { Taken::NoRoom })
    }
}

impl Walk {
    /// See [`crate::store::transfer::Export::next`].
    pub(in crate::store) async fn next(&mut self) -> Result<Option<Part>, StoreError> {
        if self.pass.found.is_empty() {
            let (inner, after, last) = (Arc::clone(&self.inner), self.after, self.last);
            let pass = tokio::task::spawn_blocking(move || inner.pass(after, last));
            self.pass = pass.await.map_err(|_| StoreError::Closed)?;
        }
        let mut part = Part::default();
        let found = &mut self.pass.found;
        for (sequence, id) in found.drain(..found.len().min(PART)) {
            self.after = sequence;
            part.cursor = Some(format!("e-{sequence:x}"));
            // One that left or was replaced meanwhile is passed over; what took its place has a higher number.
            let slot = self.inner.memory.find(&id).filter(|slot| slot.sequence == sequence);
            let home = self.pass.homes.remove(&sequence);
            part.entries.extend(slot.map(|slot| Exported { entry: Arc::clone(&slot.entry), home }));
        }
        Ok(part.cursor.is_some().then_some(part))
    }
}

impl Inner {
    /// The first entries after a number.
    fn pass(&self, after: u64, last: u64) -> Pass {
        // The highest number on top, to be given up first.
        let mut lowest: BinaryHeap<(u64, EntryId, Option<Partition>)> = BinaryHeap::new();
        for slot in self.memory.iter().filter(|slot| slot.sequence > after && slot.sequence <= last) {
            if lowest.len() < PASS || lowest.peek().is_some_and(|highest| slot.sequence < highest.0) {
                lowest.push((slot.sequence, slot.entry.key.id(), slot.home));
            }
            if lowest.len() > PASS {
                lowest.pop();
            }
        }
        let found = lowest.into_sorted_vec();
        let wanted: HashSet<u64> = found.iter().map(|(sequence, ..)| *sequence).collect();
        let partitions: HashSet<Partition> = found.iter().filter_map(|(.., home)| *home).collect();
        let mut homes = HashMap::new();
        for partition in partitions {
            self.index.for_each_row_of(
                &partition,
                |slot| wanted.contains(&slot.sequence),
                |slot, codes| {
                    homes.insert(slot.sequence, Home { partition, model: None, embedding: Kept(codes) });
                },
            );
        }
        Pass { found: found.into_iter().map(|(sequence, id, _)| (sequence, id)).collect(), homes }
    }
}
