//! What is written to Redis, behind requests: in lanes, so that writes of one scope keep their order, each with a
//! bounded queue whose overflow is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::super::entry::{Entry, EntryId, Key, Partition, Placed};
use super::super::evidence::Observation;
use super::super::milliseconds;
use super::super::transfer::Home;
use super::core::Core;
use super::link::LinkError;
use super::names::{Names, Tag};
use super::record::MOST_EVIDENCE_BYTES;
use super::scripts::Call;

/// Lanes; each writes one thing at a time.
const LANES: usize = 8;

/// Writes that may wait in a lane.
const QUEUE: usize = 512;

/// How long a write waits for Redis to come back before it is dropped: what comes later could bring back what a
/// person removed meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a write waits before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// See [`Lanes::flush_briefly`].
const BRIEFLY: Duration = Duration::from_secs(1);

/// One in so many writes to an index looks at its oldest members for entries that are gone.
const TIDY_ONE_IN: u8 = 8;

/// How many it looks at.
const TIDY_OLDEST: usize = 16;

/// Members looked at for each one to be given up, to find those of least use.
const SAMPLES: usize = 5;

/// The newest part of an index that is spared: one in so many.
const SPARED: u64 = 8;

/// The most that one write takes out of an index that has grown over its bound.
const MOST_TRIMMED: u64 = 64;

/// How long hits are counted before the count begins anew.
const HITS_KEPT: Duration = Duration::from_hours(24);

/// Something to write.
pub(super) enum Write {
    /// An entry, with its embedding where that is known.
    Put(Arc<Entry>, Option<Placed>),
    /// An embedding of an entry.
    Place(Arc<Entry>, Placed),
    /// Upstream accepted credentials at this time (milliseconds since the Unix epoch), for so long; or refused.
    Credential([u8; 32], Option<(u64, Duration)>),
    /// An observation of the entry of this key and time.
    Evidence(Key, SystemTime, Observation),
    /// Hits of a scope's entries.
    Hits(Tag, Vec<(EntryId, u64)>),
    /// Nothing: tells when all before it is written.
    Barrier(oneshot::Sender<()>),
}

/// The ends of the lanes.
pub(super) struct Lanes {
    queues: Vec<mpsc::Sender<Job>>,
    bytes: Arc<AtomicU64>,
    most_bytes: u64,
    /// By which what somebody waits for is written at once.
    direct: Lane,
}

struct Job {
    write: Write,
    since: Instant,
    bytes: u64,
}

impl Lanes {
    /// Starts the lanes; they end with their senders. At most so many bytes of entries wait, and an index is
    /// held to so many entries.
    pub(super) fn start(core: &Arc<Core>, most_bytes: u64, most_entries: u64) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let lane = || Lane { core: Arc::clone(core), bytes: Arc::clone(&bytes), most_entries };
        let queue = |_| {
            let (sender, jobs) = mpsc::channel(QUEUE);
            tokio::spawn(lane().run(jobs));
            sender
        };
        let queues = (0..LANES).map(queue).collect();
        let direct = lane();
        Self { queues, bytes, most_bytes, direct }
    }

    /// Queues a write of a scope; `false` where it was dropped.
    pub(super) fn send(&self, tag: u8, write: Write) -> bool {
        let bytes = match &write {
            Write::Put(entry, _) => super::super::memory::weight(entry),
            Write::Place(entry, placed) => {
                let embedding = size_of_val(placed.embedding.values());
                super::super::memory::weight(entry) + u64::try_from(embedding).unwrap_or(u64::MAX)
            }
            Write::Credential(..) | Write::Evidence(..) | Write::Hits(..) | Write::Barrier(_) => 64,
        };
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let job = Job { write, since: Instant::now(), bytes };
        let lane = self.queues.get(usize::from(tag) % LANES);
        let sent = waiting <= self.most_bytes && lane.is_some_and(|lane| lane.try_send(job).is_ok());
        if !sent {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }

    /// Writes an entry that lives for so long, past the queues; `false` where a newer one is there.
    pub(super) async fn write(
        &self,
        entry: &Entry,
        life: Duration,
        home: Option<&Home>,
    ) -> Result<bool, LinkError> {
        let core = &self.direct.core;
        let embedding = home.and_then(|home| {
            let model = home.model.as_deref().unwrap_or(&core.model);
            let record = core.seal().embedding_of(entry, &home.partition, &home.embedding.0, model)?;
            Some((home.partition, record))
        });
        self.direct.write_entry(entry, life, embedding).await
    }

    /// The largest entry that is taken.
    pub(super) fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    /// [`Lanes::flush`], for at most as long as a person likes to wait.
    pub(super) async fn flush_briefly(&self) {
        // What is not written by then comes after whatever is to follow.
        let _ = tokio::time::timeout(BRIEFLY, self.flush()).await;
    }

    /// Waits until all that was queued is written or given up.
    pub(super) async fn flush(&self) {
        let mut waiting = Vec::with_capacity(LANES);
        for lane in &self.queues {
            let (done, wait) = oneshot::channel();
            let job = Job { write: Write::Barrier(done), since: Instant::now(), bytes: 0 };
            if lane.send(job).await.is_ok() {
                waiting.push(wait);
            }
        }
        for wait in waiting {
            // An error means that the lane ended, and with it all that it had.
            let _ = wait.await;
        }
    }
}

struct Lane {
    core: Arc<Core>,
    bytes: Arc<AtomicU64>,
    most_entries: u64,
}

impl Lane {
    async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(Job { write, since, bytes }) = jobs.recv().await {
            if let Write::Barrier(done) = write {
                let _ = done.send(());
                continue;
            }
            self.write(&write, since).await;
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Writes, again when the connection is back where it was lost meanwhile: a repetition does no harm (hits may
    /// count twice).
    async fn write(&self, write: &Write, since: Instant) {
        let mut epochs = self.core.link.epoch();
        loop {
            let patience = PATIENCE.saturating_sub(since.elapsed());
            let up = tokio::time::timeout(patience, async { epochs.wait_for(Option::is_some).await.is_ok() });
            if !up.await.unwrap_or(false) {
                self.core.dropped.fetch_add(1, Ordering::Relaxed);
                return self.give_up(write);
            }
            match self.once(write).await {
                Ok(()) => return,
                // The connection may be up and still nobody answer for this key: one master of a cluster is gone.
                Err(LinkError::Unavailable(_)) if since.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    self.core.failed.fetch_add(1, Ordering::Relaxed);
                    debug!(%error, "a write to Redis failed");
                    return self.give_up(write);
                }
            }
        }
    }

    /// What Redis does not have must not be served from this process for long: nobody would tell it of a purge.
    fn give_up(&self, write: &Write) {
        if let Write::Put(entry, placed) = write {
            self.core.forget(&entry.key.id(), placed.as_ref().map(|placed| &placed.partition));
        }
    }

    async fn once(&self, write: &Write) -> Result<(), LinkError> {
        match write {
            Write::Put(entry, placed) => self.put(entry, placed.as_ref()).await,
            Write::Place(entry, placed) => self.place(entry, placed).await,
            Write::Credential(credential, accepted) => self.credential(credential, *accepted).await,
            Write::Evidence(key, created_at, observation) => {
                self.evidence(key, *created_at, *observation).await
            }
            Write::Hits(tag, hits) => self.hits(*tag, hits).await,
            Write::Barrier(_) => Ok(()),
        }
    }

    async fn put(&self, entry: &Entry, placed: Option<&Placed>) -> Result<(), LinkError> {
        let core = &self.core;
        let embedding = placed
            .and_then(|placed| Some((placed.partition, core.seal().embedding(entry, placed, &core.model)?)));
        self.write_entry(entry, entry.ttl, embedding).await.map(drop)
    }

    /// Writes an entry, unless a newer one is there, or one of a key that is not here: `false`.
    async fn write_entry(
        &self,
        entry: &Entry,
        life: Duration,
        embedding: Option<(Partition, Vec<u8>)>,
    ) -> Result<bool, LinkError> {
        let core = &self.core;
        let id = entry.key.id();
        let seal = core.seal();
        let index = Index::of(embedding.as_ref().map(|(partition, _)| *partition), id.tag());
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs() / 2);
        let mut call = Call::default()
            .key(core.names.entry(&id))
            .key(core.names.hits(id.tag()))
            .key(index.name(&core.names))
            .argument(id.0)
            .argument(life.to_string())
            .argument(fastrand::u8(..).to_string())
            .argument(embedding.map(|(_, embedding)| embedding).unwrap_or_default())
            .argument(milliseconds(entry.created_at).to_string());
        if let Index::Of(_) = index {
            call = call.key(core.names.unplaced(id.tag()));
        }
        let Some(fields) = seal.write(entry) else {
            debug!("an entry was not sealed for want of random bytes; it is not written");
            return Ok(false);
        };
        call = call.argument(seal.encryption().ids());
        for (field, value) in fields {
            call = call.argument(field).argument(value);
        }
        let (count, version): (u64, u64) = core.link.run(&core.scripts.put, &call).await?;
        self.indexed(&index, &id, (count, version)).await?;
        Ok(count > 0)
    }

    async fn place(&self, entry: &Entry, placed: &Placed) -> Result<(), LinkError> {
        let core = &self.core;
        let id = entry.key.id();
        let Some(embedding) = core.seal().embedding(entry, placed, &core.model) else { return Ok(()) };
        let call = Call::default()
            .key(core.names.entry(&id))
            .key(core.names.index(&placed.partition))
            .key(core.names.unplaced(id.tag()))
            .argument(id.0)
            .argument(milliseconds(entry.created_at).to_string())
            .argument(fastrand::u8(..).to_string())
            .argument(embedding);
        let indexed = core.link.run(&core.scripts.place, &call).await?;
        self.indexed(&Index::Of(placed.partition), &id, indexed).await
    }

    /// After an entry came into an index: notes its version, and keeps the index tidy and within its bound.
    async fn indexed(
        &self,
        index: &Index,
        id: &EntryId,
        (count, version): (u64, u64),
    ) -> Result<(), LinkError> {
        let core = &self.core;
        if let Index::Of(partition) = index
            && let Some(loaded) = core.partitions.get(partition)
        {
            loaded.confirm(id, version);
        }
        if count > self.most_entries {
            self.trim(index, id.tag(), count).await?;
        } else if fastrand::u8(..TIDY_ONE_IN) == 0 {
            let name = index.name(&core.names);
            let mut oldest = redis::cmd("ZRANGEBYSCORE");
            oldest.arg(&name).arg("-inf").arg("+inf").arg("LIMIT").arg(0).arg(TIDY_OLDEST);
            let oldest: Vec<Vec<u8>> = core.link.ask(&oldest).await?;
            core.tidy(&name, index.partition(), &ids(oldest)).await?;
        }
        Ok(())
    }

    /// Brings an index of `count` that is over its bound nearer to it.
    async fn trim(&self, index: &Index, tag: Tag, count: u64) -> Result<(), LinkError> {
        let core = &self.core;
        let name = index.name(&core.names);
        let least = self.least_useful(&name, tag, count).await?;
        if least.is_empty() {
            return Ok(());
        }
        let mut removal = redis::Pipeline::new();
        for id in &least {
            removal.cmd("UNLINK").arg(core.names.entry(id));
            removal.cmd("ZREM").arg(&name).arg(id.0.as_slice());
            removal.cmd("HDEL").arg(core.names.hits(tag)).arg(id.0.as_slice());
        }
        core.link.ask_all(&removal).await?;
        for id in &least {
            core.forget(id, index.partition());
        }
        Ok(())
    }

    /// Of a sample of an index without its newest part those with the fewest hits, of equals the oldest: as many
    /// as it is over its bound.
    async fn least_useful(&self, name: &str, tag: Tag, count: u64) -> Result<Vec<EntryId>, LinkError> {
        let core = &self.core;
        let over = usize::try_from((count - self.most_entries).min(MOST_TRIMMED)).unwrap_or(1);
        let mut newest = redis::cmd("ZREVRANGE");
        newest.arg(name).arg(count / SPARED).arg(count / SPARED).arg("WITHSCORES");
        let newest: Vec<(Vec<u8>, f64)> = core.link.ask(&newest).await?;
        let mut sample = redis::cmd("ZRANDMEMBER");
        sample.arg(name).arg(over * SAMPLES);
        let sample = ids(core.link.ask(&sample).await?);
        if sample.is_empty() {
            return Ok(Vec::new());
        }
        let members: Vec<&[u8]> = sample.iter().map(|id| id.0.as_slice()).collect();
        let mut hits = redis::cmd("HMGET");
        hits.arg(core.names.hits(tag)).arg(&members);
        let mut versions = redis::cmd("ZMSCORE");
        versions.arg(name).arg(&members);
        let hits: Vec<Option<u64>> = core.link.ask(&hits).await?;
        let versions: Vec<Option<f64>> = core.link.ask(&versions).await?;
        let spared = newest.first().map_or(f64::INFINITY, |(_, version)| *version);
        let mut ranked: Vec<_> = sample
            .into_iter()
            .zip(hits)
            .zip(versions)
            .map(|((id, hits), version)| (id, hits.unwrap_or(0), version.unwrap_or_default()))
            .filter(|(_, _, version)| *version < spared)
            .collect();
        ranked.sort_by(|(_, hits, version), (_, other_hits, other_version)| {
            hits.cmp(other_hits).then(version.total_cmp(other_version))
        });
        Ok(ranked.into_iter().take(over).map(|(id, ..)| id).collect())
    }

    async fn credential(
        &self,
        credential: &[u8; 32],
        accepted: Option<(u64, Duration)>,
    ) -> Result<(), LinkError> {
        let mut cmd = redis::cmd(if accepted.is_some() { "SET" } else { "UNLINK" });
        cmd.arg(self.core.names.credential(credential));
        if let Some((at, lifetime)) = accepted {
            let life = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1);
            cmd.arg(at).arg("PX").arg(life);
        }
        self.core.link.ask::<redis::Value>(&cmd).await.map(drop)
    }

    async fn evidence(
        &self,
        key: &Key,
        created_at: SystemTime,
        observation: Observation,
    ) -> Result<(), LinkError> {
        let core = &self.core;
        let call = Call::default()
            .key(core.names.entry(&key.id()))
            .argument(milliseconds(created_at).to_string())
            .argument(core.seal().observation(key, created_at, observation))
            .argument(MOST_EVIDENCE_BYTES.to_string());
        core.link.run::<i64>(&core.scripts.observe, &call).await.map(drop)
    }

    async fn hits(&self, tag: Tag, hits: &[(EntryId, u64)]) -> Result<(), LinkError> {
        let kept = HITS_KEPT.as_millis().to_string();
        let mut call = Call::default().key(self.core.names.hits(tag)).argument(kept);
        for (id, count) in hits {
            call = call.argument(id.0).argument(count.to_string());
        }
        self.core.link.run::<i64>(&self.core.scripts.hits, &call).await.map(drop)
    }
}

/// The index that an entry is in: every entry is in one, so that all are counted.
enum Index {
    /// A partition's.
    Of(Partition),
    /// That of a scope's entries without an embedding.
    Unplaced(Tag),
}

impl Index {
    fn of(partition: Option<Partition>, tag: Tag) -> Self {
        partition.map_or(Self::Unplaced(tag), Self::Of)
    }

    fn name(&self, names: &Names) -> String {
        match self {
            Self::Of(partition) => names.index(partition),
            Self::Unplaced(tag) => names.unplaced(*tag),
        }
    }

    fn partition(&self) -> Option<&Partition> {
        match self {
            Self::Of(partition) => Some(partition),
            Self::Unplaced(_) => None,
        }
    }
}

fn ids(members: Vec<Vec<u8>>) -> Vec<EntryId> {
    members.into_iter().filter_map(|member| member.as_slice().try_into().ok().map(EntryId)).collect()
}
