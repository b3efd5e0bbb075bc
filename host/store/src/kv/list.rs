//! Listing keys: the overlay and one snapshot merged.

use std::{collections::BTreeMap, ops::Bound};

use redb::ReadTransaction;

use super::{
    KvError, Page,
    key::{AsKey, text},
    record::{ROWS, Record},
};
use crate::{
    commit::CommitError,
    core::{Core, unavailable},
    limits::{KEY_BYTES, LIST_ITEMS, LIST_SCAN_ROWS},
};

/// What to list.
#[derive(Debug)]
pub(crate) struct Range {
    /// The store's id and the prefix.
    prefix: Vec<u8>,
    /// Keys start after this one, or with it if it is the prefix itself.
    from: Bound<Vec<u8>>,
    limit: usize,
}

impl Range {
    pub(crate) fn new(
        store: u32,
        prefix: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Self, KvError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if !(1..=LIST_ITEMS).contains(&limit) {
            return Err(KvError::Invalid(format!("a limit is 1 to {LIST_ITEMS}")));
        }
        if [prefix, cursor].into_iter().flatten().any(|text| text.len() > KEY_BYTES) {
            return Err(KvError::TooLarge(format!("a key has at most {KEY_BYTES} bytes")));
        }
        let row = |text: &str| [&store.to_be_bytes(), text.as_bytes()].concat();
        let prefix = row(prefix.unwrap_or_default());
        let from = match cursor.map(row) {
            Some(cursor) if cursor >= prefix => Bound::Excluded(cursor),
            _ => Bound::Included(prefix.clone()),
        };
        Ok(Self { prefix, from, limit })
    }

    fn contains(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
            && match &self.from {
                Bound::Excluded(from) => key > from.as_slice(),
                _ => true,
            }
    }
}

/// One page. The overlay is read before the snapshot, so that what leaves it meanwhile is in the one or the other.
pub(crate) fn page(core: &Core, range: &Range) -> Result<Page, CommitError> {
    let now_ms = core.now_ms();
    let waiting: BTreeMap<_, bool> = core
        .overlay
        .matching(|key| range.contains(key))
        .into_iter()
        .map(|(key, record)| (key.bytes().to_vec(), !record.is_gone(now_ms)))
        .collect();
    merge(&core.begin_read()?, range, now_ms, waiting).map_err(unavailable)
}

fn merge(
    transaction: &ReadTransaction,
    range: &Range,
    now_ms: u64,
    mut waiting: BTreeMap<Vec<u8>, bool>,
) -> Result<Page, redb::Error> {
    let table = transaction.open_table(ROWS)?;
    let from = match &range.from {
        Bound::Included(key) => Bound::Included(key.as_slice()),
        Bound::Excluded(key) => Bound::Excluded(key.as_slice()),
        Bound::Unbounded => Bound::Unbounded,
    };
    let mut found = Found { page: Page::default(), limit: range.limit };
    for (seen, row) in table.range::<&[u8]>((from, Bound::Unbounded))?.enumerate() {
        let (key, row) = row?;
        let key = key.value();
        if !key.starts_with(&range.prefix) {
            break;
        }
        while waiting.first_key_value().is_some_and(|(first, _)| first.as_slice() < key) {
            if let Some((first, true)) = waiting.pop_first()
                && !found.add(&first)
            {
                return Ok(found.page);
            }
        }
        let expiry = Record::expiry(row.value());
        let there = waiting.remove(key).unwrap_or(expiry == 0 || expiry > now_ms);
        if there && !found.add(key) {
            return Ok(found.page);
        }
        if seen + 1 == LIST_SCAN_ROWS {
            found.page.cursor = Some(text(key));
            return Ok(found.page);
        }
    }
    for (key, there) in waiting {
        if there && !found.add(&key) {
            break;
        }
    }
    Ok(found.page)
}

struct Found {
    page: Page,
    limit: usize,
}

impl Found {
    /// Adds a key. False: the page was full, and now has a cursor.
    fn add(&mut self, key: &[u8]) -> bool {
        if self.page.keys.len() == self.limit {
            self.page.cursor = self.page.keys.last().cloned();
            return false;
        }
        self.page.keys.push(text(key));
        true
    }
}
