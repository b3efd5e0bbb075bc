//! Storage that fails: nothing more is acknowledged, nothing hangs, nothing acknowledged is lost.

use std::time::Duration;

use tokio::time::timeout;
use tollgate_store::{CommitError, KvError, QueueError, SetOptions};

use crate::support::{DURABLE, Memory, RELAXED, value};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_error_stops_all_writing_and_hangs_nobody() {
    let memory = Memory::default();
    let store = memory.open();
    let (durable, relaxed) = (store.kv("d", DURABLE).unwrap(), store.kv("r", RELAXED).unwrap());
    let queue = store.queue("q", 1 << 20).unwrap();
    durable.set("k", vec![1], SetOptions::default()).await.unwrap();
    let event = queue.append(vec![1]).unwrap();
    queue.wait(0).await;
    memory.fail(true);
    let work = async {
        let waiting: Vec<_> = (0..20)
            .map(|number| {
                let durable = durable.clone();
                let key = format!("k{number}");
                tokio::spawn(async move { durable.set(&key, vec![2], SetOptions::default()).await })
            })
            .collect();
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.wait(event).await }
        });
        for answer in waiting {
            assert!(matches!(answer.await.unwrap(), Err(KvError::Unavailable(_))));
        }
        waiter.await.unwrap();
        let set = SetOptions::default();
        assert!(matches!(relaxed.set("k", vec![2], set).await, Err(KvError::Unavailable(_))));
        assert!(matches!(relaxed.increment("k", 1, None).await, Err(KvError::Unavailable(_))));
        assert!(matches!(relaxed.swap("k", None, vec![], None).await, Err(KvError::Unavailable(_))));
        assert!(matches!(relaxed.delete("k").await, Err(KvError::Unavailable(_))));
        let entries = vec![("k".to_owned(), vec![])];
        assert!(matches!(relaxed.set_many(entries, None).await, Err(KvError::Unavailable(_))));
        assert!(matches!(queue.append(vec![]), Err(QueueError::Unavailable(_))));
        assert!(matches!(queue.read(event, 10, 10).await, Err(QueueError::Unavailable(_))));
        assert!(matches!(store.flush().await, Err(CommitError::Unavailable(_))));
        assert!(store.stats().poisoned);
        let Err(CommitError::Unavailable(reason)) = store.close().await else { panic!() };
        assert!(reason.contains("injected"), "{reason}");
    };
    timeout(Duration::from_secs(20), work).await.unwrap();

    let memory = memory.copy();
    let store = memory.open();
    assert_eq!(value(&store.kv("d", DURABLE).unwrap(), "k").await, Some(vec![1]));
    assert_eq!(store.queue("q", 1 << 20).unwrap().read(0, 10, 10).await.unwrap(), [(event, vec![1])]);
}

#[tokio::test]
async fn a_relaxed_write_that_fails_is_found_out() {
    let memory = Memory::default();
    let store = memory.open();
    let kv = store.kv("r", RELAXED).unwrap();
    kv.set("k", vec![1], SetOptions::default()).await.unwrap();
    store.flush().await.unwrap();
    memory.fail(true);
    kv.set("k", vec![2], SetOptions::default()).await.unwrap();
    while !store.stats().poisoned {
        tokio::task::yield_now().await;
    }
    assert!(matches!(kv.set("k", vec![3], SetOptions::default()).await, Err(KvError::Unavailable(_))));
    drop((store, kv));
    let store = memory.copy().open();
    assert_eq!(value(&store.kv("r", RELAXED).unwrap(), "k").await, Some(vec![1]));
}

#[tokio::test]
async fn writers_that_wait_for_room_are_told_when_the_disk_fails() {
    let memory = Memory::default();
    let store = memory.open();
    let kv = store.kv("r", RELAXED).unwrap();
    memory.fail(true);
    let mut error = None;
    for number in 0..200 {
        error = kv.set(&number.to_string(), vec![0; 1 << 20], SetOptions::default()).await.err();
        if error.is_some() {
            break;
        }
    }
    assert!(matches!(error, Some(KvError::Unavailable(_))));
}
