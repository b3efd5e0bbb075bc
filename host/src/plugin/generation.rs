//! One loaded version of a plugin: a pool of instances behind typed calls.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use wasmtime::component::Component;

use super::Engine;
use super::admission::{Decision, Request, Subject};
use super::component::{ComponentError, Hooks};
use super::ingestion::{Event, Receipt};
use super::job::{Job, Report};
use super::manifest::Manifest;
use super::settle::Settlement;
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

/// What a generation has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls started.
    pub calls: u64,
    /// Calls that ended in a trap or over the deadline.
    pub traps: u64,
    /// Calls that the guest answered with an error.
    pub errors: u64,
}

/// One loaded version of a plugin. Dropping the last reference ends it: calls in flight hold one.
pub struct Generation {}

impl Generation {
    /// Checks a component against its manifest and the stores there are, and prepares its instances; starts none.
    pub fn new(
        _engine: &Engine,
        _component: &Component,
        _manifest: Manifest,
        _identity: Identity,
        _stores: &Stores,
    ) -> Result<Generation, ComponentError> {
        todo!()
    }

    /// The plugin's name.
    pub fn name(&self) -> &Arc<str> {
        todo!()
    }

    /// Which version this is.
    pub fn identity(&self) -> &Identity {
        todo!()
    }

    /// The manifest it was loaded with.
    pub fn manifest(&self) -> &Manifest {
        todo!()
    }

    /// The hooks it has.
    pub fn hooks(&self) -> Hooks {
        todo!()
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        todo!()
    }

    /// Ends with the next trap, overrun or error of this generation.
    pub async fn failed(&self) {
        todo!()
    }

    /// Starts one instance and keeps it, as a last check before the generation serves.
    pub async fn warm(&self) -> Result<(), CallError> {
        todo!()
    }

    /// Asks for one decision for each subject.
    pub async fn admit(
        &self,
        _request: Arc<Request>,
        _subjects: Arc<[Arc<Subject>]>,
    ) -> Result<Vec<Decision>, CallError> {
        todo!()
    }

    /// Settles allows.
    pub async fn settle(&self, _settlements: Arc<Vec<Settlement>>) -> Result<(), CallError> {
        todo!()
    }

    /// Stores a batch of events.
    pub async fn ingest(&self, _events: &[Event]) -> Result<Receipt, CallError> {
        todo!()
    }

    /// The jobs there are.
    pub async fn schedule(&self) -> Result<Vec<Job>, CallError> {
        todo!()
    }

    /// Runs a job within the manifest's deadline for jobs.
    pub async fn run_job(&self, _name: &str, _now_ms: u64) -> Result<Report, CallError> {
        todo!()
    }

    /// Prepares the version; nothing to do where the component has no such hook.
    pub async fn init(&self) -> Result<(), CallError> {
        todo!()
    }
}
