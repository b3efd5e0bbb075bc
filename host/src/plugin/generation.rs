//! One loaded version of a plugin: a pool of instances behind typed calls.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, SemaphorePermit};
use tokio::time::error::Elapsed;
use tokio::time::timeout_at;
use wasmtime::component::Component;

use super::admission::{Decision, Request, Subject};
use super::component::{ComponentError, Hooks, Inspection};
use super::ingestion::{Event, Receipt};
use super::instance::{Blueprint, CallTime, Instance, Overrun, no_hook};
use super::job::{Budget, Job, Report};
use super::log::PluginLog;
use super::manifest::Manifest;
use super::meter::{Counters, Meter};
use super::pool::Pool;
use super::settle::Settlement;
use super::{Engine, cut, limits};
use crate::capability::Stores;

/// Which version a generation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// Grows with each push of the plugin.
    pub number: u64,
}

/// A hook function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `admission.admit`
    Admit,
    /// `admission.settle`
    Settle,
    /// `ingestion.ingest`
    Ingest,
    /// `jobs.schedule`
    Schedule,
    /// `jobs.run`
    Run,
    /// `lifecycle.init`
    Init,
}

/// Why a call of a guest brought no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// It trapped, or ran into its memory limit; the instance is gone.
    #[error("trapped: {0}")]
    Trap(String),
    /// It overran its deadline; the instance is gone.
    #[error("ran over its deadline of {} ms", .0.as_millis())]
    Deadline(Duration),
    /// It answered with an error.
    #[error("failed: {0}")]
    Guest(String),
    /// All instances stayed in use; nothing was called.
    #[error("all instances are in use")]
    Busy,
    /// The component has no such hook.
    #[error("has no hook {0:?}")]
    NoHook(Hook),
}

/// One loaded version of a plugin. Dropping the last reference ends it: calls in flight hold one.
pub struct Generation {
    name: Arc<str>,
    identity: Identity,
    manifest: Manifest,
    hooks: Hooks,
    blueprint: Blueprint,
    pool: Pool,
    meter: Meter,
    failure: Notify,
}

/// A call under way: dropped with it, by a caller that gave up, the instance is gone.
struct Running<'a> {
    instance: Instance,
    time: CallTime,
    _slot: SemaphorePermit<'a>,
}

/// What came of a call: in time or not, trapped or not, an answer or the guest's own error.
type Outcome<T> = Result<wasmtime::Result<Result<T, String>>, Elapsed>;

impl Generation {
    /// Checks a component against its manifest and the stores there are, and prepares its instances; starts none.
    pub fn new(
        engine: &Engine,
        component: &Component,
        manifest: Manifest,
        identity: Identity,
        stores: &Stores,
    ) -> Result<Generation, ComponentError> {
        let inspection = Inspection::of(engine, component)?;
        inspection.check_grants(&manifest.grants)?;
        let granted = stores.granted(&manifest.grants)?;
        let name: Arc<str> = Arc::from(manifest.name.as_str());
        let log = PluginLog::new(name.clone());
        let memory = manifest.limits.memory_bytes;
        let blueprint = Blueprint::new(engine, component, inspection.hooks, granted, log, memory)?;
        Ok(Generation {
            identity,
            hooks: inspection.hooks,
            blueprint,
            pool: Pool::new(manifest.limits.instances),
            meter: Meter::new(&name),
            failure: Notify::new(),
            name,
            manifest,
        })
    }

    /// The plugin's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Which version this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The manifest it was loaded with.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The hooks it has.
    pub fn hooks(&self) -> Hooks {
        self.hooks
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.meter.counters()
    }

    /// Ends with the next trap, overrun or error of this generation, or at once after one that nobody has waited for.
    /// For one listener.
    pub async fn failed(&self) {
        self.failure.notified().await;
    }

    /// Starts one instance and keeps it, as a last check before the generation serves.
    pub async fn warm(&self) -> Result<(), CallError> {
        let running = self.begin(Hook::Init, self.manifest.limits.init_deadline).await?;
        self.pool.put(running.instance);
        Ok(())
    }

    /// Asks for one decision for each subject.
    pub async fn admit(
        &self,
        request: Arc<Request>,
        subjects: Arc<[Arc<Subject>]>,
    ) -> Result<Vec<Decision>, CallError> {
        let mut running = self.begin(Hook::Admit, self.manifest.limits.admit_deadline).await?;
        let outcome = timeout_at(running.time.until.into(), running.instance.admit(request, subjects)).await;
        self.finish(Hook::Admit, running, outcome)
    }

    /// Settles allows.
    pub async fn settle(&self, settlements: Arc<Vec<Settlement>>) -> Result<(), CallError> {
        let mut running = self.begin(Hook::Settle, self.manifest.limits.settle_deadline).await?;
        let outcome = timeout_at(running.time.until.into(), running.instance.settle(settlements)).await;
        self.finish(Hook::Settle, running, outcome)
    }

    /// Stores a batch of events.
    pub async fn ingest(&self, events: &[Event]) -> Result<Receipt, CallError> {
        let mut running = self.begin(Hook::Ingest, self.manifest.limits.ingest_deadline).await?;
        let call = async |instance: &mut Instance| {
            let Some(hook) = instance.ingestion.clone() else { return Err(no_hook()) };
            hook.call_ingest(instance.store(), events).await
        };
        let outcome = timeout_at(running.time.until.into(), call(&mut running.instance)).await;
        self.finish(Hook::Ingest, running, outcome)
    }

    /// The jobs there are.
    pub async fn schedule(&self) -> Result<Vec<Job>, CallError> {
        let mut running = self.begin(Hook::Schedule, limits::SCHEDULE_DEADLINE).await?;
        let call = async |instance: &mut Instance| {
            let Some(hook) = instance.jobs.clone() else { return Err(no_hook()) };
            hook.call_schedule(instance.store()).await.map(Ok)
        };
        let outcome = timeout_at(running.time.until.into(), call(&mut running.instance)).await;
        self.finish(Hook::Schedule, running, outcome)
    }

    /// Runs a job within the manifest's deadline for jobs.
    pub async fn run_job(&self, name: &str, now_ms: u64) -> Result<Report, CallError> {
        let limit = self.manifest.limits.job_deadline;
        let mut running = self.begin(Hook::Run, limit).await?;
        let deadline_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let call = async |instance: &mut Instance| {
            let Some(hook) = instance.jobs.clone() else { return Err(no_hook()) };
            hook.call_run(instance.store(), name, Budget { now_ms, deadline_ms }).await
        };
        let outcome = timeout_at(running.time.until.into(), call(&mut running.instance)).await;
        self.finish(Hook::Run, running, outcome)
    }

    /// Prepares the version; nothing to do where the component has no such hook.
    pub async fn init(&self) -> Result<(), CallError> {
        if !self.hooks.lifecycle {
            return Ok(());
        }
        let mut running = self.begin(Hook::Init, self.manifest.limits.init_deadline).await?;
        let call = async |instance: &mut Instance| {
            let Some(hook) = instance.lifecycle.clone() else { return Err(no_hook()) };
            hook.call_init(instance.store()).await
        };
        let outcome = timeout_at(running.time.until.into(), call(&mut running.instance)).await;
        self.finish(Hook::Init, running, outcome)
    }

    async fn begin(&self, hook: Hook, limit: Duration) -> Result<Running<'_>, CallError> {
        if !hook.is_among(self.hooks) {
            return Err(CallError::NoHook(hook));
        }
        let time = CallTime::starting_now(limit);
        // Half of the time is left for the call itself.
        let slot = self.pool.slot(time.began + (limit + limits::WAITING) / 2).await;
        let slot = slot.ok_or_else(|| self.failed_with(hook, CallError::Busy))?;
        self.meter.started(hook);
        let mut instance = match self.pool.take() {
            Some(instance) => instance,
            None => self.start(hook, time).await?,
        };
        instance.begin(time);
        Ok(Running { instance, time, _slot: slot })
    }

    async fn start(&self, hook: Hook, time: CallTime) -> Result<Instance, CallError> {
        let error = match timeout_at(time.until.into(), self.blueprint.start(time)).await {
            Ok(Ok(instance)) => return Ok(instance),
            Ok(Err(error)) if error.is::<wasmtime::PoolConcurrencyLimitError>() => CallError::Busy,
            Ok(Err(error)) => trap(&error, None, time.limit),
            Err(_) => CallError::Deadline(time.limit),
        };
        Err(self.failed_with(hook, error))
    }

    /// Gives the instance back, unless the call left it in an unknown state.
    fn finish<T>(&self, hook: Hook, running: Running<'_>, outcome: Outcome<T>) -> Result<T, CallError> {
        let CallTime { began, limit, .. } = running.time;
        self.meter.ended(hook, began.elapsed());
        let answer = match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let memory = running.instance.exhausted_memory();
                return Err(self.failed_with(hook, trap(&error, memory, limit)));
            }
            Err(_) => return Err(self.failed_with(hook, CallError::Deadline(limit))),
        };
        self.pool.put(running.instance);
        answer.map_err(|text| self.failed_with(hook, CallError::Guest(cut(text, limits::TEXT_BYTES))))
    }

    fn failed_with(&self, hook: Hook, error: CallError) -> CallError {
        self.meter.failed(hook, &error);
        if error == CallError::Busy {
            return error;
        }
        self.failure.notify_one();
        if self.blueprint.log.admits() {
            let (plugin, generation) = (&*self.name, self.identity.number);
            tracing::warn!(plugin, generation, ?hook, %error, "a plugin call failed");
        }
        error
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.pool.idle()
    }
}

/// What ended a guest: its own trap, the engine's, or a limit.
fn trap(error: &wasmtime::Error, exhausted_memory: Option<usize>, limit: Duration) -> CallError {
    if error.is::<Overrun>() {
        return CallError::Deadline(limit);
    }
    let text = format!("{}", error.root_cause());
    tracing::debug!(error = format!("{error:?}"), "a guest ended in a trap");
    match exhausted_memory {
        Some(bytes) => CallError::Trap(format!("out of its {bytes} bytes of memory ({text})")),
        None => CallError::Trap(cut(text, limits::TEXT_BYTES)),
    }
}

impl Hook {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Hook; 6] =
        [Hook::Admit, Hook::Settle, Hook::Ingest, Hook::Schedule, Hook::Run, Hook::Init];

    /// The function's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Hook::Admit => "admit",
            Hook::Settle => "settle",
            Hook::Ingest => "ingest",
            Hook::Schedule => "schedule",
            Hook::Run => "run",
            Hook::Init => "init",
        }
    }

    fn is_among(self, hooks: Hooks) -> bool {
        match self {
            Hook::Admit | Hook::Settle => hooks.admission,
            Hook::Ingest => hooks.ingestion,
            Hook::Schedule | Hook::Run => hooks.jobs,
            Hook::Init => true,
        }
    }
}
