//! `--redis-url`: where Redis is, and in which of its arrangements.
//!
//! Source of the plain forms: the URI schemes `redis` and `rediss` registered with IANA; the others are ours.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port of Redis, and of Sentinel.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is. Shown with its password masked.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(super) place: Place,
    /// Whether connections are encrypted.
    pub(super) tls: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    /// The database's number; a cluster has only 0.
    pub(super) database: u32,
}

/// A host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
}

/// The arrangement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// One server.
    Server(Server),
    /// One server on this machine.
    Socket(PathBuf),
    /// A cluster, known by some of its nodes.
    Cluster(Vec<Server>),
    /// A master that sentinels know by name.
    Sentinel { sentinels: Vec<Server>, master: String },
}

/// Why a text is no URL of Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; one of redis://host:port, rediss://host:port (TLS), redis+unix:///path/to/socket, \
         redis+cluster://host:port,host:port or redis+sentinel://host:port,host:port/master-name is meant, \
         each with user:password@ before the host where needed, and rediss+… for TLS"
)]
pub struct RedisUrlError(String);

impl RedisUrl {
    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The same with this password.
    #[must_use]
    pub fn with_password(self, password: String) -> Self {
        Self { password: Some(password), ..self }
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| RedisUrlError(what.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let (tls, form) = match scheme {
            "redis" | "valkey" => (false, ""),
            "rediss" | "valkeys" => (true, ""),
            "redis+unix" | "unix" => (false, "unix"),
            "redis+cluster" => (false, "cluster"),
            "rediss+cluster" => (true, "cluster"),
            "redis+sentinel" => (false, "sentinel"),
            "rediss+sentinel" => (true, "sentinel"),
            _ => return Err(wrong("its scheme is not known")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let mut url = Self {
            place: Place::Socket(PathBuf::new()),
            tls,
            username: filled(decoded(username)?),
            password: filled(decoded(password)?),
            database: 0,
        };
        let path = decoded(path)?;
        // A socket's path is all path.
        let names = if form == "unix" { "" } else { path.trim_matches('/') };
        let mut segments = names.split('/').filter(|segment| !segment.is_empty());
        match form {
            "unix" => {
                if !hosts.is_empty() || path.len() < 2 {
                    return Err(wrong("the path of the socket is missing, which begins with a slash"));
                }
                url.place = Place::Socket(Path::new(&path).to_owned());
            }
            "cluster" => url.place = Place::Cluster(servers(hosts, PORT)?),
            "sentinel" => {
                let master =
                    segments.next().ok_or_else(|| wrong("the master's name is missing after the hosts"))?;
                let sentinels = servers(hosts, SENTINEL_PORT)?;
                url.place = Place::Sentinel { sentinels, master: master.to_owned() };
            }
            _ => match <[Server; 1]>::try_from(servers(hosts, PORT)?) {
                Ok([server]) => url.place = Place::Server(server),
                Err(_) => return Err(wrong("several hosts are a cluster or sentinels")),
            },
        }
        if let Some(database) = segments.next() {
            url.database = database.parse().map_err(|_| wrong("the database is not a number"))?;
        }
        if segments.next().is_some() {
            return Err(wrong("its path is too long"));
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "db" => url.database = value.parse().map_err(|_| wrong("the database is not a number"))?,
                "user" => url.username = filled(value.into_owned()),
                "pass" => url.password = filled(value.into_owned()),
                _ => return Err(wrong("its query has a parameter other than db, user and pass")),
            }
        }
        if url.database != 0 && matches!(url.place, Place::Cluster(_)) {
            return Err(wrong("a cluster has only the database 0"));
        }
        Ok(url)
    }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Percent-decoding (RFC 3986 §2.1).
fn decoded(text: &str) -> Result<String, RedisUrlError> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| RedisUrlError("a percent-encoded part of it is not UTF-8".to_owned()))
}

fn servers(hosts: &str, port: u16) -> Result<Vec<Server>, RedisUrlError> {
    hosts.split(',').map(|host| server(host, port)).collect()
}

fn server(text: &str, default: u16) -> Result<Server, RedisUrlError> {
    let wrong = |what: &str| Err(RedisUrlError(what.to_owned()));
    let (host, port) = match text.strip_prefix('[') {
        // RFC 3986 §3.2.2: an IPv6 address stands in brackets.
        Some(rest) => match rest.split_once(']') {
            Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or(rest)),
            None => return wrong("a bracket is not closed"),
        },
        None => text.split_once(':').unwrap_or((text, "")),
    };
    if host.is_empty() {
        return wrong("a host is missing");
    }
    if host.contains(['[', ']']) {
        return wrong("a bracket stands inside a host");
    }
    let port = match port {
        "" => default,
        port => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return wrong("a port is no number from 1 to 65535"),
        },
    };
    Ok(Server { host: host.to_owned(), port })
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self.place {
            Place::Server(_) => "",
            Place::Socket(_) => "+unix",
            Place::Cluster(_) => "+cluster",
            Place::Sentinel { .. } => "+sentinel",
        };
        write!(f, "redis{}{form}://", if self.tls { "s" } else { "" })?;
        if self.username.is_some() || self.password.is_some() {
            let password = if self.password.is_some() { ":***" } else { "" };
            write!(f, "{}{password}@", self.username.as_deref().unwrap_or_default())?;
        }
        let list = |servers: &[Server]| servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match &self.place {
            Place::Server(server) => write!(f, "{server}")?,
            Place::Socket(path) => write!(f, "{}", path.display())?,
            Place::Cluster(servers) => f.write_str(&list(servers))?,
            Place::Sentinel { sentinels, master } => write!(f, "{}/{master}", list(sentinels))?,
        }
        match (&self.place, self.database) {
            (_, 0) => Ok(()),
            (Place::Socket(_), database) => write!(f, "?db={database}"),
            (_, database) => write!(f, "/{database}"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_is_read_and_shown_without_its_password() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://localhost:7000/3", "redis://localhost:7000/3"),
            ("redis://:s%40crt@[::1]:7000", "redis://:***@[::1]:7000"),
            ("rediss://app:secret@cache.example", "rediss://app:***@cache.example:6379"),
            ("redis+unix:///run/redis.sock?db=2&pass=x", "redis+unix://:***@/run/redis.sock?db=2"),
            ("redis+cluster://a:1,b:2", "redis+cluster://a:1,b:2"),
            ("rediss+sentinel://u:p@a,b:2/main/1", "rediss+sentinel://u:***@a:26379,b:2/main/1"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
        let url: RedisUrl = "redis://:s%40crt@h".parse().unwrap();
        assert_eq!(url.password.as_deref(), Some("s@crt"));
    }

    #[test]
    fn what_is_none_is_refused_with_the_reason() {
        for (text, reason) in [
            ("localhost:6379", "no scheme"),
            ("http://localhost", "scheme is not known"),
            ("redis://", "host is missing"),
            ("redis://a,b", "several hosts"),
            ("redis://a:0", "port"),
            ("redis://a:x", "port"),
            ("redis://a/b", "database"),
            ("redis://a/1/2", "too long"),
            ("redis+unix://", "socket"),
            ("redis+cluster://a/1", "only the database 0"),
            ("redis+sentinel://a", "master's name"),
            ("redis://a?ssl=1", "parameter"),
            ("redis://[::1", "bracket"),
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.starts_with(reason) || error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_never_shows_a_password(
            text in "(redis|rediss|redis\\+cluster|redis\\+sentinel|redis\\+unix)://[ -~]{0,40}", secret in "[a-z]{12}"
        ) {
            let _ = text.parse::<RedisUrl>();
            let with = format!("redis://user:{secret}@host");
            prop_assert!(!with.parse::<RedisUrl>().unwrap().to_string().contains(&secret));
        }
    }
}
