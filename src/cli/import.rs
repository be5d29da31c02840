//! `rejoinder import`: entries from a file of `rejoinder export` into a running proxy, some lines at a time, so that it
//! can be stopped anywhere and gone on with.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::StatusCode;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::admin_client::{AdminClient, AdminError, AdminFlags, harmless, print};
use super::{environment, failed};

/// Lines sent at once.
const LINES: usize = 256;

/// Bytes after which no more lines are added.
const BYTES: usize = 4 << 20;

/// The longest line that is sent; the proxy has a bound of its own.
const LONGEST: u64 = 128 << 20;

/// Bad lines that are named; the others are counted.
const NAMED: usize = 100;

/// How often lines are sent that the proxy has no room for now, and how long is waited in between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

const EXPLANATION: &str = "\
FILE is one that `rejoinder export` wrote, of a rejoinder with the same REJOINDER_SECRET; scopes and keys are keyed \
hashes, so an export of another secret is refused. Each line is judged before it is stored: a bad one is named with its \
number and the reason, and the others are imported. Expired entries are left out, and entries of which the proxy has \
one as new already; so whatever was imported before does no harm. Entries live no longer than the proxy's own --ttl. \
What was embedded by the proxy's embedder is not embedded anew.

An import that was interrupted says at which line --resume goes on.

Exit codes: 0 all imported; 1 failed or interrupted; 2 wrong usage, or FILE is no export, or one of another secret or \
version; 3 some lines were bad, or the file is cut short.";

/// Read entries from a file of `rejoinder export` into a running proxy.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts of the command line, which is no Markdown")]
#[command(after_long_help = EXPLANATION)]
pub(super) struct Import {
    /// The file to read; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Go on at this line, as an import that was interrupted said
    #[arg(long, value_name = "LINE", default_value_t = 1, hide_default_value = true,
        value_parser = clap::value_parser!(u64).range(1..))]
    resume: u64,

    /// Print one JSON document when done: {"imported", "already", "expired", "embedded", "bad", "bad_lines": [{"line",
    /// "reason"}], "complete", "resume"}
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminFlags,
}

/// Lines of the file on their way.
#[derive(Debug, Default)]
struct Batch {
    /// The number of the first.
    first: u64,
    /// The number of the last.
    last: u64,
    lines: Vec<u8>,
    /// How far the file is read, in bytes.
    position: u64,
    /// Lines too long to be sent.
    too_long: Vec<u64>,
    /// Whether the last line says that the export ends there.
    ended: bool,
}

/// What `POST /import` answers.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    imported: u64,
    already: u64,
    expired: u64,
    embedded: u64,
    bad: u64,
    bad_lines: Vec<BadLine>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct BadLine {
    line: u64,
    reason: String,
}

/// What became of the file.
#[derive(Debug, Default, Serialize)]
struct Report {
    imported: u64,
    already: u64,
    expired: u64,
    embedded: u64,
    bad: u64,
    bad_lines: Vec<BadLine>,
    /// Whether the file was read to the end of the export.
    complete: bool,
    /// Where to go on; `None` at the end, and where nothing was sent.
    resume: Option<u64>,
}

/// Why not all was imported.
enum Stop {
    /// The file is none that can be imported.
    File(anyhow::Error),
    /// Something else.
    Failed(anyhow::Error),
}

impl Import {
    pub(super) fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&anyhow::Error::new(error).context("cannot start the runtime"), 1),
        };
        let mut report = Report::default();
        let imported = runtime.block_on(self.import(&mut report));
        // Of what never began there is nothing to report.
        let begun = imported.is_ok() || report.resume.is_some();
        let reported = if begun { self.report(&report) } else { Ok(()) };
        match (imported, reported) {
            (Err(Stop::File(error)), _) => failed(&error, 2),
            (Err(Stop::Failed(error)), _) => {
                failed(&error, 1);
                if let Some(next) = report.resume {
                    eprintln!(
                        "rejoinder: the lines before {next} are imported; go on by `rejoinder import {} --resume {next}`",
                        self.file.display()
                    );
                }
                ExitCode::FAILURE
            }
            (Ok(()), Err(error)) => failed(&error, 1),
            (Ok(()), Ok(())) if report.bad == 0 && report.complete => ExitCode::SUCCESS,
            (Ok(()), Ok(())) => ExitCode::from(3),
        }
    }

    async fn import(&self, report: &mut Report) -> Result<(), Stop> {
        let is_standard = self.file.as_os_str() == "-";
        let cannot = |error: io::Error| {
            Stop::File(anyhow::Error::new(error).context(format!("cannot read {}", self.file.display())))
        };
        let (source, length): (Box<dyn BufRead + Send>, _) = if is_standard {
            (Box::new(BufReader::new(io::stdin())), None)
        } else {
            let file = File::open(&self.file).map_err(cannot)?;
            let length = file.metadata().ok().map(|data| data.len());
            (Box::new(BufReader::new(file)), length)
        };
        let client =
            AdminClient::new(&self.admin, &environment).map_err(|error| Stop::Failed(error.into()))?;
        let mut lines = Lines { source, number: 0, position: 0 };
        let header = match lines.next().map_err(cannot)? {
            Next::Line(header) => header,
            Next::TooLong => return Err(Stop::File(anyhow::anyhow!("{} is no export", self.file.display()))),
            Next::End => return Err(Stop::File(anyhow::anyhow!("{} is empty", self.file.display()))),
        };
        // Alone, so that an export that is of no use is refused before anything of it is sent.
        send(&client, Bytes::from(header.clone())).await?;
        let (sender, batches) = mpsc::channel(1);
        let first = self.resume.max(2);
        // Of its own: nobody could interrupt a read of standard input.
        std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || read(lines, first, &sender))
            .map_err(|error| Stop::Failed(anyhow::Error::new(error).context("cannot start a thread")))?;
        let bar = self.progress(length);
        let imported = tokio::select! {
            imported = self.send_all(&client, &header, batches, &bar, report) => imported,
            interrupted = tokio::signal::ctrl_c() => {
                // Where signals cannot be heard of, nobody is interrupted by them either.
                drop(interrupted);
                Err(Stop::Failed(anyhow::anyhow!("interrupted")))
            }
        };
        bar.finish_and_clear();
        imported
    }

    async fn send_all(
        &self,
        client: &AdminClient,
        header: &[u8],
        mut batches: mpsc::Receiver<io::Result<Batch>>,
        bar: &ProgressBar,
        report: &mut Report,
    ) -> Result<(), Stop> {
        while let Some(batch) = batches.recv().await {
            let batch = batch.map_err(|error| {
                Stop::Failed(
                    anyhow::Error::new(error).context(format!("cannot read {}", self.file.display())),
                )
            })?;
            report.resume = Some(batch.first);
            let mut body = Vec::with_capacity(header.len() + batch.lines.len());
            body.extend_from_slice(header);
            body.extend_from_slice(&batch.lines);
            let answer = send(client, Bytes::from(body)).await?;
            report.add(answer, &batch);
            bar.set_position(batch.position);
            bar.set_message(format!("{} entries", report.imported));
        }
        report.resume = None;
        Ok(())
    }

    /// A bar on a terminal, nothing elsewhere.
    fn progress(&self, length: Option<u64>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let Some(length) = length else {
            let style = ProgressStyle::with_template("{spinner} {bytes}, {binary_bytes_per_sec}, {msg}");
            return ProgressBar::no_length()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        };
        let template = "{bar:32} {bytes}/{total_bytes}, {binary_bytes_per_sec}, {eta} left, {msg}";
        let style = ProgressStyle::with_template(template);
        ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn report(&self, report: &Report) -> anyhow::Result<()> {
        if self.json {
            return print(&(serde_json::to_string(report)? + "\n"));
        }
        for BadLine { line, reason } in &report.bad_lines {
            eprintln!("{}:{line}: {}", self.file.display(), harmless(reason));
        }
        let unnamed = report.bad.saturating_sub(u64::try_from(report.bad_lines.len()).unwrap_or(u64::MAX));
        if unnamed > 0 {
            eprintln!("and {unnamed} more bad lines");
        }
        if report.resume.is_none() && !report.complete {
            eprintln!(
                "{} does not end with an export's last line: it is cut short, so export it again if that matters",
                self.file.display()
            );
        }
        let Report { imported, already, expired, bad, .. } = report;
        print(&format!("{imported} imported, {already} there already, {expired} expired, {bad} bad\n"))
    }
}

impl Report {
    fn add(&mut self, answer: Answer, batch: &Batch) {
        self.imported += answer.imported;
        self.already += answer.already;
        self.expired += answer.expired;
        self.embedded += answer.embedded;
        self.bad += answer.bad;
        // The first line of what was sent is the export's first.
        let of_answer = answer
            .bad_lines
            .into_iter()
            .map(|BadLine { line, reason }| BadLine { line: (batch.first + line).saturating_sub(2), reason });
        let of_reading = batch
            .too_long
            .iter()
            .map(|line| BadLine { line: *line, reason: format!("the line is longer than {LONGEST} bytes") });
        let mut bad: Vec<_> = of_answer.chain(of_reading).collect();
        bad.sort_by_key(|bad| bad.line);
        self.bad += u64::try_from(batch.too_long.len()).unwrap_or(u64::MAX);
        let room = NAMED.saturating_sub(self.bad_lines.len());
        self.bad_lines.extend(bad.into_iter().take(room));
        self.complete |= batch.ended;
        self.resume = Some(batch.last + 1);
    }
}

/// Sends lines, again where the proxy cannot take them now.
async fn send(client: &AdminClient, body: Bytes) -> Result<Answer, Stop> {
    let mut tries = 1;
    loop {
        match client.post_lines("/import", body.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(AdminError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(AdminError::Refused {
                status: StatusCode::CONFLICT | StatusCode::BAD_REQUEST,
                message,
                ..
            }) => {
                return Err(Stop::File(anyhow::anyhow!(message)));
            }
            Err(error) => return Err(Stop::Failed(error.into())),
        }
    }
}

/// The lines of a file, one at a time.
struct Lines {
    source: Box<dyn BufRead + Send>,
    /// The number of the last one read.
    number: u64,
    /// Bytes read.
    position: u64,
}

/// What comes next in a file.
enum Next {
    /// A line with its end.
    Line(Vec<u8>),
    /// A line too long to be kept.
    TooLong,
    /// Nothing.
    End,
}

impl Lines {
    fn next(&mut self) -> io::Result<Next> {
        let mut line = Vec::new();
        let read = (&mut self.source).take(LONGEST).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(Next::End);
        }
        self.number += 1;
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.position += read;
        if line.last() == Some(&b'\n') {
            return Ok(Next::Line(line));
        }
        if read < LONGEST {
            line.push(b'\n');
            return Ok(Next::Line(line));
        }
        // The rest of it, without keeping it.
        loop {
            let buffer = self.source.fill_buf()?;
            let (used, done) = match memchr::memchr(b'\n', buffer) {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.source.consume(used);
            self.position += u64::try_from(used).unwrap_or(u64::MAX);
            if done {
                return Ok(Next::TooLong);
            }
        }
    }
}

/// Reads the file from a line on, some lines at a time, no faster than they are sent.
fn read(mut lines: Lines, first: u64, sender: &mpsc::Sender<io::Result<Batch>>) {
    loop {
        let batch = Batch::read(&mut lines, first).transpose();
        let Some(batch) = batch else { return };
        let failed = batch.is_err();
        // Whoever sends has stopped where this fails.
        if sender.blocking_send(batch).is_err() || failed {
            return;
        }
    }
}

impl Batch {
    /// The next lines from `first` on; `None` at the end of the file.
    fn read(lines: &mut Lines, first: u64) -> io::Result<Option<Self>> {
        let mut batch = Self::default();
        let mut count = 0;
        while count < LINES && batch.lines.len() < BYTES {
            let next = lines.next()?;
            if matches!(next, Next::End) {
                break;
            }
            if lines.number < first {
                continue;
            }
            if count == 0 {
                batch.first = lines.number;
            }
            count += 1;
            (batch.last, batch.position) = (lines.number, lines.position);
            match next {
                Next::Line(line) => {
                    if !line.trim_ascii().is_empty() {
                        batch.ended = line.starts_with(b"{\"end\":");
                    }
                    batch.lines.extend_from_slice(&line);
                }
                Next::TooLong => {
                    batch.too_long.push(lines.number);
                    // Its place, so that the numbers of those after it are right.
                    batch.lines.push(b'\n');
                }
                Next::End => {}
            }
        }
        Ok(Some(batch).filter(|_| count > 0))
    }
}
