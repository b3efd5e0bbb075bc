//! kill -9. The test's own executable is the child: it works, and says what was acknowledged, until it is killed.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use tokio::task::JoinSet;
use tollgate_store::{Compaction, Options, Store};

use super::{
    rounds,
    world::{Turns, Work, World},
};
use crate::vector::support::Random;

const DIRECTORY: &str = "STORE_CAMPAIGN_DIRECTORY";

async fn open(directory: &Path) -> World {
    let options = Options { blob_folder: Some(directory.join("blobs")), ..Options::default() };
    World::open(Store::open(&directory.join("store.redb"), options).unwrap(), true).await.unwrap()
}

/// Not a test of its own: the child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let world = open(Path::new(&directory)).await;
    let found = world.all_found().await;
    let mut workers = JoinSet::new();
    for work in Work::ALL {
        let (world, mut turn) = (world.clone(), found.get(work));
        workers.spawn(async move {
            loop {
                turn += 1;
                world.turn(work, turn).await.unwrap();
                let line = format!("said {} {turn}\n", work as usize);
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    // They only end by failing.
    workers.join_next().await.unwrap().unwrap();
}

/// Kills the child after so many lines; what it said counts, up to its end.
fn run_and_kill(directory: &Path, lines: u64, said: &Turns) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "campaign::kill::child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut left = lines;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // The test harness writes before the first line without ending its own.
        if let Some((_, numbers)) = line.unwrap().split_once("said ") {
            let (work, turn) = numbers.split_once(' ').unwrap();
            said.set(Work::ALL[work.parse::<usize>().unwrap()], turn.parse().unwrap());
            left = left.saturating_sub(1);
        }
        if left == 0 {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success() && left == 0, "the child ended by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_survives_kill_9_and_fits_together() {
    let directory = tempfile::tempdir().unwrap();
    let (mut random, said) = (Random::new(1), Turns::default());
    for round in 1..=rounds(20) {
        run_and_kill(directory.path(), 1 + random.next(60), &said);
        if round % 8 == 0 {
            let path = directory.path().join("store.redb");
            let mut compaction = Compaction::open(&path, Options::default()).unwrap();
            compaction.check().unwrap();
            compaction.run().unwrap();
        }
        let world = open(directory.path()).await;
        world.check(&said).await;
        world.store.close().await.unwrap();
    }
}
