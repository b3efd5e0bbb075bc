//! The quota against a naive model that knows the exact time of every charge.

mod budgets;
mod clock;
mod simulation;
mod versions;

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::prelude::*;
use tollgate_guest::admission::{Denial, Identity, Limit, Limits, Measure};
use tollgate_guest::kv::{Entry, Error, Swapped};

use super::*;
use crate::limits::{LEASE_SECONDS, LEASES};
use crate::value::{Lease, Value};

/// 2026-01-01, aligned to nothing.
const START_MS: u64 = 1_767_225_612_345;
const DAY_MS: u64 = 86_400_000;

#[derive(Default)]
struct Map(RefCell<HashMap<String, Entry>>);

impl Versioned for Map {
    fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.0.borrow().get(key).cloned())
    }

    fn swap(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, Error> {
        assert!(
            ttl_ms.is_some_and(|ttl_ms| ttl_ms > 60_000),
            "a value must outlive its window, and not stay"
        );
        let mut map = self.0.borrow_mut();
        let present = map.get(key).map(|entry| entry.version);
        assert_eq!(present, expected, "nobody else is here");
        let version = present.unwrap_or(0) + 1;
        map.insert(key.to_owned(), Entry { value: value.to_vec(), version });
        Ok(Swapped::Swapped(version))
    }
}

/// A store, and calls as the host makes them.
#[derive(Default)]
struct Bench {
    map: Map,
}

impl Bench {
    fn admit(&mut self, id: &str, now_ms: u64, tokens: u64, limits: &Limits) -> Result<Vec<u8>, Denial> {
        let decisions = admit(&self.map, &request(id, now_ms, tokens), &[subject(limits)]).unwrap();
        match decisions.into_iter().next() {
            Some(Decision::Allow(Some(ticket))) => Ok(ticket),
            Some(Decision::Deny(denial)) => Err(denial),
            other => panic!("a limited subject got {other:?}"),
        }
    }

    fn settle(&mut self, ticket: &[u8], now_ms: u64, ending: Ending, tokens: u64) {
        let settlements = [settlement(ticket, now_ms, ending, tokens)];
        settle(&self.map, &settlements).unwrap();
    }

    /// The tokens that a lease holds.
    fn reserved(&self, ticket: &[u8]) -> u64 {
        let value = Value::open(self.value()).unwrap();
        let [(None, id)] = ticket::decode(ticket).unwrap()[..] else { panic!("one lease over all models") };
        value.all::<Lease>().find(|lease| lease.id == id).unwrap().tokens
    }

    fn value(&self) -> Option<Vec<u8>> {
        self.map.0.borrow().get("client:c0ffee").map(|entry| entry.value.clone())
    }
}

fn request(id: &str, now_ms: u64, estimated_tokens: u64) -> Request {
    Request {
        id: id.to_owned(),
        now_ms,
        dialect: "openai".to_owned(),
        endpoint: "/v1/chat/completions".to_owned(),
        model: "m".to_owned(),
        prompt_tokens: estimated_tokens,
        estimated_tokens,
        estimated_cost: None,
        streaming: false,
    }
}

fn subject(limits: &Limits) -> Subject {
    Subject {
        kind: SubjectKind::Client,
        id: "c0ffee".to_owned(),
        name: "c".to_owned(),
        limits: limits.clone(),
    }
}

fn settlement(ticket: &[u8], now_ms: u64, ending: Ending, tokens: u64) -> Settlement {
    Settlement {
        request_id: String::new(),
        now_ms,
        model: "m".to_owned(),
        subject: Identity { kind: SubjectKind::Client, id: "c0ffee".to_owned() },
        ticket: Some(ticket.to_vec()),
        usage: Usage {
            ending,
            status: Some(200),
            input_tokens: tokens / 2,
            output_tokens: tokens - tokens / 2,
            cost: None,
            duration_ms: 1,
            retry_after_ms: None,
            reached: None,
        },
    }
}

const fn limits(rpm: Option<u64>, tpm: Option<u64>, rpd: Option<u64>) -> Limits {
    Limits { rpm, tpm, rpd, further: Vec::new() }
}

/// So many tokens, of which nothing is known beforehand.
fn asked(most: u64) -> budget::Asked {
    budget::Asked { tokens: Demand { least: 0, most }, cost: Some(Demand { least: 1, most }) }
}

/// Every limit there is.
fn everything() -> Bounds {
    let budgets = bounds::Budgets { day: Some(9), month: Some(99), total: Some(999) };
    Bounds { rpm: Some(1), tpm: Some(1), rpd: Some(1), concurrency: Some(9), tokens: budgets, cost: budgets }
}

/// What the model knows of an allow.
struct Charge {
    time_ms: u64,
    requests: u64,
    tokens: u64,
}

/// Charged later than `from_ms` and not later than `to_ms`: requests and tokens.
fn charged(charges: &[Charge], from_ms: u64, to_ms: u64) -> (u64, u64) {
    charges
        .iter()
        .filter(|charge| from_ms < charge.time_ms && charge.time_ms <= to_ms)
        .fold((0, 0), |(requests, tokens), charge| (requests + charge.requests, tokens + charge.tokens))
}

#[derive(Clone, Debug)]
enum Step {
    Admit {
        tokens: u64,
    },
    /// Settles one of the open allows with this share of its estimate, in per cent.
    Settle {
        which: usize,
        ending: Ending,
        used: u64,
    },
    /// Settles one of the settled allows again.
    SettleAgain {
        which: usize,
        ending: Ending,
    },
    Wait {
        ms: u64,
    },
    /// Calls come from several threads, so a time may lie before the one seen last.
    Late {
        ms: u64,
        tokens: u64,
    },
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Completed),
        2 => Just(Ending::ClientAborted),
        1 => Just(Ending::UpstreamError),
        1 => Just(Ending::TimedOut),
        1 => Just(Ending::NeverSent),
        1 => Just(Ending::Running),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..400u64).prop_map(|tokens| Step::Admit { tokens }),
        5 => (any::<usize>(), ending(), 0..=100u64)
            .prop_map(|(which, ending, used)| Step::Settle { which, ending, used }),
        1 => (any::<usize>(), ending()).prop_map(|(which, ending)| Step::SettleAgain { which, ending }),
        4 => (0..4_000u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..70_000u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..DAY_MS / 3).prop_map(|ms| Step::Wait { ms }),
        1 => (0..3_000u64, 0..400u64).prop_map(|(ms, tokens)| Step::Late { ms, tokens }),
    ]
}

/// Runs steps and checks each decision against the exact charges.
fn check(steps: Vec<Step>, limits: &Limits) {
    let mut bench = Bench::default();
    let mut now_ms = START_MS;
    let mut charges: Vec<Charge> = Vec::new();
    // Ticket, place of the charge, estimate, and until when the lease holds.
    let mut open: Vec<(Vec<u8>, usize, u64, u64)> = Vec::new();
    let mut closed: Vec<Vec<u8>> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Wait { ms } => now_ms += ms,
            Step::Admit { tokens } | Step::Late { tokens, .. } => {
                let late_ms = if let Step::Late { ms, .. } = step { ms } else { 0 };
                match bench.admit(&format!("request-{number}"), now_ms - late_ms, tokens, limits) {
                    Ok(ticket) => {
                        let lease_ms = now_ms / 1_000 * 1_000 + u64::from(LEASE_SECONDS) * 1_000;
                        open.push((ticket, charges.len(), tokens, lease_ms));
                        charges.push(Charge { time_ms: now_ms - late_ms, requests: 1, tokens });
                        let (requests, tokens) = charged(&charges, now_ms - 60_000, now_ms);
                        let (daily, _) = charged(&charges, now_ms - DAY_MS, now_ms);
                        assert!(limits.rpm.is_none_or(|limit| requests <= limit), "over rpm");
                        assert!(limits.tpm.is_none_or(|limit| tokens <= limit), "over tpm");
                        assert!(limits.rpd.is_none_or(|limit| daily <= limit), "over rpd");
                    }
                    Err(denial) => {
                        // A late call is judged up to 3 s before now, and others were charged up to 3 s before their time.
                        let (requests, used) = charged(&charges, now_ms - 67_000, now_ms);
                        let (daily, _) = charged(&charges, now_ms - DAY_MS - 900_000 - 6_000, now_ms);
                        let full = match denial.limit_name.as_str() {
                            "rpm" => limits.rpm.is_some_and(|limit| requests + 1 > limit),
                            "tpm" => limits.tpm.is_some_and(|limit| used + tokens > limit),
                            "rpd" => limits.rpd.is_some_and(|limit| daily + 1 > limit),
                            other => panic!("denied by {other}"),
                        };
                        assert!(full, "denied by {denial:?} with room for more than a bucket");
                    }
                }
            }
            Step::Settle { which, ending, used } if !open.is_empty() => {
                let place = which % open.len();
                let (ticket, charge, estimate, lease_ms) = open[place].clone();
                let used = estimate * used / 100;
                bench.settle(&ticket, now_ms, ending, used);
                if ending == Ending::Running {
                    if now_ms < lease_ms {
                        open[place].3 = now_ms / 1_000 * 1_000 + u64::from(LEASE_SECONDS) * 1_000;
                    }
                    continue;
                }
                open.swap_remove(place);
                closed.push(ticket);
                if now_ms >= lease_ms {
                    continue;
                }
                match ending {
                    Ending::Completed | Ending::ClientAborted => charges[charge].tokens = used,
                    Ending::NeverSent => (charges[charge].requests, charges[charge].tokens) = (0, 0),
                    _ => (charges[charge].requests, charges[charge].tokens) = (0, used),
                }
            }
            Step::SettleAgain { which, ending } if !closed.is_empty() => {
                let before = bench.value();
                bench.settle(&closed[which % closed.len()].clone(), now_ms, ending, 7);
                assert_eq!(bench.value(), before, "a second settlement changed something");
            }
            Step::Settle { .. } | Step::SettleAgain { .. } => {}
        }
    }
}

proptest! {
    #[test]
    fn no_window_is_ever_over_a_limit_or_under_by_more_than_a_bucket(
        steps in prop::collection::vec(step(), 1..300),
        rpm in prop::option::of(1..30u64),
        tpm in prop::option::of(1..3_000u64),
        rpd in prop::option::of(1..100u64),
    ) {
        prop_assume!(rpm.is_some() || tpm.is_some() || rpd.is_some());
        check(steps, &limits(rpm, tpm, rpd));
    }

    #[test]
    fn any_bytes_are_a_ledger_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ticket::decode(&bytes);
        if let Ok(mut ledger) = Ledger::open(Some(bytes)) {
            let _ = ledger.reserve("r", &asked(1), &everything(), START_MS);
            let _ = ledger.settle(1, &settlement(&[], START_MS, Ending::Completed, 7).usage, START_MS);
            let _ = ledger.step_back(0);
            let _ = Ledger::open(Some(ledger.into_value())).unwrap();
        }
    }

    #[test]
    fn damage_to_a_value_is_noticed_or_harmless(place in any::<usize>(), byte in any::<u8>(), cut in any::<usize>()) {
        let mut bench = Bench::default();
        let mut all = limits(Some(10), Some(1_000), Some(20));
        if cut % 2 == 0 {
            all.further.push(Limit { measure: Measure::TokensTotal, most: 1_000, models: None });
        }
        for number in 0..5 {
            bench.admit(&format!("{number}"), START_MS + number * 700, 10, &all).unwrap();
        }
        let mut value = bench.value().unwrap();
        let place = place % value.len();
        value[place] = byte;
        if let Ok(mut ledger) = Ledger::open(Some(value.clone())) {
            let _ = ledger.reserve("r", &asked(u64::MAX), &everything(), START_MS);
            let _ = ledger.reserve("r", &asked(1), &everything(), u64::MAX);
            let _ = ledger.reserve("r", &asked(1), &everything(), 0);
        }
        value.truncate(cut % value.len());
        prop_assert!(Ledger::open(Some(value)).is_err());
    }
}

#[test]
fn retry_after_is_exact() {
    let mut bench = Bench::default();
    let two = limits(Some(2), None, None);
    bench.admit("a", START_MS, 0, &two).unwrap();
    bench.admit("b", START_MS + 5_000, 0, &two).unwrap();
    let denial = bench.admit("c", START_MS + 10_000, 0, &two).unwrap_err();
    let wait_ms = denial.retry_after_ms.unwrap();
    assert_eq!((denial.limit_name.as_str(), denial.current, denial.limit), ("rpm", Some(2), Some(2)));
    assert!((50_000..=51_000).contains(&wait_ms), "{wait_ms}");
    bench.admit("c", START_MS + 10_000 + wait_ms - 1, 0, &two).unwrap_err();
    bench.admit("c", START_MS + 10_000 + wait_ms, 0, &two).unwrap();
}

#[test]
fn a_request_that_can_never_pass_is_told_no_time() {
    let denial = Bench::default().admit("a", START_MS, 101, &limits(None, Some(100), None)).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.retry_after_ms), ("tpm", None));
    let denial = Bench::default().admit("a", START_MS, 0, &limits(Some(0), None, None)).unwrap_err();
    assert_eq!((denial.limit_name.as_str(), denial.retry_after_ms), ("rpm", None));
}

#[test]
fn the_longest_wait_is_the_one_told() {
    let mut bench = Bench::default();
    let both = limits(Some(1), None, Some(1));
    bench.admit("a", START_MS, 0, &both).unwrap();
    let denial = bench.admit("b", START_MS, 0, &both).unwrap_err();
    assert_eq!(denial.limit_name, "rpd");
    assert!(denial.retry_after_ms.unwrap() > 86_000_000);
}

#[test]
fn an_overrun_is_charged_when_it_is_known() {
    let mut bench = Bench::default();
    let tokens = limits(None, Some(100), None);
    let ticket = bench.admit("a", START_MS, 10, &tokens).unwrap();
    bench.settle(&ticket, START_MS + 30_000, Ending::Completed, 95);
    assert_eq!(bench.admit("b", START_MS + 30_000, 10, &tokens).unwrap_err().current, Some(95));
    // The estimate has left the window by then, the overrun has not.
    assert_eq!(bench.admit("b", START_MS + 70_000, 20, &tokens).unwrap_err().current, Some(85));
}

#[test]
fn a_failed_request_does_not_count() {
    for ending in [Ending::UpstreamError, Ending::TimedOut, Ending::NeverSent] {
        let mut bench = Bench::default();
        let one = limits(Some(1), Some(10), Some(1));
        let ticket = bench.admit("a", START_MS, 10, &one).unwrap();
        bench.settle(&ticket, START_MS + 9, ending, 0);
        bench.admit("b", START_MS + 9, 10, &one).unwrap();
    }
}

#[test]
fn what_came_of_an_answer_that_failed_is_charged_and_the_request_is_not() {
    for ending in [Ending::UpstreamError, Ending::TimedOut] {
        let mut bench = Bench::default();
        let one = limits(Some(1), Some(10), Some(1));
        let ticket = bench.admit("a", START_MS, 10, &one).unwrap();
        bench.settle(&ticket, START_MS + 9, ending, 4);
        let denial = bench.admit("b", START_MS + 9, 7, &one).unwrap_err();
        assert_eq!((denial.limit_name.as_str(), denial.current), ("tpm", Some(4)));
        bench.admit("c", START_MS + 9, 6, &one).unwrap();
    }
}

#[test]
fn a_renewed_lease_gives_back_long_after_its_first_end() {
    let mut bench = Bench::default();
    let daily = limits(None, None, Some(1));
    let ticket = bench.admit("a", START_MS, 10, &daily).unwrap();
    for minute in 1..20 {
        bench.settle(&ticket, START_MS + minute * 60_000, Ending::Running, 0);
    }
    bench.settle(&ticket, START_MS + 20 * 60_000, Ending::UpstreamError, 0);
    bench.admit("b", START_MS + 20 * 60_000, 10, &daily).unwrap();
}

#[test]
fn a_lease_that_ended_keeps_its_charge() {
    let mut bench = Bench::default();
    let daily = limits(None, None, Some(1));
    let ticket = bench.admit("a", START_MS, 10, &daily).unwrap();
    let later_ms = START_MS + u64::from(LEASE_SECONDS) * 1_000;
    bench.settle(&ticket, later_ms, Ending::UpstreamError, 0);
    bench.admit("b", later_ms, 10, &daily).unwrap_err();
}

#[test]
fn the_same_request_admitted_twice_has_two_leases() {
    let mut bench = Bench::default();
    let two = limits(Some(2), None, None);
    let first = bench.admit("a", START_MS, 0, &two).unwrap();
    bench.settle(&first, START_MS, Ending::UpstreamError, 0);
    let second = bench.admit("a", START_MS, 0, &two).unwrap();
    assert_ne!(first, second);
    bench.settle(&first, START_MS, Ending::UpstreamError, 0);
    bench.admit("b", START_MS, 0, &two).unwrap();
    bench.admit("c", START_MS, 0, &two).unwrap_err();
}

#[test]
fn requests_in_flight_are_bounded() {
    let mut bench = Bench::default();
    let many = limits(Some(u64::MAX), None, None);
    for number in 0..LEASES {
        bench.admit(&number.to_string(), START_MS, 0, &many).unwrap();
    }
    let denial = bench.admit("one more", START_MS, 0, &many).unwrap_err();
    assert_eq!(denial.limit_name, "concurrency");
    assert!(bench.value().unwrap().len() < 110_000);
}

#[test]
fn an_error_at_one_subject_gives_back_the_others() {
    let map = Map::default();
    let one = limits(Some(1), None, None);
    let mut broken = subject(&one);
    broken.id = "broken".to_owned();
    map.0.borrow_mut().insert("client:broken".to_owned(), Entry { value: vec![9], version: 1 });
    let both = [subject(&one), broken];
    assert_eq!(admit(&map, &request("a", START_MS, 0), &both), Err("quota value is corrupt".to_owned()));
    let alone = admit(&map, &request("b", START_MS, 0), &both[..1]).unwrap();
    assert!(matches!(alone[..], [Decision::Allow(Some(_))]));
}

#[test]
fn settlements_of_one_subject_are_one_change() {
    let mut bench = Bench::default();
    let many = limits(Some(100), Some(1_000), None);
    let tickets: Vec<_> =
        (0..10).map(|number| bench.admit(&format!("{number}"), START_MS, 10, &many).unwrap()).collect();
    let version = || bench.map.0.borrow().get("client:c0ffee").unwrap().version;
    let before = version();
    let mut settlements: Vec<_> =
        tickets.iter().map(|ticket| settlement(ticket, START_MS, Ending::Completed, 3)).collect();
    settlements.push(settlement(b"?", START_MS, Ending::Completed, 3));
    let error = settle(&bench.map, &settlements).unwrap_err();
    assert_eq!(error, "quota ticket is of an unknown version or corrupt");
    assert_eq!(version(), before + 1);
    assert_eq!(bench.admit("x", START_MS, 1_000, &many).unwrap_err().current, Some(30));
}
