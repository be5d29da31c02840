//! Streams: it does not matter where they were cut on their way, and undoing a content coding is bounded.

use bytes::Bytes;

use super::chance;
use crate::dialect::openai::usage::UsageFilter;
use crate::dialect::sse::{self, Event, Scanner};
use crate::dialect::{Endpoint, Form, ndjson};
use crate::proxy::decode::decode;

/// The most that a body under a content coding may become here.
const DECODED: usize = 64 << 10;

pub(super) fn check(data: &[u8]) {
    let whole: Vec<_> = sse::events(data).collect();
    for pieces in cuts(data) {
        assert_eq!(read_in_pieces(&pieces), whole, "events depend on where they were cut");
    }
    let lines: Vec<_> = ndjson::lines(data).collect();
    assert!(lines.iter().all(|line| !line.bytes.is_empty() && !line.bytes.contains(&b'\n')));
    assert!(lines.iter().rev().skip(1).all(|line| line.ended));
}

fn read_in_pieces(pieces: &[Bytes]) -> Vec<Event<'static>> {
    let (mut scanner, mut held, mut found, mut begun) = (Scanner::default(), Vec::new(), Vec::new(), false);
    for piece in pieces {
        let mut rest: &[u8] = piece;
        while let Some(end) = scanner.next_end(rest) {
            let (event, after) = rest.split_at(end);
            held.extend_from_slice(event);
            let block = if begun { &held } else { sse::without_bom(&held) };
            found.extend(Event::parse(block).map(|event| Event {
                name: event.name.into_owned().into(),
                data: event.data.into_owned().into(),
            }));
            begun = true;
            held.clear();
            rest = after;
        }
        held.extend_from_slice(rest);
    }
    found
}

pub(super) fn usage_filter(data: &[u8]) {
    let whole = filtered(&[Bytes::copy_from_slice(data)]);
    for pieces in cuts(data) {
        assert_eq!(filtered(&pieces), whole, "what passes depends on where it was cut");
    }
    if memchr::memmem::find(data, b"\"usage\"").is_none() {
        assert_eq!(whole, data, "a stream without usage is changed");
    }
    let (before, after) = (Bytes::copy_from_slice(data), Bytes::from(whole));
    for endpoint in [Endpoint::OpenAiChat, Endpoint::OpenAiCompletions] {
        let form = Form::Sse { usage: true };
        let Ok(reply) = endpoint.gather(form, &before) else { continue };
        let left = endpoint.gather(form, &after).unwrap();
        assert_eq!((left.text, left.tool_calls), (reply.text, reply.tool_calls), "content was taken out");
    }
}

fn filtered(pieces: &[Bytes]) -> Vec<u8> {
    let mut filter = UsageFilter::default();
    let mut out: Vec<u8> = pieces.iter().flat_map(|piece| filter.push(piece.clone())).collect();
    out.extend(filter.finish());
    out
}

pub(super) fn content_coding(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    for coding in ["gzip", "deflate", "br", "zstd"] {
        if let Ok(decoded) = decode(Some(coding), &body, DECODED) {
            assert!(decoded.len() <= DECODED);
        }
    }
}

/// Some ways to cut a body: byte by byte, by two, and anywhere.
fn cuts(data: &[u8]) -> impl Iterator<Item = Vec<Bytes>> {
    let body = Bytes::copy_from_slice(data);
    let mut chance = chance(data);
    [1, 2, 0, 0, 0].into_iter().map(move |size| {
        let (mut rest, mut pieces) = (body.clone(), Vec::new());
        while !rest.is_empty() {
            let length = if size > 0 { size } else { chance.usize(0..=16) };
            pieces.push(rest.split_to(length.min(rest.len())));
        }
        pieces
    })
}
