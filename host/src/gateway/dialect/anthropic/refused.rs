//! What Anthropic's refusals say about credit, waiting and limits.

use crate::{
    gateway::limited::{Refused, Told, measure_in},
    plugin::admission::{Measure, Reached},
};

/// Whether a message says that the account has no credit, or has spent what its owner allows it, for which there is no status of
/// its own.
///
/// Clients must not be able to have it said: an unknown field of a request comes back by its name, as `NAME: Extra inputs are not
/// permitted`.
pub(super) fn is_unpaid(message: &str) -> bool {
    let says = |words| message.starts_with(words);
    let is_about_a_field = message.contains(": ");
    (says("Your credit balance is too low") || says("You have reached your specified API usage limits"))
        && !is_about_a_field
}

/// Limits are those of each model, or of its kind, and all are over a minute where the message does not say otherwise.
pub(super) fn told(refused: &Refused<'_>, message: &str) -> Told {
    const LIMITS: [(&str, Measure); 4] = [
        ("requests", Measure::Rpm),
        ("tokens", Measure::Tpm),
        ("input-tokens", Measure::Tpm),
        ("output-tokens", Measure::Tpm),
    ];
    let header = |of: &str, what: &str| refused.header(&format!("anthropic-ratelimit-{of}-{what}"));
    let exhausted = || LIMITS.iter().filter(|(of, _)| header(of, "remaining") == Some("0"));
    let measure = measure_in(message).or_else(|| exhausted().next().map(|(_, measure)| *measure));
    let reset = || exhausted().filter_map(|(of, _)| refused.until_ms(header(of, "reset")?)).max();
    Told {
        retry_after_ms: refused.retry_after_ms().or_else(reset),
        reached: measure.map(|measure| Reached { measure, of_model: true }),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn no_client_has_an_account_called_unpaid_by_the_name_of_a_field() {
        assert!(is_unpaid(
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
        ));
        assert!(is_unpaid(
            "You have reached your specified API usage limits. You will regain access on 2026-12-01."
        ));
        for echoed in [
            "credit balance is too low: Extra inputs are not permitted",
            "Your credit balance is too low: Extra inputs are not permitted",
            "messages.0.Your credit balance is too low: Extra inputs are not permitted",
        ] {
            assert!(!is_unpaid(echoed), "{echoed}");
        }
    }

    #[test]
    fn a_refusal_names_its_limit_and_when_to_come_back() {
        let per_minute = "This request would exceed your organization's rate limit of 30,000 input tokens per minute (org: o, \
            model: claude-sonnet-4-6).";
        let spent = |of: &str, left: &str, second: u32| {
            [
                (format!("anthropic-ratelimit-{of}-remaining"), left.to_owned()),
                (format!("anthropic-ratelimit-{of}-reset"), format!("1970-01-01T00:00:{second:02}Z")),
            ]
        };
        let reached = |measure| Some(Reached { measure, of_model: true });
        let retry_after = vec![("retry-after".to_owned(), "12".to_owned())];
        let both =
            [spent("requests", "0", 20), spent("tokens", "5", 50), spent("output-tokens", "0", 40)].concat();
        for (message, headers, retry_after_ms, reached) in [
            (per_minute, retry_after.clone(), Some(12_000), reached(Measure::Tpm)),
            ("slow down", retry_after, Some(12_000), None),
            ("slow down", both, Some(39_000), reached(Measure::Rpm)),
            ("slow down", spent("input-tokens", "0", 31).to_vec(), Some(30_000), reached(Measure::Tpm)),
            ("", Vec::new(), None, None),
        ] {
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            let found = told(&Refused::new(&headers, b"", 1_000), message);
            assert_eq!(found, Told { retry_after_ms, reached }, "{message} {headers:?}");
        }
    }
}
