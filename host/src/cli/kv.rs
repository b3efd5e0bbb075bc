//! `tollgate kv`.

use std::io::IsTerminal as _;

use serde_json::Value;

use super::client::{Client, segment};
use super::failure::Failure;
use super::output;

/// Keys asked for at once; the store's own limit for a page.
const PAGE: u64 = 1000;

pub(super) async fn get(client: &Client, store: &str, key: &str, json: bool) -> Result<(), Failure> {
    let answer = client.get(&format!("/kv/{}/{}", segment(store), segment(key))).await?;
    if json {
        return Ok(output::print_json(&answer)?);
    }
    let mut value = match answer.get("value") {
        Some(Value::String(text)) => text.clone().into_bytes(),
        Some(other) => {
            let digits = other.get("hex").and_then(Value::as_str).unwrap_or_default();
            hex::decode(digits).map_err(|error| anyhow::Error::new(error).context("unexpected answer"))?
        }
        None => Vec::new(),
    };
    // Byte for byte into a file or pipe, but a terminal's prompt belongs on its own line.
    if std::io::stdout().is_terminal() {
        value.push(b'\n');
    }
    Ok(output::print(&value)?)
}

pub(super) async fn set(
    client: &Client,
    store: &str,
    key: &str,
    value: String,
    ttl_ms: Option<u64>,
) -> Result<(), Failure> {
    let mut path = format!("/kv/{}/{}", segment(store), segment(key));
    if let Some(ttl_ms) = ttl_ms {
        path.push_str(&format!("?ttl_ms={ttl_ms}"));
    }
    client.put(&path, "application/octet-stream", value.into_bytes()).await?;
    Ok(())
}

pub(super) async fn delete(client: &Client, store: &str, key: &str) -> Result<(), Failure> {
    client.delete(&format!("/kv/{}/{}", segment(store), segment(key))).await?;
    Ok(())
}

pub(super) async fn list(
    client: &Client,
    store: &str,
    prefix: Option<&str>,
    limit: Option<u64>,
) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut cursor: Option<String> = None;
    loop {
        let mut path = format!("/kv/{}?limit={}", segment(store), left.min(PAGE));
        for (name, value) in [("prefix", prefix), ("cursor", cursor.as_deref())] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", segment(value)));
            }
        }
        let page = client.get(&path).await?;
        let keys = page.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let lines: String = keys.iter().map(|key| output::field(key) + "\n").collect();
        output::print(lines.as_bytes())?;
        left = left.saturating_sub(keys.len() as u64);
        cursor = page.get("cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || left == 0 {
            return Ok(());
        }
    }
}
