//! Times as arguments, such as `30d`.

use std::time::Duration;

/// A time as people write it: a number of days, hours, minutes or seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and d, h, m or s, such as 30d".to_owned();
    let (at, unit) = text.char_indices().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = text.get(..at).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    let seconds = number.checked_mul(seconds).filter(|seconds| (1..=MOST_S).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "the time must be from a second to 100 years".to_owned())
}

/// Keeps sums of milliseconds far from overflowing.
const MOST_S: u64 = crate::config::limits::TTL_MOST_MS / 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_written() {
        for (text, seconds) in [("30d", 2_592_000), ("12h", 43_200), ("45m", 2_700), ("90s", 90)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in
            ["", "d", "30", "0d", "-1d", "1.5h", "30 d", "1y", "99999999999999999999d", "40000d", "3é"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
