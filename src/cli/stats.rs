//! `rejoinder stats`: what a running proxy has served and saved, and what observation and audits say of its hits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::admin_client::{AdminClient, AdminError, AdminFlags, harmless, print, wait};
use super::watch::Watch;
use super::{environment, failed};
use crate::admin::trials::{Audits, Observations, Verified};
use crate::cache::observations::{ObservationReport, OperatingPoint, Tally};
use crate::rate::Rate;

/// Models in the table for people.
const MODELS: usize = 10;

/// Show what a running proxy has served and saved.
///
/// Asks its admin listener for the hit rate of each layer, misses, tokens, money and time saved, and embeddings, and where there is
/// any for what mode observe has seen, what mode verified has learned, and what audits have found.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Exit codes: 0 shown; 1 the proxy did not answer, or refused the token; 2 wrong usage."
)]
pub(super) struct Stats {
    #[command(flatten)]
    admin: AdminFlags,

    /// Print one JSON document: {"counters", "observations", "verified", "audits"}, as the admin listener gives them
    #[arg(long)]
    json: bool,

    /// Show it again and again until Ctrl-C: redrawn in place on a terminal, else a line each time; with --json the
    /// overview (GET /overview) as a document a line
    #[arg(long)]
    watch: bool,

    /// How long to wait before it is shown again
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval, requires = "watch")]
    every: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if every < Duration::from_millis(100) {
        return Err("too short; give 100ms or longer".to_owned());
    }
    Ok(every)
}

/// All that is asked.
#[derive(Debug, Serialize)]
struct Report {
    counters: Value,
    observations: Value,
    verified: Value,
    audits: Value,
}

impl Stats {
    pub(super) fn run(self) -> ExitCode {
        let printed = if self.watch { wait(self.watch()) } else { self.once() };
        match printed {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, 1),
        }
    }

    async fn watch(&self) -> anyhow::Result<()> {
        let client = AdminClient::new(&self.admin, &environment)?;
        Watch { client: &client, every: self.every, json: self.json }.run().await
    }

    fn once(&self) -> anyhow::Result<()> {
        wait(async { Ok(self.ask().await?) }).and_then(|report| {
            let text =
                if self.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text()? };
            print(&harmless(&text))
        })
    }

    async fn ask(&self) -> Result<Report, AdminError> {
        let client = AdminClient::new(&self.admin, &environment)?;
        Ok(Report {
            counters: client.get("/internal/metrics").await?,
            observations: client.get("/observations").await?,
            verified: client.get("/verified").await?,
            audits: client.get("/audits").await?,
        })
    }
}

/// What is read of `GET /internal/metrics`.
#[derive(Debug, Deserialize)]
struct Counters {
    exact_hits: u64,
    semantic_hits: u64,
    misses: u64,
    llm_calls: u64,
    embeddings: u64,
    bypasses: u64,
    errors: u64,
    tokens_saved: u64,
    saved: Saved,
}

/// What is read of `saved` in it.
#[derive(Debug, Deserialize)]
struct Saved {
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
    seconds: f64,
    money: BTreeMap<String, f64>,
    unknown: Unknown,
    models: Vec<ModelSaved>,
}

/// Hits of which something is not known.
#[derive(Debug, Deserialize)]
struct Unknown {
    usage: u64,
    price: u64,
    seconds: u64,
}

#[derive(Debug, Deserialize)]
struct ModelSaved {
    model: String,
    hits: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    seconds: f64,
    money: Option<BTreeMap<String, f64>>,
}

impl Report {
    fn text(&self) -> anyhow::Result<String> {
        let read = "the proxy is of another version than this command";
        let counters: Counters = serde_json::from_value(self.counters.clone()).context(read)?;
        let observations: Observations = serde_json::from_value(self.observations.clone()).context(read)?;
        let audits: Audits = serde_json::from_value(self.audits.clone()).context(read)?;
        let verified: Verified = serde_json::from_value(self.verified.clone()).context(read)?;
        let mut text = String::new();
        counters.write(&mut text)?;
        if observations.report.requests > 0 {
            text.push('\n');
            write_observations(&mut text, &observations)?;
        }
        if verified.active {
            text.push('\n');
            write_verified(&mut text, &verified)?;
        }
        if audits.audited + audits.skipped > 0 || audits.audit_share > 0.0 {
            text.push('\n');
            write_audits(&mut text, &audits)?;
        }
        Ok(text)
    }
}

impl Counters {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let looked_up = self.exact_hits + self.semantic_hits + self.misses;
        let hits = self.exact_hits + self.semantic_hits;
        writeln!(text, "requests looked up  {looked_up}")?;
        for (name, count) in [
            ("hits", hits),
            ("  exact", self.exact_hits),
            ("  semantic", self.semantic_hits),
            ("misses", self.misses),
        ] {
            writeln!(text, "{name:<18}  {count}{}", of(count, looked_up))?;
        }
        for (name, count) in [
            ("not looked up", self.bypasses),
            ("upstream calls", self.llm_calls),
            ("errors", self.errors),
            ("embeddings", self.embeddings),
            ("tokens saved", self.tokens_saved),
        ] {
            writeln!(text, "{name:<18}  {count}")?;
        }
        self.saved.write(text)
    }
}

impl Saved {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        for (name, count) in [
            ("  of prompts", self.prompt_tokens),
            ("    cached", self.cached_tokens),
            ("  of replies", self.completion_tokens),
            ("    reasoning", self.reasoning_tokens),
        ] {
            if count > 0 {
                writeln!(text, "{name:<18}  {count}")?;
            }
        }
        if self.models.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "{:<18}  {}",
            "money saved",
            amounts(&self.money).unwrap_or("no price is known".to_owned())
        )?;
        writeln!(text, "{:<18}  {:.1} s", "upstream's time", self.seconds)?;
        let Unknown { usage, price, seconds } = self.unknown;
        for (name, count) in [("tokens", usage), ("price", price), ("upstream's time", seconds)] {
            if count > 0 {
                writeln!(text, "{:<18}  {name} of {count} hits", "  not known")?;
            }
        }
        writeln!(
            text,
            "\n{:<40}{:>10}{:>14}{:>14}{:>12}  money",
            "model", "hits", "prompt", "reply", "seconds"
        )?;
        for of_model in self.models.iter().take(MODELS) {
            let ModelSaved { model, hits, prompt_tokens, completion_tokens, seconds, money } = of_model;
            let money = money.as_ref().and_then(amounts).unwrap_or("–".to_owned());
            writeln!(
                text,
                "{model:<40}{hits:>10}{prompt_tokens:>14}{completion_tokens:>14}{seconds:>12.1}  {money}"
            )?;
        }
        match self.models.len().saturating_sub(MODELS) {
            0 => Ok(()),
            more => writeln!(text, "and {more} more, see --json"),
        }
    }
}

/// `1.20 USD + 3.00 EUR`; small sums with more digits.
fn amounts(money: &BTreeMap<String, f64>) -> Option<String> {
    let shown = |(currency, amount): (&String, &f64)| {
        let digits = if *amount == 0.0 || *amount >= 1.0 { 2 } else { 6 };
        format!("{amount:.digits$} {currency}")
    };
    let all: Vec<_> = money.iter().map(shown).collect();
    (!all.is_empty()).then(|| all.join(" + "))
}

fn write_observations(text: &mut String, observations: &Observations) -> std::fmt::Result {
    let Observations { similarity_threshold, min_confidence, report, .. } = observations;
    let ObservationReport { since, requests, comparisons_dropped, .. } = report;
    writeln!(text, "observed since {since}: {requests} requests, served from upstream and compared")?;
    writeln!(text, "{:<34}{:>24}{:>24}  same/different/unclear", "", "hit rate", "error")?;
    line(text, "exact (upstream's own)", &report.exact)?;
    let configured = format!("semantic as configured ({similarity_threshold}/{min_confidence})");
    line(text, &configured, &report.semantic)?;
    for point in &report.semantic_points {
        // The document has every step of 0.01; every tenth of those that somebody would choose is enough here.
        let Some(floor) = point.min_confidence.filter(|floor| *floor >= 0.5) else { continue };
        let twentieths = floor * 20.0;
        if point.tally.found > 0 && (twentieths - twentieths.round()).abs() < 1e-6 {
            line(text, &format!("semantic, confidence {floor:.2}"), point)?;
        }
    }
    if *comparisons_dropped > 0 {
        writeln!(text, "{comparisons_dropped} were not compared, since too many waited")?;
    }
    Ok(())
}

fn write_verified(text: &mut String, verified: &Verified) -> std::fmt::Result {
    let Verified { served, explored, same, different, unclear, setbacks, .. } = verified;
    let (error, confidence) = (percent(verified.max_error), percent(verified.confidence));
    writeln!(text, "verified: at most {error} wrong, with a confidence of {confidence}")?;
    writeln!(text, "  served            {served}")?;
    writeln!(text, "  explored          {explored}")?;
    writeln!(text, "  same/different/unclear  {same}/{different}/{unclear}")?;
    match verified.least_trust {
        Some(trust) => writeln!(text, "  served from a trust of  {trust:.3}")?,
        None => writeln!(text, "  nothing is served by meaning yet: too little is known")?,
    }
    if *setbacks > 0 {
        writeln!(text, "  trust taken back  {setbacks}")?;
    }
    Ok(())
}

fn write_audits(text: &mut String, audits: &Audits) -> std::fmt::Result {
    let Audits { audited, same, different, unclear, skipped, poisoned, .. } = audits;
    writeln!(text, "audited hits        {audited} ({} of all drawn)", percent(audits.audit_share))?;
    writeln!(text, "  same/different/unclear  {same}/{different}/{unclear}")?;
    writeln!(text, "  false-hit rate    {}", shown(&audits.false_hit_rate))?;
    writeln!(text, "  entries not served again  {poisoned}")?;
    if *skipped > 0 {
        writeln!(text, "  skipped for want of room  {skipped}")?;
    }
    Ok(())
}

fn line(text: &mut String, name: &str, point: &OperatingPoint) -> std::fmt::Result {
    let OperatingPoint { tally: Tally { same, different, unclear, .. }, hit_rate, error, .. } = point;
    let (hit_rate, error) = (shown(hit_rate), shown(error));
    writeln!(text, "{name:<34}{hit_rate:>24}{error:>24}  {same}/{different}/{unclear}")
}

/// A share and its interval: `12.0 % (9.1–15.6 %)`.
fn shown(rate: &Rate) -> String {
    match rate.value {
        Some(value) if rate.count <= rate.of => {
            format!("{} ({:.1}–{:.1} %)", percent(value), rate.low * 100.0, rate.high * 100.0)
        }
        _ => "–".to_owned(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn of(count: u64, all: u64) -> String {
    if all == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
    let share = count as f64 / all as f64;
    format!("  ({})", percent(share))
}
