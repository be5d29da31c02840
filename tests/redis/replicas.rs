//! Replicas over one Redis: each finds what the others store and no longer what they take out, also after one was
//! cut off or started anew. Clients ask throughout.

use std::time::{Duration, Instant};

use rejoinder::config::Config;
use serde_json::json;

use crate::support::redis::{Redis, Shared, patient_replica, patient_replica_with, redis, replica, until};
use crate::support::relay::{Relay, Way};
use crate::support::traffic::Question;
use crate::support::{Proxy, Traffic, text_of, upstream};

/// Questions that the clients reach last.
fn spare(number: usize) -> Question {
    Question::numbered(Question::COUNT - 1 - number)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_stores_or_takes_out_the_others_hear_of() {
    let (upstream, redis) = (upstream().await, redis().await);
    let mut proxies = Vec::new();
    for _ in 0..3 {
        proxies.push(patient_replica(&upstream, &redis.url()).await);
    }
    let traffic = Traffic::start(&proxies.iter().collect::<Vec<_>>()).await;
    traffic.until_hits(50).await;
    for (number, proxy) in proxies.iter().enumerate() {
        let question = spare(number);
        let own = proxy.ask(&question.worded(0)).await;
        for other in &proxies {
            other.until_known(question).await;
            // Asked twice, so that it is kept in process too.
            for wording in [0, 1, 0, 1] {
                let hit = other.ask(&question.worded(wording)).await;
                assert_eq!(text_of(&hit.json()), text_of(&own.json()));
            }
        }
        proxies[(number + 1) % 3].delete(&question.worded(0)).await;
        for other in &proxies {
            other.until_unknown(question).await;
        }
        // What is stored after is found again.
        proxies[(number + 2) % 3].ask(&question.worded(0)).await;
        for other in &proxies {
            other.until_known(question).await;
        }
    }
    assert!(proxies[0].purge(json!({"all": true})).await > 0);
    traffic.until_hits(50).await;
    traffic.stop().await.assert_all_right("three replicas: stored, deleted, purged");
}

/// A fresh reply takes the place of the one before at every replica, whether they hear of it or ask.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_replaces_the_others_serve_anew() {
    for (number, hot_max_age) in [Config::default().redis.hot_max_age, Duration::ZERO].into_iter().enumerate()
    {
        let (upstream, redis) = (upstream().await, redis().await);
        let url = redis.url();
        let start = || patient_replica_with(&upstream, &url, |config| config.redis.hot_max_age = hot_max_age);
        let (first, second) = (start().await, start().await);
        let question = spare(number);
        let prompt = question.worded(0);
        let body = json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]});
        first.ask(&prompt).await;
        second.until_known(question).await;
        let before = second.ask(&prompt).await.json();
        // What upstream says is the same; that it is another reply shows by the tokens counted.
        let fresh = json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "llama3.2",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Fresh."}}],
        });
        upstream.fault_next(crate::support::Fault::body("application/json", fresh.to_string()));
        let reply =
            first.post("/v1/chat/completions", &body).header("cache-control", "no-cache").send().await;
        assert_eq!(text_of(&reply.json()), "Fresh.");
        assert_ne!(text_of(&before), "Fresh.");
        for proxy in [&first, &second] {
            for wording in 0..2 {
                let prompt = question.worded(wording);
                // Asked of the cache alone: a miss while the one gives way to the other would fetch, and keep, the old
                // reply.
                until("the fresh one is served", async || {
                    let reply = proxy.look_up(&prompt).await;
                    reply.status == 200 && text_of(&reply.json()) == "Fresh."
                })
                .await;
            }
        }
        first.delete(&prompt).await;
        for proxy in [&first, &second] {
            proxy.until_unknown(question).await;
        }
    }
}

/// How long it takes until the others find what one has stored.
#[tokio::test(flavor = "multi_thread")]
async fn it_takes_no_time_worth_speaking_of() {
    const COUNT: usize = 200;
    let (upstream, redis) = (upstream().await, redis().await);
    let (first, second) =
        (patient_replica(&upstream, &redis.url()).await, patient_replica(&upstream, &redis.url()).await);
    // The second has the scope loaded.
    first.ask(&spare(0).worded(0)).await;
    second.until_known(spare(0)).await;
    for wording in 0..2 {
        let mut delays = Vec::new();
        for number in 0..COUNT {
            let question = Question::numbered(wording * COUNT + number);
            let (one, other) = if number % 2 == 0 { (&first, &second) } else { (&second, &first) };
            one.ask(&question.worded(0)).await;
            let answered = Instant::now();
            let layer = ["exact", "semantic"][wording];
            other.until_served_by(Some(layer), &question.worded(wording)).await;
            delays.push(answered.elapsed());
        }
        delays.sort_unstable();
        let at = |share: usize| delays[(delays.len() - 1) * share / 100].as_millis();
        let layer = ["by its key", "by its meaning"][wording];
        println!("found {layer} after: p50 {} ms, p99 {} ms, max {} ms", at(50), at(99), at(100));
        // Ten times what is promised: machines that run tests are slow, and a poll is not.
        assert!(at(100) < 10_000, "{delays:?}");
    }
}

/// Three replicas, the first of which reaches Redis by a way that can be cut.
struct Stage {
    relay: Relay,
    proxies: Vec<Proxy>,
    traffic: Traffic,
    _upstream: crate::support::Simulated,
}

impl Stage {
    async fn set(redis: &Redis) -> Self {
        let upstream = upstream().await;
        let relay = Relay::start(redis.address()).await;
        let far = format!("redis://{}", relay.address());
        let mut proxies = vec![replica(&upstream, &far).await];
        for _ in 0..2 {
            proxies.push(patient_replica(&upstream, &redis.url()).await);
        }
        let traffic = Traffic::start(&proxies.iter().collect::<Vec<_>>()).await;
        traffic.until_hits(50).await;
        Self { relay, proxies, traffic, _upstream: upstream }
    }

    /// While the first is cut off, one entry is taken out and another stored; what it knew of it and what it
    /// should know once the way is open again.
    async fn part(&self, way: Way, number: usize) {
        let (deleted, stored) = (spare(2 * number), spare(2 * number + 1));
        for proxy in &self.proxies {
            self.proxies[0].until_shared_with(proxy, deleted).await;
            proxy.ask(&deleted.worded(0)).await;
        }
        self.relay.set(way);
        self.proxies[1].delete(&deleted.worded(0)).await;
        self.proxies[2].until_unknown(deleted).await;
        self.proxies[2].until_shared_with(&self.proxies[1], stored).await;
        until("it is noticed", async || self.proxies[0].store_state().await != "ok").await;
        // The others go on as if nothing were.
        self.traffic.until_hits(20).await;
        for proxy in &self.proxies[1..] {
            assert_eq!(proxy.store_state().await, "ok");
        }
        self.relay.heal();
        self.proxies[0].until_store_is_ok().await;
        self.proxies[0].until_unknown(deleted).await;
        self.proxies[0].until_known(stored).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_heals_leaves_no_hole() {
    let redis = redis().await;
    let stage = Stage::set(&redis).await;
    for (number, way) in [Way::Cut, Way::Held, Way::AnswersHeld, Way::RequestsHeld].into_iter().enumerate() {
        stage.part(way, number).await;
    }
    let report = stage.traffic.stop().await;
    report.assert_all_right("one of three replicas cut off from Redis, four ways, healed each time");
    assert!(report.longest() < Duration::from_secs(5), "{report}");
}

/// Connections that break again and again, in the middle of whatever they carry.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_lose_nothing() {
    let redis = redis().await;
    let stage = Stage::set(&redis).await;
    for number in 0..10 {
        stage.relay.break_connections();
        let from = Instant::now();
        stage.proxies[1].ask(&spare(number).worded(0)).await;
        until("some requests since", async || stage.traffic.since(from).sent() > 30).await;
    }
    stage.proxies[0].until_store_is_ok().await;
    for number in 0..10 {
        stage.proxies[0].until_known(spare(number)).await;
    }
    stage.traffic.until_hits(20).await;
    stage.traffic.stop().await.assert_all_right("connections to Redis broken ten times");
}

/// What was asked for was given up when the answers come; they must be nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_come_late_are_nobodys() {
    let redis = redis().await;
    let stage = Stage::set(&redis).await;
    let first = stage.proxies[0].address();
    for _ in 0..15 {
        stage.relay.set(Way::AnswersHeld);
        let from = Instant::now();
        until("requests give up waiting", async || stage.traffic.since(from).of(first).sent() > 10).await;
        stage.relay.heal();
        stage.proxies[0].until_store_is_ok().await;
    }
    stage.traffic.until_hits(20).await;
    let report = stage.traffic.stop().await;
    report.assert_all_right("answers of Redis held up and let go, 15 times");
    assert!(report.of(first).longest() < Duration::from_secs(5), "{report}");
}

/// Slower than a command may take, and not so slow that connecting fails.
#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_cost_hits_and_little_time() {
    let redis = redis().await;
    let stage = Stage::set(&redis).await;
    let first = stage.proxies[0].address();
    let from = Instant::now();
    stage.relay.set(Way::Slow(Duration::from_millis(80)));
    until("many requests", async || stage.traffic.since(from).of(first).sent() > 200).await;
    let slow = stage.traffic.since(from).of(first);
    println!("answers of Redis 80 ms late, at the replica concerned: {slow}");
    stage.relay.heal();
    stage.proxies[0].until_store_is_ok().await;
    stage.traffic.until_hits(20).await;
    stage.traffic.stop().await.assert_all_right("answers of Redis 80 ms late");
    assert!(slow.longest() < Duration::from_secs(5), "{slow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_comes_and_goes_at_any_time() {
    let (upstream, redis) = (upstream().await, redis().await);
    let stays = patient_replica(&upstream, &redis.url()).await;
    let mut goes = patient_replica(&upstream, &redis.url()).await;
    let traffic = Traffic::start(&[&stays, &goes]).await;
    traffic.until_hits(50).await;
    for number in 0..3 {
        let (before, after) = (spare(2 * number), spare(2 * number + 1));
        goes.ask(&before.worded(0)).await;
        stays.until_known(before).await;
        traffic.without(&goes).await;
        goes.shutdown().await;
        stays.delete(&before.worded(0)).await;
        stays.ask(&after.worded(0)).await;
        goes = patient_replica(&upstream, &redis.url()).await;
        goes.until_known(after).await;
        goes.until_unknown(before).await;
        traffic.with(&goes);
        traffic.until_hits(50).await;
    }
    traffic.stop().await.assert_all_right("a replica stopped and started again, three times");
}

/// Whoever comes first makes the secret; all who come at the same time, or after Redis was emptied, have the same.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_agree_on_one_secret() {
    let (upstream, redis) = (upstream().await, redis().await);
    let url = redis.url();
    let mut proxies: Vec<Proxy> = Vec::new();
    let (a, b, c) = tokio::join!(
        patient_replica(&upstream, &url),
        patient_replica(&upstream, &url),
        patient_replica(&upstream, &url)
    );
    proxies.extend([a, b, c]);
    for (number, proxy) in proxies.iter().enumerate() {
        proxy.ask(&spare(number).worded(0)).await;
        for other in &proxies {
            other.until_known(spare(number)).await;
        }
    }
    redis.flush_all();
    for proxy in &proxies {
        proxy.until_unknown(spare(0)).await;
    }
    // Those that run have the secret; one that starts must come to the same.
    proxies.push(patient_replica(&upstream, &url).await);
    for (number, proxy) in proxies.iter().enumerate() {
        let question = spare(10 + number);
        until("all share again", async || {
            proxy.ask(&question.worded(0)).await;
            let mut shared = true;
            for other in &proxies {
                shared &= other.layer_of(&question.worded(0)).await.is_some();
            }
            shared
        })
        .await;
    }
}
