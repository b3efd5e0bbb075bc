//! Values and tickets of the version before budgets.

use super::*;

/// As that version wrote it: two requests, of 10 and 20 tokens, in this second; the second is in flight.
fn before_budgets() -> Vec<u8> {
    let second = (START_MS / 1_000) as u32;
    let mut value = vec![1];
    value.extend(START_MS.to_le_bytes());
    value.extend(2u64.to_le_bytes());
    for count in [1u16, 1, 1] {
        value.extend(count.to_le_bytes());
    }
    value.extend(second.to_le_bytes());
    value.extend(2u32.to_le_bytes());
    value.extend(30u64.to_le_bytes());
    value.extend((second / 900).to_le_bytes());
    value.extend(2u32.to_le_bytes());
    value.extend(77u64.to_le_bytes());
    value.extend(20u64.to_le_bytes());
    value.extend(second.to_le_bytes());
    value.extend((second + 300).to_le_bytes());
    value.push(1);
    value
}

fn bench() -> Bench {
    let bench = Bench::default();
    let entry = Entry { value: before_budgets(), version: 1 };
    bench.map.0.borrow_mut().insert("client:c0ffee".to_owned(), entry);
    bench
}

/// The ticket that the version before gave for the lease in flight.
fn ticket() -> Vec<u8> {
    [&[1][..], &77u64.to_le_bytes()].concat()
}

#[test]
fn a_value_of_the_version_before_is_read_and_its_lease_settled() {
    let mut bench = bench();
    let rates = limits(Some(4), Some(100), Some(3));
    bench.settle(&ticket(), START_MS, Ending::UpstreamError, 0);
    bench.admit("a", START_MS, 90, &rates).unwrap();
    assert_eq!(bench.admit("b", START_MS, 1, &rates).unwrap_err().current, Some(100));
    bench.admit("b", START_MS, 0, &rates).unwrap();
    assert_eq!(bench.admit("c", START_MS, 0, &rates).unwrap_err().limit_name, "rpd");
}

#[test]
fn a_value_without_budgets_stays_readable_for_the_version_before() {
    let mut bench = bench();
    bench.admit("a", START_MS, 5, &limits(Some(4), None, Some(3))).unwrap();
    assert_eq!(bench.value().unwrap()[0], 1);
}

#[test]
fn a_budget_given_to_a_subject_of_the_version_before_counts_from_then_on() {
    let mut bench = bench();
    let mut budget = limits(None, None, None);
    budget.further.push(Limit { measure: Measure::TokensTotal, most: 100, models: None });
    let new = bench.admit("a", START_MS, 70, &budget).unwrap();
    // The lease from before has no share in what was spent.
    bench.settle(&ticket(), START_MS, Ending::UpstreamError, 0);
    assert_eq!(bench.admit("b", START_MS, 60, &budget).unwrap_err().current, Some(70));
    bench.settle(&new, START_MS, Ending::Completed, 10);
    bench.admit("b", START_MS, 90, &budget).unwrap();
}
