//! Mode observe: every request goes upstream, nothing is served from the cache, and what would have been served is
//! compared with upstream's reply and counted.

use http::StatusCode;
use rejoinder::config::{Config, EmbedderKind, Mode};
use serde_json::{Value, json};

use crate::support::program::{output, rejoinder};
use crate::support::{
    Ask, Fault, Gate, PARAPHRASE, Proxy, QUESTION, Reply, Simulated, proxy_with, saying, streamed,
    streamed_text_of, text_of, until_admin, upstream,
};

const CHAT: &str = "/v1/chat/completions";

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

async fn observing_with(upstream: &Simulated, customise: impl FnOnce(&mut Config)) -> Proxy {
    proxy_with(upstream, |config| {
        config.mode = Mode::Observe;
        config.embedder = EmbedderKind::Builtin;
        customise(config);
    })
    .await
}

async fn observing(upstream: &Simulated) -> Proxy {
    observing_with(upstream, |_| {}).await
}

/// Asks, upstream saying this.
async fn ask(upstream: &Simulated, proxy: &Proxy, prompt: &str, text: &str) -> Reply {
    upstream.fault_next(saying(text));
    let reply = proxy.post(CHAT, &chat(prompt)).send().await;
    assert_eq!(text_of(&reply.json()), text, "the client gets upstream's own reply");
    reply
}

/// The observations once this many comparisons are in.
async fn observed(proxy: &Proxy, exact: u64, semantic: u64) -> Value {
    let compared = |point: &Value| {
        ["same", "different", "unclear"].iter().map(|name| point[name].as_u64().unwrap()).sum::<u64>()
    };
    until_admin(proxy, "/observations", |observations| {
        compared(&observations["exact"]) == exact && compared(&observations["semantic_points"][0]) == semantic
    })
    .await
}

#[tokio::test]
async fn every_request_goes_upstream_and_says_what_would_have_been_served() {
    let upstream = upstream().await;
    let proxy = observing(&upstream).await;
    let first = ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    assert_eq!(first.cache_status(), "rejoinder; fwd=miss; stored; detail=no-candidate");
    let again = ask(&upstream, &proxy, QUESTION, "Paris it is.").await;
    assert_eq!(again.cache_status(), "rejoinder; fwd=miss; detail=observed");
    assert_eq!(again.header("age"), None);
    assert_eq!(again.header("x-rejoinder-entry"), None, "no entry served");
    let paraphrase = ask(&upstream, &proxy, PARAPHRASE, "That is Paris.").await;
    assert_eq!(paraphrase.cache_status(), "rejoinder; fwd=miss; detail=observed");
    let similarity: f64 = paraphrase.header("x-rejoinder-similarity").unwrap().parse().unwrap();
    assert!((0.85..1.0).contains(&similarity), "{similarity}");
    assert_eq!(upstream.count(), 3);

    let stream = proxy.post(CHAT, &streamed(&chat(QUESTION))).send().await;
    assert_eq!(stream.cache_status(), "rejoinder; fwd=miss; detail=observed");
    assert!(streamed_text_of(stream.text()).starts_with("[simulated]"));
    assert_eq!(upstream.count(), 4);

    let observations = observed(&proxy, 2, 1).await;
    assert_eq!(observations["mode"], "observe");
    assert_eq!(observations["requests"], 4);
    assert_eq!(observations["exact"]["found"], 2);
    assert_eq!(observations["semantic"]["found"], 1);
    let entries = Ask::get(&format!("{}/entries", proxy.admin_url())).send().await.json();
    assert_eq!(entries["entries"].as_array().unwrap().len(), 1, "what mode reuse would hold");
    assert_eq!(entries["entries"][0]["hits"], 0, "nothing was served");
    let counters = Ask::get(&format!("{}/internal/metrics", proxy.admin_url())).send().await.json();
    assert_eq!((&counters["misses"], &counters["llm_calls"]), (&json!(4), &json!(4)));
    assert_eq!(counters["hit_rate"], 0.0);
}

#[tokio::test]
async fn replies_are_compared_and_the_rates_have_intervals() {
    let upstream = upstream().await;
    let proxy = observing(&upstream).await;
    ask(&upstream, &proxy, QUESTION, "It has 2 million people.").await;
    ask(&upstream, &proxy, QUESTION, "It has 2 million people.").await;
    ask(&upstream, &proxy, QUESTION, "It has 9 million people.").await;
    ask(&upstream, &proxy, PARAPHRASE, "It has 5 million people.").await;
    ask(&upstream, &proxy, PARAPHRASE, " It has 2 million people.\n").await;
    let observations = observed(&proxy, 2, 2).await;
    for layer in ["exact", "semantic"] {
        let point = &observations[layer];
        assert_eq!((&point["same"], &point["different"]), (&json!(1), &json!(1)), "{layer}: {point}");
        assert_eq!(point["error"]["value"], 0.5, "{layer}: {point}");
        assert_eq!(point["hit_rate"]["value"], 0.4, "{layer}: {point}");
        for rate in ["error", "hit_rate"] {
            let [low, value, high] = ["low", "value", "high"].map(|name| point[rate][name].as_f64().unwrap());
            assert!(0.0 < low && low < value && value < high && high < 1.0, "{layer} {rate}: {point}");
        }
    }
    let metrics = Ask::get(&format!("{}/metrics", proxy.admin_url())).send().await;
    let line = "rejoinder_observations_total{layer=\"semantic\",agreement=\"different\"} 1";
    assert!(metrics.text().lines().any(|one| one == line), "{}", metrics.text());
}

#[tokio::test]
async fn operating_points_that_are_not_configured_are_counted_too() {
    let upstream = upstream().await;
    let proxy = observing_with(&upstream, |config| config.similarity_threshold = 0.9999).await;
    ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    let paraphrase = ask(&upstream, &proxy, PARAPHRASE, "It is Paris.").await;
    assert_eq!(paraphrase.cache_status(), "rejoinder; fwd=miss; stored; detail=below-threshold");
    let observations = observed(&proxy, 0, 1).await;
    assert_eq!(observations["semantic"]["found"], 0, "not as configured");
    let points = observations["semantic_points"].as_array().unwrap();
    assert_eq!(points.len(), 100);
    let found: Vec<_> = points.iter().map(|point| point["found"].as_u64().unwrap()).collect();
    assert_eq!((found[0], found[99]), (1, 0));
    assert!(found.is_sorted_by(|one, other| one >= other), "{found:?}");
    // It was stored, since mode reuse would have stored it.
    let again = ask(&upstream, &proxy, PARAPHRASE, "It is Paris.").await;
    assert_eq!(again.cache_status(), "rejoinder; fwd=miss; detail=observed");
}

#[tokio::test]
async fn what_a_client_does_not_let_look_up_is_not_observed() {
    let upstream = upstream().await;
    let proxy = observing(&upstream).await;
    ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    for directive in ["no-cache", "no-store"] {
        let reply = proxy.post(CHAT, &chat(QUESTION)).header("cache-control", directive).send().await;
        assert!(reply.cache_status().starts_with("rejoinder; fwd=request"), "{}", reply.cache_status());
    }
    let only = proxy.post(CHAT, &chat(QUESTION)).header("cache-control", "only-if-cached").send().await;
    assert_eq!(only.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(only.cache_status().starts_with("rejoinder; fwd=miss"), "{}", only.cache_status());
    assert_eq!(upstream.count(), 3, "only-if-cached asks no upstream");
    let observations = observed(&proxy, 0, 0).await;
    assert_eq!((&observations["requests"], &observations["exact"]["found"]), (&json!(1), &json!(0)));
}

/// Every request goes upstream, so none waits for another's reply.
#[tokio::test]
async fn identical_requests_at_once_are_not_made_one() {
    let upstream = upstream().await;
    let proxy = observing(&upstream).await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let asked: Vec<_> = (0..3).map(|_| tokio::spawn(proxy.post(CHAT, &chat(QUESTION)).send())).collect();
    crate::support::soon(gate.until_waiting(3)).await;
    gate.open();
    for reply in asked {
        let reply = reply.await.unwrap();
        assert!(!reply.cache_status().contains("collapsed"), "{}", reply.cache_status());
    }
    assert_eq!(upstream.count(), 3);
}

/// The comparison comes after the client has been served, and waits for the embedder alone.
#[tokio::test]
async fn a_client_does_not_wait_for_the_comparison() {
    let upstream = upstream().await;
    let embedder = crate::support::upstream().await;
    let gate = Gate::new();
    embedder.set_fault(Fault::none().gate(&gate));
    let proxy = observing_with(&upstream, |config| {
        config.embedder = EmbedderKind::Ollama;
        config.embedder_url = embedder.url().parse().unwrap();
    })
    .await;
    ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    ask(&upstream, &proxy, QUESTION, "That is Paris.").await;
    // The prompt's own embedding, and the first of the two of the comparison.
    crate::support::soon(gate.until_waiting(2)).await;
    assert_eq!(observed(&proxy, 0, 0).await["exact"]["found"], 1);
    gate.open();
    observed(&proxy, 1, 0).await;
}

/// A reply that is not stored is none to compare with; the candidate was found all the same.
#[tokio::test]
async fn a_failed_reply_is_not_compared() {
    let upstream = upstream().await;
    let proxy = observing(&upstream).await;
    ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    upstream.fault_next(Fault::status(StatusCode::INTERNAL_SERVER_ERROR));
    let failed = proxy.post(CHAT, &chat(QUESTION)).send().await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    ask(&upstream, &proxy, QUESTION, "It is Paris.").await;
    let observations = observed(&proxy, 1, 0).await;
    assert_eq!((&observations["exact"]["found"], &observations["exact"]["same"]), (&json!(2), &json!(1)));
}

/// What was compared is made a calibration by the command, for the proxy's own embedder and basis.
#[tokio::test]
async fn a_calibration_is_fitted_to_what_was_observed() {
    let upstream = upstream().await;
    let proxy = observing_with(&upstream, |config| {
        config.cache.verifier = false;
        config.similarity_threshold = 0.5;
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calibration.toml");
    let url = proxy.admin_url();
    let arguments = ["eval", "--observed", "--admin", &url, "--json", "--calibrate", file.to_str().unwrap()];
    let (code, _, err) = output(rejoinder(&arguments)).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("rejoinder stats"), "{err}");
    assert!(!file.exists());

    // The nearer wording is answered the same, the farther one otherwise, each town in a scope of its own.
    let towns = 24;
    for town in 0..towns {
        let asked = format!("How do I get to {town}th Street?");
        let wordings = [
            (asked.clone(), "By bus."),
            (asked.replace("do I", "can I"), "By bus."),
            (format!("Hello! {asked} Thanks a lot!"), "On foot, 9 miles."),
        ];
        for (wording, text) in wordings {
            upstream.fault_next(saying(text));
            let request =
                proxy.post(CHAT, &chat(&wording)).header("x-rejoinder-namespace", &town.to_string());
            assert_eq!(text_of(&request.send().await.json()), text);
        }
    }
    observed(&proxy, 0, 2 * towns).await;
    let (code, out, err) = output(rejoinder(&arguments)).await;
    assert_eq!(code, Some(0), "{err}");
    let fitted: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&fitted["pairs"], &fitted["positive"]), (&json!(2 * towns), &json!(towns)));
    assert_eq!(
        (&fitted["basis"], &fitted["embedder"]),
        (&json!("similarity"), &json!("builtin/all-MiniLM-L6-v2/1"))
    );
    assert!(fitted["slope"].as_f64().unwrap() > 0.0);
    // And a proxy takes it.
    proxy_with(&upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.cache.verifier = false;
        config.cache.calibration = Some(file);
    })
    .await;
}
