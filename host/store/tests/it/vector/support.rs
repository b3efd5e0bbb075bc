//! What the tests of vectors share.

use tollgate_store::{
    Index, Metric, Store, Target, Vector, VectorMatch, VectorOptions, VectorQuery, VectorReport,
};

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    /// From -1 to 1.
    pub(crate) fn value(&mut self) -> f32 {
        self.next(2_000_001) as f32 / 1_000_000.0 - 1.0
    }

    pub(crate) fn values(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| self.value()).collect()
    }
}

pub(crate) fn index(store: &Store, name: &str, dimensions: usize) -> Index {
    store.index(name, VectorOptions::new(dimensions)).unwrap()
}

pub(crate) fn vector(id: impl ToString, values: Vec<f32>) -> Vector {
    Vector { id: id.to_string(), values, ..Vector::default() }
}

pub(crate) fn near(values: Vec<f32>, top_k: usize) -> VectorQuery {
    VectorQuery { top_k, ..VectorQuery::new(Target::Values(values)) }
}

pub(crate) fn ids(matches: &[VectorMatch]) -> Vec<&str> {
    matches.iter().map(|found| found.id.as_str()).collect()
}

/// The values of a vector, if there is one.
pub(crate) async fn values(index: &Index, id: &str) -> Option<Vec<f32>> {
    let found = index.get_by_ids(&[id.to_owned()]).await.unwrap();
    found.into_iter().next().map(|vector| vector.values)
}

/// A report without problems.
pub(crate) async fn report(index: &Index) -> VectorReport {
    let report = index.check().await.unwrap();
    assert_eq!(report.problems, [""; 0]);
    report
}

/// What the store must answer, worked out from the values alone.
pub(crate) fn score(metric: Metric, left: &[f32], right: &[f32]) -> f64 {
    let pairs = || left.iter().zip(right).map(|(left, right)| (f64::from(*left), f64::from(*right)));
    let dot: f64 = pairs().map(|(left, right)| left * right).sum();
    let length = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    match metric {
        Metric::Cosine if length(left) * length(right) == 0.0 => 0.0,
        Metric::Cosine => (dot / (length(left) * length(right))).clamp(-1.0, 1.0),
        Metric::DotProduct => dot,
        Metric::Euclidean => pairs().map(|(left, right)| (left - right).powi(2)).sum::<f64>().sqrt(),
    }
}
