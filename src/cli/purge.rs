//! `rejoinder purge`: removes many of a running proxy's entries, after asking.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args};
use http::Method;
use serde::{Deserialize, Serialize};

use super::admin_client::{AdminClient, AdminFlags, print, wait};
use super::{environment, failed};
use crate::config::parse_duration;

const EXPLANATION: &str = "\
Of several of --model, --namespace and --older-than an entry must match all. Without any of them, and without --all, \
nothing is purged. On a terminal it says how many entries there are and asks; elsewhere it wants --yes.

Examples:
  rejoinder purge --model llama3.2 --dry-run
  rejoinder purge --namespace docs-v1 --older-than 7d
  rejoinder purge --all --yes

Exit codes: 0 purged, or with --dry-run counted; 1 failed, or not purged since the answer was no; 2 wrong usage, \
nothing selected, or no terminal to ask on and no --yes.";

/// Remove many of the entries of a running proxy.
///
/// Removes them from its store, in Redis for all replicas.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts of the command line, which is no Markdown")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(
    after_long_help = EXPLANATION,
    group = ArgGroup::new("selector").args(["all", "model", "namespace", "older_than"]).required(true).multiple(true)
)]
pub(super) struct Purge {
    /// Every entry
    #[arg(long, conflicts_with_all = ["model", "namespace", "older_than"])]
    all: bool,

    /// Entries of requests for this model
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,

    /// Entries of this namespace (X-Rejoinder-Namespace)
    #[arg(long, value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new())]
    namespace: Option<String>,

    /// Entries stored longer ago than this, as 90s, 15m, 24h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,

    /// Say how many entries there are, and leave them
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,

    /// Print one JSON document: {"purged"}, or with --dry-run {"would_purge"}
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminFlags,
}

/// The body of `POST /purge`.
#[derive(Debug, Clone, Serialize)]
struct Selector<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    older_than_s: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Purged {
    purged: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Counted {
    would_purge: u64,
}

impl Purge {
    pub(super) fn run(self) -> ExitCode {
        if !self.dry_run && !self.yes && !std::io::stdin().is_terminal() {
            let error = anyhow::anyhow!(
                "purge asks first, and there is no terminal to ask on; add --yes, or --dry-run to see how many \
                 entries would go"
            );
            return failed(&error, 2);
        }
        match wait(self.purge()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => failed(&error, 1),
        }
    }

    /// `false` where the answer was no.
    async fn purge(&self) -> anyhow::Result<bool> {
        let client = AdminClient::new(&self.admin, &environment)?;
        if self.dry_run {
            let counted = self.count(&client).await?;
            let text = if self.json {
                serde_json::to_string(&counted)? + "\n"
            } else {
                format!("{} would be purged; nothing was\n", entries(counted.would_purge))
            };
            print(&text)?;
            return Ok(true);
        }
        if !self.yes {
            let Counted { would_purge } = self.count(&client).await?;
            if !agreed(&format!("Purge {} ({})? [y/N] ", entries(would_purge), self.described()))? {
                eprintln!("nothing was purged");
                return Ok(false);
            }
        }
        let purged: Purged = client.ask(Method::POST, "/purge", self.body(false)?).await?;
        let text = if self.json {
            serde_json::to_string(&purged)? + "\n"
        } else {
            format!("{} purged\n", entries(purged.purged))
        };
        print(&text)?;
        Ok(true)
    }

    async fn count(&self, client: &AdminClient) -> anyhow::Result<Counted> {
        Ok(client.ask(Method::POST, "/purge", self.body(true)?).await?)
    }

    fn body(&self, dry_run: bool) -> anyhow::Result<Bytes> {
        let selector = Selector {
            all: self.all,
            model: self.model.as_deref(),
            namespace: self.namespace.as_deref(),
            older_than_s: self.older_than.map(|age| age.as_secs() + u64::from(age.subsec_nanos() > 0)),
            dry_run,
        };
        Ok(serde_json::to_vec(&selector)?.into())
    }

    /// What is selected, in words.
    fn described(&self) -> String {
        if self.all {
            return format!("all there are at {}", self.admin.admin);
        }
        let mut text = String::new();
        let mut add = |part: String| {
            let _ = write!(text, "{}{part}", if text.is_empty() { "" } else { ", " });
        };
        if let Some(model) = &self.model {
            add(format!("model {model}"));
        }
        if let Some(namespace) = &self.namespace {
            add(format!("namespace {namespace}"));
        }
        if let Some(age) = self.older_than {
            add(format!("older than {}", humantime::format_duration(age)));
        }
        format!("{text}, at {}", self.admin.admin)
    }
}

fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

/// Asks on the terminal. Anything but yes is no.
fn agreed(question: &str) -> anyhow::Result<bool> {
    let mut terminal = std::io::stderr();
    terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush()).context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
