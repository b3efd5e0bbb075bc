//! What the tests share.

use std::{
    fmt,
    io::{self, Error, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use redb::StorageBackend;
use tempfile::TempDir;
use tollgate_store::{Acknowledge, Kv, KvOptions, Options, Store};

pub(crate) const DURABLE: KvOptions =
    KvOptions { acknowledge: Acknowledge::Durable, default_ttl_ms: None, limit_bytes: None };
pub(crate) const RELAXED: KvOptions =
    KvOptions { acknowledge: Acknowledge::Relaxed, default_ttl_ms: None, limit_bytes: None };

/// A directory for a store, and a clock that stands still until it is moved.
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) kv_cache_bytes: u64,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, clock: Arc::new(AtomicU64::new(1_000_000)), kv_cache_bytes: 8 << 20 }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("store.redb")
    }

    /// Where contents of blobs that are files are.
    pub(crate) fn blob_folder(&self) -> PathBuf {
        self.directory.path().join("blobs")
    }

    pub(crate) fn options(&self) -> Options {
        let clock = Arc::clone(&self.clock);
        Options {
            kv_cache_bytes: self.kv_cache_bytes,
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
            blob_folder: Some(self.blob_folder()),
            ..Options::default()
        }
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.path(), self.options()).unwrap()
    }

    pub(crate) fn advance(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }
}

pub(crate) fn open_kv(path: &Path, name: &str, options: KvOptions) -> (Store, Kv) {
    let store = Store::open(path, Options::default()).unwrap();
    let kv = store.kv(name, options).unwrap();
    (store, kv)
}

pub(crate) async fn value(kv: &Kv, key: &str) -> Option<Vec<u8>> {
    kv.get(key).await.unwrap().map(|entry| entry.value.to_vec())
}

pub(crate) async fn number(kv: &Kv, key: &str) -> i64 {
    value(kv, key).await.map_or(0, |value| String::from_utf8(value).unwrap().parse().unwrap())
}

/// A storage in memory that fails on demand. A clone is the same storage, so that it can be opened again.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    failing: Arc<Mutex<Option<ErrorKind>>>,
    failing_reads: Arc<AtomicBool>,
}

impl Memory {
    /// From now on every write and sync fails.
    pub(crate) fn fail(&self, failing: bool) {
        *self.failing.lock() = failing.then_some(ErrorKind::Other);
    }

    /// From now on every write and sync fails in this way.
    pub(crate) fn fail_with(&self, kind: ErrorKind) {
        *self.failing.lock() = Some(kind);
    }

    /// From now on every read fails.
    pub(crate) fn fail_reads(&self) {
        self.failing_reads.store(true, Ordering::SeqCst);
    }

    /// Changes what is stored.
    pub(crate) fn damage(&self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.bytes.lock());
    }

    /// The same bytes as they are now, in a storage of its own.
    pub(crate) fn copy(&self) -> Self {
        let bytes = self.bytes.lock().clone();
        Self { bytes: Arc::new(Mutex::new(bytes)), ..Self::default() }
    }

    pub(crate) fn options(&self) -> Options {
        Options { backend: Some(Box::new(self.clone())), ..Options::default() }
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(Path::new("unused"), self.options()).unwrap()
    }

    fn check(&self) -> io::Result<()> {
        self.failing.lock().map_or(Ok(()), |kind| Err(Error::new(kind, "injected")))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Memory")
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.failing_reads.load(Ordering::SeqCst) {
            return Err(Error::other("injected"));
        }
        let offset = offset as usize;
        out.copy_from_slice(&self.bytes.lock()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.bytes.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let offset = offset as usize;
        self.bytes.lock()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}
