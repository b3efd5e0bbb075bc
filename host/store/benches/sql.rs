//! SQL on the store against native SQLite (WAL, synchronous = FULL) in the same run: `cargo bench -p tollgate-store --bench sql`.
//!
//! Prints one line a measurement: what, native per second, ours per second, ratio; medians of interleaved rounds.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark that cannot go on may stop")]

use std::{
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use tollgate_store::{Database, Options, Statement, Store, Value};

const ROWS: i64 = 200_000;
const ROUNDS: usize = 5;
const SLICE: Duration = Duration::from_millis(700);
const TASKS: usize = 64;
/// Reads inside of one statement, to see the pages and not the way to the connection.
const READS_AT_ONCE: i64 = 10_000;

const CREATE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, account TEXT, tokens INTEGER, body TEXT)";
const INDEX: &str = "CREATE INDEX t_account ON t (account, id)";
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
    INSERT INTO t SELECT i, 'account-' || (i % 200), i % 1000, hex(randomblob(60)) FROM n";
const INSERT: &str = "INSERT INTO t (account, tokens, body) VALUES ('account-1', 5, hex(randomblob(60)))";
const POINT: &str = "SELECT body FROM t WHERE id = ?1";
const AGGREGATE: &str = "SELECT count(*), sum(tokens) FROM t WHERE account = ?1 AND id <= ?2";
const POINTS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    SELECT sum(length((SELECT body FROM t WHERE id = 1 + abs(random()) % ?2))) FROM n";

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let native = native(&directory.path().join("native.db"));
    let store = Store::open(&directory.path().join("store.redb"), Options::default()).unwrap();
    let ours = store.database("bench").unwrap();
    runtime.block_on(fill(&ours));

    let mut key = 0;
    let mut next = move || {
        key = (key + 7_919) % ROWS;
        key + 1
    };
    let mut next_ours = next;

    compare(
        "durable one-row transactions",
        || native.prepare_cached(INSERT).unwrap().execute([]).unwrap(),
        || runtime.block_on(ours.execute(INSERT.into())).unwrap(),
    );
    compare_rates(
        "durable inserts of 64 callers (native: 64 a transaction)",
        || rate(TASKS, || native_group(&native)),
        || runtime.block_on(grouped(&ours)),
    );
    compare(
        "reads by key, one caller (ours through the pool)",
        || black_box(native_read(&native, next())),
        || black_box(runtime.block_on(ours.query(point(next_ours()))).unwrap()),
    );
    compare(
        "statements of 10,000 reads by key",
        || black_box(native_number(&native, POINTS, READS_AT_ONCE, ROWS)),
        || {
            let statement = Statement::new(POINTS, vec![READS_AT_ONCE.into(), ROWS.into()]);
            black_box(runtime.block_on(ours.query(statement)).unwrap());
            0
        },
    );
    let mut account = 0;
    let mut next_account = move || {
        account = (account + 1) % 200;
        format!("account-{account}")
    };
    let mut next_account_ours = next_account;
    compare(
        "aggregates over 1,000 rows by index",
        || {
            let mut statement = native.prepare_cached(AGGREGATE).unwrap();
            black_box(statement.query_row((next_account(), ROWS), |row| row.get::<_, i64>(1)).unwrap())
        },
        || {
            let params = vec![next_account_ours().into(), ROWS.into()];
            black_box(runtime.block_on(ours.query(Statement::new(AGGREGATE, params))).unwrap())
        },
    );
    let size = std::fs::metadata(directory.path().join("store.redb")).unwrap().len();
    let native_size = std::fs::metadata(directory.path().join("native.db")).unwrap().len();
    println!("file: native {} MiB, store {} MiB (sparse, not compacted)", native_size >> 20, size >> 20);
}

/// Measures both in turn and prints the medians.
fn compare<N, O>(what: &str, mut native: impl FnMut() -> N, mut ours: impl FnMut() -> O) {
    compare_rates(what, || rate(1, &mut native), || rate(1, &mut ours));
}

fn compare_rates(what: &str, mut native: impl FnMut() -> f64, mut ours: impl FnMut() -> f64) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        left.push(native());
        right.push(ours());
    }
    let (native, ours) = (median(left), median(right));
    println!("{what}: native {native:.0}/s, store {ours:.0}/s, x{:.2}", ours / native);
}

fn rate<T>(each: usize, mut run: impl FnMut() -> T) -> f64 {
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < SLICE {
        run();
        count += each;
    }
    count as f64 / started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn native(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").unwrap();
    connection.execute_batch(CREATE).unwrap();
    connection.execute(FILL, [1, ROWS]).unwrap();
    connection.execute_batch(INDEX).unwrap();
    connection
}

async fn fill(database: &Database) {
    let patient = database.with_deadline(Duration::from_secs(60));
    patient.execute(CREATE.into()).await.unwrap();
    for from in (1..ROWS).step_by(50_000) {
        let params = vec![from.into(), (from + 49_999).into()];
        patient.execute(Statement::new(FILL, params)).await.unwrap();
    }
    patient.execute(INDEX.into()).await.unwrap();
}

fn native_group(native: &rusqlite::Connection) {
    native.execute_batch("BEGIN").unwrap();
    for _ in 0..TASKS {
        native.prepare_cached(INSERT).unwrap().execute([]).unwrap();
    }
    native.execute_batch("COMMIT").unwrap();
}

async fn grouped(database: &Database) -> f64 {
    let started = Instant::now();
    let tasks = (0..TASKS).map(|_| {
        let database = database.clone();
        tokio::spawn(async move {
            let mut count = 0_u32;
            while started.elapsed() < SLICE {
                database.execute(INSERT.into()).await.unwrap();
                count += 1;
            }
            count
        })
    });
    let mut count = 0;
    for task in tasks.collect::<Vec<_>>() {
        count += task.await.unwrap();
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

fn native_read(native: &rusqlite::Connection, key: i64) -> String {
    native.prepare_cached(POINT).unwrap().query_row([key], |row| row.get(0)).unwrap()
}

fn native_number(native: &rusqlite::Connection, sql: &str, first: i64, second: i64) -> i64 {
    native.prepare_cached(sql).unwrap().query_row([first, second], |row| row.get(0)).unwrap()
}

fn point(key: i64) -> Statement {
    Statement::new(POINT, vec![Value::Integer(key)])
}
