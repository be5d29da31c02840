//! Measures the look-alike guard over labelled prompt pairs.
//!
//! `cargo run --release --example measure_guard -- PAIRS.csv [--rows]`
//!
//! PAIRS.csv has the columns `a,b,label,kind`. Prints, per kind, how many pairs the guard lets pass, which
//! rules spoke, and the time of a comparison; with `--rows` one line per pair instead (label, kind,
//! verdict, both prompts, by tabs) for further evaluation.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rejoinder::cache::guard::{self, Prepared, Verdict};

#[path = "../tests/support/csv.rs"]
mod csv;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("usage: measure_guard PAIRS.csv [--rows]")?;
    let rows = arguments.next().as_deref() == Some("--rows");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    guard::warm_up();

    let mut kinds: BTreeMap<String, (u32, u32, BTreeMap<&str, u32>)> = BTreeMap::new();
    let (mut prepare, mut compare, mut count) = (Duration::ZERO, Duration::ZERO, 0_u32);
    for record in csv::records(&text).skip(1) {
        let [a, b, label, kind, ..] = record.as_slice() else { continue };
        let started = Instant::now();
        let (left, right) = (Prepared::new(a), Prepared::new(b));
        let between = Instant::now();
        let verdict = left.compare(&right);
        compare += between.elapsed();
        prepare += between - started;
        count += 1;
        let rule = match verdict {
            Verdict::Alike => "-",
            Verdict::Differs(rule) => rule.name(),
        };
        if rows {
            let leaning = guard::exact_only(a).or(guard::exact_only(b)).map_or("-", guard::Leaning::name);
            println!("{label}\t{kind}\t{rule}\t{leaning}\t{a:?}\t{b:?}");
            continue;
        }
        let entry = kinds.entry(kind.clone()).or_default();
        entry.0 += 1;
        entry.1 += u32::from(verdict == Verdict::Alike);
        if verdict != Verdict::Alike {
            *entry.2.entry(rule).or_default() += 1;
        }
    }
    if rows {
        return Ok(());
    }
    println!("{:<18} {:>6} {:>6} {:>7}  rules", "kind", "pairs", "passed", "share");
    for (kind, (pairs, passed, rules)) in &kinds {
        let mut rules: Vec<_> = rules.iter().collect();
        rules.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let rules: Vec<String> = rules.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
        println!(
            "{kind:<18} {pairs:>6} {passed:>6} {:>7.3}  {}",
            f64::from(*passed) / f64::from(*pairs),
            rules.join(", ")
        );
    }
    if count > 0 {
        println!(
            "{count} pairs; per pair: preparing both {:?}, comparing {:?}",
            prepare / count,
            compare / count
        );
    }
    Ok(())
}
