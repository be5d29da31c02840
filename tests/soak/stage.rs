//! Upstream, Redis and replicas, and the hands that spoil them by the schedule.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rejoinder::simulated::{Fault, Gate, Simulated, SimulatedOptions};

use crate::load::Load;
use crate::options::Options;
use crate::replicas::{Held, MORTAL, OTHER_TTL, REPLICAS, Replica, TTL};
use crate::report::{HeldAt, Made, Report};
use crate::schedule::{Event, Kind, Place, Schedule};
use crate::support::encodings::GZIP;
use crate::support::redis::{Redis, free_port, redis, until};

/// How long what must come about may take: that a configuration is read, that a store is well again.
const SOON: Duration = Duration::from_mins(1);

/// A replica whose descriptors have not changed for so long lets no more go: longer than `timeouts.keep_alive`.
const AT_REST: Duration = Duration::from_secs(1);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a fault befalls.
struct Stage {
    options: Options,
    upstream: Simulated,
    replicas: Vec<Arc<Replica>>,
    redis: tokio::sync::Mutex<Redis>,
    load: Arc<Load>,
    made: Mutex<Vec<Made>>,
    broken: Mutex<Vec<String>>,
}

/// Runs a whole soak.
pub async fn soak(options: Options) -> Report {
    let redis = redis().await;
    let streaming = SimulatedOptions {
        delay_to_first_byte: Duration::from_millis(5),
        delay_between_chunks: Duration::from_millis(2),
        remember: 0,
        ..SimulatedOptions::default()
    };
    let upstream = Simulated::start(streaming).await.unwrap();
    let embedder =
        Simulated::start(SimulatedOptions { remember: 0, ..SimulatedOptions::default() }).await.unwrap();
    let settings = settings(&options, &upstream, &embedder, &redis);
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(Arc::new(Replica::start(settings.clone()).await));
    }
    let schedule = Schedule::new(options.seed, options.lasting, options.apart, options.fault);
    let load = Arc::new(Load::new(options, schedule.clone(), replicas.clone()).await);
    let redis = tokio::sync::Mutex::new(redis);
    let stage = Stage {
        options,
        upstream,
        replicas,
        redis,
        load: Arc::clone(&load),
        made: Mutex::default(),
        broken: Mutex::default(),
    };

    let next = load.run(0, options.warm_up, false).await;
    let before = stage.held_at_rest().await;
    let asking = tokio::spawn({
        let load = Arc::clone(&load);
        async move { load.run(next, options.lasting, true).await }
    });
    let halfway = async {
        tokio::time::sleep(options.lasting / 2).await;
        stage.held()
    };
    let ((), halfway) = tokio::join!(stage.spoil(&schedule), halfway);
    let next = asking.await.unwrap();
    stage.all_is_well().await;
    // As before the faults: what is left then has leaked.
    load.run(next, options.warm_up, false).await;
    let after = stage.held_at_rest().await;
    let held = HeldAt { before, halfway, after };
    let made = std::mem::take(&mut *stage.made.lock());
    let broken = std::mem::take(&mut *stage.broken.lock());
    let seen = std::mem::take(&mut *load.seen.lock());
    Report { options, seen, made, held, broken }
}

fn settings(options: &Options, upstream: &Simulated, embedder: &Simulated, redis: &Redis) -> String {
    let timeout = options.upstream_timeout.as_secs();
    format!(
        r#"upstream = "{}"
redis_url = "{}"
embedder = "ollama"
embedder_url = "{}"
similarity_threshold = 0.8
[cache]
min_confidence = 0.4
verifier = {}
[redis]
hot_max_bytes = "4MiB"
hot_max_age = "5s"
[timeouts]
first_byte = "{timeout}s"
idle = "{timeout}s"
keep_alive = "500ms"
[log]
requests = false
"#,
        upstream.url(),
        redis.url(),
        embedder.url(),
        options.verifier,
    )
}

impl Stage {
    /// Works through the schedule: one hand for each place.
    async fn spoil(&self, schedule: &Schedule) {
        let begun = Instant::now();
        let hand = async |place: Place| {
            for event in schedule.events.iter().filter(|event| event.kind.place() == place) {
                tokio::time::sleep_until((begun + event.from).into()).await;
                let from = Instant::now();
                self.make(*event, begun + event.until).await;
                self.made.lock().push(Made { kind: event.kind, from, until: Instant::now() });
            }
        };
        tokio::join!(
            hand(Place::Upstream),
            hand(Place::Redis),
            hand(Place::Clients),
            hand(Place::Configuration),
            hand(Place::Replica),
        );
    }

    async fn make(&self, event: Event, until: Instant) {
        let lasts = tokio::time::sleep_until(until.into());
        match event.kind {
            // The requests themselves say it.
            Kind::UpstreamResets
            | Kind::UpstreamTooMany
            | Kind::UpstreamErrors
            | Kind::UpstreamHalfStreams
            | Kind::UpstreamErrorsInside
            | Kind::UpstreamStalls
            | Kind::ClientsVanish => lasts.await,
            Kind::UpstreamSlow => {
                let gate = Gate::new();
                self.upstream.set_fault(Fault::none().gate(&gate));
                // Well before the replicas would give up.
                let _ = tokio::time::timeout(self.options.upstream_timeout / 3, lasts).await;
                gate.open();
                self.upstream.set_fault(Fault::none());
            }
            Kind::UpstreamGzip => {
                self.upstream.set_fault(Fault::none().encoded(GZIP));
                lasts.await;
                self.upstream.set_fault(Fault::none());
            }
            Kind::UpstreamGone => {
                self.load.gone.lock().push((Instant::now(), None));
                self.upstream.stop_listening().await.unwrap();
                lasts.await;
                self.upstream.listen_again().await.unwrap();
                if let Some((_, until)) = self.load.gone.lock().last_mut() {
                    *until = Some(Instant::now());
                }
            }
            Kind::RedisKilled | Kind::RedisPaused | Kind::RedisFull | Kind::RedisReadOnly => {
                let mut redis = self.redis.lock().await;
                spoil_redis(&mut redis, event.kind, lasts).await;
            }
            Kind::Reload => {
                self.reload(OTHER_TTL, "", |config| config["config"]["ttl"] == OTHER_TTL).await;
                lasts.await;
                self.reload(TTL, "", |config| config["config"]["ttl"] == TTL).await;
            }
            Kind::BrokenReload => {
                let refused = |config: &serde_json::Value| {
                    !config["last_error"].is_null() && config["config"]["ttl"] == TTL
                };
                self.reload(OTHER_TTL, "max_error = 7", refused).await;
                lasts.await;
                self.reload(TTL, "", |config| {
                    config["last_error"].is_null() && config["config"]["ttl"] == TTL
                })
                .await;
            }
            Kind::ReplicaKilled => {
                self.replicas[MORTAL].kill();
                lasts.await;
                self.replicas[MORTAL].start_again().await;
            }
        }
    }

    /// Writes the files of the replicas that are never killed, and has them read.
    async fn reload(&self, ttl: &str, more: &str, taken: impl Fn(&serde_json::Value) -> bool) {
        for replica in &self.replicas[..MORTAL] {
            replica.write(ttl, more);
            replica.reload();
            let mut said = serde_json::Value::Null;
            let came = comes_about(async || {
                said = replica.configuration().await;
                taken(&said)
            })
            .await;
            if !came {
                let broken = format!("{} does not reload ttl {ttl} {more:?}: {said}", replica.address);
                self.broken.lock().push(broken);
            }
        }
    }

    /// Waits until every replica says so.
    async fn all_is_well(&self) {
        for replica in &self.replicas {
            if replica.has_ended_by_itself() {
                self.broken.lock().push(format!("a replica ended:\n{}", replica.log()));
            } else if !comes_about(async || replica.store_state().await == "ok").await {
                self.broken.lock().push(format!("the store of {} stays ill", replica.address));
            }
        }
    }

    fn held(&self) -> Vec<Option<Held>> {
        self.replicas.iter().map(|replica| replica.held()).collect()
    }

    /// What the replicas hold, once they have let go of what is idle.
    async fn held_at_rest(&self) -> Vec<Option<Held>> {
        let descriptors = |held: &[Option<Held>]| -> Vec<_> {
            held.iter().map(|held| held.map(|held| held.descriptors)).collect()
        };
        let begun = Instant::now();
        let (mut last, mut since) = (self.held(), begun);
        while since.elapsed() < AT_REST && begun.elapsed() < SOON {
            tokio::time::sleep(LOOK_AGAIN).await;
            let now = self.held();
            if descriptors(&now) != descriptors(&last) {
                since = Instant::now();
            }
            last = now;
        }
        last
    }
}

async fn spoil_redis(redis: &mut Redis, kind: Kind, lasts: tokio::time::Sleep) {
    match kind {
        Kind::RedisKilled => {
            redis.kill();
            lasts.await;
            redis.restart().await;
        }
        Kind::RedisPaused => {
            redis.pause();
            lasts.await;
            redis.resume();
        }
        Kind::RedisFull => {
            redis.set_maxmemory(1);
            lasts.await;
            redis.set_maxmemory(0);
        }
        _ => {
            // Nobody listens there.
            redis.command::<()>(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
            lasts.await;
            redis.promote();
        }
    }
    until("Redis answers again", async || redis.try_command::<String>(&["PING"]).is_ok()).await;
}

async fn comes_about(mut condition: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !condition().await {
        if begun.elapsed() > SOON {
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    true
}
