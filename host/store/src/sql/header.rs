//! The first bytes of an SQLite file, as far as an import must know them.

use super::{
    SqlError,
    limits::{PAGE_BYTES, RESERVED_BYTES},
};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 100;

/// Where the header says by which means the file is written; 1 is a rollback journal, 2 a write-ahead log.
pub(super) const WRITE_VERSION: usize = 18;
pub(super) const READ_VERSION: usize = 19;

const MAGIC: &[u8] = b"SQLite format 3\0";

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) page_bytes: u32,
    reserved_bytes: u8,
    /// If the last who wrote the file knew of this field.
    pages: Option<u32>,
}

impl Header {
    /// Reads the header; the error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SqlError> {
        if !bytes.starts_with(MAGIC) {
            return Err(SqlError::Invalid("this is no SQLite database file".to_owned()));
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(damaged("it ends within its header"));
        };
        let number = |at: usize| {
            let field = header.get(at..at + 4).and_then(|field| field.try_into().ok());
            field.map_or(0, u32::from_be_bytes)
        };
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            bytes => u32::from(bytes),
        };
        if !page_bytes.is_power_of_two() || page_bytes < 512 {
            return Err(damaged(&format!("its header has a page size of {page_bytes}")));
        }
        if ![header[WRITE_VERSION], header[READ_VERSION]].iter().all(|version| matches!(version, 1 | 2)) {
            let text = "the file was written by a newer SQLite, or its header is damaged".to_owned();
            return Err(SqlError::Invalid(text));
        }
        if header[21..24] != [64, 32, 32] || page_bytes - u32::from(header[20]) < 480 {
            return Err(damaged("its header is not SQLite's"));
        }
        // The count is good if the change counter was the same when it was written.
        let counted = number(24) == number(92) && number(28) > 0;
        Ok(Self { page_bytes, reserved_bytes: header[20], pages: counted.then(|| number(28)) })
    }

    /// Checks the file's size against the header.
    pub(super) fn check_size(&self, bytes: u64) -> Result<(), SqlError> {
        let page = u64::from(self.page_bytes);
        if !bytes.is_multiple_of(page) {
            return Err(damaged(&format!("it has {bytes} bytes, which are no whole pages of {page}")));
        }
        match self.pages {
            Some(pages) if u64::from(pages) * page > bytes => {
                let there = bytes / page;
                Err(damaged(&format!("it is cut off: {there} pages are there, and its header says {pages}")))
            }
            _ => Ok(()),
        }
    }

    /// Bytes of the chunks in redb. A page that leaves room for a leaf's own fields is a chunk; three of the others share
    /// a leaf of four pages, where each by itself would take one of two.
    pub(super) fn chunk_bytes(&self) -> u32 {
        let page = self.page_bytes.max(PAGE_BYTES);
        let leaves_room = self.page_bytes == PAGE_BYTES && i32::from(self.reserved_bytes) >= RESERVED_BYTES;
        if leaves_room { page } else { page * 3 }
    }
}

/// The error of a damaged file.
fn damaged(how: &str) -> SqlError {
    SqlError::Invalid(format!("the file is damaged: {how}"))
}
