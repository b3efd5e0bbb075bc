//! kill -9 and power failures: no half object, and what was acknowledged is there.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use tollgate_store::{Container, Options, Precondition, PutOptions, Store};

use super::{
    files::has_files,
    support::{CHUNK, bytes, collected, container, in_files, noise, put, report},
};
use crate::disk::Disk;

const DIRECTORY: &str = "STORE_BLOB_CRASH_DIRECTORY";
/// Set: contents are files.
const FILES: &str = "STORE_BLOB_CRASH_FILES";

/// The content of a turn: some chunks are shared with the turns before.
fn content(turn: u64) -> Vec<u8> {
    let length = [10, CHUNK, 3 * CHUNK + 7, 40 * CHUNK][(turn % 4) as usize];
    let mut content = noise(turn % 3, length);
    content[..8].copy_from_slice(&turn.to_le_bytes());
    content
}

fn turn_of(content: &[u8]) -> u64 {
    u64::from_le_bytes(content[..8].try_into().unwrap())
}

fn open(directory: &Path, files: bool) -> (Store, Container) {
    let options = Options { blob_folder: Some(directory.join("blobs")), ..Options::default() };
    let store = Store::open(&directory.join("store.redb"), options).unwrap();
    let blobs = if files { in_files(&store, "a") } else { container(&store, "a") };
    (store, blobs)
}

/// Not a test of its own: the child. Each turn replaces one object and removes another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (_store, blobs) = open(Path::new(&directory), std::env::var_os(FILES).is_some());
    let mut turn = bytes(&blobs, "last").await.map_or(0, |content| turn_of(&content));
    loop {
        turn += 1;
        put(&blobs, &format!("k{}", turn % 5), &content(turn)).await;
        blobs.delete(&format!("k{}", (turn + 2) % 5), Precondition::default()).await.unwrap();
        put(&blobs, "last", &content(turn)).await;
        std::io::stdout().write_all(format!("said {turn}\n").as_bytes()).unwrap();
    }
}

fn run_and_kill(directory: &Path, files: bool, lines: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "blob::crash::child", "--nocapture"])
        .env(DIRECTORY, directory)
        .envs(files.then_some((FILES, "")))
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
async fn objects_survive_kill_9_whole_and_nothing_is_left_over() {
    survive_kill_9(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_files_survive_kill_9_whole_and_nothing_is_left_over() {
    survive_kill_9(true).await;
}

async fn survive_kill_9(files: bool) {
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=6 {
        let said = run_and_kill(directory.path(), files, round * 7 % 17 + 1);
        let (store, blobs) = open(directory.path(), files);
        report(&blobs).await;
        let last = bytes(&blobs, "last").await.unwrap();
        let turn = turn_of(&last);
        assert!(turn >= said && last == content(turn), "{turn} {said}");
        // The turn after may have come as far as its object or its removal.
        for before in 0..5 {
            let key = format!("k{}", (turn + 5 - before) % 5);
            if let Some(found) = bytes(&blobs, &key).await {
                assert!(found == content(turn_of(&found)), "{key}");
            } else {
                assert!(before != 0, "{key} of turn {turn} is lost");
            }
        }
        let found = collected(&blobs).await;
        assert!(found.objects <= 6, "{found:?}");
        if files {
            has_files(&directory.path().join("blobs"), found.objects as usize).await;
        }
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_survive_a_power_failure_whole_and_nothing_is_left_over() {
    let mut random = 1u64;
    let mut chance = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        random >> 62 != 0
    };
    let mut disk = Disk::default();
    for round in 1..=16u64 {
        let store = disk.open(round % 2 == 0);
        let blobs = container(&store, "a");
        put(&blobs, "k", &content(round)).await;
        put(&blobs, &format!("k{}", round % 3), &content(round)).await;
        // Uploads, a removal and a collection are under way when the power fails.
        let late = tokio::spawn({
            let blobs = blobs.clone();
            async move {
                blobs.delete(&format!("k{}", (round + 1) % 3), Precondition::default()).await.unwrap();
                let mut upload = blobs.upload("late", PutOptions::default()).unwrap();
                for piece in noise(round, 35 * CHUNK).chunks(CHUNK) {
                    upload.write(piece).await.unwrap();
                }
                upload.publish().await.unwrap();
            }
        });
        for _ in 0..(round * 37) % 101 {
            tokio::task::yield_now().await;
        }
        disk = disk.after_power_failure(&mut chance);
        late.await.unwrap();

        let store = disk.open(false);
        let blobs = container(&store, "a");
        report(&blobs).await;
        assert!(bytes(&blobs, "k").await.unwrap() == content(round));
        assert!(bytes(&blobs, &format!("k{}", round % 3)).await.unwrap() == content(round));
        if let Some(late) = bytes(&blobs, "late").await {
            assert!((1..=round).any(|round| late == noise(round, 35 * CHUNK)));
        }
        collected(&blobs).await;
        store.close().await.unwrap();
    }
}
