//! The name under which the generations of a plugin follow each other.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::{ArcSwap, ArcSwapOption};
use metrics::{Counter, counter};
use tokio::time::Instant;

use super::canary::{Canary, Share};
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

/// An answer, and what the manifest of the generation that gave it says of errors.
pub(crate) struct Admitted {
    pub(crate) decisions: Result<Vec<Decision>, CallError>,
    pub(crate) on_error: OnError,
    /// The number of that generation.
    pub(crate) generation: u64,
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
        self.begin(Canary::first(generation, calls))
    }

    /// Lets a new generation answer a share of the requests, from their admission to their settlement; a call that fails
    /// there is answered by the current one. Replaces a canary that is running.
    pub fn start_share(&self, generation: Arc<Generation>, share: Share) -> Arc<Canary> {
        self.begin(Canary::share(generation, share))
    }

    fn begin(&self, canary: Canary) -> Arc<Canary> {
        let canary = Arc::new(canary);
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
        let canary = self.canary();
        if let Some(canary) = &canary
            && let Some(decisions) = canary.admit(request, subjects).await
        {
            let generation = canary.number();
            return Admitted { decisions: Ok(decisions), on_error: OnError::Deny, generation };
        }
        let current = self.current.load_full();
        let began = canary.as_ref().map(|_| Instant::now());
        let decisions = current.admit(request.clone(), subjects.clone()).await;
        if let Some((canary, began)) = canary.zip(began) {
            canary.compare(began.elapsed(), &decisions);
        }
        let (on_error, generation) = (current.manifest().on_error, current.identity().number);
        Admitted { decisions, on_error, generation }
    }

    /// Whether this generation is the canary that runs.
    pub(crate) fn is_canary(&self, generation: u64) -> bool {
        self.canary().is_some_and(|canary| canary.number() == generation)
    }

    /// Settles what the canary of generation `admitted_by` allowed, if one did: with that canary as long as it runs, or with
    /// one that hears all, and else with the current generation, which can settle the tickets of any other.
    pub(crate) async fn settle(
        &self,
        settlements: &Arc<Vec<Settlement>>,
        admitted_by: Option<u64>,
    ) -> Result<(), CallError> {
        if let Some(canary) = self.canary()
            && canary.hears(admitted_by)
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
