//! Settles allows in batches, off the requests' way.

use std::sync::Arc;

use wasmtime::component::{ComponentType, Lower};

use super::admission::{Subject, Ticket, Usage};

/// `settlement` of `wit/policy/admission.wit`, sharing what the allows of one request have in common.
#[derive(Clone, ComponentType, Lower)]
#[component(record)]
pub struct Settlement {
    /// The request's id.
    #[component(name = "request-id")]
    pub request_id: Arc<str>,
    /// When this was settled.
    #[component(name = "now-ms")]
    pub now_ms: u64,
    /// The model asked for.
    pub model: Arc<str>,
    /// The subject that was allowed.
    pub subject: Arc<Subject>,
    /// The ticket that came with the allow.
    pub ticket: Option<Ticket>,
    /// How it went.
    pub usage: Usage,
}
