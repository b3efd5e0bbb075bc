//! The charges of one subject: a ring of buckets for the minute, one for the day, and the leases in flight.
//!
//! A window is counted over the present bucket and all that the window may touch before it, so what was charged in any
//! window of the exact length never exceeds a limit; the price is up to one bucket's time of caution.

use tollgate_guest::admission::{Denial, Ending, Limits, Usage};

use crate::limits::{
    LEASE_SECONDS, LEASES, LEASES_RETRY_MS, QUARTER_MS, QUARTER_SECONDS, QUARTERS, SECOND_MS, SECONDS,
    STEP_BACK_MS,
};

/// Everything known about one subject. Vectors are kept between calls, so that a warm instance does not allocate.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ledger {
    /// The latest time seen, in milliseconds since 1970; time never runs backwards in a ledger.
    pub(crate) now_ms: u64,
    /// Leases given out so far.
    pub(crate) counter: u64,
    /// Charges by second, oldest first; only those that are not empty and that a window may still touch.
    pub(crate) seconds: Vec<Second>,
    /// Charges by quarter of an hour, likewise; kept only for subjects with a daily limit.
    pub(crate) quarters: Vec<Quarter>,
    /// Requests in flight.
    pub(crate) leases: Vec<Lease>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Second {
    /// Seconds since 1970.
    pub(crate) index: u32,
    pub(crate) requests: u32,
    pub(crate) tokens: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quarter {
    /// Quarters of an hour since 1970.
    pub(crate) index: u32,
    pub(crate) requests: u32,
}

/// A request that was charged by its estimate and is not settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lease {
    pub(crate) id: u64,
    /// Estimated tokens.
    pub(crate) tokens: u64,
    /// The second that was charged.
    pub(crate) second: u32,
    /// The second from which on the lease is forgotten.
    pub(crate) expires: u32,
    /// Whether the day was charged too.
    pub(crate) daily: bool,
}

impl Second {
    fn take(&mut self, other: &Second) -> bool {
        self.requests = self.requests.saturating_add(other.requests);
        self.tokens = self.tokens.saturating_add(other.tokens);
        true
    }
}

impl Quarter {
    fn take(&mut self, other: &Quarter) -> bool {
        self.requests = self.requests.saturating_add(other.requests);
        true
    }
}

impl Ledger {
    /// Charges a request and its estimated tokens, and gives the lease's id; or says which limit is in the way.
    pub(crate) fn reserve(
        &mut self,
        request_id: &str,
        tokens: u64,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<u64, Denial> {
        self.advance(now_ms);
        if let Some(denial) = self.refusal(tokens, limits) {
            return Err(denial);
        }
        let second = second_of(self.now_ms);
        self.charge_second(second, 1, tokens);
        let daily = limits.rpd.is_some();
        if daily {
            self.charge_quarter(second / QUARTER_SECONDS);
        }
        self.counter = self.counter.wrapping_add(1);
        let id = hash(request_id).wrapping_add(self.counter);
        let expires = second.saturating_add(LEASE_SECONDS);
        self.leases.push(Lease { id, tokens, second, expires, daily });
        Ok(id)
    }

    /// Replaces a lease's estimate by the truth. False: there is no such lease, and nothing changed. A time before the
    /// one seen last is no step of the clock: a settlement may come late.
    pub(crate) fn settle(&mut self, id: u64, usage: &Usage, now_ms: u64) -> bool {
        self.advance(now_ms);
        let Some(place) = self.leases.iter().position(|lease| lease.id == id) else { return false };
        if usage.ending == Ending::Running {
            let expires = second_of(self.now_ms).saturating_add(LEASE_SECONDS);
            if let Some(lease) = self.leases.get_mut(place) {
                lease.expires = expires;
            }
            return true;
        }
        let lease = self.leases.swap_remove(place);
        match usage.ending {
            Ending::Completed | Ending::ClientAborted => {
                let used = usage.input_tokens.saturating_add(usage.output_tokens);
                self.refund_second(lease.second, 0, lease.tokens.saturating_sub(used));
                let overrun = used.saturating_sub(lease.tokens);
                if overrun > 0 {
                    self.charge_second(second_of(self.now_ms), 0, overrun);
                }
            }
            Ending::UpstreamError | Ending::TimedOut | Ending::NeverSent | Ending::Running => {
                self.refund_second(lease.second, 1, lease.tokens);
                if lease.daily {
                    self.refund_quarter(lease.second / QUARTER_SECONDS);
                }
            }
        }
        true
    }

    /// Moves everything back if the clock was set back. True: it was, and the ledger is to be written whatever comes of
    /// the request, else it would start from the old time again. Whole buckets only, so that a charge gets younger by up
    /// to one, and never older. The two rings move apart by that, hence a request in flight keeps its charge of the day.
    pub(crate) fn step_back(&mut self, now_ms: u64) -> bool {
        if self.now_ms <= now_ms.saturating_add(STEP_BACK_MS) {
            return false;
        }
        let step_ms = self.now_ms - now_ms;
        let buckets = |bucket_ms| u32::try_from(step_ms / bucket_ms).unwrap_or(u32::MAX);
        let (seconds, quarters) = (buckets(SECOND_MS), buckets(QUARTER_MS));
        self.now_ms = now_ms;
        self.seconds.iter_mut().for_each(|bucket| bucket.index = bucket.index.saturating_sub(seconds));
        self.quarters.iter_mut().for_each(|bucket| bucket.index = bucket.index.saturating_sub(quarters));
        for lease in &mut self.leases {
            lease.second = lease.second.saturating_sub(seconds);
            lease.expires = lease.expires.saturating_sub(seconds);
            lease.daily = false;
        }
        // A machine without a battery starts in 1970, before which there is no bucket.
        self.seconds.dedup_by(|bucket, first| first.index == bucket.index && first.take(bucket));
        self.quarters.dedup_by(|bucket, first| first.index == bucket.index && first.take(bucket));
        true
    }

    /// Milliseconds after which nothing of this ledger matters any more.
    pub(crate) fn ttl_ms(&self) -> u64 {
        let window_ms = if self.quarters.is_empty() {
            u64::from(SECONDS) * SECOND_MS
        } else {
            u64::from(QUARTERS) * QUARTER_MS
        };
        window_ms + u64::from(LEASE_SECONDS) * SECOND_MS
    }

    /// Goes on to a time and forgets what no window touches any more.
    fn advance(&mut self, now_ms: u64) {
        let before = second_of(self.now_ms);
        self.now_ms = self.now_ms.max(now_ms);
        let second = second_of(self.now_ms);
        if second == before {
            // What this second's windows do not touch was forgotten when it began.
            return;
        }
        let quarter = second / QUARTER_SECONDS;
        let gone = self.seconds.partition_point(|bucket| bucket.index.saturating_add(SECONDS) <= second);
        self.seconds.drain(..gone);
        let gone = self.quarters.partition_point(|bucket| bucket.index.saturating_add(QUARTERS) <= quarter);
        self.quarters.drain(..gone);
        self.leases.retain(|lease| lease.expires > second);
    }

    /// The limit that stands in the way longest, if any does.
    fn refusal(&self, tokens: u64, limits: &Limits) -> Option<Denial> {
        if self.leases.len() >= LEASES {
            return Some(Denial {
                limit_name: "concurrency".to_owned(),
                reason: "too many requests in flight".to_owned(),
                current: Some(self.leases.len() as u64),
                limit: Some(LEASES as u64),
                retry_after_ms: Some(LEASES_RETRY_MS),
            });
        }
        let requests = || self.seconds.iter().map(|bucket| (bucket.index, u64::from(bucket.requests)));
        let used = || self.seconds.iter().map(|bucket| (bucket.index, bucket.tokens));
        let daily = || self.quarters.iter().map(|bucket| (bucket.index, u64::from(bucket.requests)));
        let minute = Window { bucket_ms: SECOND_MS, buckets: SECONDS, now_ms: self.now_ms };
        let day = Window { bucket_ms: QUARTER_MS, buckets: QUARTERS, now_ms: self.now_ms };
        let denials = [
            limits.rpm.and_then(|limit| minute.refusal(&RPM, requests, 1, limit)),
            limits.tpm.and_then(|limit| minute.refusal(&TPM, used, tokens, limit)),
            limits.rpd.and_then(|limit| day.refusal(&RPD, daily, 1, limit)),
        ];
        denials.into_iter().flatten().max_by_key(|denial| denial.retry_after_ms.unwrap_or(u64::MAX))
    }

    fn charge_second(&mut self, index: u32, requests: u32, tokens: u64) {
        match self.seconds.last_mut() {
            Some(bucket) if bucket.index >= index => {
                bucket.requests = bucket.requests.saturating_add(requests);
                bucket.tokens = bucket.tokens.saturating_add(tokens);
            }
            _ => self.seconds.push(Second { index, requests, tokens }),
        }
    }

    fn charge_quarter(&mut self, index: u32) {
        match self.quarters.last_mut() {
            Some(bucket) if bucket.index >= index => bucket.requests = bucket.requests.saturating_add(1),
            _ => self.quarters.push(Quarter { index, requests: 1 }),
        }
    }

    fn refund_second(&mut self, index: u32, requests: u32, tokens: u64) {
        let Ok(place) = self.seconds.binary_search_by_key(&index, |bucket| bucket.index) else { return };
        if let Some(bucket) = self.seconds.get_mut(place) {
            bucket.requests = bucket.requests.saturating_sub(requests);
            bucket.tokens = bucket.tokens.saturating_sub(tokens);
        }
        self.seconds.retain(|bucket| bucket.requests > 0 || bucket.tokens > 0);
    }

    fn refund_quarter(&mut self, index: u32) {
        let Ok(place) = self.quarters.binary_search_by_key(&index, |bucket| bucket.index) else { return };
        if let Some(bucket) = self.quarters.get_mut(place) {
            bucket.requests = bucket.requests.saturating_sub(1);
        }
        self.quarters.retain(|bucket| bucket.requests > 0);
    }
}

/// How a limit is called, and what people call it.
struct Name {
    word: &'static str,
    people: &'static str,
}

const RPM: Name = Name { word: "rpm", people: "requests per minute" };
const TPM: Name = Name { word: "tpm", people: "tokens per minute" };
const RPD: Name = Name { word: "rpd", people: "requests per day" };

/// A sliding window over buckets, at one instant.
struct Window {
    bucket_ms: u64,
    buckets: u32,
    now_ms: u64,
}

impl Window {
    /// Why `more` does not fit under the limit, or nothing when it does. `charges` are those of the window, oldest
    /// first.
    fn refusal<I: Iterator<Item = (u32, u64)>>(
        &self,
        name: &Name,
        charges: impl Fn() -> I,
        more: u64,
        limit: u64,
    ) -> Option<Denial> {
        let current = charges().fold(0u64, |sum, (_, amount)| sum.saturating_add(amount));
        if current.saturating_add(more) <= limit {
            return None;
        }
        let reason = if more > limit {
            format!("the request needs {more} of {limit} {}", name.people)
        } else {
            format!("{current} of {limit} {} are used", name.people)
        };
        Some(Denial {
            limit_name: name.word.to_owned(),
            reason,
            current: Some(current),
            limit: Some(limit),
            retry_after_ms: self.wait_ms(charges(), current, more, limit),
        })
    }

    /// Milliseconds until enough has left the window; none: `more` alone is over the limit.
    fn wait_ms(
        &self,
        charges: impl Iterator<Item = (u32, u64)>,
        current: u64,
        more: u64,
        limit: u64,
    ) -> Option<u64> {
        let mut left = current;
        for (index, amount) in charges {
            left = left.saturating_sub(amount);
            if left.saturating_add(more) <= limit {
                let leaves_ms = (u64::from(index) + u64::from(self.buckets)) * self.bucket_ms;
                return Some(leaves_ms.saturating_sub(self.now_ms).max(1));
            }
        }
        None
    }
}

fn second_of(now_ms: u64) -> u32 {
    u32::try_from(now_ms / SECOND_MS).unwrap_or(u32::MAX)
}

/// FNV-1a. It keeps the leases of different requests apart even when a crash set the counter back.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
