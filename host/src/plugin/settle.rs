//! Settles allows in batches, off the requests' way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use wasmtime::component::{ComponentType, Lower};

use super::admission::{Ending, Identity, Ticket, Usage};
use super::{ActivePlugin, CallError, limits};

/// `settlement` of `wit/policy/admission.wit`, sharing what the allows of one request have in common.
#[derive(Clone, ComponentType, Lower)]
#[component(record)]
pub struct Settlement {
    /// The request's id.
    #[component(name = "request-id")]
    pub request_id: Arc<str>,
    /// When this was settled.
    #[component(name = "now-ms")]
    pub now_ms: u64,
    /// The model asked for.
    pub model: Arc<str>,
    /// The subject that was allowed.
    pub subject: Identity,
    /// The ticket that came with the allow.
    pub ticket: Option<Ticket>,
    /// How it went.
    pub usage: Usage,
}

/// One plugin's allow of one subject.
#[derive(Clone)]
pub(crate) struct Allow {
    pub(crate) plugin: Arc<ActivePlugin>,
    /// The generation that allowed: as long as it is a canary it settles itself.
    pub(crate) generation: u64,
    pub(crate) ticket: Option<Ticket>,
}

impl Allow {
    /// Whether the plugin is told of this: of everything with a ticket, and else of what went wrong upstream.
    pub(crate) fn hears(&self, usage: &Usage) -> bool {
        self.ticket.is_some()
            || match usage.ending {
                Ending::Running | Ending::NeverSent => false,
                Ending::UpstreamError | Ending::TimedOut => true,
                Ending::Completed | Ending::ClientAborted => usage.status.is_some_and(|status| status >= 400),
            }
    }
}

/// What is to be told to each plugin that allowed a subject.
pub(crate) struct Ended {
    pub(crate) request_id: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) subject: Identity,
    pub(crate) allows: Vec<Allow>,
    pub(crate) now_ms: u64,
    pub(crate) usage: Usage,
}

/// Settlements for one plugin.
struct Batch {
    plugin: Arc<ActivePlugin>,
    /// The generation of the canary that allowed; another may run by the time of a retry.
    canary: Option<u64>,
    settlements: Vec<Settlement>,
}

/// Settles what comes, until the queue ends: when every sender is gone, or after `closing` when it is empty and no
/// lease is open any more.
pub(crate) async fn run(mut queue: mpsc::Receiver<Ended>, closing: CancellationToken) {
    let mut ended = Vec::with_capacity(limits::SETTLE_BATCH);
    let mut beside = JoinSet::new();
    loop {
        let received = tokio::select! {
            received = queue.recv_many(&mut ended, limits::SETTLE_BATCH) => received,
            () = closing.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        if received == 0 {
            break;
        }
        let next = Instant::now() + limits::SETTLE_LINGER;
        settle(batches(ended.drain(..)), &mut beside).await;
        if received < limits::SETTLE_BATCH && !queue.is_closed() {
            sleep_until(next).await;
        }
    }
    while beside.join_next().await.is_some() {}
}

fn batches(ended: impl Iterator<Item = Ended>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for Ended { request_id, model, subject, allows, now_ms, usage } in ended {
        for Allow { plugin, generation, ticket } in allows {
            let canary = Some(generation).filter(|generation| plugin.is_canary(*generation));
            let settlement = Settlement {
                request_id: request_id.clone(),
                now_ms,
                model: model.clone(),
                subject: subject.clone(),
                ticket,
                usage,
            };
            let is_same = |batch: &&mut Batch| Arc::ptr_eq(&batch.plugin, &plugin) && batch.canary == canary;
            match batches.iter_mut().find(is_same) {
                Some(batch) => batch.settlements.push(settlement),
                None => batches.push(Batch { plugin, canary, settlements: vec![settlement] }),
            }
        }
    }
    batches
}

/// Waits a moment for each batch; one that takes longer or fails goes on beside, so that no plugin holds up the others.
async fn settle(batches: Vec<Batch>, beside: &mut JoinSet<()>) {
    let deliveries = batches.into_iter().map(|Batch { plugin, canary, settlements }| async move {
        let mut delivery = Box::pin(deliver(plugin, Arc::new(settlements), canary));
        let quick = timeout(limits::SETTLE_PATIENCE, &mut delivery).await.is_ok();
        (!quick).then_some(delivery)
    });
    for delivery in join_all(deliveries).await.into_iter().flatten() {
        if beside.len() >= limits::SETTLE_BESIDE {
            beside.join_next().await;
        }
        beside.spawn(delivery);
    }
    while beside.try_join_next().is_some() {}
}

async fn deliver(plugin: Arc<ActivePlugin>, settlements: Arc<Vec<Settlement>>, canary: Option<u64>) {
    let error = match plugin.settle(&settlements, canary).await {
        Ok(()) => return plugin.settled.increment(settlements.len() as u64),
        Err(error) => error,
    };
    let retrying = plugin.retrying.fetch_add(1, Ordering::Relaxed);
    // One that traps or hangs on whatever it gets would be retried without end.
    let hopeless = matches!(error, CallError::Trap(_) | CallError::Deadline(_));
    if hopeless && retrying >= limits::SETTLE_RETRIES {
        plugin.lost.increment(settlements.len() as u64);
    } else {
        retry(&plugin, settlements, canary).await;
    }
    plugin.retrying.fetch_sub(1, Ordering::Relaxed);
}

/// Tries a batch again, then each of its settlements alone, since one bad one may fail all.
async fn retry(plugin: &ActivePlugin, settlements: Arc<Vec<Settlement>>, canary: Option<u64>) {
    for attempt in 1..limits::SETTLE_ATTEMPTS {
        sleep(limits::SETTLE_RETRY_WAIT * attempt).await;
        if plugin.settle(&settlements, canary).await.is_ok() {
            plugin.settled.increment(settlements.len() as u64);
            return;
        }
    }
    let mut lost = None;
    for settlement in settlements.iter() {
        match plugin.settle(&Arc::new(vec![settlement.clone()]), canary).await {
            Ok(()) => plugin.settled.increment(1),
            Err(error) => {
                plugin.lost.increment(1);
                lost = Some((settlement.request_id.clone(), error));
            }
        }
    }
    if let Some((request, error)) = lost {
        let plugin = &**plugin.name();
        tracing::error!(plugin, request_id = &*request, %error, "settlements are lost, this one among them");
    }
}
