//! Where usage, text and errors stand in Gemini's answers. A piece of a stream has the same form as a plain answer.

use serde::Deserialize;

use super::request::TextBytes;
use crate::{
    gateway::usage::{Reported, Seen},
    plugin::admission::{Measure, Reached},
};

/// What is read of a plain answer, and of the elements of one that is an array.
pub(super) const ENTRIES: &[&str] = &["usageMetadata", "error"];

/// Reads one of these.
pub(super) fn read_entry(name: &str, json: &[u8], seen: &mut Seen) {
    if name == "error" {
        if let Ok(Some(failure)) = serde_json::from_slice::<Option<Failure>>(json) {
            failure.note(seen);
        }
    } else if let Ok(Some(usage)) = serde_json::from_slice::<Option<Usage>>(json) {
        usage.note(seen);
    }
}

/// Reads one piece of a stream.
pub(super) fn read_event(data: &[u8], seen: &mut Seen) {
    // What is no JSON tells nothing more.
    let Ok(event) = serde_json::from_slice::<Event>(data) else { return };
    seen.text_bytes += event.candidates.iter().map(|candidate| candidate.content.0).sum::<u64>();
    // No event is marked as the last one: an end that is not followed by more is it.
    seen.done = event.usage_metadata.is_some()
        && event.candidates.iter().any(|candidate| candidate.finish_reason.is_some());
    if let Some(usage) = event.usage_metadata {
        usage.note(seen);
        // Some models count the answer only in the last event: until then the text counts.
        if seen.reported.output == Some(0) && seen.text_bytes > 0 {
            seen.reported.output = None;
        }
    }
    if let Some(failure) = event.error {
        failure.note(seen);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(default)]
    candidates: Vec<Candidate>,
    usage_metadata: Option<Usage>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    #[serde(default)]
    content: TextBytes,
    finish_reason: Option<String>,
}

/// What was used so far. A count of zero is left out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    /// With what came from a cache.
    prompt_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    /// All but the cached ones, which are in the prompt already.
    total_token_count: Option<u64>,
}

impl Usage {
    fn note(&self, seen: &mut Seen) {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        let input = sum(self.prompt_token_count, self.tool_use_prompt_token_count);
        let rest = || Some(self.total_token_count?.saturating_sub(input.unwrap_or(0)));
        let output = sum(self.candidates_token_count, self.thoughts_token_count);
        let output = output.max(if self.candidates_token_count.is_some() { None } else { rest() });
        if input.or(output).is_some() {
            seen.reported = Reported {
                input: Some(input.unwrap_or(0)),
                output,
                cache_read: self.cached_content_token_count.unwrap_or(0),
                cache_write: 0,
                reasoning: self.thoughts_token_count.unwrap_or(0),
            };
        }
    }
}

/// An error answer, or an error in mid-stream.
#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) message: Option<String>,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    reason: Option<String>,
    #[serde(rename = "retryDelay")]
    retry_delay: Option<String>,
    /// Of a quota, or of something else.
    #[serde(default)]
    violations: Vec<Violation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Violation {
    /// Such as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.
    #[serde(default)]
    quota_id: String,
}

impl Violation {
    fn reached(&self) -> Option<Reached> {
        let has = |word| self.quota_id.contains(word);
        let measure = match (has("PerDay"), has("Token")) {
            (true, false) => Measure::Rpd,
            (true, true) => Measure::TokensPerDay,
            (false, _) if !has("PerMinute") => return None,
            (false, false) => Measure::Rpm,
            (false, true) => Measure::Tpm,
        };
        Some(Reached { measure, of_model: has("PerModel") || has("PerBaseModel") })
    }

    fn is_of_day(&self) -> bool {
        self.quota_id.contains("PerDay")
    }
}

impl Failure {
    /// The error of an answer, which is in an array where a stream was asked for.
    pub(super) fn read(body: &[u8]) -> Option<Failure> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Body {
            Whole { error: Failure },
            Stream([Whole; 1]),
        }
        #[derive(Deserialize)]
        struct Whole {
            error: Failure,
        }
        match serde_json::from_slice(body).ok()? {
            Body::Whole { error } | Body::Stream([Whole { error }]) => Some(error),
        }
    }

    fn note(self, seen: &mut Seen) {
        seen.failure = Some(self.message.unwrap_or_else(|| "the upstream reported an error".to_owned()));
    }

    /// Whether it is the key that was refused, for which Google has no status of its own.
    pub(super) fn is_of_key(&self) -> bool {
        self.details.iter().any(|detail| detail.reason.as_deref() == Some("API_KEY_INVALID"))
    }

    /// The quota that stands in the way, of several the one that does for longest.
    pub(super) fn reached(&self) -> Option<Reached> {
        let violations = || self.details.iter().flat_map(|detail| &detail.violations);
        let of_day = violations().find(|violation| violation.is_of_day());
        of_day.and_then(Violation::reached).or_else(|| violations().find_map(Violation::reached))
    }

    /// The wait that is asked for, in milliseconds; Google says it in the body only.
    pub(super) fn retry_after_ms(&self) -> Option<u64> {
        let delay = self.details.iter().find_map(|detail| detail.retry_delay.as_deref())?;
        let seconds: f64 = delay.strip_suffix('s')?.parse().ok()?;
        // A cast saturates, and gives 0 for what is no number.
        Some((seconds * 1_000.0).ceil() as u64)
    }
}
