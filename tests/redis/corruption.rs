//! What comes back from Redis is not trusted: a value of another type, cut short, or garbage is a miss and is put
//! right, for every key that there is; it is never an error, and never another's reply.

use fastrand::Rng;
use redis::{Connection, FromRedisValue, RedisResult};
use rejoinder::simulated::Simulated;

use crate::support::redis::{Redis, Shared, redis, replica};
use crate::support::traffic::Question;
use crate::support::{Proxy, Traffic, text_of, upstream};

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

    /// Damages the value of a key. Fails where the key is gone or of another type meanwhile.
    fn strike(self, redis: &mut Connection, key: &str, rng: &mut Rng) -> RedisResult<()> {
        let key = key.as_bytes();
        let kind: String = query(redis, &[b"TYPE", key])?;
        if self == Self::Type {
            query::<()>(redis, &[b"DEL", key])?;
            return match (kind.as_str(), rng.bool()) {
                ("hash" | "zset", true) => query(redis, &[b"SET", key, b"1"]),
                ("hash", false) | ("string", true) => query(redis, &[b"ZADD", key, b"1", b"a"]),
                _ => query(redis, &[b"HSET", key, b"a", b"b"]),
            };
        }
        match kind.as_str() {
            "none" => {}
            "string" => {
                let value: Vec<u8> = query(redis, &[b"GET", key])?;
                query::<()>(redis, &[b"SET", key, &self.done_to(&value, rng), b"KEEPTTL"])?;
            }
            "hash" => {
                let all: Vec<Vec<u8>> = query(redis, &[b"HGETALL", key])?;
                let pairs: Vec<_> = all.chunks(2).collect();
                if self == Self::Missing {
                    let Some([field, _]) = rng.choice(&pairs) else { return Ok(()) };
                    return query::<()>(redis, &[b"HDEL", key, field]);
                }
                for pair in pairs {
                    query::<()>(redis, &[b"HSET", key, &pair[0], &self.done_to(&pair[1], rng)])?;
                }
            }
            "zset" => {
                let members: Vec<Vec<u8>> = query(redis, &[b"ZRANGE", key, b"0", b"-1"])?;
                for member in members {
                    query::<()>(redis, &[b"ZADD", key, b"7", &self.done_to(&member, rng)])?;
                    query::<()>(redis, &[b"ZREM", key, &member])?;
                }
            }
            other => panic!("a new type, {other}: say here how it is damaged"),
        }
        Ok(())
    }
}

/// Any command.
fn query<T: FromRedisValue>(redis: &mut Connection, words: &[&[u8]]) -> RedisResult<T> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query(redis)
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
        let mut connection = redis.connection().unwrap();
        for key in redis.keys() {
            damage.strike(&mut connection, &key, &mut rng).unwrap();
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
        crate::support::redis::until(&format!("{damage:?}: {prompt:?} hits again"), async || {
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
    let mut connection = redis.connection().unwrap();
    for damage in ALL.into_iter().cycle().take(2 * ALL.len()) {
        for key in redis.keys() {
            // What was changed by the proxies meanwhile has its turn another time.
            let _ = damage.strike(&mut connection, &key, &mut rng);
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

/// Values that are whole and stand in the place of others, as after a restore gone wrong.
#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_elsewhere_is_never_served() {
    let (upstream, redis) = (upstream().await, redis().await);
    let first = replica(&upstream, &redis.url()).await;
    let second = replica(&upstream, &redis.url()).await;
    let traffic = Traffic::start(&[&first, &second]).await;
    for _ in 0..4 {
        traffic.until_hits(50).await;
        exchange_values(&redis);
        traffic.until_hits(30).await;
        for field in ["response", "query", "embedding", "metadata", "created_at", "seal"] {
            exchange_fields(&redis, field);
        }
    }
    let from = std::time::Instant::now();
    traffic.until_hits(50).await;
    let after = traffic.since(from);
    traffic.stop().await.assert_all_right("whole values and single fields exchanged between keys");
    assert!(after.semantic() > 0 && after.exact() > 0, "{after}");
}

/// Gives each entry and each index the value of another.
fn exchange_values(redis: &Redis) {
    let keys = redis.keys();
    let mut redis = redis.connection().unwrap();
    for kind in [":entry:", ":index:", ":hits:", ":credential:"] {
        let keys: Vec<_> = keys.iter().filter(|key| key.contains(kind)).collect();
        let values: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| query(&mut redis, &[b"DUMP", key.as_bytes()]).unwrap_or_default())
            .collect();
        for (key, value) in keys.iter().zip(values.iter().cycle().skip(1)) {
            if !value.is_empty() {
                let words: [&[u8]; 5] = [b"RESTORE", key.as_bytes(), b"60000", value, b"REPLACE"];
                query::<()>(&mut redis, &words).unwrap();
            }
        }
    }
}

/// Gives each entry one field of another.
fn exchange_fields(redis: &Redis, field: &str) {
    let keys = redis.keys();
    let mut redis = redis.connection().unwrap();
    let keys: Vec<_> = keys.iter().filter(|key| key.contains(":entry:")).collect();
    let values: Vec<Option<Vec<u8>>> = keys
        .iter()
        .map(|key| query(&mut redis, &[b"HGET", key.as_bytes(), field.as_bytes()]).unwrap_or_default())
        .collect();
    for (key, value) in keys.iter().zip(values.iter().cycle().skip(1)) {
        if let Some(value) = value {
            // A proxy may have removed what was damaged before, and a field alone is damage too.
            let words: [&[u8]; 4] = [b"HSET", key.as_bytes(), field.as_bytes(), value];
            query::<()>(&mut redis, &words).unwrap();
        }
    }
}
