//! Quota truth: random load of many keys on limited accounts over hours of an injected clock, with clients that leave, slow
//! answers, failures and wrong estimates, through the real gateway, the shipped components and the real store. What the log and
//! the upstream say is then held against every limit, and the totals against the log.
//!
//! The load is that of a seed; how requests of one step interleave is the machine's. `TOLLGATE_TRUTH_STEPS` sets the length,
//! `TOLLGATE_TRUTH_SEED` the seed.

mod house;
mod load;
mod oracle;
mod rows;
mod upstream;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinHandle;

use self::{
    house::{House, Moment, Time},
    load::{Asked, BIG},
    upstream::Upstream,
};
use crate::{gateway::AccountSpec, limit_set::LimitSet, pattern};

/// Steps of the default run, each of some seconds to minutes.
const STEPS: u64 = 250;

/// The most that passes before leases are renewed: a server does it every 20 s, and they last for 300.
const PASS_MS: u64 = 60_000;

/// Answers that stop at once, from which on most of them go on.
const HELD: usize = 40;

/// How long a step may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn hours_of_random_load_pass_no_limit_refuse_nobody_who_has_room_and_are_told_truly() {
    let set = |name: &str| std::env::var(name).ok().map(|value| value.parse().unwrap());
    let seed = set("TOLLGATE_TRUTH_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let steps = set("TOLLGATE_TRUTH_STEPS").unwrap_or(STEPS);
    eprintln!("TOLLGATE_TRUTH_SEED={seed} TOLLGATE_TRUTH_STEPS={steps}");
    let mut load = Load::begin(seed).await;
    for _ in 0..steps {
        load.step().await;
    }
    load.end().await;
    load.house.check_at_rest();
    let rows = rows::read(&load.house, load.sent.len()).await;
    rows::check_totals(&load.house, &rows).await;
    let refusals = rows::check(&load, &rows);
    let count = |status: u16| rows.values().filter(|row| row.status == status).count();
    let (answered, left) = (count(200), count(499));
    let hours = load.time.hours();
    eprintln!(
        "{} requests in {hours} h: {answered} answered, {left} left; refused: {refusals:?}",
        rows.len()
    );
    assert!(refusals.len() >= 5, "hardly a limit stood in the way");
    assert!(answered as u64 > steps, "hardly anything was answered");
    load.house.close().await;
}

/// What has a value of its own in quota: a key or an account, over all models or the big ones.
struct Scope {
    of: Whose,
    models: Option<&'static str>,
    limits: LimitSet,
    /// Its name in quota's store.
    value: String,
}

#[derive(Clone, PartialEq)]
enum Whose {
    Key(usize),
    Account(String),
}

/// A request that was sent.
struct Sent {
    asked: Asked,
    at: Moment,
    /// When it had ended; none: it runs.
    end: Option<Moment>,
    /// The status of its whole answer, as its client got it.
    status: Option<u16>,
    /// Whether the client left.
    left: bool,
}

struct Load {
    random: Rng,
    time: std::sync::Arc<Time>,
    house: House,
    upstream: Upstream,
    /// The keys' secrets.
    keys: Vec<String>,
    scopes: Vec<Scope>,
    /// By id.
    sent: Vec<Sent>,
    open: BTreeMap<u64, JoinHandle<Option<u16>>>,
    /// Milliseconds since leases were renewed.
    unrenewed_ms: u64,
}

impl Load {
    async fn begin(seed: u64) -> Load {
        let mut random = Rng::with_seed(seed);
        let time = Time::new();
        let upstream = Upstream::start(seed, time.clone()).await;
        let accounts = load::accounts(&upstream.url);
        let mut scopes: Vec<Scope> = accounts.iter().map(Scope::of_account).collect();
        let house = House::build(&time, accounts).await;
        let mut keys = Vec::new();
        for (number, (new, limits)) in load::keys(&mut random).into_iter().enumerate() {
            let (secret, id) = house.key(new).await;
            for (models, limits) in [None, Some(BIG)].into_iter().zip(limits) {
                let value =
                    format!("client:{id}{}", models.map_or(String::new(), |models| format!("/{models}")));
                scopes.push(Scope { of: Whose::Key(number), models, limits, value });
            }
            keys.push(secret);
        }
        scopes.retain(|scope| scope.limits != LimitSet::default());
        let (sent, open) = (Vec::new(), BTreeMap::new());
        Load { random, time, house, upstream, keys, scopes, sent, open, unrenewed_ms: 0 }
    }

    /// Time passes; then some answers go on, some clients leave, and new requests come, all at once.
    async fn step(&mut self) {
        let ms = match self.random.u8(..20) {
            0..11 => self.random.u64(..2_000),
            11..18 => self.random.u64(2_000..40_000),
            _ => self.random.u64(40_000..600_000),
        };
        self.pass(ms).await;
        self.time.next_step();
        let holding = self.upstream.holding();
        let go_on = if holding.len() > HELD { 80 } else { 30 };
        let open: Vec<u64> = self.open.keys().copied().collect();
        for id in open {
            let drawn = self.random.u8(..100);
            match holding.contains(&id) {
                true if drawn < go_on => self.upstream.go_on(id),
                true if drawn < go_on + 6 => self.leave(id),
                false if drawn < 3 => self.leave(id),
                _ => {}
            }
        }
        // Somebody sends more than all the others.
        let busy = self.random.usize(..self.keys.len());
        for _ in 0..self.random.usize(..14) {
            let key = if self.random.bool() { busy } else { self.random.usize(..self.keys.len()) };
            self.send(key);
        }
        self.calm().await;
    }

    /// Lets everything come to its end; hours later every key is served that has room.
    async fn end(&mut self) {
        self.upstream.get_well();
        while !self.open.is_empty() {
            self.pass(1_000).await;
            self.time.next_step();
            self.upstream.holding().into_iter().for_each(|id| self.upstream.go_on(id));
            self.calm().await;
        }
        for _ in 0..2 * 60 {
            self.pass(PASS_MS).await;
        }
        for key in 0..self.keys.len() {
            self.time.next_step();
            self.send(key);
            self.calm().await;
        }
    }

    async fn pass(&mut self, mut ms: u64) {
        while ms > 0 {
            let part = ms.min(PASS_MS);
            self.time.pass(part);
            ms -= part;
            self.unrenewed_ms += part;
            if self.unrenewed_ms >= PASS_MS / 3 && !self.open.is_empty() {
                self.house.renew();
                self.unrenewed_ms = 0;
                self.renewed().await;
            }
        }
    }

    fn send(&mut self, key: usize) {
        let id = self.sent.len() as u64;
        let asked = load::asked(&mut self.random, key);
        let body = json!({
            "model": asked.model,
            "stream": asked.stream,
            "max_tokens": asked.answer,
            // A token is taken for three bytes.
            "messages": [{ "role": "user", "content": "abc".repeat(asked.prompt as usize) }],
            "user": id.to_string(),
        });
        self.upstream.expect(id, asked.clone());
        let answer = self.house.send(&self.keys[key], id.to_string(), body.to_string());
        self.open.insert(id, tokio::spawn(answer));
        self.sent.push(Sent { asked, at: self.time.moment(), end: None, status: None, left: false });
    }

    fn leave(&mut self, id: u64) {
        if let Some(task) = self.open.remove(&id) {
            task.abort();
            self.upstream.forget(id);
            let sent = &mut self.sent[id as usize];
            (sent.left, sent.end) = (true, Some(self.time.moment()));
        }
    }

    /// Waits until whatever is under way waits for the test or for a place, and everything else has ended and is settled.
    async fn calm(&mut self) {
        let begun = Instant::now();
        loop {
            self.take_ended().await;
            let (holding, waiting) = (self.upstream.holding().len(), self.house.waiting());
            let calm = holding + waiting == self.open.len() && self.house.in_flight() == self.open.len();
            if calm && self.unsettled().await.is_none() {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "no calm: {} open, {holding} held, {waiting} waiting, {} in flight; {:?}",
                self.open.len(),
                self.house.in_flight(),
                self.unsettled().await
            );
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    }

    async fn take_ended(&mut self) {
        let ended: Vec<u64> =
            self.open.iter().filter(|(_, task)| task.is_finished()).map(|(id, _)| *id).collect();
        for id in ended {
            if let Some(task) = self.open.remove(&id) {
                let sent = &mut self.sent[id as usize];
                (sent.status, sent.end) = (task.await.unwrap(), Some(self.time.moment()));
            }
        }
    }

    /// Requests that hold a lease in a scope.
    fn leases(&self, scope: &Scope) -> usize {
        let holds = |id: &&u64| match &scope.of {
            Whose::Key(key) => {
                let asked = &self.sent[**id as usize].asked;
                asked.key == *key && scope.concerns(asked.model)
            }
            // Who waits for a place has none yet, and no lease.
            Whose::Account(account) => {
                self.upstream.is_holding(**id)
                    && self.upstream.attempts(**id).last().is_some_and(|last| last.account == *account)
            }
        };
        self.open.keys().filter(holds).count()
    }

    /// A scope whose leases are not those of the requests under way, if there is one.
    async fn unsettled(&self) -> Option<String> {
        for scope in &self.scopes {
            let (held, due) =
                (self.house.ledger(&scope.value).await.map_or(0, |(_, held)| held), self.leases(scope));
            if held != due {
                return Some(format!("{} has {held} leases and not {due}", scope.value));
            }
        }
        None
    }

    /// Waits until every lease under way has been renewed.
    async fn renewed(&self) {
        let begun = Instant::now();
        for scope in self.scopes.iter().filter(|scope| self.leases(scope) > 0) {
            let now_s = self.time.moment().ms / 1_000;
            while self.house.ledger(&scope.value).await.is_none_or(|(seen_ms, _)| seen_ms / 1_000 < now_s) {
                assert!(begun.elapsed() < PATIENCE, "{} is not renewed", scope.value);
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        }
    }
}

impl Scope {
    fn of_account(account: &AccountSpec) -> Scope {
        Scope {
            of: Whose::Account(account.name.clone()),
            models: None,
            // Its places are the gateway's own.
            limits: LimitSet { concurrency: None, ..account.limits.clone() },
            value: format!("account:{}", account.id()),
        }
    }

    fn concerns(&self, model: &str) -> bool {
        self.models.is_none_or(|models| pattern::fits(models, model))
    }
}
