//! Listing objects.

use std::ops::Bound;

use redb::ReadTransaction;

use super::{
    BlobError, BlobInfo,
    limits::{DELIMITER_BYTES, KEY_BYTES, LIST_ITEMS},
    rows::{OBJECTS, Record},
};

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobList {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Keys that have this after the prefix are not listed, but what they begin with up to its end, each once.
    pub delimiter: Option<String>,
    /// The cursor of the page before.
    pub cursor: Option<String>,
    /// Objects and prefixes at most, 1 to 1,000.
    pub limit: usize,
}

/// One page, in the order of the keys' UTF-8 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobPage {
    /// The objects.
    pub objects: Vec<BlobInfo>,
    /// What keys begin with, up to the delimiter.
    pub prefixes: Vec<String>,
    /// Where the next page starts; none: this was the last.
    pub cursor: Option<String>,
}

impl Default for BlobList {
    fn default() -> Self {
        Self { prefix: String::new(), delimiter: None, cursor: None, limit: LIST_ITEMS }
    }
}

impl BlobList {
    pub(super) fn check(&self) -> Result<(), BlobError> {
        if !(1..=LIST_ITEMS).contains(&self.limit) {
            return Err(BlobError::Invalid(format!("a limit is 1 to {LIST_ITEMS}")));
        }
        if self.prefix.len() > KEY_BYTES
            || self.cursor.as_ref().is_some_and(|cursor| cursor.len() > KEY_BYTES)
        {
            return Err(BlobError::TooLarge(format!("a key has at most {KEY_BYTES} bytes")));
        }
        match self.delimiter.as_ref().map(String::len) {
            Some(0) => Err(BlobError::Invalid("a delimiter must not be empty".to_owned())),
            Some(length) if length > DELIMITER_BYTES => {
                Err(BlobError::TooLarge(format!("a delimiter has at most {DELIMITER_BYTES} bytes")))
            }
            _ => Ok(()),
        }
    }

    /// What stands for this key, if the delimiter is in it.
    fn common<'a>(&self, key: &'a str) -> Option<&'a str> {
        let delimiter = self.delimiter.as_deref()?;
        let at = key.get(self.prefix.len()..)?.find(delimiter)?;
        key.get(..self.prefix.len() + at + delimiter.len())
    }

    /// Where to begin: a cursor that stands for many keys is followed by what comes after all of them.
    fn start(&self) -> Bound<String> {
        match &self.cursor {
            Some(cursor) if *cursor >= self.prefix => match self.common(cursor) {
                Some(common) if cursor.starts_with(&self.prefix) => after_all(common),
                _ => Bound::Excluded(cursor.clone()),
            },
            _ => Bound::Included(self.prefix.clone()),
        }
    }
}

/// Behind everything that begins with this; nothing at all, if nothing can come behind.
fn after_all(prefix: &str) -> Bound<String> {
    let mut before = prefix.to_owned();
    while let Some(last) = before.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            before.push(next);
            return Bound::Included(before);
        }
    }
    Bound::Unbounded
}

pub(super) fn page(
    transaction: &ReadTransaction,
    container: u32,
    list: &BlobList,
) -> Result<BlobPage, redb::Error> {
    let table = transaction.open_table(OBJECTS)?;
    let mut page = BlobPage::default();
    let mut start = list.start();
    loop {
        let from = match &start {
            Bound::Included(key) => Bound::Included((container, key.as_str())),
            Bound::Excluded(key) => Bound::Excluded((container, key.as_str())),
            Bound::Unbounded => return Ok(page),
        };
        let mut rows = table.range::<(u32, &str)>((from, Bound::Unbounded))?;
        start = loop {
            let Some(row) = rows.next() else { return Ok(page) };
            let (key, row) = row?;
            let (owner, key) = key.value();
            if owner != container || !key.starts_with(&list.prefix) {
                return Ok(page);
            }
            if page.objects.len() + page.prefixes.len() == list.limit {
                page.cursor = page.last();
                return Ok(page);
            }
            match list.common(key) {
                Some(common) => {
                    page.prefixes.push(common.to_owned());
                    // All that begin with it are passed over at once.
                    break after_all(common);
                }
                None => page.objects.push(Record::decode(row.value())?.info(key)),
            }
        };
    }
}

impl BlobPage {
    fn last(&self) -> Option<String> {
        let object = self.objects.last().map(|object| object.key.as_str());
        object.max(self.prefixes.last().map(String::as_str)).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_all_that_begin_alike_begins_otherwise() {
        for (prefix, after) in [("a/", "a0"), ("\u{d7ff}", "\u{e000}"), ("a\u{10ffff}", "b")] {
            assert_eq!(after_all(prefix), Bound::Included(after.to_owned()));
        }
        assert_eq!(after_all("\u{10ffff}"), Bound::Unbounded);
    }
}
