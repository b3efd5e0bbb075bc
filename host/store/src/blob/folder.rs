//! Contents that are files of their own, in a folder beside the store.
//!
//! A file has the number of its content as its name. It is on disk, and its name too, before the commit that puts an
//! object in front of it; that commit notes it in `FILES`. Hence a file that is not noted there belongs to an upload
//! that is under way or to nothing. It is removed when its upload is dropped, or after the next start when a crash has
//! left it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, ReadDir},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use redb::ReadableTable;
use sha2::{Digest, Sha256};

use super::{chunk::Hash, limits::HASH_BYTES, rows::damaged};
use crate::StorageError;

/// The folder of a store.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    dead: Mutex<Dead>,
}

/// Files that nobody needs any more.
#[derive(Debug, Default)]
struct Dead {
    contents: Vec<u64>,
    /// Removes those before: the file system may take long over a large one.
    removing: Option<JoinHandle<()>>,
}

/// A file that is being written. It goes, unless it is published.
#[derive(Debug)]
pub(crate) struct Draft {
    folder: Arc<Folder>,
    content: u64,
    file: File,
    published: AtomicBool,
}

/// Walks through the folder once, looking for what a crash has left.
#[derive(Debug)]
pub(crate) struct Strays {
    /// None: there is no folder, or it cannot be read.
    entries: Option<ReadDir>,
    /// Contents from here on are of this process.
    own: u64,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, dead: Mutex::default() }
    }

    /// Makes it, if it is not there, so that a power failure does not take it away again.
    pub(super) fn create(&self) -> Result<(), StorageError> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => sync(parent).map_err(failed),
            _ => Ok(()),
        }
    }

    pub(super) fn open(&self, content: u64) -> Result<File, StorageError> {
        File::open(self.file(content)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => StorageError::Corrupt("the file of an object is missing".to_owned()),
            _ => failed(error),
        })
    }

    /// What is wrong with the file of an object, if anything is. When told to stop it may be anything. A disk that fails is an
    /// error, and no fault of the object.
    pub(super) fn problem(
        &self,
        content: u64,
        hash: &Hash,
        stop: &AtomicBool,
    ) -> Result<Option<&'static str>, io::Error> {
        let file = match File::open(self.file(content)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some("its file is missing")),
            Err(error) => return Err(error),
        };
        let is_whole = digest(&file, stop)? == *hash;
        Ok((!is_whole).then_some("its file has not the bytes that were uploaded"))
    }

    /// These contents are nobody's any more.
    pub(crate) fn discard(&self, contents: impl IntoIterator<Item = u64>) {
        self.dead.lock().contents.extend(contents);
    }

    /// Removes what was discarded, on a thread of its own, unless that is under way. True: there is more.
    pub(super) fn tidy(self: &Arc<Self>) -> bool {
        let mut dead = self.dead.lock();
        if dead.contents.is_empty() || dead.removing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return !dead.contents.is_empty();
        }
        let contents = std::mem::take(&mut dead.contents);
        let folder = Arc::clone(self);
        let thread = thread::Builder::new().name("store-files".to_owned());
        match thread.spawn(move || contents.into_iter().for_each(|content| folder.remove(content))) {
            Ok(thread) => dead.removing = Some(thread),
            // They are found again after the next start.
            Err(error) => tracing::warn!(%error, "files of objects that have gone cannot be removed now"),
        }
        false
    }

    /// The files that were there before this process.
    pub(super) fn strays(&self, own: u64) -> Strays {
        let entries = fs::read_dir(&self.path)
            .inspect_err(|error| {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(%error, "the folder of blobs cannot be read");
                }
            })
            .ok();
        Strays { entries, own }
    }

    fn remove(&self, content: u64) {
        if let Err(error) = fs::remove_file(self.file(content))
            && error.kind() != ErrorKind::NotFound
        {
            // It is found again after the next start.
            tracing::warn!(content, %error, "the file of an object that has gone cannot be removed");
        }
    }

    fn file(&self, content: u64) -> PathBuf {
        self.path.join(format!("{content:016x}"))
    }
}

impl Draft {
    pub(super) fn create(folder: &Arc<Folder>, content: u64) -> Result<Self, StorageError> {
        // One of that number is of another store, whose file was taken back to an earlier state.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(folder.file(content)).map_err(failed)?;
        Ok(Self { folder: Arc::clone(folder), content, file, published: AtomicBool::new(false) })
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), StorageError> {
        (&self.file).write_all(bytes).map_err(failed)
    }

    /// Brings the file and its name to the disk.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync_all().and_then(|()| sync(&self.folder.path)).map_err(failed)
    }

    /// From the commit that publishes it on the file stays. If that fails, nobody knows yet whether it is published.
    pub(super) fn publish(&self) {
        self.published.store(true, Ordering::SeqCst);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published.load(Ordering::SeqCst) {
            self.folder.discard([self.content]);
        }
    }
}

impl Strays {
    /// Looks at so many files; those of earlier processes that are not published are discarded. True: it is through.
    pub(super) fn step(
        &mut self,
        folder: &Folder,
        published: &impl ReadableTable<u64, u32>,
        files: usize,
    ) -> Result<bool, redb::Error> {
        let Some(entries) = &mut self.entries else { return Ok(true) };
        let mut seen = 0;
        for entry in entries.by_ref().take(files) {
            seen += 1;
            // What cannot be read now is found after the next start, and what has another name is not ours.
            let name = entry.ok().and_then(|entry| entry.file_name().into_string().ok());
            let content = name.filter(|name| name.len() == 16).and_then(|name| content_of(&name));
            let Some(content) = content.filter(|content| *content < self.own) else { continue };
            if published.get(content)?.is_none() {
                folder.discard([content]);
            }
        }
        Ok(seen < files)
    }
}

fn content_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name, 16).ok().filter(|content| format!("{content:016x}") == name)
}

/// The SHA-256 of a whole file, or of its beginning when told to stop.
pub(super) fn digest(mut file: &File, stop: &AtomicBool) -> io::Result<Hash> {
    let mut sha256 = Sha256::new();
    let mut piece = vec![0; HASH_BYTES];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 || stop.load(Ordering::Relaxed) {
            return Ok(sha256.finalize().into());
        }
        sha256.update(piece.get(..read).unwrap_or_default());
    }
}

/// What an error of a file is to those who read it.
pub(super) fn unreadable(error: io::Error) -> redb::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => damaged("a file"),
        _ => redb::Error::Io(error),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn failed(error: io::Error) -> StorageError {
    redb::Error::Io(error).into()
}
