//! Upstream accounts, and which of them a request tries first.

use std::{
    cmp::Ordering,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering as Atomic},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Uri};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{
    dialect::{Dialect, Endpoint},
    limits::{CANDIDATES, FAILURE_LATENCY, LATENCY_DECAY},
};
use crate::{
    plugin::admission::{Limits, Subject, SubjectKind},
    secret::Secret,
};

/// An account as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountSpec {
    /// Its name, unique.
    pub name: String,
    /// What its upstream speaks.
    pub dialect: Dialect,
    /// Where its upstream is, with or without the version at its end, such as `/v1`.
    pub base_url: String,
    /// The key sent upstream; empty: none is sent.
    pub api_key: Secret,
    /// The models it serves; empty: all.
    pub models: Vec<String>,
    /// How often it is drawn among accounts of its priority; at least 1.
    pub weight: u32,
    /// Lower numbers are tried first.
    pub priority: u32,
    /// Requests a minute.
    pub rpm: Option<u64>,
    /// Tokens a minute.
    pub tpm: Option<u64>,
    /// Requests a day.
    pub rpd: Option<u64>,
}

/// Why an account cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The address of the upstream is none.
    #[error("account {name}: base_url is not an http or https url: {reason}")]
    BaseUrl {
        /// The account.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key contains something that a header cannot carry.
    #[error("account {name}: api_key contains characters that no header can carry")]
    ApiKey {
        /// The account.
        name: String,
    },
}

/// An upstream account at work.
pub struct Account {
    /// Its name.
    pub name: Arc<str>,
    /// What its upstream speaks.
    pub dialect: Dialect,
    /// SHA-256 of its key, in hexadecimal; of its name if it has no key.
    pub key_hash: Arc<str>,
    /// The account as policies see it.
    pub subject: Arc<Subject>,
    /// The header that authorizes with the upstream.
    pub(super) authorization: Option<(HeaderName, HeaderValue)>,
    base: Uri,
    /// The address of each endpoint that has one, in the order of the dialect's.
    endpoints: Vec<Option<Uri>>,
    models: Vec<String>,
    weight: u32,
    priority: u32,
    in_flight: AtomicU32,
    latency: Mutex<Latency>,
}

impl Account {
    /// An account from its configuration.
    pub fn new(spec: AccountSpec) -> Result<Account, AccountError> {
        let base = parse_base(&spec.base_url, spec.dialect.api().versions())
            .map_err(|reason| AccountError::BaseUrl { name: spec.name.clone(), reason })?;
        let authorization = match spec.api_key.expose() {
            "" => None,
            key => Some(
                spec.dialect
                    .api()
                    .authorization(key)
                    .ok_or(AccountError::ApiKey { name: spec.name.clone() })?,
            ),
        };
        let hashed =
            if spec.api_key.expose().is_empty() { spec.name.as_str() } else { spec.api_key.expose() };
        let key_hash: Arc<str> = hex::encode(Sha256::digest(hashed)).into();
        let name: Arc<str> = spec.name.into();
        let address =
            |endpoint: &Endpoint| if endpoint.is_fixed() { join(&base, endpoint.path, None) } else { None };
        let endpoints = spec.dialect.api().endpoints().iter().map(address).collect();
        let mut models = spec.models;
        models.sort();
        models.dedup();
        Ok(Account {
            subject: Arc::new(Subject {
                kind: SubjectKind::Account,
                id: key_hash.clone(),
                name: name.clone(),
                limits: Limits { rpm: spec.rpm, tpm: spec.tpm, rpd: spec.rpd },
            }),
            name,
            dialect: spec.dialect,
            key_hash,
            authorization,
            endpoints,
            base,
            models,
            weight: spec.weight.max(1),
            priority: spec.priority,
            in_flight: AtomicU32::new(0),
            latency: Mutex::new(Latency { seconds: 0.0, at: Instant::now() }),
        })
    }

    /// Whether it serves a model.
    pub fn serves(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.binary_search_by(|own| own.as_str().cmp(model)).is_ok()
    }

    /// The models it is restricted to; empty: all.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// The address of an endpoint, if its path is the same for every request.
    pub(super) fn endpoint(&self, endpoint: &'static Endpoint) -> Option<&Uri> {
        let index = self.dialect.api().endpoints().iter().position(|own| std::ptr::eq(own, endpoint))?;
        self.endpoints.get(index)?.as_ref()
    }

    /// The address of any path.
    pub(super) fn uri(&self, path: &str, query: Option<&str>) -> Option<Uri> {
        join(&self.base, path, query)
    }

    /// Whether its upstream speaks TLS.
    pub(super) fn is_https(&self) -> bool {
        self.base.scheme_str() == Some("https")
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(super) fn begin(self: &Arc<Account>) -> InFlight {
        self.in_flight.fetch_add(1, Atomic::Relaxed);
        InFlight(self.clone())
    }

    /// Takes note of the time to an answer's head.
    pub(super) fn answered(&self, after: Duration) {
        self.latency.lock().observe(after, Instant::now());
    }

    /// Takes note of a failure.
    pub(super) fn failed(&self) {
        self.answered(FAILURE_LATENCY);
    }

    fn cost(&self, now: Instant) -> f64 {
        // A millisecond at least, so that load decides between accounts nothing is known of yet.
        let latency = self.latency.lock().at(now).max(0.001);
        latency * (f64::from(self.in_flight.load(Atomic::Relaxed)) + 1.0)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).field("base", &self.base).finish_non_exhaustive()
    }
}

fn parse_base(text: &str, versions: &[&str]) -> Result<Uri, String> {
    let text = text.trim_end_matches('/');
    let text = versions.iter().find_map(|version| text.strip_suffix(version)).unwrap_or(text);
    let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(_)) if uri.query().is_none() => Ok(uri),
        (Some("http" | "https"), Some(_)) => Err("it has a query".to_owned()),
        (None, _) => Err("it has no scheme".to_owned()),
        _ => Err("the scheme is unknown".to_owned()),
    }
}

fn join(base: &Uri, path: &str, query: Option<&str>) -> Option<Uri> {
    let prefix = base.path().trim_end_matches('/');
    let target = match query {
        Some(query) => format!("{prefix}{path}?{query}"),
        None => format!("{prefix}{path}"),
    };
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A request in flight on an account.
pub(super) struct InFlight(Arc<Account>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Atomic::Relaxed);
    }
}

/// A moving average that rises at once and falls slowly, so that trouble shows before requests pile up.
struct Latency {
    seconds: f64,
    at: Instant,
}

impl Latency {
    fn at(&self, now: Instant) -> f64 {
        self.seconds * self.remaining(now)
    }

    fn observe(&mut self, latency: Duration, now: Instant) {
        let (seen, old) = (latency.as_secs_f64(), self.remaining(now));
        let average = self.seconds * old + seen * (1.0 - old);
        *self = Latency { seconds: average.max(seen), at: now };
    }

    fn remaining(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / LATENCY_DECAY.as_secs_f64()).exp()
    }
}

/// All accounts.
#[derive(Clone, Debug, Default)]
pub struct Accounts(Arc<[Arc<Account>]>);

impl Accounts {
    /// The accounts to choose from.
    pub fn new(accounts: Vec<Account>) -> Accounts {
        Accounts(accounts.into_iter().map(Arc::new).collect())
    }

    /// Every account.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.iter()
    }

    /// The accounts that serve a model, best first: drawn lazily, since the first one usually does.
    pub(super) fn candidates(&self, dialect: Dialect, model: &str) -> Candidates {
        let serves = |account: &&Arc<Account>| account.dialect == dialect && account.serves(model);
        Candidates { left: self.0.iter().filter(serves).cloned().collect(), drawn: 0 }
    }
}

/// Accounts still to be tried for one request.
pub(super) struct Candidates {
    left: Vec<Arc<Account>>,
    drawn: usize,
}

impl Iterator for Candidates {
    type Item = Arc<Account>;

    /// Of two accounts drawn by weight among the best priority left, the one with less latency and load.
    fn next(&mut self) -> Option<Arc<Account>> {
        if self.drawn == CANDIDATES {
            return None;
        }
        self.drawn += 1;
        if self.left.len() <= 1 {
            return self.left.pop();
        }
        let priority = self.left.iter().map(|account| account.priority).min()?;
        let first = self.draw(priority, None)?;
        let best = match self.draw(priority, Some(first)) {
            Some(second) => self.cheaper(first, second),
            None => first,
        };
        Some(self.left.swap_remove(best))
    }
}

impl Candidates {
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

    fn spec(name: &str) -> AccountSpec {
        AccountSpec {
            name: name.to_owned(),
            dialect: Dialect::OpenAi,
            base_url: "http://127.0.0.1:1".to_owned(),
            api_key: Secret::new(format!("sk-{name}")),
            models: Vec::new(),
            weight: 1,
            priority: 0,
            rpm: None,
            tpm: None,
            rpd: None,
        }
    }

    fn accounts(specs: Vec<AccountSpec>) -> Accounts {
        Accounts::new(specs.into_iter().map(|spec| Account::new(spec).unwrap()).collect())
    }

    fn order(accounts: &Accounts, model: &str) -> Vec<String> {
        accounts.candidates(Dialect::OpenAi, model).map(|account| account.name.to_string()).collect()
    }

    #[test]
    fn lower_priority_numbers_come_first_and_every_account_comes_once() {
        let accounts = accounts(vec![
            AccountSpec { priority: 2, ..spec("last") },
            AccountSpec { priority: 0, ..spec("first") },
            AccountSpec { priority: 1, ..spec("second") },
        ]);
        for _ in 0..20 {
            assert_eq!(order(&accounts, "any"), ["first", "second", "last"]);
        }
    }

    #[test]
    fn only_accounts_that_serve_the_model_are_candidates() {
        let accounts = accounts(vec![
            AccountSpec { models: vec!["b".into(), "a".into()], ..spec("some") },
            AccountSpec { models: vec!["c".into()], ..spec("other") },
        ]);
        assert_eq!(order(&accounts, "a"), ["some"]);
        assert!(order(&accounts, "d").is_empty());
    }

    #[test]
    fn the_faster_and_the_less_loaded_of_two_is_taken() {
        let accounts = accounts(vec![spec("slow"), spec("fast")]);
        let [slow, fast] = &*accounts.0 else { panic!("two accounts") };
        slow.answered(Duration::from_millis(900));
        fast.answered(Duration::from_millis(10));
        assert_eq!(order(&accounts, "any"), ["fast", "slow"]);
        let _load: Vec<_> = (0..200).map(|_| fast.begin()).collect();
        assert_eq!(order(&accounts, "any"), ["slow", "fast"]);
    }

    #[test]
    fn a_failure_is_forgotten_with_time() {
        let now = Instant::now();
        let mut latency = Latency { seconds: 0.0, at: now };
        latency.observe(FAILURE_LATENCY, now);
        assert!(latency.at(now) > 4.9);
        assert!(latency.at(now + LATENCY_DECAY * 8) < 0.01);
    }

    #[test]
    fn weights_decide_how_often_an_account_of_many_is_drawn() {
        let mut specs: Vec<_> = (0..9).map(|index| spec(&format!("light{index}"))).collect();
        specs.push(AccountSpec { weight: 91, ..spec("heavy") });
        let accounts = accounts(specs);
        let candidates = || accounts.candidates(Dialect::OpenAi, "any");
        let heavy = (0..1_000).filter(|_| candidates().draw(0, None) == Some(9)).count();
        assert!((850..970).contains(&heavy), "{heavy}");
    }

    #[test]
    fn a_base_url_may_end_in_v1_and_must_be_http() {
        for (text, base) in [
            ("https://api.example.com/v1", "https://api.example.com/"),
            ("https://api.example.com/v1/", "https://api.example.com/"),
            ("https://api.example.com/v1beta", "https://api.example.com/"),
            ("http://h:8080/proxy/openai", "http://h:8080/proxy/openai"),
        ] {
            assert_eq!(parse_base(text, &["/v1beta", "/v1"]).unwrap().to_string(), base);
        }
        for bad in ["ftp://x", "example.com", "", "http://", "https://a/?q=1"] {
            assert!(parse_base(bad, &["/v1"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_stand_below_the_base() {
        let account =
            Account::new(AccountSpec { base_url: "http://h/x/v1".to_owned(), ..spec("a") }).unwrap();
        let endpoint = &Dialect::OpenAi.api().endpoints()[2];
        assert_eq!(account.endpoint(endpoint).unwrap().to_string(), "http://h/x/v1/embeddings");
        assert_eq!(account.uri("/v1/models", Some("a=b")).unwrap().to_string(), "http://h/x/v1/models?a=b");
    }

    #[test]
    fn neither_an_account_nor_its_secret_shows_the_key() {
        let spec = spec("shy");
        assert!(!format!("{spec:?}").contains("sk-shy"));
        assert!(!format!("{:?}", Account::new(spec).unwrap()).contains("sk-shy"));
    }
}
