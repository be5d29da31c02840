//! `rejoinder man`: the manual pages, made from the command line's own definition.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory};
use clap_mangen::roff::{Roff, roman};

use super::{Cli, failed};

/// Where a command's help tells its exit codes: its last paragraph.
const EXIT_CODES: &str = "Exit codes: ";

/// Print the manual page, as `rejoinder man | man -l -`, or write those of all commands into a folder.
#[derive(Debug, Args)]
#[command(after_long_help = "Exit codes: 0 printed or written; 1 a file cannot be written; 2 wrong usage.")]
pub(super) struct Man {
    /// Write a page for each command into this folder, as rejoinder.1 and rejoinder-serve.1
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> ExitCode {
        match self.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, 1),
        }
    }

    fn print(&self) -> anyhow::Result<()> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        match &self.folder {
            Some(folder) => write_all(&command, folder),
            None => std::io::stdout().write_all(&page(command)?).context("cannot print the page"),
        }
    }
}

/// Writes the page of a command and of all below it.
fn write_all(command: &Command, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.1"));
    let text = page(command.clone())?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .try_for_each(|below| write_all(below, folder))
}

/// The page of one command. Its exit codes have a section of their own, as manual pages have it.
fn page(command: Command) -> std::io::Result<Vec<u8>> {
    let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let (explanation, codes) = help.split_once(EXIT_CODES).unwrap_or((&help, ""));
    let has_options = command.get_arguments().any(|argument| !argument.is_hide_set());
    let has_commands = command.has_subcommands();
    let source = format!("rejoinder {}", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command).source(source);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if has_options {
        man.render_options_section(&mut page)?;
    }
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::default();
    let explanation = explanation.trim();
    if !explanation.is_empty() {
        rest.control("SH", ["NOTES"]);
        for paragraph in explanation.split("\n\n") {
            rest.control("PP", []);
            // What is indented is meant as it stands.
            let as_it_stands = paragraph.lines().all(|line| line.starts_with("  "));
            if as_it_stands {
                rest.control("nf", []);
            }
            for line in paragraph.lines() {
                rest.text([roman(line)]);
            }
            if as_it_stands {
                rest.control("fi", []);
            }
        }
    }
    if !codes.is_empty() {
        rest.control("SH", ["EXIT STATUS"]);
        for code in codes.trim().trim_end_matches('.').split("; ") {
            rest.control("PP", []);
            rest.text([roman(code)]);
        }
    }
    rest.to_writer(&mut page)?;
    Ok(page)
}
