//! What a value in the kv store `blacklist` says; shared by all who write or read it.
//!
//! A key is `account:<id>` or `client:<id>`, with `/<model>` behind it where only one model is meant; `<id>` is the
//! hash of the key in hexadecimal. A value is JSON, and only `reason` must be there:
//!
//! ```json
//! {"reason": "rpm exceeded", "created_ms": 1700000000000, "until_ms": 1700000060000, "model": "m", "limit": "rpm"}
//! ```

use serde::{Deserialize, Serialize};

/// How long an entry holds that says nothing itself: 24 h.
pub const DEFAULT_HOLD_MS: u64 = 24 * 60 * 60 * 1_000;

/// What the key of an upstream account starts with.
pub const ACCOUNT_PREFIX: &str = "account:";

/// What the key of a client's key starts with.
pub const CLIENT_PREFIX: &str = "client:";

/// Why and until when a subject is blacklisted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// A sentence for people.
    pub reason: String,
    /// When it was made, in milliseconds since 1970.
    #[serde(default)]
    pub created_ms: u64,
    /// From when on the subject may be tried again, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// The one model it is for; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The quota that was exceeded, by the name of what it bounds: `rpm`, `tpm`, `rpd`, `tokens-per-day` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The request that is trying the subject again, and until when it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// A request that tries whether a subject works again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The request's id.
    pub request: String,
    /// When its lease ends, in milliseconds since 1970.
    pub until_ms: u64,
}

impl Entry {
    /// An entry from its JSON.
    pub fn decode(value: &[u8]) -> Result<Entry, String> {
        serde_json::from_slice(value).map_err(|error| format!("blacklist entry: {error}"))
    }

    /// The entry as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| format!("blacklist entry: {error}"))
    }

    /// From when on the subject may be tried again; an entry without any time holds as long as it is there.
    pub fn until_ms(&self) -> u64 {
        match (self.until_ms, self.created_ms) {
            (Some(until_ms), _) => until_ms,
            (None, 0) => u64::MAX,
            (None, created_ms) => created_ms.saturating_add(DEFAULT_HOLD_MS),
        }
    }

    /// The quota that was exceeded, read from the reason where the entry does not name it.
    pub fn limit(&self) -> Option<&str> {
        self.limit.as_deref().or_else(|| limit_in(&self.reason))
    }
}

/// The quota that a sentence speaks of.
fn limit_in(reason: &str) -> Option<&'static str> {
    let reason = reason.to_ascii_lowercase();
    let names = [
        ("rpm", &["rpm", "requests per minute", "requests per min"]),
        ("tpm", &["tpm", "tokens per minute", "tokens per min"]),
        ("rpd", &["rpd", "requests per day", "daily"]),
    ];
    names.into_iter().find(|(_, words)| words.iter().any(|word| reason.contains(word))).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_needs_no_more_than_its_reason() {
        let entry = Entry::decode(br#"{"reason":"stolen","note":"unknown fields are fine"}"#).unwrap();
        assert_eq!(entry.until_ms(), u64::MAX);
        assert_eq!(Entry::decode(&entry.encode().unwrap()).unwrap(), entry);
    }

    #[test]
    fn an_entry_without_an_end_holds_for_a_day() {
        let entry = Entry::decode(br#"{"reason":"stolen","created_ms":1000}"#).unwrap();
        assert_eq!(entry.until_ms(), 86_401_000);
    }

    #[test]
    fn the_exceeded_quota_is_read_from_the_reason() {
        let limit =
            |reason: &str| Entry { reason: reason.into(), ..Entry::default() }.limit().map(str::to_owned);
        assert_eq!(limit("Rate limit reached for Requests per Minute"), Some("rpm".into()));
        assert_eq!(limit("TPM exceeded"), Some("tpm".into()));
        assert_eq!(limit("daily quota used up"), Some("rpd".into()));
        assert_eq!(limit("invalid key"), None);
    }

    #[test]
    fn what_is_no_entry_is_an_error() {
        assert!(Entry::decode(b"").is_err());
        assert!(Entry::decode(br#"{"created_ms":1}"#).is_err());
        assert!(Entry::decode(b"\xff\x00").is_err());
    }
}
