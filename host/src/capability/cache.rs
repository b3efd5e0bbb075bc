//! `tollgate:storage/cache`: volatile caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_store::{Cache, CacheError, CacheSet, Priority};
use wasmtime::component::{Linker, Resource};

use super::view::{HasView, Openable, View, check_write};
use super::{Budget, Host};
use crate::plugin::bindings::imports::tollgate::storage::cache as wit;
use crate::plugin::bindings::imports::tollgate::storage::types::Error;
use crate::plugin::{Access, Limit};

/// A cache that a guest has opened.
#[derive(Clone)]
pub struct OpenCache {
    cache: Cache,
    write: bool,
}

/// The host's side of one call.
type CacheView<'a> = View<'a, OpenCache>;

/// Links the interface.
pub(crate) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasView<OpenCache>>(linker, |state| {
        let (granted, table, budget) = state.parts();
        View { openable: &granted.cache, table, budget }
    })
}

fn convert_error(budget: &Budget, error: CacheError) -> Error {
    match error {
        CacheError::TooLarge(text) => {
            budget.hit(Limit::Size);
            Error::TooLarge(text)
        }
        CacheError::Invalid(text) => Error::Invalid(text),
    }
}

/// The caches that one plugin may open. The error is the name of a cache that there is not.
pub(super) fn granted(
    caches: &BTreeMap<String, Cache>,
    grants: &BTreeMap<String, Access>,
) -> Result<Openable<OpenCache>, String> {
    Openable::new(caches, grants, |_, cache, access| OpenCache {
        cache: cache.clone(),
        write: *access == Access::ReadWrite,
    })
}

impl CacheView<'_> {
    /// The cache behind a handle, for a call that brings so many bytes.
    fn reading(&mut self, handle: &Resource<OpenCache>, bytes: usize) -> Result<(&Cache, &Budget), Error> {
        self.opened(handle, bytes).map(|(open, budget)| (&open.cache, budget))
    }

    fn writing(&mut self, handle: &Resource<OpenCache>, bytes: usize) -> Result<(&Cache, &Budget), Error> {
        let (open, budget) = self.opened(handle, bytes)?;
        check_write(budget, open.write)?;
        Ok((&open.cache, budget))
    }

    fn value(&mut self, value: Option<Arc<[u8]>>) -> Result<Option<Vec<u8>>, Error> {
        let Some(value) = value else { return Ok(None) };
        self.answer(value.len())?;
        Ok(Some(value.to_vec()))
    }
}

impl wit::Host for CacheView<'_> {}

impl wit::HostCache for CacheView<'_> {
    async fn open(&mut self, name: String) -> Result<Resource<OpenCache>, Error> {
        self.open_named(&name)
    }

    async fn get(&mut self, handle: Resource<OpenCache>, key: String) -> Result<Option<Vec<u8>>, Error> {
        let (cache, budget) = self.reading(&handle, key.len())?;
        let value = cache.get(&key).map_err(|error| convert_error(budget, error))?;
        self.value(value)
    }

    async fn get_many(
        &mut self,
        handle: Resource<OpenCache>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let bytes = keys.iter().map(String::len).sum();
        self.check_items(keys.len(), bytes)?;
        let (cache, budget) = self.reading(&handle, bytes)?;
        let values = cache.get_many(&keys).map_err(|error| convert_error(budget, error))?;
        values.into_iter().map(|value| self.value(value)).collect()
    }

    async fn set(
        &mut self,
        handle: Resource<OpenCache>,
        key: String,
        value: Vec<u8>,
        options: wit::SetOptions,
    ) -> Result<(), Error> {
        let (cache, budget) = self.writing(&handle, key.len() + value.len())?;
        cache.set(&key, value, set_options(options)).map_err(|error| convert_error(budget, error))
    }

    async fn set_many(
        &mut self,
        handle: Resource<OpenCache>,
        entries: Vec<(String, Vec<u8>)>,
        options: wit::SetOptions,
    ) -> Result<(), Error> {
        let bytes = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.check_items(entries.len(), bytes)?;
        let (cache, budget) = self.writing(&handle, bytes)?;
        cache.set_many(entries, set_options(options)).map_err(|error| convert_error(budget, error))
    }

    async fn delete(&mut self, handle: Resource<OpenCache>, key: String) -> Result<(), Error> {
        let (cache, budget) = self.writing(&handle, key.len())?;
        cache.delete(&key).map_err(|error| convert_error(budget, error))
    }

    async fn stats(&mut self, handle: Resource<OpenCache>) -> Result<wit::Stats, Error> {
        let (cache, _) = self.reading(&handle, 0)?;
        let stats = cache.stats();
        Ok(wit::Stats {
            entries: stats.entries,
            expired: stats.expired,
            bytes: stats.bytes,
            hits: stats.hits,
            misses: stats.misses,
            hit_rate: stats.hit_rate(),
            ttl_ms: stats.ttl_ms,
        })
    }

    async fn drop(&mut self, handle: Resource<OpenCache>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

fn set_options(options: wit::SetOptions) -> CacheSet {
    let priority = options.priority.map(|priority| match priority {
        wit::Priority::Low => Priority::Low,
        wit::Priority::Medium => Priority::Medium,
        wit::Priority::High => Priority::High,
    });
    CacheSet { ttl_ms: options.ttl_ms, priority }
}
