//! One loaded version of a plugin: a pool of instances behind typed calls.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::timeout_at;
use wasmtime::component::Component;

use super::admission::{Decision, Request, Subject};
use super::component::{ComponentError, Hooks, Inspection};
use super::http::{Answering, Asked};
use super::ingestion::{Event, Receipt};
use super::instance::{Blueprint, CallTime, Instance, Overrun, no_hook};
use super::job::{Budget, Job, Report};
use super::lane::{Pace, Start, Turns};
use super::manifest::Manifest;
use super::meter::{Counters, Limit, Meter, Tally};
use super::pool::Pool;
use super::settle::Settlement;
use super::{Engine, cut, limits};
use crate::capability::{Allowance, Stores};

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
    /// `handle` of `wasi:http/incoming-handler`
    Handle,
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

impl CallError {
    /// Whether it took too long.
    pub fn is_overrun(&self) -> bool {
        matches!(self, CallError::Deadline(_))
    }
}

/// One loaded version of a plugin. Dropping the last reference ends it: calls in flight hold one.
pub struct Generation {
    name: Arc<str>,
    identity: Identity,
    manifest: Manifest,
    hooks: Hooks,
    blueprint: Arc<Blueprint>,
    pool: Pool,
    paces: Paces,
    turns: Turns,
    meter: Meter,
    failure: Notify,
}

/// How the calls on requests' way went lately.
#[derive(Default)]
struct Paces {
    admit: Pace,
    settle: Pace,
    handle: Pace,
}

/// What came of a call: a trap, the guest's own error, or an answer.
type Answer<T> = wasmtime::Result<Result<T, String>>;

/// What a call leaves when its guest has ended.
struct Left<T> {
    /// To be kept; none after a trap.
    instance: Option<Instance>,
    bytes_moved: usize,
    /// The limit on growing that it ran into, as a sentence.
    outgrown: Option<String>,
    answer: Answer<T>,
}

impl<T> Left<T> {
    /// Drops an instance that trapped where its guest ran: it may have much memory to give back, and in the lane nobody
    /// waits for that.
    fn by((mut instance, answer): (Instance, Answer<T>)) -> Left<T> {
        instance.end();
        let bytes_moved = instance.bytes_moved();
        let outgrown = instance.outgrown().filter(|_| answer.is_err());
        Left { instance: answer.is_ok().then_some(instance), bytes_moved, outgrown, answer }
    }
}

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
        inspection.check_manifest(&manifest)?;
        let granted = stores.granted(&manifest)?;
        let name: Arc<str> = Arc::from(manifest.name.as_str());
        let tally = Arc::new(Tally::new(&name));
        let blueprint = Blueprint::new(engine, component, inspection.hooks, granted, tally, &manifest)?;
        Ok(Generation {
            identity,
            hooks: inspection.hooks,
            blueprint: Arc::new(blueprint),
            pool: Pool::new(manifest.limits.instances),
            paces: Paces::default(),
            turns: Turns::default(),
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
        let limit = self.manifest.limits.init_deadline;
        self.call(Hook::Init, limit, |instance| async { (instance, Ok(Ok(()))) }).await
    }

    /// Asks for one decision for each subject.
    pub async fn admit(
        &self,
        request: Arc<Request>,
        subjects: Arc<[Arc<Subject>]>,
    ) -> Result<Vec<Decision>, CallError> {
        let call = |mut instance: Instance| async move {
            let answer = instance.admit(request, subjects).await;
            (instance, answer)
        };
        self.call(Hook::Admit, self.manifest.limits.admit_deadline, call).await
    }

    /// Settles allows.
    pub async fn settle(&self, settlements: Arc<Vec<Settlement>>) -> Result<(), CallError> {
        let call = |mut instance: Instance| async move {
            let answer = instance.settle(settlements).await;
            (instance, answer)
        };
        self.call(Hook::Settle, self.manifest.limits.settle_deadline, call).await
    }

    /// Stores a batch of events.
    pub async fn ingest(&self, events: Arc<[Event]>) -> Result<Receipt, CallError> {
        let call = |mut instance: Instance| async move {
            let answer = match instance.ingestion.clone() {
                Some(hook) => hook.call_ingest(instance.store(), &events).await,
                None => Err(no_hook()),
            };
            (instance, answer)
        };
        self.call(Hook::Ingest, self.manifest.limits.ingest_deadline, call).await
    }

    /// Answers a request under the plugin's route. Returns when the guest has ended, long after the head of its answer perhaps.
    pub(crate) async fn handle(&self, request: Asked, answering: Answering) -> Result<(), CallError> {
        let call = |mut instance: Instance| async move {
            let answer = instance.handle(request, answering).await;
            (instance, answer.map(Ok))
        };
        self.call(Hook::Handle, self.manifest.limits.http_deadline, call).await
    }

    /// The jobs there are.
    pub async fn schedule(&self) -> Result<Vec<Job>, CallError> {
        let call = |mut instance: Instance| async move {
            let answer = match instance.jobs.clone() {
                Some(hook) => hook.call_schedule(instance.store()).await.map(Ok),
                None => Err(no_hook()),
            };
            (instance, answer)
        };
        self.call(Hook::Schedule, limits::SCHEDULE_DEADLINE, call).await
    }

    /// Runs a job within the manifest's deadline for jobs.
    pub async fn run_job(&self, name: &str, now_ms: u64) -> Result<Report, CallError> {
        let limit = self.manifest.limits.job_deadline;
        let deadline_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let name = name.to_owned();
        let call = move |mut instance: Instance| async move {
            let answer = match instance.jobs.clone() {
                Some(hook) => hook.call_run(instance.store(), &name, Budget { now_ms, deadline_ms }).await,
                None => Err(no_hook()),
            };
            (instance, answer)
        };
        self.call(Hook::Run, limit, call).await
    }

    /// Prepares the version; nothing to do where the component has no such hook.
    pub async fn init(&self) -> Result<(), CallError> {
        if !self.hooks.lifecycle {
            return Ok(());
        }
        let call = |mut instance: Instance| async move {
            let answer = match instance.lifecycle.clone() {
                Some(hook) => hook.call_init(instance.store()).await,
                None => Err(no_hook()),
            };
            (instance, answer)
        };
        self.call(Hook::Init, self.manifest.limits.init_deadline, call).await
    }

    /// Makes one call with an instance that is warm or started for it. Dropped before its end, the instance is gone.
    async fn call<T, F, C>(&self, hook: Hook, limit: Duration, call: C) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: Future<Output = (Instance, Answer<T>)> + Send,
        C: FnOnce(Instance) -> F + Send + 'static,
    {
        if !hook.is_among(self.hooks) {
            return Err(CallError::NoHook(hook));
        }
        let time = CallTime::starting_now(limit, hook.waiting(), hook.allowance());
        // Half of the time is left for the call itself.
        let slot = self.pool.slot(time.began + (limit + limits::WAITING) / 2).await;
        let _slot = slot.ok_or_else(|| self.failed_with(hook, CallError::Busy))?;
        self.meter.started(hook);
        self.blueprint.engine().ticker().called();
        let warm = if hook.keeps_instances() { self.pool.take() } else { None };
        let blueprint = self.blueprint.clone();
        let call = async move {
            let mut instance = match warm {
                Some(instance) => instance,
                None => blueprint.start(time).await?,
            };
            instance.begin(time);
            Ok(Left::by(call(instance).await))
        };
        let Paces { admit, settle, handle } = &self.paces;
        let (start, pace) = match hook {
            Hook::Admit => (Start::Here(admit), Some(admit)),
            Hook::Settle => (Start::Here(settle), Some(settle)),
            Hook::Handle => (Start::Here(handle), Some(handle)),
            Hook::Ingest => (Start::Stay, None),
            Hook::Schedule | Hook::Run | Hook::Init => (Start::Lane, None),
        };
        let lane = self.blueprint.engine().lane();
        let ran = timeout_at(time.until.into(), lane.run(start, &self.turns, Box::pin(call))).await;
        self.meter.ended(hook, time.began.elapsed());
        let (ended, in_lane) = match ran {
            Ok(Ok(ended)) => (ended.output, ended.in_lane),
            Ok(Err(error)) => return Err(self.failed_with(hook, CallError::Trap(error.to_string()))),
            Err(_) => {
                self.hit(Limit::Waiting);
                return Err(self.failed_with(hook, CallError::Deadline(limit)));
            }
        };
        let failed =
            |error: wasmtime::Error, outgrown| self.failed_with(hook, self.trap(&error, outgrown, time));
        let left: Left<T> = ended.map_err(|error| failed(error, None))?;
        if let Some(pace) = pace {
            pace.ran(in_lane, left.bytes_moved);
        }
        if let Some(instance) = left.instance.filter(|_| hook.keeps_instances()) {
            self.pool.put(instance);
        }
        let answer = left.answer.map_err(|error| failed(error, left.outgrown))?;
        answer.map_err(|text| self.failed_with(hook, CallError::Guest(cut(text, limits::TEXT_BYTES))))
    }

    /// What ended a guest, or kept it from starting: its own trap, the engine's, or a limit.
    fn trap(&self, error: &wasmtime::Error, outgrown: Option<String>, time: CallTime) -> CallError {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return CallError::Busy;
        }
        if let Some(overrun) = error.downcast_ref::<Overrun>() {
            self.hit(if overrun.waiting { Limit::Waiting } else { Limit::Deadline });
            return CallError::Deadline(time.limit);
        }
        let text = format!("{}", error.root_cause());
        tracing::debug!(error = format!("{error:?}"), "a guest ended in a trap");
        if let Some(outgrown) = outgrown {
            return CallError::Trap(format!("{outgrown} ({text})"));
        }
        if error.downcast_ref() == Some(&wasmtime::Trap::StackOverflow) {
            self.hit(Limit::Stack);
            return CallError::Trap(format!("out of its {} bytes of stack", limits::STACK_BYTES));
        }
        // The engine has no type for it that is public.
        if text.contains("fuel allocated for hostcalls") {
            self.hit(Limit::CallBytes);
            let most = time.call_bytes();
            return CallError::Trap(format!("it passes more than {most} bytes to the host at once"));
        }
        CallError::Trap(cut(text, limits::TEXT_BYTES))
    }

    /// What its instances use and run into.
    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.blueprint.tally
    }

    /// Takes note of a limit that the plugin has run into.
    pub(crate) fn hit(&self, limit: Limit) {
        self.tally().hit(limit);
    }

    fn failed_with(&self, hook: Hook, error: CallError) -> CallError {
        self.meter.failed(hook, &error);
        if error == CallError::Busy {
            self.hit(Limit::Instances);
            return error;
        }
        self.failure.notify_one();
        if self.blueprint.log.admits() {
            let (plugin, generation) = (&*self.name, self.identity.number);
            tracing::warn!(plugin, generation, ?hook, %error, "a plugin call failed");
            self.blueprint.log.note(&format!("generation {generation}: {} {error}", hook.name()));
        }
        error
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.pool.idle()
    }
}

impl Hook {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Hook; 7] =
        [Hook::Admit, Hook::Settle, Hook::Ingest, Hook::Schedule, Hook::Run, Hook::Init, Hook::Handle];

    /// The function's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Hook::Admit => "admit",
            Hook::Settle => "settle",
            Hook::Ingest => "ingest",
            Hook::Schedule => "schedule",
            Hook::Run => "run",
            Hook::Init => "init",
            Hook::Handle => "handle",
        }
    }

    fn allowance(self) -> Allowance {
        match self {
            Hook::Admit | Hook::Settle | Hook::Schedule => Allowance::POLICY,
            // An answer may carry a whole object out of a store.
            Hook::Ingest | Hook::Run | Hook::Handle => Allowance::WORK,
            Hook::Init => Allowance::INIT,
        }
    }

    /// What a call may take beyond its running time, by the clock on the wall.
    fn waiting(self) -> Duration {
        match self {
            // By then its client has been told, or has gone: no client makes a guest overrun.
            Hook::Handle => limits::HTTP_TOTAL + limits::WAITING,
            _ => limits::WAITING,
        }
    }

    /// Whether an instance serves one call after another. Components for other hosts count on one for each request.
    fn keeps_instances(self) -> bool {
        self != Hook::Handle
    }

    fn is_among(self, hooks: Hooks) -> bool {
        match self {
            Hook::Admit | Hook::Settle => hooks.admission,
            Hook::Ingest => hooks.ingestion,
            Hook::Schedule | Hook::Run => hooks.jobs,
            Hook::Init => true,
            Hook::Handle => hooks.http,
        }
    }
}
