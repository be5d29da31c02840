//! Three replicas over one Redis at a steady rate, and a fault every few seconds out of a seeded schedule. An oracle
//! knows what every request should have received.
//!
//! Ordinary tests run a few seconds of it, with every fault once. At length: `scripts/soak`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod load;
mod options;
mod replicas;
mod report;
mod schedule;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::time::Duration;

use options::Options;
use schedule::{Kind, Schedule};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_once_costs_nobody_a_reply() {
    let report = stage::soak(Options::short()).await;
    println!("{report}");
    assert!(report.problems().is_empty(), "{report}");
    let kinds: HashSet<_> = report.made.iter().map(|made| made.kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.len(), "{report}");
    for layer in [Some("exact"), Some("semantic"), None] {
        assert!(report.right(layer) > 0, "{layer:?}: {report}");
    }
    assert!(report.upstreams_own() > 0 && report.left() > 0, "{report}");
}

/// By `scripts/soak`, which says how long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes as long as SOAK_MINUTES says; started by scripts/soak"]
async fn at_length() {
    let report = stage::soak(Options::from_environment()).await;
    match std::env::var_os("SOAK_REPORT") {
        Some(file) => std::fs::write(file, report.to_string()).unwrap(),
        None => println!("{report}"),
    }
    let problems = report.problems();
    assert!(problems.is_empty(), "{} promises broken", problems.len());
}

#[test]
fn the_same_seed_gives_the_same_schedule_and_no_place_has_two_faults_at_once() {
    let new =
        |seed| Schedule::new(seed, Duration::from_mins(2), Duration::from_secs(2), Duration::from_secs(3));
    for seed in 0..50 {
        let schedule = new(seed);
        assert_eq!(format!("{schedule:?}"), format!("{:?}", new(seed)));
        assert_ne!(format!("{schedule:?}"), format!("{:?}", new(seed + 1)));
        for (number, event) in schedule.events.iter().enumerate() {
            let place = event.kind.place();
            let there = schedule.events[..number].iter().filter(|other| other.kind.place() == place);
            assert!(there.clone().all(|other| other.until < event.from), "{schedule:?}");
        }
    }
}
