//! The SQLite file of a database, as other programs open it.

use std::{fmt, sync::Arc, time::Instant};

use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking, time::timeout_at};

use super::{Access, Database, SqlError, limits::EXPORT_PIECE_BYTES, pages::Snapshot, vfs::Vfs};
use crate::{core::unavailable, error::guarded};

/// A database at one instant, as the bytes of an SQLite file. It keeps redb from reusing pages until it is dropped.
pub struct Export {
    /// None while a piece is read.
    snapshot: Option<Snapshot>,
    at: u64,
    size: u64,
    deadline: Instant,
    /// Holds the file, should another take its place.
    _vfs: Arc<Vfs>,
    _place: OwnedSemaphorePermit,
}

impl Database {
    /// The database as it is now, as a file for stock SQLite. It is to be read before the handle's deadline.
    pub async fn export(&self) -> Result<Export, SqlError> {
        self.check_access(&[Access::Full, Access::ReadOnly])?;
        let deadline = self.ends();
        let place = timeout_at(deadline.into(), self.inner.exporting.clone().acquire_owned()).await;
        let place = place.map_err(|_| SqlError::deadline())?.map_err(|_| SqlError::closing())?;
        let vfs = self.inner.readers.vfs();
        let reader = vfs.clone();
        let snapshot = spawn_blocking(move || guarded(|| reader.shared().snapshot())).await;
        let snapshot = snapshot.unwrap_or_else(|_| Err(SqlError::closing()))?;
        let size = snapshot.meta.size;
        Ok(Export { snapshot: Some(snapshot), at: 0, size, deadline, _vfs: vfs, _place: place })
    }
}

impl Export {
    /// Bytes of the whole file; 0 if nothing was ever written, which is an SQLite file too.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes of the file, at most [`EXPORT_PIECE_BYTES`]; none at its end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, SqlError> {
        if Instant::now() >= self.deadline {
            return Err(SqlError::deadline());
        }
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let snapshot = self.snapshot.take().ok_or_else(SqlError::closing)?;
        let (at, length) = (self.at, left.min(EXPORT_PIECE_BYTES));
        let read = spawn_blocking(move || {
            guarded(|| {
                let mut piece = vec![0; length];
                snapshot.read(at, &mut piece).map_err(|error| SqlError::from(unavailable(error)))?;
                Ok::<_, SqlError>((snapshot, piece))
            })
        });
        let (snapshot, piece) = read.await.unwrap_or_else(|_| Err(SqlError::closing()))?;
        self.snapshot = Some(snapshot);
        self.at += piece.len() as u64;
        Ok(Some(piece))
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut structure = formatter.debug_struct("Export");
        structure.field("size", &self.size).field("at", &self.at).finish_non_exhaustive()
    }
}
