//! Redis slow, full, read-only, emptied, corrupt or gone costs hits, never answers: clients ask throughout, and none
//! of their requests fails or gets another's reply.
//!
//! Each test prints a row of a table: `cargo test --test redis faults -- --nocapture | grep '^|'`.

use std::time::{Duration, Instant};

use rejoinder::simulated::Simulated;

use crate::support::redis::{Redis, RedisOptions, Shared, redis, replica, until};
use crate::support::traffic::Question;
use crate::support::{Proxy, Report, Traffic, upstream};

/// Two proxies over one Redis, and clients that ask both.
struct Stage {
    _upstream: Simulated,
    proxies: [Proxy; 2],
    traffic: Traffic,
}

impl Stage {
    async fn set(redis: &Redis) -> Self {
        let upstream = upstream().await;
        let proxies = [replica(&upstream, &redis.url()).await, replica(&upstream, &redis.url()).await];
        let traffic = Traffic::start(&[&proxies[0], &proxies[1]]).await;
        traffic.until_hits(100).await;
        Self { _upstream: upstream, proxies, traffic }
    }

    /// Waits until both say that their store is not as it should be, while they serve.
    async fn until_noticed(&self) {
        for proxy in &self.proxies {
            until("the store is not ok", async || proxy.store_state().await != "ok").await;
        }
    }

    /// All is as before the fault: both proxies serve hits of both layers, and share what is new.
    async fn until_recovered(&self) {
        for proxy in &self.proxies {
            proxy.until_store_is_ok().await;
        }
        self.traffic.until_hits(100).await;
        let from = Instant::now();
        until("hits of both layers, and a store that answers", async || {
            self.proxies.iter().all(|proxy| {
                let report = self.traffic.since(from).of(proxy.address());
                report.semantic() >= 10 && report.exact() >= 10
            })
        })
        .await;
        let [first, second] = &self.proxies;
        for (number, (one, other)) in [(first, second), (second, first)].into_iter().enumerate() {
            let question = Question::numbered(Question::COUNT - 1 - number);
            one.until_shared_with(other, question).await;
        }
    }

    async fn finish(self, what: &str) -> Report {
        let report = self.traffic.stop().await;
        report.assert_all_right(what);
        report
    }
}

/// No wait of a request may be as long as the silence of Redis.
const BOUNDED: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn stopped_for_ten_seconds() {
    let redis = redis().await;
    let stage = Stage::set(&redis).await;
    redis.pause();
    let paused = Instant::now();
    stage.until_noticed().await;
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(paused.elapsed())).await;
    let meanwhile = stage.traffic.since(paused);
    redis.resume();
    stage.until_recovered().await;
    let report = stage.finish("`SIGSTOP` for ten seconds").await;
    assert!(meanwhile.without_store() > 0, "{meanwhile}");
    assert!(meanwhile.sent() > 100, "{meanwhile}");
    assert!(report.longest() < BOUNDED, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again_empty() {
    let mut redis = redis().await;
    let stage = Stage::set(&redis).await;
    redis.kill();
    let killed = Instant::now();
    stage.until_noticed().await;
    stage.traffic.until("requests meanwhile", |report| report.without_store() > 100).await;
    redis.restart().await;
    stage.until_recovered().await;
    let report = stage.finish("`kill -9`, started again empty").await;
    assert!(report.between(killed, Instant::now()).longest() < BOUNDED, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again_with_its_file() {
    let mut redis = RedisOptions::default().append_only().start().await;
    let stage = Stage::set(&redis).await;
    let question = Question::numbered(Question::COUNT - 10);
    stage.proxies[0].until_shared_with(&stage.proxies[1], question).await;
    redis.kill();
    stage.until_noticed().await;
    redis.restart().await;
    stage.until_recovered().await;
    for proxy in &stage.proxies {
        proxy.until_known(question).await;
    }
    stage.finish("`kill -9`, started again with its append-only file").await;
}

/// What is there is still found, and what is new is stored again when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn full_and_told_to_evict_nothing() {
    let redis = RedisOptions::default().memory(0, "noeviction").start().await;
    let stage = Stage::set(&redis).await;
    let known = Question::numbered(Question::COUNT - 10);
    stage.proxies[0].until_shared_with(&stage.proxies[1], known).await;
    redis.set_maxmemory(1);
    let refused = Question::numbered(Question::COUNT - 11);
    stage.proxies[0].ask(&refused.worded(0)).await;
    stage.traffic.until_hits(100).await;
    assert_eq!(stage.proxies[1].layer_of(&refused.worded(0)).await, None);
    stage.proxies[1].until_known(known).await;
    redis.set_maxmemory(0);
    stage.until_recovered().await;
    stage.finish("`maxmemory` reached, `noeviction`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_and_told_to_evict_anything() {
    let redis = RedisOptions::default().memory(0, "allkeys-lru").start().await;
    let stage = Stage::set(&redis).await;
    // As much as there is now, so that every new entry takes the place of something.
    let used: u64 = redis.info("used_memory").parse().unwrap();
    redis.set_maxmemory(used);
    until("much is evicted", async || redis.info("evicted_keys").parse::<u64>().unwrap() > 500).await;
    stage.traffic.until_hits(50).await;
    redis.set_maxmemory(0);
    stage.until_recovered().await;
    stage.finish("`maxmemory` reached, `allkeys-lru`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_while_it_is_used() {
    let redis = redis().await;
    let stage = Stage::set(&redis).await;
    for _ in 0..3 {
        let question = Question::numbered(Question::COUNT - 10);
        stage.proxies[0].until_shared_with(&stage.proxies[1], question).await;
        redis.flush_all();
        for proxy in &stage.proxies {
            proxy.until_unknown(question).await;
        }
        stage.traffic.until_hits(50).await;
    }
    stage.until_recovered().await;
    stage.finish("`FLUSHALL`, three times").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_as_a_replica_of_another() {
    let (redis, other) = (redis().await, redis().await);
    let stage = Stage::set(&redis).await;
    redis.make_replica_of(&other).await;
    let demoted = Instant::now();
    // It holds nothing now, and takes nothing.
    stage.traffic.until("requests meanwhile", |report| report.sent() > 300).await;
    assert!(redis.keys().is_empty(), "{:?}", redis.keys());
    let meanwhile = stage.traffic.since(demoted);
    redis.promote();
    stage.until_recovered().await;
    stage.finish("`REPLICAOF`: read-only and emptied").await;
    assert!(meanwhile.sent() > 100, "{meanwhile}");
}

/// A master that is gone: what the replica holds is still read.
#[tokio::test(flavor = "multi_thread")]
async fn read_only_with_all_that_was_there() {
    let redis = redis().await;
    let stage = Stage::set(&redis).await;
    let known = Question::numbered(Question::COUNT - 10);
    stage.proxies[0].until_shared_with(&stage.proxies[1], known).await;
    // Nobody listens there.
    let nobody = crate::support::redis::free_port().to_string();
    redis.command::<()>(&["REPLICAOF", "127.0.0.1", &nobody]);
    stage.traffic.until_hits(100).await;
    for proxy in &stage.proxies {
        proxy.until_known(known).await;
    }
    redis.promote();
    stage.until_recovered().await;
    stage.finish("`REPLICAOF`: read-only").await;
}

/// Index members whose entries were evicted are cleaned up as they are met.
#[tokio::test(flavor = "multi_thread")]
async fn entries_evicted_behind_its_back_leave_no_trace() {
    let (upstream, redis) = (upstream().await, redis().await);
    let proxy = replica(&upstream, &redis.url()).await;
    let questions: Vec<_> = (0..10).map(Question::numbered).collect();
    for question in &questions {
        proxy.ask(&question.worded(0)).await;
        proxy.until_known(*question).await;
    }
    let members = || {
        let sets = redis.keys().into_iter().filter(|key| redis.command::<String>(&["TYPE", key]) == "zset");
        sets.map(|key| redis.command::<u64>(&["ZCARD", &key])).max().unwrap_or_default()
    };
    assert_eq!(members(), 10);
    for key in redis.keys().iter().filter(|key| key.contains(":entry:")) {
        redis.command::<()>(&["UNLINK", key]);
    }
    for question in &questions {
        proxy.until_unknown(*question).await;
    }
    until("the index is clean", async || {
        for question in &questions {
            proxy.layer_of(&question.worded(1)).await;
        }
        members() == 0
    })
    .await;
    proxy.ask(&questions[0].worded(0)).await;
    proxy.until_known(questions[0]).await;
}
