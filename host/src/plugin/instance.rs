//! One instance of a component and what the host keeps for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, ResourceTable, TypedFunc};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler as http_hook;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::admission::{Decision, Request, Subject};
use super::bindings::{ingestion, jobs, lifecycle};
use super::component::{ADMISSION, ComponentError, Hooks};
use super::http::{Answering, Asked, Exchange, Sender};
use super::lane::Seen;
use super::log::{PluginLog, Stream};
use super::manifest::Manifest;
use super::meter::{Limit, Tally};
use super::settle::Settlement;
use super::ticker::Pulse;
use super::{Engine, lane, limits};
use crate::capability::{Allowance, Budget, Granted, Host};

use ingestion::exports::tollgate::policy::ingestion as ingest_hook;
use jobs::exports::tollgate::policy::jobs as jobs_hook;
use lifecycle::exports::tollgate::policy::lifecycle as lifecycle_hook;

type Admit = TypedFunc<(Arc<Request>, Arc<[Arc<Subject>]>), (Result<Vec<Decision>, String>,)>;
type Settle = TypedFunc<(Arc<Vec<Settlement>>,), (Result<(), String>,)>;

/// The deadline of the running call is over.
#[derive(Clone, Copy, Debug, Error)]
#[error("the call ran over its deadline")]
pub(crate) struct Overrun {
    /// By the time that it waited, and not by its own running.
    pub(crate) waiting: bool,
}

/// The time of one call, and what the host does for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTime {
    /// When it began to wait for an instance.
    pub(crate) began: Instant,
    /// How long its guest may run.
    pub(crate) limit: Duration,
    /// When it ends in any case, waiting included.
    pub(crate) until: Instant,
    /// What the host does for it.
    pub(crate) allowance: Allowance,
}

impl CallTime {
    pub(crate) fn starting_now(limit: Duration, waiting: Duration, allowance: Allowance) -> CallTime {
        let began = Instant::now();
        CallTime { began, limit, until: began + limit + waiting, allowance }
    }

    /// Bytes that the guest may pass to the host at once.
    pub(crate) fn call_bytes(self) -> usize {
        limits::HOST_CALL_BYTES.min(self.allowance.bytes)
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
    log: Arc<PluginLog>,
    table: ResourceTable,
    budget: Budget,
    /// `TICK`s that the running call's guest may still run.
    ticks: u64,
    /// Whether the running call has seen a tick, the first of which may come at once, however long it is.
    ticked: bool,
    pulse: Arc<Pulse>,
    wasi: WasiCtx,
    http: Exchange,
    memory: MemoryLimit,
}

impl HostState {
    /// Has so many bytes that the host holds for the guest count as its memory; false: it has no room for them.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        self.memory.hold(bytes)
    }
}

impl Host for HostState {
    fn parts(&mut self) -> (&Granted, &mut ResourceTable, &mut Budget) {
        (&self.granted, &mut self.table, &mut self.budget)
    }

    fn log(&mut self) -> (&PluginLog, &mut Budget) {
        (&self.log, &mut self.budget)
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for HostState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.http.view(&mut self.table)
    }
}

/// Everything that instances of one generation share.
pub(crate) struct Blueprint {
    engine: Engine,
    instances: InstancePre<HostState>,
    exports: Exports,
    granted: Arc<Granted>,
    pub(crate) log: Arc<PluginLog>,
    pub(crate) tally: Arc<Tally>,
    sender: Option<Arc<Sender>>,
    memory_bytes: usize,
    total_memory_bytes: usize,
}

/// Where the hooks are in the component; looked up by name once.
struct Exports {
    admission: Option<(ComponentExportIndex, ComponentExportIndex)>,
    ingestion: Option<ingest_hook::GuestIndices>,
    jobs: Option<jobs_hook::GuestIndices>,
    lifecycle: Option<lifecycle_hook::GuestIndices>,
    http: Option<http_hook::GuestIndices>,
}

/// One instance, for one call at a time.
pub(crate) struct Instance {
    store: Store<HostState>,
    admission: Option<(Admit, Settle)>,
    pub(crate) ingestion: Option<ingest_hook::Guest>,
    pub(crate) jobs: Option<jobs_hook::Guest>,
    pub(crate) lifecycle: Option<lifecycle_hook::Guest>,
    http: Option<http_hook::Guest>,
    /// Calls it has begun.
    pub(crate) calls: u32,
}

impl Blueprint {
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        hooks: Hooks,
        granted: Granted,
        tally: Arc<Tally>,
        manifest: &Manifest,
    ) -> Result<Blueprint, ComponentError> {
        let unfit = |error: wasmtime::Error| ComponentError::Unfit(format!("{error:#}"));
        let instances = engine.linker().instantiate_pre(component).map_err(unfit)?;
        let exports = Exports::find(&instances, hooks).map_err(unfit)?;
        let name: Arc<str> = Arc::from(manifest.name.as_str());
        let log = PluginLog::new(name.clone(), engine.logs().of(&name), tally.clone());
        let hosts = manifest.grants.http.clone();
        let sender = hosts.map(|hosts| Arc::new(Sender::new(hosts, tally.clone())));
        Ok(Blueprint {
            engine: engine.clone(),
            instances,
            exports,
            granted: Arc::new(granted),
            log: Arc::new(log),
            tally,
            sender,
            memory_bytes: manifest.limits.memory_bytes,
            total_memory_bytes: manifest.limits.total_memory_bytes,
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Starts an instance. What the component does when it starts must end by the deadline too.
    pub(crate) async fn start(&self, time: CallTime) -> wasmtime::Result<Instance> {
        let mut store = Store::new(self.engine.wasm(), self.state(time));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(time.call_bytes());
        store.epoch_deadline_callback(end_or_yield);
        store.set_epoch_deadline(1);
        let instance = self.instances.instantiate_async(&mut store).await?;
        let Exports { admission, ingestion, jobs, lifecycle, http } = &self.exports;
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
        let http = http.as_ref().map(|hook| hook.load(&mut store, &instance)).transpose()?;
        Ok(Instance { store, admission, ingestion, jobs, lifecycle, http, calls: 0 })
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
            log: self.log.clone(),
            table,
            budget: Budget::new(self.tally.clone(), time.allowance, time.until),
            ticks: time.ticks(),
            ticked: false,
            pulse: self.engine.ticker().pulse().clone(),
            wasi,
            http: Exchange::new(self.sender.clone()),
            memory: MemoryLimit {
                tally: self.tally.clone(),
                used: 0,
                held: 0,
                most: self.memory_bytes,
                most_together: self.total_memory_bytes,
                refused: None,
            },
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
            http: hooks.http.then(|| http_hook::GuestIndices::new(instances)).transpose()?,
        })
    }
}

impl Instance {
    /// Begins a call with a full budget.
    pub(crate) fn begin(&mut self, time: CallTime) {
        self.calls = self.calls.saturating_add(1);
        let state = self.store.data_mut();
        state.budget.refill(time.allowance, time.until);
        state.ticks = time.ticks();
        state.ticked = false;
        state.memory.let_go();
        self.store.set_hostcall_fuel(time.call_bytes());
        self.store.set_epoch_deadline(1);
    }

    /// Ends a call, after which the instance may be kept.
    pub(crate) fn end(&mut self) {
        self.store.data_mut().budget.count();
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

    /// Answers a request; the answer's head goes out by `answering`, at any time before the end.
    pub(crate) async fn handle(&mut self, request: Asked, answering: Answering) -> wasmtime::Result<()> {
        let Some(hook) = self.http.clone() else { return Err(no_hook()) };
        let mut http = self.store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let answering = http.new_response_outparam(answering)?;
        hook.call_handle(&mut self.store, request, answering).await
    }

    /// Bytes that the host has moved for the call.
    pub(crate) fn bytes_moved(&self) -> usize {
        self.store.data().budget.bytes_moved()
    }

    /// A sentence about the limit on growing that the instance has run into, if it has.
    pub(crate) fn outgrown(&self) -> Option<String> {
        let memory = &self.store.data().memory;
        Some(match memory.refused? {
            Limit::Table => format!("out of its {} elements of a table", limits::TABLE_ELEMENTS),
            Limit::TotalMemory => {
                format!("its instances are out of their {} bytes of memory together", memory.most_together)
            }
            _ => format!("out of its {} bytes of memory", memory.most),
        })
    }
}

pub(crate) fn no_hook() -> wasmtime::Error {
    wasmtime::format_err!("the component has no such hook")
}

/// Called at each tick in which the guest still runs, until the deadline.
fn end_or_yield(mut store: StoreContextMut<'_, HostState>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    let (update, seen) = lane::at_tick();
    if seen == Seen::Slow {
        state.pulse.slow();
    }
    // A starved guest sees a tick each time that it gets a processor again: those are not to count for more.
    let passed = if seen == Seen::Steady && state.ticked { state.pulse.length() } else { 1 };
    state.ticked = true;
    state.ticks = state.ticks.saturating_sub(passed);
    if state.ticks == 0 {
        return Err(Overrun { waiting: false }.into());
    }
    if Instant::now() >= state.budget.deadline() {
        return Err(Overrun { waiting: true }.into());
    }
    Ok(update)
}

/// What an instance may grow to; a refused growth is remembered, to tell why the guest gave up.
struct MemoryLimit {
    tally: Arc<Tally>,
    used: usize,
    /// Bytes of `used` that are in the host.
    held: usize,
    most: usize,
    most_together: usize,
    refused: Option<Limit>,
}

impl MemoryLimit {
    fn take(&mut self, bytes: usize) -> Result<(), Limit> {
        if self.used.saturating_add(bytes) > self.most {
            return Err(Limit::Memory);
        }
        if !self.tally.take_memory(bytes, self.most_together) {
            return Err(Limit::TotalMemory);
        }
        self.used += bytes;
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> bool {
        let taken = self.take(bytes);
        match taken {
            Ok(()) => self.held += bytes,
            Err(limit) => self.refuse(limit),
        }
        taken.is_ok()
    }

    /// Counts anew what the host holds: what is left of the last call's is bounded by the handles.
    fn let_go(&mut self) {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            self.used -= held;
            self.tally.give_memory(held);
        }
    }

    fn refuse(&mut self, limit: Limit) {
        // Counted once: a guest may ask again and again.
        if self.refused != Some(limit) {
            self.tally.hit(limit);
        }
        self.refused = Some(limit);
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grown = self.take(desired.saturating_sub(current));
        if let Err(limit) = grown {
            self.refuse(limit);
        }
        Ok(grown.is_ok())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > limits::TABLE_ELEMENTS {
            self.refuse(Limit::Table);
            return Ok(false);
        }
        Ok(true)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.tally.give_memory(self.used);
    }
}
