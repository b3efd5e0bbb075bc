//! What is measured, from the command line.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// The gateway beside its peers: `cargo bench --bench gateway -- OPTIONS`.
#[derive(Parser)]
pub struct Options {
    /// Connections at once, each with one request at a time; a table for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 256])]
    pub connections: Vec<usize>,
    /// Kinds of answers; a table for each.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Workload::Json, Workload::Stream])]
    pub workloads: Vec<Workload>,
    /// Length of one measurement: seconds are thousands of requests and many commits.
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub seconds: Duration,
    /// Rounds over all peers; the tables show medians.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// LiteLLM and Portkey's gateway too: installs them from PyPI and npm at the first time.
    #[arg(long)]
    pub relays: bool,
    /// Rows of the log at which one server with many keys and accounts is measured, in place of the tables beside peers.
    #[arg(long, value_delimiter = ',')]
    pub growth: Vec<u64>,
    /// Client keys of that server.
    #[arg(long, default_value_t = 10_000)]
    pub keys: usize,
    /// Its accounts.
    #[arg(long, default_value_t = 200)]
    pub accounts: usize,
    /// So many requests a second, from all connections together, where else each sends as fast as it is answered. Latency
    /// then counts from when a request was due.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The kind of answer that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// One completion of some hundred bytes.
    Json,
    /// The same completion as a stream of 23 events, each written on its own.
    Stream,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
