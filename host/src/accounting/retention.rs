//! How long rows of the log and of statistics are kept.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tollgate_store::{Clock, Database, SqlError, Statement, Value};

use super::if_counted;
use super::limits::{PRUNE_EVERY, PRUNE_PAUSE, PRUNED_AT_ONCE};

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
        delete: "DELETE FROM usage_daily WHERE (client_key_hash, date, api_key_hash, model) IN
            (SELECT client_key_hash, date, api_key_hash, model FROM usage_daily
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
                if let Err(error) = self.prune().await {
                    tracing::warn!(%error, "old rows cannot be removed");
                }
                let _ = tokio::time::timeout(PRUNE_EVERY, self.0.changed.notified()).await;
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    /// Removes all that is too old; how many rows.
    pub(super) async fn prune(&self) -> Result<u64, SqlError> {
        let retention = *self.0.retention.lock();
        let mut all = 0;
        for table in &TABLES {
            if let Some(keep) = (table.keep)(&retention) {
                all += self.prune_table(table, keep).await?;
            }
        }
        Ok(all)
    }

    async fn prune_table(&self, table: &Table, keep: Duration) -> Result<u64, SqlError> {
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let oldest =
            Value::Integer(i64::try_from((self.0.clock)().saturating_sub(keep_ms)).unwrap_or(i64::MAX));
        let mut all = 0;
        loop {
            let params = vec![oldest.clone(), PRUNED_AT_ONCE.into()];
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
