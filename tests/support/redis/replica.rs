//! Proxies that share what is stored in Redis, and what tests ask of them.

use std::time::Duration;

use http::Method;
use rejoinder::config::Config;
use rejoinder::simulated::Simulated;
use serde_json::{Value, json};

use super::until;
use crate::support::traffic::{Question, embed_cheaply};
use crate::support::{Ask, Proxy, Reply, proxy_with};

/// How long a patient replica waits for Redis.
const PATIENCE: Duration = Duration::from_secs(5);

/// The endpoint that [`Shared`] asks.
const PATH: &str = "/v1/chat/completions";

/// A proxy over this Redis, with both layers.
pub async fn replica(upstream: &Simulated, url: &str) -> Proxy {
    replica_with(upstream, url, |_| {}).await
}

/// As [`replica`], with a configuration of the test's own.
pub async fn replica_with(upstream: &Simulated, url: &str, customise: impl FnOnce(&mut Config)) -> Proxy {
    proxy_with(upstream, |config| {
        embed_cheaply(config);
        config.redis_url = Some(url.parse().unwrap_or_else(|error| panic!("{url}: {error}")));
        customise(config);
    })
    .await
}

/// As [`replica_with`], for what is not about time: it gives Redis longer than the defaults do, for machines that
/// run many tests at once.
pub async fn patient_replica_with(
    upstream: &Simulated,
    url: &str,
    customise: impl FnOnce(&mut Config),
) -> Proxy {
    replica_with(upstream, url, |config| {
        config.redis.connect_timeout = PATIENCE;
        config.redis.command_timeout = PATIENCE;
        customise(config);
    })
    .await
}

/// As [`patient_replica_with`], without a configuration of the test's own.
pub async fn patient_replica(upstream: &Simulated, url: &str) -> Proxy {
    patient_replica_with(upstream, url, |_| {}).await
}

/// What tests ask of a proxy over Redis.
pub trait Shared {
    /// Asks; what is missing is fetched and stored.
    fn ask(&self, prompt: &str) -> impl Future<Output = Reply>;

    /// What is served of it from the cache, if anything; asks no upstream and stores nothing.
    fn look_up(&self, prompt: &str) -> impl Future<Output = Reply>;

    /// Which layer would serve it; asks no upstream and stores nothing.
    fn layer_of(&self, prompt: &str) -> impl Future<Output = Option<String>>;

    /// Waits until this layer serves it, or none does.
    fn until_served_by(&self, layer: Option<&str>, prompt: &str) -> impl Future<Output = ()>;

    /// Waits until the exact layer serves a question and the semantic one its other wording.
    fn until_known(&self, question: Question) -> impl Future<Output = ()>;

    /// Waits until this stores a question and another serves it by both layers; asks again where it was not stored
    /// because Redis was out of reach, or lost again.
    fn until_shared_with(&self, other: &Self, question: Question) -> impl Future<Output = ()>;

    /// Waits until neither layer serves a question in any wording.
    fn until_unknown(&self, question: Question) -> impl Future<Output = ()>;

    /// How the store is, as `readyz` says it; that must come with 200.
    fn store_state(&self) -> impl Future<Output = String>;

    /// Waits until the store is as good as new.
    fn until_store_is_ok(&self) -> impl Future<Output = ()>;

    /// Takes the entry of a prompt out by the admin listener.
    fn delete(&self, prompt: &str) -> impl Future<Output = ()>;

    /// Takes all entries out that a selector says; how many there were.
    fn purge(&self, selector: Value) -> impl Future<Output = u64>;
}

fn chat(proxy: &Proxy, prompt: &str) -> Ask {
    proxy.post(PATH, &json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]}))
}

impl Shared for Proxy {
    async fn ask(&self, prompt: &str) -> Reply {
        let reply = chat(self, prompt).send().await;
        assert_eq!(reply.status, 200, "{prompt}: {reply:?}");
        reply
    }

    async fn look_up(&self, prompt: &str) -> Reply {
        let reply = chat(self, prompt).header("cache-control", "only-if-cached").send().await;
        assert!(matches!(reply.status.as_u16(), 200 | 504), "{prompt}: {reply:?}");
        reply
    }

    async fn layer_of(&self, prompt: &str) -> Option<String> {
        self.look_up(prompt).await.layer().map(str::to_owned)
    }

    async fn until_served_by(&self, layer: Option<&str>, prompt: &str) {
        let what = format!("{prompt:?} is served by {layer:?} at {}", self.address());
        until(&what, async || self.layer_of(prompt).await.as_deref() == layer).await;
    }

    async fn until_known(&self, question: Question) {
        self.until_served_by(Some("exact"), &question.worded(0)).await;
        self.until_served_by(Some("semantic"), &question.worded(1)).await;
    }

    async fn until_shared_with(&self, other: &Self, question: Question) {
        until(&format!("{question:?} is shared"), async || {
            self.ask(&question.worded(0)).await;
            other.layer_of(&question.worded(0)).await.as_deref() == Some("exact")
                && other.layer_of(&question.worded(1)).await.as_deref() == Some("semantic")
        })
        .await;
    }

    async fn until_unknown(&self, question: Question) {
        self.until_served_by(None, &question.worded(0)).await;
        self.until_served_by(None, &question.worded(1)).await;
    }

    async fn store_state(&self) -> String {
        let reply = Ask::get(&format!("{}/readyz", self.admin_url())).send().await;
        assert_eq!(reply.status, 200, "it can serve: {}", reply.text());
        reply.json()["store"].as_str().unwrap().to_owned()
    }

    async fn until_store_is_ok(&self) {
        until("the store is ok", async || self.store_state().await == "ok").await;
    }

    async fn delete(&self, prompt: &str) {
        self.until_served_by(Some("exact"), prompt).await;
        let served = self.ask(prompt).await;
        let id = served.header("x-rejoinder-entry").unwrap_or_else(|| panic!("{prompt:?}: {served:?}"));
        let url = format!("{}/entries/{id}", self.admin_url());
        assert_eq!(Ask::new(Method::DELETE, &url).send().await.status, 204);
    }

    async fn purge(&self, selector: Value) -> u64 {
        let reply = Ask::post(&format!("{}/purge", self.admin_url()), &selector).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["purged"].as_u64().unwrap()
    }
}
