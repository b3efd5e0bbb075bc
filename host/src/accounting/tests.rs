use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tollgate_store::{Clock, Database, Options, Statement, Store, Value};

use super::*;

/// The tables as the ingestion plugin makes them.
#[allow(dead_code, reason = "only the tables are of use here")]
#[path = "../../../plugins/ingestion/src/schema.rs"]
mod schema;

const DAY_MS: u64 = 86_400_000;

/// 2026-01-01, at noon.
const NOON: u64 = 1_767_268_800_000;

struct Counted {
    database: Database,
    now_ms: Arc<AtomicU64>,
    clock: Clock,
    _store: Store,
    _home: tempfile::TempDir,
}

impl Counted {
    async fn new() -> Counted {
        let counted = Counted::without_tables();
        counted.database.batch(schema::TABLES.map(Statement::from).into()).await.unwrap();
        let keys = "CREATE TABLE api_keys (name TEXT, key_hash TEXT)";
        counted.run(keys).await;
        counted.run("INSERT INTO api_keys VALUES ('alice', 'a')").await;
        counted
    }

    fn without_tables() -> Counted {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let now_ms = Arc::new(AtomicU64::new(NOON));
        let now = now_ms.clone();
        let clock: Clock = Arc::new(move || now.load(Ordering::Relaxed));
        Counted { database: store.database("gateway").unwrap(), now_ms, clock, _store: store, _home: home }
    }

    async fn run(&self, sql: &str) {
        self.database.execute(sql.into()).await.unwrap();
    }

    /// A request's worth of both rows, some days ago.
    async fn used(&self, client: &str, days_ago: u64, model: &str, requests: i64) {
        let at = NOON - days_ago * DAY_MS;
        let sql =
            "INSERT INTO usage_daily VALUES (?5, ?1, date(?2 / 1000, 'unixepoch'), ?3, ?4, 1, 10, 20, 3, 4,
            1500000000, ?2, ?2) ON CONFLICT DO UPDATE SET requests = requests + ?4";
        for (kind, hash) in [("key", client), ("account", "account")] {
            let params =
                vec![hash.into(), Value::Integer(at as i64), model.into(), requests.into(), kind.into()];
            self.database.execute(Statement::new(sql, params)).await.unwrap();
        }
        let sql = "INSERT INTO system_stats SELECT date(?1 / 1000, 'unixepoch'), ?2, 0, 1, 0, 0, 0, 0, 10, 20, 30, 3, 4,
            1500000000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
            WHERE true ON CONFLICT DO UPDATE SET total_requests = total_requests + ?2";
        let params = vec![Value::Integer(at as i64), requests.into()];
        self.database.execute(Statement::new(sql, params)).await.unwrap();
    }

    async fn count(&self, table: &str) -> Value {
        let outcome =
            self.database.query(format!("SELECT count(*) FROM {table}").as_str().into()).await.unwrap();
        outcome.rows[0][0].clone()
    }
}

async fn groups(counted: &Counted, by: Grouping, window: Window) -> Vec<(String, Option<String>, u64)> {
    let report = report(&counted.database, by, window).await.unwrap();
    report.usage.into_iter().map(|row| (row.group, row.name, row.totals.requests)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_sums_what_lies_in_its_days_by_what_was_asked_for() {
    let counted = Counted::new().await;
    counted.used("a", 0, "large", 5).await;
    counted.used("a", 1, "small", 7).await;
    counted.used("b", 1, "small", 9).await;
    let day = |text: &str| Some(text.parse().unwrap());
    let today = day("2026-01-01").unwrap();
    let all = Window::of(None, None, today);
    let owned = |text: &str| text.to_owned();
    let days = [(owned("2025-12-31"), None, 16), (owned("2026-01-01"), None, 5)];
    assert_eq!(groups(&counted, Grouping::Day, all).await, days);
    let keys = [(owned("a"), Some(owned("alice")), 12), (owned("b"), None, 9)];
    assert_eq!(groups(&counted, Grouping::Key, all).await, keys);
    assert_eq!(
        groups(&counted, Grouping::Model, all).await,
        [(owned("small"), None, 16), (owned("large"), None, 5)]
    );
    assert_eq!(groups(&counted, Grouping::Account, all).await, [(owned("account"), None, 21)]);
    let last = Window::of(day("2026-01-01"), None, today);
    assert_eq!(groups(&counted, Grouping::Key, last).await, [(owned("a"), Some(owned("alice")), 5)]);
    let before = Window::of(None, day("2025-12-31"), today);
    assert_eq!(groups(&counted, Grouping::Day, before).await, [(owned("2025-12-31"), None, 16)]);
    let totals = totals(&counted.database, "a").await.unwrap().unwrap();
    let expected = Totals {
        requests: 12,
        failed_requests: 2,
        input_tokens: 20,
        output_tokens: 40,
        cache_read_tokens: 6,
        cache_write_tokens: 8,
        cost: 3.0,
        first_used_ms: Some(NOON - DAY_MS),
        last_used_ms: Some(NOON),
    };
    assert_eq!(totals, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_counted_there_is_no_report_and_nothing_to_prune() {
    let counted = Counted::without_tables();
    let window = Window::of(None, None, "2026-01-01".parse().unwrap());
    for by in [Grouping::Day, Grouping::Key] {
        assert!(matches!(report(&counted.database, by, window).await, Err(ReportError::NotCounted)));
    }
    assert_eq!(totals(&counted.database, "a").await.unwrap(), None);
    let day = Some(Duration::from_millis(DAY_MS));
    let retention = Retention { request_logs: day, error_logs: day, statistics: day };
    let pruner = Pruner::new(counted.database.clone(), counted.clock.clone(), retention);
    assert_eq!(pruner.prune().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_row_is_kept_for_its_own_time_however_many_there_are() {
    let counted = Counted::new().await;
    // More than two steps' worth, one an hour.
    counted
        .run(&format!(
            "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 1200)
             INSERT INTO error_logs SELECT value, {NOON} - value * 3600000, 'auth', '', '', '', '', '', '', '', '', 401, '', '', 0, ''
             FROM n"
        ))
        .await;
    for days_ago in 0..5 {
        counted.used("a", days_ago, "m", 1).await;
    }
    let days = |days: u64| Some(Duration::from_millis(days * DAY_MS));
    let retention = Retention { request_logs: None, error_logs: days(2), statistics: None };
    let pruner = Pruner::new(counted.database.clone(), counted.clock.clone(), retention);
    assert_eq!(pruner.prune().await, Some(1_200 - 48));
    assert_eq!(
        (counted.count("error_logs").await, counted.count("usage_daily").await),
        (48.into(), 10.into())
    );
    pruner.keep(Retention { statistics: days(2), ..retention });
    assert_eq!(pruner.prune().await, Some(4 + 2));
    counted.now_ms.fetch_add(DAY_MS, Ordering::Relaxed);
    assert_eq!(pruner.prune().await, Some(24 + 2 + 1));
    assert_eq!(
        (counted.count("error_logs").await, counted.count("usage_daily").await),
        (24.into(), 4.into())
    );
}
