//! What was spent of the budgets: counters of the calendar's day and month, in UTC, and of all time.
//!
//! Unlike a window a budget begins anew all at once, and what was spent long ago in a month counts until its end.

use tollgate_guest::admission::Denial;

use crate::bounds::{Bounds, Budgets};
use crate::calendar::{DAY_MS, day, month, next_month};
use crate::demand::Demand;
use crate::value::{put, u32_at, u64_at};

/// Tokens, and money in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Amount {
    pub(crate) tokens: u64,
    pub(crate) cost: u64,
}

impl Amount {
    fn plus(self, other: Amount) -> Amount {
        let tokens = self.tokens.saturating_add(other.tokens);
        Amount { tokens, cost: self.cost.saturating_add(other.cost) }
    }

    /// What is left of it; nothing where the other is more.
    pub(crate) fn minus(self, other: Amount) -> Amount {
        let tokens = self.tokens.saturating_sub(other.tokens);
        Amount { tokens, cost: self.cost.saturating_sub(other.cost) }
    }
}

/// All that was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    /// Days since 1970.
    day: u32,
    today: Amount,
    /// Months since 1970.
    month: u32,
    this_month: Amount,
    total: Amount,
    /// Whether the total was ever limited, so that it has to be kept.
    has_total: bool,
}

/// What a budget is over.
#[derive(Clone, Copy)]
enum Period {
    Day,
    Month,
    Total,
}

/// What is asked of the budgets.
pub(crate) struct Asked {
    pub(crate) tokens: Demand,
    /// In billionths; none: no price is known.
    pub(crate) cost: Option<Demand>,
}

impl Spent {
    /// Bytes of it in a value.
    pub(crate) const BYTES: usize = 4 + 16 + 4 + 16 + 16 + 1;

    pub(crate) fn read(bytes: &[u8]) -> Spent {
        let amount = |place| Amount { tokens: u64_at(bytes, place), cost: u64_at(bytes, place + 8) };
        Spent {
            day: u32_at(bytes, 0),
            today: amount(4),
            month: u32_at(bytes, 20),
            this_month: amount(24),
            total: amount(40),
            has_total: bytes.get(56).is_some_and(|byte| *byte != 0),
        }
    }

    pub(crate) fn write(self, bytes: &mut [u8]) {
        put(bytes, 0, self.day.to_le_bytes());
        put(bytes, 20, self.month.to_le_bytes());
        for (place, amount) in [(4, self.today), (24, self.this_month), (40, self.total)] {
            put(bytes, place, amount.tokens.to_le_bytes());
            put(bytes, place + 8, amount.cost.to_le_bytes());
        }
        put(bytes, 56, [u8::from(self.has_total)]);
    }

    /// Begins anew what a new day or month begins.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        let today = day(now_ms);
        if today <= self.day {
            return;
        }
        (self.day, self.today) = (today, Amount::default());
        let this_month = month(today);
        if this_month > self.month {
            (self.month, self.this_month) = (this_month, Amount::default());
        }
    }

    /// The clock was set back: what counted for a day to come counts for this one.
    pub(crate) fn step_back(&mut self, now_ms: u64) {
        self.day = self.day.min(day(now_ms));
        self.month = self.month.min(month(self.day));
    }

    /// Charges what a request reserves. Bounds it had before and has no more are counted all the same, so that a budget
    /// that is changed keeps its usage.
    pub(crate) fn charge(&mut self, amount: Amount, bounds: &Bounds) {
        self.has_total |= bounds.tokens.total.is_some() || bounds.cost.total.is_some();
        self.add(amount);
    }

    /// Puts what was used in the place of what was reserved on some day. Of a day or month that is over only the total
    /// still changes, and what was used beyond the reservation counts now, when it is known.
    pub(crate) fn settle(&mut self, on_day: u32, reserved: Amount, used: Amount) {
        let back = reserved.minus(used);
        if on_day == self.day {
            self.today = self.today.minus(back);
        }
        if on_day == self.day || month(on_day) == self.month {
            self.this_month = self.this_month.minus(back);
        }
        self.total = self.total.minus(back);
        self.add(used.minus(reserved));
    }

    /// Tokens and cost of all time.
    #[cfg(test)]
    pub(crate) fn total(&self) -> (u64, u64) {
        (self.total.tokens, self.total.cost)
    }

    fn add(&mut self, amount: Amount) {
        for counter in [&mut self.today, &mut self.this_month, &mut self.total] {
            *counter = counter.plus(amount);
        }
    }

    /// Whether it has to be kept for good, and not only for this month.
    pub(crate) fn has_total(&self) -> bool {
        self.has_total
    }

    /// How many tokens, and how much money, the budgets let a request reserve; or the one that stands in the way longest.
    pub(crate) fn room(&self, asked: &Asked, bounds: &Bounds, now_ms: u64) -> Result<Amount, Denial> {
        let cost = match asked.cost {
            Some(cost) => cost,
            None if bounds.cost.is_unlimited() => Demand::default(),
            None => return Err(unpriced()),
        };
        let (mut room, mut denial) = (Amount { tokens: asked.tokens.most, cost: cost.most }, None);
        for period in [Period::Day, Period::Month, Period::Total] {
            let spent = period.of(self);
            let budgets = [
                (&TOKENS, asked.tokens, spent.tokens, period.limit(&bounds.tokens), &mut room.tokens),
                (&COST, cost, spent.cost, period.limit(&bounds.cost), &mut room.cost),
            ];
            for (unit, demand, current, limit, room) in budgets {
                let Some(limit) = limit else { continue };
                match demand.reservation(current, limit) {
                    Some(reservation) => *room = reservation.min(*room),
                    // The periods go from the shortest to the longest, so that the last wait is the longest.
                    None => denial = Some(period.denial(unit, demand, current, limit, now_ms)),
                }
            }
        }
        denial.map_or(Ok(room), Err)
    }
}

/// What a budget is of.
struct Unit {
    words: [&'static str; 3],
    people: &'static str,
    show: fn(u64) -> String,
}

const TOKENS: Unit = Unit {
    words: ["tokens-per-day", "tokens-per-month", "tokens-total"],
    people: "tokens",
    show: |tokens| tokens.to_string(),
};

const COST: Unit =
    Unit { words: ["cost-per-day", "cost-per-month", "cost-total"], people: "cost", show: money };

impl Period {
    fn of(self, spent: &Spent) -> Amount {
        match self {
            Period::Day => spent.today,
            Period::Month => spent.this_month,
            Period::Total => spent.total,
        }
    }

    fn limit(self, budgets: &Budgets) -> Option<u64> {
        match self {
            Period::Day => budgets.day,
            Period::Month => budgets.month,
            Period::Total => budgets.total,
        }
    }

    fn denial(self, unit: &Unit, demand: Demand, current: u64, limit: u64, now_ms: u64) -> Denial {
        let [of_day, of_month, in_total] = unit.words;
        let begins = |day: u32| u64::from(day).saturating_mul(DAY_MS).saturating_sub(now_ms).max(1);
        let today = day(now_ms);
        let (word, people, anew_ms) = match self {
            Period::Day => (of_day, "per day", Some(begins(today.saturating_add(1)))),
            Period::Month => (of_month, "per month", Some(begins(next_month(today)))),
            Period::Total => (in_total, "in total", None),
        };
        let can_ever = demand.most_before(limit).is_some();
        let (subject, amount) = match can_ever {
            true => ("", current),
            false => ("the request needs ", demand.most),
        };
        let end = if can_ever { " are used" } else { "" };
        Denial {
            limit_name: word.to_owned(),
            reason: format!(
                "{subject}{} of {} {} {people}{end}",
                (unit.show)(amount),
                (unit.show)(limit),
                unit.people
            ),
            current: Some(current),
            limit: Some(limit),
            retry_after_ms: anew_ms.filter(|_| can_ever),
        }
    }
}

fn unpriced() -> Denial {
    Denial {
        limit_name: "price".to_owned(),
        reason: "the model has no price, and what may be spent is limited".to_owned(),
        current: None,
        limit: None,
        retry_after_ms: None,
    }
}

/// Billionths as a decimal number.
fn money(billionths: u64) -> String {
    let (whole, rest) = (billionths / 1_000_000_000, billionths % 1_000_000_000);
    match rest {
        0 => whole.to_string(),
        rest => format!("{whole}.{}", format!("{rest:09}").trim_end_matches('0')),
    }
}
