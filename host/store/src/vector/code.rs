//! Codes: vectors rounded to bytes, each with a scale of its own.

use super::limits::ROUNDING_DEVIATIONS;

/// The largest number of a code. -128 is left out, so that a code can be negated.
const LARGEST: f64 = 127.0;

/// A rounded vector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Code {
    pub(super) numbers: Vec<i8>,
    pub(super) fact: Fact,
}

/// What there is to know of a vector beside its code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fact {
    /// What one step of the code is worth.
    pub(super) scale: f64,
    /// The length of the vector itself, before it was rounded.
    pub(super) norm: f64,
}

impl Code {
    /// Of finite values.
    pub(super) fn of(values: &[f32]) -> Self {
        let largest = values.iter().fold(0.0, |largest, value| f64::from(value.abs()).max(largest));
        let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if largest == 0.0 {
            return Self { numbers: vec![0; values.len()], fact: Fact { scale: 0.0, norm } };
        }
        let steps = LARGEST / largest;
        // The cast keeps a number that a rounding brings past the largest.
        let round = |value: &f32| (f64::from(*value) * steps).round().clamp(-LARGEST, LARGEST) as i8;
        let fact = Fact { scale: largest / LARGEST, norm };
        Self { numbers: values.iter().map(round).collect(), fact }
    }
}

impl Fact {
    /// How far the dot product of two codes may be from that of their vectors. Each number is off by at most half a step,
    /// evenly spread, and the errors of the numbers add up like those of dice.
    pub(super) fn rounding(self, other: Self) -> f64 {
        let deviation = (self.norm * other.scale).hypot(other.norm * self.scale) / 12f64.sqrt();
        deviation * ROUNDING_DEVIATIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_finite_values_have_a_code_within_its_scale() {
        let cases: [&[f32]; 6] = [
            &[0.0, -0.0],
            &[1.0, -1.0, 0.5, 0.003],
            &[f32::MAX, f32::MIN, 1.0],
            &[f32::from_bits(1), 0.0],
            &[f32::MIN_POSITIVE, -f32::from_bits(1)],
            &[],
        ];
        for values in cases {
            let code = Code::of(values);
            assert!(code.fact.scale.is_finite() && code.fact.norm.is_finite(), "{code:?}");
            for (number, value) in code.numbers.iter().zip(values) {
                assert_ne!(*number, i8::MIN);
                let error = (f64::from(*number) * code.fact.scale - f64::from(*value)).abs();
                assert!(error <= code.fact.scale * 0.500_001, "{value} {code:?}");
            }
        }
    }
}
