//! The chain of admission plugins, and what becomes of each allow.

pub mod active;
mod arm;
mod canary;
mod finishing;
mod lease;
mod phase;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate_store::Clock;

use super::admission::{Denial, Request, Subject};
use super::settle::{self, Ended};
use super::{CallError, limits};
use active::ActivePlugin;
pub use arm::Sample;
pub use canary::{Canary, CanaryEnd, Share};
use finishing::Finishing;
pub use lease::Lease;
use phase::Phase;

/// The chain. A clone is the same chain.
#[derive(Clone)]
pub struct Admissions {
    shared: Arc<Shared>,
}

/// What phases and leases share.
struct Shared {
    chain: ArcSwap<Vec<Arc<ActivePlugin>>>,
    queue: mpsc::Sender<Ended>,
    clock: Clock,
    closing: CancellationToken,
    settler: TaskTracker,
}

/// The answer for one subject.
#[derive(Debug)]
pub enum Verdict {
    /// It may take part.
    Allowed(Lease),
    /// It may not.
    Denied {
        /// The plugin that refused.
        plugin: Arc<str>,
        /// Its reason.
        denial: Denial,
    },
    /// A plugin failed whose manifest says `on-error = "deny"`.
    Failed {
        /// The plugin that failed.
        plugin: Arc<str>,
        /// How, for the log.
        reason: String,
    },
    /// Too many requests are under way.
    Busy,
}

impl Admissions {
    /// An empty chain, which allows everything. Needs a tokio runtime, in which it settles.
    pub fn new(clock: Clock) -> Admissions {
        Admissions::with_queue(clock, limits::SETTLE_QUEUE)
    }

    fn with_queue(clock: Clock, places: usize) -> Admissions {
        let (queue, ended) = mpsc::channel(places);
        let closing = CancellationToken::new();
        let settler = TaskTracker::new();
        settler.spawn(settle::run(ended, closing.clone()));
        settler.close();
        let chain = ArcSwap::from_pointee(Vec::new());
        Admissions { shared: Arc::new(Shared { chain, queue, clock, closing, settler }) }
    }

    /// Replaces the chain: those of `plugins` that have the hook, in their manifests' order. To be called after each
    /// change of a generation too, since its order and hooks may have changed.
    pub fn install(&self, plugins: Vec<Arc<ActivePlugin>>) {
        let mut chain: Vec<_> = plugins.into_iter().map(|plugin| (plugin.current(), plugin)).collect();
        chain.retain(|(generation, _)| generation.hooks().admission);
        chain.sort_by_key(|(generation, _)| generation.manifest().order);
        let chain = chain.into_iter().map(|(_, plugin)| plugin).collect();
        self.shared.chain.store(Arc::new(chain));
    }

    /// Asks every plugin about the subjects that the ones before it allowed; one verdict for each subject, in order.
    ///
    /// When the caller is dropped, it goes on in a task, and its leases are settled as client-aborted. A request that is
    /// old by now is asked about at the present time.
    pub async fn admit(&self, request: Arc<Request>, subjects: Vec<Arc<Subject>>) -> Vec<Verdict> {
        let chain = self.shared.chain.load_full();
        if chain.is_empty() && !self.shared.closing.is_cancelled() {
            return subjects.into_iter().map(|subject| Verdict::Allowed(Lease::free(subject))).collect();
        }
        let count = subjects.len();
        let Some(phase) = Phase::begin(&self.shared, &request, &subjects) else {
            return busy(count);
        };
        let request = self.at_present(request);
        Finishing::new(phase.run(chain, request, Arc::from(subjects))).await
    }

    /// A body that comes slowly and accounts that fail take minutes. A time that far back says to a policy that the clock
    /// was set back, and a charge at it leaves its window too early.
    fn at_present(&self, request: Arc<Request>) -> Arc<Request> {
        let now_ms = (self.shared.clock)();
        if now_ms.saturating_sub(request.now_ms) <= limits::REQUEST_AGE_MS {
            return request;
        }
        Arc::new(Request { now_ms, ..(*request).clone() })
    }

    /// Leases that are open or wait for their settlement.
    pub fn open_leases(&self) -> usize {
        self.shared.queue.max_capacity() - self.shared.queue.capacity()
    }

    /// Admits nothing any more and waits, for a while, until every lease has been settled.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        if timeout(limits::SHUTDOWN_WAIT, self.shared.settler.wait()).await.is_err() {
            tracing::warn!(leases = self.open_leases(), "leases are left unsettled; they expire");
        }
    }
}

fn busy(count: usize) -> Vec<Verdict> {
    (0..count).map(|_| Verdict::Busy).collect()
}

impl fmt::Debug for Admissions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Admissions").field("open_leases", &self.open_leases()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
