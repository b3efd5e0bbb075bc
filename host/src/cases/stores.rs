//! The functions of `wit/storage/` as a case calls them, on Tollgate's own kv stores and databases.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tollgate_store::{
    Database, Entry, Kv, KvError, Outcome, SetOptions, SqlError, Statement, Swapped, Value as Cell,
};

use super::run::items;

/// One call of a function of a kv store.
pub(super) async fn call_kv(kv: &Kv, function: &str, arguments: &[Value]) -> anyhow::Result<Value> {
    let answer = match (function, arguments) {
        ("get", [key]) => kv.get(text(key)?).await.map(|entry| value(entry.as_ref())),
        ("get-many", [keys]) => {
            let entries = kv.get_many(&texts(keys)?).await;
            entries.map(|entries| entries.iter().map(|entry| value(entry.as_ref())).collect())
        }
        ("set", [key, bytes, options]) => {
            let if_absent = options.get("if-absent").and_then(Value::as_bool).unwrap_or_default();
            let options = SetOptions { ttl_ms: options.get("ttl-ms").and_then(Value::as_u64), if_absent };
            kv.set(text(key)?, decode(bytes)?, options).await.map(Value::Bool)
        }
        ("set-many", [entries, ttl_ms]) => {
            let entries = items(entries)?.iter().map(|entry| match items(entry)?.as_slice() {
                [key, bytes] => Ok((text(key)?.to_owned(), decode(bytes)?)),
                _ => bail!("{entry} must be a key with its value"),
            });
            let entries = entries.collect::<Result<_, _>>()?;
            kv.set_many(entries, ttl_ms.as_u64()).await.map(|()| Value::Null)
        }
        ("delete", [key]) => kv.delete(text(key)?).await.map(|()| Value::Null),
        ("delete-many", [keys]) => kv.delete_many(&texts(keys)?).await.map(|()| Value::Null),
        ("exists", [key]) => kv.exists(text(key)?).await.map(Value::Bool),
        ("list-keys", [prefix, cursor, limit]) => {
            let limit =
                limit.as_u64().and_then(|limit| u32::try_from(limit).ok()).context("a limit is missing")?;
            let page = kv.list_keys(prefix.as_str(), cursor.as_str(), limit).await;
            page.map(|page| json!({ "keys": page.keys, "cursor": page.cursor }))
        }
        ("increment", [key, delta, ttl_ms]) => {
            kv.increment(text(key)?, integer(delta)?, ttl_ms.as_u64()).await.map(wide)
        }
        ("read", [key]) => kv.get(text(key)?).await.map(|entry| json!(entry.as_ref().map(versioned))),
        ("swap", [key, expected, bytes, ttl_ms]) => {
            let swapped = kv.swap(text(key)?, expected.as_u64(), decode(bytes)?, ttl_ms.as_u64()).await;
            swapped.map(|swapped| match swapped {
                Swapped::Swapped(version) => json!({ "swapped": version }),
                Swapped::Stale(entry) => json!({ "stale": entry.as_ref().map(versioned) }),
            })
        }
        (function, _) => bail!("there is no call of {function} with {} arguments", arguments.len()),
    };
    Ok(match answer {
        Ok(value) => json!({ "ok": value }),
        Err(KvError::TooLarge(text) | KvError::Full(text)) => json!({ "err": { "too-large": text } }),
        Err(KvError::Conflict) => json!({ "err": "conflict" }),
        Err(KvError::Invalid(text)) => json!({ "err": { "invalid": text } }),
        Err(KvError::Unavailable(text)) => json!({ "err": { "unavailable": text } }),
        Err(KvError::Storage(error)) => json!({ "err": { "unavailable": error.to_string() } }),
    })
}

/// One call of a function of a database.
pub(super) async fn call_sql(
    database: &Database,
    function: &str,
    arguments: &[Value],
) -> anyhow::Result<Value> {
    let answer = match (function, arguments) {
        ("query", [one]) => database.query(statement(one)?).await.map(outcome),
        ("execute", [one]) => database.execute(statement(one)?).await.map(outcome),
        ("batch", [all]) => {
            let statements = items(all)?.iter().map(statement).collect::<Result<_, _>>()?;
            let outcomes = database.batch(statements).await;
            outcomes.map(|outcomes| outcomes.into_iter().map(outcome).collect())
        }
        (function, _) => bail!("there is no call of {function} with {} arguments", arguments.len()),
    };
    Ok(match answer {
        Ok(value) => json!({ "ok": value }),
        Err(SqlError::AccessDenied(_)) => json!({ "err": "access-denied" }),
        Err(SqlError::TooLarge(text)) => json!({ "err": { "too-large": text } }),
        Err(SqlError::Conflict) => json!({ "err": "conflict" }),
        Err(SqlError::Invalid(text)) => json!({ "err": { "invalid": text } }),
        Err(SqlError::Unavailable(text)) => json!({ "err": { "unavailable": text } }),
        Err(SqlError::Storage(error)) => json!({ "err": { "unavailable": error.to_string() } }),
    })
}

fn statement(value: &Value) -> anyhow::Result<Statement> {
    let params = value.get("params").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let sql = value.get("sql").context("a statement has `sql`, and `params` where it needs them")?;
    Ok(Statement::new(text(sql)?, params.iter().map(param).collect::<Result<_, _>>()?))
}

fn param(value: &Value) -> anyhow::Result<Cell> {
    let Some((kind, value)) = value.as_object().and_then(|param| param.iter().next()) else {
        return Ok(Cell::Null);
    };
    Ok(match kind.as_str() {
        "integer" => Cell::Integer(integer(value)?),
        "real" => Cell::Real(value.as_f64().with_context(|| format!("{value} must be a number"))?),
        "text" => Cell::Text(text(value)?.to_owned()),
        "blob" => Cell::Blob(decode(value)?),
        other => bail!("no kind of value: {other}"),
    })
}

fn outcome(outcome: Outcome) -> Value {
    let row = |row: Vec<Cell>| -> Value { row.into_iter().map(cell).collect() };
    json!({
        "columns": outcome.columns,
        "rows": outcome.rows.into_iter().map(row).collect::<Value>(),
        "rows-written": outcome.rows_written,
        "last-insert-rowid": wide(outcome.last_insert_rowid),
    })
}

fn cell(value: Cell) -> Value {
    match value {
        Cell::Null => json!("null"),
        Cell::Integer(integer) => json!({ "integer": wide(integer) }),
        Cell::Real(real) => json!({ "real": real }),
        Cell::Text(text) => json!({ "text": text }),
        Cell::Blob(bytes) => json!({ "blob": hex::encode(bytes) }),
    }
}

fn value(entry: Option<&Entry>) -> Value {
    json!(entry.map(|entry| hex::encode(&entry.value)))
}

fn versioned(entry: &Entry) -> Value {
    json!({ "value": hex::encode(&entry.value), "version": entry.version })
}

/// A whole real is written without its fraction, as JavaScript does.
#[expect(clippy::cast_possible_truncation, reason = "a real too large for an integer stays the largest one")]
pub(super) fn real(real: f64) -> Value {
    if real.fract() == 0.0 { json!(real as i64) } else { json!(real) }
}

pub(super) fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} must be text"))
}

pub(super) fn texts(values: &Value) -> anyhow::Result<Vec<String>> {
    items(values)?.iter().map(|value| Ok(text(value)?.to_owned())).collect()
}

pub(super) fn decode(value: &Value) -> anyhow::Result<Vec<u8>> {
    hex::decode(text(value)?).with_context(|| format!("{value} must be hexadecimal"))
}

fn integer(value: &Value) -> anyhow::Result<i64> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    number.with_context(|| format!("{value} must be a number"))
}

/// A number of 64 bits: as text where JavaScript's numbers would not carry it.
fn wide(number: i64) -> Value {
    if number.unsigned_abs() <= 1 << 53 { json!(number) } else { json!(number.to_string()) }
}
