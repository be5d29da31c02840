//! The bounds hold, what is used stays, and memory, index and table agree whatever is done.

use proptest::prelude::*;

use super::*;

fn bounded(max_bytes: u64, max_entries: u64) -> Store {
    Store::open(&StoreOptions { max_bytes, max_entries, ..StoreOptions::default() }).unwrap()
}

/// Every entry is where it should be, and nothing else is anywhere.
async fn check(store: &Store, partitions: u64) {
    let usage = store.usage();
    assert!(usage.bytes <= usage.max_bytes);
    let slots: Vec<_> = inner(store).memory.iter().collect();
    assert_eq!(u64::try_from(slots.len()).unwrap(), usage.entries);
    assert!(slots.iter().all(|slot| !slot.is_gone()));
    let mut rows = Vec::new();
    inner(store).index.for_each_row(|slot, _| rows.push(slot));
    rows.retain(|slot| slot.is_in(&slot.home.unwrap()));
    for home in (0..partitions).map(partition) {
        let expected: HashSet<_> =
            slots.iter().filter(|slot| slot.home == Some(home)).map(|slot| slot.entry.key).collect();
        let indexed: Vec<_> =
            rows.iter().filter(|slot| slot.home == Some(home)).map(|slot| slot.entry.key).collect();
        assert_eq!(indexed.len(), expected.len());
        assert_eq!(indexed.into_iter().collect::<HashSet<_>>(), expected);
        assert_eq!(inner(store).index.len(&home), expected.len());
        assert_eq!(store.is_empty_partition(&home).await.unwrap(), expected.is_empty());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u64, usize),
    Place(u64, u64),
    Get(u64),
    Remove(u64),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0_u64..60;
    prop_oneof![
        6 => (number.clone(), 0_usize..60_000).prop_map(|(number, size)| Step::Put(number, size)),
        6 => (number.clone(), 0_u64..4).prop_map(|(number, home)| Step::Place(number, home)),
        3 => number.clone().prop_map(Step::Get),
        2 => number.prop_map(Step::Remove),
        1 => Just(Step::Purge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn memory_index_and_bounds_agree_whatever_is_done(
        max_entries in 1_u64..50,
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = bounded(StoreOptions::LEAST_BYTES, max_entries);
            let direction = Random(9).direction(32);
            for step in steps {
                match step {
                    Step::Put(number, size) => {
                        let stored = store.put(sized(number, size), None).await.unwrap();
                        assert_eq!(store.get(&key(number)).await.unwrap().as_ref(), Some(&stored));
                    }
                    Step::Place(number, home) => {
                        let known = store.get(&key(number)).await.unwrap();
                        let placed = placed(partition(home), direction.clone());
                        let done = store.place(&Arc::new(super::entry(number)), placed).await;
                        // A row may be what makes its entry too much, but never one that is not there fit in.
                        assert!(known.is_some() || !done.unwrap());
                    }
                    Step::Get(number) => {
                        if let Some(found) = store.get(&key(number)).await.unwrap() {
                            assert_eq!(found.key, key(number));
                        }
                    }
                    Step::Remove(number) => {
                        let known = store.get(&key(number)).await.unwrap().is_some();
                        assert_eq!(store.remove(&key(number).id()).await.unwrap(), known);
                    }
                    Step::Purge => {
                        let before = store.usage().entries;
                        assert_eq!(store.purge(&Selector::All).await.unwrap(), before);
                    }
                }
                assert!(store.usage().entries <= max_entries);
            }
            check(&store, 4).await;
        });
    }
}

#[tokio::test]
async fn entries_and_bytes_stay_within_bounds() {
    let store = bounded(4 << 20, 100);
    let mut random = Random(6);
    for number in 0..1000 {
        put_placed(&store, number, partition(number % 3), &random.direction(384)).await;
        assert!(store.usage().entries <= 100);
    }
    let usage = store.usage();
    assert!(usage.entries > 80, "the room is used: {usage:?}");
    assert_eq!(usage.evicted, 1000 - usage.entries);
    check(&store, 3).await;
    let store = bounded(1 << 20, 1_000_000);
    for number in 0..5000 {
        put_placed(&store, number, partition(number % 3), &random.direction(384)).await;
    }
    let usage = store.usage();
    assert!(usage.bytes <= 1 << 20 && usage.bytes > 900_000, "{usage:?}");
    check(&store, 3).await;
}

#[tokio::test]
async fn what_is_used_outlives_what_is_not() {
    let store = bounded(1 << 20, 100);
    for number in 0..10 {
        store.put(entry(number), None).await.unwrap();
    }
    for number in 10..2000 {
        store.put(entry(number), None).await.unwrap();
        for used in 0..10 {
            store.record_hit(&key(used));
        }
    }
    for used in 0..10 {
        assert!(store.get(&key(used)).await.unwrap().is_some(), "{used}");
    }
}

#[tokio::test]
async fn an_entry_too_large_is_refused_with_its_size() {
    let store = bounded(1 << 20, 100);
    let large = sized(1, 2 << 20);
    assert!(
        matches!(store.put(large, None).await, Err(StoreError::TooLarge { bytes, .. }) if bytes > 2 << 20)
    );
    assert_eq!(store.usage().entries, 0);
    let usual = Store::open(&StoreOptions::default()).unwrap();
    usual.put(sized(1, 4 << 20), None).await.unwrap();
    assert!(usual.get(&key(1)).await.unwrap().is_some());
}

#[test]
fn many_threads_leave_everything_in_agreement() {
    let store = bounded(4 << 20, 200);
    std::thread::scope(|threads| {
        for thread in 0..4_u64 {
            let store = store.clone();
            threads.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    let mut random = Random(thread);
                    for _ in 0..3000 {
                        let number = u64::try_from(random.below(400)).unwrap();
                        let home = partition(number % 5);
                        match random.below(8) {
                            0..4 => {
                                let entry = store.put(entry(number), None).await.unwrap();
                                let placed = placed(home, random.direction(16));
                                store.place(&entry, placed).await.unwrap();
                            }
                            4 => {
                                store.remove(&key(number).id()).await.unwrap();
                            }
                            5 => {
                                for found in store.nearest(&home, &random.direction(16), 10).await.unwrap() {
                                    let bytes: [u8; 8] =
                                        found.entry.cost().usage.unwrap().input.to_le_bytes();
                                    assert_eq!(partition(u64::from_le_bytes(bytes) % 5), home);
                                }
                            }
                            _ => {
                                if let Some(found) = store.get(&key(number)).await.unwrap() {
                                    assert_eq!(*found, super::entry(number));
                                }
                            }
                        }
                    }
                });
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(check(&store, 5));
}
