//! Takes away what client keys left behind that were deleted with their records.
//!
//! Each has a mark in table `key_deletions`, written in the step that revokes it. What it left goes in steps that hold the
//! writer for some milliseconds each; the mark says how far they have come, so that the work goes on there after a crash.
//! Requests that were under way end later: their rows are looked for until there can be none, and then the mark goes too.
//! What is summed over everybody stays: the statistics of days, and the totals of accounts.

use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use tokio::time::{Instant, sleep};
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

/// Before all sequences.
const BEGINNING: i64 = -i64::MAX;

/// What else is removed, a bounded number of rows at a time: ?1 the key, ?2 rows. Of the clients of days, whose rows begin with
/// the day, a row is looked up for each day that there is.
pub(super) const OTHERS: [(&str, &str); 3] = [
    (
        "usage_daily",
        "DELETE FROM usage_daily WHERE (kind, key_hash, date, model) IN (SELECT kind, key_hash, date, model
            FROM usage_daily WHERE kind = 'key' AND key_hash = ?1 LIMIT ?2)",
    ),
    (
        "system_stats_keys",
        "DELETE FROM system_stats_keys WHERE (date, kind, key_hash) IN (SELECT date, kind, key_hash
            FROM system_stats_keys WHERE date IN (SELECT date FROM system_stats) AND kind = 'client' AND key_hash = ?1 LIMIT ?2)",
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

/// A key whose records go.
struct Mark {
    id: String,
    asked_ms: i64,
    /// When its first pass was complete.
    done_ms: Option<i64>,
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

    /// The deletions under way, and those whose late rows are still looked for; the latest first. Or one, by its key's id.
    pub async fn list(&self, id: Option<&str>) -> Result<Vec<Deletion>, SqlError> {
        let looked =
            "(SELECT timestamp FROM request_logs WHERE sequence < log_next ORDER BY sequence DESC LIMIT 1)";
        let select = |looked: &str| {
            let columns = "key_hash, name, asked_ms, removed_rows, done_ms";
            let sql = format!(
                "SELECT {columns}, {looked} FROM key_deletions WHERE ifnull(key_hash = ?1, 1)
                ORDER BY asked_ms DESC LIMIT {ERASED_KEYS}"
            );
            Statement { sql, params: vec![id.map_or(Value::Null, Value::from)] }
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
            let mut again = Instant::now();
            loop {
                let late_too = again <= Instant::now();
                match self.work(late_too).await {
                    Err(_) => again = Instant::now() + PRUNE_AGAIN,
                    Ok(()) if late_too => again = Instant::now() + PRUNE_EVERY,
                    Ok(()) => {}
                }
                let _ = tokio::time::timeout_at(again, self.0.asked.notified()).await;
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    /// Does all that the marks ask for, those first that were never done; the late rows of the others only if asked. Goes on after
    /// an error, and tells the last.
    pub(super) async fn work(&self, late_too: bool) -> Result<(), EraseError> {
        let began_ms = (self.0.clock)();
        let undone = self.work_on("done_ms IS NULL AND ?3 > 0", began_ms).await;
        if !late_too {
            return undone;
        }
        undone.and(self.work_on("done_ms <= ?3", began_ms).await)
    }

    /// Works on the marks of a condition, in which ?3 is when the work began.
    async fn work_on(&self, which: &str, began_ms: u64) -> Result<(), EraseError> {
        let mut outcome = Ok(());
        let mut last = (-1, String::new());
        loop {
            let marks = self
                .marks(which, began_ms, last.clone())
                .await
                .inspect_err(|error| tracing::warn!(%error, "the records of deleted keys stay for now"))?;
            let Some(mark) = marks.last() else { return outcome };
            last = (mark.asked_ms, mark.id.clone());
            for mark in marks {
                if let Err(error) = self.erase(&mark).await {
                    tracing::warn!(id = mark.id, %error, "the records of a deleted key stay for now");
                    outcome = Err(error);
                }
            }
        }
    }

    /// The marks of a condition behind another one, the earliest first.
    async fn marks(
        &self,
        which: &str,
        began_ms: u64,
        (asked_ms, id): (i64, String),
    ) -> Result<Vec<Mark>, SqlError> {
        let sql = format!(
            "SELECT key_hash, asked_ms, done_ms FROM key_deletions WHERE (asked_ms, key_hash) > (?1, ?2) AND {which}
            ORDER BY asked_ms, key_hash LIMIT {ERASED_KEYS}"
        );
        let params = vec![asked_ms.into(), id.into(), integer(began_ms.max(1))];
        let rows = self.0.database.query(Statement { sql, params }).await?.rows;
        Ok(rows.into_iter().filter_map(read_mark).collect())
    }

    async fn erase(&self, Mark { id, done_ms, .. }: &Mark) -> Result<(), EraseError> {
        let began_ms = i64::try_from((self.0.clock)()).unwrap_or(i64::MAX);
        let late_ms = i64::try_from(LATE.as_millis()).unwrap_or(i64::MAX);
        // By now every request of the key had ended, and its events were taken up.
        let is_last = done_ms.is_some_and(|done_ms| done_ms.saturating_add(late_ms) <= began_ms);
        let anew = "UPDATE key_deletions SET error_next = ?2 WHERE key_hash = ?1";
        let params = vec![id.as_str().into(), BEGINNING.into()];
        self.0.database.execute(Statement::new(anew, params)).await?;
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
        let mark = match is_last {
            true => "DELETE FROM key_deletions WHERE key_hash = ?1 AND ?2 > 0",
            false => "UPDATE key_deletions SET done_ms = ifnull(done_ms, ?2) WHERE key_hash = ?1",
        };
        let key = "DELETE FROM api_keys WHERE key_hash = ?1 AND active = 0";
        let statements = vec![
            Statement::new(key, vec![id.as_str().into()]),
            Statement::new(mark, vec![id.as_str().into(), integer((self.0.clock)().max(1))]),
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

fn read_mark(row: Vec<Value>) -> Option<Mark> {
    let [Value::Text(id), Value::Integer(asked_ms), done] = <[Value; 3]>::try_from(row).ok()? else {
        return None;
    };
    let done_ms = if let Value::Integer(done_ms) = done { Some(done_ms) } else { None };
    Some(Mark { id, asked_ms, done_ms })
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
