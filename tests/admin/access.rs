//! The admin listener: health, readiness and metrics tell the truth, and no web page may read them.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use rejoinder::config::Secret;
use serde_json::{Value, json};

use crate::support::{
    Ask, Connection, Fault, Gate, PARAPHRASE, Proxy, QUESTION, Reply, generating, proxy, proxy_with,
    semantic_proxy, streamed, upstream,
};

fn get(proxy: &Proxy, path: &str) -> Ask {
    Ask::get(&format!("{}{path}", proxy.admin_url()))
}

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_living_process_is_healthy_and_ready() {
    let upstream = upstream().await;
    let with = semantic_proxy(&upstream).await;
    let without = proxy(&upstream).await;
    for (proxy, embedder) in [(with, "ok"), (without, "off")] {
        let health = get(&proxy, "/healthz").send().await;
        assert_eq!(health.status, StatusCode::OK);
        let ready = get(&proxy, "/readyz").send().await;
        assert_eq!(ready.status, StatusCode::OK);
        assert_eq!(ready.header("content-type"), Some("application/json"));
        assert_eq!(ready.json(), json!({"store": "ok", "embedder": embedder, "upstream": "ok"}));
    }
    assert_eq!(upstream.count(), 0, "a probe is no request to upstream");
}

#[tokio::test]
async fn without_upstream_it_is_healthy_but_not_ready() {
    let upstream = upstream().await;
    upstream.stop_listening().await.unwrap();
    let proxy = proxy(&upstream).await;
    let ready = get(&proxy, "/readyz").send().await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["upstream"], "down");
    assert_eq!(get(&proxy, "/healthz").send().await.status, StatusCode::OK);
}

/// Readiness falls before the last request is finished, so that an orchestrator sends no more of them.
#[tokio::test]
async fn while_it_drains_it_is_healthy_but_not_ready() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let (ready, health) = (get(&proxy, "/readyz"), get(&proxy, "/healthz"));
    assert_eq!(ready.clone().send().await.status, StatusCode::OK);
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let open = tokio::spawn(proxy.post(CHAT, &chat(QUESTION)).send());
    gate.until_waiting(1).await;
    let shutdown = tokio::spawn(proxy.shutdown());
    // The signal has been given once readiness falls; how soon is the scheduler's affair.
    let fallen = async {
        while ready.clone().send().await.status != StatusCode::SERVICE_UNAVAILABLE {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), fallen).await.expect("readiness falls");
    assert_eq!(health.send().await.status, StatusCode::OK);
    gate.open();
    let reply = open.await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "the request that was open is finished");
    shutdown.await.unwrap();
    assert!(ready.try_send().await.is_err(), "then the admin listener stops too");
}

/// The samples of the text format, by name and labels; fails the test where a line is not of the format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = Vec::new();
    assert!(text.ends_with("# EOF\n"));
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match words.next() {
                Some("TYPE") => families.push(words.next().unwrap().to_owned()),
                Some("HELP" | "UNIT" | "EOF") => {}
                other => panic!("{other:?} in {line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let family = name.split('{').next().unwrap();
        assert!(families.iter().any(|known| family.starts_with(known.as_str())), "{line} has no TYPE");
        assert!(samples.insert(name.to_owned(), value).is_none(), "{line} comes twice");
    }
    samples
}

async fn scrape(proxy: &Proxy) -> BTreeMap<String, f64> {
    let metrics = get(proxy, "/metrics").send().await;
    assert_eq!(metrics.status, StatusCode::OK);
    assert_eq!(
        metrics.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    samples(metrics.text())
}

async fn counters(proxy: &Proxy) -> Value {
    get(proxy, "/internal/metrics").send().await.json()
}

fn request_count(samples: &BTreeMap<String, f64>, labels: [&str; 3]) -> f64 {
    let [endpoint, layer, detail] = labels;
    let name =
        format!("rejoinder_requests_total{{endpoint=\"{endpoint}\",layer=\"{layer}\",detail=\"{detail}\"}}");
    samples.get(&name).copied().unwrap_or_default()
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    assert_eq!(
        counters(&proxy).await,
        json!({
            "exact_hits": 0, "semantic_hits": 0, "misses": 0, "llm_calls": 0, "embeddings": 0, "bypasses": 0,
            "errors": 0, "tokens_saved": 0, "hit_rate": 0.0,
            "saved": {
                "prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0,
                "seconds": 0.0, "money": {}, "unknown": {"usage": 0, "price": 0, "seconds": 0}, "models": [],
            },
        })
    );
    let ask = async |prompt: &str| proxy.post(CHAT, &chat(prompt)).send().await;
    ask(QUESTION).await;
    ask(QUESTION).await;
    ask(QUESTION).await;
    ask(PARAPHRASE).await;
    proxy.post("/api/chat", &chat(QUESTION)).send().await;
    proxy.post(CHAT, &chat(QUESTION)).header("cache-control", "no-cache").send().await;
    proxy.post(CHAT, &chat(QUESTION)).header("cache-control", "no-store").send().await;
    Ask::get(&format!("{}/v1/models", proxy.url())).send().await;
    Ask::get(&format!("{}/{}", proxy.url(), "unknown".repeat(9))).send().await;
    upstream.fault_next(Fault::reset_before_head());
    let failed =
        proxy.post("/api/generate", &json!({"model": "m", "prompt": "a", "stream": false})).send().await;
    assert_eq!(failed.status, StatusCode::BAD_GATEWAY);
    proxy.post("/ask", &json!({"query": QUESTION})).send().await;

    let mut kept = Connection::open(proxy.address()).await.unwrap();
    kept.send(proxy.post(CHAT, &chat(QUESTION)).header("cache-control", "only-if-cached")).await.unwrap();
    let samples = scrape(&proxy).await;
    for (labels, expected) in [
        ([CHAT, "upstream", "no-candidate"], 1.0),
        ([CHAT, "exact", "hit"], 3.0),
        ([CHAT, "semantic", "hit"], 1.0),
        ([CHAT, "upstream", "request"], 2.0),
        (["/api/chat", "upstream", "no-candidate"], 1.0),
        (["/api/generate", "upstream", "no-candidate"], 1.0),
        (["/ask", "upstream", "no-candidate"], 1.0),
        (["other", "upstream", "bypass"], 2.0),
    ] {
        let counted = request_count(&samples, labels);
        assert!((counted - expected).abs() < 0.5, "{labels:?}: {counted}, {samples:#?}");
    }
    for name in [
        "rejoinder_request_duration_seconds_count{layer=\"exact\"}",
        "rejoinder_request_duration_seconds_sum{layer=\"exact\"}",
        "rejoinder_request_duration_seconds_bucket{le=\"+Inf\",layer=\"exact\"}",
        "rejoinder_saved_tokens_total{model=\"llama3.2\",layer=\"exact\",direction=\"input\"}",
        "rejoinder_saved_tokens_total{model=\"llama3.2\",layer=\"semantic\",direction=\"output\"}",
        "rejoinder_responses_total{class=\"2xx\"}",
        "rejoinder_responses_total{class=\"5xx\"}",
        "rejoinder_part_state{part=\"upstream\",state=\"ok\"}",
        "rejoinder_store_entries",
        "rejoinder_client_connections",
    ] {
        assert!(samples.get(name).is_some_and(|value| *value > 0.0), "{name}: {samples:#?}");
    }
    assert!(samples.contains_key("rejoinder_store_size_bytes"), "{samples:#?}");
    assert!((samples["rejoinder_store_entries"] - 3.0).abs() < 0.5, "{samples:#?}");

    let counted = counters(&proxy).await;
    let expected = [
        ("exact_hits", json!(3)),
        ("semantic_hits", json!(1)),
        ("misses", json!(4)),
        // The five replies of the cacheable endpoints; the reset gave none.
        ("llm_calls", json!(5)),
        ("bypasses", json!(4)),
        ("errors", json!(1)),
    ];
    for (name, expected) in expected {
        assert_eq!(counted[name], expected, "{name}: {counted}");
    }
    assert!((counted["hit_rate"].as_f64().unwrap() - 4.0 / 8.0).abs() < 1e-9, "{counted}");
    let of_tokens = samples.iter().filter(|(name, _)| name.starts_with("rejoinder_saved_tokens_total{"));
    let saved: f64 = of_tokens.map(|(_, value)| value).sum();
    assert!((counted["tokens_saved"].as_f64().unwrap() - saved).abs() < 0.5 && saved > 0.0, "{counted}");
    assert!(counted["embeddings"].as_u64().unwrap() >= 2, "{counted}");
}

/// Every hit saves the tokens that upstream counted for the reply it serves.
#[tokio::test]
async fn the_tokens_of_every_hit_are_counted_as_saved() {
    let upstream = upstream().await;
    for (path, body) in generating(QUESTION) {
        let proxy = proxy(&upstream).await;
        proxy.post(path, &streamed(&body)).send().await;
        assert_eq!(counters(&proxy).await["tokens_saved"], 0, "{path}");
        proxy.post(path, &body).send().await;
        let one = counters(&proxy).await["tokens_saved"].as_u64().unwrap();
        assert!(one > 10, "{path}: {one}");
        proxy.post(path, &streamed(&body)).send().await;
        assert_eq!(counters(&proxy).await["tokens_saved"], 2 * one, "{path}");
    }
}

#[tokio::test]
async fn no_client_can_make_more_label_values() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let of_requests = async || {
        let samples = scrape(&proxy).await;
        samples.keys().filter(|name| name.starts_with("rejoinder_requests_total")).count()
    };
    Ask::get(&format!("{}/first", proxy.url())).send().await;
    let before = of_requests().await;
    for number in 0..20 {
        Ask::get(&format!("{}/path-{number}\"}}", proxy.url())).send().await;
        Ask::new(
            Method::from_bytes(format!("M{number}").as_bytes()).unwrap(),
            &format!("{}/v1/x", proxy.url()),
        )
        .send()
        .await;
    }
    assert_eq!(of_requests().await, before);
}

#[tokio::test]
async fn a_web_page_may_not_read_it() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.admin.hosts = vec!["cache.example".to_owned()]).await;
    let port = proxy.admin_address().port();
    let local = format!("localhost:{port}");
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        headers.iter().fold(get(&proxy, path), |ask, (name, value)| ask.header(name, value)).send().await
    };
    for path in ["/metrics", "/internal/metrics", "/overview", "/openapi.json"] {
        for host in [local.as_str(), "cache.example", "127.0.0.1", "[::1]:9"] {
            assert_eq!(ask(path, &[("host", host)]).await.status, StatusCode::OK, "{path} {host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost:1", "cache.example.evil"] {
            let refused = ask(path, &[("host", host)]).await;
            assert_eq!(refused.status, StatusCode::MISDIRECTED_REQUEST, "{path} {host}");
            assert!(refused.json()["error"].is_string());
        }
        let same = format!("http://{local}");
        let allowed = ask(path, &[("host", &local), ("origin", &same)]).await;
        assert_eq!(allowed.status, StatusCode::OK, "{path}");
        for origin in ["https://evil.example", "null", "http://localhost:3000", "file://", ""] {
            let refused = ask(path, &[("host", &local), ("origin", origin)]).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path} {origin:?}");
            assert!(!refused.text().contains("hits"), "{path}");
        }
    }
    for path in ["/decisions", "/explain", "/entries/0123456789abcdef0123456789abcdef"] {
        let refused = ask(path, &[("host", &local), ("origin", "https://evil.example")]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(
            ask(path, &[("host", "evil.example")]).await.status,
            StatusCode::MISDIRECTED_REQUEST,
            "{path}"
        );
    }
    for path in ["/healthz", "/readyz"] {
        let probe = ask(path, &[("host", "10.1.2.3:11436"), ("user-agent", "kube-probe/1.31")]).await;
        assert_eq!(probe.status, StatusCode::OK, "{path}: probes come by any name");
    }
}

#[tokio::test]
async fn the_token_covers_everything_but_the_probes() {
    let upstream = upstream().await;
    let proxy =
        proxy_with(&upstream, |config| config.admin.token = Some(Secret::new("s3cret".to_owned()))).await;
    let live = ["/overview", "/decisions", "/explain", "/openapi.json"];
    for path in ["/metrics", "/internal/metrics", "/", "/entries", "/unknown"].into_iter().chain(live) {
        for value in [
            None,
            Some("Bearer wrong"),
            Some("s3cret"),
            Some("Bearer s3cret0"),
            Some("Basic s3cret"),
            Some("Bearer "),
        ] {
            let ask = get(&proxy, path);
            let refused = match value {
                Some(value) => ask.header("authorization", value).send().await,
                None => ask.send().await,
            };
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path} {value:?}");
            assert!(!refused.text().contains("s3cret"), "{path}");
        }
    }
    for value in ["Bearer s3cret", "bearer s3cret"] {
        let allowed = get(&proxy, "/internal/metrics").header("authorization", value).send().await;
        assert_eq!(allowed.status, StatusCode::OK);
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&proxy, path).send().await.status, StatusCode::OK, "{path}");
    }
    // A client's listener needs none of it.
    assert_eq!(proxy.post(CHAT, &chat(QUESTION)).send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for path in ["/healthz", "/readyz", "/metrics", "/internal/metrics", "/overview", "/openapi.json"] {
        let url = format!("{}{path}", proxy.admin_url());
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let refused = Ask::new(method.clone(), &url).send().await;
            assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(refused.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
        let head = Ask::new(Method::HEAD, &url).send().await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0), "{path}");
    }
    for path in ["/nothing", "/Metrics", "/metrics/", "/..%2fmetrics"] {
        assert_eq!(get(&proxy, path).send().await.status, StatusCode::NOT_FOUND, "{path}");
    }
    // The listeners do not serve each other's paths.
    assert_eq!(
        Ask::post(&format!("{}{CHAT}", proxy.admin_url()), &chat("a")).send().await.status,
        StatusCode::NOT_FOUND
    );
    let relayed = Ask::get(&format!("{}/internal/metrics", proxy.url())).send().await;
    assert_eq!(relayed.cache_status(), "rejoinder; fwd=bypass", "upstream's to answer");
}

#[tokio::test]
async fn what_is_shown_is_neither_kept_nor_run_by_a_browser() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let all: Vec<Reply> = {
        let mut all = Vec::new();
        for path in ["/healthz", "/readyz", "/metrics", "/internal/metrics", "/nothing"] {
            all.push(get(&proxy, path).send().await);
        }
        all
    };
    for reply in all {
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.header("content-security-policy").unwrap().contains("default-src 'none'"));
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}
