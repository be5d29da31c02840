//! The thread that keeps the store tidy: sweeps expired entries out, and puts large partitions in order.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::{Cause, Inner};
use crate::store::OpenError;
use crate::store::entry::Partition;
use crate::store::index::Index;

/// How often expired entries are looked for: a pass over a million takes a tenth of a second of one core.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How long an expired entry stays, so that whoever asks is told that it expired.
pub(in crate::store) const GRACE: Duration = Duration::from_mins(1);

/// The keeper's handle.
#[derive(Debug, Default)]
pub(super) struct Keeper(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    chores: Mutex<Chores>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Chores {
    due: VecDeque<Partition>,
    stopping: bool,
}

enum Chore {
    Tend(Partition),
    Sweep,
}

impl Keeper {
    /// Starts the thread; it ends when the store is dropped.
    pub(super) fn start(&self, inner: Weak<Inner>, index: Arc<Index>) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.0);
        thread::Builder::new()
            .name("store-keeper".into())
            .spawn(move || shared.run(&inner, &index))
            .map(drop)
            .map_err(OpenError::Thread)
    }

    /// Has a partition put in order soon.
    pub(super) fn tend(&self, partition: Partition) {
        let mut chores = self.0.chores.lock();
        // Few partitions are ever large, so the queue is short.
        if !chores.due.contains(&partition) {
            chores.due.push_back(partition);
            self.0.wake.notify_one();
        }
    }

    /// Lets the thread end.
    pub(super) fn stop(&self) {
        self.0.chores.lock().stopping = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn run(&self, inner: &Weak<Inner>, index: &Index) {
        let mut sweep_at = Instant::now() + SWEEP_EVERY;
        while let Some(chore) = self.next(sweep_at) {
            match chore {
                Chore::Tend(partition) => index.upkeep(&partition),
                Chore::Sweep => {
                    let Some(inner) = inner.upgrade() else { return };
                    inner.sweep(SystemTime::now());
                    sweep_at = Instant::now() + SWEEP_EVERY;
                }
            }
        }
    }

    /// `None` when it is time to end.
    fn next(&self, sweep_at: Instant) -> Option<Chore> {
        let mut chores = self.chores.lock();
        loop {
            if chores.stopping {
                return None;
            }
            if let Some(partition) = chores.due.pop_front() {
                return Some(Chore::Tend(partition));
            }
            if self.wake.wait_until(&mut chores, sweep_at).timed_out() {
                return Some(Chore::Sweep);
            }
        }
    }
}

impl Inner {
    /// Takes out what expired a while ago.
    pub(in crate::store) fn sweep(&self, now: SystemTime) {
        for slot in self.memory.iter() {
            if slot.entry.age(now) >= slot.entry.ttl.saturating_add(GRACE) {
                self.remove(&slot, Cause::Expired);
            }
        }
    }
}
