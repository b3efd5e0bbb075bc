//! A power failure: of what was written after the last sync, any part may be on the disk.

use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_store::{Joint, SetOptions};

use crate::{
    disk::Disk,
    support::{DURABLE, RELAXED, number, value},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_power_failure() {
    let random = AtomicU64::new(1);
    let mut chance = || {
        let next = random.load(Ordering::Relaxed).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        random.store(next, Ordering::Relaxed);
        next >> 62 != 0
    };
    let mut disk = Disk::default();
    let mut last_sequence = 0;
    for round in 1..=20 {
        let store = disk.open(round % 2 == 0);
        let (kv, relaxed) = (store.kv("durable", DURABLE).unwrap(), store.kv("relaxed", RELAXED).unwrap());
        let queue = store.queue("queue", 1 << 20).unwrap();
        for key in 0..20 {
            let key = format!("k{key}");
            relaxed.set(&key, vec![round; 300], SetOptions::default()).await.unwrap();
            assert_eq!(kv.increment(&key, 1, None).await.unwrap(), i64::from(round));
        }
        let joint = Joint::new().set(&kv, "joint", vec![round], None).unwrap();
        store.commit(joint.set(&relaxed, "joint", vec![round], None).unwrap()).await.unwrap();
        let mut transaction = store.transaction();
        for kv in [&kv, &relaxed] {
            assert_eq!(transaction.get(kv, "both").await.unwrap().map_or(0, |bytes| bytes[0]), round - 1);
            transaction.set(kv, "both", vec![round; 3000], None).unwrap();
        }
        transaction.commit().await.unwrap();
        let sequence = queue.append(vec![round]).unwrap();
        assert!(sequence > last_sequence);
        last_sequence = sequence;
        queue.wait(sequence - 1).await;
        // Something is under way when the power fails.
        let late = tokio::spawn({
            let (kv, relaxed, mut batch) = (kv.clone(), relaxed.clone(), store.batch());
            async move {
                batch.set(&kv, "late", vec![round; 100_000], None)?;
                batch.set(&relaxed, "late", vec![round; 100_000], None)?;
                batch.write().await
            }
        });
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        disk = disk.after_power_failure(&mut chance);
        late.await.unwrap().unwrap();

        let store = disk.open(false);
        let (kv, relaxed) = (store.kv("durable", DURABLE).unwrap(), store.kv("relaxed", RELAXED).unwrap());
        for key in 0..20 {
            assert_eq!(number(&kv, &format!("k{key}")).await, i64::from(round));
        }
        assert_eq!(value(&kv, "joint").await, Some(vec![round]));
        assert_eq!(value(&relaxed, "joint").await, Some(vec![round]));
        for kv in [&kv, &relaxed] {
            assert_eq!(value(kv, "both").await, Some(vec![round; 3000]));
        }
        assert_eq!(value(&kv, "late").await, value(&relaxed, "late").await);
        assert_eq!(value(&relaxed, "k0").await, Some(vec![round; 300]));
        let events = store.queue("queue", 1 << 20).unwrap().read(0, 100, 1000).await.unwrap();
        assert_eq!((events.len(), events.last().unwrap().0), (usize::from(round), sequence));
        store.close().await.unwrap();
    }
}
