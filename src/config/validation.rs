//! What a configuration must keep to, beyond what its types say.

use std::net::IpAddr;

use http::{HeaderValue, Uri};

use super::{Config, Redis};
use crate::store::{EncryptionKeys, StoreOptions};

/// The endpoints by which `/ask` can ask.
const ASK_PATHS: [&str; 4] = ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"];

impl Config {
    /// The first setting that cannot be used, by its key with its table's name before it, and why.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        if let Some(reason) = url_problem(&self.embedder_url) {
            return Some(("embedder_url", reason));
        }
        if let Some(upstream) = self.upstream.all().find(|upstream| self.is_itself(&upstream.url)) {
            let reason = "this is the proxy's own address: every request would come back to it";
            return Some(("upstream", format!("{}: {reason}", upstream.url)));
        }
        for (key, share) in [
            ("similarity_threshold", self.similarity_threshold),
            ("cache.min_confidence", self.cache.min_confidence.unwrap_or(0.0)),
            ("cache.audit_share", self.cache.audit_share),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Some((key, format!("{share} is not between 0 and 1")));
            }
        }
        for (key, share, most) in [
            ("max_error", self.max_error, 1.0),
            ("cache.verified_confidence", self.cache.verified_confidence, 1.0),
            ("cache.comparison_error", self.cache.comparison_error, 0.5),
        ] {
            if !(0.0..=most).contains(&share) {
                return Some((key, format!("{share} is not between 0 and {most}")));
            }
        }
        let half_life = self.cache.freshness_half_life;
        if half_life.is_nan() || half_life <= 0.0 {
            return Some(("cache.freshness_half_life", format!("{half_life} is not more than 0")));
        }
        if let Some(problem) = self.address_problem() {
            return Some(problem);
        }
        let limits = &self.limits;
        for (key, limit) in [
            ("limits.max_connections", limits.max_connections as u64),
            ("limits.max_upstream_requests", limits.max_upstream_requests as u64),
            ("limits.max_entries", limits.max_entries),
        ] {
            if limit == 0 {
                return Some((
                    key,
                    "with 0 nothing could be served; leave the key out for the default".to_owned(),
                ));
            }
        }
        if limits.max_bytes.0 < StoreOptions::LEAST_BYTES {
            return Some((
                "limits.max_bytes",
                format!("the store needs {} bytes at least", StoreOptions::LEAST_BYTES),
            ));
        }
        for (key, wait) in [
            ("timeouts.connect", self.timeouts.connect),
            ("timeouts.first_byte", self.timeouts.first_byte),
            ("timeouts.idle", self.timeouts.idle),
            ("timeouts.request_head", self.timeouts.request_head),
        ] {
            if wait.is_zero() {
                return Some((
                    key,
                    "with 0 every request would fail; leave the key out for the default".to_owned(),
                ));
            }
        }
        if let Some(problem) = self.store_problem() {
            return Some(problem);
        }
        if let Some(problem) = self.redis.problem() {
            return Some(problem);
        }
        if let Some(problem) = self.telemetry.otlp.problem() {
            return Some(problem);
        }
        if self.ttl.is_zero() {
            return Some((
                "ttl",
                "an entry that lives for no time is never served; use embedder = \"off\" and \
                 Cache-Control: no-store to switch caching off"
                    .to_owned(),
            ));
        }
        if self.embedder_api_key.as_ref().is_some_and(|key| HeaderValue::from_str(key.expose()).is_err()) {
            return Some(("embedder_api_key", "it has characters that no header can hold".to_owned()));
        }
        if !ASK_PATHS.contains(&self.ask.path.as_str()) {
            return Some(("ask.path", format!("{:?} is none of {}", self.ask.path, ASK_PATHS.join(", "))));
        }
        if let Err(error) = self.log.filter.parse::<tracing_subscriber::EnvFilter>() {
            return Some(("log.filter", format!("{:?} is no log filter: {error}", self.log.filter)));
        }
        self.encryption_problem()
    }

    fn address_problem(&self) -> Option<(&'static str, String)> {
        if !self.admin_listen.ip().is_loopback() && self.admin.token.is_none() {
            let reason = format!(
                "{} can be reached from other machines and no admin token is set; set REJOINDER_ADMIN_TOKEN or \
                 admin.token, or listen on 127.0.0.1",
                self.admin_listen
            );
            return Some(("admin_listen", reason));
        }
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            return Some(("admin_listen", format!("clients are listened for on {} already", self.listen)));
        }
        None
    }

    fn store_problem(&self) -> Option<(&'static str, String)> {
        if self.data_dir.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return Some((
                "data_dir",
                "no folder is named; leave the key out to keep entries in memory alone".to_owned(),
            ));
        }
        if self.redis_url.is_some() && self.data_dir.is_some() {
            let reason =
                "the store is either in a folder or in Redis; leave out data_dir or redis_url".to_owned();
            return Some(("redis_url", reason));
        }
        None
    }

    fn encryption_problem(&self) -> Option<(&'static str, String)> {
        let error = EncryptionKeys::parse(self.encryption_key.as_ref()?.expose()).err()?;
        Some(("encryption_key", error.to_string()))
    }

    fn is_itself(&self, upstream: &Uri) -> bool {
        let host = upstream.host().unwrap_or_default().trim_matches(['[', ']']);
        let loops =
            |ip: IpAddr| ip == self.listen.ip() || (self.listen.ip().is_unspecified() && ip.is_loopback());
        let same_host = match host.parse::<IpAddr>() {
            Ok(ip) => loops(ip),
            Err(_) => {
                host.eq_ignore_ascii_case("localhost")
                    && (self.listen.ip().is_loopback() || self.listen.ip().is_unspecified())
            }
        };
        same_host && self.listen.port() != 0 && upstream.port_u16() == Some(self.listen.port())
    }
}

impl Redis {
    fn problem(&self) -> Option<(&'static str, String)> {
        let usable = |prefix: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
            !prefix.is_empty() && prefix.len() <= 64 && prefix.bytes().all(plain)
        };
        if !usable(&self.key_prefix) {
            let reason =
                "a prefix is 1 to 64 letters, digits and -_.:/, since others mean something in patterns";
            return Some(("redis.key_prefix", reason.to_owned()));
        }
        for (key, wait) in
            [("redis.connect_timeout", self.connect_timeout), ("redis.command_timeout", self.command_timeout)]
        {
            if wait.is_zero() {
                return Some((
                    key,
                    "with 0 Redis would never be reached; leave the key out for the default".to_owned(),
                ));
            }
        }
        if self.max_entries_per_scope == 0 {
            let reason =
                "with 0 nothing would be found by meaning; use embedder = \"off\" for that".to_owned();
            return Some(("redis.max_entries_per_scope", reason));
        }
        None
    }
}

pub(super) fn url_problem(uri: &Uri) -> Option<String> {
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => {}
        _ => return Some(format!("{uri} is no URL of the form http://host:port or https://host/prefix")),
    }
    if uri.query().is_some() {
        return Some(format!("{uri} has a query string; give it without"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Some(
            "a URL with a user name or password is not taken; clients send their own credentials".to_owned(),
        );
    }
    None
}
