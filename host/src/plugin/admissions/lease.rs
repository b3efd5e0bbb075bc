//! One admitted subject.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::OwnedPermit;

use super::Shared;
use crate::plugin::admission::{Ending, Subject, Usage};
use crate::plugin::settle::{Allow, Ended};

/// One admitted subject. Settled exactly once: by [`Lease::settle`], or as client-aborted when it is dropped.
///
/// Its place in the settle queue was taken before it was admitted, so that settling neither waits nor fails.
pub struct Lease {
    subject: Arc<Subject>,
    /// None: no plugin allowed it, or it has been settled.
    open: Option<Box<Open>>,
}

/// What settles a subject.
pub(super) struct Open {
    place: OwnedPermit<Ended>,
    shared: Arc<Shared>,
    common: Common,
    began_ms: u64,
    allows: Vec<Allow>,
    told: Mutex<Option<Usage>>,
}

/// What the subjects of one request have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) request_id: Arc<str>,
    pub(super) model: Arc<str>,
}

impl Lease {
    pub(super) fn free(subject: Arc<Subject>) -> Lease {
        Lease { subject, open: None }
    }

    pub(super) fn open(subject: Arc<Subject>, open: Open) -> Lease {
        let open = (!open.allows.is_empty()).then(|| Box::new(open));
        Lease { subject, open }
    }

    /// Ends the lease with what was used.
    pub fn settle(mut self, usage: Usage) {
        if let Some(open) = self.open.take() {
            open.end(&self.subject, usage);
        }
    }

    /// Tells what was used so far, so that the plugins renew their leases; `usage.ending` is taken as running. A drop
    /// settles with the usage told last.
    pub fn renew(&self, mut usage: Usage) {
        let Some(open) = &self.open else { return };
        usage.ending = Ending::Running;
        *open.told.lock() = Some(usage);
        if let Some(ended) = open.ended(&self.subject, open.allows.clone(), usage) {
            // A renewal has no place of its own: with the queue full this one is left out, and the next may do.
            let _ = open.shared.queue.try_send(ended);
        }
    }

    /// The subject.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let told = open.told.lock().take();
        let usage = Usage { ending: Ending::ClientAborted, ..told.unwrap_or_else(|| open.unused()) };
        open.end(&self.subject, usage);
    }
}

impl Open {
    pub(super) fn new(place: OwnedPermit<Ended>, shared: Arc<Shared>, common: Common, began_ms: u64) -> Open {
        Open { place, shared, common, began_ms, allows: Vec::new(), told: Mutex::new(None) }
    }

    pub(super) fn push(&mut self, allow: Allow) {
        self.allows.push(allow);
    }

    /// Settles what was allowed before another plugin refused.
    pub(super) fn never_sent(self, subject: &Subject) {
        let usage = self.unused();
        self.end(subject, usage);
    }

    fn end(mut self, subject: &Subject, usage: Usage) {
        let allows = std::mem::take(&mut self.allows);
        if let Some(ended) = self.ended(subject, allows, usage) {
            self.place.send(ended);
        }
    }

    /// None: no plugin is to be told.
    fn ended(&self, subject: &Subject, mut allows: Vec<Allow>, usage: Usage) -> Option<Ended> {
        allows.retain(|allow| allow.hears(&usage));
        let Common { request_id, model } = self.common.clone();
        let (subject, now_ms) = (subject.identity(), (self.shared.clock)());
        (!allows.is_empty()).then_some(Ended { request_id, model, subject, allows, now_ms, usage })
    }

    fn unused(&self) -> Usage {
        Usage {
            ending: Ending::NeverSent,
            status: None,
            input_tokens: 0,
            output_tokens: 0,
            cost: None,
            duration_ms: (self.shared.clock)().saturating_sub(self.began_ms),
            retry_after_ms: None,
            reached: None,
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lease").field("subject", &self.subject.id).finish_non_exhaustive()
    }
}
