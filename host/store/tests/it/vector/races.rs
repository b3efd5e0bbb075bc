//! Readers and writers at once.

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    io,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
};

use redb::StorageBackend;
use tollgate_store::{Options, Store, Vector, VectorMatch, VectorOptions, VectorQuery};

use super::support::{index, near, report, vector};
use crate::support::{Memory, Place};

/// Writers replace vectors all the time, in pairs that always have equal values; whoever searches finds each of them once,
/// and both of a pair of one time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_query_sees_every_vector_once_and_no_half_of_a_change() {
    replace_pairs(VectorOptions::new(3)).await;
}

/// Beside them a graph is built, which every other change makes out of date.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_query_sees_the_same_while_a_graph_is_built_and_renewed() {
    replace_pairs(VectorOptions { exact_up_to: 8, ..VectorOptions::new(3) }).await;
}

async fn replace_pairs(options: VectorOptions) {
    let store = Place::new().open();
    let index = store.index("a", options).unwrap();
    let pair = |pair: u64, turn: u64| -> Vec<Vector> {
        let values = vec![1.0, turn as f32, pair as f32];
        vec![vector(format!("{pair}/0"), values.clone()), vector(format!("{pair}/1"), values)]
    };
    for number in 0..20 {
        index.upsert(pair(number, 0)).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer: u64| {
            let (index, stop) = (index.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut turn = 0;
                while !stop.load(Ordering::SeqCst) {
                    turn += 1;
                    let number = writer * 5 + turn % 5;
                    index.upsert(pair(number, turn)).await.unwrap();
                    // What was acknowledged is seen at once.
                    let found = all(&index, 100).await;
                    let own = found.iter().find(|found| found.id == format!("{number}/0")).unwrap();
                    assert_eq!(own.values.as_ref().unwrap()[1], turn as f32);
                    let extra = format!("extra/{writer}");
                    index.insert(vec![vector(&extra, vec![0.0; 3])]).await.unwrap();
                    assert_eq!(index.delete_by_ids(&[extra]).await, Ok(1));
                }
            })
        })
        .collect();
    for _ in 0..300 {
        let found = all(&index, 100).await;
        let found: Vec<&VectorMatch> = found.iter().filter(|found| !found.id.starts_with("extra")).collect();
        let ids: BTreeSet<&str> = found.iter().map(|found| found.id.as_str()).collect();
        assert_eq!((found.len(), ids.len()), (40, 40));
        for one in &found {
            let partner = found.iter().find(|other| {
                other.id != one.id && other.id.split_once('/').unwrap().0 == one.id.split_once('/').unwrap().0
            });
            assert_eq!(one.values, partner.unwrap().values);
        }
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(report(&index).await.vectors, 40);
}

async fn all(index: &tollgate_store::Index, top_k: usize) -> Vec<VectorMatch> {
    let query = VectorQuery { return_values: true, ..near(vec![1.0, 1.0, 1.0], top_k) };
    index.query(query).await.unwrap()
}

/// Many open and use an index for the first time at once: it is loaded whole for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_index_may_be_used_while_it_is_loaded() {
    let place = Place::new();
    let store = place.open();
    let vectors: Vec<Vector> = (0..1_000).map(|id| vector(id, vec![id as f32, 1.0, 0.0])).collect();
    index(&store, "a", 3).upsert(vectors).await.unwrap();
    store.close().await.unwrap();

    let store: Store = place.open();
    let users: Vec<_> = (0..16)
        .map(|user| {
            let store = store.clone();
            tokio::spawn(async move {
                let index = index(&store, "a", 3);
                if user % 2 == 0 {
                    index.upsert(vec![vector(format!("new/{user}"), vec![0.5, 0.5, 0.5])]).await.unwrap();
                }
                assert_eq!(all(&index, 100).await.len(), 100);
            })
        })
        .collect();
    for user in users {
        user.await.unwrap();
    }
    assert_eq!(report(&index(&store, "a", 3)).await.vectors, 1_008);
}

/// A storage that counts the bytes that are read.
#[derive(Clone, Debug, Default)]
struct Counted {
    memory: Memory,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    /// Opens it with hardly any memory for pages, so that what is read twice is read twice from here.
    fn open(&self) -> Store {
        let backend = Some(Box::new(self.clone()) as Box<dyn StorageBackend>);
        let options = Options { backend, cache_bytes: 64 << 10, ..Options::default() };
        Store::open(Path::new("unused"), options).unwrap()
    }
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.fetch_add(out.len() as u64, Ordering::SeqCst);
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

/// Callers who gave up once left their load to nobody, and the next began it again: an index that takes longer to load than
/// its callers wait was never loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_goes_on_when_its_caller_gives_up_and_nobody_begins_it_again() {
    let disk = Counted::default();
    let store = disk.open();
    for part in 0..4 {
        let vectors = (0..500).map(|id| vector(part * 500 + id, vec![id as f32; 256])).collect();
        index(&store, "a", 256).upsert(vectors).await.unwrap();
    }
    store.close().await.unwrap();
    let mut read = Vec::new();
    for given_up in [0, 3] {
        let store = disk.open();
        let index = index(&store, "a", 256);
        let before = disk.bytes.load(Ordering::SeqCst);
        for _ in 0..given_up {
            let mut load = pin!(index.load());
            poll_fn(|context| Poll::Ready(load.as_mut().poll(context).is_ready())).await;
        }
        index.load().await.unwrap();
        read.push(disk.bytes.load(Ordering::SeqCst) - before);
        assert_eq!(report(&index).await.vectors, 2_000);
        store.close().await.unwrap();
    }
    // What else reads now and again, such as the sweep of what has expired, reads a few pages.
    assert!(read[0] > 2_000_000 && read[1] < read[0] * 3 / 2, "{read:?}");
}
