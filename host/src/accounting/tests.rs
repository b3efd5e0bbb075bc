use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tollgate_store::{Clock, Database, Options, Statement, Store, Value};

use super::*;
use crate::limit_set::LimitSet;

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
    store: Store,
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
        Counted { database: store.database("gateway").unwrap(), now_ms, clock, store, _home: home }
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

    /// A row of the log: who, so many milliseconds ago, which model, status and tokens out; it costs a unit.
    async fn logged(&self, key: &str, ago_ms: u64, model: &str, status: i64, output: i64) {
        let insert = "INSERT INTO request_logs SELECT ifnull(max(sequence), 0) + 1, '', ?2, '', '', '', ?1, '', 'account', 'main',
            'own', ?3, '', 0, ?4, 10, ?5, 10 + ?5, 0, 0, 0, '', 1000000000, 0, ?4 >= 400, '', NULL, 0, 0 FROM request_logs";
        let at = i64::try_from(NOON - ago_ms).unwrap();
        let params = vec![key.into(), at.into(), model.into(), status.into(), output.into()];
        self.database.execute(Statement::new(insert, params)).await.unwrap();
    }

    async fn columns(&self, table: &str) -> Vec<String> {
        let select = format!("SELECT name FROM pragma_table_info('{table}')");
        let rows = self.database.query(select.as_str().into()).await.unwrap().rows;
        let name = |row: &Vec<Value>| match &row[0] {
            Value::Text(name) => name.clone(),
            other => panic!("{other:?} is no name"),
        };
        rows.iter().map(name).collect()
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
    // Of two days, and what the key and the account used before.
    assert_eq!(
        (counted.count("error_logs").await, counted.count("usage_daily").await),
        (24.into(), 6.into())
    );
}

/// What each key and the account have used in all their time, and what is told of the last two days.
async fn all_totals(counted: &Counted) -> (BTreeMap<String, Totals>, Vec<LimitUsage>, Vec<UsageReport>) {
    let keys = totals_by_key(&counted.database).await.unwrap().unwrap();
    for (key, of_key) in &keys {
        assert_eq!(totals(&counted.database, key).await.unwrap().as_ref(), Some(of_key));
    }
    let limits = LimitSet { tokens_total: Some(9), cost_total: Some(9.0), ..LimitSet::default() };
    let limited = Limited { limits: &limits, model_limits: &BTreeMap::new(), under_way: None };
    let whose = Whose::Account("main", "account");
    let account = recent(&counted.database, whose, limited, NOON).await.unwrap().unwrap();
    let window = Window::of("2025-12-31".parse().ok(), None, "2026-01-01".parse().unwrap());
    let mut reports = Vec::new();
    for by in [Grouping::Day, Grouping::Key, Grouping::Account, Grouping::Model] {
        reports.push(report(&counted.database, by, window).await.unwrap());
    }
    (keys.into_iter().collect(), account.limits, reports)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_in_all_stays_the_same_while_days_are_pruned_whatever_interrupts_it() {
    let counted = Counted::new().await;
    // More than ten steps' worth, each row with sums of its own.
    counted
        .run(&format!(
            "WITH RECURSIVE n (value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value < 5999)
            INSERT INTO usage_daily SELECT iif(value % 3, 'key', 'account'), iif(value % 3 = 0, 'account', char(96 + value % 3)),
                date({NOON} / 1000 - value / 6 * 86400, 'unixepoch'), iif(value % 6 < 3, 'large', 'small'), value, value % 5,
                value * 7, value * 11, value * 13, value * 17, value * 1000000001,
                {NOON} - value / 6 * {DAY_MS} - value, {NOON} - value / 6 * {DAY_MS} FROM n"
        ))
        .await;
    for days_ago in 0..5 {
        counted.used("c", days_ago, "m", 1).await;
    }
    let before = all_totals(&counted).await;
    assert_eq!(before.0.len(), 3);
    let days = |days: u64| Some(Duration::from_millis(days * DAY_MS));
    let retention = Retention { statistics: days(2), ..Retention::default() };
    let pruner = Pruner::new(counted.database.clone(), counted.clock.clone(), retention);
    // Between what is added and what goes: neither counts.
    counted
        .run(
            "CREATE TRIGGER stays BEFORE DELETE ON usage_daily WHEN old.date = '2024-06-01' AND old.key_hash = 'b'
            BEGIN SELECT RAISE(ABORT, 'it stays'); END",
        )
        .await;
    assert_eq!(pruner.prune().await, None);
    let left = "usage_daily WHERE date = ''";
    let of_day = "usage_daily WHERE date = '2024-06-01'";
    assert_eq!((counted.count(of_day).await, counted.count(left).await), (6.into(), 3.into()));
    assert_eq!(all_totals(&counted).await, before);
    counted.run("DROP TRIGGER stays").await;
    for after_ms in [0, 1, 4, 9, 23] {
        let part = tokio::time::timeout(Duration::from_millis(after_ms), pruner.prune()).await;
        assert!(part.is_err(), "it was too quick to be interrupted");
        assert_eq!(all_totals(&counted).await, before);
    }
    pruner.prune().await.unwrap();
    assert_eq!(all_totals(&counted).await, before);
    assert_eq!((counted.count(left).await, pruner.prune().await), (4.into(), Some(0)));
    // An account's row of models, a day and a key each: three days, and what is of no day.
    assert_eq!(counted.count("usage_daily").await, (3 * (6 + 2) + 4).into());
    // What comes late for a day that is gone is added too.
    counted.used("c", 9, "m", 4).await;
    assert_eq!(pruner.prune().await, Some(3));
    let of_c = totals(&counted.database, "c").await.unwrap().unwrap();
    assert_eq!((of_c.requests, of_c.first_used_ms), (9, Some(NOON - 9 * DAY_MS)));
    // All the rest is as old now, and no window shows it.
    counted.now_ms.fetch_add(30 * DAY_MS, Ordering::Relaxed);
    pruner.prune().await.unwrap();
    assert_eq!(counted.count("usage_daily").await, 4.into());
    let ever = Window::of(Some(chrono::NaiveDate::MIN), None, "2026-01-31".parse().unwrap());
    for by in [Grouping::Day, Grouping::Key, Grouping::Model] {
        assert!(groups(&counted, by, ever).await.is_empty());
    }
    assert_eq!(all_totals(&counted).await.0["a"], before.0["a"]);
    // It goes with its key.
    counted.run("ALTER TABLE api_keys ADD COLUMN active INTEGER DEFAULT 0").await;
    let erasure = Erasure::open(counted.database.clone(), Vec::new(), counted.clock.clone()).await.unwrap();
    counted.database.execute(mark("a", "alice", NOON)).await.unwrap();
    erasure.work(true).await.unwrap();
    assert_eq!(totals(&counted.database, "a").await.unwrap(), Some(Totals::default()));
    assert_eq!(counted.count("usage_daily").await, 3.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_of_late_is_told_by_model_and_of_each_limit() {
    let counted = Counted::new().await;
    let (second, hour) = (1_000, 3_600_000);
    counted.logged("a", 5 * second, "gpt-4", 200, 20).await;
    counted.logged("a", 59 * second, "gpt-4o", 499, 1).await;
    counted.logged("a", 30 * second, "gpt-4", 502, 0).await;
    counted.logged("a", 61 * second, "gpt-4", 200, 300).await;
    // Yesterday, and not of today.
    counted.logged("a", 13 * hour, "o3", 200, 4_000).await;
    counted.logged("a", 25 * hour, "o3", 200, 50_000).await;
    counted.logged("b", second, "gpt-4", 200, 600_000).await;
    counted.used("a", 0, "own", 3).await;
    counted.used("a", 1, "own", 2).await;
    let limits = LimitSet {
        rpm: Some(7),
        tpm: Some(100),
        rpd: Some(9),
        concurrency: Some(3),
        tokens_per_day: Some(1_000),
        cost_per_day: Some(2.5),
        cost_per_month: Some(40.0),
        tokens_total: Some(5),
        ..LimitSet::default()
    };
    let of_some = LimitSet {
        rpm: Some(2),
        tokens_per_day: Some(8),
        tokens_per_month: Some(9),
        cost_total: Some(7.0),
        ..LimitSet::default()
    };
    let model_limits = [("gpt-4".to_owned(), of_some)].into();
    let limited = Limited { limits: &limits, model_limits: &model_limits, under_way: Some(1) };
    let usage = recent(&counted.database, Whose::Client("a"), limited, NOON).await.unwrap().unwrap();
    let told = |sum: &Sum| (sum.requests, sum.counted_requests, sum.failed_requests, sum.output_tokens);
    assert_eq!((told(&usage.minute), told(&usage.day)), ((3, 2, 2, 21), (5, 4, 2, 4_321)));
    assert_eq!((usage.minute.input_tokens, usage.day.cost), (30, 5.0));
    let models: Vec<_> = usage.models.iter().map(|used| (used.model.as_str(), used.day.requests)).collect();
    assert_eq!(models, [("gpt-4", 3), ("gpt-4o", 1), ("o3", 1)]);
    let (count, money) = (Quantity::Count, Quantity::Money);
    let of =
        |limit, used, most, frees_ms| LimitUsage { limit, models: None, used: Some(used), most, frees_ms };
    let of_gpt_4 = |limit, used, most, frees_ms| LimitUsage {
        models: Some("gpt-4".to_owned()),
        ..of(limit, count(used), count(most), frees_ms)
    };
    assert_eq!(
        usage.limits,
        [
            of("rpm", count(2), count(7), Some(second)),
            of("tpm", count(51), count(100), Some(second)),
            of("rpd", count(4), count(9), Some(11 * hour)),
            of("concurrency", count(1), count(3), None),
            of("tokens_per_day", count(361), count(1_000), Some(12 * hour)),
            of("tokens_total", count(60), count(5), None),
            of("cost_per_day", money(4.0), money(2.5), Some(12 * hour)),
            of("cost_per_month", money(1.5), money(40.0), Some(30 * 24 * hour + 12 * hour)),
            of_gpt_4("rpm", 1, 2, Some(55 * second)),
            of_gpt_4("tokens_per_day", 350, 8, Some(12 * hour)),
            // Days know models by the upstream's names alone.
            LimitUsage { used: None, ..of_gpt_4("tokens_per_month", 0, 9, None) },
            LimitUsage { used: None, most: money(7.0), ..of_gpt_4("cost_total", 0, 0, None) },
        ]
    );
    let account = Whose::Account("main", "account");
    let usage = recent(&counted.database, account, limited, NOON).await.unwrap().unwrap();
    assert_eq!((usage.minute.requests, usage.day.requests), (4, 6));
    let without = Counted::without_tables();
    assert_eq!(recent(&without.database, account, limited, NOON).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_keys_rows_go_wherever_they_stand_and_nobody_elses() {
    let counted = Counted::new().await;
    counted.run("CREATE TABLE ingestion_dead_letters (sequence INTEGER PRIMARY KEY, event TEXT)").await;
    counted.run("INSERT INTO ingestion_dead_letters VALUES (1, 'of a'), (2, 'of b')").await;
    counted.run("ALTER TABLE api_keys ADD COLUMN active INTEGER DEFAULT 0").await;
    // Far apart, as after restarts, and more of one key in a row than a step removes.
    let rows = 3 * limits::WALKED_ROWS;
    for table in ["request_logs", "error_logs"] {
        let columns = counted.columns(table).await;
        let values: Vec<String> = columns
            .iter()
            .map(|column| match column.as_str() {
                "sequence" if table == "error_logs" => "iif(value % 2, 1, -1) * value * 1000000".to_owned(),
                "sequence" => "value * 1000000".to_owned(),
                "client_key_hash" => "iif(value % 7 = 0 OR value BETWEEN 6000 AND 7600, 'a', 'b')".to_owned(),
                _ => "0".to_owned(),
            })
            .collect();
        counted
            .run(&format!(
                "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {rows})
                INSERT INTO {table} SELECT {} FROM n",
                values.join(", ")
            ))
            .await;
    }
    counted.used("a", 0, "m", 3).await;
    counted.used("b", 0, "m", 3).await;
    counted.run("INSERT INTO system_stats_keys VALUES ('2026-01-01', 'client', 'a'), ('2026-01-01', 'client', 'b')").await;
    let kv = counted.store.kv("quota", tollgate_store::KvOptions::default()).unwrap();
    for key in ["client:a", "client:a/gpt-4", "client:b", "account:a"] {
        kv.put(key, vec![1], None).await.unwrap();
    }
    let of = async |key: &str| {
        let mut all = Vec::new();
        for (table, column) in [
            ("request_logs", "client_key_hash"),
            ("error_logs", "client_key_hash"),
            ("usage_daily", "key_hash"),
            ("system_stats_keys", "key_hash"),
        ] {
            let Value::Integer(count) = counted.count(&format!("{table} WHERE {column} = '{key}'")).await
            else {
                panic!("no number")
            };
            all.push(count);
        }
        all
    };
    let (own, others) = (of("a").await, of("b").await);
    let erasure =
        Erasure::open(counted.database.clone(), vec![kv.clone()], counted.clock.clone()).await.unwrap();
    counted.database.execute(mark("a", "alice", NOON)).await.unwrap();
    assert!(!erasure.list(None).await.unwrap()[0].done);
    // Stopped in the middle, as by a crash: the next one goes on.
    let part = tokio::time::timeout(Duration::from_millis(60), erasure.work(true)).await;
    assert!(part.is_err(), "it was too quick to be stopped");
    let erasure =
        Erasure::open(counted.database.clone(), vec![kv.clone()], counted.clock.clone()).await.unwrap();
    erasure.work(true).await.unwrap();
    assert_eq!((of("a").await, of("b").await), (vec![0; 4], others.clone()));
    let deletions = erasure.list(None).await.unwrap();
    assert_eq!(deletions[0].removed_rows, own.iter().sum::<i64>().unsigned_abs() + 1);
    assert!(deletions[0].done, "{deletions:?}");
    assert_eq!(counted.count("api_keys").await, 0.into());
    assert_eq!(kv.list_keys(None, None, 10).await.unwrap().keys, ["account:a", "client:b"]);
    // A request that was under way ends, and is looked for, until there can be none.
    counted.logged("a", 0, "m", 200, 1).await;
    counted.run("UPDATE error_logs SET client_key_hash = 'a' WHERE sequence = (SELECT min(sequence) FROM error_logs)").await;
    erasure.work(true).await.unwrap();
    assert_eq!(of("a").await, [0; 4]);
    counted.now_ms.fetch_add(DAY_MS, Ordering::Relaxed);
    erasure.work(true).await.unwrap();
    let mut left = others;
    left[1] -= 1;
    assert_eq!((erasure.list(None).await.unwrap(), of("b").await), (Vec::new(), left));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_is_read_through_for_a_key_but_by_steps() {
    let counted = Counted::new().await;
    for (table, delete) in erasure::OTHERS.into_iter().filter(|(table, _)| *table != "ingestion_dead_letters")
    {
        // A reader explains nothing that writes; both look for their rows in the same way.
        let sought = delete.replace("DELETE FROM", "SELECT 1 FROM");
        let explain = Statement::new(format!("EXPLAIN QUERY PLAN {sought}"), vec!["a".into(), 9.into()]);
        let plan = format!("{:?}", counted.database.query(explain).await.unwrap().rows);
        assert!(plan.contains(&format!("SEARCH {table}")), "{plan}");
        assert!(
            !plan.contains(&format!("SCAN {table} ")) && !plan.contains(&format!("SCAN {table}\"")),
            "{plan}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_deleted_first_goes_first_and_an_error_of_one_is_none_of_the_others() {
    let counted = Counted::new().await;
    counted.run("ALTER TABLE api_keys ADD COLUMN active INTEGER DEFAULT 0").await;
    let erasure = Erasure::open(counted.database.clone(), Vec::new(), counted.clock.clone()).await.unwrap();
    for key in ["bad", "old", "done"] {
        counted.used(key, 0, "m", 1).await;
    }
    counted
        .run(
            "CREATE TRIGGER stays BEFORE DELETE ON usage_daily WHEN old.key_hash = 'bad'
            BEGIN SELECT RAISE(ABORT, 'it stays'); END",
        )
        .await;
    // Both are older than the latest thousand, and than a request may last.
    let ago = NOON - 2 * DAY_MS;
    counted.database.execute(mark("bad", "bad", ago)).await.unwrap();
    counted.database.execute(mark("old", "old", ago + 1)).await.unwrap();
    counted
        .run(&format!(
            "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 1000)
            INSERT INTO key_deletions (key_hash, name, asked_ms, done_ms)
            SELECT iif(value = 1, 'done', 'n' || value), '', {ago} + 1 + value, {NOON} FROM n"
        ))
        .await;
    let rows = async |key: &str| counted.count(&format!("usage_daily WHERE key_hash = '{key}'")).await;
    assert!(erasure.work(false).await.is_err());
    assert_eq!((rows("bad").await, rows("old").await, rows("done").await), (1.into(), 0.into(), 1.into()));
    let own =
        async |id| erasure.list(Some(id)).await.unwrap().into_iter().map(|own| own.done).collect::<Vec<_>>();
    // Its mark stays, so that what is still to be counted of it goes too.
    assert_eq!((own("bad").await, own("old").await, own("nobody").await), (vec![false], vec![true], vec![]));
    assert_eq!(erasure.list(None).await.unwrap().len(), 1_000);
}
