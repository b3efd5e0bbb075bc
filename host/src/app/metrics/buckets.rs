//! A histogram of times. Recording takes two atomic additions, and nothing has to be moved afterwards.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;

/// Upper bounds in seconds: from a policy call of microseconds to an answer of minutes.
const BOUNDS: [f64; 16] = [
    0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

/// How many times fell between each two bounds, and all of them together.
#[derive(Default)]
pub(super) struct Buckets {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        if seconds.is_nan() {
            return;
        }
        let index = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // A cast saturates; centuries of seconds fit.
        self.sum_ns.fetch_add((seconds * 1e9).round() as u64, Ordering::Relaxed);
    }
}

impl Buckets {
    pub(super) fn render(&self, name: &str, labels: &str, text: &mut String) -> fmt::Result {
        let between = if labels.is_empty() { "" } else { "," };
        let mut so_far = 0;
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.counts) {
            so_far += count.load(Ordering::Relaxed);
            writeln!(text, "{name}_bucket{{{labels}{between}le=\"{bound}\"}} {so_far}")?;
        }
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let sum = self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
        writeln!(text, "{name}_sum{braced} {sum}\n{name}_count{braced} {so_far}")
    }
}
