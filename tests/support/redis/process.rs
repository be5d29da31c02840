//! Child processes that live no longer than the test that started them.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// Starts its arguments in the background with their output in the file `$0`, says their process id, and kills
/// them when its standard input ends: that is when the test says so, and also when the test's process is gone,
/// however it went.
const KEEPER: &str = r#""$@" </dev/null >>"$0" 2>&1 & echo $!; read -r _; kill -9 $! 2>/dev/null; wait"#;

/// A running child process. Dropping it kills it, and returns when it is dead.
#[derive(Debug)]
pub struct Process {
    keeper: Child,
    id: u32,
}

impl Process {
    /// Starts a program with its output in `log`.
    pub fn start(program: &str, arguments: &[String], log: &Path) -> Self {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .arg(log)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("sh: {error}"));
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let id = line.trim().parse().unwrap_or_else(|error| panic!("{error} in {line:?}"));
        Self { keeper, id }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Sends a signal, `STOP` for example.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("sh").args(["-c", r#"kill -"$0" "$1""#, name, &self.id.to_string()]).status();
        assert!(status.unwrap().success(), "SIG{name} to {}", self.id);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It ends once its child is dead; there is nothing to do about one that is not.
        let _ = self.keeper.wait();
    }
}

/// How far a cluster's own port is from the port for clients.
const CLUSTER_PORT_OFFSET: u16 = 10_000;

/// Ports tried lie below those that the system gives to outgoing connections, so that a server finds its own free
/// when it is started again.
const PORTS: std::ops::Range<u16> = 11_000..21_000;

/// A loopback port on which nobody listens, nor on the one that a cluster's node takes besides it. Another process
/// may take it meanwhile; who starts a server there sees that.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = *START.get_or_init(|| fastrand::u16(0..PORTS.end - PORTS.start));
    for _ in PORTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start);
        let port = PORTS.start + number % (PORTS.end - PORTS.start);
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + CLUSTER_PORT_OFFSET) {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Where the search for free ports begins in this process.
static START: std::sync::OnceLock<u16> = std::sync::OnceLock::new();
