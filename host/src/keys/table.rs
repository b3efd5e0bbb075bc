//! Where client keys are kept: table `api_keys` of database `gateway`.

use tollgate_store::sql::{Database, Statement, Value};

use super::settings::Settings;
use super::{KeyError, KeyInfo};

/// Columns as [`info`] reads them.
pub(super) const COLUMNS: &str = "key_hash, name, description, expires_ms, permissions, models, forbidden_models, clients, \
     limits, model_limits, enabled, active, created_ms, updated_ms, previous_until_ms";

/// `key_hash` is the hash of the key's first secret, and from then on its id, in policies and in the log, however often
/// the secret changes. Lists and limits are JSON.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS api_keys (
    id INTEGER PRIMARY KEY,
    key_hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    models TEXT NOT NULL DEFAULT '[]',
    active INTEGER NOT NULL DEFAULT 1,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    expires_ms INTEGER
)";

/// Columns that the table has not had from the beginning, `secret_hash` as the last.
const ADDED: [(&str, &str); 9] = [
    ("permissions", "TEXT NOT NULL DEFAULT '[]'"),
    ("forbidden_models", "TEXT NOT NULL DEFAULT '[]'"),
    ("clients", "TEXT NOT NULL DEFAULT '[]'"),
    ("limits", "TEXT NOT NULL DEFAULT '{}'"),
    ("model_limits", "TEXT NOT NULL DEFAULT '{}'"),
    ("enabled", "INTEGER NOT NULL DEFAULT 1"),
    ("previous_hash", "TEXT"),
    ("previous_until_ms", "INTEGER"),
    ("secret_hash", "TEXT"),
];

/// Limits that once had columns of their own.
const ONCE: [&str; 3] = ["rpm", "tpm", "rpd"];

const INDICES: [&str; 3] = [
    "CREATE UNIQUE INDEX IF NOT EXISTS api_keys_active_name ON api_keys (name) WHERE active = 1",
    "CREATE UNIQUE INDEX IF NOT EXISTS api_keys_secret ON api_keys (secret_hash)",
    "CREATE INDEX IF NOT EXISTS api_keys_previous ON api_keys (previous_hash) WHERE previous_hash IS NOT NULL",
];

/// Makes the table, or brings the one of an earlier version up to date, in one transaction.
pub(super) async fn prepare(database: &Database) -> Result<(), KeyError> {
    database.execute(statement(TABLE, Vec::new())).await?;
    let present = database
        .query(statement("SELECT name FROM pragma_table_info('api_keys')", Vec::new()))
        .await?
        .rows
        .iter()
        .filter_map(|row| text(row.first()?))
        .collect::<Vec<_>>();
    let has = |column: &str| present.iter().any(|present| present == column);
    let missing = ADDED.iter().filter(|(column, _)| !has(column));
    let mut changes: Vec<String> =
        missing.map(|(column, kind)| format!("ALTER TABLE api_keys ADD COLUMN {column} {kind}")).collect();
    if !has("secret_hash") {
        changes.push("UPDATE api_keys SET secret_hash = key_hash".to_owned());
    }
    if has(ONCE[0]) {
        // A patch leaves out what is null.
        changes.push(
            "UPDATE api_keys SET limits = json_patch('{}', json_object('rpm', rpm, 'tpm', tpm, 'rpd', rpd))"
                .to_owned(),
        );
        changes.extend(ONCE.map(|column| format!("ALTER TABLE api_keys DROP COLUMN {column}")));
    }
    changes.extend(INDICES.map(str::to_owned));
    database.batch(changes.iter().map(|sql| statement(sql, Vec::new())).collect()).await?;
    Ok(())
}

/// The settings as columns, in the order description, expires_ms, permissions, models, forbidden_models, clients, limits,
/// model_limits.
pub(super) fn columns(settings: &Settings) -> Result<[Value; 8], KeyError> {
    Ok([
        Value::Text(settings.description.clone()),
        settings.expires_ms.map_or(Ok(Value::Null), integer)?,
        json(&settings.permissions)?,
        json(&settings.models)?,
        json(&settings.forbidden_models)?,
        json(&settings.clients)?,
        json(&settings.limits)?,
        json(&settings.model_limits)?,
    ])
}

/// A key from its row; none: it cannot be read. A list or limit that cannot be read must not widen what the key may do.
pub(super) fn info(row: &[Value]) -> Option<KeyInfo> {
    let [hash, name, description, expires, lists @ .., enabled, active, created, updated, previous] = row
    else {
        return None;
    };
    let [permissions, models, forbidden_models, clients, limits, model_limits] = lists else { return None };
    Some(KeyInfo {
        id: text(hash)?,
        name: text(name)?,
        settings: Settings {
            description: text(description)?,
            expires_ms: unsigned(expires),
            permissions: read(permissions)?,
            models: read(models)?,
            forbidden_models: read(forbidden_models)?,
            clients: read(clients)?,
            limits: read(limits)?,
            model_limits: read(model_limits)?,
        },
        enabled: unsigned(enabled) == Some(1),
        active: unsigned(active) == Some(1),
        created_ms: unsigned(created)?,
        updated_ms: unsigned(updated)?,
        previous_until_ms: unsigned(previous),
    })
}

fn json(value: &impl serde::Serialize) -> Result<Value, KeyError> {
    serde_json::to_string(value).map(Value::Text).map_err(|error| KeyError::Invalid(error.to_string()))
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_str(&text(value)?).ok()
}

fn text(value: &Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text.clone()) } else { None }
}

fn unsigned(value: &Value) -> Option<u64> {
    // A negative time can only have been put there by hand; it is over.
    if let Value::Integer(number) = value { Some(u64::try_from(*number).unwrap_or(0)) } else { None }
}

pub(super) fn integer(number: u64) -> Result<Value, KeyError> {
    let number = i64::try_from(number).map_err(|_| KeyError::Invalid(format!("{number} is too large")))?;
    Ok(Value::Integer(number))
}

pub(super) fn statement(sql: &str, params: Vec<Value>) -> Statement {
    Statement { sql: sql.to_owned(), params }
}
