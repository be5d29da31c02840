//! The memory for bodies that are being read whole, all of them together: of requests, until upstream has answered
//! them, and of replies, until they are stored.
//!
//! Called by [`super::body`] and [`super::fetch`]. What finds no room is no error: it passes through uncached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

/// What is left of the memory. Cheap to clone: all clones are one.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicUsize>);

/// A body that is being read within a budget; its room is free again when it is dropped, or the [`Bytes`] made of it.
#[derive(Debug)]
pub struct Buffer {
    bytes: BytesMut,
    /// What was taken of the budget.
    taken: usize,
    budget: Budget,
}

impl Budget {
    /// This many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// An empty buffer.
    pub fn buffer(&self) -> Buffer {
        Buffer { bytes: BytesMut::new(), taken: 0, budget: self.clone() }
    }

    /// What is left, in bytes.
    #[cfg(test)]
    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Buffer {
    /// Adds to it, if there is room; else it stays as it was.
    #[must_use]
    pub fn add(&mut self, piece: &[u8]) -> bool {
        // A buffer grows by doubling, and what it has room for is what it takes.
        let wanted = self.bytes.len().saturating_add(piece.len());
        if wanted > self.taken {
            let more = wanted.max(self.taken.saturating_mul(2)) - self.taken;
            let left = &self.budget.0;
            let took = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more));
            if took.is_err() {
                return false;
            }
            self.taken += more;
            self.bytes.reserve(self.taken - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        true
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All of it, for as long as anyone keeps a part.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_has_room_until_the_last_part_of_it_is_gone() {
        let budget = Budget::new(1000);
        let mut first = budget.buffer();
        assert!(first.add(&[1; 300]) && first.add(&[2; 100]));
        assert_eq!((first.len(), budget.left()), (400, 400));
        let mut second = budget.clone().buffer();
        assert!(second.add(&[3; 400]) && !second.add(&[4]));
        assert_eq!(second.len(), 400, "what has no room changes nothing");
        drop(second);
        let part = first.freeze().slice(299..301);
        assert_eq!((part.as_ref(), budget.left()), (&[1, 2][..], 400));
        drop(part);
        assert_eq!(budget.left(), 1000);
    }
}
