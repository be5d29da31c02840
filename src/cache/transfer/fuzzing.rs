//! Lines of any bytes, see [`crate::fuzzing`].
#![expect(clippy::panic, reason = "a panic is how a target says what it found; the program never calls this")]

use super::line::{self, Header, Line};
use crate::store::content::{Content, Cost, Exchange};
use crate::store::entry::Entry;

pub(crate) fn check(data: &[u8]) {
    if let Some(header) = Header::read(data) {
        let written = line::write(&header).unwrap_or_default();
        assert_eq!(Header::read(&written), Some(header));
    }
    let Ok(Line::Entry(read)) = line::read(data) else { return };
    let home = read.home;
    let entry = Entry {
        key: read.key,
        scope: read.scope,
        endpoint: read.endpoint,
        content: Content::new(&Exchange {
            model: &read.model,
            namespace: &read.namespace,
            prompt: &read.prompt,
            document: read.document.as_bytes(),
            cost: Cost { usage: None, took: read.took },
        }),
        tool_calls: false,
        created_at: read.created_at,
        ttl: read.ttl,
        poisoned: read.poisoned,
    };
    let written = line::entry(&entry, home.as_ref()).unwrap_or_default();
    assert!(memchr::memchr_iter(b'\n', &written).count() == 1, "an entry is one line");
    let Ok(Line::Entry(again)) = line::read(&written) else { panic!("what was written is not read") };
    assert_eq!((again.key, again.scope, again.endpoint), (entry.key, entry.scope, entry.endpoint));
    let names = (again.model.as_str(), again.namespace.as_str(), again.prompt.as_str());
    assert_eq!(names, (entry.model(), entry.namespace(), entry.prompt()));
    assert_eq!(again.document.as_bytes(), entry.document());
    assert_eq!((again.created_at, again.ttl, again.took), (entry.created_at, entry.ttl, entry.cost().took));
    assert_eq!((again.poisoned, again.home), (entry.poisoned, home));
}
