//! Compaction: space comes back, nothing else changes, wherever it is cut off.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use redb::StorageBackend;
use tollgate_store::{Compaction, OpenError, Options, StorageError, Store};

use crate::{
    power::Disk,
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

/// A disk whose power is gone after so many changes.
#[derive(Clone, Debug)]
struct Cut {
    disk: Disk,
    left: Arc<AtomicI64>,
}

impl Cut {
    fn change(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { Err(io::Error::other("no power")) }
    }

    /// Compacts until the power is gone; how many changes were left.
    fn compact(&self) -> i64 {
        let options = Options { backend: Some(Box::new(self.clone())), ..Options::default() };
        if let Ok(mut compaction) = Compaction::open(Path::new("unused"), options) {
            // Whether it was cut off before, in or after its work is chance.
            let _ = compaction.check().and_then(|()| compaction.run());
        }
        self.left.load(Ordering::SeqCst)
    }
}

impl StorageBackend for Cut {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change()?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change()?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change()?;
        self.disk.write(offset, data)
    }
}

/// A process that is killed leaves all that it has written, one whose machine loses power any part of what it has not synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_that_is_cut_off_anywhere_loses_nothing() {
    const KEYS: usize = 300;
    const ROUNDS: i64 = 20;
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
    let cut = |changes| Cut {
        disk: disk.after_power_failure(&mut || true),
        left: Arc::new(AtomicI64::new(changes)),
    };
    let whole = cut(i64::MAX);
    let needed = i64::MAX - whole.compact();
    assert!(needed > ROUNDS && whole.disk.len().unwrap() < disk.len().unwrap(), "{needed}");
    for round in 0..ROUNDS {
        let cut = cut(needed * round / ROUNDS);
        assert!(cut.compact() <= 0, "it was not cut off");
        let killed = cut.disk.after_power_failure(&mut || true);
        let failed = cut.disk.after_power_failure(&mut chance);
        for disk in [killed, failed] {
            let store = disk.open(round % 2 == 0);
            check(&store, KEYS).await;
            store.close().await.unwrap();
        }
    }
}
