//! The one engine that policies run in.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::Context;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::instance::HostState;
use super::lane::Lane;
use super::logs::Logs;
use super::ticker::Ticker;
use super::{ComponentError, component, http, limits};
use crate::capability;

/// The engine, its ticker and what components are linked against. A clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    wasm: wasmtime::Engine,
    linker: Arc<Linker<HostState>>,
    lane: Arc<Lane>,
    logs: Arc<Logs>,
    ticker: Arc<Ticker>,
}

impl Engine {
    /// Reserves the address space of all instances and starts the ticker.
    pub fn new() -> anyhow::Result<Engine> {
        Engine::with_lane(Lane::start())
    }

    /// The same for a process that serves nobody: slow guests are what it is there for, also on a busy machine.
    pub fn for_a_command() -> anyhow::Result<Engine> {
        Engine::with_lane(Lane::with_threads(false))
    }

    fn with_lane(lane: std::io::Result<Lane>) -> anyhow::Result<Engine> {
        let wasm = wasmtime::Engine::new(&config(instances()))
            .map_err(|error| anyhow::Error::from(error).context("cannot start the engine"))?;
        let mut linker = Linker::new(&wasm);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        http::add_to_linker(&mut linker)?;
        capability::add_to_linker(&mut linker)?;
        let ticker = Ticker::start(wasm.clone()).context("cannot start the engine's ticker")?;
        let lane = lane.context("cannot start the threads for slow guests")?;
        let (linker, lane, ticker) = (Arc::new(linker), Arc::new(lane), Arc::new(ticker));
        Ok(Engine { wasm, linker, lane, logs: Arc::default(), ticker })
    }

    /// Compiles a component. Takes up to a second for each MiB on the calling thread: not for a worker of the runtime.
    pub fn compile(&self, wasm: &[u8]) -> Result<Component, ComponentError> {
        component::check_bytes(wasm)?;
        caught(|| Component::from_binary(&self.wasm, wasm))
    }

    /// For the loader of compiled code.
    pub fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    /// Where guests run that take long.
    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// What its ticks follow.
    pub(crate) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    /// What its guests say.
    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    pub(crate) fn linker(&self) -> &Linker<HostState> {
        &self.linker
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// A component's code for an engine like this one.
pub(super) fn precompile(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<Vec<u8>, ComponentError> {
    caught(|| engine.precompile_component(wasm))
}

/// Some of what it could refuse, such as long chains of types, breaks an assertion of the engine's instead.
fn caught<T>(compile: impl FnOnce() -> wasmtime::Result<T>) -> Result<T, ComponentError> {
    catch_unwind(AssertUnwindSafe(compile))
        .map_err(|_| ComponentError::Invalid("it is beyond the engine".to_owned()))?
        .map_err(|error| ComponentError::Invalid(format!("{error:#}")))
}

fn config(instances: u32) -> Config {
    let parts = instances.saturating_mul(limits::PARTS_PER_INSTANCE);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(parts)
        .total_memories(instances)
        .total_tables(parts)
        .total_stacks(instances)
        .max_memories_per_component(limits::MEMORIES_PER_COMPONENT)
        .max_memory_size(limits::MEMORY_BYTES_MAX)
        .table_elements(limits::TABLE_ELEMENTS)
        .max_unused_warm_slots(limits::WARM_SLOTS)
        .linear_memory_keep_resident(limits::KEEP_RESIDENT_BYTES)
        .table_keep_resident(limits::KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    let mut config = code();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// What compiled code depends on, for an engine that compiles only or one that runs it too.
pub(super) fn code() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // Left on it doubles the cost of a call; no policy needs it.
        .concurrency_support(false)
        .max_wasm_stack(limits::STACK_BYTES)
        .async_stack_size(4 * limits::STACK_BYTES)
        .memory_init_cow(true)
        .parallel_compilation(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(limits::BACKTRACE_FRAMES));
    config
}

/// As many instances as the system's limit on memory maps allows, with a quarter of it left to everybody else.
fn instances() -> u32 {
    let maps = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let Some(maps) = maps.ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return limits::ENGINE_INSTANCES;
    };
    (maps / 4 * 3 / limits::MAPS_PER_INSTANCE).clamp(limits::PARTS_PER_INSTANCE, limits::ENGINE_INSTANCES)
}
