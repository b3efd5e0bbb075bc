//! A store with something of everything, the work that is done on it, and what has to be found afterwards.

use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_store::{
    BlobOptions, Cache, CacheOptions, Container, Database, Index, Kv, Queue, Store, VectorOptions,
};

use super::{Fallible, files, objects, rows};
use crate::{
    report::problems,
    support::{DURABLE, RELAXED},
};

/// What is done turn by turn, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Kv,
    Queue,
    Sql,
    Import,
    Blob,
    Vector,
    Joint,
}

impl Work {
    pub(super) const ALL: [Self; 7] =
        [Self::Kv, Self::Queue, Self::Sql, Self::Import, Self::Blob, Self::Vector, Self::Joint];
}

/// Values of a vector that fill a page of their own and a little more.
pub(super) const DIMENSIONS: usize = 1_024;

/// A clone is the same store.
#[derive(Clone)]
pub(super) struct World {
    pub(super) store: Store,
    pub(super) durable: Kv,
    pub(super) relaxed: Kv,
    pub(super) queue: Queue,
    pub(super) database: Database,
    pub(super) imported: Database,
    pub(super) blobs: Container,
    /// Its contents are files.
    pub(super) files: Option<Container>,
    pub(super) index: Index,
    pub(super) cache: Cache,
}

impl World {
    /// `files`: the store has a folder for files, which is not on the disk that fails.
    pub(super) async fn open(store: Store, files: bool) -> Fallible<Self> {
        let in_files = || store.container("files", BlobOptions { files: true, ..BlobOptions::default() });
        let database = store.database("rows")?;
        rows::create(&database).await?;
        Ok(Self {
            durable: store.kv("durable", DURABLE)?,
            relaxed: store.kv("relaxed", RELAXED)?,
            queue: store.queue("queue", 8 << 20)?,
            database,
            imported: store.database("imported")?,
            blobs: store.container("blobs", BlobOptions::default())?,
            files: files.then(in_files).transpose()?,
            index: store.index(
                "vectors",
                // With a graph, which is built beside all that fails.
                VectorOptions {
                    indexed: vec!["parity".to_owned()],
                    exact_up_to: 4,
                    ..VectorOptions::new(DIMENSIONS)
                },
            )?,
            cache: store.cache("cache", CacheOptions::default())?,
            store,
        })
    }

    /// Does a turn. When it returns well, the turn is acknowledged.
    pub(super) async fn turn(&self, work: Work, turn: u64) -> Fallible<()> {
        match work {
            Work::Kv => rows::kv_turn(self, turn).await,
            Work::Queue => rows::queue_turn(self, turn).await,
            Work::Sql => rows::sql_turn(&self.database, turn).await,
            Work::Import => files::import_turn(&self.imported, turn).await,
            Work::Blob => objects::turn(self, turn).await,
            Work::Vector => objects::vector_turn(&self.index, turn).await,
            Work::Joint => objects::joint_turn(self, turn).await,
        }
    }

    /// The last turn that is there, whole; 0: none.
    pub(super) async fn found(&self, work: Work) -> Fallible<u64> {
        match work {
            Work::Kv => rows::kv_found(self).await,
            Work::Queue => rows::queue_found(self).await,
            Work::Sql => rows::sql_found(&self.database).await,
            Work::Import => files::imported(&self.imported).await,
            Work::Blob => objects::found(self).await,
            Work::Vector => objects::vector_found(&self.index).await,
            Work::Joint => objects::joint_found(self).await,
        }
    }

    /// For all work, while nobody writes.
    pub(super) async fn all_found(&self) -> Turns {
        let turns = Turns::default();
        for work in Work::ALL {
            turns.set(work, self.found(work).await.unwrap());
        }
        turns
    }

    /// Checks the whole store, in which at least these turns have to be; what is volatile has gone.
    pub(super) async fn check(&self, acknowledged: &Turns) {
        assert_eq!(self.cache.get("turn").unwrap(), None);
        let found = self.all_found().await;
        for work in Work::ALL {
            let (found, expected) = (found.get(work), acknowledged.get(work));
            assert!(found >= expected, "{work:?}: turn {expected} was acknowledged, {found} is found");
        }
        assert_eq!(problems(&self.store).await, [""; 0]);
    }
}

/// The last turn of each work.
#[derive(Debug, Default)]
pub(super) struct Turns([AtomicU64; Work::ALL.len()]);

impl Turns {
    pub(super) fn get(&self, work: Work) -> u64 {
        self.0[work as usize].load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, work: Work, turn: u64) {
        self.0[work as usize].store(turn, Ordering::SeqCst);
    }
}
