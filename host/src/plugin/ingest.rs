//! The way of an event from the gateway through the durable queue into the ingestion plugin.

use serde::{Deserialize, Serialize};
use tollgate_store::Queue;

/// The record of a request that ended; `wit/policy/ingestion.wit` says what each field means. The queue adds the
/// sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the WIT record, documented there")]
#[serde(default)]
pub struct EventRecord {
    pub request_id: String,
    pub time_ms: u64,
    pub client_type: String,
    pub client_ip: String,
    pub user_agent: String,
    pub client_key_hash: String,
    pub client_name: String,
    pub api_key_hash: String,
    pub account_name: String,
    pub model: String,
    pub original_model: String,
    pub endpoint: String,
    pub response_time_ms: u64,
    pub status_code: u16,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub is_stream: bool,
    pub has_error: bool,
    pub error_message: Option<String>,
    pub request_size: u64,
    pub response_size: u64,
}

/// The gateway's end of the queue. Cheap to clone; every call is at memory speed.
#[derive(Clone)]
pub struct EventQueue {
    queue: Queue,
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The queue is at its capacity.
    #[error("the event queue is full")]
    Full,
    /// The store cannot take it.
    #[error("the event queue cannot take events: {0}")]
    Unavailable(String),
}

impl EventQueue {
    /// Puts the durable queue behind it.
    pub fn new(queue: Queue) -> EventQueue {
        EventQueue { queue }
    }

    /// Whether another request may be taken. Ask before the request is sent upstream: afterwards it must be recorded.
    pub fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Appends an event and returns its sequence; it is on disk within 50 ms.
    pub fn record(&self, event: &EventRecord) -> Result<u64, RecordError> {
        let _ = event;
        todo!("ingest")
    }

    /// Brings the gauges `tollgate_event_*` up to date; for whoever renders metrics.
    pub fn observe(&self) {
        todo!("ingest")
    }
}
