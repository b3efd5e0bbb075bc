//! The accounts at work, and which of them a request tries first.
//!
//! The list is replaced as a whole by one pointer swap. A request holds the accounts that it may still try, so that one
//! that has left the list finishes what it has begun.

use std::{
    cmp::Ordering,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering as Atomic},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    account::{Account, AccountError, AccountSpec},
    dialect::Dialect,
    limits::CANDIDATES,
    place::{Place, Places},
    queue::Queue,
    route::{Routes, Shared},
};

/// All accounts. A clone is the same list.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    list: ArcSwap<Vec<Arc<Account>>>,
    shared: Shared,
    /// The places of accounts that are at work, or that a request is still on though they have left the list.
    places: Mutex<HashMap<(String, Dialect), Weak<Places>>>,
    queue: Arc<Queue>,
}

/// Accounts made and not serving yet.
pub struct Prepared(Vec<Arc<Account>>);

impl Accounts {
    /// A list without accounts. `connect_timeout` is the time to reach an upstream, its proxy included.
    pub fn new(connect_timeout: Duration) -> Accounts {
        Accounts(Arc::new(Inner {
            list: ArcSwap::default(),
            shared: Shared::new(connect_timeout),
            places: Mutex::default(),
            queue: Queue::new(),
        }))
    }

    /// Makes accounts of their descriptions; nothing changes yet. What serves under the same description stays the same
    /// account, and connections stay with whoever is reached in the same way. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// For the first description of which no account can be made.
    pub async fn prepare(&self, specs: Vec<AccountSpec>) -> Result<Prepared, AccountError> {
        let present = self.0.list.load_full();
        let known: HashMap<_, _> =
            present.iter().map(|account| ((&*account.spec.name, account.dialect), account)).collect();
        let mut routes = Routes::new(&self.0.shared, &present, &specs).await;
        self.0.places.lock().retain(|_, places| places.strong_count() > 0);
        let mut list = Vec::with_capacity(specs.len());
        for spec in specs {
            let before = known.get(&(spec.name.as_str(), spec.dialect));
            list.push(match before {
                Some(account) if account.spec == spec => Arc::clone(account),
                _ => {
                    let places = self.places(&spec);
                    Arc::new(Account::new(spec, &mut routes, places)?)
                }
            });
        }
        Ok(Prepared(list))
    }

    /// The places of an account, which stay the same as long as it has requests: one that comes back counts those from
    /// before.
    fn places(&self, spec: &AccountSpec) -> Arc<Places> {
        let mut known = self.0.places.lock();
        let key = (spec.name.clone(), spec.dialect);
        if let Some(places) = known.get(&key).and_then(Weak::upgrade) {
            return places;
        }
        let places = Places::new(self.0.queue.clone());
        known.insert(key, Arc::downgrade(&places));
        places
    }

    /// From now on these serve.
    pub fn serve(&self, prepared: Prepared) {
        for account in &prepared.0 {
            account.places.limit(account.spec.places());
        }
        self.0.list.store(Arc::new(prepared.0));
        self.changed();
    }

    /// Has all requests that wait look at the accounts again, of which some may do now that did not before.
    pub(super) fn changed(&self) {
        self.0.queue.look_again();
    }

    /// Changes the time to reach an upstream.
    pub fn set_connect_timeout(&self, timeout: Duration) {
        self.0.shared.set_connect_timeout(timeout);
    }

    /// Every account.
    pub fn list(&self) -> Arc<Vec<Arc<Account>>> {
        self.0.list.load_full()
    }

    /// The accounts that serve a model now, best first: drawn lazily, since the first one usually does.
    pub(super) fn candidates<'a>(
        &self,
        dialect: Dialect,
        model: &'a str,
        now_ms: u64,
        strategy: Strategy,
    ) -> Candidates<'a> {
        // Before the accounts are looked at: a change from now on is seen by who begins to wait.
        let generation = self.0.queue.generation();
        let serves = |account: &&Arc<Account>| {
            account.dialect == dialect && account.serves(model) && !account.is_expired(now_ms)
        };
        let mut left: Vec<_> = self.0.list.load().iter().filter(serves).cloned().collect();
        // With none that is up, an attempt tells more than the last look did.
        if left.iter().any(|account| account.is_up()) {
            left.retain(|account| account.is_up());
        }
        Candidates {
            dialect,
            model,
            now_ms,
            strategy,
            generation,
            left,
            preferred: None,
            full: Vec::new(),
            drawn: 0,
        }
    }

    /// Finds candidates anew where none has been tried yet; else those that were full may have more places now.
    pub(super) fn look_again(&self, candidates: &mut Candidates<'_>) {
        let Candidates { dialect, model, now_ms, strategy, drawn, .. } = *candidates;
        if drawn == 0 {
            *candidates = self.candidates(dialect, model, now_ms, strategy);
        } else {
            candidates.generation = self.0.queue.generation();
            candidates.left.append(&mut candidates.full);
        }
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.0.queue
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.list.load().iter()).finish()
    }
}

/// How an account is chosen among those of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Of two that are drawn by weight, the one with less latency and load.
    LeastLatency,
    /// Drawn by weight.
    Weighted,
}

impl Strategy {
    /// All, with their names in the configuration.
    pub const NAMED: [(&'static str, Strategy); 2] =
        [("least-latency", Strategy::LeastLatency), ("weighted", Strategy::Weighted)];
}

/// Accounts still to be tried for one request.
pub(super) struct Candidates<'a> {
    dialect: Dialect,
    model: &'a str,
    now_ms: u64,
    strategy: Strategy,
    /// That of the accounts, when they were looked at.
    generation: u64,
    left: Vec<Arc<Account>>,
    /// Where the one stands in them that is to be tried before all others.
    preferred: Option<usize>,
    /// Those that had no place.
    full: Vec<Arc<Account>>,
    drawn: usize,
}

impl Iterator for Candidates<'_> {
    type Item = Place;

    /// A place on the best account that has one: when all of a priority are full, those of the next one are asked.
    fn next(&mut self) -> Option<Place> {
        while self.drawn < CANDIDATES {
            let account = self.best()?;
            if let Some(place) = Place::take(&account) {
                self.drawn += 1;
                return Some(place);
            }
            self.full.push(account);
            // All that are full at once: drawing them one by one would look at all that are left each time.
            self.full.extend(self.left.extract_if(.., |account| account.places.are_taken()));
        }
        None
    }
}

impl Candidates<'_> {
    /// Whether no account serves the model.
    pub(super) fn are_none(&self) -> bool {
        self.left.is_empty() && self.full.is_empty() && self.drawn == 0
    }

    /// Has an account of this name tried before all others, whatever its priority.
    pub(super) fn prefer(&mut self, name: &str) {
        self.preferred = self.left.iter().position(|account| *account.name == *name);
    }

    /// Those that had no place and may be waited for.
    pub(super) fn full(&self) -> &[Arc<Account>] {
        if self.drawn < CANDIDATES { &self.full } else { &[] }
    }

    /// Which state of the accounts they are from.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes note of a place on an account that was full.
    pub(super) fn found(&mut self, place: &Place) {
        self.drawn += 1;
        self.full.retain(|account| !Arc::ptr_eq(account, place.account()));
    }

    /// One drawn by weight among the best priority left; by least latency the better one of two.
    fn best(&mut self) -> Option<Arc<Account>> {
        if let Some(preferred) = self.preferred.take() {
            return Some(self.left.swap_remove(preferred));
        }
        if self.left.len() <= 1 {
            return self.left.pop();
        }
        let priority = self.left.iter().map(|account| account.priority).min()?;
        let first = self.draw(priority, None)?;
        let second = match self.strategy {
            Strategy::LeastLatency => self.draw(priority, Some(first)),
            Strategy::Weighted => None,
        };
        let best = second.map_or(first, |second| self.cheaper(first, second));
        Some(self.left.swap_remove(best))
    }

    fn draw(&self, priority: u32, except: Option<usize>) -> Option<usize> {
        let eligible = || {
            let all = self.left.iter().enumerate();
            all.filter(move |(index, account)| account.priority == priority && Some(*index) != except)
        };
        let total: u64 = eligible().map(|(_, account)| u64::from(account.weight)).sum();
        let mut ticket = random().checked_rem(total)?;
        for (index, account) in eligible() {
            match ticket.checked_sub(u64::from(account.weight)) {
                Some(rest) => ticket = rest,
                None => return Some(index),
            }
        }
        None
    }

    fn cheaper(&self, first: usize, second: usize) -> usize {
        let now = Instant::now();
        let cost = |index: usize| self.left.get(index).map_or(f64::MAX, |account| account.cost(now));
        if cost(second).total_cmp(&cost(first)) == Ordering::Less { second } else { first }
    }
}

/// Splitmix64 over a shared counter: spreads load, guards nothing.
fn random() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0x5851_f42d_4c95_7f2d);
    let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Atomic::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limit_set::LimitSet, secret::Secret};

    fn spec(name: &str) -> AccountSpec {
        AccountSpec {
            name: name.to_owned(),
            base_url: "http://127.0.0.1:1".to_owned(),
            api_key: Secret::new(format!("sk-{name}")),
            ..AccountSpec::default()
        }
    }

    async fn accounts(specs: Vec<AccountSpec>) -> Accounts {
        let accounts = Accounts::new(Duration::from_secs(1));
        accounts.serve(accounts.prepare(specs).await.unwrap());
        accounts
    }

    fn order(accounts: &Accounts, model: &str) -> Vec<String> {
        let candidates = accounts.candidates(Dialect::OpenAi, model, 1_000, Strategy::LeastLatency);
        candidates.map(|place| place.account().name.to_string()).collect()
    }

    #[tokio::test]
    async fn lower_priority_numbers_come_first_and_every_account_comes_once() {
        let accounts = accounts(vec![
            AccountSpec { priority: 2, ..spec("last") },
            AccountSpec { priority: 0, ..spec("first") },
            AccountSpec { priority: 1, ..spec("second") },
        ])
        .await;
        for _ in 0..20 {
            assert_eq!(order(&accounts, "any"), ["first", "second", "last"]);
        }
    }

    #[tokio::test]
    async fn only_accounts_that_serve_the_model_are_candidates() {
        let accounts = accounts(vec![
            AccountSpec { models: vec!["b".into(), "a".into()], ..spec("some") },
            AccountSpec { models: vec!["c".into()], ..spec("other") },
        ])
        .await;
        assert_eq!(order(&accounts, "a"), ["some"]);
        assert!(order(&accounts, "d").is_empty());
    }

    #[tokio::test]
    async fn the_faster_and_the_less_loaded_of_two_is_taken() {
        let accounts = accounts(vec![spec("slow"), spec("fast")]).await;
        let list = accounts.list();
        let [slow, fast] = list.as_slice() else { panic!("two accounts") };
        slow.answered(Duration::from_millis(900));
        fast.answered(Duration::from_millis(10));
        assert_eq!(order(&accounts, "any"), ["fast", "slow"]);
        let _load: Vec<_> = (0..200).map(|_| Place::take(fast).unwrap()).collect();
        assert_eq!(order(&accounts, "any"), ["slow", "fast"]);
    }

    #[tokio::test]
    async fn weights_decide_how_often_an_account_of_many_is_drawn() {
        let mut specs: Vec<_> = (0..9).map(|index| spec(&format!("light{index}"))).collect();
        specs.push(AccountSpec { weight: 91, ..spec("heavy") });
        let accounts = accounts(specs).await;
        let candidates = || accounts.candidates(Dialect::OpenAi, "any", 0, Strategy::LeastLatency);
        let heavy = (0..1_000).filter(|_| candidates().draw(0, None) == Some(9)).count();
        assert!((850..970).contains(&heavy), "{heavy}");
    }

    #[tokio::test]
    async fn an_account_is_no_candidate_from_the_moment_it_expires() {
        let accounts = accounts(vec![
            AccountSpec { expires_ms: Some(1_000), ..spec("over") },
            AccountSpec { expires_ms: Some(1_001), priority: 1, ..spec("nearly") },
        ])
        .await;
        assert_eq!(order(&accounts, "any"), ["nearly"]);
    }

    #[tokio::test]
    async fn what_stays_in_the_list_stays_the_same_and_what_left_goes_with_its_last_request() {
        let accounts = accounts(vec![spec("stays"), spec("changes"), spec("leaves")]).await;
        let before = accounts.list();
        let running = Place::take(&before[2]).unwrap();
        let changed = AccountSpec { weight: 2, ..spec("changes") };
        accounts.serve(accounts.prepare(vec![changed, spec("stays"), spec("comes")]).await.unwrap());
        let after = accounts.list();
        assert!(Arc::ptr_eq(&before[0], &after[1]), "its latency and load are not forgotten");
        assert!(!Arc::ptr_eq(&before[1], &after[0]));
        let left = Arc::downgrade(&before[2]);
        drop(before);
        assert!(left.upgrade().is_some(), "a request runs on it");
        drop(running);
        assert!(left.upgrade().is_none());
    }

    #[tokio::test]
    async fn an_account_that_comes_back_counts_what_ran_on_it_before() {
        let limited = || AccountSpec { limits: LimitSet::at_once(2), ..spec("limited") };
        let accounts = accounts(vec![limited()]).await;
        let first = Place::take(&accounts.list()[0]).unwrap();
        accounts.serve(accounts.prepare(Vec::new()).await.unwrap());
        accounts.serve(accounts.prepare(vec![limited()]).await.unwrap());
        let second = Place::take(&accounts.list()[0]).unwrap();
        assert!(Place::take(&accounts.list()[0]).is_none(), "two run on it");
        drop(first);
        assert!(Place::take(&accounts.list()[0]).is_some());
        // What nobody has any more is forgotten.
        accounts.serve(accounts.prepare(Vec::new()).await.unwrap());
        drop(second);
        accounts.serve(accounts.prepare(vec![spec("other")]).await.unwrap());
        assert_eq!(accounts.0.places.lock().len(), 1);
    }

    #[tokio::test]
    async fn of_many_accounts_that_are_full_the_one_with_a_place_is_found() {
        let specs =
            (0..1_000).map(|index| AccountSpec { limits: LimitSet::at_once(1), ..spec(&index.to_string()) });
        let accounts = accounts(specs.collect()).await;
        let list = accounts.list();
        let mut taken: Vec<_> = list.iter().map(|account| Place::take(account).unwrap()).collect();
        assert!(order(&accounts, "any").is_empty());
        taken.swap_remove(700);
        assert_eq!(order(&accounts, "any"), ["700"]);
        let mut candidates = accounts.candidates(Dialect::OpenAi, "any", 0, Strategy::LeastLatency);
        let _place = candidates.next().unwrap();
        assert!(candidates.next().is_none());
        assert_eq!(candidates.full().len(), 999);
    }

    #[tokio::test]
    async fn a_list_with_a_wrong_account_changes_nothing() {
        let accounts = accounts(vec![spec("first")]).await;
        let wrong = AccountSpec { base_url: "ftp://x".to_owned(), ..spec("wrong") };
        let error = accounts.prepare(vec![spec("other"), wrong]).await.err().unwrap();
        assert!(error.to_string().starts_with("account wrong: base_url"), "{error}");
        assert_eq!(order(&accounts, "any"), ["first"]);
    }
}
