//! `rejoinder config-reference`, for those who work on it: prints what `docs/configuration.md` must be.

use std::process::ExitCode;

use crate::config::reference;

/// Prints the page.
pub(super) fn run() -> ExitCode {
    print!("{}", reference::page());
    ExitCode::SUCCESS
}
