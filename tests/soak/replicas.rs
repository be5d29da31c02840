//! Three replicas over one Redis: the program itself, each with a file of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::Ask;
use crate::support::client::Connection;
use crate::support::redis::{Process, free_port, until};

/// How many there are.
pub const REPLICAS: usize = 3;

/// The one that is killed; the others live throughout, so that what they take can be compared.
pub const MORTAL: usize = 2;

/// A replica, running or not.
pub struct Replica {
    pub address: SocketAddr,
    admin: SocketAddr,
    settings: String,
    folder: TempDir,
    process: Mutex<Option<Process>>,
    /// When it was away; the last may still be.
    away: Mutex<Vec<(Instant, Option<Instant>)>>,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Resident memory, in bytes.
    pub memory: u64,
    pub descriptors: usize,
}

/// What stands in the file by default, and what a reload puts there.
pub const TTL: &str = "20s";
pub const OTHER_TTL: &str = "25s";

impl Replica {
    /// Starts one, with these settings besides its own addresses; returns when it serves.
    pub async fn start(settings: String) -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let replica = Self {
            address: local(free_port()),
            admin: local(free_port()),
            settings,
            folder: tempfile::tempdir().unwrap(),
            process: Mutex::default(),
            away: Mutex::default(),
        };
        replica.write(TTL, "");
        replica.launch().await;
        replica
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("rejoinder.toml")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Writes its file; `more` goes to the top.
    pub fn write(&self, ttl: &str, more: &str) {
        let Self { address, admin, settings, .. } = self;
        let text = format!(
            "{more}\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\nttl = \"{ttl}\"\n{settings}"
        );
        std::fs::write(self.file(), text).unwrap();
    }

    async fn launch(&self) {
        // Nothing of the developer's own settings.
        let path = std::env::var("PATH").unwrap_or_default();
        let file = self.file().display().to_string();
        let words =
            ["-i", &format!("PATH={path}"), env!("CARGO_BIN_EXE_rejoinder"), "serve", "--config", &file];
        let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        let process = Process::start("env", &words, &self.folder.path().join("log"));
        *self.process.lock() = Some(process);
        until(&format!("the replica serves; it says {}", self.log()), async || {
            Connection::open(self.address).await.is_ok()
        })
        .await;
    }

    /// Kills it (`SIGKILL`).
    pub fn kill(&self) {
        self.away.lock().push((Instant::now(), None));
        let process = self.process.lock().take();
        drop(process);
    }

    /// Starts it again.
    pub async fn start_again(&self) {
        self.launch().await;
        if let Some((_, until)) = self.away.lock().last_mut() {
            *until = Some(Instant::now());
        }
    }

    /// Whether it was away at any moment from `since` to now.
    pub fn was_away(&self, since: Instant) -> bool {
        self.away.lock().iter().any(|(_, until)| until.is_none_or(|until| until >= since))
    }

    /// Whether it still runs, or was killed on purpose.
    pub fn has_ended_by_itself(&self) -> bool {
        let process = self.process.lock();
        process.as_ref().is_some_and(|process| held(process.id()).is_none() && cfg!(target_os = "linux"))
    }

    /// Has it read its file again (`SIGHUP`).
    pub fn reload(&self) {
        if let Some(process) = &*self.process.lock() {
            process.signal("HUP");
        }
    }

    /// What it says of its configuration.
    pub async fn configuration(&self) -> Value {
        Ask::get(&format!("http://{}/config", self.admin)).send().await.json()
    }

    /// How its store is.
    pub async fn store_state(&self) -> String {
        let reply = Ask::get(&format!("http://{}/readyz", self.admin)).send().await;
        reply.json()["store"].as_str().unwrap_or_default().to_owned()
    }

    /// What its process holds now; `None` where the system does not say (it is Linux that does).
    pub fn held(&self) -> Option<Held> {
        held(self.process.lock().as_ref()?.id())
    }
}

fn held(id: u32) -> Option<Held> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count();
    Some(Held { memory: kilobytes * 1024, descriptors })
}
