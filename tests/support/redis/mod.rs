//! Real Redis servers on free loopback ports, each in a folder of its own, and what can befall them.
//!
//! The program is `redis-server`, or the one that `REDIS_SERVER` names; any from 6.2 on does, and Valkey.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

mod cluster;
mod process;
mod replica;
mod sentinel;
mod tls;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use redis::{ConnectionLike, FromRedisValue, RedisResult};
use tempfile::TempDir;

pub use cluster::Cluster;
pub use process::{Process, free_port};
pub use replica::{Shared, patient_replica, patient_replica_with, replica, replica_with};
pub use sentinel::{MASTER_NAME, Sentinels};
pub use tls::Certificates;

/// After this a test has failed: what it waits for does not come.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// How long one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at whether something has come about.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The user by whom the tests themselves connect where users are set up.
const OBSERVER: (&str, &str) = ("observer", "seen");

/// Waits for something to come about; fails the test where it does not.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "it did not come about: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How a server is set up; the default has no password and keeps nothing on disk.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    password: Option<String>,
    users: Vec<String>,
    unix_socket: bool,
    tls: bool,
    append_only: bool,
    settings: Vec<(String, Vec<String>)>,
}

impl RedisOptions {
    /// Clients need this password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// There are only this user, as a line of an ACL file has it (`user NAME on >PASSWORD ~KEYS +COMMAND`), and
    /// one by whom the tests look; the default user is off.
    #[must_use]
    pub fn user(mut self, line: &str) -> Self {
        self.users.push(line.to_owned());
        self
    }

    /// Listens on a Unix socket too.
    #[must_use]
    pub fn unix_socket(self) -> Self {
        Self { unix_socket: true, ..self }
    }

    /// Listens on a second port with TLS; the port without is for the tests.
    #[must_use]
    pub fn tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// Writes every command to a file before it is answered, and reads that at the start.
    #[must_use]
    pub fn append_only(self) -> Self {
        Self { append_only: true, ..self }.set("appendfsync", "always")
    }

    /// Holds at most this many bytes, and makes room by this policy.
    #[must_use]
    pub fn memory(self, bytes: u64, policy: &str) -> Self {
        self.set("maxmemory", &bytes.to_string()).set("maxmemory-policy", policy)
    }

    /// Begins as a replica of another.
    #[must_use]
    pub fn replica_of(self, master: &Redis) -> Self {
        self.set_words("replicaof", &["127.0.0.1", &master.port().to_string()])
    }

    /// Any setting of `redis.conf`.
    #[must_use]
    pub fn set(self, name: &str, value: &str) -> Self {
        self.set_words(name, &[value])
    }

    fn set_words(mut self, name: &str, words: &[&str]) -> Self {
        self.settings.push((name.to_owned(), words.iter().map(|word| (*word).to_owned()).collect()));
        self
    }

    /// Starts it, and returns when it answers.
    pub async fn start(self) -> Redis {
        Redis::start(self).await
    }
}

/// A server. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Redis {
    options: RedisOptions,
    port: u16,
    tls_port: u16,
    process: Option<Process>,
    certificates: Option<Certificates>,
    /// The last to be dropped.
    folder: TempDir,
}

/// A server with all defaults.
pub async fn redis() -> Redis {
    RedisOptions::default().start().await
}

impl Redis {
    async fn start(options: RedisOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if !options.users.is_empty() {
            let (name, password) = OBSERVER;
            let observer = format!("user {name} on >{password} ~* &* +@all");
            let lines = ["user default off".to_owned(), observer];
            let lines: Vec<_> = lines.iter().chain(&options.users).map(String::as_str).collect();
            fs::write(folder.path().join("users.acl"), lines.join("\n") + "\n").unwrap();
        }
        let certificates = options.tls.then(|| Certificates::make(folder.path()));
        let mut server = Self { options, port: 0, tls_port: 0, process: None, certificates, folder };
        // Another process may take the port before the server does.
        for _ in 0..10 {
            (server.port, server.tls_port) = (free_port(), free_port());
            server.launch();
            if server.until_it_answers().await {
                return server;
            }
        }
        panic!("the server does not start:\n{}", server.log());
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients connect, without TLS.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `redis://…`, with the password if there is one.
    pub fn url(&self) -> String {
        match &self.options.password {
            Some(password) => format!("redis://:{}@{}", encoded(password), self.address()),
            None => format!("redis://{}", self.address()),
        }
    }

    /// `redis://USER:PASSWORD@…`
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@{}", self.address())
    }

    /// `rediss://…`, of a server with TLS.
    pub fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port)
    }

    /// `redis+unix://…`, of a server with a socket.
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// The certificates of a server with TLS.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("a server with TLS")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("redis.log")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn launch(&mut self) {
        let folder = self.folder.path();
        let mut arguments = Vec::new();
        let mut set = |name: &str, words: &[String]| {
            arguments.push(format!("--{name}"));
            arguments.extend_from_slice(words);
        };
        set("bind", &["127.0.0.1".to_owned()]);
        set("port", &[self.port.to_string()]);
        set("dir", &[folder.display().to_string()]);
        set("save", &[String::new()]);
        set("appendonly", &[if self.options.append_only { "yes" } else { "no" }.to_owned()]);
        // A replica need not wait for others that may want the same copy.
        set("repl-diskless-sync-delay", &["0".to_owned()]);
        if let Some(password) = &self.options.password {
            set("requirepass", std::slice::from_ref(password));
        }
        if !self.options.users.is_empty() {
            set("aclfile", &[folder.join("users.acl").display().to_string()]);
        }
        if self.options.unix_socket {
            set("unixsocket", &[self.socket().display().to_string()]);
        }
        if let Some(certificates) = &self.certificates {
            set("tls-port", &[self.tls_port.to_string()]);
            set("tls-cert-file", &[certificates.certificate.display().to_string()]);
            set("tls-key-file", &[certificates.key.display().to_string()]);
            set("tls-ca-cert-file", &[certificates.authority.display().to_string()]);
            set("tls-auth-clients", &["no".to_owned()]);
        }
        for (name, words) in &self.options.settings {
            set(name, words);
        }
        self.process = Some(Process::start(&program(), &arguments, &self.log_file()));
    }

    /// Whether it came to answer; false where something else has its port.
    async fn until_it_answers(&self) -> bool {
        let id = self.process.as_ref().unwrap().id().to_string();
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            // A failure is one to connect, or an error while it reads its files.
            let ping = self.try_command::<String>(&["PING"]);
            if ping.is_ok_and(|answer| answer == "PONG") {
                return self.info("process_id") == id;
            }
            let log = self.log();
            if log.contains("Address already in use") {
                return false;
            }
            let dead = ["FATAL", "Failed", "Aborting"].into_iter().any(|word| log.contains(word));
            assert!(!dead, "the server does not start:\n{log}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        panic!("the server does not answer:\n{}", self.log());
    }

    /// Stops it in its tracks (`SIGSTOP`): connections stay open, and nothing is answered.
    pub fn pause(&self) {
        self.process.as_ref().expect("it runs").signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.as_ref().expect("it runs").signal("CONT");
    }

    /// Kills it (`SIGKILL`).
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Whether it has been started and not killed since.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it again on the same port in the same folder, and returns when it answers.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(
            self.until_it_answers().await,
            "something else has taken port {}:\n{}",
            self.port,
            self.log()
        );
    }

    /// Any command; fails the test where the server refuses it.
    pub fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Any command.
    pub fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection()?)
    }

    /// A connection of the tests' own.
    pub fn connection(&self) -> RedisResult<redis::Connection> {
        let url =
            if self.options.users.is_empty() { self.url() } else { self.url_as(OBSERVER.0, OBSERVER.1) };
        let connection = redis::Client::open(url)?.get_connection_with_timeout(COMMAND_TIMEOUT)?;
        connection.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        connection.set_write_timeout(Some(COMMAND_TIMEOUT))?;
        Ok(connection)
    }

    /// A field of `INFO`; empty where there is none.
    pub fn info(&self, field: &str) -> String {
        let text: String = self.try_command(&["INFO", "everything"]).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// Changes how many bytes it may hold.
    pub fn set_maxmemory(&self, bytes: u64) {
        self.command::<()>(&["CONFIG", "SET", "maxmemory", &bytes.to_string()]);
    }

    /// Empties it.
    pub fn flush_all(&self) {
        self.command::<()>(&["FLUSHALL"]);
    }

    /// Makes it a replica, which takes no more writes, and waits until it has the other's copy.
    pub async fn make_replica_of(&self, master: &Redis) {
        self.command::<()>(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
        self.until_linked().await;
    }

    /// Makes it a master again, with what it holds.
    pub fn promote(&self) {
        self.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    }

    /// Waits until a replica has its master's copy.
    pub async fn until_linked(&self) {
        until("the replica is linked", async || self.info("master_link_status") == "up").await;
    }

    /// The names of all keys, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut connection = self.connection().unwrap();
        let mut keys = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let reply = connection.req_command(redis::cmd("SCAN").arg(&cursor).arg("COUNT").arg(1000));
            let (next, page): (String, Vec<String>) = redis::from_redis_value(reply.unwrap()).unwrap();
            keys.extend(page);
            if next == "0" {
                keys.sort();
                keys.dedup();
                return keys;
            }
            cursor = next;
        }
    }
}

/// A text as it stands in a URL (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The server's program.
pub fn program() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}
