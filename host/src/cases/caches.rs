//! The functions of `wit/storage/cache.wit` as a case calls them, on Tollgate's own caches.

use std::sync::Arc;

use anyhow::bail;
use serde_json::{Value, json};
use tollgate_store::{Cache, CacheError, CacheSet, Priority};

use super::run::items;
use super::stores::{decode, text, texts};

/// One call of a function of a cache.
pub(super) fn call(cache: &Cache, function: &str, arguments: &[Value]) -> anyhow::Result<Value> {
    let shown = |value: Option<Arc<[u8]>>| json!(value.map(hex::encode));
    let answer = match (function, arguments) {
        ("get", [key]) => cache.get(text(key)?).map(shown),
        ("get-many", [keys]) => {
            cache.get_many(&texts(keys)?).map(|values| values.into_iter().map(shown).collect())
        }
        ("set", [key, value, set]) => {
            cache.set(text(key)?, decode(value)?, options(set)?).map(|()| Value::Null)
        }
        ("set-many", [entries, set]) => {
            let entries = items(entries)?.iter().map(|entry| match items(entry)?.as_slice() {
                [key, bytes] => Ok((text(key)?.to_owned(), decode(bytes)?)),
                _ => bail!("{entry} must be a key with its value"),
            });
            cache.set_many(entries.collect::<Result<_, _>>()?, options(set)?).map(|()| Value::Null)
        }
        ("delete", [key]) => cache.delete(text(key)?).map(|()| Value::Null),
        (function, _) => bail!("there is no call of {function} with {} arguments", arguments.len()),
    };
    Ok(match answer {
        Ok(value) => json!({ "ok": value }),
        Err(CacheError::TooLarge(text)) => json!({ "err": { "too-large": text } }),
        Err(CacheError::Invalid(text)) => json!({ "err": { "invalid": text } }),
    })
}

fn options(set: &Value) -> anyhow::Result<CacheSet> {
    let priority = match set.get("priority").and_then(Value::as_str) {
        None => None,
        Some("low") => Some(Priority::Low),
        Some("medium") => Some(Priority::Medium),
        Some("high") => Some(Priority::High),
        Some(other) => bail!("priority = {other:?}: low, medium or high"),
    };
    Ok(CacheSet { ttl_ms: set.get("ttl-ms").and_then(Value::as_u64), priority })
}
