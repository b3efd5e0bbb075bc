//! The house as `app` puts it together, under a clock of the test's.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tollgate_store::{Acknowledge, Clock, Database, Kv, KvOptions, Options, Statement, Store, Value};

use super::load::{IN, OUT};
use crate::{
    capability::Stores,
    gateway::{AccountSpec, Accounts, Gateway, Parts, Price, Prices, Settings, limits::RENEW_EVERY, serve},
    keys::{Keys, NewKey},
    plugin::{Admissions, Compiler, Registry, registry},
};

/// 31 January 2027, 22:00 UTC: day and month end two hours later.
const START_MS: u64 = 1_801_432_800_000;

/// A time that no test reaches: times of answers are those of the system's clock, not of the test's.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long a streamed answer may be silent at its beginning, in the system's time: what an upstream that never answers costs.
const FIRST_BYTE: Duration = Duration::from_millis(500);

/// When something is: the test's time, and the step of the load. In a step the clock stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) ms: u64,
    pub(super) step: u64,
}

/// The clock. It moves only while nothing does but what waits for the test.
pub(super) struct Time {
    ms: AtomicU64,
    step: AtomicU64,
}

impl Time {
    pub(super) fn new() -> Arc<Time> {
        Arc::new(Time { ms: AtomicU64::new(START_MS), step: AtomicU64::new(0) })
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { ms: self.ms.load(Ordering::SeqCst), step: self.step.load(Ordering::SeqCst) }
    }

    pub(super) fn pass(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub(super) fn next_step(&self) {
        self.step.fetch_add(1, Ordering::SeqCst);
    }

    /// Hours since the start.
    pub(super) fn hours(&self) -> u64 {
        (self.moment().ms - START_MS) / 3_600_000
    }
}

/// Everything but the upstream.
pub(super) struct House {
    pub(super) database: Database,
    pub(super) keys: Keys,
    gateway: Gateway,
    admissions: Admissions,
    registry: Registry,
    store: Store,
    quota: Kv,
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
    /// The time that was told last to whoever renews leases.
    looked: Instant,
    home: TempDir,
}

impl House {
    pub(super) async fn build(time: &Arc<Time>, accounts: Vec<AccountSpec>) -> House {
        let home = tempfile::tempdir().unwrap();
        let own = time.clone();
        let clock: Clock = Arc::new(move || own.moment().ms);
        let options = Options { clock: clock.clone(), ..Options::default() };
        let store = Store::open(&home.path().join("store"), options).unwrap();
        let database = store.database("gateway").unwrap();
        let relaxed =
            KvOptions { acknowledge: Acknowledge::Relaxed, default_ttl_ms: None, limit_bytes: None };
        let kv = |name: &str, options| (name.to_owned(), store.kv(name, options).unwrap());
        let named = [kv("blacklist", KvOptions::default()), kv("quota", relaxed), kv("hot-keys", relaxed)];
        let kv = BTreeMap::from(named);
        let quota = kv["quota"].clone();
        let sql = BTreeMap::from([("gateway".to_owned(), database.clone())]);
        let keys = Keys::open(database.clone(), b"a secret").await.unwrap();
        let admissions = Admissions::new(clock.clone());
        let registry = Registry::start(registry::Setup {
            store: store.clone(),
            data_dir: home.path().to_path_buf(),
            secret: Arc::from([7; 32]),
            compiler: Compiler::Here,
            stores: Stores::new(kv, sql),
            admissions: admissions.clone(),
            clock: clock.clone(),
            event_queue_bytes: 64 << 20,
            disabled: Vec::new(),
            keep_versions: crate::plugin::limits::KEPT_VERSIONS,
            trusted_keys: Vec::new(),
        })
        .await
        .unwrap();
        forgive(&registry).await;
        let settings = Settings {
            first_byte_timeout: FIRST_BYTE,
            answer_timeout: NEVER,
            idle_timeout: NEVER,
            stall_timeout: NEVER,
            total_timeout: NEVER,
            queue_timeout: NEVER,
            ..Settings::default()
        };
        let pool = Accounts::new(settings.connect_timeout);
        pool.serve(pool.prepare(accounts).await.unwrap());
        // Of a million tokens.
        let price = Price { input: IN * 1_000_000, output: OUT * 1_000_000, ..Price::default() };
        let gateway = Gateway::new(Parts {
            prices: Prices::new([("*".to_owned(), price)]),
            keys: keys.clone(),
            accounts: pool,
            admissions: admissions.clone(),
            mounts: registry.mounts(),
            events: registry.events(),
            settings,
            clock,
            tracer: crate::telemetry::Tracer::default(),
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/chat/completions", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, gateway.router(), CancellationToken::new().cancelled_owned()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let looked = Instant::now();
        House { database, keys, gateway, admissions, registry, store, quota, url, client, looked, home }
    }

    /// Makes a key; itself and its id.
    pub(super) async fn key(&self, new: NewKey) -> (String, String) {
        let secret = self.keys.create(new).await.unwrap();
        let id = self.keys.lookup(&secret).await.unwrap().unwrap().id.to_string();
        (secret, id)
    }

    /// Sends a request; the status of its whole answer, none if that broke off.
    pub(super) fn send(
        &self,
        key: &str,
        agent: String,
        body: String,
    ) -> impl Future<Output = Option<u16>> + use<> {
        let request = Request::post(&self.url)
            .header("authorization", format!("Bearer {key}"))
            .header("user-agent", agent)
            .body(Full::from(body))
            .unwrap();
        let answer = self.client.request(request);
        async move {
            let answer = answer.await.unwrap();
            let status = answer.status().as_u16();
            answer.into_body().collect().await.is_ok().then_some(status)
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.gateway.in_flight()
    }

    /// Requests that wait for a place on an account.
    pub(super) fn waiting(&self) -> usize {
        self.gateway.0.accounts.queue().len()
    }

    /// Has the leases of running requests renewed, as a server does by its own clock.
    pub(super) fn renew(&mut self) {
        self.looked = self.looked.max(Instant::now()) + RENEW_EVERY;
        self.gateway.0.flights.sweep(self.looked);
    }

    /// What quota keeps of a subject, as far as it concerns the test: the time that it has seen last, and its leases. The
    /// format stands in `plugins/quota/src/value.rs`.
    pub(super) async fn ledger(&self, name: &str) -> Option<(u64, usize)> {
        let value = self.quota.get(name).await.unwrap()?.value;
        let now_ms = u64::from_le_bytes(value[1..9].try_into().unwrap());
        let leases = u16::from_le_bytes(value[21..23].try_into().unwrap());
        Some((now_ms, leases.into()))
    }

    pub(super) async fn rows(&self, sql: &str, params: Vec<Value>) -> Vec<Vec<Value>> {
        self.database.query(Statement::new(sql, params)).await.unwrap().rows
    }

    pub(super) async fn count(&self, sql: &str) -> u64 {
        match self.rows(sql, Vec::new()).await[0][0] {
            Value::Integer(count) => count as u64,
            ref other => panic!("not a number from {sql}: {other:?}"),
        }
    }

    /// Nothing is held any more by anybody.
    pub(super) fn check_at_rest(&self) {
        assert_eq!((self.in_flight(), self.waiting()), (0, 0), "requests are left");
        for account in self.gateway.0.accounts.list().iter() {
            assert_eq!(account.places.taken(), 0, "a place on {} is left", account.name);
        }
        assert_eq!(self.admissions.open_leases(), 0, "leases are left");
    }

    pub(super) async fn close(self) {
        self.admissions.shutdown().await;
        self.registry.shutdown().await;
        self.store.close().await.unwrap();
        drop(self.home);
    }
}

/// Gives the shipped policies time for a busy machine: one that is ended in mid-call, after it has reserved something, leaves
/// that to its lease's end.
async fn forgive(registry: &Registry) {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    for name in ["blacklist", "quota"] {
        let wasm = std::fs::read(plugins.join(format!("prebuilt/{name}.wasm"))).unwrap();
        let manifest = std::fs::read_to_string(plugins.join(name).join("plugin.toml")).unwrap();
        let manifest =
            format!("limits = {{ admit-deadline-ms = 2_000, settle-deadline-ms = 2_000 }}\n{manifest}");
        registry.push(name, wasm, Some(manifest), "the test").await.unwrap();
    }
}
