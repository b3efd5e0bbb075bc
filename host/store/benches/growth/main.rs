//! What a store costs as it grows: `cargo bench -p tollgate-store --bench growth -- --most 10000000 --svg growth.svg`. For 10,000,
//! 100,000 and a million keys or rows, up to `--most`, it prints how fast they are written and read, how long the store takes to
//! open and to recover from a crash, and the bytes of its file, as a table in Markdown; `--svg` draws that too, at a path that counts
//! from `host/store`.
//!
//! Values have 100 bytes. Keys are read in no order, right after the store was opened: caches are empty at first, and then help as
//! far as they have room.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark that cannot go on may stop")]

mod plot;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tollgate_store::{Acknowledge, Database, Kv, KvOptions, Options, Statement, Store};

const SIZES: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
const MOST: u64 = 1_000_000;
const VALUE: [u8; 100] = [b'x'; 100];
/// Keys of one call that fills a store.
const BATCH: u64 = 1_000;
/// Callers that write at once.
const CALLERS: u64 = 64;
/// How long each rate is taken.
const SLICE: Duration = Duration::from_secs(2);

const CREATE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, account TEXT, body TEXT)";
const INDEX: &str = "CREATE INDEX t_account ON t (account, id)";
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
    INSERT INTO t SELECT i, 'account-' || (i % 200), printf('%0100d', i) FROM n";
/// Rows of one such statement: a few megabytes of pages.
const FILL_ROWS: u64 = 20_000;
const INSERT: &str = "INSERT INTO t (account, body) VALUES ('account-1', printf('%0100d', 1))";
const POINT: &str = "SELECT body FROM t WHERE id = ?1";

/// What is measured, in the order of the columns.
const MEASURES: [(&str, &str); 7] = [
    ("fill", "/s"),
    ("reads", "/s"),
    ("writes of 64", "/s"),
    ("write alone", "µs"),
    ("open", "ms"),
    ("recover", "ms"),
    ("file", "bytes each"),
];

type Row = [f64; MEASURES.len()];

/// Two kinds of content.
#[derive(Clone)]
enum Content {
    Kv(Kv),
    Sql(Database),
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let given: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let place = given.iter().position(|argument| argument == name)?;
        given.get(place + 1)
    };
    let most = option("--most").map_or(MOST, |most| most.parse().unwrap());
    let mut series = Vec::new();
    for kind in ["kv", "sql"] {
        let header: Vec<_> = MEASURES.iter().map(|(name, unit)| format!("{name}, {unit}")).collect();
        println!("\n| {kind} | {} |\n|{}", header.join(" | "), "---|".repeat(MEASURES.len() + 1));
        let mut rows: Vec<(u64, Row)> = Vec::new();
        for size in SIZES.into_iter().filter(|size| *size <= most) {
            let row = runtime.block_on(measure(kind, size));
            let cells: Vec<_> = row.iter().map(|value| grouped(value.round() as u64)).collect();
            println!("| {} | {} |", grouped(size), cells.join(" | "));
            rows.push((size, row));
        }
        series.push((kind, rows));
    }
    if let Some(path) = option("--svg") {
        std::fs::write(path, plot::svg(&MEASURES, &series)).unwrap();
    }
}

async fn measure(kind: &str, size: u64) -> Row {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let (store, content) = open(&path, kind);
    let started = Instant::now();
    content.fill(size).await;
    let fill = size as f64 / started.elapsed().as_secs_f64();
    store.flush().await.unwrap();
    // As a crash leaves it: the file of a store that was not closed.
    let crashed = directory.path().join("crashed.redb");
    std::fs::copy(&path, &crashed).unwrap();
    store.close().await.unwrap();
    drop((store, content));
    let file = std::fs::metadata(&path).unwrap().len() as f64 / size as f64;

    let recover = time_to_open(&crashed, kind).await;
    std::fs::remove_file(&crashed).unwrap();
    let ready = time_to_open(&path, kind).await;
    let (store, content) = open(&path, kind);
    let reads = content.reads(size).await;
    let (together, alone) = (content.writes(CALLERS).await, content.writes(1).await);
    store.close().await.unwrap();
    [fill, reads, together, 1e6 / alone, ready, recover, file]
}

fn open(path: &Path, kind: &str) -> (Store, Content) {
    let store = Store::open(path, Options::default()).unwrap();
    let durable = KvOptions { acknowledge: Acknowledge::Durable, default_ttl_ms: None, limit_bytes: None };
    let content = match kind {
        "kv" => Content::Kv(store.kv("bench", durable).unwrap()),
        _ => Content::Sql(store.database("bench").unwrap()),
    };
    (store, content)
}

/// Milliseconds until the first answer.
async fn time_to_open(path: &Path, kind: &str) -> f64 {
    let started = Instant::now();
    let (store, content) = open(path, kind);
    content.read(1).await;
    let time = started.elapsed();
    store.close().await.unwrap();
    time.as_secs_f64() * 1e3
}

impl Content {
    async fn fill(&self, size: u64) {
        match self {
            Self::Kv(kv) => {
                for first in (0..size).step_by(BATCH as usize) {
                    let entries = (first..(first + BATCH).min(size)).map(|key| (name(key), VALUE.to_vec()));
                    kv.set_many(entries.collect(), None).await.unwrap();
                }
            }
            Self::Sql(sql) => {
                sql.batch(vec![CREATE.into(), INDEX.into()]).await.unwrap();
                let sql = sql.with_deadline(Duration::from_secs(60));
                for first in (1..=size).step_by(FILL_ROWS as usize) {
                    let last = (first + FILL_ROWS - 1).min(size);
                    let bounds = [first, last].map(|bound| i64::try_from(bound).unwrap().into());
                    sql.execute(Statement::new(FILL, bounds.into())).await.unwrap();
                }
            }
        }
    }

    async fn read(&self, number: u64) {
        match self {
            Self::Kv(kv) => assert!(kv.get(&name(number)).await.unwrap().is_some()),
            Self::Sql(sql) => {
                let statement = Statement::new(POINT, vec![i64::try_from(number).unwrap().into()]);
                assert_eq!(sql.query(statement).await.unwrap().rows.len(), 1);
            }
        }
    }

    async fn write(&self, number: u64) {
        match self {
            Self::Kv(kv) => drop(kv.put(&format!("new {number}"), VALUE.to_vec(), None).await.unwrap()),
            Self::Sql(sql) => drop(sql.execute(INSERT.into()).await.unwrap()),
        }
    }

    /// Reads a second of one caller, in no order.
    async fn reads(&self, size: u64) -> f64 {
        let (started, mut count, mut state) = (Instant::now(), 0_u64, 1_u64);
        while started.elapsed() < SLICE {
            for _ in 0..100 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                self.read(1 + (state >> 33) % (size - 1)).await;
            }
            count += 100;
        }
        count as f64 / started.elapsed().as_secs_f64()
    }

    /// Durable writes a second of so many callers.
    async fn writes(&self, callers: u64) -> f64 {
        let started = Instant::now();
        let writers = (0..callers).map(|caller| {
            let content = self.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while started.elapsed() < SLICE {
                    content.write(callers * 1_000_000_000 + caller * 1_000_000 + count).await;
                    count += 1;
                }
                count
            })
        });
        let mut count = 0;
        for writer in writers.collect::<Vec<_>>() {
            count += writer.await.unwrap();
        }
        count as f64 / started.elapsed().as_secs_f64()
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    if number < 1_000 {
        return number.to_string();
    }
    format!("{},{:03}", grouped(number / 1_000), number % 1_000)
}

fn name(key: u64) -> String {
    format!("key {key}")
}
