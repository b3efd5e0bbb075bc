//! The steps by which a component comes to serve: validate, compile, instantiate, `init`, canary.

use std::sync::Arc;

use tollgate_store::sql::SqlError;

use super::compiled::Compiled;
use super::jobs::Schedule;
use super::limits::{CANARY_ATTEMPTS, CANARY_CALL_WAIT, CANARY_CALLS, CANARY_FIRST_WAIT, CANARY_WAIT};
use super::signature::{Trust, Untrusted};
use super::versions::{Version, VersionError};
use super::{ActivePlugin, CallError, CanaryEnd, ComponentError, Engine, Generation, Identity, Manifest};
use crate::capability::Stores;

/// Why a push or rollback changed nothing. What served before serves on.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The component is larger than the host takes.
    #[error("the component has {size} bytes, more than {limit}")]
    TooLarge {
        /// Bytes sent.
        size: usize,
        /// Bytes taken.
        limit: usize,
    },
    /// The name is no plugin name, or not the manifest's.
    #[error("bad plugin name: {0}")]
    Name(String),
    /// The manifest is missing or wrong.
    #[error("bad manifest: {0}")]
    Manifest(String),
    /// The bytes are no component, or one that this host cannot run: wrong imports, grants or exports.
    #[error("not a plugin this host can run: {0}")]
    Component(String),
    /// Its manifest grants more than the present one, and nobody said that it may.
    #[error("its manifest grants more than the present one: {}; push it with --grant to grant that", .0.join(", "))]
    Grants(Vec<String>),
    /// Keys are configured, and it is not signed by one of them.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// It could not be instantiated, its `init` or `schedule` failed, or one of its first calls did.
    #[error("the new version did not start: {0}")]
    Start(String),
    /// Events go to one plugin, and another takes them. Were there two, one would get none, without a word.
    #[error(
        "{by:?} takes the events already, and only one plugin can; switch it off in the configuration first: \
         [[plugin]] name = {by:?}, enabled = false"
    )]
    Ingesting {
        /// The plugin that does.
        by: String,
    },
    /// Another plugin has the route.
    #[error("{by:?} answers under {route} already")]
    Route {
        /// The route.
        route: String,
        /// The plugin that has it.
        by: String,
    },
    /// It cannot be tried with a share of the requests.
    #[error("no canary: {0}")]
    Canary(String),
    /// There is no plugin of this name.
    #[error("there is no plugin {0:?}")]
    NoSuchPlugin(String),
    /// There is no such version to go back to, or the prefix fits several.
    #[error("{0}")]
    NoSuchVersion(String),
    /// The store did not answer; try again.
    #[error("try again: {0}")]
    Unavailable(String),
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Refusal::Unavailable(error.to_string())
    }
}

impl From<VersionError> for Refusal {
    fn from(error: VersionError) -> Self {
        match error {
            VersionError::NoComponent(_) => Refusal::NoSuchVersion(error.to_string()),
            other => Refusal::Unavailable(other.to_string()),
        }
    }
}

impl From<Untrusted> for Refusal {
    fn from(error: Untrusted) -> Self {
        Refusal::Untrusted(error)
    }
}

impl From<ComponentError> for Refusal {
    fn from(error: ComponentError) -> Self {
        match error {
            ComponentError::TooLarge { bytes, most } => Refusal::TooLarge { size: bytes, limit: most },
            ComponentError::NotCompiled(_) => Refusal::Unavailable(error.to_string()),
            other => Refusal::Component(other.to_string()),
        }
    }
}

/// Turns versions into generations.
pub(super) struct Loader {
    pub(super) engine: Engine,
    pub(super) compiled: Compiled,
    pub(super) stores: Stores,
    /// Asked about every component, wherever it comes from.
    pub(super) trust: Trust,
}

/// A generation that could serve.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) generation: Arc<Generation>,
    pub(super) schedule: Schedule,
}

impl Loader {
    /// Validates and compiles a version, on a thread for blocking work, and starts its first instance.
    pub(super) async fn load(&self, version: &Version, wasm: Arc<[u8]>) -> Result<Loaded, Refusal> {
        let manifest = read_manifest(&version.name, &version.manifest)?;
        let (compiled, digest, trust) = (self.compiled.clone(), version.digest.clone(), self.trust.clone());
        let compile = tokio::task::spawn_blocking(move || {
            trust.check(&wasm)?;
            Ok::<_, Refusal>(compiled.load(&digest, &wasm)?)
        });
        let (component, _) = compile.await.map_err(|error| Refusal::Component(error.to_string()))??;
        let identity = Identity { digest: version.digest.clone(), number: version.generation };
        let generation = Generation::new(&self.engine, &component, manifest, identity, &self.stores)?;
        generation.warm().await.map_err(|error| start("starting it", &error))?;
        let schedule = schedule(&generation).await?;
        Ok(Loaded { generation: Arc::new(generation), schedule })
    }
}

/// Prepares a version that never served.
pub(super) async fn init(generation: &Generation) -> Result<(), Refusal> {
    generation.init().await.map_err(|error| start("init", &error))
}

/// Lets the new generation answer the next admissions while the old one stands by. Without traffic it is over at once.
pub(super) async fn canary(plugin: &ActivePlugin, generation: &Arc<Generation>) -> Result<(), Refusal> {
    if !generation.hooks().admission || !plugin.current().hooks().admission {
        return Ok(());
    }
    for attempt in 1.. {
        match canary_end(plugin, generation).await {
            CanaryEnd::Passed | CanaryEnd::Quiet => break,
            // On a busy host any version overruns now and then; one that always does fails each time.
            CanaryEnd::Failed(CallError::Deadline(_)) if attempt < CANARY_ATTEMPTS => {}
            CanaryEnd::Failed(error) => {
                plugin.abandon();
                return Err(start("one of its first calls", &error));
            }
        }
    }
    Ok(())
}

async fn canary_end(plugin: &ActivePlugin, generation: &Arc<Generation>) -> CanaryEnd {
    let before = generation.counters().calls;
    let canary = plugin.start_canary(generation.clone(), CANARY_CALLS);
    match canary.ended(CANARY_FIRST_WAIT).await {
        CanaryEnd::Quiet if generation.counters().calls > before => {
            // Long enough that the first call ends, one way or the other.
            let call = generation.manifest().limits.admit_deadline.min(CANARY_CALL_WAIT);
            canary.ended(CANARY_WAIT + call).await
        }
        end => end,
    }
}

/// Reads the manifest of the plugin called `name`.
pub(super) fn read_manifest(name: &str, text: &str) -> Result<Manifest, Refusal> {
    let manifest = Manifest::parse(text).map_err(|error| Refusal::Manifest(error.to_string()))?;
    if manifest.name != name {
        return Err(Refusal::Name(format!("{name:?} is pushed with the manifest of {:?}", manifest.name)));
    }
    Ok(manifest)
}

async fn schedule(generation: &Generation) -> Result<Schedule, Refusal> {
    if !generation.hooks().jobs {
        return Ok(Schedule::default());
    }
    let jobs = generation.schedule().await.map_err(|error| start("schedule", &error))?;
    Schedule::new(jobs).map_err(|reason| Refusal::Start(format!("its schedule {reason}")))
}

fn start(what: &str, error: &CallError) -> Refusal {
    Refusal::Start(format!("{what}: {error}"))
}
