//! Clients that ask throughout a test, and know which reply each of their requests must get.
//!
//! They mix new, repeated and re-worded questions of several askers, streamed and not. What the right reply is says
//! a second upstream, which the proxies do not know: the simulated one answers by the request alone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

mod oracle;
mod questions;
mod report;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::Mutex;
use rejoinder::config::{Config, EmbedderKind};
use tokio::task::JoinHandle;

use super::Proxy;
use super::client::Connection;
use super::redis::until;
pub use oracle::{Asked, Oracle};
pub use questions::{ASKERS, Question, WORDINGS};
pub use report::{Report, Sample, Verdict, layer, status};

/// A request without a whole reply after this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of so many of an asker's latest questions one is asked again.
const RECENT: usize = 30;

/// Of a hundred requests so many ask something new.
const NEW: u8 = 15;

/// Of a hundred requests that ask something again so many do in other words.
const REWORDED: u8 = 30;

/// A connection serves at most this many requests.
const REQUESTS_PER_CONNECTION: usize = 40;

/// Sets a proxy up so that the questions hit by meaning, at little cost: a build for tests embeds slowly, and what
/// the clients measure is the store.
pub fn embed_cheaply(config: &mut Config) {
    config.embedder = EmbedderKind::Ollama;
    config.embedder_url = config.upstream.default.url.clone();
    config.similarity_threshold = 0.8;
    // These tests ask what the store has; how sure one must be of a wording is no question of theirs.
    config.cache.min_confidence = Some(0.4);
}

/// How the clients ask.
#[derive(Debug, Clone, Copy)]
pub struct TrafficOptions {
    /// How many ask at the same time.
    pub clients: usize,
    /// What they ask follows from it, in which order from the clock too.
    pub seed: u64,
    /// How long a client waits between two requests.
    pub pause: Duration,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        Self { clients: 6, seed: 1, pause: Duration::from_millis(10) }
    }
}

/// Clients that ask until they are stopped.
pub struct Traffic {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    options: TrafficOptions,
    targets: Mutex<Vec<SocketAddr>>,
    under_way: Mutex<HashMap<SocketAddr, usize>>,
    oracle: Oracle,
    earlier: Vec<Earlier>,
    samples: Mutex<Vec<Sample>>,
    stopping: AtomicBool,
}

/// What one asker has asked.
#[derive(Default)]
struct Earlier {
    count: AtomicUsize,
    recent: Mutex<VecDeque<Question>>,
}

impl Traffic {
    /// Clients begin to ask these proxies, each request any one of them.
    pub async fn start(proxies: &[&Proxy]) -> Self {
        let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.address()).collect();
        Self::start_with(&addresses, TrafficOptions::default()).await
    }

    /// As [`Self::start`], in another manner.
    pub async fn start_with(targets: &[SocketAddr], options: TrafficOptions) -> Self {
        let shared = Arc::new(Shared {
            options,
            targets: Mutex::new(targets.to_vec()),
            under_way: Mutex::default(),
            oracle: Oracle::start().await,
            earlier: ASKERS.iter().map(|_| Earlier::default()).collect(),
            samples: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let clients = (0..options.clients)
            .map(|number| {
                let rng = Rng::with_seed(options.seed.wrapping_mul(1000).wrapping_add(number as u64));
                tokio::spawn(client(Arc::clone(&shared), rng))
            })
            .collect();
        Self { shared, clients }
    }

    /// All that has been asked so far.
    pub fn so_far(&self) -> Report {
        Report::new(self.shared.samples.lock().clone())
    }

    /// What has been asked since `instant`.
    pub fn since(&self, instant: Instant) -> Report {
        self.so_far().between(instant, Instant::now())
    }

    /// Waits until what is asked from now on is like this.
    pub async fn until(&self, what: &str, condition: impl Fn(&Report) -> bool) {
        let from = Instant::now();
        until(what, async || condition(&self.since(from))).await;
    }

    /// Waits until this many requests from now on were served by either layer, from each of the proxies.
    pub async fn until_hits(&self, count: usize) {
        let targets = self.shared.targets.lock().clone();
        self.until("hits", |report| targets.iter().all(|target| report.of(*target).hits() >= count)).await;
    }

    /// From now on a proxy takes no new requests; returns when it has answered those under way, as a load balancer
    /// lets a replica go.
    pub async fn without(&self, proxy: &Proxy) {
        let address = proxy.address();
        self.shared.targets.lock().retain(|target| *target != address);
        until("the requests under way are answered", async || {
            self.shared.under_way.lock().get(&address).copied().unwrap_or_default() == 0
        })
        .await;
    }

    /// From now on a proxy is asked too.
    pub fn with(&self, proxy: &Proxy) {
        self.shared.targets.lock().push(proxy.address());
    }

    /// Stops the clients once each has its reply; what they saw.
    pub async fn stop(self) -> Report {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        Report::new(std::mem::take(&mut *self.shared.samples.lock()))
    }
}

/// What is asked next.
struct Next {
    asked: Asked,
    fresh: bool,
}

impl Shared {
    fn next(&self, rng: &mut Rng) -> Next {
        let asker = rng.usize(..ASKERS.len());
        let earlier = &self.earlier[asker];
        let mut recent = earlier.recent.lock();
        let (question, wording) = if recent.is_empty() || rng.u8(..100) < NEW {
            let question = Question::numbered(earlier.count.fetch_add(1, Ordering::Relaxed));
            if recent.len() >= RECENT {
                recent.pop_front();
            }
            recent.push_back(question);
            (question, 0)
        } else {
            let wording = usize::from(rng.u8(..100) < REWORDED);
            (recent[rng.usize(..recent.len())], wording)
        };
        Next { asked: Asked { asker, question, wording, streamed: rng.bool() }, fresh: rng.u8(..100) < 2 }
    }

    /// Counts a request to one of the targets as under way; `None` where there is no target.
    fn depart(&self, rng: &mut Rng) -> Option<SocketAddr> {
        let targets = self.targets.lock();
        let target = *rng.choice(&*targets)?;
        *self.under_way.lock().entry(target).or_default() += 1;
        Some(target)
    }

    fn arrive(&self, target: SocketAddr) {
        if let Some(count) = self.under_way.lock().get_mut(&target) {
            *count -= 1;
        }
    }
}

async fn client(shared: Arc<Shared>, mut rng: Rng) {
    let mut connection: Option<(SocketAddr, Connection, usize)> = None;
    while !shared.stopping.load(Ordering::Relaxed) {
        tokio::time::sleep(shared.options.pause).await;
        let Some(target) = shared.depart(&mut rng) else { continue };
        let next = shared.next(&mut rng);
        let prompt = next.asked.prompt();
        let mut ask = next.asked.ask(&format!("http://{target}"));
        if next.fresh {
            ask = ask.header("cache-control", "no-cache");
        }
        connection = connection.filter(|(address, _, used)| *address == target && *used > 0);
        let started = Instant::now();
        let sent = tokio::time::timeout(PATIENCE, async {
            if connection.is_none() {
                let used = rng.usize(..REQUESTS_PER_CONNECTION);
                let open = Connection::open(target).await.map_err(|error| error.to_string())?;
                connection = Some((target, open, used));
            }
            let (_, open, left) = connection.as_mut().unwrap();
            *left = left.saturating_sub(1);
            open.send(ask).await.map_err(|error| format!("{error:?}"))
        })
        .await;
        let took = started.elapsed();
        shared.arrive(target);
        let (verdict, status) = match sent {
            Ok(Ok(reply)) => (shared.oracle.judge(&next.asked, &reply).await, status(&reply)),
            Ok(Err(error)) => (Verdict::Failed(format!("{error} to {prompt:?}")), String::new()),
            Err(_) => (Verdict::Failed(format!("no reply to {prompt:?}")), String::new()),
        };
        if matches!(verdict, Verdict::Failed(_)) {
            connection = None;
        }
        shared.samples.lock().push(Sample { target, started, took, verdict, status });
    }
}
