//! Random load over many keys, models and limits, with aborts, failures and slow answers, over weeks of an injected clock,
//! against an account of its own of every charge.
//!
//! `TOLLGATE_SIMULATIONS` sets another number of runs.

use super::*;
use crate::value::Share;

const RUNS: u64 = 12;
const STEPS: u64 = 4_000;
const KEYS: u64 = 4;
const MODELS: [&str; 3] = ["big-1", "big-2", "small"];

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn sometimes(&mut self, most: u64) -> Option<u64> {
        (self.below(2) == 0).then(|| 1 + self.below(most))
    }
}

/// What one admission charged to one scope, as far as is known by now.
#[derive(Clone, Debug)]
struct Charge {
    time_ms: u64,
    requests: u64,
    tokens: u64,
    cost: u64,
    /// Whether the day's window was charged too: it is while there is a limit on it.
    daily: bool,
    /// Whether the budgets were charged too, likewise.
    budgeted: bool,
}

/// The account of one scope: a key of the store.
#[derive(Default)]
struct Account {
    charges: Vec<Charge>,
}

/// A request in flight.
struct Flight {
    ticket: Vec<u8>,
    key: u64,
    /// Scope and place of the charge there.
    charges: Vec<(String, usize)>,
    ceiling: u64,
    lease_ms: u64,
}

struct Simulation {
    random: Random,
    now_ms: u64,
    map: Map,
    limits: Vec<Limits>,
    accounts: HashMap<String, Account>,
    flights: Vec<Flight>,
    allowed: u64,
    denied: HashMap<String, u64>,
}

/// A token's price, in billionths.
const PRICE: u64 = 2_500;

fn random_limits(random: &mut Random) -> Limits {
    let mut further = Vec::new();
    for models in [None, Some("big-*"), Some("big-1")] {
        for (measure, most) in [
            (Measure::Rpm, 30),
            (Measure::Tpm, 4_000),
            (Measure::Rpd, 400),
            (Measure::Concurrency, 12),
            (Measure::TokensPerDay, 60_000),
            (Measure::TokensPerMonth, 900_000),
            (Measure::TokensTotal, 2_000_000),
            (Measure::CostPerDay, 60_000 * PRICE),
            (Measure::CostPerMonth, 900_000 * PRICE),
            (Measure::CostTotal, 2_000_000 * PRICE),
        ] {
            if random.below(6) == 0 {
                further.push(Limit {
                    measure,
                    most: 1 + random.below(most),
                    models: models.map(str::to_owned),
                });
            }
        }
    }
    Limits { rpm: random.sometimes(40), tpm: random.sometimes(6_000), rpd: random.sometimes(600), further }
}

fn of_day(ms: u64) -> u64 {
    ms / DAY_MS
}

fn of_month(ms: u64) -> u32 {
    crate::calendar::month(of_day(ms) as u32)
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random(seed);
        Simulation {
            limits: (0..KEYS).map(|_| random_limits(&mut random)).collect(),
            random,
            now_ms: START_MS,
            map: Map::default(),
            accounts: HashMap::new(),
            flights: Vec::new(),
            allowed: 0,
            denied: HashMap::new(),
        }
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            match self.random.below(20) {
                0..=9 => self.admit(step),
                10..=15 => self.settle(),
                16 | 17 => self.now_ms += self.random.below(5_000),
                18 => self.now_ms += self.random.below(90_000),
                _ if self.random.below(8) == 0 => self.now_ms += self.random.below(3 * DAY_MS),
                _ => self.renew(),
            }
            if step % 500 == 499 {
                // An operator edits the limits of a key.
                let key = self.random.below(KEYS) as usize;
                self.limits[key] = random_limits(&mut self.random);
            }
        }
        while !self.flights.is_empty() {
            self.settle();
        }
    }

    /// The limits as the host passes them: those of the model asked for.
    fn subject(&self, key: u64, model: &str) -> Subject {
        let mut limits = self.limits[key as usize].clone();
        limits.further.retain(|limit| match limit.models.as_deref() {
            None => true,
            Some("big-*") => model.starts_with("big-"),
            Some(name) => name == model,
        });
        Subject { kind: SubjectKind::Client, id: format!("key-{key}"), name: String::new(), limits }
    }

    fn admit(&mut self, step: u64) {
        let (key, model) = (self.random.below(KEYS), MODELS[self.random.below(3) as usize]);
        let subject = self.subject(key, model);
        let prompt = self.random.below(200);
        let tokens = prompt + if self.random.below(10) == 0 { 50_000 } else { self.random.below(500) };
        let request = Request {
            model: model.to_owned(),
            prompt_tokens: prompt,
            estimated_cost: Some(tokens * PRICE),
            ..request(&step.to_string(), self.now_ms, tokens)
        };
        let decision = admit(&self.map, &request, std::slice::from_ref(&subject)).unwrap().remove(0);
        let ticket = match decision {
            Decision::Allow(None) => return,
            Decision::Allow(Some(ticket)) => ticket,
            Decision::Deny(denial) => return self.check_denial(&subject, &denial, &request),
        };
        self.allowed += 1;
        let mut charges = Vec::new();
        for (models, lease) in ticket::decode(&ticket).unwrap() {
            let scope = crate::key(SubjectKind::Client, &subject.id, models);
            let value = self.ledger(&scope);
            let held = value.all::<Lease>().find(|held| held.id == lease).unwrap();
            let share = value.all::<Share>().find(|share| share.lease == lease);
            let account = self.accounts.entry(scope.clone()).or_default();
            charges.push((scope.clone(), account.charges.len()));
            account.charges.push(Charge {
                time_ms: self.now_ms,
                requests: 1,
                tokens: held.tokens,
                cost: share.map_or(0, |share| share.cost),
                daily: held.daily,
                budgeted: share.is_some(),
            });
            let bounds = match models {
                None => Bounds::over_all(&subject.limits),
                Some(models) => Bounds::over(&subject.limits, models),
            };
            assert!(held.tokens <= tokens, "no more is reserved than asked for");
            self.check_limits(&scope, &bounds);
        }
        let lease_ms = self.lease_ms();
        self.flights.push(Flight { ticket, key, charges, ceiling: tokens, lease_ms });
    }

    fn lease_ms(&self) -> u64 {
        self.now_ms / 1_000 * 1_000 + u64::from(LEASE_SECONDS) * 1_000
    }

    fn ledger(&self, scope: &str) -> Value {
        Value::open(self.map.0.borrow().get(scope).map(|entry| entry.value.clone())).unwrap()
    }

    /// Requests, tokens and cost charged in a scope to what `counts`.
    fn charged(&self, scope: &str, counts: impl Fn(&Charge) -> bool) -> (u64, u64, u64) {
        let charges = self.accounts.get(scope).map(|account| account.charges.as_slice()).unwrap_or_default();
        charges.iter().filter(|charge| counts(charge)).fold((0, 0, 0), |(requests, tokens, cost), charge| {
            (requests + charge.requests, tokens + charge.tokens, cost + charge.cost)
        })
    }

    fn check_limits(&self, scope: &str, bounds: &Bounds) {
        let now_ms = self.now_ms;
        let since = |ms: u64| move |charge: &Charge| charge.time_ms > now_ms - ms;
        let (rpm, tpm, _) = self.charged(scope, since(60_000));
        let (rpd, ..) = self.charged(scope, |c| c.daily && since(DAY_MS)(c));
        let (_, day, day_cost) = self.charged(scope, |c| c.budgeted && of_day(c.time_ms) == of_day(now_ms));
        let (_, month, month_cost) =
            self.charged(scope, |c| c.budgeted && of_month(c.time_ms) == of_month(now_ms));
        let (_, total, total_cost) = self.charged(scope, |c| c.budgeted);
        let leases = self.ledger(scope).len::<Lease>() as u64;
        for (name, charged, limit) in [
            ("rpm", rpm, bounds.rpm),
            ("tpm", tpm, bounds.tpm),
            ("rpd", rpd, bounds.rpd),
            ("concurrency", leases, bounds.concurrency),
            ("tokens-per-day", day, bounds.tokens.day),
            ("tokens-per-month", month, bounds.tokens.month),
            ("tokens-total", total, bounds.tokens.total),
            ("cost-per-day", day_cost, bounds.cost.day),
            ("cost-per-month", month_cost, bounds.cost.month),
            ("cost-total", total_cost, bounds.cost.total),
        ] {
            assert!(limit.is_none_or(|limit| charged <= limit), "{scope}: {name} {charged} of {limit:?}");
        }
    }

    /// A budget's denial is exact; a window's may be early by a bucket.
    fn check_denial(&mut self, subject: &Subject, denial: &Denial, request: &Request) {
        *self.denied.entry(denial.limit_name.clone()).or_default() += 1;
        let models = denial.reason.rsplit_once(" (of ").map(|(_, models)| models.trim_end_matches(')'));
        let scope = crate::key(SubjectKind::Client, &subject.id, models);
        let (now_ms, current, limit) = (self.now_ms, denial.current.unwrap(), denial.limit.unwrap());
        let day = |charge: &Charge| charge.budgeted && of_day(charge.time_ms) == of_day(now_ms);
        let month = |charge: &Charge| charge.budgeted && of_month(charge.time_ms) == of_month(now_ms);
        let since = |ms: u64| move |charge: &Charge| charge.time_ms > now_ms - ms;
        let tokens = Demand { least: request.prompt_tokens, most: request.estimated_tokens };
        let cost = Demand { least: 1, most: request.estimated_cost.unwrap() };
        let (demand, exact, most) = match denial.limit_name.as_str() {
            "rpm" => (Demand::ONE, false, self.charged(&scope, since(61_000)).0),
            "tpm" => (tokens, false, self.charged(&scope, since(61_000)).1),
            "rpd" => (Demand::ONE, false, self.charged(&scope, |c| c.daily && since(DAY_MS + 900_000)(c)).0),
            "tokens-per-day" => (tokens, true, self.charged(&scope, day).1),
            "tokens-per-month" => (tokens, true, self.charged(&scope, month).1),
            "tokens-total" => (tokens, true, self.charged(&scope, |c| c.budgeted).1),
            "cost-per-day" => (cost, true, self.charged(&scope, day).2),
            "cost-per-month" => (cost, true, self.charged(&scope, month).2),
            "cost-total" => (cost, true, self.charged(&scope, |c| c.budgeted).2),
            "concurrency" => {
                let open = |flight: &&Flight| {
                    now_ms < flight.lease_ms && flight.charges.iter().any(|(own, _)| *own == scope)
                };
                (Demand::ONE, true, self.flights.iter().filter(open).count() as u64)
            }
            other => panic!("denied by {other}"),
        };
        assert!(if exact { current == most } else { current <= most }, "{denial:?}, charged {most}");
        assert!(demand.reservation(current, limit).is_none(), "there was room: {denial:?}");
    }

    fn settle(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let place = self.random.below(self.flights.len() as u64) as usize;
        let flight = self.flights.swap_remove(place);
        let endings = [
            Ending::Completed,
            Ending::Completed,
            Ending::Completed,
            Ending::ClientAborted,
            Ending::UpstreamError,
            Ending::TimedOut,
            Ending::NeverSent,
        ];
        let ending = endings[self.random.below(7) as usize];
        // Most use little of their ceiling; the estimate errs upwards, yet not always.
        let used = if self.random.below(20) == 0 {
            flight.ceiling + 7
        } else {
            self.random.below(300).min(flight.ceiling)
        };
        let mut settlement = settlement(&flight.ticket, self.now_ms, ending, used);
        settlement.subject.id = format!("key-{}", flight.key);
        settlement.usage.cost = Some(used * PRICE);
        settle(&self.map, &[settlement.clone(), settlement.clone()]).unwrap();
        settle(&self.map, &[settlement]).unwrap();
        if self.now_ms >= flight.lease_ms {
            return;
        }
        let counts = matches!(ending, Ending::Completed | Ending::ClientAborted);
        for (scope, place) in &flight.charges {
            let charges = &mut self.accounts.get_mut(scope).unwrap().charges;
            let charge = &mut charges[*place];
            let (used, requests) = (if ending == Ending::NeverSent { 0 } else { used }, u64::from(counts));
            let over = used.saturating_sub(charge.tokens);
            let cost = if charge.budgeted { used * PRICE } else { 0 };
            let over_cost = cost.saturating_sub(charge.cost);
            charge.requests = requests;
            (charge.tokens, charge.cost) = (used.min(charge.tokens), cost.min(charge.cost));
            let (daily, budgeted) = (charge.daily, charge.budgeted);
            if over > 0 || over_cost > 0 {
                let time_ms = self.now_ms;
                charges.push(Charge { time_ms, requests: 0, tokens: over, cost: over_cost, daily, budgeted });
            }
        }
    }

    fn renew(&mut self) {
        let lease_ms = self.lease_ms();
        for flight in &mut self.flights {
            let mut settlement = settlement(&flight.ticket, self.now_ms, Ending::Running, 0);
            settlement.subject.id = format!("key-{}", flight.key);
            settle(&self.map, &[settlement]).unwrap();
            if self.now_ms < flight.lease_ms {
                flight.lease_ms = lease_ms;
            }
        }
    }

    /// Nothing is in flight any more: no lease is left, and what each scope says was spent is the sum of its charges.
    fn check_end(&mut self) {
        self.now_ms += u64::from(LEASE_SECONDS) * 1_000;
        for scope in self.accounts.keys() {
            let entry = self.map.0.borrow().get(scope).cloned().unwrap();
            let mut ledger = Ledger::open(Some(entry.value)).unwrap();
            // Its time goes on, as by the next request.
            ledger.settle(u64::MAX, &settlement(&[], self.now_ms, Ending::Running, 0).usage, self.now_ms);
            let value = Value::open(Some(ledger.into_value())).unwrap();
            assert_eq!((value.len::<Lease>(), value.len::<Share>()), (0, 0), "{scope} has leases left");
            let (_, tokens, cost) = self.charged(scope, |charge| charge.budgeted);
            let total = value.spent().map_or((0, 0), |spent| spent.total());
            assert_eq!(total, (tokens, cost), "{scope}: what was spent is not the sum");
        }
    }
}

#[test]
fn weeks_of_random_load_never_pass_a_limit_and_leave_no_lease() {
    let runs = std::env::var("TOLLGATE_SIMULATIONS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let (mut allowed, mut denied) = (0, HashMap::<String, u64>::new());
    for seed in 0..runs {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        simulation.check_end();
        allowed += simulation.allowed;
        simulation.denied.into_iter().for_each(|(name, count)| *denied.entry(name).or_default() += count);
    }
    assert!(allowed > 1_000 * runs, "only {allowed} requests were let through");
    assert_eq!(denied.len(), 10, "some limit never stood in the way: {denied:?}");
}
