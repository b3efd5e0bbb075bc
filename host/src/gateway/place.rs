//! The places of an account: how many requests may be on it at once, and who has them.
//!
//! Taking one and giving it back is one step on an atomic number, unless somebody waits for it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering},
};

use super::{account::Account, queue::Queue};

/// The places of an account. They stay while the account changes, so that what runs on it goes on counting.
pub(super) struct Places {
    most: AtomicU32,
    /// More than there may be while a limit that was lowered is still exceeded.
    taken: AtomicU32,
    /// How many wait for one, or are about to.
    awaited: AtomicUsize,
    queue: Arc<Queue>,
}

/// As many as come.
const UNLIMITED: u32 = u32::MAX;

// Whoever frees a place and whoever begins to wait for one each write and then read what the other one writes: one order
// over all of these steps, so that one of them sees the other.
const ORDER: Ordering = Ordering::SeqCst;

impl Places {
    /// As many places as come, for which requests wait in `queue` once there are fewer.
    pub(super) fn new(queue: Arc<Queue>) -> Arc<Places> {
        Arc::new(Places {
            most: AtomicU32::new(UNLIMITED),
            taken: AtomicU32::new(0),
            awaited: AtomicUsize::new(0),
            queue,
        })
    }

    /// Sets how many there are; none: as many as come.
    pub(super) fn limit(&self, most: Option<u32>) {
        self.most.store(most.unwrap_or(UNLIMITED), ORDER);
    }

    /// Requests that have one.
    pub(super) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether all are taken at this moment.
    pub(super) fn are_taken(&self) -> bool {
        self.taken.load(ORDER) >= self.most.load(ORDER)
    }

    /// Whether somebody waits for one, or is about to.
    pub(super) fn are_awaited(&self) -> bool {
        self.awaited.load(ORDER) > 0
    }

    /// Takes one, unless all are taken.
    pub(super) fn take(&self) -> bool {
        let most = self.most.load(ORDER);
        self.taken.fetch_update(ORDER, ORDER, |taken| (taken < most).then(|| taken + 1)).is_ok()
    }

    fn free(self: &Arc<Places>) {
        // Passed on without being free in between, so that nobody comes before who has waited.
        if self.taken.load(ORDER) <= self.most.load(ORDER) && self.queue.pass_on(self) {
            return;
        }
        self.taken.fetch_sub(1, ORDER);
        self.queue.offer(self);
    }
}

/// Accounts that somebody waits for, or is about to: who frees a place of theirs looks into the queue.
pub(super) struct Awaited(Vec<Arc<Account>>);

impl Awaited {
    pub(super) fn new(accounts: Vec<Arc<Account>>) -> Awaited {
        for account in &accounts {
            account.places.awaited.fetch_add(1, ORDER);
        }
        Awaited(accounts)
    }

    /// Takes a place on the first of them that has one.
    pub(super) fn take(&self) -> Option<Place> {
        self.0.iter().find_map(Place::take)
    }

    /// The one that has these places.
    pub(super) fn with(&self, places: &Arc<Places>) -> Option<&Arc<Account>> {
        self.0.iter().find(|account| Arc::ptr_eq(&account.places, places))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        for account in &self.0 {
            account.places.awaited.fetch_sub(1, ORDER);
        }
    }
}

/// A request's place on an account, until it is dropped.
pub(super) struct Place(Arc<Account>);

impl Place {
    /// Takes a place, unless the account is full.
    pub(super) fn take(account: &Arc<Account>) -> Option<Place> {
        account.places.take().then(|| Place(account.clone()))
    }

    /// The place that has been taken on an account for somebody who waited.
    pub(super) fn taken(account: Arc<Account>) -> Place {
        Place(account)
    }

    /// Where it is.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.free();
    }
}
