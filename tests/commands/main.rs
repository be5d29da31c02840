//! The commands of the program, run as a user runs them.

#[path = "../support/mod.rs"]
mod support;

mod command_line;
mod entries;
mod eval;
mod import_export;
mod purge;
mod stats;
