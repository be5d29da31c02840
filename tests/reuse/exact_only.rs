//! Prompts whose words do not say all that they ask are never matched by meaning, by rules that can be switched off.

use rejoinder::cache::guard::{Leaning, Leanings};
use rejoinder::config::EmbedderKind;
use serde_json::{Value, json};

use crate::support::{
    PARAPHRASE, Proxy, QUESTION, Reply, Simulated, proxy, proxy_with, semantic_proxy, upstream,
};

/// For each rule two prompts of one meaning, near enough that nothing else stops them.
const PAIRS: [(Leaning, &str, &str); 4] = [
    (Leaning::Context, "What is the second one about?", "What's the second one about?"),
    (Leaning::Moment, "What is the weather in Oslo today?", "What's the weather in Oslo today?"),
    (Leaning::Person, "Where is my order?", "Where's my order?"),
    (Leaning::Variety, "Please tell me another joke", "Tell me another joke"),
];

async fn without(upstream: &Simulated, leaning: Leaning) -> Proxy {
    proxy_with(upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.cache.exact_only = Leanings::ALL.without(leaning);
    })
    .await
}

async fn ask(proxy: &Proxy, prompt: &str) -> Reply {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]});
    proxy.post("/v1/chat/completions", &body).send().await
}

#[tokio::test]
async fn each_rule_holds_and_can_be_switched_off() {
    let upstream = upstream().await;
    let all = semantic_proxy(&upstream).await;
    for (leaning, stored, asked) in PAIRS {
        ask(&all, stored).await;
        let miss = ask(&all, asked).await;
        assert!(miss.cache_status().ends_with("detail=exact-only"), "{leaning}: {}", miss.cache_status());
        assert_eq!(ask(&all, stored).await.layer(), Some("exact"), "{leaning}");

        let off = without(&upstream, leaning).await;
        ask(&off, stored).await;
        let hit = ask(&off, asked).await;
        assert_eq!(hit.layer(), Some("semantic"), "{leaning}: {}", hit.cache_status());
    }
}

/// How long the reply of an exact hit lives on.
async fn remaining(proxy: &Proxy, prompt: &str) -> u64 {
    ask(proxy, prompt).await;
    let hit = ask(proxy, prompt).await;
    assert_eq!(hit.layer(), Some("exact"));
    let ttl = hit.cache_status().split("; ").find_map(|part| part.strip_prefix("ttl=")).unwrap();
    ttl.parse().unwrap()
}

#[tokio::test]
async fn what_is_about_the_moment_lives_shorter_in_the_exact_layer_too() {
    let upstream = upstream().await;
    let (_, today, _) = PAIRS[1];
    // Two leanings: the first names the refusal, the moment still counts.
    let both = "And what is the latest news about the second one?";
    let plain = proxy(&upstream).await;
    assert!(remaining(&plain, today).await <= 300);
    assert!(remaining(&plain, both).await <= 300);
    assert!(remaining(&plain, QUESTION).await > 80_000);
    let off = without(&upstream, Leaning::Moment).await;
    assert!(remaining(&off, today).await > 80_000);
    let longer =
        proxy_with(&upstream, |config| config.cache.moment_ttl = std::time::Duration::from_hours(1)).await;
    assert!((301..=3600).contains(&remaining(&longer, today).await));
}

/// A conversation in which the user said `earlier`, and says `prompt` now, in each dialect that has turns.
fn conversations(earlier: &str, prompt: &str) -> Vec<(&'static str, Value)> {
    let turns = json!([
        {"role": "user", "content": earlier},
        {"role": "assistant", "content": "Lyon, I believe."},
        {"role": "user", "content": prompt},
    ]);
    let parts = json!([
        {"role": "user", "content": [{"type": "text", "text": earlier}]},
        {"role": "assistant", "content": "Lyon, I believe."},
        {"role": "user", "content": [{"type": "text", "text": prompt}]},
    ]);
    vec![
        ("/v1/chat/completions", json!({"model": "m", "messages": turns})),
        ("/v1/chat/completions", json!({"model": "parts", "messages": parts})),
        ("/v1/responses", json!({"model": "m", "input": turns})),
        ("/v1/messages", json!({"model": "m", "max_tokens": 1024, "messages": turns})),
        ("/v1/messages", json!({"model": "parts", "max_tokens": 1024, "messages": parts})),
        ("/api/chat", json!({"model": "m", "messages": turns, "stream": false})),
    ]
}

#[tokio::test]
async fn a_repeated_prompt_is_not_answered_by_meaning() {
    let upstream = upstream().await;
    let earlier = format!("  {PARAPHRASE}\n");
    for (on, proxy) in
        [(true, semantic_proxy(&upstream).await), (false, without(&upstream, Leaning::Repeat).await)]
    {
        let stored = conversations(&earlier, QUESTION);
        let repeated = conversations(&earlier, PARAPHRASE);
        for ((path, stored), (_, repeated)) in stored.into_iter().zip(repeated) {
            proxy.post(path, &stored).send().await;
            let reply = proxy.post(path, &repeated).send().await;
            let status = reply.cache_status();
            if on {
                assert!(status.ends_with("detail=exact-only"), "{path}: {status}");
            } else {
                assert_eq!(reply.layer(), Some("semantic"), "{path}: {status}");
            }
            assert_eq!(
                proxy.post(path, &repeated).send().await.layer(),
                if on { Some("exact") } else { Some("semantic") }
            );
        }
    }
    // Said before by another than the user, or in other words: no repeat.
    let proxy = semantic_proxy(&upstream).await;
    for (path, stored) in conversations("Good morning", QUESTION) {
        proxy.post(path, &stored).send().await;
    }
    for (path, asked) in conversations("Good morning", PARAPHRASE) {
        assert_eq!(proxy.post(path, &asked).send().await.layer(), Some("semantic"), "{path}");
    }
}
