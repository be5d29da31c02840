//! Entries in Redis for people: found by id, listed, removed, purged. Walks over all keys by `SCAN`, which gives
//! every key that is there from beginning to end and never holds Redis up for long.

use std::collections::HashSet;
use std::time::SystemTime;

use redis::{Pipeline, Value};

use super::super::StoreError;
use super::super::entry::{Entry, EntryId};
use super::super::listing::{Cursor, Found, ListQuery, Newest, Page, Selector, is_match};
use super::core::{Core, values};
use super::link::LinkError;
use super::nodes::{self, Node};
use super::record::{self, Seal};

/// Keys that one step of a walk looks at, about.
const STEP: usize = 500;

impl Core {
    /// The entry of an id, and its hits.
    pub(super) async fn find(&self, id: &EntryId) -> Result<Option<Found>, StoreError> {
        let Some(entry) = self.read(id).await? else { return Ok(None) };
        let mut hits = redis::cmd("HGET");
        hits.arg(self.names.hits(id.tag())).arg(id.0.as_slice());
        let hits = match self.link.ask::<Option<u64>>(&hits).await {
            Ok(hits) => hits.unwrap_or(0),
            Err(LinkError::Refused(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Found { entry: entry.into(), hits }))
    }

    /// Removes an entry and its place in the index.
    pub(super) async fn remove(&self, id: &EntryId) -> Result<bool, StoreError> {
        let name = self.names.entry(id);
        let mut embedding = redis::cmd("HGET");
        embedding.arg(&name).arg("embedding");
        let embedding: Option<Vec<u8>> = match self.link.ask(&embedding).await {
            Err(LinkError::Refused(_)) => None,
            answer => answer?,
        };
        let partition = embedding.as_deref().and_then(Seal::partition_of);
        let mut removal = Pipeline::new();
        removal.cmd("UNLINK").arg(&name);
        // A partition of another scope is damage; a command to it would cross slots.
        if let Some(partition) = partition.filter(|partition| partition.tag() == id.tag()) {
            removal.cmd("ZREM").arg(self.names.index(&partition)).arg(id.0.as_slice());
        }
        removal.cmd("ZREM").arg(self.names.unplaced(id.tag())).arg(id.0.as_slice());
        removal.cmd("HDEL").arg(self.names.hits(id.tag())).arg(id.0.as_slice());
        let answers = self.link.ask_all(&removal).await?;
        self.forget(id, partition.as_ref());
        match answers.into_iter().next() {
            Some(Value::ServerError(error)) => Err(StoreError::Refused(error.code().to_owned())),
            Some(Value::Int(removed)) => Ok(removed > 0),
            _ => Ok(false),
        }
    }

    /// A page of entries, newest first: all are looked at, those of the page are read whole.
    pub(super) async fn list_page(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let folded = query.folded();
        let mut newest = Newest::new(query);
        let mut met = HashSet::new();
        for node in nodes::all(&self.link).await? {
            let mut walk = Walk::new(&node, self.names.entries());
            while let Some(names) = walk.step(self).await? {
                for (id, entry) in self.described(&node, &names).await? {
                    let rest = id.0.last_chunk().copied().unwrap_or_default();
                    let place = Cursor::of(entry.created_at, u64::from_be_bytes(rest));
                    // A walk may give a key twice.
                    if newest.wants(place) && is_match(entry.prompt(), &folded) && met.insert(id) {
                        newest.push(place, id);
                    }
                }
            }
        }
        let (ids, next) = newest.finish();
        let mut entries = Vec::with_capacity(ids.len());
        for id in ids {
            entries.extend(self.find(&id).await?);
        }
        Ok(Page { entries, next })
    }

    /// Removes the entries that a selector selects, whoever stored them.
    pub(super) async fn purge(&self, selector: &Selector) -> Result<u64, StoreError> {
        let now = SystemTime::now();
        let mut purged = 0;
        for node in nodes::all(&self.link).await? {
            let mut walk = Walk::new(&node, self.names.entries());
            while let Some(names) = walk.step(self).await? {
                let selected = self.selected(selector, &node, names, now).await?;
                if selected.is_empty() {
                    continue;
                }
                let mut removal = Pipeline::with_capacity(selected.len());
                for name in &selected {
                    removal.cmd("UNLINK").arg(name);
                }
                for (name, answer) in selected.iter().zip(node.ask_all(&self.link, removal).await?) {
                    purged += u64::from(matches!(answer, Value::Int(removed) if removed > 0));
                    if let Some(id) = self.names.id_of(name) {
                        self.hot.forget(&id);
                    }
                }
            }
        }
        if *selector == Selector::All {
            self.hot.forget_all();
            self.partitions.clear();
        }
        Ok(purged)
    }

    /// How many entries a selector selects.
    pub(super) async fn count(&self, selector: &Selector) -> Result<u64, StoreError> {
        let now = SystemTime::now();
        // A walk may give a key twice.
        let mut met = HashSet::new();
        for node in nodes::all(&self.link).await? {
            let mut walk = Walk::new(&node, self.names.entries());
            while let Some(names) = walk.step(self).await? {
                let selected = self.selected(selector, &node, names, now).await?;
                met.extend(selected.iter().filter_map(|name| self.names.id_of(name)));
            }
        }
        Ok(u64::try_from(met.len()).unwrap_or(u64::MAX))
    }

    /// The names of those entries that a selector selects.
    async fn selected(
        &self,
        selector: &Selector,
        node: &Node,
        names: Vec<Vec<u8>>,
        now: SystemTime,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        if *selector == Selector::All {
            return Ok(names);
        }
        let described = self.described(node, &names).await?;
        let selected = described.into_iter().filter(|(_, entry)| selector.selects(entry, now));
        Ok(selected.map(|(id, _)| self.names.entry(&id).into_bytes()).collect())
    }

    /// What entries say of themselves, unproved; those that cannot be read are left out.
    async fn described(&self, node: &Node, names: &[Vec<u8>]) -> Result<Vec<(EntryId, Entry)>, StoreError> {
        let ids: Vec<_> = names.iter().filter_map(|name| Some((self.names.id_of(name)?, name))).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(ids.len());
        for (_, name) in &ids {
            pipeline.cmd("HMGET").arg(name).arg(&record::HEAD_FIELDS);
        }
        let answers = node.ask_all(&self.link, pipeline).await?;
        let seal = self.seal();
        let described = ids
            .into_iter()
            .zip(answers)
            .filter_map(|((id, _), answer)| Some((id, seal.described(values(answer).ok()?)?)));
        Ok(described.collect())
    }
}

/// A walk over the keys of one node whose names begin with a prefix.
struct Walk<'a> {
    node: &'a Node,
    pattern: String,
    cursor: Option<u64>,
}

impl<'a> Walk<'a> {
    fn new(node: &'a Node, prefix: String) -> Self {
        Self { node, pattern: prefix + "*", cursor: Some(0) }
    }

    /// Some names; `None` at the end.
    async fn step(&mut self, core: &Core) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        let (next, names) = scan(core, self.node, cursor, &self.pattern).await?;
        self.cursor = Some(next).filter(|next| *next != 0);
        Ok(Some(names))
    }
}

/// Some names of a node's keys, and the cursor for the next, which is 0 at the end.
pub(super) async fn scan(
    core: &Core,
    node: &Node,
    cursor: u64,
    pattern: &str,
) -> Result<(u64, Vec<Vec<u8>>), LinkError> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
    node.ask(&core.link, scan).await
}
