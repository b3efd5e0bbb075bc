//! What an outcome says about the account.

use tollgate_guest::admission::{Ending, Measure, Reached, Usage};

use crate::limits::{
    BROKEN_MS, EXHAUSTED_MS, OVERLOADED_MS, REFUSED_MS, RETRY_AFTER_MS, SILENT_MS, THROTTLED_MS,
    UNAVAILABLE_MS, UNPAID_MS,
};

/// What is to be made of an outcome.
#[derive(Debug, PartialEq)]
pub(crate) enum Finding {
    /// The request still runs.
    Running,
    /// It says nothing: the client left, or the request itself was wrong.
    Nothing,
    /// The account works.
    Works,
    /// The account is not to be used for a time.
    Fails { hold_ms: u64, reason: String },
    /// A limit of the account's own is reached.
    Limited { hold_ms: u64, reason: String, limit: &'static str, of_model: bool },
    /// No whole answer: counts when it happens again and again.
    Silent { hold_ms: u64, reason: String },
}

/// What an outcome says.
pub(crate) fn finding(usage: &Usage) -> Finding {
    match usage.ending {
        Ending::Running => return Finding::Running,
        Ending::NeverSent => return Finding::Nothing,
        Ending::Completed | Ending::ClientAborted | Ending::UpstreamError | Ending::TimedOut => {}
    }
    if let (Some(429), Some(reached)) = (usage.status, usage.reached) {
        return limited(reached, usage.retry_after_ms);
    }
    if let Some((status, hold_ms)) = usage.status.and_then(|status| Some((status, hold(status, usage)?))) {
        return Finding::Fails { hold_ms, reason: format!("upstream answered {status}") };
    }
    let silent = |reason: &str| Finding::Silent { hold_ms: SILENT_MS, reason: reason.to_owned() };
    match (usage.ending, usage.status) {
        (Ending::TimedOut, _) | (_, Some(408)) => silent("upstream timed out again and again"),
        (Ending::UpstreamError, None | Some(..400)) => silent("upstream broke off again and again"),
        (Ending::Completed, None | Some(..400)) => Finding::Works,
        _ => Finding::Nothing,
    }
}

/// A day's limit holds until the upstream says that it begins anew, and any other no longer than a wait may; so does a day's that
/// nothing is said about, since it may be over in a minute.
fn limited(Reached { measure, of_model }: Reached, retry_after_ms: Option<u64>) -> Finding {
    let (limit, words, is_long) = match measure {
        Measure::Rpm => ("rpm", "requests per minute", false),
        Measure::Tpm => ("tpm", "tokens per minute", false),
        Measure::Concurrency => ("concurrency", "requests at once", false),
        Measure::Rpd => ("rpd", "requests per day", true),
        Measure::TokensPerDay => ("tokens-per-day", "tokens per day", true),
        Measure::TokensPerMonth => ("tokens-per-month", "tokens per month", true),
        Measure::TokensTotal => ("tokens-total", "tokens in total", true),
        Measure::CostPerDay => ("cost-per-day", "cost per day", true),
        Measure::CostPerMonth => ("cost-per-month", "cost per month", true),
        Measure::CostTotal => ("cost-total", "cost in total", true),
    };
    let hold_ms = match is_long {
        true => {
            let hold_ms = retry_after_ms.unwrap_or(*RETRY_AFTER_MS.end());
            hold_ms.clamp(*RETRY_AFTER_MS.start(), EXHAUSTED_MS)
        }
        false => throttled(retry_after_ms),
    };
    let of = if of_model { " of the model" } else { "" };
    Finding::Limited {
        hold_ms,
        reason: format!("upstream answered 429: {words}{of} used up"),
        limit,
        of_model,
    }
}

/// For how long a limit keeps the account out that is over a minute at most, or is not named.
fn throttled(retry_after_ms: Option<u64>) -> u64 {
    retry_after_ms.unwrap_or(THROTTLED_MS).clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end())
}

/// For how long a status keeps the account out; none: it is no fault of the account.
fn hold(status: u16, usage: &Usage) -> Option<u64> {
    match status {
        401 | 403 => Some(REFUSED_MS),
        402 => Some(UNPAID_MS),
        429 => Some(throttled(usage.retry_after_ms)),
        503 => Some(UNAVAILABLE_MS),
        529 => Some(OVERLOADED_MS),
        // Not what the upstream does at all: the request is at fault, with any account.
        501 | 505 => None,
        500..=599 => Some(BROKEN_MS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(ending: Ending, status: Option<u16>, retry_after_ms: Option<u64>) -> Usage {
        Usage {
            ending,
            status,
            input_tokens: 0,
            output_tokens: 0,
            cost: None,
            duration_ms: 0,
            retry_after_ms,
            reached: None,
        }
    }

    #[test]
    fn every_status_has_its_own_duration() {
        let cases = [
            (401, None, Some(1_800)),
            (402, None, Some(1_800)),
            (403, None, Some(1_800)),
            (429, None, Some(60)),
            (429, Some(7_000), Some(7)),
            (429, Some(9_000_000), Some(1_800)),
            (429, Some(0), Some(1)),
            (500, None, Some(300)),
            (502, None, Some(300)),
            (503, Some(5_000), Some(60)),
            (529, None, Some(600)),
            (400, None, None),
            (404, None, None),
            (422, None, None),
        ];
        for (status, retry_after_ms, seconds) in cases {
            let held = match finding(&usage(Ending::UpstreamError, Some(status), retry_after_ms)) {
                Finding::Fails { hold_ms, .. } => Some(hold_ms / 1_000),
                Finding::Nothing => None,
                other => panic!("{status}: {other:?}"),
            };
            assert_eq!(held, seconds, "{status}");
        }
    }

    #[test]
    fn an_exhausted_day_holds_until_it_begins_anew_and_a_minute_as_long_as_is_asked() {
        let cases = [
            (Measure::Rpm, None, 60, "rpm"),
            (Measure::Tpm, Some(7_000), 7, "tpm"),
            (Measure::Rpm, Some(9_000_000), 1_800, "rpm"),
            (Measure::Rpd, Some(432_000), 432, "rpd"),
            (Measure::Rpd, Some(30_000_000), 30_000, "rpd"),
            (Measure::Rpd, None, 1_800, "rpd"),
            (Measure::Rpd, Some(100_000_000), 86_400, "rpd"),
            (Measure::TokensPerDay, Some(u64::MAX), 86_400, "tokens-per-day"),
            (Measure::TokensPerDay, Some(0), 1, "tokens-per-day"),
        ];
        for (measure, retry_after_ms, seconds, name) in cases {
            let usage = usage(Ending::UpstreamError, Some(429), retry_after_ms);
            let reached = Some(Reached { measure, of_model: true });
            let Finding::Limited { hold_ms, limit, of_model, .. } = finding(&Usage { reached, ..usage })
            else {
                panic!("{name}");
            };
            assert_eq!((hold_ms / 1_000, limit, of_model), (seconds, name, true));
        }
    }

    #[test]
    fn only_a_whole_good_answer_shows_that_an_account_works() {
        assert_eq!(finding(&usage(Ending::Completed, Some(200), None)), Finding::Works);
        assert_eq!(finding(&usage(Ending::Completed, Some(400), None)), Finding::Nothing);
        assert_eq!(finding(&usage(Ending::ClientAborted, Some(200), None)), Finding::Nothing);
        assert_eq!(finding(&usage(Ending::NeverSent, None, None)), Finding::Nothing);
        assert_eq!(finding(&usage(Ending::Running, Some(200), None)), Finding::Running);
    }

    #[test]
    fn no_whole_answer_is_silence() {
        for (ending, status) in
            [(Ending::TimedOut, None), (Ending::TimedOut, Some(200)), (Ending::UpstreamError, None)]
        {
            assert!(matches!(finding(&usage(ending, status, None)), Finding::Silent { .. }));
        }
    }
}
