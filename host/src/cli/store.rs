//! `tollgate store`.

use std::path::Path;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::{Client, request, segment};
use super::failure::Failure;
use super::output;
use crate::app;

const COLUMNS: [&str; 6] = ["kind", "name", "entries", "bytes", "dead", "figures"];
const TABLE_COLUMNS: [&str; 5] = ["table", "rows", "stored_bytes", "metadata_bytes", "fragmented_bytes"];

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Show what is in the store: each named store, and the file.
    #[command(after_help = "\
A line for each named store: its entries (keys, rows, objects, vectors or events), the bytes that are stored of them, and what is
dead and not cleared away yet (expired keys, free pages, released contents, dead vectors). Then the file and its tables. It
reads the whole file; the server serves meanwhile.

Examples:
  tollgate store stats
  tollgate store stats kv/blacklist
  tollgate store stats --json")]
    Stats(Which),
    /// Read everything again and compare what can be compared; a problem is a failure.
    #[command(after_help = "\
Every row is read, the SHA-256 of every chunk of a blob compared, every count of references counted again, SQLite's own check made,
and each vector index compared with its rows, while the server serves. What the check sees keeps its pages until it has
ended. Checksums of pages are redb's own, and `tollgate store compact` compares them.

Examples:
  tollgate store check
  tollgate store check sql/gateway --json")]
    Check(Which),
    /// Give free space of the file back to the disk; the server must be stopped.
    #[command(after_help = "\
redb needs the file for itself to move what is in it; a running server uses free space again, and cuts off no more than what is free at the end. Every page is
compared with its checksum first. It can be cut off anywhere, by a crash too, and loses nothing; it needs no room beside the file.

Examples:
  tollgate store compact
  tollgate store compact --data /var/lib/tollgate --json")]
    Compact {
        /// Print JSON: {\"before_bytes\", \"after_bytes\"}.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only this store, such as kv/notes; left out: all of them.
    #[arg(value_name = "KIND/NAME")]
    store: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn stats(client: &Client, which: Which) -> Result<(), Failure> {
    let mut reports = reports(client, &which, Method::GET, "").await?;
    let file = match which.store {
        Some(_) => None,
        None => reports.keep("file", patient(client, Method::GET, "/storage/file").await),
    };
    if which.json {
        output::print_json(&json!({ "stores": reports.made, "file": file }))?;
        return reports.all_made();
    }
    output::print_table(&COLUMNS, &reports.made.iter().map(row).collect::<Vec<_>>())?;
    if let Some(file) = file {
        print_file(&file)?;
    }
    reports.all_made()
}

fn print_file(file: &Value) -> anyhow::Result<()> {
    output::print(b"\n")?;
    let tables = file.get("tables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let part = |table: &Value, name| table.get(name).cloned().unwrap_or_default();
    let rows: Vec<Vec<_>> = tables
        .iter()
        .map(|table| {
            let names = ["name"].into_iter().chain(TABLE_COLUMNS.into_iter().skip(1));
            names.map(|name| part(table, name)).collect()
        })
        .collect();
    output::print_table(&TABLE_COLUMNS, &rows)?;
    let lines = ["path", "file_bytes", "free_bytes"];
    let lines = lines.map(|name| format!("{name}\t{}\n", output::field(&part(file, name))));
    output::print(format!("\n{}", lines.concat()).as_bytes())
}

pub(super) async fn check(client: &Client, which: Which) -> Result<(), Failure> {
    let mut reports = reports(client, &which, Method::POST, "/check").await?;
    if which.json {
        output::print_json(&json!({ "stores": reports.made }))?;
    }
    let (mut lines, mut count) = (String::new(), 0);
    for store in &reports.made {
        let name = format!("{}/{}", text(store, "kind"), text(store, "name"));
        let problems = store.get("problems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        count += problems.len();
        if problems.is_empty() {
            lines.push_str(&format!("{}\tok\n", output::escape(&name)));
        }
        for problem in problems {
            lines.push_str(&format!("{}\t{}\n", output::escape(&name), output::field(problem)));
        }
    }
    if !which.json {
        output::print(lines.as_bytes())?;
    }
    if count == 0 {
        return reports.all_made();
    }
    reports.failed.iter().for_each(Failure::print);
    let hint = "restore a backup, or export what can still be read".to_owned();
    Err(Failure::Refused { message: format!("{count} problems were found"), hint: Some(hint) })
}

pub(super) async fn compact(data: &Path, json: bool) -> Result<(), Failure> {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(std::time::Duration::from_millis(100));
    let done = app::compact(data, |step| progress.set_message(step)).await;
    progress.finish_and_clear();
    let done = done?;
    if json {
        let answer = json!({ "before_bytes": done.before_bytes, "after_bytes": done.after_bytes });
        return Ok(output::print_json(&answer)?);
    }
    Ok(output::print(format!("{} bytes, {} before\n", done.after_bytes, done.before_bytes).as_bytes())?)
}

/// Reports, and why others could not be made: one that fails takes none of the others with it.
#[derive(Default)]
struct Reports {
    made: Vec<Value>,
    failed: Vec<Failure>,
}

impl Reports {
    fn keep(&mut self, name: &str, report: Result<Value, Failure>) -> Option<Value> {
        report.map_err(|failure| self.failed.push(failure.at(name))).ok()
    }

    /// Fails with the last failure, when the others are printed.
    fn all_made(&mut self) -> Result<(), Failure> {
        let Some(last) = self.failed.pop() else { return Ok(()) };
        self.failed.iter().for_each(Failure::print);
        Err(last)
    }
}

/// The reports of the stores that were asked for, one after the other.
async fn reports(client: &Client, which: &Which, method: Method, what: &str) -> Result<Reports, Failure> {
    let names: Vec<(String, String)> = match &which.store {
        Some(store) => {
            let (kind, name) = store
                .split_once('/')
                .ok_or_else(|| Failure::Usage(format!("`{store}` is no store; write one like kv/notes")))?;
            vec![(kind.to_owned(), name.to_owned())]
        }
        None => {
            let list = client.get("/storage").await?;
            let stores = list.get("stores").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            stores.iter().map(|store| (text(store, "kind"), text(store, "name"))).collect()
        }
    };
    let progress = ProgressBar::new(names.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len}  {elapsed}  {wide_msg}") {
        progress.set_style(style);
    }
    let mut reports = Reports::default();
    for (kind, name) in names {
        let shown = format!("{kind}/{name}");
        progress.set_message(shown.clone());
        let path = format!("/storage/{}/{}{what}", segment(&kind), segment(&name));
        let report = reports.keep(&shown, patient(client, method.clone(), &path).await);
        reports.made.extend(report);
        progress.inc(1);
        if matches!(
            reports.failed.last(),
            Some(Failure::NoSocket(_) | Failure::NotOurs(_) | Failure::NoServer { .. })
        ) {
            break;
        }
    }
    progress.finish_and_clear();
    if reports.made.is_empty() {
        reports.all_made()?;
    }
    Ok(reports)
}

/// An answer that may take any time.
async fn patient(client: &Client, method: Method, path: &str) -> Result<Value, Failure> {
    client.send(request(method, path, None, Bytes::new())?).await?.json().await
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn row(report: &Value) -> Vec<Value> {
    let plain = COLUMNS.iter().take(5).map(|name| report.get(*name).cloned().unwrap_or_default());
    let figures = report.get("figures").and_then(Value::as_object).into_iter().flatten();
    let figures: Vec<_> = figures.map(|(name, figure)| format!("{name}={figure}")).collect();
    plain.chain([Value::String(figures.join(" "))]).collect()
}
