//! Spans that wait to be sent.

use std::collections::VecDeque;

use metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::export::dropped;
use super::limits::{BATCH_SPANS, SPANS_WAITING};
use super::otlp::Span;

/// Spans that wait; there are never more than may.
pub(super) struct Buffer {
    waiting: Mutex<VecDeque<Span>>,
    enough: Notify,
    dropped: Counter,
}

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer { waiting: Mutex::default(), enough: Notify::new(), dropped: dropped("full") }
    }

    /// Puts the spans of one trace in, all or, if there is no room, none: a part of them would mislead.
    pub(super) fn put(&self, spans: Vec<Span>) {
        let count = spans.len();
        let mut waiting = self.waiting.lock();
        if waiting.len() + count > SPANS_WAITING {
            drop(waiting);
            self.dropped.increment(count as u64);
            return;
        }
        waiting.extend(spans);
        let enough = waiting.len() >= BATCH_SPANS;
        drop(waiting);
        if enough {
            self.enough.notify_one();
        }
    }

    /// Waits until there are enough for a message.
    pub(super) async fn enough(&self) {
        self.enough.notified().await;
    }

    /// The spans of a message, those first that came first.
    pub(super) fn take(&self) -> Vec<Span> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(BATCH_SPANS);
        waiting.drain(..count).collect()
    }

    /// Drops all that wait; how many they were.
    pub(super) fn clear(&self) -> u64 {
        std::mem::take(&mut *self.waiting.lock()).len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(count: usize) -> Vec<Span> {
        vec![Span::default(); count]
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_whole_traces_at_a_time() {
        let buffer = Buffer::new();
        buffer.put(spans(SPANS_WAITING - 3));
        buffer.put(spans(4));
        assert_eq!(buffer.waiting.lock().len(), SPANS_WAITING - 3);
        buffer.put(spans(3));
        buffer.put(spans(1));
        assert_eq!(buffer.waiting.lock().len(), SPANS_WAITING);
        assert_eq!(buffer.take().len(), BATCH_SPANS);
        buffer.put(spans(1));
        assert_eq!(buffer.waiting.lock().len(), SPANS_WAITING - BATCH_SPANS + 1);
    }

    #[tokio::test]
    async fn a_message_is_sent_as_soon_as_it_is_full() {
        let buffer = Buffer::new();
        buffer.put(spans(BATCH_SPANS - 1));
        assert!(futures_util::FutureExt::now_or_never(buffer.enough()).is_none());
        buffer.put(spans(1));
        buffer.enough().await;
    }
}
