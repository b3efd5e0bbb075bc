//! The functions of `wit/storage/kv.wit` as a case calls them, on Tollgate's own stores.

use serde_json::{Value, json};
use tollgate_store::{Entry, Kv, KvError, SetOptions, Swapped};

/// One call of a function of a store.
pub async fn call(kv: &Kv, function: &str, arguments: &[Value]) -> Value {
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
