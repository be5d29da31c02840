//! `rejoinder completions`: completion scripts, made from the command line's own definition.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print a completion script, as `rejoinder completions bash > /etc/bash_completion.d/rejoinder`.
#[derive(Debug, Args)]
#[command(after_long_help = "Exit codes: 0 printed; 2 wrong usage.")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> ExitCode {
        clap_complete::generate(self.shell, &mut Cli::command(), "rejoinder", &mut std::io::stdout());
        ExitCode::SUCCESS
    }
}
