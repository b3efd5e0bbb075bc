//! SQLite's view of a database: a VFS for each, with one main file on redb and everything else in memory.

mod callbacks;
mod main_file;
mod memory_file;

use std::{
    ffi::{CString, c_int, c_void},
    fmt, ptr,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, OpenFlags, ffi};

pub(crate) use main_file::{Committer, Shared};

use super::limits::{HEAP_BYTES, HEAP_CACHES_BYTES};

/// SQLite's name of the main file; nothing else can be opened by name.
const MAIN_NAME: &str = "main.db";

/// Bytes that SQLite lends for a path; ours are short.
const PATH_BYTES: c_int = 64;

/// Numbers the VFSs of this process: SQLite finds them by name.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A VFS known to SQLite until this is dropped. Every connection must be closed by then.
pub(crate) struct Vfs {
    raw: *mut ffi::sqlite3_vfs,
    name: CString,
    shared: Arc<Shared>,
}

// SAFETY: SQLite guards its list of VFSs by a mutex; the structure is not changed after it was registered, except for
// the list's own link, and `Shared` is Send and Sync.
unsafe impl Send for Vfs {}
// SAFETY: as above.
unsafe impl Sync for Vfs {}

impl Vfs {
    /// Makes a VFS for one database.
    pub(crate) fn register(shared: Arc<Shared>) -> Result<Self, rusqlite::Error> {
        static BOUND: Once = Once::new();
        BOUND.call_once(bound_heap);
        let name = CString::new(format!("tollgate-{}", NEXT.fetch_add(1, Ordering::Relaxed)))?;
        // SAFETY: null asks for the default VFS, which lives as long as the process.
        let system = unsafe { ffi::sqlite3_vfs_find(ptr::null()).as_ref() };
        let system = system.ok_or_else(|| failure(ffi::SQLITE_ERROR))?;
        let raw = Box::into_raw(Box::new(callbacks::vfs(system, &name, PATH_BYTES, Arc::as_ptr(&shared))));
        // SAFETY: `raw`, the name and what pAppData points to stay until `drop` takes the VFS out of SQLite's list.
        let code = unsafe { ffi::sqlite3_vfs_register(raw, 0) };
        let vfs = Self { raw, name, shared };
        if code == ffi::SQLITE_OK { Ok(vfs) } else { Err(failure(code)) }
    }

    /// Opens a connection; at most one of a database may write.
    pub(crate) fn open(&self, write: bool) -> Result<Connection, rusqlite::Error> {
        let access = if write {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        } else {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        };
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        Connection::open_with_flags_and_vfs(MAIN_NAME, flags, self.name.as_c_str())
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `Box::into_raw`, and nobody uses it once SQLite has forgotten it and all connections are closed.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.raw);
            drop(Box::from_raw(self.raw));
        }
    }
}

impl fmt::Debug for Vfs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Vfs").field("name", &self.name).finish_non_exhaustive()
    }
}

fn failure(code: c_int) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

/// Bounds what SQLite allocates in this process.
fn bound_heap() {
    // SAFETY: both may be called at any time; they only set numbers, under SQLite's own mutex.
    unsafe {
        ffi::sqlite3_hard_heap_limit64(HEAP_BYTES);
        ffi::sqlite3_soft_heap_limit64(HEAP_CACHES_BYTES);
    }
}

/// What SQLite calls a void pointer to our shared state.
fn opaque(shared: *const Shared) -> *mut c_void {
    shared.cast_mut().cast()
}

/// Makes a connection forget the rowid of its last insert, so that a statement without one does not show another's.
pub(crate) fn forget_last_insert(connection: &Connection) {
    // SAFETY: the handle is open as long as the connection is borrowed, and only set for this call.
    unsafe { ffi::sqlite3_set_last_insert_rowid(connection.handle(), 0) };
}
