//! `rejoinder eval --observed`: a calibration from what a running proxy has compared in mode observe.

use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;

use super::{show, write_calibration};
use crate::cache::observations::ComparedByBasis;
use crate::cli::admin_client::{AdminClient, AdminFlags, wait};
use crate::cli::environment;
use crate::eval::fit::fit_observed;
use crate::eval::text::Fitted;

/// The flags by which a running proxy takes the place of the pairs.
#[derive(Debug, Args)]
pub(super) struct ObservedFlags {
    /// Instead of PAIRS: what a running proxy has compared in mode observe, asked of its admin listener (--admin).
    /// Needs --calibrate
    #[arg(long, requires = "calibrate", conflicts_with_all = ["file", "both_ways", "rows", "plot", "simulate_verified"])]
    observed: bool,

    #[command(flatten)]
    admin: AdminFlags,
}

/// What is read of `GET /observations`.
#[derive(Debug, Deserialize)]
struct Observations {
    embedder: Option<String>,
    compared: ComparedByBasis,
}

impl ObservedFlags {
    /// Fits a curve, writes it and says so.
    pub(super) fn run(&self, path: &Path, json: bool) -> anyhow::Result<()> {
        let observations: Observations = wait(async {
            let client = AdminClient::new(&self.admin, &environment)?;
            Ok(client.get("/observations").await?)
        })?;
        let embedder = observations.embedder.context(
            "the proxy has no embedder, so there is nothing to calibrate; start it with one and --mode observe",
        )?;
        let fit = fit_observed(&observations.compared).context(
            "cannot calibrate from what the proxy has compared: let it run longer in mode observe (rejoinder stats \
             tells how far it is)",
        )?;
        let file = write_calibration(path, &embedder, fit)?;
        show(&file, &Fitted(&file), json)
    }
}
