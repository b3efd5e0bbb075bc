//! Loads, limits, pools and swaps components.
//!
//! A pushed component is compiled ([`engine`]), inspected against its manifest ([`component`], [`manifest`]) and becomes a
//! [`Generation`]: a pool of warm instances behind typed calls. An [`ActivePlugin`] is the name under which generations
//! follow each other by one pointer swap; [`Admissions`] is the chain of plugins that a request passes.

pub mod admissions;
mod background;
pub mod bindings;
pub mod compile;
mod compiled;
pub mod component;
pub mod engine;
pub mod generation;
pub mod http;
pub mod ingest;
mod instance;
pub mod jobs;
mod lane;
pub mod limits;
mod log;
mod logs;
pub mod manifest;
mod meter;
mod needs;
mod pool;
pub mod registry;
mod rollout;
pub mod settle;
pub mod shipped;
pub mod signature;
pub mod subject;
mod ticker;
pub mod versions;
mod watch;

pub use admissions::active::ActivePlugin;
pub use admissions::{Admissions, Canary, CanaryEnd, Lease, Sample, Share, Verdict};
pub use compile::Compiler;
pub use component::{ComponentError, Hooks, Import, Inspection};
pub use engine::Engine;
pub use generation::{CallError, Generation, Hook, Identity};
pub use http::{Mount, Mounts, Unanswered};
pub use ingest::{AttemptRecord, EventQueue, EventRecord, RecordError};
pub use jobs::{JobError, Report as JobReport};
pub(crate) use log::PluginLog;
pub use logs::{Line, Lines};
pub use manifest::{Access, Grants, Http, Instances, Manifest, ManifestError, OnError, SqlGrant};
pub use meter::Counters;
pub(crate) use meter::{Limit, Tally};
pub use needs::{Need, made_by};
pub use registry::{PluginInfo, Push, Pushed, Refusal, Registry, Trial};
pub use signature::PublicKey;

/// The types of `wit/policy/admission.wit`.
pub mod admission {
    pub use super::bindings::admission::exports::tollgate::policy::admission::{
        Decision, Denial, Ending, Limit, Limits, Measure, Reached, Request, SubjectKind, Ticket, Usage,
    };
    pub use super::subject::{Identity, Subject};
}

/// The types of `wit/policy/ingestion.wit`.
pub mod ingestion {
    pub use super::bindings::ingestion::exports::tollgate::policy::ingestion::{Attempt, Event, Receipt};
}

/// The types of `wit/policy/jobs.wit`.
pub mod job {
    pub use super::bindings::jobs::exports::tollgate::policy::jobs::{Budget, Job, Report, Timing};
}

/// At most so many bytes of a text that a guest gave.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
