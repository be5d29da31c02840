//! Sentinel and Cluster: a master dies under load and another takes its place, and all goes on as before.

use std::time::{Duration, Instant};

use crate::support::redis::{Cluster, Sentinels, Shared, replica};
use crate::support::traffic::Question;
use crate::support::{Proxy, Traffic, upstream};

/// No request waits for a failover.
const BOUNDED: Duration = Duration::from_secs(5);

/// Each stores something new, and the other finds it in both ways.
async fn share(proxies: [&Proxy; 2], number: usize) {
    for (one, other) in [(0, 1), (1, 0)] {
        let question = Question::numbered(Question::COUNT - 1 - number * 2 - one);
        proxies[one].until_shared_with(proxies[other], question).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_fail_over_under_load() {
    let upstream = upstream().await;
    let mut redis = Sentinels::start(2).await;
    let proxies = [replica(&upstream, &redis.url()).await, replica(&upstream, &redis.url()).await];
    let both = [&proxies[0], &proxies[1]];
    let traffic = Traffic::start(&both).await;
    traffic.until_hits(100).await;
    share(both, 0).await;
    redis.servers[0].kill();
    let killed = Instant::now();
    let master = redis.until_failed_over(0).await;
    for proxy in both {
        proxy.until_store_is_ok().await;
    }
    traffic.until_hits(100).await;
    share(both, 1).await;
    assert!(redis.servers[master].keys().iter().any(|key| key.contains(":entry:")));

    // What was master comes back as a replica, and nobody takes it for one.
    redis.servers[0].restart().await;
    crate::support::redis::until("it is a replica", async || !redis.is_master(0)).await;
    traffic.until_hits(50).await;
    share(both, 2).await;
    let report = traffic.stop().await;
    report.assert_all_right("Sentinel: the master killed, a replica in its place");
    assert!(report.between(killed, Instant::now()).longest() < BOUNDED, "{report}");
}

/// The master does not die, and thinks it still is one when the others have chosen another.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_was_only_asleep_is_not_believed() {
    let upstream = upstream().await;
    let redis = Sentinels::start(1).await;
    let proxies = [replica(&upstream, &redis.url()).await, replica(&upstream, &redis.url()).await];
    let both = [&proxies[0], &proxies[1]];
    let traffic = Traffic::start(&both).await;
    traffic.until_hits(50).await;
    redis.servers[0].pause();
    redis.until_failed_over(0).await;
    for proxy in both {
        proxy.until_store_is_ok().await;
    }
    share(both, 0).await;
    redis.servers[0].resume();
    crate::support::redis::until("it is a replica", async || !redis.is_master(0)).await;
    traffic.until_hits(50).await;
    share(both, 1).await;
    traffic.stop().await.assert_all_right("Sentinel: the master stopped, replaced, and back again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_loses_a_master_under_load() {
    let upstream = upstream().await;
    let mut redis = Cluster::start().await;
    let proxies = [replica(&upstream, &redis.url()).await, replica(&upstream, &redis.url()).await];
    let both = [&proxies[0], &proxies[1]];
    let traffic = Traffic::start(&both).await;
    traffic.until_hits(100).await;
    for number in 0..3 {
        share(both, number).await;
    }
    assert!(redis.keys().iter().any(|key| key.contains(":entry:")));
    let killed = Instant::now();
    redis.fail_over(0).await;
    for proxy in both {
        proxy.until_store_is_ok().await;
    }
    traffic.until_hits(100).await;
    for number in 3..6 {
        share(both, number).await;
    }
    redis.nodes[0].restart().await;
    redis.until_it_serves().await;
    traffic.until_hits(50).await;
    share(both, 6).await;
    let report = traffic.stop().await;
    report.assert_all_right("Cluster of three masters: one killed, its replica in its place");
    assert!(report.between(killed, Instant::now()).longest() < BOUNDED, "{report}");
}

/// A master that does not answer, without a word that it is gone, takes the others' keys not along; and its own are
/// back when its replica has taken its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_beside_a_master_that_does_not_answer() {
    let upstream = upstream().await;
    let redis = Cluster::start().await;
    let proxies = [replica(&upstream, &redis.url()).await, replica(&upstream, &redis.url()).await];
    let both = [&proxies[0], &proxies[1]];
    let traffic = Traffic::start(&both).await;
    traffic.until_hits(100).await;
    let paused = Instant::now();
    redis.nodes[0].pause();
    crate::support::redis::until("the replica takes over", async || redis.nodes[3].info("role") == "master")
        .await;
    for number in 0..3 {
        share(both, number).await;
    }
    let report = traffic.since(paused);
    assert!(report.hits() > 0, "{report}");
    redis.nodes[0].resume();
    crate::support::redis::until("it is a replica", async || redis.nodes[0].info("role") == "slave").await;
    traffic.until_hits(50).await;
    share(both, 3).await;
    let report = traffic.stop().await;
    report.assert_all_right("Cluster of three masters: one stopped, replaced, and back again");
    assert!(report.between(paused, Instant::now()).longest() < BOUNDED, "{report}");
}
