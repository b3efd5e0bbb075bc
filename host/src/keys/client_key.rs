//! A valid key, as a request needs it.

use std::sync::Arc;

use super::{ClientKind, KeyInfo, Settings};
use crate::pattern;
use crate::plugin::admission::{Subject, SubjectKind};

/// A valid key.
#[derive(Debug)]
pub struct ClientKey {
    /// The hash of its first secret, in hexadecimal.
    pub id: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The key as policies see it.
    pub subject: Arc<Subject>,
    settings: Settings,
}

impl ClientKey {
    pub(super) fn of(info: KeyInfo) -> ClientKey {
        let KeyInfo { id, name, settings, .. } = info;
        let (id, name): (Arc<str>, Arc<str>) = (id.into(), name.into());
        let subject = Subject {
            kind: SubjectKind::Client,
            id: id.clone(),
            name: name.clone(),
            limits: settings.for_policies(),
        };
        ClientKey { id, name, subject: Arc::new(subject), settings }
    }

    /// Whether it may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        let Settings { models, forbidden_models, .. } = &self.settings;
        let fits = |patterns: &[String]| patterns.iter().any(|pattern| pattern::fits(pattern, model));
        (models.is_empty() || fits(models)) && !fits(forbidden_models)
    }

    /// Whether it may speak a dialect, by its name.
    pub fn may_speak(&self, dialect: &str) -> bool {
        let permissions = &self.settings.permissions;
        permissions.is_empty() || permissions.iter().any(|permission| permission.dialect() == dialect)
    }

    /// Whether a kind of client may use it.
    pub fn may_be_used_by(&self, client: ClientKind) -> bool {
        self.settings.clients.is_empty() || self.settings.clients.contains(&client)
    }

    /// Whether it matters what kind of client uses it.
    pub fn is_for_some_clients(&self) -> bool {
        !self.settings.clients.is_empty()
    }
}
