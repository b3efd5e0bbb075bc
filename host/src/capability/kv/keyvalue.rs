//! `wasi:keyvalue`: the same stores under the standard's names, for components written for other hosts.
//!
//! A function here is one of ours called by another name, so that grants, budgets and limits hold in the same way.

use tollgate_store::Swapped;
use wasmtime::component::{Linker, Resource};

use super::{KvView, OpenStore, bytes_of, convert_error, view, wit as own};
use crate::capability::Host;
use crate::capability::view::{HasView, check_write};
use crate::plugin::bindings::imports::tollgate::storage::types;
use crate::plugin::bindings::standards::wasi::keyvalue::{atomics, batch, store};
use crate::plugin::limits::LIST_ITEMS;

use atomics::CasError;
use store::Error;

/// A key of a store at the version that it had. The value is not kept: a guest may have many of these.
#[derive(Clone)]
pub struct Cas {
    store: OpenStore,
    key: String,
    /// None: the key was absent.
    version: Option<u64>,
}

/// Links the interfaces.
pub(super) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    store::add_to_linker::<T, HasView<OpenStore>>(linker, view)?;
    atomics::add_to_linker::<T, HasView<OpenStore>>(linker, view)?;
    batch::add_to_linker::<T, HasView<OpenStore>>(linker, view)
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Error {
        match error {
            types::Error::AccessDenied => Error::AccessDenied,
            types::Error::NoSuchStore => Error::NoSuchStore,
            types::Error::Conflict => Error::Other("a concurrent change won; try again".to_owned()),
            types::Error::TooLarge(text) | types::Error::Invalid(text) | types::Error::Unavailable(text) => {
                Error::Other(text)
            }
        }
    }
}

impl From<types::Error> for CasError {
    fn from(error: types::Error) -> CasError {
        CasError::StoreError(error.into())
    }
}

impl store::Host for KvView<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<OpenStore>, Error> {
        Ok(self.open_named(&identifier)?)
    }
}

impl store::HostBucket for KvView<'_> {
    async fn get(&mut self, bucket: Resource<OpenStore>, key: String) -> Result<Option<Vec<u8>>, Error> {
        Ok(own::HostStore::get(self, bucket, key).await?)
    }

    async fn set(&mut self, bucket: Resource<OpenStore>, key: String, value: Vec<u8>) -> Result<(), Error> {
        let options = own::SetOptions { ttl_ms: None, if_absent: false };
        own::HostStore::set(self, bucket, key, value, options).await?;
        Ok(())
    }

    async fn delete(&mut self, bucket: Resource<OpenStore>, key: String) -> Result<(), Error> {
        Ok(own::HostStore::delete(self, bucket, key).await?)
    }

    async fn exists(&mut self, bucket: Resource<OpenStore>, key: String) -> Result<bool, Error> {
        Ok(own::HostStore::exists(self, bucket, key).await?)
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<OpenStore>,
        cursor: Option<String>,
    ) -> Result<store::KeyResponse, Error> {
        let page = own::HostStore::list_keys(self, bucket, None, cursor, LIST_ITEMS as u32).await?;
        Ok(store::KeyResponse { keys: page.keys, cursor: page.cursor })
    }

    async fn drop(&mut self, bucket: Resource<OpenStore>) -> wasmtime::Result<()> {
        own::HostStore::drop(self, bucket).await
    }
}

impl atomics::Host for KvView<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
        delta: i64,
    ) -> Result<i64, Error> {
        Ok(own::HostStore::increment(self, bucket, key, delta, None).await?)
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> Result<(), CasError> {
        // Whatever comes of it, the guest has given the handle away.
        let cas = self.table.delete(cas).map_err(|error| types::Error::Invalid(error.to_string()))?;
        self.call(value.len())?;
        let Cas { store, key, version } = cas;
        check_write(self.budget, store.write)?;
        let swapped = store.kv.swap(&key, version, value, None).await;
        match swapped.map_err(|error| convert_error(self.budget, error))? {
            Swapped::Swapped(_) => Ok(()),
            Swapped::Stale(entry) => {
                let version = entry.map(|entry| entry.version);
                Err(CasError::CasFailed(self.push(Cas { store, key, version })?))
            }
        }
    }
}

impl atomics::HostCas for KvView<'_> {
    async fn new(&mut self, bucket: Resource<OpenStore>, key: String) -> Result<Resource<Cas>, Error> {
        let (store, budget) = self.opened(&bucket, key.len())?;
        let store = store.clone();
        let entry = store.kv.get(&key).await.map_err(|error| convert_error(budget, error))?;
        let version = entry.map(|entry| entry.version);
        Ok(self.push(Cas { store, key, version })?)
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Option<Vec<u8>>, Error> {
        self.call(0)?;
        let cas = self.table.get(&cas).map_err(|error| types::Error::Invalid(error.to_string()))?;
        let entry = cas.store.kv.get(&cas.key).await.map_err(|error| convert_error(self.budget, error))?;
        Ok(self.value(entry)?)
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for KvView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<OpenStore>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>, Error> {
        let values = own::HostStore::get_many(self, bucket, keys.clone()).await?;
        self.answer(bytes_of(&keys))?;
        Ok(keys.into_iter().zip(values).collect())
    }

    async fn set_many(
        &mut self,
        bucket: Resource<OpenStore>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Error> {
        Ok(own::HostStore::set_many(self, bucket, key_values, None).await?)
    }

    async fn delete_many(&mut self, bucket: Resource<OpenStore>, keys: Vec<String>) -> Result<(), Error> {
        Ok(own::HostStore::delete_many(self, bucket, keys).await?)
    }
}

#[cfg(test)]
mod tests;
