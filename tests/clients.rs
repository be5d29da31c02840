//! The official clients, unchanged but for their base URL, get what they expect: typed replies, streams and
//! errors. `scripts/test` installs them into `.test-clients/`; a test whose clients are missing fails and says so.
//!
//! The scripts lie in `tests/clients/`; each prints one line for each case, shown by `cargo test -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use support::{semantic_proxy, upstream};
use tokio::process::Command;

/// An official client and the script that drives it.
#[derive(Debug, Clone, Copy)]
enum Client {
    OpenAiPython,
    OllamaPython,
    AnthropicPython,
    OpenAiNode,
}

impl Client {
    /// Runs the script against a server; `direct` where that is no cache.
    async fn run(self, url: &str, direct: bool) -> Output {
        let clients = root().join(".test-clients");
        let node = clients.join("node");
        let (program, folder, script) = match self {
            Self::OpenAiPython => (clients.join("python/bin/python"), root(), "openai_python.py"),
            Self::OllamaPython => (clients.join("python/bin/python"), root(), "ollama_python.py"),
            Self::AnthropicPython => (clients.join("python/bin/python"), root(), "anthropic_python.py"),
            Self::OpenAiNode => (PathBuf::from("node"), node.clone(), "openai_node.mjs"),
        };
        let installed = match self {
            Self::OpenAiNode => node.join("node_modules/openai/package.json"),
            _ => program.clone(),
        };
        assert!(
            installed.exists(),
            "{} is missing: run scripts/test, which installs it",
            installed.display()
        );
        let mut command = Command::new(&program);
        command.arg(root().join("tests/clients").join(script)).arg(url).current_dir(folder);
        if direct {
            command.arg("--direct");
        }
        // Nothing of the developer's own settings: proxies and keys would change where the clients go.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().to_uppercase();
            if ["OPENAI", "OLLAMA", "ANTHROPIC", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NODE_OPTIONS"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(&name).env_remove(name.to_lowercase());
            }
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.unwrap_or_else(|error| panic!("{}: {error}", program.display()))
    }

    /// Runs the script and fails the test unless every case went well.
    async fn passes(self, url: &str, direct: bool) {
        let output = self.run(url, direct).await;
        let report =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        print!("{report}");
        assert!(output.status.success(), "{self:?}: {}\n{report}", output.status);
        assert!(report.lines().filter(|line| line.ends_with(" ok")).count() > 10, "{report}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Through a proxy of its own, whose store nothing else fills.
async fn through_the_proxy(client: Client) {
    let upstream = upstream().await;
    let proxy = semantic_proxy(&upstream).await;
    client.passes(&proxy.url(), false).await;
    proxy.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_python_gets_misses_hits_streams_and_errors() {
    through_the_proxy(Client::OpenAiPython).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_for_python_gets_misses_hits_streams_and_errors() {
    through_the_proxy(Client::OllamaPython).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_for_python_gets_misses_hits_streams_and_errors() {
    through_the_proxy(Client::AnthropicPython).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_node_gets_misses_hits_streams_and_errors() {
    through_the_proxy(Client::OpenAiNode).await;
}

/// The scripts and the imitation agree, before the proxy comes between them.
#[tokio::test]
async fn the_simulated_upstream_satisfies_the_official_clients() {
    let upstream = upstream().await;
    for client in [Client::OpenAiPython, Client::OllamaPython, Client::AnthropicPython, Client::OpenAiNode] {
        client.passes(&upstream.url(), true).await;
    }
}

/// A script that could not fail would prove nothing: against a server without a cache each case must fail.
#[tokio::test]
async fn the_scripts_notice_a_missing_cache() {
    let upstream = upstream().await;
    for client in [Client::OpenAiPython, Client::OllamaPython, Client::AnthropicPython, Client::OpenAiNode] {
        let output = client.run(&upstream.url(), false).await;
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{client:?}:\n{report}");
        assert!(report.lines().count() > 10, "{report}");
        assert!(report.lines().all(|line| line.contains("FAILED")), "{client:?}:\n{report}");
    }
}
