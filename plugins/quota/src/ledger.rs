//! The charges of one subject, over all its models or over some: a ring of buckets for the minute, one for the day, what
//! was spent of the budgets, and the leases in flight.
//!
//! A window is counted over the present bucket and all that the window may touch before it, so what was charged in any
//! window of the exact length never exceeds a limit; the price is up to one bucket's time of caution.
//!
//! The lists of the value hold, oldest first, only buckets that are not empty and that a window may still touch;
//! quarters are kept only for subjects with a daily limit, and what was spent only for those with a budget.

use tollgate_guest::admission::{Denial, Ending, Usage};

use crate::bounds::Bounds;
use crate::budget::{self, Amount};
use crate::calendar;
use crate::demand::Demand;
use crate::limits::{
    KEPT_MS, LEASE_SECONDS, LEASES, LEASES_RETRY_MS, MONTH_MS, QUARTER_MS, QUARTER_SECONDS, QUARTERS,
    SECOND_MS, SECONDS, STEP_BACK_MS,
};
use crate::value::{Bucket, Lease, Quarter, Second, Share, Value};
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

    /// Charges a request and what it may come to, and gives the lease's id; or says which limit is in the way.
    pub(crate) fn reserve(
        &mut self,
        request_id: &str,
        asked: &budget::Asked,
        bounds: &Bounds,
        now_ms: u64,
    ) -> Result<u64, Denial> {
        self.advance(now_ms);
        let mut room = self.room_in_windows(asked.tokens, bounds)?;
        let mut spent = None;
        if bounds.has_budget() {
            let mut present = self.value.spent().unwrap_or_default();
            present.advance(self.value.now_ms());
            let left = present.room(asked, bounds, self.value.now_ms())?;
            room = Amount { tokens: room.tokens.min(left.tokens), cost: left.cost };
            spent = Some(present);
        }
        let tokens = room.tokens;
        let second = self.second();
        self.charge(Second { index: second, requests: 1, tokens });
        let daily = bounds.rpd.is_some();
        if daily {
            self.charge(Quarter { index: second / QUARTER_SECONDS, requests: 1 });
        }
        let id = hash(request_id).wrapping_add(self.value.count_lease());
        let expires = second.saturating_add(LEASE_SECONDS);
        self.value.push(Lease { id, tokens, second, expires, daily });
        if let Some(mut spent) = spent {
            spent.charge(room, bounds);
            self.value.set_spent(spent);
            self.value.push(Share { lease: id, cost: room.cost });
        }
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
        // Only requests without error count. What came of an answer that failed was used all the same.
        let counts = matches!(usage.ending, Ending::Completed | Ending::ClientAborted);
        let used = match usage.ending {
            Ending::NeverSent => 0,
            _ => usage.input_tokens.saturating_add(usage.output_tokens),
        };
        self.settle_share(&lease, used, if counts || used > 0 { usage.cost } else { Some(0) });
        let (requests, tokens) = (u32::from(!counts), lease.tokens.saturating_sub(used));
        self.refund(Second { index: lease.second, requests, tokens });
        let beyond = used.saturating_sub(lease.tokens);
        if beyond > 0 {
            self.charge(Second { index: self.second(), requests: 0, tokens: beyond });
        }
        if !counts && lease.daily {
            self.refund(Quarter { index: lease.second / QUARTER_SECONDS, requests: 1 });
        }
        true
    }

    /// Replaces what a lease reserved of the budgets. A cost that nobody knows stays as it was estimated.
    fn settle_share(&mut self, lease: &Lease, tokens: u64, cost: Option<u64>) {
        let found = self.value.all::<Share>().enumerate().find(|(_, share)| share.lease == lease.id);
        let (Some((place, share)), Some(mut spent)) = (found, self.value.spent()) else { return };
        self.value.remove::<Share>(place..place + 1);
        spent.advance(self.value.now_ms());
        let reserved = Amount { tokens: lease.tokens, cost: share.cost };
        let used = Amount { tokens, cost: cost.unwrap_or(share.cost) };
        spent.settle(calendar::day(u64::from(lease.second) * SECOND_MS), reserved, used);
        self.value.set_spent(spent);
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
        if let Some(mut spent) = self.value.spent() {
            spent.step_back(now_ms);
            self.value.set_spent(spent);
        }
        true
    }

    /// Milliseconds after which nothing of this ledger matters any more.
    pub(crate) fn ttl_ms(&self) -> u64 {
        let window_ms = match self.value.spent() {
            Some(spent) if spent.has_total() => KEPT_MS,
            Some(_) => MONTH_MS,
            None if self.value.len::<Quarter>() == 0 => u64::from(SECONDS) * SECOND_MS,
            None => u64::from(QUARTERS) * QUARTER_MS,
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
            let is_held = |share: &Share| held.iter().any(|lease| lease.id == share.lease);
            let shares: Vec<Share> = self.value.all().filter(is_held).collect();
            self.value.replace(&shares);
        }
    }

    /// What the windows let a request reserve, or the limit that stands in the way longest.
    fn room_in_windows(&self, tokens: Demand, bounds: &Bounds) -> Result<Amount, Denial> {
        let leases = self.value.len::<Lease>() as u64;
        let most = bounds.concurrency.unwrap_or(u64::MAX).min(LEASES as u64);
        if leases >= most {
            return Err(Denial {
                limit_name: "concurrency".to_owned(),
                reason: format!("{leases} of {most} requests at once are in flight"),
                current: Some(leases),
                limit: Some(most),
                retry_after_ms: (most > 0).then_some(LEASES_RETRY_MS),
            });
        }
        let (mut requests, mut used) = (0, 0u64);
        for bucket in self.value.all::<Second>() {
            requests += u64::from(bucket.requests);
            used = used.saturating_add(bucket.tokens);
        }
        let daily = self.value.all::<Quarter>().map(|bucket| u64::from(bucket.requests)).sum();
        let now_ms = self.value.now_ms();
        let asked = |current, demand, limit| Asked { now_ms, current, demand, limit };
        let (mut room, mut denials) = (tokens.most, Vec::new());
        if let Some(limit) = bounds.rpm.filter(|limit| requests >= *limit) {
            let charges = self.value.all::<Second>().map(|bucket| (bucket.index, u64::from(bucket.requests)));
            denials.push(RPM.denial(&asked(requests, Demand::ONE, limit), charges));
        }
        if let Some(limit) = bounds.tpm {
            let charges = || self.value.all::<Second>().map(|bucket| (bucket.index, bucket.tokens));
            match tokens.reservation(used, limit) {
                Some(reservation) => room = reservation,
                None => denials.push(TPM.denial(&asked(used, tokens, limit), charges())),
            }
        }
        if let Some(limit) = bounds.rpd.filter(|limit| daily >= *limit) {
            let charges =
                self.value.all::<Quarter>().map(|bucket| (bucket.index, u64::from(bucket.requests)));
            denials.push(RPD.denial(&asked(daily, Demand::ONE, limit), charges));
        }
        let longest = denials.into_iter().max_by_key(|denial| denial.retry_after_ms.unwrap_or(u64::MAX));
        longest.map_or(Ok(Amount { tokens: room, cost: 0 }), Err)
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
