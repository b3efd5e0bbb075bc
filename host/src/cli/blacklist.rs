//! `tollgate blacklist`.

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::duration::duration;
use super::failure::Failure;
use super::output;

const COLUMNS: [&str; 8] = ["kind", "name", "id", "model", "reason", "limit", "until_ms", "active"];

#[derive(Debug, Subcommand)]
pub(super) enum BlacklistCommand {
    /// Keep an account or a client out.
    #[command(after_help = "\
An account that is kept out is not asked; with --model only for that model. A client's requests are refused.

Examples:
  tollgate blacklist add --account backup --reason \"unpaid\" --ttl 7d
  tollgate blacklist add --client alice --model gpt-4o --reason \"too dear for her\"")]
    Add {
        #[command(flatten)]
        subject: Subject,
        /// Why, for those who ask.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For how long, such as 30d, 12h, 45m or 90s; left out: a day.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
    },
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
    /// List all entries. One that is not active is over, and waits for a request that tries again.
    #[command(after_help = "Example:\n  tollgate blacklist list --json")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// How many entries there are, and how many of them keep somebody out now.
    #[command(after_help = "Example:\n  tollgate blacklist stats")]
    Stats,
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
        BlacklistCommand::Add { subject, reason, ttl } => add(client, subject, &reason, ttl).await,
        BlacklistCommand::Remove { subject } => {
            client.delete(&subject.path()).await?;
            Ok(output::print(b"removed\n")?)
        }
        BlacklistCommand::Check { subject } => Ok(output::print_json(&client.get(&subject.path()).await?)?),
        BlacklistCommand::List { json } => list(client, json).await,
        BlacklistCommand::Stats => Ok(output::print_json(&client.get("/blacklist/stats").await?)?),
    }
}

async fn add(client: &Client, subject: Subject, reason: &str, ttl: Option<Duration>) -> Result<(), Failure> {
    let Subject { who: Who { account, client: key }, model } = subject;
    let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let body =
        json!({ "account": account, "client": key, "model": model, "reason": reason, "ttl_ms": ttl_ms });
    client.json(Method::POST, "/blacklist", &body).await?;
    Ok(output::print(b"added\n")?)
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let mut entries = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let after = cursor.map(|cursor| format!("?cursor={}", segment(&cursor))).unwrap_or_default();
        let mut page = client.get(&format!("/blacklist{after}")).await?;
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
