//! The subjects of admission, as records that share their texts: the same subject is asked about request after request.

use std::sync::Arc;

use wasmtime::component::{ComponentType, Lower};

use super::admission::{Limits, SubjectKind};
use crate::pattern;

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
    /// The subject as a request for a model is asked about: without the limits that are over other models.
    pub fn for_model(self: &Arc<Subject>, model: &str) -> Arc<Subject> {
        let concerns =
            |models: &Option<String>| models.as_ref().is_none_or(|models| pattern::fits(models, model));
        if self.limits.further.iter().all(|limit| concerns(&limit.models)) {
            return self.clone();
        }
        let mut subject = Subject::clone(self);
        subject.limits.further.retain(|limit| concerns(&limit.models));
        Arc::new(subject)
    }

    /// Who this is.
    pub fn identity(&self) -> Identity {
        Identity { kind: self.kind, id: self.id.clone() }
    }
}
