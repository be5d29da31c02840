//! `--redis-url`: what one proxy stores in Redis every other finds, by its key and by its meaning, over each way to
//! reach Redis; and what stands there gives nothing away.

use std::time::Duration;

use rejoinder::config::{Bytes, Config, EmbedderKind, Secret};
use serde_json::json;

use crate::support::redis::{
    Redis, RedisOptions, Shared, patient_replica as replica, patient_replica_with as replica_with, redis,
    until,
};
use crate::support::traffic::Question;
use crate::support::{Ask, Proxy, Simulated, saying, text_of, upstream};

/// A miss is stored and then found by both layers, here and at a second proxy, which asks no upstream.
async fn is_shared(url: &str, customise: impl Fn(&mut Config)) {
    let upstream = upstream().await;
    let first = replica_with(&upstream, url, &customise).await;
    let second = replica_with(&upstream, url, &customise).await;
    let question = Question::numbered(0);
    let miss = first.ask(&question.worded(0)).await;
    assert_eq!(miss.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate", "{url}");
    for proxy in [&first, &second] {
        proxy.until_known(question).await;
        for wording in 0..2 {
            let hit = proxy.ask(&question.worded(wording)).await;
            assert_eq!(hit.layer(), Some(["exact", "semantic"][wording]), "{url}");
            assert_eq!(text_of(&hit.json()), text_of(&miss.json()), "{url}");
        }
        assert_eq!(proxy.store_state().await, "ok", "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_shared_with_either_embedder() {
    let redis = redis().await;
    is_shared(&redis.url(), |_| {}).await;
    redis.flush_all();
    is_shared(&redis.url(), |config| config.embedder = EmbedderKind::Builtin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_server_is_taken_where_one_is_named() {
    let redis = redis().await;
    is_shared(&format!("{}/5", redis.url()), |_| {}).await;
    assert!(redis.keys().is_empty(), "nothing in the first one");
    assert!(redis.info("db5").starts_with("keys="));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_given_in_the_url_or_apart() {
    let password = "p@ss word/1";
    let redis = RedisOptions::default().password(password).start().await;
    is_shared(&redis.url(), |_| {}).await;
    redis.flush_all();
    is_shared(&format!("redis://{}", redis.address()), |config| {
        config.redis.password = Some(Secret::new(password.to_owned()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_reached() {
    let redis = RedisOptions::default().unix_socket().start().await;
    is_shared(&redis.unix_url(), |_| {}).await;
    redis.flush_all();
    is_shared(&format!("{}?db=2", redis.unix_url()), |_| {}).await;
    assert!(redis.info("db2").starts_with("keys="));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_whom_the_authority_vouches_for() {
    let redis = RedisOptions::default().tls().start().await;
    let authority = redis.certificates().authority.clone();
    is_shared(&redis.tls_url(), |config| config.redis.ca_file = Some(authority.clone())).await;

    // Whoever else answers there learns nothing.
    let upstream = upstream().await;
    let stranger = RedisOptions::default().tls().start().await;
    for (url, authority) in [(redis.tls_url(), None), (stranger.tls_url(), Some(authority))] {
        let proxy = replica_with(&upstream, &url, |config| config.redis.ca_file = authority).await;
        goes_without(&proxy).await;
    }
    assert!(stranger.keys().is_empty());
}

/// It answers from upstream, says why, and says so to operators.
async fn goes_without(proxy: &Proxy) {
    for number in 0..3 {
        let reply = proxy.ask(&Question::numbered(number).worded(0)).await;
        assert!(reply.cache_status().ends_with("detail=store-unavailable"), "{}", reply.cache_status());
    }
    assert_ne!(proxy.store_state().await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_costs_hits_and_no_answers() {
    let upstream = upstream().await;
    let redis = RedisOptions::default().password("right").start().await;
    for url in [format!("redis://:wrong@{}", redis.address()), format!("redis://{}", redis.address())] {
        goes_without(&replica(&upstream, &url).await).await;
    }
    assert!(redis.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_redis_serves_and_shares_once_it_is_there() {
    let upstream = upstream().await;
    let mut redis = redis().await;
    redis.kill();
    let (first, second) = (replica(&upstream, &redis.url()).await, replica(&upstream, &redis.url()).await);
    goes_without(&first).await;
    goes_without(&second).await;
    redis.restart().await;
    first.until_store_is_ok().await;
    second.until_store_is_ok().await;
    first.ask(&Question::numbered(9).worded(0)).await;
    second.until_known(Question::numbered(9)).await;
}

/// The line of an ACL file that the documentation gives.
fn documented_user() -> String {
    let text = include_str!("../../ARCHITECTURE.md");
    let line = text.lines().map(str::trim).find(|line| line.starts_with("user rejoinder on "));
    line.expect("ARCHITECTURE.md lists the rights").to_owned()
}

/// The rights documented are enough for everything a proxy does, and none of them is more than is used, those aside
/// that only Sentinel and Cluster need.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_documented_rights_are_needed() {
    const ELSEWHERE: [&str; 3] = ["cluster", "role", "select"];
    let line = documented_user();
    let words: Vec<_> =
        line.split(' ').map(|word| if word.starts_with('>') { ">pass" } else { word }).collect();
    assert!(!line.contains("+@") && !line.contains("allkeys") && !line.contains("~*"), "{line}");
    let redis = RedisOptions::default().user(&words.join(" ")).start().await;
    redis.command::<()>(&["CONFIG", "RESETSTAT"]);
    let url = redis.url_as("rejoinder", "pass");
    is_shared(&url, |_| {}).await;
    redis.flush_all();
    everything(&redis, &url).await;
    let refused: redis::Value = redis.command(&["ACL", "LOG"]);
    assert_eq!(refused, redis::Value::Array(Vec::new()));
    let stats: String = redis.command(&["INFO", "commandstats"]);
    for right in words.iter().filter_map(|word| word.strip_prefix('+')) {
        let used =
            stats.contains(&format!("cmdstat_{right}:")) || stats.contains(&format!("cmdstat_{right}|"));
        let elsewhere = ELSEWHERE.iter().any(|name| right.split('|').next() == Some(name));
        assert!(used || elsewhere, "{right} is listed and not used:\n{stats}");
    }
}

/// What operators do, and what happens by itself.
async fn everything(redis: &Redis, url: &str) {
    let upstream = upstream().await;
    let proxy = replica_with(&upstream, url, |config| config.redis.max_entries_per_scope = 10).await;
    let question = Question::numbered(0);
    proxy.ask(&question.worded(0)).await;
    proxy.until_known(question).await;
    let prompt = question.worded(0);
    until("hits are counted", async || hits_of(&proxy, &prompt).await > 0).await;
    proxy.delete(&prompt).await;
    proxy.until_unknown(question).await;
    // More than are kept.
    for number in 100..130 {
        proxy.ask(&Question::numbered(number).worded(0)).await;
    }
    // All is written then.
    proxy.shutdown().await;
    assert_eq!(entries(redis).len(), 10);
    // Gone without a word, as when Redis makes room.
    for key in entries(redis) {
        redis.command::<()>(&["UNLINK", &key]);
    }
    let fresh = replica(&upstream, url).await;
    for number in 100..130 {
        fresh.until_unknown(Question::numbered(number)).await;
    }
    until("the index is tidy", async || !redis.keys().iter().any(|key| key.contains(":index:"))).await;
    fresh.ask(&prompt).await;
    fresh.until_known(question).await;
    assert!(fresh.purge(json!({"model": "llama3.2"})).await >= 1);
    // A key refused is forgotten.
    let ask = || {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Explain it."}]});
        fresh.post("/v1/chat/completions", &body).header("authorization", "Bearer a")
    };
    let kept = || redis.keys().iter().any(|key| key.contains(":credential:"));
    ask().send().await;
    until("the acceptance is kept", async || kept()).await;
    upstream.require_key(Some("b"));
    ask().header("cache-control", "no-cache").send().await;
    until("the acceptance is forgotten", async || !kept()).await;
    fresh.purge(json!({"all": true})).await;
}

/// The names of all entries.
fn entries(redis: &Redis) -> Vec<String> {
    redis.keys().into_iter().filter(|key| key.contains(":entry:")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_search_and_take_out_what_is_stored() {
    let (upstream, redis) = (upstream().await, redis().await);
    let (first, second) = (replica(&upstream, &redis.url()).await, replica(&upstream, &redis.url()).await);
    let prompt = Question::numbered(0).worded(0);
    first.ask(&prompt).await;
    second.until_known(Question::numbered(0)).await;
    let hit = second.ask(&prompt).await;
    let id = hit.header("x-rejoinder-entry").unwrap();
    until("hits are counted for all", async || {
        let shown = Ask::get(&format!("{}/entries/{id}", first.admin_url())).send().await.json();
        shown["prompt"] == prompt.as_str()
            && shown["reply"] == text_of(&hit.json()).as_str()
            && shown["hits"].as_u64().unwrap() >= 1
    })
    .await;
    let page = Ask::get(&format!("{}/entries?q=CAPITAL", second.admin_url())).send().await.json();
    assert_eq!(page["entries"][0]["id"], id);
    let page = Ask::get(&format!("{}/entries?q=nothing+like+it", second.admin_url())).send().await.json();
    assert_eq!(page["entries"], json!([]));
    assert_eq!(first.purge(json!({"model": "another"})).await, 0);
    assert_eq!(first.purge(json!({"model": "llama3.2"})).await, 1);
    second.until_unknown(Question::numbered(0)).await;
}

/// The bytes of every key and value, whatever its type.
fn dump(redis: &Redis) -> Vec<u8> {
    let mut all = Vec::new();
    for key in redis.keys() {
        all.extend_from_slice(key.as_bytes());
        let value: Option<Vec<u8>> = redis.command(&["DUMP", &key]);
        all.extend_from_slice(&value.unwrap_or_default());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_hold_no_prompt_and_nothing_holds_a_credential() {
    let upstream = upstream().await;
    // Values are stored as they are, so that what they hold can be searched.
    let redis = RedisOptions::default().set("rdbcompression", "no").start().await;
    let proxy = replica(&upstream, &redis.url()).await;
    let ask = || {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Tell me of zanzibar."}]});
        proxy
            .post("/v1/chat/completions", &body)
            .header("authorization", "Bearer sk-very-secret")
            .header("cookie", "session=biscuit")
    };
    assert_eq!(ask().send().await.layer(), None);
    until("it is stored", async || ask().send().await.layer() == Some("exact")).await;
    until("it is counted", async || redis.keys().len() >= 3).await;
    let has = |bytes: &[u8], text: &str| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    let names = redis.keys().concat().to_lowercase();
    let everything = dump(&redis);
    assert!(has(&everything, "zanzibar"), "the dump shows what is stored");
    assert!(!names.contains("zanzibar"), "{names}");
    for secret in ["sk-very-secret", "biscuit"] {
        assert!(!has(&everything, secret) && !names.contains(secret), "{secret}");
    }
}

const KEYS: [&str; 2] = [
    "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef",
    "3q2-7wARIjNEVWZ3iJmqu8zd7v8BI0VniavN7wEjRWc=",
];

/// A replica with these keys, the first of which encrypts.
async fn encrypting(upstream: &Simulated, redis: &Redis, keys: &str) -> Proxy {
    replica_with(upstream, &redis.url(), |config| {
        config.encryption_key = Some(keys.to_owned()).filter(|keys| !keys.is_empty()).map(Secret::new);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_shows_nothing_to_who_reads_all_of_redis() {
    let upstream = upstream().await;
    let redis = RedisOptions::default().set("rdbcompression", "no").start().await;
    let proxy = encrypting(&upstream, &redis, KEYS[0]).await;
    let ask = |prompt: &str| {
        let messages = json!([{"role": "user", "content": prompt}]);
        proxy
            .post("/v1/chat/completions", &json!({"model": "gpt-okapi", "messages": messages}))
            .header("authorization", "Bearer sk-very-secret")
            .header("x-rejoinder-namespace", "walrus")
    };
    upstream.fault_next(saying("It is an island of cloves."));
    assert_eq!(ask("Tell me of zanzibar.").send().await.layer(), None);
    until("it is found", async || {
        let first = ask("Tell me of zanzibar.").send().await;
        first.layer() == Some("exact") && redis.keys().len() >= 4
    })
    .await;
    let everything = dump(&redis);
    for canary in ["zanzibar", "cloves", "gpt-okapi", "walrus", "sk-very-secret"] {
        assert!(memchr::memmem::find(&everything, canary.as_bytes()).is_none(), "{canary}");
    }
    // Whoever may read entries does, and purges by what is in them.
    let purge = json!({"namespace": "walrus"});
    let purged = Ask::post(&format!("{}/purge", proxy.admin_url()), &purge).send().await;
    assert_eq!(purged.json(), json!({"purged": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_a_wrong_key_has_misses_and_takes_nothing_from_the_others() {
    let (upstream, redis) = (upstream().await, redis().await);
    let question = Question::numbered(0);
    let first = encrypting(&upstream, &redis, KEYS[0]).await;
    first.ask(&question.worded(0)).await;
    first.until_known(question).await;
    let stored = entries(&redis);
    let before: Vec<u8> = redis.command(&["DUMP", &stored[0]]);
    for wrong in [KEYS[1], ""] {
        let other = encrypting(&upstream, &redis, wrong).await;
        for wording in 0..2 {
            assert_eq!(other.look_up(&question.worded(wording)).await.layer(), None);
        }
        assert_eq!(other.store_state().await, "degraded");
        let metrics = Ask::get(&format!("{}/metrics", other.admin_url())).send().await.text().to_owned();
        assert!(!metrics.contains("rejoinder_store_undecryptable_total 0"), "{metrics}");
        assert!(metrics.contains("rejoinder_store_corrupt_total 0"), "{metrics}");
        // What it fetches itself does not take the place of what the others can read.
        assert_eq!(other.ask(&question.worded(0)).await.layer(), None);
        other.shutdown().await;
        assert!(redis.command::<Vec<u8>>(&["DUMP", &stored[0]]) == before, "with {wrong:?}");
    }
    // Asked of Redis, not of the memory of the one who stored it; and rotated.
    for keys in [KEYS[0].to_owned(), format!("{}\n{}", KEYS[1], KEYS[0])] {
        let again = encrypting(&upstream, &redis, &keys).await;
        again.until_known(question).await;
        assert_eq!(again.store_state().await, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_in_plain_is_found_when_encryption_is_switched_on() {
    let (upstream, redis) = (upstream().await, redis().await);
    let question = Question::numbered(0);
    let plain = encrypting(&upstream, &redis, "").await;
    plain.ask(&question.worded(0)).await;
    plain.until_known(question).await;
    let encrypted = encrypting(&upstream, &redis, KEYS[0]).await;
    encrypted.until_known(question).await;
    // Replaced, it is encrypted.
    let body = json!({"model": "llama3.2", "messages": [{"role": "user", "content": question.worded(0)}]});
    let anew = encrypted.post("/v1/chat/completions", &body).header("cache-control", "no-cache");
    anew.send().await;
    until("it is encrypted", async || {
        entries(&redis).iter().all(|name| {
            let metadata: Vec<u8> = redis.command(&["HGET", name, "metadata"]);
            metadata.first() == Some(&1)
        })
    })
    .await;
    encrypted.until_known(question).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_but_the_secret_expires() {
    let (upstream, redis) = (upstream().await, redis().await);
    let proxy = replica(&upstream, &redis.url()).await;
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Explain it."}]});
    let ask = || proxy.post("/v1/chat/completions", &body).header("x-rejoinder-ttl", "2");
    ask().header("authorization", "Bearer a").send().await;
    until("it is stored", async || !entries(&redis).is_empty()).await;
    for key in redis.keys() {
        let left: i64 = redis.command(&["PTTL", &key]);
        assert_eq!(left > 0, !key.ends_with(":secret"), "{key} has {left} ms left");
    }
    until("the entry is gone", async || entries(&redis).is_empty()).await;
    let miss = ask().header("authorization", "Bearer a").send().await;
    assert_eq!(miss.layer(), None, "{}", miss.cache_status());
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_of_two_models_never_meet() {
    let (upstream, redis) = (upstream().await, redis().await);
    let with = async |model: &str| {
        replica_with(&upstream, &redis.url(), |config| model.clone_into(&mut config.embedder_model)).await
    };
    let (first, other) = (with("one").await, with("two").await);
    let question = Question::numbered(0);
    first.ask(&question.worded(0)).await;
    first.until_known(question).await;
    other.until_served_by(Some("exact"), &question.worded(0)).await;
    assert_eq!(other.layer_of(&question.worded(1)).await, None);
    // Each goes on with its own.
    let question = Question::numbered(1);
    other.ask(&question.worded(0)).await;
    other.until_known(question).await;
    assert_eq!(first.layer_of(&question.worded(1)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_keep_deployments_apart() {
    let (upstream, redis) = (upstream().await, redis().await);
    let with = async |prefix: &str| {
        replica_with(&upstream, &redis.url(), |config| prefix.clone_into(&mut config.redis.key_prefix)).await
    };
    let (blue, green) = (with("blue").await, with("green").await);
    let question = Question::numbered(0);
    blue.ask(&question.worded(0)).await;
    blue.until_known(question).await;
    assert_eq!(green.layer_of(&question.worded(0)).await, None);
    assert!(redis.keys().iter().all(|key| key.starts_with("blue:") || key.starts_with("green:")));
    green.purge(json!({"all": true})).await;
    assert_eq!(blue.layer_of(&question.worded(0)).await.as_deref(), Some("exact"));
}

/// What upstream accepted at one replica counts at the others.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_accepted_by_one_serve_at_every_other() {
    let (upstream, redis) = (upstream().await, redis().await);
    let (first, second) = (replica(&upstream, &redis.url()).await, replica(&upstream, &redis.url()).await);
    let ask = async |proxy: &Proxy, key: &str| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Explain it."}]});
        let ask = proxy.post("/v1/chat/completions", &body).header("authorization", key);
        ask.header("cache-control", "only-if-cached").send().await
    };
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Explain it."}]});
    first.post("/v1/chat/completions", &body).header("authorization", "Bearer a").send().await;
    until("the other serves it", async || ask(&second, "Bearer a").await.layer() == Some("exact")).await;
    assert_eq!(ask(&second, "Bearer b").await.status, 504, "nobody has seen this one accepted");

    // Upstream refuses it from now on: whoever has not seen it accepted relies on it no more.
    upstream.require_key(Some("c"));
    let fresh = first.post("/v1/chat/completions", &body).header("authorization", "Bearer a");
    assert_eq!(fresh.header("cache-control", "no-cache").send().await.status, 401);
    until("nobody new relies on it", async || {
        let third = replica(&upstream, &redis.url()).await;
        ask(&third, "Bearer a").await.status == 504 && ask(&first, "Bearer a").await.status == 504
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_secret_is_not_kept_in_redis() {
    let (upstream, redis) = (upstream().await, redis().await);
    let with = async |secret: &str| {
        let secret = Secret::new(secret.to_owned());
        replica_with(&upstream, &redis.url(), |config| config.secret = Some(secret)).await
    };
    let (first, second, other) = (with("one").await, with("one").await, with("two").await);
    let question = Question::numbered(0);
    first.ask(&question.worded(0)).await;
    second.until_known(question).await;
    assert_eq!(other.layer_of(&question.worded(0)).await, None);
    assert!(!redis.keys().iter().any(|key| key.ends_with(":secret")));
}

/// How often the entry of a prompt has served, as operators see it.
async fn hits_of(proxy: &Proxy, prompt: &str) -> u64 {
    let asked: String = form_urlencoded::byte_serialize(prompt.as_bytes()).collect();
    let page = Ask::get(&format!("{}/entries?q={asked}", proxy.admin_url())).send().await.json();
    page["entries"][0]["hits"].as_u64().unwrap_or_default()
}

/// A cap on the entries of a scope drops the least useful, never the newest.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_scope_lets_go_of_what_nobody_asks_for() {
    const CAP: usize = 20;
    let (upstream, redis) = (upstream().await, redis().await);
    let capped = async || {
        let cap = |config: &mut Config| config.redis.max_entries_per_scope = CAP as u64;
        replica_with(&upstream, &redis.url(), cap).await
    };
    let (proxy, other) = (capped().await, capped().await);
    let question = |number: usize| Question::numbered(number).worded(0);
    for number in 0..CAP {
        proxy.ask(&question(number)).await;
        other.until_served_by(Some("exact"), &question(number)).await;
    }
    for _ in 0..10 {
        proxy.ask(&question(0)).await;
    }
    for number in 0..CAP {
        let least = if number == 0 { 10 } else { 1 };
        until("hits are counted", async || hits_of(&proxy, &question(number)).await >= least).await;
    }
    for number in CAP..3 * CAP {
        proxy.ask(&question(number)).await;
        other.until_served_by(Some("exact"), &question(number)).await;
    }
    until("no more than the cap is kept", async || entries(&redis).len() <= CAP).await;
    let fresh = capped().await;
    fresh.until_known(Question::numbered(0)).await;
    fresh.until_known(Question::numbered(3 * CAP - 1)).await;
}

/// How often each command was called since the last `CONFIG RESETSTAT`.
fn calls(redis: &Redis) -> std::collections::BTreeMap<String, u64> {
    let stats: String = redis.command(&["INFO", "commandstats"]);
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    calls.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_hit_costs_one_command_and_a_popular_one_none() {
    const HITS: u64 = 50;
    /// A hot tier, and the command by which each of its hits asks Redis.
    type Tier = (&'static str, fn(&mut Config), Option<&'static str>);
    const TIERS: [Tier; 3] = [
        ("none", |config| config.redis.hot_max_bytes = Bytes(0), Some("hmget")),
        ("validated", |config| config.redis.hot_max_age = Duration::ZERO, Some("hget")),
        ("default", |_| {}, None),
    ];
    let (upstream, redis) = (upstream().await, redis().await);
    let prompt = Question::numbered(0).worded(0);
    for (name, tier, command) in TIERS {
        let proxy = replica_with(&upstream, &redis.url(), tier).await;
        proxy.ask(&prompt).await;
        proxy.until_served_by(Some("exact"), &prompt).await;
        // The tier is in use once Redis tells of changes; what it has then it keeps.
        let in_use = async || {
            redis.command::<()>(&["CONFIG", "RESETSTAT"]);
            proxy.ask(&prompt).await;
            let calls = calls(&redis);
            !calls.contains_key("hmget") && (command.is_some() || !calls.contains_key("hget"))
        };
        if command != Some("hmget") {
            until("it is kept in process", in_use).await;
        }
        redis.command::<()>(&["CONFIG", "RESETSTAT"]);
        for _ in 0..HITS {
            assert_eq!(proxy.ask(&prompt).await.layer(), Some("exact"));
        }
        let mut calls = calls(&redis);
        let read = command.map(|command| calls.remove(command).unwrap_or_default());
        // Hits are counted behind requests, by what reads a field too.
        let asks = |read| (HITS..HITS + HITS / 2).contains(&read);
        assert!(read.is_none_or(asks), "hot tier: {name}: {read:?} times {command:?}");
        assert!(!calls.contains_key("hmget"), "hot tier: {name}: {calls:?}");
        // What passes behind requests does not pass for each of them.
        assert!(calls.values().all(|count| *count < HITS / 2), "hot tier: {name}: {calls:?}");
    }
}
