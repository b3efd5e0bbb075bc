//! Budgets, limits over some models, and requests at once.

use super::*;

const ONE_USD: u64 = 1_000_000_000;

fn with(further: &[(Measure, u64, Option<&str>)]) -> Limits {
    let further = further.iter().map(|&(measure, most, models)| Limit {
        measure,
        most,
        models: models.map(str::to_owned),
    });
    Limits { further: further.collect(), ..limits(None, None, None) }
}

impl Bench {
    /// Admits a request of so many tokens, each of which costs a thousandth.
    fn priced(&mut self, id: &str, now_ms: u64, tokens: u64, limits: &Limits) -> Result<Vec<u8>, Denial> {
        let request =
            Request { estimated_cost: Some(tokens * ONE_USD / 1_000), ..request(id, now_ms, tokens) };
        match admit(&self.map, &request, &[subject(limits)]).unwrap().remove(0) {
            Decision::Allow(ticket) => Ok(ticket.unwrap()),
            Decision::Deny(denial) => Err(denial),
        }
    }

    /// Admits a request that may come to so many tokens, of which ten are known beforehand.
    fn ceiling(&mut self, id: &str, now_ms: u64, tokens: u64, limits: &Limits) -> Result<Vec<u8>, Denial> {
        let request = Request { prompt_tokens: 10, ..request(id, now_ms, tokens) };
        match admit(&self.map, &request, &[subject(limits)]).unwrap().remove(0) {
            Decision::Allow(ticket) => Ok(ticket.unwrap()),
            Decision::Deny(denial) => Err(denial),
        }
    }

    fn settle_priced(&mut self, ticket: &[u8], now_ms: u64, ending: Ending, tokens: u64) {
        let mut settlement = settlement(ticket, now_ms, ending, tokens);
        settlement.usage.cost = Some(tokens * ONE_USD / 1_000);
        settle(&self.map, &[settlement]).unwrap();
    }
}

/// START_MS is 2026-01-01, twelve seconds after midnight.
const MIDNIGHT_MS: u64 = START_MS / DAY_MS * DAY_MS + DAY_MS;

#[test]
fn a_day_and_a_month_begin_anew_and_a_total_never_does() {
    for (measure, word, anew_ms) in [
        (Measure::TokensPerDay, "tokens-per-day", Some(MIDNIGHT_MS)),
        (Measure::TokensPerMonth, "tokens-per-month", Some(MIDNIGHT_MS + 30 * DAY_MS)),
        (Measure::TokensTotal, "tokens-total", None),
    ] {
        let mut bench = Bench::default();
        let budget = with(&[(measure, 100, None)]);
        let ticket = bench.admit("a", START_MS, 80, &budget).unwrap();
        bench.settle(&ticket, START_MS, Ending::Completed, 70);
        let denial = bench.admit("b", START_MS, 31, &budget).unwrap_err();
        assert_eq!((denial.limit_name.as_str(), denial.current, denial.limit), (word, Some(70), Some(100)));
        assert_eq!(denial.retry_after_ms, anew_ms.map(|anew_ms| anew_ms - START_MS));
        bench.admit("c", START_MS, 30, &budget).unwrap();
        let Some(anew_ms) = anew_ms else {
            bench.admit("d", START_MS + 4_000 * DAY_MS, 31, &budget).unwrap_err();
            continue;
        };
        bench.admit("d", anew_ms - 1, 31, &budget).unwrap_err();
        bench.admit("d", anew_ms, 100, &budget).unwrap();
    }
}

#[test]
fn money_is_reserved_and_settled_like_tokens_and_told_in_people_s_numbers() {
    let mut bench = Bench::default();
    let budget = with(&[(Measure::CostPerDay, 2 * ONE_USD, None)]);
    let ticket = bench.priced("a", START_MS, 1_500, &budget).unwrap();
    let denial = bench.priced("b", START_MS, 600, &budget).unwrap_err();
    assert_eq!(denial.reason, "1.5 of 2 cost per day are used");
    assert_eq!((denial.current, denial.limit), (Some(1_500_000_000), Some(2_000_000_000)));
    bench.settle_priced(&ticket, START_MS, Ending::Completed, 250);
    let ticket = bench.priced("b", START_MS, 1_750, &budget).unwrap();
    // It broke off when half a unit's worth had come.
    bench.settle_priced(&ticket, START_MS, Ending::UpstreamError, 500);
    let ticket = bench.priced("c", START_MS, 1_250, &budget).unwrap();
    assert_eq!(bench.priced("d", START_MS, 1, &budget).unwrap_err().current, Some(2_000_000_000));
    bench.settle_priced(&ticket, START_MS, Ending::UpstreamError, 0);
    bench.priced("e", START_MS, 1_250, &budget).unwrap();
}

#[test]
fn without_a_price_nothing_that_costs_is_let_through_a_limit_on_cost() {
    let mut bench = Bench::default();
    let denial = bench.admit("a", START_MS, 1, &with(&[(Measure::CostTotal, ONE_USD, None)])).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.retry_after_ms), ("price", None));
    bench.admit("a", START_MS, 1, &with(&[(Measure::TokensTotal, ONE_USD, None)])).unwrap();
}

#[test]
fn a_cost_that_is_not_known_at_the_end_stays_as_estimated() {
    let mut bench = Bench::default();
    let budget = with(&[(Measure::CostTotal, ONE_USD, None)]);
    let ticket = bench.priced("a", START_MS, 700, &budget).unwrap();
    bench.settle(&ticket, START_MS, Ending::Completed, 1);
    assert_eq!(bench.priced("b", START_MS, 600, &budget).unwrap_err().current, Some(700_000_000));
}

#[test]
fn a_large_ceiling_blocks_nobody_who_has_used_little_and_takes_no_more_than_is_left() {
    let mut bench = Bench::default();
    let limits = Limits { tpm: Some(1_000), ..with(&[(Measure::TokensPerDay, 1_500, None)]) };
    let ticket = bench.ceiling("a", START_MS, 64_000, &limits).unwrap();
    assert_eq!(bench.reserved(&ticket), 1_000);
    assert_eq!(
        bench.admit("b", START_MS, 1, &limits).unwrap_err().limit_name,
        "tpm",
        "nobody gets in beside it"
    );
    bench.settle(&ticket, START_MS + 1, Ending::Completed, 300);
    let ticket = bench.ceiling("c", START_MS + 1, 64_000, &limits).unwrap();
    assert_eq!(bench.reserved(&ticket), 700);
    // It uses more than was left: that is charged when it is known, and counts.
    bench.settle(&ticket, START_MS + 2, Ending::Completed, 900);
    let denial = bench.admit("d", START_MS + 2, 1, &limits).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.current), ("tpm", Some(1_200)));
    let denial = bench.ceiling("d", START_MS + 70_000, 64_000, &limits).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.current), ("tokens-per-day", Some(1_200)));
}

#[test]
fn a_limit_that_is_edited_keeps_the_usage() {
    let mut bench = Bench::default();
    let ticket = bench.admit("a", START_MS, 90, &with(&[(Measure::TokensPerMonth, 100, None)])).unwrap();
    bench.settle(&ticket, START_MS, Ending::Completed, 90);
    let raised = with(&[(Measure::TokensPerMonth, 200, None), (Measure::TokensPerDay, 150, None)]);
    bench.admit("b", START_MS, 50, &raised).unwrap();
    let denial = bench.admit("c", START_MS, 11, &raised).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.current), ("tokens-per-day", Some(140)));
    let lowered = with(&[(Measure::TokensPerMonth, 100, None)]);
    assert_eq!(bench.admit("d", START_MS, 1, &lowered).unwrap_err().current, Some(140));
    // A rate beside it begins to count with all that is in its window.
    let denial = bench.admit("e", START_MS, 60, &Limits { tpm: Some(150), ..raised }).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.current), ("tpm", Some(140)));
}

#[test]
fn a_settlement_after_midnight_changes_the_month_and_not_the_new_day() {
    let mut bench = Bench::default();
    let budgets = with(&[(Measure::TokensPerDay, 100, None), (Measure::TokensPerMonth, 100, None)]);
    let before_ms = MIDNIGHT_MS - 1_000;
    let ticket = bench.admit("a", before_ms, 100, &budgets).unwrap();
    let denial = bench.admit("b", MIDNIGHT_MS, 60, &budgets).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.current), ("tokens-per-month", Some(100)));
    bench.settle(&ticket, MIDNIGHT_MS, Ending::Completed, 30);
    let of_day = with(&[(Measure::TokensPerDay, 100, None)]);
    bench.admit("b", MIDNIGHT_MS, 100, &of_day).expect("nothing is charged to the new day");
}

#[test]
fn requests_at_once_are_counted_by_their_leases() {
    let mut bench = Bench::default();
    let two = with(&[(Measure::Concurrency, 2, None)]);
    let first = bench.admit("a", START_MS, 0, &two).unwrap();
    bench.admit("b", START_MS, 0, &two).unwrap();
    let denial = bench.admit("c", START_MS, 0, &two).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.current, denial.limit), ("concurrency", Some(2), Some(2)));
    assert!(denial.retry_after_ms.is_some());
    bench.settle(&first, START_MS, Ending::ClientAborted, 0);
    bench.admit("c", START_MS, 0, &two).unwrap();
    // What nobody settles or renews ends by itself.
    let later_ms = START_MS + u64::from(LEASE_SECONDS) * 1_000;
    bench.admit("d", later_ms, 0, &two).unwrap();
    bench.admit("e", later_ms, 0, &two).unwrap();
    bench.admit("f", later_ms, 0, &two).unwrap_err();
}

#[test]
fn limits_over_some_models_stand_beside_those_over_all_and_are_reserved_together_or_not_at_all() {
    let mut bench = Bench::default();
    let of_big = |rpm| Limits {
        rpm: Some(3),
        ..with(&[(Measure::Rpm, rpm, Some("big-*")), (Measure::TokensTotal, 100, Some("big-1"))])
    };
    let small = limits(Some(3), None, None);
    let ticket = bench.admit("a", START_MS, 60, &of_big(1)).unwrap();
    assert_eq!(ticket::decode(&ticket).unwrap().len(), 3);
    for _ in 0..5 {
        let denial = bench.admit("b", START_MS, 10, &of_big(1)).unwrap_err();
        assert_eq!(denial.limit_name, "rpm");
        assert_eq!(denial.reason, "1 of 1 requests per minute are used (of big-*)");
    }
    assert_eq!(bench.admit("b", START_MS, 60, &of_big(2)).unwrap_err().limit_name, "tokens-total");
    // What was refused has taken nothing over all models.
    bench.admit("c", START_MS, 0, &small).unwrap();
    bench.admit("d", START_MS, 0, &small).unwrap();
    bench.admit("e", START_MS, 0, &small).unwrap_err();
    bench.settle(&ticket, START_MS, Ending::UpstreamError, 0);
    bench.admit("e", START_MS, 100, &of_big(1)).unwrap();
}

#[test]
fn more_groups_than_a_ticket_holds_are_an_error() {
    let names: Vec<String> = (0..=limits::GROUPS).map(|number| number.to_string()).collect();
    let many: Vec<_> = names.iter().map(|name| (Measure::Rpm, 1, Some(name.as_str()))).collect();
    let map = Map::default();
    let error = admit(&map, &request("a", START_MS, 0), &[subject(&with(&many))]).unwrap_err();
    assert!(error.starts_with("a subject's limits name at most 8 groups"), "{error}");
    let long = "m".repeat(limits::GROUP_BYTES);
    let most: Vec<String> = (0..limits::GROUPS).map(|number| format!("{number}{}", &long[1..])).collect();
    let most: Vec<_> = most.iter().map(|name| (Measure::Rpm, 1, Some(name.as_str()))).collect();
    let mut bench = Bench::default();
    assert!(bench.admit("a", START_MS, 0, &with(&most)).unwrap().len() <= 1_024);
}

#[test]
fn a_clock_set_back_keeps_what_was_spent() {
    let mut bench = Bench::default();
    let budgets = with(&[(Measure::TokensPerDay, 100, None), (Measure::TokensPerMonth, 100, None)]);
    bench.admit("a", START_MS + 40 * DAY_MS, 90, &budgets).unwrap();
    let denial = bench.admit("b", START_MS, 60, &budgets).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.current), ("tokens-per-month", Some(90)));
    bench.admit("c", MIDNIGHT_MS + 31 * DAY_MS, 100, &budgets).unwrap();
}
