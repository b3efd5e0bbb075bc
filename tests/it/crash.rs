//! What was acknowledged as durable is there after kill -9, and counted once.

mod quota;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::{Behaviour, Client, Server, Setup, Upstream, eventually};

/// Rounds in the default run; `TOLLGATE_CRASH_ROUNDS` sets another number for the long one.
const ROUNDS: u64 = 3;

/// Tasks that send requests while the server is killed.
const LOAD_TASKS: usize = 16;

/// The part of a sequence that counts events since the start; above it stands the number of the start.
const COUNTER: u64 = (1 << 40) - 1;

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_no_durable_event_key_or_plugin_and_counts_none_twice() {
    let upstream = Upstream::start(Behaviour::Answer { input: 7, output: 3 }).await;
    let mut server = Setup::with(&upstream).start();
    let key = server.key("load", &["--rpm", "100000000"]);
    let mut acknowledged = vec!["load".to_owned()];
    for round in 0..rounds() {
        let load = Load::start(&[(server.client(&key), "gpt-test".to_owned())]);
        let name = format!("round-{round}");
        server.key(&name, &[]);
        acknowledged.push(name);
        let pushed = push_quota(&server, round);
        // Different places of the work each round; no state is awaited, so a plain pause is what is meant.
        tokio::time::sleep(Duration::from_millis(150 + round * 37 % 400)).await;
        let watermark = server.metric("tollgate_event_watermark").await as u64;
        assert_ne!(watermark & COUNTER, 0, "nothing was durable yet: the round shows nothing");
        server.crash();
        load.stop().await;
        server.crash_and_restart();
        ingested(&server).await;
        check_events(&server, watermark);
        check_acknowledged(&server, &acknowledged, &pushed);
    }
}

fn rounds() -> u64 {
    std::env::var("TOLLGATE_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS)
}

/// Pushes the quota component with one more custom section, so that each round has its own; returns the digest.
fn push_quota(server: &Server, round: u64) -> String {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/prebuilt/quota.wasm");
    let mut component = std::fs::read(shipped).unwrap();
    component.extend_from_slice(b"\0\x0d\x04note");
    component.extend_from_slice(&round.to_le_bytes());
    let file = server.home().join("quota.wasm");
    std::fs::write(&file, &component).unwrap();
    server.cli_ok(&["plugin", "push", file.to_str().unwrap()]);
    hex::encode(Sha256::digest(&component))
}

/// Waits until ingestion has caught up with the durable queue.
async fn ingested(server: &Server) {
    eventually("the queue is empty", || async {
        (server.metric("tollgate_event_queue_bytes").await == 0.0).then_some(())
    })
    .await;
}

fn check_events(server: &Server, watermark: u64) {
    let (epoch, last) = (watermark >> 40, watermark & COUNTER);
    let stored = server.count(&format!(
        "SELECT count(*) FROM request_logs WHERE sequence >> 40 = {epoch} AND sequence <= {watermark}"
    ));
    assert_eq!(stored, last, "events up to the durable watermark {epoch}.{last}");
    let twice = server.count("SELECT count(*) - count(DISTINCT id) FROM request_logs");
    assert_eq!(twice, 0, "requests stored twice");
    let all = server.count("SELECT count(*) FROM request_logs");
    // What went to accounts: requests, and attempts before them that failed.
    let rows = server.count(
        "SELECT (SELECT count(*) FROM request_logs WHERE api_key_hash <> '')
            + (SELECT count(*) FROM error_logs WHERE attempt > 0)",
    );
    for (sql, counted) in [
        ("SELECT coalesce(sum(total_requests), 0) FROM api_key_metrics", rows),
        (
            "SELECT coalesce(sum(requests), 0) FROM usage_daily WHERE kind = 'account' AND key_hash <> ''",
            rows,
        ),
        ("SELECT coalesce(sum(requests), 0) FROM usage_daily WHERE kind = 'key'", all),
        ("SELECT coalesce(sum(total_requests), 0) FROM system_stats", all),
    ] {
        assert_eq!(server.count(sql), counted, "totals against rows: {sql}");
    }
    assert_eq!(server.sql("PRAGMA integrity_check"), [["ok"]]);
}

fn check_acknowledged(server: &Server, names: &[String], pushed: &str) {
    let keys: HashSet<String> = server.sql("SELECT name FROM api_keys").into_iter().flatten().collect();
    for name in names {
        assert!(keys.contains(name), "key {name} is lost; there are {keys:?}");
    }
    let serving = "SELECT digest FROM plugin_generations WHERE name = 'quota' AND state = 'serving'";
    assert_eq!(server.sql(serving), [[pushed]], "the version of quota that was acknowledged serves");
}

/// Requests that go on until they are stopped, whether the server answers or not.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Each task asks as all clients in turn, each for its own model.
    fn start(clients: &[(Client, String)]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..LOAD_TASKS)
            .map(|_| {
                let (clients, stop) = (clients.to_vec(), stop.clone());
                tokio::spawn(async move {
                    for (client, model) in clients.iter().cycle() {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        // Answers break off when the server is killed: that is the point.
                        let _ = client.try_chat(model).await;
                    }
                })
            })
            .collect();
        Load { stop, tasks }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}
