//! Embeddings on their way into the index. A reply is stored before its prompt is embedded; a lookup that comes
//! in between waits for the embeddings begun before it, so that a paraphrase asked right after is found.
//!
//! Called by [`super`] alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::entry::Partition;

/// The embeddings on their way, by partition.
#[derive(Debug, Default)]
pub(super) struct Pending(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    partitions: HashMap<Partition, watch::Sender<BTreeSet<u64>>>,
    next: u64,
}

/// One embedding on its way; arrived, or given up, when dropped.
#[derive(Debug)]
pub(super) struct Arrival {
    table: Arc<Mutex<Table>>,
    partition: Partition,
    number: u64,
}

/// Those begun before a certain moment.
#[derive(Debug)]
pub(super) struct Earlier {
    arrivals: watch::Receiver<BTreeSet<u64>>,
    before: u64,
}

impl Pending {
    /// Announces an embedding.
    pub(super) fn begin(&self, partition: Partition) -> Arrival {
        let mut table = self.0.lock();
        let number = table.next;
        table.next += 1;
        table.partitions.entry(partition).or_insert_with(|| watch::Sender::new(BTreeSet::new())).send_modify(
            |arrivals| {
                arrivals.insert(number);
            },
        );
        Arrival { table: Arc::clone(&self.0), partition, number }
    }

    /// The embeddings on their way to a partition now; `None` where there is none.
    pub(super) fn earlier(&self, partition: &Partition) -> Option<Earlier> {
        let table = self.0.lock();
        let arrivals = table.partitions.get(partition)?.subscribe();
        Some(Earlier { arrivals, before: table.next })
    }
}

impl Earlier {
    /// Waits until all of them arrived or were given up.
    pub(super) async fn arrived(mut self) {
        let before = self.before;
        // An error means that the partition's list is gone, and so that all have arrived.
        let _ = self.arrivals.wait_for(|arrivals| arrivals.range(..before).next().is_none()).await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        let Some(arrivals) = table.partitions.get(&self.partition) else { return };
        arrivals.send_modify(|arrivals| {
            arrivals.remove(&self.number);
        });
        if arrivals.borrow().is_empty() {
            table.partitions.remove(&self.partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lookup_waits_for_those_begun_before_it_alone() {
        let pending = Pending::default();
        let partition = Partition([1; 32]);
        assert!(pending.earlier(&partition).is_none());
        let first = pending.begin(partition);
        let earlier = pending.earlier(&partition).unwrap();
        let later = pending.begin(partition);
        let waiting = tokio::spawn(earlier.arrived());
        drop(first);
        waiting.await.unwrap();
        drop(later);
        assert!(pending.0.lock().partitions.is_empty());
    }
}
