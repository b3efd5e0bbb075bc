//! The charges of one subject: a ring of buckets for the minute, one for the day, and the leases in flight.
//!
//! A window is counted over the present bucket and all that the window may touch before it, so what was charged in any
//! window of the exact length never exceeds a limit; the price is up to one bucket's time of caution.
//!
//! The lists of the value hold, oldest first, only buckets that are not empty and that a window may still touch;
//! quarters are kept only for subjects with a daily limit.

use tollgate_guest::admission::{Denial, Ending, Limits, Usage};

use crate::limits::{
    LEASE_SECONDS, LEASES, LEASES_RETRY_MS, QUARTER_MS, QUARTER_SECONDS, QUARTERS, SECOND_MS, SECONDS,
    STEP_BACK_MS,
};
use crate::value::{Bucket, Lease, Quarter, Second, Value};
use crate::window::{Asked, RPD, RPM, TPM};

/// Everything known about one subject. Time never runs backwards in it.
#[derive(Debug)]
pub(crate) struct Ledger {
    value: Value,
}

impl Ledger {
    /// A ledger from its value; an absent one is empty.
    pub(crate) fn open(value: Option<Vec<u8>>) -> Result<Ledger, String> {
        Ok(Ledger { value: Value::open(value)? })
    }

    /// The value to write.
    pub(crate) fn into_value(self) -> Vec<u8> {
        self.value.into_bytes()
    }

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
        let second = self.second();
        self.charge(Second { index: second, requests: 1, tokens });
        let daily = limits.rpd.is_some();
        if daily {
            self.charge(Quarter { index: second / QUARTER_SECONDS, requests: 1 });
        }
        let id = hash(request_id).wrapping_add(self.value.count_lease());
        let expires = second.saturating_add(LEASE_SECONDS);
        self.value.push(Lease { id, tokens, second, expires, daily });
        Ok(id)
    }

    /// Replaces a lease's estimate by the truth. False: there is no such lease, and nothing changed. A time before the
    /// one seen last is no step of the clock: a settlement may come late.
    pub(crate) fn settle(&mut self, id: u64, usage: &Usage, now_ms: u64) -> bool {
        self.advance(now_ms);
        let found = self.value.all::<Lease>().enumerate().find(|(_, lease)| lease.id == id);
        let Some((place, lease)) = found else { return false };
        if usage.ending == Ending::Running {
            let expires = self.second().saturating_add(LEASE_SECONDS);
            self.value.set(place, Lease { expires, ..lease });
            return true;
        }
        self.value.remove::<Lease>(place..place + 1);
        match usage.ending {
            Ending::Completed | Ending::ClientAborted => {
                let used = usage.input_tokens.saturating_add(usage.output_tokens);
                let tokens = lease.tokens.saturating_sub(used);
                self.refund(Second { index: lease.second, requests: 0, tokens });
                let tokens = used.saturating_sub(lease.tokens);
                if tokens > 0 {
                    self.charge(Second { index: self.second(), requests: 0, tokens });
                }
            }
            Ending::UpstreamError | Ending::TimedOut | Ending::NeverSent | Ending::Running => {
                self.refund(Second { index: lease.second, requests: 1, tokens: lease.tokens });
                if lease.daily {
                    self.refund(Quarter { index: lease.second / QUARTER_SECONDS, requests: 1 });
                }
            }
        }
        true
    }

    /// Moves everything back if the clock was set back. True: it was, and the ledger is to be written whatever comes of
    /// the request, else it would start from the old time again. Whole buckets only, so that a charge gets younger by up
    /// to one, and never older. The two rings move apart by that, hence a request in flight keeps its charge of the day.
    pub(crate) fn step_back(&mut self, now_ms: u64) -> bool {
        if self.value.now_ms() <= now_ms.saturating_add(STEP_BACK_MS) {
            return false;
        }
        let step_ms = self.value.now_ms() - now_ms;
        let steps = |bucket_ms| u32::try_from(step_ms / bucket_ms).unwrap_or(u32::MAX);
        let (seconds, quarters) = (steps(SECOND_MS), steps(QUARTER_MS));
        self.value.set_now_ms(now_ms);
        self.move_back::<Second>(seconds);
        self.move_back::<Quarter>(quarters);
        let mut leases: Vec<Lease> = self.value.all().collect();
        for lease in &mut leases {
            lease.second = lease.second.saturating_sub(seconds);
            lease.expires = lease.expires.saturating_sub(seconds);
            lease.daily = false;
        }
        self.value.replace(&leases);
        true
    }

    /// Milliseconds after which nothing of this ledger matters any more.
    pub(crate) fn ttl_ms(&self) -> u64 {
        let window_ms = if self.value.len::<Quarter>() == 0 {
            u64::from(SECONDS) * SECOND_MS
        } else {
            u64::from(QUARTERS) * QUARTER_MS
        };
        window_ms + u64::from(LEASE_SECONDS) * SECOND_MS
    }

    /// The present second.
    fn second(&self) -> u32 {
        second_of(self.value.now_ms())
    }

    /// Goes on to a time and forgets what no window touches any more.
    fn advance(&mut self, now_ms: u64) {
        let before_ms = self.value.now_ms();
        if now_ms <= before_ms {
            return;
        }
        self.value.set_now_ms(now_ms);
        let second = self.second();
        if second == second_of(before_ms) {
            // What this second's windows do not touch was forgotten when it began.
            return;
        }
        let gone = |bucket: &Second| bucket.index.saturating_add(SECONDS) <= second;
        self.value.remove::<Second>(0..self.value.all().take_while(gone).count());
        let gone = |bucket: &Quarter| bucket.index.saturating_add(QUARTERS) <= second / QUARTER_SECONDS;
        self.value.remove::<Quarter>(0..self.value.all().take_while(gone).count());
        if self.value.all::<Lease>().any(|lease| lease.expires <= second) {
            let held: Vec<Lease> = self.value.all().filter(|lease: &Lease| lease.expires > second).collect();
            self.value.replace(&held);
        }
    }

    /// The limit that stands in the way longest, if any does.
    fn refusal(&self, tokens: u64, limits: &Limits) -> Option<Denial> {
        let leases = self.value.len::<Lease>();
        if leases >= LEASES {
            return Some(Denial {
                limit_name: "concurrency".to_owned(),
                reason: "too many requests in flight".to_owned(),
                current: Some(leases as u64),
                limit: Some(LEASES as u64),
                retry_after_ms: Some(LEASES_RETRY_MS),
            });
        }
        let (mut requests, mut used) = (0, 0u64);
        for bucket in self.value.all::<Second>() {
            requests += u64::from(bucket.requests);
            used = used.saturating_add(bucket.tokens);
        }
        let daily = self.value.all::<Quarter>().map(|bucket| u64::from(bucket.requests)).sum();
        let now_ms = self.value.now_ms();
        let asked = |current, more, limit| Asked { now_ms, current, more, limit };
        let denials = [
            RPM.refusal(&asked(requests, 1, limits.rpm), || {
                self.value.all::<Second>().map(|bucket| (bucket.index, u64::from(bucket.requests)))
            }),
            TPM.refusal(&asked(used, tokens, limits.tpm), || {
                self.value.all::<Second>().map(|bucket| (bucket.index, bucket.tokens))
            }),
            RPD.refusal(&asked(daily, 1, limits.rpd), || {
                self.value.all::<Quarter>().map(|bucket| (bucket.index, u64::from(bucket.requests)))
            }),
        ];
        denials.into_iter().flatten().max_by_key(|denial| denial.retry_after_ms.unwrap_or(u64::MAX))
    }

    /// Adds charges to the latest bucket, or begins one.
    fn charge<B: Bucket>(&mut self, charge: B) {
        let last = self.value.all::<B>().next_back();
        match last {
            Some(last) if last.index() >= charge.index() => {
                self.value.set(self.value.len::<B>() - 1, last.plus(charge));
            }
            _ => self.value.push(charge),
        }
    }

    /// Gives charges back to their bucket, if a window still touches it.
    fn refund<B: Bucket>(&mut self, charge: B) {
        // From the end, since most requests end soon.
        let found =
            self.value.all::<B>().rev().enumerate().find(|(_, bucket)| bucket.index() <= charge.index());
        let Some((from_end, bucket)) = found else { return };
        if bucket.index() != charge.index() {
            return;
        }
        let place = self.value.len::<B>() - 1 - from_end;
        let rest = bucket.minus(charge);
        if rest.is_empty() {
            self.value.remove::<B>(place..place + 1);
        } else {
            self.value.set(place, rest);
        }
    }

    /// Moves all buckets of a ring back. Before 1970 there is no bucket, so there several may become one.
    fn move_back<B: Bucket>(&mut self, steps: u32) {
        let mut moved: Vec<B> = Vec::with_capacity(self.value.len::<B>());
        for bucket in self.value.all::<B>() {
            let bucket = bucket.moved_to(bucket.index().saturating_sub(steps));
            match moved.last_mut() {
                Some(last) if last.index() == bucket.index() => *last = last.plus(bucket),
                _ => moved.push(bucket),
            }
        }
        self.value.replace(&moved);
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
