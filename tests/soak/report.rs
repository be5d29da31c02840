//! What came of it, as a table.

use std::fmt;
use std::time::{Duration, Instant};

use crate::options::{DESCRIPTOR_BOUND, MEMORY_BOUND, Options, STALL_BOUND};
use crate::replicas::{Held, MORTAL};
use crate::schedule::Kind;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its own reply; the layer that served it.
    Right(Option<&'static str>),
    /// It failed as upstream did.
    Upstream,
    /// Its client left.
    Left,
    /// Another's reply, or one that upstream never gave.
    Wrong(String),
    /// No whole reply.
    Lost(String),
    /// An error that was not upstream's.
    Failed(String),
}

impl Outcome {
    /// With what was asked.
    pub fn about(self, prompt: &str) -> Self {
        match self {
            Self::Wrong(text) => Self::Wrong(format!("{prompt:?}: {text}")),
            Self::Lost(text) => Self::Lost(format!("{prompt:?}: {text}")),
            Self::Failed(text) => Self::Failed(format!("{prompt:?}: {text}")),
            other => other,
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub number: u64,
    pub started: Instant,
    pub took: Duration,
    /// Its replica died, and another was asked.
    pub retried: bool,
    pub outcome: Outcome,
}

/// A fault that was made, and when in truth.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    pub kind: Kind,
    pub from: Instant,
    pub until: Instant,
}

/// What each replica held; the first and the last at rest.
pub struct HeldAt {
    /// After the warm-up.
    pub before: Vec<Option<Held>>,
    /// In the middle of the faults.
    pub halfway: Vec<Option<Held>>,
    /// At the end.
    pub after: Vec<Option<Held>>,
}

/// All of it.
pub struct Report {
    pub options: Options,
    pub seen: Vec<Seen>,
    pub made: Vec<Made>,
    pub held: HeldAt,
    /// Other promises that were broken.
    pub broken: Vec<String>,
}

/// How many of a kind of problem are shown.
const SHOWN: usize = 10;

const MEBIBYTE: u64 = 1024 * 1024;

impl Report {
    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.seen.iter().filter(|seen| which(&seen.outcome)).count()
    }

    /// How many were served by a layer; `None`: by upstream.
    pub fn right(&self, layer: Option<&str>) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Right(by) if *by == layer))
    }

    /// How many failed as upstream did.
    pub fn upstreams_own(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Upstream)
    }

    /// How many were left by their clients.
    pub fn left(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Left)
    }

    /// The request that took longest, of those that upstream did not keep waiting until they failed.
    fn slowest(&self) -> Option<&Seen> {
        let own = self.seen.iter().filter(|seen| seen.outcome != Outcome::Upstream);
        own.max_by_key(|seen| seen.took)
    }

    fn longest(&self) -> Duration {
        self.slowest().map(|seen| seen.took).unwrap_or_default()
    }

    /// A request, and which faults there were while it was under way.
    fn told(&self, seen: &Seen) -> String {
        let end = seen.started + seen.took;
        let meanwhile = self.made.iter().filter(|made| seen.started <= made.until && made.from <= end);
        let meanwhile: Vec<_> = meanwhile.map(|made| made.kind.name()).collect();
        let Seen { number, took, outcome, .. } = seen;
        format!("request {number}, {} ms, during [{}]: {outcome:?}", took.as_millis(), meanwhile.join(", "))
    }

    /// Every promise that was broken, in words; empty where all were kept.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.broken.clone();
        for seen in &self.seen {
            if matches!(seen.outcome, Outcome::Wrong(_) | Outcome::Lost(_) | Outcome::Failed(_)) {
                problems.push(self.told(seen));
            }
        }
        if self.longest() > STALL_BOUND {
            problems.push(format!("a request took {:?}", self.longest()));
        }
        for (number, (before, after)) in self.held.before.iter().zip(&self.held.after).enumerate() {
            let (Some(before), Some(after)) = (before, after) else { continue };
            let grown = after.memory.saturating_sub(before.memory);
            if grown > MEMORY_BOUND {
                problems.push(format!("replica {number} holds {} MiB more", grown / MEBIBYTE));
            }
            let grown = after.descriptors.saturating_sub(before.descriptors);
            if grown > DESCRIPTOR_BOUND {
                problems.push(format!("replica {number} holds {grown} descriptors more"));
            }
        }
        problems
    }

    fn totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | value | promise |\n| --- | ---: | --- |")?;
        let mut row =
            |what: &str, value: String, promise: &str| writeln!(f, "| {what} | {value} | {promise} |");
        row("requests", self.seen.len().to_string(), "")?;
        row("hits, exact layer", self.right(Some("exact")).to_string(), "")?;
        row("hits, semantic layer", self.right(Some("semantic")).to_string(), "")?;
        row("right, from upstream", self.right(None).to_string(), "")?;
        row("failed as upstream did", self.upstreams_own().to_string(), "")?;
        row("left by their clients", self.left().to_string(), "")?;
        let retried = self.seen.iter().filter(|seen| seen.retried).count();
        row("asked again elsewhere, the replica being killed", retried.to_string(), "")?;
        row("wrong", self.count(|outcome| matches!(outcome, Outcome::Wrong(_))).to_string(), "0")?;
        row("lost", self.count(|outcome| matches!(outcome, Outcome::Lost(_))).to_string(), "0")?;
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed(_)));
        row("failed for a reason not upstream's own", failed.to_string(), "0")?;
        let bound = format!("at most {} ms", STALL_BOUND.as_millis());
        row("longest stall", format!("{} ms", self.longest().as_millis()), &bound)?;
        row("other promises broken", self.broken.len().to_string(), "0")
    }

    fn replicas(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| replica | memory after warm-up | half-way | at the end | descriptors after warm-up | at the end |"
        )?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        let HeldAt { before, halfway, after } = &self.held;
        for (number, ((before, halfway), after)) in before.iter().zip(halfway).zip(after).enumerate() {
            let killed = if number == MORTAL { " (the one killed)" } else { "" };
            let memory = |held: &Option<Held>| {
                held.map_or("–".to_owned(), |held| format!("{:.1} MiB", mebibytes(held.memory)))
            };
            let descriptors =
                |held: &Option<Held>| held.map_or("–".to_owned(), |held| held.descriptors.to_string());
            writeln!(
                f,
                "| {}{killed} | {} | {} | {} | {} | {} |",
                number + 1,
                memory(before),
                memory(halfway),
                memory(after),
                descriptors(before),
                descriptors(after),
            )?;
        }
        let memory = MEMORY_BOUND / MEBIBYTE;
        writeln!(f, "\nNo replica may grow by more than {memory} MiB or {DESCRIPTOR_BOUND} descriptors.")
    }

    fn faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| fault | times | seconds | requests meanwhile | of these failed as upstream did |")?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: |")?;
        for kind in Kind::ALL {
            let made: Vec<_> = self.made.iter().filter(|made| made.kind == kind).collect();
            let during =
                |seen: &&Seen| made.iter().any(|made| (made.from..=made.until).contains(&seen.started));
            let requests: Vec<_> = self.seen.iter().filter(during).collect();
            let failed = requests.iter().filter(|seen| seen.outcome == Outcome::Upstream).count();
            let seconds: f64 =
                made.iter().map(|made| made.until.duration_since(made.from).as_secs_f64()).sum();
            writeln!(
                f,
                "| {} | {} | {seconds:.1} | {} | {failed} |",
                kind.name(),
                made.len(),
                requests.len()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { seed, rate, warm_up, lasting, .. } = self.options;
        writeln!(
            f,
            "seed {seed}, {rate} requests/s, {} s of warm-up, {} s with {} faults\n",
            warm_up.as_secs(),
            lasting.as_secs(),
            self.made.len()
        )?;
        self.totals(f)?;
        writeln!(f)?;
        self.replicas(f)?;
        writeln!(f)?;
        self.faults(f)?;
        if let Some(slowest) = self.slowest() {
            writeln!(f, "\nThe slowest: {}", self.told(slowest))?;
        }
        let verifier = if self.options.verifier { "on" } else { "off" };
        writeln!(f, "\nBy `{}`; verifier {verifier}.", self.options.command())?;
        let problems = self.problems();
        if !problems.is_empty() {
            writeln!(f, "\n**{} promises broken.** By that command the same happens again:", problems.len())?;
            for problem in problems.iter().take(SHOWN) {
                writeln!(f, "- {problem}")?;
            }
        }
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    {
        bytes as f64 / MEBIBYTE as f64
    }
}
