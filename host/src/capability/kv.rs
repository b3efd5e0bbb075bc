//! `tollgate:storage/kv`: key-value stores. [`keyvalue`] has them as `wasi:keyvalue`.

pub mod keyvalue;

use std::collections::BTreeMap;

use tollgate_store::{Entry, Kv, KvError, SetOptions, Swapped};
use wasmtime::component::{Linker, Resource};

use super::view::{HasView, Openable, View, check_write};
use super::{Budget, Host};
use crate::plugin::bindings::imports::tollgate::storage::kv as wit;
use crate::plugin::bindings::imports::tollgate::storage::types::Error;
use crate::plugin::limits::LIST_ITEMS;
use crate::plugin::{Access, Limit};

/// A kv store that a guest has opened.
#[derive(Clone)]
pub struct OpenStore {
    kv: Kv,
    write: bool,
}

/// The host's side of one call.
type KvView<'a> = View<'a, OpenStore>;

/// Links the interfaces.
pub(crate) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasView<OpenStore>>(linker, view)?;
    keyvalue::add_to_linker(linker)
}

fn view<T: Host>(state: &mut T) -> KvView<'_> {
    let (granted, table, budget) = state.parts();
    View { openable: &granted.kv, table, budget }
}

fn convert_error(budget: &Budget, error: KvError) -> Error {
    match error {
        KvError::TooLarge(text) => {
            budget.hit(Limit::Size);
            Error::TooLarge(text)
        }
        KvError::Full(text) => {
            budget.hit(Limit::StoreBytes);
            Error::TooLarge(text)
        }
        KvError::Conflict => Error::Conflict,
        KvError::Invalid(text) => Error::Invalid(text),
        KvError::Unavailable(text) => Error::Unavailable(text),
        KvError::Storage(error) => Error::Unavailable(error.to_string()),
    }
}

/// The stores that one plugin may open. The error is the name of a store that there is not.
pub(super) fn granted(
    stores: &BTreeMap<String, Kv>,
    grants: &BTreeMap<String, Access>,
) -> Result<Openable<OpenStore>, String> {
    Openable::new(stores, grants, |_, kv, access| OpenStore {
        kv: kv.clone(),
        write: *access == Access::ReadWrite,
    })
}

impl KvView<'_> {
    /// The store behind a handle, for a call that brings so many bytes.
    fn reading(&mut self, handle: &Resource<OpenStore>, bytes: usize) -> Result<(&Kv, &Budget), Error> {
        self.opened(handle, bytes).map(|(store, budget)| (&store.kv, budget))
    }

    fn writing(&mut self, handle: &Resource<OpenStore>, bytes: usize) -> Result<(&Kv, &Budget), Error> {
        let (store, budget) = self.opened(handle, bytes)?;
        check_write(budget, store.write)?;
        Ok((&store.kv, budget))
    }

    fn entry(&mut self, entry: Option<Entry>) -> Result<Option<wit::Entry>, Error> {
        let Some(entry) = entry else { return Ok(None) };
        self.answer(entry.value.len())?;
        Ok(Some(wit::Entry { value: entry.value.to_vec(), version: entry.version }))
    }

    fn value(&mut self, entry: Option<Entry>) -> Result<Option<Vec<u8>>, Error> {
        let Some(entry) = entry else { return Ok(None) };
        self.answer(entry.value.len())?;
        Ok(Some(entry.value.to_vec()))
    }
}

impl wit::Host for KvView<'_> {}

impl wit::HostStore for KvView<'_> {
    async fn open(&mut self, name: String) -> Result<Resource<OpenStore>, Error> {
        self.open_named(&name)
    }

    async fn get(&mut self, handle: Resource<OpenStore>, key: String) -> Result<Option<Vec<u8>>, Error> {
        let (kv, budget) = self.reading(&handle, key.len())?;
        let entry = kv.get(&key).await.map_err(|error| convert_error(budget, error))?;
        self.value(entry)
    }

    async fn get_many(
        &mut self,
        handle: Resource<OpenStore>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let bytes = bytes_of(&keys);
        self.check_items(keys.len(), bytes)?;
        let (kv, budget) = self.reading(&handle, bytes)?;
        let entries = kv.get_many(&keys).await.map_err(|error| convert_error(budget, error))?;
        entries.into_iter().map(|entry| self.value(entry)).collect()
    }

    async fn set(
        &mut self,
        handle: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
        options: wit::SetOptions,
    ) -> Result<bool, Error> {
        let options = SetOptions { ttl_ms: options.ttl_ms, if_absent: options.if_absent };
        let (kv, budget) = self.writing(&handle, key.len() + value.len())?;
        kv.set(&key, value, options).await.map_err(|error| convert_error(budget, error))
    }

    async fn set_many(
        &mut self,
        handle: Resource<OpenStore>,
        entries: Vec<(String, Vec<u8>)>,
        ttl_ms: Option<u64>,
    ) -> Result<(), Error> {
        let bytes = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.check_items(entries.len(), bytes)?;
        let (kv, budget) = self.writing(&handle, bytes)?;
        kv.set_many(entries, ttl_ms).await.map_err(|error| convert_error(budget, error))
    }

    async fn delete(&mut self, handle: Resource<OpenStore>, key: String) -> Result<(), Error> {
        let (kv, budget) = self.writing(&handle, key.len())?;
        kv.delete(&key).await.map_err(|error| convert_error(budget, error))
    }

    async fn delete_many(&mut self, handle: Resource<OpenStore>, keys: Vec<String>) -> Result<(), Error> {
        let bytes = bytes_of(&keys);
        self.check_items(keys.len(), bytes)?;
        let (kv, budget) = self.writing(&handle, bytes)?;
        kv.delete_many(&keys).await.map_err(|error| convert_error(budget, error))
    }

    async fn exists(&mut self, handle: Resource<OpenStore>, key: String) -> Result<bool, Error> {
        let (kv, budget) = self.reading(&handle, key.len())?;
        kv.exists(&key).await.map_err(|error| convert_error(budget, error))
    }

    async fn list_keys(
        &mut self,
        handle: Resource<OpenStore>,
        prefix: Option<String>,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<wit::Page, Error> {
        let bytes = prefix.as_ref().map_or(0, String::len) + cursor.as_ref().map_or(0, String::len);
        let limit = limit.clamp(1, LIST_ITEMS as u32);
        let (kv, budget) = self.reading(&handle, bytes)?;
        let page = kv
            .list_keys(prefix.as_deref(), cursor.as_deref(), limit)
            .await
            .map_err(|error| convert_error(budget, error))?;
        self.answer(bytes_of(&page.keys))?;
        Ok(wit::Page { keys: page.keys, cursor: page.cursor })
    }

    async fn increment(
        &mut self,
        handle: Resource<OpenStore>,
        key: String,
        delta: i64,
        ttl_ms: Option<u64>,
    ) -> Result<i64, Error> {
        let (kv, budget) = self.writing(&handle, key.len())?;
        kv.increment(&key, delta, ttl_ms).await.map_err(|error| convert_error(budget, error))
    }

    async fn read(&mut self, handle: Resource<OpenStore>, key: String) -> Result<Option<wit::Entry>, Error> {
        let (kv, budget) = self.reading(&handle, key.len())?;
        let entry = kv.get(&key).await.map_err(|error| convert_error(budget, error))?;
        self.entry(entry)
    }

    async fn swap(
        &mut self,
        handle: Resource<OpenStore>,
        key: String,
        expected: Option<u64>,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<wit::Swapped, Error> {
        let (kv, budget) = self.writing(&handle, key.len() + value.len())?;
        match kv.swap(&key, expected, value, ttl_ms).await.map_err(|error| convert_error(budget, error))? {
            Swapped::Swapped(version) => Ok(wit::Swapped::Swapped(version)),
            Swapped::Stale(entry) => Ok(wit::Swapped::Stale(self.entry(entry)?)),
        }
    }

    async fn drop(&mut self, handle: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

fn bytes_of(keys: &[String]) -> usize {
    keys.iter().map(String::len).sum()
}
