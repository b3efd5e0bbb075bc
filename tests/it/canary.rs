//! A new version of a policy answers a share of the requests first, and serves or goes by what it does with them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use crate::support::component::shipped;
use crate::support::guest::ALLOW;
use crate::support::{Behaviour, Client, Guest, Server, Setup, Upstream, eventually};

/// Time enough for a guest that is slow on a machine that is busy: it is to be found slow, and not late.
const MANIFEST: &str = "name = \"guest\"\n[limits]\nadmit-deadline-ms = 5_000\n";

struct House {
    server: Server,
    client: Client,
    _upstream: Upstream,
}

impl House {
    /// A server with a policy `guest` that admits everybody.
    async fn new() -> House {
        let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
        let server = Setup::with(&upstream).start();
        let client = server.client(&server.key("user", &["--rpm", "100000000"]));
        let house = House { server, client, _upstream: upstream };
        std::fs::write(house.file("guest.toml"), MANIFEST).unwrap();
        house.push(&Guest::new(), &["--manifest", house.file("guest.toml").to_str().unwrap()]);
        house
    }

    fn file(&self, name: &str) -> PathBuf {
        self.server.home().join(name)
    }

    /// Pushes a guest; what was said.
    fn push(&self, guest: &Guest, more: &[&str]) -> String {
        let file = self.file("guest.wasm");
        std::fs::write(&file, guest.build()).unwrap();
        self.server.cli_ok(&[&["plugin", "push", file.to_str().unwrap()], more].concat())
    }

    fn inspect(&self) -> Value {
        serde_json::from_str(&self.server.cli_ok(&["plugin", "inspect", "guest", "--json"])).unwrap()
    }

    /// The generation that serves, and the states of all, newest first.
    fn state(&self) -> (u64, Vec<String>) {
        let found = self.inspect();
        let states = found["generations"].as_array().unwrap().iter();
        let states = states.map(|generation| generation["state"].as_str().unwrap().to_owned()).collect();
        (found["generation"].as_u64().unwrap(), states)
    }

    /// Why the canary was taken back, once it was and that is written down, which comes after.
    async fn reason(&self) -> String {
        eventually("the canary is taken back", || async {
            let found = self.inspect();
            let newest = &found["generations"][0];
            let reason = (found["canary"].is_null() && newest["state"] == "rolled-back")
                .then(|| newest["reason"].as_str().unwrap().to_owned());
            reason.filter(|reason| !reason.ends_with("was not promoted"))
        })
        .await
    }
}

/// Requests, several at once, until it is stopped.
struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    /// None of them may fail.
    fn start(client: &Client) -> Traffic {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |_| {
            let (client, stop, answered) = (client.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.chat("gpt-test").await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Traffic { tasks: (0..4).map(one).collect(), stop, answered }
    }

    /// How many were answered, each of them with 200.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// Another version of the guest, which does the same.
fn another() -> Guest {
    Guest::new().define("(global i32 (i32.const 7))")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_has_its_share_of_the_requests_until_it_is_promoted() {
    let house = House::new().await;
    let before = house.state().0;
    let said = house.push(&another(), &["--canary", "20%"]);
    assert!(said.contains("serves 20% of the requests"), "{said}");
    assert_eq!(house.state(), (before, vec!["canary".to_owned(), "serving".to_owned()]));
    for _ in 0..1_000 {
        assert_eq!(house.client.chat("gpt-test").await.status, 200);
    }
    let canary = &house.inspect()["canary"];
    let [new, old] = ["new", "old"].map(|arm| canary[arm]["calls"].as_u64().unwrap());
    assert!(new + old == 1_000 && (130..270).contains(&new), "{canary}");
    let calls = "tollgate_plugin_canary_calls_total";
    assert_eq!(house.server.metric_with(calls, &["plugin=\"guest\"", "version=\"new\""]).await, new as f64);
    assert_eq!(house.server.metric_with("tollgate_plugin_canary_share", &["plugin=\"guest\""]).await, 0.2);
    let shown = house.server.cli_ok(&["plugin", "inspect", "guest"]);
    assert!(shown.contains("20% of the requests: ") && shown.contains("0 failed"), "{shown}");

    house.server.cli_ok(&["plugin", "promote", "guest"]);
    assert_eq!(house.state(), (before + 1, vec!["serving".to_owned(), "superseded".to_owned()]));
    assert_eq!(house.server.cli(&["plugin", "promote", "guest"]).status.code(), Some(1));
    assert_eq!(house.client.chat("gpt-test").await.status, 200);
    let audit = house.server.cli_ok(&["audit", "list"]);
    assert!(audit.contains("plugin canary") && audit.contains("plugin promote"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_traps_is_taken_back_by_itself_and_fails_no_request() {
    let house = House::new().await;
    let before = house.state().0;
    let traffic = Traffic::start(&house.client);
    house.push(&Guest::new().admit("unreachable"), &["--canary", "50%"]);
    let reason = house.reason().await;
    assert!(reason.starts_with("a call failed: trapped"), "{reason}");
    eventually("it is in the audit log", || async {
        let audit = house.server.cli_ok(&["audit", "list"]);
        audit.lines().any(|line| line.contains("\thost\tplugin rollback\tguest")).then_some(())
    })
    .await;
    assert_eq!(house.state().0, before);
    assert!(traffic.stop().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_is_slower_is_taken_back_by_itself() {
    let house = House::new().await;
    let before = house.state().0;
    let traffic = Traffic::start(&house.client);
    let slow = format!(
        "(local $left i32) (local.set $left (i32.const 5000000))
        (loop $on (br_if $on (local.tee $left (i32.sub (local.get $left) (i32.const 1))))) {ALLOW}"
    );
    house.push(&Guest::new().admit(&slow), &["--canary", "50%", "--for", "1h"]);
    let reason = house.reason().await;
    assert!(reason.contains("it is slower"), "{reason}");
    assert_eq!(house.state().0, before);
    traffic.stop().await;
}

/// That may be what it is for, so whoever pushed it decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_refuses_more_is_shown_to_and_not_taken_back() {
    let house = House::new().await;
    let refuses = format!("(drop {ALLOW}) (i32.store8 (i32.const 1024) (i32.const 1)) (i32.const 512)");
    house.push(&Guest::new().admit(&refuses), &["--canary", "50%"]);
    let mut refused = 0;
    for _ in 0..100 {
        refused += u64::from(house.client.chat("gpt-test").await.status != 200);
    }
    let canary = &house.inspect()["canary"];
    let [new, old] = ["new", "old"].map(|arm| canary[arm]["refusals"].as_u64().unwrap());
    assert!((20..80).contains(&refused) && (new, old) == (refused, 0), "{refused} refused: {canary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_is_as_good_serves_when_its_time_is_over() {
    let house = House::new().await;
    let before = house.state().0;
    let traffic = Traffic::start(&house.client);
    house.push(&another(), &["--canary", "50%", "--for", "1s"]);
    eventually("it is promoted", || async { (house.state().0 > before).then_some(()) }).await;
    assert_eq!(house.state().1, ["serving", "superseded"]);
    traffic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_undone_by_a_rollback_a_push_and_a_restart() {
    let mut house = House::new().await;
    let before = house.state().0;
    house.push(&another(), &["--canary", "5%"]);
    house.server.cli_ok(&["plugin", "rollback", "guest"]);
    assert_eq!(house.state(), (before, vec!["rolled-back".to_owned(), "serving".to_owned()]));

    house.push(&another(), &["--canary", "5%"]);
    house.server.crash_and_restart();
    assert_eq!(house.state().0, before, "a restart begins with the version that served");
    assert_eq!(house.inspect()["canary"], Value::Null);

    house.push(&another(), &["--canary", "5%"]);
    house.push(&Guest::new(), &[]);
    assert_eq!(house.inspect()["canary"], Value::Null);
    let (serving, states) = house.state();
    assert!(serving > before && states[..2] == ["serving", "rolled-back"], "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_requests_to_share_has_no_canary() {
    let house = House::new().await;
    let refused = |args: &[&str], code: i32, why: &str| {
        let output = house.server.cli(&[&["plugin", "push"], args].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && said.contains(why), "{args:?}: {said}");
    };
    let [quota, sync] = ["quota", "sync"].map(|name| shipped(name).to_str().unwrap().to_owned());
    refused(&[&sync, "--canary", "5%"], 1, "no admissions to share");
    refused(&[&quota, "--canary", "60%"], 2, "from 0.01% to 50%");
    refused(&[&quota, "--for", "10m"], 2, "--canary");
    refused(&[&quota, "--canary", "5%", "--for", "31d"], 1, "from a second to 30 days");
    let manifest = house.file("guest.toml");
    std::fs::write(&manifest, "name = \"new\"").unwrap();
    let guest = house.file("guest.wasm");
    let [guest, manifest] = [guest, manifest].map(|path| path.to_str().unwrap().to_owned());
    let new = [&guest, "--name", "new", "--manifest", &manifest, "--canary", "5%"];
    refused(&new.map(|arg: &str| arg), 1, "there is no version to stand by");
}
