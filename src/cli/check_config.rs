//! `rejoinder check-config`: validates a configuration and prints the one in force.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{environment, failed};
use crate::config::{Config, Flags};

/// Validate a configuration and print the one in force, secrets masked.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Exit codes: 0 right; 2 wrong, with the key, its line and the reason, or wrong usage."
)]
pub(super) struct CheckConfig {
    /// The file to check [default: the one of --config]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    flags: Flags,
}

impl CheckConfig {
    pub(super) fn run(self) -> ExitCode {
        let flags = Flags { config: self.file.or(self.flags.config), ..self.flags };
        let checked = Config::load(flags, &environment).map_err(anyhow::Error::from);
        match checked.and_then(|config| toml::to_string(&config).context("the configuration cannot be shown"))
        {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error, 2),
        }
    }
}
