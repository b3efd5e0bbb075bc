//! The list as a request after another sees it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tollgate_guest::admission::{Denial, Ending, Limits, Measure, Reached, Usage};
use tollgate_guest::kv::{self, Error, Swapped, Versioned};

use super::*;

const NOW_MS: u64 = 1_700_000_000_000;
const MINUTE_MS: u64 = 60_000;
const KEY: &str = "account:c0ffee";

/// A store with a clock, which counts its calls.
struct Map {
    entries: RefCell<BTreeMap<String, (kv::Entry, u64)>>,
    now_ms: Cell<u64>,
    calls: Cell<u32>,
}

impl Map {
    fn new() -> Map {
        Map { entries: RefCell::default(), now_ms: Cell::new(NOW_MS), calls: Cell::new(0) }
    }

    fn present(&self, key: &str) -> Option<kv::Entry> {
        let entries = self.entries.borrow();
        entries.get(key).filter(|(_, gone_ms)| self.now_ms.get() < *gone_ms).map(|(entry, _)| entry.clone())
    }

    fn put(&self, key: &str, entry: &str) {
        let entry = kv::Entry { value: entry.as_bytes().to_vec(), version: 1 };
        self.entries.borrow_mut().insert(key.to_owned(), (entry, u64::MAX));
    }

    fn pass(&self, ms: u64) {
        self.now_ms.set(self.now_ms.get() + ms);
    }

    fn admit_as(&self, kind: SubjectKind, request: &str, model: &str) -> Result<Option<Vec<u8>>, Denial> {
        let decisions = admit(self, &self.request(request, model), &[subject(kind)]).unwrap();
        match decisions.into_iter().next().unwrap() {
            Decision::Allow(ticket) => Ok(ticket),
            Decision::Deny(denial) => Err(denial),
        }
    }

    fn admit(&self, request: &str) -> Result<Option<Vec<u8>>, Denial> {
        self.admit_as(SubjectKind::Account, request, "m")
    }

    fn wait_ms(&self, request: &str) -> Option<u64> {
        let denial = self.admit(request).unwrap_err();
        assert_eq!(denial.limit_name, "blacklisted");
        denial.retry_after_ms
    }

    fn request(&self, id: &str, model: &str) -> Request {
        Request {
            id: id.to_owned(),
            now_ms: self.now_ms.get(),
            dialect: "openai".to_owned(),
            endpoint: "/v1/embeddings".to_owned(),
            model: model.to_owned(),
            prompt_tokens: 1,
            estimated_tokens: 1,
            estimated_cost: None,
            streaming: false,
        }
    }

    fn settle_as(
        &self,
        kind: SubjectKind,
        request: &str,
        ticket: Option<Vec<u8>>,
        ending: Ending,
        status: Option<u16>,
    ) {
        self.settle_limited(kind, request, ticket, ending, status, None);
    }

    fn settle_limited(
        &self,
        kind: SubjectKind,
        request: &str,
        ticket: Option<Vec<u8>>,
        ending: Ending,
        status: Option<u16>,
        reached: Option<Reached>,
    ) {
        let settlement = Settlement {
            request_id: request.to_owned(),
            now_ms: self.now_ms.get(),
            model: "m".to_owned(),
            subject: Identity { kind, id: "c0ffee".to_owned() },
            ticket,
            usage: Usage {
                ending,
                status,
                input_tokens: 1,
                output_tokens: 1,
                cost: None,
                duration_ms: 1,
                retry_after_ms: reached.map(|_| DAY_MS),
                reached,
            },
        };
        if concerns(&settlement) {
            settle(self, &[settlement]).unwrap();
        }
    }

    /// The upstream refused for a limit over requests of a day, which has just begun.
    fn exhaust(&self, request: &str, ticket: Option<Vec<u8>>, of_model: bool) {
        let reached = Some(Reached { measure: Measure::Rpd, of_model });
        self.settle_limited(SubjectKind::Account, request, ticket, Ending::UpstreamError, Some(429), reached);
    }

    fn settle(&self, request: &str, ticket: Option<Vec<u8>>, ending: Ending, status: Option<u16>) {
        self.settle_as(SubjectKind::Account, request, ticket, ending, status);
    }
}

impl Versioned for Map {
    fn read(&self, key: &str) -> Result<Option<kv::Entry>, Error> {
        self.calls.set(self.calls.get() + 1);
        Ok(self.present(key))
    }

    fn swap(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, Error> {
        self.calls.set(self.calls.get() + 1);
        let version = self.present(key).map(|entry| entry.version);
        assert_eq!(version, expected, "nobody else is here");
        let entry = kv::Entry { value: value.to_vec(), version: version.unwrap_or(0) + 1 };
        let gone_ms = self.now_ms.get() + ttl_ms.unwrap();
        self.entries.borrow_mut().insert(key.to_owned(), (entry, gone_ms));
        Ok(Swapped::Swapped(0))
    }
}

impl Store for Map {
    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.calls.set(self.calls.get() + 1);
        Ok(keys.iter().map(|key| self.present(key).map(|entry| entry.value)).collect())
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        self.calls.set(self.calls.get() + 1);
        self.entries.borrow_mut().remove(key);
        Ok(())
    }
}

fn subject(kind: SubjectKind) -> Subject {
    let limits = Limits { rpm: None, tpm: None, rpd: None, further: Vec::new() };
    Subject { kind, id: "c0ffee".to_owned(), name: "a".to_owned(), limits }
}

#[test]
fn a_request_with_nothing_on_the_list_costs_one_call() {
    let map = Map::new();
    let both = [subject(SubjectKind::Client), subject(SubjectKind::Account)];
    let decisions = admit(&map, &map.request("r", "m"), &both).unwrap();
    assert!(matches!(decisions[..], [Decision::Allow(None), Decision::Allow(None)]));
    map.settle("r", None, Ending::Completed, Some(200));
    assert_eq!(map.calls.get(), 1);
}

#[test]
fn an_entry_of_an_operator_keeps_a_subject_out() {
    let map = Map::new();
    map.put("client:c0ffee", r#"{"reason":"stolen"}"#);
    let denial = map.admit_as(SubjectKind::Client, "r", "").unwrap_err();
    assert_eq!((denial.reason.as_str(), denial.retry_after_ms), ("blacklisted: stolen", None));
    map.admit("r").unwrap();
}

#[test]
fn an_entry_can_be_for_one_model() {
    let map = Map::new();
    map.put("account:c0ffee/big", &format!(r#"{{"reason":"rpm","until_ms":{}}}"#, NOW_MS + 5_000));
    let denial = map.admit_as(SubjectKind::Account, "r", "big").unwrap_err();
    assert_eq!(denial.retry_after_ms, Some(5_000));
    assert_eq!(map.admit_as(SubjectKind::Account, "r", "small").unwrap(), None);
}

#[test]
fn an_entry_that_cannot_be_read_keeps_its_subject_out() {
    let map = Map::new();
    map.put(KEY, "stolen");
    map.admit("r").unwrap_err();
    map.settle("r", None, Ending::UpstreamError, Some(503));
    assert_eq!(map.present(KEY).unwrap().value, b"stolen");
}

#[test]
fn a_failing_account_is_kept_out_for_its_time() {
    let map = Map::new();
    map.settle("r", None, Ending::UpstreamError, Some(500));
    assert_eq!(map.wait_ms("s"), Some(300_000));
    map.pass(299_999);
    assert_eq!(map.wait_ms("s"), Some(1));
}

const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

#[test]
fn a_models_quota_holds_that_model_alone_and_the_entry_names_both() {
    let map = Map::new();
    map.exhaust("r", None, true);
    assert_eq!(map.wait_ms("s"), Some(DAY_MS));
    assert_eq!(map.admit_as(SubjectKind::Account, "s", "other").unwrap(), None);
    let entry = Entry::decode(&map.present("account:c0ffee/m").unwrap().value).unwrap();
    assert_eq!((entry.model.as_deref(), entry.limit()), (Some("m"), Some("rpd")));
    assert!(map.present(KEY).is_none());
}

#[test]
fn a_quota_over_all_models_holds_the_account() {
    let map = Map::new();
    map.exhaust("r", None, false);
    map.admit_as(SubjectKind::Account, "s", "other").unwrap_err();
    let entry = Entry::decode(&map.present(KEY).unwrap().value).unwrap();
    assert_eq!((entry.model.as_deref(), entry.limit()), (None, Some("rpd")));
}

#[test]
fn a_probe_that_meets_a_models_quota_passes_the_turn_on_to_other_models() {
    let map = Map::new();
    map.settle("r", None, Ending::UpstreamError, Some(503));
    map.pass(MINUTE_MS);
    let ticket = map.admit("probe").unwrap();
    map.exhaust("probe", ticket, true);
    assert_eq!(map.wait_ms("s"), Some(DAY_MS));
    let ticket = map.admit_as(SubjectKind::Account, "next", "other").unwrap();
    assert!(ticket.is_some(), "the account is tried again");
    map.settle("next", ticket, Ending::Completed, Some(200));
    map.pass(1);
    assert_eq!(map.admit_as(SubjectKind::Account, "later", "other").unwrap(), None);
    // The model is tried on its own when its time is over.
    map.pass(DAY_MS);
    assert!(map.admit("again").unwrap().is_some());
    assert_eq!(map.wait_ms("another"), Some(MINUTE_MS));
}

#[test]
fn a_clients_key_is_never_blamed() {
    let map = Map::new();
    map.settle_as(SubjectKind::Client, "r", None, Ending::UpstreamError, Some(401));
    assert_eq!(map.calls.get(), 0);
}

#[test]
fn a_half_open_account_lets_one_request_try() {
    let map = Map::new();
    map.settle("r", None, Ending::UpstreamError, Some(503));
    map.pass(MINUTE_MS);
    let ticket = map.admit("probe").unwrap();
    assert!(ticket.is_some());
    assert_eq!(map.wait_ms("other"), Some(MINUTE_MS));
    map.settle("probe", ticket.clone(), Ending::Completed, Some(200));
    map.pass(1);
    assert_eq!(map.admit("other").unwrap(), None);
    map.settle("probe", ticket, Ending::Completed, Some(200));
}

#[test]
fn a_probe_that_fails_renews_the_entry() {
    let map = Map::new();
    map.settle("r", None, Ending::UpstreamError, Some(503));
    map.pass(MINUTE_MS);
    let ticket = map.admit("probe").unwrap();
    map.settle("probe", ticket, Ending::TimedOut, None);
    assert_eq!(map.wait_ms("other"), Some(MINUTE_MS));
}

#[test]
fn a_probe_that_says_nothing_passes_the_turn_on() {
    for ending in [Ending::NeverSent, Ending::ClientAborted] {
        let map = Map::new();
        map.settle("r", None, Ending::UpstreamError, Some(503));
        map.pass(MINUTE_MS);
        let ticket = map.admit("probe").unwrap();
        map.settle("probe", ticket, ending, None);
        assert!(map.admit("next").unwrap().is_some());
    }
}

#[test]
fn a_probe_that_is_never_settled_passes_the_turn_on_unless_it_renews() {
    let map = Map::new();
    map.settle("r", None, Ending::UpstreamError, Some(503));
    map.pass(MINUTE_MS);
    let ticket = map.admit("probe").unwrap();
    map.pass(MINUTE_MS - 1);
    map.settle("probe", ticket.clone(), Ending::Running, None);
    map.pass(MINUTE_MS - 1);
    assert_eq!(map.wait_ms("next"), Some(1));
    map.pass(1);
    assert!(map.admit("next").unwrap().is_some());
    // The late answer of the first probe leaves the second one alone.
    map.settle("probe", ticket, Ending::Completed, Some(200));
    assert!(map.present(KEY).is_some());
}

#[test]
fn an_entry_that_an_operator_made_meanwhile_stays() {
    let map = Map::new();
    map.settle("r", None, Ending::UpstreamError, Some(503));
    map.pass(MINUTE_MS);
    let ticket = map.admit("probe").unwrap();
    map.put(KEY, r#"{"reason":"stolen"}"#);
    map.settle("probe", ticket, Ending::Completed, Some(200));
    assert_eq!(map.wait_ms("other"), None);
}

#[test]
fn a_short_failure_does_not_shorten_a_long_entry() {
    let map = Map::new();
    map.settle("r", None, Ending::UpstreamError, Some(401));
    map.settle("s", None, Ending::UpstreamError, Some(503));
    assert_eq!(map.wait_ms("t"), Some(1_800_000));
}

#[test]
fn an_entry_that_nobody_probes_is_gone_after_its_recovery() {
    let map = Map::new();
    map.settle("r", None, Ending::UpstreamError, Some(503));
    map.pass(MINUTE_MS + limits::RECOVERY_MS);
    assert_eq!(map.admit("s").unwrap(), None);
}

#[test]
fn only_timeouts_in_a_row_count_and_each_once() {
    let map = Map::new();
    for request in ["a", "b", "b", "a"] {
        map.settle(request, None, Ending::TimedOut, None);
    }
    let ticket = map.admit("good").unwrap();
    map.settle("good", ticket, Ending::Completed, Some(200));
    for request in ["c", "d"] {
        map.settle(request, None, Ending::TimedOut, None);
        map.admit("x").unwrap();
    }
    map.settle("e", None, Ending::UpstreamError, None);
    assert_eq!(map.wait_ms("x"), Some(MINUTE_MS));
}

#[test]
fn a_model_that_makes_the_key_too_long_is_not_asked_for() {
    let map = Map::new();
    map.admit_as(SubjectKind::Account, "r", &"m".repeat(10_000)).unwrap();
}

#[test]
fn a_ticket_of_another_version_is_an_error() {
    assert!(Ticket::decode(Some(&[2, 0])).is_err());
    assert!(Ticket::decode(Some(&[])).is_err());
    assert!(Ticket::decode(Some(&[1, 2, 0xff])).is_err());
    let ticket = Ticket { probes_account: true, probes_model: Some("m".to_owned()), has_strikes: true };
    assert_eq!(Ticket::decode(ticket.encode().as_deref()), Ok(ticket));
}
