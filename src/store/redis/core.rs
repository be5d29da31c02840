//! What the parts of the store in Redis share: the connection, the names, the tiers in process, the counters;
//! and how an entry is read, and a partition kept the same as its index.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::RwLock;
use redis::Value;
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use super::super::StoreError;
use super::super::entry::{Entry, EntryId, Key, Partition};
use super::super::evidence::Evidence;
use super::super::index::Index;
use super::super::milliseconds;
use super::hot::Hot;
use super::link::{Link, LinkError};
use super::names::Names;
use super::partitions::{Listing, Loaded, News, Partitions, Version};
use super::record::{self, Damage, Digest, Row, Seal, Values};
use super::scripts::{Call, Scripts};

/// Members asked for at once where an index has news.
const NEWS: usize = 1024;

/// Members listed in one round trip. The first so many of a partition are waited for, the rest follows behind.
const PAGE: usize = 256;

/// Rows read in one round trip: few, since other requests' answers wait behind theirs.
const ROWS: usize = 64;

/// Partitions that are read behind requests at once, so that a replica that starts does not ask Redis for
/// everything in one moment.
const READERS: usize = 2;

/// Whole numbers from here on are not exact as scores: no script of ours gives one.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// A member of an index, and its version.
type Member = (EntryId, Version);

/// Whether a request waits.
#[derive(Debug, Clone, Copy)]
enum Haste {
    /// It does.
    Asked,
    /// Nobody does.
    Behind,
}

/// See the module.
pub(super) struct Core {
    pub(super) link: Link,
    pub(super) names: Names,
    pub(super) scripts: Scripts,
    pub(super) seal: RwLock<Seal>,
    pub(super) hot: Arc<Hot>,
    pub(super) index: Arc<Index>,
    pub(super) partitions: Partitions,
    pub(super) model: String,
    /// Members of indexes that were met and are gone, to be taken out behind requests.
    pub(super) gone: mpsc::Sender<(Partition, Vec<EntryId>)>,
    pub(super) damaged: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failed: AtomicU64,
    readers: Semaphore,
}

/// What a [`Core`] is made of besides what it makes itself.
pub(super) struct CoreParts {
    pub(super) link: Link,
    pub(super) names: Names,
    pub(super) seal: Seal,
    pub(super) hot: Arc<Hot>,
    pub(super) index: Arc<Index>,
    pub(super) index_bytes: u64,
    pub(super) model: String,
    pub(super) gone: mpsc::Sender<(Partition, Vec<EntryId>)>,
}

impl Core {
    pub(super) fn new(parts: CoreParts) -> Self {
        Self {
            link: parts.link,
            names: parts.names,
            scripts: Scripts::new(),
            seal: RwLock::new(parts.seal),
            hot: parts.hot,
            partitions: Partitions::new(Arc::clone(&parts.index), parts.index_bytes),
            index: parts.index,
            model: parts.model,
            gone: parts.gone,
            damaged: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            readers: Semaphore::new(READERS),
        }
    }

    /// The seal in force.
    pub(super) fn seal(&self) -> Seal {
        self.seal.read().clone()
    }

    /// An entry as Redis has it, in one round trip. What cannot be used is removed, counted, and none; what is
    /// encrypted under another's key is none, and stays.
    pub(super) async fn read(&self, id: &EntryId) -> Result<Option<Entry>, StoreError> {
        Ok(self.read_sealed(id).await?.map(|(entry, _)| entry))
    }

    /// As [`Core::read`], with its seal.
    async fn read_sealed(&self, id: &EntryId) -> Result<Option<(Entry, Option<Digest>)>, StoreError> {
        let name = self.names.entry(id);
        // Room for all of it at once: the fields' names are short.
        let mut cmd = redis::Cmd::with_capacity(2 + record::FIELDS.len(), name.len() + 80);
        cmd.arg("HMGET").arg(&name).arg(&record::FIELDS);
        let values = match self.link.ask::<Value>(&cmd).await {
            Ok(value) => values(value),
            Err(error) if error.is_wrong_type() => Err(Damage::Broken),
            Err(error) => return Err(error.into()),
        };
        let seal = values.as_ref().ok().and_then(record::seal_of);
        let damage = match values.and_then(|values| self.seal.read().read(values)) {
            Ok(Some(entry)) if entry.key.id() == *id => return Ok(Some((entry, seal))),
            Ok(None) | Err(Damage::Locked) => return Ok(None),
            Ok(Some(_)) => Damage::Broken,
            Err(damage) => damage,
        };
        self.discard(&name, &damage).await?;
        Ok(None)
    }

    /// The entry of a key, by the hot tier.
    pub(super) fn at_hand(&self, key: &Key) -> Option<Arc<Entry>> {
        self.hot.get(key, self.link.is_up())
    }

    /// The entry of a key, by the hot tier or Redis.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Arc<Entry>>, StoreError> {
        if let Some(entry) = self.at_hand(key) {
            return Ok(Some(entry));
        }
        let id = key.id();
        let ticket = self.hot.ticket(&id);
        if let Some((entry, seal)) = self.hot.sealed(key) {
            if self.is_sealed_with(&id, &seal).await? {
                self.hot.keep(ticket, &entry, Some(seal));
                return Ok(Some(entry));
            }
            self.hot.drop_sealed(&id, &seal);
        }
        // One of another key with the same id took its place, or its own does not come first to be seen.
        let Some((entry, seal)) = self.read_sealed(&id).await?.filter(|(entry, _)| entry.key == *key) else {
            return Ok(None);
        };
        let entry = Arc::new(entry);
        self.hot.keep(ticket, &entry, seal);
        Ok(Some(entry))
    }

    /// Whether Redis still has an entry as it was read: of the same seal. A few bytes tell it, however long its reply.
    async fn is_sealed_with(&self, id: &EntryId, seal: &Digest) -> Result<bool, StoreError> {
        let name = self.names.entry(id);
        let mut cmd = redis::Cmd::with_capacity(3, name.len() + 16);
        cmd.arg("HGET").arg(&name).arg("seal");
        match self.link.ask::<Value>(&cmd).await {
            Ok(value) => Ok(matches!(value, Value::BulkString(there) if there == seal)),
            // Another type of value: whoever reads the entry removes it.
            Err(error) if error.is_wrong_type() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What was observed of the entry of this key and time. What cannot be read of it is counted and left out; it
    /// goes with the entry.
    pub(super) async fn evidence(&self, key: &Key, created_at: SystemTime) -> Result<Evidence, StoreError> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.names.entry(&key.id())).arg("created_at").arg("evidence");
        let values = match self.link.ask::<Value>(&cmd).await {
            Ok(value) => values(value).unwrap_or_default(),
            // Another type of value: whoever reads the entry removes it.
            Err(error) if error.is_wrong_type() => Values::new(),
            Err(error) => return Err(error.into()),
        };
        let Ok([Some(moment), Some(field)]) = <[Option<Vec<u8>>; 2]>::try_from(values) else {
            return Ok(Evidence::default());
        };
        if record::number(&moment) != Some(milliseconds(created_at)) {
            return Ok(Evidence::default());
        }
        let (evidence, damaged) = self.seal.read().read_evidence(key, created_at, &field);
        if damaged {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            debug!("a part of an entry's evidence in Redis is of no use; it is left out");
        }
        Ok(evidence)
    }

    /// Marks the entry of this key and time as wrong; `false` where it is not there, or is marked already.
    pub(super) async fn poison(&self, key: &Key, created_at: SystemTime) -> Result<bool, StoreError> {
        let (id, created_at) = (key.id(), milliseconds(created_at));
        let Some(entry) = self.read(&id).await? else { return Ok(false) };
        if entry.key != *key || milliseconds(entry.created_at) != created_at || entry.poisoned {
            return Ok(false);
        }
        let mut call = Call::default().key(self.names.entry(&id)).argument(created_at.to_string());
        let seal = self.seal();
        let encrypted = seal.encryption().is_on();
        let fields = seal.write(&Entry { poisoned: true, ..entry });
        let unsealed = || StoreError::Unavailable("the system gave no random bytes".to_owned());
        for (field, value) in fields.ok_or_else(unsealed)? {
            // What is of any length stays as it is, unless it is sealed anew, and the entry's seal is over that.
            if encrypted || !matches!(field, "query" | "response") {
                call = call.argument(field).argument(value);
            }
        }
        let amended = self.link.run::<i64>(&self.scripts.amend, &call).await;
        // What became of it is not known after an error either.
        self.hot.forget(&id);
        Ok(amended? == 1)
    }

    /// Takes an entry out of this process.
    pub(super) fn forget(&self, id: &EntryId, partition: Option<&Partition>) {
        self.hot.forget(id);
        if let Some(loaded) = partition.and_then(|partition| self.partitions.get(partition)) {
            self.partitions.remove(&loaded, id);
        }
    }

    /// Removes what cannot be used.
    async fn discard(&self, name: &str, damage: &Damage) -> Result<(), StoreError> {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        debug!(%damage, "an entry in Redis is of no use; removing it");
        let mut cmd = redis::cmd("UNLINK");
        cmd.arg(name);
        self.link.ask::<Value>(&cmd).await?;
        Ok(())
    }

    /// Brings a partition up to date with Redis: whatever any replica stored before this was called is found by
    /// a search after it, in a large partition that is not read yet a little later.
    pub(super) async fn refresh(self: &Arc<Self>, partition: &Partition) -> Result<(), StoreError> {
        let loaded = self.partitions.open(partition);
        loop {
            let Some(since) = loaded.since() else {
                if self.list(&loaded).await? {
                    return Ok(());
                }
                // Another listed it, perhaps before what is asked for came in.
                continue;
            };
            let members = match self.members_since(partition, since).await {
                Ok(members) => members,
                Err(error) if error.is_wrong_type() => return self.drop_index(&loaded).await,
                Err(error) => return Err(error.into()),
            };
            match loaded.compare(since, &members) {
                News::Again => {}
                // So much is read sooner by a listing, the newest first and most of it behind the request.
                _ if members.len() == NEWS => loaded.distrust(),
                News::Lost => loaded.distrust(),
                News::Unknown(unknown) => {
                    if !unknown.is_empty() {
                        let _reading = loaded.reading.lock().await;
                        // Whoever read before us may have read the same.
                        let unknown = loaded.lacking(&unknown);
                        self.read_rows(&loaded, &unknown, Haste::Asked).await?;
                    }
                    loaded.note(&members);
                    return Ok(());
                }
            }
        }
    }

    /// Lists all members of an index, newest first, and reads those that are not in memory: the newest at once,
    /// the others behind the request. `false` where another had listed them meanwhile.
    async fn list(self: &Arc<Self>, loaded: &Arc<Loaded>) -> Result<bool, StoreError> {
        let reading = loaded.reading.lock().await;
        if loaded.since().is_some() {
            return Ok(false);
        }
        let newest = match self.members_below(&loaded.partition, None).await {
            Ok(newest) => newest,
            Err(error) if error.is_wrong_type() => {
                self.drop_index(loaded).await?;
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        };
        self.read_rows(loaded, &loaded.lacking(&newest), Haste::Asked).await?;
        let mut ascending = newest.clone();
        ascending.reverse();
        let mut listing = Listing {
            number: loaded.listed(&ascending),
            upto: newest.first().map_or(0, |(_, version)| *version),
            seen: newest.iter().map(|(id, _)| *id).collect(),
        };
        let Some((_, last)) = newest.last().copied().filter(|_| newest.len() == PAGE) else {
            self.partitions.keep_only(loaded, &listing);
            return Ok(true);
        };
        drop(reading);
        let (core, loaded) = (Arc::clone(self), Arc::clone(loaded));
        tokio::spawn(async move {
            if let Err(error) = core.list_rest(&loaded, last, &mut listing).await {
                debug!(%error, "a partition was not read whole; it is begun anew when it is asked for");
                loaded.distrust();
            }
        });
        Ok(true)
    }

    async fn list_rest(
        &self,
        loaded: &Loaded,
        mut last: Version,
        listing: &mut Listing,
    ) -> Result<(), StoreError> {
        // It is never closed.
        let _permit = self.readers.acquire().await.map_err(|_| StoreError::Closed)?;
        loop {
            let members = self.members_below(&loaded.partition, Some(last)).await?;
            self.read_rows(loaded, &loaded.lacking(&members), Haste::Behind).await?;
            listing.seen.extend(members.iter().map(|(id, _)| *id));
            match members.last() {
                Some((_, version)) if members.len() == PAGE => last = *version,
                _ => break,
            }
        }
        self.partitions.keep_only(loaded, listing);
        Ok(())
    }

    /// Reads entries of a partition and places them.
    async fn read_rows(&self, loaded: &Loaded, members: &[Member], haste: Haste) -> Result<(), StoreError> {
        for members in members.chunks(ROWS) {
            let mut pipeline = redis::Pipeline::with_capacity(members.len());
            for (id, _) in members {
                pipeline.cmd("HMGET").arg(self.names.entry(id)).arg(&record::ROW_FIELDS);
            }
            let answers = match haste {
                Haste::Asked => self.link.ask_all(&pipeline).await?,
                Haste::Behind => self.link.ask_all_patiently(&pipeline).await?,
            };
            let (mut gone, mut damaged) = (Vec::new(), redis::Pipeline::new());
            for ((id, version), answer) in members.iter().zip(answers) {
                match self.row(&loaded.partition, id, answer)? {
                    Ok(Some(row)) => _ = self.partitions.insert(loaded, *version, row),
                    Ok(None) => gone.push(*id),
                    // For those who have its key.
                    Err(Damage::Locked) => self.partitions.remove(loaded, id),
                    Err(damage) => {
                        debug!(%damage, "an entry in Redis is of no use; removing it");
                        damaged.cmd("UNLINK").arg(self.names.entry(id));
                        gone.push(*id);
                    }
                }
            }
            if !damaged.is_empty() {
                self.damaged.fetch_add(damaged.len() as u64, Ordering::Relaxed);
                self.link.ask_all(&damaged).await?;
            }
            for id in &gone {
                self.partitions.remove(loaded, id);
            }
            self.forget_members(loaded.partition, gone);
        }
        Ok(())
    }

    fn row(
        &self,
        partition: &Partition,
        id: &EntryId,
        answer: Value,
    ) -> Result<Result<Option<Row>, Damage>, StoreError> {
        if let Value::ServerError(error) = &answer
            && error.code() != "WRONGTYPE"
        {
            return Err(StoreError::Refused(error.code().to_owned()));
        }
        let row = values(answer).and_then(|values| self.seal.read().read_row(partition, values));
        Ok(match row {
            Ok(Some(row)) if row.entry.key.id() != *id => Err(Damage::Broken),
            row => row,
        })
    }

    /// Has members whose entries are gone taken out of their index, behind requests. Dropped where too much is
    /// waiting: they will be met again.
    pub(super) fn forget_members(&self, partition: Partition, ids: Vec<EntryId>) {
        if !ids.is_empty() {
            let _ = self.gone.try_send((partition, ids));
        }
    }

    /// Takes members out of an index whose entries are gone, or have no embedding any more, and only those.
    /// `partition` is that of the index, `None` for the entries without an embedding.
    pub(super) async fn tidy(
        &self,
        index: &str,
        partition: Option<&Partition>,
        ids: &[EntryId],
    ) -> Result<(), LinkError> {
        for ids in ids.chunks(ROWS) {
            let Some(first) = ids.first() else { continue };
            let mut call = Call::default()
                .key(index.to_owned())
                .key(self.names.hits(first.tag()))
                .argument(partition.map_or(&[][..], |partition| &partition.0));
            for id in ids {
                call = call.key(self.names.entry(id)).argument(id.0);
            }
            self.link.run::<i64>(&self.scripts.tidy, &call).await?;
        }
        Ok(())
    }

    /// An index that is none is removed; its entries are found by their keys alone.
    async fn drop_index(&self, loaded: &Loaded) -> Result<(), StoreError> {
        self.discard(&self.names.index(&loaded.partition), &Damage::Broken).await?;
        self.partitions.empty(loaded);
        Ok(())
    }

    /// The members of an index from a version on, oldest first.
    async fn members_since(&self, partition: &Partition, since: Version) -> Result<Vec<Member>, LinkError> {
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(self.names.index(partition)).arg(since).arg("+inf").arg("WITHSCORES");
        cmd.arg("LIMIT").arg(0).arg(NEWS);
        self.link.ask::<Value>(&cmd).await.map(members)
    }

    /// The newest members of an index below a version, newest first.
    async fn members_below(
        &self,
        partition: &Partition,
        below: Option<Version>,
    ) -> Result<Vec<Member>, LinkError> {
        let mut cmd = redis::cmd("ZREVRANGEBYSCORE");
        cmd.arg(self.names.index(partition));
        match below {
            Some(version) => cmd.arg(format!("({version}")),
            None => cmd.arg("+inf"),
        };
        cmd.arg("-inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(PAGE);
        self.link.ask::<Value>(&cmd).await.map(members)
    }
}

/// The values of a hash's fields.
pub(super) fn values(answer: Value) -> Result<Values, Damage> {
    let Value::Array(values) = answer else { return Err(Damage::Broken) };
    let value = |value| match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        _ => Err(Damage::Broken),
    };
    values.into_iter().map(value).collect()
}

/// Members with their scores, in the flat list of RESP2 or the pairs of RESP3. What is no member of ours is left
/// out.
fn members(answer: Value) -> Vec<Member> {
    let Value::Array(answer) = answer else { return Vec::new() };
    let pairs: Vec<(Value, Value)> = if matches!(answer.first(), Some(Value::Array(_))) {
        let pair = |pair| match pair {
            Value::Array(pair) => <[Value; 2]>::try_from(pair).ok().map(|[id, score]| (id, score)),
            _ => None,
        };
        answer.into_iter().filter_map(pair).collect()
    } else {
        let mut flat = answer.into_iter();
        std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
    };
    pairs.into_iter().filter_map(|(id, score)| Some((member(&id)?, version(&score)?))).collect()
}

fn member(id: &Value) -> Option<EntryId> {
    let Value::BulkString(id) = id else { return None };
    id.as_slice().try_into().ok().map(EntryId)
}

fn version(score: &Value) -> Option<Version> {
    match score {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number below 2⁵³ by the script that wrote it"
        )]
        Value::Double(score) if *score < LARGEST => Some(*score as Version),
        // RESP2 writes it out.
        Value::BulkString(score) => record::number(score).filter(|version| *version < 1 << 53),
        _ => None,
    }
}
