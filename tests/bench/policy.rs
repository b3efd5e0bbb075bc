//! Policy benchmark.

fn main() {}
