//! `rejoinder serve` as a process of its own, its log read line by line.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::program::rejoinder;

/// Longer than anything here may take; a test that waits for it fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running `rejoinder serve`, its log read line by line.
pub struct Serving {
    pub child: Child,
    log: Lines<BufReader<ChildStderr>>,
    pub lines: Vec<String>,
    /// Where clients connect.
    pub clients: SocketAddr,
}

impl Serving {
    pub async fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut serving = Self { child, log, lines: Vec::new(), clients: SocketAddr::from(([0; 4], 0)) };
        let line = serving.until("listening for clients").await;
        let address = line["address"].as_str().unwrap();
        serving.clients = address.parse().unwrap_or_else(|_| panic!("{line}"));
        serving
    }

    /// Reads the log up to a message.
    pub async fn until(&mut self, message: &str) -> Value {
        let read = async {
            loop {
                let line = self.log.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("no {message:?} in {:#?}", self.lines));
                self.lines.push(line.clone());
                let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line} is no JSON"));
                if line["message"] == message || (message.is_empty() && line["path"].is_string()) {
                    return line;
                }
            }
        };
        tokio::time::timeout(DEADLINE, read).await.unwrap_or_else(|_| panic!("no {message:?}"))
    }

    pub async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await.unwrap();
        assert!(status.success());
    }

    /// Waits for its end; gives the exit code and the whole log.
    pub async fn end(mut self) -> (Option<i32>, String) {
        let end = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                self.lines.push(line);
            }
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(DEADLINE, end).await.expect("it ends");
        (status.code(), self.lines.join("\n"))
    }
}

/// A proxy on free ports with the exact layer alone.
pub fn serve(upstream: &str) -> Command {
    rejoinder(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--upstream",
        upstream,
        "--embedder",
        "off",
    ])
}
