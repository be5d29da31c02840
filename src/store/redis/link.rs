//! The connection to Redis over time: made, watched, given up, made again; and every command's limit of time.
//!
//! A circuit breaker by construction: after [`FAILURES`] commands in a row that failed for want of an answer the
//! connection is given up, and until a new one has been made (with back-off and jitter, so that replicas do not
//! come back all at once) every command fails at once. The handshake of the new connection is the trial.
//!
//! In a cluster one master that does not answer must not take the others' keys along: there each range of slots has a
//! breaker of its own, and while one is open the cluster is asked anew who serves which slots.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redis::aio::ConnectionLike;
use redis::{Cmd, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::super::{StoreError, StoreState};
use super::dial::{Connection, Dialler, timed_out};
use super::scripts::{Call, Script};
use crate::breaker::{Breaker, BreakerSettings, Permit};
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};

/// Commands in a row without an answer after which the connection is given up.
const FAILURES: u32 = 3;

/// Slots of a cluster, and the ranges of them that have a breaker each.
const SLOTS: u16 = 16_384;
const RANGES: usize = 16;

/// How many times as long as one for which somebody waits an answer may take for which nobody does.
const PATIENCE: u32 = 20;

/// How often the connection is tried out, so that an idle one that died is noticed.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How long after the first failed try to connect the next comes; each doubles that.
const BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// A handle on the connection.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    dialler: Dialler,
    command_timeout: Duration,
    current: RwLock<Option<Current>>,
    /// Counts connections made; a new one means that anything may have happened to what Redis holds.
    epoch: watch::Sender<Option<u64>>,
    failures: AtomicU32,
    give_up: Notify,
    /// One for each range of a cluster's slots; none otherwise.
    ranges: Vec<Breaker>,
    /// A range of slots does not answer: the cluster may have another master for it.
    stale: AtomicBool,
    /// What is wrong, for people.
    trouble: Mutex<Option<String>>,
    outages: AtomicU64,
    unanswered: AtomicU64,
}

#[derive(Clone)]
struct Current {
    connection: Connection,
    /// Shared, since every command takes a copy of this.
    server: Option<Arc<ConnectionInfo>>,
    epoch: u64,
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// Redis cannot be reached, or did not answer in time.
    #[error("{0}")]
    Unavailable(String),
    /// Redis answered with an error.
    #[error("{}", shown(.0))]
    Refused(RedisError),
}

impl From<LinkError> for StoreError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Unavailable(reason) => Self::Unavailable(reason),
            LinkError::Refused(error) => Self::Refused(shown(&error)),
        }
    }
}

impl LinkError {
    /// Whether the key holds a value of another type than the command is for.
    pub(super) fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some("WRONGTYPE"))
    }

    /// Whether the server does not know a script by its digest.
    pub(super) fn is_unknown_script(&self) -> bool {
        matches!(self, Self::Refused(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
    }
}

impl Link {
    /// A link that is down until [`Link::keep`] runs.
    pub(super) fn new(dialler: Dialler, command_timeout: Duration) -> Self {
        let ranges = if dialler.is_cluster() { RANGES } else { 0 };
        Self(Arc::new(Shared {
            dialler,
            ranges: (0..ranges).map(|_| Breaker::new(range_settings())).collect(),
            stale: AtomicBool::new(false),
            command_timeout,
            current: RwLock::new(None),
            epoch: watch::Sender::new(None),
            failures: AtomicU32::new(0),
            give_up: Notify::new(),
            trouble: Mutex::new(Some("no connection yet".to_owned())),
            outages: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        }))
    }

    pub(super) fn dialler(&self) -> &Dialler {
        &self.0.dialler
    }

    /// Which connection is in force; `None` while there is none.
    pub(super) fn epoch(&self) -> watch::Receiver<Option<u64>> {
        self.0.epoch.subscribe()
    }

    /// Whether commands are taken.
    pub(super) fn is_up(&self) -> bool {
        self.0.current.read().is_some()
    }

    /// The server that the connection leads to, where it is one.
    pub(super) fn server(&self) -> Option<ConnectionInfo> {
        let server = self.0.current.read().as_ref()?.server.clone();
        server.map(Arc::unwrap_or_clone)
    }

    /// How the store does, as far as the connection knows.
    pub(super) fn state(&self) -> StoreState {
        match &*self.0.trouble.lock() {
            None => StoreState::Ok,
            Some(reason) => StoreState::Degraded(reason.clone()),
        }
    }

    /// Times that the connection was given up.
    pub(super) fn outages(&self) -> u64 {
        self.0.outages.load(Ordering::Relaxed)
    }

    /// Commands without an answer.
    pub(super) fn unanswered(&self) -> u64 {
        self.0.unanswered.load(Ordering::Relaxed)
    }

    /// Asks Redis one thing.
    pub(super) async fn ask<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, LinkError> {
        let mut current = self.current()?;
        let range = self.admit(cmd)?;
        let answer =
            tokio::time::timeout(self.0.command_timeout, cmd.query_async(&mut current.connection)).await;
        self.judge(answer.unwrap_or_else(|_| Err(timed_out())), current.epoch, range)
    }

    /// Asks Redis several things of one slot in one round trip. An answer may be an error of its own
    /// ([`Value::ServerError`]).
    pub(super) async fn ask_all(&self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let mut current = self.current()?;
        let Some(first) = pipeline.cmd_iter().next() else { return Ok(Vec::new()) };
        let range = self.admit(first)?;
        let asked = current.connection.req_packed_commands(pipeline, 0, pipeline.len());
        let answer = tokio::time::timeout(self.0.command_timeout, asked).await;
        self.judge(answer.unwrap_or_else(|_| Err(timed_out())), current.epoch, range)
    }

    /// As [`Link::ask_all`], for what nobody waits for: an answer may take [`Link::patience`], and a late one says
    /// nothing of the connection.
    pub(super) async fn ask_all_patiently(&self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let mut current = self.current()?;
        let asked = current.connection.req_packed_commands(pipeline, 0, pipeline.len());
        let answer = tokio::time::timeout(self.patience(), asked).await;
        self.judge_node(answer.unwrap_or_else(|_| Err(timed_out())), current.epoch)
    }

    /// How long an answer may take that nobody waits for.
    pub(super) fn patience(&self) -> Duration {
        self.0.command_timeout * PATIENCE
    }

    /// Leave to ask for a key of a cluster: `None` where there is no cluster, or the command has no key.
    fn admit(&self, cmd: &Cmd) -> Result<Option<Permit<'_>>, LinkError> {
        let Some(breaker) = self.range_of(cmd) else { return Ok(None) };
        let silent = || LinkError::Unavailable("the master of this key does not answer".to_owned());
        breaker.admit(Instant::now()).map(Some).ok_or_else(silent)
    }

    /// The range of slots of a command's key, which is the first argument with a tag.
    fn range_of(&self, cmd: &Cmd) -> Option<&Breaker> {
        if self.0.ranges.is_empty() {
            return None;
        }
        let tag = cmd.args_iter().find_map(|argument| match argument {
            redis::Arg::Simple(bytes) => {
                let (_, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == b'{')? + 1);
                Some(rest.split_at(rest.iter().position(|byte| *byte == b'}')?).0)
            }
            _ => None,
        })?;
        // Redis Cluster specification, "Key distribution model".
        let slot = usize::from(crc16::State::<crc16::XMODEM>::calculate(tag) % SLOTS);
        self.0.ranges.get(slot * self.0.ranges.len() / usize::from(SLOTS))
    }

    /// Runs a script: by its digest, and in full where the server has not met it yet.
    pub(super) async fn run<T: FromRedisValue>(&self, script: &Script, call: &Call) -> Result<T, LinkError> {
        match self.ask(&call.by_digest(script)).await {
            Err(error) if error.is_unknown_script() => self.ask(&call.in_full(script)).await,
            answer => answer,
        }
    }

    /// The connection itself, for what goes to each node; its answers want [`Link::judge`].
    pub(super) fn connection(&self) -> Result<(Connection, u64), LinkError> {
        self.current().map(|current| (current.connection, current.epoch))
    }

    /// What an answer for which nobody waited says: a late one nothing.
    pub(super) fn judge_node<T>(&self, answer: Result<T, RedisError>, epoch: u64) -> Result<T, LinkError> {
        match answer {
            Err(error) if matches!(Meaning::of(&error), Meaning::Silence) => {
                self.0.unanswered.fetch_add(1, Ordering::Relaxed);
                Err(LinkError::Unavailable(shown(&error)))
            }
            answer => self.judge(answer, epoch, None),
        }
    }

    /// What an answer says of the connection it came over, and of the range of slots it was asked of.
    fn judge<T>(
        &self,
        answer: Result<T, RedisError>,
        epoch: u64,
        range: Option<Permit<'_>>,
    ) -> Result<T, LinkError> {
        let error = match answer {
            Ok(value) => {
                self.0.failures.store(0, Ordering::Relaxed);
                if let Some(range) = range {
                    range.succeeded();
                }
                return Ok(value);
            }
            Err(error) => error,
        };
        match Meaning::of(&error) {
            Meaning::Answer => {
                self.0.failures.store(0, Ordering::Relaxed);
                if let Some(range) = range {
                    range.succeeded();
                }
                Err(LinkError::Refused(error))
            }
            // The server is there and refuses to write; another may be the master by now.
            Meaning::ReadOnly => {
                if self.0.dialler.can_fail_over() {
                    self.lose(epoch, &shown(&error));
                }
                Err(LinkError::Refused(error))
            }
            Meaning::Lost => {
                self.0.unanswered.fetch_add(1, Ordering::Relaxed);
                self.lose(epoch, &shown(&error));
                Err(LinkError::Unavailable(shown(&error)))
            }
            Meaning::Silence => {
                self.0.unanswered.fetch_add(1, Ordering::Relaxed);
                if let Some(range) = range {
                    range.failed(Instant::now());
                    self.0.stale.store(true, Ordering::Relaxed);
                } else if self.is_current(epoch)
                    && self.0.failures.fetch_add(1, Ordering::Relaxed) + 1 >= self.limit()
                {
                    let reason = format!("no answer to {} commands in a row", self.limit());
                    self.lose(epoch, &reason);
                }
                Err(LinkError::Unavailable(shown(&error)))
            }
        }
    }

    /// Commands in a row without an answer after which the connection is given up. In a cluster only the probes
    /// count, of which any may meet the one master that does not answer.
    fn limit(&self) -> u32 {
        if self.0.ranges.is_empty() { FAILURES } else { 2 * FAILURES }
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.0.current.read().as_ref().is_some_and(|current| current.epoch == epoch)
    }

    fn current(&self) -> Result<Current, LinkError> {
        self.0.current.read().clone().ok_or_else(|| {
            let trouble = self.0.trouble.lock().clone();
            LinkError::Unavailable(trouble.unwrap_or_else(|| "no connection".to_owned()))
        })
    }

    /// Gives a connection up, unless it has been already.
    fn lose(&self, epoch: u64, reason: &str) {
        {
            let mut current = self.0.current.write();
            if current.as_ref().is_none_or(|current| current.epoch != epoch) {
                return;
            }
            *current = None;
        }
        *self.0.trouble.lock() = Some(reason.to_owned());
        self.0.outages.fetch_add(1, Ordering::Relaxed);
        self.0.epoch.send_replace(None);
        self.0.give_up.notify_one();
        warn!(reason, "the connection to Redis is lost; requests go upstream until it is back");
    }

    /// Keeps a connection for as long as the store lives. `greet` prepares a new one before others may use it.
    pub(super) async fn keep(self, greet: impl AsyncFn(Connection) -> Result<(), RedisError>) {
        let mut wait = BACKOFF;
        let mut told = false;
        for epoch in 1.. {
            let dialled = match self.0.dialler.dial().await {
                Ok(dialled) => {
                    let limit = self.0.command_timeout.max(Duration::from_millis(100)) * 2;
                    let greeted = tokio::time::timeout(limit, greet(dialled.connection.clone())).await;
                    greeted.unwrap_or_else(|_| Err(timed_out())).map(|()| dialled)
                }
                Err(error) => Err(error),
            };
            match dialled {
                Ok(dialled) => {
                    told = false;
                    self.0.failures.store(0, Ordering::Relaxed);
                    let server = dialled.server.map(Arc::new);
                    let current = Current { connection: dialled.connection, server, epoch };
                    *self.0.current.write() = Some(current);
                    *self.0.trouble.lock() = None;
                    self.0.epoch.send_replace(Some(epoch));
                    info!(connection = epoch, "connected to Redis");
                    let since = Instant::now();
                    self.watch(epoch).await;
                    // One that was lost at once was none: the wait goes on growing.
                    if since.elapsed() > LONGEST_BACKOFF * 2 {
                        wait = BACKOFF;
                    }
                    // The first try comes soon, but not of all replicas in the same moment.
                    tokio::time::sleep(jittered(wait / 4)).await;
                    wait = (wait * 2).min(LONGEST_BACKOFF);
                }
                Err(error) => {
                    let reason = shown(&error);
                    *self.0.trouble.lock() = Some(format!("no connection: {reason}"));
                    // Tells those who wait for the first try.
                    self.0.epoch.send_replace(None);
                    if told {
                        debug!(reason, "still no connection to Redis");
                    } else {
                        warn!(reason, "{}", remedy(&error));
                        told = true;
                    }
                    tokio::time::sleep(jittered(wait)).await;
                    wait = (wait * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }

    /// Returns when the connection was given up. Tries it out meanwhile.
    async fn watch(&self, epoch: u64) {
        let by_sentinel = self.0.dialler.can_fail_over() && !self.0.dialler.is_cluster();
        let probe = redis::cmd(if by_sentinel { "ROLE" } else { "PING" });
        loop {
            tokio::select! {
                () = self.0.give_up.notified() => {}
                () = tokio::time::sleep(jittered(HEARTBEAT)) => {}
            }
            if self.0.current.read().as_ref().is_none_or(|current| current.epoch != epoch) {
                return;
            }
            if self.0.stale.swap(false, Ordering::Relaxed) {
                self.renew(epoch).await;
            }
            let answer = self.probe(&probe).await;
            if let Ok(Value::Array(role)) = &answer
                && role.first().is_some_and(|role| *role != Value::BulkString(b"master".to_vec()))
            {
                self.lose(epoch, "the server is no longer the master");
            }
        }
    }
}

impl Link {
    /// Tries the connection out: a cluster's at any of its masters.
    async fn probe(&self, probe: &Cmd) -> Result<Value, LinkError> {
        let mut current = self.current()?;
        let Connection::Cluster(cluster) = &mut current.connection else { return self.ask(probe).await };
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
        let asked = cluster.route_command(probe.clone(), route);
        let answer = tokio::time::timeout(self.0.command_timeout, asked).await;
        self.judge(answer.unwrap_or_else(|_| Err(timed_out())), current.epoch, None)
    }

    /// Asks the cluster anew who serves which slots, by a connection that takes the place of the one in force: the
    /// client itself asks only when it is told that slots moved, which a master that does not answer cannot.
    async fn renew(&self, epoch: u64) {
        match self.0.dialler.dial().await {
            Ok(dialled) => {
                let mut current = self.0.current.write();
                if let Some(current) = current.as_mut().filter(|current| current.epoch == epoch) {
                    current.connection = dialled.connection;
                }
            }
            Err(error) => debug!(reason = shown(&error), "the cluster was not asked anew"),
        }
    }
}

/// An error as people may see it: a server repeats in some what it was sent, and that may be a password or a prompt.
pub(super) fn shown(error: &RedisError) -> String {
    const HARMLESS: [&str; 10] = [
        "OOM",
        "READONLY",
        "NOPERM",
        "NOAUTH",
        "WRONGPASS",
        "LOADING",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "WRONGTYPE",
        "BUSY",
    ];
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) if HARMLESS.contains(&code) => format!("{code}: {detail}"),
        (Some(code), _) => format!("{code}: {}", error.category()),
        (None, _) if error.is_io_error() => error.to_string(),
        (None, _) => error.category().to_owned(),
    }
}

fn range_settings() -> BreakerSettings {
    BreakerSettings {
        failures: const { NonZeroU32::new(FAILURES).unwrap() },
        backoff: Duration::from_millis(250),
        longest_backoff: LONGEST_BACKOFF,
    }
}

/// What an error says of the connection.
enum Meaning {
    /// The server is well and refused this command.
    Answer,
    /// The server takes no writes.
    ReadOnly,
    /// The connection is gone.
    Lost,
    /// No answer came, or none that tells anything of what was asked.
    Silence,
}

impl Meaning {
    fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::ReadOnly,
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask,
            )
            | ErrorKind::ClusterConnectionNotFound => Self::Silence,
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => Self::Answer,
            ErrorKind::Io if error.is_timeout() => Self::Silence,
            // What follows bytes that make no sense belongs to nobody.
            _ => Self::Lost,
        }
    }
}

fn remedy(error: &RedisError) -> &'static str {
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            "Redis refuses the user name or password (--redis-url, REJOINDER_REDIS_PASSWORD); requests go upstream"
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            "the Redis user lacks a right (the list is in the README); requests go upstream"
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
            "this Redis is a node of a cluster: give redis+cluster:// in --redis-url; requests go upstream"
        }
        ErrorKind::MasterNameNotFoundBySentinel => {
            "the sentinels know no such master (the name after the hosts in --redis-url); requests go upstream"
        }
        _ => "no connection to Redis; requests go upstream, and it is tried again",
    }
}

/// Between a half and one and a half of a wait.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64())
}
