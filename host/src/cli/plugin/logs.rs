//! `tollgate plugin logs`.

use chrono::DateTime;
use serde_json::Value;

use crate::cli::client::{Client, segment};
use crate::cli::failure::Failure;
use crate::cli::output;

/// How long the server may hold back its answer until there are lines.
const WAIT_MS: u64 = 2_000;

/// Prints the last lines of a plugin, and with `follow` those that come, until it is interrupted.
pub(in crate::cli) async fn logs(client: &Client, name: &str, follow: bool) -> Result<(), Failure> {
    let (mut last, mut wait_ms) = (0, 0);
    loop {
        let path = format!("/plugins/{}/logs?after={last}&wait_ms={wait_ms}", segment(name));
        let answer = client.get(&path).await?;
        let number = |name| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
        if number("missed") > 0 {
            eprintln!("note: {} lines before these are not kept any more", number("missed"));
        }
        let lines = answer.get("lines").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        output::print(lines.iter().map(line).collect::<String>().as_bytes())?;
        if !follow {
            return Ok(());
        }
        // A server that started again counts from 1.
        (last, wait_ms) = (number("last"), WAIT_MS);
    }
}

fn line(line: &Value) -> String {
    let text = |name| line.get(name).and_then(Value::as_str).unwrap_or_default();
    let time = line.get("time_ms").and_then(Value::as_i64).and_then(DateTime::from_timestamp_millis);
    let time = time.map(|time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()).unwrap_or_default();
    format!("{time} {} {}\n", text("source"), text("text"))
}
