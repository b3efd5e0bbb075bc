//! Gateway benchmark.

fn main() {}
