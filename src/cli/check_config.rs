//! `rejoinder check-config`: validates a configuration and prints the one in force.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::{environment, failed};
use crate::config::{Config, ConfigError, Flags, Problem};

/// Validate a configuration and print the one in force, secrets masked.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Exit codes: 0 right; 2 wrong, with the key, its line and the reason, or wrong usage."
)]
pub(super) struct CheckConfig {
    /// The file to check [default: the one of --config]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Print JSON: the configuration, or what is wrong with it as {"error": {"file", "line", "key", "reason"}}
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    flags: Flags,
}

impl CheckConfig {
    pub(super) fn run(self) -> ExitCode {
        let flags = Flags { config: self.file.or(self.flags.config), ..self.flags };
        let config = match Config::load(flags, &environment) {
            Ok(config) => config,
            Err(error) => return wrong(error, self.json),
        };
        for warning in &config.upstream.warnings {
            eprintln!("warning: {warning}");
        }
        let shown = if self.json {
            serde_json::to_string_pretty(&config).map(|text| text + "\n").map_err(anyhow::Error::from)
        } else {
            toml::to_string(&config).map_err(anyhow::Error::from)
        };
        match shown.context("the configuration cannot be shown") {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error, 2),
        }
    }
}

fn wrong(error: ConfigError, json: bool) -> ExitCode {
    if json {
        println!("{}", json!({"error": Problem::from(&error)}));
    }
    failed(&error.into(), 2)
}
