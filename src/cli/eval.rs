//! `rejoinder eval`: measures the reuse decision over labelled pairs.

mod observed;
mod simulation;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::observed::ObservedFlags;
use self::simulation::SimulationFlags;
use super::{environment, failed, runtime};
use crate::cache::calibration::{Calibration, CalibrationFile};
use crate::cache::decision::{Floors, MissReason, Policy};
use crate::cache::guard::Rule;
use crate::cache::outcome::Layer;
use crate::config::{Config, EmbedderKind, Flags};
use crate::eval::fit::{Fit, fit};
use crate::eval::judge::{Judge, Judged, Options};
use crate::eval::pairs::{self, BadLine, Format, Pair};
use crate::eval::plot::Plot;
use crate::eval::report::Material;
use crate::eval::text::Text;
use crate::models::Models;

/// How many bad lines are named; the rest are counted.
const NAMED: usize = 20;

const EXPLANATION: &str = "\
PAIRS has for each pair two prompts, a and b, and a label: 1 where one stored reply answers both, 0 where it does \
not; and, where there are, a kind and a source. a is stored and b asked of the very cache that serves requests, \
with the embedder, the rules and the operating point that flags, environment and configuration give, and what would \
have been reused is counted, at other operating points too.

With --observed nothing is measured: what a running proxy has compared in mode observe is made the calibration of \
--calibrate.

Exit codes: 0 measured; 1 not measured, since the embedder failed, a \
file could not be written, or the pairs cannot be calibrated; 2 wrong usage or \
configuration, no such file, bad lines, or no pairs.";

/// Measure precision, recall, false-hit rate and hit rate over labelled pairs of prompts.
#[derive(Debug, Args)]
#[command(
    after_long_help = EXPLANATION,
    mut_arg("listen", hidden), mut_arg("admin_listen", hidden), 
    mut_arg("data_dir", hidden), mut_arg("mode", hidden), mut_arg("max_error", max_error), mut_arg("ttl", hidden), mut_arg("log_format", hidden),
)]
pub(super) struct Eval {
    /// The pairs: CSV whose first line names the columns, or one JSON object a line; - reads standard input
    #[arg(value_name = "PAIRS", required_unless_present = "observed")]
    file: Option<PathBuf>,

    /// How PAIRS is written [default: by its name's ending, else by its first character]
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Leave out lines that are no pairs, instead of refusing the file
    #[arg(long)]
    skip_bad: bool,

    /// Ask each pair the other way round too: b stored, a asked
    #[arg(long)]
    both_ways: bool,

    /// Print the report as one JSON document
    #[arg(long)]
    json: bool,

    /// Write each pair with what became of it to this CSV file
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,

    /// Draw recall over false-hit rate, and how often confidence comes true, into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Fit confidence to these pairs and write it to this file, which `serve` takes as cache.calibration: for
    /// embedders other than the built-in one, or prompts other than most
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,

    #[command(flatten)]
    observed: ObservedFlags,

    #[command(flatten)]
    simulation: SimulationFlags,

    #[command(flatten)]
    flags: Flags,
}

/// What of the flags of `serve` says nothing here.
fn hidden(argument: clap::Arg) -> clap::Arg {
    argument.hide(true)
}

/// What `--max-error` means here.
fn max_error(argument: clap::Arg) -> clap::Arg {
    argument.help(
        "The error to keep to, 0 to 1 [default: 0.02]: the share of pairs with different answers that may be reused, \
         or, simulated, that of wrong ones among semantic hits",
    )
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no share between 0 and 1"))
}

/// Why there is no report, with the exit code.
struct Failure(anyhow::Error, u8);

impl Eval {
    pub(super) fn run(self) -> ExitCode {
        match self.evaluate() {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure(error, code)) => failed(&error, code),
        }
    }

    fn evaluate(self) -> Result<(), Failure> {
        let usage = |error| Failure(error, 2);
        let mut config =
            Config::load(self.flags.clone(), &environment).map_err(|error| usage(error.into()))?;
        hurry(&mut config);
        let broken = |error| Failure(error, 1);
        let Some(file) = &self.file else {
            // The command line is refused without either, and without a file to write to.
            return self
                .observed
                .run(self.calibrate.as_deref().unwrap_or(Path::new("")), self.json)
                .map_err(broken);
        };
        let (pairs, skipped) = self.pairs(file).map_err(usage)?;
        if config.embedder == EmbedderKind::Off {
            return Err(usage(anyhow::anyhow!(
                "embedder = \"off\" leaves the exact layer alone, of which there is nothing to measure"
            )));
        }
        if self.simulation.simulate_verified {
            return self.simulation.run(&config, &pairs, self.plot.as_deref(), self.json);
        }
        let Found { embedder, policy, judged } =
            judge(&config, Arc::clone(&pairs), self.both_ways).map_err(broken)?;
        if let Some(path) = &self.rows {
            write_rows(path, &pairs, &judged, policy.floors())
                .with_context(|| format!("cannot write {}", path.display()))
                .map_err(broken)?;
        }
        let calibration = self
            .calibrate
            .as_ref()
            .map(|path| calibrate(path, &embedder, &pairs, &judged, policy.calibration))
            .transpose();
        let material = Material {
            file: file.display().to_string(),
            embedder,
            pairs: &pairs,
            judged: &judged,
            skipped,
            floors: policy.floors(),
            max_error: config.max_error,
            calibration: calibration.map_err(broken)?,
        };
        let report = material.report();
        if let Some(path) = &self.plot {
            std::fs::write(path, Plot(&report).to_string())
                .with_context(|| format!("cannot write {}", path.display()))
                .map_err(broken)?;
        }
        show(&report, &Text(&report), self.json).map_err(broken)
    }

    fn pairs(&self, file: &Path) -> anyhow::Result<(Arc<[Pair]>, Vec<BadLine>)> {
        let name = file.display();
        let standard_input = file.as_os_str() == "-";
        let input: Box<dyn Read> = if standard_input {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(file).with_context(|| format!("cannot read {name}"))?)
        };
        let format = self.format.or_else(|| Format::of_path(file));
        let read = pairs::read(input, format).with_context(|| format!("cannot read {name}"))?;
        if !read.bad.is_empty() {
            name_lines(file, &read.bad);
            if !self.skip_bad {
                anyhow::bail!(
                    "{name}: {} lines are no pairs; mend them, or leave them out by --skip-bad",
                    read.bad.len()
                );
            }
        }
        if read.pairs.is_empty() {
            anyhow::bail!("{name}: there are no pairs in it");
        }
        Ok((read.pairs.into(), read.bad))
    }
}

/// Prints what came out, as JSON or as text.
fn show(value: &impl Serialize, text: &impl Display, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        write!(out, "{text}")
    };
    match written.and_then(|()| out.flush()) {
        // Whoever closed the pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the report"),
    }
}

fn name_lines(file: &Path, bad: &[BadLine]) {
    for BadLine { line, reason } in bad.iter().take(NAMED) {
        eprintln!("{}:{line}: {reason}", file.display());
    }
    if let Some(more) = bad.len().checked_sub(NAMED).filter(|more| *more > 0) {
        eprintln!("… and {more} more");
    }
}

/// All cores, and no limit on waits but a generous one: nobody else is served meanwhile.
fn hurry(config: &mut Config) {
    if config.embedding.threads == 0 {
        config.embedding.threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    }
    config.embedding.queue = NonZeroUsize::new(workers(config) * 2).unwrap_or(NonZeroUsize::MIN);
    config.embedding.timeout = config.embedding.timeout.max(Duration::from_mins(1));
}

/// Pairs judged at the same time: enough that no thread of the embedder waits for work, or, of an embedder on a
/// server, as many as a small one bears.
fn workers(config: &Config) -> usize {
    match config.embedder {
        EmbedderKind::Builtin => config.embedding.threads.clamp(1, 1024) * 2,
        _ => 8,
    }
}

/// What was asked, and what the cache said.
struct Found {
    embedder: String,
    policy: Policy,
    judged: Vec<Judged>,
}

fn judge(config: &Config, pairs: Arc<[Pair]>, both_ways: bool) -> anyhow::Result<Found> {
    let runtime = runtime().context("cannot start the runtime")?;
    runtime.block_on(async {
        let models = Models::load(config)?;
        let policy = models.policy(config)?;
        let judge = Arc::new(Judge::new(models, policy, config.cache.rules())?);
        let name = judge.embedder().to_owned();
        let progress = progress(pairs.len(), "pairs");
        let options = Options { workers: workers(config), both_ways };
        let judged = judge.judge_all(pairs, options, || progress.inc(1)).await;
        progress.finish_and_clear();
        Ok(Found { embedder: name, policy, judged: judged? })
    })
}

fn calibrate(
    path: &Path,
    embedder: &str,
    pairs: &[Pair],
    judged: &[Judged],
    calibration: Calibration,
) -> anyhow::Result<CalibrationFile> {
    let fit = fit(pairs, judged, calibration).context("cannot calibrate")?;
    write_calibration(path, embedder, fit)
}

fn write_calibration(path: &Path, embedder: &str, fit: Fit) -> anyhow::Result<CalibrationFile> {
    let file = CalibrationFile::new(embedder.to_owned(), fit.curve, fit.pairs, fit.positive, fit.error);
    std::fs::write(path, file.to_text()?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// A bar on a terminal, nothing elsewhere.
fn progress(steps: usize, unit: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(steps).unwrap_or(u64::MAX));
    let template = format!("{{bar:32}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
    bar.with_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// One line for each judgement: the pair, and what became of it at the operating point.
fn write_rows(path: &Path, pairs: &[Pair], judged: &[Judged], floors: Floors) -> anyhow::Result<()> {
    let mut out = csv::Writer::from_path(path)?;
    out.write_record([
        "line",
        "stored",
        "asked",
        "label",
        "kind",
        "source",
        "outcome",
        "similarity",
        "confidence",
        "rule",
        "score",
        "soft_rules",
    ])?;
    for (pair, judged) in pairs.iter().zip(judged) {
        let prompts = [(&pair.a, &pair.b), (&pair.b, &pair.a)];
        for ((stored, asked), judgement) in prompts.into_iter().zip(judged.ways()) {
            let similarity = judgement.similarity.map(|similarity| format!("{similarity:.6}"));
            let score = judgement.likeness.and_then(|likeness| likeness.score);
            let score = score.map(|score| format!("{:.6}", score.0));
            let differences =
                judgement.likeness.and_then(|likeness| likeness.differences).unwrap_or_default();
            let soft: Vec<_> = differences.soft.iter().map(Rule::name).collect();
            out.write_record([
                pair.line.to_string().as_str(),
                stored,
                asked,
                if pair.same { "1" } else { "0" },
                &pair.kind,
                &pair.source,
                judgement.outcome(floors).map_or_else(MissReason::as_str, Layer::as_str),
                similarity.as_deref().unwrap_or_default(),
                &format!("{:.6}", judgement.confidence),
                judgement.rule.unwrap_or_default(),
                &score.unwrap_or_default(),
                &soft.join(" "),
            ])?;
        }
    }
    Ok(out.flush()?)
}
