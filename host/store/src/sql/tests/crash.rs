//! A process killed while it writes loses nothing it has acknowledged.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use super::*;
use crate::{Joint, KvOptions, Options, Store};

/// Kills in a row on one store. More only take longer; set the variable for a long run.
const ROUNDS: usize = 6;
const ROUNDS_VARIABLE: &str = "TOLLGATE_CRASH_ROUNDS";
const PATH_VARIABLE: &str = "TOLLGATE_CRASH_PATH";

/// The child: writes and says what is acknowledged, until it is killed.
#[test]
#[ignore = "runs as the child of the next test"]
fn child() {
    let Ok(path) = env::var(PATH_VARIABLE) else {
        return;
    };
    block_on(async {
        let store = Store::open(Path::new(&path), Options::default()).unwrap();
        let database = store.database("d").unwrap();
        let kv = store.kv("k", KvOptions::default()).unwrap();
        execute(&database, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, worker, body)").await;
        execute(&database, "CREATE INDEX IF NOT EXISTS i ON t (worker, id)").await;
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..4_i64 {
            let (store, database, kv) = (store.clone(), database.clone(), kv.clone());
            workers.spawn(async move {
                loop {
                    let insert =
                        "INSERT INTO t (worker, body) VALUES (?1, randomblob(200 + ?1 * 500)) RETURNING id";
                    let statement = Statement::new(insert, vec![worker.into()]);
                    if worker == 0 {
                        let next = rows(&database, "SELECT count(*) + 1 FROM t WHERE worker = 0").await;
                        let joint = Joint::new().set(&kv, "joint", next.clone().into_bytes(), None).unwrap();
                        store.commit(joint.statement(&database, statement).unwrap()).await.unwrap();
                        say(&format!("joint {next}"));
                    } else {
                        say(&format!("row {}", text(&database.execute(statement).await.unwrap())));
                    }
                }
            });
        }
        // They only end by failing.
        workers.join_next().await.unwrap().unwrap();
    });
}

#[test]
fn a_killed_process_loses_no_acknowledged_commit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let rounds = env::var(ROUNDS_VARIABLE).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let (mut acknowledged, mut joint) = (Vec::new(), 0);
    for round in 0..rounds {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["sql::tests::crash::child", "--exact", "--ignored", "--nocapture"])
            .env(PATH_VARIABLE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut left = 50 + round * 37;
        for line in lines {
            if let Some(id) = line.split_once("row ").map(|(_, id)| id.parse::<i64>().unwrap()) {
                acknowledged.push(id);
            } else if let Some((_, count)) = line.split_once("joint ") {
                joint = count.parse::<i64>().unwrap();
            }
            if left == 0 {
                child.kill().unwrap();
            }
            left = left.saturating_sub(1);
        }
        child.wait().unwrap();
        verify(&path, &acknowledged, joint);
    }
    assert!(acknowledged.len() > rounds * 10, "{}", acknowledged.len());
}

fn verify(path: &Path, acknowledged: &[i64], joint: i64) {
    block_on(async {
        let store = Store::open(path, Options::default()).unwrap();
        let database = store.database("d").unwrap();
        check_integrity(&database).await;
        let ids = database.query("SELECT id FROM t".into()).await.unwrap();
        let ids: std::collections::BTreeSet<_> = ids
            .rows
            .into_iter()
            .flatten()
            .map(|id| match id {
                Value::Integer(id) => id,
                other => panic!("{other:?}"),
            })
            .collect();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !ids.contains(id)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        let count: i64 = rows(&database, "SELECT count(*) FROM t WHERE worker = 0").await.parse().unwrap();
        let kv = store.kv("k", KvOptions::default()).unwrap();
        let stored = kv
            .get("joint")
            .await
            .unwrap()
            .map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse::<i64>().unwrap());
        assert_eq!(stored, count, "kv and sql of joint commits");
        assert!(count >= joint, "{count} of {joint}");
        store.close().await.unwrap();
    });
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).unwrap();
}
