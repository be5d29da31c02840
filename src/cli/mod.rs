//! The command line: one file per command. Parses, calls, and turns what went wrong into words and an exit code.

mod admin_client;
mod check_config;
mod completions;
mod config_reference;
mod demo;
mod entries;
mod eval;
mod export;
mod healthcheck;
mod import;
mod man;
mod notify;
mod purge;
mod reload;
mod serve;
mod stats;
mod watch;

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::causes::causes;

/// A cache in front of the model: a transparent proxy for OpenAI-, Anthropic- and Ollama-compatible APIs that
/// answers repeated questions, also reworded ones, from its store.
///
/// Start `rejoinder serve` beside your model server and point clients at http://127.0.0.1:11435 instead:
/// OLLAMA_HOST for Ollama, base_url (with /v1) for OpenAI clients. Try it without either by `rejoinder demo`.
#[derive(Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "these are the help texts of the command line, which is no Markdown")]
#[command(name = "rejoinder", version, propagate_version = true, after_long_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Serve(Box<serve::Serve>),
    /// Show what it does, with a simulated upstream: cold, exact, paraphrase, look-alike, bypass, streaming
    Demo(demo::Demo),
    /// Measure precision, recall, false-hit rate and hit rate over labelled pairs of prompts
    Eval(Box<eval::Eval>),
    /// Show what a running proxy has served and saved
    Stats(stats::Stats),
    /// List, show or remove what a running proxy has stored
    Entries(entries::Entries),
    /// Remove many of the entries of a running proxy: by model, namespace or age, or all
    Purge(purge::Purge),
    /// Write all entries of a running proxy to a file
    Export(export::Export),
    /// Read entries from a file of `rejoinder export` into a running proxy
    Import(import::Import),
    /// Validate a configuration and print the one in force, secrets masked
    CheckConfig(Box<check_config::CheckConfig>),
    /// Ask a running proxy whether it is alive; for container health checks
    Healthcheck(Box<healthcheck::Healthcheck>),
    /// Print the page docs/configuration.md
    #[command(hide = true)]
    ConfigReference,
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the manual page, or write those of all commands
    Man(man::Man),
}

/// What the exit codes have in common. Each command's own help says what they mean for it, as the last paragraph, which
/// begins with "Exit codes: ": its manual page has that apart.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3, of export and import, done in \
part. The help of each command says what they mean for it.";

/// Runs the command of this process's arguments. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration; 3,
/// where a command says so, done in part.
pub fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Serve(serve) => serve.run(typed(&matches)),
        Command::Demo(demo) => demo.run(),
        Command::Eval(eval) => eval.run(),
        Command::Stats(stats) => stats.run(),
        Command::Entries(entries) => entries.run(),
        Command::Purge(purge) => purge.run(),
        Command::Export(export) => export.run(),
        Command::Import(import) => import.run(),
        Command::CheckConfig(check) => check.run(),
        Command::Healthcheck(check) => check.run(),
        Command::ConfigReference => config_reference::run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}

/// The flags of the command that stood on the command line, by the keys that they have in the file.
fn typed(matches: &ArgMatches) -> BTreeSet<String> {
    let Some((_, command)) = matches.subcommand() else { return BTreeSet::new() };
    let typed = |id: &&clap::Id| command.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    command.ids().filter(typed).map(|id| id.as_str().to_owned()).collect()
}

/// Says on standard error what went wrong, with its causes.
fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("rejoinder: {}", causes(error.as_ref()));
    ExitCode::from(code)
}

/// The runtime of the commands that serve.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("rejoinder").build()
}

/// The process's environment, for settings that are not flags.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
