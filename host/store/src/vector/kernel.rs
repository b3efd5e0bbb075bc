//! The dot product of two codes: where a scan spends its time.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Bytes of a line of the processor's cache.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Lines that are fetched at most.
#[cfg(target_arch = "x86_64")]
const FETCHED: usize = 4;

/// The best instructions that this machine has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel(Level);

/// A level other than `Scalar` is only made where the machine was found to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                return Self(Level::Avx512);
            }
            if is_x86_feature_detected!("avx2") {
                return Self(Level::Avx2);
            }
        }
        Self(Level::Scalar)
    }

    /// Has the processor fetch the beginning of a code that will be read soon; the rest follows by itself.
    pub(super) fn prefetch(self, code: &[i8]) {
        #[cfg(target_arch = "x86_64")]
        for line in code.chunks(LINE).take(FETCHED) {
            // SAFETY: every x86-64 has this, and it reads nothing that the program could notice.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = code;
    }

    /// The sum of the products. Neither side holds -128, and both have at most `limits::DIMENSIONS` numbers: nothing
    /// overflows.
    pub(super) fn dot(self, left: &[i8], right: &[i8]) -> i32 {
        match self.0 {
            Level::Scalar => scalar(left, right),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this level is only made where the machine has AVX2.
            Level::Avx2 => unsafe { avx2(left, right) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this level is only made where the machine has AVX-512 F and BW.
            Level::Avx512 => unsafe { avx512(left, right) },
        }
    }
}

fn scalar(left: &[i8], right: &[i8]) -> i32 {
    left.iter().zip(right).map(|(left, right)| i32::from(*left) * i32::from(*right)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(left: &[i8], right: &[i8]) -> i32 {
    let (left, left_rest) = left.as_chunks::<32>();
    let (right, right_rest) = right.as_chunks::<32>();
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    for (left, right) in left.iter().zip(right) {
        // SAFETY: both are 32 bytes, and these loads need no alignment.
        let (left, right) =
            unsafe { (_mm256_loadu_si256(left.as_ptr().cast()), _mm256_loadu_si256(right.as_ptr().cast())) };
        // One side must be unsigned: its signs go to the other. Two products of at most 127² fit into 16 bits.
        let products = _mm256_maddubs_epi16(_mm256_abs_epi8(left), _mm256_sign_epi8(right, left));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
    }
    let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
    let total = _mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter));
    _mm_cvtsi128_si32(total) + scalar(left_rest, right_rest)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn avx512(left: &[i8], right: &[i8]) -> i32 {
    let (left, left_rest) = left.as_chunks::<32>();
    let (right, right_rest) = right.as_chunks::<32>();
    let mut sum = _mm512_setzero_si512();
    for (left, right) in left.iter().zip(right) {
        // SAFETY: both are 32 bytes, and these loads need no alignment.
        let (left, right) =
            unsafe { (_mm256_loadu_si256(left.as_ptr().cast()), _mm256_loadu_si256(right.as_ptr().cast())) };
        let products = _mm512_madd_epi16(_mm512_cvtepi8_epi16(left), _mm512_cvtepi8_epi16(right));
        sum = _mm512_add_epi32(sum, products);
    }
    _mm512_reduce_add_epi32(sum) + scalar(left_rest, right_rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All levels that this machine has.
    fn available() -> Vec<Kernel> {
        let mut found = vec![Kernel(Level::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                found.push(Kernel(Level::Avx2));
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                found.push(Kernel(Level::Avx512));
            }
        }
        assert!(found.contains(&Kernel::detect()));
        found
    }

    #[test]
    fn every_level_comes_to_the_same_sum_at_every_length() {
        let mut state = 7u64;
        let mut code = |length: usize, extreme: bool| -> Vec<i8> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let number = (state >> 33) % 255;
                if extreme { [-127, 127, 0][(number % 3) as usize] } else { (number as i16 - 127) as i8 }
            };
            (0..length).map(|_| next()).collect()
        };
        for length in (0..200).chain([384, 768, 1_024, 1_536, 4_095, 4_096]) {
            for extreme in [false, true] {
                let (left, right) = (code(length, extreme), code(length, extreme));
                let expected: i64 =
                    left.iter().zip(&right).map(|(left, right)| i64::from(*left) * i64::from(*right)).sum();
                for kernel in available() {
                    assert_eq!(i64::from(kernel.dot(&left, &right)), expected, "{kernel:?} {length}");
                }
            }
        }
        // The largest sums there are.
        for kernel in available() {
            let most = vec![127; 4_096];
            assert_eq!(kernel.dot(&most, &most), 127 * 127 * 4_096);
            assert_eq!(kernel.dot(&most, &vec![-127; 4_096]), -127 * 127 * 4_096);
        }
    }
}
