//! How near two vectors are.

use super::code::Fact;

/// How an index compares vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// By their angle: from 1, the same direction, to -1. A vector of length 0 has 0 with every other.
    #[default]
    Cosine,
    /// By their dot product: the more, the nearer.
    DotProduct,
    /// By their distance: 0 is the same vector.
    Euclidean,
}

impl Metric {
    /// All of them, by their names in configurations.
    pub const NAMED: [(&'static str, Self); 3] =
        [("cosine", Self::Cosine), ("dot-product", Self::DotProduct), ("euclidean", Self::Euclidean)];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }

    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::Cosine => 1,
            Self::DotProduct => 2,
            Self::Euclidean => 3,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::NAMED.into_iter().map(|(_, metric)| metric).find(|metric| metric.to_byte() == byte)
    }

    /// Nearness from a dot product: the more, the nearer, whatever the metric.
    pub(super) fn nearness(self, dot: f64, left: Fact, right: Fact) -> f64 {
        match self {
            Self::Cosine => cosine(dot, left.norm * right.norm),
            Self::DotProduct => dot,
            Self::Euclidean => 2.0 * dot - left.norm.powi(2) - right.norm.powi(2),
        }
    }

    /// How far the nearness may be off, when the dot product may be off by so much.
    pub(super) fn uncertainty(self, rounding: f64, left: Fact, right: Fact) -> f64 {
        match self {
            Self::Cosine => cosine(rounding, left.norm * right.norm),
            Self::DotProduct => rounding,
            Self::Euclidean => 2.0 * rounding,
        }
    }

    /// Nearness from the vectors themselves.
    pub(super) fn exact(self, left: &[f32], right: &[f32]) -> f64 {
        let sum = |product: fn(f64, f64) -> f64| -> f64 {
            left.iter().zip(right).map(|(left, right)| product(f64::from(*left), f64::from(*right))).sum()
        };
        let squares = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        match self {
            Self::Cosine => {
                let lengths = squares(left).sqrt() * squares(right).sqrt();
                cosine(sum(|left, right| left * right), lengths).clamp(-1.0, 1.0)
            }
            Self::DotProduct => sum(|left, right| left * right),
            Self::Euclidean => -sum(|left, right| (left - right).powi(2)),
        }
    }

    /// What callers are told of an exact nearness.
    pub(super) fn score(self, nearness: f64) -> f64 {
        match self {
            Self::Cosine | Self::DotProduct => nearness,
            Self::Euclidean => (-nearness).max(0.0).sqrt(),
        }
    }
}

fn cosine(dot: f64, lengths: f64) -> f64 {
    if lengths > 0.0 { dot / lengths } else { 0.0 }
}
