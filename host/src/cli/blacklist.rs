//! `tollgate blacklist`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::duration::duration;
use super::failure::Failure;
use super::output;
use crate::admin::limits::BLACKLIST_BATCH;

const COLUMNS: [&str; 8] = ["kind", "name", "id", "model", "reason", "limit", "until_ms", "active"];

#[derive(Debug, Subcommand)]
pub(super) enum BlacklistCommand {
    /// Keep an account or a client out.
    #[command(after_help = "\
An account that is kept out is not asked; with --model only for that model. A client's requests are refused.

Examples:
  tollgate blacklist add --account backup --reason \"unpaid\" --ttl 7d
  tollgate blacklist add --client alice --model gpt-4o --reason \"too dear for her\"
  tollgate blacklist add --file entries.jsonl

A line of a file is an entry as the admin API takes it, such as
  {\"account\": \"backup\", \"reason\": \"unpaid\", \"model\": \"gpt-4o\", \"ttl_ms\": 3600000}
and 500 lines at a time are added, all of them or none.")]
    Add(Add),
    /// Let an account or a client in again.
    #[command(after_help = "Example:\n  tollgate blacklist remove --account backup")]
    Remove {
        #[command(flatten)]
        subject: Subject,
    },
    /// Whether an account or a client is kept out now, and why.
    #[command(after_help = "Example:\n  tollgate blacklist check --account backup --model gpt-4o")]
    Check {
        #[command(flatten)]
        subject: Subject,
    },
    /// List the entries. One that is not active is over, and waits for a request that tries again.
    #[command(
        after_help = "Examples:\n  tollgate blacklist list --json\n  tollgate blacklist list --prefix client:"
    )]
    List {
        /// Only entries whose key begins so: account: or client:, then an id, then / and a model.
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// How many entries there are, and how many of them keep somebody out now.
    #[command(after_help = "Example:\n  tollgate blacklist stats")]
    Stats,
}

/// What is added.
#[derive(Debug, Args)]
pub(super) struct Add {
    #[command(flatten)]
    what: What,
    /// Only for this model.
    #[arg(long, value_name = "MODEL", conflicts_with = "file")]
    model: Option<String>,
    /// Why, for those who ask.
    #[arg(long, value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    reason: Option<String>,
    /// For how long, such as 30d, 12h, 45m or 90s; left out: a day.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "file")]
    ttl: Option<Duration>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// An upstream account, by its name or the hash of its key.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// A client key, by its name or its id.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// All the entries of this file, one in JSON on each line.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Who it is about.
#[derive(Debug, Args)]
pub(super) struct Subject {
    #[command(flatten)]
    who: Who,
    /// Only for this model.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Who {
    /// An upstream account, by its name or the hash of its key.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// A client key, by its name or its id.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
}

impl Subject {
    fn path(&self) -> String {
        let (kind, name) = match (&self.who.account, &self.who.client) {
            (Some(account), _) => ("account", account.as_str()),
            (None, client) => ("client", client.as_deref().unwrap_or_default()),
        };
        let model =
            self.model.as_deref().map(|model| format!("?model={}", segment(model))).unwrap_or_default();
        format!("/blacklist/{kind}/{}{model}", segment(name))
    }
}

pub(super) async fn run(client: &Client, command: BlacklistCommand) -> Result<(), Failure> {
    match command {
        BlacklistCommand::Add(Add { what: What { file: Some(file), .. }, .. }) => {
            add_all(client, &file).await
        }
        BlacklistCommand::Add(one) => add(client, one).await,
        BlacklistCommand::Remove { subject } => {
            client.delete(&subject.path()).await?;
            Ok(output::print(b"removed\n")?)
        }
        BlacklistCommand::Check { subject } => Ok(output::print_json(&client.get(&subject.path()).await?)?),
        BlacklistCommand::List { prefix, json } => list(client, prefix.as_deref(), json).await,
        BlacklistCommand::Stats => Ok(output::print_json(&client.get("/blacklist/stats").await?)?),
    }
}

async fn add(client: &Client, one: Add) -> Result<(), Failure> {
    let Add { what: What { account, client: key, .. }, model, reason, ttl } = one;
    let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let body =
        json!({ "account": account, "client": key, "model": model, "reason": reason, "ttl_ms": ttl_ms });
    client.json(Method::POST, "/blacklist", &body).await?;
    Ok(output::print(b"added\n")?)
}

async fn add_all(client: &Client, file: &Path) -> Result<(), Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let lines: Vec<(usize, &str)> =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    let read = |(number, line): &(usize, &str)| {
        let entry = serde_json::from_str::<Value>(line);
        entry.map_err(|error| Failure::Usage(format!("{shown}, line {number}: {error}")))
    };
    // All of it is read before anything is added.
    let entries = lines.iter().map(read).collect::<Result<Vec<Value>, Failure>>()?;
    let mut added = 0;
    for (some, lines) in entries.chunks(BLACKLIST_BATCH).zip(lines.chunks(BLACKLIST_BATCH)) {
        let (first, last) = (lines.first(), lines.last());
        let place = |line: Option<&(usize, &str)>| line.map_or(0, |(number, _)| *number);
        let at =
            format!("{shown}, lines {} to {} ({added} entries before were added)", place(first), place(last));
        let body = json!({ "entries": some });
        client.json(Method::POST, "/blacklist/batch", &body).await.map_err(|failure| failure.at(at))?;
        added += some.len();
    }
    Ok(output::print(format!("added {added}\n").as_bytes())?)
}

async fn list(client: &Client, prefix: Option<&str>, json: bool) -> Result<(), Failure> {
    let mut entries = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let given = [("prefix", prefix), ("cursor", cursor.as_deref())];
        let given = given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(value?))));
        let mut page = client.get(&format!("/blacklist?{}", given.collect::<Vec<_>>().join("&"))).await?;
        if let Some(Value::Array(found)) = page.get_mut("entries").map(Value::take) {
            entries.extend(found);
        }
        cursor = page.get("cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if json {
        return Ok(output::print_json(&json!({ "entries": entries }))?);
    }
    let row = |entry: &Value| {
        let of = |column: &&str| entry.get(column).or_else(|| entry.get("entry")?.get(column)).cloned();
        COLUMNS.iter().map(|column| of(column).unwrap_or_default()).collect()
    };
    Ok(output::print_table(&COLUMNS, &entries.iter().map(row).collect::<Vec<_>>())?)
}
