//! How the codes of an index are compared.

use super::{Metric, code::Fact, kernel::Kernel};

/// What is the same for all comparisons of an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    metric: Metric,
    kernel: Kernel,
    dimensions: usize,
}

/// A code, with what there is to know of its vector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim<'a> {
    pub(super) code: &'a [i8],
    pub(super) fact: Fact,
}

impl Space {
    pub(super) fn new(metric: Metric, dimensions: usize) -> Self {
        Self { metric, kernel: Kernel::detect(), dimensions }
    }

    pub(super) fn nearness(&self, left: Aim<'_>, right: Aim<'_>) -> f64 {
        let steps = f64::from(self.kernel.dot(left.code, right.code));
        self.metric.nearness(steps * left.fact.scale * right.fact.scale, left.fact, right.fact)
    }

    /// How far a nearness may be from that of the vectors themselves.
    pub(super) fn uncertainty(&self, left: Fact, right: Fact) -> f64 {
        self.metric.uncertainty(left.rounding(right), left, right)
    }

    pub(super) fn metric(&self) -> Metric {
        self.metric
    }

    /// Numbers of each code.
    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Has the processor read what will be compared soon.
    pub(super) fn prefetch(&self, aim: Aim<'_>) {
        self.kernel.prefetch(aim.code);
    }
}
