//! The whole gateway beside a bare proxy and the upstream itself, interleaved in one run.
//!
//! `cargo bench --bench gateway` prints requests a second, latency and CPU time a request for each of the three; only
//! the ratios within one run mean anything. Each runs in a process of its own, so that its CPU time can be read.
//! `-- --connections N --seconds N --rounds N` change the load.

#![allow(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark has no API and stops where it stands"
)]

mod load;
mod peers;
mod process;

use std::time::Duration;

use anyhow::{Context, Result};

use load::{Load, Sample};
use process::Process;

/// Rounds over all three; the table shows each figure's median.
const ROUNDS: usize = 5;

/// Length of one measurement, long enough for thousands of requests and many commits.
const SECONDS: u64 = 3;

/// Connections, each with one request at a time.
const CONNECTIONS: usize = 32;

fn main() -> Result<()> {
    match std::env::var("TOLLGATE_BENCH_ROLE").as_deref() {
        Ok("upstream") => peers::upstream(),
        Ok("proxy") => peers::proxy(),
        _ => measure(),
    }
}

fn measure() -> Result<()> {
    let connections = argument("--connections").unwrap_or(CONNECTIONS as u64) as usize;
    let length = Duration::from_secs(argument("--seconds").unwrap_or(SECONDS));
    let rounds = argument("--rounds").unwrap_or(ROUNDS as u64) as usize;
    let upstream = Process::role("upstream", "")?;
    let proxy = Process::role("proxy", upstream.url())?;
    let tollgate = process::Tollgate::start(upstream.url())?;
    let targets = [
        ("upstream", &upstream, Load::new(upstream.url(), "upstream-key", connections)),
        ("bare hyper proxy", &proxy, Load::new(proxy.url(), "upstream-key", connections)),
        ("tollgate", tollgate.process(), Load::new(tollgate.process().url(), tollgate.key(), connections)),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut samples: Vec<Vec<Sample>> = targets.iter().map(|_| Vec::new()).collect();
    for (_, _, load) in &targets {
        runtime.block_on(load.run(Duration::from_millis(500)))?;
    }
    for _ in 0..rounds {
        for ((name, process, load), samples) in targets.iter().zip(&mut samples) {
            let before = process.cpu()?;
            let mut sample = runtime.block_on(load.run(length)).with_context(|| (*name).to_owned())?;
            sample.cpu = process.cpu()?.saturating_sub(before);
            samples.push(sample);
        }
    }
    let lag_ms = |name: &str| anyhow::Ok(tollgate.metric(name)? / 1_000.0);
    let (last, most) = (
        lag_ms("tollgate_store_commit_lag_microseconds")?,
        lag_ms("tollgate_store_commit_lag_microseconds_max")?,
    );
    print_table(connections, length, rounds, &targets.map(|(name, ..)| name), &samples);
    println!(
        "from a relaxed write or an event to the disk: {last:.1} ms the last time, {most:.1} ms at most"
    );
    Ok(())
}

fn print_table(connections: usize, length: Duration, rounds: usize, names: &[&str], samples: &[Vec<Sample>]) {
    println!("{connections} connections, {rounds} rounds of {length:?} each, medians");
    println!(
        "| {:<16} | {:>8} | {:>8} | {:>8} | {:>14} | {:>13} |",
        "", "req/s", "p50 µs", "p99 µs", "CPU µs/request", "of bare proxy"
    );
    println!("|{:-<18}|{:->10}|{:->10}|{:->10}|{:->16}|{:->15}|", "", ":", ":", ":", ":", ":");
    let bare = samples.get(1).map_or(f64::NAN, |samples| median(samples, Sample::rate));
    for (name, samples) in names.iter().zip(samples) {
        let rate = median(samples, Sample::rate);
        println!(
            "| {name:<16} | {rate:>8.0} | {:>8.0} | {:>8.0} | {:>14.1} | {:>13.2} |",
            median(samples, |sample| sample.percentile(0.5)),
            median(samples, |sample| sample.percentile(0.99)),
            median(samples, Sample::cpu_per_request),
            rate / bare,
        );
    }
}

fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == name)?;
    arguments.next()?.parse().ok()
}
