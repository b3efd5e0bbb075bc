//! What OpenAI's refusals say about credit, waiting and limits.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    gateway::limited::{Refused, Told, duration_ms, measure_in},
    plugin::admission::{Measure, Reached},
};

/// Whether an answer that looks like one about a limit says that the account has no credit.
pub(super) fn is_unpaid(body: &[u8]) -> bool {
    ErrorWords::read(body).is_some_and(|error| error.names("insufficient_quota"))
}

/// The words of an error answer. Others that speak this dialect have numbers and objects in these places.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorWords {
    message: Value,
    #[serde(rename = "type")]
    kind: Value,
    code: Value,
}

impl ErrorWords {
    fn read(body: &[u8]) -> Option<ErrorWords> {
        #[derive(Deserialize)]
        struct Answer {
            error: ErrorWords,
        }
        Some(serde_json::from_slice::<Answer>(body).ok()?.error)
    }

    fn message(&self) -> &str {
        self.message.as_str().unwrap_or_default()
    }

    fn names(&self, word: &str) -> bool {
        self.kind == word || self.code == word
    }
}

/// The sentence tells most: the header's counts are those of a minute or a day, and nothing else says which.
pub(super) fn told(refused: &Refused<'_>) -> Told {
    let error = ErrorWords::read(refused.body).unwrap_or_default();
    let said = measure_in(error.message());
    let exhausted = |of: &str| {
        let remaining = refused.header(&format!("x-ratelimit-remaining-{of}"));
        error.names(of) || remaining.is_some_and(|left| left == "0")
    };
    let measure = match said {
        None if exhausted("requests") => Some(Measure::Rpm),
        None if exhausted("tokens") => Some(Measure::Tpm),
        said => said,
    };
    let reset = || {
        let of = if matches!(measure?, Measure::Rpm | Measure::Rpd) { "requests" } else { "tokens" };
        duration_ms(refused.header(&format!("x-ratelimit-reset-{of}"))?)
    };
    let asked = refused.retry_after_ms().or_else(|| wait_in(error.message()));
    // "Rate limit reached for gpt-4o in organization …", "Request too large for gpt-4o …": limits of OpenAI's are each model's.
    let names_model = |words: &&str| error.message().contains(words);
    // Others who speak this dialect have days for some of their models and do not say for which.
    let is_of_day = matches!(said, Some(Measure::Rpd | Measure::TokensPerDay));
    let of_model = said.is_some()
        && (is_of_day || ["limit reached for ", "Request too large for "].iter().any(names_model));
    Told {
        retry_after_ms: asked.or_else(reset),
        reached: measure.map(|measure| Reached { measure, of_model }),
    }
}

/// The wait, in milliseconds, of a sentence such as "Please try again in 7m12s. Visit …".
fn wait_in(message: &str) -> Option<u64> {
    let (_, after) = message.split_once("try again in ")?;
    duration_ms(after.split_whitespace().next()?.trim_end_matches(['.', ',']))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn told_by(body: &str, headers: &[(&str, &str)]) -> Told {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        told(&Refused::new(&headers, body.as_bytes(), 0))
    }

    fn reached(measure: Measure, of_model: bool) -> Option<Reached> {
        Some(Reached { measure, of_model })
    }

    #[test]
    fn a_refusal_names_its_limit_and_when_to_come_back() {
        let per_day = r#"{"error":{"message":"Rate limit reached for gpt-4o-mini in organization org-x on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s. Visit https://example.com.","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
        let all = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "23h59m")];
        let day = Told { retry_after_ms: Some(432_000), reached: reached(Measure::Rpd, true) };
        assert_eq!(told_by(per_day, &all), day);
        let tokens = r#"{"error":{"message":"Rate limit reached for model `llama` in organization `o` on tokens per minute (TPM): Limit 6000, Used 5900, Requested 500. Please try again in 4s.","type":"tokens","code":"rate_limit_exceeded"}}"#;
        let minute = Told { retry_after_ms: Some(2_000), reached: reached(Measure::Tpm, true) };
        assert_eq!(told_by(tokens, &[("retry-after", "2")]), minute);
    }

    #[test]
    fn what_is_of_some_models_alone_does_not_keep_the_others_out() {
        let large = r#"{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 342389.","type":"tokens","code":"rate_limit_exceeded"}}"#;
        assert_eq!(told_by(large, &[]).reached, reached(Measure::Tpm, true));
        let free = r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day","code":429}}"#;
        assert_eq!(told_by(free, &[]), Told { retry_after_ms: None, reached: reached(Measure::Rpd, true) });
    }

    #[test]
    fn without_a_sentence_headers_tell_and_the_limit_is_the_accounts() {
        let left =
            |of, reset| [("x-ratelimit-remaining-requests", of), ("x-ratelimit-reset-requests", reset)];
        let none_left = Told { retry_after_ms: Some(1_500), reached: reached(Measure::Rpm, false) };
        assert_eq!(told_by("{}", &left("0", "1.5s")), none_left);
        assert_eq!(told_by("{}", &left("3", "1.5s")), Told::default());
        let typed = r#"{"error":{"message":"slow down","type":"tokens","code":429}}"#;
        let reset = [("x-ratelimit-reset-tokens", "6m0s")];
        let told = Told { retry_after_ms: Some(360_000), reached: reached(Measure::Tpm, false) };
        assert_eq!(told_by(typed, &reset), told);
        for body in ["", "<html>", "[]", r#"{"error":"busy"}"#, r#"{"error":{"message":7,"type":{}}}"#] {
            assert_eq!(told_by(body, &[]), Told::default(), "{body}");
        }
    }

    #[test]
    fn no_credit_is_told_from_a_limit() {
        let body = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
        assert!(is_unpaid(body.as_bytes()));
        assert!(!is_unpaid(br#"{"error":{"message":"insufficient_quota","code":"rate_limit_exceeded"}}"#));
        assert!(!is_unpaid(b"insufficient_quota"));
    }
}
