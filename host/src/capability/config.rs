//! `wasi:config/store`: the settings of a plugin's manifest.

use std::collections::BTreeMap;

use wasmtime::component::{HasData, Linker};

use super::{Budget, Host};
use crate::plugin::bindings::standards::wasi::config::store as wit;

/// The host's side of one call.
pub(super) struct Settings<'a> {
    settings: &'a BTreeMap<String, String>,
    budget: &'a mut Budget,
}

/// Says to the engine that host functions get [`Settings`].
struct HasSettings;

impl HasData for HasSettings {
    type Data<'a> = Settings<'a>;
}

/// Links the interface.
pub(super) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasSettings>(linker, |state| {
        let (granted, _, budget) = state.parts();
        Settings { settings: &granted.config, budget }
    })
}

impl wit::Host for Settings<'_> {
    async fn get(&mut self, key: String) -> Result<Option<String>, wit::Error> {
        self.budget.call(key.len()).map_err(wit::Error::Upstream)?;
        let Some(value) = self.settings.get(&key) else { return Ok(None) };
        self.budget.answer(value.len()).map_err(wit::Error::Upstream)?;
        Ok(Some(value.clone()))
    }

    async fn get_all(&mut self) -> Result<Vec<(String, String)>, wit::Error> {
        self.budget.call(0).map_err(wit::Error::Upstream)?;
        let bytes = self.settings.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.budget.answer(bytes).map_err(wit::Error::Upstream)?;
        Ok(self.settings.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
