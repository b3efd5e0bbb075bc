//! A sliding window over buckets, and why something more does not fit into it.

use tollgate_guest::admission::Denial;

use crate::limits::{QUARTER_MS, QUARTERS, SECOND_MS, SECONDS};

/// A limit over a window.
pub(crate) struct Window {
    word: &'static str,
    people: &'static str,
    bucket_ms: u64,
    buckets: u32,
}

/// Requests per minute.
pub(crate) const RPM: Window =
    Window { word: "rpm", people: "requests per minute", bucket_ms: SECOND_MS, buckets: SECONDS };
/// Tokens per minute.
pub(crate) const TPM: Window =
    Window { word: "tpm", people: "tokens per minute", bucket_ms: SECOND_MS, buckets: SECONDS };
/// Requests per day.
pub(crate) const RPD: Window =
    Window { word: "rpd", people: "requests per day", bucket_ms: QUARTER_MS, buckets: QUARTERS };

/// What is asked of a window.
pub(crate) struct Asked {
    pub(crate) now_ms: u64,
    /// What is charged in the window already.
    pub(crate) current: u64,
    pub(crate) more: u64,
    pub(crate) limit: Option<u64>,
}

impl Window {
    /// Why `more` does not fit under the limit, or nothing when it does. `charges` are those of the window by index,
    /// oldest first.
    pub(crate) fn refusal<I: Iterator<Item = (u32, u64)>>(
        &self,
        asked: &Asked,
        charges: impl FnOnce() -> I,
    ) -> Option<Denial> {
        let Asked { current, more, limit, .. } = *asked;
        let limit = limit?;
        if current.saturating_add(more) <= limit {
            return None;
        }
        let reason = if more > limit {
            format!("the request needs {more} of {limit} {}", self.people)
        } else {
            format!("{current} of {limit} {} are used", self.people)
        };
        Some(Denial {
            limit_name: self.word.to_owned(),
            reason,
            current: Some(current),
            limit: Some(limit),
            retry_after_ms: self.wait_ms(charges(), asked, limit),
        })
    }

    /// Milliseconds until enough has left the window; none: `more` alone is over the limit.
    fn wait_ms(&self, charges: impl Iterator<Item = (u32, u64)>, asked: &Asked, limit: u64) -> Option<u64> {
        let mut left = asked.current;
        for (index, amount) in charges {
            left = left.saturating_sub(amount);
            if left.saturating_add(asked.more) <= limit {
                let leaves_ms = (u64::from(index) + u64::from(self.buckets)) * self.bucket_ms;
                return Some(leaves_ms.saturating_sub(asked.now_ms).max(1));
            }
        }
        None
    }
}
