//! Requests that wait because every account that could answer them is full.
//!
//! One queue for all: a place that comes free goes to the first who can use it, so that requests for the same accounts are
//! served in the order in which they came, and nobody waits for accounts that are not theirs.
//!
//! Invariant: a place is either passed on to somebody who waits or free. Whoever begins to wait looks once more for a free
//! one after they can be seen waiting, and whoever frees one looks afterwards whether somebody waits.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout_at};

use super::{
    account::Account,
    accounts::{Accounts, Candidates},
    error::{Class, Problem},
    limits::QUEUE_PART_OF_KEY,
    metrics::{QueueMetrics, Waited},
    place::{Place, Places},
};

/// Those who wait.
pub(super) struct Queue {
    waiting: Mutex<BTreeMap<u64, Waiter>>,
    /// How many those are, or are about to be: read without the lock by everybody who frees a place.
    count: AtomicUsize,
    next: AtomicU64,
    metrics: QueueMetrics,
}

struct Waiter {
    /// The id of the client's key.
    key: Arc<str>,
    accounts: Vec<Arc<Account>>,
    told: oneshot::Sender<Told>,
}

/// What somebody who waits is told.
enum Told {
    /// There is a place.
    Place(Place),
    /// The accounts have changed.
    LookAgain,
}

/// What a request brings along that may have to wait.
pub(super) struct Patience {
    /// The id of the client's key.
    pub(super) key: Arc<str>,
    /// Requests that may wait.
    pub(super) most: usize,
    /// Until when it waits.
    pub(super) until: Instant,
    /// Its number in the queue, from the first time on that it waits.
    pub(super) number: Option<u64>,
}

impl Queue {
    pub(super) fn new() -> Arc<Queue> {
        Arc::new(Queue {
            waiting: Mutex::default(),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            metrics: QueueMetrics::new(),
        })
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Gives a place that is taken to the first who waits for it; whether there was one.
    pub(super) fn pass_on(&self, places: &Arc<Places>) -> bool {
        self.give(places, || true)
    }

    /// Gives a place that is free to the first who waits for it.
    pub(super) fn offer(&self, places: &Arc<Places>) {
        self.give(places, || places.take());
    }

    fn give(&self, places: &Arc<Places>, is_there: impl FnOnce() -> bool) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut waiting = self.waiting.lock();
        let found = waiting.iter().find_map(|(number, waiter)| {
            let account = waiter.accounts.iter().find(|account| Arc::ptr_eq(&account.places, places))?;
            Some((*number, account.clone()))
        });
        let Some((number, account)) = found else { return false };
        if !is_there() {
            return false;
        }
        let waiter = self.remove(&mut waiting, number);
        drop(waiting);
        let place = Place::taken(account);
        if let Some(waiter) = waiter {
            // Who has left in this moment drops the place, which frees it for the next.
            let _ = waiter.told.send(Told::Place(place));
        }
        true
    }

    /// Has everybody look at the accounts again, since they have changed.
    pub(super) fn look_again(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        self.count.fetch_sub(waiting.len(), Ordering::SeqCst);
        for waiter in waiting.into_values() {
            let _ = waiter.told.send(Told::LookAgain);
        }
    }

    fn remove(&self, waiting: &mut BTreeMap<u64, Waiter>, number: u64) -> Option<Waiter> {
        let waiter = waiting.remove(&number)?;
        self.count.fetch_sub(1, Ordering::SeqCst);
        Some(waiter)
    }

    /// Waits for a place on one of the accounts that are full.
    async fn wait(&self, accounts: &[Arc<Account>], patience: &mut Patience) -> Result<Told, Problem> {
        let number = *patience.number.get_or_insert_with(|| self.next.fetch_add(1, Ordering::Relaxed));
        let told = match self.enter(accounts, patience, number)? {
            Entered::Place(place) => return Ok(Told::Place(place)),
            Entered::Waiting(told) => told,
        };
        let mut inside = Inside { queue: self, number, since: Instant::now(), waited: Some(Waited::Left) };
        self.metrics.waiting.increment(1);
        let told = timeout_at(patience.until.into(), told).await;
        let Ok(Ok(told)) = told else {
            inside.waited = Some(Waited::InVain);
            return Err(busy("every upstream account for this model is busy, and none had room in time"));
        };
        inside.waited = matches!(told, Told::Place(_)).then_some(Waited::ForPlace);
        Ok(told)
    }

    fn enter(&self, accounts: &[Arc<Account>], patience: &Patience, number: u64) -> Result<Entered, Problem> {
        let mut waiting = self.waiting.lock();
        // Before the look at the places: see above.
        self.count.fetch_add(1, Ordering::SeqCst);
        let outside = || self.count.fetch_sub(1, Ordering::SeqCst);
        if let Some(place) = accounts.iter().find_map(Place::take) {
            outside();
            return Ok(Entered::Place(place));
        }
        let of_key = waiting.values().filter(|waiter| waiter.key == patience.key).count();
        let refused = if waiting.len() >= patience.most {
            Some(busy("every upstream account for this model is busy, and as many requests wait as may"))
        } else if of_key >= patience.most.div_ceil(QUEUE_PART_OF_KEY) {
            let text =
                "every upstream account for this model is busy, and as many requests of this key wait as may";
            Some(Problem::new(Class::RequestLimit, text).after(Some(RETRY_AFTER_MS)))
        } else {
            None
        };
        if let Some(problem) = refused {
            outside();
            self.metrics.refused.increment(1);
            return Err(problem);
        }
        let (told, hears) = oneshot::channel();
        let waiter = Waiter { key: patience.key.clone(), accounts: accounts.to_vec(), told };
        waiting.insert(number, waiter);
        Ok(Entered::Waiting(hears))
    }
}

enum Entered {
    Place(Place),
    Waiting(oneshot::Receiver<Told>),
}

/// When who found no room may come again: places come free within the seconds that an answer takes.
const RETRY_AFTER_MS: u64 = 1_000;

fn busy(text: &'static str) -> Problem {
    Problem::new(Class::Unavailable, text).after(Some(RETRY_AFTER_MS))
}

/// A request in the queue. Its drop takes it out, also when the client has left.
struct Inside<'a> {
    queue: &'a Queue,
    number: u64,
    since: Instant,
    /// How it ends; none: it goes on in another way.
    waited: Option<Waited>,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let queue = self.queue;
        let left = queue.remove(&mut queue.waiting.lock(), self.number);
        drop(left);
        queue.metrics.waiting.decrement(1);
        if let Some(waited) = self.waited {
            queue.metrics.waited(waited, self.since.elapsed());
        }
    }
}

/// A place on the next account to be tried, waited for if all that are left are full; none: no account is left.
///
/// # Errors
///
/// What the client is told when the queue is full or its patience is over.
pub(super) async fn next_place(
    accounts: &Accounts,
    candidates: &mut Candidates<'_>,
    patience: &mut Patience,
) -> Result<Option<Place>, Problem> {
    loop {
        if let Some(place) = candidates.next() {
            return Ok(Some(place));
        }
        if candidates.full().is_empty() {
            return Ok(None);
        }
        match accounts.queue().wait(candidates.full(), patience).await? {
            Told::Place(place) => {
                candidates.found(&place);
                return Ok(Some(place));
            }
            Told::LookAgain => accounts.look_again(candidates),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, time::Duration};

    use super::*;
    use crate::gateway::{AccountSpec, Dialect, Strategy};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_or_given_twice_whoever_comes_and_leaves() {
        const MOST: [u32; 2] = [2, 1];
        let spec = |index: usize| AccountSpec {
            name: index.to_string(),
            base_url: "http://127.0.0.1:1".to_owned(),
            concurrency: Some(MOST[index]),
            ..AccountSpec::default()
        };
        let accounts = Accounts::new(Duration::from_secs(1));
        accounts.serve(accounts.prepare(vec![spec(0), spec(1)]).await.unwrap());
        let running: Arc<[AtomicU32; 2]> = Arc::default();
        let tasks = (0..8).map(|task| {
            let (accounts, running) = (accounts.clone(), running.clone());
            tokio::spawn(async move {
                for _ in 0..1_000 {
                    let mut candidates = accounts.candidates(Dialect::OpenAi, "m", 0, Strategy::Weighted);
                    let until = Instant::now() + Duration::from_secs(60);
                    let key = task.to_string().into();
                    let mut patience = Patience { key, most: 100, until, number: None };
                    let patient = fastrand::bool();
                    let leave = async {
                        for _ in 0..fastrand::u32(0..4) {
                            tokio::task::yield_now().await;
                        }
                    };
                    tokio::select! {
                        biased;
                        place = next_place(&accounts, &mut candidates, &mut patience) => {
                            let place = place.unwrap().unwrap();
                            let index: usize = place.account().name.parse().unwrap();
                            let before = running[index].fetch_add(1, Ordering::SeqCst);
                            assert!(before < MOST[index], "{before} run on account {index}");
                            tokio::task::yield_now().await;
                            running[index].fetch_sub(1, Ordering::SeqCst);
                        }
                        () = leave, if !patient => {}
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(accounts.list().iter().all(|account| account.places.taken() == 0));
        assert_eq!(accounts.queue().len(), 0);
    }
}
