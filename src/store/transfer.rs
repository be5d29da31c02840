//! Entries on their way from one store to another, whole: with their embeddings as a store keeps them.

use std::sync::Arc;

use super::entry::{Entry, Partition};
use super::index::codes::{Codes, MAX_DIMENSION};
use super::{Store, StoreError, embedded, redis};
use crate::embed::Embedding;

/// An embedding as a store keeps it: each component a whole number of sixteen bits times a scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept(pub(in crate::store) Codes);

/// An entry's embedding and where it is searched.
#[derive(Debug, Clone, PartialEq)]
pub struct Home {
    /// The set it belongs to.
    pub partition: Partition,
    /// The embedder's name, where the store keeps it.
    pub model: Option<String>,
    /// The embedding.
    pub embedding: Kept,
}

/// An entry on its way out.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The entry, as stored, expired or not.
    pub entry: Arc<Entry>,
    /// Its embedding, where it has one.
    pub home: Option<Home>,
}

/// Some of a store's entries.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The entries.
    pub entries: Vec<Exported>,
    /// How many more could not be read.
    pub unreadable: u64,
    /// From where [`Store::export`] goes on after this part; `None` where it can not begin here, but earlier.
    pub cursor: Option<String>,
}

/// A walk over all entries of a store.
#[derive(Debug)]
pub enum Export {
    /// The embedded store's.
    Embedded(Box<embedded::transfer::Walk>),
    /// That of the store in Redis.
    Redis(Box<redis::transfer::Walk>),
}

/// No cursor that an export of this store gave.
#[derive(Debug, thiserror::Error)]
#[error("the cursor is none that an export of this store gave; begin anew without one")]
pub struct ExportCursorError;

/// What became of an entry that was to come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is stored.
    Stored,
    /// One of its key is there that is as new, or newer.
    Already,
    /// There was no room for it.
    NoRoom,
}

impl Kept {
    /// The embedding of these numbers. `None` where the scale is no positive number, or there are no numbers, too many,
    /// or any beyond ±32,512.
    pub fn new(scale: f32, numbers: &[i16]) -> Option<Self> {
        if numbers.is_empty() || numbers.len() > MAX_DIMENSION || !scale.is_normal() || scale < 0.0 {
            return None;
        }
        let plane = |number: &i16| {
            let high = (number.checked_add(128)?) >> 8;
            let low = number - (high << 8);
            Some((i8::try_from(high).ok()?, i8::try_from(low).ok()?))
        };
        let (high, low): (Vec<i8>, Vec<i8>) = numbers.iter().map(plane).collect::<Option<_>>()?;
        Some(Self(Codes { high: high.into(), low: low.into(), scale }))
    }

    /// An embedding as a store would keep it. `None` where it has too many components.
    pub fn of(embedding: &Embedding) -> Option<Self> {
        Codes::of(embedding.values()).map(Self)
    }

    /// What one unit of a number stands for.
    pub fn scale(&self) -> f32 {
        self.0.scale
    }

    /// The numbers.
    pub fn numbers(&self) -> impl Iterator<Item = i16> + '_ {
        self.0.high.iter().zip(&self.0.low).map(|(high, low)| (i16::from(*high) << 8) + i16::from(*low))
    }
}

impl Export {
    /// Some more entries; `None` at the end. Holds no more than a part of the store in memory, however large it is.
    pub async fn next(&mut self) -> Result<Option<Part>, StoreError> {
        match self {
            Self::Embedded(walk) => walk.next().await,
            Self::Redis(walk) => walk.next().await,
        }
    }
}

impl Store {
    /// Begins a walk over all entries, or goes on with one where a cursor says. An entry that is there from beginning
    /// to end is given at least once; one that comes or goes meanwhile may be given or not.
    pub async fn export(&self, cursor: Option<&str>) -> Result<Export, ExportError> {
        match self {
            Self::Embedded(store) => Ok(Export::Embedded(Box::new(store.export(cursor)?))),
            Self::Redis(store) => Ok(Export::Redis(Box::new(store.export(cursor).await?))),
        }
    }

    /// Takes an entry in that another store had, unless one of its key is there that is as new. In Redis when this
    /// returns; in memory, and on disk after [`Store::flush`].
    pub async fn import(&self, entry: Entry, home: Option<Home>) -> Result<Taken, StoreError> {
        match self {
            Self::Embedded(store) => store.import(entry, home.as_ref()),
            Self::Redis(store) => store.import(&Arc::new(entry), home.as_ref()).await,
        }
    }
}

/// Why a walk does not begin.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Its cursor is of no use.
    #[error(transparent)]
    Cursor(#[from] ExportCursorError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_embedding_comes_back_as_it_was(values in prop::collection::vec(-1.0_f32..1.0, 1..400)) {
            let Some(kept) = Embedding::new(values).and_then(|embedding| Kept::of(&embedding)) else { return Ok(()) };
            let numbers: Vec<_> = kept.numbers().collect();
            prop_assert_eq!(Kept::new(kept.scale(), &numbers), Some(kept));
        }

        #[test]
        fn any_numbers_are_taken_or_refused_without_a_panic(scale: f32, numbers: Vec<i16>) {
            if let Some(kept) = Kept::new(scale, &numbers) {
                prop_assert_eq!(kept.numbers().collect::<Vec<_>>(), numbers);
            }
        }
    }
}
