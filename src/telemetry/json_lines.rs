//! The log's JSON form: an object a line.
//!
//! Used by [`super::init_log`] alone. The same fields in the same order as `tracing-subscriber`'s own JSON writer,
//! written straight into one buffer: that writer passes each comma on through several layers, which for the one
//! line of a request cost more than to find and send its reply. There are no spans in this program to write.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes each event as a JSON object on a line of its own.
#[derive(Debug)]
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Line(Vec::with_capacity(512));
        line.0.extend_from_slice(b"{\"timestamp\":\"");
        line.0.extend_from_slice(humantime::format_rfc3339_micros(SystemTime::now()).to_string().as_bytes());
        line.0.push(b'"');
        line.member("level", metadata.level().as_str());
        event.record(&mut line);
        line.member("target", metadata.target());
        line.0.extend_from_slice(b"}\n");
        writer.write_str(std::str::from_utf8(&line.0).map_err(|_| fmt::Error)?)
    }
}

struct Line(Vec<u8>);

impl Line {
    fn member(&mut self, name: &str, value: impl Serialize) {
        // Names of fields are written in this program's source and need no escape.
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        // Plain values always serialise, and memory can always be written to.
        let _ = serde_json::to_writer(&mut self.0, &value);
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::Value;
    use tracing::info;
    use tracing_subscriber::fmt::{self, MakeWriter};
    use tracing_subscriber::prelude::*;

    use super::JsonLines;

    /// Where a subscriber writes, to be read after.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Memory(pub(in crate::telemetry) Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Memory {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn write_events() {
        let (absent, error): (Option<&str>, _) = (None, io::Error::other("a \"quoted\"\ncause"));
        info!(target: "a::b", path = "/x\u{1f}é", status = 200_u16, ok = true, absent, elapsed_ms = 0.25, "done");
        info!(%error, signed = -3, ratio = f64::NAN, id = ?Some(1), "it failed: {}", 7);
    }

    /// The lines without their first member, the time.
    fn lines(memory: &Memory) -> Vec<String> {
        let text = String::from_utf8(memory.0.lock().clone()).unwrap();
        text.lines().map(|line| line.split_once(',').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_are_those_of_the_subscriber_s_own_writer() {
        let (ours, theirs) = (Memory::default(), Memory::default());
        let registry = tracing_subscriber::registry()
            .with(fmt::layer().event_format(JsonLines).with_writer(ours.clone()))
            .with(fmt::layer().json().flatten_event(true).with_writer(theirs.clone()));
        tracing::subscriber::with_default(registry, write_events);
        assert_eq!(lines(&ours), lines(&theirs));
        assert_eq!(lines(&ours).len(), 2);
    }

    #[test]
    fn a_line_begins_with_its_time() {
        let ours = Memory::default();
        let layer = fmt::layer().event_format(JsonLines).with_writer(ours.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), write_events);
        let text = ours.0.lock().clone();
        let first: Value = serde_json::from_slice(text.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        let time = first["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok() && time.len() == "2026-01-01T00:00:00.000000Z".len());
    }
}
