//! One upstream account: what it is, and what is known of how it does.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering as Atomic},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Uri, uri::Authority};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{
    dialect::{Dialect, Endpoint},
    forward_proxy::ForwardProxy,
    limits::{FAILURE_LATENCY, LATENCY_DECAY},
    metrics::{AccountMetrics, account_up},
    place::Places,
    route::{Route, Routes, Way},
};
use crate::{
    limit_set::{self, LimitSet, ModelLimits},
    plugin::admission::{Subject, SubjectKind},
    secret::Secret,
};

/// An account as its owner describes it.
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
    /// Names that it serves too, and its own models that these stand for.
    pub aliases: BTreeMap<String, String>,
    /// How often it is drawn among accounts of its priority; at least 1.
    pub weight: u32,
    /// Lower numbers are tried first.
    pub priority: u32,
    /// Limits over all its models. Requests at once are its places, for which others wait; policies hold it to the rest.
    pub limits: LimitSet,
    /// Limits over the models that a name or pattern stands for, together, as clients name models.
    pub model_limits: ModelLimits,
    /// Milliseconds since 1970, UTC, from which on it is not asked any more.
    pub expires_ms: Option<u64>,
    /// The certificates, as PEM, that its upstream's is trusted by; none: the system's.
    pub ca: Option<Arc<str>>,
    /// The proxy on the way to its upstream.
    pub proxy: Option<ForwardProxy>,
    /// Whether usage is asked for in streams whose client does not.
    pub stream_usage: bool,
}

impl Default for AccountSpec {
    fn default() -> AccountSpec {
        AccountSpec {
            name: String::new(),
            dialect: Dialect::COMMON,
            base_url: String::new(),
            api_key: Secret::default(),
            models: Vec::new(),
            aliases: BTreeMap::new(),
            weight: 1,
            priority: 0,
            limits: LimitSet::default(),
            model_limits: ModelLimits::new(),
            expires_ms: None,
            ca: None,
            proxy: None,
            stream_usage: false,
        }
    }
}

impl AccountSpec {
    /// Its id for policies, blacklist and log: SHA-256 of its key, in hexadecimal; of its name if it has no key.
    pub fn id(&self) -> String {
        let hashed = if self.api_key.is_empty() { &self.name } else { self.api_key.expose() };
        hex::encode(Sha256::digest(hashed))
    }

    /// How many requests may be on it at once.
    pub(super) fn places(&self) -> Option<u32> {
        self.limits.concurrency.map(|most| u32::try_from(most).unwrap_or(u32::MAX))
    }

    fn subject(&self) -> Subject {
        let over_all = LimitSet { concurrency: None, ..self.limits.clone() };
        Subject {
            kind: SubjectKind::Account,
            id: self.id().into(),
            name: self.name.as_str().into(),
            limits: limit_set::for_policies(&over_all, &self.model_limits),
        }
    }
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
    /// Its certificates cannot be read, or hold none.
    #[error("account {name}: ca holds no certificates in PEM form: {reason}")]
    Ca {
        /// The account.
        name: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The system refuses what a connection needs.
    #[error("account {name}: {reason}")]
    System {
        /// The account.
        name: String,
        /// What it said.
        reason: String,
    },
}

/// An upstream account at work.
pub struct Account {
    /// Its name.
    pub name: Arc<str>,
    /// Tells it from any other this process has known, also of the same name.
    pub(super) number: u64,
    pub(super) spec: AccountSpec,
    /// How its upstream is reached, and by what connections.
    pub(super) way: Way,
    pub(super) route: Route,
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
    pub(super) weight: u32,
    pub(super) priority: u32,
    pub(super) places: Arc<Places>,
    /// Held while its upstream is asked for its models.
    pub(super) listing: tokio::sync::Mutex<()>,
    latency: Mutex<Latency>,
    pub(super) metrics: AccountMetrics,
    is_up: AtomicBool,
}

impl Account {
    /// An account at work, over connections that it shares with others of the same way.
    pub(super) fn new(
        spec: AccountSpec,
        routes: &mut Routes,
        places: Arc<Places>,
    ) -> Result<Account, AccountError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
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
        let way = Way::of(&spec, &base);
        let route = routes.route(&way, &base, &spec.name)?;
        let address =
            |endpoint: &Endpoint| if endpoint.is_fixed() { join(&base, endpoint.path, None) } else { None };
        let endpoints = spec.dialect.api().endpoints().iter().map(address).collect();
        let mut models = spec.models.clone();
        if !models.is_empty() {
            models.extend(spec.aliases.keys().cloned());
        }
        models.sort();
        models.dedup();
        let subject = Arc::new(spec.subject());
        Ok(Account {
            name: subject.name.clone(),
            number: NUMBER.fetch_add(1, Atomic::Relaxed),
            way,
            route,
            dialect: spec.dialect,
            key_hash: subject.id.clone(),
            subject,
            authorization,
            endpoints,
            base,
            models,
            weight: spec.weight.max(1),
            priority: spec.priority,
            places,
            listing: tokio::sync::Mutex::default(),
            latency: Mutex::new(Latency { seconds: 0.0, at: Instant::now() }),
            metrics: AccountMetrics::new(&spec.name),
            is_up: AtomicBool::new(true),
            spec,
        })
    }

    /// Whether it serves a model.
    pub fn serves(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.binary_search_by(|own| own.as_str().cmp(model)).is_ok()
    }

    /// Requests that are on it now.
    pub fn under_way(&self) -> u64 {
        self.places.taken().into()
    }

    /// Whether its time is over.
    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        self.spec.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }

    /// Whether it answered when it was last asked, as far as that is known.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Atomic::Relaxed)
    }

    /// Takes note of whether it answers, and returns whether it has come back.
    pub(super) fn set_up(&self, is_up: bool) -> bool {
        let has_changed = self.is_up.swap(is_up, Atomic::Relaxed) != is_up;
        if has_changed {
            tracing::warn!(account = %self.name, is_up, "the account's health has changed");
        }
        account_up(&self.name).set(f64::from(u8::from(is_up)));
        has_changed && is_up
    }

    /// The models it is restricted to, as clients name them; empty: all.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// The names that it has its own models for.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &String> {
        self.spec.aliases.keys()
    }

    /// Its own model that a name stands for; none: that of the same name.
    pub(super) fn alias(&self, model: &str) -> Option<&str> {
        self.spec.aliases.get(model).map(String::as_str)
    }

    /// The address of an endpoint, if its path is the same for every request.
    pub(super) fn endpoint(&self, endpoint: &'static Endpoint) -> Option<&Uri> {
        let index = self.dialect.api().endpoints().iter().position(|own| std::ptr::eq(own, endpoint))?;
        self.endpoints.get(index)?.as_ref()
    }

    /// The host of its upstream.
    pub(super) fn authority(&self) -> Option<&Authority> {
        self.base.authority()
    }

    /// The address of any path.
    pub(super) fn uri(&self, path: &str, query: Option<&str>) -> Option<Uri> {
        join(&self.base, path, query)
    }

    /// Takes note of the time to an answer's head.
    pub(super) fn answered(&self, after: Duration) {
        self.latency.lock().observe(after, Instant::now());
        self.metrics.seconds.record(after);
    }

    /// Takes note of a failure.
    pub(super) fn failed(&self) {
        self.latency.lock().observe(FAILURE_LATENCY, Instant::now());
    }

    pub(super) fn cost(&self, now: Instant) -> f64 {
        // A millisecond at least, so that load decides between accounts nothing is known of yet.
        let latency = self.latency.lock().at(now).max(0.001);
        latency * (f64::from(self.places.taken()) + 1.0)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).field("base", &self.base).finish_non_exhaustive()
    }
}

/// What is wrong with the address of an upstream, or it without slashes at its end. The address itself is not quoted:
/// people put keys into it.
pub fn check_base_url(text: &str) -> Result<String, &'static str> {
    let Ok(url) = text.parse::<Uri>() else {
        return Err("is no URL; write it like `https://llm.example.com/v1`");
    };
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err("must start with `https://` or `http://`");
    }
    match url.authority() {
        None => return Err("names no host"),
        Some(authority) if authority.host().is_empty() => return Err("names no host"),
        Some(authority) if authority.as_str().contains('@') => {
            return Err("must not carry a user or password; use `api_key`");
        }
        Some(_) => {}
    }
    if url.query().is_some() || text.contains('#') {
        return Err("must end with its path: no query and no fragment");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// What is wrong with a key or password, which becomes a header's value.
pub fn check_credential(text: &str) -> Result<(), &'static str> {
    match text.is_empty() || text.bytes().any(|byte| !(0x21..=0x7e).contains(&byte)) {
        true => Err("is printable ASCII without spaces"),
        false => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::queue::Queue;

    fn account(spec: AccountSpec) -> Account {
        Account::new(spec, &mut Routes::default(), Places::new(Queue::new())).unwrap()
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

    #[tokio::test]
    async fn endpoints_stand_below_the_base() {
        let account = account(AccountSpec { base_url: "http://h/x/v1".to_owned(), ..AccountSpec::default() });
        let endpoint = &Dialect::OpenAi.api().endpoints()[2];
        assert_eq!(account.endpoint(endpoint).unwrap().to_string(), "http://h/x/v1/embeddings");
        assert_eq!(account.uri("/v1/models", Some("a=b")).unwrap().to_string(), "http://h/x/v1/models?a=b");
    }

    #[tokio::test]
    async fn neither_an_account_nor_its_secret_shows_the_key() {
        let spec = AccountSpec {
            base_url: "http://h".to_owned(),
            api_key: Secret::new("sk-shy"),
            ..AccountSpec::default()
        };
        assert!(!format!("{spec:?}").contains("sk-shy"));
        assert!(!format!("{:?}", account(spec)).contains("sk-shy"));
    }
}
