//! The functions of `wit/storage/` as a case calls them, on Tollgate's own stores.

use serde_json::{Value, json};
use tollgate_store::{
    Database, Entry, Kv, KvError, Outcome, SetOptions, SqlError, Statement, Swapped, Value as Cell,
};

/// One call of a function of a kv store.
pub async fn call_kv(kv: &Kv, function: &str, arguments: &[Value]) -> Value {
    let answer = match (function, arguments) {
        ("get", [key]) => kv.get(text(key)).await.map(|entry| value(entry.as_ref())),
        ("get-many", [keys]) => {
            let entries = kv.get_many(&texts(keys)).await;
            entries.map(|entries| entries.iter().map(|entry| value(entry.as_ref())).collect())
        }
        ("set", [key, bytes, options]) => {
            let if_absent = options["if-absent"].as_bool().unwrap();
            let options = SetOptions { ttl_ms: options["ttl-ms"].as_u64(), if_absent };
            kv.set(text(key), decode(bytes), options).await.map(Value::Bool)
        }
        ("set-many", [entries, ttl_ms]) => {
            let entries = entries.as_array().unwrap();
            let entries = entries.iter().map(|entry| (text(&entry[0]).to_owned(), decode(&entry[1])));
            kv.set_many(entries.collect(), ttl_ms.as_u64()).await.map(|()| Value::Null)
        }
        ("delete", [key]) => kv.delete(text(key)).await.map(|()| Value::Null),
        ("delete-many", [keys]) => kv.delete_many(&texts(keys)).await.map(|()| Value::Null),
        ("exists", [key]) => kv.exists(text(key)).await.map(Value::Bool),
        ("list-keys", [prefix, cursor, limit]) => {
            let limit = u32::try_from(limit.as_u64().unwrap()).unwrap();
            let page = kv.list_keys(prefix.as_str(), cursor.as_str(), limit).await;
            page.map(|page| json!({ "keys": page.keys, "cursor": page.cursor }))
        }
        ("increment", [key, delta, ttl_ms]) => {
            kv.increment(text(key), integer(delta), ttl_ms.as_u64()).await.map(wide)
        }
        ("read", [key]) => kv.get(text(key)).await.map(|entry| json!(entry.as_ref().map(versioned))),
        ("swap", [key, expected, bytes, ttl_ms]) => {
            let swapped = kv.swap(text(key), expected.as_u64(), decode(bytes), ttl_ms.as_u64()).await;
            swapped.map(|swapped| match swapped {
                Swapped::Swapped(version) => json!({ "swapped": version }),
                Swapped::Stale(entry) => json!({ "stale": entry.as_ref().map(versioned) }),
            })
        }
        (function, _) => panic!("no such call: {function} with {} arguments", arguments.len()),
    };
    match answer {
        Ok(value) => json!({ "ok": value }),
        Err(KvError::TooLarge(text)) => json!({ "err": { "too-large": text } }),
        Err(KvError::Conflict) => json!({ "err": "conflict" }),
        Err(KvError::Invalid(text)) => json!({ "err": { "invalid": text } }),
        Err(KvError::Unavailable(text)) => json!({ "err": { "unavailable": text } }),
        Err(KvError::Storage(error)) => json!({ "err": { "unavailable": error.to_string() } }),
    }
}

/// One call of a function of a database.
pub async fn call_sql(database: &Database, function: &str, arguments: &[Value]) -> Value {
    let answer = match (function, arguments) {
        ("query", [one]) => database.query(statement(one)).await.map(outcome),
        ("execute", [one]) => database.execute(statement(one)).await.map(outcome),
        ("batch", [all]) => {
            let outcomes = database.batch(all.as_array().unwrap().iter().map(statement).collect()).await;
            outcomes.map(|outcomes| outcomes.into_iter().map(outcome).collect())
        }
        (function, _) => panic!("no such call: {function} with {} arguments", arguments.len()),
    };
    match answer {
        Ok(value) => json!({ "ok": value }),
        Err(SqlError::AccessDenied(_)) => json!({ "err": "access-denied" }),
        Err(SqlError::TooLarge(text)) => json!({ "err": { "too-large": text } }),
        Err(SqlError::Conflict) => json!({ "err": "conflict" }),
        Err(SqlError::Invalid(text)) => json!({ "err": { "invalid": text } }),
        Err(SqlError::Unavailable(text)) => json!({ "err": { "unavailable": text } }),
        Err(SqlError::Storage(error)) => json!({ "err": { "unavailable": error.to_string() } }),
    }
}

fn statement(value: &Value) -> Statement {
    let params = value["params"].as_array().unwrap().iter().map(|param| {
        let Some((kind, value)) = param.as_object().and_then(|param| param.iter().next()) else {
            return Cell::Null;
        };
        match kind.as_str() {
            "integer" => Cell::Integer(integer(value)),
            "real" => Cell::Real(value.as_f64().unwrap()),
            "text" => Cell::Text(text(value).to_owned()),
            "blob" => Cell::Blob(decode(value)),
            other => panic!("no kind of value: {other}"),
        }
    });
    Statement::new(text(&value["sql"]), params.collect())
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().unwrap().iter().map(|value| text(value).to_owned()).collect()
}

fn decode(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| text(value).parse().unwrap())
}

/// A number of 64 bits: as text where JavaScript's numbers would not carry it.
fn wide(number: i64) -> Value {
    if number.unsigned_abs() <= 1 << 53 { json!(number) } else { json!(number.to_string()) }
}
