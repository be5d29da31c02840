//! The program itself, started as its users start it.

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Longer than anything a test starts may take; a test that waits for it fails.
const DEADLINE: Duration = Duration::from_mins(2);

/// The program with these arguments and nothing of the developer's own settings.
pub fn rejoinder(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("REJOINDER_")
            || text.starts_with("OTEL_")
            || text == "RUST_LOG"
            || text == "NO_COLOR"
        {
            command.env_remove(&name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end: exit code, standard output, standard error.
pub async fn output(mut command: Command) -> (Option<i32>, String, String) {
    let ended = tokio::time::timeout(DEADLINE, command.output()).await;
    said(ended.expect("it ends").unwrap())
}

/// Runs a command to its end with a text on its standard input.
pub async fn output_with(mut command: Command, input: &str) -> (Option<i32>, String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    said(ended.expect("it ends").unwrap())
}

fn said(Output { status, stdout, stderr }: Output) -> (Option<i32>, String, String) {
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A file with this text; gone when dropped.
pub fn file(suffix: &str, text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}
