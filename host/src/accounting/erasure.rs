//! Takes away what client keys left behind that were deleted with their records.
//!
//! Each has a mark in table `key_deletions`, written in the step that revokes it. What it left goes in steps that hold the
//! writer for some milliseconds each; the mark says how far they have come, so that the work goes on there after a crash.
//! Requests that were under way end later: their rows are looked for until there can be none, and then the mark goes too.
//! What is summed over everybody stays: the statistics of days, and the totals of accounts.

use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tollgate_store::{Clock, Database, Kv, KvError, SqlError, Statement, Value};
use utoipa::ToSchema;

use super::if_counted;
use super::limits::{ERASED_KEYS, LATE, PRUNE_AGAIN, PRUNE_EVERY, PRUNE_PAUSE, PRUNED_AT_ONCE, WALKED_ROWS};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS key_deletions (
    key_hash TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    asked_ms INTEGER NOT NULL,
    log_next INTEGER NOT NULL DEFAULT 0,
    error_next INTEGER NOT NULL DEFAULT -9223372036854775807,
    removed_rows INTEGER NOT NULL DEFAULT 0,
    done_ms INTEGER
) WITHOUT ROWID";

/// Tables that are walked through by their sequence, which no key has an index in: each with the column that says how far. That
/// of the log only grows; attempts in the log of errors have sequences below zero, so that it is gone through anew each time.
const WALKED: [(&str, &str); 2] = [("request_logs", "log_next"), ("error_logs", "error_next")];

/// What else is removed, a bounded number of rows at a time: ?1 the key, ?2 rows.
const OTHERS: [(&str, &str); 3] = [
    (
        "usage_daily",
        "DELETE FROM usage_daily WHERE (kind, key_hash, date, model) IN (SELECT kind, key_hash, date, model
            FROM usage_daily WHERE kind = 'key' AND key_hash = ?1 LIMIT ?2)",
    ),
    (
        "system_stats_keys",
        "DELETE FROM system_stats_keys WHERE (date, kind, key_hash) IN (SELECT date, kind, key_hash
            FROM system_stats_keys WHERE kind = 'client' AND key_hash = ?1 LIMIT ?2)",
    ),
    (
        "ingestion_dead_letters",
        "DELETE FROM ingestion_dead_letters WHERE sequence IN (SELECT sequence
            FROM ingestion_dead_letters WHERE instr(event, ?1) > 0 LIMIT ?2)",
    ),
];

/// A deletion that is under way, or was lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Deletion {
    /// The key's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was deleted, in milliseconds since 1970, UTC.
    pub asked_ms: u64,
    /// Rows that were removed so far.
    pub removed_rows: u64,
    /// Up to when the log was looked through; null: not begun.
    pub looked_until_ms: Option<u64>,
    /// Whether everything is gone that had been recorded.
    pub done: bool,
}

/// Why the work stopped.
#[derive(Debug, Error)]
pub(super) enum EraseError {
    /// Of the database.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// Of a policy's store.
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// What marks a key as deleted, in the step that revokes it.
pub fn mark(id: &str, name: &str, now_ms: u64) -> Statement {
    let insert = "INSERT OR IGNORE INTO key_deletions (key_hash, name, asked_ms) VALUES (?1, ?2, ?3)";
    Statement::new(insert, vec![id.into(), name.into(), integer(now_ms)])
}

/// Does what the marks ask for. Cheap to clone.
#[derive(Clone)]
pub struct Erasure(Arc<Inner>);

struct Inner {
    database: Database,
    /// Where policies keep something under `client:ID`.
    kept: Vec<Kv>,
    clock: Clock,
    asked: tokio::sync::Notify,
}

impl Erasure {
    /// Over the gateway's database, and the kv stores of policies.
    pub async fn open(database: Database, kept: Vec<Kv>, clock: Clock) -> Result<Erasure, SqlError> {
        database.execute(SCHEMA.into()).await?;
        Ok(Erasure(Arc::new(Inner { database, kept, clock, asked: tokio::sync::Notify::new() })))
    }

    /// Has it look at once for marks.
    pub fn begin(&self) {
        self.0.asked.notify_one();
    }

    /// The deletions under way, and those whose late rows are still looked for; the latest first.
    pub async fn list(&self) -> Result<Vec<Deletion>, SqlError> {
        let looked =
            "(SELECT timestamp FROM request_logs WHERE sequence < log_next ORDER BY sequence DESC LIMIT 1)";
        let select = |looked: &str| {
            let columns = "key_hash, name, asked_ms, removed_rows, done_ms";
            let sql = format!(
                "SELECT {columns}, {looked} FROM key_deletions ORDER BY asked_ms DESC LIMIT {ERASED_KEYS}"
            );
            Statement { sql, params: Vec::new() }
        };
        let outcome = match if_counted(self.0.database.query(select(looked)).await)? {
            Some(outcome) => outcome,
            None => self.0.database.query(select("NULL")).await?,
        };
        Ok(outcome.rows.into_iter().filter_map(deletion).collect())
    }

    /// Works until the server stops.
    pub async fn run(self, stopping: CancellationToken) {
        let work = async {
            loop {
                let pause = match self.work().await {
                    Ok(()) => PRUNE_EVERY,
                    Err(error) => {
                        tracing::warn!(%error, "the records of a deleted key stay for now");
                        PRUNE_AGAIN
                    }
                };
                let _ = tokio::time::timeout(pause, self.0.asked.notified()).await;
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    /// Does all that the marks ask for.
    pub(super) async fn work(&self) -> Result<(), EraseError> {
        for Deletion { id, asked_ms, .. } in self.list().await? {
            self.erase(&id, asked_ms).await?;
        }
        Ok(())
    }

    async fn erase(&self, id: &str, asked_ms: u64) -> Result<(), EraseError> {
        for (table, next) in WALKED {
            while self.step(id, table, next).await? {
                sleep(PRUNE_PAUSE).await;
            }
        }
        for (table, delete) in OTHERS {
            while self.remove(id, table, delete).await? {
                sleep(PRUNE_PAUSE).await;
            }
        }
        for kv in &self.0.kept {
            forget(kv, &format!("client:{id}")).await?;
        }
        let now_ms = (self.0.clock)();
        let late_ms = u64::try_from(LATE.as_millis()).unwrap_or(u64::MAX);
        let mark = match asked_ms.saturating_add(late_ms) <= now_ms {
            true => "DELETE FROM key_deletions WHERE key_hash = ?1 AND ?2 > 0",
            false => {
                "UPDATE key_deletions SET done_ms = ifnull(done_ms, ?2), error_next = -9223372036854775807
                WHERE key_hash = ?1"
            }
        };
        let key = "DELETE FROM api_keys WHERE key_hash = ?1 AND active = 0";
        let statements = vec![
            Statement::new(key, vec![id.into()]),
            Statement::new(mark, vec![id.into(), integer(now_ms.max(1))]),
        ];
        self.0.database.batch(statements).await?;
        Ok(())
    }

    /// Goes on through a table by a bounded number of rows, and removes a bounded number; whether there may be more.
    async fn step(&self, id: &str, table: &'static str, next: &str) -> Result<bool, SqlError> {
        // The row after the last that this step looks at, or what follows the last one there is.
        let select = format!(
            "WITH here (next) AS (SELECT {next} FROM key_deletions WHERE key_hash = ?1)
            SELECT next, ifnull((SELECT sequence FROM {table} WHERE sequence >= next ORDER BY sequence LIMIT 1 OFFSET ?2),
                (SELECT max(sequence) + 1 FROM {table} WHERE sequence >= next)) FROM here"
        );
        let params = vec![id.into(), WALKED_ROWS.into()];
        let Some(outcome) = if_counted(self.0.database.query(Statement::new(&select, params)).await)? else {
            return Ok(false);
        };
        let [Value::Integer(from), Value::Integer(until)] =
            outcome.rows.first().map(Vec::as_slice).unwrap_or_default()
        else {
            return Ok(false);
        };
        let delete = format!(
            "DELETE FROM {table} WHERE sequence IN (SELECT sequence FROM {table}
                WHERE sequence >= ?2 AND sequence < ?3 AND client_key_hash = ?1 LIMIT {PRUNED_AT_ONCE})"
        );
        // `changes()` is what the statement before has removed.
        let note = format!(
            "UPDATE key_deletions SET removed_rows = removed_rows + changes(),
                {next} = iif(changes() < {PRUNED_AT_ONCE}, ?2, {next}) WHERE key_hash = ?1"
        );
        let (from, until) = (Value::Integer(*from), Value::Integer(*until));
        let statements = vec![
            Statement::new(&delete, vec![id.into(), from, until.clone()]),
            Statement::new(&note, vec![id.into(), until]),
        ];
        let removed =
            self.0.database.batch(statements).await?.first().map_or(0, |outcome| outcome.rows_written);
        count(table, removed);
        Ok(true)
    }

    /// Removes a bounded number of rows; whether there may be more.
    async fn remove(&self, id: &str, table: &'static str, delete: &str) -> Result<bool, SqlError> {
        let statements = vec![
            Statement::new(delete, vec![id.into(), PRUNED_AT_ONCE.into()]),
            Statement::new(
                "UPDATE key_deletions SET removed_rows = removed_rows + changes() WHERE key_hash = ?1",
                vec![id.into()],
            ),
        ];
        let removed = match self.0.database.batch(statements).await {
            Err(SqlError::Invalid(text)) if text.contains("no such table") => return Ok(false),
            outcomes => outcomes?.first().map_or(0, |outcome| outcome.rows_written),
        };
        count(table, removed);
        Ok(removed > 0)
    }
}

/// Removes what a policy keeps about a client: the value under a key, and those under the keys that go on from there.
async fn forget(kv: &Kv, key: &str) -> Result<(), KvError> {
    let mut cursor: Option<String> = None;
    loop {
        let page = kv.list_keys(Some(key), cursor.as_deref(), ERASED_KEYS).await?;
        if !page.keys.is_empty() {
            kv.delete_many(&page.keys).await?;
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn count(table: &'static str, rows: u64) {
    metrics::counter!("tollgate_pruned_rows_total", "table" => table).increment(rows);
}

fn deletion(row: Vec<Value>) -> Option<Deletion> {
    let [Value::Text(id), Value::Text(name), asked, removed, done, looked] =
        <[Value; 6]>::try_from(row).ok()?
    else {
        return None;
    };
    let number = |value: &Value| match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    Some(Deletion {
        id,
        name,
        asked_ms: number(&asked)?,
        removed_rows: number(&removed)?,
        looked_until_ms: number(&looked),
        done: number(&done).is_some(),
    })
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
