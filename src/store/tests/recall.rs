//! Large partitions: clusters find what a whole scan would.

use super::*;

fn clustered(scan_limit: usize) -> Store {
    Store::open(&StoreOptions { scan_limit, ..StoreOptions::default() }).unwrap()
}

/// Rows about centres that share a common part, as sentences of one subject do.
fn sentences(random: &mut Random, count: usize, per_centre: usize) -> Vec<Embedding> {
    let common = random.direction(96);
    let centres: Vec<_> = (0..count / per_centre).map(|_| random.near(&common, 2.0)).collect();
    (0..count).map(|number| random.near(&centres[number % centres.len()], 0.7)).collect()
}

/// How many of the true nearest ten are found, on average.
async fn recall(
    store: &Store,
    rows: &[Embedding],
    alive: impl Fn(usize) -> bool,
    random: &mut Random,
) -> f32 {
    let queries = 40_u16;
    let mut hits = 0_u16;
    for _ in 0..queries {
        let row = random.below(rows.len());
        let query = random.near(&rows[row], 0.5);
        let mut exact: Vec<_> = rows
            .iter()
            .enumerate()
            .filter(|(number, _)| alive(*number))
            .map(|(number, row)| (query.similarity(row).unwrap().0, key(u64::try_from(number).unwrap())))
            .collect();
        exact.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found: HashSet<_> =
            keys(&store.nearest(&partition(1), &query, 10).await.unwrap()).into_iter().collect();
        assert_eq!(found.len(), 10);
        hits += u16::try_from(exact[..10].iter().filter(|(_, key)| found.contains(key)).count()).unwrap();
    }
    f32::from(hits) / f32::from(queries) / 10.0
}

#[tokio::test]
async fn clusters_find_what_a_whole_scan_finds() {
    let store = clustered(2_000);
    let mut random = Random(7);
    let rows = sentences(&mut random, 20_000, 40);
    for (number, row) in (0..).zip(&rows) {
        put_placed(&store, number, partition(1), row).await;
        if number % 5_000 == 4_999 {
            // What the keeper does when it gets to it.
            inner(&store).index.upkeep(&partition(1));
        }
    }
    let cost = inner(&store).index.search(&partition(1)).unwrap().cost();
    assert!(cost < 5_000, "a search looks at a part: {cost}");
    let found = recall(&store, &rows, |_| true, &mut random).await;
    assert!(found >= 0.95, "recall {found}");
    // A third goes; the rest is still found, and the rows of what went are given back.
    for number in (0..20_000).step_by(3) {
        assert!(store.remove(&key(number).id()).await.unwrap());
    }
    let found = recall(&store, &rows, |number| number % 3 != 0, &mut random).await;
    assert!(found >= 0.95, "recall {found} before the upkeep");
    inner(&store).index.upkeep(&partition(1));
    let found = recall(&store, &rows, |number| number % 3 != 0, &mut random).await;
    assert!(found >= 0.95, "recall {found} after it");
    assert_eq!(store.purge(&Selector::All).await.unwrap(), 20_000 - 6_667);
    assert_eq!(store.usage().partitions, 0);
}

#[tokio::test]
async fn equal_rows_and_outliers_are_clustered_too() {
    let store = clustered(1_000);
    let mut random = Random(8);
    let same = random.direction(16);
    let opposite = Embedding::new(same.values().iter().map(|value| -value).collect()).unwrap();
    for number in 0..4_000 {
        put_placed(&store, number, partition(1), if number == 77 { &opposite } else { &same }).await;
    }
    inner(&store).index.upkeep(&partition(1));
    assert_eq!(keys(&store.nearest(&partition(1), &opposite, 1).await.unwrap()), [key(77)]);
    assert_eq!(store.nearest(&partition(1), &same, 50).await.unwrap().len(), 50);
}

#[tokio::test]
async fn a_model_of_another_dimension_takes_a_large_partition_over() {
    let store = clustered(600);
    let mut random = Random(10);
    for number in 0..1_500 {
        put_placed(&store, number, partition(1), &random.direction(16)).await;
    }
    inner(&store).index.upkeep(&partition(1));
    let newer: Vec<_> = (0..1_500).map(|_| random.direction(32)).collect();
    for (number, row) in (2_000..).zip(&newer) {
        put_placed(&store, number, partition(1), row).await;
    }
    inner(&store).index.upkeep(&partition(1));
    assert_eq!(keys(&store.nearest(&partition(1), &newer[3], 1).await.unwrap()), [key(2_003)]);
    assert!(store.nearest(&partition(1), &random.direction(8), 1).await.unwrap().is_empty());
}

#[test]
fn searches_go_on_while_a_partition_is_put_in_order() {
    let store = clustered(1_000);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut random = Random(11);
    let rows: Vec<_> = (0..6_000).map(|_| random.direction(32)).collect();
    let (done, placed) = (std::sync::atomic::AtomicBool::new(false), AtomicU64::new(0));
    let (done, placed, rows, searching) = (&done, &placed, &rows, &store);
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut random = Random(12);
            while !done.load(Ordering::Acquire) {
                let upto = placed.load(Ordering::Acquire);
                if upto == 0 {
                    continue;
                }
                let number = random.next() % upto;
                let row = &rows[usize::try_from(number).unwrap()];
                let found = runtime.block_on(searching.nearest(&partition(1), row, 1)).unwrap();
                assert_eq!(keys(&found), [key(number)], "of {upto}");
            }
        });
        for (number, row) in (0..).zip(rows) {
            runtime.block_on(put_placed(&store, number, partition(1), row));
            placed.store(number + 1, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
}
