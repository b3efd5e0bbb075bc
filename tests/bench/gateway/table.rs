//! The figures of one workload, as a table in Markdown.

use crate::sample::{Sample, median};

/// A column's title and its figure, from a sample and the bare proxy's of the same round.
type Column = (&'static str, usize, fn(&Sample, &Sample) -> f64);

const COLUMNS: [Column; 5] = [
    ("req/s", 0, |sample, _| sample.rate()),
    ("p50 µs", 0, |sample, _| sample.percentile(0.5)),
    ("p99 µs", 0, |sample, _| sample.percentile(0.99)),
    ("CPU µs/request", 1, |sample, _| sample.cpu_per_request()),
    ("of bare proxy", 2, |sample, bare| sample.rate() / bare.rate()),
];

/// Prints the medians over rounds of each target.
pub fn print(targets: &[(&str, Vec<Sample>)], bare: &str) {
    let titles: Vec<&str> = COLUMNS.iter().map(|(title, ..)| *title).collect();
    println!("| {:16} | {} |", "", titles.join(" | "));
    let rules: Vec<String> =
        titles.iter().map(|title| format!("{}:", "-".repeat(title.chars().count() + 1))).collect();
    println!("|{}|{}|", "-".repeat(18), rules.join("|"));
    let Some((_, bare)) = targets.iter().find(|(name, _)| *name == bare) else { return };
    for (name, samples) in targets {
        let figures: Vec<String> = COLUMNS
            .iter()
            .map(|(title, digits, figure)| {
                let figure = median(samples.iter().zip(bare).map(|(sample, bare)| figure(sample, bare)));
                format!("{figure:>width$.digits$}", width = title.chars().count())
            })
            .collect();
        println!("| {name:16} | {} |", figures.join(" | "));
    }
}
