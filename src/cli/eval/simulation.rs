//! `rejoinder eval --simulate-verified`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::{Failure, progress, share, show};
use crate::cli::runtime;
use crate::config::Config;
use crate::eval::judge::Judge;
use crate::eval::pairs::Pair;
use crate::eval::simulate::plot::Plot;
use crate::eval::simulate::text::Text;
use crate::eval::simulate::{Plan, simulate};
use crate::models::Models;
use crate::server;

/// The flags of a simulation.
#[derive(Debug, Args)]
pub(super) struct SimulationFlags {
    /// Simulate mode verified instead: a stream of the pairs' prompts, with the labels as the judge, and how far the
    /// error of what is served stays under --max-error
    #[arg(long, conflicts_with_all = ["rows", "calibrate", "both_ways"])]
    pub(super) simulate_verified: bool,

    /// Requests of each run
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000, requires = "simulate_verified")]
    requests: u32,

    /// Runs, each a stream of its own
    #[arg(long, value_name = "NUMBER", default_value_t = 20, requires = "simulate_verified")]
    runs: u32,

    /// Requests after which the entries of a run have expired
    #[arg(long, value_name = "NUMBER", default_value_t = 5_000, requires = "simulate_verified")]
    lifetime: u32,

    /// The share of comparisons in which the judge errs, whatever the decision is told of it
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.0,
        value_parser = share,
        requires = "simulate_verified"
    )]
    judge_error: f64,
}

impl SimulationFlags {
    /// Simulates, and shows what came of it.
    pub(super) fn run(
        &self,
        config: &Config,
        pairs: &Arc<[Pair]>,
        plot: Option<&Path>,
        json: bool,
    ) -> Result<(), Failure> {
        let simulation = self.simulate(config, pairs).map_err(|error| Failure(error, 1))?;
        if let Some(path) = plot {
            std::fs::write(path, Plot(&simulation).to_string())
                .with_context(|| format!("cannot write {}", path.display()))
                .map_err(|error| Failure(error, 1))?;
        }
        show(&simulation, &Text(&simulation), json).map_err(|error| Failure(error, 1))
    }

    fn simulate(
        &self,
        config: &Config,
        pairs: &Arc<[Pair]>,
    ) -> anyhow::Result<crate::eval::simulate::Simulation> {
        let plan = Plan {
            requests: self.requests,
            runs: self.runs,
            lifetime: self.lifetime,
            judge_error: self.judge_error,
            limits: server::limits(config),
        };
        let runtime = runtime().context("cannot start the runtime")?;
        runtime.block_on(async {
            let models = Models::load(config)?;
            let policy = models.policy(config)?;
            let judge = Judge::new(models, policy, config.cache.rules())?;
            let progress = progress(usize::try_from(plan.runs).unwrap_or(usize::MAX), "runs");
            let simulation = simulate(&judge, pairs, plan, || progress.inc(1)).await;
            progress.finish_and_clear();
            Ok(simulation?)
        })
    }
}
