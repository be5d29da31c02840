//! Several upstreams: each request goes to that of its model and nowhere else, as whom the configuration says, and what
//! happens to one upstream is no matter of another's.
#![allow(clippy::similar_names, reason = "tables and helpers of tests")]

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use rejoinder::config::{Config, Flags, Secret, Upstreams};
use serde_json::{Value, json};

use crate::support::{
    Ask, Fault, Gate, PARAPHRASE, Proxy, QUESTION, Recorded, Reply, Simulated, SimulatedOptions, generating,
    proxy_with, soon, streamed, upstream,
};

const CHAT: &str = "/v1/chat/completions";
const CREDENTIALS: [&str; 5] = ["authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key"];

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": QUESTION}]})
}

/// What a configuration file says of upstreams; `KEY_A` and `KEY_B` are in the environment.
fn upstreams(text: &str) -> Upstreams {
    let file = crate::support::program::file(".toml", text);
    let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
    let environment = |name: &str| match name {
        "KEY_A" => Some("canary-key-a".to_owned()),
        "KEY_B" => Some("canary-key-b".to_owned()),
        _ => None,
    };
    Config::load(flags, &environment).unwrap_or_else(|error| panic!("{error}")).upstream
}

/// The table of an upstream.
fn table(name: &str, models: &str, url: &str, more: &str) -> String {
    let models = if models.is_empty() { String::new() } else { format!("models = {models}\n") };
    format!("[[upstream]]\nname = \"{name}\"\n{models}url = \"{url}\"\n{more}\n")
}

/// Two upstreams and a default.
struct Three {
    gpt: Simulated,
    llama: Simulated,
    other: Simulated,
    proxy: Proxy,
}

impl Three {
    /// Each table with more lines.
    async fn with(gpt_more: &str, llama_more: &str, customise: impl FnOnce(&mut Config)) -> Self {
        let (gpt, llama, other) = (upstream().await, upstream().await, upstream().await);
        let text = table("gpt", r#"["gpt-4*", "o?"]"#, &gpt.url(), gpt_more)
            + &table("llama", r#"["llama3.*"]"#, &llama.url(), llama_more)
            + &table("other", "", &other.url(), "");
        let proxy = proxy_with(&other, |config| {
            config.upstream = upstreams(&text);
            customise(config);
        })
        .await;
        Self { gpt, llama, other, proxy }
    }

    fn counts(&self) -> [usize; 3] {
        [&self.gpt, &self.llama, &self.other].map(Simulated::count)
    }

    /// Sends a request; which upstream got it, by its place in [`Self::counts`].
    async fn goes(&self, ask: Ask) -> (Reply, Vec<usize>) {
        let before = self.counts();
        let reply = soon(ask.send()).await;
        let after = self.counts();
        (reply, (0..3).filter(|&at| after[at] > before[at]).collect())
    }
}

#[tokio::test]
async fn a_request_goes_to_the_upstream_of_its_model_and_its_reply_is_found_again() {
    let three = Three::with("", "", |_| {}).await;
    let models =
        [("gpt-4o-mini", 0), ("o1", 0), ("llama3.2:1b", 1), ("GPT-4", 2), ("o10", 2), ("mistral", 2)];
    for (path, body) in generating(QUESTION) {
        for (model, place) in models {
            for form in [body.clone(), streamed(&body)] {
                let mut form = form;
                form["model"] = json!(model);
                // A form of its own, so that both ask upstream.
                form["seed"] = json!(u8::from(form["stream"] == true));
                let (reply, went) = three.goes(three.proxy.post(path, &form)).await;
                assert_eq!((reply.status, went), (StatusCode::OK, vec![place]), "{path} {model}");
                let (reply, went) = three.goes(three.proxy.post(path, &form)).await;
                assert_eq!((reply.layer(), went), (Some("exact"), vec![]), "{path} {model}");
            }
        }
    }
    // An explanation looks where the request would, and asks nobody.
    let url = format!("{}/explain", three.proxy.admin_url());
    for (model, _) in models {
        let asked = json!({"path": CHAT, "body": chat(model)});
        let explained = async || soon(Ask::post(&url, &asked).send()).await.json();
        assert_eq!(explained().await["layers"][0]["decision"], "miss", "{model}");
        three.goes(three.proxy.post(CHAT, &chat(model))).await;
        let before = three.counts();
        assert_eq!(explained().await["layers"][0]["decision"], "hit", "{model}");
        assert_eq!(three.counts(), before);
    }
    // A question of the proxy's own API asks llama3.2.
    let (_, went) = three.goes(three.proxy.post("/ask", &json!({"query": "Who?"}))).await;
    assert_eq!(went, [1]);
}

#[tokio::test]
async fn what_passes_through_goes_by_its_model_where_it_is_read_and_else_to_the_default() {
    let three =
        Three::with("", "", |config| config.limits.max_request_bytes = rejoinder::config::Bytes(4096)).await;
    let proxy = &three.proxy;
    let url = |path: &str| format!("{}{path}", proxy.url());
    let json_bytes = |text: &str| Ask::post_bytes(&url(CHAT), text.to_owned());
    let large = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "x".repeat(5000)}]});
    let asks = [
        // Never cached, yet read: of no known shape, or such that parsers may read it differently elsewhere.
        (0, proxy.post("/v1/responses", &json!({"model": "gpt-4o", "input": "Hi", "background": true}))),
        (1, proxy.post("/api/generate", &json!({"model": "llama3.2", "keep_alive": 0}))),
        (0, json_bytes(r#"{"model": "gpt-4o", "messages": [], "seed": 1, "seed": 2}"#)),
        (1, proxy.post(CHAT, &chat("llama3.2")).header("cache-control", "no-store")),
        // The model is not known.
        (2, json_bytes(r#"{"model": "gpt-4o", "model": "llama3.2", "messages": []}"#)),
        (2, json_bytes(r#"{"model": "gpt-4o", "Model": "llama3.2", "messages": []}"#)),
        (2, json_bytes("gpt-4o")),
        (2, proxy.post(CHAT, &json!({"messages": [{"role": "user", "content": "Hi"}]}))),
        (2, proxy.post(CHAT, &json!({"model": 4, "messages": []}))),
        // It is not looked into.
        (2, Ask::get(&url("/v1/models"))),
        (2, Ask::get(&url("/v1/models/gpt-4o"))),
        (2, proxy.post("/api/show", &json!({"model": "llama3.2"}))),
        (2, proxy.post(CHAT, &large)),
        (2, proxy.post(CHAT, &large).header("cache-control", "no-store")),
        (2, proxy.post(CHAT, &chat("gpt-4o")).header("content-encoding", "gzip")),
        (2, proxy.post(CHAT, &chat("gpt-4o")).method(Method::PUT)),
        (
            2,
            Ask::post_bytes(&url("/v1/audio/transcriptions"), "--b\r\n\r\ngpt-4o\r\n--b--")
                .header("content-type", "multipart/form-data; boundary=b"),
        ),
    ];
    for (place, ask) in asks {
        let shown = format!("{ask:?}");
        let (_, went) = three.goes(ask).await;
        assert_eq!(went, [place], "{shown}");
    }
    let last = |upstream: &Simulated| upstream.requests().pop().unwrap();
    assert_eq!(last(&three.llama).body, chat("llama3.2").to_string(), "to the byte");
    // No trace of what asked for none.
    assert_eq!(three.goes(proxy.post(CHAT, &chat("llama3.2"))).await.0.layer(), None);
}

#[tokio::test]
async fn one_model_or_upstream_is_never_answered_by_anothers_entry() {
    let semantic = |config: &mut Config| config.embedder = rejoinder::config::EmbedderKind::Builtin;
    let three = Three::with("", "", semantic).await;
    let mut texts = Vec::new();
    for (model, place) in [("gpt-4", 0), ("gpt-4o", 0), ("llama3.2", 1), ("llama3.20", 1), ("mistral", 2)] {
        for prompt in [QUESTION, PARAPHRASE] {
            let mut body = chat(model);
            body["messages"][0]["content"] = json!(prompt);
            let (reply, went) = three.goes(three.proxy.post(CHAT, &body)).await;
            if prompt == QUESTION {
                assert_eq!((reply.layer(), went), (None, vec![place]), "{model}");
                texts.push(crate::support::text_of(&reply.json()));
            } else {
                assert_eq!((reply.layer(), went), (Some("semantic"), vec![]), "{model}");
                assert_eq!(&crate::support::text_of(&reply.json()), texts.last().unwrap(), "{model}");
            }
        }
    }
    // Nor by what the same model said elsewhere: the entries of two configurations are told apart by their ids.
    let entry = async |url: String| {
        let proxy = proxy_with(&three.other, |config| {
            config.upstream = upstreams(&table("gpt", r#"["gpt-*"]"#, &url, ""));
            config.secret = Some(Secret::new("one secret".to_owned()));
        })
        .await;
        soon(proxy.post(CHAT, &chat("gpt-4")).send()).await;
        let hit = soon(proxy.post(CHAT, &chat("gpt-4")).send()).await;
        hit.header("x-rejoinder-entry").unwrap().to_owned()
    };
    let by_address = entry(three.gpt.url()).await;
    assert_eq!(entry(three.gpt.url()).await, by_address);
    assert_ne!(entry(three.llama.url()).await, by_address);
}

fn with_credentials(ask: Ask, who: &str) -> Ask {
    CREDENTIALS.iter().fold(ask, |ask, name| ask.header(name, &format!("canary-{who}")))
}

fn credentials(request: &Recorded) -> Vec<(&str, &str)> {
    let all =
        CREDENTIALS.iter().flat_map(|name| request.header_values(name).map(move |value| (*name, value)));
    all.collect()
}

#[tokio::test]
async fn a_configured_key_takes_the_place_of_the_clients_and_goes_to_its_upstream_alone() {
    let folder = tempfile::tempdir().unwrap();
    let three = Three::with(
        "api_key_env = \"KEY_A\"",
        "api_key_env = \"KEY_B\"\napi_key_header = \"x-api-key\"",
        |config| config.data_dir = Some(folder.path().to_owned()),
    )
    .await;
    let proxy = &three.proxy;
    let sent = [
        vec![("authorization", "Bearer canary-key-a")],
        vec![("x-api-key", "canary-key-b")],
        CREDENTIALS.map(|name| (name, "canary-alice")).to_vec(),
    ];
    for (place, model) in ["gpt-4o", "llama3.2", "mistral"].into_iter().enumerate() {
        for ask in [
            proxy.post(CHAT, &chat(model)),
            proxy.post(CHAT, &streamed(&chat(model))).header("cache-control", "no-cache"),
            proxy.post(CHAT, &chat(model)).header("cache-control", "no-store"),
            proxy.post(CHAT, &json!({"model": model})).header("connection", "authorization, x-api-key"),
        ] {
            let (reply, went) = three.goes(with_credentials(ask, "alice")).await;
            assert_eq!(went, [place]);
            assert!(!format!("{reply:?}").contains("canary"), "{reply:?}");
        }
    }
    for (upstream, sent) in [&three.gpt, &three.llama, &three.other].into_iter().zip(&sent) {
        let requests = upstream.requests();
        assert_eq!(requests.len(), 4);
        for request in requests {
            assert_eq!(&credentials(&request), sent);
            let canaries = request.headers.iter().filter(|(_, value)| value.contains("canary"));
            assert_eq!(canaries.count(), sent.len(), "{request:?}");
        }
    }
    // A passing request is asked with the key of the default, which has none here.
    let models = Ask::get(&format!("{}/v1/models", proxy.url()));
    assert_eq!(three.goes(models).await.1, [2]);
    assert_eq!(credentials(&three.other.requests().pop().unwrap()), []);
    three.proxy.shutdown().await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(memchr::memmem::find(&bytes, b"canary").is_none(), "no credential is at rest");
    }
}

/// Who asks here stays apart although upstream sees one key; whether that is good any longer holds for all of them.
#[tokio::test]
async fn clients_of_a_configured_key_stay_apart_and_have_no_more_hits_once_it_is_refused() {
    let three = Three::with("api_key_env = \"KEY_A\"", "", |_| {}).await;
    three.gpt.require_key(Some("canary-key-a"));
    let ask = |who: Option<&str>| {
        let ask = three.proxy.post(CHAT, &chat("gpt-4"));
        who.into_iter().fold(ask, |ask, who| ask.header("authorization", who))
    };
    let clients = [None, Some("Bearer alice"), Some("Bearer bob"), Some("Bearer canary-key-a")];
    for client in clients {
        let (reply, went) = three.goes(ask(client)).await;
        assert_eq!((reply.status, reply.layer(), went), (StatusCode::OK, None, vec![0]), "{client:?}");
    }
    for client in clients {
        assert_eq!(three.goes(ask(client)).await.0.layer(), Some("exact"), "{client:?}");
    }
    three.gpt.require_key(Some("another"));
    let fresh = ask(Some("Bearer alice")).header("cache-control", "no-cache");
    assert_eq!(three.goes(fresh).await.0.status, StatusCode::UNAUTHORIZED);
    for client in clients {
        let (reply, went) = three.goes(ask(client)).await;
        assert_eq!((reply.status, went), (StatusCode::UNAUTHORIZED, vec![0]), "{client:?}");
        assert!(reply.cache_status().ends_with("detail=credential-unverified"), "{}", reply.cache_status());
    }
}

async fn admin(proxy: &Proxy, path: &str) -> Reply {
    soon(Ask::get(&format!("{}{path}", proxy.admin_url())).send()).await
}

#[tokio::test]
async fn one_that_is_down_leaves_the_others_working_and_is_named() {
    let three = Three::with("", "", |_| {}).await;
    let proxy = &three.proxy;
    for model in ["gpt-4", "llama3.2"] {
        assert_eq!(three.goes(proxy.post(CHAT, &chat(model))).await.0.status, StatusCode::OK);
    }
    three.gpt.stop_listening().await.unwrap();
    let ready = admin(proxy, "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    let states = json!({"gpt": "down", "llama": "ok", "other": "ok"});
    let all = json!({"store": "ok", "embedder": "off", "upstream": "degraded", "upstreams": states});
    assert_eq!(ready.json(), all);
    let (reply, _) = three.goes(proxy.post(CHAT, &chat("gpt-4o"))).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert_eq!(three.goes(proxy.post(CHAT, &chat("gpt-4"))).await.0.layer(), Some("exact"));
    for model in ["llama3.1", "mistral"] {
        assert_eq!(three.goes(proxy.post(CHAT, &chat(model))).await.0.status, StatusCode::OK, "{model}");
    }
    let (_, went) = three.goes(proxy.post(CHAT, &chat("/etc/\"\n{model}"))).await;
    assert_eq!(went, [2]);
    let metrics = admin(proxy, "/metrics").await;
    let of = |text: &str| metrics.text().lines().filter(|line| line.starts_with(text)).collect::<Vec<_>>();
    let mut requests = of("rejoinder_upstream_requests_total");
    requests.sort_unstable();
    let expected = [
        r#"rejoinder_upstream_requests_total{upstream="gpt",status="2xx"} 1"#,
        r#"rejoinder_upstream_requests_total{upstream="gpt",status="failed"} 1"#,
        r#"rejoinder_upstream_requests_total{upstream="llama",status="2xx"} 2"#,
        r#"rejoinder_upstream_requests_total{upstream="other",status="2xx"} 2"#,
    ];
    assert_eq!(requests, expected);
    let waited = r#"rejoinder_upstream_duration_seconds_count{upstream="llama"} 2"#;
    assert_eq!(of("rejoinder_upstream_duration_seconds_count{upstream=\"llama\"}"), [waited]);
}

#[tokio::test]
async fn only_where_none_is_reached_it_is_not_ready() {
    let three = Three::with("", "", |_| {}).await;
    for upstream in [&three.gpt, &three.llama, &three.other] {
        upstream.stop_listening().await.unwrap();
    }
    let ready = admin(&three.proxy, "/readyz").await;
    assert_eq!((ready.status, &ready.json()["upstream"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("down")));
}

#[tokio::test]
async fn a_redirect_to_another_upstream_is_relayed_and_not_followed() {
    let three = Three::with("api_key_env = \"KEY_A\"", "", |_| {}).await;
    for status in [StatusCode::FOUND, StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT] {
        let place = format!("{}{CHAT}", three.llama.url());
        let location = HeaderValue::from_str(&place).unwrap();
        three.gpt.set_fault(Fault::status(status).header(HeaderName::from_static("location"), location));
        let (reply, went) = three.goes(three.proxy.post(CHAT, &chat("gpt-4"))).await;
        assert_eq!((reply.status, reply.header("location")), (status, Some(place.as_str())));
        assert_eq!(went, [0]);
    }
}

#[tokio::test]
async fn each_has_its_own_timeouts() {
    let three = Three::with("timeouts = { first_byte = 1 }", "[upstream.timeouts]\nidle = 1", |_| {}).await;
    let (slow, first, rest) = (Gate::new(), Gate::new(), Gate::new());
    three.other.set_fault(Fault::none().gate(&slow));
    three.gpt.set_fault(Fault::none().gate(&first));
    three.llama.set_fault(Fault::none().gate_after(10, &rest));
    let other = tokio::spawn(three.proxy.post(CHAT, &chat("mistral")).send());
    soon(slow.until_waiting(1)).await;
    let late = soon(three.proxy.post(CHAT, &chat("gpt-4")).send()).await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    let mut cut = soon(three.proxy.post(CHAT, &streamed(&chat("llama3.2"))).open()).await;
    assert!(soon(cut.finish()).await.is_err(), "a cut is a visible one");
    slow.open();
    assert_eq!(soon(other).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn one_that_is_full_sheds_its_own_requests_alone() {
    let three = Three::with("", "", |config| config.limits.max_upstream_requests = 1).await;
    let gate = Gate::new();
    three.gpt.set_fault(Fault::none().gate(&gate));
    let first = tokio::spawn(three.proxy.post(CHAT, &chat("gpt-4")).send());
    soon(gate.until_waiting(1)).await;
    let shed = soon(three.proxy.post(CHAT, &chat("gpt-4o")).send()).await;
    assert_eq!(shed.status, StatusCode::SERVICE_UNAVAILABLE);
    for model in ["llama3.2", "mistral"] {
        assert_eq!(
            three.goes(three.proxy.post(CHAT, &chat(model))).await.0.status,
            StatusCode::OK,
            "{model}"
        );
    }
    gate.open();
    assert_eq!(soon(first).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn each_keeps_its_own_path_prefix() {
    let options = SimulatedOptions { prefix: "/team/a".to_owned(), ..SimulatedOptions::default() };
    let (prefixed, other) = (Simulated::start(options).await.unwrap(), upstream().await);
    let url = format!("{}/team/a/", prefixed.url().trim_end_matches("/team/a"));
    let proxy =
        proxy_with(&other, |config| config.upstream = upstreams(&table("a", r#"["a"]"#, &url, ""))).await;
    assert_eq!(soon(proxy.post(CHAT, &chat("a")).send()).await.status, StatusCode::OK);
    let paths: Vec<_> = prefixed.requests().iter().map(|request| request.uri.to_string()).collect();
    assert_eq!(paths, [format!("/team/a{CHAT}")]);
}

/// The memory for bodies is one for all clients: whoever fills it must not decide where others' requests go.
#[tokio::test]
async fn what_there_is_no_memory_for_goes_to_no_other_upstream() {
    let three = Three::with("", "", |config| config.limits.max_buffer_bytes.0 = 100_000).await;
    let mut body = chat("gpt-4o-mini");
    body["messages"][0]["content"] = json!("long ".repeat(50_000));
    let (reply, went) = three.goes(three.proxy.post(CHAT, &body)).await;
    assert_eq!((reply.status, went), (StatusCode::SERVICE_UNAVAILABLE, vec![]));
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert!(reply.text().contains("limits.max_buffer_bytes"), "{}", reply.text());
    let (reply, went) = three.goes(three.proxy.post(CHAT, &chat("gpt-4o-mini"))).await;
    assert_eq!((reply.status, went), (StatusCode::OK, vec![0]));
}
