//! Takes durable events from the queue to the ingestion hook, in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tollgate_store::Queue;

use super::super::ingestion::{Event, Receipt};
use super::super::limits::{
    INGEST_BATCH_ATTEMPTS, INGEST_BATCH_BYTES, INGEST_BATCH_EVENTS, INGEST_BATCH_WAITS,
    INGEST_EVENT_ATTEMPTS, INGEST_GATHER, INGEST_PAUSE_MAX, INGEST_PAUSE_MIN,
};
use super::dead_letters::DeadLetters;
use super::encoding::decode;

/// Where events go: the plugin with the ingestion hook, or a test's stand-in.
pub(in crate::plugin) trait Sink: Send + Sync + 'static {
    /// Hands over a batch.
    fn ingest(&self, batch: &Arc<[Event]>) -> impl Future<Output = Result<Receipt, SinkError>> + Send;
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(in crate::plugin) enum SinkError {
    /// Nobody could take it now; the events are not to blame.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The plugin reported an error, trapped or overran.
    #[error("{0}")]
    Failed(String),
}

/// One a queue. Every event ends in the sink or among the dead letters, and is removed from the queue only then.
pub(super) struct Driver<S> {
    pub(super) queue: Queue,
    pub(super) sink: S,
    pub(super) dead_letters: DeadLetters,
    /// The last sequence that was dealt with.
    pub(super) progress: watch::Sender<u64>,
}

impl<S: Sink> Driver<S> {
    /// Runs until `stop`. Stopping in the middle of a batch is harmless: it comes again, and the plugin skips what it has.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut after = 0;
        let mut pause = Pause::default();
        let mut behind = false;
        loop {
            self.queue.wait(after).await;
            if !behind {
                tokio::time::sleep(INGEST_GATHER).await;
            }
            match self.queue.read(after, INGEST_BATCH_EVENTS, INGEST_BATCH_BYTES).await {
                Ok(batch) if !batch.is_empty() => {
                    let bytes: usize = batch.iter().map(|(_, bytes)| bytes.len()).sum();
                    behind = batch.len() == INGEST_BATCH_EVENTS || bytes > INGEST_BATCH_BYTES / 2;
                    after = self.take(batch, after).await;
                    pause = Pause::default();
                }
                Ok(_) => pause.wait().await,
                Err(error) => {
                    tracing::error!(%error, "cannot read the event queue");
                    pause.wait().await;
                }
            }
        }
    }

    /// Deals with every event of the batch and returns the last sequence.
    async fn take(&self, batch: Vec<(u64, Vec<u8>)>, after: u64) -> u64 {
        let last = batch.last().map_or(after, |(sequence, _)| *sequence);
        let mut events = Vec::with_capacity(batch.len());
        for (sequence, bytes) in &batch {
            match decode(*sequence, bytes) {
                Ok(event) => events.push(event),
                Err(error) => self.bury(*sequence, bytes, &error.to_string()).await,
            }
        }
        if !events.is_empty() && self.attempt(&events.into(), INGEST_BATCH_ATTEMPTS).await.is_err() {
            self.take_singly(&batch).await;
        }
        self.done(last);
        last
    }

    async fn take_singly(&self, batch: &[(u64, Vec<u8>)]) {
        for (sequence, bytes) in batch {
            let Ok(event) = decode(*sequence, bytes) else { continue };
            if let Err(reason) = self.attempt(&Arc::from([event]), INGEST_EVENT_ATTEMPTS).await {
                self.bury(*sequence, bytes, &reason).await;
            }
            self.done(*sequence);
        }
    }

    /// Tries a batch until it is taken, has failed `attempts` times by its own fault, or is one of several events and has
    /// waited long enough.
    async fn attempt(&self, events: &Arc<[Event]>, attempts: u32) -> Result<(), String> {
        let mut pause = Pause::default();
        let (mut failures, mut waits) = (0, 0);
        loop {
            match self.sink.ingest(events).await {
                Ok(receipt) => {
                    metrics::counter!("tollgate_events_ingested_total").increment(receipt.stored.into());
                    return Ok(());
                }
                Err(SinkError::Unavailable(reason)) => {
                    tracing::warn!(reason, events = events.len(), "ingestion is not available");
                    waits += 1;
                    if waits >= INGEST_BATCH_WAITS && events.len() > 1 {
                        return Err(reason);
                    }
                }
                Err(SinkError::Failed(reason)) => {
                    tracing::warn!(reason, events = events.len(), "ingestion failed");
                    failures += 1;
                    if failures >= attempts {
                        return Err(reason);
                    }
                }
            }
            pause.wait().await;
        }
    }

    /// Sets an event aside. Never gives up: an event leaves the queue only for another durable place.
    async fn bury(&self, sequence: u64, bytes: &[u8], reason: &str) {
        let mut pause = Pause::default();
        while let Err(error) = self.dead_letters.keep(sequence, bytes, reason).await {
            tracing::error!(%error, sequence, "cannot set an event aside");
            pause.wait().await;
        }
        metrics::counter!("tollgate_event_dead_letters_total").increment(1);
        tracing::error!(sequence, reason, "event set aside");
    }

    fn done(&self, sequence: u64) {
        self.queue.remove_through(sequence);
        self.progress.send_replace(sequence);
    }
}

/// Pauses that double.
#[derive(Default)]
struct Pause(Duration);

impl Pause {
    async fn wait(&mut self) {
        self.0 = (self.0 * 2).clamp(INGEST_PAUSE_MIN, INGEST_PAUSE_MAX);
        tokio::time::sleep(self.0).await;
    }
}
