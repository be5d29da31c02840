//! What a response says of how it came about: `Cache-Status` (RFC 9211), `Age`, and our own headers.
//!
//! Called by the rest of `proxy`, last of all. An exact hit's are written anew only when they change.

use std::fmt::{self, Write as _};

use bytes::BytesMut;
use http::header::AGE;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

use super::headers::CACHE_STATUS;
use crate::cache::outcome::{Layer, Outcome};
use crate::decimal::{decimal, padded};
use crate::store::entry::EntryId;

const SIMILARITY: HeaderName = HeaderName::from_static("x-rejoinder-similarity");
const CONFIDENCE: HeaderName = HeaderName::from_static("x-rejoinder-confidence");
const ENTRY: HeaderName = HeaderName::from_static("x-rejoinder-entry");

/// Writes our own headers: appends to `Cache-Status`, and replaces the rest.
pub fn write(headers: &mut HeaderMap, outcome: &Outcome) {
    let mut values = Values::default();
    if let Some(status) = values.write(|out| outcome.write(out)) {
        headers.append(CACHE_STATUS, status);
    }
    if let Some(decision) = &outcome.decision {
        for (name, value) in [(SIMILARITY, decision.similarity.0), (CONFIDENCE, decision.confidence)] {
            if let Some(value) = values.decimal(value) {
                headers.insert(name, value);
            }
        }
    }
    if let Some(entry) = &outcome.entry {
        if let Some(age) = values.write(|out| out.write_str(decimal(entry.age.as_secs(), &mut [0; 20]))) {
            headers.insert(AGE, age);
        }
        if let Some(id) = values.write(|out| out.write_str(entry.id.text(&mut [0; 32]))) {
            headers.insert(ENTRY, id);
        }
    }
}

/// Our own headers of the last exact hit of a request that comes again and again: they change once a second.
#[derive(Debug, Default)]
pub struct Written(Mutex<Option<Said>>);

#[derive(Debug)]
struct Said {
    of: Told,
    status: HeaderValue,
    confidence: HeaderValue,
    age: HeaderValue,
    entry: HeaderValue,
}

/// All that the headers of an exact hit tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    entry: EntryId,
    age: u64,
    remaining: u64,
    /// In ten-thousandths.
    confidence: i64,
}

impl Written {
    /// What [`write`] writes of this outcome, without writing it anew where it is as before. `headers` have none of
    /// ours.
    pub fn write(&self, headers: &mut HeaderMap, outcome: &Outcome) {
        let (Layer::Exact, Some(entry), Some(decision)) = (outcome.layer, &outcome.entry, &outcome.decision)
        else {
            return write(headers, outcome);
        };
        let told = Told {
            entry: entry.id,
            age: entry.age.as_secs(),
            remaining: entry.remaining.as_secs(),
            confidence: ten_thousandths(decision.confidence),
        };
        let mut said = self.0.lock();
        if let Some(said) = said.as_ref().filter(|said| said.of == told) {
            headers.insert(CACHE_STATUS, said.status.clone());
            headers.insert(SIMILARITY, ONE);
            headers.insert(CONFIDENCE, said.confidence.clone());
            headers.insert(AGE, said.age.clone());
            headers.insert(ENTRY, said.entry.clone());
            return;
        }
        write(headers, outcome);
        let get = |name| headers.get(name).cloned();
        if let (Some(status), Some(confidence), Some(age), Some(entry)) =
            (get(CACHE_STATUS), get(CONFIDENCE), get(AGE), get(ENTRY))
        {
            *said = Some(Said { of: told, status, confidence, age, entry });
        }
    }
}

/// The similarity of an equal key, and the confidence in what is new.
const ONE: HeaderValue = HeaderValue::from_static("1.0000");

/// Values of headers, written one behind the other into one allocation.
struct Values(BytesMut);

impl Default for Values {
    fn default() -> Self {
        // More than ours take together.
        Self(BytesMut::with_capacity(256))
    }
}

impl Values {
    /// `None` where it is no valid value, which what we write of numbers and tokens always is.
    fn write(&mut self, write: impl FnOnce(&mut BytesMut) -> fmt::Result) -> Option<HeaderValue> {
        write(&mut self.0).ok()?;
        HeaderValue::from_maybe_shared(self.0.split().freeze()).ok()
    }

    /// A number with four decimals. The standard formatting of a float looks for its exact digits, which these values
    /// do not have, and takes ten times as long.
    fn decimal(&mut self, value: f32) -> Option<HeaderValue> {
        let parts = ten_thousandths(value);
        if parts == 10_000 {
            return Some(ONE);
        }
        self.write(|out| {
            out.write_str(if parts < 0 { "-" } else { "" })?;
            let parts = parts.unsigned_abs();
            out.write_str(decimal(parts / 10_000, &mut [0; 20]))?;
            out.write_str(".")?;
            out.extend_from_slice(&padded::<4>(u32::try_from(parts % 10_000).unwrap_or_default()));
            Ok(())
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "similarities and probabilities are at most 1")]
fn ten_thousandths(value: f32) -> i64 {
    (f64::from(value) * 10_000.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_four() {
        let all = [
            (1.0, "1.0000"),
            (0.99996, "1.0000"),
            (0.99994, "0.9999"),
            (0.8, "0.8000"),
            (0.05, "0.0500"),
            (0.0001, "0.0001"),
            (0.0, "0.0000"),
            (-0.123_46, "-0.1235"),
        ];
        for (value, text) in all {
            assert_eq!(Values::default().decimal(value).unwrap(), text);
        }
    }
}
