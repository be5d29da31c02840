//! The proxy under test: in this process, on free loopback ports, in front of a simulated upstream.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rejoinder::config::{Config, EmbedderKind, Embedding, Log};
use rejoinder::server::Server;
use rejoinder::simulated::{Simulated, SimulatedOptions};
use rejoinder::telemetry::ReloadResult;
use serde_json::{Value, json};

use super::client::{Ask, Reply};

/// A running proxy. It stops with the test's runtime, or by [`Proxy::shutdown`].
pub struct Proxy {
    server: Server,
}

/// A proxy with the default configuration and the exact layer alone: what most promises are about.
pub async fn proxy(upstream: &Simulated) -> Proxy {
    proxy_with(upstream, |_| {}).await
}

/// A proxy with both layers.
pub async fn semantic_proxy(upstream: &Simulated) -> Proxy {
    proxy_with(upstream, |config| config.embedder = EmbedderKind::Builtin).await
}

/// A proxy with a configuration of the test's own, which starts from that of [`proxy`].
pub async fn proxy_with(upstream: &Simulated, customise: impl FnOnce(&mut Config)) -> Proxy {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let url = upstream.url().parse().unwrap();
    let mut config = Config {
        listen: free,
        admin_listen: free,
        embedder: EmbedderKind::Off,
        log: Log { requests: false, ..Log::default() },
        // Embedding is slow in a build without optimisation, on a machine that runs many tests at once.
        embedding: Embedding { timeout: Duration::from_mins(1), ..Embedding::default() },
        upstream: url,
        ..Config::default()
    };
    customise(&mut config);
    Proxy { server: Server::start(config).await.unwrap_or_else(|error| panic!("{error}")) }
}

/// A proxy in front of a server that the test plays itself.
pub async fn proxy_to(url: &str, customise: impl FnOnce(&mut Config)) -> Proxy {
    let unused = Simulated::start(SimulatedOptions::default()).await.unwrap();
    proxy_with(&unused, |config| {
        config.upstream = url.parse().unwrap();
        customise(config);
    })
    .await
}

/// Has it store a reply to each of these, as (model, namespace, prompt); no namespace where that is empty.
pub async fn fill(proxy: &Proxy, asked: &[(&str, &str, &str)]) {
    for (model, namespace, prompt) in asked {
        let request = json!({"model": model, "prompt": prompt, "stream": false});
        let ask = proxy.post("/api/generate", &request);
        let ask = if namespace.is_empty() { ask } else { ask.header("x-rejoinder-namespace", namespace) };
        assert_eq!(ask.send().await.status, 200);
    }
}

impl Proxy {
    /// The base URL for clients, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The base URL for operators, without a slash at the end.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.server.admin_address())
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.server.admin_address()
    }

    /// Reloads with a changed configuration.
    pub async fn reload(&self, change: impl FnOnce(&mut Config)) -> ReloadResult {
        let mut config = self.server.live().config();
        change(&mut config);
        self.server.live().reload(Ok(config.into())).await
    }

    /// `POST` of a JSON body to a path.
    pub fn post(&self, path: &str, body: &Value) -> Ask {
        Ask::post(&format!("{}{path}", self.url()), body)
    }

    /// Shuts down in good order, as on SIGTERM.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }
}

impl Reply {
    /// The proxy's own member of `Cache-Status` (RFC 9211), which is the last; fails the test without one.
    pub fn cache_status(&self) -> &str {
        let all = self.headers.get_all("cache-status");
        let last = all.iter().next_back().unwrap_or_else(|| panic!("no Cache-Status: {self:?}"));
        let member = last.to_str().unwrap();
        assert!(member.starts_with("rejoinder"), "{member}");
        member
    }

    /// Which layer served it, of `exact` and `semantic`; `None` for what is no hit.
    pub fn layer(&self) -> Option<&str> {
        let status = self.cache_status();
        let parameters: Vec<_> = status.split("; ").collect();
        if !parameters.contains(&"hit") {
            return None;
        }
        parameters.iter().find_map(|parameter| parameter.strip_prefix("detail="))
    }
}
