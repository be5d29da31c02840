//! Headers of a request.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::headers::{
    accepts_coding, directives, is_framing_known, is_host_known, join_cookies, strip_request, strip_response,
    strip_trailers,
};
use crate::trace::context;

pub(super) fn check(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(100) {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    asked(&headers);
    traced(&headers);
    let _ = (is_framing_known(&headers), is_host_known(&headers), accepts_coding(&headers, "gzip"));
    let mut joined = headers.clone();
    join_cookies(&mut joined);
    assert!(joined.get_all("cookie").iter().nth(1).is_none(), "cookies are not joined");
    for strip in [strip_request, strip_response, strip_trailers] {
        let mut stripped = headers.clone();
        strip(&mut stripped);
        // That trailers are welcome is said anew for the connection to upstream.
        let renewed = stripped.remove(CONNECTION).is_none_or(|nominated| {
            nominated == "te" && stripped.remove(TE).is_some_and(|welcome| welcome == "trailers")
        });
        let left = [TE, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive")];
        assert!(
            renewed && left.iter().all(|name| !stripped.contains_key(name)),
            "a hop-by-hop header is left"
        );
        assert!(
            stripped.keys().all(|name| !name.as_str().starts_with("x-rejoinder-")),
            "one of ours is left"
        );
    }
}

fn asked(headers: &HeaderMap) {
    let Ok(directives) = directives(headers) else { return };
    assert!(directives.threshold.is_none_or(|threshold| (0.0..=1.0).contains(&threshold)));
    let longest = Duration::from_secs(u64::from(u32::MAX));
    assert!(directives.ttl.max(directives.max_age).is_none_or(|span| span <= longest));
    // Without a quotation mark there is no way to read it but one.
    let refuses = headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let value = value.as_bytes();
        let mut all = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        !value.contains(&b'"') && all.any(|one| one.eq_ignore_ascii_case(b"no-store"))
    });
    assert!(directives.no_store || !refuses, "no-store was not seen");
}

fn traced(headers: &HeaderMap) {
    let Some(parent) = context::read(headers) else { return };
    let mut sent = HeaderMap::new();
    context::write(&mut sent, &parent, true);
    let again = context::read(&sent).unwrap();
    assert_eq!((parent.trace_id(), parent.span_id()), (again.trace_id(), again.span_id()));
    assert_eq!(parent.is_sampled(), again.is_sampled());
}
