//! `tollgate:storage/blob`: containers of blobs. [`blobstore`] has them as `wasi:blobstore`.

pub mod blobstore;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_store::{
    BlobError, BlobInfo, BlobList, ByteRange, Container, Etags, GetOptions, Got, Precondition, PutOptions,
    Reader, Upload,
};
use wasmtime::component::{Linker, Resource};

use super::view::{HasView, Openable, View, check_write};
use super::{Budget, Host};
use crate::plugin::bindings::imports::tollgate::storage::blob as wit;
use crate::plugin::bindings::imports::tollgate::storage::types::Error;
use crate::plugin::limits::{BLOB_GET_BYTES, BLOB_PIECE_BYTES, BLOB_READERS, BLOB_WRITERS, LIST_ITEMS};
use crate::plugin::{Access, Limit};

/// A container that a guest has opened.
#[derive(Clone)]
pub struct OpenContainer {
    name: Arc<str>,
    container: Container,
    write: bool,
    /// Of the plugin, in all its instances.
    readers: Arc<Semaphore>,
    writers: Arc<Semaphore>,
}

/// An object that a guest reads.
pub struct OpenReader {
    reader: Reader,
    /// What was read last, the first so many bytes of it taken.
    left: Vec<u8>,
    taken: usize,
    _place: OwnedSemaphorePermit,
}

/// An object that a guest writes; nothing is left of it after `finish`, or after an error.
pub struct OpenWriter(Option<(Upload, OwnedSemaphorePermit)>);

/// The host's side of one call.
type BlobView<'a> = View<'a, OpenContainer>;

/// Links the interfaces.
pub(crate) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasView<OpenContainer>>(linker, view)?;
    blobstore::add_to_linker(linker)
}

fn view<T: Host>(state: &mut T) -> BlobView<'_> {
    let (granted, table, budget) = state.parts();
    View { openable: &granted.blob, table, budget }
}

fn convert_error(budget: &Budget, error: BlobError) -> Error {
    match error {
        BlobError::TooLarge(text) => {
            budget.hit(Limit::Size);
            Error::TooLarge(text)
        }
        BlobError::PreconditionFailed => Error::Conflict,
        BlobError::OutOfRange(_) => Error::Invalid(error.to_string()),
        BlobError::Invalid(text) => Error::Invalid(text),
        BlobError::Unavailable(text) => Error::Unavailable(text),
        BlobError::Storage(error) => Error::Unavailable(error.to_string()),
    }
}

/// The containers that one plugin may open. The error is the name of a container that there is not.
pub(super) fn granted(
    containers: &BTreeMap<String, Container>,
    grants: &BTreeMap<String, Access>,
) -> Result<Openable<OpenContainer>, String> {
    Openable::new(containers, grants, |name, container, access| {
        let [readers, writers] = [BLOB_READERS, BLOB_WRITERS].map(|most| Arc::new(Semaphore::new(most)));
        let write = *access == Access::ReadWrite;
        OpenContainer { name: name.into(), container: container.clone(), write, readers, writers }
    })
}

impl BlobView<'_> {
    /// The container behind a handle, for a call that brings so many bytes.
    fn reading(&mut self, handle: &Resource<OpenContainer>, bytes: usize) -> Result<OpenContainer, Error> {
        self.opened(handle, bytes).map(|(open, _)| open.clone())
    }

    fn writing(&mut self, handle: &Resource<OpenContainer>, bytes: usize) -> Result<OpenContainer, Error> {
        let open = self.reading(handle, bytes)?;
        check_write(self.budget, open.write)?;
        Ok(open)
    }

    /// A place among those of the plugin.
    fn place(&self, places: Arc<Semaphore>, most: usize, what: &str) -> Result<OwnedSemaphorePermit, Error> {
        places.try_acquire_owned().map_err(|_| {
            self.budget.hit(Limit::Handles);
            Error::TooLarge(format!("a plugin may have {most} {what} of a container open"))
        })
    }

    fn info(&mut self, info: BlobInfo) -> Result<wit::Info, Error> {
        self.answer(bytes_of_info(&info))?;
        Ok(to_guest(info))
    }

    async fn open(
        &mut self,
        handle: &Resource<OpenContainer>,
        key: &str,
        options: wit::GetOptions,
    ) -> Result<(OpenContainer, Got), Error> {
        let open = self.reading(handle, key.len() + bytes_of_precondition(&options.precondition))?;
        let got = open.container.get(key, reading(options)).await;
        Ok((open, got.map_err(|error| convert_error(self.budget, error))?))
    }

    /// All that is to be read, if it is small enough.
    async fn whole(&mut self, reader: Reader) -> Result<Vec<u8>, Error> {
        let range = reader.range();
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if length > BLOB_GET_BYTES {
            self.budget.hit(Limit::Size);
            let text =
                format!("at most {BLOB_GET_BYTES} bytes are answered at once, and this is {length}; read it");
            return Err(Error::TooLarge(text));
        }
        // Before it is read: what is over the budget costs nothing more.
        self.answer(length)?;
        reader.read_all().await.map_err(|error| convert_error(self.budget, error))
    }

    fn unmet(&mut self, info: Option<BlobInfo>) -> Result<Option<wit::Info>, Error> {
        info.map(|info| self.info(info)).transpose()
    }
}

impl wit::Host for BlobView<'_> {}

impl wit::HostContainer for BlobView<'_> {
    async fn open(&mut self, name: String) -> Result<Resource<OpenContainer>, Error> {
        self.open_named(&name)
    }

    async fn put(
        &mut self,
        handle: Resource<OpenContainer>,
        key: String,
        content: Vec<u8>,
        options: wit::PutOptions,
    ) -> Result<wit::Info, Error> {
        let open = self.writing(&handle, key.len() + content.len() + bytes_of_options(&options))?;
        let put = open.container.put(&key, &content, writing(options)).await;
        let info = put.map_err(|error| convert_error(self.budget, error))?;
        self.info(info)
    }

    async fn get(
        &mut self,
        handle: Resource<OpenContainer>,
        key: String,
        options: wit::GetOptions,
    ) -> Result<wit::Got, Error> {
        let reader = match self.open(&handle, &key, options).await?.1 {
            Got::Found(reader) => reader,
            Got::Absent => return Ok(wit::Got::Absent),
            Got::Unmet(_, info) => return Ok(wit::Got::Unmet(self.unmet(info)?)),
        };
        let offset = reader.range().start;
        let info = self.info(reader.info().clone())?;
        let content = self.whole(reader).await?;
        Ok(wit::Got::Found(wit::Object { info, offset, content }))
    }

    async fn head(
        &mut self,
        handle: Resource<OpenContainer>,
        key: String,
    ) -> Result<Option<wit::Info>, Error> {
        let open = self.reading(&handle, key.len())?;
        let info = open.container.head(&key).await.map_err(|error| convert_error(self.budget, error))?;
        info.map(|info| self.info(info)).transpose()
    }

    async fn delete(
        &mut self,
        handle: Resource<OpenContainer>,
        key: String,
        precondition: wit::Precondition,
    ) -> Result<bool, Error> {
        let open = self.writing(&handle, key.len() + bytes_of_precondition(&precondition))?;
        let deleted = open.container.delete(&key, condition(precondition)).await;
        deleted.map_err(|error| convert_error(self.budget, error))
    }

    async fn delete_many(
        &mut self,
        handle: Resource<OpenContainer>,
        keys: Vec<String>,
    ) -> Result<u32, Error> {
        let bytes = keys.iter().map(String::len).sum();
        self.check_items(keys.len(), bytes)?;
        let open = self.writing(&handle, bytes)?;
        let deleted = open.container.delete_many(&keys).await;
        let deleted = deleted.map_err(|error| convert_error(self.budget, error))?;
        Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
    }

    async fn list_objects(
        &mut self,
        handle: Resource<OpenContainer>,
        options: wit::ListOptions,
    ) -> Result<wit::Page, Error> {
        let texts = [&options.prefix, &options.delimiter, &options.cursor];
        let open = self.reading(&handle, texts.into_iter().flatten().map(String::len).sum())?;
        let list = BlobList {
            prefix: options.prefix.unwrap_or_default(),
            delimiter: options.delimiter,
            cursor: options.cursor,
            limit: (options.limit as usize).clamp(1, LIST_ITEMS),
        };
        let page = open.container.list(list).await.map_err(|error| convert_error(self.budget, error))?;
        self.answer(
            page.objects.iter().map(bytes_of_info).sum::<usize>()
                + page.prefixes.iter().map(String::len).sum::<usize>(),
        )?;
        let objects = page.objects.into_iter().map(to_guest).collect();
        Ok(wit::Page { objects, prefixes: page.prefixes, cursor: page.cursor })
    }

    async fn read(
        &mut self,
        handle: Resource<OpenContainer>,
        key: String,
        options: wit::GetOptions,
    ) -> Result<wit::Opened, Error> {
        let (open, got) = self.open(&handle, &key, options).await?;
        match got {
            Got::Found(reader) => {
                let _place = self.place(open.readers, BLOB_READERS, "readers")?;
                Ok(wit::Opened::Found(self.push(OpenReader {
                    reader,
                    left: Vec::new(),
                    taken: 0,
                    _place,
                })?))
            }
            Got::Absent => Ok(wit::Opened::Absent),
            Got::Unmet(_, info) => Ok(wit::Opened::Unmet(self.unmet(info)?)),
        }
    }

    async fn write(
        &mut self,
        handle: Resource<OpenContainer>,
        key: String,
        options: wit::PutOptions,
    ) -> Result<Resource<OpenWriter>, Error> {
        let open = self.writing(&handle, key.len() + bytes_of_options(&options))?;
        let place = self.place(open.writers, BLOB_WRITERS, "writers")?;
        let upload = open.container.upload(&key, writing(options));
        let upload = upload.map_err(|error| convert_error(self.budget, error))?;
        self.push(OpenWriter(Some((upload, place))))
    }

    async fn drop(&mut self, handle: Resource<OpenContainer>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl wit::HostReader for BlobView<'_> {
    async fn info(&mut self, handle: Resource<OpenReader>) -> Result<wit::Info, Error> {
        self.call(0)?;
        let info = self.table.get(&handle).map_err(gone)?.reader.info().clone();
        View::info(self, info)
    }

    async fn range(&mut self, handle: Resource<OpenReader>) -> Result<(u64, u64), Error> {
        self.call(0)?;
        let range = self.table.get(&handle).map_err(gone)?.reader.range();
        Ok((range.start, range.end - range.start))
    }

    async fn read(&mut self, handle: Resource<OpenReader>, most: u32) -> Result<Vec<u8>, Error> {
        let most = (most as usize).clamp(1, BLOB_PIECE_BYTES);
        self.call(0)?;
        let open = self.table.get_mut(&handle).map_err(gone)?;
        while open.left.len() - open.taken < most {
            let bytes = open.reader.next().await.map_err(|error| convert_error(self.budget, error))?;
            let Some(bytes) = bytes else { break };
            open.left.drain(..std::mem::take(&mut open.taken));
            open.left.extend_from_slice(&bytes);
        }
        let end = open.left.len().min(open.taken + most);
        // Before it is taken: a reader may be read on by a later call, which has a budget of its own.
        self.budget.answer(end - open.taken).map_err(Error::TooLarge)?;
        let piece = open.left.get(open.taken..end).unwrap_or_default().to_vec();
        open.taken = end;
        Ok(piece)
    }

    async fn drop(&mut self, handle: Resource<OpenReader>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl wit::HostWriter for BlobView<'_> {
    async fn write(&mut self, handle: Resource<OpenWriter>, bytes: Vec<u8>) -> Result<(), Error> {
        self.call(bytes.len())?;
        let open = self.table.get_mut(&handle).map_err(gone)?;
        let (mut upload, place) = open.0.take().ok_or_else(finished)?;
        upload.write(&bytes).await.map_err(|error| convert_error(self.budget, error))?;
        open.0 = Some((upload, place));
        Ok(())
    }

    async fn finish(&mut self, handle: Resource<OpenWriter>) -> Result<wit::Info, Error> {
        self.call(0)?;
        let open = self.table.get_mut(&handle).map_err(gone)?;
        let (upload, _place) = open.0.take().ok_or_else(finished)?;
        let info = upload.publish().await.map_err(|error| convert_error(self.budget, error))?;
        self.info(info)
    }

    async fn drop(&mut self, handle: Resource<OpenWriter>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

fn gone(error: wasmtime::component::ResourceTableError) -> Error {
    Error::Invalid(error.to_string())
}

fn finished() -> Error {
    Error::Invalid("the writer has finished, or failed before".to_owned())
}

fn condition(precondition: wit::Precondition) -> Precondition {
    let etags = |etags| match etags {
        wit::Etags::Any => Etags::Any,
        wit::Etags::Of(list) => Etags::Of(list),
    };
    Precondition {
        if_match: precondition.if_match.map(etags),
        if_none_match: precondition.if_none_match.map(etags),
    }
}

fn writing(options: wit::PutOptions) -> PutOptions {
    PutOptions {
        content_type: options.content_type,
        cache_control: options.cache_control,
        metadata: options.metadata,
        precondition: condition(options.precondition),
    }
}

fn reading(options: wit::GetOptions) -> GetOptions {
    let range = options.range.map(|range| match range {
        wit::ByteRange::Part(wit::Part { offset, length }) => ByteRange::From { offset, length },
        wit::ByteRange::Last(bytes) => ByteRange::Last(bytes),
    });
    GetOptions { range, precondition: condition(options.precondition), verify: false }
}

fn to_guest(info: BlobInfo) -> wit::Info {
    wit::Info {
        key: info.key,
        size: info.size,
        etag: info.etag,
        uploaded_ms: info.uploaded_ms,
        content_type: info.content_type,
        cache_control: info.cache_control,
        metadata: info.metadata,
    }
}

fn bytes_of_info(info: &BlobInfo) -> usize {
    let cache_control = info.cache_control.as_ref().map_or(0, String::len);
    let metadata: usize = info.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    info.key.len() + info.etag.len() + info.content_type.len() + cache_control + metadata
}

fn bytes_of_options(options: &wit::PutOptions) -> usize {
    let texts = [&options.content_type, &options.cache_control];
    let metadata: usize = options.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    texts.into_iter().flatten().map(String::len).sum::<usize>()
        + metadata
        + bytes_of_precondition(&options.precondition)
}

fn bytes_of_precondition(precondition: &wit::Precondition) -> usize {
    let etags = [&precondition.if_match, &precondition.if_none_match].into_iter().flatten();
    let lengths = etags.map(|etags| match etags {
        wit::Etags::Any => 0,
        wit::Etags::Of(list) => list.iter().map(String::len).sum(),
    });
    lengths.sum()
}
