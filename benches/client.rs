//! The precise client of a benchmark: one request after the other over kept connections, each timed to the
//! nanosecond at its first and its last byte. `scripts/bench` runs it and reads what it prints.
//!
//! ```text
//! client latency REQUEST COUNT NAME=ADDRESS…   COUNT requests to each address, in turns; prints a line for each
//!                                              reply: name, ns to the body's first byte, ns to its last, status,
//!                                              Cache-Status
//! client fill REQUEST COUNT CONNECTIONS ADDRESS   COUNT requests at full speed; prints how many failed, ns, and
//!                                                 the first of their numbers
//! ```
//!
//! REQUEST is a file: `METHOD PATH`, with a header field after each tab, then one body a line (none: no body), taken in turns. `{n}` in a body becomes
//! a number that no other request of any run has, so that its prompt is unlike all others.

use std::fmt::Write as _;
use std::io::{BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.is_empty() {
        println!("this client is run by scripts/bench");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["latency", request, count, targets @ ..] => {
            latency(&Requests::read(request)?, count.parse()?, targets)
        }
        ["fill", request, count, connections, address] => {
            fill(&Requests::read(request)?, count.parse()?, connections.parse()?, address.parse()?)
        }
        _ => bail!("wrong arguments; see the head of benches/client.rs"),
    }
}

/// The requests of a run.
struct Requests {
    line: String,
    fields: String,
    bodies: Vec<String>,
    /// The first of this run's numbers: the time, so that no other run has them.
    first_number: u64,
}

impl Requests {
    fn read(path: &str) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let mut lines = text.lines();
        let line = lines.next().context("an empty request file")?;
        let mut parts = line.split('\t');
        let line = parts.next().unwrap_or_default().to_owned();
        let fields = parts.flat_map(|field| [field, "\r\n"]).collect();
        let bodies = lines.map(str::to_owned).collect();
        let first_number = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
        Ok(Self { line, fields, bodies, first_number })
    }

    /// The bytes of the request with this place in the run; one place gives one number and one length.
    fn bytes(&self, place: usize, out: &mut String) -> anyhow::Result<()> {
        out.clear();
        let number = self.first_number + place as u64;
        let body = match self.bodies.len() {
            0 => String::new(),
            many => {
                self.bodies.get(place % many).context("no body")?.replace("{n}", &format!("{number:020}"))
            }
        };
        write!(
            out,
            "{} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer bench\r\n{}",
            self.line, self.fields
        )?;
        if !body.is_empty() {
            write!(out, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())?;
        }
        write!(out, "\r\n{body}")?;
        Ok(())
    }
}

fn latency(requests: &Requests, count: usize, targets: &[&str]) -> anyhow::Result<()> {
    let mut connections = Vec::new();
    for target in targets {
        let (name, address) = target.split_once('=').context("a target is NAME=ADDRESS")?;
        connections.push((name, Connection::open(address.parse()?)?));
    }
    let mut bytes = String::new();
    let mut out = BufWriter::new(std::io::stdout().lock());
    for place in 0..count {
        for (at, (name, connection)) in connections.iter_mut().enumerate() {
            // Every target gets a number of its own: one may be behind the other.
            requests.bytes(place + at * count, &mut bytes)?;
            let reply = connection.ask(bytes.as_bytes()).with_context(|| format!("request to {name}"))?;
            writeln!(
                out,
                "{name}\t{}\t{}\t{}\t{}",
                reply.first.as_nanos(),
                reply.last.as_nanos(),
                reply.status,
                reply.cache_status
            )?;
        }
    }
    out.flush()?;
    Ok(())
}

fn fill(requests: &Requests, count: usize, connections: usize, address: SocketAddr) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let failed = std::thread::scope(|scope| {
        let worker = || -> anyhow::Result<usize> {
            let mut connection = Connection::open(address)?;
            let (mut bytes, mut failed) = (String::new(), 0);
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if place >= count {
                    return Ok(failed);
                }
                requests.bytes(place, &mut bytes)?;
                failed += usize::from(connection.ask(bytes.as_bytes())?.status != 200);
            }
        };
        let workers: Vec<_> = (0..connections).map(|_| scope.spawn(worker)).collect();
        let mut failed = 0;
        for worker in workers {
            failed += worker.join().map_err(|_| anyhow::anyhow!("a connection's thread panicked"))??;
        }
        anyhow::Ok(failed)
    })?;
    println!("{failed} {} {}", started.elapsed().as_nanos(), requests.first_number);
    Ok(())
}

/// A kept connection that has one request at a time.
struct Connection {
    stream: TcpStream,
    /// What was read of the current reply.
    buffer: Vec<u8>,
}

/// What is recorded of a reply.
struct Reply {
    status: u16,
    cache_status: String,
    first: Duration,
    last: Duration,
}

/// How a reply's end is known (RFC 9112 §6.3).
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 * 1024) })
    }

    fn ask(&mut self, request: &[u8]) -> anyhow::Result<Reply> {
        self.buffer.clear();
        let started = Instant::now();
        self.stream.write_all(request)?;
        let (body, mut first) = loop {
            self.read()?;
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break (end + 4, started.elapsed());
            }
        };
        let head = std::str::from_utf8(self.buffer.get(..body).unwrap_or_default())?.to_owned();
        let framing = framing(&head)?;
        let empty = matches!(framing, Framing::Length(0));
        if self.buffer.len() == body && !empty {
            self.read()?;
            first = started.elapsed();
        }
        while !self.is_whole(body, &framing)? {
            self.read()?;
        }
        let last = started.elapsed();
        let status = head.get(9..12).context("no status line")?.parse()?;
        let cache_status = header(&head, "cache-status").unwrap_or_default().to_owned();
        Ok(Reply { status, cache_status, first, last })
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut piece = [0; 16 * 1024];
        let read = self.stream.read(&mut piece)?;
        ensure!(read > 0, "the connection was closed");
        self.buffer.extend_from_slice(piece.get(..read).unwrap_or_default());
        Ok(())
    }

    fn is_whole(&self, body: usize, framing: &Framing) -> anyhow::Result<bool> {
        let read = self.buffer.get(body..).unwrap_or_default();
        match framing {
            Framing::Length(length) => {
                ensure!(read.len() <= *length, "more bytes than the reply's length");
                Ok(read.len() == *length)
            }
            // The last chunk, without trailers. No reply measured here holds a carriage return of its own.
            Framing::Chunked => Ok(read.ends_with(b"\r\n0\r\n\r\n")),
        }
    }
}

fn framing(head: &str) -> anyhow::Result<Framing> {
    if header(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Ok(Framing::Chunked);
    }
    let length = header(head, "content-length").context("a reply without length or chunks")?;
    Ok(Framing::Length(length.parse()?))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}
