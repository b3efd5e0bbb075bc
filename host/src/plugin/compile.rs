//! Compiling: in a process of its own where components come from outside.
//!
//! The compiler takes what time and memory a component makes it take. Its process has limits on both, and with that process
//! ends whatever the compiler does not bear.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use super::engine::{self, Engine};
use super::limits::{COMPILE_BYTES, COMPILE_CPU};
use super::{ComponentError, component};

/// Where components are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In this process, without limits: for components of one's own, in a program that is no `tollgate`.
    Here,
    /// In a process of its own.
    Apart(Apart),
}

/// The process that compiles.
#[derive(Clone, Debug)]
pub struct Apart {
    /// A `tollgate` of this very build.
    pub program: PathBuf,
    /// Processor time, in whole seconds.
    pub cpu: Duration,
    /// Memory, in bytes.
    pub bytes: u64,
}

impl Compiler {
    /// By the program that runs, in a process of its own.
    pub fn of_this_program() -> Compiler {
        // The program as it was started, also when there is a newer file in its place.
        let program = PathBuf::from("/proc/self/exe");
        Compiler::Apart(Apart { program, cpu: COMPILE_CPU, bytes: COMPILE_BYTES })
    }

    /// The code of a component for an engine like this one. Blocks for up to a second for each MiB.
    pub fn compile(&self, engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, ComponentError> {
        component::check_bytes(wasm)?;
        match self {
            Compiler::Here => engine::precompile(engine.wasm(), wasm),
            Compiler::Apart(apart) => apart.compile(wasm),
        }
    }
}

impl Apart {
    fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, ComponentError> {
        let ended = self.run(wasm).map_err(|error| ComponentError::NotCompiled(format!("{error:#}")))?;
        // Above it stands what the engine says where it gives up.
        let said = String::from_utf8_lossy(&ended.stderr);
        let reason = || said.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned();
        match ended.status.code() {
            Some(0) => Ok(ended.stdout),
            Some(INVALID) => Err(ComponentError::Invalid(reason())),
            Some(_) => Err(ComponentError::NotCompiled(reason())),
            // Its own limits end it otherwise: by whom it was killed is not known, perhaps for the system's memory.
            None if ended.status.signal() == Some(Signal::KILL.as_raw()) => {
                Err(ComponentError::NotCompiled("the process that compiles was killed".to_owned()))
            }
            None => Err(ComponentError::Invalid(self.ended(ended.status))),
        }
    }

    fn run(&self, wasm: &[u8]) -> anyhow::Result<Output> {
        let mut child = Command::new(&self.program)
            .args(["compile", &self.cpu.as_secs().to_string(), &self.bytes.to_string()])
            // Nothing of what the server knows from it.
            .env_clear()
            // The allocator would reserve a GiB, which counts as used. In KiB.
            .env("MIMALLOC_ARENA_RESERVE", "65536")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a process to compile in")?;
        // It reads all of its input before it writes. If it ended before that, its status says why.
        let sent = child.stdin.take().context("it has no input")?.write_all(wasm);
        let ended = child.wait_with_output().context("cannot read the code")?;
        if ended.status.success() {
            sent.context("cannot send the component")?;
        }
        Ok(ended)
    }

    fn ended(&self, status: ExitStatus) -> String {
        let (seconds, mebibytes) = (self.cpu.as_secs(), self.bytes >> 20);
        format!(
            "compiling it takes more than {seconds} s or {mebibytes} MiB, or is beyond the engine ({status})"
        )
    }
}

/// The exit status of the process where the component is at fault; any other but 0 is the system's.
const INVALID: i32 = 1;

/// What the process does: compiles what comes on `input`, within these limits.
pub fn compile_apart(
    cpu_seconds: u64,
    bytes: u64,
    mut input: impl Read,
    mut output: impl Write,
) -> Result<(), ComponentError> {
    let mut wasm = Vec::new();
    input.read_to_end(&mut wasm).map_err(|error| system(&error))?;
    let engine = wasmtime::Engine::new(&engine::code()).map_err(|error| system(&error))?;
    // Starts the compiler's threads, which there might be no memory for later.
    engine.precompile_module(ONE_FUNCTION).map_err(|error| system(&error))?;
    confine(cpu_seconds, bytes).map_err(|error| system(&error))?;
    let code = engine::precompile(&engine, &wasm)?;
    output.write_all(&code).and_then(|()| output.flush()).map_err(|error| system(&error))
}

/// A module with one empty function.
const ONE_FUNCTION: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";

/// A process without memory may wait for ever and use no processor time; this many times that time is then too much.
const WAITING: u64 = 10;

fn confine(cpu_seconds: u64, bytes: u64) -> std::io::Result<()> {
    let wait = Duration::from_secs(cpu_seconds.saturating_mul(WAITING));
    let watch = move || {
        std::thread::sleep(wait);
        std::process::abort()
    };
    std::thread::Builder::new().spawn(watch)?;
    let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
    // The first one ends it by a signal that only this limit sends.
    setrlimit(
        Resource::Cpu,
        Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds.saturating_add(1)) },
    )?;
    setrlimit(Resource::Data, limit(bytes))?;
    setrlimit(Resource::Core, limit(0))?;
    // Without the server nobody would read the answer.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

fn system(error: &dyn std::fmt::Display) -> ComponentError {
    ComponentError::NotCompiled(error.to_string())
}
