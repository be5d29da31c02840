//! Audits: a share of served semantic hits is also asked upstream, behind the request; an entry that is contradicted
//! is not served again.

use rejoinder::config::{Config, EmbedderKind, Secret};
use serde_json::{Value, json};

use crate::support::{
    Ask, Fault, Gate, PARAPHRASE, Proxy, QUESTION, Reply, Simulated, generating, proxy_with, saying,
    streamed, text_of, until_admin, upstream,
};

const CHAT: &str = "/v1/chat/completions";

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

async fn auditing_with(upstream: &Simulated, customise: impl FnOnce(&mut Config)) -> Proxy {
    proxy_with(upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.cache.audit_share = 1.0;
        customise(config);
    })
    .await
}

async fn auditing(upstream: &Simulated) -> Proxy {
    auditing_with(upstream, |_| {}).await
}

async fn ask(proxy: &Proxy, prompt: &str) -> Reply {
    proxy.post(CHAT, &chat(prompt)).send().await
}

/// The audits once so many are compared.
async fn audited(proxy: &Proxy, count: u64) -> Value {
    until_admin(proxy, "/audits", |audits| {
        ["same", "different", "unclear"].iter().map(|name| audits[name].as_u64().unwrap()).sum::<u64>()
            == count
    })
    .await
}

#[tokio::test]
async fn a_hit_that_holds_is_counted_and_goes_on_serving() {
    let upstream = upstream().await;
    let proxy = auditing(&upstream).await;
    upstream.set_fault(saying("It is Paris."));
    ask(&proxy, QUESTION).await;
    let hit = ask(&proxy, PARAPHRASE).await;
    assert_eq!(hit.layer(), Some("semantic"), "{}", hit.cache_status());
    let audits = audited(&proxy, 1).await;
    for (name, expected) in
        [("audit_share", json!(1.0)), ("audited", json!(1)), ("same", json!(1)), ("poisoned", json!(0))]
    {
        assert_eq!(audits[name], expected, "{name}: {audits}");
    }
    assert_eq!(audits["false_hit_rate"]["value"], 0.0);
    assert!(audits["false_hit_rate"]["high"].as_f64().unwrap() > 0.5, "one audit shows little: {audits}");
    assert_eq!(upstream.count(), 2);
    // Nothing of the audit is stored: the paraphrase is still answered by meaning.
    assert_eq!(ask(&proxy, PARAPHRASE).await.layer(), Some("semantic"));
    let metrics = Ask::get(&format!("{}/metrics", proxy.admin_url())).send().await;
    for line in ["rejoinder_audits_total{agreement=\"different\"} 0", "rejoinder_audit_false_hit_rate 0.0"] {
        assert!(metrics.text().lines().any(|one| one == line), "{line}: {}", metrics.text());
    }
}

/// A stored reply, then a hit on it that an audit contradicts.
async fn contradicted(upstream: &Simulated, proxy: &Proxy) {
    upstream.fault_next(saying("It has 2 million people."));
    ask(proxy, QUESTION).await;
    upstream.fault_next(saying("It has 9 million people."));
    let hit = ask(proxy, PARAPHRASE).await;
    assert_eq!(hit.layer(), Some("semantic"), "{}", hit.cache_status());
    assert_eq!(text_of(&hit.json()), "It has 2 million people.");
    let audits = audited(proxy, 1).await;
    assert_eq!((&audits["different"], &audits["poisoned"]), (&json!(1), &json!(1)), "{audits}");
    assert_eq!(audits["false_hit_rate"]["value"], 1.0);
}

#[tokio::test]
async fn an_entry_that_is_contradicted_is_not_served_again_until_replaced() {
    let upstream = upstream().await;
    let proxy = auditing(&upstream).await;
    contradicted(&upstream, &proxy).await;
    let fresh = ask(&proxy, PARAPHRASE).await;
    assert_eq!(fresh.layer(), Some("exact"), "the audit's reply is stored for the prompt asked");
    assert_eq!(text_of(&fresh.json()), "It has 9 million people.");
    let question = proxy.post(CHAT, &chat(QUESTION)).header("x-rejoinder-threshold", "1").send().await;
    assert_eq!(question.cache_status(), "rejoinder; fwd=miss; stored; detail=poisoned");
    assert_eq!(ask(&proxy, QUESTION).await.layer(), Some("exact"), "the new reply has taken its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradicted_entry_stays_one_after_a_restart() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let start = || auditing_with(&upstream, |config| config.data_dir = Some(folder.path().to_owned()));
    let first = start().await;
    contradicted(&upstream, &first).await;
    first.shutdown().await;
    let second = start().await;
    let question = second.post(CHAT, &chat(QUESTION)).header("x-rejoinder-threshold", "1").send().await;
    assert_eq!(question.cache_status(), "rejoinder; fwd=miss; stored; detail=poisoned");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_does_not_serve_a_contradicted_entry() {
    no_replica_serves_what_is_contradicted(None).await;
    let key = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
    no_replica_serves_what_is_contradicted(Some(key)).await;
}

async fn no_replica_serves_what_is_contradicted(encryption_key: Option<&'static str>) {
    let redis = crate::support::redis::redis().await;
    let upstream = upstream().await;
    let url = redis.url();
    let start = |share: f32| {
        crate::support::redis::patient_replica_with(&upstream, &url, move |config: &mut Config| {
            config.embedder = EmbedderKind::Builtin;
            config.cache.audit_share = share;
            config.encryption_key = encryption_key.map(|key| Secret::new(key.to_owned()));
        })
    };
    let (first, second) = (start(1.0).await, start(0.0).await);
    contradicted(&upstream, &first).await;
    let status = crate::support::soon(async {
        loop {
            let ask = second.post(CHAT, &chat(QUESTION)).header("x-rejoinder-threshold", "1");
            let reply = ask.header("cache-control", "only-if-cached").send().await;
            if reply.layer().is_none() && !reply.cache_status().ends_with("no-candidate") {
                return reply.cache_status().to_owned();
            }
        }
    })
    .await;
    assert_eq!(status, "rejoinder; fwd=miss; detail=poisoned");
}

#[tokio::test]
async fn an_audit_asks_what_the_client_asked_as_the_client() {
    let upstream = upstream().await;
    for (streams, (path, asked)) in
        generating(PARAPHRASE).into_iter().flat_map(|asked| [(false, asked.clone()), (true, asked)])
    {
        let proxy = auditing(&upstream).await;
        let (_, stored) = generating(QUESTION).into_iter().find(|(other, _)| *other == path).unwrap();
        let asked = if streams { streamed(&asked) } else { asked };
        let ask = |body: &Value| proxy.post(path, body).header("authorization", "Bearer key").send();
        ask(&stored).await;
        let before = upstream.count();
        assert_eq!(ask(&asked).await.layer(), Some("semantic"), "{path}");
        if path == "/v1/responses" {
            // It would be kept upstream once more.
            until_admin(&proxy, "/audits", |audits| audits["skipped"] == 1).await;
            assert_eq!(upstream.count(), before, "{path}");
            continue;
        }
        audited(&proxy, 1).await;
        assert_eq!(upstream.count(), before + 1, "{path}");
        let audit = upstream.requests().pop().unwrap();
        assert_eq!(audit.header("authorization"), Some("Bearer key"), "{path}");
        let sent: Value = serde_json::from_slice(&audit.body).unwrap();
        assert!(sent.to_string().contains(PARAPHRASE), "{path}: {sent}");
    }
}

#[tokio::test]
async fn without_room_upstream_there_is_no_audit() {
    let upstream = upstream().await;
    let proxy = auditing_with(&upstream, |config| config.limits.max_upstream_requests = 1).await;
    ask(&proxy, QUESTION).await;
    let gate = Gate::new();
    upstream.fault_next(Fault::none().gate(&gate));
    let other = tokio::spawn(proxy.post(CHAT, &chat("How do I reverse a list in Python?")).send());
    crate::support::soon(gate.until_waiting(1)).await;
    assert_eq!(ask(&proxy, PARAPHRASE).await.layer(), Some("semantic"), "the client is served all the same");
    let audits = until_admin(&proxy, "/audits", |audits| audits["skipped"] == 1).await;
    assert_eq!(audits["audited"], 0, "{audits}");
    gate.open();
    other.await.unwrap();
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn a_failed_audit_changes_nothing() {
    let upstream = upstream().await;
    let proxy = auditing(&upstream).await;
    ask(&proxy, QUESTION).await;
    upstream.fault_next(Fault::reset_before_head());
    assert_eq!(ask(&proxy, PARAPHRASE).await.layer(), Some("semantic"));
    crate::support::soon(upstream.until_count(2)).await;
    assert_eq!(ask(&proxy, PARAPHRASE).await.layer(), Some("semantic"));
    let audits = audited(&proxy, 1).await;
    assert_eq!((&audits["audited"], &audits["poisoned"]), (&json!(2), &json!(0)), "{audits}");
}

#[tokio::test]
async fn exact_hits_and_clients_that_forbid_it_are_not_audited() {
    let upstream = upstream().await;
    let proxy = auditing(&upstream).await;
    ask(&proxy, QUESTION).await;
    assert_eq!(ask(&proxy, QUESTION).await.layer(), Some("exact"));
    for (name, value) in [("cache-control", "only-if-cached"), ("x-rejoinder-ttl", "0")] {
        let hit = proxy.post(CHAT, &chat(PARAPHRASE)).header(name, value).send().await;
        assert_eq!(hit.layer(), Some("semantic"), "{name}");
    }
    let without = auditing_with(&upstream, |config| config.cache.audit_share = 0.0).await;
    ask(&without, QUESTION).await;
    assert_eq!(ask(&without, PARAPHRASE).await.layer(), Some("semantic"));
    // Whatever were asked behind a request would come before what is asked now.
    ask(&proxy, "How do I reverse a list in Python?").await;
    assert_eq!(upstream.count(), 3);
    for proxy in [&proxy, &without] {
        let audits = audited(proxy, 0).await;
        assert_eq!((&audits["audited"], &audits["skipped"]), (&json!(0), &json!(0)), "{audits}");
    }
}
