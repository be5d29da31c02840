//! `rejoinder entries`: what a running proxy has stored, listed, shown and removed.

use std::fmt::Write as _;
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin_client::{AdminClient, AdminError, AdminFlags, harmless, print, wait};
use super::{environment, failed};
use crate::store::entry::EntryId;

/// Entries asked for at once: each comes with its whole reply.
const PAGE: usize = 50;

/// Characters of a prompt in a list.
const PROMPT: usize = 60;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, or there is no entry of an id; 2 wrong usage.";

/// List, show or remove what a running proxy has stored.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct Entries {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List entries, newest first
    List(List),
    /// Show one entry with its whole prompt and reply
    Show(Show),
    /// Remove entries by their ids
    Rm(Remove),
}

/// List entries, newest first.
///
/// Each with its id, age, time to live, hits, model, namespace and the beginning of its prompt.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts of the command line, which is no Markdown")]
#[command(after_long_help = EXIT_CODES)]
struct List {
    /// Only those whose prompt contains this, in whatever case
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    query: String,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,

    /// All there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// Print one JSON document, {"entries", "next_cursor"}, with whole prompts and replies
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminFlags,
}

/// Show one entry with its whole prompt and reply.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
struct Show {
    /// The entry's id, as `entries list` and the header X-Rejoinder-Entry give it
    #[arg(value_name = "ID")]
    id: EntryId,

    /// Print the entry as the JSON document that the admin listener gives
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminFlags,
}

/// Remove entries by their ids.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
struct Remove {
    /// Ids of entries, as `entries list` and the header X-Rejoinder-Entry give them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<EntryId>,

    /// Print one JSON document: {"removed": [ID…], "missing": [ID…]}
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminFlags,
}

/// A page of entries.
#[derive(Debug, Deserialize)]
struct Page {
    entries: Vec<Value>,
    next_cursor: Option<String>,
}

/// What is read of an entry.
#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    path: String,
    model: String,
    namespace: String,
    prompt: String,
    reply: String,
    created_at: String,
    age_s: u64,
    ttl_s: u64,
    hits: u64,
}

impl Entries {
    pub(super) fn run(self) -> ExitCode {
        let done = match self.command {
            Command::List(list) => wait(list.list()).map(|()| true),
            Command::Show(show) => wait(show.show()).map(|()| true),
            Command::Rm(remove) => wait(remove.remove()),
        };
        match done {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => failed(&error, 1),
        }
    }
}

impl List {
    /// Prints page by page, so that a large store needs no more memory than a small one.
    async fn list(&self) -> anyhow::Result<()> {
        let client = AdminClient::new(&self.admin, &environment)?;
        let mut left = if self.all { u64::MAX } else { self.limit };
        let mut cursor: Option<String> = None;
        let mut listed = 0_u64;
        print(if self.json { "{\"entries\":[" } else { "" })?;
        loop {
            let limit = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
            let page: Page = client.get(&self.path(limit, cursor.as_deref())).await?;
            let mut text = String::new();
            for entry in &page.entries {
                if self.json {
                    text.push_str(if listed == 0 { "\n" } else { ",\n" });
                    text.push_str(&serde_json::to_string(entry)?);
                } else {
                    if listed == 0 {
                        text.push_str(HEADINGS);
                    }
                    read(entry)?.write_line(&mut text)?;
                }
                listed += 1;
            }
            print(&text)?;
            left = left.saturating_sub(u64::try_from(page.entries.len()).unwrap_or(u64::MAX));
            cursor = page.next_cursor;
            if cursor.is_none() || left == 0 || page.entries.is_empty() {
                break;
            }
        }
        if self.json {
            return print(&format!("\n],\"next_cursor\":{}}}\n", serde_json::to_string(&cursor)?));
        }
        match (listed, cursor) {
            (0, _) => eprintln!("there are no such entries"),
            (_, Some(_)) => eprintln!("there are more; --limit N or --all shows them"),
            (_, None) => {}
        }
        Ok(())
    }

    fn path(&self, limit: usize, cursor: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &limit.to_string());
        if !self.query.is_empty() {
            query.append_pair("q", &self.query);
        }
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        format!("/entries?{}", query.finish())
    }
}

impl Show {
    async fn show(&self) -> anyhow::Result<()> {
        let client = AdminClient::new(&self.admin, &environment)?;
        let entry: Value = client.get(&format!("/entries/{}", self.id)).await?;
        if self.json {
            return print(&(serde_json::to_string_pretty(&entry)? + "\n"));
        }
        let entry = read(&entry)?;
        let mut text = String::new();
        for (name, value) in [
            ("id", entry.id),
            ("path", entry.path),
            ("model", entry.model),
            ("namespace", entry.namespace),
            ("created at", entry.created_at),
            ("age", span(entry.age_s)),
            ("lives for", span(entry.ttl_s)),
            ("hits", entry.hits.to_string()),
        ] {
            let value = if value.is_empty() { "–".to_owned() } else { one_line(&value, usize::MAX) };
            writeln!(text, "{name:<11} {value}")?;
        }
        writeln!(text, "\nprompt\n{}\n\nreply\n{}", harmless(&entry.prompt), harmless(&entry.reply))?;
        print(&text)
    }
}

impl Remove {
    /// `false` where one was not there.
    async fn remove(&self) -> anyhow::Result<bool> {
        let client = AdminClient::new(&self.admin, &environment)?;
        let (mut removed, mut missing) = (Vec::new(), Vec::new());
        for id in &self.ids {
            match client.ask::<()>(Method::DELETE, &format!("/entries/{id}"), Bytes::new()).await {
                Ok(()) => removed.push(id.to_string()),
                Err(AdminError::Missing(message)) => {
                    eprintln!("rejoinder: {message}");
                    missing.push(id.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let is_whole = missing.is_empty();
        if self.json {
            print(&(json!({"removed": removed, "missing": missing}).to_string() + "\n"))?;
        } else {
            print(&format!("{} removed\n", removed.len()))?;
        }
        Ok(is_whole)
    }
}

const HEADINGS: &str =
    "id                                    age       ttl    hits  model / namespace         prompt\n";

impl Entry {
    fn write_line(&self, text: &mut String) -> std::fmt::Result {
        let mut who = self.model.clone();
        if !self.namespace.is_empty() {
            who = format!("{who} / {}", self.namespace);
        }
        let (age, ttl) = (span(self.age_s), span(self.ttl_s));
        let (who, prompt) = (one_line(&who, 24), one_line(&self.prompt, PROMPT));
        writeln!(
            text,
            "{}  {age:>7}  {ttl:>8}  {:>6}  {who:<24}  {prompt}",
            one_line(&self.id, 32),
            self.hits
        )
    }
}

fn read(entry: &Value) -> anyhow::Result<Entry> {
    serde_json::from_value(entry.clone())
        .map_err(|_| anyhow::anyhow!("the proxy is of another version than this command; use its own"))
}

/// A text in one line of at most so many characters.
fn one_line(text: &str, most: usize) -> String {
    let mut line: String = harmless(text).replace(['\n', '\t'], " ");
    if line.chars().count() > most {
        line = line.chars().take(most.saturating_sub(1)).chain(['…']).collect();
    }
    line
}

/// Seconds in their largest whole unit but one: `90 s` is 90s, a day and a half 36h.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
