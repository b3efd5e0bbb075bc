//! The audit log: every change that somebody asked the admin API for, every export of a whole database, and who tried wrong
//! admin tokens, in table `audit_log` of database `gateway`.
//!
//! A row is on disk before the answer goes out. It says who, what, when and how it ended, and never a secret: what was
//! changed is named, and even that is left out of a refusal, where somebody may have given a key in place of its name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tollgate_store::{Clock, Database, SqlError, Statement, Value};
use utoipa::ToSchema;

use super::limits::{AUDIT_PRUNE_EVERY, AUDIT_PRUNED_AT_ONCE};

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS audit_log (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time_ms INTEGER NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        ok INTEGER NOT NULL,
        code TEXT
    )",
    "CREATE INDEX IF NOT EXISTS audit_log_time ON audit_log (time_ms)",
];

/// Who has no token.
const STRANGER: &str = "stranger";

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Change {
    /// Its number; later ones are greater.
    pub id: u64,
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// Who asked for it: `admin token`, `admin socket`, `signal`, `command line` or `stranger`.
    pub actor: String,
    /// What was asked for, such as `key create`.
    pub action: String,
    /// The name of what was changed; empty in a refusal, but for a stranger's, which says from where it came.
    pub target: String,
    /// Whether it was done.
    pub ok: bool,
    /// Why not, as the error's code.
    pub code: Option<String>,
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct Trail(Arc<Inner>);

struct Inner {
    database: Database,
    clock: Clock,
    /// How long a row is kept, in milliseconds.
    keep_ms: AtomicU64,
}

impl Trail {
    /// Opens the table, making it if need be.
    pub async fn open(database: Database, clock: Clock, keep: Duration) -> Result<Trail, SqlError> {
        database.batch(SCHEMA.map(Statement::from).into()).await?;
        let trail = Trail(Arc::new(Inner { database, clock, keep_ms: AtomicU64::new(0) }));
        trail.keep(keep);
        Ok(trail)
    }

    /// Changes how long rows are kept.
    pub fn keep(&self, keep: Duration) {
        let ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        self.0.keep_ms.store(ms, Ordering::Relaxed);
    }

    /// Writes a change that was asked for; `code` says why it was refused. The change has been made by then, so that a
    /// failure to write it down is only logged and counted.
    pub async fn record(&self, actor: &str, action: &str, target: &str, code: Option<&str>) {
        if let Err(error) = self.write(actor, action, target, code).await {
            tracing::error!(action, %error, "an admin change is not in the audit log");
            metrics::counter!("tollgate_audit_lost_total").increment(1);
        }
    }

    /// Likewise, for who can say that it is not written down.
    pub async fn write(
        &self,
        actor: &str,
        action: &str,
        target: &str,
        code: Option<&str>,
    ) -> Result<(), SqlError> {
        self.insert(actor, action, if code.is_some() { "" } else { target }, code).await
    }

    /// Writes down that somebody tried to get in; `target` says from where and how often, and nothing of what was sent.
    pub(super) async fn refused(&self, action: &str, target: &str, code: &str) {
        if let Err(error) = self.insert(STRANGER, action, target, Some(code)).await {
            tracing::error!(action, %error, "a refusal is not in the audit log");
            metrics::counter!("tollgate_audit_lost_total").increment(1);
        }
    }

    async fn insert(
        &self,
        actor: &str,
        action: &str,
        target: &str,
        code: Option<&str>,
    ) -> Result<(), SqlError> {
        let insert = "INSERT INTO audit_log (time_ms, actor, action, target, ok, code) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let params = vec![
            integer((self.0.clock)()),
            actor.into(),
            action.into(),
            target.into(),
            i64::from(code.is_none()).into(),
            code.into(),
        ];
        self.0.database.execute(Statement::new(insert, params)).await.map(drop)
    }

    /// The latest changes first, `limit` of them at most, that are older than number `before`, and of one action if it is
    /// named. What is past its time is not shown.
    pub async fn list(
        &self,
        before: Option<u64>,
        action: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Change>, SqlError> {
        let select = "SELECT id, time_ms, actor, action, target, ok, code FROM audit_log
            WHERE time_ms > ?1 AND id < ?2 AND (?3 IS NULL OR action = ?3) ORDER BY id DESC LIMIT ?4";
        let params =
            vec![self.oldest(), integer(before.unwrap_or(u64::MAX)), action.into(), i64::from(limit).into()];
        let outcome = self.0.database.query(Statement::new(select, params)).await?;
        Ok(outcome.rows.into_iter().filter_map(change).collect())
    }

    /// Removes rows that are past their time, again and again until the server stops, in small steps.
    pub async fn prune(self, stopping: CancellationToken) {
        let delete = "DELETE FROM audit_log WHERE id IN
            (SELECT id FROM audit_log WHERE time_ms <= ?1 ORDER BY time_ms LIMIT ?2)";
        loop {
            let params = vec![self.oldest(), AUDIT_PRUNED_AT_ONCE.into()];
            let deleted = self.0.database.execute(Statement::new(delete, params)).await;
            let deleted =
                deleted.inspect_err(|error| tracing::warn!(%error, "the audit log cannot be pruned"));
            if deleted.is_ok_and(|outcome| outcome.rows_written > 0) {
                continue;
            }
            if stopping.run_until_cancelled(tokio::time::sleep(AUDIT_PRUNE_EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// From when on rows are kept.
    fn oldest(&self) -> Value {
        integer((self.0.clock)().saturating_sub(self.0.keep_ms.load(Ordering::Relaxed)))
    }
}

fn change(row: Vec<Value>) -> Option<Change> {
    let [id, time, actor, action, target, ok, code] = <[Value; 7]>::try_from(row).ok()?;
    let number = |value| if let Value::Integer(number) = value { u64::try_from(number).ok() } else { None };
    let text = |value| if let Value::Text(text) = value { Some(text) } else { None };
    Some(Change {
        id: number(id)?,
        time_ms: number(time)?,
        actor: text(actor)?,
        action: text(action)?,
        target: text(target)?,
        ok: number(ok)? == 1,
        code: text(code),
    })
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use tollgate_store::{Options, Store};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_are_kept_for_their_time_and_then_neither_shown_nor_stored() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let database = store.database("gateway").unwrap();
        let now = Arc::new(AtomicU64::new(1_000));
        let clock: Clock = {
            let now = now.clone();
            Arc::new(move || now.load(Ordering::Relaxed))
        };
        let trail = Trail::open(database.clone(), clock, Duration::from_millis(500)).await.unwrap();
        let actions = async |before| {
            let list = trail.list(before, None, 10).await.unwrap();
            list.into_iter().map(|change| (change.id, change.action)).collect::<Vec<_>>()
        };
        trail.record("signal", "first", "x", None).await;
        now.store(1_400, Ordering::Relaxed);
        trail.record("signal", "second", "y", Some("invalid")).await;
        assert_eq!(actions(None).await, [(2, "second".to_owned()), (1, "first".to_owned())]);
        assert_eq!(actions(Some(2)).await, [(1, "first".to_owned())]);
        let [second] = trail.list(None, Some("second"), 10).await.unwrap().try_into().unwrap();
        assert_eq!((second.ok, second.target.as_str(), second.code.as_deref()), (false, "", Some("invalid")));
        now.store(1_500, Ordering::Relaxed);
        assert_eq!(actions(None).await, [(2, "second".to_owned())]);
        let stopping = CancellationToken::new();
        stopping.cancel();
        trail.clone().prune(stopping).await;
        let left = database.query("SELECT count(*) FROM audit_log".into()).await.unwrap();
        assert_eq!(left.rows, [[1.into()]]);
        database.batch(vec!["DROP TABLE audit_log".into()]).await.unwrap();
        assert!(trail.write("signal", "third", "z", None).await.is_err());
    }
}
