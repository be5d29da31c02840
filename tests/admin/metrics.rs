//! What operators read of the metrics: docs/metrics.md says what the program exposes, the dashboard and the alerts ask
//! for nothing else, and what was saved is what upstream said that it had cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rejoinder::config::{EmbedderKind, Mode};
use rejoinder::savings::prices::Prices;
use rejoinder::savings::{MODELS, OTHER};
use serde_json::{Value, json};

use crate::support::deployment::{deploy, documents};
use crate::support::program::{output, rejoinder};
use crate::support::promql;
use crate::support::{
    Ask, Connection, Fault, PARAPHRASE, Proxy, QUESTION, Said, generating, proxy, proxy_with, saying,
    semantic_proxy, streamed, until_admin, upstream,
};

const CHAT: &str = "/v1/chat/completions";

/// What a metric is: its type, and the values of its labels, none where they are not listed.
#[derive(Debug, Clone, Default, PartialEq)]
struct Metric {
    kind: String,
    unit: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

type Metrics = BTreeMap<String, Metric>;

fn chat(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}]})
}

async fn scrape(proxy: &Proxy) -> String {
    Ask::get(&format!("{}/metrics", proxy.admin_url())).send().await.text().to_owned()
}

async fn saved(proxy: &Proxy) -> Value {
    let url = format!("{}/internal/metrics", proxy.admin_url());
    Ask::get(&url).send().await.json()["saved"].clone()
}

fn prices(text: &str) -> Prices {
    toml::from_str(text).unwrap()
}

/// The words in backticks.
fn ticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The table of docs/metrics.md.
fn documented() -> Metrics {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `rejoinder_"));
    let metric = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, unit, meaning, _] = cells[..] else { panic!("{row}") };
        assert!(!meaning.is_empty(), "{row}");
        let mut all = BTreeMap::new();
        let mut rest = labels;
        while let Some((_, after)) = rest.split_once('`') {
            let (label, after) = after.split_once('`').unwrap();
            let values = after.trim_start().strip_prefix('(').map(|values| values.split_once(')').unwrap());
            let listed = values.map_or("", |(listed, _)| listed);
            all.insert(label.to_owned(), ticked(listed).into_iter().map(str::to_owned).collect());
            rest = values.map_or(after, |(_, rest)| rest);
        }
        (ticked(name)[0].to_owned(), Metric { kind: kind.to_owned(), unit: unit.to_owned(), labels: all })
    };
    let metrics: Vec<_> = rows.map(metric).collect();
    let count = metrics.len();
    let metrics: Metrics = metrics.into_iter().collect();
    assert!(metrics.len() == count && count > 30, "a metric stands twice, or the table is another");
    metrics
}

/// The metrics of an exposition, by the names that queries use.
fn exposed(text: &str, metrics: &mut Metrics) {
    let mut families: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", family, kind] => families.entry(family).or_default().0 = kind,
            ["#", "UNIT", family, unit] => families.entry(family).or_default().1 = unit,
            ["#", ..] => {}
            _ => {
                let (series, _) = line.rsplit_once(' ').unwrap();
                let (sample, labels) = series.split_once('{').unwrap_or((series, "}"));
                let stem = ["_total", "_info", "_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                    sample.strip_suffix(suffix).filter(|stem| families.contains_key(stem))
                });
                let family = stem.unwrap_or(sample);
                let (kind, unit) = families.get(family).unwrap_or_else(|| panic!("{line} has no TYPE"));
                let name = if *kind == "histogram" { family } else { sample };
                let metric = metrics.entry(name.to_owned()).or_default();
                (metric.kind, metric.unit) = ((*kind).to_owned(), (*unit).to_owned());
                // No label here has a quotation mark in its value.
                let mut parts = labels.trim_end_matches('}').split('"');
                while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
                    let label = label.trim_start_matches(',').trim_end_matches('=');
                    if label != "le" {
                        metric.labels.entry(label.to_owned()).or_default().insert(value.to_owned());
                    }
                }
            }
        }
    }
}

/// Proxies of every mode that have seen what there is to count.
async fn experienced() -> Vec<Proxy> {
    let upstream = upstream().await;
    let mut proxies = Vec::new();
    for mode in [Mode::Reuse, Mode::Observe, Mode::Verified] {
        let proxy = proxy_with(&upstream, |config| {
            config.embedder = EmbedderKind::Builtin;
            config.mode = mode;
            config.cache.audit_share = 1.0;
            config.prices = prices("'llama*' = {input = 1, output = 2}");
        })
        .await;
        let metrics = format!("{}/metrics", proxy.admin_url());
        for prompt in [QUESTION, QUESTION, PARAPHRASE, "Continue."] {
            assert_eq!(proxy.post(CHAT, &chat("llama3.2", prompt)).send().await.status, 200);
        }
        Ask::get(&metrics).send().await;
        proxies.push(proxy);
    }
    until_admin(&proxies[0], "/audits", |audits| audits["audited"] == 1).await;
    proxies
}

#[tokio::test]
async fn the_table_says_what_is_exposed() {
    let mut found = Metrics::new();
    for proxy in experienced().await {
        exposed(&scrape(&proxy).await, &mut found);
    }
    let table = documented();
    let names = |metrics: &Metrics| metrics.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&found), names(&table));
    for (name, metric) in &found {
        let row = &table[name];
        assert_eq!(metric.kind, row.kind, "{name}");
        assert!(metric.unit.is_empty() || metric.unit == row.unit, "{name} is in {}", metric.unit);
        assert_eq!(
            metric.labels.keys().collect::<Vec<_>>(),
            row.labels.keys().collect::<Vec<_>>(),
            "the labels of {name}"
        );
        for (label, listed) in &row.labels {
            let values = &metric.labels[label];
            assert!(listed.is_empty() || values.is_subset(listed), "{name}: {label} is {values:?}");
        }
    }
}

/// The queries of the dashboard, its variables' included, each with its place.
fn dashboard() -> Vec<(String, String)> {
    let document: Value =
        serde_json::from_slice(&std::fs::read(deploy().join("grafana/dashboard.json")).unwrap()).unwrap();
    let mut queries = Vec::new();
    for panel in document["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let place = panel["title"].as_str().unwrap().to_owned();
            queries.push((place, target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for variable in document["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            queries.push((variable["name"].as_str().unwrap().to_owned(), query.to_owned()));
        }
    }
    assert!(queries.len() > 40);
    queries
}

fn alerts() -> Vec<(String, String)> {
    let document = documents(&alerts_file()).remove(0);
    let rules =
        document["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule["expr"].as_str().unwrap().to_owned()))
        .collect()
}

fn alerts_file() -> PathBuf {
    deploy().join("prometheus/alerts.yaml")
}

/// Of Prometheus itself.
const OTHERS: [&str; 1] = ["up"];

#[test]
fn dashboard_and_alerts_ask_for_what_is_exposed() {
    let table = documented();
    let mut asked = BTreeSet::new();
    for (place, query) in dashboard().into_iter().chain(alerts()) {
        let place = format!("{place}: {query}");
        let read = promql::read(&query);
        assert!(!read.metrics.is_empty(), "{place}");
        let mut known: BTreeSet<&str> = ["job", "instance", "alertname"].into();
        for selector in &read.metrics {
            let name = selector.metric.as_str();
            if OTHERS.contains(&name) {
                continue;
            }
            let histogram = name.strip_suffix("_bucket").filter(|stem| table.contains_key(*stem));
            let metric =
                table.get(histogram.unwrap_or(name)).unwrap_or_else(|| panic!("no {name} in {place}"));
            asked.insert(histogram.unwrap_or(name).to_owned());
            known.extend(metric.labels.keys().map(String::as_str));
            known.extend(histogram.map(|_| "le"));
            for (label, operator, value) in &selector.matchers {
                if ["job", "instance"].contains(&label.as_str()) {
                    continue;
                }
                let values =
                    metric.labels.get(label).unwrap_or_else(|| panic!("{name} has no {label}: {place}"));
                for value in value.split('|').filter(|_| !values.is_empty()) {
                    assert!(values.contains(value), "{label} is never {operator} {value}: {place}");
                }
            }
        }
        for label in &read.grouped {
            assert!(known.contains(label.as_str()), "nothing has {label}: {place}");
        }
    }
    let unseen: Vec<_> = table.keys().filter(|name| !asked.contains(*name)).collect();
    assert!(
        unseen.iter().all(|name| [
            "rejoinder_config_hash",
            "rejoinder_config_last_reload_success_timestamp_seconds",
            "rejoinder_config_last_reload_successful",
            "rejoinder_saved_token_details_total",
            "rejoinder_spans_dropped_total",
            "rejoinder_spans_exported_total",
            "rejoinder_upstream_duration_seconds",
            "rejoinder_verified_compared_total"
        ]
        .contains(&name.as_str())),
        "no query shows {unseen:?}"
    );
}

/// Prometheus' own checker: what `scripts/test` has put into `.test-clients`, or the system's.
fn promtool(arguments: &[&str], input: Option<&str>) -> (bool, String) {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".test-clients/promtool");
    let program = if own.exists() { own } else { PathBuf::from("promtool") };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool, which scripts/test installs");
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, input.unwrap_or_default().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn promtool_finds_the_alerts_and_queries_sound() {
    let file = alerts_file();
    let (sound, said) = promtool(&["check", "rules", file.to_str().unwrap()], None);
    assert!(sound, "{said}");
    // The dashboard's queries as rules, with Grafana's variables filled in.
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (at, (_, query)) in
        dashboard().iter().filter(|(_, query)| !query.starts_with("label_values")).enumerate()
    {
        let query = query.replace("$__rate_interval", "5m").replace("$__range", "6h").replace('$', "");
        writeln!(rules, "  - record: query_{at}\n    expr: '{query}'").unwrap();
    }
    let rules = crate::support::program::file(".yaml", &rules);
    let (sound, said) = promtool(&["check", "rules", rules.path().to_str().unwrap()], None);
    assert!(sound, "{said}");
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let tests = include_str!("../deployment/alerts.test.yaml");
    let tests = tests.replace("- ALERTS\n", &format!("- {}\n", alerts_file().display()));
    let tests = crate::support::program::file(".yaml", &tests);
    let (sound, said) = promtool(&["test", "rules", tests.path().to_str().unwrap()], None);
    assert!(sound, "{said}");
    let text = std::fs::read_to_string(tests.path()).unwrap();
    for (alert, _) in alerts() {
        assert!(text.contains(&alert), "{alert} is never seen to fire");
    }
}

/// promtool reads the older text format, in which a counter's family has the name of its sample.
fn older(text: &str) -> String {
    let counters: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let line = |line: &str| {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "UNIT" | "EOF", ..] => None,
            ["#", what, family, rest] if counters.contains(family) => {
                Some(format!("# {what} {family}_total {rest}"))
            }
            ["#", what, family, rest] if text.contains(&format!("# TYPE {family} info")) => {
                Some(format!("# {what} {family}_info {}", if what == "TYPE" { "gauge" } else { rest }))
            }
            _ => Some(line.to_owned()),
        }
    };
    text.lines().filter_map(line).map(|line| line + "\n").collect()
}

#[tokio::test]
async fn promtool_finds_the_metrics_sound() {
    let proxies = experienced().await;
    for proxy in &proxies {
        let text = older(&scrape(proxy).await);
        let (sound, said) = promtool(&["check", "metrics"], Some(&text));
        assert!(sound && said.is_empty(), "{said}\n{text}");
    }
}

/// Every reply's usage is counted for each hit that it serves, in each form, as upstream said it.
#[tokio::test]
async fn a_hit_saves_the_tokens_that_upstream_counted() {
    let upstream = upstream().await;
    for (path, body) in generating(QUESTION) {
        let proxy = proxy(&upstream).await;
        let reply = proxy.post(path, &body).send().await;
        let (input, output) = Said::in_document(path, &reply.json()).usage.unwrap();
        assert!(saved(&proxy).await["models"].as_array().unwrap().is_empty(), "{path}: a miss saves nothing");
        for (hits, body) in [(1, body.clone()), (2, streamed(&body))] {
            assert_eq!(proxy.post(path, &body).send().await.layer(), Some("exact"), "{path}");
            let saved = saved(&proxy).await;
            assert_eq!(saved["prompt_tokens"], hits * input, "{path}: {saved}");
            assert_eq!(saved["completion_tokens"], hits * output, "{path}: {saved}");
            assert!(saved["seconds"].as_f64().unwrap() > 0.0, "{path}: {saved}");
            assert_eq!(saved["money"], json!({}), "no price is known");
            assert_eq!(saved["unknown"], json!({"usage": 0, "price": hits, "seconds": 0}), "{path}");
            let of_model = &saved["models"][0];
            assert_eq!((&of_model["model"], &of_model["hits"]), (&json!("llama3.2"), &json!(hits)));
            assert_eq!(of_model["money"], Value::Null);
        }
    }
}

#[tokio::test]
async fn details_of_usage_are_counted_where_upstream_gives_them() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.prices = prices("'m' = {input = 1000, cached_input = 100, output = 10, currency = 'EUR'}");
    })
    .await;
    let openai = json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens_details": {"reasoning_tokens": 30}},
    });
    let anthropic = json!({
        "id": "1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Paris."}],
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30, "output_tokens": 50},
    });
    let ask = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": QUESTION}]});
    for (path, document, reasoning) in [(CHAT, openai, 30), ("/v1/messages", anthropic, 30)] {
        upstream.fault_next(Fault::body("application/json", document.to_string()));
        for _ in 0..2 {
            assert_eq!(proxy.post(path, &ask).send().await.status, 200);
        }
        let saved = saved(&proxy).await;
        let times = if path == CHAT { 1 } else { 2 };
        assert_eq!(saved["prompt_tokens"], times * 100, "{saved}");
        assert_eq!(saved["cached_tokens"], times * 60, "{saved}");
        assert_eq!(saved["completion_tokens"], times * 50, "{saved}");
        assert_eq!(saved["reasoning_tokens"], reasoning, "{saved}");
        let money = saved["money"]["EUR"].as_f64().unwrap();
        let once = (40.0 * 1000.0 + 60.0 * 100.0 + 50.0 * 10.0) / 1e6;
        assert!((money - f64::from(times) * once).abs() < 1e-12, "{saved}");
    }
    let text = scrape(&proxy).await;
    let details =
        "rejoinder_saved_token_details_total{model=\"m\",layer=\"exact\",kind=\"cached_input\"} 120\n";
    assert!(text.contains(details), "{text}");
    assert!(
        text.contains("rejoinder_saved_money_total{model=\"m\",layer=\"exact\",currency=\"EUR\"} 0.09"),
        "{text}"
    );
}

#[tokio::test]
async fn a_semantic_hit_saves_what_the_reply_it_serves_cost() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    upstream.fault_next(saying("It is Paris."));
    proxy.post(CHAT, &chat("llama3.2", QUESTION)).send().await;
    let hit = proxy.post(CHAT, &chat("llama3.2", PARAPHRASE)).send().await;
    assert_eq!(hit.layer(), Some("semantic"));
    let text = scrape(&proxy).await;
    for sample in [
        "rejoinder_hits_total{model=\"llama3.2\",layer=\"semantic\"} 1\n",
        "rejoinder_saved_tokens_total{model=\"llama3.2\",layer=\"semantic\",direction=\"input\"} 3\n",
        "rejoinder_saved_tokens_total{model=\"llama3.2\",layer=\"semantic\",direction=\"output\"} 4\n",
    ] {
        assert!(text.contains(sample), "{text}");
    }
}

#[tokio::test]
async fn usage_that_is_not_known_is_not_made_up() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.prices = prices("'*' = {input = 1, output = 1}")).await;
    let mut document = json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
    });
    for (number, usage) in [
        Value::Null,
        json!({}),
        json!({"prompt_tokens": 5}),
        json!({"prompt_tokens": -5, "completion_tokens": 7}),
        json!({"prompt_tokens": 5, "completion_tokens": 9e18}),
        json!({"prompt_tokens": 5, "completion_tokens": u64::MAX}),
    ]
    .into_iter()
    .enumerate()
    {
        document["usage"] = usage;
        let ask = chat("m", &format!("{QUESTION} {number}"));
        upstream.fault_next(Fault::body("application/json", document.to_string()));
        proxy.post(CHAT, &ask).send().await;
        assert_eq!(proxy.post(CHAT, &ask).send().await.layer(), Some("exact"));
        let saved = saved(&proxy).await;
        assert_eq!((&saved["prompt_tokens"], &saved["completion_tokens"]), (&json!(0), &json!(0)), "{saved}");
        assert_eq!(saved["unknown"]["usage"], number + 1, "{saved}");
        assert_eq!((&saved["money"], &saved["models"][0]["money"]), (&json!({}), &Value::Null));
    }
    let text = scrape(&proxy).await;
    assert!(
        text.contains("rejoinder_saved_unknown_total{model=\"m\",layer=\"exact\",what=\"usage\"} 6\n"),
        "{text}"
    );
    assert!(!text.contains("rejoinder_saved_money_total{"), "{text}");
}

/// Whatever names clients send, and however many: few are told apart, and those with a price before all others.
#[tokio::test]
async fn no_client_can_make_more_labels_by_naming_models() {
    let upstream = upstream().await;
    let proxy =
        proxy_with(&upstream, |config| config.prices = prices("priced = {input = 1, output = 1}")).await;
    let mut connection = Connection::open(proxy.address()).await.unwrap();
    let mut ask = async |model: &str, times: usize| {
        for _ in 0..times {
            upstream.fault_next(saying("It is Paris."));
            let reply = connection.send(proxy.post(CHAT, &chat(model, QUESTION))).await.unwrap();
            assert_eq!(reply.status, 200, "{model:?}");
        }
    };
    // Names that upstream never answered twice, and so no hit had.
    for number in 0..200 {
        ask(&format!("miss-{number}"), 1).await;
    }
    let named: Vec<_> =
        (0..100).map(|number| format!("a \"model\"}} \n\u{e4}{number}{}", "x".repeat(200))).collect();
    for model in &named {
        ask(model, 2).await;
    }
    for number in 0..100 {
        ask(&format!("m{number}"), 2).await;
    }
    ask("priced", 2).await;
    let mut found = Metrics::new();
    let text = scrape(&proxy).await;
    exposed(&text, &mut found);
    let models = &found["rejoinder_hits_total"].labels["model"];
    assert!(models.len() <= MODELS + 1 && models.contains("priced") && models.contains(OTHER), "{models:?}");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@+".contains(c);
    assert!(models.iter().all(|model| model.len() <= 64 && model.chars().all(plain)), "{models:?}");
    assert!(!models.iter().any(|model| model.starts_with("miss")), "{models:?}");
    let saved = saved(&proxy).await;
    let hits: u64 =
        saved["models"].as_array().unwrap().iter().map(|model| model["hits"].as_u64().unwrap()).sum();
    assert_eq!(hits, 201);
}

#[tokio::test]
async fn prices_are_the_operators_and_a_wrong_one_is_named() {
    let good = crate::support::program::file(
        ".toml",
        "[prices]\n\"gpt-4o*\" = { input = 2.5, cached_input = 1.25, output = 10 }\nlocal = { input = 0, output = 0, currency = \"EUR\" }\n",
    );
    let (code, text, error) = output(rejoinder(&["check-config", good.path().to_str().unwrap()])).await;
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let effective: toml::Table = text.parse().unwrap();
    let price = &effective["prices"]["gpt-4o*"];
    assert_eq!((price["output"].as_float(), price["currency"].as_str()), (Some(10.0), Some("USD")), "{text}");
    for (line, reason) in [
        ("m = { input = -1, output = 1 }", "no price"),
        ("m = { input = 1, output = 1, currency = \"Euro\" }", "three capital letters"),
        ("m = { input = 1 }", "output"),
    ] {
        let wrong = crate::support::program::file(".toml", &format!("[prices]\n{line}\n"));
        let (code, _, error) = output(rejoinder(&["check-config", wrong.path().to_str().unwrap()])).await;
        assert_eq!(code, Some(2), "{line}");
        assert!(error.contains(":2: m: ") && error.contains(reason), "{line}: {error}");
    }
}
