//! The log's line of a request: through the subscriber, or, of an exact hit, straight into the log's JSON.
//!
//! Called by [`super::log_request`] alone. Both write the same members in the same order. The subscriber's way takes a
//! quarter of what all the rest of a hit does: a look through its layers, a value at a time through a visitor, and a float
//! whose shortest digits are looked for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::info;

use super::Exchange;
use super::request_id::RequestName;
use crate::cache::decision::MissReason;
use crate::cache::outcome::{Forward, Outcome};
use crate::decimal::{digits, padded};

/// The target of these lines, by which `log.filter` knows them.
pub(super) const TARGET: &str = "rejoinder::request";

/// Writes the line through the subscriber.
pub(super) fn tell(outcome: &Outcome, exchange: &Exchange<'_>) {
    let request_id = exchange.request_id.to_string();
    info!(
        target: TARGET,
        request_id = request_id.as_str(),
        method = exchange.method.as_str(),
        path = exchange.path,
        status = exchange.status.as_u16(),
        layer = outcome.layer.as_str(),
        upstream = outcome.upstream.as_deref(),
        detail = outcome.reason.map(MissReason::as_str),
        forward = outcome.forward.map(Forward::as_str),
        similarity = outcome.decision.map(|decision| decision.similarity.0),
        elapsed_ms = milliseconds(exchange.elapsed),
    );
}

#[expect(clippy::cast_precision_loss, reason = "exact for a hundred days")]
fn milliseconds(elapsed: Duration) -> f64 {
    elapsed.as_nanos() as f64 / 1e6
}

/// The last second that was written, as text.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: u64,
    text: Vec<u8>,
}

impl Stamp {
    /// Writes a time as RFC 3339 with microseconds.
    fn write(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            let second = UNIX_EPOCH + Duration::from_secs(self.second);
            self.text = humantime::format_rfc3339_seconds(second).to_string().into_bytes();
            // The zone comes behind the fraction.
            self.text.pop();
        }
        out.extend_from_slice(&self.text);
        out.push(b'.');
        out.extend_from_slice(&padded::<6>(since.subsec_micros()));
        out.push(b'Z');
    }
}

/// Writes the line of an exact hit behind what is there.
pub(super) fn write(out: &mut Vec<u8>, stamp: &mut Stamp, now: SystemTime, exchange: &Exchange<'_>) {
    out.reserve(512);
    out.extend_from_slice(b"{\"timestamp\":\"");
    stamp.write(now, out);
    out.extend_from_slice(b"\",\"level\":\"INFO\",\"request_id\":\"");
    match exchange.request_id {
        RequestName::Given(id) => id.write(out),
        RequestName::Sent(name) => text(name, out),
    }
    if let Some(endpoint) = exchange.endpoint {
        out.extend_from_slice(b"\",\"method\":\"POST\",\"path\":\"");
        out.extend_from_slice(endpoint.path().as_bytes());
    } else {
        out.extend_from_slice(b"\",\"method\":\"");
        text(exchange.method.as_str(), out);
        out.extend_from_slice(b"\",\"path\":\"");
        text(exchange.path, out);
    }
    out.extend_from_slice(b"\",\"status\":");
    out.extend_from_slice(exchange.status.as_str().as_bytes());
    out.extend_from_slice(b",\"layer\":\"exact\",\"similarity\":1.0,\"elapsed_ms\":");
    write_milliseconds(exchange.elapsed, out);
    out.extend_from_slice(b",\"target\":\"rejoinder::request\"}\n");
}

/// A text as it stands between the quotes of a JSON string.
fn text(text: &str, out: &mut Vec<u8>) {
    let from = out.len();
    // Text always serialises, and memory can always be written to.
    let _ = serde_json::to_writer(&mut *out, text);
    out.pop();
    out.remove(from);
}

/// Milliseconds with as many decimals as they have, and one at least.
fn write_milliseconds(elapsed: Duration, out: &mut Vec<u8>) {
    let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    let (whole, fraction) = (nanoseconds / 1_000_000, nanoseconds % 1_000_000);
    out.extend_from_slice(digits(whole, &mut [0; 20]));
    out.push(b'.');
    let from = out.len();
    out.extend_from_slice(&padded::<6>(u32::try_from(fraction).unwrap_or_default()));
    while out.len() > from + 1 && out.last() == Some(&b'0') {
        out.pop();
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::cache::decision::Decision;
    use crate::cache::outcome::Layer;
    use crate::dialect::Endpoint;
    use crate::embed::Similarity;
    use crate::telemetry::json_lines::JsonLines;
    use crate::telemetry::json_lines::tests::Memory;
    use crate::telemetry::request_id::RequestIds;

    fn rest(line: &[u8]) -> String {
        let text = String::from_utf8(line.to_vec()).unwrap();
        let (time, rest) = text.split_once(',').unwrap();
        assert_eq!(time.len(), "{\"timestamp\":\"2026-01-01T00:00:00.000000Z\"".len());
        rest.to_owned()
    }

    #[test]
    fn the_line_of_an_exact_hit_is_the_subscriber_s() {
        let ids = RequestIds::new();
        let decision = Decision {
            verdict: Ok(()),
            similarity: Similarity(1.0),
            confidence: 0.5,
            rule: None,
            likeness: None,
        };
        let mut outcome = Outcome::forwarded(Forward::Bypass);
        (outcome.layer, outcome.forward, outcome.decision) = (Layer::Exact, None, Some(decision));
        let mut stamp = Stamp::default();
        for (request_id, nanoseconds) in [
            (RequestName::Given(ids.next()), 41_234),
            (RequestName::Sent("a \"quoted\" \\ id"), 0),
            (RequestName::Sent(""), 1_500_000),
            (RequestName::Given(ids.next()), 12_345_678_901),
        ] {
            for endpoint in [Some(Endpoint::OpenAiChat), None] {
                let exchange = Exchange {
                    endpoint,
                    method: &Method::POST,
                    path: endpoint.map_or("/a\"sk", Endpoint::path),
                    request_id,
                    status: StatusCode::OK,
                    elapsed: Duration::from_nanos(nanoseconds),
                };
                let memory = Memory::default();
                let layer =
                    tracing_subscriber::fmt::layer().event_format(JsonLines).with_writer(memory.clone());
                let registry = tracing_subscriber::registry().with(layer);
                tracing::subscriber::with_default(registry, || tell(&outcome, &exchange));
                let mut ours = Vec::new();
                write(&mut ours, &mut stamp, SystemTime::now(), &exchange);
                assert_eq!(rest(&ours), rest(&memory.0.lock()));
            }
        }
    }

    #[test]
    fn a_time_is_written_with_its_microseconds() {
        let mut stamp = Stamp::default();
        for (microseconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_000_001, "1970-01-01T00:00:01.000001Z"),
            (1_999_999, "1970-01-01T00:00:01.999999Z"),
            (1_000_000, "1970-01-01T00:00:01.000000Z"),
        ] {
            let mut out = Vec::new();
            stamp.write(UNIX_EPOCH + Duration::from_micros(microseconds), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
