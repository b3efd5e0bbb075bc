mod canary;
mod events;
mod start;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tollgate_store::sql::Statement;
use tollgate_store::{BlobOptions, KvOptions, Options, PutOptions};

use super::*;
use crate::plugin::admission::Ending;
use crate::plugin::fixture::{admission, counting, encode, request, subjects, usage};
use crate::plugin::shipped::{SHIPPED, Shipped};
use crate::plugin::{Share, Verdict, limits};

/// Its deadline forgives a busy machine.
const MANIFEST: &str = "name = \"guest\"\nlimits = { admit-deadline-ms = 2_000 }\n";
const SETTLED: &str = "(call $settled)";

/// A registry on a data directory.
struct House {
    registry: Registry,
    admissions: Admissions,
    store: Store,
}

impl House {
    async fn open(home: &Path, shipped: &[Shipped]) -> House {
        House::trusting(Vec::new(), home, shipped).await
    }

    async fn trusting(trusted_keys: Vec<PublicKey>, home: &Path, shipped: &[Shipped]) -> House {
        let store = Store::open(&home.join("store.redb"), Options::default()).unwrap();
        let kv = ["granted", "blacklist", "quota", "hot-keys"]
            .map(|name| (name.to_owned(), store.kv(name, KvOptions::default()).unwrap()));
        let sql = [("gateway".to_owned(), store.database("gateway").unwrap())];
        let clock: Clock = Arc::new(|| 1_000_000);
        let admissions = Admissions::new(clock.clone());
        let setup = Setup {
            store: store.clone(),
            stores: Stores::new(kv.into(), sql.into()),
            data_dir: home.to_owned(),
            secret: Arc::from(&b"secret"[..]),
            compiler: Compiler::Here,
            admissions: admissions.clone(),
            clock,
            event_queue_bytes: 1 << 20,
            disabled: vec!["disabled".to_owned()],
            keep_versions: limits::KEPT_VERSIONS,
            trusted_keys,
        };
        let registry = Registry::start_with(setup, shipped).await.unwrap();
        House { registry, admissions, store }
    }

    async fn close(self) {
        self.admissions.shutdown().await;
        self.registry.shutdown().await;
        self.store.close().await.unwrap();
    }

    async fn push(&self, wasm: Vec<u8>) -> Result<Pushed, Refusal> {
        self.registry.push("guest", wasm, Some(MANIFEST.to_owned()), "tester").await
    }

    /// Begins a canary of half of the requests.
    async fn begin(&self, wasm: Vec<u8>, manifest: &str, promote_after: Option<Duration>) -> Pushed {
        let trial = Some(Trial { share: Share::parse("50%").unwrap(), promote_after });
        let push = Push { wasm, manifest: Some(manifest.to_owned()), may_grant: true, trial };
        self.registry.push_as("guest", push, "tester").await.unwrap()
    }

    async fn only(&self) -> PluginInfo {
        let mut list = self.registry.list().await.unwrap();
        assert_eq!(list.len(), 1, "{list:?}");
        list.remove(0)
    }

    async fn admit(&self, tokens: u64) -> Verdict {
        self.admissions.admit(request(tokens), subjects(1)).await.pop().unwrap()
    }

    async fn is_allowed(&self) -> bool {
        match self.admit(1).await {
            Verdict::Allowed(lease) => {
                lease.settle(usage(Ending::Completed));
                true
            }
            _ => false,
        }
    }

    fn generation(&self) -> Arc<Generation> {
        self.registry.inner.plugins.plugin("guest").unwrap().current()
    }
}

/// Allows everything; versions differ in a number that does nothing.
fn good(version: u32) -> Vec<u8> {
    admission(&format!("(drop (i32.const {version})) (call $allow (local.get 15))"), SETTLED)
}

/// Traps on requests of 666 tokens.
fn touchy() -> Vec<u8> {
    let admit =
        "(if (i64.eq (local.get 10) (i64.const 666)) (then unreachable)) (call $allow (local.get 15))";
    admission(admit, SETTLED)
}

/// Has an `init` that does this.
fn with_init(body: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 32) "no")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "tollgate:policy/lifecycle@0.1.0#init") (result i32) {body}))"#
    );
    encode(&module, "export tollgate:policy/lifecycle@0.1.0;")
}

fn shipped(wasm: Vec<u8>) -> Shipped {
    Shipped { wasm: wasm.leak(), manifest: MANIFEST }
}

/// Waits for something that other tasks bring about.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
}

#[tokio::test]
async fn what_was_pushed_serves_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[shipped(good(1))]).await;
    let by = house.only().await.pushed_by;
    assert_eq!(by, "shipped");
    let pushed = house.push(good(2)).await.unwrap();
    assert!(house.is_allowed().await);
    house.close().await;
    let house = House::open(home.path(), &[shipped(good(1))]).await;
    let info = house.only().await;
    assert_eq!((info.digest, info.generation), (pushed.digest, pushed.generation));
    assert_eq!((info.pushed_by.as_str(), info.hooks), ("tester", vec!["admission".to_owned()]));
    assert!(house.is_allowed().await);
    let next = house.push(good(3)).await.unwrap();
    assert!(next.generation > pushed.generation);
    house.close().await;
}

#[tokio::test]
async fn what_cannot_run_is_refused_and_the_old_version_serves_on() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let first = house.push(good(1)).await.unwrap();
    let cases = [
        (b"no component".to_vec(), "no WebAssembly"),
        (counting("granted"), "tollgate:storage/kv@0.1.0, which the manifest does not grant"),
        (with_init("unreachable"), "init: trapped"),
        (with_init("(loop $on (br $on)) unreachable"), "init: ran over its deadline of 400 ms"),
        (
            with_init(
                "(i32.store8 (i32.const 0) (i32.const 1)) (i32.store (i32.const 4) (i32.const 32))
                       (i32.store (i32.const 8) (i32.const 2)) i32.const 0",
            ),
            "init: failed: no",
        ),
    ];
    for (wasm, reason) in cases {
        let manifest = "name = \"guest\"\n[limits]\ninit-deadline-ms = 400\n".to_owned();
        let refusal =
            house.registry.push("guest", wasm, Some(manifest), "tester").await.unwrap_err().to_string();
        assert!(refusal.contains(reason), "{refusal}");
        assert_eq!(house.only().await.generation, first.generation);
        assert!(house.is_allowed().await);
    }
    assert_eq!(house.only().await.generations.len(), 1);
    house.close().await;
}

#[tokio::test]
async fn names_and_manifests_must_fit() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let push = |name, manifest: Option<&'static str>| {
        house.registry.push(name, good(1), manifest.map(str::to_owned), "tester")
    };
    assert!(matches!(push("guest", None).await, Err(Refusal::Manifest(_))));
    assert!(matches!(push("other", Some(MANIFEST)).await, Err(Refusal::Name(_))));
    assert!(matches!(push("disabled", Some("name = \"disabled\"")).await, Err(Refusal::Name(_))));
    assert!(matches!(push("guest", Some("nonsense")).await, Err(Refusal::Manifest(_))));
    assert!(matches!(house.registry.rollback("guest", None, "tester").await, Err(Refusal::NoSuchPlugin(_))));
    house.close().await;
}

#[tokio::test]
async fn without_a_manifest_the_present_grants_stay() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let granted = format!("{MANIFEST}order = 5\n[grants.kv]\ngranted = \"read-write\"\n");
    let first = house.registry.push("guest", counting("granted"), Some(granted), "tester").await.unwrap();
    let again = house.registry.push("guest", counting("granted"), None, "tester").await.unwrap();
    assert!(again.generation > first.generation && again.digest == first.digest);
    assert_eq!(house.only().await.order, 5);
    assert!(house.is_allowed().await);
    house.close().await;
}

#[tokio::test]
async fn rollback_brings_back_the_version_before_or_the_one_named() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let rollback = |to| house.registry.rollback("guest", to, "tester");
    let one = house.push(good(1)).await.unwrap();
    assert!(matches!(rollback(None).await, Err(Refusal::NoSuchVersion(_))));
    let two = house.push(good(2)).await.unwrap();
    let three = house.push(good(3)).await.unwrap();
    let back = rollback(None).await.unwrap();
    assert_eq!(back.digest, two.digest);
    assert!(back.generation > three.generation);
    assert_eq!(rollback(None).await.unwrap().digest, one.digest);
    let prefix = three.digest[..12].to_uppercase();
    assert_eq!(rollback(Some(&prefix)).await.unwrap().digest, three.digest);
    assert!(matches!(rollback(Some("")).await, Err(Refusal::NoSuchVersion(_))));
    assert!(matches!(rollback(Some("xyz")).await, Err(Refusal::NoSuchVersion(_))));
    let states: Vec<_> = house.only().await.generations.iter().map(|version| version.state).collect();
    use State::{RolledBack, Serving, Superseded};
    assert_eq!(states, [Serving, RolledBack, RolledBack, RolledBack, Superseded, Superseded]);
    assert!(house.is_allowed().await);
    house.close().await;
}

/// A canary with wider grants has the digest of what served, and its grants were not to stay.
#[tokio::test]
async fn rollback_to_a_version_that_was_also_a_canary_brings_back_what_served() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let one = house.push(good(1)).await.unwrap();
    house.push(good(2)).await.unwrap();
    let wider = format!("{MANIFEST}[grants.kv]\ngranted = \"read-write\"\n");
    house.begin(good(1), &wider, None).await;
    house.registry.rollback("guest", None, "tester").await.unwrap();
    let back = house.registry.rollback("guest", Some(&one.digest), "tester").await.unwrap();
    assert_eq!(back.digest, one.digest);
    assert_eq!(house.registry.manifest("guest").unwrap(), MANIFEST);
    house.close().await;
}

#[tokio::test]
async fn a_rollback_finds_what_lies_behind_a_hundred_bad_versions() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let one = house.push(good(1)).await.unwrap();
    let two = house.push(good(2)).await.unwrap();
    let bad = "WITH RECURSIVE later(generation) AS (
            SELECT max(generation) + 1 FROM plugin_generations
            UNION ALL SELECT generation + 1 FROM later LIMIT 200)
        INSERT INTO plugin_generations(generation, name, digest, manifest, pushed_ms, pushed_by, state)
        SELECT generation, 'guest', 'bad', '', 0, 'tester', 'rolled-back' FROM later";
    let database = house.store.database("gateway").unwrap();
    database.execute(Statement::new(bad, Vec::new())).await.unwrap();
    drop(database);
    house.close().await;
    let house = House::open(home.path(), &[]).await;
    let generations = house.registry.plugin("guest").await.unwrap().generations;
    let good = generations.iter().filter(|version| version.digest != "bad").map(|version| version.generation);
    assert_eq!(good.collect::<Vec<_>>(), [two.generation, one.generation]);
    let back = house.registry.rollback("guest", None, "tester").await.unwrap();
    assert_eq!(back.digest, one.digest);
    house.close().await;
}

#[tokio::test]
async fn a_burst_of_traps_rolls_back_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let one = house.push(good(1)).await.unwrap();
    let two = house.push(touchy()).await.unwrap();
    assert_eq!(house.only().await.state, "watched");
    for _ in 0..limits::BURST_TRAPS {
        assert!(matches!(house.admit(666).await, Verdict::Failed { .. }));
    }
    eventually(async || house.only().await.generation == one.generation).await;
    assert!(matches!(house.admit(666).await, Verdict::Allowed(_)));
    let bad = house.only().await.generations.remove(0);
    assert_eq!((bad.generation, bad.state), (two.generation, State::RolledBack));
    assert!(bad.reason.unwrap().starts_with("5 of 5 calls trapped"));
    house.close().await;
    let house = House::open(home.path(), &[]).await;
    assert_eq!(house.only().await.generation, one.generation);
    house.close().await;
}

/// As those from Python may be. A row of a table holds less.
#[tokio::test]
async fn a_component_as_large_as_any_may_be_is_kept_and_serves_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let mut large = good(1);
    // A custom section named "x": 32 MiB in all, of bytes that nothing makes smaller.
    let rest = limits::COMPONENT_BYTES - large.len() - 6;
    large.push(0);
    large.extend((0..5).map(|place| ((rest >> (7 * place)) & 0x7f) as u8 | if place < 4 { 0x80 } else { 0 }));
    large.extend([1, b'x']);
    let mut random = fastrand::Rng::with_seed(7);
    large.resize_with(limits::COMPONENT_BYTES, || random.u8(..));
    let pushed = house.push(large).await.unwrap();
    house.close().await;
    let house = House::open(home.path(), &[]).await;
    assert_eq!(house.only().await.generation, pushed.generation);
    assert!(house.is_allowed().await);
    house.close().await;
}

/// A store that did not answer at that moment once left the bad version serving for good.
#[tokio::test]
async fn a_rollback_that_fails_is_tried_again_and_passes_over_what_does_not_load() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let one = house.push(good(1)).await.unwrap();
    let two = house.push(good(2)).await.unwrap();
    house.push(touchy()).await.unwrap();
    let components = house.store.container("host/components", BlobOptions::default()).unwrap();
    components.delete_many(&[one.digest.clone(), two.digest.clone()]).await.unwrap();
    for _ in 0..limits::BURST_TRAPS {
        assert!(matches!(house.admit(666).await, Verdict::Failed { .. }));
    }
    eventually(async || house.only().await.state == "serving").await;
    components.put(&one.digest, &good(1), PutOptions::default()).await.unwrap();
    eventually(async || house.only().await.generation == one.generation).await;
    drop(components);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_always_late_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let house = Arc::new(House::open(home.path(), &[]).await);
    house.push(good(1)).await.unwrap();
    let traffic = AbortOnDropHandle::new(tokio::spawn({
        let house = house.clone();
        async move {
            loop {
                assert!(house.is_allowed().await);
            }
        }
    }));
    let endless = admission("(loop $on (br $on)) unreachable", SETTLED);
    let manifest = "name = \"guest\"\n[limits]\nadmit-deadline-ms = 100\n".to_owned();
    let refusal = house.registry.push("guest", endless, Some(manifest), "tester").await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Start(reason) if reason.contains("deadline")), "{refusal}");
    assert!(!traffic.is_finished());
}

#[tokio::test]
async fn a_burst_with_nothing_to_go_back_to_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let only = house.push(touchy()).await.unwrap();
    for _ in 0..limits::BURST_TRAPS {
        house.admit(666).await;
    }
    eventually(async || house.only().await.state == "serving").await;
    assert_eq!(house.only().await.generation, only.generation);
    assert!(house.is_allowed().await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_traps_at_once_answers_no_request() {
    let home = tempfile::tempdir().unwrap();
    let house = Arc::new(House::open(home.path(), &[]).await);
    let one = house.push(good(1)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = tokio::spawn({
        let (house, stop) = (house.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let verdict = house.admit(666).await;
                assert!(matches!(verdict, Verdict::Allowed(_)), "{verdict:?}");
                tokio::task::yield_now().await;
            }
        }
    });
    let refusal = house.push(touchy()).await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Start(reason) if reason.contains("trapped")), "{refusal}");
    stop.store(true, Ordering::Relaxed);
    traffic.await.unwrap();
    assert_eq!(house.only().await.generation, one.generation);
    Arc::into_inner(house).unwrap().close().await;
}

#[tokio::test]
async fn fifty_swaps_leave_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let mut old: Vec<Weak<Generation>> = Vec::new();
    for version in 0..50 {
        house.push(good(version % 3)).await.unwrap();
        assert!(house.is_allowed().await);
        old.push(Arc::downgrade(&house.generation()));
    }
    old.pop();
    eventually(async || old.iter().all(|generation| generation.strong_count() == 0)).await;
    house.close().await;
}

#[tokio::test]
async fn the_shipped_plugins_serve_each_in_its_place() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), SHIPPED).await;
    let list = house.registry.list().await.unwrap();
    let hooks: BTreeMap<_, _> = list.iter().map(|info| (info.name.as_str(), info.hooks.join(" "))).collect();
    assert_eq!(
        hooks,
        BTreeMap::from([
            ("blacklist", "admission".to_owned()),
            ("ingestion", "ingestion lifecycle".to_owned()),
            ("quota", "admission".to_owned()),
            ("sync", "jobs".to_owned()),
        ])
    );
    assert!(house.is_allowed().await);
    let chain: Vec<_> =
        list.iter().filter(|info| info.hooks[0] == "admission").map(|info| &info.name).collect();
    assert_eq!(chain, ["blacklist", "quota"]);
    assert!(house.registry.run_job("sync", "hot-keys").await.is_ok());
    assert!(matches!(house.registry.run_job("quota", "sync").await, Err(JobError::NoSuchJob { .. })));
    house.close().await;
}

#[tokio::test]
async fn compiled_code_that_was_tampered_with_is_compiled_again() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    house.push(good(1)).await.unwrap();
    house.close().await;
    for entry in std::fs::read_dir(home.path().join("compiled")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"something else").unwrap();
    }
    let house = House::open(home.path(), &[]).await;
    assert!(house.is_allowed().await);
    house.close().await;
}
