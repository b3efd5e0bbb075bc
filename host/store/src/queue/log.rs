//! A queue in memory: all events that are not durable yet, the last durable ones, and the lengths of the others.

use std::{collections::VecDeque, ops::RangeInclusive, sync::Arc};

use super::rows::{Event, QueueBatch, Stored, Wanted};
use crate::limits::{EVENT_OVERHEAD, REMOVE_ROWS, TAIL_BYTES};

/// The state of a queue, under its lock.
#[derive(Debug)]
pub(crate) struct Log {
    queue: u32,
    next: u64,
    /// All events after `tail_from`.
    tail: VecDeque<Event>,
    tail_from: u64,
    tail_bytes: usize,
    /// Every event that is not removed.
    sizes: VecDeque<(u64, u32)>,
    bytes: u64,
    /// The last event that a commit took.
    collected: u64,
    /// The last event on disk.
    durable: u64,
    removed: u64,
    removed_written: u64,
    /// First and last sequence of each row on disk.
    rows: VecDeque<RangeInclusive<u64>>,
}

/// Where the events are that a reader wants.
#[derive(Debug)]
pub(crate) enum Place {
    Memory(Vec<(u64, Vec<u8>)>),
    /// In rows, from the one with this first sequence on, up to this sequence.
    Disk {
        first: u64,
        through: u64,
        after: u64,
    },
}

impl Log {
    pub(crate) fn new(queue: u32, next: u64, stored: Stored) -> Self {
        let last = stored.rows.back().map_or(0, |row| *row.end()).max(stored.removed);
        Self {
            queue,
            next,
            tail: VecDeque::new(),
            tail_from: last,
            tail_bytes: 0,
            bytes: stored.sizes.iter().map(|(_, size)| counted(*size)).sum(),
            sizes: stored.sizes,
            collected: last,
            durable: last,
            removed: stored.removed,
            removed_written: stored.removed,
            rows: stored.rows,
        }
    }

    pub(crate) fn append(&mut self, event: Arc<[u8]>) -> u64 {
        let sequence = self.next;
        self.next += 1;
        let size = u32::try_from(event.len()).unwrap_or(u32::MAX);
        self.sizes.push_back((sequence, size));
        self.bytes += counted(size);
        self.tail_bytes += event.len();
        self.tail.push_back((sequence, event));
        sequence
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn removed(&self) -> u64 {
        self.removed
    }

    pub(crate) fn remove_through(&mut self, sequence: u64) {
        self.removed = self.removed.max(sequence.min(self.durable));
        while let Some((_, size)) = self.sizes.pop_front_if(|(first, _)| *first <= self.removed) {
            self.bytes -= counted(size);
        }
        while self.tail.front().is_some_and(|(first, _)| *first <= self.removed) {
            self.drop_first();
        }
    }

    pub(crate) fn read(&self, wanted: Wanted) -> Place {
        let after = wanted.after.max(self.removed);
        if after < self.tail_from {
            let row = self.rows.partition_point(|row| *row.end() <= after);
            let first = self.rows.get(row).map_or(after, |row| *row.start());
            return Place::Disk { first, through: self.durable, after };
        }
        let from = self.tail.partition_point(|(sequence, _)| *sequence <= after);
        let mut events = Vec::new();
        let mut bytes = 0;
        for (sequence, event) in self.tail.range(from..) {
            if *sequence > self.durable || !wanted.takes(&events, &mut bytes, event.len()) {
                break;
            }
            events.push((*sequence, event.to_vec()));
        }
        Place::Memory(events)
    }

    /// For the committer: what is not on disk yet.
    pub(crate) fn collect(&mut self) -> Option<QueueBatch> {
        let from = self.tail.partition_point(|(sequence, _)| *sequence <= self.collected);
        let events: Vec<Event> = self.tail.range(from..).cloned().collect();
        let rows: Vec<u64> = self
            .rows
            .iter()
            .take_while(|row| *row.end() <= self.removed)
            .take(REMOVE_ROWS)
            .map(|row| *row.start())
            .collect();
        let removed = (self.removed > self.removed_written).then_some(self.removed);
        if events.is_empty() && rows.is_empty() && removed.is_none() {
            return None;
        }
        if let Some((last, _)) = events.last() {
            self.collected = *last;
        }
        Some(QueueBatch { queue: self.queue, events, rows, removed })
    }

    /// For the committer: the batch is on disk. True: more rows wait to be removed.
    pub(crate) fn committed(&mut self, batch: &QueueBatch) -> bool {
        for chunk in batch.chunks() {
            if let (Some((first, _)), Some((last, _))) = (chunk.first(), chunk.last()) {
                self.rows.push_back(*first..=*last);
                self.durable = *last;
            }
        }
        self.rows.drain(..batch.rows.len().min(self.rows.len()));
        self.removed_written = batch.removed.unwrap_or(self.removed_written);
        while self.tail_bytes > TAIL_BYTES
            && self.tail.front().is_some_and(|(sequence, _)| *sequence <= self.durable)
        {
            self.drop_first();
        }
        self.rows.front().is_some_and(|row| *row.end() <= self.removed)
    }

    fn drop_first(&mut self) {
        if let Some((sequence, event)) = self.tail.pop_front() {
            self.tail_bytes -= event.len();
            self.tail_from = sequence;
        }
    }
}

fn counted(size: u32) -> u64 {
    u64::from(size) + EVENT_OVERHEAD
}
