//! What the store costs: `cargo bench --bench store`, with `-- 1000000` for the largest partition too. `scripts/bench`
//! runs it with `growth ENTRIES SCOPES ROUNDS` and reads what it prints: a figure a line, its name, a tab, its value.
//!
//! Prints medians of its own timing rather than using a framework: a step here is a partition of a hundred
//! thousand entries as often as a look-up of nanoseconds.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rejoinder::embed::Embedding;
use rejoinder::store::entry::{Entry, Key, Partition, Placed, Scope};
use rejoinder::store::{Store, StoreOptions};

use self::support::{DIMENSION, Random, median, resident};

mod support;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    runtime.block_on(async {
        if let ["growth", rows, scopes, rounds] = arguments.as_slice() {
            return growth(rows.parse()?, scopes.parse()?, rounds.parse()?).await;
        }
        let largest = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
        memory(100_000).await?;
        get_and_put().await?;
        for rows in [100, 1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|rows| *rows <= largest) {
            nearest(rows).await?;
        }
        disk(100_000).await
    })
}

fn roomy() -> StoreOptions {
    StoreOptions { max_bytes: 16 << 30, max_entries: 40_000_000, ..StoreOptions::default() }
}

fn key(number: u64) -> Key {
    Key(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn entry(number: u64) -> Entry {
    support::entry(number, key(number), Scope([1; 32]))
}

fn own_bytes(entry: &Entry) -> usize {
    // The keys and the embedding as its model gives it are the entry's own too.
    entry.model().len() + entry.prompt().len() + entry.content.document_length() + 96
}

async fn put(store: &Store, number: u64, home: Partition, embedding: Embedding) -> Result<()> {
    let entry = store.put(entry(number), None).await?;
    let placed = Placed { partition: home, embedding };
    anyhow::ensure!(store.place(&entry, placed).await?, "not placed");
    Ok(())
}

async fn memory(entries: u64) -> Result<()> {
    let before = resident()?;
    let store = Store::open(&roomy())?;
    for number in 0..entries {
        store.put(entry(number), None).await?;
    }
    let each = (resident()? - before) / entries;
    let own = own_bytes(&entry(entries / 2));
    let counted = store.usage().bytes / entries;
    println!(
        "memory: {entries} entries take {each} bytes each (counted: {counted}); text and keys are {own}"
    );
    let mut random = Random(1);
    for number in 0..entries {
        // A hundred entries to a scope.
        put(&store, number, partition(number / 100), random.near(None, 1.0)?).await?;
    }
    let each = (resident()? - before) / entries;
    let (counted, vector) = (store.usage().bytes / entries, DIMENSION * 4);
    println!("memory: {each} each with their vectors (counted: {counted}), which are {vector} in f32");
    Ok(())
}

fn partition(number: u64) -> Partition {
    Partition(*blake3::keyed_hash(&[2; 32], &number.to_le_bytes()).as_bytes())
}

async fn get_and_put() -> Result<()> {
    const ENTRIES: u64 = 100_000;
    let store = Store::open(&roomy())?;
    let mut random = Random(2);
    let prepared: Vec<_> = (0..ENTRIES).map(entry).collect();
    let started = Instant::now();
    for entry in prepared {
        store.put(entry, None).await?;
    }
    println!("put: {:?} each", started.elapsed() / u32::try_from(ENTRIES)?);
    let keys: Vec<_> = (0..1_000_000).map(|_| key(random.next() % ENTRIES)).collect();
    let started = Instant::now();
    for key in &keys {
        black_box(store.get(key).await?);
    }
    println!(
        "get: {:?} each, of {ENTRIES} entries at random",
        started.elapsed() / u32::try_from(keys.len())?
    );
    let started = Instant::now();
    let hot = key(7);
    for _ in 0..keys.len() {
        black_box(store.get(&hot).await?);
    }
    println!("get: {:?} each, of one entry", started.elapsed() / u32::try_from(keys.len())?);
    let embedding = random.near(None, 1.0)?;
    let started = Instant::now();
    for number in 0..10_000 {
        let placed = Placed { partition: partition(number), embedding: embedding.clone() };
        let known = store.get(&key(number)).await?.context("evicted")?;
        store.place(&known, placed).await?;
    }
    println!("place: {:?} each, in partitions of their own", started.elapsed() / 10_000);
    Ok(())
}

/// A store whose partitions are in order, and what to look for in them.
struct Filled {
    store: Store,
    scopes: u64,
    random: Random,
    /// The first entries' numbers and embeddings.
    embeddings: Vec<(u64, Embedding)>,
    placed: Duration,
    settled: Duration,
}

impl Filled {
    /// Entries, evenly over scopes, about twenty around each centre.
    async fn with(rows: u64, scopes: u64) -> Result<Self> {
        let store = Store::open(&roomy())?;
        let mut random = Random(3);
        let common = random.near(None, 1.0)?;
        let centres: Vec<_> =
            (0..rows.div_ceil(20)).map(|_| random.near(Some(&common), 1.5)).collect::<Result<_>>()?;
        let mut embeddings = Vec::new();
        let started = Instant::now();
        for number in 0..rows {
            let centre = centres.get(usize::try_from(random.next())? % centres.len());
            let embedding = random.near(centre, 0.6)?;
            if embeddings.len() < 200 {
                embeddings.push((number, embedding.clone()));
            }
            put(&store, number, partition(number % scopes), embedding).await?;
        }
        let placed = started.elapsed();
        // Until the keeper has put a large partition in order, a search looks at all that it has not.
        settle().await?;
        let settled = started.elapsed().saturating_sub(placed);
        Ok(Self { store, scopes, random, embeddings, placed, settled })
    }

    /// Looks for a paraphrase of each, cosine about 0.9, again and again for so long and at least once.
    async fn search(&mut self, least: Duration) -> Result<Searches> {
        let queries: Vec<_> = (self.embeddings.iter())
            .map(|(number, embedding)| Ok((number, self.random.near(Some(embedding), 0.5)?)))
            .collect::<Result<_>>()?;
        let (mut times, mut found) = (Vec::new(), 0);
        let (before, begun) = (processor_time()?, Instant::now());
        for (number, query) in queries.iter().cycle() {
            if times.len() >= queries.len() && begun.elapsed() >= least {
                break;
            }
            let home = partition(**number % self.scopes);
            let started = Instant::now();
            let candidates = self.store.nearest(&home, query, 8).await?;
            times.push(started.elapsed());
            found += u32::from(candidates.iter().any(|candidate| candidate.entry.key == key(**number)));
        }
        Ok(Searches { times, found, processor: processor_time()?.saturating_sub(before) })
    }
}

struct Searches {
    times: Vec<Duration>,
    /// How many found what they were to find.
    found: u32,
    /// Processor time of all together.
    processor: Duration,
}

async fn nearest(rows: u64) -> Result<()> {
    let mut filled = Filled::with(rows, 1).await?;
    let mut searches = filled.search(Duration::ZERO).await?;
    println!(
        "nearest of {rows}: {:?} median, its paraphrase found {} of {} times; placed in {:?}, settled {:?} later",
        median(&mut searches.times),
        searches.found,
        filled.embeddings.len(),
        filled.placed,
        filled.settled,
    );
    Ok(())
}

/// What a search takes of the processor, and the store of memory.
async fn growth(rows: u64, scopes: u64, rounds: u64) -> Result<()> {
    let before = resident()?;
    let mut filled = Filled::with(rows, scopes).await?;
    println!("resident bytes\t{}", resident()?.saturating_sub(before));
    println!("settled s\t{}", filled.settled.as_secs_f64());
    for round in 0..rounds {
        // Long enough for what the kernel counts in ticks.
        let searches = filled.search(Duration::from_millis(500)).await?;
        let count = u32::try_from(searches.times.len())?;
        println!("round {round} search us\t{}", searches.processor.as_secs_f64() * 1e6 / f64::from(count));
        println!("round {round} found %\t{}", 100.0 * f64::from(searches.found) / f64::from(count));
    }
    Ok(())
}

/// Processor time of this process's threads, of those that have not ended (proc(5), `schedstat`).
fn processor_time() -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end while we look.
        let Ok(figures) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += figures.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Waits until the keeper has used no processor time for a second: large partitions are in order.
async fn settle() -> Result<()> {
    let mut last = None;
    loop {
        let now = Some(keeper_ticks()?);
        if now == last {
            return Ok(());
        }
        last = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Processor time of threads named as the keeper, in the kernel's ticks (proc(5), `stat`).
fn keeper_ticks() -> Result<u64> {
    let mut ticks = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end while we look.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
        if stat.contains("(store-keeper) ") {
            ticks += support::ticks(&stat);
        }
    }
    Ok(ticks)
}

async fn disk(entries: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options =
        StoreOptions { data_dir: Some(folder.path().to_owned()), max_unwritten_bytes: 1 << 30, ..roomy() };
    let store = Store::open(&options)?;
    let mut random = Random(4);
    let started = Instant::now();
    for number in 0..entries {
        put(&store, number, partition(number / 100), random.near(None, 1.0)?).await?;
    }
    store.flush().await?;
    let size = fs::metadata(folder.path().join("entries.redb"))?.len();
    println!("disk: {entries} entries written in {:?}, {} bytes each", started.elapsed(), size / entries);
    let started = Instant::now();
    store.remove(&key(5).id()).await?;
    store.flush().await?;
    println!("disk: one removed, durably, in {:?}", started.elapsed());
    store.close().await?;
    drop(store);
    let started = Instant::now();
    let store = Store::open(&options)?;
    println!("disk: {} entries back in memory in {:?}", store.usage().entries, started.elapsed());
    let started = Instant::now();
    put(&store, entries, partition(0), random.near(None, 1.0)?).await?;
    store.flush().await?;
    println!("disk: one entry durable in {:?}", started.elapsed());
    Ok(())
}
