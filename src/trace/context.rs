//! W3C Trace Context: whose trace a request belongs to, read from its headers and written into those that go upstream
//! (<https://www.w3.org/TR/trace-context/>).

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// `traceparent`.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `tracestate` that is kept with spans; a longer one still travels (§3.3.1.5 asks for no more).
const STATE_BYTES: usize = 512;

/// The length of a `traceparent` of version 00.
const PARENT_BYTES: usize = 55;

/// The two headers, as the propagator asks for them.
struct Headers<'a> {
    parent: &'a str,
    state: String,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.parent),
            "tracestate" if !self.state.is_empty() => Some(&self.state),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The span that a request names as its parent. `None` where it names none, or not in a way that is understood: then a
/// trace begins here.
pub(crate) fn read(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next()?.to_str().ok()?.trim();
    // Said twice it says nothing (§3.2.2.5 leaves no choice between two). The propagator would take shorter ids.
    let is_sound = |at: usize| parent.as_bytes().get(at) == Some(&b'-');
    if parents.next().is_some() || parent.len() < PARENT_BYTES || ![2, 35, 52].into_iter().all(is_sound) {
        return None;
    }
    let states: Vec<&str> =
        headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let state = Some(states.join(",")).filter(|state| state.len() <= STATE_BYTES).unwrap_or_default();
    let context = TraceContextPropagator::new()
        .extract_with_context(&opentelemetry::Context::new(), &Headers { parent, state });
    let span = context.span();
    let parent = span.span_context();
    parent.is_valid().then(|| parent.clone())
}

/// Names a span as the parent of what upstream does. `tracestate` travels as it came, unless it belonged to no trace
/// that is continued.
pub(crate) fn write(headers: &mut HeaderMap, span: &SpanContext, continued: bool) {
    let (trace, id, flags) = (span.trace_id(), span.span_id(), u8::from(span.is_sampled()));
    // Hexadecimal digits are always a valid value.
    if let Ok(value) = HeaderValue::try_from(format!("00-{trace}-{id}-{flags:02x}")) {
        headers.insert(TRACEPARENT, value);
    }
    if !continued {
        headers.remove(TRACESTATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(parents: &[&'static str]) -> Option<SpanContext> {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(TRACEPARENT, HeaderValue::from_static(parent));
        }
        read(&headers)
    }

    #[test]
    fn a_parent_is_taken_as_sent_or_not_at_all() {
        let parent = of(&[GOOD]).unwrap();
        assert!(parent.is_sampled() && parent.is_remote());
        assert_eq!(parent.span_id().to_string(), "b7ad6b7169203331");
        assert!(!of(&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"]).unwrap().is_sampled());
        // A later version may say more.
        assert!(of(&["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes"]).is_some());
        for wrong in [
            "",
            "00-1-2-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319cb7ad6b71692033311-----01",
        ] {
            assert!(of(&[wrong]).is_none(), "{wrong}");
        }
        assert!(of(&[GOOD, GOOD]).is_none(), "twice");
    }
}
