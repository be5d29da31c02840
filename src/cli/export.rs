//! `rejoinder export`: all entries of a running proxy, as lines of a file.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use clap::Args;
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::admin_client::{AdminClient, AdminError, AdminFlags, Pieces, print, wait};
use super::{environment, failed};
use crate::cache::transfer::{self, End};
use crate::causes::causes;

const EXPLANATION: &str = "\
FILE gets one JSON document a line: a first line that says by which secret the entries are stored (by a keyed hash, not \
the secret), then an entry each, with its prompt, its reply and its embedding, then a last line that says how many there \
were. Expired entries are left out. The file holds prompts and replies in the clear: it is created for its owner alone, \
and appears only when it is whole.

An export whose connection breaks goes on where it was, five times without getting further at most.

`rejoinder import FILE` reads it into another rejoinder, with whichever store, that has the same REJOINDER_SECRET.

Exit codes: 0 all exported; 1 failed, and no file was written; 2 wrong usage, or FILE is there and --force is not; \
3 exported, but some entries could not be read and are not in the file.";

/// Write all entries of a running proxy to a file.
#[derive(Debug, Args)]
#[command(after_long_help = EXPLANATION)]
pub(super) struct Export {
    /// The file to write; - for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Replace FILE where it is there
    #[arg(long, short)]
    force: bool,

    /// Print one JSON document when done: {"entries", "unreadable", "bytes"}; on standard error where FILE is -
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminFlags,
}

/// Where the lines go.
enum Target {
    Standard(std::io::StdoutLock<'static>),
    File(BufWriter<File>),
}

/// What is read of the last line.
#[derive(Debug, Deserialize)]
struct Last {
    end: End,
}

/// What is read of a mark.
#[derive(Debug, Deserialize)]
struct Mark {
    cursor: String,
    #[serde(default)]
    unreadable: u64,
}

/// How often in a row an export that broke off is taken up again without getting any further.
const ATTEMPTS: u32 = 5;

/// How long it waits before that; longer each time.
const PAUSE: Duration = Duration::from_millis(500);

/// What was written.
#[derive(Debug, Default)]
struct Written {
    /// The first line.
    header: Bytes,
    /// Lines since the last mark, and how many: where the export breaks off, they come again.
    held: BytesMut,
    held_entries: u64,
    /// Where it goes on.
    cursor: Option<String>,
    entries: u64,
    bytes: u64,
    /// Entries that could not be read: of answers that broke off, and of the present one until the last mark.
    unreadable_before: u64,
    unreadable: u64,
    end: Option<End>,
}

/// Why an answer was not copied to its end.
enum Stop {
    /// It broke off, and the proxy can be asked to go on.
    Broken(anyhow::Error),
    /// Nothing would help.
    Failed(anyhow::Error),
}

impl From<AdminError> for Stop {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Unreachable { .. } | AdminError::Broken { .. } => Self::Broken(error.into()),
            error => Self::Failed(error.into()),
        }
    }
}

impl Export {
    pub(super) fn run(self) -> ExitCode {
        let is_standard = self.file.as_os_str() == "-";
        if !is_standard && !self.force && self.file.exists() {
            let error = anyhow::anyhow!(
                "{} is there already; give another name, or --force to replace it",
                self.file.display()
            );
            return failed(&error, 2);
        }
        let exported = if is_standard {
            wait(self.export(Target::Standard(std::io::stdout().lock())))
        } else {
            self.export_to_file()
        };
        match exported.and_then(|(end, bytes)| self.report(end, bytes, is_standard).map(|()| end)) {
            Ok(End { unreadable: 0, .. }) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::from(3),
            Err(error) => failed(&error, 1),
        }
    }

    /// Into a file beside it, which takes its name when it is whole.
    fn export_to_file(&self) -> anyhow::Result<(End, u64)> {
        let mut name = self.file.clone().into_os_string();
        name.push(".part");
        let part = PathBuf::from(name);
        let file = create(&part).with_context(|| format!("cannot write {}", part.display()))?;
        let exported = wait(self.export(Target::File(BufWriter::new(file)))).and_then(|exported| {
            std::fs::rename(&part, &self.file)
                .with_context(|| format!("cannot rename {} to {}", part.display(), self.file.display()))?;
            Ok(exported)
        });
        if exported.is_err() {
            // What went wrong is said already; a rest that cannot be removed is no news.
            let _ = std::fs::remove_file(&part);
        }
        exported
    }

    async fn export(&self, mut target: Target) -> anyhow::Result<(End, u64)> {
        let client = AdminClient::new(&self.admin, &environment)?;
        let bar = self.progress(&client).await;
        let mut written = Written::default();
        let copied = copy_all(&client, &mut target, &mut written, &bar).await;
        bar.finish_and_clear();
        let end =
            copied.with_context(|| format!("the export broke off after {} entries", written.entries))?;
        target.finish().context("cannot write the export")?;
        Ok((end, written.bytes))
    }

    /// A bar on a terminal, nothing elsewhere.
    async fn progress(&self, client: &AdminClient) -> ProgressBar {
        #[derive(Deserialize)]
        struct Counted {
            would_purge: u64,
        }
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let all = Bytes::from_static(b"{\"all\":true,\"dry_run\":true}");
        // What it is for is the time left; what is wrong with the proxy is said by what follows.
        let Ok(Counted { would_purge }) = client.ask(Method::POST, "/purge", all).await else {
            return ProgressBar::new_spinner();
        };
        let template = "{bar:32} {pos}/{len} entries, {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(template);
        ProgressBar::new(would_purge).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn report(&self, end: End, bytes: u64, is_standard: bool) -> anyhow::Result<()> {
        let End { entries, unreadable } = end;
        let text = if self.json {
            json!({"entries": entries, "unreadable": unreadable, "bytes": bytes}).to_string() + "\n"
        } else {
            let rest = match unreadable {
                0 => String::new(),
                count => format!("; {count} could not be read: damaged, or stored under another secret"),
            };
            format!("{entries} entries exported to {}{rest}\n", self.file.display())
        };
        if is_standard {
            eprint!("{text}");
            return Ok(());
        }
        print(&text)
    }
}

/// Writes the whole export. One that breaks off goes on from its last mark, so that nothing is there twice.
async fn copy_all(
    client: &AdminClient,
    target: &mut Target,
    written: &mut Written,
    bar: &ProgressBar,
) -> anyhow::Result<End> {
    let mut attempts = 0;
    loop {
        let entries = written.entries;
        let copied = match client.stream(&written.path()).await {
            Ok(mut pieces) => copy(&mut pieces, target, written, bar).await,
            Err(error) => Err(error.into()),
        };
        let error = match (copied, written.end) {
            (Ok(()), Some(end)) => return Ok(end),
            (Err(Stop::Failed(error)), _) => return Err(error),
            (Err(Stop::Broken(error)), _) => error,
            (Ok(()), None) => anyhow::anyhow!("it ended early; look at the proxy's log, and try again"),
        };
        attempts = if written.entries > entries { 1 } else { attempts + 1 };
        if written.cursor.is_none() || attempts > ATTEMPTS {
            return Err(error);
        }
        bar.suspend(|| {
            eprintln!(
                "the export broke off after {} entries and goes on: {}",
                written.entries,
                causes(error.as_ref())
            );
        });
        tokio::time::sleep(PAUSE * attempts).await;
        written.go_on();
    }
}

/// Writes lines as they come, the marks left out.
async fn copy(
    pieces: &mut Pieces,
    target: &mut Target,
    written: &mut Written,
    bar: &ProgressBar,
) -> Result<(), Stop> {
    let mut rest = BytesMut::new();
    let mut searched = 0;
    let mut shown = Instant::now();
    while let Some(piece) = pieces.next().await? {
        rest.extend_from_slice(&piece);
        while let Some(at) = memchr::memchr(b'\n', rest.get(searched..).unwrap_or_default()) {
            let line = rest.split_to(searched + at + 1);
            searched = 0;
            written.line(&line, target).map_err(Stop::Failed)?;
        }
        searched = rest.len();
        if shown.elapsed().as_millis() > 100 {
            bar.set_position(written.entries);
            shown = Instant::now();
        }
    }
    Ok(())
}

impl Written {
    /// What to ask for: all of it, or the rest.
    fn path(&self) -> String {
        self.cursor.as_deref().map_or_else(
            || "/export".to_owned(),
            |cursor| format!("/export?cursor={}", utf8_percent_encode(cursor, NON_ALPHANUMERIC)),
        )
    }

    /// What was not marked comes again.
    fn go_on(&mut self) {
        self.held.clear();
        self.held_entries = 0;
        self.unreadable_before += std::mem::take(&mut self.unreadable);
    }

    fn line(&mut self, line: &[u8], target: &mut Target) -> anyhow::Result<()> {
        let strange = "the proxy is of another version than this command";
        if line.starts_with(b"{\"cursor\":") {
            let mark: Mark = serde_json::from_slice(line).context(strange)?;
            self.cursor = Some(mark.cursor);
            self.unreadable = mark.unreadable;
            return self.release(target);
        }
        if line.starts_with(b"{\"end\":") {
            let Last { end } = serde_json::from_slice(line).context(strange)?;
            self.release(target)?;
            let unreadable = self.unreadable_before + end.unreadable;
            let end = End { entries: self.entries, unreadable };
            self.end = Some(end);
            return self.write(&transfer::last(end), target);
        }
        if !line.starts_with(b"{\"rejoinder\":") {
            self.held.extend_from_slice(line);
            self.held_entries += 1;
            return Ok(());
        }
        if self.header.is_empty() {
            self.header = Bytes::copy_from_slice(line);
            return self.write(line, target);
        }
        anyhow::ensure!(
            self.header == line,
            "the proxy's secret is another now, so that this would be two exports"
        );
        Ok(())
    }

    fn release(&mut self, target: &mut Target) -> anyhow::Result<()> {
        let held = self.held.split();
        self.entries += std::mem::take(&mut self.held_entries);
        self.write(&held, target)
    }

    fn write(&mut self, bytes: &[u8], target: &mut Target) -> anyhow::Result<()> {
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        target.write_all(bytes).context("cannot write the export")
    }
}

impl Target {
    fn write_all(&mut self, line: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Standard(out) => out.write_all(line),
            Self::File(file) => file.write_all(line),
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Standard(mut out) => out.flush(),
            Self::File(file) => file.into_inner()?.sync_all(),
        }
    }
}

/// A new file for its owner alone.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        // Left by one that was killed.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            options.open(path)
        }
        opened => opened,
    }
}
