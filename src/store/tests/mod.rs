//! The store as its callers see it.

mod bounds;
mod damage;
mod durability;
mod encryption;
mod evidence;
mod recall;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::content::{Content, Cost, Exchange};
use super::entry::Scope;
use super::*;
use crate::dialect::{Endpoint, Usage};
use crate::embed::Similarity;

/// Random numbers of a seed (`SplitMix64`, Steele and others, 2014): the same in each run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// Between minus one and one.
    pub(super) fn component(&mut self) -> f32 {
        f32::from(u16::try_from(self.next() >> 48).unwrap()) / 32768.0 - 1.0
    }

    pub(super) fn direction(&mut self, dimension: usize) -> Embedding {
        Embedding::new((0..dimension).map(|_| self.component()).collect()).unwrap()
    }

    /// A direction near another: cosine about `1 / √(1 + spread²)`.
    pub(super) fn near(&mut self, centre: &Embedding, spread: f32) -> Embedding {
        let other = self.direction(centre.values().len());
        let mixed = centre.values().iter().zip(other.values()).map(|(a, b)| a + spread * b).collect();
        Embedding::new(mixed).unwrap()
    }
}

/// What is behind the embedded store's handle.
pub(super) fn inner(store: &Store) -> &super::embedded::Inner {
    match store {
        Store::Embedded(store) => store.inner(),
        Store::Redis(_) => panic!("this is not the embedded store"),
    }
}

pub(super) fn key(number: u64) -> Key {
    Key(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

pub(super) fn partition(number: u64) -> Partition {
    Partition(*blake3::hash(&[&b"partition"[..], &number.to_le_bytes()].concat()).as_bytes())
}

/// An entry whose content follows from its number.
pub(crate) fn entry(number: u64) -> Entry {
    Entry {
        key: key(number),
        scope: Scope([7; 32]),
        endpoint: Endpoint::OpenAiChat,
        content: Content::new(&Exchange {
            model: &format!("model-{}", number % 3),
            namespace: if number.is_multiple_of(2) { "" } else { "docs" },
            prompt: &format!("What is number {number}? Größe"),
            document: format!("{{\"answer\": {number}, \"pad\": \"{}\"}}", "x".repeat(200)).as_bytes(),
            cost: Cost {
                usage: Some(Usage { input: number, output: 2, ..Usage::default() }),
                took: Some(Duration::from_millis(number)),
            },
        }),
        tool_calls: false,
        created_at: UNIX_EPOCH + Duration::from_secs(4_000_000_000) + Duration::from_millis(number),
        ttl: Duration::from_hours(1),
        poisoned: number.is_multiple_of(5),
    }
}

/// An entry with other content.
pub(super) fn altered(entry: &Entry, alter: impl FnOnce(&mut Exchange<'_>)) -> Entry {
    let document = entry.document();
    let mut exchange = Exchange {
        model: entry.model(),
        namespace: entry.namespace(),
        prompt: entry.prompt(),
        document: &document,
        cost: entry.cost(),
    };
    alter(&mut exchange);
    Entry { content: Content::new(&exchange), ..entry.clone() }
}

/// An entry whose document has so many bytes, which no compression makes less.
pub(super) fn sized(number: u64, bytes: usize) -> Entry {
    let mut random = Random(number);
    let document: Vec<u8> =
        std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(bytes).collect();
    Entry { content: Content::new(&Exchange { document: &document, ..Exchange::default() }), ..entry(number) }
}

/// Any entry that a store can hold, for what writes and reads records of them.
pub(super) fn entries() -> impl Strategy<Value = Entry> {
    let texts = (any::<String>(), any::<String>(), any::<String>(), any::<Vec<u8>>());
    let names = (any::<[u8; 32]>(), any::<[u8; 32]>());
    let rest = (0..Endpoint::ALL.len(), any::<Option<[u64; 4]>>(), any::<(bool, bool)>());
    // Up to the year 10000; a clock may say anything, but not beyond what it can hold.
    let times = (0_u64..253_402_300_800_000, any::<u64>(), any::<Option<u64>>());
    (texts, names, rest, times).prop_map(|(texts, (key, scope), rest, (created, ttl, took))| Entry {
        key: Key(key),
        scope: Scope(scope),
        endpoint: Endpoint::ALL[rest.0],
        content: Content::new(&Exchange {
            model: &texts.0,
            namespace: &texts.1,
            prompt: &texts.2,
            document: &texts.3,
            cost: Cost {
                usage: rest.1.map(|[input, output, cached, reasoning]| Usage {
                    input,
                    output,
                    cached,
                    reasoning,
                }),
                took: took.map(Duration::from_millis),
            },
        }),
        tool_calls: rest.2.0,
        created_at: UNIX_EPOCH + Duration::from_millis(created),
        ttl: Duration::from_millis(ttl),
        poisoned: rest.2.1,
    })
}

pub(super) fn placed(partition: Partition, embedding: Embedding) -> Placed {
    Placed { partition, embedding }
}

pub(super) fn memory_only() -> Store {
    Store::open(&StoreOptions::default()).unwrap()
}

pub(super) async fn put_placed(store: &Store, number: u64, partition: Partition, embedding: &Embedding) {
    let entry = store.put(entry(number), None).await.unwrap();
    assert!(store.place(&entry, placed(partition, embedding.clone())).await.unwrap());
}

fn keys(candidates: &[Candidate]) -> Vec<Key> {
    candidates.iter().map(|candidate| candidate.entry.key).collect()
}

#[tokio::test]
async fn what_is_put_is_got_as_it_was() {
    let store = memory_only();
    assert_eq!(store.get(&key(1)).await.unwrap(), None);
    store.put(entry(1), None).await.unwrap();
    assert_eq!(*store.get(&key(1)).await.unwrap().unwrap(), entry(1));
    assert_eq!(store.get(&key(2)).await.unwrap(), None);
    assert_eq!(store.usage().entries, 1);
    assert_eq!(store.state(), StoreState::Ok);
}

#[tokio::test]
async fn an_expired_entry_is_returned_until_it_is_swept() {
    let store = memory_only();
    let mut old = entry(1);
    old.created_at = SystemTime::now() - Duration::from_secs(20);
    old.ttl = Duration::from_secs(10);
    let home = partition(1);
    let direction = Random(1).direction(8);
    store.put(old.clone(), None).await.unwrap();
    assert!(store.place(&Arc::new(old.clone()), placed(home, direction.clone())).await.unwrap());
    assert_eq!(*store.get(&old.key).await.unwrap().unwrap(), old);
    assert_eq!(store.nearest(&home, &direction, 1).await.unwrap().len(), 1);
    inner(&store).sweep(SystemTime::now());
    assert!(store.get(&old.key).await.unwrap().is_some(), "expired lately: whoever asks is told so");
    inner(&store).sweep(SystemTime::now() + embedded::keeper::GRACE);
    assert_eq!(store.get(&old.key).await.unwrap(), None);
    assert!(store.is_empty_partition(&home).await.unwrap());
    assert_eq!(
        store.usage(),
        StoreUsage { max_bytes: store.usage().max_bytes, expired: 1, ..StoreUsage::default() }
    );
}

#[tokio::test]
async fn a_replaced_entry_loses_its_embedding() {
    let store = memory_only();
    let home = partition(1);
    let direction = Random(1).direction(384);
    put_placed(&store, 1, home, &direction).await;
    let found = store.nearest(&home, &direction, 5).await.unwrap();
    assert_eq!(keys(&found), [key(1)]);
    let Similarity(similarity) = found[0].similarity;
    assert!((similarity - 1.0).abs() < 1e-5);
    let mut newer = entry(1);
    newer.created_at += Duration::from_secs(1);
    store.put(newer.clone(), None).await.unwrap();
    assert!(store.nearest(&home, &direction, 5).await.unwrap().is_empty());
    assert!(store.is_empty_partition(&home).await.unwrap());
    let late = store.place(&Arc::new(entry(1)), placed(home, direction.clone())).await.unwrap();
    assert!(!late, "the embedding of the replaced entry comes too late");
    assert!(store.place(&Arc::new(newer.clone()), placed(home, direction.clone())).await.unwrap());
    assert_eq!(*store.nearest(&home, &direction, 5).await.unwrap()[0].entry, newer);
}

#[tokio::test]
async fn placing_anew_moves_an_entry() {
    let store = memory_only();
    let (first, second) = (partition(1), partition(2));
    let direction = Random(1).direction(16);
    put_placed(&store, 1, first, &direction).await;
    assert!(store.place(&Arc::new(entry(1)), placed(second, direction.clone())).await.unwrap());
    assert!(store.nearest(&first, &direction, 5).await.unwrap().is_empty());
    assert_eq!(store.nearest(&second, &direction, 5).await.unwrap().len(), 1);
    assert!(store.remove(&key(1).id()).await.unwrap());
    assert_eq!(store.usage().partitions, 0);
}

#[tokio::test]
async fn partitions_never_mix() {
    let store = memory_only();
    let mut random = Random(2);
    let direction = random.direction(64);
    for number in 0..200 {
        // The same embedding everywhere: only the partition tells them apart.
        put_placed(&store, number, partition(number % 2), &direction).await;
    }
    for home in 0..2 {
        let found = store.nearest(&partition(home), &direction, 1000).await.unwrap();
        let expected: HashSet<_> = (0..200).filter(|number| number % 2 == home).map(key).collect();
        assert_eq!(keys(&found).into_iter().collect::<HashSet<_>>(), expected);
        assert_eq!(found.len(), 100);
    }
    assert!(store.nearest(&partition(2), &direction, 5).await.unwrap().is_empty());
    let other_model = random.direction(32);
    assert!(store.nearest(&partition(0), &other_model, 5).await.unwrap().is_empty());
}

#[tokio::test]
async fn ten_thousand_small_partitions_are_searched_apart_and_freed() {
    let store = memory_only();
    let mut random = Random(3);
    let directions: Vec<_> = (0..10_000).map(|_| random.direction(32)).collect();
    for (number, direction) in (0..).zip(&directions) {
        put_placed(&store, number, partition(number), direction).await;
    }
    assert_eq!(store.usage().partitions, 10_000);
    for (number, direction) in (0..).zip(&directions) {
        assert_eq!(keys(&store.nearest(&partition(number), direction, 3).await.unwrap()), [key(number)]);
    }
    assert_eq!(store.purge(&Selector::All).await.unwrap(), 10_000);
    let usage = store.usage();
    assert_eq!((usage.partitions, usage.entries, usage.bytes), (0, 0, 0));
}

#[tokio::test]
async fn candidates_come_best_first_and_as_exact_as_promised() {
    let store = memory_only();
    let mut random = Random(4);
    let home = partition(1);
    let query = random.direction(384);
    let mut exact = Vec::new();
    for number in 0..500 {
        let direction = random.near(&query, 0.2 + f32::from(u16::try_from(number).unwrap()) / 100.0);
        exact.push((query.similarity(&direction).unwrap().0, key(number)));
        put_placed(&store, number, home, &direction).await;
    }
    exact.sort_by(|a, b| b.0.total_cmp(&a.0));
    let found = store.nearest(&home, &query, 20).await.unwrap();
    assert_eq!(found.len(), 20);
    for (found, (similarity, key)) in found.iter().zip(&exact) {
        assert_eq!(found.entry.key, *key);
        assert!((found.similarity.0 - similarity).abs() < 1e-5);
    }
}

#[tokio::test]
async fn entries_are_found_removed_and_their_hits_counted() {
    let store = memory_only();
    let home = partition(1);
    let direction = Random(5).direction(16);
    store.put(entry(1), None).await.unwrap();
    store.record_hit(&key(1));
    assert!(store.place(&Arc::new(entry(1)), placed(home, direction.clone())).await.unwrap());
    store.record_hit(&key(1));
    store.record_hit(&key(2));
    let found = store.find(&key(1).id()).await.unwrap().unwrap();
    assert_eq!((found.entry.key, found.hits), (key(1), 2));
    assert!(store.find(&key(2).id()).await.unwrap().is_none());
    assert!(store.remove(&key(1).id()).await.unwrap());
    assert!(!store.remove(&key(1).id()).await.unwrap());
    assert_eq!(store.get(&key(1)).await.unwrap(), None);
    assert!(store.nearest(&home, &direction, 5).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_list_is_paged_newest_first_and_stays_in_place() {
    let store = memory_only();
    for number in 0..50 {
        store.put(entry(number), None).await.unwrap();
    }
    let mut query = ListQuery { contains: "GRÖSSE".to_lowercase(), limit: 7, cursor: None };
    assert!(store.list(&query).await.unwrap().entries.is_empty());
    query.contains = "number 1".into();
    let expected: Vec<_> = (0..50).rev().filter(|n| n.to_string().starts_with('1')).map(key).collect();
    let mut listed = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        listed.extend(page.entries.iter().map(|found| found.entry.key));
        // A newer entry does not push the pages along.
        store.put(entry(1000 + u64::try_from(listed.len()).unwrap()), None).await.unwrap();
        let Some(next) = page.next else { break };
        query.cursor = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(listed, expected);
    query = ListQuery { contains: "GRÖ".into(), limit: 0, cursor: None };
    assert_eq!(store.list(&query).await.unwrap().entries.len(), 1, "in whatever case");
    for nonsense in ["", "-", "1", "1-", "+1-1", "1-g", "fffffffffffffffff-1"] {
        assert!(nonsense.parse::<Cursor>().is_err(), "{nonsense}");
    }
}

#[tokio::test]
async fn a_purge_takes_what_it_selects_and_an_empty_one_nothing() {
    let store = memory_only();
    for number in 0..30 {
        let mut entry = entry(number);
        entry.created_at = SystemTime::now() - Duration::from_secs(if number < 10 { 100 } else { 0 });
        store.put(entry, None).await.unwrap();
    }
    let nothing = Selector::Matching { model: None, namespace: None, older_than: None };
    assert_eq!(store.purge(&nothing).await.unwrap(), 0);
    let both = Selector::Matching {
        model: Some("model-1".into()),
        namespace: Some(String::new()),
        older_than: None,
    };
    // 4, 10, 16, 22, 28: one more than a multiple of three, and even.
    assert_eq!(store.purge(&both).await.unwrap(), 5);
    let old = Selector::Matching { model: None, namespace: None, older_than: Some(Duration::from_secs(50)) };
    assert_eq!(store.purge(&old).await.unwrap(), 9);
    assert_eq!(store.usage().entries, 16);
    assert_eq!(store.purge(&Selector::All).await.unwrap(), 16);
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let no_room = StoreOptions { max_bytes: 10, ..StoreOptions::default() };
    assert!(matches!(Store::open(&no_room), Err(OpenError::Options(_))));
    let no_entries = StoreOptions { max_entries: 0, ..StoreOptions::default() };
    assert!(matches!(Store::open(&no_entries), Err(OpenError::Options(_))));
    assert_ne!(*memory_only().secret().borrow(), *memory_only().secret().borrow());
}
