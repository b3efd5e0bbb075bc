//! Transactions, batches and snapshots: one by one, in races, and when the storage fails.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::{JoinHandle, JoinSet};
use tollgate_store::{
    CommitError, Joint, Kv, KvError, SetOptions, Snapshot, Store, limits::TRANSACTION_ITEMS,
};

use crate::support::{DURABLE, Memory, Place, RELAXED, number, value};

fn decimal(bytes: &[u8]) -> i64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

async fn shown(snapshot: &Snapshot, kv: &Kv, key: &str) -> i64 {
    snapshot.get(kv, key).await.unwrap().map_or(0, |entry| decimal(&entry.value))
}

#[tokio::test]
async fn a_transaction_that_comes_too_late_changes_nothing() {
    let store = Place::new().open();
    let (one, two) = (store.kv("one", RELAXED).unwrap(), store.kv("two", DURABLE).unwrap());
    one.set("k", b"1".to_vec(), SetOptions::default()).await.unwrap();
    let mut late = store.transaction();
    assert_eq!(late.get(&one, "k").await.unwrap().as_deref(), Some(&b"1"[..]));
    late.set(&two, "k", b"2".to_vec(), None).unwrap();
    let mut first = store.transaction();
    first.set(&one, "k", b"3".to_vec(), None).unwrap();
    first.commit().await.unwrap();
    // It learns so at the next read already.
    assert_eq!(late.get(&one, "k").await, Err(KvError::Conflict));
    assert_eq!(late.commit().await, Err(KvError::Conflict));
    assert_eq!(value(&two, "k").await, None);

    let mut blind = store.transaction();
    blind.set(&one, "k", b"4".to_vec(), None).unwrap();
    one.set("k", b"5".to_vec(), SetOptions::default()).await.unwrap();
    blind.commit().await.unwrap();
    assert_eq!(value(&one, "k").await, Some(b"4".to_vec()));
}

#[tokio::test]
async fn a_transaction_that_saw_a_key_absent_conflicts_with_who_makes_it() {
    let store = Place::new().open();
    let kv = store.kv("a", RELAXED).unwrap();
    let mut transaction = store.transaction();
    assert_eq!(transaction.get(&kv, "k").await, Ok(None));
    transaction.set(&kv, "k", b"mine".to_vec(), None).unwrap();
    kv.set("k", b"theirs".to_vec(), SetOptions::default()).await.unwrap();
    assert_eq!(transaction.commit().await, Err(KvError::Conflict));
    assert_eq!(value(&kv, "k").await, Some(b"theirs".to_vec()));
}

#[tokio::test]
async fn transactions_and_batches_are_bounded_and_stay_in_one_file() {
    let (store, other) = (Place::new().open(), Place::new().open());
    let (kv, foreign) = (store.kv("a", RELAXED).unwrap(), other.kv("a", RELAXED).unwrap());
    let mut transaction = store.transaction();
    assert!(matches!(transaction.get(&foreign, "k").await, Err(KvError::Invalid(_))));
    assert!(matches!(transaction.set(&foreign, "k", vec![], None), Err(KvError::Invalid(_))));
    assert!(matches!(store.batch().delete(&foreign, "k"), Err(KvError::Invalid(_))));
    let snapshot = store.snapshot().await.unwrap();
    assert!(matches!(snapshot.get(&foreign, "k").await, Err(KvError::Invalid(_))));
    assert!(matches!(snapshot.entries(&foreign, ""), Err(KvError::Invalid(_))));
    assert!(matches!(snapshot.entries(&kv, &"k".repeat(513)), Err(KvError::TooLarge(_))));

    for item in 0..TRANSACTION_ITEMS {
        transaction.set(&kv, &item.to_string(), vec![], None).unwrap();
        assert_eq!(transaction.get(&kv, &format!("r{item}")).await, Ok(None));
    }
    assert!(matches!(transaction.set(&kv, "more", vec![], None), Err(KvError::TooLarge(_))));
    assert!(matches!(transaction.get(&kv, "more").await, Err(KvError::TooLarge(_))));
    transaction.set(&kv, "0", vec![7], None).unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(value(&kv, "0").await, Some(vec![7]));

    let mut batch = store.batch();
    for item in 0..7 {
        batch.set(&kv, &item.to_string(), vec![7; 1 << 20], None).unwrap();
    }
    assert!(matches!(batch.set(&kv, "8", vec![0; 1 << 20], None), Err(KvError::TooLarge(_))));
    assert!(matches!(batch.set(&kv, "9", vec![0; (1 << 20) + 1], None), Err(KvError::TooLarge(_))));
    // What was refused is not in it.
    batch.write().await.unwrap();
    assert_eq!((value(&kv, "8").await, value(&kv, "9").await), (Some(vec![]), Some(vec![])));
    batch.set(&kv, "7", vec![7; 1 << 20], None).unwrap();
    batch.write().await.unwrap();

    let mut reader = store.transaction();
    for item in 0..8 {
        assert!(reader.get(&kv, &item.to_string()).await.unwrap().is_some());
    }
    kv.set("8", vec![1], SetOptions::default()).await.unwrap();
    assert!(matches!(reader.get(&kv, "8").await, Err(KvError::TooLarge(_))));
}

#[tokio::test]
async fn a_snapshot_shows_each_store_in_steps_and_stays_as_it_was() {
    let place = Place::new();
    let store = place.open();
    let (many, large) = (store.kv("many", RELAXED).unwrap(), store.kv("large", RELAXED).unwrap());
    let name = |number: usize| format!("{number:06}");
    for first in (0..25_000).step_by(500) {
        let ttl_ms = (first >= 500).then_some(10);
        many.set_many((first..first + 500).map(|number| (name(number), vec![])).collect(), ttl_ms)
            .await
            .unwrap();
    }
    many.set("last", vec![1], SetOptions::default()).await.unwrap();
    for number in 0..9u8 {
        large.set(&name(number.into()), vec![number; 700_000], SetOptions::default()).await.unwrap();
    }
    let early = store.snapshot().await.unwrap();
    place.advance(10);
    let late = store.snapshot().await.unwrap();
    large.delete_many(&(0..9).map(name).collect::<Vec<_>>()).await.unwrap();
    many.set("later", vec![], SetOptions::default()).await.unwrap();
    store.flush().await.unwrap();
    for (snapshot, expected) in [(&early, 25_001), (&late, 501)] {
        let mut entries = snapshot.entries(&many, "").unwrap();
        let mut keys = Vec::new();
        while let Some((key, _)) = entries.next().await.unwrap() {
            keys.push(key);
        }
        assert!(keys.is_sorted());
        assert_eq!((keys.len(), keys.last().map(String::as_str)), (expected, Some("last")));
        let mut entries = snapshot.entries(&large, "00000").unwrap();
        for number in 0..9u8 {
            let (key, entry) = entries.next().await.unwrap().unwrap();
            assert_eq!((key, &*entry.value), (name(number.into()), &[number; 700_000][..]));
        }
        assert_eq!(entries.next().await.unwrap(), None);
    }
    store.close().await.unwrap();
    assert!(matches!(early.get(&many, "last").await, Err(KvError::Storage(_))));
    assert!(matches!(store.snapshot().await, Err(CommitError::Storage(_))));
    assert!(matches!(store.batch().write().await, Err(KvError::Storage(_))));
}

#[tokio::test]
async fn a_transaction_that_the_disk_refuses_is_not_there_after_reopening() {
    let memory = Memory::default();
    let store = memory.open();
    let (one, two) = (store.kv("one", DURABLE).unwrap(), store.kv("two", RELAXED).unwrap());
    one.set("k", vec![1], SetOptions::default()).await.unwrap();
    let mut transaction = store.transaction();
    assert!(transaction.get(&one, "k").await.unwrap().is_some());
    transaction.set(&one, "k", vec![2], None).unwrap();
    transaction.set(&two, "k", vec![2], None).unwrap();
    let mut later = store.transaction();
    assert!(later.get(&one, "k").await.unwrap().is_some());
    memory.fail(true);
    assert!(matches!(transaction.commit().await, Err(KvError::Storage(_))));
    assert!(matches!(later.get(&two, "k").await, Err(KvError::Storage(_))));
    assert!(matches!(later.commit().await, Err(KvError::Storage(_))));
    assert!(matches!(store.snapshot().await, Err(CommitError::Storage(_))));

    let store = memory.copy().open();
    let (one, two) = (store.kv("one", DURABLE).unwrap(), store.kv("two", RELAXED).unwrap());
    assert_eq!((value(&one, "k").await, value(&two, "k").await), (Some(vec![1]), None));
}

/// A snapshot that waits when the disk fails is answered, whichever commit fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_that_wait_are_told_when_the_disk_fails() {
    let memory = Memory::default();
    let store = memory.open();
    let kv = store.kv("a", RELAXED).unwrap();
    kv.set("k", vec![1], SetOptions::default()).await.unwrap();
    memory.fail(true);
    let mut waiting = JoinSet::new();
    for _ in 0..10 {
        let store = store.clone();
        waiting.spawn(async move { store.snapshot().await.map(|_| ()) });
    }
    let answers = tokio::time::timeout(std::time::Duration::from_secs(20), waiting.join_all()).await.unwrap();
    assert!(answers.iter().all(|answer| matches!(answer, Err(CommitError::Storage(_)))), "{answers:?}");
}

/// Runs until it is told to stop.
fn until_stopped<F: Future<Output = ()> + Send>(
    stop: &Arc<AtomicBool>,
    mut turn: impl FnMut() -> F + Send + 'static,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        while !stop.load(Ordering::SeqCst) {
            turn().await;
            tokio::task::yield_now().await;
        }
    })
}

const ACCOUNTS: usize = 6;
const TOTAL: i64 = 600;

/// Three accounts in each of two stores.
#[derive(Clone)]
struct Bank {
    store: Store,
    kvs: [Kv; 2],
}

impl Bank {
    async fn open(store: &Store) -> Self {
        let kvs = [store.kv("one", RELAXED).unwrap(), store.kv("two", RELAXED).unwrap()];
        let bank = Self { store: store.clone(), kvs };
        let mut batch = store.batch();
        for account in 0..ACCOUNTS {
            batch.set(bank.kv(account), &account.to_string(), b"100".to_vec(), None).unwrap();
        }
        batch.write().await.unwrap();
        bank
    }

    fn kv(&self, account: usize) -> &Kv {
        &self.kvs[account % 2]
    }

    async fn transfer(&self, from: usize, to: usize, amount: i64) -> Result<(), KvError> {
        let mut transaction = self.store.transaction();
        for (account, change) in [(from, -amount), (to, amount)] {
            let (kv, key) = (self.kv(account), account.to_string());
            let present = decimal(&transaction.get(kv, &key).await?.unwrap());
            tokio::task::yield_now().await;
            let next = (present + change).to_string().into_bytes();
            transaction.set(kv, &key, next, Some(3_600_000).filter(|_| amount % 2 == 0))?;
        }
        transaction.commit().await
    }

    /// The sum as a transaction sees it before it knows whether it can commit.
    async fn sum(&self) -> Result<i64, KvError> {
        let mut transaction = self.store.transaction();
        let mut sum = 0;
        for account in 0..ACCOUNTS {
            sum += decimal(&transaction.get(self.kv(account), &account.to_string()).await?.unwrap());
        }
        Ok(sum)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transfers_keep_the_sum_for_every_reader() {
    for cache in [0, 700, 1 << 20] {
        let mut place = Place::new();
        place.kv_cache_bytes = cache;
        let store = place.open();
        let bank = Bank::open(&store).await;
        let stop = Arc::new(AtomicBool::new(false));
        let flusher = until_stopped(&stop, {
            let store = store.clone();
            move || {
                let store = store.clone();
                async move { store.flush().await.unwrap() }
            }
        });
        let snapshots = until_stopped(&stop, {
            let bank = bank.clone();
            move || {
                let bank = bank.clone();
                async move {
                    let snapshot = bank.store.snapshot().await.unwrap();
                    let mut sum = 0;
                    for account in 0..ACCOUNTS {
                        sum += shown(&snapshot, bank.kv(account), &account.to_string()).await;
                    }
                    assert_eq!(sum, TOTAL);
                }
            }
        });
        let sums = until_stopped(&stop, {
            let bank = bank.clone();
            move || {
                let bank = bank.clone();
                async move {
                    match bank.sum().await {
                        Ok(sum) => assert_eq!(sum, TOTAL),
                        Err(error) => assert_eq!(error, KvError::Conflict),
                    }
                }
            }
        });
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let bank = bank.clone();
            tasks.spawn(async move {
                let mut conflicts = 0;
                for turn in 0..150 {
                    let (from, to) = ((task + turn) % ACCOUNTS, (task * 5 + turn * 7 + 1) % ACCOUNTS);
                    let to = if from == to { (to + 1) % ACCOUNTS } else { to };
                    while let Err(error) = bank.transfer(from, to, (turn % 9) as i64).await {
                        assert_eq!(error, KvError::Conflict);
                        conflicts += 1;
                        tokio::task::yield_now().await;
                    }
                }
                conflicts
            });
        }
        let conflicts: u64 = tasks.join_all().await.into_iter().sum();
        assert!(conflicts > 0, "the transfers never met");
        stop.store(true, Ordering::SeqCst);
        for reader in [flusher, snapshots, sums] {
            reader.await.unwrap();
        }
        assert_eq!(bank.sum().await, Ok(TOTAL));
        store.close().await.unwrap();
        let bank_again = place.open();
        let kvs = [bank_again.kv("one", RELAXED).unwrap(), bank_again.kv("two", RELAXED).unwrap()];
        let mut sum = 0;
        for account in 0..ACCOUNTS {
            sum += number(&kvs[account % 2], &account.to_string()).await;
        }
        assert_eq!(sum, TOTAL);
    }
}

/// Whatever writes two keys together, transactions and snapshots see both or neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_and_joint_commits_are_seen_whole() {
    for cache in [0, 1 << 20] {
        let mut place = Place::new();
        place.kv_cache_bytes = cache;
        let store = place.open();
        let (one, two) = (store.kv("one", RELAXED).unwrap(), store.kv("two", RELAXED).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let reader = until_stopped(&stop, {
            let (store, one, two) = (store.clone(), one.clone(), two.clone());
            move || {
                let (store, one, two) = (store.clone(), one.clone(), two.clone());
                async move {
                    let snapshot = store.snapshot().await.unwrap();
                    assert_eq!(shown(&snapshot, &one, "k").await, shown(&snapshot, &two, "k").await);
                    let mut transaction = store.transaction();
                    let first = transaction.get(&one, "k").await.unwrap();
                    match transaction.get(&two, "k").await {
                        Ok(second) => assert_eq!(first, second),
                        Err(error) => assert_eq!(error, KvError::Conflict),
                    }
                }
            }
        });
        for turn in 0..300u32 {
            let bytes = turn.to_string().into_bytes();
            if turn % 3 == 0 {
                let joint = Joint::new().set(&one, "k", bytes.clone(), None).unwrap();
                store.commit(joint.set(&two, "k", bytes, None).unwrap()).await.unwrap();
            } else {
                let mut batch = store.batch();
                batch.set(&one, "k", bytes.clone(), None).unwrap();
                batch.set(&two, "k", bytes, None).unwrap();
                batch.write().await.unwrap();
            }
            tokio::task::yield_now().await;
        }
        stop.store(true, Ordering::SeqCst);
        reader.await.unwrap();
    }
}

/// Writes of one task go one after the other, so a snapshot with the second has the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_has_no_write_without_those_made_before_it() {
    let store = Place::new().open();
    let kv = store.kv("a", RELAXED).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let snapshots = until_stopped(&stop, {
        let (store, kv) = (store.clone(), kv.clone());
        move || {
            let (store, kv) = (store.clone(), kv.clone());
            async move {
                let snapshot = store.snapshot().await.unwrap();
                let mut before = i64::MAX;
                for key in 0..20 {
                    let found = shown(&snapshot, &kv, &key.to_string()).await;
                    assert!(
                        found <= before && before.saturating_sub(found) <= 1 || key == 0,
                        "{found} {before}"
                    );
                    before = found;
                }
            }
        }
    });
    for turn in 1..1500 {
        for key in 0..20 {
            kv.set(&key.to_string(), turn.to_string().into_bytes(), SetOptions::default()).await.unwrap();
        }
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::SeqCst);
    snapshots.await.unwrap();
}

/// A joint commit becomes visible after it is on disk; what others wrote meanwhile was visible before it. A snapshot
/// with the joint commit has that too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_with_a_joint_commit_has_what_was_visible_before_it() {
    let store = Place::new().open();
    let kv = store.kv("a", RELAXED).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // After the write of each count: how far the joint commits were.
    let writer = tokio::spawn({
        let (kv, stop) = (kv.clone(), Arc::clone(&stop));
        async move {
            let mut seen = vec![0];
            while !stop.load(Ordering::SeqCst) {
                kv.set("count", seen.len().to_string().into_bytes(), SetOptions::default()).await.unwrap();
                seen.push(number(&kv, "joint").await);
                tokio::task::yield_now().await;
            }
            seen
        }
    });
    let reader = tokio::spawn({
        let (store, kv, stop) = (store.clone(), kv.clone(), Arc::clone(&stop));
        async move {
            let mut shots = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let snapshot = store.snapshot().await.unwrap();
                shots.push((shown(&snapshot, &kv, "count").await, shown(&snapshot, &kv, "joint").await));
            }
            shots
        }
    });
    for turn in 1..300 {
        let joint = Joint::new().set(&kv, "joint", turn.to_string().into_bytes(), None).unwrap();
        store.commit(joint).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let (seen, shots) = (writer.await.unwrap(), reader.await.unwrap());
    assert!(!shots.is_empty());
    for (count, joint) in shots {
        if let Some(before) = seen.get(count as usize + 1) {
            assert!(*before >= joint, "count {} was written when {before} was seen, not {joint}", count + 1);
        }
    }
}
