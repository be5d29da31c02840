//! What the benchmarks that link the library share: made-up entries and embeddings, and what a process takes.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rejoinder::dialect::Endpoint;
use rejoinder::embed::Embedding;
use rejoinder::store::content::{Content, Exchange};
use rejoinder::store::entry::{Entry, Key, Scope};

/// Components of an embedding, as the built-in model's.
pub const DIMENSION: usize = 384;

/// Random numbers of a seed, the same in each run (xorshift64, Marsaglia, 2003).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn component(&mut self) -> f32 {
        f32::from(i16::from_ne_bytes([self.next().to_ne_bytes()[3], self.next().to_ne_bytes()[5]])) / 32768.0
    }

    /// A random embedding, around another one where that is given.
    pub fn near(&mut self, centre: Option<&Embedding>, spread: f32) -> Result<Embedding> {
        let mut values: Vec<_> = (0..DIMENSION).map(|_| spread * self.component()).collect();
        if let Some(centre) = centre {
            // Components of a unit vector are a twentieth in size, those above a half.
            let scale = 11.3;
            values.iter_mut().zip(centre.values()).for_each(|(value, centre)| *value += scale * centre);
        }
        Embedding::new(values).context("a random vector of length zero")
    }
}

/// A short question and an answer of a kilobyte: 1,130 bytes of text.
pub fn entry(number: u64, key: Key, scope: Scope) -> Entry {
    let text = format!("The answer to {number} is {}", "well considered. ".repeat(30));
    let document = format!("{{\"id\": \"chatcmpl-{number:012}\", \"content\": \"{text}\"}}");
    Entry {
        key,
        scope,
        endpoint: Endpoint::OpenAiChat,
        content: Content::new(&Exchange {
            model: "llama3.2",
            prompt: &format!("What is the answer to question number {number}?"),
            document: document.as_bytes(),
            ..Exchange::default()
        }),
        tool_calls: false,
        created_at: SystemTime::now(),
        ttl: Duration::from_hours(24),
        poisoned: false,
    }
}

/// The value at a share of the way from the least to the most; zero of none.
pub fn quantile(times: &mut [Duration], share: (usize, usize)) -> Duration {
    times.sort_unstable();
    times.get(times.len() * share.0 / share.1).or(times.last()).copied().unwrap_or_default()
}

/// The middle one.
pub fn median(times: &mut [Duration]) -> Duration {
    quantile(times, (1, 2))
}

/// Resident memory, in bytes.
pub fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Processor time of this process or of one of its threads, in the kernel's ticks (proc(5), `stat`).
pub fn ticks(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split(' ').skip(12).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}
