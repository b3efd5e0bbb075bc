//! The only wiring: from a configuration to a running server, and back to a closed store.

mod compact;
mod data;
mod first;
mod metrics;
mod openapi;
mod plugins;
mod reload;
mod socket;
mod status;
mod stores;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tollgate_store::{Clock, KvOptions, Store};

use crate::accounting::{Erasure, Pruner};
use crate::accounts::{self, Roster};
use crate::admin::{self, Admin, Trail};
use crate::api::told;
use crate::capability::Stores;
use crate::config::{Config, MasterKeySource};
use crate::data as data_api;
use crate::gateway::{self, Accounts, Gateway, Prices};
use crate::keys::Keys;
use crate::plugin::{Admissions, Compiler, Registry, registry};
use crate::request_ids::RequestIds;
use crate::secret::Secret;
use crate::secrets::{Key, MasterKey, Vault};
use crate::telemetry::Telemetry;
use crate::tokens::Tokens;
use data::DataDirectory;
use reload::Reloader;
use socket::SocketFile;
use status::Status;

pub use compact::compact;
pub use data::InUse;
pub use first::FirstStart;
pub use openapi::document as openapi;
pub use reload::{Read, SetLog, Source};

/// The master key's file in the data directory, unless the configuration names another.
const MASTER_KEY: &str = "master.key";

/// How long requests on the admin socket may go on after the order to stop.
const SOCKET_DRAIN: Duration = Duration::from_secs(10);

/// A running server.
pub struct App {
    address: SocketAddr,
    demo: bool,
    first_start: Option<FirstStart>,
    reloader: Arc<Reloader>,
    stopping: CancellationToken,
    public: JoinHandle<()>,
    local: JoinHandle<()>,
    core: Core,
    // In this order: the socket goes, then the directory is let go.
    _socket: SocketFile,
    _data: DataDirectory,
}

/// What outlives the listeners.
struct Core {
    store: Store,
    registry: Registry,
    admissions: Admissions,
    telemetry: Telemetry,
}

impl App {
    /// Starts everything; when this returns, requests are served. `admin_token` is the token from now on; without it the
    /// one of the last start stays, and the first start makes one.
    /// `source` is where the configuration is read again.
    pub async fn start(config: Config, admin_token: Option<Secret>, source: Source) -> anyhow::Result<Self> {
        let started = Instant::now();
        let recorder = metrics::recorder();
        let clock: Clock = Arc::new(now_ms);
        let data = DataDirectory::open(&config.data)?;
        let secret = data.secret()?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        // Before anything is made that is shown only once: a start that fails from here on shows nothing.
        let (unix, socket) = socket::listen(data.path())?;

        let (store, named, host) = open_stores(&data, &config, clock.clone()).await?;
        let database = named.sql.get(stores::GATEWAY).context("the gateway's database is not there")?;
        let keys = Keys::open(database.clone(), &secret).await.context("cannot open the client keys")?;
        let tokens = Tokens::open(&store, &secret, clock.clone(), named.known());
        let tokens = tokens.context("cannot open the data tokens")?;
        let blobs = named.blobs();
        let admissions = Admissions::new(clock.clone());
        let registry = Registry::start(registry::Setup {
            store: store.clone(),
            data_dir: data.path().to_path_buf(),
            secret: Arc::new(secret),
            compiler: Compiler::of_this_program(),
            stores: Stores::new(named.kv.clone(), named.sql.clone())
                .with_blob(named.blob)
                .with_vector(named.vector.clone())
                .with_caches(named.cache.clone()),
            admissions: admissions.clone(),
            clock: clock.clone(),
            event_queue_bytes: config.storage.event_queue_bytes,
            disabled: config.plugins.iter().filter(|p| !p.enabled).map(|p| p.name.clone()).collect(),
            keep_versions: config.plugin_settings.keep_versions,
            trusted_keys: config.plugin_settings.trusted_keys.clone(),
        })
        .await
        .context("cannot start the plugins")?;
        plugins::push_configured(&registry, &config.plugins).await?;

        let trail = Trail::open(database.clone(), clock.clone(), config.audit_keep).await;
        let trail = trail.context("cannot open the audit log")?;
        let vault = Vault::open(database.clone(), master_key(&config.secrets, data.path())?, now_ms()).await;
        let accounts = Accounts::new(config.gateway.connect_timeout);
        let roster = Roster::open(accounts::Parts {
            database: database.clone(),
            vault: vault.context("cannot open what is kept encrypted")?,
            accounts: accounts.clone(),
            configured: config.accounts.clone(),
            clock: clock.clone(),
        })
        .await
        .context("cannot set up the accounts")?;
        let demo = roster.is_demo().await;
        let telemetry = Telemetry::start(config.telemetry.as_ref()).await?;
        let gateway = Gateway::new(gateway::Parts {
            keys: keys.clone(),
            accounts,
            admissions: admissions.clone(),
            mounts: registry.mounts(),
            events: registry.events(),
            prices: Prices::new(config.prices.clone()),
            settings: config.gateway.clone(),
            clock: clock.clone(),
            tracer: telemetry.tracer(),
        })
        .context("cannot set up the gateway")?;
        let status = Arc::new(Status {
            store: store.clone(),
            host: host.clone(),
            kv: named.kv.clone(),
            registry: registry.clone(),
            events: registry.events(),
            admissions: admissions.clone(),
            metrics: recorder,
            probed: Mutex::new(None),
        });
        let pruner = Pruner::new(database.clone(), clock.clone(), config.retention);
        let kept = stores::OF_CLIENTS.into_iter().filter_map(|name| named.kv.get(name).cloned()).collect();
        let erasure = Erasure::open(database.clone(), kept, clock.clone()).await;
        let erasure = erasure.context("cannot open the deletions of keys")?;
        let reloader = Arc::new(Reloader {
            source,
            current: Mutex::new(config),
            roster: roster.clone(),
            gateway: gateway.clone(),
            trail: trail.clone(),
            pruner: pruner.clone(),
        });
        let admin = Arc::new(Admin {
            keys: keys.clone(),
            tokens: tokens.clone(),
            registry: registry.clone(),
            store: store.clone(),
            reading: admin::Reading::default(),
            kv: named.kv.clone(),
            sql: named.sql.clone(),
            accounts: roster,
            erasure: erasure.clone(),
            trail: trail.clone(),
            reload: reloader.door(),
            started,
        });
        let (token, made_token) = first::admin_token(&host, &secret, admin_token.as_ref()).await?;
        let client_key = first::client_key(&host, &keys).await?;
        let first_start = client_key.map(|client_key| FirstStart { admin_token: made_token, client_key });

        let stopping = CancellationToken::new();
        let data_router = data_api::router(data_api::Stores {
            tokens,
            clock: clock.clone(),
            kv: named.kv,
            blob: blobs.clone(),
            sql: named.sql,
            vector: named.vector.clone(),
        });
        let ids = Arc::new(RequestIds::new().context("cannot make ids for requests")?);
        let identified = axum::middleware::from_fn_with_state(ids, told::identified);
        let router = gateway
            .router()
            .merge(status::router(status))
            .merge(openapi::router())
            .merge(data_router.layer(identified.clone()))
            .merge(admin::over_http(admin.clone(), token).layer(identified.clone()));
        let public = tokio::spawn(gateway::serve(listener, router, stopping.clone().cancelled_owned()));
        let local =
            tokio::spawn(serve_socket(unix, admin::over_socket(admin).layer(identified), stopping.clone()));
        tokio::spawn(stores::sweep(blobs, clock, stopping.clone()));
        tokio::spawn(plugins::record_own_changes(registry.clone(), trail.clone(), stopping.clone()));
        tokio::spawn(trail.prune(stopping.clone()));
        tokio::spawn(pruner.run(stopping.clone()));
        tokio::spawn(erasure.run(stopping.clone()));
        tokio::spawn(stores::clean(named.cache, stopping.clone()));
        tokio::spawn(stores::load(named.vector, stopping.clone()));
        Ok(Self {
            address,
            demo,
            first_start,
            reloader,
            stopping,
            public,
            local,
            core: Core { store, registry, admissions, telemetry },
            _socket: socket,
            _data: data,
        })
    }

    /// The address that requests are served on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the built-in demo upstream serves, since no account is configured.
    pub fn demo(&self) -> bool {
        self.demo
    }

    /// What this start made that is shown only once; `None` on later starts and the second time.
    pub fn take_first_start(&mut self) -> Option<FirstStart> {
        self.first_start.take()
    }

    /// Reads the configuration again, and lets what can change take over; what came of it is logged.
    pub async fn reload(&self) {
        self.reloader.on_signal().await;
    }

    /// Takes no more requests, lets those in flight finish, settles and records them, and closes the store.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stopping.cancel();
        if let Err(error) = self.public.await {
            tracing::error!(%error, "the listener ended badly");
        }
        let _ = tokio::time::timeout(SOCKET_DRAIN, self.local).await;
        self.core.stop().await
    }
}

impl Core {
    /// In the order in which one feeds the other: settlements write to stores, events go to ingestion, then the disk.
    async fn stop(self) -> anyhow::Result<()> {
        self.admissions.shutdown().await;
        self.registry.shutdown().await;
        self.store.flush().await.context("cannot write what was accepted")?;
        self.store.close().await.context("cannot close the store")?;
        // Last, so that nothing durable waits for a collector.
        self.telemetry.stop().await;
        Ok(())
    }
}

fn master_key(source: &MasterKeySource, data: &std::path::Path) -> anyhow::Result<MasterKey> {
    Ok(match source {
        MasterKeySource::Beside => MasterKey::File(data.join(MASTER_KEY)),
        MasterKeySource::File(path) => MasterKey::File(path.clone()),
        MasterKeySource::Given { digits, origin } => {
            let key = Key::parse(digits.expose());
            let key =
                key.with_context(|| format!("the master key from {origin} is not 64 hexadecimal digits"))?;
            MasterKey::Given { key, origin: origin.clone() }
        }
        MasterKeySource::Prompt => anyhow::bail!("the master key has not been asked for"),
    })
}

async fn open_stores(
    data: &DataDirectory,
    config: &Config,
    clock: Clock,
) -> anyhow::Result<(Store, stores::Named, tollgate_store::Kv)> {
    let (path, config) = (data.path().to_path_buf(), config.clone());
    let work = move || {
        let store = stores::main(&path, &config, &clock)?;
        let named = stores::open(&store, &config, &clock)?;
        let host = store.kv(stores::HOST, KvOptions::default())?;
        Ok((store, named, host))
    };
    tokio::task::spawn_blocking(work).await.context("opening the store did not come to its end")?
}

async fn serve_socket(listener: UnixListener, router: axum::Router, stopping: CancellationToken) {
    let router = router.layer(axum::middleware::from_fn(gateway::discard_unread));
    let server = axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "the admin socket ended badly");
    }
}

fn now_ms() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
