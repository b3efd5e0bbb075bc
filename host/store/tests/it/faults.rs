//! Storage that fails: nothing more is acknowledged, nothing hangs, nothing acknowledged is lost.

use std::{io::ErrorKind, path::Path, time::Duration};

use redb::TableDefinition;
use tokio::time::timeout;
use tollgate_store::{
    CommitError, Joint, KvError, OpenError, Options, QueueError, SetOptions, SqlError, Statement,
    StorageError, Store,
};

use crate::support::{DURABLE, Memory, Place, RELAXED, value};

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
            assert!(matches!(answer.await.unwrap(), Err(KvError::Storage(_))));
        }
        waiter.await.unwrap();
        let set = SetOptions::default();
        assert!(matches!(relaxed.set("k", vec![2], set).await, Err(KvError::Storage(_))));
        assert!(matches!(relaxed.increment("k", 1, None).await, Err(KvError::Storage(_))));
        assert!(matches!(relaxed.swap("k", None, vec![], None).await, Err(KvError::Storage(_))));
        assert!(matches!(relaxed.delete("k").await, Err(KvError::Storage(_))));
        let entries = vec![("k".to_owned(), vec![])];
        assert!(matches!(relaxed.set_many(entries, None).await, Err(KvError::Storage(_))));
        assert!(matches!(queue.append(vec![]), Err(QueueError::Storage(_))));
        assert!(matches!(queue.read(event, 10, 10).await, Err(QueueError::Storage(_))));
        assert!(matches!(store.flush().await, Err(CommitError::Storage(_))));
        assert!(store.stats().poisoned);
        let Err(CommitError::Storage(StorageError::Io(reason))) = store.close().await else { panic!() };
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
    assert!(matches!(kv.set("k", vec![3], SetOptions::default()).await, Err(KvError::Storage(_))));
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
    assert!(matches!(error, Some(KvError::Storage(_))));
}

/// Every way to the disk says what is wrong with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_and_a_failing_one_are_told_apart() {
    for (kind, full) in [
        (ErrorKind::StorageFull, true),
        (ErrorKind::QuotaExceeded, true),
        (ErrorKind::PermissionDenied, false),
        (ErrorKind::Other, false),
    ] {
        let memory = Memory::default();
        let store = memory.open();
        let (kv, queue) = (store.kv("kv", DURABLE).unwrap(), store.queue("queue", 1 << 20).unwrap());
        let database = store.database("sql").unwrap();
        database.execute("CREATE TABLE t (n)".into()).await.unwrap();
        kv.set("k", vec![1], SetOptions::default()).await.unwrap();
        memory.fail_with(kind);
        let told = |error: &StorageError| match error {
            StorageError::DiskFull(text) => full && text.contains("injected"),
            StorageError::Io(text) => !full && text.contains("injected"),
            _ => false,
        };
        // The first meets the disk, the others what the store then knows.
        let insert = || Statement::from("INSERT INTO t VALUES (1)");
        let mut errors = Vec::new();
        let Err(SqlError::Storage(error)) = database.execute(insert()).await else { panic!() };
        errors.push(error);
        let set = kv.set("k", vec![2], SetOptions::default()).await;
        let Err(KvError::Storage(error)) = set else { panic!("{set:?}") };
        errors.push(error);
        let mut transaction = store.transaction();
        transaction.set(&kv, "k", vec![2], None).unwrap();
        let Err(KvError::Storage(error)) = transaction.commit().await else { panic!() };
        errors.push(error);
        let joint = Joint::new().set(&kv, "k", vec![2], None).unwrap();
        let Err(CommitError::Storage(error)) = store.commit(joint).await else { panic!() };
        errors.push(error);
        let joint = Joint::new().set(&kv, "k", vec![2], None).unwrap();
        let joint = joint.statement(&database, insert()).unwrap();
        let Err(CommitError::Storage(error)) = store.commit(joint).await else { panic!() };
        errors.push(error);
        let Err(QueueError::Storage(error)) = queue.append(vec![1]) else { panic!() };
        errors.push(error);
        let Err(CommitError::Storage(error)) = store.snapshot().await else { panic!() };
        errors.push(error);
        let Err(CommitError::Storage(error)) = store.close().await else { panic!() };
        errors.push(error);
        assert!(errors.iter().all(told), "{kind:?}: {errors:?}");

        let store = memory.copy().open();
        assert_eq!(value(&store.kv("kv", DURABLE).unwrap(), "k").await, Some(vec![1]));
        let rows = store.database("sql").unwrap().query("SELECT n FROM t".into()).await.unwrap().rows;
        assert!(rows.is_empty());
    }
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let store = Place::new().open();
    let (kv, queue) = (store.kv("kv", RELAXED).unwrap(), store.queue("queue", 1 << 20).unwrap());
    let database = store.database("sql").unwrap();
    let snapshot = store.snapshot().await.unwrap();
    store.close().await.unwrap();
    let closed = KvError::Storage(StorageError::Closed);
    assert_eq!(kv.set("k", vec![], SetOptions::default()).await, Err(closed.clone()));
    assert_eq!(kv.list_keys(None, None, 1).await, Err(closed.clone()));
    assert_eq!(snapshot.get(&kv, "k").await, Err(closed.clone()));
    assert_eq!(snapshot.entries(&kv, "").unwrap().next().await, Err(closed.clone()));
    assert_eq!(store.transaction().commit().await, Err(closed.clone()));
    assert_eq!(store.batch().write().await, Err(closed.clone()));
    assert_eq!(store.kv("other", RELAXED).map(|_| ()), Err(closed));
    assert_eq!(queue.append(vec![]), Err(QueueError::Storage(StorageError::Closed)));
    assert_eq!(database.query("SELECT 1".into()).await, Err(SqlError::Storage(StorageError::Closed)));
    assert_eq!(database.execute("SELECT 1".into()).await, Err(SqlError::Storage(StorageError::Closed)));
    assert_eq!(store.flush().await, Err(CommitError::Storage(StorageError::Closed)));
    let joint = Joint::new().set(&kv, "k", vec![], None).unwrap();
    assert_eq!(store.commit(joint).await, Err(CommitError::Storage(StorageError::Closed)));
}

/// Options under which nothing is read from memory.
fn uncached(memory: &Memory) -> Options {
    Options { cache_bytes: 0, kv_cache_bytes: 0, ..memory.options() }
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_told_to_readers() {
    let memory = Memory::default();
    let store = Store::open(Path::new("unused"), uncached(&memory)).unwrap();
    let kv = store.kv("kv", DURABLE).unwrap();
    // So many that the tree has pages beside its root, which a snapshot keeps.
    let entries = (0..100).map(|number| (format!("{number}"), vec![1; 1_000])).collect();
    kv.set_many(entries, None).await.unwrap();
    kv.set("k", vec![1], SetOptions::default()).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    memory.fail_reads();
    assert!(matches!(kv.get("k").await, Err(KvError::Storage(StorageError::Io(_)))));
    assert!(matches!(kv.list_keys(None, None, 1).await, Err(KvError::Storage(StorageError::Io(_)))));
    let read = snapshot.get(&kv, "k").await;
    assert!(matches!(read, Err(KvError::Storage(StorageError::Io(_)))), "{read:?}");
    let entry = snapshot.entries(&kv, "").unwrap().next().await;
    assert!(matches!(entry, Err(KvError::Storage(StorageError::Io(_)))));
    let read = store.transaction().get(&kv, "k").await;
    assert!(matches!(read, Err(KvError::Storage(StorageError::Io(_)))));
}

/// Changes rows behind the store's back.
fn meddle(place: &Place, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(place.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[tokio::test]
async fn damaged_rows_and_pages_are_corrupt() {
    let place = Place::new();
    let store = place.open();
    let (kv, database) = (store.kv("kv", DURABLE).unwrap(), store.database("sql").unwrap());
    kv.set("k", vec![1], SetOptions::default()).await.unwrap();
    database.execute("CREATE TABLE t (n)".into()).await.unwrap();
    database.execute("INSERT INTO t VALUES (1)".into()).await.unwrap();
    store.close().await.unwrap();
    drop((store, kv, database));
    meddle(&place, |transaction| {
        let mut rows = transaction.open_table(TableDefinition::<&[u8], &[u8]>::new("kv")).unwrap();
        let keys: Vec<_> =
            rows.extract_if(|_, _| true).unwrap().map(|row| row.unwrap().0.value().to_vec()).collect();
        for key in keys {
            rows.insert(key.as_slice(), &[1, 2, 3][..]).unwrap();
        }
        let mut pages = transaction.open_table(TableDefinition::<u64, &[u8]>::new("sql-pages")).unwrap();
        let keys: Vec<_> = pages
            .extract_if(|_, _| true)
            .unwrap()
            .map(|row| {
                let (key, page) = row.unwrap();
                (key.value(), page.value().to_vec())
            })
            .collect();
        for (key, mut page) in keys {
            // The first two are the meta value and the page with the header.
            if key & 0xff > 1 {
                page.fill(0xee);
            }
            pages.insert(key, page.as_slice()).unwrap();
        }
    });
    let store = place.open();
    let (kv, database) = (store.kv("kv", DURABLE).unwrap(), store.database("sql").unwrap());
    let corrupt = |error: &KvError| matches!(error, KvError::Storage(StorageError::Corrupt(_)));
    assert!(corrupt(&kv.get("k").await.unwrap_err()));
    assert!(corrupt(&kv.increment("k", 1, None).await.unwrap_err()));
    assert!(corrupt(&store.transaction().get(&kv, "k").await.unwrap_err()));
    assert!(corrupt(&store.snapshot().await.unwrap().get(&kv, "k").await.unwrap_err()));
    let read = database.query("SELECT n FROM t".into()).await;
    assert!(matches!(read, Err(SqlError::Storage(StorageError::Corrupt(_)))), "{read:?}");
    let written = database.execute("INSERT INTO t VALUES (2)".into()).await;
    assert!(matches!(written, Err(SqlError::Storage(StorageError::Corrupt(_)))), "{written:?}");
    // What is damaged does not stop the rest.
    kv.set("k", vec![2], SetOptions::default()).await.unwrap();
    assert_eq!(value(&kv, "k").await, Some(vec![2]));
    store.close().await.unwrap();
    drop((store, kv, database));
    meddle(&place, |transaction| {
        let mut meta = transaction.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
        meta.insert("format", 99).unwrap();
    });
    let opened = Store::open(&place.path(), place.options());
    assert!(matches!(opened, Err(OpenError::Storage(StorageError::Corrupt(_)))), "{opened:?}");
}

/// A disk that changes bytes: the store answers or says that it cannot, and nothing hangs or ends the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_end_no_call_without_an_answer() {
    let memory = Memory::default();
    let store = memory.open();
    let kv = store.kv("kv", DURABLE).unwrap();
    for first in (0..600).step_by(100) {
        let entries = (first..first + 100).map(|key| (format!("key {key}"), vec![1; 50]));
        kv.set_many(entries.collect(), None).await.unwrap();
    }
    store.close().await.unwrap();
    drop((store, kv));
    let (mut random, mut failed) = (7_u64, 0);
    for _ in 0..150 {
        let memory = memory.copy();
        memory.damage(|bytes| {
            for _ in 0..40 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                // Behind the header, which is checked when the file is opened.
                let place = 4096 + (random >> 20) as usize % (bytes.len().min(300_000) - 4096);
                bytes[place] ^= (random >> 8) as u8 | 1;
            }
        });
        let answered = timeout(Duration::from_secs(20), async {
            let store = Store::open(Path::new("unused"), uncached(&memory)).map_err(|_| ())?;
            let kv = store.kv("kv", DURABLE).map_err(|_| ())?;
            for key in (0..600).step_by(7) {
                kv.get(&format!("key {key}")).await.map_err(|_| ())?;
            }
            kv.list_keys(None, None, 1_000).await.map_err(|_| ())?;
            kv.set("key 0", vec![2], SetOptions::default()).await.map_err(|_| ())?;
            store.close().await.map_err(|_| ())
        });
        failed += u32::from(answered.await.unwrap().is_err());
    }
    assert!(failed > 0);
}
