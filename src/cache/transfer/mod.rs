//! Entries on their way to another rejoinder's store and back, as lines of text: judged before they come in, as strictly
//! as what upstream says.
//!
//! Called by `admin`. Scopes, keys and partitions are keyed hashes, so that both sides must have the same secret; with it
//! a line proves that its key belongs to its scope and its prompt.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod line;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tracing::debug;

use super::Cache;
use super::key::Keys;
use crate::dialect::Form;
use crate::store::StoreError;
use crate::store::content::{Content, Cost, Exchange};
use crate::store::entry::{Entry, Key, Scope, TAG_BYTES};
use crate::store::transfer::{Exported, Home, Kept, Taken};
pub use line::{End, SCHEMA, last, mark};
use line::{Header, Line, Read};

/// How far the clock of whoever exported may be ahead.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// The longest model's name and namespace, in bytes: more fits in no request's head.
const LONGEST_NAME: usize = 64 << 10;

/// How large an entry may be that comes in, as for one that is stored from a request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the reply's document.
    pub document: usize,
    /// Bytes of the prompt.
    pub prompt: usize,
}

/// Why nothing of an export can come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is something else.
    #[error(
        "the first line is not that of an export ({{\"rejoinder\":\"export\", …}}); give a whole file of `rejoinder export`"
    )]
    None,
    /// Another version wrote it.
    #[error(
        "the export is of schema {0}, and this version reads schema {SCHEMA}; export and import by the same version"
    )]
    Schema(u32),
    /// It has other hashes for the same requests.
    #[error(
        "the export is of a rejoinder with another secret, so no request here would find its entries; set the same \
         REJOINDER_SECRET (or REJOINDER_SECRET_FILE) for both, and export what is stored under it"
    )]
    Secret,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// There was nothing to store in it.
    Note,
    /// Its entry is stored.
    Stored {
        /// Whether its prompt was embedded anew.
        embedded: bool,
    },
    /// One of its key is there that is as new, or newer.
    Already,
    /// Its entry has outlived its time.
    Expired,
}

/// Why a line's entry is not stored.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The line is wrong.
    #[error("{0}")]
    Bad(String),
    /// The store does not take it now.
    #[error(transparent)]
    Store(StoreError),
}

impl Cache {
    /// The first line of an export.
    pub fn export_header(&self) -> Vec<u8> {
        line::write(&Header::new(&self.keys.with(Keys::check))).unwrap_or_default()
    }

    /// Whether the first line is of an export whose entries can be used here.
    ///
    /// # Errors
    /// Says why not, and what would help.
    pub fn check_header(&self, line: &[u8]) -> Result<(), HeaderError> {
        let header = Header::read(line).ok_or(HeaderError::None)?;
        if header.schema != SCHEMA {
            return Err(HeaderError::Schema(header.schema));
        }
        if header != Header::new(&self.keys.with(Keys::check)) {
            return Err(HeaderError::Secret);
        }
        Ok(())
    }

    /// The line of an entry. `None` where it is of no use elsewhere: stored under another secret, or damaged.
    pub fn export_line(&self, exported: &Exported) -> Option<Vec<u8>> {
        let Exported { entry, home } = exported;
        if !self.keys.with(|keys| is_key_of(keys, &entry.key, &entry.scope, entry.prompt())) {
            return None;
        }
        let own = |home: &Home| {
            let embedder = self.embedder.as_ref()?;
            let partition = self.partition_of(&entry.scope, embedder, entry.prompt());
            (partition == home.partition).then(|| embedder.name().to_owned())
        };
        let home = home
            .as_ref()
            .map(|home| Home { model: home.model.clone().or_else(|| own(home)), ..home.clone() });
        line::entry(entry, home.as_ref())
    }

    /// Takes the entry of a line in, if all of it is right.
    ///
    /// # Errors
    /// The line is wrong, or the store does not take it now; nothing of it is stored.
    pub async fn import_line(&self, line: &[u8], limits: &Limits) -> Result<Imported, LineError> {
        let bad = |reason: &str| LineError::Bad(reason.to_owned());
        let read = match line::read(line).map_err(LineError::Bad)? {
            Line::Note => return Ok(Imported::Note),
            Line::Entry(read) => *read,
        };
        if read.document.len() > limits.document {
            return Err(bad("the reply is larger than limits.max_entry_bytes"));
        }
        if read.prompt.len() > limits.prompt {
            return Err(bad("the prompt is larger than limits.max_request_bytes"));
        }
        if read.model.len().max(read.namespace.len()) > LONGEST_NAME {
            return Err(bad("the model's name or the namespace is too long"));
        }
        if !self.keys.with(|keys| is_key_of(keys, &read.key, &read.scope, &read.prompt)) {
            return Err(bad("the key does not belong to the scope and the prompt"));
        }
        let now = SystemTime::now();
        if read.created_at > now.checked_add(CLOCK_TOLERANCE).unwrap_or(now) {
            return Err(bad("created_at_ms is in the future; is a clock wrong?"));
        }
        let document = Bytes::from(read.document.clone());
        let reply = read
            .endpoint
            .gather(Form::Json, &document)
            .map_err(|error| LineError::Bad(format!("the reply's document: {error}")))?;
        let (home, embedded) = if reply.tool_calls { (None, false) } else { self.home(&read).await? };
        let entry = Entry {
            key: read.key,
            scope: read.scope,
            endpoint: read.endpoint,
            content: Content::new(&Exchange {
                model: &read.model,
                namespace: &read.namespace,
                prompt: &read.prompt,
                document: &document,
                cost: Cost { usage: reply.usage, took: read.took },
            }),
            tool_calls: reply.tool_calls,
            created_at: read.created_at,
            // As with a request's own: no longer than is configured here.
            ttl: read.ttl.min(self.ttl),
            poisoned: read.poisoned,
        };
        if entry.remaining(now).is_zero() {
            return Ok(Imported::Expired);
        }
        match self.store.import(entry, home).await {
            Ok(Taken::Stored) => Ok(Imported::Stored { embedded }),
            Ok(Taken::Already) => Ok(Imported::Already),
            Ok(Taken::NoRoom) => Err(bad("the store has no room for it; see limits.max_bytes")),
            Err(error @ StoreError::TooLarge { .. }) => Err(LineError::Bad(error.to_string())),
            Err(error) => Err(LineError::Store(error)),
        }
    }

    /// Where an entry that comes in is searched, and whether its prompt was embedded for that: as the line says, if its
    /// embedding is of this embedder or there is none here to judge that; else embedded anew. One that came without an
    /// embedding stays so: it may be one that must not be matched by meaning.
    async fn home(&self, read: &Read) -> Result<(Option<Home>, bool), LineError> {
        let Some(home) = read.home.as_ref().filter(|_| !read.prompt.is_empty()) else {
            return Ok((None, false));
        };
        let Some(embedder) = &self.embedder else {
            // A partition of another scope would never be asked, and in Redis would cross slots.
            if home.partition.tag() != tag_of(&read.scope) {
                return Err(LineError::Bad("the embedding is of another scope".to_owned()));
            }
            return Ok((Some(home.clone()), false));
        };
        let partition = self.partition_of(&read.scope, embedder, &read.prompt);
        let model = Some(embedder.name().to_owned());
        if partition == home.partition {
            return Ok((Some(Home { model, ..home.clone() }), false));
        }
        match self.embed(embedder, &read.prompt).await {
            Ok(embedding) => {
                let home = Kept::of(&embedding).map(|embedding| Home { partition, model, embedding });
                let anew = home.is_some();
                Ok((home, anew))
            }
            Err(error) => {
                debug!(%error, "an imported prompt was not embedded; its entry is found by its key alone");
                Ok((None, false))
            }
        }
    }
}

fn tag_of(scope: &Scope) -> [u8; TAG_BYTES] {
    scope.0.first_chunk().copied().unwrap_or_default()
}

/// Whether a key is that of a scope and a prompt, or of a scope that holds the whole body.
fn is_key_of(keys: &Keys, key: &Key, scope: &Scope, prompt: &str) -> bool {
    keys.exact(scope, Some(prompt)) == *key || (prompt.is_empty() && keys.exact(scope, None) == *key)
}
