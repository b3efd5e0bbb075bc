//! Journals and temporary files: in memory, within the database's budget.

use std::sync::{Arc, atomic::Ordering};

use rusqlite::ffi;

use super::{callbacks::Answer, main_file::Shared};
use crate::sql::limits::TEMPORARY_BYTES;

const BLOCK: usize = 64 * 1024;

/// A file that nobody else sees and that ends with its handle.
pub(super) struct MemoryFile {
    shared: Arc<Shared>,
    blocks: Vec<Box<[u8]>>,
    size: u64,
}

impl MemoryFile {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, blocks: Vec::new(), size: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Answer {
        let there = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
        let (wanted, rest) = into.split_at_mut(there);
        rest.fill(0);
        let mut at = usize::try_from(offset).map_err(|_| ffi::SQLITE_IOERR_READ)?;
        let mut left = wanted;
        while !left.is_empty() {
            let block = self.blocks.get(at / BLOCK).and_then(|block| block.get(at % BLOCK..));
            let block = block.ok_or(ffi::SQLITE_IOERR_READ)?;
            let (piece, next) = left.split_at_mut(block.len().min(left.len()));
            piece.copy_from_slice(block.get(..piece.len()).ok_or(ffi::SQLITE_IOERR_READ)?);
            at += piece.len();
            left = next;
        }
        if rest.is_empty() { Ok(()) } else { Err(ffi::SQLITE_IOERR_SHORT_READ) }
    }

    pub(super) fn write(&mut self, offset: u64, mut data: &[u8]) -> Answer {
        let mut at = usize::try_from(offset).map_err(|_| ffi::SQLITE_FULL)?;
        let end = at.checked_add(data.len()).ok_or(ffi::SQLITE_FULL)?;
        self.grow(end.div_ceil(BLOCK))?;
        while !data.is_empty() {
            let block = self.blocks.get_mut(at / BLOCK).and_then(|block| block.get_mut(at % BLOCK..));
            let block = block.ok_or(ffi::SQLITE_IOERR_WRITE)?;
            let (piece, next) = data.split_at(block.len().min(data.len()));
            block.get_mut(..piece.len()).ok_or(ffi::SQLITE_IOERR_WRITE)?.copy_from_slice(piece);
            at += piece.len();
            data = next;
        }
        self.size = self.size.max(end as u64);
        Ok(())
    }

    pub(super) fn truncate(&mut self, size: u64) -> Answer {
        let keep = usize::try_from(size).map_err(|_| ffi::SQLITE_IOERR_TRUNCATE)?;
        if size < self.size {
            self.shrink(keep.div_ceil(BLOCK));
            if let Some(tail) =
                self.blocks.get_mut(keep / BLOCK).and_then(|block| block.get_mut(keep % BLOCK..))
            {
                tail.fill(0);
            }
        } else {
            self.grow(keep.div_ceil(BLOCK))?;
        }
        self.size = size;
        Ok(())
    }

    fn grow(&mut self, blocks: usize) -> Answer {
        while self.blocks.len() < blocks {
            let before = self.shared.temporary.fetch_add(BLOCK as u64, Ordering::Relaxed);
            if before + BLOCK as u64 > TEMPORARY_BYTES {
                self.shared.temporary.fetch_sub(BLOCK as u64, Ordering::Relaxed);
                return Err(ffi::SQLITE_FULL);
            }
            self.blocks.push(vec![0; BLOCK].into_boxed_slice());
        }
        Ok(())
    }

    fn shrink(&mut self, blocks: usize) {
        let gone = self.blocks.len().saturating_sub(blocks) * BLOCK;
        self.blocks.truncate(blocks);
        self.shared.temporary.fetch_sub(gone as u64, Ordering::Relaxed);
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.shrink(0);
    }
}
