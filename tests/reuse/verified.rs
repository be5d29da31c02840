//! Mode verified: a semantic hit is served once comparisons have shown that what is trusted as much is right, and what
//! they have shown outlives the process and is shared by replicas.

use rejoinder::config::{Config, EmbedderKind, Mode};
use serde_json::{Value, json};

use crate::support::redis::{Shared, patient_replica_with, redis};
use crate::support::{
    Ask, Proxy, QUESTION, Reply, Simulated, proxy_with, saying, text_of, until_admin, upstream,
};

const CHAT: &str = "/v1/chat/completions";

/// More than it takes without a contradiction at the limit that [`verified`] sets.
const ENOUGH: usize = 36;

fn verified(config: &mut Config) {
    config.mode = Mode::Verified;
    config.embedder = EmbedderKind::Builtin;
    // Few trials show as little as this.
    config.max_error = 0.3;
}

async fn verifying(upstream: &Simulated) -> Proxy {
    proxy_with(upstream, verified).await
}

/// [`QUESTION`] in other words, each number in words of its own.
fn wording(number: usize) -> String {
    const BEFORE: [&str; 7] = ["", "Hi! ", "Hello, ", "A question: ", "Please: ", "Hey, ", "Good morning! "];
    const ASKED: [&str; 7] = [
        "What's the capital of France?",
        "What is the capital city of France?",
        "What is France's capital?",
        "What is France's capital city?",
        "The capital of France is what?",
        "Which city is the capital of France?",
        "Which city is France's capital?",
    ];
    format!("{}{}", BEFORE[number / ASKED.len()], ASKED[number % ASKED.len()])
}

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

/// Asks, upstream saying this if it is asked.
async fn ask(upstream: &Simulated, proxy: &Proxy, prompt: &str, text: &str) -> Reply {
    upstream.fault_next(saying(text));
    let before = upstream.count();
    let reply = proxy.post(CHAT, &chat(prompt)).send().await;
    if upstream.count() == before {
        // The reply that was not fetched must not come to another request.
        let body = json!({"model": "other", "messages": [{"role": "user", "content": prompt}]});
        assert_eq!(text_of(&proxy.post(CHAT, &body).send().await.json()), text);
    }
    reply
}

/// Asks in these words, and waits until what was explored is compared. Gives how often a stored reply served.
async fn ask_all(
    upstream: &Simulated,
    proxy: &Proxy,
    numbers: std::ops::Range<usize>,
    text: impl Fn(usize) -> String,
) -> usize {
    let mut served = 0;
    for number in numbers {
        let before = learned(proxy).await["explored"].as_u64().unwrap();
        let reply = ask(upstream, proxy, &wording(number), &text(number)).await;
        if reply.layer() == Some("semantic") {
            served += 1;
            assert_eq!(text_of(&reply.json()), "It is Paris.");
            continue;
        }
        assert_eq!(text_of(&reply.json()), text(number));
        let explored = u64::from(reply.cache_status().ends_with("detail=exploring"));
        until_admin(proxy, "/verified", |learned| {
            let count = |name: &str| learned[name].as_u64().unwrap();
            count("explored") == before + explored
                && count("same") + count("different") + count("unclear") == count("explored")
        })
        .await;
    }
    served
}

async fn learned(proxy: &Proxy) -> Value {
    Ask::get(&format!("{}/verified", proxy.admin_url())).send().await.json()
}

fn paris(_: usize) -> String {
    "It is Paris.".to_owned()
}

#[tokio::test]
async fn what_agrees_often_enough_is_served_from_then_on() {
    let upstream = upstream().await;
    let proxy = verifying(&upstream).await;
    let first = ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    assert_eq!(first.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate");
    let explored = ask(&upstream, &proxy, &wording(1), "It is Paris.").await;
    assert_eq!(explored.cache_status(), "rejoinder; fwd=miss; stored; detail=exploring");
    assert!(explored.header("x-rejoinder-similarity").is_some());
    assert_eq!(explored.header("x-rejoinder-entry"), None, "no entry served");
    until_admin(&proxy, "/verified", |learned| learned["same"] == 1).await;
    // The exact layer serves whatever is trusted.
    let again = ask(&upstream, &proxy, &wording(1), "It is Paris.").await;
    assert_eq!(again.layer(), Some("exact"));

    assert_eq!(ask_all(&upstream, &proxy, 2..15, paris).await, 0, "nothing is trusted yet");
    let early = learned(&proxy).await;
    assert_eq!(
        (&early["active"], &early["least_trust"], &early["served"]),
        (&json!(true), &json!(null), &json!(0))
    );
    ask_all(&upstream, &proxy, 15..ENOUGH, paris).await;
    assert!(ask_all(&upstream, &proxy, ENOUGH..46, paris).await > 0, "{}", learned(&proxy).await);
    let late = learned(&proxy).await;
    assert!(late["least_trust"].as_f64().is_some_and(|trust| trust > 0.5), "{late}");
    let metrics = Ask::get(&format!("{}/metrics", proxy.admin_url())).send().await.text().to_owned();
    for (name, value) in [
        ("verified_candidates_total{choice=\"served\"}", &late["served"]),
        ("verified_candidates_total{choice=\"explored\"}", &late["explored"]),
        ("verified_compared_total{agreement=\"same\"}", &late["same"]),
    ] {
        assert!(metrics.contains(&format!("rejoinder_{name} {value}\n")), "{name} {value}: {metrics}");
    }
}

#[tokio::test]
async fn what_is_contradicted_is_not_served_however_often_it_is_asked() {
    let upstream = upstream().await;
    let proxy = verifying(&upstream).await;
    ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    let said = |number: usize| format!("There are {} bananas in the bowl on table {number}.", number + 10);
    assert_eq!(ask_all(&upstream, &proxy, 0..ENOUGH, said).await, 0);
    let learned = learned(&proxy).await;
    assert!(learned["different"].as_u64().unwrap() > 0, "{learned}");
    assert_eq!((&learned["same"], &learned["least_trust"]), (&json!(0), &json!(null)));
}

#[tokio::test]
async fn a_request_that_leaves_no_trace_leaves_no_evidence() {
    let upstream = upstream().await;
    let proxy = verifying(&upstream).await;
    ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    upstream.fault_next(saying("It is Paris."));
    let reply = proxy.post(CHAT, &chat(&wording(0))).header("x-rejoinder-ttl", "0").send().await;
    assert_eq!(reply.cache_status(), "rejoinder; fwd=miss; detail=exploring");
    // Whatever was compared before is counted by the time that this one is.
    ask(&upstream, &proxy, &wording(1), "It is Paris.").await;
    let learned = until_admin(&proxy, "/verified", |learned| learned["same"] == 1).await;
    assert_eq!(learned["explored"], 1, "of the other nothing was put on trial");
}

#[tokio::test]
async fn evidence_survives_a_restart() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        proxy_with(&upstream, |config| {
            verified(config);
            config.data_dir = Some(folder.path().to_owned());
        })
        .await
    };
    let proxy = start().await;
    ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    ask_all(&upstream, &proxy, 0..ENOUGH, paris).await;
    assert!(learned(&proxy).await["least_trust"].is_number());
    proxy.shutdown().await;
    let proxy = start().await;
    let known = learned(&proxy).await;
    assert!(known["least_trust"].is_number() && known["explored"] == 0, "{known}");
    assert!(ask_all(&upstream, &proxy, ENOUGH..46, paris).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_evidence() {
    let (upstream, redis) = (upstream().await, redis().await);
    let first = patient_replica_with(&upstream, &redis.url(), verified).await;
    let second = patient_replica_with(&upstream, &redis.url(), verified).await;
    ask(&upstream, &first, QUESTION, "It is Paris.").await;
    for number in 0..ENOUGH {
        if ask_all(&upstream, &first, number..number + 1, paris).await == 0 {
            // So that the next is compared with the same entry.
            first.delete(&wording(number)).await;
        }
    }
    assert!(learned(&first).await["least_trust"].is_number());
    assert_eq!(learned(&second).await["least_trust"], Value::Null);
    assert!(ask_all(&upstream, &second, ENOUGH..46, paris).await > 0, "{}", learned(&second).await);
    let known = learned(&second).await;
    assert!(known["explored"].as_u64().unwrap() < 10, "it did not learn that by itself: {known}");
}
