//! What may have been charged, and what must have been, by the log's account and the upstream's, held against the limits.
//!
//! Nothing here is taken over from quota but two rules that its documents promise: what is reserved for a request, and that a
//! window is counted over whole buckets.

use chrono::{DateTime, Datelike};

use super::house::Moment;
use crate::{limit_set::LimitSet, money};

/// What is limited.
#[derive(Clone, Copy)]
pub(super) enum Amount {
    Requests,
    Tokens,
    Cost,
}

/// One of each amount.
pub(super) type Amounts = [u64; 3];

/// Over which time.
#[derive(Clone, Copy)]
enum Window {
    /// It slides, counted over buckets.
    Sliding {
        ms: u64,
        bucket_ms: u64,
    },
    Day,
    Month,
    Total,
    /// What is under way.
    Present,
}

/// A limit.
struct Limit {
    name: &'static str,
    amount: Amount,
    window: Window,
    most: u64,
}

/// What a request was charged to one subject.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    /// The request.
    pub(super) id: u64,
    /// When it was admitted.
    pub(super) at: Moment,
    /// When it had ended.
    pub(super) end: Moment,
    /// What it surely needed.
    pub(super) least: Amounts,
    /// What it asked for.
    pub(super) most: Amounts,
    /// What it used; a request that does not count is none, and its tokens and cost are those of what came of its answer.
    pub(super) used: Amounts,
}

impl Window {
    /// Whether what is charged at one time counts at another, not earlier one.
    fn has(self, charged_ms: u64, now_ms: u64) -> bool {
        match self {
            Window::Sliding { ms, .. } => charged_ms + ms > now_ms,
            Window::Day => day(charged_ms) == day(now_ms),
            Window::Month => month(charged_ms) == month(now_ms),
            Window::Total | Window::Present => true,
        }
    }

    /// The same with a bucket's time of caution.
    fn may_have(self, charged_ms: u64, now_ms: u64) -> bool {
        match self {
            Window::Sliding { ms, bucket_ms } => {
                charged_ms / bucket_ms + ms / bucket_ms + 1 > now_ms / bucket_ms
            }
            exact => exact.has(charged_ms, now_ms),
        }
    }
}

fn day(ms: u64) -> u64 {
    ms / 86_400_000
}

fn month(ms: u64) -> (i32, u32) {
    let date = DateTime::from_timestamp_millis(ms as i64).unwrap();
    (date.year(), date.month())
}

fn limits(set: &LimitSet) -> Vec<Limit> {
    let minute = Window::Sliding { ms: 60_000, bucket_ms: 1_000 };
    let any_day = Window::Sliding { ms: 86_400_000, bucket_ms: 900_000 };
    let units = |cost: Option<f64>| cost.map(|units| money::billionths(units).unwrap());
    [
        ("rpm", Amount::Requests, minute, set.rpm),
        ("tpm", Amount::Tokens, minute, set.tpm),
        ("rpd", Amount::Requests, any_day, set.rpd),
        ("concurrency", Amount::Requests, Window::Present, set.concurrency),
        ("tokens-per-day", Amount::Tokens, Window::Day, set.tokens_per_day),
        ("tokens-per-month", Amount::Tokens, Window::Month, set.tokens_per_month),
        ("tokens-total", Amount::Tokens, Window::Total, set.tokens_total),
        ("cost-per-day", Amount::Cost, Window::Day, units(set.cost_per_day)),
        ("cost-per-month", Amount::Cost, Window::Month, units(set.cost_per_month)),
        ("cost-total", Amount::Cost, Window::Total, units(set.cost_total)),
    ]
    .into_iter()
    .filter_map(|(name, amount, window, most)| Some(Limit { name, amount, window, most: most? }))
    .collect()
}

/// The charges of one subject, over all its models or some, in the order in which they were admitted.
pub(super) struct Book {
    name: String,
    limits: Vec<Limit>,
    pub(super) charges: Vec<Charge>,
    /// What was reserved for a moment, and given back since another limit refused the request.
    pub(super) given_back: Vec<Charge>,
}

impl Book {
    pub(super) fn new(name: &str, set: &LimitSet) -> Book {
        Book { name: name.to_owned(), limits: limits(set), charges: Vec::new(), given_back: Vec::new() }
    }

    /// The least that is reserved of an amount where its ceiling does not fit: half of the lowest limit.
    fn floor(&self, amount: Amount) -> u64 {
        let own = self.limits.iter().filter(|limit| limit.amount as usize == amount as usize);
        own.filter(|limit| !matches!(limit.window, Window::Present))
            .map(|limit| limit.most / 2)
            .min()
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Each was admitted with room, and what they used of what they reserved is never over a limit, in no window.
    pub(super) fn check_admitted(&self) {
        for (place, charge) in self.charges.iter().enumerate() {
            for limit in &self.limits {
                let floor = self.floor(limit.amount);
                let before = &self.charges[..place];
                let known: u64 = before.iter().map(|other| limit.surely(other, charge.at, floor)).sum();
                let fits = limit.most_before(charge).is_some_and(|most| known <= most);
                assert!(
                    fits,
                    "{}: {} had {known} of {} when it admitted request {}\n{}",
                    self.name,
                    limit.name,
                    limit.most,
                    charge.id,
                    self.recent(place)
                );
                let reserved = |other: &Charge| other.most[limit.amount as usize] <= floor;
                if matches!(limit.window, Window::Present) || !self.charges[..=place].iter().all(reserved) {
                    continue;
                }
                let held =
                    self.charges[..=place].iter().filter(|other| limit.window.has(other.at.ms, charge.at.ms));
                let sum: u64 = held.map(|other| limit.within(other)).sum();
                assert!(
                    sum <= limit.most,
                    "{}: {} came to {sum} of {} with request {}\n{}",
                    self.name,
                    limit.name,
                    limit.most,
                    charge.id,
                    self.recent(place)
                );
            }
        }
    }

    /// Whether a refusal was right, but for a bucket: there was no room for the request.
    pub(super) fn check_refused(&self, name: &str, refused: &Charge) {
        let limit = self.limits.iter().find(|limit| limit.name == name);
        let limit = limit.unwrap_or_else(|| panic!("{} has no limit {name}", self.name));
        let floor = self.floor(limit.amount);
        let place = self.charges.partition_point(|charge| charge.at.step <= refused.at.step);
        let charged: u64 =
            self.charges[..place].iter().map(|other| limit.perhaps(other, refused.at, floor)).sum();
        let of_step = self.given_back.iter().filter(|other| other.at.step == refused.at.step);
        let charged = charged + of_step.map(|other| other.most[limit.amount as usize]).sum::<u64>();
        let fits = limit.most_before(refused).is_some_and(|most| charged <= most);
        assert!(
            !fits,
            "{}: {name} refused request {} with {charged} of {}: {refused:?}\n{}",
            self.name,
            refused.id,
            limit.most,
            self.recent(place)
        );
    }

    /// What stands before, for whoever looks for a fault.
    fn recent(&self, place: usize) -> String {
        let from = place.saturating_sub(30);
        self.charges[from..].iter().take(31).map(|charge| format!("  {charge:?}\n")).collect()
    }
}

impl Limit {
    /// The most that may be charged for a request to fit: its ceiling fits, or what it surely needs where no more than half
    /// the limit is used.
    fn most_before(&self, charge: &Charge) -> Option<u64> {
        let (least, most) = (charge.least[self.amount as usize], charge.most[self.amount as usize]);
        let little = self.most.checked_sub(least.max(1)).map(|left| left.min(self.most / 2));
        self.most.checked_sub(most).max(little)
    }

    /// What a charge surely counts when somebody is admitted later.
    fn surely(&self, charge: &Charge, now: Moment, floor: u64) -> u64 {
        let (used, most) = (charge.used[self.amount as usize], charge.most[self.amount as usize]);
        let reserved = most.min(floor);
        // What happens in one step has no order.
        let ended = charge.end.step < now.step;
        match self.window {
            _ if charge.at.step >= now.step => 0,
            Window::Present => u64::from(charge.end.step > now.step),
            window if window.has(charge.at.ms, now.ms) => match ended {
                true => used,
                false if charge.end.step == now.step => used.min(reserved),
                false => reserved,
            },
            // What it used beyond its reservation counts from when that is known.
            window if ended && window.has(charge.end.ms, now.ms) => used.saturating_sub(most),
            _ => 0,
        }
    }

    /// What a charge may have counted at most when somebody was refused.
    fn perhaps(&self, charge: &Charge, now: Moment, floor: u64) -> u64 {
        let (used, most) = (charge.used[self.amount as usize], charge.most[self.amount as usize]);
        let ended = charge.end.step < now.step;
        match self.window {
            Window::Present => u64::from(!ended),
            window if window.may_have(charge.at.ms, now.ms) => match ended {
                true => used,
                false if charge.end.step == now.step => used.max(most),
                false => most,
            },
            window if charge.end.step <= now.step && window.may_have(charge.end.ms, now.ms) => {
                used.saturating_sub(most.min(floor))
            }
            _ => 0,
        }
    }

    /// What a charge counts, as far as it was reserved.
    fn within(&self, charge: &Charge) -> u64 {
        charge.used[self.amount as usize].min(charge.most[self.amount as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(limits: LimitSet) -> Book {
        Book::new("key", &limits)
    }

    /// A request at a second, which is its step too, that asks for 100 tokens and uses some.
    fn charge(second: u64, end: u64, used: u64) -> Charge {
        let moment = |second: u64| Moment { ms: 1_800_000_000_000 + second * 1_000, step: second };
        let (least, most, used) = ([1, 10, 1], [1, 100, 1], [1, used, 1]);
        Charge { id: second, at: moment(second), end: moment(end), least, most, used }
    }

    fn per_minute(seconds: &[u64]) -> Book {
        let mut book = book(LimitSet { rpm: Some(2), ..LimitSet::default() });
        book.charges = seconds.iter().map(|second| charge(*second, *second, 50)).collect();
        book
    }

    #[test]
    fn two_a_minute_are_two_in_any_minute() {
        per_minute(&[0, 59, 60, 119, 120]).check_admitted();
        per_minute(&[0, 30]).check_refused("rpm", &charge(60, 60, 0));
    }

    #[test]
    #[should_panic(expected = "rpm had 2 of 2")]
    fn a_third_within_a_minute_is_found() {
        per_minute(&[0, 30, 59]).check_admitted();
    }

    #[test]
    #[should_panic(expected = "rpm refused request 61 with 1 of 2")]
    fn a_refusal_a_bucket_after_there_was_room_is_found() {
        per_minute(&[0, 30]).check_refused("rpm", &charge(61, 61, 0));
    }

    #[test]
    #[should_panic(expected = "tpm had 150 of 240")]
    fn tokens_that_are_reserved_count_until_they_are_used() {
        let mut book = book(LimitSet { tpm: Some(240), ..LimitSet::default() });
        book.charges = vec![charge(0, 1, 50), charge(2, 9, 90), charge(3, 3, 1)];
        book.check_admitted();
    }

    #[test]
    #[should_panic(expected = "tokens-total had 130 of 220")]
    fn what_is_used_beyond_a_reservation_counts() {
        let mut book = book(LimitSet { tokens_total: Some(220), ..LimitSet::default() });
        book.charges = vec![charge(0, 1, 130), charge(200, 200, 1)];
        book.check_admitted();
    }

    #[test]
    #[should_panic(expected = "concurrency had 1 of 1")]
    fn what_is_under_way_counts_among_requests_at_once() {
        let mut book = book(LimitSet { concurrency: Some(1), ..LimitSet::default() });
        book.charges = vec![charge(0, 5, 1), charge(5, 9, 1), charge(6, 7, 1)];
        book.check_admitted();
    }
}
