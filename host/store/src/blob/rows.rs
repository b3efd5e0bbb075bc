//! The tables of blobs and how their rows are laid out. Every key begins with the container's number.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{
    BlobInfo,
    chunk::{Codec, Hash},
};

/// Key of an object to its record.
pub(super) const OBJECTS: TableDefinition<'_, (u32, &str), &[u8]> = TableDefinition::new("blob-objects");

/// Content and number of the first chunk in the row to the hashes of consecutive chunks.
pub(super) const CONTENTS: TableDefinition<'_, (u32, u64, u64), &[u8]> =
    TableDefinition::new("blob-contents");

/// Contents that no object has.
pub(super) const RELEASED: TableDefinition<'_, (u32, u64), ()> = TableDefinition::new("blob-released");

/// Hash of a chunk to how often it stands in contents, its codec, and how many bytes are stored.
pub(super) const CHUNKS: TableDefinition<'_, (u32, &Hash), (u64, u8, u32)> =
    TableDefinition::new("blob-chunks");

/// Hash of a chunk and number of a part to its bytes. Each has pages of its own: no two of them fit into one.
pub(super) const PARTS: TableDefinition<'_, (u32, &Hash, u8), &[u8]> = TableDefinition::new("blob-parts");

/// Hash of a chunk to its last bytes. Apart from the parts, since redb would put a short row and a long one into a page
/// of twice the size.
pub(super) const TAILS: TableDefinition<'_, (u32, &Hash), &[u8]> = TableDefinition::new("blob-tails");

/// Content that is a file, in front of which an object was put, to its container.
pub(super) const FILES: TableDefinition<'_, u64, u32> = TableDefinition::new("blob-files");

/// Makes the tables when the store is opened.
pub(crate) fn create_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(OBJECTS)?;
    transaction.open_table(CONTENTS)?;
    transaction.open_table(RELEASED)?;
    transaction.open_table(CHUNKS)?;
    transaction.open_table(PARTS)?;
    transaction.open_table(TAILS)?;
    transaction.open_table(FILES)?;
    Ok(())
}

/// What stands behind a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) content: u64,
    /// Bytes of each chunk but the last; 0: the content is a file.
    pub(super) chunk_bytes: u32,
    pub(super) size: u64,
    pub(super) sha256: Hash,
    pub(super) uploaded_ms: u64,
    pub(super) content_type: String,
    pub(super) cache_control: Option<String>,
    pub(super) metadata: Vec<(String, String)>,
}

const RECORD_VERSION: u8 = 1;

impl Record {
    pub(super) fn etag(&self) -> String {
        hex(&self.sha256)
    }

    pub(super) fn is_file(&self) -> bool {
        self.chunk_bytes == 0
    }

    pub(super) fn info(self, key: &str) -> BlobInfo {
        BlobInfo {
            key: key.to_owned(),
            size: self.size,
            etag: self.etag(),
            uploaded_ms: self.uploaded_ms,
            content_type: self.content_type,
            cache_control: self.cache_control,
            metadata: self.metadata,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![RECORD_VERSION];
        row.extend_from_slice(&self.content.to_le_bytes());
        row.extend_from_slice(&self.chunk_bytes.to_le_bytes());
        row.extend_from_slice(&self.size.to_le_bytes());
        row.extend_from_slice(&self.sha256);
        row.extend_from_slice(&self.uploaded_ms.to_le_bytes());
        push(&mut row, &self.content_type);
        row.push(u8::from(self.cache_control.is_some()));
        push(&mut row, self.cache_control.as_deref().unwrap_or_default());
        for (name, value) in &self.metadata {
            push(&mut row, name);
            push(&mut row, value);
        }
        row
    }

    pub(super) fn decode(mut row: &[u8]) -> Result<Self, redb::Error> {
        let row = &mut row;
        let decode = || {
            let [RECORD_VERSION] = take(row)? else { return None };
            let content = u64::from_le_bytes(take(row)?);
            let chunk_bytes = u32::from_le_bytes(take(row)?);
            let size = u64::from_le_bytes(take(row)?);
            let sha256 = take(row)?;
            let uploaded_ms = u64::from_le_bytes(take(row)?);
            let content_type = text(row)?;
            let [cached] = take(row)?;
            let cache_control = Some(text(row)?).filter(|_| cached != 0);
            let mut metadata = Vec::new();
            while !row.is_empty() {
                metadata.push((text(row)?, text(row)?));
            }
            Some(Self {
                content,
                chunk_bytes,
                size,
                sha256,
                uploaded_ms,
                content_type,
                cache_control,
                metadata,
            })
        };
        let mut decode = decode;
        decode().ok_or_else(|| damaged("an object"))
    }
}

/// The record of an object.
pub(super) fn record(
    table: &impl ReadableTable<(u32, &'static str), &'static [u8]>,
    container: u32,
    key: &str,
) -> Result<Option<Record>, redb::Error> {
    table.get((container, key))?.map(|row| Record::decode(row.value())).transpose()
}

/// The hashes in a row of a content.
pub(super) fn hashes(row: &[u8]) -> Result<&[Hash], redb::Error> {
    let (hashes, rest) = row.as_chunks();
    if rest.is_empty() { Ok(hashes) } else { Err(damaged("a content")) }
}

/// Where the stored bytes of a chunk are: its codec and their number.
pub(super) fn stored(row: (u64, u8, u32)) -> Result<(Codec, usize), redb::Error> {
    let (_, codec, stored) = row;
    let codec = Codec::from_byte(codec).ok_or_else(|| damaged("a chunk"))?;
    Ok((codec, stored as usize))
}

/// Puts the stored bytes of a chunk together from its rows.
pub(super) fn read_stored(
    parts: &impl ReadableTable<(u32, &'static Hash, u8), &'static [u8]>,
    tails: &impl ReadableTable<(u32, &'static Hash), &'static [u8]>,
    container: u32,
    hash: &Hash,
    length: usize,
) -> Result<Vec<u8>, redb::Error> {
    let mut stored = Vec::with_capacity(length);
    for row in parts.range((container, hash, 0)..=(container, hash, u8::MAX))? {
        stored.extend_from_slice(row?.1.value());
    }
    if stored.len() < length
        && let Some(tail) = tails.get((container, hash))?
    {
        stored.extend_from_slice(tail.value());
    }
    if stored.len() == length { Ok(stored) } else { Err(damaged("a chunk")) }
}

pub(super) fn damaged(what: &str) -> redb::Error {
    redb::Error::Corrupted(format!("a row of {what} is damaged"))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten().collect()
}

fn push(row: &mut Vec<u8>, text: &str) {
    row.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    row.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(row: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = row.split_first_chunk()?;
    *row = rest;
    Some(*bytes)
}

fn text(row: &mut &[u8]) -> Option<String> {
    let length = u16::from_le_bytes(take(row)?);
    let (text, rest) = row.split_at_checked(usize::from(length))?;
    *row = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_brings_back_its_record_and_a_damaged_one_is_an_error() {
        let mut record = Record {
            content: 7,
            chunk_bytes: 9,
            size: 1 << 40,
            sha256: [0xa5; 32],
            uploaded_ms: 3,
            content_type: "image/png".to_owned(),
            cache_control: Some("no-store".to_owned()),
            metadata: vec![("caption".to_owned(), "straße".to_owned()), ("b".to_owned(), String::new())],
        };
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        record.cache_control = None;
        let row = record.encode();
        assert_eq!(Record::decode(&row).unwrap(), record);
        for length in 0..row.len() {
            // Metadata has no count: a row that ends after a whole entry is a shorter record.
            let cut = Record::decode(&row[..length]);
            assert!(cut.is_err() || cut.is_ok_and(|cut| cut.metadata.len() < 2));
        }
        assert_eq!(record.etag(), "a5".repeat(32));
    }
}
