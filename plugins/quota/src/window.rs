//! A sliding window over buckets, and why something more does not fit into it.

use tollgate_guest::admission::Denial;

use crate::demand::Demand;
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
    pub(crate) demand: Demand,
    pub(crate) limit: u64,
}

impl Window {
    /// Why the demand does not fit under the limit. `charges` are those of the window by index, oldest first.
    pub(crate) fn denial(&self, asked: &Asked, charges: impl Iterator<Item = (u32, u64)>) -> Denial {
        let Asked { current, demand, limit, .. } = *asked;
        let reason = match demand.most_before(limit) {
            Some(_) => format!("{current} of {limit} {} are used", self.people),
            None => format!("the request needs {} of {limit} {}", demand.most, self.people),
        };
        Denial {
            limit_name: self.word.to_owned(),
            reason,
            current: Some(current),
            limit: Some(limit),
            retry_after_ms: self.wait_ms(charges, asked),
        }
    }

    /// Milliseconds until enough has left the window; none: the demand alone is over the limit.
    fn wait_ms(&self, charges: impl Iterator<Item = (u32, u64)>, asked: &Asked) -> Option<u64> {
        let most = asked.demand.most_before(asked.limit)?;
        let mut left = asked.current;
        for (index, amount) in charges {
            left = left.saturating_sub(amount);
            if left <= most {
                let leaves_ms = (u64::from(index) + u64::from(self.buckets)) * self.bucket_ms;
                return Some(leaves_ms.saturating_sub(asked.now_ms).max(1));
            }
        }
        None
    }
}
