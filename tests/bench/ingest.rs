//! CPU time of one event on its way from the gateway into the tables: the real queue, the committed component, real SQL.
//! Beside it the same rows go into the same tables by plain SQLite on a file, with the same number in a transaction.
//!
//! `cargo bench --bench ingest [-- ours | native] [--rounds N]`; with a name for this side alone. The difference of two
//! runs of one side under `perf stat -e instructions:u`, with different numbers of rounds, is what its events cost.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark stops where it stands")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use rusqlite::{Connection, Transaction, params_from_iter, types::Value as Native};
use tollgate::capability::Stores;
use tollgate::plugin::limits::INGEST_BATCH_EVENTS;
use tollgate::plugin::{Admissions, Compiler, EventRecord, Registry, registry};
use tollgate_store::{Database, KvOptions, Options, Statement, Store, Value};

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Batches of one round, each as large as the driver takes them under load. All rows of a round are read back as one
/// result, which is bounded.
const BATCHES: u64 = 8;

/// Events of one round.
const EVENTS: u64 = BATCHES * INGEST_BATCH_EVENTS as u64;

/// Rounds of each side, interleaved; the median is printed.
const ROUNDS: usize = 7;

/// Rounds before these, which fill caches and tables.
const WARM_UP: usize = 2;

/// How often it is looked whether a batch has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// CPU time by the name of the thread.
type Cpu = BTreeMap<String, Duration>;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut only, mut rounds) = (String::new(), ROUNDS);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().context("how many rounds?")?.parse()?,
            _ => only = argument,
        }
    }
    let mut ours = Ours::start().await?;
    let mut native = None;
    let mut samples: Vec<(Cpu, Option<Duration>)> = Vec::new();
    for _ in 0..WARM_UP + rounds {
        let events: Vec<_> = (ours.recorded..).take(EVENTS as usize).map(event).collect();
        let before = cpu()?;
        if only != "native" || native.is_none() {
            ours.round(events).await?;
        }
        let spent = difference(&before, cpu()?);
        if native.is_none() && only != "ours" {
            native = Some(NativeSide::create(&ours).await?);
        }
        let natively = match &mut native {
            Some(native) => {
                native.take(&ours).await?;
                let before = on_cpu(Path::new("/proc/thread-self/schedstat"))?;
                native.round()?;
                Some(on_cpu(Path::new("/proc/thread-self/schedstat"))?.saturating_sub(before))
            }
            None => None,
        };
        samples.push((spent, natively));
    }
    ours.registry.shutdown().await;
    ours.store.close().await?;
    print(samples.get(WARM_UP..).unwrap_or_default());
    Ok(())
}

fn print(samples: &[(Cpu, Option<Duration>)]) {
    let mut threads: Vec<&String> = samples.iter().flat_map(|(cpu, _)| cpu.keys()).collect();
    threads.sort();
    threads.dedup();
    println!("{:28} {:>20}", "µs CPU an event", format!("median of {}", samples.len()));
    for name in threads {
        let of = |cpu: &Cpu| cpu.get(name).copied().unwrap_or_default();
        println!("thread {name:21} {:>20}", spread(samples.iter().map(|(cpu, _)| of(cpu))));
    }
    println!("{:28} {:>20}", "all", spread(samples.iter().map(|(cpu, _)| cpu.values().sum())));
    let native: Vec<_> = samples.iter().filter_map(|(_, native)| *native).collect();
    if !native.is_empty() {
        println!("{:28} {:>20}", "the same rows by SQLite", spread(native.into_iter()));
    }
}

/// Queue, plugin and tables of the gateway.
struct Ours {
    store: Store,
    database: Database,
    registry: Registry,
    ingested: Arc<AtomicU64>,
    recorded: u64,
    directory: tempfile::TempDir,
}

impl Ours {
    async fn start() -> Result<Ours> {
        let ingested = Arc::new(AtomicU64::new(0));
        metrics::set_global_recorder(Ingested(ingested.clone())).expect("the only recorder");
        let directory = tempfile::tempdir()?;
        let store = Store::open(&directory.path().join("store.redb"), Options::default())?;
        let database = store.database("gateway")?;
        let mut kv = BTreeMap::new();
        for name in ["blacklist", "quota", "hot-keys"] {
            kv.insert(name.to_owned(), store.kv(name, KvOptions::default())?);
        }
        let sql = BTreeMap::from([("gateway".to_owned(), database.clone())]);
        let clock: tollgate_store::Clock = Arc::new(|| 1_800_000_000_000);
        let registry = Registry::start(registry::Setup {
            store: store.clone(),
            data_dir: directory.path().to_owned(),
            secret: Arc::from([7; 32]),
            compiler: Compiler::Here,
            stores: Stores::new(kv, sql),
            admissions: Admissions::new(clock.clone()),
            clock,
            event_queue_bytes: 64 << 20,
            disabled: ["blacklist", "quota", "sync"].map(str::to_owned).into(),
            keep_versions: tollgate::plugin::limits::KEPT_VERSIONS,
            trusted_keys: Vec::new(),
        })
        .await?;
        Ok(Ours { store, database, registry, ingested, recorded: 0, directory })
    }

    /// Records a round's events batch by batch, each when the last has arrived.
    async fn round(&mut self, events: Vec<EventRecord>) -> Result<()> {
        let queue = self.registry.events();
        let mut events = events.into_iter();
        for _ in 0..BATCHES {
            for event in events.by_ref().take(INGEST_BATCH_EVENTS) {
                queue.record(event)?;
                self.recorded += 1;
            }
            while self.ingested.load(Ordering::Acquire) < self.recorded {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn rows(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Vec<Native>>> {
        let outcome = self.database.query(Statement::new(sql, params)).await?;
        Ok(outcome.rows.into_iter().map(|row| row.into_iter().map(native).collect()).collect())
    }
}

/// A request as the gateway records it: a few models over ten accounts, one in twenty fails.
fn event(number: u64) -> EventRecord {
    let failed = number % 20 == 19;
    EventRecord {
        request_id: format!("req_8f3a61d2c4b5e790{number:08x}"),
        time_ms: 1_800_000_000_000 + number / 20,
        client_type: "openai".to_owned(),
        client_ip: "203.0.113.57".to_owned(),
        user_agent: "OpenAI/Python 2.8.1".to_owned(),
        client_key_hash: format!("{:064x}", number % 4 + 1),
        client_name: format!("client-{}", number % 4),
        api_key_hash: format!("{:064x}", number % 10 + 100),
        account_name: format!("account-{}", number % 10),
        model: format!("gpt-5-{}", number % 3),
        original_model: format!("gpt-5-{}", number % 3),
        endpoint: "/v1/chat/completions".to_owned(),
        method: "POST".to_owned(),
        referer: String::new(),
        response_time_ms: 800 + number % 500,
        status_code: if failed { 503 } else { 200 },
        input_tokens: 700 + number % 100,
        output_tokens: 300 + number % 70,
        cache_read_tokens: 500,
        cache_write_tokens: 0,
        reasoning_tokens: number % 70,
        token_source: "reported".to_owned(),
        cost: Some(number % 1_000),
        is_stream: number.is_multiple_of(2),
        has_error: failed,
        error_type: if failed { "upstream".to_owned() } else { String::new() },
        error_message: failed.then(|| "the upstream is overloaded".to_owned()),
        request_size: 2_900 + number % 300,
        response_size: 1_400 + number % 200,
        attempts: Vec::new(),
    }
}

/// Tables with sums, whose touched rows each batch writes anew.
const SUMS: [&str; 4] = ["api_key_metrics", "system_stats", "system_stats_keys", "usage_daily"];

/// Events in a transaction of the plugin.
const EVENTS_AT_ONCE: usize = 500;

/// Plain SQLite on a file with the same tables and indexes.
struct NativeSide {
    connection: Connection,
    /// The rows of the round, taken from the other side's table, each with its row in the log of errors if it has one.
    rows: Vec<(Row, Option<Row>)>,
    sums: Vec<(&'static str, Vec<Row>)>,
    last: i64,
}

type Row = Vec<Native>;

impl NativeSide {
    async fn create(ours: &Ours) -> Result<NativeSide> {
        let connection = Connection::open(ours.directory.path().join("native.db"))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;",
        )?;
        let tables = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name IN ('request_logs', 'error_logs',
            'api_key_metrics', 'system_stats', 'system_stats_keys', 'usage_daily', 'ingestion_state') ORDER BY type DESC";
        for row in ours.rows(tables, Vec::new()).await? {
            let Some(Native::Text(sql)) = row.first() else { continue };
            connection.execute_batch(sql)?;
        }
        connection.execute("INSERT INTO ingestion_state VALUES ('request_logs', 0)", [])?;
        Ok(NativeSide { connection, rows: Vec::new(), sums: Vec::new(), last: 0 })
    }

    /// Takes over the newest rows of the other side; again with later sequences, if it has made none since.
    async fn take(&mut self, ours: &Ours) -> Result<()> {
        let last = "SELECT * FROM request_logs ORDER BY sequence DESC LIMIT ?1";
        let mut rows = ours.rows(last, vec![Value::Integer(EVENTS as i64)]).await?;
        rows.reverse();
        let oldest = rows.first().and_then(|row| row.first()).cloned().context("no rows")?;
        let Native::Integer(oldest) = oldest else { anyhow::bail!("a sequence is no number") };
        let errors = "SELECT * FROM error_logs WHERE sequence >= ?1 ORDER BY sequence";
        let mut errors = ours.rows(errors, vec![Value::Integer(oldest)]).await?.into_iter().peekable();
        self.rows.clear();
        for mut row in rows {
            self.last += 1;
            let mut error = errors.next_if(|error| error.first() == row.first());
            for sequence in
                [Some(&mut row), error.as_mut()].into_iter().flatten().filter_map(|row| row.first_mut())
            {
                *sequence = Native::Integer(self.last);
            }
            self.rows.push((row, error));
        }
        self.sums.clear();
        for table in SUMS {
            self.sums.push((table, ours.rows(&format!("SELECT * FROM {table}"), Vec::new()).await?));
        }
        Ok(())
    }

    fn round(&mut self) -> Result<()> {
        let columns = |rows: Option<&Row>| rows.map_or(0, Vec::len);
        let log = replace("request_logs", columns(self.rows.first().map(|(row, _)| row)));
        let errors = replace("error_logs", columns(self.rows.iter().find_map(|(_, error)| error.as_ref())));
        let sums = self.sums.iter().map(|(table, rows)| (replace(table, columns(rows.first())), rows));
        let sums: Vec<_> = sums.collect();
        for batch in self.rows.chunks(EVENTS_AT_ONCE) {
            let transaction = self.connection.transaction()?;
            for (row, error) in batch {
                put(&transaction, &log, row)?;
                if let Some(error) = error {
                    put(&transaction, &errors, error)?;
                }
            }
            for (sql, rows) in &sums {
                rows.iter().try_for_each(|row| put(&transaction, sql, row))?;
            }
            let state = "UPDATE ingestion_state SET last_sequence = ?1";
            transaction.prepare_cached(state)?.execute([self.last])?;
            transaction.commit()?;
        }
        Ok(())
    }
}

fn replace(table: &str, columns: usize) -> String {
    format!("INSERT OR REPLACE INTO {table} VALUES ({})", vec!["?"; columns].join(", "))
}

fn put(transaction: &Transaction<'_>, sql: &str, row: &Row) -> Result<()> {
    transaction.prepare_cached(sql)?.execute(params_from_iter(row))?;
    Ok(())
}

fn native(value: Value) -> Native {
    match value {
        Value::Null => Native::Null,
        Value::Integer(number) => Native::Integer(number),
        Value::Real(number) => Native::Real(number),
        Value::Text(text) => Native::Text(text),
        Value::Blob(bytes) => Native::Blob(bytes),
    }
}

/// Keeps the one counter that says how far ingestion is.
struct Ingested(Arc<AtomicU64>);

impl Recorder for Ingested {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "tollgate_events_ingested_total" => Counter::from_arc(self.0.clone()),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// CPU time of each thread so far.
fn cpu() -> Result<Cpu> {
    let mut threads = Cpu::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // A thread that ends meanwhile takes its time with it.
        let Ok(name) = std::fs::read_to_string(task.join("comm")) else { continue };
        *threads.entry(name.trim().to_owned()).or_default() +=
            on_cpu(&task.join("schedstat")).unwrap_or_default();
    }
    Ok(threads)
}

fn difference(before: &Cpu, after: Cpu) -> Cpu {
    let since = |(name, time): (String, Duration)| {
        let spent = time.saturating_sub(before.get(&name).copied().unwrap_or_default());
        (name, spent)
    };
    after.into_iter().map(since).collect()
}

fn on_cpu(schedstat: &Path) -> Result<Duration> {
    let text = std::fs::read_to_string(schedstat)?;
    let nanoseconds = text.split(' ').next().context("an empty schedstat")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Median and range, in µs an event.
fn spread(rounds: impl Iterator<Item = Duration>) -> String {
    let mut micros: Vec<f64> = rounds.map(|cpu| cpu.as_nanos() as f64 / 1_000.0 / EVENTS as f64).collect();
    micros.sort_by(f64::total_cmp);
    let at = |index: usize| micros.get(index).copied().unwrap_or_default();
    format!("{:.2} ({:.2}–{:.2})", at(micros.len() / 2), at(0), at(micros.len().saturating_sub(1)))
}
