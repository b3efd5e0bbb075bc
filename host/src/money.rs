//! Money: counted in billionths of whatever unit the operator's prices are in, written as decimal numbers.

/// Billionths of one unit.
pub const ONE: u64 = 1_000_000_000;

/// The most that can be named, in units: a double still tells its billionths apart.
pub const MOST: u64 = 4_000_000;

/// Billionths of a decimal number from 0 to [`MOST`]; none: it is no such number.
pub fn billionths(units: f64) -> Option<u64> {
    let sound = (0.0..=MOST as f64).contains(&units);
    sound.then(|| (units * ONE as f64).round() as u64)
}

/// The decimal number of billionths.
pub fn units(billionths: u64) -> f64 {
    billionths as f64 / ONE as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_billionth_comes_back(billionths_before in 0..=MOST * ONE) {
            prop_assert_eq!(billionths(units(billionths_before)), Some(billionths_before));
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for units in [-0.1, f64::NAN, f64::INFINITY, MOST as f64 + 1.0] {
            assert_eq!(billionths(units), None, "{units}");
        }
        assert_eq!(billionths(0.15), Some(150_000_000));
    }
}
