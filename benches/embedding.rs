//! How long it takes to judge prompts on one core: the built-in embedder, the guard, the verifier, and what it costs to
//! have the models.
//!
//! `cargo bench --bench embedding`. A text's content does not change a model's cost, so texts are made of words that are
//! one word piece each; pieces that frame a text are counted. What is measured is what the cache waits for: splitting,
//! the queue, inference and the way back. The guard is timed over the suite's pairs, both prompts made ready anew.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run says so")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use rejoinder::cache::guard;
use rejoinder::embed::Embedder;
use rejoinder::encoder::threads::{Threads, ThreadsOptions};
use rejoinder::eval::pairs::{Format, read};
use rejoinder::verify::Verifier;

const SUITE: &str = include_str!("../tests/quality/pairs.csv");

fn main() {
    let before = resident_kib();
    let start = Instant::now();
    let options = ThreadsOptions { threads: NonZeroUsize::MIN, ..ThreadsOptions::default() };
    let threads = Threads::start(&options).unwrap();
    let embedder = Embedder::builtin(threads.clone()).unwrap();
    println!("load: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for pieces in [3, 12, 32, 64, 128, 256] {
        let text = words(pieces - 2);
        let figures = timed(200, || {
            black_box(runtime.block_on(embedder.embed(black_box(&text))).unwrap());
        });
        println!("embedding, {pieces:>3} word pieces: {figures}");
    }
    let after = resident_kib();
    let start = Instant::now();
    let verifier = Verifier::load(threads).unwrap();
    println!("load of the verifier: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    for pieces in [12, 32, 64, 128, 256] {
        let (one, other) = (words((pieces - 3) / 2), words((pieces - 3) / 2 + 1));
        let figures = timed(200, || {
            black_box(runtime.block_on(verifier.score(black_box(&one), black_box(&other))).unwrap());
        });
        println!("verifier, {pieces:>3} word pieces of both prompts: {figures}");
    }
    guard::warm_up();
    let pairs = read(SUITE.as_bytes(), Some(Format::Csv)).unwrap().pairs;
    let figures = timed(50, || {
        for pair in &pairs {
            black_box(guard::compare(black_box(&pair.a), black_box(&pair.b)));
        }
    });
    println!("guard, all {} pairs of the suite: {figures}", pairs.len());
    if let (Some(before), Some(after), Some(end)) = (before, after, resident_kib()) {
        let mib = |kib: i64| kib / 1024;
        println!("resident memory: embedder {} MiB, verifier {} MiB", mib(after - before), mib(end - after));
    }
}

fn words(count: usize) -> String {
    vec!["time"; count].join(" ")
}

/// The figures of `rounds` rounds, after a tenth as many to warm up.
fn timed(rounds: usize, mut round: impl FnMut()) -> String {
    let mut times: Vec<Duration> = (0..rounds + rounds / 10)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed()
        })
        .skip(rounds / 10)
        .collect();
    times.sort_unstable();
    let [least, median, late] =
        [0, rounds / 2, rounds - 1 - rounds / 100].map(|rank| times.get(rank).unwrap().as_secs_f64() * 1e3);
    format!("p50 {median:.2} ms, least {least:.2} ms, p99 {late:.2} ms")
}

/// Linux alone tells.
fn resident_kib() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
