//! The configuration is reloaded while requests are served: what is right comes into force, what is wrong does not, and
//! nobody who is being served notices.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use rejoinder::cache::guard::Leanings;
use rejoinder::config::{Config, Mode, Secret};
use rejoinder::telemetry::ReloadResult;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::serving::{Serving, serve};
use crate::support::{
    Ask, Fault, Gate, PARAPHRASE, Proxy, QUESTION, generating, proxy, proxy_with, semantic_proxy, soon,
    upstream,
};

const APPLIED: &str = "the configuration was reloaded";
const REJECTED: &str = "the configuration was not reloaded; the one before stays in force";
const RESTART: &str =
    "the configuration has changes that need a restart; until then the old values stay in force";

/// A file of a configuration, for a proxy that reads it.
struct Configured {
    folder: TempDir,
}

impl Configured {
    fn new(text: &str) -> Self {
        let configured = Self { folder: tempfile::tempdir().unwrap() };
        configured.write(text);
        configured
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rejoinder.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

/// A running program that reads `path`, and the base URL for its operators.
async fn serving(upstream: &str, path: &Path, environment: &[(&str, &str)]) -> (Serving, String) {
    let mut command = serve(upstream);
    command.arg("--config").arg(path).envs(environment.iter().copied());
    let mut serving = Serving::start(command).await;
    let operators = serving.until("listening for operators").await;
    (serving, format!("http://{}", operators["address"].as_str().unwrap()))
}

async fn config(admin: &str) -> Value {
    Ask::get(&format!("{admin}/config")).send().await.json()
}

/// The value of a metric.
async fn metric(admin: &str, name: &str) -> f64 {
    let metrics = Ask::get(&format!("{admin}/metrics")).send().await;
    let text = metrics.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
}

async fn reloads(admin: &str, result: &str) -> f64 {
    metric(admin, &format!("rejoinder_config_reloads_total{{result=\"{result}\"}}")).await
}

#[tokio::test]
async fn under_load_a_wrong_file_changes_nothing_and_a_right_one_what_it_says() {
    let upstream = upstream().await;
    let file = Configured::new("ttl = \"2h\"\n[log]\nrequests = false\n");
    let (mut serving, admin) = serving(&upstream.url(), &file.path(), &[]).await;
    let before = config(&admin).await;
    assert_eq!((&before["config"]["ttl"], &before["last_error"]), (&json!("2h"), &Value::Null));

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (stop, address) = (Arc::clone(&stop), serving.clients);
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Hits, misses, and those that wait for one another's.
                    let prompt = format!("question {}", (asked / 4) % 50 + client % 2);
                    let (path, body) = generating(&prompt).swap_remove(asked % 6);
                    let reply = Ask::post(&format!("http://{address}{path}"), &body).send().await;
                    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
                    asked += 1;
                }
                asked
            })
        })
        .collect();

    for (text, line, key, reason) in [
        ("ttl = \"5m\"\n[limits]\nmax_entry_bytes = \"canary\"\n", 3, "max_entry_bytes", "is no size"),
        ("ttl = \"5m\"\nmax_error = 7\n", 2, "max_error", "not between"),
        ("ttl = \"5m\"\n\n[ask]\npath = \"/nowhere\"\n", 4, "ask.path", "is none of"),
        ("ttl = \"5m\"\nlistn = 5\n", 2, "listn", "unknown field"),
    ] {
        file.write(text);
        let said = serving.until(REJECTED).await;
        assert_eq!((said["level"].as_str(), said["line"].as_u64()), (Some("ERROR"), Some(line)), "{said}");
        assert_eq!((&said["key"], &said["file"]), (&json!(key), &json!(file.path())), "{said}");
        assert!(said["reason"].as_str().unwrap().contains(reason), "{said}");
        let now = config(&admin).await;
        assert_eq!(now["config"], before["config"], "the one before stays");
        assert_eq!(now["last_error"]["key"], key, "{now}");
        assert_eq!(now["loaded_at"], before["loaded_at"]);
        assert!(reloads(&admin, "applied").await < 0.5);
    }
    assert!((reloads(&admin, "rejected").await - 4.0).abs() < 0.5);
    assert!(metric(&admin, "rejoinder_config_last_reload_successful ").await < 0.5);

    let hash = metric(&admin, "rejoinder_config_hash ").await;
    file.write("ttl = \"5m\"\n[log]\nrequests = false\n[limits]\nmax_bytes = \"1GiB\"\n");
    assert_eq!(serving.until(RESTART).await["keys"], "limits.max_bytes");
    assert_eq!(serving.until(APPLIED).await["changed"], "ttl");
    let now = config(&admin).await;
    assert_eq!((&now["config"]["ttl"], &now["last_error"]), (&json!("5m"), &Value::Null), "{now}");
    assert_eq!(now["config"]["limits"], before["config"]["limits"], "what cannot change has not");
    assert_eq!(
        (&now["needs_restart"], &now["origins"]["ttl"]),
        (&json!(["limits.max_bytes"]), &json!("file"))
    );
    assert!((reloads(&admin, "applied").await - 1.0).abs() < 0.5);
    assert!(metric(&admin, "rejoinder_config_last_reload_successful ").await > 0.5);
    assert!((metric(&admin, "rejoinder_config_hash ").await - hash).abs() > 0.5);

    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(soon(client).await.unwrap() > 0);
    }
    let (path, body) = generating("a question of its own").remove(0);
    let url = format!("http://{}{path}", serving.clients);
    assert_eq!(Ask::post(&url, &body).send().await.status, StatusCode::OK);
    let hit = Ask::post(&url, &body).send().await;
    assert_eq!(hit.layer(), Some("exact"));
    let ttl = hit.cache_status().split("ttl=").nth(1).unwrap().split(';').next().unwrap();
    assert!(ttl.parse::<u64>().unwrap() <= 300, "{ttl}");
    serving.signal("TERM").await;
    let (code, log) = serving.end().await;
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn sighup_reads_again_and_flags_and_environment_still_win() {
    let upstream = upstream().await;
    let file = Configured::new("[admin]\ntoken = \"canary-one\"\n");
    let environment = [("REJOINDER_TTL", "3h"), ("REJOINDER_SECRET", "canary-secret")];
    let (mut serving, admin) = serving(&upstream.url(), &file.path(), &environment).await;
    let asked = async |token: &str| {
        let ask = Ask::get(&format!("{admin}/config")).header("authorization", &format!("Bearer {token}"));
        ask.send().await
    };
    serving.signal("HUP").await;
    serving.until("SIGHUP: the configuration is read again").await;

    // Over flag and environment the file has no power; what is logged, and who may ask, it changes.
    file.write(
        "ttl = \"1s\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://127.0.0.1:9\"\n\
         [admin]\ntoken = \"canary-two\"\n[log]\nfilter = \"rejoinder=debug\"\n",
    );
    serving.signal("HUP").await;
    assert_eq!(serving.until(APPLIED).await["changed"], "admin.token, log.filter");
    assert_eq!(asked("canary-one").await.status, StatusCode::UNAUTHORIZED);
    let reply = asked("canary-two").await;
    assert!(!reply.text().contains("canary"), "{}", reply.text());
    let report = reply.json();
    assert_eq!(
        (&report["config"]["admin"]["token"], &report["config"]["secret"]),
        (&json!("***"), &json!("***"))
    );
    assert_eq!((&report["config"]["ttl"], &report["needs_restart"]), (&json!("3h"), &json!([])), "{report}");
    assert_eq!(report["file"], json!(file.path()));
    for (key, origin) in [
        ("listen", "flag"),
        ("upstream", "flag"),
        ("ttl", "environment"),
        ("secret", "environment"),
        ("admin.token", "file"),
        ("log.filter", "file"),
        ("limits.max_bytes", "default"),
        ("cache.min_confidence", ""),
    ] {
        assert_eq!(report["origins"][key].as_str().unwrap_or_default(), origin, "{key}");
    }
    // A debug line, which the first configuration did not log. It is said once the filter is in force.
    serving.signal("HUP").await;
    serving.until("the configuration was read again; nothing that can change has").await;

    // Empty is what a file is while it is written, or when the disk is full; gone, while it is replaced.
    file.write("");
    assert!(serving.until(REJECTED).await["reason"].as_str().unwrap().contains("is empty"));
    std::fs::remove_file(file.path()).unwrap();
    assert!(serving.until(REJECTED).await["reason"].as_str().unwrap().contains("cannot read"));
    assert_eq!(asked("canary-two").await.json()["config"], report["config"]);
    // The last token stays needed for who would take it out while others can reach the listener; here nobody can.
    file.write("# nothing\n");
    assert_eq!(serving.until(APPLIED).await["changed"], "admin.token, log.filter");
    assert_eq!(config(&admin).await["config"]["ttl"], "3h");
    serving.signal("TERM").await;
    let (code, log) = serving.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

/// As Kubernetes replaces a `ConfigMap`: the file is a link into a folder that is a link, which is replaced in one step.
/// And as editors do: another file takes the name. And a secret of its own.
#[cfg(unix)]
#[tokio::test]
async fn links_renamed_files_and_files_of_secrets_are_seen_to_change() {
    use std::os::unix::fs::symlink;
    let upstream = upstream().await;
    let file = Configured::new("");
    let folder = file.folder.path();
    std::fs::remove_file(file.path()).unwrap();
    let version = |name: &str, text: &str| {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("rejoinder.toml"), text).unwrap();
        symlink(name, folder.join("..next")).unwrap();
        std::fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
    };
    version("..1", "ttl = \"1h\"\n");
    symlink("..data/rejoinder.toml", file.path()).unwrap();
    let token = folder.join("token");
    std::fs::write(&token, "canary\n").unwrap();
    let environment = [("REJOINDER_ADMIN_TOKEN_FILE", token.to_str().unwrap())];
    let (mut serving, admin) = serving(&upstream.url(), &file.path(), &environment).await;

    version("..2", "ttl = \"2h\"\n");
    assert_eq!(serving.until(APPLIED).await["changed"], "ttl");
    std::fs::write(folder.join("new"), "mode = \"observe\"\nttl = \"2h\"\n").unwrap();
    std::fs::rename(folder.join("new"), file.path()).unwrap();
    assert_eq!(serving.until(APPLIED).await["changed"], "mode");
    std::fs::write(&token, "another\n").unwrap();
    assert_eq!(serving.until(APPLIED).await["changed"], "admin.token");
    let ask = Ask::get(&format!("{admin}/config")).header("authorization", "Bearer another").send().await;
    assert_eq!(ask.json()["config"]["mode"], "observe");
}

const CHAT: &str = "/v1/chat/completions";

async fn layer(proxy: &Proxy, prompt: &str) -> Option<String> {
    let (path, body) = generating(prompt).remove(0);
    proxy.post(path, &body).send().await.layer().map(str::to_owned)
}

#[tokio::test]
async fn the_threshold_and_the_rules_of_the_next_request_are_the_new_ones() {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    assert_eq!(layer(&proxy, QUESTION).await, None);
    assert_eq!(layer(&proxy, PARAPHRASE).await.as_deref(), Some("semantic"));
    let raised = proxy.reload(|config| config.similarity_threshold = 0.9999).await;
    assert_eq!(raised, ReloadResult::Applied);
    let (path, body) = generating(PARAPHRASE).remove(0);
    let miss = proxy.post(path, &body).header("cache-control", "max-age=3600, only-if-cached").send().await;
    assert_eq!(miss.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(miss.cache_status().contains("below-threshold"), "{}", miss.cache_status());
    assert_eq!(layer(&proxy, QUESTION).await.as_deref(), Some("exact"), "what is stored stays");
    assert_eq!(proxy.reload(|config| config.similarity_threshold = 0.7).await, ReloadResult::Applied);
    assert_eq!(proxy.reload(|_| {}).await, ReloadResult::Unchanged);
    assert_eq!(layer(&proxy, PARAPHRASE).await.as_deref(), Some("semantic"));
    // Nothing but a scope of another header is the same question no more.
    let name = "x-tenant".parse().unwrap();
    proxy.reload(|config| config.cache.scope_headers = vec![name]).await;
    let tenant = proxy.post(path, &body).header("x-tenant", "a").send().await;
    assert_eq!(tenant.layer(), None);
}

#[tokio::test]
async fn the_mode_changes_and_changes_back() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    assert_eq!(layer(&proxy, QUESTION).await, None);
    assert_eq!(layer(&proxy, QUESTION).await.as_deref(), Some("exact"));
    assert_eq!(proxy.reload(|config| config.mode = Mode::Observe).await, ReloadResult::Applied);
    assert_eq!(layer(&proxy, QUESTION).await, None, "nothing is served");
    let observed = Ask::get(&format!("{}/observations", proxy.admin_url())).send().await.json();
    assert_eq!(observed["mode"], "observe", "{observed}");
    assert_eq!(proxy.reload(|config| config.mode = Mode::Verified).await, ReloadResult::Applied);
    assert_eq!(Ask::get(&format!("{}/verified", proxy.admin_url())).send().await.json()["active"], true);
    assert_eq!(layer(&proxy, QUESTION).await.as_deref(), Some("exact"));
    assert_eq!(proxy.reload(|config| config.mode = Mode::Reuse).await, ReloadResult::Applied);
    assert_eq!(layer(&proxy, QUESTION).await.as_deref(), Some("exact"));
}

/// Who is being served is served to the end as it began, and others may still wait for that reply.
#[tokio::test]
async fn a_request_under_way_ends_where_it_began_and_the_next_goes_to_the_new_upstream() {
    let (old, new) = (upstream().await, upstream().await);
    let proxy = proxy(&old).await;
    let gate = Gate::new();
    old.set_fault(Fault::none().gate(&gate));
    let (path, body) = generating(QUESTION).remove(0);
    let open = tokio::spawn(proxy.post(path, &body).send());
    soon(gate.until_waiting(1)).await;
    let url: http::Uri = new.url().parse().unwrap();
    assert_eq!(proxy.reload(|config| config.upstream = url.into()).await, ReloadResult::Applied);
    assert_eq!(layer(&proxy, QUESTION).await, None);
    assert_eq!((old.count(), new.count()), (1, 1));
    gate.open();
    assert_eq!(soon(open).await.unwrap().status, StatusCode::OK);
    // Each stored under its own upstream.
    let asked = json!({"path": path, "body": body});
    let explained = Ask::post(&format!("{}/explain", proxy.admin_url()), &asked).send().await.json();
    assert_eq!(explained["layers"][0]["decision"], "hit", "explained by what is in force: {explained}");
    assert_eq!(layer(&proxy, QUESTION).await.as_deref(), Some("exact"));
    assert_eq!((old.count(), new.count()), (1, 1));
}

/// Right by itself, wrong with what cannot change: others can reach the listener until a restart.
#[tokio::test]
async fn a_token_cannot_be_taken_from_a_listener_that_others_can_reach() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.admin_listen = "0.0.0.0:0".parse().unwrap();
        config.admin.token = Some(Secret::new("canary".to_owned()));
    })
    .await;
    let taken = proxy
        .reload(|config| {
            config.admin_listen = "127.0.0.1:0".parse().unwrap();
            config.admin.token = None;
        })
        .await;
    assert_eq!(taken, ReloadResult::Rejected);
    let url = format!("http://127.0.0.1:{}/config", proxy.admin_address().port());
    assert_eq!(Ask::get(&url).send().await.status, StatusCode::UNAUTHORIZED);
    let report = Ask::get(&url).header("authorization", "Bearer canary").send().await.json();
    assert_eq!(report["last_error"]["key"], "admin_listen", "{report}");
}

#[tokio::test]
async fn limits_and_timeouts_of_the_next_request_are_the_new_ones() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let changed = proxy
        .reload(|config| {
            config.limits.max_request_bytes.0 = 10;
            config.timeouts.first_byte = Duration::from_millis(1);
        })
        .await;
    assert_eq!(changed, ReloadResult::Applied);
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    let late = proxy.post(CHAT, &json!({"model": "llama3.2", "messages": []})).send().await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(late.cache_status().contains("bypass"), "{}", late.cache_status());
    gate.open();
}

/// What a request was read as is remembered; where it goes, and what the rules say of it, are those in force.
#[tokio::test]
async fn requests_that_were_asked_before_follow_the_new_limits_and_rules() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| config.cache.exact_only = Leanings::NONE).await;
    let mut asked = generating("What is the latest news of the day?").into_iter();
    let ((path, body), (other_path, other)) = (asked.next().unwrap(), asked.next().unwrap());
    // Asked, and nothing is stored of it.
    upstream.set_fault(Fault::status(StatusCode::BAD_REQUEST));
    proxy.post(path, &body).send().await;
    proxy.post(other_path, &other).send().await;
    upstream.set_fault(Fault::none());
    let change = |config: &mut Config| {
        config.cache.exact_only = Leanings::ALL;
        config.timeouts.first_byte = Duration::from_millis(300);
    };
    assert_eq!(proxy.reload(change).await, ReloadResult::Applied);
    assert!(proxy.post(path, &body).send().await.cache_status().contains("stored"));
    let entries = Ask::get(&format!("{}/entries", proxy.admin_url())).send().await.json();
    assert_eq!(entries["entries"][0]["ttl_s"], 300, "{entries}");
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate(&gate));
    assert_eq!(soon(proxy.post(other_path, &other).send()).await.status, StatusCode::GATEWAY_TIMEOUT);
    gate.open();
}
