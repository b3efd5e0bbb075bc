//! kill -9 and power failures: no half change, and what was acknowledged is found.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use tollgate_store::{Index, Options, Store, Vector};

use super::support::{index, near, report, values, vector};
use crate::disk::Disk;

const DIRECTORY: &str = "STORE_VECTOR_CRASH_DIRECTORY";

/// Values that fill a page of their own and a little more.
const DIMENSIONS: usize = 1_024;

fn of_turn(id: impl ToString, turn: u64) -> Vector {
    let mut vector = vector(id, vec![0.5; DIMENSIONS]);
    (vector.values[0], vector.values[1]) = (turn as f32, (turn % 7) as f32);
    vector
}

/// The turn in which a vector was written, if it is there.
async fn turn_of(index: &Index, id: &str) -> Option<u64> {
    let values = values(index, id).await?;
    let turn = values[0] as u64;
    assert_eq!(values, of_turn(id, turn).values);
    Some(turn)
}

/// Each turn replaces two vectors in one change, adds some, and removes those of the turn before.
async fn take_turn(index: &Index, turn: u64) {
    index.upsert(vec![of_turn("left", turn), of_turn("right", turn)]).await.unwrap();
    let added = |turn: u64| (0..turn % 5).map(move |number| format!("{}/{number}", turn % 2));
    index.upsert(added(turn).map(|id| of_turn(id, turn)).collect()).await.unwrap();
    index.delete_by_ids(&added(turn + 1).collect::<Vec<_>>()).await.unwrap();
}

/// What must hold whenever it is opened.
async fn assert_whole(index: &Index, acknowledged: u64) {
    let vectors = report(index).await.vectors;
    let (left, right) = (turn_of(index, "left").await, turn_of(index, "right").await);
    assert_eq!(left, right);
    assert!(left.unwrap_or(0) >= acknowledged, "{left:?} {acknowledged}");
    // What is in the file is what is found.
    let found = index.query(near(vec![1.0; DIMENSIONS], 100)).await.unwrap();
    assert_eq!(found.len() as u64, vectors);
}

/// Not a test of its own: the child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = Store::open(&Path::new(&directory).join("store.redb"), Options::default()).unwrap();
    let index = index(&store, "a", DIMENSIONS);
    let mut turn = turn_of(&index, "left").await.unwrap_or(0);
    loop {
        turn += 1;
        take_turn(&index, turn).await;
        std::io::stdout().write_all(format!("said {turn}\n").as_bytes()).unwrap();
    }
}

fn run_and_kill(directory: &Path, lines: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "vector::crash::child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut said, mut left) = (0, lines);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some((_, turn)) = line.unwrap().split_once("said ") {
            said = turn.parse().unwrap();
            left = left.saturating_sub(1);
        }
        if left == 0 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=6 {
        let said = run_and_kill(directory.path(), round * 7 % 17 + 1);
        let store = Store::open(&directory.path().join("store.redb"), Options::default()).unwrap();
        assert_whole(&index(&store, "a", DIMENSIONS), said).await;
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_survive_a_power_failure() {
    let mut random = 1u64;
    let mut chance = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        random >> 62 != 0
    };
    let mut disk = Disk::default();
    let mut turn = 0;
    for round in 1..=20u64 {
        let store = disk.open(round % 2 == 0);
        let vectors = index(&store, "a", DIMENSIONS);
        turn += 1;
        take_turn(&vectors, turn).await;
        // Something is under way when the power fails.
        let late = tokio::spawn({
            let vectors = vectors.clone();
            async move { take_turn(&vectors, turn + 1).await }
        });
        for _ in 0..(round * 37) % 101 {
            tokio::task::yield_now().await;
        }
        disk = disk.after_power_failure(&mut chance);
        late.await.unwrap();

        let store = disk.open(false);
        let vectors = index(&store, "a", DIMENSIONS);
        assert_whole(&vectors, turn).await;
        turn = turn_of(&vectors, "left").await.unwrap();
        store.close().await.unwrap();
    }
}
