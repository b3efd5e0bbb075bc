//! What measurements saw, and their medians.

use std::time::Duration;

/// One measurement.
#[derive(Default)]
pub struct Sample {
    /// Latencies in µs, sorted.
    latencies: Vec<u32>,
    length: Duration,
    /// CPU time of the target.
    pub cpu: Duration,
}

impl Sample {
    /// From the latencies in µs, in any order.
    pub fn new(mut latencies: Vec<u32>, length: Duration) -> Sample {
        latencies.sort_unstable();
        Sample { latencies, length, ..Sample::default() }
    }

    /// How many there were.
    pub fn requests(&self) -> usize {
        self.latencies.len()
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.length.as_secs_f64()
    }

    /// A percentile of the latency, in µs.
    pub fn percentile(&self, share: f64) -> f64 {
        let place = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(place).copied().map_or(f64::NAN, f64::from)
    }

    /// CPU time of the target for one request, in µs.
    pub fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latencies.len() as f64
    }
}

/// The middle one of some figures.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
