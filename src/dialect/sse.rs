//! Server-sent events (WHATWG HTML §9.2): bytes to events, wherever the bytes are cut.
//!
//! [`events`] reads a whole body, for the dialects that gather a stream; [`Scanner`] finds where events end in
//! bytes that are still arriving, for filters of a stream in flight. Both read an event by [`Event::parse`].
//! Knows nothing of any API's events.

use std::borrow::Cow;

use memchr::memchr2;

/// One event. The fields `id` and `retry` serve reconnecting, which no dialect here does: they are skipped, and
/// so are comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty where the stream gives none.
    pub name: Cow<'a, str>,
    /// The `data` lines, joined by LF; borrowed where there is but one.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Event<'a> {
    /// Reads an event's bytes, up to and including the blank line that ends it. `None` where it has no data:
    /// such an event is never dispatched.
    pub fn parse(block: &'a [u8]) -> Option<Self> {
        let mut name = Cow::Borrowed("");
        let mut data: Option<Cow<'a, [u8]>> = None;
        for line in lines(block) {
            let (field, value) = match memchr::memchr(b':', line) {
                Some(colon) => {
                    let (field, value) = line.split_at(colon);
                    let value = value.strip_prefix(b":").unwrap_or(value);
                    (field, value.strip_prefix(b" ").unwrap_or(value))
                }
                None => (line, [].as_slice()),
            };
            match field {
                b"event" => name = String::from_utf8_lossy(value),
                b"data" => match &mut data {
                    None => data = Some(Cow::Borrowed(value)),
                    Some(data) => {
                        let data = data.to_mut();
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                },
                _ => {}
            }
        }
        data.filter(|data| !data.is_empty()).map(|data| Self { name, data })
    }
}

/// The events of a whole body. What follows the last blank line is an event cut short, and none.
pub fn events(body: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let mut scanner = Scanner::default();
    let mut rest = without_bom(body);
    std::iter::from_fn(move || {
        loop {
            let (block, after) = rest.split_at_checked(scanner.next_end(rest)?)?;
            rest = after;
            if let Some(event) = Event::parse(block) {
                return Some(event);
            }
        }
    })
}

/// A stream's beginning without its byte order mark, which is no part of its first line.
pub fn without_bom(beginning: &[u8]) -> &[u8] {
    beginning.strip_prefix("\u{feff}".as_bytes()).unwrap_or(beginning)
}

/// Finds where events end, in pieces of a stream given one after the other.
#[derive(Debug, Default)]
pub struct Scanner {
    line_has_bytes: bool,
    after_cr: bool,
}

impl Scanner {
    /// How much of `bytes` belongs to the present event, its closing blank line included; `None` where it does
    /// not end in them. What comes after must be given next.
    ///
    /// A CR ends a line at once, though an LF may yet follow: where it ends `bytes` and closes an event, the LF
    /// is counted to the next, in which it means nothing.
    pub fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            at = usize::from(bytes.starts_with(b"\n"));
        }
        loop {
            let rest = bytes.get(at..)?;
            let Some(offset) = memchr2(b'\r', b'\n', rest) else {
                self.line_has_bytes |= !rest.is_empty();
                return None;
            };
            let blank = offset == 0 && !self.line_has_bytes;
            self.line_has_bytes = false;
            let (_, ending) = rest.split_at(offset);
            at += offset + if ending.starts_with(b"\r\n") { 2 } else { 1 };
            self.after_cr = ending == b"\r";
            if blank {
                return Some(at);
            }
        }
    }

    /// Whether the last byte given was a CR, so that an LF that comes next still belongs to it.
    pub fn after_cr(&self) -> bool {
        self.after_cr
    }
}

/// Lines ended by CR, LF or CRLF.
fn lines(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, ending) = rest.split_at(memchr2(b'\r', b'\n', rest).unwrap_or(rest.len()));
        rest = ending.strip_prefix(b"\r\n").or_else(|| ending.get(1..)).unwrap_or_default();
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8]) -> Vec<(String, String)> {
        events(body)
            .map(|event| (event.name.into_owned(), String::from_utf8(event.data.into_owned()).unwrap()))
            .collect()
    }

    fn one(data: &str) -> Vec<(String, String)> {
        vec![(String::new(), data.to_owned())]
    }

    /// The same by pieces, as a filter reads them.
    fn read_cut(body: &[u8], cuts: &[usize]) -> Vec<(String, String)> {
        let mut scanner = Scanner::default();
        let (mut held, mut found, mut start, mut first) = (Vec::new(), Vec::new(), 0, true);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(body.len());
        for cut in cuts {
            let mut piece = &body[start..cut];
            start = cut;
            while let Some(end) = scanner.next_end(piece) {
                held.extend_from_slice(&piece[..end]);
                piece = &piece[end..];
                let block = if first { without_bom(&held) } else { &held };
                first = false;
                if let Some(event) = Event::parse(block) {
                    found
                        .push((event.name.into_owned(), String::from_utf8(event.data.into_owned()).unwrap()));
                }
                held.clear();
            }
            held.extend_from_slice(piece);
        }
        found
    }

    /// The examples of the specification, and what servers really send.
    #[test]
    fn fields_comments_and_line_ends_are_read_by_the_specification() {
        assert_eq!(read(b"data: YHOO\ndata: +2\ndata: 10\n\n"), one("YHOO\n+2\n10"));
        assert_eq!(
            read(b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"),
            [one("first event"), one("second event"), one(" third event")].concat()
        );
        assert_eq!(read(b"data\n\ndata\ndata\n\ndata:"), one("\n"));
        assert_eq!(read("\u{feff}data: a\r\n\r\ndata: b\r\rdata: c\n\n".as_bytes()).len(), 3);
        assert_eq!(
            read(b"retry: 10\nevent: ping\nevent: add\ndata: 7\nunknown: x\n\n"),
            [("add".to_owned(), "7".to_owned())]
        );
        assert_eq!(read(b"event: lonely\n\ndata: x\n\n"), one("x"));
        assert_eq!(read(b"data: a:b\n\n"), one("a:b"));
        assert_eq!(read(b"data: cut short\n"), []);
        assert_eq!(read(b""), []);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            Just("data: "),
            Just("data:"),
            Just("event: x"),
            Just(":"),
            Just("\n"),
            Just("\r"),
            Just("\r\n"),
            Just("\n\n"),
            Just("é"),
            Just("🦀"),
            Just("{}"),
            Just("\u{feff}"),
            Just("id: 1"),
        ];
        prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_events(body in stream(), cuts in prop::collection::vec(any::<usize>(), 0..20)) {
            prop_assert_eq!(read_cut(&body, &cuts), read(&body));
        }

        #[test]
        fn any_bytes_are_read(body in any::<Vec<u8>>()) {
            let _ = events(&body).count();
        }
    }
}
