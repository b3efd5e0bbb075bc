//! `tollgate:storage/vector`: indexes of vectors.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tollgate_store::{Index, Metric, ReturnMetadata, Target, Vector, VectorError, VectorMatch, VectorQuery};
use wasmtime::component::{Linker, Resource};

use super::view::{HasView, Openable, View, check_write};
use super::{Budget, Host};
use crate::plugin::bindings::imports::tollgate::storage::types::Error;
use crate::plugin::bindings::imports::tollgate::storage::vector as wit;
use crate::plugin::limits::VECTOR_QUERIES_AT_ONCE;
use crate::plugin::{Access, Limit};

/// An index that a guest has opened.
#[derive(Clone)]
pub struct OpenIndex {
    index: Index,
    write: bool,
    /// Of the plugin, in all its instances.
    queries: Arc<Semaphore>,
}

/// The host's side of one call.
type VectorView<'a> = View<'a, OpenIndex>;

/// Links the interface.
pub(crate) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasView<OpenIndex>>(linker, |state| {
        let (granted, table, budget) = state.parts();
        View { openable: &granted.vector, table, budget }
    })
}

fn convert_error(budget: &Budget, error: VectorError) -> Error {
    match error {
        VectorError::TooLarge(text) => {
            budget.hit(Limit::Size);
            Error::TooLarge(text)
        }
        VectorError::Conflict(_) => Error::Conflict,
        VectorError::Absent(_) => Error::Invalid(error.to_string()),
        VectorError::Invalid(text) => Error::Invalid(text),
        VectorError::Unavailable(text) => Error::Unavailable(text),
        VectorError::Storage(error) => Error::Unavailable(error.to_string()),
    }
}

/// The indexes that one plugin may open. The error is the name of an index that there is not.
pub(super) fn granted(
    indexes: &BTreeMap<String, Index>,
    grants: &BTreeMap<String, Access>,
) -> Result<Openable<OpenIndex>, String> {
    Openable::new(indexes, grants, |_, index, access| OpenIndex {
        index: index.clone(),
        write: *access == Access::ReadWrite,
        queries: Arc::new(Semaphore::new(VECTOR_QUERIES_AT_ONCE)),
    })
}

impl VectorView<'_> {
    /// The index behind a handle, for a call that brings so many bytes.
    fn reading(&mut self, handle: &Resource<OpenIndex>, bytes: usize) -> Result<OpenIndex, Error> {
        self.opened(handle, bytes).map(|(open, _)| open.clone())
    }

    fn writing(&mut self, handle: &Resource<OpenIndex>, bytes: usize) -> Result<Index, Error> {
        let open = self.reading(handle, bytes)?;
        check_write(self.budget, open.write)?;
        Ok(open.index)
    }

    fn done<T>(&self, result: Result<T, VectorError>) -> Result<T, Error> {
        result.map_err(|error| convert_error(self.budget, error))
    }
}

impl wit::Host for VectorView<'_> {}

impl wit::HostIndex for VectorView<'_> {
    async fn open(&mut self, name: String) -> Result<Resource<OpenIndex>, Error> {
        self.open_named(&name)
    }

    async fn upsert(&mut self, handle: Resource<OpenIndex>, vectors: Vec<wit::Vector>) -> Result<(), Error> {
        let bytes = vectors.iter().map(bytes_of).sum();
        self.check_items(vectors.len(), bytes)?;
        let index = self.writing(&handle, bytes)?;
        let written = index.upsert(vectors.into_iter().map(from_guest).collect()).await;
        self.done(written)
    }

    async fn insert(&mut self, handle: Resource<OpenIndex>, vectors: Vec<wit::Vector>) -> Result<(), Error> {
        let bytes = vectors.iter().map(bytes_of).sum();
        self.check_items(vectors.len(), bytes)?;
        let index = self.writing(&handle, bytes)?;
        let written = index.insert(vectors.into_iter().map(from_guest).collect()).await;
        self.done(written)
    }

    async fn get_by_ids(
        &mut self,
        handle: Resource<OpenIndex>,
        ids: Vec<String>,
    ) -> Result<Vec<wit::Vector>, Error> {
        let bytes = ids.iter().map(String::len).sum();
        self.check_items(ids.len(), bytes)?;
        let open = self.reading(&handle, bytes)?;
        let found = open.index.get_by_ids(&ids).await;
        let found: Vec<_> = self.done(found)?.into_iter().map(to_guest).collect();
        self.answer(found.iter().map(bytes_of).sum())?;
        Ok(found)
    }

    async fn delete_by_ids(&mut self, handle: Resource<OpenIndex>, ids: Vec<String>) -> Result<u32, Error> {
        let bytes = ids.iter().map(String::len).sum();
        self.check_items(ids.len(), bytes)?;
        let index = self.writing(&handle, bytes)?;
        let deleted = index.delete_by_ids(&ids).await;
        Ok(u32::try_from(self.done(deleted)?).unwrap_or(u32::MAX))
    }

    async fn query(
        &mut self,
        handle: Resource<OpenIndex>,
        target: wit::Target,
        options: wit::QueryOptions,
    ) -> Result<Vec<wit::Match>, Error> {
        let texts = [&options.namespace, &options.filter].into_iter().flatten();
        let open = self.reading(&handle, bytes_of_target(&target) + texts.map(String::len).sum::<usize>())?;
        let _turn = open
            .queries
            .acquire()
            .await
            .map_err(|_| Error::Unavailable("the server is stopping".to_owned()))?;
        let found = open.index.query(query(target, options)).await;
        let found = self.done(found)?;
        self.answer(found.iter().map(bytes_of_match).sum())?;
        Ok(found.into_iter().map(match_to_guest).collect())
    }

    async fn describe(&mut self, handle: Resource<OpenIndex>) -> Result<wit::Info, Error> {
        let open = self.reading(&handle, 0)?;
        let info = open.index.describe().await;
        let info = self.done(info)?;
        Ok(wit::Info {
            dimensions: u32::try_from(info.dimensions).unwrap_or(u32::MAX),
            metric: match info.metric {
                Metric::Cosine => wit::Metric::Cosine,
                Metric::DotProduct => wit::Metric::DotProduct,
                Metric::Euclidean => wit::Metric::Euclidean,
            },
            vectors: info.vectors,
            value_bytes: info.value_bytes,
            memory_bytes: info.memory_bytes,
            recall: info.recall,
        })
    }

    async fn drop(&mut self, handle: Resource<OpenIndex>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

fn query(target: wit::Target, options: wit::QueryOptions) -> VectorQuery {
    VectorQuery {
        target: match target {
            wit::Target::Values(values) => Target::Values(values),
            wit::Target::Id(id) => Target::Id(id),
        },
        top_k: options.top_k as usize,
        namespace: options.namespace,
        filter: options.filter,
        return_values: options.return_values,
        return_metadata: match options.return_metadata {
            wit::ReturnMetadata::None => ReturnMetadata::None,
            wit::ReturnMetadata::Indexed => ReturnMetadata::Indexed,
            wit::ReturnMetadata::All => ReturnMetadata::All,
        },
    }
}

fn from_guest(vector: wit::Vector) -> Vector {
    let wit::Vector { id, values, namespace, metadata } = vector;
    Vector { id, values, namespace, metadata }
}

fn to_guest(vector: Vector) -> wit::Vector {
    let Vector { id, values, namespace, metadata } = vector;
    wit::Vector { id, values, namespace, metadata }
}

fn match_to_guest(found: VectorMatch) -> wit::Match {
    let VectorMatch { id, score, namespace, values, metadata } = found;
    wit::Match { id, score, namespace, values, metadata }
}

fn bytes_of(vector: &wit::Vector) -> usize {
    let texts = [&vector.namespace, &vector.metadata].into_iter().flatten();
    vector.id.len() + size_of_val(vector.values.as_slice()) + texts.map(String::len).sum::<usize>()
}

fn bytes_of_match(found: &VectorMatch) -> usize {
    let texts = [&found.namespace, &found.metadata].into_iter().flatten();
    let values = found.values.as_deref().map_or(0, size_of_val);
    size_of::<f64>() + found.id.len() + values + texts.map(String::len).sum::<usize>()
}

fn bytes_of_target(target: &wit::Target) -> usize {
    match target {
        wit::Target::Values(values) => size_of_val(values.as_slice()),
        wit::Target::Id(id) => id.len(),
    }
}
