//! What was observed of an entry stays with it, and goes with it.

use super::durability::on_disk;
use super::evidence::Observation;
use super::*;

fn observation(id: u32, same: bool) -> Observation {
    Observation { id, score: 0.9, same }
}

async fn observed(store: &Store, number: u64) -> Vec<u32> {
    let evidence = store.evidence(&key(number), entry(number).created_at).await.unwrap();
    evidence.observations().iter().map(|observation| observation.id).collect()
}

fn note(store: &Store, number: u64, id: u32) {
    store.note_evidence(&key(number), entry(number).created_at, observation(id, true));
}

#[tokio::test]
async fn evidence_stays_when_the_embedding_comes_and_goes_when_the_entry_is_replaced() {
    let store = memory_only();
    note(&store, 1, 1);
    assert!(observed(&store, 1).await.is_empty(), "there is no such entry");
    let stored = store.put(entry(1), None).await.unwrap();
    note(&store, 1, 2);
    let embedding = Random(1).direction(16);
    assert!(store.place(&stored, placed(partition(1), embedding)).await.unwrap());
    note(&store, 1, 3);
    note(&store, 1, 3);
    assert_eq!(observed(&store, 1).await, [2, 3]);
    let newer = Entry { created_at: entry(1).created_at + Duration::from_millis(1), ..entry(1) };
    store.put(newer.clone(), None).await.unwrap();
    note(&store, 1, 4);
    assert!(observed(&store, 1).await.is_empty(), "that was another's");
    assert!(store.evidence(&key(1), newer.created_at).await.unwrap().is_empty());
}

#[tokio::test]
async fn evidence_survives_a_restart_with_its_entry_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&on_disk(folder.path())).unwrap();
    for number in 0..3 {
        store.put(entry(number), None).await.unwrap();
        for id in 0..5 {
            note(&store, number, id);
        }
    }
    store.put(entry(2), None).await.unwrap();
    assert!(store.remove(&key(1).id()).await.unwrap());
    store.close().await.unwrap();
    drop(store);
    let store = Store::open(&on_disk(folder.path())).unwrap();
    assert_eq!(observed(&store, 0).await, [0, 1, 2, 3, 4]);
    assert!(observed(&store, 1).await.is_empty());
    assert!(observed(&store, 2).await.is_empty());
    assert_eq!((store.usage().entries, store.usage().corrupt_skipped), (2, 0));
}

#[tokio::test]
async fn that_very_entry_is_poisoned_and_none_that_left() {
    let store = memory_only();
    let sound = Entry { poisoned: false, ..entry(1) };
    let poison = async |entry: &Entry| store.poison(&entry.key, entry.created_at, None).await.unwrap();
    let poisoned = async || store.get(&key(1)).await.unwrap().map(|entry| entry.poisoned);
    assert!(!poison(&sound).await, "there is no such entry");
    assert_eq!(poisoned().await, None, "nor does one come about");
    store.put(sound.clone(), None).await.unwrap();
    assert!(poison(&sound).await);
    assert_eq!(poisoned().await, Some(true));
    assert!(!poison(&sound).await, "it is already");
    let newer = Entry { created_at: sound.created_at + Duration::from_millis(1), ..sound.clone() };
    store.put(newer, None).await.unwrap();
    assert!(!poison(&sound).await, "that was another's");
    assert_eq!(poisoned().await, Some(false));
}
