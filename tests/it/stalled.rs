//! A disk that stands still: what is on the way of a request is in memory.
//!
//! In this process, since no file system can be told to stand still; all else is what a server is made of.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use redb::StorageBackend;
use tokio_util::sync::CancellationToken;
use tollgate::capability::Stores;
use tollgate::gateway::{AccountSpec, Accounts, Gateway, Parts, Prices, Settings, serve};
use tollgate::keys::{Keys, NewKey};
use tollgate::limit_set::LimitSet;
use tollgate::plugin::{Admissions, Compiler, Registry, registry};
use tollgate::telemetry::Tracer;
use tollgate_store::{Acknowledge, KvOptions, Options, Store};

use crate::support::{Behaviour, Client, Upstream, eventually};

/// A disk in memory, which can be made to stand still.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: Mutex<Vec<u8>>,
    still: Mutex<bool>,
    moves: Condvar,
    /// Operations that have waited for it to move.
    waited: AtomicU64,
}

impl Disk {
    fn stand_still(&self, still: bool) {
        *self.0.still.lock().unwrap() = still;
        self.0.moves.notify_all();
    }

    fn waited(&self) -> u64 {
        self.0.waited.load(Ordering::SeqCst)
    }

    fn pass(&self) {
        let still = self.0.still.lock().unwrap();
        if *still {
            self.0.waited.fetch_add(1, Ordering::SeqCst);
        }
        drop(self.0.moves.wait_while(still, |still| *still).unwrap());
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.pass();
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.pass();
        let offset = offset as usize;
        out.copy_from_slice(&self.0.bytes.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pass();
        self.0.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.pass();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pass();
        let offset = offset as usize;
        self.0.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Gives the shipped policies time for a busy machine.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_sessions_are_kept_while_the_disk_stands_still() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let (home, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let options = Options { backend: Some(Box::new(disk.clone())), ..Options::default() };
    let clock = options.clock.clone();
    let store = Store::open(&home.path().join("unused"), options).unwrap();
    let database = store.database("gateway").unwrap();
    let relaxed = KvOptions { acknowledge: Acknowledge::Relaxed, ..KvOptions::default() };
    let kv = [("blacklist", KvOptions::default()), ("quota", relaxed), ("hot-keys", relaxed)];
    let kv = kv.map(|(name, options)| (name.to_owned(), store.kv(name, options).unwrap()));
    let sql = BTreeMap::from([("gateway".to_owned(), database.clone())]);
    let keys = Keys::open(database, b"a secret").await.unwrap();
    let admissions = Admissions::new(clock.clone());
    let registry = Registry::start(registry::Setup {
        store: store.clone(),
        data_dir: home.path().to_path_buf(),
        secret: Arc::from([7; 32]),
        compiler: Compiler::Here,
        stores: Stores::new(BTreeMap::from(kv), sql),
        admissions: admissions.clone(),
        clock: clock.clone(),
        event_queue_bytes: 64 << 20,
        disabled: Vec::new(),
        keep_versions: tollgate::plugin::limits::KEPT_VERSIONS,
        trusted_keys: Vec::new(),
    })
    .await
    .unwrap();
    forgive(&registry).await;
    let accounts = Accounts::new(Duration::from_secs(5));
    let account = |name: &str| AccountSpec {
        name: name.to_owned(),
        base_url: upstream.url().to_owned(),
        api_key: tollgate::secret::Secret::new(format!("upstream-{name}")),
        limits: LimitSet { rpm: Some(100_000), concurrency: Some(1_000), ..LimitSet::default() },
        ..AccountSpec::default()
    };
    accounts.serve(accounts.prepare(vec![account("one"), account("two")]).await.unwrap());
    let gateway = Gateway::new(Parts {
        keys: keys.clone(),
        accounts,
        admissions: admissions.clone(),
        mounts: registry.mounts(),
        events: registry.events(),
        prices: Prices::default(),
        settings: Settings::default(),
        clock,
        tracer: Tracer::default(),
    })
    .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stopping = CancellationToken::new();
    let served = tokio::spawn(serve(listener, gateway.router(), stopping.clone().cancelled_owned()));
    let key = async |name: &str, limits| {
        let settings = tollgate::keys::Settings { limits, ..tollgate::keys::Settings::default() };
        Client::new(&url, &keys.create(NewKey { name: name.to_owned(), settings }).await.unwrap())
    };
    let limited = key("limited", LimitSet { rpm: Some(40), ..LimitSet::default() }).await;
    let narrow = key("narrow", LimitSet { concurrency: Some(1), ..LimitSet::default() }).await;
    let ask = async |client: &Client| {
        let body = crate::support::client::chat_body("gpt-test", false).to_string();
        client
            .call(Method::POST, "/v1/chat/completions", &[("x-session-id", "one session")], body)
            .await
            .status
    };
    // Each is known by now, as it is after its first request.
    assert_eq!((ask(&limited).await, ask(&narrow).await), (StatusCode::OK, StatusCode::OK));
    let before = ["one", "two"].map(|account| upstream.seen_from(account));

    disk.stand_still(true);
    let mut statuses = BTreeMap::<u16, u32>::new();
    for _ in 0..100 {
        *statuses.entry(ask(&limited).await.as_u16()).or_default() += 1;
    }
    // One of them was before.
    assert_eq!(statuses, BTreeMap::from([(200, 39), (429, 61)]));
    upstream.behave(Behaviour::Slow { input: 5, output: 2, pause: Duration::from_millis(300) });
    let both = tokio::join!(ask(&narrow), ask(&narrow));
    assert!(matches!((both.0.as_u16(), both.1.as_u16()), (200, 429) | (429, 200)), "{both:?}");
    let seen = ["one", "two"].map(|account| upstream.seen_from(account));
    let went = [seen[0] - before[0], seen[1] - before[1]];
    // The session of each key stays where it was.
    assert!(went.iter().all(|went| [0, 1, 39, 40].contains(went)), "{went:?}");
    eventually("the disk has been asked to take what happened", async || (disk.waited() > 0).then_some(()))
        .await;
    disk.stand_still(false);

    stopping.cancel();
    served.await.unwrap();
    admissions.shutdown().await;
    registry.shutdown().await;
    store.close().await.unwrap();
}
