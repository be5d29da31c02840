//! How a soak is run.

use std::time::Duration;

/// See the fields; the same options give the same requests and faults.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// As they were asked for; `None` for the short one.
    pub minutes: Option<f64>,
    /// What is asked and what goes wrong follows from it.
    pub seed: u64,
    /// Requests per second, over all replicas.
    pub rate: u32,
    /// Without faults, before memory and descriptors are first looked at.
    pub warm_up: Duration,
    /// With faults.
    pub lasting: Duration,
    /// From one fault to the next, on average.
    pub apart: Duration,
    /// How long one lasts, on average.
    pub fault: Duration,
    /// How long the replicas wait for upstream (`timeouts.first_byte`, `timeouts.idle`).
    pub upstream_timeout: Duration,
    /// Whether the verifier judges what is alike. A build without optimisation is too slow for it.
    pub verifier: bool,
}

impl Options {
    /// A few seconds, in which every kind comes once.
    pub fn short() -> Self {
        Self {
            minutes: None,
            seed: 1,
            rate: 60,
            warm_up: Duration::from_secs(2),
            lasting: Duration::from_secs(7),
            apart: Duration::from_millis(320),
            fault: Duration::from_millis(400),
            upstream_timeout: Duration::from_secs(5),
            verifier: false,
        }
    }

    /// As the environment says (`SOAK_MINUTES`, `SOAK_SEED`, `SOAK_RATE`); `scripts/soak` sets that.
    pub fn from_environment() -> Self {
        let number = |name: &str, default: f64| {
            let text = std::env::var(name).ok();
            text.map_or(default, |text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
        };
        let minutes = number("SOAK_MINUTES", 20.0);
        let lasting = Duration::from_secs_f64(minutes * 60.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers")]
        Self {
            minutes: Some(minutes),
            seed: number("SOAK_SEED", 1.0) as u64,
            rate: number("SOAK_RATE", 50.0) as u32,
            warm_up: (lasting / 10).clamp(Duration::from_secs(5), Duration::from_mins(1)),
            lasting: lasting.mul_f64(0.9),
            apart: Duration::from_secs(3),
            fault: Duration::from_secs(3),
            upstream_timeout: Duration::from_secs(8),
            verifier: !cfg!(debug_assertions),
        }
    }

    /// After this a reply does not come any more.
    pub fn patience(&self) -> Duration {
        self.upstream_timeout + STALL_BOUND
    }

    /// How this run is repeated.
    pub fn command(&self) -> String {
        let Some(minutes) = self.minutes else { return "cargo test --test soak".to_owned() };
        let build = if cfg!(debug_assertions) { " --debug" } else { "" };
        format!("scripts/soak --minutes {minutes} --seed {} --rate {}{build}", self.seed, self.rate)
    }
}

/// No request whose upstream answers may take longer. Generous: what is looked for is one that hangs.
pub const STALL_BOUND: Duration = Duration::from_secs(20);

/// So many more descriptors than after the warm-up a replica may hold: twice the idle connections that it may keep to the
/// embedder, as many as it had use for at once.
pub const DESCRIPTOR_BOUND: usize = 32;

/// So much more memory than after the warm-up a replica may hold, in bytes: as much as its two caches of what was read and
/// laid out of late may take (`proxy/readings.rs`, `proxy/layouts.rs`), which fill with every new entry.
pub const MEMORY_BOUND: u64 = 32 * 1024 * 1024;
