//! One instance of a component and what the host keeps for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, ResourceTable, TypedFunc};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::admission::{Decision, Request, Subject};
use super::bindings::{ingestion, jobs, lifecycle};
use super::component::{ADMISSION, ComponentError, Hooks};
use super::log::{PluginLog, Stream};
use super::settle::Settlement;
use super::{Engine, limits};
use crate::capability::{Budget, Granted, Host};

use ingestion::exports::tollgate::policy::ingestion as ingest_hook;
use jobs::exports::tollgate::policy::jobs as jobs_hook;
use lifecycle::exports::tollgate::policy::lifecycle as lifecycle_hook;

type Admit = TypedFunc<(Arc<Request>, Arc<[Arc<Subject>]>), (Result<Vec<Decision>, String>,)>;
type Settle = TypedFunc<(Arc<Vec<Settlement>>,), (Result<(), String>,)>;

/// The deadline of the running call is over.
#[derive(Clone, Copy, Debug, Error)]
#[error("the call ran over its deadline")]
pub(crate) struct Overrun;

/// The time of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTime {
    /// When it began to wait for an instance.
    pub(crate) began: Instant,
    /// How long its guest may run.
    pub(crate) limit: Duration,
    /// When it ends in any case, waiting included.
    pub(crate) until: Instant,
}

impl CallTime {
    pub(crate) fn starting_now(limit: Duration) -> CallTime {
        let began = Instant::now();
        CallTime { began, limit, until: began + limit + limits::WAITING }
    }

    /// One more than fit into the limit, since the first may come at once.
    fn ticks(self) -> u64 {
        let ticks = self.limit.as_micros() / limits::TICK.as_micros();
        u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// What host functions see of the instance that calls them.
pub(crate) struct HostState {
    granted: Arc<Granted>,
    table: ResourceTable,
    budget: Budget,
    /// Ticks that the running call may still see while the guest runs.
    ticks: u64,
    wasi: WasiCtx,
    memory: MemoryLimit,
}

impl Host for HostState {
    fn parts(&mut self) -> (&Granted, &mut ResourceTable, &mut Budget) {
        (&self.granted, &mut self.table, &mut self.budget)
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Everything that instances of one generation share.
pub(crate) struct Blueprint {
    engine: Engine,
    instances: InstancePre<HostState>,
    exports: Exports,
    granted: Arc<Granted>,
    pub(crate) log: Arc<PluginLog>,
    memory_bytes: usize,
}

/// Where the hooks are in the component; looked up by name once.
struct Exports {
    admission: Option<(ComponentExportIndex, ComponentExportIndex)>,
    ingestion: Option<ingest_hook::GuestIndices>,
    jobs: Option<jobs_hook::GuestIndices>,
    lifecycle: Option<lifecycle_hook::GuestIndices>,
}

/// One instance, for one call at a time.
pub(crate) struct Instance {
    store: Store<HostState>,
    admission: Option<(Admit, Settle)>,
    pub(crate) ingestion: Option<ingest_hook::Guest>,
    pub(crate) jobs: Option<jobs_hook::Guest>,
    pub(crate) lifecycle: Option<lifecycle_hook::Guest>,
    /// Calls it has begun.
    pub(crate) calls: u32,
}

impl Blueprint {
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        hooks: Hooks,
        granted: Granted,
        log: PluginLog,
        memory_bytes: usize,
    ) -> Result<Blueprint, ComponentError> {
        let unfit = |error: wasmtime::Error| ComponentError::Unfit(format!("{error:#}"));
        let instances = engine.linker().instantiate_pre(component).map_err(unfit)?;
        let exports = Exports::find(&instances, hooks).map_err(unfit)?;
        Ok(Blueprint {
            engine: engine.clone(),
            instances,
            exports,
            granted: Arc::new(granted),
            log: Arc::new(log),
            memory_bytes,
        })
    }

    /// Starts an instance. What the component does when it starts must end by the deadline too.
    pub(crate) async fn start(&self, time: CallTime) -> wasmtime::Result<Instance> {
        let mut store = Store::new(self.engine.wasm(), self.state(time));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits::HOST_CALL_BYTES);
        store.epoch_deadline_callback(end_or_yield);
        store.set_epoch_deadline(1);
        let instance = self.instances.instantiate_async(&mut store).await?;
        let Exports { admission, ingestion, jobs, lifecycle } = &self.exports;
        let admission = match admission {
            Some((admit, settle)) => Some((
                instance.get_typed_func(&mut store, admit)?,
                instance.get_typed_func(&mut store, settle)?,
            )),
            None => None,
        };
        let ingestion = ingestion.as_ref().map(|hook| hook.load(&mut store, &instance)).transpose()?;
        let jobs = jobs.as_ref().map(|hook| hook.load(&mut store, &instance)).transpose()?;
        let lifecycle = lifecycle.as_ref().map(|hook| hook.load(&mut store, &instance)).transpose()?;
        Ok(Instance { store, admission, ingestion, jobs, lifecycle, calls: 0 })
    }

    fn state(&self, time: CallTime) -> HostState {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::HANDLES);
        let wasi = WasiCtx::builder()
            .stdout(Stream::new(self.log.clone(), "stdout"))
            .stderr(Stream::new(self.log.clone(), "stderr"))
            .max_random_size(limits::RANDOM_BYTES)
            .build();
        HostState {
            granted: self.granted.clone(),
            table,
            budget: Budget::until(time.until),
            ticks: time.ticks(),
            wasi,
            memory: MemoryLimit { left: self.memory_bytes, limit: self.memory_bytes, refused: false },
        }
    }
}

impl Exports {
    fn find(instances: &InstancePre<HostState>, hooks: Hooks) -> wasmtime::Result<Exports> {
        let component = instances.component();
        let admission = component.get_export_index(None, ADMISSION);
        let function =
            |name| admission.as_ref().and_then(|hook| component.get_export_index(Some(hook), name));
        Ok(Exports {
            admission: function("admit").zip(function("settle")),
            ingestion: hooks.ingestion.then(|| ingest_hook::GuestIndices::new(instances)).transpose()?,
            jobs: hooks.jobs.then(|| jobs_hook::GuestIndices::new(instances)).transpose()?,
            lifecycle: hooks.lifecycle.then(|| lifecycle_hook::GuestIndices::new(instances)).transpose()?,
        })
    }
}

impl Instance {
    /// Begins a call with a full budget.
    pub(crate) fn begin(&mut self, time: CallTime) {
        self.calls = self.calls.saturating_add(1);
        let state = self.store.data_mut();
        state.budget = Budget::until(time.until);
        state.ticks = time.ticks();
        self.store.set_epoch_deadline(1);
    }

    pub(crate) fn store(&mut self) -> &mut Store<HostState> {
        &mut self.store
    }

    pub(crate) async fn admit(
        &mut self,
        request: Arc<Request>,
        subjects: Arc<[Arc<Subject>]>,
    ) -> wasmtime::Result<Result<Vec<Decision>, String>> {
        let Some((admit, _)) = self.admission else { return Err(no_hook()) };
        Ok(admit.call_async(&mut self.store, (request, subjects)).await?.0)
    }

    pub(crate) async fn settle(
        &mut self,
        settlements: Arc<Vec<Settlement>>,
    ) -> wasmtime::Result<Result<(), String>> {
        let Some((_, settle)) = self.admission else { return Err(no_hook()) };
        Ok(settle.call_async(&mut self.store, (settlements,)).await?.0)
    }

    /// The memory limit, if the instance has run into it.
    pub(crate) fn exhausted_memory(&self) -> Option<usize> {
        let memory = &self.store.data().memory;
        memory.refused.then_some(memory.limit)
    }
}

pub(crate) fn no_hook() -> wasmtime::Error {
    wasmtime::format_err!("the component has no such hook")
}

/// Called at each tick in which the guest still runs: other tasks get their turn, until the deadline.
fn end_or_yield(mut store: StoreContextMut<'_, HostState>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    state.ticks = state.ticks.saturating_sub(1);
    if state.ticks == 0 || Instant::now() >= state.budget.deadline() {
        return Err(Overrun.into());
    }
    Ok(UpdateDeadline::Yield(1))
}

/// Linear memory of an instance; a refused growth is remembered, to tell why the guest gave up.
struct MemoryLimit {
    left: usize,
    limit: usize,
    refused: bool,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let Some(left) = self.left.checked_sub(desired.saturating_sub(current)) else {
            self.refused = true;
            return Ok(false);
        };
        self.left = left;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= limits::TABLE_ELEMENTS)
    }
}
