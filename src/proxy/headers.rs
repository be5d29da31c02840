//! Which headers travel (RFC 9110 §7.6.1), which say who asks, and what is asked of the cache by ours. What we say in a
//! response's is [`super::told`]'s.
//!
//! Called by the rest of `proxy`. The identity that scopes is read from the very headers that are forwarded.

use http::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, COOKIE, EXPECT, HOST, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::directives::{DirectiveError, Directives, Fields};
use crate::cache::key::Identity;

/// `Cache-Status` (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// `X-Request-Id`: kept where the client sent one, else made, and sent upstream.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const THRESHOLD: HeaderName = HeaderName::from_static("x-rejoinder-threshold");
const TTL: HeaderName = HeaderName::from_static("x-rejoinder-ttl");
const NAMESPACE: HeaderName = HeaderName::from_static("x-rejoinder-namespace");
const OWN_PREFIX: &str = "x-rejoinder-";

/// The headers that say who asks.
pub(super) static CREDENTIALS: [HeaderName; 5] = [
    AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// The other headers in every scope.
static SCOPE: [HeaderName; 5] = [
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
];

/// The headers of one connection alone (RFC 9110 §7.6.1).
static HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a collapsed request gets of the shared reply's headers: those of the content. The others (cookies, rate
/// limits, request ids, CORS) belong to the exchange of the request that asked first.
static SHARED: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, CACHE_CONTROL, RETRY_AFTER];

/// What is among a request's headers, found by one look at each name: requests have few headers, and to hash all the names
/// that matter here costs more.
#[derive(Debug, Clone, Copy)]
pub struct Survey {
    /// A bit for each kind of header that there is; the first are those of [`CREDENTIALS`], then of [`SCOPE`].
    kinds: u32,
    /// Whether a name comes twice.
    repeats: bool,
}

impl Survey {
    /// What asks something of the cache.
    const DIRECTIVE: u32 = 1 << 16;
    /// What says how the body is framed or coded, beyond its length.
    const CODING: u32 = 1 << 17;
    /// What does not travel.
    const HOP: u32 = 1 << 18;

    /// Looks at each name.
    pub fn of(headers: &HeaderMap) -> Self {
        let kinds = headers.keys().fold(0, |kinds, name| kinds | Self::kind(name));
        Self { kinds, repeats: headers.len() != headers.keys_len() }
    }

    fn kind(name: &HeaderName) -> u32 {
        match name.as_str().as_bytes() {
            b"authorization" => 1,
            b"cookie" => 1 << 1,
            b"api-key" => 1 << 2,
            b"x-api-key" => 1 << 3,
            b"x-goog-api-key" => 1 << 4,
            b"openai-organization" => 1 << 5,
            b"openai-project" => 1 << 6,
            b"openai-beta" => 1 << 7,
            b"anthropic-version" => 1 << 8,
            b"anthropic-beta" => 1 << 9,
            b"cache-control" => Self::DIRECTIVE,
            b"transfer-encoding" | b"content-encoding" => Self::CODING,
            b"connection"
            | b"keep-alive"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-connection"
            | b"te"
            | b"upgrade"
            | b"expect" => Self::HOP,
            name if name.starts_with(OWN_PREFIX.as_bytes()) => Self::DIRECTIVE,
            _ => 0,
        }
    }

    /// Whether there is nothing to judge but who asks: no directive, no coding, and no name that comes twice.
    pub fn is_plain(self) -> bool {
        self.kinds & (Self::DIRECTIVE | Self::CODING) == 0 && !self.repeats
    }

    /// Whether [`strip_request`] would find something to take out.
    pub fn has_hop_by_hop(self) -> bool {
        self.kinds & (Self::HOP | Self::CODING | Self::DIRECTIVE) != 0
    }
}

/// Takes out of a request's headers what must not go upstream: the hop-by-hop ones and our own.
pub fn strip_request(headers: &mut HeaderMap) {
    let trailers = lists(headers, &TE, "trailers");
    strip_hop_by_hop(headers);
    strip_own(headers);
    if trailers {
        // What the client is willing to receive we are willing to pass on (RFC 9110 §10.1.4).
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // The connection to the client has answered an expectation before the body was read.
    headers.remove(EXPECT);
}

/// Takes out of a response's headers what is for one connection alone, or would pass for ours.
pub fn strip_response(headers: &mut HeaderMap) {
    // A length that did not frame the body, or is said twice, must not frame it on the way on (RFC 9112 §6.3);
    // the body knows its own.
    let doubtful = headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().count() > 1
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes().contains(&b','));
    if doubtful {
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    strip_own(headers);
    headers.remove(AGE);
}

/// Takes out of the trailers of a body what no trailer may say: who asks, how the message is framed, what is for
/// one connection alone, and what would pass for ours (RFC 9110 §6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    strip_own(trailers);
    let forbidden: Vec<HeaderName> = trailers.keys().filter(|name| is_needed(name)).cloned().collect();
    for name in forbidden.iter().chain([&AGE, &CACHE_STATUS, &TRAILER]) {
        trailers.remove(name);
    }
}

/// Whether a response is not to be stored (RFC 9111 §5.2.2.5), nor to answer another request than its own (§4). As
/// elsewhere a value that is given to the directive counts for nothing.
pub fn forbids_storing(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|directive| {
            let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"no-store")
        })
    })
}

/// Whether the body is framed in a way that is understood here: by a length, by chunks, or by neither. Another
/// transfer coding would be taken off by nobody.
pub fn is_framing_known(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

/// Whether it is said once, or not at all, for which host a request is. Servers on the way that read different ones of
/// two could be played off against each other (RFC 9112 §3.2).
pub fn is_host_known(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).iter().nth(1).is_none()
}

/// Makes one header of the cookies that HTTP/2 lets a client divide (RFC 9113 §8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookie);
    }
}

/// Whether a header that is a list of tokens has this one, possibly with parameters.
pub fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.split(';').next().is_some_and(|item| item.trim().eq_ignore_ascii_case(token)))
}

/// Whether a client says that it takes this content coding (RFC 9110 §12.5.3). One that says nothing is taken at
/// its word: many that do not decode say nothing, so that it gets none.
pub fn accepts_coding(headers: &HeaderMap, coding: &str) -> bool {
    let accepts = |wanted: &str| {
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).find_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
            let refused = parts.any(|parameter| {
                let weight =
                    parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
                weight
                    .is_some_and(|(_, weight)| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0))
            });
            named.then_some(!refused)
        })
    };
    coding.split(',').map(str::trim).all(|coding| {
        coding.eq_ignore_ascii_case("identity") || accepts(coding).or_else(|| accepts("*")).unwrap_or(false)
    })
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| !is_needed(name))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    for name in present(headers, &HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Which of at most 32 names there are. Requests have few headers: one look at each costs less than to hash all these
/// names.
fn present<'a>(
    headers: &HeaderMap,
    names: &'a [HeaderName],
) -> impl Iterator<Item = &'a HeaderName> + use<'a> {
    let found = headers
        .keys()
        .filter_map(|name| names.iter().position(|other| other == name))
        .fold(0_u32, |found, at| found | 1 << at);
    names.iter().enumerate().filter(move |(at, _)| found & (1 << at) != 0).map(|(_, name)| name)
}

/// Whether a header stays even where `Connection` names it: framing needs it, or it says who asks. Dropping it
/// would let a client ask upstream as somebody else than it asked here.
fn is_needed(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, CACHE_CONTROL].contains(name)
        || CREDENTIALS.contains(name)
        || SCOPE.contains(name)
}

fn strip_own(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().starts_with(OWN_PREFIX)) {
        let own: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with(OWN_PREFIX)).cloned().collect();
        for name in own {
            headers.remove(name);
        }
    }
}

/// Reads what the client asks of the cache.
///
/// # Errors
/// A known directive with a value that cannot be parsed, one of our headers that is no text or comes twice.
pub fn directives(headers: &HeaderMap) -> Result<Directives, DirectiveError> {
    // Few requests ask for anything.
    if !headers.keys().any(|name| *name == CACHE_CONTROL || name.as_str().starts_with(OWN_PREFIX)) {
        return Ok(Directives::default());
    }
    let fields = Fields {
        threshold: own_text(headers, &THRESHOLD, "X-Rejoinder-Threshold")?,
        ttl: own_text(headers, &TTL, "X-Rejoinder-TTL")?,
        namespace: own_text(headers, &NAMESPACE, "X-Rejoinder-Namespace")?,
    };
    // A byte that is no text in one directive must not hide the next, which may be `no-store`.
    let cache_control: Vec<_> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    Directives::parse(cache_control.iter().map(AsRef::as_ref), fields)
}

/// The text of one of our headers. What is not plain text, or not said once, is refused rather than guessed at:
/// two namespaces must never be taken for one.
fn own_text<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a str>, DirectiveError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let error = |expected| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        DirectiveError { name: shown, value, expected }
    };
    if values.next().is_some() {
        return Err(error("the only value"));
    }
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(|_| error("text in UTF-8"))
}

/// Stands in the place of a header's name, and is none.
const ABSENT: &str = "absent header";

/// Who asks, and what else of the headers can change the reply. `headers` are those that go upstream, `survey` is theirs.
pub fn identity<'a>(
    headers: &'a HeaderMap,
    survey: Survey,
    configured: &'a [HeaderName],
    upstream: &'a str,
    query: Option<&'a str>,
    namespace: &'a str,
) -> Identity<'a> {
    // In the order of the names, whatever that of the headers is.
    let collect = |names: &'static [HeaderName], first: usize| {
        let mut found = Vec::new();
        for (at, name) in names.iter().enumerate() {
            if survey.kinds & (1 << (first + at)) != 0 {
                found.extend(headers.get_all(name).iter().map(|value| (name.as_str(), value.as_bytes())));
            }
        }
        found
    };
    let credentials = collect(&CREDENTIALS, 0);
    let mut scoped = collect(&SCOPE, CREDENTIALS.len());
    for name in configured {
        // That a configured header is absent is said, too: without it a reply earned before it was configured, or by a
        // replica that has another configuration, would be in the scope of those who do not send it.
        let values = headers.get_all(name);
        scoped.extend(values.iter().map(|value| (name.as_str(), value.as_bytes())));
    }
    let absent = configured.iter().filter(|name| !headers.contains_key(*name));
    scoped.extend(absent.map(|name| (ABSENT, name.as_str().as_bytes())));
    Identity { upstream, query, credentials, key: None, headers: scoped, namespace, user: None }
}

/// The headers of a reply that a collapsed request shares.
pub fn shared(headers: &HeaderMap) -> HeaderMap {
    SHARED.iter().filter_map(|name| headers.get(name).map(|value| (name.clone(), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::outcome::{Forward, Outcome};
    use crate::proxy::told;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hop_by_hop_and_nominated_headers_stop_here_but_identity_and_framing_travel() {
        let mut headers = map(&[
            ("connection", "close, X-Trace, Authorization, host"),
            ("x-trace", "1"),
            ("authorization", "Bearer a"),
            ("host", "h"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("x-rejoinder-ttl", "5"),
            ("x-other", "2"),
        ]);
        strip_request(&mut headers);
        let travel = [("authorization", "Bearer a"), ("host", "h"), ("x-other", "2")];
        // Trailers are asked for in the name of both.
        let hop = [("te", "trailers"), ("connection", "te")];
        assert_eq!(headers, map(&[&travel[..], &hop].concat()));
    }

    #[test]
    fn a_coding_is_accepted_where_it_is_named_and_not_refused() {
        let accepts =
            |value: &'static str, coding| accepts_coding(&map(&[("accept-encoding", value)]), coding);
        for value in ["gzip", "br, GZip;q=0.5", "*", "identity;q=0, *", "gzip;x=0", "gzip, *;q=0"] {
            assert!(accepts(value, "gzip"), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "*, gzip; Q=0.000", "x-gzip", "*;q=0", "identity"] {
            assert!(!accepts(value, "gzip"), "{value}");
        }
        assert!(!accepts_coding(&HeaderMap::new(), "gzip") && accepts_coding(&HeaderMap::new(), "Identity"));
        assert!(accepts("gzip, br", "gzip, br") && !accepts("gzip", "gzip, br"));
    }

    #[test]
    fn a_header_that_is_told_apart_is_in_the_identity_of_those_who_do_not_send_it() {
        let (none, some) = (map(&[]), map(&[("x-tenant", "")]));
        let tenant = [HeaderName::from_static("x-tenant")];
        let of = |headers, configured| {
            identity(headers, Survey::of(headers), configured, "up", None, "").headers.len()
        };
        assert_eq!((of(&none, &[][..]), of(&none, &tenant[..])), (0, 1));
        let names = |headers| {
            identity(headers, Survey::of(headers), &tenant, "up", None, "")
                .headers
                .iter()
                .map(|(name, _)| name.len())
                .sum()
        };
        let (absent, empty): (usize, usize) = (names(&none), names(&some));
        assert_ne!(absent, empty, "absent is not empty");
    }

    #[test]
    fn a_survey_knows_the_names_that_are_told_apart() {
        for (at, name) in CREDENTIALS.iter().chain(&SCOPE).enumerate() {
            assert_eq!(Survey::kind(name), 1 << at, "{name}");
        }
        for name in HOP_BY_HOP.iter().filter(|name| *name != TRANSFER_ENCODING).chain([&EXPECT]) {
            assert_eq!(Survey::kind(name), Survey::HOP, "{name}");
        }
        for name in [&THRESHOLD, &TTL, &NAMESPACE, &CACHE_CONTROL] {
            assert_eq!(Survey::kind(name), Survey::DIRECTIVE, "{name}");
        }
        for name in [TRANSFER_ENCODING, CONTENT_ENCODING] {
            assert_eq!(Survey::kind(&name), Survey::CODING, "{name}");
        }
        let mut plain = map(&[("host", "h"), ("authorization", "a"), ("connection", "keep-alive")]);
        assert!(Survey::of(&plain).is_plain() && Survey::of(&plain).has_hop_by_hop());
        plain.append(HOST, HeaderValue::from_static("i"));
        assert!(!Survey::of(&plain).is_plain(), "two hosts");
    }

    #[test]
    fn repeated_credentials_are_all_in_the_identity() {
        let mut headers = map(&[("authorization", "a"), ("x-team", "red")]);
        headers.append(AUTHORIZATION, HeaderValue::from_static("b"));
        let team = [HeaderName::from_static("x-team")];
        let identity = identity(&headers, Survey::of(&headers), &team, "u", None, "");
        assert_eq!(identity.credentials, [("authorization", &b"a"[..]), ("authorization", b"b")]);
        assert_eq!(identity.headers, [("x-team", &b"red"[..])]);
    }

    #[test]
    fn upstream_cannot_forge_ours_and_keeps_its_cache_status() {
        let mut headers = map(&[("x-rejoinder-entry", "forged"), ("age", "5"), ("cache-status", "cdn; hit")]);
        strip_response(&mut headers);
        told::write(&mut headers, &Outcome::forwarded(Forward::Bypass));
        let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        assert_eq!(all, ["cdn; hit", "rejoinder; fwd=bypass"]);
        assert_eq!(headers.len(), 2);
    }
}
