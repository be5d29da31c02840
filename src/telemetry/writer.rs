//! The log's writer: lines are gathered in memory and written together by a thread of its own, so that no request
//! waits for a terminal, a pipe or a disk, and a busy proxy makes a hundred writes a second rather than one a line.
//!
//! Used by [`super::init_log`] alone.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use super::request_line::Stamp;

/// How long lines are gathered before they are written.
const GATHERING: Duration = Duration::from_millis(10);

/// How long the end waits for what is left to be written: an output that nobody reads must not keep the process.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// How many bytes may wait. What comes beyond while the output is stuck is dropped, and counted.
const CAPACITY: usize = 4 << 20;

/// Where events write their lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    stamp: Stamp,
    dropped: u64,
    closed: bool,
    finished: bool,
}

/// Writes what is still waiting when it is dropped.
#[derive(Debug)]
pub(super) struct Writing {
    lines: Lines,
}

impl Lines {
    /// Begins to write to `output`.
    ///
    /// # Errors
    /// The system gave no thread.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<(Self, Writing)> {
        let lines = Self::default();
        let shared = Arc::clone(&lines.0);
        std::thread::Builder::new().name("rejoinder-log".to_owned()).spawn(move || write(&shared, output))?;
        Ok((lines.clone(), Writing { lines }))
    }

    /// Has a line written behind those that wait; `write` gets what remembers the time as text.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>, &mut Stamp)) {
        let mut waiting = self.0.waiting.lock();
        let Waiting { text, stamp, dropped, .. } = &mut *waiting;
        let before = text.len();
        write(text, stamp);
        if text.len() > CAPACITY {
            text.truncate(before);
            *dropped += 1;
        } else if before == 0 {
            self.0.changed.notify_one();
        }
    }
}

/// One event's line, whole, as the subscriber hands it over.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(|text, _| text.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn write(shared: &Shared, mut output: impl Write) {
    let mut text = Vec::new();
    loop {
        let mut waiting = shared.waiting.lock();
        shared.changed.wait_while(&mut waiting, |waiting| waiting.text.is_empty() && !waiting.closed);
        if !waiting.closed {
            shared.changed.wait_for(&mut waiting, GATHERING);
        }
        std::mem::swap(&mut text, &mut waiting.text);
        let (dropped, closed) = (std::mem::take(&mut waiting.dropped), waiting.closed);
        drop(waiting);
        // There is nowhere to say that the log cannot be written.
        let _ = output.write_all(&text);
        if dropped > 0 {
            let _ = writeln!(output, "rejoinder: {dropped} log lines were dropped, since nothing read them");
        }
        let _ = output.flush();
        text.clear();
        if closed {
            shared.waiting.lock().finished = true;
            shared.changed.notify_one();
            return;
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let Shared { waiting, changed } = &*self.lines.0;
        let mut waiting = waiting.lock();
        waiting.closed = true;
        changed.notify_one();
        changed.wait_while_for(&mut waiting, |waiting| !waiting.finished, LAST_WRITE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, and in how many writes.
    #[derive(Debug, Clone, Default)]
    struct Output(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Output {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let mut output = self.0.lock();
            output.0.extend_from_slice(text);
            output.1 += 1;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_in_order_before_the_end() {
        let output = Output::default();
        let (lines, writing) = Lines::start(output.clone()).unwrap();
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect::<Vec<_>>().concat();
        for line in expected.split_inclusive('\n') {
            lines.make_writer().write_all(line.as_bytes()).unwrap();
        }
        drop(writing);
        let (written, writes) = &*output.0.lock();
        assert_eq!(String::from_utf8_lossy(written), expected);
        assert!(*writes < 1000, "{writes}");
    }

    #[test]
    fn an_output_that_nobody_reads_does_not_hold_up_the_end() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                // Returns when the test lets go of its end, after the log has ended.
                let _ = self.0.recv();
                Ok(text.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = std::sync::mpsc::channel();
        let (lines, writing) = Lines::start(Stuck(stuck)).unwrap();
        lines.make_writer().write_all(b"line\n").unwrap();
        drop(writing);
        drop(release);
    }
}
