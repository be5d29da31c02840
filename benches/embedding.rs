//! How long the built-in embedder takes on one core, and what it costs to have it.
//!
//! `cargo bench --bench embedding`. A text's content does not change its cost, so texts are made of words that are
//! one word piece each; two pieces frame every text and are counted. What is measured is what the cache waits for:
//! splitting, the queue, inference and the way back.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run says so")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use rejoinder::embed::{BuiltinOptions, Embedder};

fn main() {
    let before = resident_kib();
    let start = Instant::now();
    let options = BuiltinOptions { threads: NonZeroUsize::MIN, ..BuiltinOptions::default() };
    let embedder = Embedder::builtin(&options).unwrap();
    println!("load: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for pieces in [3, 12, 32, 64, 128, 256] {
        let text = vec!["time"; pieces - 2].join(" ");
        let mut times: Vec<Duration> = (0..220)
            .map(|_| {
                let start = Instant::now();
                black_box(runtime.block_on(embedder.embed(black_box(&text))).unwrap());
                start.elapsed()
            })
            .skip(20)
            .collect();
        times.sort_unstable();
        let [least, median, late] = [0, 100, 198].map(|rank| times.get(rank).unwrap().as_secs_f64() * 1e3);
        println!("{pieces:>3} word pieces: p50 {median:.2} ms, least {least:.2} ms, p99 {late:.2} ms");
    }
    if let (Some(before), Some(after)) = (before, resident_kib()) {
        let mib = (after - before) / 1024;
        println!("resident memory of the model and its buffers: {mib} MiB");
    }
}

/// Linux alone tells.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
