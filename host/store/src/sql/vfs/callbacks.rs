//! The C side: functions that SQLite calls, each a thin shell around a safe one.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
    sync::Arc,
};

use rusqlite::ffi;

use super::{
    MAIN_NAME,
    main_file::{MainFile, Shared},
    memory_file::MemoryFile,
    opaque,
};

/// What a callback answers: nothing, or one of SQLite's result codes.
pub(super) type Answer = Result<(), c_int>;

/// What SQLite allocates for an open file.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    /// From `Box::into_raw`, until xClose.
    file: *mut File,
}

enum File {
    Main(Box<MainFile>),
    Memory(MemoryFile),
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 1 has no shared memory and no mapped reads, so SQLite can use neither WAL nor mmap.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// A VFS whose clock, randomness and sleep are the system's. `name` and `shared` must live as long as it is registered.
pub(super) fn vfs(
    system: &ffi::sqlite3_vfs,
    name: &CStr,
    path_bytes: c_int,
    shared: *const Shared,
) -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: c_int::try_from(size_of::<OpenFile>()).unwrap_or(c_int::MAX),
        mxPathname: path_bytes,
        pNext: ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: opaque(shared),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: Some(dl_open),
        xDlError: Some(dl_error),
        xDlSym: Some(dl_sym),
        xDlClose: Some(dl_close),
        xRandomness: system.xRandomness,
        xSleep: system.xSleep,
        xCurrentTime: system.xCurrentTime,
        xGetLastError: system.xGetLastError,
        xCurrentTimeInt64: system.xCurrentTimeInt64,
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// Turns an answer into a code. A panic must not unwind into C, where it would end the process; it becomes an I/O error.
fn answer(run: impl FnOnce() -> Answer) -> c_int {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => ffi::SQLITE_OK,
        Ok(Err(code)) => code,
        Err(_) => ffi::SQLITE_IOERR,
    }
}

/// The open file behind SQLite's pointer.
///
/// # Safety
/// `file` is null or was filled by `open` and not closed yet, and SQLite uses a file on one thread at a time.
unsafe fn file_of<'a>(file: *mut ffi::sqlite3_file) -> Result<&'a mut File, c_int> {
    // SAFETY: promised by the caller.
    let open = unsafe { file.cast::<OpenFile>().as_ref() };
    // SAFETY: `file` is null or came from `Box::into_raw` in `open`.
    open.and_then(|open| unsafe { open.file.as_mut() }).ok_or(ffi::SQLITE_IOERR)
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    answer(|| {
        let target = file.cast::<OpenFile>();
        if vfs.is_null() || target.is_null() {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        let base = ffi::sqlite3_file { pMethods: ptr::null() };
        // SAFETY: SQLite gave szOsFile bytes, suitably aligned. Without methods it does not call xClose.
        unsafe { target.write(OpenFile { base, file: ptr::null_mut() }) };
        // SAFETY: pAppData was set by `vfs` from an Arc that the registration still holds; the count grows by the one made here.
        let shared = unsafe {
            let shared = (*vfs).pAppData.cast_const().cast::<Shared>();
            Arc::increment_strong_count(shared);
            Arc::from_raw(shared)
        };
        let opened = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            // SAFETY: SQLite gives a name that ends with a zero, or null.
            let known = !name.is_null() && unsafe { CStr::from_ptr(name) }.to_bytes() == MAIN_NAME.as_bytes();
            if !known {
                return Err(ffi::SQLITE_CANTOPEN);
            }
            File::Main(Box::new(MainFile::new(shared, flags & ffi::SQLITE_OPEN_READWRITE != 0)))
        } else {
            File::Memory(MemoryFile::new(shared))
        };
        let base = ffi::sqlite3_file { pMethods: &raw const METHODS };
        // SAFETY: as above; `out_flags` is null or SQLite's.
        unsafe {
            target.write(OpenFile { base, file: Box::into_raw(Box::new(opened)) });
            if let Some(out) = out_flags.as_mut() {
                *out = flags;
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    answer(|| {
        // SAFETY: SQLite closes what `open` filled, and uses it no more; null is skipped.
        if let Some(open) = unsafe { file.cast::<OpenFile>().as_mut() } {
            let boxed = std::mem::replace(&mut open.file, ptr::null_mut());
            open.base.pMethods = ptr::null();
            if !boxed.is_null() {
                // SAFETY: from `Box::into_raw` in `open`, and taken out just now.
                drop(unsafe { Box::from_raw(boxed) });
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, count: c_int, offset: i64) -> c_int {
    answer(|| {
        let length = usize::try_from(count).map_err(|_| ffi::SQLITE_IOERR_READ)?;
        let offset = u64::try_from(offset).map_err(|_| ffi::SQLITE_IOERR_READ)?;
        if to.is_null() {
            return Err(ffi::SQLITE_IOERR_READ);
        }
        // SAFETY: SQLite gives a buffer of `count` bytes.
        let buffer = unsafe { slice::from_raw_parts_mut(to.cast::<u8>(), length) };
        // SAFETY: SQLite's promise on files.
        match unsafe { file_of(file)? } {
            File::Main(main) => main.read(offset, buffer),
            File::Memory(memory) => memory.read(offset, buffer),
        }
    })
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    answer(|| {
        let length = usize::try_from(count).map_err(|_| ffi::SQLITE_IOERR_WRITE)?;
        let offset = u64::try_from(offset).map_err(|_| ffi::SQLITE_IOERR_WRITE)?;
        if from.is_null() {
            return Err(ffi::SQLITE_IOERR_WRITE);
        }
        // SAFETY: SQLite gives a buffer of `count` bytes.
        let data = unsafe { slice::from_raw_parts(from.cast::<u8>(), length) };
        // SAFETY: SQLite's promise on files.
        match unsafe { file_of(file)? } {
            File::Main(main) => main.write(offset, data),
            File::Memory(memory) => memory.write(offset, data),
        }
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    answer(|| {
        let size = u64::try_from(size).map_err(|_| ffi::SQLITE_IOERR_TRUNCATE)?;
        // SAFETY: SQLite's promise on files.
        match unsafe { file_of(file)? } {
            File::Main(main) => main.truncate(size),
            File::Memory(memory) => memory.truncate(size),
        }
    })
}

unsafe extern "C" fn sync(_file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // A rollback syncs too; what commits is SQLITE_FCNTL_COMMIT_PHASETWO.
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    answer(|| {
        // SAFETY: SQLite's promise on files.
        let bytes = match unsafe { file_of(file)? } {
            File::Main(main) => main.size()?,
            File::Memory(memory) => memory.size(),
        };
        // SAFETY: SQLite's own variable, or null.
        let size = unsafe { size.as_mut() }.ok_or(ffi::SQLITE_IOERR_FSTAT)?;
        *size = i64::try_from(bytes).map_err(|_| ffi::SQLITE_IOERR_FSTAT)?;
        Ok(())
    })
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite's promise on files.
    answer(|| match unsafe { file_of(file)? } {
        File::Main(main) => main.lock(level),
        File::Memory(_) => Ok(()),
    })
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite's promise on files.
    answer(|| match unsafe { file_of(file)? } {
        File::Main(main) => {
            main.unlock(level);
            Ok(())
        }
        File::Memory(_) => Ok(()),
    })
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    answer(|| {
        // SAFETY: SQLite's promise on files.
        let reserved = match unsafe { file_of(file)? } {
            File::Main(main) => main.is_reserved(),
            File::Memory(_) => false,
        };
        // SAFETY: SQLite's own variable, or null.
        *unsafe { out.as_mut() }.ok_or(ffi::SQLITE_IOERR)? = c_int::from(reserved);
        Ok(())
    })
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    answer(|| {
        // SAFETY: SQLite's promise on files.
        let File::Main(main) = (unsafe { file_of(file)? }) else {
            return Err(ffi::SQLITE_NOTFOUND);
        };
        match op {
            ffi::SQLITE_FCNTL_COMMIT_PHASETWO => main.commit(),
            // SAFETY: for this operation SQLite gives an array of pointers to strings.
            ffi::SQLITE_FCNTL_PRAGMA => unsafe { pragma(arg.cast()) },
            _ => Err(ffi::SQLITE_NOTFOUND),
        }
    })
}

/// Refuses the pragmas that weaken or break the database, whoever sends them.
///
/// # Safety
/// `strings` points to three pointers: the place for a message, the pragma's name, its argument or null.
unsafe fn pragma(strings: *mut *mut c_char) -> Answer {
    if strings.is_null() {
        return Err(ffi::SQLITE_NOTFOUND);
    }
    // SAFETY: promised by the caller; SQLite's strings end with a zero.
    let (name, value) = unsafe { (text(*strings.add(1)), text(*strings.add(2))) };
    if super::main_file::allows_pragma(name.unwrap_or_default(), value) {
        return Err(ffi::SQLITE_NOTFOUND);
    }
    // SAFETY: the message is made by SQLite's allocator, as the interface asks.
    unsafe { *strings = ffi::sqlite3_mprintf(c"this pragma is closed".as_ptr()) };
    Err(ffi::SQLITE_AUTH)
}

/// # Safety
/// `string` is null or ends with a zero, and outlives the result.
unsafe fn text<'a>(string: *const c_char) -> Option<&'a str> {
    // SAFETY: promised by the caller.
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_str().unwrap_or("?"))
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4_096
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_SAFE_APPEND
        | ffi::SQLITE_IOCAP_SEQUENTIAL
        | ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
        | ffi::SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char, _sync: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    _name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // No file but an open main file exists; a journal above all.
    // SAFETY: SQLite's own variable, or null.
    if let Some(out) = unsafe { out.as_mut() } {
        *out = 0;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    count: c_int,
    out: *mut c_char,
) -> c_int {
    answer(|| {
        if name.is_null() || out.is_null() {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        // SAFETY: SQLite's strings end with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
        if name.len() > usize::try_from(count).unwrap_or_default() {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        // SAFETY: `out` has room for `count` bytes, which was checked.
        unsafe { ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len()) };
        Ok(())
    })
}

unsafe extern "C" fn dl_open(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn dl_error(_vfs: *mut ffi::sqlite3_vfs, count: c_int, message: *mut c_char) {
    if count > 0 && !message.is_null() {
        // SAFETY: `message` has room for `count` bytes, at least one.
        unsafe { *message = 0 };
    }
}

unsafe extern "C" fn dl_sym(
    _vfs: *mut ffi::sqlite3_vfs,
    _handle: *mut c_void,
    _symbol: *const c_char,
) -> Option<unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char)> {
    None
}

unsafe extern "C" fn dl_close(_vfs: *mut ffi::sqlite3_vfs, _handle: *mut c_void) {}
