//! Events in rows: a row holds a run of consecutive events, and is removed when all of them are.

use std::{
    collections::VecDeque,
    ops::{ControlFlow, RangeInclusive},
    sync::Arc,
};

use redb::{ReadTransaction, TableDefinition, TableError, WriteTransaction};

use crate::limits::CHUNK_BYTES;

/// The queue's number and the first event's sequence to the events, each after its length.
pub(crate) const CHUNKS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("queue");

/// The queue's number to the sequence that it is removed through.
pub(crate) const REMOVED: TableDefinition<'_, u32, u64> = TableDefinition::new("queue-removed");

/// An event with its sequence.
pub(crate) type Event = (u64, Arc<[u8]>);

/// What one commit changes in one queue.
#[derive(Debug)]
pub(crate) struct QueueBatch {
    pub(crate) queue: u32,
    /// Consecutive events.
    pub(crate) events: Vec<Event>,
    /// Rows to remove, by their first sequence.
    pub(crate) rows: Vec<u64>,
    /// The new sequence that the queue is removed through.
    pub(crate) removed: Option<u64>,
}

impl QueueBatch {
    /// Writes it into the committer's transaction.
    pub(crate) fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut chunks = transaction.open_table(CHUNKS)?;
        let mut row = Vec::new();
        for chunk in self.chunks() {
            row.clear();
            for (_, event) in chunk {
                row.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_le_bytes());
                row.extend_from_slice(event);
            }
            if let Some((first, _)) = chunk.first() {
                chunks.insert((self.queue, *first), row.as_slice())?;
            }
        }
        for first in &self.rows {
            chunks.remove((self.queue, *first))?;
        }
        if let Some(removed) = self.removed {
            transaction.open_table(REMOVED)?.insert(self.queue, removed)?;
        }
        Ok(())
    }

    /// The events as rows take them.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &[Event]> {
        let mut bytes = 0;
        self.events.chunk_by(move |(_, before), (_, next)| {
            bytes += before.len() + size_of::<u32>();
            let together = bytes + next.len() <= CHUNK_BYTES;
            if !together {
                bytes = 0;
            }
            together
        })
    }
}

/// What stands on disk of a queue when it is opened.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) removed: u64,
    /// First and last sequence of each row.
    pub(crate) rows: VecDeque<RangeInclusive<u64>>,
    /// Sequence and length of each event that is not removed.
    pub(crate) sizes: VecDeque<(u64, u32)>,
}

impl Stored {
    pub(crate) fn load(transaction: &ReadTransaction, queue: u32) -> Result<Self, redb::Error> {
        let removed = transaction.open_table(REMOVED)?.get(queue)?.map_or(0, |removed| removed.value());
        let mut stored = Self { removed, ..Self::default() };
        for row in transaction.open_table(CHUNKS)?.range((queue, 0)..=(queue, u64::MAX))? {
            let (key, row) = row?;
            let (_, first) = key.value();
            let last = each_after(removed, first, row.value(), |sequence, event| {
                stored.sizes.push_back((sequence, u32::try_from(event.len()).unwrap_or(u32::MAX)));
            })?;
            stored.rows.push_back(first..=last);
        }
        Ok(stored)
    }
}

/// How much a reader wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) after: u64,
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

impl Wanted {
    /// Whether `events` may get one more of this length.
    pub(crate) fn takes(&self, events: &[(u64, Vec<u8>)], bytes: &mut usize, next: usize) -> bool {
        *bytes = bytes.saturating_add(next);
        events.len() < self.items && (events.is_empty() || *bytes <= self.bytes)
    }
}

/// Reads events on disk, from the row that starts at `first` on, up to the sequence `through`.
pub(crate) fn read(
    transaction: &ReadTransaction,
    queue: u32,
    first: u64,
    through: u64,
    wanted: Wanted,
) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
    let mut events = Vec::new();
    let mut bytes = 0;
    for row in transaction.open_table(CHUNKS)?.range((queue, first)..=(queue, through))? {
        let (key, row) = row?;
        let (_, first) = key.value();
        let flow = each(first, row.value(), |sequence, event| {
            if sequence <= wanted.after {
                return ControlFlow::Continue(());
            }
            if sequence > through || !wanted.takes(&events, &mut bytes, event.len()) {
                return ControlFlow::Break(());
            }
            events.push((sequence, event.to_vec()));
            ControlFlow::Continue(())
        })?;
        if flow.is_break() {
            break;
        }
    }
    Ok(events)
}

/// Shows the events of a row that are not removed; returns the sequence of its last.
pub(super) fn each_after(
    removed: u64,
    first: u64,
    row: &[u8],
    mut show: impl FnMut(u64, &[u8]),
) -> Result<u64, TableError> {
    let mut last = first;
    // It goes on to the end of the row.
    let _ = each(first, row, |sequence, event| {
        last = sequence;
        if sequence > removed {
            show(sequence, event);
        }
        ControlFlow::Continue(())
    })?;
    Ok(last)
}

/// Shows the events of a row and their sequences.
fn each(
    first: u64,
    mut row: &[u8],
    mut take: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, TableError> {
    let damaged =
        || TableError::Storage(redb::StorageError::Corrupted("a row of a queue is damaged".to_owned()));
    let mut sequence = first;
    while !row.is_empty() {
        let (length, rest) = row.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (event, rest) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
        if take(sequence, event).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        sequence += 1;
        row = rest;
    }
    Ok(ControlFlow::Continue(()))
}
