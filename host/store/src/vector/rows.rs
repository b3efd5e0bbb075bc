//! The tables of vectors and how their rows are laid out. Every key begins with the index's number.

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::{Metric, limits::PART_BYTES, memory::Moment};

/// An index's dimensions, metric, next slot, last sequence, and how many vectors it has.
pub(super) const INDEXES: TableDefinition<'_, u32, (u32, u8, u64, u64, u64)> =
    TableDefinition::new("vector-indexes");

/// Id of a vector to its slot. A slot is never used twice.
pub(super) const IDS: TableDefinition<'_, (u32, &str), u64> = TableDefinition::new("vector-ids");

/// Slot to what a vector has beside its values.
pub(super) const RECORDS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("vector-records");

/// Slot and number of a part to values. Each has a page of its own.
pub(super) const PARTS: TableDefinition<'_, (u32, u64, u8), &[u8]> = TableDefinition::new("vector-parts");

/// Slot to the last values.
pub(super) const TAILS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("vector-tails");

/// Makes the tables when the store is opened.
pub(crate) fn create_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(INDEXES)?;
    transaction.open_table(IDS)?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(PARTS)?;
    transaction.open_table(TAILS)?;
    Ok(())
}

/// The row of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) dimensions: usize,
    pub(super) metric: Metric,
    pub(super) moment: Moment,
    pub(super) vectors: u64,
}

impl State {
    pub(super) fn read(
        table: &impl ReadableTable<u32, (u32, u8, u64, u64, u64)>,
        index: u32,
    ) -> Result<Option<Self>, redb::Error> {
        let Some(row) = table.get(index)? else { return Ok(None) };
        let (dimensions, metric, next_slot, sequence, vectors) = row.value();
        let metric = Metric::from_byte(metric).ok_or_else(|| damaged("an index"))?;
        let moment = Moment { sequence, next_slot };
        Ok(Some(Self { dimensions: dimensions as usize, metric, moment, vectors }))
    }

    pub(super) fn row(&self) -> (u32, u8, u64, u64, u64) {
        let dimensions = u32::try_from(self.dimensions).unwrap_or(u32::MAX);
        let Moment { sequence, next_slot } = self.moment;
        (dimensions, self.metric.to_byte(), next_slot, sequence, self.vectors)
    }
}

/// What a vector has beside its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) namespace: Option<String>,
    /// JSON.
    pub(super) metadata: Option<String>,
}

const RECORD_VERSION: u8 = 1;

impl Record {
    pub(super) fn size(&self) -> usize {
        self.id.len()
            + [&self.namespace, &self.metadata].into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// Version, then each text behind its length; a length of `u32::MAX` stands for none.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![RECORD_VERSION];
        for text in [Some(&self.id), self.namespace.as_ref(), self.metadata.as_ref()] {
            let length = text.map_or(Some(u32::MAX), |text| u32::try_from(text.len()).ok());
            row.extend_from_slice(&length.unwrap_or(0).to_le_bytes());
            row.extend_from_slice(text.map_or(&[], |text| text.as_bytes()));
        }
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, redb::Error> {
        let decode = || {
            let (version, mut row) = row.split_first()?;
            let [id, namespace, metadata] = [text(&mut row)?, text(&mut row)?, text(&mut row)?];
            let whole = *version == RECORD_VERSION && row.is_empty();
            whole.then_some(Self { id: id?, namespace, metadata })
        };
        decode().ok_or_else(|| damaged("a vector"))
    }
}

/// The next text of a row; the outer none: the row is damaged.
fn text(row: &mut &[u8]) -> Option<Option<String>> {
    let (length, rest) = row.split_first_chunk()?;
    *row = rest;
    let length = u32::from_le_bytes(*length);
    if length == u32::MAX {
        return Some(None);
    }
    let (text, rest) = row.split_at_checked(length as usize)?;
    *row = rest;
    Some(Some(String::from_utf8(text.to_vec()).ok()?))
}

/// The record in a slot.
pub(super) fn record(
    table: &impl ReadableTable<(u32, u64), &'static [u8]>,
    index: u32,
    slot: u64,
) -> Result<Record, redb::Error> {
    Record::decode(table.get((index, slot))?.ok_or_else(|| damaged("a vector"))?.value())
}

/// Writes values. What is left after the parts goes into the tail, which is there even when nothing is.
pub(super) fn write_values(
    transaction: &WriteTransaction,
    index: u32,
    slot: u64,
    values: &[f32],
) -> Result<(), redb::Error> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (parts, tail) = bytes.as_chunks::<PART_BYTES>();
    if !parts.is_empty() {
        let mut table = transaction.open_table(PARTS)?;
        for (number, part) in (0..).zip(parts) {
            table.insert((index, slot, number), part.as_slice())?;
        }
    }
    transaction.open_table(TAILS)?.insert((index, slot), tail)?;
    Ok(())
}

/// Removes the values in a slot.
pub(super) fn remove_values(
    transaction: &WriteTransaction,
    index: u32,
    slot: u64,
    dimensions: usize,
) -> Result<(), redb::Error> {
    let parts = dimensions * size_of::<f32>() / PART_BYTES;
    if parts > 0 {
        let mut table = transaction.open_table(PARTS)?;
        for number in (0..=u8::MAX).take(parts) {
            table.remove((index, slot, number))?;
        }
    }
    transaction.open_table(TAILS)?.remove((index, slot))?;
    Ok(())
}

/// Reads the values in slots.
pub(super) struct Values {
    parts: redb::ReadOnlyTable<(u32, u64, u8), &'static [u8]>,
    tails: redb::ReadOnlyTable<(u32, u64), &'static [u8]>,
    index: u32,
    dimensions: usize,
}

impl Values {
    pub(super) fn open(
        transaction: &ReadTransaction,
        index: u32,
        dimensions: usize,
    ) -> Result<Self, redb::Error> {
        let (parts, tails) = (transaction.open_table(PARTS)?, transaction.open_table(TAILS)?);
        Ok(Self { parts, tails, index, dimensions })
    }

    pub(super) fn read(&self, slot: u64) -> Result<Vec<f32>, redb::Error> {
        let mut values = Vec::with_capacity(self.dimensions);
        let mut take = |bytes: &[u8]| {
            values.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        };
        if self.dimensions * size_of::<f32>() >= PART_BYTES {
            for row in self.parts.range((self.index, slot, 0)..=(self.index, slot, u8::MAX))? {
                take(row?.1.value());
            }
        }
        take(self.tails.get((self.index, slot))?.ok_or_else(|| damaged("a vector"))?.value());
        // Values that are not finite would break every order.
        let whole = values.len() == self.dimensions && values.iter().all(|value| value.is_finite());
        if whole { Ok(values) } else { Err(damaged("a vector")) }
    }
}

pub(super) fn damaged(what: &str) -> redb::Error {
    redb::Error::Corrupted(format!("a row of {what} is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_brings_back_its_record_and_a_damaged_one_is_an_error() {
        for (namespace, metadata) in [(None, None), (Some(""), Some("{}")), (Some("straße"), None)] {
            let (namespace, metadata) = (namespace.map(str::to_owned), metadata.map(str::to_owned));
            let record = Record { id: "a".to_owned(), namespace, metadata };
            let row = record.encode();
            assert_eq!(Record::decode(&row).unwrap(), record);
            for length in 0..row.len() {
                assert!(Record::decode(&row[..length]).is_err());
            }
            assert!(Record::decode(&[row.as_slice(), &[0]].concat()).is_err());
        }
        assert!(Record::decode(&[RECORD_VERSION, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
