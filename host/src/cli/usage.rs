//! `tollgate usage`.

use clap::Args;
use serde_json::{Value, json};

use super::args::Usage;
use super::client::{Client, segment};
use super::failure::Failure;
use super::keys::print_list;
use super::output;

const COLUMNS: [&str; 9] = [
    "group",
    "name",
    "requests",
    "failed_requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost",
];

pub(super) async fn run(client: &Client, usage: Usage) -> Result<(), Failure> {
    let Usage { by, since, until, json } = usage;
    let mut path = format!("/usage?by={}", segment(&by));
    for (name, day) in [("since", since), ("until", until)] {
        if let Some(day) = day {
            path.push_str(&format!("&{name}={}", segment(&day)));
        }
    }
    print_list(&client.get(&path).await?, "usage", &COLUMNS, json)
}

/// What was used of late, of a key or an account.
#[derive(Debug, Args)]
pub(super) struct RecentUsage {
    /// The name.
    pub(super) name: String,
    /// Also by model, as clients name it.
    #[arg(long)]
    models: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "models")]
    json: bool,
}

const SUMS: [&str; 8] = [
    "time",
    "model",
    "requests",
    "counted_requests",
    "failed_requests",
    "input_tokens",
    "output_tokens",
    "cost",
];

const LIMITS: [&str; 5] = ["limit", "models", "used", "most", "frees_ms"];

/// Prints what was used in a minute and a day, and of each limit.
pub(super) async fn recent(client: &Client, path: &str, usage: RecentUsage) -> Result<(), Failure> {
    let answer = client.get(&format!("{path}/usage")).await?;
    if usage.json {
        return Ok(output::print_json(&answer)?);
    }
    let mut rows = Vec::new();
    let mut of = |sums: &Value, model: &Value| {
        for (time, name) in [("60 s", "minute"), ("24 h", "day")] {
            let sum = sums.get(name).cloned().unwrap_or_default();
            let mut row = vec![json!(time), model.clone()];
            row.extend(SUMS.iter().skip(2).map(|column| sum.get(column).cloned().unwrap_or_default()));
            rows.push(row);
        }
    };
    of(&answer, &Value::Null);
    if usage.models {
        list(&answer, "models").for_each(|used| of(used, used.get("model").unwrap_or(&Value::Null)));
    }
    output::print_table(&SUMS, &rows)?;
    let row = |limit: &Value| LIMITS.iter().map(|c| limit.get(c).cloned().unwrap_or_default()).collect();
    let limits: Vec<Vec<Value>> = list(&answer, "limits").map(row).collect();
    if !limits.is_empty() {
        output::print(b"\n")?;
        output::print_table(&LIMITS, &limits)?;
    }
    Ok(())
}

fn list<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(name).and_then(Value::as_array).into_iter().flatten()
}
