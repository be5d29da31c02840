//! `rejoinder stats --watch`: the running proxy's overview again and again: redrawn in place on a terminal, else a line (or
//! with `--json` a document) each time.
//!
//! Called by `stats`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use console::Term;
use serde_json::Value;

use super::admin_client::{AdminClient, AdminError, harmless, print};
use crate::admin::overview::Overview;
use crate::dialect::template::rfc3339;
use crate::telemetry::histogram::LatencyShape;

/// What is watched, and how it is shown.
pub(super) struct Watch<'a> {
    pub(super) client: &'a AdminClient,
    pub(super) every: Duration,
    pub(super) json: bool,
}

/// The bars of a chart of one line, from none to all.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Watch<'_> {
    /// Shows it until Ctrl-C or SIGTERM, which is how it ends well.
    ///
    /// # Errors
    /// The proxy did not answer the first time, or nobody reads. On a terminal the view waits for a proxy that answers
    /// no more.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let term = Term::stdout();
        if self.json || !term.is_term() {
            return self.until_interrupted(self.lines()).await;
        }
        let mut screen = Screen { term, lines: 0 };
        screen.term.hide_cursor().context("cannot use the terminal")?;
        let shown = self.until_interrupted(self.view(&mut screen)).await;
        // The last picture stays, and what the terminal echoed of Ctrl-C has a line of its own.
        let restored = screen.term.show_cursor().and_then(|()| screen.term.write_line(""));
        restored.context("cannot use the terminal")?;
        shown
    }

    async fn until_interrupted(&self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            ended = work => ended,
            interrupted = interrupted() => interrupted,
        }
    }

    async fn ask(&self) -> Result<Value, AdminError> {
        self.client.get("/overview").await
    }

    /// A line each time.
    async fn lines(&self) -> anyhow::Result<()> {
        loop {
            let document = self.ask().await?;
            let line = if self.json {
                document.to_string()
            } else {
                line(&read(document)?, &rfc3339(std::time::SystemTime::now()))
            };
            print(&(harmless(&line) + "\n"))?;
            tokio::time::sleep(self.every).await;
        }
    }

    /// The view, redrawn each time.
    async fn view(&self, screen: &mut Screen) -> anyhow::Result<()> {
        let mut before: Option<Overview> = None;
        loop {
            match self.ask().await {
                Ok(document) => {
                    let now = read(document)?;
                    screen.draw(&harmless(&view(&now, before.as_ref(), self.every)))?;
                    before = Some(now);
                }
                Err(error) if before.is_some() => screen.draw(&harmless(&error.to_string()))?,
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(self.every).await;
        }
    }
}

#[cfg(unix)]
async fn interrupted() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn interrupted() -> anyhow::Result<()> {
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
}

/// The part of a terminal that is drawn on.
struct Screen {
    term: Term,
    /// Lines drawn.
    lines: usize,
}

impl Screen {
    /// Draws in the place of what was drawn before, as much as fits.
    fn draw(&mut self, text: &str) -> anyhow::Result<()> {
        let (rows, columns) = self.term.size();
        let (rows, columns) = (usize::from(rows.max(2)) - 1, usize::from(columns.max(1)));
        let mut drawn = String::new();
        let lines = text.lines().take(rows);
        let count = lines.clone().count();
        for line in lines {
            drawn.extend(line.chars().take(columns));
            drawn.push('\n');
        }
        let cleared = self.term.move_cursor_up(self.lines).and_then(|()| self.term.clear_to_end_of_screen());
        self.lines = count;
        cleared
            .and_then(|()| self.term.write_all(drawn.as_bytes()))
            .and_then(|()| self.term.flush())
            .context("cannot write to the terminal")
    }
}

fn read(document: Value) -> anyhow::Result<Overview> {
    serde_json::from_value(document).context("the proxy is of another version than this command")
}

/// All that matters in one line.
fn line(overview: &Overview, at: &str) -> String {
    let totals = &overview.totals;
    format!(
        "{at} requests={} hit_rate={:.3} exact={} semantic={} misses={} bypasses={} errors={} saved_tokens={} \
         exact_p50={} semantic_p50={} upstream_p50={}",
        totals.requests,
        totals.hit_rate,
        totals.exact_hits,
        totals.semantic_hits,
        totals.misses,
        totals.bypasses,
        totals.errors,
        overview.saved.prompt_tokens + overview.saved.completion_tokens,
        milliseconds(overview.latency.exact.p50_ms, ""),
        milliseconds(overview.latency.semantic.p50_ms, ""),
        milliseconds(overview.latency.upstream.p50_ms, ""),
    )
}

/// The view. What came since the time before is shown by the second.
fn view(now: &Overview, before: Option<&Overview>, every: Duration) -> String {
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = write_view(&mut text, now, before, every);
    text
}

fn write_view(
    text: &mut String,
    now: &Overview,
    before: Option<&Overview>,
    every: Duration,
) -> std::fmt::Result {
    let up = humantime::format_duration(Duration::from_secs(now.uptime_s));
    writeln!(text, "rejoinder {} · mode {} · up {up} · Ctrl-C ends", now.version, now.mode)?;
    let model = now.embedder.model.as_deref().unwrap_or("no embedder");
    let (store, state) = (&now.store, now.store.state.as_str());
    writeln!(
        text,
        "{} store {state}, {} entries · {model} {}",
        store.kind,
        store.entries,
        now.embedder.state.as_str()
    )?;
    if let Some(problem) = &store.problem {
        writeln!(text, "{problem}")?;
    }
    write_layers(text, now, before, every)?;
    let saved = &now.saved;
    let (prompts, replies) = (saved.prompt_tokens, saved.completion_tokens);
    writeln!(text, "\ntokens saved  {} ({prompts} of prompts, {replies} of replies)", prompts + replies)?;
    for (currency, amount) in &saved.money {
        writeln!(text, "money saved   {amount:.2} {currency}")?;
    }
    writeln!(text, "time saved    {:.0} s of upstream's", saved.seconds)?;
    if !now.miss_reasons.is_empty() {
        writeln!(text, "\nmisses by reason")?;
    }
    let mut reasons: Vec<_> = now.miss_reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (reason, count) in reasons {
        writeln!(text, "  {reason:<22}{count:>8}")?;
    }
    writeln!(text, "\nhit rate, the last 15 minutes\n{}", chart(now))
}

/// A number of an overview.
type Count = fn(&Overview) -> u64;

/// What each layer served.
fn write_layers(
    text: &mut String,
    now: &Overview,
    before: Option<&Overview>,
    every: Duration,
) -> std::fmt::Result {
    writeln!(
        text,
        "\n{:<16}{:>10}{:>10}{:>10}{:>12}{:>12}",
        "", "requests", "share", "a second", "median", "99 %"
    )?;
    let looked_up = now.totals.exact_hits + now.totals.semantic_hits + now.totals.misses;
    let rows: [(&str, Count, Option<&LatencyShape>, bool); 6] = [
        ("hits", |seen| seen.totals.exact_hits + seen.totals.semantic_hits, None, true),
        ("  exact", |seen| seen.totals.exact_hits, Some(&now.latency.exact), true),
        ("  semantic", |seen| seen.totals.semantic_hits, Some(&now.latency.semantic), true),
        ("misses", |seen| seen.totals.misses, Some(&now.latency.upstream), true),
        ("not looked up", |seen| seen.totals.bypasses, None, false),
        ("errors", |seen| seen.totals.errors, None, false),
    ];
    for (name, count, latency, of_all) in rows {
        let total = count(now);
        let share = if of_all { percent(total, looked_up) } else { String::new() };
        let rate = before.map(|before| rate(total.saturating_sub(count(before)), every)).unwrap_or_default();
        let median = latency.map(|latency| milliseconds(latency.p50_ms, " ms")).unwrap_or_default();
        let most = latency.map(|latency| milliseconds(latency.p99_ms, " ms")).unwrap_or_default();
        writeln!(text, "{name:<16}{total:>10}{share:>10}{rate:>10}{median:>12}{most:>12}")?;
    }
    Ok(())
}

/// The hit rate of each step in a line of bars; a blank where nothing was looked up.
fn chart(overview: &Overview) -> String {
    let series = &overview.series;
    let steps = series.exact.iter().zip(&series.semantic).zip(&series.upstream);
    let bar = |((exact, semantic), upstream): ((&u64, &u64), &u64)| {
        let hits = exact + semantic;
        let of = hits + upstream;
        let height = (hits * 7).checked_div(of).and_then(|height| usize::try_from(height).ok());
        height.and_then(|height| BARS.get(height).copied()).unwrap_or(' ')
    };
    steps.map(bar).collect()
}

fn milliseconds(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}{unit}"))
}

fn percent(part: u64, all: u64) -> String {
    if all == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
    let share = part as f64 / all as f64 * 100.0;
    format!("{share:.1} %")
}

fn rate(count: u64, every: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
    let rate = count as f64 / every.as_secs_f64();
    format!("{rate:.1}")
}
