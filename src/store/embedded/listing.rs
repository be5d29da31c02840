//! Entries of the embedded store for people: found by id, listed page by page, purged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::disk::Disk;
use super::{Cause, Embedded, Inner};
use crate::store::StoreError;
use crate::store::entry::EntryId;
use crate::store::listing::{Cursor, Found, ListQuery, MostUsed, Newest, Page, Selector, is_match};
use crate::store::memory::Slot;

impl Embedded {
    pub(in crate::store) fn find(&self, id: &EntryId) -> Option<Found> {
        self.0.memory.find(id).map(|slot| found(&slot))
    }

    pub(in crate::store) async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let (inner, query) = (Arc::clone(&self.0), query.clone());
        tokio::task::spawn_blocking(move || inner.list(&query)).await.map_err(|_| StoreError::Closed)
    }

    pub(in crate::store) async fn most_used(&self, limit: usize) -> Result<Vec<Found>, StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || inner.most_used(limit)).await.map_err(|_| StoreError::Closed)
    }

    pub(in crate::store) async fn purge(&self, selector: &Selector) -> Result<u64, StoreError> {
        let (inner, selector) = (Arc::clone(&self.0), selector.clone());
        let purge = move || inner.purge(&selector, SystemTime::now());
        tokio::task::spawn_blocking(purge).await.map_err(|_| StoreError::Closed)
    }

    pub(in crate::store) async fn count(&self, selector: &Selector) -> Result<u64, StoreError> {
        let (inner, selector) = (Arc::clone(&self.0), selector.clone());
        let count = move || inner.count(&selector, SystemTime::now());
        tokio::task::spawn_blocking(count).await.map_err(|_| StoreError::Closed)
    }
}

fn found(slot: &Slot) -> Found {
    Found { entry: Arc::clone(&slot.entry), hits: slot.hits.load(Ordering::Relaxed) }
}

impl Inner {
    fn list(&self, query: &ListQuery) -> Page {
        let folded = query.folded();
        let mut newest = Newest::new(query);
        for slot in self.memory.iter() {
            let place = Cursor::of(slot.entry.created_at, slot.sequence);
            if newest.wants(place) && is_match(slot.entry.prompt(), &folded) {
                newest.push(place, slot);
            }
        }
        let (slots, next) = newest.finish();
        Page { entries: slots.iter().map(|slot| found(slot)).collect(), next }
    }

    fn most_used(&self, limit: usize) -> Vec<Found> {
        let mut most = MostUsed::new(limit);
        for slot in self.memory.iter() {
            most.push(slot.hits.load(Ordering::Relaxed), || Arc::clone(&slot.entry));
        }
        most.finish().into_iter().map(|(hits, entry)| Found { entry, hits }).collect()
    }

    fn count(&self, selector: &Selector, now: SystemTime) -> u64 {
        let selected = self.memory.iter().filter(|slot| selector.selects(&slot.entry, now));
        let locked = self.disk.get().filter(|_| *selector == Selector::All).map_or(0, Disk::locked);
        u64::try_from(selected.count() + locked).unwrap_or(u64::MAX)
    }

    fn purge(&self, selector: &Selector, now: SystemTime) -> u64 {
        let mut purged = 0;
        for slot in self.memory.iter() {
            if selector.selects(&slot.entry, now) && self.remove(&slot, Cause::Removed) {
                purged += 1;
            }
        }
        if *selector == Selector::All
            && let Some(disk) = self.disk.get()
        {
            purged += disk.delete_locked();
        }
        purged
    }
}
