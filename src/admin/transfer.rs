//! `/export` and `/import`: all that is stored, line by line, out and in. A line at a time is in memory either way, and
//! no more is read of a store or a body than the other side takes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::warn;

use super::{Answer, Refusal, json_response};
use crate::cache::Cache;
use crate::cache::transfer::{self, End, HeaderError, Imported, Limits, LineError};
use crate::config::Config;
use crate::proxy::body::{Body, BodyError};
use crate::proxy::collect::next_data;
use crate::store::transfer::{Export, ExportError, Part};

/// Exports and imports at once: each takes a core while it lasts.
const AT_ONCE: usize = 4;

/// Bytes gathered before they are sent.
const PIECE: usize = 64 << 10;

/// Bad lines that are named; the others are counted.
const NAMED: usize = 100;

/// Entries after which the store is asked to write what it was given, before its queues are full.
const FLUSH_EVERY: u32 = 256;

/// Bytes of lines after which it is asked, too.
const FLUSH_BYTES: usize = 16 << 20;

/// Lines after which others get their turn.
const LINES_IN_A_ROW: u64 = 16;

/// What both need to know.
#[derive(Debug, Clone)]
pub(super) struct Transfers {
    limits: Limits,
    /// The longest line that is read.
    longest: usize,
    idle: Duration,
    room: Arc<Semaphore>,
}

impl Transfers {
    pub(super) fn new(config: &Config) -> Self {
        let limits = Limits {
            document: config.limits.max_entry_bytes.as_usize(),
            prompt: config.limits.max_request_bytes.as_usize(),
        };
        Self {
            limits,
            // Quotation marks and line ends are written as two characters, all else of an entry in a megabyte.
            longest: limits.document.saturating_add(limits.prompt).saturating_mul(2).saturating_add(1 << 20),
            idle: config.timeouts.idle,
            room: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The same under another configuration; those under way count on.
    pub(super) fn renewed(&self, config: &Config) -> Self {
        Self { room: Arc::clone(&self.room), ..Self::new(config) }
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            let message =
                format!("{AT_ONCE} exports and imports are under way; try again when one has ended");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }

    /// `GET /export?cursor=`
    pub(super) async fn export(&self, cache: &Arc<Cache>, query: &str) -> Answer {
        let mut cursor = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name != "cursor" {
                let message = format!("the parameter {name:?} is not known; there is cursor");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
            }
            cursor = Some(value.into_owned()).filter(|cursor| !cursor.is_empty());
        }
        let permit = self.enter()?;
        let unavailable = |error: String| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
        let mut export = cache.store().export(cursor.as_deref()).await.map_err(|error| match error {
            ExportError::Cursor(error) => Refusal::new(StatusCode::BAD_REQUEST, error.to_string()),
            ExportError::Store(error) => unavailable(error.to_string()),
        })?;
        // A store that does not answer is said to before anything else is.
        let first = export.next().await.map_err(|error| unavailable(error.to_string()))?;
        let (sender, pieces) = mpsc::channel(2);
        let cache = Arc::clone(cache);
        tokio::spawn(async move {
            let mut writer = Writer { cache, sender, piece: BytesMut::new(), end: End::default() };
            // Whoever read has gone where it ends early.
            let _ = writer.write(export, first).await;
            drop(permit);
        });
        let mut response = Response::new(Body::Produced(pieces));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        Ok(response)
    }

    /// `POST /import`
    pub(super) async fn import(&self, cache: &Cache, body: Incoming) -> Answer {
        let _permit = self.enter()?;
        let mut lines = Lines::new(body, self.longest, self.idle);
        let refused = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
        let broken = |error: BodyError| refused(format!("the body did not come whole: {error}"));
        let Some(Line::Whole(header)) = lines.next().await.map_err(broken)? else {
            return Err(refused(HeaderError::None.to_string()));
        };
        cache.check_header(&header).map_err(|error| {
            let foreign = error == HeaderError::Secret;
            Refusal::new(
                if foreign { StatusCode::CONFLICT } else { StatusCode::BAD_REQUEST },
                error.to_string(),
            )
        })?;
        let mut report = Report { lines: 1, ..Report::default() };
        let (mut unwritten, mut bytes) = (0, 0_usize);
        while let Some(line) = lines.next().await.map_err(broken)? {
            report.lines += 1;
            match line {
                Line::TooLong => report.bad(format!("the line is longer than {} bytes", self.longest)),
                Line::Whole(line) if line.trim_ascii().is_empty() => {}
                Line::Whole(line) => {
                    let imported = cache.import_line(&line, &self.limits).await;
                    report.note(imported)?;
                    (unwritten, bytes) = (unwritten + 1, bytes.saturating_add(line.len()));
                }
            }
            if unwritten >= FLUSH_EVERY || bytes >= FLUSH_BYTES {
                flush(cache).await?;
                (unwritten, bytes) = (0, 0);
            }
            if report.lines.is_multiple_of(LINES_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
        }
        // What is said to be imported is.
        flush(cache).await?;
        Ok(json_response(StatusCode::OK, &report))
    }
}

async fn flush(cache: &Cache) -> Result<(), Refusal> {
    let flushed = cache.store().flush().await;
    flushed.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

/// What became of an import's lines.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Lines read, the first included.
    lines: u64,
    /// Entries stored.
    imported: u64,
    /// Entries of which one as new was there.
    already: u64,
    /// Entries that have outlived their time.
    expired: u64,
    /// Of those stored, how many prompts were embedded anew.
    embedded: u64,
    /// Bad lines.
    bad: u64,
    /// The first of them.
    bad_lines: Vec<BadLine>,
}

#[derive(Debug, Serialize)]
struct BadLine {
    line: u64,
    reason: String,
}

impl Report {
    fn bad(&mut self, reason: String) {
        self.bad += 1;
        if self.bad_lines.len() < NAMED {
            self.bad_lines.push(BadLine { line: self.lines, reason });
        }
    }

    fn note(&mut self, imported: Result<Imported, LineError>) -> Result<(), Refusal> {
        match imported {
            Ok(Imported::Note) => {}
            Ok(Imported::Stored { embedded }) => {
                self.imported += 1;
                self.embedded += u64::from(embedded);
            }
            Ok(Imported::Already) => self.already += 1,
            Ok(Imported::Expired) => self.expired += 1,
            Err(LineError::Bad(reason)) => self.bad(reason),
            Err(LineError::Store(error)) => {
                let message = format!("line {}: {error}; try again from there", self.lines);
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
            }
        }
        Ok(())
    }
}

/// Writes an export, as fast as it is read.
struct Writer {
    cache: Arc<Cache>,
    sender: mpsc::Sender<Result<Bytes, BodyError>>,
    piece: BytesMut,
    end: End,
}

/// Whoever read has gone.
struct Gone;

impl Writer {
    async fn write(&mut self, mut export: Export, first: Option<Part>) -> Result<(), Gone> {
        self.piece.extend_from_slice(&self.cache.export_header());
        let mut next = first;
        while let Some(part) = next {
            self.part(&part).await?;
            tokio::task::yield_now().await;
            next = match export.next().await {
                Ok(part) => part,
                Err(error) => {
                    warn!(%error, "an export broke off");
                    self.send().await?;
                    return self.sender.send(Err(error.into())).await.map_err(|_| Gone);
                }
            };
        }
        self.piece.extend_from_slice(&transfer::last(self.end));
        self.send().await
    }

    async fn part(&mut self, part: &Part) -> Result<(), Gone> {
        self.end.unreadable += part.unreadable;
        let now = std::time::SystemTime::now();
        for exported in &part.entries {
            if exported.entry.remaining(now).is_zero() {
                continue;
            }
            match self.cache.export_line(exported) {
                Some(line) => {
                    self.end.entries += 1;
                    self.piece.extend_from_slice(&line);
                }
                None => self.end.unreadable += 1,
            }
            if self.piece.len() >= PIECE {
                self.send().await?;
            }
        }
        if let Some(cursor) = &part.cursor {
            self.piece.extend_from_slice(&transfer::mark(cursor, self.end.unreadable));
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Gone> {
        let piece = self.piece.split().freeze();
        if piece.is_empty() {
            return Ok(());
        }
        self.sender.send(Ok(piece)).await.map_err(|_| Gone)
    }
}

/// A line of a body.
enum Line {
    /// Without its end.
    Whole(Bytes),
    /// Not kept.
    TooLong,
}

/// The lines of a body, each of which is held whole, and no more.
struct Lines {
    body: Incoming,
    read: BytesMut,
    /// Bytes of `read` that have no end of a line in them.
    searched: usize,
    longest: usize,
    /// Whether the line under way is passed over.
    skipping: bool,
    ended: bool,
    idle: Duration,
}

impl Lines {
    fn new(body: Incoming, longest: usize, idle: Duration) -> Self {
        Self { body, read: BytesMut::new(), searched: 0, longest, skipping: false, ended: false, idle }
    }

    /// The next line; `None` at the end. What comes after the last end of a line is a line too, unless the body broke
    /// off there.
    async fn next(&mut self) -> Result<Option<Line>, BodyError> {
        loop {
            let rest = self.read.get(self.searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest) {
                let line = self.read.split_to(self.searched + at + 1);
                self.searched = 0;
                let line = line.freeze();
                let line = line.slice(..line.len().saturating_sub(1));
                return Ok(Some(self.line(line)));
            }
            self.searched = self.read.len();
            if self.skipping || self.read.len() > self.longest {
                self.skipping = true;
                self.read.clear();
                self.searched = 0;
            }
            if self.ended {
                if self.read.is_empty() && !self.skipping {
                    return Ok(None);
                }
                let line = self.read.split().freeze();
                self.searched = 0;
                return Ok(Some(self.line(line)));
            }
            match next_data(&mut self.body, self.idle).await {
                Some(data) => self.read.extend_from_slice(&data?),
                None => self.ended = true,
            }
        }
    }

    fn line(&mut self, line: Bytes) -> Line {
        let passed_over = std::mem::take(&mut self.skipping) || line.len() > self.longest;
        if passed_over { Line::TooLong } else { Line::Whole(line) }
    }
}
