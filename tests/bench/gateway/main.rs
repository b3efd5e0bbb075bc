//! The whole gateway beside the upstream itself, a bare proxy and nginx, interleaved in one run.
//!
//! `cargo bench --bench gateway` prints requests a second, latency and CPU time a request for each; only the ratios within
//! one run mean anything. Each runs in processes of its own, so that their CPU time can be read. nginx is left out where it
//! is not installed; `-- --relays` adds LiteLLM and Portkey's gateway, and `-- --growth` measures one server with many keys,
//! accounts and rows instead. `-- --help` tells how to change the load; `-- --seconds 0.2 --rounds 1` is a quick look.

#![allow(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark has no API and stops where it stands"
)]

mod answers;
mod growth;
mod load;
mod nginx;
mod options;
mod peers;
mod process;
mod relays;
mod sample;
mod table;
mod tollgate;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use load::Load;
use nginx::Nginx;
use options::{Options, Workload};
use process::Process;
use sample::Sample;
use tollgate::Tollgate;

/// The peer that the others are compared with.
const BARE: &str = "bare hyper proxy";

/// Before each table, so that connections, caches and instances are warm.
const WARM_UP: Duration = Duration::from_millis(300);

fn main() -> Result<()> {
    match std::env::var("TOLLGATE_BENCH_ROLE").as_deref() {
        Ok("upstream") => peers::upstream(),
        Ok("proxy") => peers::proxy(),
        _ => measure(&Options::parse()),
    }
}

/// A process that is measured, and the key it wants.
struct Target<'a> {
    name: &'static str,
    process: &'a Process,
    key: &'a str,
    headers: &'a str,
}

fn measure(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if !options.growth.is_empty() {
        return runtime.block_on(growth::measure(options, &options.growth));
    }
    let upstream = Process::role("upstream", "")?;
    let proxy = Process::role("proxy", upstream.url())?;
    let nginx = Nginx::start(upstream.url())?;
    let tollgate = Tollgate::with_accounts(upstream.url(), 1)?;
    let key = tollgate.key("bench")?;
    let relays = if options.relays { relays::start(upstream.url())? } else { Vec::new() };
    let target = |name, process, key| Target { name, process, key, headers: "" };
    let mut targets = vec![target("upstream", &upstream, "k"), target(BARE, &proxy, "k")];
    match &nginx {
        Some(nginx) => targets.push(target("nginx, limit_req", nginx.process(), "k")),
        None => println!("nginx is not on the PATH and left out: apt-get install nginx-light"),
    }
    targets.push(target("tollgate", tollgate.process(), &key));
    targets.extend(relays.iter().map(|relay| Target {
        name: relay.name,
        process: &relay.process,
        key: relay.key,
        headers: &relay.headers,
    }));
    for &workload in &options.workloads {
        for &connections in &options.connections {
            runtime.block_on(one_table(options, &targets, workload, connections))?;
        }
    }
    let lag_ms = |name: &str| anyhow::Ok(tollgate.metric(name)? / 1_000.0);
    let last = lag_ms("tollgate_store_commit_lag_microseconds")?;
    let most = lag_ms("tollgate_store_commit_lag_microseconds_max")?;
    println!(
        "\nfrom a relaxed write or an event to the disk: {last:.1} ms the last time, {most:.1} ms at most"
    );
    Ok(())
}

async fn one_table(
    options: &Options,
    targets: &[Target<'_>],
    workload: Workload,
    connections: usize,
) -> Result<()> {
    let load = |target: &Target| {
        let load = Load::new(target.process.url(), &[target.key], target.headers, workload, connections);
        match options.rate {
            Some(rate) => load.at(rate),
            None => load,
        }
    };
    let mut measured: Vec<(&str, Vec<Sample>)> = Vec::new();
    for target in targets {
        load(target).run(WARM_UP).await.context(target.name)?;
        measured.push((target.name, Vec::new()));
    }
    for _ in 0..options.rounds {
        for (target, (_, samples)) in targets.iter().zip(&mut measured) {
            samples.push(sample(options, target, &load(target)).await.context(target.name)?);
        }
    }
    let what = match workload {
        Workload::Json => "plain answers",
        Workload::Stream => "streams of 23 events",
    };
    let Options { rounds, seconds, .. } = options;
    println!("\n{what}, {connections} connections, {rounds} rounds of {seconds:?} each, medians\n");
    table::print(&measured, BARE);
    Ok(())
}

async fn sample(options: &Options, target: &Target<'_>, load: &Load) -> Result<Sample> {
    let before = target.process.cpu()?;
    let mut sample = load.run(options.seconds).await?;
    sample.cpu = target.process.cpu()?.saturating_sub(before);
    Ok(sample)
}
