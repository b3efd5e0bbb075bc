//! What stands behind a key, in memory and in a row.

use std::sync::Arc;

use super::Entry;

/// The table of all kv stores: store's id and key to version, expiry and value.
pub(crate) const ROWS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("kv");

/// Bytes of a row before the value.
pub(super) const HEADER_BYTES: usize = 16;

/// What stands behind a key; without a value it says that nothing does.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) value: Option<Arc<[u8]>>,
    pub(crate) version: u64,
    /// Milliseconds since 1970; 0: never.
    pub(crate) expires_ms: u64,
}

impl Record {
    /// Says that a key is absent.
    pub(crate) const ABSENT: Self = Self { value: None, version: 0, expires_ms: 0 };

    /// What a caller may see. The time is only asked for where it matters.
    pub(crate) fn entry(&self, now_ms: impl FnOnce() -> u64) -> Option<Entry> {
        let value = self.value.as_ref()?;
        if self.expires_ms != 0 && self.expires_ms <= now_ms() {
            return None;
        }
        let expires_ms = (self.expires_ms != 0).then_some(self.expires_ms);
        Some(Entry { value: Arc::clone(value), version: self.version, expires_ms })
    }

    /// Bytes of the value.
    pub(crate) fn value_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }

    /// Whether nothing needs to stand in a row.
    pub(crate) fn is_gone(&self, now_ms: u64) -> bool {
        self.value.is_none() || (self.expires_ms != 0 && self.expires_ms <= now_ms)
    }

    /// Puts the row together in `row`.
    pub(crate) fn encode(&self, row: &mut Vec<u8>) {
        row.clear();
        row.extend_from_slice(&self.version.to_le_bytes());
        row.extend_from_slice(&self.expires_ms.to_le_bytes());
        row.extend_from_slice(self.value.as_deref().unwrap_or_default());
    }

    /// The record of a row; none if the row is damaged.
    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let (version, rest) = row.split_first_chunk::<8>()?;
        let (expires, value) = rest.split_first_chunk::<8>()?;
        Some(Self {
            value: Some(value.into()),
            version: u64::from_le_bytes(*version),
            expires_ms: u64::from_le_bytes(*expires),
        })
    }

    /// Version, expiry and the length of the value of a row; none if the row is damaged.
    pub(crate) fn header(row: &[u8]) -> Option<(u64, u64, usize)> {
        let (version, rest) = row.split_first_chunk::<8>()?;
        let (expires, value) = rest.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*version), u64::from_le_bytes(*expires), value.len()))
    }

    /// The expiry of a row, without its value.
    pub(crate) fn expiry(row: &[u8]) -> u64 {
        row.get(8..HEADER_BYTES).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_brings_back_its_record() {
        let record = Record { value: Some([1, 2, 3].into()), version: 7, expires_ms: 9 };
        let mut row = Vec::new();
        record.encode(&mut row);
        let back = Record::decode(&row).unwrap();
        assert_eq!((back.value.as_deref(), back.version, back.expires_ms), (Some(&[1, 2, 3][..]), 7, 9));
        assert_eq!(Record::expiry(&row), 9);
        assert!(Record::decode(&row[..12]).is_none());
    }
}
