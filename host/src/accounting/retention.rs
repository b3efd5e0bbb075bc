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
    /// Rows of `usage_daily` and `system_stats`.
    pub statistics: Option<Duration>,
}

/// Removes a bounded number of rows older than a time: ?1 milliseconds since 1970, ?2 rows.
struct Table {
    name: &'static str,
    keep: fn(&Retention) -> Option<Duration>,
    delete: &'static str,
}

const TABLES: [Table; 5] = [
    Table {
        name: "request_logs",
        keep: |retention| retention.request_logs,
        delete: "DELETE FROM request_logs WHERE sequence IN
            (SELECT sequence FROM request_logs WHERE timestamp < ?1 ORDER BY timestamp LIMIT ?2)",
    },
    Table {
        name: "error_logs",
        keep: |retention| retention.error_logs,
        delete: "DELETE FROM error_logs WHERE sequence IN
            (SELECT sequence FROM error_logs WHERE timestamp < ?1 ORDER BY timestamp LIMIT ?2)",
    },
    Table {
        name: "usage_daily",
        keep: |retention| retention.statistics,
        delete: "DELETE FROM usage_daily WHERE (kind, key_hash, date, model) IN
            (SELECT kind, key_hash, date, model FROM usage_daily
             WHERE date < date(?1 / 1000, 'unixepoch') LIMIT ?2)",
    },
    Table {
        name: "system_stats_keys",
        keep: |retention| retention.statistics,
        delete: "DELETE FROM system_stats_keys WHERE (date, kind, key_hash) IN
            (SELECT date, kind, key_hash FROM system_stats_keys WHERE date < date(?1 / 1000, 'unixepoch') LIMIT ?2)",
    },
    Table {
        name: "system_stats",
        keep: |retention| retention.statistics,
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
            let outcome = if_counted(self.0.database.execute(Statement::new(table.delete, params)).await)?;
            let rows = outcome.map_or(0, |outcome| outcome.rows_written);
            metrics::counter!("tollgate_pruned_rows_total", "table" => table.name).increment(rows);
            all += rows;
            if rows == 0 {
                return Ok(all);
            }
            sleep(PRUNE_PAUSE).await;
        }
    }
}
