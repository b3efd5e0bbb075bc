//! Many tasks at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use tokio::task::JoinSet;
use tollgate_store::{Joint, Kv, SetOptions, Store, Swapped};

use crate::support::{DURABLE, Place, RELAXED, number};

/// Flushes as fast as it can, so that entries leave the overlay all the time.
fn flusher(store: &Store) -> (Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let handle = tokio::spawn({
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::SeqCst) {
                store.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    (stop, handle)
}

async fn with_flusher(cache: u64, work: impl AsyncFnOnce(&Store)) {
    let mut place = Place::new();
    place.kv_cache_bytes = cache;
    let store = place.open();
    let (stop, handle) = flusher(&store);
    work(&store).await;
    stop.store(true, Ordering::SeqCst);
    handle.await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn increments_add_up() {
    for cache in [0, 700, 1 << 20] {
        with_flusher(cache, async |store| {
            let kv = store.kv("a", RELAXED).unwrap();
            let mut tasks = JoinSet::new();
            for task in 0..8u64 {
                let kv = kv.clone();
                tasks.spawn(async move {
                    for turn in 0..4000u64 {
                        kv.increment(&format!("k{}", (turn * 7 + task) % 5), 1, None).await.unwrap();
                        if turn % 16 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                });
            }
            tasks.join_all().await;
            let mut sum = 0;
            for key in 0..5 {
                sum += number(&kv, &format!("k{key}")).await;
            }
            assert_eq!(sum, 8 * 4000);
        })
        .await;
    }
}

async fn add_by_swap(kv: &Kv, key: &str) {
    loop {
        let present = kv.get(key).await.unwrap();
        let number = present
            .as_ref()
            .map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse::<i64>().unwrap());
        let next = (number + 1).to_string().into_bytes();
        match kv.swap(key, present.map(|entry| entry.version), next, None).await.unwrap() {
            Swapped::Swapped(_) => return,
            Swapped::Stale(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn swap_loses_no_update() {
    for cache in [0, 1 << 20] {
        with_flusher(cache, async |store| {
            let kv = store.kv("a", RELAXED).unwrap();
            let mut tasks = JoinSet::new();
            for task in 0..8 {
                let kv = kv.clone();
                tasks.spawn(async move {
                    for turn in 0..1500 {
                        add_by_swap(&kv, if (turn + task) % 2 == 0 { "x" } else { "y" }).await;
                    }
                });
            }
            tasks.join_all().await;
            assert_eq!(number(&kv, "x").await + number(&kv, "y").await, 8 * 1500);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn durable_increments_add_up_and_share_commits() {
    for cache in [0, 700, 1 << 20] {
        let mut place = Place::new();
        place.kv_cache_bytes = cache;
        let store = place.open();
        let kv = store.kv("a", DURABLE).unwrap();
        let mut tasks = JoinSet::new();
        for task in 0..32 {
            let kv = kv.clone();
            tasks.spawn(async move {
                for turn in 0..20 {
                    kv.increment(&format!("n{}", (task + turn) % 3), 1, None).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        assert!(store.stats().commits < 32 * 20);
        store.close().await.unwrap();
        let kv = place.open().kv("a", DURABLE).unwrap();
        assert_eq!(number(&kv, "n0").await + number(&kv, "n1").await + number(&kv, "n2").await, 32 * 20);
    }
}

/// A key's writer counts up; whoever reads must never see the count go back, wherever the value comes from: the
/// overlay, the cache, or the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_never_sees_an_older_value_than_before() {
    for cache in [0, 700, 1 << 20] {
        with_flusher(cache, async |store| {
            let kv = store.kv("a", RELAXED).unwrap();
            let mut tasks = JoinSet::new();
            let writing = Arc::new(AtomicI64::new(6));
            for key in 0..6 {
                let (kv, writing) = (kv.clone(), Arc::clone(&writing));
                tasks.spawn(async move {
                    let key = format!("k{key}");
                    for count in 1..=3000 {
                        if count % 10 == 0 {
                            kv.delete(&format!("{key}/gone")).await.unwrap();
                        }
                        kv.set(&key, count.to_string().into_bytes(), SetOptions::default()).await.unwrap();
                        for _ in 0..count % 8 {
                            tokio::task::yield_now().await;
                        }
                    }
                    writing.fetch_sub(1, Ordering::SeqCst);
                });
            }
            for _ in 0..6 {
                let (kv, writing) = (kv.clone(), Arc::clone(&writing));
                tasks.spawn(async move {
                    let mut seen = [0; 6];
                    while writing.load(Ordering::SeqCst) > 0 {
                        for (key, seen) in seen.iter_mut().enumerate() {
                            let found = number(&kv, &format!("k{key}")).await;
                            assert!(found >= *seen, "{found} after {seen}");
                            *seen = found;
                        }
                        // Reads that memory answers never give way by themselves.
                        tokio::task::yield_now().await;
                    }
                });
            }
            tasks.join_all().await;
        })
        .await;
    }
}

/// What a joint commit writes replaces what was there, and writers of its keys go on from it: an increment is either
/// before it, and replaced, or after it, and kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn increments_go_on_from_a_joint_commit() {
    for cache in [0, 1 << 20] {
        with_flusher(cache, async |store| {
            let kv = store.kv("a", RELAXED).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let counter = tokio::spawn({
                let (kv, stop) = (kv.clone(), Arc::clone(&stop));
                async move {
                    let mut last = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let next = kv.increment("n", 1, None).await.unwrap();
                        assert!(next == last + 1 || next % 1_000_000 == 1, "{next} after {last}");
                        assert!(next > last, "{next} after {last}");
                        last = next;
                        tokio::task::yield_now().await;
                    }
                    last
                }
            });
            for round in 1..100 {
                let value = (round * 1_000_000).to_string().into_bytes();
                store.commit(Joint::new().set(&kv, "n", value, None).unwrap()).await.unwrap();
                let found = number(&kv, "n").await;
                assert!(found >= round * 1_000_000, "{found}");
            }
            stop.store(true, Ordering::SeqCst);
            let last = counter.await.unwrap();
            assert_eq!(number(&kv, "n").await, last.max(99_000_000));
        })
        .await;
    }
}
