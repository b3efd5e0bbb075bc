//! Compaction: space comes back, nothing else changes, wherever it is cut off.

use std::{io::ErrorKind, path::Path};

use redb::StorageBackend as _;
use tollgate_store::{Compaction, OpenError, Options, StorageError, Store};

use crate::{
    disk::{Disk, Fault, Steps},
    report::{fill, problems},
    support::{Memory, Place, RELAXED, value},
};

/// Fills a store and makes most of it dead: the last kv entries stay, and what `fill` makes.
async fn wear(store: &Store, keys: usize) {
    let kv = store.kv("large", RELAXED).unwrap();
    for key in 0..keys {
        kv.put(&key.to_string(), vec![key as u8; 3_000], None).await.unwrap();
    }
    // What is removed before it is on disk never takes room there.
    store.flush().await.unwrap();
    fill(store).await;
    for key in 0..keys * 9 / 10 {
        kv.delete(&key.to_string()).await.unwrap();
    }
    store.flush().await.unwrap();
}

/// What `wear` has left is there.
async fn check(store: &Store, keys: usize) {
    let kv = store.kv("large", RELAXED).unwrap();
    for key in 0..keys {
        let expected = (key >= keys * 9 / 10).then(|| vec![key as u8; 3_000]);
        assert_eq!(value(&kv, &key.to_string()).await, expected, "{key}");
    }
    assert_eq!(problems(store).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_gives_space_back_and_changes_nothing_else() {
    let place = Place::new();
    let store = place.open();
    wear(&store, 3_000).await;
    let served = Compaction::open(&place.path(), place.options());
    assert!(matches!(served, Err(OpenError::AlreadyOpen)), "{served:?}");
    store.close().await.unwrap();
    drop(store);

    let mut compaction = Compaction::open(&place.path(), place.options()).unwrap();
    let before = compaction.bytes().unwrap();
    compaction.check().unwrap();
    let done = compaction.run().unwrap();
    assert_eq!(done.before_bytes, before);
    assert_eq!(done.after_bytes, std::fs::metadata(place.path()).unwrap().len());
    assert!(done.after_bytes < done.before_bytes / 2, "{done:?}");
    check(&place.open(), 3_000).await;
}

#[test]
fn there_is_nothing_to_compact_where_no_file_is() {
    let place = Place::new();
    let error = Compaction::open(&place.path(), place.options()).unwrap_err();
    assert!(matches!(error, OpenError::Storage(StorageError::Io(_))), "{error:?}");
    assert!(!place.path().exists(), "none was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_page_is_found_before_anything_is_moved() {
    let memory = Memory::default();
    let store = memory.open();
    fill(&store).await;
    store.close().await.unwrap();
    drop(store);
    Compaction::open(Path::new("unused"), memory.copy().options()).unwrap().check().unwrap();
    memory.damage(|bytes| {
        let places: Vec<_> = memchr::memmem::find_iter(bytes, b"a value that is damaged").collect();
        places.into_iter().for_each(|place| bytes[place] ^= 1);
    });
    let error = Compaction::open(Path::new("unused"), memory.options()).unwrap().check().unwrap_err();
    assert!(matches!(error, OpenError::Storage(StorageError::Corrupt(_))), "{error:?}");
}

/// Compacts until changes fail.
fn compact(disk: &Disk) {
    if let Ok(mut compaction) = Compaction::open(Path::new("unused"), disk.options(Options::default())) {
        // Whether it was cut off before, in or after its work is chance.
        let _ = compaction.check().and_then(|()| compaction.run());
    }
}

/// A process that is killed leaves all that it has written, one whose machine loses power any part of what it has not synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_that_is_cut_off_anywhere_loses_nothing() {
    const KEYS: usize = 300;
    const ROUNDS: u64 = 20;
    let disk = Disk::default();
    let store = disk.open(false);
    wear(&store, KEYS).await;
    store.close().await.unwrap();
    drop(store);
    let mut random = 1_u64;
    let mut chance = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        random >> 62 != 0
    };
    let whole = disk.after_kill();
    compact(&whole);
    let needed = whole.steps().changes;
    assert!(needed > ROUNDS && whole.len().unwrap() < disk.len().unwrap(), "{needed}");
    for round in 0..ROUNDS {
        let cut = disk.after_kill();
        let at = Steps { changes: needed * round / ROUNDS + 1, ..Steps::default() };
        cut.fail(Fault { at, stays: true, kind: ErrorKind::Other });
        compact(&cut);
        assert!(cut.steps().changes >= at.changes, "it was not cut off");
        let killed = cut.after_kill();
        let failed = cut.after_power_failure(&mut chance);
        for disk in [killed, failed] {
            let store = disk.open(round % 2 == 0);
            check(&store, KEYS).await;
            store.close().await.unwrap();
        }
    }
}
