//! The way of an event from the gateway through the durable queue into the ingestion plugin.

mod dead_letters;
mod driver;
mod encoding;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tollgate_store::sql::SqlError;
use tollgate_store::{Clock, Database, Queue, Store};

pub(super) use self::driver::{Sink, SinkError};
#[cfg(test)]
pub(crate) use self::encoding::decode_record;
use super::limits::MAX_EVENT_TEXT_BYTES;

/// The record of a request that ended; `wit/policy/ingestion.wit` says what each field means. The queue adds the
/// sequence. A field keeps its tag for ever: it is what tells fields apart on disk.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the WIT record, documented there")]
#[serde(default)]
pub struct EventRecord {
    #[prost(string, tag = 1)]
    pub request_id: String,
    #[prost(uint64, tag = 2)]
    pub time_ms: u64,
    #[prost(string, tag = 3)]
    pub client_type: String,
    #[prost(string, tag = 4)]
    pub client_ip: String,
    #[prost(string, tag = 5)]
    pub user_agent: String,
    #[prost(string, tag = 6)]
    pub client_key_hash: String,
    #[prost(string, tag = 7)]
    pub client_name: String,
    #[prost(string, tag = 8)]
    pub api_key_hash: String,
    #[prost(string, tag = 9)]
    pub account_name: String,
    #[prost(string, tag = 10)]
    pub model: String,
    #[prost(string, tag = 11)]
    pub original_model: String,
    #[prost(string, tag = 12)]
    pub endpoint: String,
    #[prost(string, tag = 25)]
    pub method: String,
    #[prost(string, tag = 26)]
    pub referer: String,
    #[prost(uint64, tag = 13)]
    pub response_time_ms: u64,
    #[prost(uint32, tag = 14)]
    pub status_code: u32,
    #[prost(uint64, tag = 15)]
    pub input_tokens: u64,
    #[prost(uint64, tag = 16)]
    pub output_tokens: u64,
    #[prost(uint64, tag = 22)]
    pub cache_read_tokens: u64,
    #[prost(uint64, tag = 23)]
    pub cache_write_tokens: u64,
    #[prost(uint64, tag = 24)]
    pub reasoning_tokens: u64,
    #[prost(string, tag = 28)]
    pub token_source: String,
    #[prost(uint64, optional, tag = 27)]
    pub cost: Option<u64>,
    #[prost(bool, tag = 17)]
    pub is_stream: bool,
    #[prost(bool, tag = 18)]
    pub has_error: bool,
    #[prost(string, optional, tag = 19)]
    pub error_message: Option<String>,
    #[prost(uint64, tag = 20)]
    pub request_size: u64,
    #[prost(uint64, tag = 21)]
    pub response_size: u64,
    #[prost(string, tag = 29)]
    pub error_type: String,
    #[prost(message, repeated, tag = 30)]
    pub attempts: Vec<AttemptRecord>,
}

/// An attempt that failed and was followed by others; likewise.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the WIT record, documented there")]
#[serde(default)]
pub struct AttemptRecord {
    #[prost(string, tag = 1)]
    pub api_key_hash: String,
    #[prost(string, tag = 2)]
    pub account_name: String,
    #[prost(string, tag = 3)]
    pub model: String,
    #[prost(string, tag = 4)]
    pub error_type: String,
    #[prost(uint32, tag = 5)]
    pub status_code: u32,
    #[prost(string, tag = 6)]
    pub message: String,
    #[prost(uint64, tag = 7)]
    pub response_time_ms: u64,
}

/// What the fuzz targets reach of the queue's encoding.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing {
    use super::{EventRecord, encoding};

    /// The bytes of an event in the queue.
    pub fn write_event(event: &EventRecord) -> Vec<u8> {
        encoding::encode(event)
    }

    /// The event in these bytes, if they are one.
    pub fn read_event(bytes: &[u8]) -> Option<EventRecord> {
        encoding::decode(0, bytes).ok()?;
        encoding::decode_record(bytes).ok()
    }
}

/// The gateway's end of the queue. Cheap to clone; every call is at memory speed.
#[derive(Clone, Debug)]
pub struct EventQueue {
    queue: Queue,
    appended: Arc<AtomicU64>,
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store cannot take it.
    #[error("the event queue cannot take events: {reason}")]
    Unavailable {
        /// The request that it is of.
        request_id: String,
        /// What the store said.
        reason: String,
    },
}

impl EventQueue {
    /// Puts the durable queue behind it.
    pub fn new(queue: Queue) -> EventQueue {
        EventQueue { queue, appended: Arc::default() }
    }

    /// Whether another request may be taken. Ask before the request is sent upstream: afterwards it must be recorded.
    pub fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Appends an event and returns its sequence; it is on disk within 50 ms. Overlong texts are cut. It is taken from
    /// whatever request was under way when the queue filled: those are bounded, and none may be forgotten.
    pub fn record(&self, mut event: EventRecord) -> Result<u64, RecordError> {
        event.cut_texts();
        let sequence = self.queue.append_anyway(encoding::encode(&event));
        let sequence = sequence.map_err(|error| RecordError::Unavailable {
            request_id: event.request_id,
            reason: error.to_string(),
        })?;
        self.appended.fetch_max(sequence, Ordering::Relaxed);
        Ok(sequence)
    }

    /// Brings the gauges `tollgate_event_*` up to date; for whoever renders metrics. Both sequences are exact as long as
    /// the data directory has been opened fewer than 8,192 times, since a gauge has 53 bits.
    pub fn observe(&self) {
        #[expect(clippy::cast_precision_loss, reason = "said above")]
        let set = |name, value: u64| metrics::gauge!(name).set(value as f64);
        let watermark = self.queue.watermark();
        set("tollgate_event_watermark", watermark);
        set("tollgate_event_appended", self.appended.load(Ordering::Relaxed).max(watermark));
        set("tollgate_event_queue_bytes", self.queue.bytes());
    }
}

impl EventRecord {
    fn cut_texts(&mut self) {
        let texts = [
            &mut self.request_id,
            &mut self.client_type,
            &mut self.client_ip,
            &mut self.user_agent,
            &mut self.client_key_hash,
            &mut self.client_name,
            &mut self.api_key_hash,
            &mut self.account_name,
            &mut self.model,
            &mut self.original_model,
            &mut self.endpoint,
            &mut self.method,
            &mut self.referer,
        ];
        let of_attempts = self.attempts.iter_mut().flat_map(AttemptRecord::texts);
        for text in texts.into_iter().chain(&mut self.error_message).chain(of_attempts) {
            text.truncate(text.floor_char_boundary(MAX_EVENT_TEXT_BYTES));
        }
    }
}

impl AttemptRecord {
    fn texts(&mut self) -> [&mut String; 4] {
        [&mut self.api_key_hash, &mut self.account_name, &mut self.model, &mut self.message]
    }
}

/// The running driver of the queue.
pub(super) struct Ingestion {
    store: Store,
    events: EventQueue,
    progress: watch::Receiver<u64>,
    stop: CancellationToken,
    task: parking_lot::Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Ingestion {
    /// Starts taking events to `sink`, on the runtime `on`.
    pub(super) async fn start(
        on: &Handle,
        store: Store,
        database: Database,
        queue: Queue,
        sink: impl Sink,
        clock: Clock,
    ) -> Result<Ingestion, SqlError> {
        let dead_letters = dead_letters::DeadLetters::open(database, clock).await?;
        let (sender, progress) = watch::channel(0);
        let stop = CancellationToken::new();
        let driver = driver::Driver { queue: queue.clone(), sink, dead_letters, progress: sender };
        let task = AbortOnDropHandle::new(on.spawn(driver.run(stop.clone())));
        let events = EventQueue::new(queue);
        Ok(Ingestion { store, events, progress, stop, task: parking_lot::Mutex::new(Some(task)) })
    }

    /// Where events are put in.
    pub(super) fn events(&self) -> EventQueue {
        self.events.clone()
    }

    /// Waits until everything recorded before this call has been ingested. False: not within `bound`; nothing is lost.
    pub(super) async fn flush(&self, bound: Duration) -> bool {
        let drained = async {
            self.store.flush().await.ok()?;
            let last = self.events.queue.watermark();
            let mut progress = self.progress.clone();
            while *progress.borrow_and_update() < last && self.events.queue.bytes() > 0 {
                progress.changed().await.ok()?;
            }
            Some(())
        };
        tokio::time::timeout(bound, drained).await.is_ok_and(|drained| drained.is_some())
    }

    /// Ends the driver; a batch in flight is given up and comes again after the restart.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the driver of ingestion ended badly");
        }
    }
}

#[cfg(test)]
mod tests;
