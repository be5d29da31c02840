//! Encryption of the copy on disk: what the file shows, and what becomes of entries when keys come and go.

use std::path::Path;

use super::durability::on_disk;
use super::*;
use crate::store::encryption::tests::keys as made;

/// A store on this folder with these keys.
fn open(path: &Path, keys: &[u8]) -> Store {
    Store::open(&StoreOptions { encryption: made(keys), ..on_disk(path) }).unwrap()
}

/// Whether the database's file shows any of this.
fn shows(path: &Path, texts: &[&str]) -> bool {
    let file = std::fs::read(path.join("entries.redb")).unwrap();
    texts.iter().any(|text| memchr::memmem::find(&file, text.as_bytes()).is_some())
}

const CANARIES: [&str; 5] = ["What is number", "It is ", "\"answer\"", "model-", "docs"];

async fn fill(store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        put_placed(store, number, partition(0), &Random(number).direction(16)).await;
    }
}

/// How many of these entries are there, each as it was put, and found by its embedding.
async fn found(store: &Store, numbers: std::ops::Range<u64>) -> usize {
    let mut found = 0;
    for number in numbers {
        let Some(known) = store.get(&key(number)).await.unwrap() else { continue };
        assert_eq!(*known, entry(number));
        let nearest = store.nearest(&partition(0), &Random(number).direction(16), 1).await.unwrap();
        assert_eq!(keys(&nearest), [key(number)]);
        found += 1;
    }
    found
}

#[tokio::test]
async fn a_file_that_is_encrypted_shows_nothing_and_needs_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &[1]);
    fill(&store, 0..20).await;
    store.close().await.unwrap();
    drop(store);
    assert!(!shows(folder.path(), &CANARIES));

    // Without its key nothing is found, and nothing is lost, whatever is stored meanwhile.
    for wrong in [&[][..], &[2]] {
        let store = open(folder.path(), wrong);
        assert_eq!(found(&store, 0..20).await, 0);
        let usage = store.usage();
        assert_eq!((usage.entries, usage.corrupt_skipped, usage.undecryptable), (0, 0, 20));
        assert!(matches!(store.state(), StoreState::Degraded(reason) if reason.starts_with("20 entries")));
        store.close().await.unwrap();
    }
    let store = open(folder.path(), &[1]);
    assert_eq!(found(&store, 0..20).await, 20);
    assert_eq!((store.state(), store.usage().undecryptable), (StoreState::Ok, 0));
}

#[tokio::test]
async fn what_was_in_plain_or_under_an_older_key_is_encrypted_anew_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &[]);
    fill(&store, 0..20).await;
    store.close().await.unwrap();
    drop(store);
    assert!(shows(folder.path(), &CANARIES[..1]), "the file shows what is stored in plain");

    // Switched on, then rotated: the older key is needed no more after the start that knew both.
    for (before, keys) in [(20, &[1][..]), (21, &[2, 1]), (22, &[2])] {
        let store = open(folder.path(), keys);
        assert_eq!(found(&store, 0..before).await, usize::try_from(before).unwrap(), "{keys:?}");
        fill(&store, before..before + 1).await;
        store.close().await.unwrap();
        drop(store);
        assert!(!shows(folder.path(), &CANARIES), "{keys:?}");
    }
}

#[tokio::test]
async fn a_purge_of_all_takes_what_cannot_be_read_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &[1]);
    fill(&store, 0..20).await;
    store.close().await.unwrap();
    drop(store);
    let store = open(folder.path(), &[2]);
    fill(&store, 30..31).await;
    assert_eq!(store.count(&Selector::All).await.unwrap(), 21);
    assert_eq!(store.purge(&Selector::All).await.unwrap(), 21);
    assert_eq!(store.state(), StoreState::Ok);
    store.close().await.unwrap();
    drop(store);
    assert_eq!(found(&open(folder.path(), &[1, 2]), 0..31).await, 0);
}
