//! The functions of a named container.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use redb::ReadTransaction;

use super::{
    BlobError, BlobInfo, BlobList, BlobOptions, BlobPage, BlobReport, GetOptions, Got, Precondition,
    PutOptions, Upload,
    change::{BlobChange, Decided, Decision, Step},
    check,
    limits::{KEY_BYTES, LIST_ITEMS, OBJECT_BYTES_MAX},
    list, reader,
    rows::{self, OBJECTS},
};
use crate::{
    commit::{Change, ended, gone},
    core::{Core, Open, unavailable},
    names::Kind,
};

/// A named container. A clone is the same container. Its functions need a tokio runtime; whatever needs the disk goes to
/// a blocking thread.
#[derive(Clone, Debug)]
pub struct Container {
    pub(super) number: u32,
    pub(super) options: Arc<BlobOptions>,
    pub(super) core: Arc<Core>,
    /// Keeps the committer running.
    _open: Arc<Open>,
}

impl Container {
    pub(crate) fn open(open: Arc<Open>, name: &str, options: BlobOptions) -> Result<Self, BlobError> {
        let core = Arc::clone(&open.core);
        core.health.check()?;
        if options.object_bytes > OBJECT_BYTES_MAX {
            return Err(BlobError::Invalid(format!("an object has at most {OBJECT_BYTES_MAX} bytes")));
        }
        if options.files {
            let folder = core.folder.as_ref();
            let folder =
                folder.ok_or_else(|| BlobError::Invalid("this store has no folder for files".to_owned()));
            folder?.create()?;
        }
        let number = core.names.number(Kind::Blob, name).map_err(BlobError::Invalid)?;
        Ok(Self { number, options: Arc::new(options), core, _open: open })
    }

    /// What it takes.
    pub fn options(&self) -> &BlobOptions {
        &self.options
    }

    /// Begins an upload. Nothing of it is seen before it is published; dropped, it leaves nothing.
    pub fn upload(&self, key: &str, options: PutOptions) -> Result<Upload, BlobError> {
        Upload::new(self, key, options)
    }

    /// Writes an object that is in memory.
    pub async fn put(&self, key: &str, bytes: &[u8], options: PutOptions) -> Result<BlobInfo, BlobError> {
        let mut upload = self.upload(key, options)?;
        upload.write(bytes).await?;
        upload.publish().await
    }

    /// Opens an object for reading.
    pub async fn get(&self, key: &str, options: GetOptions) -> Result<Got, BlobError> {
        check_key(key)?;
        options.precondition.check()?;
        let (container, key) = (self.clone(), key.to_owned());
        blocking(move || reader::open(&container, &key, options)).await
    }

    /// An object without its content.
    pub async fn head(&self, key: &str) -> Result<Option<BlobInfo>, BlobError> {
        check_key(key)?;
        let (key, number) = (key.to_owned(), self.number);
        self.read(move |transaction| {
            let record = rows::record(&transaction.open_table(OBJECTS)?, number, &key)?;
            Ok(record.map(|record| record.info(&key)))
        })
        .await
    }

    /// Removes an object if the precondition holds for it. False: there was none.
    pub async fn delete(&self, key: &str, precondition: Precondition) -> Result<bool, BlobError> {
        precondition.check()?;
        Ok(self.remove(vec![key.to_owned()], precondition).await? > 0)
    }

    /// Removes several objects, all of them or none; absent ones are no error. Returns how many there were.
    pub async fn delete_many(&self, keys: &[String]) -> Result<usize, BlobError> {
        if keys.len() > LIST_ITEMS {
            return Err(BlobError::TooLarge(format!("a list has at most {LIST_ITEMS} items")));
        }
        self.remove(keys.to_vec(), Precondition::default()).await
    }

    /// Objects in the order of their keys' UTF-8 bytes.
    pub async fn list(&self, list: BlobList) -> Result<BlobPage, BlobError> {
        list.check()?;
        let number = self.number;
        self.read(move |transaction| list::page(transaction, number, &list)).await
    }

    /// Counts what is there; `thorough` counts all references again, reads the bytes of every chunk, and compares. It sees
    /// one instant, and whatever it sees keeps its pages until the end.
    pub async fn check(&self, thorough: bool) -> Result<BlobReport, BlobError> {
        let number = self.number;
        let (core, go_on) = (Arc::clone(&self.core), AtomicBool::new(false));
        blocking(move || {
            let folder = core.folder.as_deref();
            Ok(check::report(&|| core.begin_read(), folder, number, thorough, &go_on)?)
        })
        .await
    }

    /// Whether this is a container of that heart.
    pub(crate) fn belongs_to(&self, core: &Arc<Core>) -> bool {
        Arc::ptr_eq(&self.core, core)
    }

    async fn remove(&self, keys: Vec<String>, precondition: Precondition) -> Result<usize, BlobError> {
        keys.iter().try_for_each(|key| check_key(key))?;
        let decided = Decided::new(OnceLock::new());
        let step = Step::Remove { keys, precondition, decided: Arc::clone(&decided) };
        let change = BlobChange { container: self.number, step, _lease: None, _place: None };
        self.core.submit(vec![Change::Blob(change)]).await?;
        outcome(&decided)
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, BlobError> {
        let core = Arc::clone(&self.core);
        blocking(move || Ok(work(&core.begin_read()?).map_err(unavailable)?)).await
    }
}

/// How many objects a decided change has changed.
pub(super) fn outcome(decided: &Decided) -> Result<usize, BlobError> {
    match decided.get() {
        Some(Decision::Done(objects)) => Ok(*objects),
        Some(Decision::Refused) => Err(BlobError::PreconditionFailed),
        None => Err(gone().into()),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(&error).into()))
}

pub(super) fn check_key(key: &str) -> Result<(), BlobError> {
    if key.is_empty() {
        return Err(BlobError::Invalid("a key must not be empty".to_owned()));
    }
    if key.len() > KEY_BYTES {
        return Err(BlobError::TooLarge(format!("a key has at most {KEY_BYTES} bytes")));
    }
    Ok(())
}
