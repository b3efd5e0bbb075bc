//! Giving free pages of a file back to its disk, while nobody serves it.
//!
//! redb moves pages towards the beginning of the file and cuts off its end, in commits that each count whole, so that a crash
//! leaves the file as one of them made it. It needs the file for itself: no reader may be under way, since what a reader
//! sees stays where it is, and no writer; a server would stand still for as long as the moving takes.

use std::path::{Path, PathBuf};

use crate::{
    OpenError, Options, StorageError,
    backend::Given,
    error::guarded,
    store::{refused, storage},
};

/// A file that is not served, to be checked and compacted. Everything in it blocks.
#[derive(Debug)]
pub struct Compaction {
    database: redb::Database,
    path: Option<PathBuf>,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the file before; 0 for a storage in its place.
    pub before_bytes: u64,
    /// Bytes of the file after.
    pub after_bytes: u64,
}

impl Compaction {
    /// Takes hold of a file that is there; after a crash it is recovered first.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(options.cache_bytes);
        let file = options.backend.is_none().then(|| path.to_owned());
        let database = guarded(|| {
            match options.backend {
                Some(backend) => builder.create_with_backend(Given(backend)),
                None => builder.open(path),
            }
            .map_err(refused)
        })?;
        Ok(Self { database, path: file })
    }

    /// Compares every page with its checksum: what is damaged is to be found before it is moved. A damaged file is an error;
    /// redb has then gone back to its last sound commit, if there is one.
    pub fn check(&mut self) -> Result<(), OpenError> {
        let sound = guarded(|| self.database.check_integrity().map_err(refused))?;
        if sound {
            return Ok(());
        }
        let text = "pages did not have their checksums; the last sound commit is in place now".to_owned();
        Err(StorageError::Corrupt(text).into())
    }

    /// Moves pages and cuts the file off.
    pub fn run(mut self) -> Result<Compacted, OpenError> {
        let before_bytes = self.bytes()?;
        let done = guarded(|| self.database.compact().map_err(|error| storage(error.into())));
        let path = self.path.take();
        // Closing cuts off more.
        guarded(|| {
            drop(self);
            Ok::<_, OpenError>(())
        })?;
        done?;
        Ok(Compacted { before_bytes, after_bytes: bytes(path.as_deref())? })
    }

    /// Bytes of the file now.
    pub fn bytes(&self) -> Result<u64, OpenError> {
        bytes(self.path.as_deref())
    }
}

fn bytes(path: Option<&Path>) -> Result<u64, OpenError> {
    let Some(path) = path else { return Ok(0) };
    let file = path.metadata().map_err(|error| StorageError::Io(error.to_string()))?;
    Ok(file.len())
}
