//! `--data-dir`: what was stored survives a restart, is found by its key and by its meaning, and stays its owner's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use rejoinder::config::{EmbedderKind, Secret};
use rejoinder::simulated::Simulated;

use crate::support::{Proxy, proxy_with, upstream};

async fn start(upstream: &Simulated, folder: &Path) -> Proxy {
    proxy_with(upstream, |config| {
        config.data_dir = Some(folder.to_owned());
        config.embedder = EmbedderKind::Builtin;
    })
    .await
}

fn chat(prompt: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": prompt}]})
}

const PATH: &str = "/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let first = start(&upstream, folder.path()).await;
    let question = chat("How do I reverse a list in Python?");
    let fresh = first.post(PATH, &question).send().await;
    assert_eq!(fresh.layer(), None);
    // Answered by meaning, so that the embedding is known to be in the index before the restart.
    let paraphrase = chat("What is the way to reverse a Python list?");
    assert_eq!(first.post(PATH, &paraphrase).send().await.layer(), Some("semantic"));
    first.shutdown().await;

    let second = start(&upstream, folder.path()).await;
    let exact = second.post(PATH, &question).send().await;
    assert_eq!(exact.layer(), Some("exact"));
    assert_eq!(crate::support::text_of(&exact.json()), crate::support::text_of(&fresh.json()));
    assert_eq!(second.post(PATH, &paraphrase).send().await.layer(), Some("semantic"));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_credentials_must_be_accepted_anew() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let first = start(&upstream, folder.path()).await;
    let ask =
        |proxy: &Proxy| proxy.post(PATH, &chat("What is a monad?")).header("authorization", "Bearer key");
    ask(&first).send().await;
    assert_eq!(ask(&first).send().await.layer(), Some("exact"));
    first.shutdown().await;

    // The key may have been revoked meanwhile: only upstream can tell.
    let second = start(&upstream, folder.path()).await;
    let reply = ask(&second).send().await;
    assert_eq!(reply.cache_status(), "rejoinder; fwd=miss; stored; detail=credential-unverified");
    assert_eq!(ask(&second).send().await.layer(), Some("exact"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_stays_away_and_files_are_the_owners_alone() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let first = start(&upstream, folder.path()).await;
    first.post(PATH, &chat("What is a monad?")).send().await;
    let purge = crate::support::Ask::post(&format!("{}/purge", first.admin_url()), &json!({"all": true}))
        .send()
        .await;
    assert_eq!(purge.json(), json!({"purged": 1}));
    first.shutdown().await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", file.path().display());
    }
    let second = start(&upstream, folder.path()).await;
    assert_eq!(second.post(PATH, &chat("What is a monad?")).send().await.layer(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_data_directory_shows_nothing_and_is_found_again() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let start = async |key: Option<&str>| {
        proxy_with(&upstream, |config| {
            config.data_dir = Some(folder.path().to_owned());
            config.encryption_key = key.map(|key| Secret::new(key.to_owned()));
        })
        .await
    };
    let ask = |proxy: &Proxy| {
        let body = json!({"model": "gpt-okapi", "messages": [{"role": "user", "content": "Of zanzibar?"}]});
        proxy
            .post(PATH, &body)
            .header("authorization", "Bearer sk-very-secret")
            .header("x-rejoinder-namespace", "walrus")
            .header("cache-control", "max-age=3600")
    };
    let shows = |canary: &str| {
        std::fs::read_dir(folder.path()).unwrap().any(|file| {
            let content = std::fs::read(file.unwrap().path()).unwrap();
            memchr::memmem::find(&content, canary.as_bytes()).is_some()
        })
    };
    let plain = start(None).await;
    upstream.fault_next(crate::support::saying("It is an island of cloves."));
    ask(&plain).send().await;
    plain.shutdown().await;
    let canaries = ["zanzibar", "cloves", "gpt-okapi", "walrus"];
    assert!(canaries.into_iter().all(shows), "the files show what is stored in plain");

    // Switched on, what is there is encrypted when the process ends, and not stored twice.
    let key = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
    start(Some(key)).await.shutdown().await;
    assert!(!canaries.into_iter().any(shows) && !shows("sk-very-secret"));
    let again = start(Some(key)).await;
    let entries =
        crate::support::Ask::get(&format!("{}/entries", again.admin_url())).send().await.text().to_owned();
    assert!(entries.contains("zanzibar"), "{entries}");
    again.shutdown().await;

    let wrong = start(Some(&key.replace('0', "1"))).await;
    let ready = crate::support::Ask::get(&format!("{}/readyz", wrong.admin_url())).send().await;
    assert_eq!((ready.status.as_u16(), &ready.json()["store"]), (200, &json!("degraded")));
    assert_eq!(ask(&wrong).send().await.layer(), None);
}
