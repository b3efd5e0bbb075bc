//! The main file of a database, as one connection has it open.

use std::{
    collections::BTreeMap,
    ffi::c_int,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use redb::ReadTransaction;
use rusqlite::ffi;

use super::callbacks::Answer;
use crate::{
    CommitError, StorageError,
    commit::Change,
    core::unavailable,
    sql::{
        SqlError,
        files::{File, Files},
        limits::TRANSACTION_BYTES,
        pages::{FileChange, Meta, PageBatch, Snapshot, copy_or_zero},
    },
};

/// Where SQLite looks to learn whether its cached pages are still good: the header's change counter and what follows.
const CACHE_CHECK: (u64, usize) = (24, 16);

/// Who keeps pages.
pub(crate) trait Committer: Send + Sync {
    /// A snapshot of everything committed.
    fn begin_read(&self) -> Result<ReadTransaction, CommitError>;

    /// Makes pages and other changes durable together, or neither; returns when they are.
    fn commit(&self, pages: Option<PageBatch>, companions: Vec<Change>) -> Result<(), CommitError>;

    /// Why nothing is read or written any more, if so.
    fn down(&self) -> Option<CommitError>;

    /// The files there are.
    fn files(&self) -> &Arc<Files>;
}

/// What the connections of one database share.
pub(crate) struct Shared {
    file: Arc<File>,
    name: Arc<str>,
    committer: Arc<dyn Committer>,
    /// Whether the name is stored beside the pages.
    registered: AtomicBool,
    /// Whether a connection holds SQLite's reserved lock.
    reserved: AtomicBool,
    /// Commits so far: tells a snapshot that a newer one exists.
    commits: AtomicU64,
    /// Bytes in temporary files.
    pub(super) temporary: AtomicU64,
    /// What the next commit takes along.
    companions: Mutex<Vec<Change>>,
    /// Why the last commit failed; SQLite's codes cannot say it.
    failure: Mutex<Option<CommitError>>,
    /// Why a page could not be read, the last time that the disk was the reason.
    unreadable: Mutex<Option<StorageError>>,
}

/// An open main file: an SQLite lock level, the snapshot pinned by it, and the pages written under it.
pub(super) struct MainFile {
    shared: Arc<Shared>,
    writable: bool,
    level: c_int,
    pinned: Option<Pinned>,
    pending: Option<Pending>,
    /// Set after a failed commit: SQLite believes its pages to be good, and the next check must tell it otherwise.
    distrust_cache: bool,
}

struct Pinned {
    snapshot: Snapshot,
    commits: u64,
}

/// What the transaction has written so far.
struct Pending {
    size: u64,
    /// Chunks from here on no longer show the snapshot's content.
    keep: u32,
    chunks: BTreeMap<u32, Box<[u8]>>,
}

impl Shared {
    pub(crate) fn new(
        file: Arc<File>,
        name: Arc<str>,
        registered: bool,
        committer: Arc<dyn Committer>,
    ) -> Self {
        Self {
            file,
            name,
            committer,
            registered: AtomicBool::new(registered),
            reserved: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            temporary: AtomicU64::new(0),
            companions: Mutex::default(),
            failure: Mutex::default(),
            unreadable: Mutex::default(),
        }
    }

    /// The same database with another file, which is on disk.
    pub(crate) fn of_file(&self, file: Arc<File>) -> Self {
        Self::new(file, self.name.clone(), true, self.committer.clone())
    }

    /// Makes this file the database's, on disk; the one before is removed when nobody holds it any more.
    pub(crate) fn take_over(&self) -> Result<(), CommitError> {
        let switch = FileChange::Switch { name: self.name.clone(), id: self.file.id() };
        self.committer.commit(None, vec![Change::File(switch)])
    }

    /// The file as it is now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, SqlError> {
        let transaction = self.committer.begin_read()?;
        Snapshot::new(&transaction, self.file.id()).map_err(|error| SqlError::from(unavailable(error)))
    }

    /// Gives other changes to the next commit.
    pub(crate) fn accompany(&self, changes: Vec<Change>) {
        *self.companions.lock() = changes;
    }

    /// Takes back what no commit has taken.
    pub(crate) fn take_companions(&self) -> Vec<Change> {
        std::mem::take(&mut *self.companions.lock())
    }

    /// Why the last commit failed, once.
    pub(crate) fn take_failure(&self) -> Option<CommitError> {
        self.failure.lock().take()
    }

    /// An error if the disk failed while a page was read: SQLite's integrity check only notes that there was none.
    pub(crate) fn check_readable(&self) -> Result<(), StorageError> {
        self.unreadable.lock().take().map_or(Ok(()), Err)
    }

    pub(crate) fn committer(&self) -> &dyn Committer {
        &*self.committer
    }

    fn pin(&self) -> Result<Pinned, c_int> {
        // Read before the snapshot is made, so that it is never newer than it.
        let commits = self.commits.load(Ordering::Acquire);
        let transaction = self.committer.begin_read().map_err(|error| {
            tracing::warn!(database = &*self.name, %error, "no snapshot");
            ffi::SQLITE_IOERR_READ
        })?;
        let snapshot =
            Snapshot::new(&transaction, self.file.id()).map_err(|error| self.read_error(&error))?;
        Ok(Pinned { snapshot, commits })
    }

    fn read_error(&self, error: &redb::Error) -> c_int {
        tracing::error!(database = &*self.name, %error, "cannot read pages");
        if matches!(error, redb::Error::Corrupted(_)) {
            return ffi::SQLITE_CORRUPT;
        }
        *self.unreadable.lock() = Some(StorageError::Io(error.to_string()));
        ffi::SQLITE_IOERR_READ
    }
}

impl MainFile {
    pub(super) fn new(shared: Arc<Shared>, writable: bool) -> Self {
        Self {
            shared,
            writable,
            level: ffi::SQLITE_LOCK_NONE,
            pinned: None,
            pending: None,
            distrust_cache: false,
        }
    }

    pub(super) fn lock(&mut self, level: c_int) -> Answer {
        if level <= self.level {
            return Ok(());
        }
        self.snapshot()?;
        if level >= ffi::SQLITE_LOCK_RESERVED && self.level < ffi::SQLITE_LOCK_RESERVED {
            self.reserve()?;
        }
        self.level = level;
        Ok(())
    }

    pub(super) fn unlock(&mut self, level: c_int) {
        if level >= self.level {
            return;
        }
        if level < ffi::SQLITE_LOCK_RESERVED && self.level >= ffi::SQLITE_LOCK_RESERVED {
            // Whatever was not committed is rolled back by forgetting it.
            self.pending = None;
            self.shared.reserved.store(false, Ordering::Release);
        }
        if level == ffi::SQLITE_LOCK_NONE {
            self.pinned = None;
        }
        self.level = level;
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.shared.reserved.load(Ordering::Acquire)
    }

    pub(super) fn size(&mut self) -> Result<u64, c_int> {
        if let Some(pending) = &self.pending {
            return Ok(pending.size);
        }
        let size = self.snapshot()?.meta.size;
        self.forget_unlocked_snapshot();
        Ok(size)
    }

    pub(super) fn read(&mut self, offset: u64, into: &mut [u8]) -> Answer {
        if self.distrust_cache && (offset, into.len()) == CACHE_CHECK {
            self.distrust_cache = false;
            into.fill(0xff);
            return Ok(());
        }
        let size = self.size()?;
        let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
        let (wanted, rest) = into.split_at_mut(there);
        rest.fill(0);
        let chunk_bytes = self.snapshot()?.meta.chunk_bytes;
        let mut left = wanted;
        let mut at = offset;
        while !left.is_empty() {
            let (number, from) = place(at, chunk_bytes)?;
            let (piece, next) = left.split_at_mut((chunk_bytes as usize - from).min(left.len()));
            self.read_chunk(number, from, piece)?;
            at += piece.len() as u64;
            left = next;
        }
        self.forget_unlocked_snapshot();
        if rest.is_empty() { Ok(()) } else { Err(ffi::SQLITE_IOERR_SHORT_READ) }
    }

    pub(super) fn write(&mut self, offset: u64, mut data: &[u8]) -> Answer {
        let chunk_bytes = self.pending()?.chunk_bytes;
        let mut at = offset;
        while !data.is_empty() {
            let (number, from) = place(at, chunk_bytes)?;
            let (piece, next) = data.split_at((chunk_bytes as usize - from).min(data.len()));
            self.write_chunk(number, from, piece, chunk_bytes)?;
            at += piece.len() as u64;
            data = next;
        }
        if let Some(pending) = &mut self.pending {
            pending.size = pending.size.max(at);
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, size: u64) -> Answer {
        let meta = self.pending()?;
        let (number, from) = place(size, meta.chunk_bytes)?;
        if from > 0 && size < self.size()? {
            // The rest of the last chunk must read as zeros if the file grows again.
            let zeros = vec![0; meta.chunk_bytes as usize - from];
            self.write_chunk(number, from, &zeros, meta.chunk_bytes)?;
        }
        if let Some(pending) = &mut self.pending {
            pending.size = size;
            let chunks = Meta { size, ..meta }.chunks();
            pending.keep = pending.keep.min(chunks);
            pending.chunks.retain(|number, _| *number < chunks);
        }
        Ok(())
    }

    /// Hands what was written to the committer and waits until it is durable.
    pub(super) fn commit(&mut self) -> Answer {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        let chunk_bytes = self.snapshot()?.meta.chunk_bytes;
        let register = (!self.shared.registered.load(Ordering::Acquire)).then(|| self.shared.name.clone());
        let batch = PageBatch {
            id: self.shared.file.id(),
            register,
            meta: Meta { chunk_bytes, size: pending.size },
            keep: pending.keep,
            chunks: pending.chunks,
        };
        let companions = self.shared.take_companions();
        match self.shared.committer.commit(Some(batch), companions) {
            Ok(()) => {
                self.shared.registered.store(true, Ordering::Release);
                self.shared.commits.fetch_add(1, Ordering::AcqRel);
                // The pinned one is from before; the next read under this lock pins a new one.
                self.pinned = None;
                Ok(())
            }
            Err(error) => {
                self.distrust_cache = true;
                let full = matches!(error, CommitError::TooLarge(_));
                *self.shared.failure.lock() = Some(error);
                Err(if full { ffi::SQLITE_FULL } else { ffi::SQLITE_IOERR_WRITE })
            }
        }
    }

    fn reserve(&mut self) -> Answer {
        if !self.writable {
            return Err(ffi::SQLITE_READONLY);
        }
        if self.shared.reserved.swap(true, Ordering::AcqRel) {
            return Err(ffi::SQLITE_BUSY);
        }
        let newest = self.shared.commits.load(Ordering::Acquire);
        if self.pinned.as_ref().is_some_and(|pinned| pinned.commits != newest) {
            self.shared.reserved.store(false, Ordering::Release);
            return Err(ffi::SQLITE_BUSY_SNAPSHOT);
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<&Snapshot, c_int> {
        if self.pinned.is_none() {
            self.pinned = Some(self.shared.pin()?);
        }
        self.pinned.as_ref().map(|pinned| &pinned.snapshot).ok_or(ffi::SQLITE_IOERR_READ)
    }

    /// SQLite reads a header when it opens a file, without a lock; such a read pins nothing.
    fn forget_unlocked_snapshot(&mut self) {
        if self.level == ffi::SQLITE_LOCK_NONE {
            self.pinned = None;
        }
    }

    /// The buffer for writes, made by the first of a transaction; returns the snapshot's meta value.
    fn pending(&mut self) -> Result<Meta, c_int> {
        if !self.writable || self.level < ffi::SQLITE_LOCK_RESERVED {
            return Err(ffi::SQLITE_IOERR_WRITE);
        }
        let meta = self.snapshot()?.meta;
        self.pending.get_or_insert_with(|| Pending {
            size: meta.size,
            keep: meta.chunks(),
            chunks: BTreeMap::new(),
        });
        Ok(meta)
    }

    fn read_chunk(&mut self, number: u32, from: usize, into: &mut [u8]) -> Answer {
        if let Some(pending) = &self.pending {
            if let Some(chunk) = pending.chunks.get(&number) {
                copy_or_zero(chunk, from, into);
                return Ok(());
            }
            if number >= pending.keep {
                into.fill(0);
                return Ok(());
            }
        }
        let read = self.snapshot()?.read_chunk(number, from, into);
        read.map_err(|error| self.shared.read_error(&error))
    }

    fn write_chunk(&mut self, number: u32, from: usize, data: &[u8], chunk_bytes: u32) -> Answer {
        let length = chunk_bytes as usize;
        let known = self.pending.as_ref().is_some_and(|pending| pending.chunks.contains_key(&number));
        if !known {
            let count = self.pending.as_ref().map_or(0, |pending| pending.chunks.len()) as u64;
            if (count + 1) * u64::from(chunk_bytes) > TRANSACTION_BYTES {
                return Err(ffi::SQLITE_FULL);
            }
            let mut chunk = vec![0; length].into_boxed_slice();
            if data.len() < length {
                self.read_chunk(number, 0, &mut chunk)?;
            }
            if let Some(pending) = &mut self.pending {
                pending.chunks.insert(number, chunk);
            }
        }
        let chunk = self.pending.as_mut().and_then(|pending| pending.chunks.get_mut(&number));
        let part = chunk.and_then(|chunk| chunk.get_mut(from..from + data.len()));
        part.ok_or(ffi::SQLITE_IOERR_WRITE)?.copy_from_slice(data);
        Ok(())
    }
}

impl Drop for MainFile {
    fn drop(&mut self) {
        self.unlock(ffi::SQLITE_LOCK_NONE);
    }
}

/// Whether a pragma leaves the file as we need it. What callers may send is decided by the authorizer; this holds for all.
pub(super) fn allows_pragma(name: &str, value: Option<&str>) -> bool {
    let Some(value) = value else {
        return true;
    };
    match name.to_ascii_lowercase().as_str() {
        // WAL marks the header so that this VFS could not open the file again; OFF loses the rollback.
        "journal_mode" => value.eq_ignore_ascii_case("memory"),
        // EXCLUSIVE stops counting changes, so that readers would keep stale pages.
        "locking_mode" => value.eq_ignore_ascii_case("normal"),
        "mmap_size" | "writable_schema" | "schema_version" | "wal_checkpoint" | "wal_autocheckpoint" => false,
        "hard_heap_limit" | "soft_heap_limit" | "temp_store_directory" | "data_store_directory" => false,
        _ => true,
    }
}

/// The chunk that holds a byte, and where in it.
fn place(offset: u64, chunk_bytes: u32) -> Result<(u32, usize), c_int> {
    let chunk_bytes = u64::from(chunk_bytes);
    // The last number is not used: keys hold the number plus one.
    let number = u32::try_from(offset / chunk_bytes).ok().filter(|number| *number < u32::MAX);
    Ok((number.ok_or(ffi::SQLITE_FULL)?, usize::try_from(offset % chunk_bytes).unwrap_or_default()))
}
