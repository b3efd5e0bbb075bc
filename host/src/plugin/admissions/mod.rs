//! The chain of admission plugins, and what becomes of each allow.

pub mod active;

use std::sync::Arc;

use tollgate_store::Clock;

use super::admission::{Denial, Request, Subject, Usage};
use active::ActivePlugin;

/// The chain. A clone is the same chain.
#[derive(Clone)]
pub struct Admissions {}

impl Admissions {
    /// An empty chain, which allows everything. Needs a tokio runtime, in which it settles.
    pub fn new(_clock: Clock) -> Admissions {
        todo!()
    }

    /// Replaces the chain: those of `plugins` that have the hook, in their manifests' order. To be called after each
    /// change of a generation too, since its order and hooks may have changed.
    pub fn install(&self, _plugins: Vec<Arc<ActivePlugin>>) {
        todo!()
    }

    /// Asks every plugin about the subjects that the ones before it allowed; one verdict for each subject, in order.
    ///
    /// Runs in a task of its own: when the caller is dropped, it goes on, and its leases are settled as client-aborted.
    pub async fn admit(&self, _request: Arc<Request>, _subjects: Vec<Arc<Subject>>) -> Vec<Verdict> {
        todo!()
    }

    /// Leases that are open or wait for their settlement.
    pub fn open_leases(&self) -> usize {
        todo!()
    }

    /// Admits nothing any more and waits, for a while, until every lease has been settled.
    pub async fn shutdown(&self) {
        todo!()
    }
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

/// One admitted subject. Settled exactly once: by [`Lease::settle`], or as client-aborted when it is dropped.
///
/// Its place in the settle queue was taken before it was admitted, so that settling neither waits nor fails.
#[derive(Debug)]
pub struct Lease {}

impl Lease {
    /// Ends the lease with what was used.
    pub fn settle(self, _usage: Usage) {
        todo!()
    }

    /// Tells what was used so far, so that the plugins renew their leases; `usage.ending` is taken as running. A drop
    /// settles with the usage told last.
    pub fn renew(&self, _usage: Usage) {
        todo!()
    }

    /// The subject.
    pub fn subject(&self) -> &Subject {
        todo!()
    }
}
