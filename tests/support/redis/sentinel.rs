//! A master with replicas, and three Sentinels that watch over it.

use std::fs;
use std::time::Duration;

use redis::{FromRedisValue, RedisResult};
use tempfile::TempDir;

use super::{Process, Redis, RedisOptions, free_port, program, until};

/// The name under which the Sentinels know the master.
pub const MASTER_NAME: &str = "cache";

/// How long a master is silent before a Sentinel takes it for dead.
const DOWN_AFTER: Duration = Duration::from_millis(500);

/// The Sentinels and what they watch over.
#[derive(Debug)]
pub struct Sentinels {
    /// The first is the master at the start.
    pub servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Sentinels {
    /// Starts a master with this many replicas and three Sentinels, and returns when they know each other.
    pub async fn start(replicas: usize) -> Self {
        let mut servers = vec![RedisOptions::default().start().await];
        for _ in 0..replicas {
            servers.push(RedisOptions::default().replica_of(&servers[0]).start().await);
        }
        for replica in &servers[1..] {
            replica.until_linked().await;
        }
        let sentinels = (0..3).map(|_| Sentinel::start(servers[0].port())).collect();
        let all = Self { servers, sentinels };
        until("the Sentinels know each other and the replicas", async || all.are_ready(replicas)).await;
        all
    }

    /// `redis+sentinel://…` of all three.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+sentinel://{}/{MASTER_NAME}", hosts.join(","))
    }

    /// Which of the servers the Sentinels name as the master; `None` while they disagree.
    pub fn master(&self) -> Option<usize> {
        let mut ports: Vec<_> = self.sentinels.iter().map(Sentinel::master_port).collect();
        ports.dedup();
        let [Some(port)] = ports[..] else { return None };
        self.servers.iter().position(|server| server.port() == port)
    }

    /// Waits until all Sentinels name another master than this, and it takes writes; which it is.
    pub async fn until_failed_over(&self, from: usize) -> usize {
        let replaced = || self.master().filter(|master| *master != from && self.is_master(*master));
        until("the Sentinels fail over", async || replaced().is_some()).await;
        replaced().expect("a master stays one")
    }

    /// Whether this server takes itself for the master.
    pub fn is_master(&self, server: usize) -> bool {
        self.servers[server].info("role") == "master"
    }

    fn are_ready(&self, replicas: usize) -> bool {
        self.sentinels.iter().all(|sentinel| {
            sentinel.field("num-other-sentinels") == "2"
                && sentinel.field("num-slaves") == replicas.to_string()
                && sentinel.command::<String>(&["SENTINEL", "CKQUORUM", MASTER_NAME]).is_ok()
        })
    }
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let down_after = DOWN_AFTER.as_millis();
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor {MASTER_NAME} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER_NAME} {down_after}\n\
             sentinel failover-timeout {MASTER_NAME} 5000\n",
            folder.path().display()
        );
        fs::write(&file, text).unwrap();
        let arguments = [file.display().to_string(), "--sentinel".to_owned()];
        let process = Process::start(&program(), &arguments, &folder.path().join("sentinel.log"));
        Self { port, _process: process, _folder: folder }
    }

    fn command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(super::COMMAND_TIMEOUT)?;
        connection.set_read_timeout(Some(super::COMMAND_TIMEOUT))?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection)
    }

    fn master_port(&self) -> Option<u16> {
        let address: Vec<String> =
            self.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]).ok()?;
        address.get(1)?.parse().ok()
    }

    /// A field of what it says of the master; empty where there is none.
    fn field(&self, name: &str) -> String {
        let fields: Vec<String> = self.command(&["SENTINEL", "MASTER", MASTER_NAME]).unwrap_or_default();
        let found = fields.chunks(2).find(|pair| pair[0] == name);
        found.and_then(|pair| pair.get(1)).cloned().unwrap_or_default()
    }
}
