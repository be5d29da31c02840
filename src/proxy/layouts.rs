//! Replies laid out of late: one that is asked for again and again is laid out once for each form.
//!
//! Called by [`super::cached`]. Finding and cutting up a stored document costs more than all the rest of a hit.

use std::sync::Arc;

use bytes::Bytes;
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
    /// What was laid out.
    document: Bytes,
    template: Arc<Template>,
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<(Key, Form), Layout> for Weight {
    fn weight(&self, _: &(Key, Form), layout: &Layout) -> u64 {
        (OVERHEAD + layout.document.len() + layout.template.weight()) as u64
    }
}

impl Layouts {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(EXPECTED, MAX_BYTES, Weight))
    }

    /// An entry's reply in a form.
    ///
    /// # Errors
    /// It cannot be laid out so.
    pub(super) fn of(&self, entry: &Entry, form: Form) -> Result<Arc<Template>, ReplayError> {
        let document = &entry.reply.document;
        let name = (entry.key, form);
        // A key's entry may have been replaced since.
        if let Some(layout) = self.0.get(&name).filter(|layout| same(&layout.document, document)) {
            return Ok(layout.template);
        }
        let template = Arc::new(entry.endpoint.replay(document, form)?);
        self.0.insert(name, Layout { document: document.clone(), template: Arc::clone(&template) });
        Ok(template)
    }
}

/// Whether two documents are equal; nothing is compared where they are one.
fn same(one: &Bytes, other: &Bytes) -> bool {
    one.len() == other.len() && (one.as_ptr() == other.as_ptr() || one == other)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::dialect::{Echo, Endpoint, Reply};
    use crate::store::entry::Scope;

    fn entry(document: &str) -> Entry {
        let document = Bytes::copy_from_slice(document.as_bytes());
        Entry {
            key: Key([1; 32]),
            scope: Scope([2; 32]),
            endpoint: Endpoint::OllamaGenerate,
            model: String::new(),
            namespace: String::new(),
            prompt: String::new(),
            reply: Reply { document, text: String::new(), tool_calls: false, usage: None },
            created_at: SystemTime::UNIX_EPOCH,
            ttl: Duration::from_secs(1),
            took: None,
            poisoned: false,
        }
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
        assert_eq!(text(&new), new.reply.document);
        assert_eq!(text(&old), old.reply.document);
        assert!(layouts.of(&entry("[]"), Form::Json).is_err());
    }
}
