//! Clocks that were wrong, and settlements that come late.

use super::*;

#[test]
fn a_clock_that_was_far_ahead_does_not_lock_a_subject_out() {
    let mut bench = Bench::default();
    let one = limits(Some(1), None, None);
    let ahead_ms = START_MS + 400 * DAY_MS;
    let ticket = bench.admit("a", ahead_ms, 0, &one).unwrap();
    let wait_ms = bench.admit("b", START_MS, 0, &one).unwrap_err().retry_after_ms.unwrap();
    assert!(wait_ms <= 61_000, "{wait_ms}");
    bench.settle(&ticket, START_MS, Ending::UpstreamError, 0);
    bench.admit("b", START_MS, 0, &one).unwrap();
}

/// Leases once piled up until "concurrency" denied: a settlement whose time was far behind made the ledger forget the
/// very lease it was for.
#[test]
fn a_settlement_far_behind_still_gives_back() {
    let mut bench = Bench::default();
    let one = limits(Some(1), None, Some(1));
    let later_ms = START_MS + 2 * 60_000;
    let ticket = bench.admit("a", later_ms, 0, &one).unwrap();
    bench.settle(&ticket, START_MS, Ending::NeverSent, 0);
    bench.admit("b", later_ms, 0, &one).unwrap();
}

/// A step back once moved the ring by whole quarters of an hour, out of the minute.
#[test]
fn a_clock_set_back_forgets_no_charge() {
    for step_ms in [60_001, 100_000, 900_000, 3_599_999] {
        let mut bench = Bench::default();
        let one = limits(Some(1), None, None);
        let ticket = bench.admit("a", START_MS, 0, &one).unwrap();
        let now_ms = START_MS - step_ms;
        let denial = bench.admit("b", now_ms, 0, &one).unwrap_err();
        assert!(denial.retry_after_ms.is_some_and(|wait_ms| wait_ms <= 62_000), "{denial:?}");
        bench.admit("b", now_ms + 59_999, 0, &one).unwrap_err();
        bench.settle(&ticket, now_ms + 59_999, Ending::UpstreamError, 0);
        bench.admit("b", now_ms + 59_999, 0, &one).unwrap();
        bench.admit("c", now_ms + 60_000, 0, &one).unwrap_err();
        bench.admit("c", now_ms + 59_999 + 62_000, 0, &one).unwrap();
        let daily = limits(None, None, Some(1));
        let mut bench = Bench::default();
        bench.admit("a", START_MS, 0, &daily).unwrap();
        bench.admit("b", now_ms, 0, &daily).unwrap_err();
        bench.admit("b", now_ms + DAY_MS - 1, 0, &daily).unwrap_err();
        bench.admit("b", now_ms + DAY_MS + 2 * 900_000, 0, &daily).unwrap();
        let mut bench = Bench::default();
        bench.admit("a", START_MS, 0, &one).unwrap();
        bench.admit("b", now_ms, 0, &one).unwrap_err();
        bench.admit("b", now_ms + 62_000, 0, &one).unwrap();
    }
}

#[test]
fn a_clock_set_back_to_1970_loses_neither_charges_nor_the_ledger() {
    let mut bench = Bench::default();
    let three = limits(Some(3), None, Some(3));
    bench.admit("a", START_MS, 0, &three).unwrap();
    bench.admit("b", START_MS + 20 * 60_000, 0, &three).unwrap();
    bench.admit("c", START_MS + 20 * 60_000 + 1_500, 0, &three).unwrap();
    bench.admit("d", 5, 0, &three).unwrap_err();
    bench.admit("d", 5, 0, &three).unwrap_err();
    bench.admit("d", 100 * 900_000, 0, &three).unwrap();
}
