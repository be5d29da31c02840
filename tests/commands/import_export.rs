//! `rejoinder export` and `import`, and the endpoints beneath: a store goes whole into another, of either kind, and what
//! is wrong in a file comes into none.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use http::Method;
use rejoinder::config::{Config, EmbedderKind, Secret};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::exports::{end, entry, export, header, now_ms, with_secret};
use crate::support::program::{output, rejoinder};
use crate::support::redis::{Cluster, Shared, patient_replica_with, redis, until};
use crate::support::traffic::{Question, embed_cheaply};
use crate::support::{
    Ask, Proxy, Reply, Wire, generating, proxy, proxy_with, streamed, text_of, until_admin, upstream,
};

async fn run(command: &[&str], proxy: &Proxy) -> (Option<i32>, String, String) {
    let admin = proxy.admin_url();
    output(rejoinder(&[command, &["--admin", &admin]].concat())).await
}

/// The JSON that a command of this exit code prints.
async fn json_of(command: &[&str], proxy: &Proxy, expected: i32) -> Value {
    let (code, text, error) = run(&[command, &["--json"]].concat(), proxy).await;
    assert_eq!(code, Some(expected), "{text}{error}");
    serde_json::from_str(&text).unwrap_or_else(|failure| panic!("{failure}: {text}{error}"))
}

async fn post(proxy: &Proxy, body: impl Into<bytes::Bytes>) -> Reply {
    Ask::post_bytes(&format!("{}/import", proxy.admin_url()), body).send().await
}

async fn count(proxy: &Proxy) -> usize {
    let page = Ask::get(&format!("{}/entries?limit=1000", proxy.admin_url())).send().await.json();
    page["entries"].as_array().unwrap().len()
}

/// The entries of an export by their keys.
fn entries(export: &str) -> BTreeMap<String, Value> {
    let lines = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| Some((line["key"].as_str()?.to_owned(), line))).collect()
}

/// A folder for files, and a file's path in it.
fn place(name: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name).to_str().unwrap().to_owned();
    (folder, path)
}

/// One entry of each kind: of each endpoint that generates from a document and from a stream, of embeddings, with a
/// namespace, and with an embedding.
fn asked(proxy: &Proxy) -> Vec<(String, Ask)> {
    let mut asked = Vec::new();
    for (path, body) in generating("Name a prime number.") {
        asked.push((path.to_owned(), proxy.post(path, &body)));
    }
    for (path, body) in generating("List the planets.") {
        asked.push((format!("{path} from a stream"), proxy.post(path, &streamed(&body))));
    }
    let embeddings = json!({"model": "all-minilm", "input": ["a", "b"]});
    asked.push(("/v1/embeddings".to_owned(), proxy.post("/v1/embeddings", &embeddings)));
    let body = json!({"model": "llama3.2", "prompt": "Name a fruit.", "stream": false});
    asked.push((
        "a namespace".to_owned(),
        proxy.post("/api/generate", &body).header("x-rejoinder-namespace", "docs"),
    ));
    asked
}

/// Asks all that was asked before and needs no upstream for it: what is served, by what was asked.
async fn served(proxy: &Proxy) -> BTreeMap<String, (String, String)> {
    let mut served = BTreeMap::new();
    for (name, ask) in asked(proxy) {
        let reply = ask.header("cache-control", "only-if-cached").send().await;
        assert_eq!((reply.status.as_u16(), reply.layer()), (200, Some("exact")), "{name}");
        let id = reply.header("x-rejoinder-entry").unwrap().to_owned();
        let text = if name.contains("stream") {
            crate::support::streamed_text_of(reply.text())
        } else if name.contains("embeddings") {
            reply.json()["data"].to_string()
        } else {
            text_of(&reply.json())
        };
        served.insert(name, (id, text));
    }
    let question = Question::numbered(3);
    let body = json!({
        "model": "llama3.2", "messages": [{"role": "user", "content": question.worded(1)}],
    });
    let chat = proxy.post("/v1/chat/completions", &body);
    let reply = chat.header("cache-control", "only-if-cached").send().await;
    assert_eq!(reply.layer(), Some("semantic"), "{reply:?}");
    let similarity = reply.header("x-rejoinder-similarity").unwrap().to_owned();
    served.insert("by meaning".to_owned(), (similarity, text_of(&reply.json())));
    served
}

fn sharing(config: &mut Config) {
    embed_cheaply(config);
    with_secret(config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_into_redis_and_back_and_nothing_is_lost() {
    let (upstream, redis) = (upstream().await, redis().await);
    let first = proxy_with(&upstream, sharing).await;
    for (name, ask) in asked(&first) {
        assert_eq!(ask.send().await.status, 200, "{name}");
    }
    let question = Question::numbered(3);
    first.ask(&question.worded(0)).await;
    first.until_known(question).await;
    let expected = served(&first).await;

    let (_folder, path) = place("first.jsonl");
    let exported = json_of(&["export", &path], &first, 0).await;
    assert_eq!((&exported["entries"], &exported["unreadable"]), (&json!(15), &json!(0)));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(exported["bytes"], text.len());
    assert_eq!(entries(&text).len(), 15);
    assert!(!text.contains(crate::support::exports::SECRET), "the secret is in no export");
    let asked_before = upstream.count();

    let second = patient_replica_with(&upstream, &redis.url(), sharing).await;
    let imported = json_of(&["import", &path], &second, 0).await;
    for (name, value) in
        [("imported", json!(15)), ("bad", json!(0)), ("complete", json!(true)), ("embedded", json!(0))]
    {
        assert_eq!(imported[name], value, "{name}: {imported}");
    }
    assert_eq!(served(&second).await, expected);
    let (_folder, back) = place("second.jsonl");
    json_of(&["export", &back], &second, 0).await;
    let again = fs::read_to_string(&back).unwrap();
    let (before, after) = (entries(&text), entries(&again));
    for (key, line) in &before {
        assert_eq!(Some(line), after.get(key));
    }
    assert_eq!(before.len(), after.len());

    let third = proxy_with(&upstream, sharing).await;
    assert_eq!(json_of(&["import", &back], &third, 0).await["imported"], 15);
    let metrics = Ask::get(&format!("{}/internal/metrics", third.admin_url())).send().await.json();
    assert_eq!(metrics["embeddings"], 0, "nothing was embedded anew");
    assert_eq!(served(&third).await, expected);
    let stored = |recorded: &crate::support::Recorded| !recorded.uri.path().contains("embed");
    let since: Vec<_> = upstream.requests().into_iter().skip(asked_before).filter(stored).collect();
    assert!(since.is_empty(), "upstream was asked again: {since:?}");

    // What is there is left as it is.
    for proxy in [&second, &third] {
        let again = json_of(&["import", &path], proxy, 0).await;
        assert_eq!((&again["imported"], &again["already"]), (&json!(0), &json!(15)));
    }
}

#[tokio::test]
async fn an_embedding_of_another_model_is_made_anew() {
    let upstream = upstream().await;
    let first = proxy_with(&upstream, sharing).await;
    first.ask(crate::support::QUESTION).await;
    first.until_served_by(Some("semantic"), crate::support::PARAPHRASE).await;
    let lines = Ask::get(&format!("{}/export", first.admin_url())).send().await.body;
    let second = proxy_with(&upstream, |config| {
        with_secret(config);
        config.embedder = EmbedderKind::Builtin;
    })
    .await;
    let report = post(&second, lines).await.json();
    assert_eq!((&report["imported"], &report["embedded"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(second.layer_of(crate::support::PARAPHRASE).await.as_deref(), Some("semantic"));
}

#[tokio::test]
async fn bad_lines_are_named_and_the_others_are_imported() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        with_secret(config);
        config.limits.max_entry_bytes = rejoinder::config::Bytes(10_000);
    })
    .await;
    let with = |name: &str, value: Value| {
        let mut line = entry(1, 10);
        line[name] = value;
        line.to_string()
    };
    let bad = [
        ("{\"key\":".to_owned(), "EOF"),
        ("[]".to_owned(), "no JSON object"),
        (with("key", json!("00".repeat(32))), "does not belong"),
        (with("prompt", json!("What is number 2?")), "does not belong"),
        (with("scope", json!("xy")), "64 hexadecimal digits"),
        (with("endpoint", json!("/api/tags")), "endpoint"),
        (with("document", json!("{\"response\":")), "document"),
        (with("document", json!("{\"error\": \"no\"}")), "document"),
        (with("document", entry(1, 10_000)["document"].clone()), "max_entry_bytes"),
        (with("created_at_ms", json!(now_ms() + 86_400_000)), "future"),
        (with("created_at_ms", json!(-1)), "invalid"),
        (with("colour", json!("red")), "colour"),
        (
            with("embedding", json!({"partition": "00".repeat(32), "scale": 0.0, "components": "0001"})),
            "embedding",
        ),
        ("x".repeat(30_000_000), "longer than"),
    ];
    let mut file = header() + &entry(0, 10).to_string() + "\n\n";
    for (line, _) in &bad {
        file += &(line.clone() + "\n");
    }
    file += &(with("created_at_ms", json!(now_ms() - 3_600_000))
        + "\n"
        + &entry(2, 10).to_string()
        + "\n"
        + &end(3));
    let path = crate::support::program::file(".jsonl", &file);
    let path = path.path().to_str().unwrap();
    let report = json_of(&["import", path], &proxy, 3).await;
    for (name, value) in [("imported", 2), ("expired", 1), ("already", 0), ("bad", bad.len())] {
        assert_eq!(report[name], value, "{name}: {report}");
    }
    let named = report["bad_lines"].as_array().unwrap();
    assert_eq!(named.len(), bad.len());
    for (at, ((line, reason), said)) in bad.iter().zip(named).enumerate() {
        assert_eq!(said["line"], at + 4, "{said}");
        assert!(said["reason"].as_str().unwrap().contains(reason), "{reason}: {said} of {line:.80}");
    }
    assert_eq!(count(&proxy).await, 2, "none in part");

    let (code, text, error) = run(&["import", path], &proxy).await;
    assert_eq!((code, text.as_str()), (Some(3), "0 imported, 2 there already, 1 expired, 14 bad\n"));
    assert!(error.contains(&format!("{path}:6: the key does not belong")), "{error}");
}

#[tokio::test]
async fn an_export_of_another_secret_or_version_is_refused() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, with_secret).await;
    let foreign =
        proxy_with(&upstream, |config| config.secret = Some(Secret::new("another".to_owned()))).await;
    let (folder, path) = place("foreign.jsonl");
    foreign.post("/api/generate", &json!({"model": "m", "prompt": "x", "stream": false})).send().await;
    json_of(&["export", &path], &foreign, 0).await;
    let newer = folder.path().join("newer.jsonl");
    fs::write(&newer, header().replace("\"schema\":1", "\"schema\":2")).unwrap();
    let other = folder.path().join("other.jsonl");
    fs::write(&other, entry(1, 1).to_string()).unwrap();
    let empty = folder.path().join("empty.jsonl");
    fs::write(&empty, "").unwrap();
    let missing = folder.path().join("missing.jsonl");
    for (file, said) in [
        (path.as_ref(), "REJOINDER_SECRET"),
        (newer.as_path(), "schema 2"),
        (other.as_path(), "first line"),
        (empty.as_path(), "empty"),
        (missing.as_path(), "cannot read"),
    ] {
        let (code, text, error) = run(&["import", file.to_str().unwrap()], &proxy).await;
        assert_eq!((code, text.as_str()), (Some(2), ""), "{error}");
        assert!(error.contains(said), "{said}: {error}");
    }
    let status = post(&proxy, fs::read(&path).unwrap()).await.status;
    assert_eq!((status.as_u16(), count(&proxy).await), (409, 0));
}

/// Half a line is no entry, whichever way the other half does not come.
#[tokio::test]
async fn an_import_that_breaks_off_leaves_whole_entries() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, with_secret).await;
    let body = header() + &entry(0, 10).to_string() + "\n" + &entry(1, 10).to_string();
    let mut wire = Wire::open(proxy.admin_address()).await;
    let head = format!(
        "POST /import HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
        proxy.admin_address(),
        body.len() + 1
    );
    wire.send(head + &body[..body.len() - 20]).await;
    until_admin(&proxy, "/entries", |page| page["entries"].as_array().unwrap().len() == 1).await;
    drop(wire);
    // Another import, after which the first has surely been given up or not.
    assert_eq!(post(&proxy, header() + &entry(2, 10).to_string()).await.json()["imported"], 1);
    assert_eq!(count(&proxy).await, 2);
}

#[tokio::test]
async fn an_import_that_was_interrupted_goes_on_where_it_says() {
    let upstream = upstream().await;
    let first = proxy_with(&upstream, with_secret).await;
    let file = export(600, 10);
    let at: Vec<_> = file.match_indices('\n').map(|(at, _)| at + 1).collect();
    let mut child = rejoinder(&["import", "-", "--json", "--admin", &first.admin_url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The first line, those sent at once, and one more.
    stdin.write_all(&file.as_bytes()[..at[257]]).await.unwrap();
    until("some are imported", async || count(&first).await == 256).await;
    first.shutdown().await;
    stdin.write_all(&file.as_bytes()[at[257]..]).await.unwrap();
    drop(stdin);
    let output_of = child.wait_with_output().await.unwrap();
    let error = String::from_utf8(output_of.stderr).unwrap();
    assert_eq!(output_of.status.code(), Some(1), "{error}");
    let report: Value = serde_json::from_slice(&output_of.stdout).unwrap();
    assert_eq!((&report["imported"], &report["resume"]), (&json!(256), &json!(258)), "{report}");
    assert!(error.contains("--resume 258") && error.contains("rejoinder serve"), "{error}");

    let second = proxy_with(&upstream, with_secret).await;
    let path = crate::support::program::file(".jsonl", &file);
    let rest = json_of(&["import", path.path().to_str().unwrap(), "--resume", "258"], &second, 0).await;
    assert_eq!((&rest["imported"], &rest["complete"]), (&json!(344), &json!(true)), "{rest}");

    let cut = crate::support::program::file(".jsonl", &file[..at[3]]);
    let report = json_of(&["import", cut.path().to_str().unwrap()], &second, 3).await;
    assert_eq!((&report["imported"], &report["complete"]), (&json!(3), &json!(false)), "{report}");
}

#[cfg(unix)]
#[tokio::test]
async fn control_c_stops_an_import_and_says_where() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, with_secret).await;
    let mut child = rejoinder(&["import", "-", "--admin", &proxy.admin_url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(export(256, 10).as_bytes()).await.unwrap();
    until("some are imported", async || count(&proxy).await == 256).await;
    let id = child.id().unwrap().to_string();
    let killed = std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(killed.success());
    let ended = child.wait_with_output().await.unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    // The answer may still have been under way.
    assert!(error.contains("interrupted") && error.contains("--resume "), "{error}");
    assert_eq!(count(&proxy).await, 256);
    drop(stdin);
}

/// The most memory that a process has used, in KiB.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Eighty megabytes of entries pass through commands that never hold more than a part of them.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_entries_pass_without_being_held() {
    const ENTRIES: usize = 10_000;
    const MOST: u64 = 60 << 10;
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, with_secret).await;
    let admin = proxy.admin_url();
    let mut import = rejoinder(&["import", "-", "--json", "--admin", &admin])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = import.stdin.take().unwrap();
    stdin.write_all(header().as_bytes()).await.unwrap();
    let mut bytes = 0;
    for number in 0..ENTRIES {
        let line = entry(number, 8_000).to_string() + "\n";
        bytes += line.len();
        stdin.write_all(line.as_bytes()).await.unwrap();
    }
    let used = peak(import.id().unwrap());
    stdin.write_all(end(ENTRIES).as_bytes()).await.unwrap();
    drop(stdin);
    let report: Value = serde_json::from_slice(&import.wait_with_output().await.unwrap().stdout).unwrap();
    assert_eq!((&report["imported"], &report["complete"]), (&json!(ENTRIES), &json!(true)), "{report}");
    assert!(used < MOST, "{used} KiB for {bytes} bytes");

    let mut export = rejoinder(&["export", "-", "--admin", &admin])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = export.stdout.take().unwrap();
    // Nearly all: a pipe holds less than the rest.
    let mut text = vec![0; bytes - (1 << 20)];
    stdout.read_exact(&mut text).await.unwrap();
    let used = peak(export.id().unwrap());
    stdout.read_to_end(&mut text).await.unwrap();
    assert_eq!(export.wait().await.unwrap().code(), Some(0));
    assert_eq!(entries(std::str::from_utf8(&text).unwrap()).len(), ENTRIES);
    assert!(used < MOST, "{used} KiB for {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_from_a_mark_in_either_store() {
    let (upstream, redis, cluster) = (upstream().await, redis().await, Cluster::start().await);
    for proxy in [
        proxy_with(&upstream, with_secret).await,
        patient_replica_with(&upstream, &redis.url(), with_secret).await,
        patient_replica_with(&upstream, &cluster.url(), with_secret).await,
    ] {
        assert_eq!(post(&proxy, export(1500, 10)).await.json()["imported"], 1500);
        let whole = Ask::get(&format!("{}/export", proxy.admin_url())).send().await;
        assert_eq!(whole.header("content-type"), Some("application/x-ndjson"));
        let text = whole.text();
        let at = text.find("{\"cursor\"").unwrap();
        let (before, after) = text.split_at(at);
        let mark: Value = serde_json::from_str(after.lines().next().unwrap()).unwrap();
        let url = format!("{}/export?cursor={}", proxy.admin_url(), mark["cursor"].as_str().unwrap());
        let rest = Ask::get(&url).send().await;
        let mut all = entries(before);
        assert!(!all.is_empty() && all.len() < 1500);
        all.extend(entries(rest.text()));
        assert_eq!(all, entries(text));
        assert_eq!(all.len(), 1500);
        let wrong = Ask::get(&format!("{}/export?cursor=x", proxy.admin_url())).send().await;
        assert_eq!(wrong.status, 400);
    }
}

#[tokio::test]
async fn what_has_expired_is_left_out_and_a_poisoned_entry_stays_so() {
    let upstream = upstream().await;
    let first = proxy_with(&upstream, with_secret).await;
    let body = json!({"model": "m", "prompt": "x", "stream": false});
    first.post("/api/generate", &body).header("x-rejoinder-ttl", "1").send().await;
    first.post("/api/generate", &json!({"model": "m", "prompt": "y", "stream": false})).send().await;
    let export = async || {
        let reply = Ask::get(&format!("{}/export", first.admin_url())).send().await;
        reply.text().to_owned()
    };
    until("one has expired", async || entries(&export().await).len() == 1).await;
    let text = export().await;
    assert!(text.contains("\"end\":{\"entries\":1,\"unreadable\":0}"), "{text}");
    let poisoned: String =
        text.lines().map(|line| line.replace("\"ttl_ms\"", "\"poisoned\":true,\"ttl_ms\"") + "\n").collect();
    let second = proxy_with(&upstream, with_secret).await;
    assert_eq!(post(&second, poisoned).await.json()["imported"], 1);
    let ask = second.post("/api/generate", &json!({"model": "m", "prompt": "y", "stream": false}));
    let miss = ask.header("cache-control", "only-if-cached").send().await;
    assert!(miss.cache_status().contains("detail=poisoned"), "{}", miss.cache_status());
    let ask = first.post("/api/generate", &json!({"model": "m", "prompt": "y", "stream": false}));
    assert_eq!(ask.send().await.layer(), Some("exact"));
}

#[tokio::test]
async fn entries_live_no_longer_than_is_configured_where_they_come_in() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        with_secret(config);
        config.ttl = std::time::Duration::from_mins(1);
    })
    .await;
    assert_eq!(post(&proxy, export(1, 10)).await.json()["imported"], 1);
    let page = Ask::get(&format!("{}/entries", proxy.admin_url())).send().await.json();
    assert_eq!(page["entries"][0]["ttl_s"], 60);
}

#[tokio::test]
async fn the_endpoints_are_guarded_like_the_others() {
    let upstream = upstream().await;
    let open = proxy(&upstream).await;
    let closed =
        proxy_with(&upstream, |config| config.admin.token = Some(Secret::new("letmein".to_owned()))).await;
    for (method, path) in [(Method::GET, "/export"), (Method::POST, "/import")] {
        let ask = |proxy: &Proxy, method: &Method| {
            Ask::new(method.clone(), &format!("{}{path}", proxy.admin_url()))
        };
        assert_eq!(ask(&closed, &method).send().await.status, 401, "{path}");
        assert_eq!(ask(&open, &method).header("origin", "http://evil.example").send().await.status, 403);
        assert_eq!(ask(&open, &method).header("host", "evil.example").send().await.status, 421);
        assert_eq!(ask(&open, &Method::PUT).send().await.status, 405);
    }
    let (_folder, path) = place("all.jsonl");
    let (code, _, error) = run(&["export", &path], &closed).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("REJOINDER_ADMIN_TOKEN"), "{error}");
    assert!(!fs::exists(&path).unwrap() && !fs::exists(path.clone() + ".part").unwrap());
    let mut command = rejoinder(&["export", &path, "--admin", &closed.admin_url()]);
    command.env("REJOINDER_ADMIN_TOKEN", "letmein");
    assert_eq!(output(command).await.0, Some(0));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (code, _, error) = run(&["export", &path], &open).await;
    assert_eq!(code, Some(2), "it is there already");
    assert!(error.contains("--force"), "{error}");
    assert_eq!(run(&["export", &path, "--force"], &open).await.0, Some(0));
    for command in [["export", "-"], ["import", &path]] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = format!("http://{free}");
        let (code, _, error) = output(rejoinder(&[&command[..], &["--admin", &nobody]].concat())).await;
        assert_eq!(code, Some(1));
        assert!(error.contains("rejoinder serve"), "{error}");
    }
}

/// Answers each request of a connection of its own with these bytes, and closes it; the targets that were asked for.
async fn answering(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut targets = Vec::new();
        for answer in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            targets.push(request.split(' ').nth(1).unwrap().to_owned());
            // Longer than what comes, where it breaks off.
            let length = if answer.contains("\"end\"") { answer.len() } else { answer.len() + 1 };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n"
            );
            connection.write_all((head + &answer).as_bytes()).await.unwrap();
            connection.shutdown().await.unwrap();
        }
        targets
    });
    (url, task)
}

#[tokio::test]
async fn an_export_that_breaks_off_goes_on_where_it_was() {
    let lines = [0, 1, 2].map(|number| entry(number, 10).to_string() + "\n");
    let line = |number: usize| lines[number].clone();
    let mark =
        |cursor: &str, unreadable| json!({"cursor": cursor, "unreadable": unreadable}).to_string() + "\n";
    let cut = line(2).split_at(20).0.to_owned();
    let (url, asked) = answering(vec![
        header() + &line(0) + &mark("a/1", 1) + &line(1) + &cut,
        header() + &line(1) + &mark("b", 0),
        header() + &line(2) + &end(1),
    ])
    .await;
    let (_folder, file) = place("entries.jsonl");
    let (code, text, error) = output(rejoinder(&["export", &file, "--json", "--admin", &url])).await;
    assert_eq!(code, Some(3), "{error}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["entries"], &report["unreadable"]), (&json!(3), &json!(1)));
    assert!(error.contains("broke off after 1 entries and goes on"), "{error}");
    assert_eq!(asked.await.unwrap(), ["/export", "/export?cursor=a%2F1", "/export?cursor=b"]);
    let written = fs::read_to_string(&file).unwrap();
    let last = json!({"end": {"entries": 3, "unreadable": 1}}).to_string();
    assert_eq!(written, header() + &line(0) + &line(1) + &line(2) + &last + "\n");
    let upstream = upstream().await;
    let target = proxy_with(&upstream, with_secret).await;
    json_of(&["import", &file], &target, 0).await;
    assert_eq!(count(&target).await, 3);
}

#[tokio::test]
async fn an_export_does_not_become_one_of_two_secrets() {
    let other = header().replace("\"check\":\"", "\"check\":\"f");
    let mark = json!({"cursor": "a"}).to_string() + "\n";
    let (url, _) = answering(vec![header() + &mark, other + &end(0)]).await;
    let (folder, file) = place("entries.jsonl");
    let (code, _, error) = output(rejoinder(&["export", &file, "--admin", &url])).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("the proxy's secret is another now"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no half a file");
}
