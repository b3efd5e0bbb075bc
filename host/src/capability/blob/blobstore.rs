//! `wasi:blobstore`: the same containers under the standard's names, for components written for other hosts.
//!
//! A function here is one of ours called by another name where there is one; grants, budgets and limits hold in the same way, for
//! the streams of [`incoming`] and [`outgoing`] too.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use tollgate_store::{
    BlobError, BlobInfo, BlobList, ByteRange, Etags, GetOptions, Got, Precondition, PutOptions,
};
use wasmtime::component::{Linker, Resource};

use super::{BlobView, OpenContainer, bytes_of_info, convert_error, gone, view, wit as own};
use crate::capability::Host;
use crate::capability::view::{HasView, check_write};
use crate::plugin::bindings::imports::tollgate::storage::types as ours;
use crate::plugin::bindings::standards::wasi::blobstore::{blobstore, container, types};
use crate::plugin::limits::{BLOB_READERS, BLOB_WRITERS, LIST_ITEMS};

pub use incoming::IncomingValue;
pub use outgoing::OutgoingValue;

use container::{ContainerMetadata, ObjectMetadata};
use outgoing::{HasValues, Writer};
use types::ObjectId;

/// The names of a container's objects, as far as a guest has not taken them.
pub struct ObjectNames {
    open: OpenContainer,
    cursor: Option<String>,
    ended: bool,
}

/// Links the interfaces.
pub(super) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, HasValues>(linker, outgoing::values)?;
    container::add_to_linker::<T, HasView<OpenContainer>>(linker, view)?;
    blobstore::add_to_linker::<T, HasView<OpenContainer>>(linker, view)
}

impl From<ours::Error> for String {
    fn from(error: ours::Error) -> String {
        match error {
            ours::Error::AccessDenied => {
                "access denied: see [grants.blob] in the plugin's manifest".to_owned()
            }
            ours::Error::NoSuchStore => "there is no such container".to_owned(),
            ours::Error::Conflict => "a concurrent change won; try again".to_owned(),
            ours::Error::TooLarge(text) | ours::Error::Invalid(text) | ours::Error::Unavailable(text) => text,
        }
    }
}

const NO_CONDITION: own::Precondition = own::Precondition { if_match: None, if_none_match: None };

const ABSENT: &str = "there is no such object";

/// Which containers there are is not a plugin's to say.
const FIXED: &str = "containers are made and removed by the configuration of the host alone";

impl BlobView<'_> {
    /// The next names of a list, within a call that has been counted; none after the last of them. The list goes on behind them
    /// only if what is answered of them may be moved.
    async fn next_names(
        &mut self,
        handle: &Resource<ObjectNames>,
        most: u64,
        answered: impl Fn(&str) -> usize,
    ) -> Result<Vec<String>, String> {
        let limit = usize::try_from(most).unwrap_or(LIST_ITEMS).min(LIST_ITEMS);
        let names = self.table.get_mut(handle).map_err(gone)?;
        if names.ended || limit == 0 {
            return Ok(Vec::new());
        }
        let list = BlobList { prefix: String::new(), delimiter: None, cursor: names.cursor.clone(), limit };
        let page = names.open.container.list(list).await;
        let page = page.map_err(|error| convert_error(self.budget, error))?;
        let found: Vec<String> = page.objects.into_iter().map(|info| info.key).collect();
        self.answer(found.iter().map(|name| answered(name)).sum())?;
        let names = self.table.get_mut(handle).map_err(gone)?;
        names.ended = page.cursor.is_none();
        names.cursor = page.cursor;
        Ok(found)
    }

    fn ended(&self, handle: &Resource<ObjectNames>) -> Result<bool, ours::Error> {
        Ok(self.table.get(handle).map_err(gone)?.ended)
    }

    /// Copies an object as it is now; what it was. `with_source` says that the source will be removed then.
    async fn copy(&mut self, from: &ObjectId, to: &ObjectId, with_source: bool) -> Result<BlobInfo, String> {
        self.call([from, to].iter().map(|id| id.container.len() + id.object.len()).sum())?;
        let (source, target) = (self.named(&from.container)?, self.named(&to.container)?);
        check_write(self.budget, target.write && (source.write || !with_source))?;
        let _reading = self.place(source.readers.clone(), BLOB_READERS, "readers")?;
        let _writing = self.place(target.writers.clone(), BLOB_WRITERS, "writers")?;
        let failed = |error| convert_error(self.budget, error);
        let got = source.container.get(&from.object, GetOptions::default()).await.map_err(failed)?;
        let Got::Found(mut reader) = got else { return Err(ABSENT.to_owned()) };
        let info = reader.info().clone();
        let options = PutOptions {
            content_type: Some(info.content_type.clone()),
            cache_control: info.cache_control.clone(),
            metadata: info.metadata.clone(),
            precondition: Precondition::default(),
        };
        let mut upload = target.container.upload(&to.object, options).map_err(failed)?;
        let left = self.budget.share();
        while let Some(bytes) = reader.next().await.map_err(failed)? {
            left.answer(bytes.len())?;
            upload.write(&bytes).await.map_err(failed)?;
        }
        upload.publish().await.map_err(failed)?;
        Ok(info)
    }
}

impl container::Host for BlobView<'_> {}

impl container::HostContainer for BlobView<'_> {
    async fn name(&mut self, handle: Resource<OpenContainer>) -> Result<String, String> {
        let name = self.reading(&handle, 0)?.name;
        self.answer(name.len())?;
        Ok(name.as_ref().to_owned())
    }

    async fn info(&mut self, handle: Resource<OpenContainer>) -> Result<ContainerMetadata, String> {
        let name = container::HostContainer::name(self, handle).await?;
        Ok(ContainerMetadata { name, created_at: 0 })
    }

    async fn get_data(
        &mut self,
        handle: Resource<OpenContainer>,
        name: String,
        start: u64,
        end: u64,
    ) -> Result<Resource<IncomingValue>, String> {
        let open = self.reading(&handle, name.len())?;
        let Some(more) = end.checked_sub(start) else { return Err("the end is before the start".to_owned()) };
        let range = ByteRange::From { offset: start, length: Some(more.saturating_add(1)) };
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let value = match open.container.get(&name, options).await {
            Ok(Got::Found(reader)) => {
                IncomingValue::new(reader, self.place(open.readers, BLOB_READERS, "readers")?)
            }
            Ok(Got::Absent | Got::Unmet(..)) => return Err(ABSENT.to_owned()),
            Err(BlobError::OutOfRange(_)) => IncomingValue::empty(),
            Err(error) => return Err(convert_error(self.budget, error).into()),
        };
        Ok(self.push(value)?)
    }

    async fn write_data(
        &mut self,
        handle: Resource<OpenContainer>,
        name: String,
        value: Resource<OutgoingValue>,
    ) -> Result<(), String> {
        let open = self.writing(&handle, name.len())?;
        let place = self.place(open.writers, BLOB_WRITERS, "writers")?;
        let upload = open.container.upload(&name, PutOptions::default());
        let upload = upload.map_err(|error| convert_error(self.budget, error))?;
        self.table.get(&value).map_err(gone)?.goes_to(Box::new(Writer { upload, place })).await
    }

    async fn list_objects(
        &mut self,
        handle: Resource<OpenContainer>,
    ) -> Result<Resource<ObjectNames>, String> {
        let open = self.reading(&handle, 0)?;
        Ok(self.push(ObjectNames { open, cursor: None, ended: false })?)
    }

    async fn delete_object(&mut self, handle: Resource<OpenContainer>, name: String) -> Result<(), String> {
        own::HostContainer::delete(self, handle, name, NO_CONDITION).await?;
        Ok(())
    }

    async fn delete_objects(
        &mut self,
        handle: Resource<OpenContainer>,
        names: Vec<String>,
    ) -> Result<(), String> {
        own::HostContainer::delete_many(self, handle, names).await?;
        Ok(())
    }

    async fn has_object(&mut self, handle: Resource<OpenContainer>, name: String) -> Result<bool, String> {
        Ok(own::HostContainer::head(self, handle, name).await?.is_some())
    }

    async fn object_info(
        &mut self,
        handle: Resource<OpenContainer>,
        name: String,
    ) -> Result<ObjectMetadata, String> {
        let open = self.reading(&handle, name.len())?;
        let info = open.container.head(&name).await.map_err(|error| convert_error(self.budget, error))?;
        let info = info.ok_or(ABSENT)?;
        self.answer(bytes_of_info(&info))?;
        Ok(ObjectMetadata {
            name: info.key,
            container: open.name.as_ref().to_owned(),
            created_at: info.uploaded_ms / 1_000,
            size: info.size,
        })
    }

    async fn clear(&mut self, handle: Resource<OpenContainer>) -> Result<(), String> {
        let mut cursor = None;
        loop {
            // Each step is a call of its own in the budget.
            let container = self.writing(&handle, 0)?.container;
            let list = BlobList { prefix: String::new(), delimiter: None, cursor, limit: LIST_ITEMS };
            let failed = |error| convert_error(self.budget, error);
            let page = container.list(list).await.map_err(failed)?;
            let keys: Vec<String> = page.objects.into_iter().map(|info| info.key).collect();
            container.delete_many(&keys).await.map_err(failed)?;
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn drop(&mut self, handle: Resource<OpenContainer>) -> wasmtime::Result<()> {
        own::HostContainer::drop(self, handle).await
    }
}

impl container::HostStreamObjectNames for BlobView<'_> {
    async fn read_stream_object_names(
        &mut self,
        handle: Resource<ObjectNames>,
        most: u64,
    ) -> Result<(Vec<String>, bool), String> {
        self.call(0)?;
        let names = self.next_names(&handle, most, str::len).await?;
        Ok((names, self.ended(&handle)?))
    }

    async fn skip_stream_object_names(
        &mut self,
        handle: Resource<ObjectNames>,
        most: u64,
    ) -> Result<(u64, bool), String> {
        self.call(0)?;
        let skipped = self.next_names(&handle, most, |_| 0).await?.len();
        Ok((skipped as u64, self.ended(&handle)?))
    }

    async fn drop(&mut self, handle: Resource<ObjectNames>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl blobstore::Host for BlobView<'_> {
    async fn create_container(&mut self, name: String) -> Result<Resource<OpenContainer>, String> {
        self.call(name.len())?;
        Err(FIXED.to_owned())
    }

    async fn get_container(&mut self, name: String) -> Result<Resource<OpenContainer>, String> {
        Ok(self.open_named(&name)?)
    }

    async fn delete_container(&mut self, name: String) -> Result<(), String> {
        self.call(name.len())?;
        Err(FIXED.to_owned())
    }

    async fn container_exists(&mut self, name: String) -> Result<bool, String> {
        self.call(name.len())?;
        match self.named(&name) {
            Ok(_) => Ok(true),
            Err(ours::Error::NoSuchStore) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn copy_object(&mut self, from: ObjectId, to: ObjectId) -> Result<(), String> {
        self.copy(&from, &to, false).await?;
        Ok(())
    }

    async fn move_object(&mut self, from: ObjectId, to: ObjectId) -> Result<(), String> {
        let moved = self.copy(&from, &to, true).await?;
        if (&from.container, &from.object) == (&to.container, &to.object) {
            return Ok(());
        }
        let as_copied = Precondition { if_match: Some(Etags::Of(vec![moved.etag])), if_none_match: None };
        let removed = self.named(&from.container)?.container.delete(&from.object, as_copied).await;
        removed.map_err(|error| convert_error(self.budget, error))?;
        Ok(())
    }
}
