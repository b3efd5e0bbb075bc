//! The chain with real guests.

use std::sync::Arc;
use std::time::Duration;

use super::active::ActivePlugin;
use super::{Admissions, CanaryEnd, Share, Verdict};
use crate::plugin::admission::{Ending, Request, Usage};
use crate::plugin::fixture::{BARE, Home, admission, counting, load, request, subjects, ticketless, usage};
use crate::plugin::settle::Settlement;
use crate::plugin::{CallError, Engine, Generation, Identity, Manifest};

const ALLOW: &str = "(call $allow (local.get 15))";
const SETTLED: &str = "(call $settled)";
const TRAP: &str = "unreachable";

/// Denies the last subject: a decision at 1024, of 72 bytes, for each one, and the last with case 1.
const DENY_LAST: &str = "
    (i32.store8
        (i32.add (i32.const 1024) (i32.mul (i32.const 72) (i32.sub (local.get 15) (i32.const 1)))) (i32.const 1))
    (call $allow (local.get 15))";

/// One decision at 1024: allow, with a ticket of 1,025 bytes at 2048.
const LARGE_TICKET: &str = "
    (i32.store8 (i32.const 1032) (i32.const 1)) (i32.store (i32.const 1036) (i32.const 2048))
    (i32.store (i32.const 1040) (i32.const 1025)) (call $allow (local.get 15))";

struct Chain {
    home: Home,
    admissions: Admissions,
}

impl Chain {
    fn new() -> Chain {
        Chain::with_places(10_000)
    }

    fn with_places(places: usize) -> Chain {
        Chain { home: Home::new(), admissions: Admissions::with_queue(Arc::new(|| 1_000_500), places) }
    }

    /// Allows everything and counts what it settles.
    fn counting(&self) -> Arc<ActivePlugin> {
        self.load(&counting("ended"))
    }

    fn load(&self, guest: &[u8]) -> Arc<ActivePlugin> {
        let manifest = "name = \"counting\"\norder = 1\n[grants.kv]\nended = \"read-write\"";
        let guest = load(guest, manifest, &self.home.stores(&["ended"])).unwrap();
        ActivePlugin::new(Arc::new(guest))
    }

    fn install(&self, plugins: &[&Arc<ActivePlugin>]) {
        self.admissions.install(plugins.iter().map(|plugin| (*plugin).clone()).collect());
    }

    async fn admit(&self, count: usize) -> Vec<Verdict> {
        self.admissions.admit(request(1), subjects(count)).await
    }

    /// So many requests with one subject each, of which a canary has its share.
    async fn admit_each(&self, requests: usize) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for number in 0..requests {
            let asked = Arc::new(Request { id: format!("req_{number}"), ..(*request(1)).clone() });
            verdicts.extend(self.admissions.admit(asked, subjects(1)).await);
        }
        verdicts
    }

    /// How many settlements had each ending, in the order of the WIT's enum, once all are done.
    async fn endings(&self) -> [u64; 6] {
        self.admissions.shutdown().await;
        let mut endings = [0; 6];
        for (case, count) in endings.iter_mut().enumerate() {
            *count = self.ended(case).await;
        }
        endings
    }

    /// How many settlements had this ending so far.
    async fn ended(&self, case: usize) -> u64 {
        let entry = self.home.kv("ended").get(&format!("e{case}")).await.unwrap();
        entry.map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap())
    }
}

fn guest(admit: &str, settle: &str, manifest: &str) -> Arc<Generation> {
    Arc::new(load(&admission(admit, settle), manifest, &Default::default()).unwrap())
}

fn plugin(admit: &str, manifest: &str) -> Arc<ActivePlugin> {
    ActivePlugin::new(guest(admit, SETTLED, &format!("{BARE}order = 2\n{manifest}")))
}

fn names(verdicts: &[Verdict]) -> Vec<&'static str> {
    let name = |verdict: &Verdict| match verdict {
        Verdict::Allowed(_) => "allowed",
        Verdict::Denied { .. } => "denied",
        Verdict::Failed { .. } => "failed",
        Verdict::Busy => "busy",
    };
    verdicts.iter().map(name).collect()
}

#[tokio::test]
async fn an_empty_chain_allows_everything() {
    let chain = Chain::new();
    assert_eq!(names(&chain.admit(2).await), ["allowed", "allowed"]);
    assert_eq!(chain.admissions.open_leases(), 0);
}

#[tokio::test]
async fn each_allow_is_settled_once_with_its_ending() {
    let chain = Chain::new();
    chain.install(&[&chain.counting()]);
    for verdict in chain.admit(3).await {
        let Verdict::Allowed(lease) = verdict else { panic!("not allowed") };
        lease.renew(usage(Ending::Completed));
        lease.settle(usage(Ending::Completed));
    }
    assert_eq!(chain.endings().await, [3, 3, 0, 0, 0, 0]);
}

#[tokio::test]
async fn an_allow_without_a_ticket_is_told_only_of_what_went_wrong_upstream() {
    let chain = Chain::new();
    chain.install(&[&chain.load(&ticketless("ended")), &plugin(DENY_LAST, "")]);
    let answered = |ending, status| Usage { status: Some(status), ..usage(ending) };
    let ends = [
        answered(Ending::Completed, 200),
        answered(Ending::Completed, 404),
        answered(Ending::ClientAborted, 200),
        answered(Ending::ClientAborted, 503),
        answered(Ending::UpstreamError, 200),
        answered(Ending::TimedOut, 200),
    ];
    for end in ends {
        let mut verdicts = chain.admit(2).await;
        assert_eq!(names(&verdicts), ["allowed", "denied"]);
        let Verdict::Allowed(lease) = verdicts.swap_remove(0) else { panic!("not allowed") };
        lease.renew(usage(Ending::Completed));
        lease.settle(end);
    }
    assert_eq!(chain.endings().await, [0, 1, 1, 1, 1, 0]);
    assert_eq!(chain.admissions.open_leases(), 0);
}

#[tokio::test]
async fn a_dropped_lease_is_settled_as_client_aborted() {
    let chain = Chain::new();
    chain.install(&[&chain.counting()]);
    let verdicts = chain.admit(2).await;
    assert_eq!(chain.admissions.open_leases(), 2);
    drop(verdicts);
    assert_eq!(chain.endings().await, [0, 0, 2, 0, 0, 0]);
    assert_eq!(chain.admissions.open_leases(), 0);
}

#[tokio::test]
async fn leases_of_a_dropped_caller_are_settled() {
    let chain = Chain::new();
    // The endless plugin runs until its deadline, so the caller is gone while the chain is asked.
    let endless = "(loop $again (br $again)) unreachable";
    chain.install(&[&chain.counting(), &plugin(endless, "on-error = \"allow\"")]);
    tokio::select! {
        biased;
        _ = chain.admit(2) => panic!("the answer came before the caller was gone"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(chain.endings().await, [0, 0, 2, 0, 0, 0]);
}

#[tokio::test]
async fn what_a_later_plugin_denies_was_never_sent() {
    let chain = Chain::new();
    chain.install(&[&plugin(DENY_LAST, ""), &chain.counting()]);
    let verdicts = chain.admit(2).await;
    assert_eq!(names(&verdicts), ["allowed", "denied"]);
    drop(verdicts);
    assert_eq!(chain.endings().await, [0, 0, 1, 0, 0, 1]);
}

#[tokio::test]
async fn a_trap_refuses_or_passes_as_the_manifest_says() {
    let chain = Chain::new();
    chain.install(&[&chain.counting(), &plugin(TRAP, "on-error = \"deny\"")]);
    assert_eq!(names(&chain.admit(2).await), ["failed", "failed"]);
    chain.install(&[&chain.counting(), &plugin(TRAP, "on-error = \"allow\"")]);
    let verdicts = chain.admit(2).await;
    assert_eq!(names(&verdicts), ["allowed", "allowed"]);
    drop(verdicts);
    assert_eq!(chain.endings().await, [0, 0, 2, 0, 0, 2]);
}

#[tokio::test]
async fn a_wrong_number_of_decisions_is_a_failure() {
    let chain = Chain::new();
    chain.install(&[&plugin("(call $allow (i32.const 3))", "")]);
    let verdicts = chain.admit(2).await;
    let Some(Verdict::Failed { reason, .. }) = verdicts.first() else { panic!("not failed") };
    assert_eq!(reason, "gave 3 decisions for 2 subjects");
}

#[tokio::test]
async fn a_ticket_over_its_limit_is_a_failure() {
    let chain = Chain::new();
    chain.install(&[&plugin(LARGE_TICKET, "")]);
    assert_eq!(names(&chain.admit(1).await), ["failed"]);
}

#[tokio::test]
async fn a_full_settle_queue_admits_nobody() {
    let chain = Chain::with_places(3);
    chain.install(&[&chain.counting()]);
    let first = chain.admit(2).await;
    assert_eq!(names(&first), ["allowed", "allowed"]);
    assert_eq!(names(&chain.admit(2).await), ["busy", "busy"]);
    drop(first);
    assert_eq!(chain.endings().await, [0, 0, 2, 0, 0, 0]);
    assert_eq!(names(&chain.admit(1).await), ["busy"]);
}

#[tokio::test]
async fn a_settlement_that_fails_is_tried_again_alone() {
    let chain = Chain::new();
    // Fails on batches, and settles a single one.
    let alone = "(if (i32.gt_u (local.get 1) (i32.const 1)) (then (return (call $failed)))) (call $settled)";
    let picky = guest(ALLOW, alone, BARE);
    chain.install(&[&ActivePlugin::new(picky.clone())]);
    drop(chain.admit(4).await);
    chain.admissions.shutdown().await;
    assert_eq!(picky.counters().errors, 3);
    assert_eq!(picky.counters().calls, 1 + 3 + 4);
}

/// Its retries once filled the settler, so that nothing of any plugin was settled for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_never_settles_holds_up_no_other() {
    let chain = Chain::new();
    let endless = guest(ALLOW, "(loop $on (br $on)) unreachable", &format!("{BARE}order = 2"));
    chain.install(&[&chain.counting(), &ActivePlugin::new(endless)]);
    for _ in 0..1_000 {
        drop(chain.admit(3).await);
    }
    let all = async {
        while chain.ended(2).await < 3_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("the other plugin is not told");
}

#[tokio::test]
async fn a_canary_that_answers_its_calls_passes_and_takes_over() {
    let chain = Chain::new();
    let active = plugin(ALLOW, "");
    chain.install(&[&active]);
    let new = guest(ALLOW, SETTLED, BARE);
    let canary = active.start_canary(new.clone(), 2);
    assert_eq!(canary.ended(Duration::ZERO).await, CanaryEnd::Quiet);
    for _ in 0..3 {
        assert_eq!(names(&chain.admit(1).await), ["allowed"]);
    }
    assert_eq!(canary.ended(Duration::from_secs(10)).await, CanaryEnd::Passed);
    let old = active.promote(new.clone());
    assert!(Arc::ptr_eq(&active.current(), &new));
    assert_eq!(old.name(), new.name());
}

/// A retry on another account minutes after the arrival once turned back the time of that account's quota.
#[tokio::test]
async fn a_request_that_has_waited_is_admitted_at_the_present_time() {
    let chain = Chain::new();
    let present = "(if (i64.lt_u (local.get 2) (i64.const 999500)) (then unreachable))";
    chain.install(&[&plugin(&format!("{present}{ALLOW}"), "")]);
    for (now_ms, expected) in [(999_400, 1_000_500), (999_500, 999_500), (2_000_000, 2_000_000)] {
        let waited = Arc::new(Request { now_ms, ..(*request(1)).clone() });
        assert_eq!(chain.admissions.at_present(waited.clone()).now_ms, expected);
        assert_eq!(names(&chain.admissions.admit(waited, subjects(2)).await), ["allowed", "allowed"]);
    }
}

#[tokio::test]
async fn a_canary_that_traps_is_answered_by_the_old_generation() {
    let chain = Chain::new();
    let active = plugin(ALLOW, "");
    chain.install(&[&active]);
    let canary = active.start_canary(guest(TRAP, SETTLED, BARE), 10);
    assert_eq!(names(&chain.admit(2).await), ["allowed", "allowed"]);
    let CanaryEnd::Failed(reason) = canary.ended(Duration::from_secs(10)).await else { panic!("no failure") };
    assert!(matches!(reason, CallError::Trap(_)), "{reason}");
    active.abandon();
}

/// A generation with a number of its own, that counts in the kv store `name` what it settles.
fn numbered(chain: &Chain, name: &str, number: u64) -> Arc<Generation> {
    let manifest = format!("name = \"counting\"\n[grants.kv]\n{name} = \"read-write\"");
    let identity = Identity { digest: "0".repeat(64), number };
    let stores = chain.home.stores(&[name]);
    let engine = Engine::new().unwrap();
    let component = engine.compile(&counting(name)).unwrap();
    let manifest = Manifest::parse(&manifest).unwrap();
    Arc::new(Generation::new(&engine, &component, manifest, identity, &stores).unwrap())
}

fn half() -> Share {
    Share::parse("50%").unwrap()
}

/// Clients were once refused for it, and the canary was promoted.
#[tokio::test]
async fn a_ticket_over_its_limit_is_a_failure_of_the_canary_that_gave_it() {
    let chain = Chain::new();
    let (old, new) = (guest(ALLOW, SETTLED, BARE), guest(LARGE_TICKET, SETTLED, BARE));
    let active = ActivePlugin::new(old);
    chain.install(&[&active]);
    let canary = active.start_share(new.clone(), half());
    assert!(chain.admit_each(100).await.iter().all(|verdict| matches!(verdict, Verdict::Allowed(_))));
    let (sample, _) = canary.samples();
    assert!(sample.calls > 20 && sample.failures == sample.calls, "{sample:?}");
    let fault = canary.fault().unwrap();
    assert!(fault.ends_with("calls failed, of the version before 0 of 100"), "{fault}");
    let canary = active.start_canary(new, 10);
    assert_eq!(names(&chain.admit(1).await), ["allowed"]);
    let CanaryEnd::Failed(CallError::Guest(text)) = canary.ended(Duration::from_secs(10)).await else {
        panic!("no failure")
    };
    assert_eq!(text, "a ticket of 1025 bytes, more than 1024");
}

/// A settlement that is tried again may meet another canary than the one that allowed.
#[tokio::test]
async fn what_a_canary_admitted_is_never_settled_by_the_next_one() {
    let chain = Chain::new();
    let [old, new, next] =
        [("old", 1), ("new", 2), ("next", 3)].map(|(name, number)| numbered(&chain, name, number));
    let active = ActivePlugin::new(old);
    active.start_share(new, half());
    let of_new = Arc::new(vec![Settlement {
        request_id: "request".into(),
        now_ms: 1_000_000,
        model: "gpt".into(),
        subject: subjects(1)[0].identity(),
        ticket: None,
        usage: usage(Ending::Completed),
    }]);
    active.settle(&of_new, Some(2)).await.unwrap();
    active.start_share(next, half());
    active.settle(&of_new, Some(2)).await.unwrap();
    let settled =
        async |name: &str| chain.home.kv(name).get("e1").await.unwrap().map(|entry| entry.value.to_vec());
    assert_eq!(settled("new").await, Some(b"1".to_vec()));
    assert_eq!(settled("old").await, Some(b"1".to_vec()));
    assert_eq!(settled("next").await, None);
}

#[tokio::test]
async fn a_request_is_settled_by_the_generation_that_admitted_it() {
    let chain = Chain::new();
    let (old, new) = (numbered(&chain, "old", 1), numbered(&chain, "new", 2));
    let active = ActivePlugin::new(old.clone());
    chain.install(&[&active]);
    let canary = active.start_share(new.clone(), half());
    let verdicts = chain.admit_each(200).await;
    let admitted = [old.counters().calls, new.counters().calls];
    assert!(admitted[0] + admitted[1] == 200 && admitted.iter().all(|calls| *calls > 60), "{admitted:?}");
    let (of_new, of_old) = canary.samples();
    assert_eq!([of_old.calls, of_new.calls], admitted);
    drop(verdicts);
    chain.admissions.shutdown().await;
    for (name, calls) in ["old", "new"].into_iter().zip(admitted) {
        let settled = chain.home.kv(name).get("e2").await.unwrap().unwrap();
        assert_eq!(settled.value.as_ref(), calls.to_string().as_bytes(), "{name}");
    }
}

#[tokio::test]
async fn what_a_canary_admitted_is_settled_though_it_was_taken_back() {
    let chain = Chain::new();
    let (old, new) = (numbered(&chain, "old", 1), numbered(&chain, "new", 2));
    let active = ActivePlugin::new(old);
    chain.install(&[&active]);
    active.start_share(new, half());
    let verdicts = chain.admit_each(20).await;
    active.abandon();
    drop(verdicts);
    chain.admissions.shutdown().await;
    assert_eq!(chain.home.kv("old").get("e2").await.unwrap().unwrap().value.as_ref(), b"20");
    assert!(chain.home.kv("new").get("e2").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_load_fail_no_request() {
    let chain = Arc::new(Chain::new());
    let active = chain.counting();
    chain.install(&[&active]);
    let load = async |chain: Arc<Chain>| {
        for _ in 0..500 {
            assert_eq!(names(&chain.admit(2).await), ["allowed", "allowed"]);
        }
    };
    let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(load(chain.clone()))).collect();
    for _ in 0..50 {
        let new = chain.counting().current();
        new.warm().await.unwrap();
        active.promote(new);
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(chain.endings().await, [0, 0, 4_000, 0, 0, 0]);
}
