//! What a request is called in the log and upstream: `X-Request-Id`, as the client sent it or as it was given here.
//!
//! Made by `server`, written by [`super`] and, where a request goes upstream, by `proxy`. One that is given is a number until
//! somebody writes it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hexadecimal;

/// Gives ids. Clones are one.
#[derive(Debug, Clone)]
pub struct RequestIds {
    /// Tells this process's ids from another's: hexadecimal digits.
    process: [u8; 16],
    next: Arc<AtomicU64>,
}

/// An id that was given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenId {
    process: [u8; 16],
    number: u64,
}

/// What a request is called.
#[derive(Debug, Clone, Copy)]
pub enum RequestName<'a> {
    /// What its client says; empty where that is no text.
    Sent(&'a str),
    /// What was given here.
    Given(GivenId),
}

impl RequestIds {
    /// The ids of this process.
    pub fn new() -> Self {
        let mut random = [0; 8];
        // Without a random source the ids are merely not unique among processes.
        let _ = getrandom::fill(&mut random);
        Self { process: digits(u64::from_le_bytes(random)), next: Arc::default() }
    }

    /// The next one.
    pub fn next(&self) -> GivenId {
        GivenId { process: self.process, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

/// A number's digits, with zeros before them.
fn digits(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    hexadecimal::fill(&mut text, &number.to_be_bytes());
    text
}

impl GivenId {
    /// Writes it behind what is there.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let number = digits(self.number);
        let zeros = (self.number.leading_zeros() / 4).min(15) as usize;
        out.extend_from_slice(&self.process);
        out.push(b'-');
        out.extend_from_slice(number.get(zeros..).unwrap_or_default());
    }
}

impl fmt::Display for GivenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(33);
        self.write(&mut text);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Display for RequestName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(name) => f.write_str(name),
            Self::Given(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_their_process_and_differ() {
        for (process, number, text) in [
            (1, 0, "0000000000000001-0"),
            (u64::MAX, 0x1f, "ffffffffffffffff-1f"),
            (0xabc, u64::MAX, "0000000000000abc-ffffffffffffffff"),
        ] {
            let id = GivenId { process: digits(process), number };
            assert_eq!(id.to_string(), text);
            let mut out = Vec::new();
            id.write(&mut out);
            assert_eq!(out, text.as_bytes());
        }
        let ids = RequestIds::new();
        let (first, second) = (ids.next(), ids.clone().next());
        assert_eq!((first.process, first.number + 1), (second.process, second.number));
    }
}
