//! Entries in Redis on their way out and in. Out by `SCAN`, node after node, a few whole entries at once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use redis::{Pipeline, Value};

use super::super::entry::Entry;
use super::super::transfer::{ExportCursorError, ExportError, Exported, Home, Part, Taken};
use super::super::{StoreError, memory};
use super::Redis;
use super::census::scan;
use super::core::{Core, values};
use super::nodes::{self, Node};
use super::record::{self, Damage};

/// Whole entries read in one round trip: each may be a megabyte.
const PART: usize = 16;

/// A walk over all entries, in no order. One that Redis gives twice is given twice.
pub struct Walk {
    core: Arc<Core>,
    /// The servers still to be walked over, the one under way first.
    nodes: VecDeque<Node>,
    /// Where the walk over the first goes on; `None` where it has ended.
    at: Option<u64>,
    /// Names that were given and not read yet.
    names: VecDeque<Vec<u8>>,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("nodes", &self.nodes).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Redis {
    /// See [`crate::store::Store::export`]. What was put before this was called is there.
    pub(in crate::store) async fn export(&self, cursor: Option<&str>) -> Result<Walk, ExportError> {
        self.0.lanes.flush_briefly().await;
        let core = Arc::clone(&self.0.core);
        let mut nodes: VecDeque<_> = nodes::all(&core.link).await.map_err(StoreError::from)?.into();
        let mut at = 0;
        if let Some(cursor) = cursor {
            let (name, from) = read_cursor(cursor)?;
            at = from;
            while nodes.front().is_some_and(|node| name_of(node) != name) {
                nodes.pop_front();
            }
            if nodes.is_empty() {
                return Err(ExportCursorError.into());
            }
        }
        Ok(Walk { core, nodes, at: Some(at), names: VecDeque::new() })
    }

    /// See [`crate::store::Store::import`].
    pub(in crate::store) async fn import(
        &self,
        entry: &Arc<Entry>,
        home: Option<&Home>,
    ) -> Result<Taken, StoreError> {
        let (core, id) = (&self.0.core, entry.key.id());
        let limit = self.0.lanes.most_bytes();
        let bytes = memory::weight(entry);
        if bytes > limit {
            return Err(StoreError::TooLarge { bytes, limit });
        }
        let there = core.read(&id).await?;
        if there.is_some_and(|there| there.key == entry.key && there.created_at >= entry.created_at) {
            return Ok(Taken::Already);
        }
        let life = entry.remaining(SystemTime::now());
        let stored = self.0.lanes.write(entry, life, home).await?;
        core.hot.forget(&id);
        Ok(if stored { Taken::Stored } else { Taken::Already })
    }
}

impl Walk {
    /// See [`crate::store::transfer::Export::next`].
    pub(in crate::store) async fn next(&mut self) -> Result<Option<Part>, StoreError> {
        while self.names.is_empty() {
            let Some(node) = self.nodes.front() else { return Ok(None) };
            let Some(at) = self.at else {
                self.nodes.pop_front();
                self.at = Some(0);
                continue;
            };
            let pattern = self.core.names.entries() + "*";
            let (next, names) = scan(&self.core, node, at, &pattern).await?;
            self.at = Some(next).filter(|next| *next != 0);
            self.names = names.into_iter().filter(|name| self.core.names.id_of(name).is_some()).collect();
        }
        let Some(node) = self.nodes.front() else { return Ok(None) };
        let names: Vec<_> = self.names.drain(..self.names.len().min(PART)).collect();
        let mut part = self.read(node, &names).await?;
        if self.names.is_empty()
            && let Some(at) = self.at
        {
            part.cursor = Some(format!("r-{}-{at:x}", name_of(node)));
        }
        Ok(Some(part))
    }

    async fn read(&self, node: &Node, names: &[Vec<u8>]) -> Result<Part, StoreError> {
        let mut pipeline = Pipeline::with_capacity(names.len());
        for name in names {
            pipeline.cmd("HMGET").arg(name).arg(&record::FIELDS).arg("embedding");
        }
        let mut part = Part::default();
        for (name, answer) in names.iter().zip(node.ask_all(&self.core.link, pipeline).await?) {
            match self.entry(answer) {
                Ok(Some(exported)) if self.core.names.id_of(name) == Some(exported.entry.key.id()) => {
                    part.entries.push(exported);
                }
                // It went meanwhile.
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => part.unreadable += 1,
            }
        }
        Ok(part)
    }

    fn entry(&self, answer: Value) -> Result<Option<Exported>, Damage> {
        let mut values = values(answer)?;
        let embedding = values.pop().flatten();
        let seal = self.core.seal();
        let Some(entry) = seal.read(values)? else { return Ok(None) };
        let home = embedding.and_then(|record| seal.read_embedding(&entry, &record).ok());
        Ok(Some(Exported { entry: Arc::new(entry), home }))
    }
}

/// The name of the server at which an export goes on, and where there.
pub(crate) fn read_cursor(cursor: &str) -> Result<(&str, u64), ExportCursorError> {
    let (name, digits) =
        cursor.strip_prefix("r-").and_then(|rest| rest.rsplit_once('-')).ok_or(ExportCursorError)?;
    Ok((name, u64::from_str_radix(digits, 16).map_err(|_| ExportCursorError)?))
}

fn name_of(node: &Node) -> String {
    match node {
        Node::Only => "only".to_owned(),
        Node::Master(host, port) => format!("{host}:{port}"),
    }
}
