//! kill -9. The test's own executable is the child: it works on a store and says what was acknowledged, until it is
//! killed; then the store must have at least that.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use tollgate_store::{Queue, SetOptions};

use crate::support::{DURABLE, RELAXED, number, open_kv, value};

const DIRECTORY: &str = "STORE_CRASH_DIRECTORY";
const GROUP: [&str; 3] = ["left", "middle", "right"];

/// What the child said last.
#[derive(Debug, Default)]
struct Said {
    durable: u64,
    relaxed: u64,
    watermark: u64,
}

/// Not a test of its own: the child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (store, durable) = open_kv(&Path::new(&directory).join("store.redb"), "durable", DURABLE);
    let relaxed = store.kv("relaxed", RELAXED).unwrap();
    let queue = store.queue("queue", 64 << 20).unwrap();
    let mut batch = store.batch();
    let mut turn = number(&durable, "turn").await as u64;
    loop {
        turn += 1;
        for _ in 0..5 {
            let count = relaxed.increment("count", 1, None).await.unwrap();
            relaxed.set(&format!("r{count}"), vec![], SetOptions::default()).await.unwrap();
            queue.append(count.to_string().into_bytes()).unwrap();
        }
        let many = GROUP.map(|key| (key.to_owned(), turn.to_string().into_bytes()));
        relaxed.set_many(many.to_vec(), None).await.unwrap();
        for kv in [&relaxed, &durable] {
            batch.set(kv, "batch", turn.to_string().into_bytes(), None).unwrap();
        }
        batch.write().await.unwrap();
        let mut transaction = store.transaction();
        for (kv, change) in [(&relaxed, 1), (&durable, -1)] {
            let balance = transaction.get(kv, "balance").await.unwrap();
            let balance =
                balance.map_or(0, |bytes| std::str::from_utf8(&bytes).unwrap().parse::<i64>().unwrap());
            transaction.set(kv, "balance", (balance + change).to_string().into_bytes(), None).unwrap();
        }
        transaction.commit().await.unwrap();
        let counted = number(&relaxed, "count").await;
        durable.set("turn", turn.to_string().into_bytes(), SetOptions::default()).await.unwrap();
        durable.set_many(many.to_vec(), None).await.unwrap();
        let line = format!("said {turn} {counted} {}\n", queue.watermark());
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

fn run_and_kill(directory: &Path, lines: usize) -> Said {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Said::default();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut left = lines;
    for line in output.lines() {
        let line = line.unwrap();
        // The test harness writes before the first line without ending its own.
        if let Some((_, numbers)) = line.split_once("said ") {
            let mut numbers = numbers.split(' ').map(|number| number.parse().unwrap());
            let mut next = || numbers.next().unwrap();
            said = Said { durable: next(), relaxed: next(), watermark: next() };
            left = left.saturating_sub(1);
        }
        if left == 0 {
            // Goes on reading: what was said before it died counts too.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    said
}

async fn events(queue: &Queue) -> Vec<(u64, Vec<u8>)> {
    queue.read(0, usize::MAX, usize::MAX).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut last_sequence = 0;
    for round in 1..=8 {
        let said = run_and_kill(directory.path(), round * 9 % 31 + 1);
        let (store, durable) = open_kv(&directory.path().join("store.redb"), "durable", DURABLE);
        let relaxed = store.kv("relaxed", RELAXED).unwrap();

        assert!(number(&durable, "turn").await as u64 >= said.durable, "{said:?}");
        for kv in [&durable, &relaxed] {
            let first = value(kv, GROUP[0]).await;
            for key in GROUP {
                assert_eq!(value(kv, key).await, first, "{said:?}");
            }
        }
        for kv in [&durable, &relaxed] {
            assert!(number(kv, "batch").await as u64 >= said.durable, "{said:?}");
        }
        assert_eq!(value(&durable, "batch").await, value(&relaxed, "batch").await, "{said:?}");
        let balance = number(&relaxed, "balance").await;
        assert_eq!(number(&durable, "balance").await, -balance, "{said:?}");
        assert!(balance as u64 >= said.durable, "{balance} {said:?}");
        // A durable write takes along every relaxed one before it, and of the later ones a first part.
        let count = number(&relaxed, "count").await;
        assert!(count as u64 >= said.relaxed, "{count} {said:?}");
        assert!(relaxed.exists(&format!("r{}", said.relaxed)).await.unwrap());
        for before in 1..count {
            assert!(relaxed.exists(&format!("r{before}")).await.unwrap(), "{before} of {count}");
        }
        assert!(!relaxed.exists(&format!("r{}", count + 1)).await.unwrap());

        let queue = store.queue("queue", 64 << 20).unwrap();
        assert!(queue.watermark() >= said.watermark, "{} {said:?}", queue.watermark());
        let events = events(&queue).await;
        assert!(events.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(events.iter().any(|(sequence, _)| *sequence == said.watermark));
        assert!(events.last().unwrap().0 > last_sequence);
        last_sequence = events.last().unwrap().0;
        store.close().await.unwrap();
    }
}
