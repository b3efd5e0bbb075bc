//! Which ids each account has had: its id is the hash of its key, and what was counted under an earlier one is still its own.

use std::collections::HashMap;

use tollgate_store::sql::{Database, SqlError, Statement, Value};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS account_keys (
    name TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (name, key_hash)
) WITHOUT ROWID";

/// Makes the table.
pub(super) async fn open(database: &Database) -> Result<(), SqlError> {
    database.execute(Statement::from(SCHEMA)).await.map(drop)
}

/// Takes note of accounts, by name and id. On disk when this returns.
pub(super) async fn note(
    database: &Database,
    accounts: &[(String, String)],
    now_ms: u64,
) -> Result<(), SqlError> {
    let insert = "INSERT OR IGNORE INTO account_keys (name, key_hash, since_ms)
        SELECT value ->> 0, value ->> 1, ?2 FROM json_each(?1)";
    let accounts = serde_json::to_string(accounts).unwrap_or_default();
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    database.execute(Statement::new(insert, vec![accounts.into(), now.into()])).await.map(drop)
}

/// What forgets an account that is gone: another one of its name begins anew.
pub(super) fn forget(name: &str) -> Statement {
    Statement::new("DELETE FROM account_keys WHERE name = ?1", vec![name.into()])
}

/// The earlier ids of each account, by its name; `present` are the ids that accounts have now, which are nobody else's.
pub(super) async fn earlier(
    database: &Database,
    present: &[(String, String)],
) -> Result<HashMap<String, Vec<String>>, SqlError> {
    let select = "SELECT name, key_hash FROM account_keys
        WHERE key_hash NOT IN (SELECT value ->> 1 FROM json_each(?1)) ORDER BY name, since_ms DESC";
    let present = serde_json::to_string(present).unwrap_or_default();
    let outcome = database.query(Statement::new(select, vec![present.into()])).await?;
    let mut earlier: HashMap<String, Vec<String>> = HashMap::new();
    for row in outcome.rows {
        if let Ok([Value::Text(name), Value::Text(id)]) = <[Value; 2]>::try_from(row) {
            earlier.entry(name).or_default().push(id);
        }
    }
    Ok(earlier)
}
