//! What comes back from Redis is not trusted: a value of another type, cut short, or garbage is a miss and is put
//! right, for every key that there is; it is never an error, and never another's reply.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod support;

use fastrand::Rng;
use rejoinder::simulated::Simulated;
use support::redis::{Redis, Shared, redis, replica};
use support::traffic::Question;
use support::{Proxy, Traffic, text_of, upstream};

/// What befalls a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// It is of another type.
    Type,
    /// It ends in its middle.
    Cut,
    /// It is a random one of the same length.
    Garbage,
    /// One bit of it is another.
    Bit,
    /// It is empty.
    Empty,
    /// One field of a hash is not there.
    Missing,
}

const ALL: [Damage; 6] =
    [Damage::Type, Damage::Cut, Damage::Garbage, Damage::Bit, Damage::Empty, Damage::Missing];

impl Damage {
    fn done_to(self, value: &[u8], rng: &mut Rng) -> Vec<u8> {
        let mut value = value.to_vec();
        match self {
            Self::Cut => value.truncate(value.len() / 2),
            Self::Empty => value.clear(),
            Self::Garbage => value.iter_mut().for_each(|byte| *byte = rng.u8(..)),
            Self::Bit => {
                if let Some(byte) = rng.choice(&mut value) {
                    *byte ^= 1 << rng.u8(..8);
                }
            }
            Self::Type | Self::Missing => {}
        }
        value
    }

    /// Damages the value of a key.
    fn strike(self, redis: &Redis, key: &str, rng: &mut Rng) {
        let kind: String = redis.command(&["TYPE", key]);
        if self == Self::Type {
            redis.command::<()>(&["DEL", key]);
            match (kind.as_str(), rng.bool()) {
                ("hash" | "zset", true) => redis.command::<()>(&["SET", key, "1"]),
                ("hash", false) | ("string", true) => redis.command::<()>(&["ZADD", key, "1", "a"]),
                _ => redis.command::<()>(&["HSET", key, "a", "b"]),
            }
            return;
        }
        let key = key.as_bytes();
        let bytes = |words: &[&[u8]]| -> Vec<Vec<u8>> {
            redis::from_redis_value(redis.command_of_bytes(words)).unwrap()
        };
        match kind.as_str() {
            "string" => {
                let value = bytes(&[b"MGET", key]).concat();
                redis.command_of_bytes(&[b"SET", key, &self.done_to(&value, rng), b"KEEPTTL"]);
            }
            "hash" => {
                let all = bytes(&[b"HGETALL", key]);
                if self == Self::Missing {
                    let pairs: Vec<_> = all.chunks(2).collect();
                    redis.command_of_bytes(&[b"HDEL", key, &rng.choice(&pairs).unwrap()[0]]);
                    return;
                }
                for pair in all.chunks(2) {
                    redis.command_of_bytes(&[b"HSET", key, &pair[0], &self.done_to(&pair[1], rng)]);
                }
            }
            "zset" => {
                for member in bytes(&[b"ZRANGE", key, b"0", b"-1"]) {
                    redis.command_of_bytes(&[b"ZADD", key, b"7", &self.done_to(&member, rng)]);
                    redis.command_of_bytes(&[b"ZREM", key, &member]);
                }
            }
            other => panic!("a new type, {other}: say here how it is damaged"),
        }
    }
}

/// A proxy that had nothing in memory meets each kind of damage in each key.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_it_first_answers_well_and_hits_again() {
    let upstream = upstream().await;
    for damage in ALL {
        let redis = redis().await;
        let first = replica(&upstream, &redis.url()).await;
        let questions: Vec<_> = (0..8).map(Question::numbered).collect();
        for question in &questions {
            first.ask(&question.worded(0)).await;
            first.until_known(*question).await;
            first.ask(&question.worded(0)).await;
        }
        let mut rng = Rng::with_seed(7);
        for key in redis.keys() {
            damage.strike(&redis, &key, &mut rng);
        }
        let second = replica(&upstream, &redis.url()).await;
        for proxy in [&second, &first] {
            for question in &questions {
                answers_well(proxy, &upstream, *question, damage).await;
            }
        }
        for proxy in [&first, &second] {
            for question in &questions {
                hits_again(proxy, *question, damage).await;
            }
            assert_eq!(proxy.store_state().await, "ok", "{damage:?}");
        }
    }
}

/// Whatever serves it, the reply is upstream's to this question.
async fn answers_well(proxy: &Proxy, upstream: &Simulated, question: Question, damage: Damage) {
    let prompts = [question.worded(0), question.worded(1)];
    for prompt in &prompts {
        let text = text_of(&proxy.ask(prompt).await.json());
        let answered = prompts.iter().any(|prompt| text.contains(&format!("“{prompt}”")));
        assert!(answered, "{damage:?}: {text} to {prompt}");
    }
    assert!(upstream.count() > 0);
}

async fn hits_again(proxy: &Proxy, question: Question, damage: Damage) {
    for wording in 0..2 {
        let prompt = question.worded(wording);
        support::redis::until(&format!("{damage:?}: {prompt:?} hits again"), async || {
            proxy.ask(&prompt).await.layer().is_some()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_damaged_while_it_is_used() {
    let (upstream, redis) = (upstream().await, redis().await);
    let first = replica(&upstream, &redis.url()).await;
    let second = replica(&upstream, &redis.url()).await;
    let traffic = Traffic::start(&[&first, &second]).await;
    traffic.until_hits(100).await;
    let mut rng = Rng::with_seed(7);
    for damage in ALL.into_iter().cycle().take(2 * ALL.len()) {
        for key in redis.keys() {
            // It may be gone since, or be another's by now.
            if redis.command::<bool>(&["EXISTS", &key]) {
                damage.strike(&redis, &key, &mut rng);
            }
        }
        traffic.until_hits(30).await;
    }
    let from = std::time::Instant::now();
    traffic.until_hits(100).await;
    let after = traffic.since(from);
    traffic.stop().await.assert_all_right("every value of every key damaged, in six ways, twice");
    assert!(after.semantic() > 0 && after.exact() > 0, "{after}");
    for proxy in [&first, &second] {
        proxy.until_store_is_ok().await;
    }
    let third = replica(&upstream, &redis.url()).await;
    let question = Question::numbered(Question::COUNT - 1);
    third.ask(&question.worded(0)).await;
    first.until_known(question).await;
}
