//! What the store in Redis costs a replica, and how soon replicas see each other's entries. `scripts/bench` starts
//! the Redis, runs this against it and reads what it prints: a figure a line, its name, a tab, its value.
//!
//! ```text
//! shared fill URL SCOPES ENTRIES [plain]     stores entries with embeddings (plain: without), evenly over scopes
//! shared search URL SCOPES ENTRIES ROUNDS    a replica that starts finds them: how soon, how fast, in how much memory
//! shared crowded URL ENTRIES MIB             stores into one scope, of which a replica has room for a part
//! shared visible URL COUNT AT_ONCE           entries stored, replaced and removed by one replica, looked for by another
//! ```
//!
//! Embeddings are made up (no model runs); the store, its searches and its round trips are the real ones. What is
//! called a hit here is the store's part of one: whether there is anything, what is nearest, the whole entry.

mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rejoinder::embed::Embedding;
use rejoinder::store::content::{Content, Exchange};
use rejoinder::store::entry::{Entry, Key, Partition, Placed, Scope};
use rejoinder::store::redis::RedisOptions;
use rejoinder::store::{Store, StoreError};

use self::support::{Random, median, quantile, resident};

/// Replicas that fill Redis at once.
const FILLERS: u64 = 32;

/// Entries that one of them has on the way.
const BATCH: usize = 128;

/// Searches of a round.
const SEARCHES: usize = 200;

/// Candidates of a search, as many as the cache asks for.
const CANDIDATES: usize = 8;

/// What nothing here takes longer than, unless it never comes.
const PATIENCE: Duration = Duration::from_mins(10);

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.is_empty() {
        println!("this is run by scripts/bench, against a Redis that it starts");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shared: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match arguments.as_slice() {
            ["fill", url, scopes, entries] => fill(url, Layout::read(scopes, entries)?, true).await,
            ["fill", url, scopes, entries, "plain"] => fill(url, Layout::read(scopes, entries)?, false).await,
            ["search", url, scopes, entries, rounds] => {
                search(url, Layout::read(scopes, entries)?, rounds.parse()?).await
            }
            ["crowded", url, entries, mib] => {
                crowded(url, Layout::read("1", entries)?, mib.parse::<u64>()? << 20).await
            }
            ["visible", url, count, at_once] => visible(url, count.parse()?, at_once.parse()?).await,
            _ => bail!("wrong arguments; see the head of benches/shared.rs"),
        }
    })
}

/// Entries by number, each with a scope, a prompt and an embedding of its own.
#[derive(Debug, Clone, Copy)]
struct Layout {
    scopes: u64,
    entries: u64,
}

impl Layout {
    fn read(scopes: &str, entries: &str) -> Result<Self> {
        let layout = Self { scopes: scopes.parse()?, entries: entries.parse()? };
        ensure!(layout.scopes > 0 && layout.entries >= layout.scopes, "fewer entries than scopes");
        Ok(layout)
    }

    fn scope(self, number: u64) -> Scope {
        Scope(hash(b"scope", number % self.scopes))
    }

    fn partition(self, number: u64) -> Partition {
        Partition::new(&self.scope(number), hash(b"partition", number % self.scopes))
    }

    fn entry(self, number: u64) -> Entry {
        let scope = self.scope(number);
        support::entry(number, Key::new(&scope, hash(b"key", number)), scope)
    }

    /// One of twenty around the same centre, and all centres around one.
    fn embedding(self, number: u64) -> Result<Embedding> {
        let common = Random(seed(0)).near(None, 1.0)?;
        let subject = hash(b"subject", number).first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let subject = subject % self.entries.div_ceil(20);
        let centre = Random(seed(1 + subject)).near(Some(&common), 1.5)?;
        Random(seed(u64::MAX - number)).near(Some(&centre), 0.6)
    }

    fn placed(self, number: u64) -> Result<Placed> {
        Ok(Placed { partition: self.partition(number), embedding: self.embedding(number)? })
    }
}

fn hash(kind: &[u8], number: u64) -> [u8; 32] {
    *blake3::Hasher::new().update(kind).update(&number.to_le_bytes()).finalize().as_bytes()
}

/// A seed of the random numbers; never zero.
fn seed(number: u64) -> u64 {
    hash(b"seed", number).first_chunk().map_or(1, |bytes| u64::from_le_bytes(*bytes) | 1)
}

fn options(url: &str) -> Result<RedisOptions> {
    let options = RedisOptions::new(url.parse()?);
    Ok(RedisOptions {
        // A million in a scope must fit, and be searched, whatever the defaults are.
        index_max_bytes: 16 << 30,
        max_entries_per_scope: 10_000_000,
        // A busy machine shows in the figures, not as an outage.
        command_timeout: Duration::from_secs(1),
        ..options
    })
}

fn print(name: &str, value: impl std::fmt::Display) {
    println!("{name}\t{value}");
}

fn print_times(name: &str, times: &mut [Duration]) {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    print(&format!("{name} p50 ms"), ms(median(times)));
    print(&format!("{name} p99 ms"), ms(quantile(times, (99, 100))));
    print(&format!("{name} max ms"), ms(times.iter().max().copied().unwrap_or_default()));
}

// Filling

/// Stores all entries by several replicas, none of which keeps any itself.
async fn fill(url: &str, layout: Layout, embedded: bool) -> Result<()> {
    let started = Instant::now();
    let fillers = (0..FILLERS).map(|first| {
        let options = options(url)
            // Time is no question here: many write at once.
            .map(|options| RedisOptions {
                hot_max_bytes: 0,
                index_max_bytes: 0,
                command_timeout: Duration::from_secs(10),
                ..options
            });
        tokio::spawn(async move { fill_part(Store::connect(options?).await?, layout, first, embedded).await })
    });
    for filler in fillers.collect::<Vec<_>>() {
        filler.await??;
    }
    print("stored per second", u128::from(layout.entries) * 1000 / started.elapsed().as_millis().max(1));
    Ok(())
}

async fn fill_part(store: Store, layout: Layout, first: u64, embedded: bool) -> Result<()> {
    let numbers: Vec<_> = (first..layout.entries).step_by(usize::try_from(FILLERS)?).collect();
    for batch in numbers.chunks(BATCH) {
        for &number in batch {
            let placed = if embedded { Some(layout.placed(number)?) } else { None };
            store.put(layout.entry(number), placed).await?;
        }
        store.flush().await?;
    }
    let usage = store.usage();
    ensure!(usage.writes_dropped + usage.write_failures == 0, "writes were lost: {usage:?}");
    store.close().await?;
    Ok(())
}

// Searching

/// How long the parts of a hit by meaning took, and whether it was one.
#[derive(Debug, Clone, Copy)]
struct Hit {
    refreshed: Duration,
    searched: Duration,
    loaded: Duration,
    found: bool,
}

impl Hit {
    fn total(&self) -> Duration {
        self.refreshed + self.searched + self.loaded
    }
}

/// The store's part of a hit by meaning: an entry looked for by an embedding near its own.
async fn hit(store: &Store, layout: Layout, number: u64, query: &Embedding) -> Result<Hit, StoreError> {
    let (partition, key) = (layout.partition(number), layout.entry(number).key);
    let started = Instant::now();
    store.is_empty_partition(&partition).await?;
    let refreshed = started.elapsed();
    let candidates = store.nearest(&partition, query, CANDIDATES).await?;
    let searched = started.elapsed();
    let candidate = candidates.iter().find(|candidate| candidate.entry.key == key).or(candidates.first());
    let whole = match candidate {
        Some(candidate) => store.load(&partition, &candidate.entry).await?,
        None => None,
    };
    let loaded = started.elapsed();
    let found = whole.is_some_and(|entry| entry.key == key);
    Ok(Hit {
        refreshed,
        searched: searched.saturating_sub(refreshed),
        loaded: loaded.saturating_sub(searched),
        found,
    })
}

async fn search(url: &str, layout: Layout, rounds: usize) -> Result<()> {
    let started = Instant::now();
    // Without the hot tier: each hit reads its entry from Redis, and what is in memory are the embeddings.
    let store = Store::connect(RedisOptions { hot_max_bytes: 0, ..options(url)? }).await?;
    print("connected ms", started.elapsed().as_secs_f64() * 1000.0);
    let before = resident()?;
    if layout.scopes == 1 {
        become_whole(&store, layout, started).await?;
    } else {
        visit_each(&store, layout).await?;
    }
    settle().await?;
    print("settled s", started.elapsed().as_secs_f64());
    let usage = store.usage();
    print("resident bytes per entry", (resident()?.saturating_sub(before)) / layout.entries);
    print("counted bytes per entry", usage.bytes / layout.entries);
    let mut random = Random(3);
    for round in 0..rounds {
        let mut hits = Vec::with_capacity(SEARCHES);
        for _ in 0..SEARCHES {
            let number = random.next() % layout.entries;
            // A paraphrase: cosine about 0.9.
            let query = random.near(Some(&layout.embedding(number)?), 0.5)?;
            hits.push(hit(&store, layout, number, &query).await?);
        }
        let part = |part: fn(&Hit) -> Duration| {
            median(&mut hits.iter().map(part).collect::<Vec<_>>()).as_secs_f64() * 1000.0
        };
        print(&format!("round {round} hit ms"), part(Hit::total));
        print(&format!("round {round} refresh ms"), part(|hit| hit.refreshed));
        print(&format!("round {round} nearest ms"), part(|hit| hit.searched));
        print(&format!("round {round} load ms"), part(|hit| hit.loaded));
        print(
            &format!("round {round} found %"),
            100 * hits.iter().filter(|hit| hit.found).count() / SEARCHES,
        );
    }
    Ok(())
}

/// Waits until a scope is in memory whole. Its newest entries are read first, its oldest last.
async fn become_whole(store: &Store, layout: Layout, started: Instant) -> Result<()> {
    // Several replicas filled it at once, so which is the very last is open; one of the last is meant.
    let newest = hit(store, layout, layout.entries - 1, &layout.embedding(layout.entries - 1)?).await?;
    print("first look ms", newest.total().as_secs_f64() * 1000.0);
    print("newest found at first look", newest.found);
    for (name, number) in [("middle", layout.entries / 2), ("oldest", 0)] {
        let query = layout.embedding(number)?;
        while !hit(store, layout, number, &query).await?.found {
            ensure!(started.elapsed() < PATIENCE, "the {name} entry is never found");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        print(&format!("{name} found s"), started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Asks in each scope once, and once again.
async fn visit_each(store: &Store, layout: Layout) -> Result<()> {
    for visit in ["first visit", "second visit"] {
        let (mut times, mut found) = (Vec::new(), 0);
        for number in 0..layout.scopes {
            let hit = hit(store, layout, number, &layout.embedding(number)?).await?;
            times.push(hit.total());
            found += u64::from(hit.found);
        }
        print_times(visit, &mut times);
        print(&format!("{visit} found %"), 100 * found / layout.scopes);
    }
    Ok(())
}

/// Waits until this process is idle: a large partition is in order, and the allocator has what it gets.
async fn settle() -> Result<()> {
    let used = || anyhow::Ok(support::ticks(&std::fs::read_to_string("/proc/self/stat")?));
    let mut last = used()?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = used()?;
        if now - last <= 2 {
            return Ok(());
        }
        last = now;
    }
}

/// What a replica finds of a scope that is larger than the room it has, and what it costs to find nothing new.
async fn crowded(url: &str, layout: Layout, room: u64) -> Result<()> {
    let replica = Store::connect(RedisOptions { index_max_bytes: room, ..options(url)? }).await?;
    let writer = Store::connect(options(url)?).await?;
    hit(&replica, layout, 0, &layout.embedding(0)?).await?;
    settle().await?;
    let (mut found, mut times) = ((0, 0), Vec::new());
    for number in layout.entries..layout.entries + 100 {
        writer.put(layout.entry(number), Some(layout.placed(number)?)).await?;
        writer.flush().await?;
        let newest = hit(&replica, layout, number, &layout.embedding(number)?).await?;
        found.0 += u64::from(newest.found);
        let number = number.wrapping_mul(0x9e37_79b9) % layout.entries;
        let one = hit(&replica, layout, number, &layout.embedding(number)?).await?;
        found.1 += u64::from(one.found);
        times.push(one.refreshed);
    }
    print("new entries found %", found.0);
    print("entries found %", found.1);
    print_times("refresh", &mut times);
    Ok(())
}

// Seeing

/// Two replicas, and entries that one stores, replaces and removes while the other looks.
async fn visible(url: &str, count: u64, at_once: u64) -> Result<()> {
    let layout = Layout { scopes: 1, entries: count };
    let (one, other) = (Store::connect(options(url)?).await?, Store::connect(options(url)?).await?);
    let mut delays = Delays::default();
    let numbers: Vec<_> = (0..count).collect();
    for numbers in numbers.chunks(usize::try_from(at_once)?) {
        for (kind, delay) in
            together(numbers, |number| stored(one.clone(), other.clone(), layout, number)).await?
        {
            delays.note(kind, delay);
        }
    }
    // A replica that has met none of them yet, so that what it holds in process is what it was made to hold.
    let other = Store::connect(options(url)?).await?;
    let first = layout.embedding(0)?;
    let whole = async || Ok(means(&other, layout, 0, &first).await? && other.usage().entries > 0);
    until(Instant::now(), whole).await?;
    for numbers in numbers.chunks(usize::try_from(at_once)?) {
        for number in numbers {
            other.get(&layout.entry(*number).key).await?.context("an entry is gone")?;
        }
        ensure!(other.usage().entries >= numbers.len() as u64, "the hot tier does not hold what was read");
        for (kind, delay) in
            together(numbers, |number| changed(one.clone(), other.clone(), layout, number)).await?
        {
            delays.note(kind, delay);
        }
    }
    delays.print();
    for (name, store) in [("one", &one), ("other", &other)] {
        let usage = store.usage();
        ensure!(usage.writes_dropped + usage.write_failures == 0, "replica {name} lost writes: {usage:?}");
        print(&format!("replica {name}, commands without an answer"), usage.unanswered);
    }
    Ok(())
}

/// How long until what one replica did was seen by the other, by what was done.
#[derive(Default)]
struct Delays(Vec<(&'static str, Vec<Duration>)>);

impl Delays {
    fn note(&mut self, kind: &'static str, delay: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, delays)) => delays.push(delay),
            None => self.0.push((kind, vec![delay])),
        }
    }

    fn print(&mut self) {
        for (kind, delays) in &mut self.0 {
            print_times(kind, delays);
        }
    }
}

type Seen = Vec<(&'static str, Duration)>;

async fn together<F>(numbers: &[u64], task: impl Fn(u64) -> F) -> Result<Seen>
where
    F: Future<Output = Result<Seen>> + Send + 'static,
{
    let tasks: Vec<_> = numbers.iter().map(|number| tokio::spawn(task(*number))).collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.extend(task.await??);
    }
    Ok(seen)
}

/// Waits until something is so; how long that was since a moment.
async fn until<F>(since: Instant, mut is_so: impl FnMut() -> F) -> Result<Duration>
where
    F: Future<Output = Result<bool, StoreError>>,
{
    loop {
        match is_so().await {
            Ok(true) => return Ok(since.elapsed()),
            // It is not seen by one that cannot look.
            Ok(false) | Err(StoreError::Unavailable(_)) => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(since.elapsed() < Duration::from_secs(30), "never seen");
        tokio::task::yield_now().await;
    }
}

/// Whether a replica finds an entry by meaning.
async fn means(store: &Store, layout: Layout, number: u64, query: &Embedding) -> Result<bool, StoreError> {
    hit(store, layout, number, query).await.map(|hit| hit.found)
}

/// An entry is stored as a miss is: the reply first, its embedding when that is made. Both clocks start when the
/// call begins that makes it findable so.
async fn stored(one: Store, other: Store, layout: Layout, number: u64) -> Result<Seen> {
    let (entry, placed) = (layout.entry(number), layout.placed(number)?);
    let (key, query) = (entry.key, placed.embedding.clone());
    let started = Instant::now();
    let exactly = {
        let other = other.clone();
        tokio::spawn(async move { until(started, async || Ok(other.get(&key).await?.is_some())).await })
    };
    let entry = one.put(entry, None).await?;
    let exactly = exactly.await??;
    let started = Instant::now();
    ensure!(one.place(&entry, placed).await?, "not placed");
    let by_meaning = until(started, async || means(&other, layout, number, &query).await).await?;
    Ok(vec![("stored, exactly", exactly), ("stored, by meaning", by_meaning)])
}

/// An entry that the other replica holds is replaced, then removed.
async fn changed(one: Store, other: Store, layout: Layout, number: u64) -> Result<Seen> {
    let placed = layout.placed(number)?;
    let (query, entry) = (placed.embedding.clone(), layout.entry(number));
    let key = entry.key;
    ensure!(means(&other, layout, number, &query).await?, "not found by meaning");
    let document = b"{\"content\": \"another\"}";
    let entry = Entry { content: Content::new(&Exchange { document, ..Exchange::default() }), ..entry };
    let started = Instant::now();
    one.put(entry, Some(placed)).await?;
    let is_new = async || Ok(other.get(&key).await?.is_some_and(|entry| entry.document() == document[..]));
    let replaced = until(started, is_new).await?;
    let started = Instant::now();
    let removed = {
        let (one, other, query) = (one.clone(), other.clone(), query.clone());
        let exactly = tokio::spawn({
            let other = other.clone();
            async move { until(started, async || Ok(other.get(&key).await?.is_none())).await }
        });
        let by_meaning = tokio::spawn(async move {
            until(started, async || Ok(!means(&other, layout, number, &query).await?)).await
        });
        ensure!(one.remove(&key.id()).await?, "there was nothing to remove");
        let returned = started.elapsed();
        (exactly.await??, by_meaning.await??, returned)
    };
    Ok(vec![
        ("replaced, exactly", replaced),
        ("removed, exactly", removed.0),
        ("removed, by meaning", removed.1),
        ("removal, its call", removed.2),
    ])
}
