//! Opening and closing a store.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, RwLock};
use redb::{Durability, ReadableTable, TableDefinition};
use thiserror::Error;

use crate::{
    Batch, BlobError, BlobOptions, Cache, CacheError, CacheOptions, CommitError, Container, Index, Joint, Kv,
    KvError, KvOptions, Queue, QueueError, Snapshot, Stats, StorageError, Transaction, VectorError,
    VectorOptions,
    backend::Given,
    blob::{self, folder::Folder},
    cache::Caches,
    commit,
    core::{Core, EPOCH_SHIFT, Open},
    error::guarded,
    health::Health,
    inbox::Inbox,
    joint,
    kv::{key::Keys, presence::Presences, record::ROWS, size::Sizes},
    limits::{CACHE_BYTES, KV_CACHE_BYTES, LIST_ITEMS},
    names::Names,
    overlay::Overlay,
    queue::{CHUNKS, Queues, REMOVED},
    ram::Ram,
    sql::{Database, Databases, SqlError},
    vector::{self, open::Indexes},
};

/// Numbers of the whole file: `format`, `epoch`, and `counted`, the last epoch in which sizes were kept.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// How rows are laid out.
const FORMAT: u64 = 1;

/// Milliseconds since 1970, from wherever the caller takes the time.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a store is opened.
pub struct Options {
    /// redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// Clean kv values kept in memory, in bytes, over all named stores; 0 keeps none.
    pub kv_cache_bytes: u64,
    /// The time; expiry goes by it.
    pub clock: Clock,
    /// A second fsync for each commit, against a crash that forges redb's checksum.
    pub two_phase: bool,
    /// Where contents of blobs that are files are, if there are any. It belongs to this store alone, and is made when it is
    /// needed.
    pub blob_folder: Option<PathBuf>,
    /// Storage in place of the file, for tests that inject faults; the path is then unused.
    pub backend: Option<Box<dyn redb::StorageBackend>>,
}

/// Why a store does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has the file open.
    #[error("the store is already open")]
    AlreadyOpen,
    /// The file cannot be read, or not as a store.
    #[error("cannot open the store: {0}")]
    Storage(#[from] StorageError),
}

/// Named kv stores, SQL databases, queues, blob containers and vector indexes in one file. A clone is the same store. The last handle,
/// of whatever kind, that goes away stops the committer and waits for it; better call `close` first.
#[derive(Clone)]
pub struct Store {
    caches: Arc<Caches>,
    databases: Arc<Databases>,
    pub(crate) open: Arc<Open>,
}

impl Store {
    /// Opens the file, or creates it; after a crash it is recovered first. Blocks.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(options.cache_bytes);
        let (two_phase, backend) = (options.two_phase, options.backend);
        let file = backend.is_none().then(|| path.to_owned());
        let (database, Started { epoch, names, sizes }) = guarded(|| {
            let database = match backend {
                Some(backend) => builder.create_with_backend(Given(backend)).map_err(refused)?,
                None => {
                    let database = builder.create(path).map_err(refused)?;
                    sync_directory(path);
                    database
                }
            };
            let started = start(&database, two_phase).map_err(storage)?;
            Ok::<_, OpenError>((database, started))
        })?;
        let health = Arc::new(Health::default());
        let core = Arc::new(Core {
            path: file,
            database: RwLock::new(Some(database)),
            visible: RwLock::new(()),
            overlay: Overlay::new(options.kv_cache_bytes, Arc::clone(&health)),
            health,
            inbox: Inbox::default(),
            keys: Keys::default(),
            presences: Presences::default(),
            names,
            sizes,
            queues: Queues::default(),
            leases: Arc::default(),
            folder: options.blob_folder.map(|path| Arc::new(Folder::new(path))),
            files: Arc::default(),
            indexes: Indexes::default(),
            figures: Mutex::default(),
            two_phase,
            clock: options.clock,
            epoch,
            versions: AtomicU64::new((epoch << EPOCH_SHIFT) + 1),
        });
        let committer = {
            let core = Arc::clone(&core);
            thread::Builder::new()
                .name("store-committer".to_owned())
                .spawn(move || commit::run(core))
                .map_err(|error| OpenError::Storage(StorageError::Io(error.to_string())))?
        };
        let open = Arc::new(Open { core, committer: Some(committer) });
        Ok(Self { caches: Arc::default(), databases: Arc::default(), open })
    }

    /// Makes a store in memory, of `most_bytes` at most; with its last handle it is gone. It does all that a store in a file
    /// does, and takes memory for its content beside that for caches. When it is full, it is as a store on a full disk.
    pub fn in_memory(options: Options, most_bytes: u64) -> Result<Self, OpenError> {
        let backend: Box<dyn redb::StorageBackend> = Box::new(Ram::new(most_bytes));
        Self::open(Path::new(""), Options { backend: Some(backend), ..options })
    }

    /// Opens a named kv store, or creates it.
    pub fn kv(&self, name: &str, options: KvOptions) -> Result<Kv, KvError> {
        Kv::open(Arc::clone(&self.open), name, options)
    }

    /// Opens a named SQL database, or creates it; the same name twice is the same writer. Blocks shortly for the first
    /// time of a name. The database serves as long as a handle of the store, of a kv store or of a queue lives.
    pub fn database(&self, name: &str) -> Result<Database, SqlError> {
        self.databases.open(&self.open, name)
    }

    /// Opens a named cache, empty the first time; the options of a name's first opening stand. It serves on when the
    /// store is closed.
    pub fn cache(&self, name: &str, options: CacheOptions) -> Result<Cache, CacheError> {
        self.caches.open(name, options, &self.open.core.clock)
    }

    /// Opens a named queue, or creates it. Blocks for reading what is in it, the first time.
    pub fn queue(&self, name: &str, capacity_bytes: u64) -> Result<Queue, QueueError> {
        Queue::open(Arc::clone(&self.open), name, capacity_bytes)
    }

    /// Every kv store as it is at one instant from now on, for reading. Waits for the disk when something visible is not
    /// on it yet.
    pub async fn snapshot(&self) -> Result<Snapshot, CommitError> {
        Ok(Snapshot::new(self.open.core.inbox.snapshot().await?, Arc::clone(&self.open)))
    }

    /// Begins to read and write kv stores as one step.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(Arc::clone(&self.open))
    }

    /// An empty batch of writes to kv stores.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.open))
    }

    /// Opens a named blob container, or creates it. The options count for what is done through this handle.
    pub fn container(&self, name: &str, options: BlobOptions) -> Result<Container, BlobError> {
        Container::open(Arc::clone(&self.open), name, options)
    }

    /// Opens a named vector index, or creates it; the same name twice is the same index, with the same options. Blocks
    /// shortly for the first time of a name. Its vectors are read into memory when they are first needed.
    pub fn index(&self, name: &str, options: VectorOptions) -> Result<Index, VectorError> {
        Index::open(Arc::clone(&self.open), name, options)
    }

    /// Makes all changes visible and durable together, or none.
    pub async fn commit(&self, joint: Joint) -> Result<(), CommitError> {
        let core = &self.open.core;
        if joint.kv.len() > LIST_ITEMS {
            return Err(CommitError::TooLarge(format!("a list has at most {LIST_ITEMS} items")));
        }
        let own_rows = joint.sql.as_ref().is_none_or(|sql| sql.belongs_to(&self.open));
        let own_blobs = joint.blobs.iter().all(|upload| upload.container.belongs_to(core));
        let own_vectors = joint.vectors.iter().all(|prepared| prepared.index.belongs_to(core));
        if !own_rows || !own_blobs || !own_vectors || !joint.stores.iter().all(|kv| kv.belongs_to(core)) {
            return Err(CommitError::Invalid("a joint commit changes one file".to_owned()));
        }
        let changes = joint::changes(joint.kv, joint.blobs, joint.vectors);
        match joint.sql {
            Some(sql) => sql.commit(changes).await,
            None => core.submit(changes).await,
        }
    }

    /// Everything accepted so far is on disk when this returns.
    pub async fn flush(&self) -> Result<(), CommitError> {
        self.open.core.submit(Vec::new()).await
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        self.open.core.stats()
    }

    /// Writes what waits and releases the file. What is asked afterwards is refused as `Closed`,
    /// unless memory still has the answer.
    pub async fn close(&self) -> Result<(), CommitError> {
        self.databases.close().await;
        self.open.core.health.close();
        self.open.core.inbox.stop().await
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("core", &self.open.core).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES,
            kv_cache_bytes: KV_CACHE_BYTES,
            clock: Arc::new(system_time_ms),
            two_phase: false,
            blob_folder: None,
            backend: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("cache_bytes", &self.cache_bytes)
            .field("kv_cache_bytes", &self.kv_cache_bytes)
            .field("two_phase", &self.two_phase)
            .field("blob_folder", &self.blob_folder)
            .finish_non_exhaustive()
    }
}

/// What a file begins with.
struct Started {
    epoch: u64,
    names: Names,
    sizes: Sizes,
}

/// Checks the format, begins a new epoch and makes the tables, in one commit.
fn start(database: &redb::Database, two_phase: bool) -> Result<Started, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(two_phase);
    let (epoch, is_counted) = {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map_or(FORMAT, |format| format.value());
        if format != FORMAT {
            return Err(redb::Error::Corrupted(format!("the file has format {format}, not {FORMAT}")));
        }
        let epoch = meta.get("epoch")?.map_or(0, |epoch| epoch.value()) + 1;
        meta.insert("format", FORMAT)?;
        meta.insert("epoch", epoch)?;
        // A version of this program that does not count sizes begins an epoch too, and leaves this alone.
        let counted = meta.insert("counted", epoch)?.map(|counted| counted.value());
        (epoch, counted == epoch.checked_sub(1))
    };
    transaction.open_table(ROWS)?;
    transaction.open_table(CHUNKS)?;
    transaction.open_table(REMOVED)?;
    blob::create_tables(&transaction)?;
    vector::create_tables(&transaction)?;
    let names = Names::load(&transaction)?;
    let sizes = Sizes::load(&transaction, is_counted)?;
    transaction.commit()?;
    Ok(Started { epoch, names, sizes })
}

/// A new file stays in its directory after a power failure only if the directory is synced too.
fn sync_directory(path: &Path) {
    let synced =
        path.parent().map(|directory| File::open(directory).and_then(|directory| directory.sync_all()));
    if let Some(Err(error)) = synced {
        // Not every system can do it, and the file itself is in order.
        tracing::debug!(%error, "cannot sync the directory of the store");
    }
}

fn system_time_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|time| u64::try_from(time.as_millis()).ok())
        .unwrap_or_default()
}

pub(crate) fn refused(error: redb::DatabaseError) -> OpenError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenError::AlreadyOpen,
        other => storage(other.into()),
    }
}

pub(crate) fn storage(error: redb::Error) -> OpenError {
    OpenError::Storage(error.into())
}
