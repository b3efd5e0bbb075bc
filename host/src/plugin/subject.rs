//! The subjects of admission, as records that share their texts: the same subject is asked about request after request.

use std::sync::Arc;

use wasmtime::component::{ComponentType, Lower};

use super::admission::{Limits, SubjectKind};

/// `subject` of `wit/policy/admission.wit`.
#[derive(Clone, Debug, PartialEq, ComponentType, Lower)]
#[component(record)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Stable and unique within the kind; never a secret.
    pub id: Arc<str>,
    /// A name for people.
    pub name: Arc<str>,
    /// What bounds it.
    pub limits: Limits,
}

/// `identity` of `wit/policy/admission.wit`.
#[derive(Clone, Debug, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Identity {
    /// What the subject is.
    pub kind: SubjectKind,
    /// As the subject's.
    pub id: Arc<str>,
}

impl Subject {
    /// Who this is.
    pub fn identity(&self) -> Identity {
        Identity { kind: self.kind, id: self.id.clone() }
    }
}
