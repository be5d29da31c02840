//! The tests' own Redis servers do what tests of the store rely on: each kind starts, is reached as it should be,
//! and fails as it is told to.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::redis::{Cluster, RedisOptions, Sentinels, redis, until};
use crate::support::relay::{Relay, Way};

#[tokio::test]
async fn a_server_is_paused_killed_and_started_again_empty() {
    let mut redis = redis().await;
    redis.command::<()>(&["SET", "a", "1"]);
    assert_eq!(redis.keys(), ["a"]);
    redis.pause();
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    let wait = Duration::from_millis(200);
    assert!(tokio::time::timeout(wait, stream.read_exact(&mut answer)).await.is_err(), "it is stopped");
    redis.resume();
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");

    redis.pause();
    redis.kill();
    assert!(TcpStream::connect(redis.address()).await.is_err(), "it is dead");
    redis.restart().await;
    assert!(redis.keys().is_empty());
}

#[tokio::test]
async fn an_append_only_file_brings_back_what_was_written() {
    let mut redis = RedisOptions::default().append_only().start().await;
    redis.command::<()>(&["SET", "a", "1"]);
    redis.restart().await;
    assert_eq!(redis.keys(), ["a"]);
    redis.flush_all();
    assert!(redis.keys().is_empty());
}

#[tokio::test]
async fn passwords_and_users_are_asked_for() {
    let refused = |url: String| {
        redis::Client::open(url)
            .and_then(|client| client.get_connection())
            .and_then(|mut connection| redis::cmd("GET").arg("a").query::<Option<String>>(&mut connection))
            .is_err()
    };
    let server = RedisOptions::default().password("secret").start().await;
    assert!(!refused(server.url()));
    assert!(refused(format!("redis://{}", server.address())));

    let server = RedisOptions::default().user("user reader on >word ~a +get").start().await;
    assert!(!refused(server.url_as("reader", "word")));
    assert!(refused(server.url_as("reader", "other")));
    assert!(refused(server.url()));
    server.command::<()>(&["SET", "a", "1"]);
}

#[tokio::test]
async fn a_socket_and_a_port_with_tls_are_listened_on() {
    let server = RedisOptions::default().unix_socket().tls().start().await;
    let path = server.unix_url();
    let path = path.strip_prefix("redis+unix://").unwrap();
    tokio::net::UnixStream::connect(path).await.unwrap();
    let address = server.tls_url();
    let address = address.strip_prefix("rediss://").unwrap();
    TcpStream::connect(address).await.unwrap();
    assert!(server.certificates().authority.exists());
}

#[tokio::test]
async fn a_full_server_refuses_writes_or_evicts() {
    for (policy, refuses) in [("noeviction", true), ("allkeys-lru", false)] {
        let server = RedisOptions::default().memory(4_000_000, policy).start().await;
        let value = "x".repeat(100_000);
        let failed = (0..100)
            .any(|number| server.try_command::<()>(&["SET", &format!("key {number}"), &value]).is_err());
        assert_eq!(failed, refuses, "{policy}");
    }
}

#[tokio::test]
async fn a_replica_takes_the_copy_refuses_writes_and_is_promoted() {
    let master = redis().await;
    master.command::<()>(&["SET", "a", "1"]);
    let other = redis().await;
    other.make_replica_of(&master).await;
    assert_eq!(other.keys(), ["a"]);
    let error = other.try_command::<()>(&["SET", "b", "1"]).unwrap_err();
    assert_eq!(error.code(), Some("READONLY"));
    other.promote();
    other.command::<()>(&["SET", "b", "1"]);
}

#[tokio::test]
async fn sentinels_name_another_master_when_theirs_dies() {
    let mut all = Sentinels::start(1).await;
    assert_eq!(all.master(), Some(0));
    all.servers[0].kill();
    assert_eq!(all.until_failed_over(0).await, 1);
    all.servers[1].command::<()>(&["SET", "a", "1"]);
}

#[tokio::test]
async fn a_cluster_goes_on_without_one_master() {
    let mut cluster = Cluster::start().await;
    cluster.fail_over(0).await;
    // Whose slot this is does not matter: some node takes it, and the others say which.
    let taken = cluster.nodes.iter().filter(|node| node.try_command::<()>(&["SET", "a", "1"]).is_ok());
    assert_eq!(taken.count(), 1);
    cluster.nodes[0].restart().await;
    cluster.until_it_serves().await;
    until("it comes back as a replica", async || cluster.nodes[0].info("role") == "slave").await;
}

#[tokio::test]
async fn a_relay_holds_what_is_sent_cuts_and_heals() {
    let server = redis().await;
    let relay = Relay::start(server.address()).await;
    let mut stream = TcpStream::connect(relay.address()).await.unwrap();
    let wait = Duration::from_millis(200);
    for way in [Way::RequestsHeld, Way::AnswersHeld, Way::Held] {
        relay.set(way);
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut answer = [0; 7];
        assert!(tokio::time::timeout(wait, stream.read_exact(&mut answer)).await.is_err(), "{way:?}");
        relay.heal();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"+PONG\r\n", "{way:?}");
    }
    relay.set(Way::Cut);
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    let mut refused = TcpStream::connect(relay.address()).await.unwrap();
    assert!(matches!(refused.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    relay.heal();
    let mut stream = TcpStream::connect(relay.address()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();
}
