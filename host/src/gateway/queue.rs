//! Requests that wait because every account that could answer them is full.
//!
//! One queue for all: a place that comes free goes to the first who can use it, so that requests for the same accounts are
//! served in the order in which they came, and nobody waits for accounts that are not theirs.
//!
//! Invariant: a place is either passed on to somebody who waits or free. Whoever begins to wait looks once more for a free
//! one after they can be seen waiting, and whoever frees one looks afterwards whether somebody waits. Likewise nobody
//! begins to wait for accounts that have changed since they were looked for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout_at};

use super::{
    accounts::{Accounts, Candidates},
    error::{Class, Problem},
    limits::QUEUE_PART_OF_KEY,
    metrics::{QueueMetrics, Waited},
    place::{Awaited, Place, Places},
};

/// Those who wait.
pub(super) struct Queue {
    waiting: Mutex<BTreeMap<u64, Waiter>>,
    /// Grows with each change of the accounts, under the lock of those who wait.
    generation: AtomicU64,
    next: AtomicU64,
    metrics: QueueMetrics,
}

struct Waiter {
    /// The id of the client's key.
    key: Arc<str>,
    accounts: Awaited,
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
    /// Its number in the queue, from the first time on that it waits: who has waited stays in line, and is let in again.
    pub(super) number: Option<u64>,
    /// Since when it waits for its next place, if it had to; whoever takes note of the wait takes it out.
    pub(super) since: Option<Instant>,
}

impl Queue {
    pub(super) fn new() -> Arc<Queue> {
        Arc::new(Queue {
            waiting: Mutex::default(),
            generation: AtomicU64::new(0),
            next: AtomicU64::new(0),
            metrics: QueueMetrics::new(),
        })
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Which state of the accounts this is: to be read before the accounts are.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
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
        if !places.are_awaited() {
            return false;
        }
        let mut waiting = self.waiting.lock();
        let found = waiting
            .iter()
            .find_map(|(number, waiter)| Some((*number, waiter.accounts.with(places)?.clone())));
        let Some((number, account)) = found else { return false };
        if !is_there() {
            return false;
        }
        let waiter = waiting.remove(&number);
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
        let mut waiting = self.waiting.lock();
        self.generation.fetch_add(1, Ordering::SeqCst);
        let all = std::mem::take(&mut *waiting);
        drop(waiting);
        for waiter in all.into_values() {
            let _ = waiter.told.send(Told::LookAgain);
        }
    }

    /// Waits for a place on one of the accounts that are full.
    async fn wait(&self, candidates: &Candidates<'_>, patience: &mut Patience) -> Result<Told, Problem> {
        let (number, told) = match self.enter(candidates, patience)? {
            Entered::Told(told) => return Ok(told),
            Entered::Waiting(number, told) => (number, told),
        };
        let now = Instant::now();
        patience.since.get_or_insert(now);
        let mut inside = Inside { queue: self, number, since: now, waited: Some(Waited::Left) };
        self.metrics.waiting.increment(1);
        let told = timeout_at(patience.until.into(), told).await;
        let Ok(Ok(told)) = told else {
            inside.waited = Some(Waited::InVain);
            return Err(busy("every upstream account for this model is busy, and none had room in time"));
        };
        inside.waited = matches!(told, Told::Place(_)).then_some(Waited::ForPlace);
        Ok(told)
    }

    fn enter(&self, candidates: &Candidates<'_>, patience: &mut Patience) -> Result<Entered, Problem> {
        // Before the look at the places: see above.
        let accounts = Awaited::new(candidates.full().to_vec());
        let mut waiting = self.waiting.lock();
        if self.generation() != candidates.generation() {
            return Ok(Entered::Told(Told::LookAgain));
        }
        if let Some(place) = accounts.take() {
            return Ok(Entered::Told(Told::Place(place)));
        }
        if patience.number.is_none() {
            self.admit(&waiting, patience)?;
        }
        let number = *patience.number.get_or_insert_with(|| self.next.fetch_add(1, Ordering::Relaxed));
        let (told, hears) = oneshot::channel();
        waiting.insert(number, Waiter { key: patience.key.clone(), accounts, told });
        Ok(Entered::Waiting(number, hears))
    }

    /// Whether one more may wait.
    fn admit(&self, waiting: &BTreeMap<u64, Waiter>, patience: &Patience) -> Result<(), Problem> {
        let of_key = waiting.values().filter(|waiter| waiter.key == patience.key).count();
        let problem = if waiting.len() >= patience.most {
            busy("every upstream account for this model is busy, and as many requests wait as may")
        } else if of_key >= patience.most.div_ceil(QUEUE_PART_OF_KEY) {
            let text =
                "every upstream account for this model is busy, and as many requests of this key wait as may";
            Problem::new(Class::RequestLimit, text).after(Some(RETRY_AFTER_MS))
        } else {
            return Ok(());
        };
        self.metrics.refused.increment(1);
        Err(problem)
    }
}

enum Entered {
    /// There is nothing to wait for.
    Told(Told),
    /// Under this number.
    Waiting(u64, oneshot::Receiver<Told>),
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
        let left = queue.waiting.lock().remove(&self.number);
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
        match accounts.queue().wait(candidates, patience).await? {
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
    use std::{pin::pin, sync::atomic::AtomicU32, time::Duration};

    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        gateway::{AccountSpec, Dialect, Strategy, health::note},
        limit_set::LimitSet,
    };

    fn spec(name: &str, most: u32) -> AccountSpec {
        AccountSpec {
            name: name.to_owned(),
            base_url: "http://127.0.0.1:1".to_owned(),
            limits: LimitSet::at_once(most.into()),
            ..AccountSpec::default()
        }
    }

    async fn serve(accounts: &Accounts, specs: Vec<AccountSpec>) {
        accounts.serve(accounts.prepare(specs).await.unwrap());
    }

    fn patience(key: &str, most: usize) -> Patience {
        let until = Instant::now() + Duration::from_secs(60);
        Patience { key: key.into(), most, until, number: None, since: None }
    }

    fn candidates(accounts: &Accounts) -> Candidates<'static> {
        accounts.candidates(Dialect::OpenAi, "m", 0, Strategy::Weighted)
    }

    #[tokio::test]
    async fn who_comes_to_the_queue_after_a_change_of_the_accounts_has_it_seen() {
        let accounts = Accounts::new(Duration::from_secs(1));
        serve(&accounts, vec![spec("full", 1)]).await;
        let mut running = vec![candidates(&accounts).next().unwrap()];
        for other in ["comes", "comes too"] {
            let mut before = candidates(&accounts);
            assert!(before.next().is_none());
            serve(&accounts, vec![spec("full", 1), spec(other, 1)]).await;
            let place = next_place(&accounts, &mut before, &mut patience("key", 1)).await.unwrap().unwrap();
            assert_eq!(*place.account().name, *other);
            running.push(place);
        }
    }

    #[tokio::test]
    async fn an_account_that_answers_again_serves_who_waits_for_another() {
        let accounts = Accounts::new(Duration::from_secs(1));
        serve(&accounts, vec![spec("down", 1), spec("full", 1)]).await;
        let list = accounts.list();
        list[0].set_up(false);
        let _running = candidates(&accounts).next().unwrap();
        let (mut waits, mut patient) = (candidates(&accounts), patience("key", 1));
        let mut waiting = pin!(next_place(&accounts, &mut waits, &mut patient));
        assert!(waiting.as_mut().now_or_never().is_none());
        note(&accounts, &list[0], true);
        assert_eq!(*waiting.await.unwrap().unwrap().account().name, *"down");
    }

    #[tokio::test]
    async fn who_waits_keeps_its_place_in_line_when_the_accounts_change() {
        let accounts = Accounts::new(Duration::from_secs(1));
        serve(&accounts, vec![spec("full", 1)]).await;
        let running = candidates(&accounts).next().unwrap();
        let (mut waits, mut patient) = (candidates(&accounts), patience("key", 1));
        let mut waiting = pin!(next_place(&accounts, &mut waits, &mut patient));
        assert!(waiting.as_mut().now_or_never().is_none());
        accounts.changed();
        let (mut comes, mut other) = (candidates(&accounts), patience("other", 1));
        let mut late = pin!(next_place(&accounts, &mut comes, &mut other));
        assert!(late.as_mut().now_or_never().is_none(), "it takes all the room there is");
        assert!(waiting.as_mut().now_or_never().is_none(), "it stays in line");
        assert_eq!(accounts.queue().len(), 2);
        drop(running);
        assert!(late.now_or_never().is_none());
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_or_given_twice_whoever_comes_and_leaves() {
        const MOST: [u32; 2] = [2, 1];
        let accounts = Accounts::new(Duration::from_secs(1));
        serve(&accounts, vec![spec("0", MOST[0]), spec("1", MOST[1])]).await;
        let running: Arc<[AtomicU32; 2]> = Arc::default();
        let tasks = (0..8).map(|task| {
            let (accounts, running) = (accounts.clone(), running.clone());
            tokio::spawn(async move {
                for _ in 0..1_000 {
                    let mut candidates = candidates(&accounts);
                    let mut patience = patience(&task.to_string(), 100);
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
