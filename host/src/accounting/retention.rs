//! How long rows of the log and of statistics are kept.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tollgate_store::{Clock, Database, SqlError, Statement};

use super::if_counted;
use super::limits::{PRUNE_AGAIN, PRUNE_EVERY, PRUNE_PAUSE, PRUNED_AT_ONCE};

/// How long rows are kept; none: for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Rows of `request_logs`.
    pub request_logs: Option<Duration>,
    /// Rows of `error_logs`.
    pub error_logs: Option<Duration>,
    /// Days of `usage_daily` and `system_stats`; what keys and accounts used in all their time stays.
    pub statistics: Option<Duration>,
}

/// Removes a bounded number of rows older than a time: ?1 milliseconds since 1970, ?2 rows.
struct Table {
    name: &'static str,
    keep: fn(&Retention) -> Option<Duration>,
    /// What is done in the same transaction, before the rows go.
    before: Option<&'static str>,
    delete: &'static str,
}

/// The rows of `usage_daily` that go next: the same ones to both statements of a transaction, by the order of an index. Before all
/// days, at date '', stands what went before.
macro_rules! oldest_usage {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM usage_daily WHERE date > '' AND date < date(?1 / 1000, 'unixepoch')
            ORDER BY date, kind, key_hash, model LIMIT ?2"
        )
    };
}

/// Adds what goes to the one row that each key and account has of it for good, so that what it used in all its time stays the same.
/// Models are not told apart there: clients can invent names, and nothing would bound them.
const FOLD_USAGE: &str = concat!(
    "INSERT INTO usage_daily SELECT kind, key_hash, '', '', sum(requests), sum(failed_requests), sum(input_tokens),
        sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(cost), min(first_used), max(last_used)
    FROM (",
    oldest_usage!("*"),
    ") WHERE true GROUP BY kind, key_hash
    ON CONFLICT (kind, key_hash, date, model) DO UPDATE SET
        requests = requests + excluded.requests,
        failed_requests = failed_requests + excluded.failed_requests,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        cost = cost + excluded.cost,
        first_used = min(first_used, excluded.first_used),
        last_used = max(last_used, excluded.last_used)"
);

const TABLES: [Table; 5] = [
    Table {
        name: "request_logs",
        keep: |retention| retention.request_logs,
        before: None,
        delete: "DELETE FROM request_logs WHERE sequence IN
            (SELECT sequence FROM request_logs WHERE timestamp < ?1 ORDER BY timestamp LIMIT ?2)",
    },
    Table {
        name: "error_logs",
        keep: |retention| retention.error_logs,
        before: None,
        delete: "DELETE FROM error_logs WHERE sequence IN
            (SELECT sequence FROM error_logs WHERE timestamp < ?1 ORDER BY timestamp LIMIT ?2)",
    },
    Table {
        name: "usage_daily",
        keep: |retention| retention.statistics,
        before: Some(FOLD_USAGE),
        delete: concat!(
            "DELETE FROM usage_daily WHERE (kind, key_hash, date, model) IN (",
            oldest_usage!("kind, key_hash, date, model"),
            ")"
        ),
    },
    Table {
        name: "system_stats_keys",
        keep: |retention| retention.statistics,
        before: None,
        delete: "DELETE FROM system_stats_keys WHERE (date, kind, key_hash) IN
            (SELECT date, kind, key_hash FROM system_stats_keys WHERE date < date(?1 / 1000, 'unixepoch') LIMIT ?2)",
    },
    Table {
        name: "system_stats",
        keep: |retention| retention.statistics,
        before: None,
        delete: "DELETE FROM system_stats WHERE date IN
            (SELECT date FROM system_stats WHERE date < date(?1 / 1000, 'unixepoch') LIMIT ?2)",
    },
];

/// Removes what is past its time, in steps short enough that nobody waits for them. Cheap to clone.
#[derive(Clone)]
pub struct Pruner(Arc<Inner>);

struct Inner {
    database: Database,
    clock: Clock,
    retention: Mutex<Retention>,
    changed: tokio::sync::Notify,
}

impl Pruner {
    /// Of a database with the ingestion plugin's tables, once there are any.
    pub fn new(database: Database, clock: Clock, retention: Retention) -> Pruner {
        let (retention, changed) = (Mutex::new(retention), tokio::sync::Notify::new());
        Pruner(Arc::new(Inner { database, clock, retention, changed }))
    }

    /// Changes how long rows are kept; what is too old by that goes at once.
    pub fn keep(&self, retention: Retention) {
        *self.0.retention.lock() = retention;
        self.0.changed.notify_one();
    }

    /// Prunes again and again until the server stops.
    pub async fn run(self, stopping: CancellationToken) {
        let work = async {
            loop {
                let pause = if self.prune().await.is_some() { PRUNE_EVERY } else { PRUNE_AGAIN };
                let _ = tokio::time::timeout(pause, self.0.changed.notified()).await;
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    /// Removes all that is too old; how many rows, or none when a table refused.
    pub(super) async fn prune(&self) -> Option<u64> {
        let mut all = Some(0);
        for table in &TABLES {
            let pruned = self.prune_table(table).await;
            let pruned =
                pruned.inspect_err(|error| tracing::warn!(table = table.name, %error, "old rows stay"));
            all = all.zip(pruned.ok()).map(|(all, rows)| all + rows);
        }
        all
    }

    async fn prune_table(&self, table: &Table) -> Result<u64, SqlError> {
        let mut all = 0;
        loop {
            // Asked at each step: who has corrected a mistake does not lose more rows by it.
            let Some(keep) = (table.keep)(&self.0.retention.lock()) else { return Ok(all) };
            let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
            let oldest = (self.0.clock)().saturating_sub(keep_ms);
            let params = vec![i64::try_from(oldest).unwrap_or(i64::MAX).into(), PRUNED_AT_ONCE.into()];
            let statements = table.before.into_iter().chain([table.delete]);
            let statements = statements.map(|sql| Statement::new(sql, params.clone())).collect();
            let outcomes = if_counted(self.0.database.batch(statements).await)?.unwrap_or_default();
            let rows = outcomes.last().map_or(0, |outcome| outcome.rows_written);
            metrics::counter!("tollgate_pruned_rows_total", "table" => table.name).increment(rows);
            all += rows;
            if rows == 0 {
                return Ok(all);
            }
            sleep(PRUNE_PAUSE).await;
        }
    }
}
