//! Replies laid out of late: one that is asked for again and again is laid out once for each form.
//!
//! Called by [`super::cached`]. Finding and cutting up a stored document costs more than all the rest of a hit.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::dialect::template::Template;
use crate::dialect::{Form, ReplayError};
use crate::store::entry::{Entry, Key};

/// How much memory the layouts may take, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// How many layouts that is, about.
const EXPECTED: usize = 8192;

/// What a layout costs besides its bytes.
const OVERHEAD: usize = 256;

/// The layouts made of late. Bounded: the least used are forgotten, which costs their next hit the work anew.
#[derive(Debug)]
pub(super) struct Layouts(Cache<(Key, Form), Layout, Weight>);

#[derive(Debug, Clone)]
struct Layout {
    /// Whose reply was laid out.
    entry: Arc<Entry>,
    template: Arc<Template>,
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<(Key, Form), Layout> for Weight {
    fn weight(&self, _: &(Key, Form), layout: &Layout) -> u64 {
        (OVERHEAD + layout.entry.content.size() + layout.template.weight()) as u64
    }
}

impl Layouts {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(EXPECTED, MAX_BYTES, Weight))
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.clear();
    }

    /// An entry's reply in a form.
    ///
    /// # Errors
    /// It cannot be laid out so.
    pub(super) fn of(&self, entry: &Arc<Entry>, form: Form) -> Result<Arc<Template>, ReplayError> {
        let name = (entry.key, form);
        // A key's entry may have been replaced since.
        if let Some(layout) = self.0.get(&name).filter(|layout| layout.is_of(entry)) {
            return Ok(layout.template);
        }
        let template = Arc::new(entry.endpoint.replay(&entry.document(), form)?);
        self.0.insert(name, Layout { entry: Arc::clone(entry), template: Arc::clone(&template) });
        Ok(template)
    }
}

impl Layout {
    /// Whether it is what another entry's reply would be laid out as; nothing is compared where both are one.
    fn is_of(&self, entry: &Arc<Entry>) -> bool {
        Arc::ptr_eq(&self.entry, entry) || self.entry.content.same_document(&entry.content)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::dialect::{Echo, Endpoint};
    use crate::store::content::{Content, Exchange};
    use crate::store::entry::Scope;

    fn entry(document: &str) -> Arc<Entry> {
        let document = document.as_bytes();
        Arc::new(Entry {
            key: Key([1; 32]),
            scope: Scope([2; 32]),
            endpoint: Endpoint::OllamaGenerate,
            content: Content::new(&Exchange { document, ..Exchange::default() }),
            tool_calls: false,
            created_at: SystemTime::UNIX_EPOCH,
            ttl: Duration::from_secs(1),
            poisoned: false,
        })
    }

    #[test]
    fn a_reply_is_laid_out_once_for_each_form_and_anew_when_it_is_replaced() {
        let layouts = Layouts::new();
        let old = entry(r#"{"model":"m","response":"old","done":true}"#);
        let first = layouts.of(&old, Form::Json).unwrap();
        assert!(Arc::ptr_eq(&first, &layouts.of(&old, Form::Json).unwrap()));
        assert!(!Arc::ptr_eq(&first, &layouts.of(&old, Form::Ndjson).unwrap()));
        let new = entry(r#"{"model":"m","response":"new","done":true}"#);
        let text = |entry| layouts.of(entry, Form::Json).unwrap().render(&Echo::default(), SystemTime::now());
        assert_eq!(text(&new), new.document());
        assert_eq!(text(&old), old.document());
        assert!(layouts.of(&entry("[]"), Form::Json).is_err());
    }
}
