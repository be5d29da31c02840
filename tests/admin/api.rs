//! The admin listener's live side: the overview, decisions as they fall, explanations, an entry's evidence, and the
//! document that describes them all.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::StatusCode;
use rejoinder::config::{EmbedderKind, Mode};
use serde_json::{Value, json};

use crate::support::{
    Ask, PARAPHRASE, Proxy, QUESTION, Reply, Stream, proxy, proxy_with, semantic_proxy, until_admin, upstream,
};

const CHAT: &str = "/v1/chat/completions";

fn chat(prompt: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

async fn ask(proxy: &Proxy, prompt: &str) -> Reply {
    let reply = proxy.post(CHAT, &chat(prompt)).send().await;
    assert_eq!(reply.status, StatusCode::OK);
    reply
}

async fn get(proxy: &Proxy, path: &str) -> Reply {
    Ask::get(&format!("{}{path}", proxy.admin_url())).send().await
}

async fn overview(proxy: &Proxy) -> Value {
    let reply = get(proxy, "/overview").await;
    assert_eq!((reply.status, reply.header("content-type")), (StatusCode::OK, Some("application/json")));
    reply.json()
}

fn sum(counts: &Value) -> u64 {
    counts.as_array().unwrap_or_else(|| panic!("{counts}")).iter().map(|n| n.as_u64().unwrap()).sum()
}

#[tokio::test]
async fn the_overview_says_what_was_served_and_why_the_rest_was_not() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let empty = overview(&proxy).await;
    assert_eq!((&empty["totals"]["requests"], &empty["saved"]["seconds"]), (&json!(0), &json!(0.0)));
    for prompt in [QUESTION, QUESTION, PARAPHRASE, "What is the capital of Spain?"] {
        ask(&proxy, prompt).await;
    }
    Ask::get(&format!("{}/v1/models", proxy.url())).send().await;
    // Which entries are used most counts for a while, the longer the longer it takes to find out.
    let seen = until_admin(&proxy, "/overview", |seen| seen["top_entries"][0]["hits"] == 2).await;
    assert_eq!((&seen["mode"], &seen["version"]), (&json!("reuse"), &json!(env!("CARGO_PKG_VERSION"))));
    let totals = json!({
        "requests": 5, "exact_hits": 1, "semantic_hits": 1, "misses": 2, "bypasses": 1, "errors": 0, "hit_rate": 0.5,
    });
    assert_eq!(seen["totals"], totals);
    for (layer, expected) in [("exact", 1), ("semantic", 1), ("upstream", 2), ("bypass", 1)] {
        assert_eq!(sum(&seen["series"][layer]), expected, "{layer}: {}", seen["series"]);
    }
    for (layer, expected) in [("exact", 1), ("semantic", 1), ("upstream", 3)] {
        let latency = &seen["latency"][layer];
        assert_eq!(sum(&latency["counts"]), expected, "{layer}: {latency}");
        assert!(latency["p50_ms"].as_f64().unwrap() <= latency["p99_ms"].as_f64().unwrap(), "{latency}");
        let edges = seen["latency"]["edges_ms"].as_array().unwrap().len();
        assert_eq!(latency["counts"].as_array().unwrap().len() + 1, edges);
    }
    assert_eq!(sum(&seen["miss_reasons"].as_object().unwrap().values().cloned().collect()), 2, "{seen}");
    let similarity = &seen["similarity"];
    assert_eq!((sum(&similarity["hits"]), sum(&similarity["misses"])), (1, 1), "{similarity}");
    assert_eq!(similarity["edges"].as_array().unwrap().len(), 51);
    assert_eq!(similarity["hits"].as_array().unwrap().len(), 50);
    let top = &seen["top_entries"];
    assert_eq!(top[0]["prompt"], QUESTION, "{top}");
    assert!(seen["saved"]["prompt_tokens"].as_u64().unwrap() > 0, "{}", seen["saved"]);
    assert!(seen["saved"]["seconds"].as_f64().unwrap() > 0.0, "{}", seen["saved"]);
    let of_model = &seen["saved"]["models"][0];
    assert_eq!((&of_model["model"], &of_model["hits"]), (&json!("llama3.2"), &json!(2)), "{}", seen["saved"]);
    assert_eq!(seen["saved"], get(&proxy, "/internal/metrics").await.json()["saved"]);
    assert_eq!((&seen["store"]["kind"], &seen["store"]["entries"]), (&json!("embedded"), &json!(2)));
    assert_eq!(seen["embedder"]["state"], "ok");

    // What is removed is shown no more.
    let id = top[0]["id"].as_str().unwrap();
    Ask::new(http::Method::DELETE, &format!("{}/entries/{id}", proxy.admin_url())).send().await;
    assert_eq!(overview(&proxy).await["top_entries"], json!([]));
}

#[tokio::test]
async fn the_windows_of_the_overview_have_their_steps() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    ask(&proxy, QUESTION).await;
    for (window, step) in [("15m", 10), ("1h", 10), ("6h", 60), ("7d", 900)] {
        let series = get(&proxy, &format!("/overview?window={window}")).await.json()["series"].clone();
        assert_eq!(series["step_s"], step, "{window}");
        assert_eq!(sum(&series["upstream"]), 1, "{window}");
    }
    for wrong in ["window=2h", "window=", "windows=15m"] {
        let refused = get(&proxy, &format!("/overview?{wrong}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(refused.json()["error"].as_str().unwrap().contains("window"), "{wrong}");
    }
}

/// The events that have come, each with its name and data.
fn events(stream: &Stream) -> Vec<(String, Value)> {
    let text = stream.text();
    let blocks = text.split("\n\n").filter(|block| block.starts_with("event: "));
    blocks
        .filter_map(|block| {
            let (name, data) = block.strip_prefix("event: ")?.split_once("\ndata: ")?;
            Some((name.to_owned(), serde_json::from_str(data).ok()?))
        })
        .collect()
}

async fn listen(proxy: &Proxy) -> Stream {
    let mut stream = Ask::get(&format!("{}/decisions", proxy.admin_url())).open().await;
    assert_eq!(stream.status, StatusCode::OK);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    stream.until(": listening\n\n").await;
    stream
}

/// Reads on until so many events have come.
async fn until_events(stream: &mut Stream, count: usize) -> Vec<(String, Value)> {
    loop {
        let all = events(stream);
        if all.len() >= count {
            return all;
        }
        stream.next().await.unwrap_or_else(|| panic!("it ended: {}", stream.text())).unwrap();
    }
}

#[tokio::test]
async fn decisions_are_told_as_they_fall() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    ask(&proxy, "Before anybody listens").await;
    let mut stream = listen(&proxy).await;
    let long = "word ".repeat(60);
    let namespaced = proxy.post(CHAT, &chat(QUESTION)).header("x-rejoinder-namespace", "docs-v2");
    namespaced.clone().send().await;
    let hit = namespaced.send().await;
    ask(&proxy, QUESTION).await;
    ask(&proxy, PARAPHRASE).await;
    ask(&proxy, &long).await;
    Ask::get(&format!("{}/v1/models?key=secret", proxy.url())).send().await;
    upstream.fault_next(crate::support::Fault::reset_before_head());
    let failed = proxy.post(CHAT, &chat("What fails?")).send().await;
    assert_eq!(failed.status, StatusCode::BAD_GATEWAY);
    proxy.post("/ask", &json!({"query": "What is asked?"})).send().await;

    let all = until_events(&mut stream, 8).await;
    let told: Vec<_> = all.iter().map(|(_, event)| event).collect();
    assert!(all.iter().all(|(name, _)| name == "decision"), "{all:?}");
    let layers: Vec<_> = told.iter().map(|event| event["layer"].as_str().unwrap()).collect();
    assert_eq!(
        layers,
        ["upstream", "exact", "upstream", "semantic", "upstream", "bypass", "upstream", "upstream"]
    );
    assert_eq!(told[0]["prompt"], QUESTION);
    assert_eq!((&told[0]["namespace"], &told[0]["model"]), (&json!("docs-v2"), &json!("llama3.2")));
    assert_eq!((&told[0]["detail"], &told[0]["status"]), (&json!("no-candidate"), &json!(200)));
    assert_eq!(told[1]["entry"].as_str(), hit.header("x-rejoinder-entry"));
    assert!(
        told[3]["similarity"].as_f64().unwrap() > 0.7 && told[3]["confidence"].is_number(),
        "{}",
        told[3]
    );
    assert_eq!(told[4]["prompt"].as_str().unwrap().len(), 120);
    assert_eq!((&told[5]["path"], &told[5]["prompt"]), (&json!("/v1/models"), &Value::Null));
    assert_eq!((&told[6]["status"], &told[6]["prompt"]), (&json!(502), &json!("What fails?")));
    assert_eq!((&told[7]["path"], &told[7]["prompt"]), (&json!("/ask"), &json!("What is asked?")));
    let document = get(&proxy, "/openapi.json").await.json();
    assert!(
        document["paths"]["/decisions"]["get"]["responses"]["200"]["content"]["text/event-stream"]
            .is_object()
    );
    let folder = tempfile::tempdir().unwrap();
    let files = [("document.json", document), ("events.json", json!(told))].map(|(name, value)| {
        let file = folder.path().join(name);
        std::fs::write(&file, value.to_string()).unwrap();
        file
    });
    let mut check = tokio::process::Command::new(installed("python"));
    let output =
        check.arg(in_tests("openapi/conforms.py")).arg("Decision").args(files).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn what_is_to_leave_no_trace_is_told_without_its_prompt() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut stream = listen(&proxy).await;
    let canary = "The canary sings at noon";
    for (name, value) in [("cache-control", "no-store"), ("x-rejoinder-ttl", "0")] {
        proxy.post(CHAT, &chat(canary)).header(name, value).send().await;
    }
    proxy.post("/ask", &json!({"query": canary})).header("cache-control", "no-store").send().await;
    let told = until_events(&mut stream, 3).await;
    assert!(told.iter().all(|(_, event)| event["prompt"].is_null()), "{told:?}");
    assert!(!stream.text().contains("canary"));
}

#[tokio::test]
async fn listeners_are_bounded_and_go_when_the_proxy_does() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(listen(&proxy).await);
    }
    let refused = get(&proxy, "/decisions").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.json()["error"].as_str().unwrap().contains("16"));
    drop(streams.pop());
    // The one that went makes room, once that is noticed.
    let url = format!("{}/decisions", proxy.admin_url());
    let made = async {
        while Ask::get(&url).open().await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), made).await.unwrap();
    proxy.shutdown().await;
    for stream in &mut streams {
        stream.finish().await.expect("a whole end, not a cut");
    }
}

async fn explain(proxy: &Proxy, body: Value) -> Value {
    let reply = Ask::post(&format!("{}/explain", proxy.admin_url()), &body).send().await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    reply.json()
}

/// The decision and detail of each layer.
fn decisions(explanation: &Value) -> Vec<(&str, &str)> {
    let layers = explanation["layers"].as_array().unwrap();
    layers
        .iter()
        .map(|layer| (layer["decision"].as_str().unwrap(), layer["detail"].as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn an_explanation_is_what_serving_would_do_and_has_no_effect() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    let asked = |prompt: &str| json!({"path": CHAT, "body": chat(prompt)});
    let unknown = explain(&proxy, asked(QUESTION)).await;
    assert_eq!(
        decisions(&unknown),
        [("miss", "no-candidate"), ("miss", "no-candidate"), ("would be asked", "no-candidate")]
    );
    assert_eq!((&unknown["normalised_prompt"], &unknown["would_serve"]), (&json!(QUESTION), &Value::Null));

    let stored = ask(&proxy, QUESTION).await;
    let counters = get(&proxy, "/internal/metrics").await.json();
    let exact = explain(&proxy, asked(QUESTION)).await;
    assert_eq!(decisions(&exact), [("hit", "hit"), ("skipped", "not-needed"), ("not needed", "")]);
    assert_eq!(exact["would_serve"]["reply"], crate::support::text_of(&stored.json()));

    let near = explain(&proxy, asked(PARAPHRASE)).await;
    assert_eq!(decisions(&near), [("miss", "no-candidate"), ("hit", "hit"), ("not needed", "")]);
    let candidate = &near["layers"][1]["candidates"][0];
    assert_eq!((&candidate["decision"], &candidate["prompt"]), (&json!("serve"), &json!(QUESTION)));
    assert_eq!((&candidate["rules"], &candidate["entry"]), (&json!([]), &near["would_serve"]["entry"]));
    assert!(candidate["verifier"].is_number() && candidate["freshness"].as_f64().unwrap() > 0.9);

    let alike = explain(&proxy, asked("What is the capital of Spain?")).await;
    assert_eq!(alike["layers"][1]["decision"], "miss");
    let candidate = &alike["layers"][1]["candidates"][0];
    assert_eq!(candidate["decision"], alike["layers"][1]["detail"]);
    assert_eq!(alike["layers"][2]["detail"], alike["layers"][1]["detail"]);
    assert_eq!(alike["would_serve"], Value::Null);

    // Not a trace of all these.
    assert_eq!(upstream.count(), 1);
    assert_eq!(get(&proxy, "/internal/metrics").await.json(), counters);
    let entries = get(&proxy, "/entries").await.json();
    assert_eq!(
        (entries["entries"].as_array().unwrap().len(), &entries["entries"][0]["hits"]),
        (1, &json!(0))
    );
    assert_eq!(get(&proxy, "/near-misses").await.json()["near_misses"], json!([]));
    assert_eq!(sum(&overview(&proxy).await["similarity"]["misses"]), 0);

    // And serving does the same.
    for (prompt, expected) in [(QUESTION, &exact), (PARAPHRASE, &near)] {
        let served = ask(&proxy, prompt).await;
        assert_eq!(served.header("x-rejoinder-entry"), expected["would_serve"]["entry"].as_str());
    }
    let served = ask(&proxy, "What is the capital of Spain?").await;
    let status = served.header("cache-status").unwrap();
    assert!(status.contains(alike["layers"][2]["detail"].as_str().unwrap()), "{status}");
}

#[tokio::test]
async fn an_explanation_keeps_to_directives_scope_and_credentials() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    proxy.post(CHAT, &chat(QUESTION)).header("authorization", "Bearer a").send().await;
    let with = async |headers: Value| {
        explain(&proxy, json!({"path": CHAT, "body": chat(QUESTION), "headers": headers})).await
    };
    let served = with(json!({"Authorization": "Bearer a"})).await;
    assert_eq!(served["layers"][0]["decision"], "hit");
    for other in [
        json!({}),
        json!({"authorization": "Bearer b"}),
        json!({"authorization": ["Bearer a", "Bearer b"]}),
        json!({"authorization": "Bearer a", "x-rejoinder-namespace": "other"}),
    ] {
        let explanation = with(other.clone()).await;
        assert_eq!(
            (&explanation["layers"][0]["decision"], &explanation["would_serve"]),
            (&json!("miss"), &Value::Null),
            "{other}"
        );
    }
    let skipped = [
        ("cache-control", "no-store", "would be asked", "no-store"),
        ("cache-control", "no-cache", "would be asked", "no-cache"),
        ("content-encoding", "gzip", "would be asked", "never-cached"),
        ("cache-control", "no-cache, only-if-cached", "would not be asked", "only-if-cached"),
    ];
    for (name, value, decision, detail) in skipped {
        let explanation = with(json!({"authorization": "Bearer a", name: value})).await;
        let layers = decisions(&explanation);
        assert_eq!((layers[0].0, layers[2]), ("skipped", (decision, detail)), "{value}");
    }
    let elsewhere = explain(&proxy, json!({"path": "/v1/models", "body": null})).await;
    assert_eq!(decisions(&elsewhere)[2], ("would be asked", "never-cached"));

    for (body, problem) in [
        (json!({"path": CHAT}), "body"),
        (json!({"path": "no path", "body": {}}), "path"),
        (json!({"path": "http://x/v1/chat/completions", "body": {}}), "path"),
        (json!({"path": CHAT, "body": {}, "more": 1}), "more"),
        (json!({"path": CHAT, "body": {}, "headers": {"a b": "c"}}), "header"),
        (json!({"path": CHAT, "body": {}, "headers": {"a": "c\n"}}), "header"),
        (json!({"path": CHAT, "body": {}, "headers": {"x-rejoinder-ttl": "soon"}}), "X-Rejoinder-TTL"),
    ] {
        let refused = Ask::post(&format!("{}/explain", proxy.admin_url()), &body).send().await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(refused.json()["error"].as_str().unwrap().contains(problem), "{body}: {}", refused.text());
    }
}

#[tokio::test]
async fn the_modes_that_try_replies_explain_what_they_would_do() {
    let upstream = upstream().await;
    for (mode, exact, semantic) in [
        (Mode::Observe, ("miss", "observed"), None),
        (Mode::Verified, ("hit", "hit"), Some(("miss", "exploring"))),
    ] {
        let proxy = proxy_with(&upstream, |config| {
            config.embedder = EmbedderKind::Builtin;
            config.mode = mode;
        })
        .await;
        ask(&proxy, QUESTION).await;
        let explanation = explain(&proxy, json!({"path": CHAT, "body": chat(QUESTION)})).await;
        assert_eq!(decisions(&explanation)[0], exact, "{mode:?}");
        let explanation = explain(&proxy, json!({"path": CHAT, "body": chat(PARAPHRASE)})).await;
        let expected = semantic.unwrap_or(("miss", "observed"));
        assert_eq!(decisions(&explanation)[1], expected, "{mode:?}");
        assert_eq!(explanation["layers"][1]["candidates"][0]["decision"], expected.1, "{mode:?}");
        assert_eq!(explanation["would_serve"], Value::Null, "{mode:?}");
        let verified = get(&proxy, "/verified").await.json();
        assert_eq!((&verified["served"], &verified["explored"]), (&json!(0), &json!(0)), "{mode:?}");
    }
}

#[tokio::test]
async fn an_entry_is_shown_with_what_speaks_for_it() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    ask(&proxy, QUESTION).await;
    let hit = ask(&proxy, PARAPHRASE).await;
    let id = hit.header("x-rejoinder-entry").unwrap();
    let entry = get(&proxy, &format!("/entries/{id}")).await.json();
    assert_eq!(
        (&entry["prompt"], &entry["status"], &entry["hits"]),
        (&json!(QUESTION), &json!("fresh"), &json!(1))
    );
    assert_eq!(entry["scope"], json!({"path": CHAT, "model": "llama3.2", "namespace": ""}));
    let similarities = &entry["hit_similarities"];
    assert_eq!(sum(&similarities["counts"]), 1);
    let at = similarities["counts"].as_array().unwrap().iter().position(|count| *count == 1).unwrap();
    let edge = |at: usize| similarities["edges"][at].as_f64().unwrap();
    let similarity: f64 = hit.header("x-rejoinder-similarity").unwrap().parse().unwrap();
    assert!((edge(at) - 1e-3..=edge(at + 1)).contains(&similarity), "{similarity} in {at}");
    assert_eq!(entry["evidence"], json!({"same": 0, "different": 0, "contradicted": false, "trials": []}));
    assert!(entry["prompt_tokens"].as_u64().unwrap() > 0 && entry["completion_tokens"].is_number());
}

fn in_tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

/// A program that scripts/test installs beside Schemathesis.
fn installed(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".test-clients/openapi/bin").join(name);
    assert!(program.exists(), "{} is missing: run scripts/test, which installs it", program.display());
    program
}

/// Schemathesis on the running proxy: whether every answer is what the document says, and every request that it allows or
/// forbids is taken or refused.
async fn schemathesis(proxy: &Proxy, config: &Path, exported: &Path, chosen: &[&str]) {
    let mut command = tokio::process::Command::new(installed("st"));
    command
        .env("EXPORT", exported)
        .current_dir(config.parent().unwrap())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command.arg("--config-file").arg(config).args(["run", &format!("{}/openapi.json", proxy.admin_url())]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1"]);
    command.args(["--generation-deterministic", "--no-color"]);
    command.args(["--continue-on-failure", "--request-timeout", "60", "--suppress-health-check", "all"]);
    let output = command.args(chosen).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // Shown by --nocapture.
    println!("{said}");
}

/// `/decisions` never ends, and Schemathesis reads answers to their end: it has a test of its own. `/import` gets
/// bodies made of the lines of this proxy's own export, whole and spoilt (`openapi/lines.py`).
#[tokio::test]
async fn every_answer_is_as_the_document_describes_it() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    for prompt in [QUESTION, QUESTION, PARAPHRASE, "What is the capital of Spain?", "How old is the Earth?"] {
        ask(&proxy, prompt).await;
    }
    let entries = get(&proxy, "/entries").await.json();
    let id = |at: usize| entries["entries"][at]["id"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let exported = folder.path().join("export.jsonl");
    std::fs::write(&exported, get(&proxy, "/export").await.text()).unwrap();
    let hooks = in_tests("openapi/lines.py");
    let config = folder.path().join("schemathesis.toml");
    let text = format!(
        r#"
        hooks = "{}"
        # A cursor is what an export gave.
        [[operations]]
        include-operation-id = "export"
        checks.positive_data_acceptance.enabled = false
        [[operations]]
        include-operation-id = "showEntry"
        parameters = {{ "path.id" = "{}" }}
        [[operations]]
        include-operation-id = "removeEntry"
        parameters = {{ "path.id" = "{}" }}
        "#,
        hooks.display(),
        id(0),
        id(1),
    );
    std::fs::write(&config, text).unwrap();
    let changing = ["removeEntry", "purge", "import"];
    let never = ["--exclude-operation-id", "decisions"];
    let others: Vec<_> = changing.iter().flat_map(|id| ["--exclude-operation-id", id]).chain(never).collect();
    schemathesis(&proxy, &config, &exported, &others).await;
    let these: Vec<_> = changing.iter().flat_map(|id| ["--include-operation-id", id]).collect();
    schemathesis(&proxy, &config, &exported, &these).await;
}
