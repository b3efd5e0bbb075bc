//! What thousands of keys, hundreds of accounts and millions of rows of the log change: `-- --growth 10000,1000000`.
//!
//! One server gets that many requests over all keys and accounts, so that its rows come the way they always come; those over a
//! million are copies of them on the days before. At each number, once they are all on the disk: requests by all keys, what an
//! operator asks, memory, the file, and a start.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::load::Load;
use crate::options::{Options, Workload};
use crate::process::Process;
use crate::sample::Sample;
use crate::tollgate::Tollgate;

/// Connections that fill the log, and that are measured.
const CONNECTIONS: usize = 32;

/// Length of one stretch of filling: between them it is looked how far the log has come.
const STRETCH: Duration = Duration::from_secs(1);

/// Events that may wait while it is filled, some half of the queue.
const BEHIND: u64 = 50_000;

/// Rows that requests are sent for; a day has so many.
const REQUESTED: u64 = 1_000_000;

/// More than the sequences of the requests, which begin with the number of the start.
const SEQUENCES: u64 = 1 << 50;

/// Rows that are copied at once, and durable before the next: a third of what a transaction may change.
const COPIED: u64 = 20_000;

/// What an operator asks.
const QUESTIONS: [(&str, &str); 10] = [
    ("keys ms", "keys"),
    ("with totals ms", "keys?totals=true"),
    ("accounts ms", "accounts"),
    ("one key ms", "keys/key-7"),
    ("its last day ms", "keys/key-7/usage"),
    ("an account's ms", "accounts/bench-0/usage"),
    ("usage by day ms", "usage"),
    ("by key ms", "usage?by=key"),
    ("by model ms", "usage?by=model"),
    ("blacklist ms", "blacklist"),
];

/// Prints one line for each number of rows.
pub async fn measure(options: &Options, rows: &[u64]) -> Result<()> {
    let upstream = Process::role("upstream", "")?;
    let mut tollgate = Tollgate::with_accounts(upstream.url(), options.accounts)?;
    let keys = keys(&tollgate, options.keys)?;
    titles(options);
    let mut copied = 0;
    for &rows in rows {
        let load = Load::new(tollgate.process().url(), &keys, "", Workload::Json, CONNECTIONS);
        fill(&tollgate, &load, rows.min(REQUESTED)).await?;
        for day in copied + 1..rows.div_ceil(REQUESTED) {
            copy_day(&tollgate, day)?;
            copied = day;
        }
        let before = tollgate.process().cpu()?;
        let mut sample = load.run(options.seconds).await?;
        sample.cpu = tollgate.process().cpu()?.saturating_sub(before);
        let answers = QUESTIONS.map(|(_, path)| asked(&tollgate, path));
        let memory = tollgate.process().memory_bytes()?;
        let started = tollgate.restart()?;
        line(rows, &sample, answers, memory, tollgate.file_bytes()?, started)?;
    }
    Ok(())
}

/// Makes all keys, by some clients at once since each is durable before it is answered.
fn keys(tollgate: &Tollgate, number: usize) -> Result<Vec<String>> {
    let bar = bar("keys", number as u64);
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..CONNECTIONS)
            .map(|first| {
                let bar = bar.clone();
                scope.spawn(move || {
                    let names = (first..number).step_by(CONNECTIONS);
                    names
                        .map(|name| tollgate.key(&format!("key-{name}")).inspect(|_| bar.inc(1)))
                        .collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut keys = Vec::with_capacity(number);
        for maker in makers {
            keys.extend(maker.join().map_err(|_| anyhow::anyhow!("a maker of keys panicked"))??);
        }
        bar.finish_and_clear();
        Ok(keys)
    })
}

/// Sends requests until so many are in the log. Ingestion is waited for in between: with a full queue there are no answers.
async fn fill(tollgate: &Tollgate, load: &Load, rows: u64) -> Result<()> {
    let bar = bar("rows", rows);
    let mut sent = tollgate.ingested()?;
    while sent < rows {
        sent += load.run(STRETCH).await?.requests() as u64;
        ingested(tollgate, sent.saturating_sub(BEHIND)).await?;
        bar.set_position(sent.min(rows));
    }
    ingested(tollgate, sent).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Copies the day of the requests, log and totals, to so many days before.
fn copy_day(tollgate: &Tollgate, day: u64) -> Result<()> {
    let columns = |table: &str| -> Result<Vec<String>> {
        let row = tollgate.sql(&format!("SELECT * FROM {table} LIMIT 1"))?;
        let names = row["columns"].as_array().context("no columns")?.iter();
        Ok(names.filter_map(|name| Some(name.as_str()?.to_owned())).collect())
    };
    let moved = |columns: Vec<String>| {
        let other = columns.iter().map(|column| match column.as_str() {
            "sequence" => format!("sequence - {}", day * SEQUENCES),
            "id" => format!("'copy-{day}-' || id"),
            "timestamp" => format!("timestamp - {}", day * 86_400_000),
            "date" => format!("date(date, '-{day} days')"),
            same => same.to_owned(),
        });
        other.collect::<Vec<_>>().join(", ")
    };
    let bar = bar("copies", REQUESTED);
    let log = moved(columns("request_logs")?);
    // Copies are below zero.
    let mut after = 0;
    loop {
        let next = format!(
            "SELECT sequence FROM request_logs WHERE sequence > {after} ORDER BY sequence LIMIT {COPIED}"
        );
        let last = tollgate.sql(&format!("SELECT max(sequence) FROM ({next})"))?;
        let Some(last) = last["rows"][0][0].as_i64() else { break };
        tollgate.sql(&format!(
            "INSERT INTO request_logs SELECT {log} FROM request_logs WHERE sequence > {after} AND sequence <= {last}"
        ))?;
        after = last;
        bar.inc(COPIED);
    }
    let days = moved(columns("usage_daily")?);
    // That of the requests is the last.
    tollgate.sql(&format!(
        "INSERT INTO usage_daily SELECT {days} FROM usage_daily WHERE date = (SELECT max(date) FROM usage_daily)"
    ))?;
    bar.finish_and_clear();
    Ok(())
}

/// Waits until so many events are in the log.
async fn ingested(tollgate: &Tollgate, events: u64) -> Result<()> {
    let begun = Instant::now();
    while tollgate.ingested()? < events {
        ensure!(begun.elapsed() < Duration::from_secs(600), "the events are not ingested");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Milliseconds to an answer, the best of three.
fn asked(tollgate: &Tollgate, path: &str) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        let _: Value = tollgate.admin("GET", path, "").with_context(|| path.to_owned())?;
        best = best.min(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
    let bar = ProgressBar::new(length).with_message(what);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn titles(options: &Options) {
    let columns = ["req/s", "p50 µs", "p99 µs", "CPU µs/request"].into_iter();
    let columns: Vec<_> = columns
        .chain(QUESTIONS.map(|(title, _)| title))
        .chain(["memory MB", "file MB", "bytes a row", "start ms"])
        .collect();
    let Options { keys, accounts, .. } = options;
    println!("\n{keys} keys, {accounts} accounts, {CONNECTIONS} connections\n");
    println!("| rows | {} |", columns.join(" | "));
    println!("|---|{}", "---|".repeat(columns.len()));
}

fn line(
    rows: u64,
    sample: &Sample,
    answers: [Result<f64>; QUESTIONS.len()],
    memory: u64,
    file: u64,
    started: Duration,
) -> Result<()> {
    let mut figures = vec![
        format!("{:.0}", sample.rate()),
        format!("{:.0}", sample.percentile(0.5)),
        format!("{:.0}", sample.percentile(0.99)),
        format!("{:.1}", sample.cpu_per_request()),
    ];
    for answer in answers {
        figures.push(format!("{:.1}", answer?));
    }
    let mb = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
    figures.extend([mb(memory), mb(file), format!("{:.0}", file as f64 / rows as f64)]);
    figures.push(format!("{:.0}", started.as_secs_f64() * 1e3));
    println!("| {rows} | {} |", figures.join(" | "));
    Ok(())
}
