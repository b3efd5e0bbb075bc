//! The name under which the generations of a plugin follow each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use metrics::{Counter, counter};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::plugin::admission::{Decision, Request, Subject};
use crate::plugin::settle::Settlement;
use crate::plugin::{CallError, Generation, OnError};

/// A plugin that serves: its current generation, and perhaps a canary.
pub struct ActivePlugin {
    name: Arc<str>,
    current: ArcSwap<Generation>,
    canary: ArcSwapOption<Canary>,
    pub(crate) denials: Counter,
    pub(crate) settled: Counter,
    pub(crate) lost: Counter,
    /// Batches of settlements that failed and are tried again.
    pub(crate) retrying: AtomicUsize,
}

/// A new generation that answers a plugin's first calls while the old one stands by.
///
/// `start_canary` → [`Canary::ended`] → `promote` on `Passed` or `Quiet`, `abandon` on `Failed`.
pub struct Canary {
    generation: Arc<Generation>,
    calls: u32,
    /// Calls that may still begin on it.
    left: AtomicU32,
    passed: AtomicU32,
    end: watch::Sender<Option<CanaryEnd>>,
}

/// How a canary went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryEnd {
    /// It answered all its calls.
    Passed,
    /// A call failed (and was answered by the old generation); how.
    Failed(CallError),
    /// The time ran out with no failure, before it had all its calls; or another canary took its place.
    Quiet,
}

/// An answer, and what the manifest of the generation that gave it says of errors.
pub(crate) struct Admitted {
    pub(crate) decisions: Result<Vec<Decision>, CallError>,
    pub(crate) on_error: OnError,
}

impl ActivePlugin {
    /// Serves a generation.
    pub fn new(generation: Arc<Generation>) -> Arc<ActivePlugin> {
        let name = generation.name().clone();
        let label = [("plugin", name.to_string())];
        Arc::new(ActivePlugin {
            denials: counter!("tollgate_plugin_denials_total", &label),
            settled: counter!("tollgate_settlements_total", &label),
            lost: counter!("tollgate_settlements_lost_total", &label),
            retrying: AtomicUsize::new(0),
            name,
            current: ArcSwap::new(generation),
            canary: ArcSwapOption::empty(),
        })
    }

    /// The plugin's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The generation that serves now. Not to be kept: an old generation ends when nobody holds it any more.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Lets a new generation answer the next `calls` admit calls; a call that fails there is answered by the current
    /// one, and ends the canary. Replaces a canary that is running.
    pub fn start_canary(&self, generation: Arc<Generation>, calls: u32) -> Arc<Canary> {
        let canary = Arc::new(Canary {
            generation,
            calls,
            left: AtomicU32::new(calls),
            passed: AtomicU32::new(0),
            end: watch::Sender::new(None),
        });
        self.canary.store(Some(canary.clone()));
        canary
    }

    /// The generation serves from now on, in place of the current one, which is returned; a canary ends.
    pub fn promote(&self, generation: Arc<Generation>) -> Arc<Generation> {
        let old = self.current.swap(generation);
        self.canary.store(None);
        old
    }

    /// Ends a canary; the current generation serves on.
    pub fn abandon(&self) {
        self.canary.store(None);
    }

    pub(crate) async fn admit(&self, request: &Arc<Request>, subjects: &Arc<[Arc<Subject>]>) -> Admitted {
        if let Some(canary) = self.canary()
            && let Some(decisions) = canary.admit(request, subjects).await
        {
            return Admitted { decisions: Ok(decisions), on_error: OnError::Deny };
        }
        let current = self.current.load_full();
        let decisions = current.admit(request.clone(), subjects.clone()).await;
        Admitted { decisions, on_error: current.manifest().on_error }
    }

    /// Settles with a canary, whose tickets nobody else may understand, or else with the current generation.
    pub(crate) async fn settle(&self, settlements: &Arc<Vec<Settlement>>) -> Result<(), CallError> {
        if let Some(canary) = self.canary()
            && canary.settle(settlements).await
        {
            return Ok(());
        }
        self.current.load_full().settle(settlements.clone()).await
    }

    /// The canary that runs and has not failed.
    fn canary(&self) -> Option<Arc<Canary>> {
        let canary = self.canary.load();
        let canary = canary.as_ref()?;
        (!canary.has_failed()).then(|| canary.clone())
    }
}

impl Canary {
    /// Waits for the end, at most so long.
    pub async fn ended(&self, within: Duration) -> CanaryEnd {
        let mut end = self.end.subscribe();
        match timeout(within, end.wait_for(Option::is_some)).await {
            Ok(Ok(end)) => end.clone().unwrap_or(CanaryEnd::Quiet),
            _ => CanaryEnd::Quiet,
        }
    }

    /// None: the call is for the current generation.
    async fn admit(&self, request: &Arc<Request>, subjects: &Arc<[Arc<Subject>]>) -> Option<Vec<Decision>> {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if taken.is_err() {
            return None;
        }
        match self.generation.admit(request.clone(), subjects.clone()).await {
            Ok(decisions) if decisions.len() == subjects.len() => {
                if self.passed.fetch_add(1, Ordering::Relaxed) + 1 >= self.calls {
                    self.end(CanaryEnd::Passed);
                }
                Some(decisions)
            }
            Ok(decisions) => {
                let text = format!("{} decisions for {} subjects", decisions.len(), subjects.len());
                self.fail(CallError::Guest(text));
                None
            }
            Err(CallError::Busy) => None,
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    async fn settle(&self, settlements: &Arc<Vec<Settlement>>) -> bool {
        match self.generation.settle(settlements.clone()).await {
            Ok(()) => true,
            Err(CallError::Busy) => false,
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn has_failed(&self) -> bool {
        matches!(*self.end.borrow(), Some(CanaryEnd::Failed(_)))
    }

    fn fail(&self, reason: CallError) {
        self.left.store(0, Ordering::Relaxed);
        self.end(CanaryEnd::Failed(reason));
    }

    /// A failure stands, even after all calls have passed; otherwise the first end does.
    fn end(&self, end: CanaryEnd) {
        self.end.send_if_modified(|now| {
            let changes = now.is_none() || (*now == Some(CanaryEnd::Passed) && end != CanaryEnd::Passed);
            if changes {
                *now = Some(end);
            }
            changes
        });
    }
}
