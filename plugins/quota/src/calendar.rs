//! Days and months of UTC, by their numbers.

/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// Days since 1970.
pub(crate) fn day(now_ms: u64) -> u32 {
    u32::try_from(now_ms / DAY_MS).unwrap_or(u32::MAX)
}

/// Months since 1970.
pub(crate) fn month(day: u32) -> u32 {
    let (year, month, _) = civil(day);
    (year - 1970) * 12 + month
}

/// The first day of the month after the one that a day is in.
pub(crate) fn next_month(day: u32) -> u32 {
    let (year, month, of_month) = civil(day);
    day.saturating_add(length(year, month) - of_month)
}

/// Year, month and day of the month, both counted from 0.
fn civil(day: u32) -> (u32, u32, u32) {
    // 400 years have 146,097 days; within them only the length of a year has to be found.
    let (mut year, mut left) = (1970 + day / 146_097 * 400, day % 146_097);
    while left >= year_length(year) {
        left -= year_length(year);
        year += 1;
    }
    let mut month = 0;
    while left >= length(year, month) {
        left -= length(year, month);
        month += 1;
    }
    (year, month, left)
}

fn year_length(year: u32) -> u32 {
    365 + u32::from(is_leap(year))
}

fn length(year: u32, month: u32) -> u32 {
    match month {
        1 => 28 + u32::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        // Day, month since 1970, first day of the next month; the days as `date -u -d @…` counts them.
        for (now, month_since, next) in [
            (0, 0, 31),
            (30, 0, 31),
            (31, 1, 59),
            (789, 25, 790),        // 29 February 1972
            (790, 26, 821),        // 1 March 1972
            (11_016, 361, 11_017), // 29 February 2000
            (20_454, 672, 20_485), // 1 January 2026
            (20_787, 682, 20_788), // 30 November 2026
        ] {
            assert_eq!((month(now), next_month(now)), (month_since, next), "day {now}");
        }
    }

    #[test]
    fn every_day_is_in_the_month_before_the_next_one() {
        let mut at = 0;
        for number in 0..12 * 800 {
            let next = next_month(at);
            assert!((28..=31).contains(&(next - at)), "{at}");
            assert_eq!((month(at), month(next - 1), next_month(next - 1)), (number, number, next));
            at = next;
        }
        month(u32::MAX);
        next_month(u32::MAX);
    }
}
