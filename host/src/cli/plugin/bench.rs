//! `tollgate plugin bench`.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::PluginBench;
use super::test::loaded;
use crate::cases::{Bench, Cost, Costs};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::plugin::Engine;

const COLUMNS: [&str; 6] = ["call", "calls", "p50_us", "p99_us", "null_p50_us", "null_p99_us"];

/// Measures what the hooks of a plugin cost, beside a policy that does nothing.
pub(in crate::cli) async fn bench(bench: PluginBench) -> Result<(), Failure> {
    let PluginBench { test, seconds, json } = bench;
    let engine = Engine::for_a_command()?;
    let (plugin, cases, _) = loaded(&engine, &test)?;
    if cfg!(debug_assertions) {
        eprintln!(
            "note: this tollgate was built without optimisation; its host calls are slower than a server's"
        );
    }
    let bench = Bench::new(&engine, &plugin, &cases);
    let time = Duration::from_secs(seconds.into());
    let progress = progress_bar(time * 2);
    let step = |took: Duration| progress.inc(milliseconds(took));
    progress.set_message(plugin.manifest().name.clone());
    let costs = bench.measure(&plugin, time, &step).await?;
    progress.set_message("a policy that does nothing");
    let nothing = bench.measure(&bench.null()?, time, &step).await?;
    progress.finish_and_clear();
    if json {
        return Ok(output::print_json(&json!({ "plugin": costs, "null": nothing }))?);
    }
    print(&costs, &nothing)
}

fn print(costs: &Costs, null: &Costs) -> Result<(), Failure> {
    let with_start = |costs: &Costs| -> BTreeMap<&str, Cost> {
        costs
            .hooks
            .iter()
            .map(|(hook, cost)| (*hook, *cost))
            .chain([("instantiate", costs.instantiate)])
            .collect()
    };
    let (all, null_all) = (with_start(costs), with_start(null));
    let micros = |value: Option<f64>| value.map_or(Value::Null, |value| json!(value));
    let row = |(call, cost): (&&str, &Cost)| {
        let null = null_all.get(call);
        vec![
            json!(call),
            json!(cost.calls),
            micros(Some(cost.p50_us)),
            micros(Some(cost.p99_us)),
            micros(null.map(|null| null.p50_us)),
            micros(null.map(|null| null.p99_us)),
        ]
    };
    output::print_table(&COLUMNS, &all.iter().map(row).collect::<Vec<_>>())?;
    let (bytes, null_bytes) = (costs.memory_bytes, null.memory_bytes);
    Ok(output::print(format!("memory of an instance: {bytes} bytes, of null {null_bytes}\n").as_bytes())?)
}

fn progress_bar(time: Duration) -> ProgressBar {
    let progress = ProgressBar::new(milliseconds(time));
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent}%  {elapsed}  {wide_msg}") {
        progress.set_style(style);
    }
    progress
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
