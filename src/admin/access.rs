//! Who may use the admin listener: a page in the operator's browser may not, whatever name it came by.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{StatusCode, Uri, request};

use super::Refusal;
use crate::config;

/// The checks before every path but the probes'.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// The hash of the token, so that comparing takes the same time whatever is sent.
    token: Option<blake3::Hash>,
    hosts: Vec<String>,
    port: u16,
}

impl Access {
    pub(super) fn new(config: &config::Admin, address: SocketAddr) -> Self {
        Self { token: None, hosts: Vec::new(), port: address.port() }.renewed(config)
    }

    /// The same listener under another configuration.
    pub(super) fn renewed(&self, config: &config::Admin) -> Self {
        let token = config.token.as_ref().map(|token| blake3::hash(token.expose().as_bytes()));
        Self { token, hosts: config.hosts.clone(), port: self.port }
    }

    pub(super) fn check(&self, parts: &request::Parts) -> Result<(), Refusal> {
        let host =
            host(parts).ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the request has no Host"))?;
        if !self.knows(&host) {
            let message = format!(
                "this listener is not known as {:?}; if it should be, add the name to admin.hosts",
                host.host()
            );
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, message));
        }
        // A page of another origin may send simple requests without asking; it may not here.
        for origin in parts.headers.get_all(ORIGIN) {
            let same = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.parse::<Uri>().ok())
                .and_then(|origin| origin.authority().cloned())
                .is_some_and(|origin| origin == host);
            if !same {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "requests of other origins' pages are refused",
                ));
            }
        }
        self.check_token(parts)
    }

    fn check_token(&self, parts: &request::Parts) -> Result<(), Refusal> {
        let Some(expected) = &self.token else { return Ok(()) };
        let sent = parts.headers.get(AUTHORIZATION).and_then(|value| token_of(value.as_bytes()));
        // Comparing hashes of blake3 takes constant time.
        if sent.is_some_and(|token| blake3::hash(&token) == *expected) {
            return Ok(());
        }
        let message =
            "send the admin token as `Authorization: Bearer …`, or in a browser as the password of any user";
        Err(Refusal { challenge: true, ..Refusal::new(StatusCode::UNAUTHORIZED, message) })
    }

    /// Whether the name is one that no web page's own name can be made to point here: an address, `localhost`,
    /// or a name that the operator configured.
    fn knows(&self, host: &Authority) -> bool {
        let name = host.host();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let configured = self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
        let local =
            name.eq_ignore_ascii_case("localhost") && host.port_u16().is_none_or(|port| port == self.port);
        address || configured || local
    }
}

/// The token in the value of `Authorization`: after `Bearer`, or the password of HTTP Basic (RFC 7617), the one scheme
/// by which every browser can be asked for it and sends it with all that a page loads. A page of another origin that
/// makes a browser send it along is refused by its `Origin`.
fn token_of(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, sent) = value.split_at_checked(space)?;
    let sent = sent.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Cow::Borrowed(sent));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let mut pair = STANDARD.decode(sent).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(Cow::Owned(pair.split_off(colon + 1)))
}

/// The host asked for: of the target where it has one (HTTP/2, absolute form), else of the one `Host` header.
fn host(parts: &request::Parts) -> Option<Authority> {
    if let Some(authority) = parts.uri.authority() {
        return Some(authority.clone());
    }
    let mut values = parts.headers.get_all(HOST).iter();
    let (host, None) = (values.next()?, values.next()) else { return None };
    Authority::try_from(host.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::Secret;

    fn status(token: Option<&str>, headers: &[(&str, &str)]) -> Option<u16> {
        let config = config::Admin {
            token: token.map(|token| Secret::new(token.to_owned())),
            hosts: vec!["cache.example".to_owned()],
        };
        let access = Access::new(&config, SocketAddr::from(([127, 0, 0, 1], 11436)));
        let request =
            headers.iter().fold(Request::get("/metrics"), |r, (name, value)| r.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        access.check(&parts).err().map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_known_and_no_others() {
        for host in ["127.0.0.1:11436", "[::1]:11436", "localhost:11436", "10.0.0.7", "cache.example"] {
            assert_eq!(status(None, &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost:9"] {
            assert_eq!(status(None, &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(status(None, &[]), Some(400));
        assert_eq!(status(None, &[("host", "localhost"), ("host", "localhost")]), Some(400));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let from = |origin| status(None, &[("host", "localhost:11436"), ("origin", origin)]);
        assert_eq!(from("http://localhost:11436"), None);
        for origin in ["https://evil.example", "null", "http://localhost:3000"] {
            assert_eq!(from(origin), Some(403), "{origin}");
        }
    }

    #[test]
    fn the_token_is_asked_for_where_one_is_set() {
        let with = |value| status(Some("secret"), &[("host", "localhost"), ("authorization", value)]);
        assert_eq!(with("Bearer secret"), None);
        assert_eq!(with("bearer secret"), None);
        // `any:secret`, `:secret`: browsers ask for a user as well, and it may be anything.
        for value in ["Basic YW55OnNlY3JldA==", "basic OnNlY3JldA=="] {
            assert_eq!(with(value), None, "{value}");
        }
        // `secret`, `any:secret2`, `secret:any`, what is no base64, and nothing.
        let no_password =
            ["Basic c2VjcmV0", "Basic YW55OnNlY3JldDI=", "Basic c2VjcmV0OmFueQ==", "Basic !", "Basic "];
        for value in ["Bearer wrong", "secret", "Basic secret", "Bearer", "Digest secret"]
            .into_iter()
            .chain(no_password)
        {
            assert_eq!(with(value), Some(401), "{value}");
        }
        assert_eq!(status(Some("secret"), &[("host", "localhost")]), Some(401));
    }
}
