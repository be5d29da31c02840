//! Listeners and connections: accepts clients, serves each connection by the stack, drains on shutdown.
//!
//! Called by `cli`, by the tests and by the benchmarks, which all start the same [`Server`].

mod connection;
mod half_close;
mod live;
mod socket;
mod stack;
mod traced;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{info, warn};

use connection::Listener;
use live::InForce;
pub use live::Live;

use crate::admin::{self, Admin, Readiness};
use crate::cache::decision::Policy;
use crate::cache::trial::TrialOptions;
use crate::cache::verified::Limits;
use crate::cache::{self, Cache, Parts, guard};
use crate::config::{Config, EmbedderKind, Loaded, Mode, Status, Timeouts};
use crate::embed::Embedder;
use crate::models::{Models, ModelsError};
use crate::proxy::{Current, Proxy, UpstreamUrlError};
use crate::store::redis::{RedisOptions, RedisUrl};
use crate::store::{EncryptionKeys, OpenError, Store, StoreOptions};
use crate::telemetry::Metrics;
use crate::telemetry::series::STEP;
use crate::trace::{ExportError, Tracer};

/// How long requests to the admin listener may take to finish; none of them is long.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// How long the errors may take that answer what is open when the time for it has passed.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", remedy(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The embedder, the verifier or their calibration.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The store or the embedder failed while it was made.
    #[error("the store or the embedder could not be made: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
    /// The upstream's URL.
    #[error(transparent)]
    Upstream(#[from] UpstreamUrlError),
    /// Where traces go.
    #[error(transparent)]
    Traces(#[from] ExportError),
}

fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another program listens there, perhaps another rejoinder: stop it, or choose another port"
        }
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose a higher one",
        _ => "",
    }
}

/// A running proxy.
pub struct Server {
    address: SocketAddr,
    admin_address: SocketAddr,
    /// Tells the readiness probe.
    leaving: watch::Sender<bool>,
    /// Tells the client listener.
    stopping: watch::Sender<bool>,
    /// Tells the admin listener, which answers until all clients have been served.
    stopped: watch::Sender<bool>,
    clients: JoinHandle<()>,
    operators: JoinHandle<()>,
    counting: AbortHandle,
    cache: Arc<Cache>,
    live: Arc<Live>,
    tracer: Option<Tracer>,
}

impl Server {
    /// Opens the store, makes the embedder, listens on both addresses and serves.
    ///
    /// # Errors
    /// See [`StartError`]; each says what would help.
    pub async fn start(loaded: impl Into<Loaded>) -> Result<Self, StartError> {
        let loaded = loaded.into();
        let config = loaded.config.clone();
        let listener = listen(config.listen).await?;
        let admin_listener = listen(config.admin_listen).await?;
        let (address, admin_address) =
            (local(&listener, config.listen)?, local(&admin_listener, config.admin_listen)?);
        let (cache, policy) = open_cache(&config).await?;
        let cache = Arc::new(cache);
        let metrics = Arc::new(Metrics::new(&config));
        let tracer = Tracer::start(&config.telemetry.otlp, metrics.spans().clone())?;
        let savings = Arc::clone(metrics.savings());
        let decisions = Arc::clone(metrics.decisions());
        let proxy = Current::new(Proxy::new(&config, Arc::clone(&cache), savings, decisions)?);
        let counting = tokio::spawn(count_over_time(Arc::downgrade(&metrics))).abort_handle();
        let (leaving, readiness_falls) = watch::channel(false);
        let (stopping, clients_stop) = watch::channel(false);
        let (stopped, operators_stop) = watch::channel(false);
        let status = Arc::new(Status::new(loaded));
        let readiness = Readiness::new(&config, Arc::clone(&cache), readiness_falls);
        let admin = Admin::new(
            &config,
            admin_address,
            admin::Parts {
                cache: Arc::clone(&cache),
                proxy: proxy.clone(),
                metrics: Arc::clone(&metrics),
                readiness,
                status: Arc::clone(&status),
            },
        );
        for warning in &config.upstream.warnings {
            warn!("{warning}");
        }
        info!(%address, upstream = %config.upstream.default.url, "listening for clients");
        for upstream in &config.upstream.by_model {
            info!(name = upstream.name, upstream = %upstream.url, "choosing by model");
        }
        info!(address = %admin_address, "listening for operators");
        if let Some(collector) = config.telemetry.otlp.url() {
            info!(%collector, sampling_ratio = config.telemetry.otlp.sampling_ratio, "exporting traces");
        }
        let in_force = InForce { config, policy, cache: Arc::clone(&cache) };
        let live = Arc::new(Live::new(in_force, live::Parts { proxy, admin, status, metrics }));
        let clients = Listener {
            socket: listener,
            settings: Arc::clone(&live.connections),
            stopping: clients_stop,
            service: stack::clients(
                live.proxy.clone(),
                Arc::clone(&live.metrics),
                Arc::clone(&live.log_requests),
                tracer.clone(),
            ),
            connections: Some(Arc::clone(&live.metrics)),
        };
        let operators = Listener {
            socket: admin_listener,
            settings: Arc::clone(&live.connections),
            stopping: operators_stop,
            service: live.admin.clone(),
            connections: None,
        };
        let (clients, operators) = (tokio::spawn(clients.run()), tokio::spawn(operators.run()));
        Ok(Self {
            address,
            admin_address,
            leaving,
            stopping,
            stopped,
            clients,
            operators,
            counting,
            cache,
            live,
            tracer,
        })
    }

    /// What follows the configuration, to reload it.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Stops accepting, lets open requests finish for at most the configured time, and writes the store out.
    /// Readiness falls first, by the configured notice; the admin listener stops last.
    pub async fn shutdown(mut self) {
        // Whoever is gone already need not hear, here and below.
        let _ = self.leaving.send(true);
        let Timeouts { notice, drain, .. } = self.live.config().timeouts;
        tokio::time::sleep(notice).await;
        let _ = self.stopping.send(true);
        if tokio::time::timeout(drain, &mut self.clients).await.is_err() {
            warn!(after = ?drain, "requests were still open; closing their connections");
            self.live.proxy.close();
            // Who waits for an answer hears that none comes; what is being answered is cut off.
            let _ = tokio::time::timeout(LAST_WORDS, &mut self.clients).await;
            self.clients.abort();
        }
        self.live.metrics.decisions().end();
        let _ = self.stopped.send(true);
        if tokio::time::timeout(ADMIN_DRAIN, &mut self.operators).await.is_err() {
            warn!("operators' requests were still open; closing their connections");
            self.operators.abort();
        }
        self.counting.abort();
        self.cache.behind().end().await;
        if let Err(error) = self.cache.store().close().await {
            warn!(%error, "the store was not written out whole");
        }
        if let Some(tracer) = &self.tracer {
            tracer.shutdown().await;
        }
    }
}

/// Ends each step of the counts over time, for as long as anybody counts.
async fn count_over_time(metrics: Weak<Metrics>) {
    loop {
        tokio::time::sleep(STEP).await;
        let Some(metrics) = metrics.upgrade() else { return };
        metrics.step();
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address, source })
}

/// What mode verified keeps to.
pub fn limits(config: &Config) -> Limits {
    Limits {
        max_error: config.max_error,
        confidence: config.cache.verified_confidence,
        comparison_error: config.cache.comparison_error,
    }
}

/// What of the configuration the cache judges by.
fn settings(config: &Config, policy: Policy) -> cache::Settings {
    cache::Settings {
        policy,
        rules: config.cache.rules(),
        ttl: config.ttl,
        credential_ttl: config.cache.credential_ttl,
        trials: TrialOptions {
            observe: config.mode == Mode::Observe,
            audit_share: config.cache.audit_share,
            near_misses: config.cache.near_misses,
            verified: (config.mode == Mode::Verified).then(|| limits(config)),
        },
        remembers_matches: config.mode == Mode::Reuse,
    }
}

fn warn_of_policy(config: &Config, policy: Policy) {
    if policy.min_confidence >= 1.0 {
        warn!(
            max_error = config.max_error,
            "no confidence was found to keep to this error: nothing will be reused by meaning; raise max_error, or set \
             cache.min_confidence"
        );
    }
}

async fn open_cache(config: &Config) -> Result<(Cache, Policy), StartError> {
    // Reading the model and the store takes a while and must not hold up anything else that runs here.
    let wanted = config.clone();
    let models = tokio::task::spawn_blocking(move || {
        guard::warm_up();
        Models::load(&wanted)
    });
    let models = models.await??;
    let policy = models.policy(config).map_err(ModelsError::from)?;
    warn_of_policy(config, policy);
    let Models { embedder, verifier } = models;
    let secret = config.secret.as_ref().map(|secret| secret.expose().as_bytes().to_vec());
    let encryption = encryption_keys(config)?;
    let store = if let Some(url) = &config.redis_url {
        let options = redis_options(config, url, embedder.as_ref(), secret.clone());
        Store::connect(RedisOptions { encryption, ..options }).await?
    } else {
        let options = StoreOptions {
            max_bytes: config.limits.max_bytes.0,
            max_entries: config.limits.max_entries,
            data_dir: config.data_dir.clone(),
            encryption,
            ..StoreOptions::default()
        };
        tokio::task::spawn_blocking(move || Store::open(&options)).await??
    };
    if let Some(embedder) = &embedder
        && config.embedder != EmbedderKind::Builtin
        && config.cache.calibration.is_none()
    {
        warn!(
            embedder = embedder.name(),
            "confidence is calibrated for the built-in embedder and may be wrong for this one; measure it on your own \
             pairs by `rejoinder eval PAIRS --calibrate FILE`, and name the file as cache.calibration"
        );
    }
    let parts = Parts { secret, store, embedder, verifier, settings: settings(config, policy) };
    // What the store remembers is recalled, which takes a while too.
    Ok((tokio::task::spawn_blocking(move || Cache::new(parts)).await?, policy))
}

/// The keys of encryption at rest, and what would make them worth less than they look.
fn encryption_keys(config: &Config) -> Result<EncryptionKeys, StartError> {
    let Some(keys) = &config.encryption_key else { return Ok(EncryptionKeys::default()) };
    let keys = EncryptionKeys::parse(keys.expose())
        .map_err(|error| OpenError::Options(format!("encryption_key: {error}")))?;
    if config.redis_url.is_none() && config.data_dir.is_some() && config.secret.is_none() {
        warn!(
            "entries are encrypted, but no REJOINDER_SECRET is set: the secret of their names lies beside them in the              data directory, so whoever reads that could test guesses of prompts and credentials"
        );
    }
    Ok(keys)
}

fn redis_options(
    config: &Config,
    url: &RedisUrl,
    embedder: Option<&Embedder>,
    secret: Option<Vec<u8>>,
) -> RedisOptions {
    if secret.is_none() {
        warn!(
            "no REJOINDER_SECRET is set: the replicas agree upon a secret that is kept in Redis, so whoever can \
             read Redis could test guesses of prompts and credentials; set the same secret for all replicas"
        );
    }
    let redis = &config.redis;
    let url = match &redis.password {
        Some(password) => url.clone().with_password(password.expose().to_owned()),
        None => url.clone(),
    };
    RedisOptions {
        ca_file: redis.ca_file.clone(),
        key_prefix: redis.key_prefix.clone(),
        connect_timeout: redis.connect_timeout,
        command_timeout: redis.command_timeout,
        hot_max_bytes: redis.hot_max_bytes.0,
        hot_max_age: redis.hot_max_age,
        index_max_bytes: redis.index_max_bytes.0,
        max_entries_per_scope: redis.max_entries_per_scope,
        model: embedder.map_or_else(String::new, |embedder| embedder.name().to_owned()),
        secret,
        ..RedisOptions::new(url)
    }
}
