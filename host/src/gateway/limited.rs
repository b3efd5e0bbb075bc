//! What upstreams say when they refuse: how long to wait, and for which of their limits. What dialects have in common.

use chrono::{DateTime, Datelike, NaiveDate, Weekday};
use http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};

use crate::plugin::admission::{Measure, Reached};

const HOUR_MS: u64 = 3_600_000;

/// An answer that is a refusal, as far as dialects look at it.
pub(super) struct Refused<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    /// When it was given, in milliseconds since 1970.
    pub(super) answered_ms: u64,
}

/// What it says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Milliseconds to wait.
    pub(super) retry_after_ms: Option<u64>,
    /// The limit that it names.
    pub(super) reached: Option<Reached>,
}

impl<'a> Refused<'a> {
    /// A refusal with these headers and the beginning of its body; `now_ms` is by our own clock.
    pub(super) fn new(headers: &'a HeaderMap, body: &'a [u8], now_ms: u64) -> Refused<'a> {
        Refused { headers, body, answered_ms: answered_ms(headers, now_ms) }
    }

    /// A header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// The wait that its headers ask for, in milliseconds: `retry-after-ms`, or `retry-after` in seconds or as a date.
    pub(super) fn retry_after_ms(&self) -> Option<u64> {
        let number = |name: &str| self.header(name)?.parse::<f64>().ok();
        match number("retry-after-ms").or_else(|| Some(number(RETRY_AFTER.as_str())? * 1_000.0)) {
            // A cast saturates, and gives 0 for what is no number.
            Some(ms) => Some(ms.ceil() as u64),
            None => Some(http_date_ms(self.header(RETRY_AFTER.as_str())?)?.saturating_sub(self.answered_ms)),
        }
    }

    /// Milliseconds until a time such as `2026-11-22T06:00:00Z`; none for what is no time.
    pub(super) fn until_ms(&self, time: &str) -> Option<u64> {
        let time = DateTime::parse_from_rfc3339(time).ok()?.timestamp_millis();
        Some(u64::try_from(time).ok()?.saturating_sub(self.answered_ms))
    }
}

/// When an answer was given, in milliseconds since 1970: by its own clock, as all times in it are, or else by ours.
fn answered_ms(headers: &HeaderMap, now_ms: u64) -> u64 {
    let said = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(http_date_ms);
    said.unwrap_or(now_ms)
}

fn http_date_ms(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    u64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// A duration such as `6m0s`, `1h2m3.5s`, `120ms`, or plain seconds, in milliseconds.
pub(super) fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        return Some((seconds * 1_000.0).ceil() as u64);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
        let (number, unit) = rest.split_at_checked(end)?;
        let (ms, after) =
            [("ms", 1.0), ("d", 86_400_000.0), ("h", 3_600_000.0), ("m", 60_000.0), ("s", 1_000.0)]
                .into_iter()
                .find_map(|(name, ms)| Some((ms, unit.strip_prefix(name)?)))?;
        sum += number.parse::<f64>().ok()? * ms;
        rest = after;
    }
    (!text.trim().is_empty()).then_some(sum.ceil() as u64)
}

/// The limit that a sentence for people speaks of.
pub(super) fn measure_in(text: &str) -> Option<Measure> {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let of_tokens = has(&["tokens", "(tpm)", "(tpd)"]);
    if has(&["per day", "(rpd)", "(tpd)"]) {
        Some(if of_tokens { Measure::TokensPerDay } else { Measure::Rpd })
    } else if has(&["per min", "(rpm)", "(tpm)"]) {
        Some(if of_tokens { Measure::Tpm } else { Measure::Rpm })
    } else {
        None
    }
}

/// Milliseconds until midnight on the Pacific coast of the United States, when days of Google's quotas end; 24 hours at most.
/// On a day on which clocks are set it is an hour off until they are.
pub(super) fn until_pacific_midnight_ms(now_ms: u64) -> u64 {
    let offset_ms = if is_pacific_summer(now_ms) { 7 * HOUR_MS } else { 8 * HOUR_MS };
    let into_day_ms = now_ms.saturating_add(24 * HOUR_MS - offset_ms) % (24 * HOUR_MS);
    24 * HOUR_MS - into_day_ms
}

/// Summer time, from the second Sunday of March to the first of November, at two o'clock by the clocks that are set.
fn is_pacific_summer(now_ms: u64) -> bool {
    let now = i64::try_from(now_ms / 1_000).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let Some(now) = now.map(|now| now.naive_utc()) else { return false };
    let sunday = |month, number, utc_hour| {
        let day = NaiveDate::from_weekday_of_month_opt(now.year(), month, Weekday::Sun, number)?;
        day.and_hms_opt(utc_hour, 0, 0)
    };
    sunday(3, 2, 10).zip(sunday(11, 1, 9)).is_some_and(|(begins, ends)| begins <= now && now < ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn ms(time: &str) -> u64 {
        u64::try_from(DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis()).unwrap()
    }

    #[test]
    fn a_wait_is_read_in_every_form_that_headers_have() {
        let date = ("date", "Sun, 22 Nov 2026 06:00:00 GMT");
        for (pairs, wait_ms) in [
            (&[("retry-after", "7")][..], Some(7_000)),
            (&[("retry-after", " 0.25 ")], Some(250)),
            (&[("retry-after-ms", "1500.5"), ("retry-after", "9")], Some(1_501)),
            (&[date, ("retry-after", "Sun, 22 Nov 2026 06:01:30 GMT")], Some(90_000)),
            (&[date, ("retry-after", "Sun, 22 Nov 2026 05:00:00 GMT")], Some(0)),
            (&[("retry-after", "Thu, 01 Jan 1970 00:00:09 GMT")], Some(8_000)),
            (&[("retry-after", "-5")], Some(0)),
            (&[("retry-after", "soon")], None),
            (&[], None),
        ] {
            let headers = headers(pairs);
            assert_eq!(Refused::new(&headers, b"", 1_000).retry_after_ms(), wait_ms, "{pairs:?}");
        }
    }

    #[test]
    fn durations_and_times_are_read_as_upstreams_write_them() {
        for (text, wait_ms) in [
            ("6m0s", Some(360_000)),
            ("7m12s", Some(432_000)),
            ("8.64s", Some(8_640)),
            ("120ms", Some(120)),
            ("1h0m0.5s", Some(3_600_500)),
            ("1d2h", Some(93_600_000)),
            ("20", Some(20_000)),
            ("", None),
            ("s", None),
            ("1.2.3s", None),
            ("5 apples", None),
            ("1m soon", None),
        ] {
            assert_eq!(duration_ms(text), wait_ms, "{text:?}");
        }
        assert_eq!(duration_ms(&format!("{}h", "9".repeat(400))), Some(u64::MAX));
        let headers = HeaderMap::new();
        let refused = Refused::new(&headers, b"", ms("2026-11-22T06:00:00Z"));
        assert_eq!(refused.until_ms("2026-11-22T06:00:59Z"), Some(59_000));
        assert_eq!(refused.until_ms("2026-11-22T05:00:00Z"), Some(0));
        assert_eq!(refused.until_ms("tomorrow"), None);
    }

    #[test]
    fn a_sentence_tells_its_limit() {
        for (text, measure) in [
            ("Rate limit reached for gpt-4o on requests per min (RPM): Limit 3", Some(Measure::Rpm)),
            ("Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000", Some(Measure::Tpm)),
            ("on requests per day (RPD): Limit 200, Used 200, Requested 1", Some(Measure::Rpd)),
            ("on tokens per day (TPD): Limit 100000", Some(Measure::TokensPerDay)),
            ("would exceed the rate limit of 20,000 input tokens per minute", Some(Measure::Tpm)),
            ("You exceeded your current quota, please check your plan", None),
        ] {
            assert_eq!(measure_in(text), measure, "{text}");
        }
    }

    #[test]
    fn googles_days_end_at_midnight_on_the_pacific_coast_in_summer_and_winter() {
        for (now, midnight) in [
            ("2026-11-22T06:30:00Z", "2026-11-22T08:00:00Z"),
            ("2026-11-22T08:00:00Z", "2026-11-23T08:00:00Z"),
            ("2026-07-01T06:59:59Z", "2026-07-01T07:00:00Z"),
            ("2026-07-01T12:00:00Z", "2026-07-02T07:00:00Z"),
            // The days on which clocks are set: 8 March and 1 November.
            ("2026-03-08T09:59:00Z", "2026-03-09T08:00:00Z"),
            ("2026-03-08T10:00:00Z", "2026-03-09T07:00:00Z"),
            ("2026-11-01T08:59:00Z", "2026-11-02T07:00:00Z"),
            ("2026-11-01T09:00:00Z", "2026-11-02T08:00:00Z"),
        ] {
            assert_eq!(until_pacific_midnight_ms(ms(now)), ms(midnight) - ms(now), "{now}");
        }
        assert_eq!(until_pacific_midnight_ms(0), 8 * HOUR_MS);
        assert!(until_pacific_midnight_ms(u64::MAX) <= 24 * HOUR_MS);
    }
}
