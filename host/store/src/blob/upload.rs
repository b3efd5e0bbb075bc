//! Uploads: a stream cut into chunks, a bounded part of it in memory.

use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::{
    BlobError, BlobInfo, PutOptions,
    change::{BlobChange, Decided, Step},
    chunk::{self, Chunk},
    container::{Container, blocking, check_key, outcome},
    folder::Draft,
    lease::Lease,
    limits::{
        CHUNK_BYTES, HEADER_BYTES, METADATA_BYTES, METADATA_ENTRIES, METADATA_NAME_BYTES, UPLOAD_BYTES,
    },
    rows::Record,
};
use crate::commit::{Ack, Change};

const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// An object that is being written. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    container: Container,
    key: String,
    options: PutOptions,
    content: u64,
    lease: Arc<Lease>,
    /// Bytes that are not cut yet, under `UPLOAD_BYTES`.
    gathered: Vec<u8>,
    /// Bytes taken so far.
    size: u64,
    /// None after an error, or if a call was cancelled: part of the content may be missing.
    progress: Option<Progress>,
}

/// What has been cut so far.
#[derive(Debug, Default)]
struct Progress {
    sha256: Sha256,
    chunks: u64,
    on_its_way: Option<Ack>,
    /// The content, if it is a file and something was written to it.
    draft: Option<Draft>,
}

/// An upload of which all bytes are here, ready to be published.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) container: Container,
    pub(crate) changes: Vec<Change>,
    record: Record,
    key: String,
    decided: Decided,
}

impl Upload {
    pub(super) fn new(container: &Container, key: &str, options: PutOptions) -> Result<Self, BlobError> {
        check_key(key)?;
        options.check(&container.options.content_types)?;
        container.core.health.check()?;
        let content = container.core.next_version();
        Ok(Self {
            container: container.clone(),
            key: key.to_owned(),
            options,
            content,
            lease: Arc::new(container.core.leases.take(content)),
            gathered: Vec::new(),
            size: 0,
            progress: Some(Progress::default()),
        })
    }

    /// Bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes. Waits while enough of the upload is on its way to the disk: that is the back-pressure.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        let most = self.container.options.object_bytes;
        if self.size.saturating_add(bytes.len() as u64) > most {
            self.progress = None;
            return Err(BlobError::TooLarge(format!("an object of this container has at most {most} bytes")));
        }
        if self.progress.is_none() {
            return Err(interrupted());
        }
        self.size += bytes.len() as u64;
        while self.gathered.len() + bytes.len() >= UPLOAD_BYTES {
            let (now, later) =
                bytes.split_at_checked(UPLOAD_BYTES - self.gathered.len()).unwrap_or((bytes, &[]));
            self.gathered.extend_from_slice(now);
            self.send().await?;
            bytes = later;
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    /// Publishes the object, if the precondition holds; it is on disk, whole, when this returns.
    pub async fn publish(self) -> Result<BlobInfo, BlobError> {
        let Prepared { container, changes, record, key, decided } = self.prepare().await?;
        container.core.submit(changes).await?;
        outcome(&decided)?;
        Ok(record.info(&key))
    }

    /// Brings all bytes to where a commit can publish them: this one's own, or a joint one.
    pub async fn prepare(mut self) -> Result<Prepared, BlobError> {
        let files = self.container.options.files;
        let (mut progress, first, chunks) =
            if files { (self.write_out(true).await?, 0, Vec::new()) } else { self.cut().await? };
        if let Some(ack) = progress.on_its_way.take() {
            ack.await?;
        }
        let container = self.container;
        let record = Record {
            content: self.content,
            chunk_bytes: if files { 0 } else { CHUNK_BYTES as u32 },
            size: self.size,
            sha256: progress.sha256.finalize().into(),
            uploaded_ms: container.core.now_ms(),
            content_type: self.options.content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned()),
            cache_control: self.options.cache_control.or_else(|| container.options.cache_control.clone()),
            metadata: self.options.metadata,
        };
        let decided = Decided::new(OnceLock::new());
        let change = |step| {
            Change::Blob(BlobChange {
                container: container.number,
                step,
                _lease: Some(Arc::clone(&self.lease)),
                _place: None,
            })
        };
        let mut changes = Vec::new();
        if !chunks.is_empty() {
            changes.push(change(Step::Append { content: self.content, first, chunks }));
        }
        changes.push(change(Step::Publish {
            key: self.key.clone(),
            record: record.clone(),
            precondition: self.options.precondition,
            decided: Arc::clone(&decided),
            draft: progress.draft.map(Arc::new),
        }));
        Ok(Prepared { container, changes, record, key: self.key, decided })
    }

    /// Hands what was gathered to the committer, once the part before is on disk; or to the file.
    async fn send(&mut self) -> Result<(), BlobError> {
        if self.container.options.files {
            self.progress = Some(self.write_out(false).await?);
            return Ok(());
        }
        let (mut progress, first, chunks) = self.cut().await?;
        if let Some(ack) = progress.on_its_way.take() {
            ack.await?;
        }
        let core = &self.container.core;
        let place = Arc::clone(&core.leases.waiting).acquire_owned().await.map_err(|_| interrupted())?;
        let step = Step::Append { content: self.content, first, chunks };
        let change = BlobChange {
            container: self.container.number,
            step,
            _lease: Some(Arc::clone(&self.lease)),
            // Free when the message is written, however long the client takes for more.
            _place: Some(place),
        };
        progress.on_its_way = Some(core.submit(vec![Change::Blob(change)]));
        self.progress = Some(progress);
        Ok(())
    }

    /// Hashes what was gathered and writes it to the file, which is on disk afterwards if `all` is there. The progress comes
    /// back only when nothing has failed.
    async fn write_out(&mut self, all: bool) -> Result<Progress, BlobError> {
        let mut progress = self.progress.take().ok_or_else(interrupted)?;
        let gathered = std::mem::take(&mut self.gathered);
        let (folder, content) = (self.container.core.folder.clone(), self.content);
        let (progress, mut gathered) = blocking(move || {
            progress.sha256.update(&gathered);
            let draft = match (progress.draft.take(), folder) {
                (Some(draft), _) => draft,
                (None, Some(folder)) => Draft::create(&folder, content)?,
                (None, None) => return Err(interrupted()),
            };
            draft.write(&gathered)?;
            if all {
                draft.sync()?;
            }
            progress.draft = Some(draft);
            Ok((progress, gathered))
        })
        .await?;
        gathered.clear();
        self.gathered = gathered;
        Ok(progress)
    }

    /// Hashes and cuts what was gathered. The progress comes back only when nothing has failed.
    async fn cut(&mut self) -> Result<(Progress, u64, Vec<Chunk>), BlobError> {
        let mut progress = self.progress.take().ok_or_else(interrupted)?;
        let gathered = std::mem::take(&mut self.gathered);
        let first = progress.chunks;
        let (progress, chunks, mut gathered) = blocking(move || {
            progress.sha256.update(&gathered);
            let chunks = chunk::cut(&gathered)?;
            progress.chunks += chunks.len() as u64;
            Ok((progress, chunks, gathered))
        })
        .await?;
        gathered.clear();
        self.gathered = gathered;
        Ok((progress, first, chunks))
    }
}

impl Prepared {
    /// Whether it is published whatever stands under the key.
    pub(crate) fn is_unconditional(&self) -> bool {
        self.changes.iter().all(|change| match change {
            Change::Blob(BlobChange { step: Step::Publish { precondition, .. }, .. }) => {
                precondition.is_none()
            }
            _ => true,
        })
    }

    /// The object as it will be.
    pub fn info(&self) -> BlobInfo {
        self.record.clone().info(&self.key)
    }
}

fn interrupted() -> BlobError {
    BlobError::Invalid("the upload has failed or was interrupted before; begin it again".to_owned())
}

impl PutOptions {
    fn check(&self, content_types: &[String]) -> Result<(), BlobError> {
        let content_type = self.content_type.as_deref().unwrap_or(DEFAULT_CONTENT_TYPE);
        check_header("content type", content_type)?;
        if !content_types.is_empty() && !content_types.iter().any(|allowed| matches(allowed, content_type)) {
            let allowed = content_types.join(", ");
            let text = format!("content type {content_type:?} is not taken; this container takes {allowed}");
            return Err(BlobError::Invalid(text));
        }
        if let Some(cache_control) = &self.cache_control {
            check_header("cache control", cache_control)?;
        }
        self.precondition.check()?;
        self.check_metadata()
    }

    fn check_metadata(&self) -> Result<(), BlobError> {
        if self.metadata.len() > METADATA_ENTRIES {
            return Err(BlobError::TooLarge(format!("metadata has at most {METADATA_ENTRIES} entries")));
        }
        let bytes: usize = self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > METADATA_BYTES || self.metadata.iter().any(|(name, _)| name.len() > METADATA_NAME_BYTES) {
            return Err(BlobError::TooLarge(format!(
                "metadata has at most {METADATA_BYTES} bytes, and a name {METADATA_NAME_BYTES}"
            )));
        }
        for (position, (name, value)) in self.metadata.iter().enumerate() {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || !name.bytes().all(allowed) {
                return Err(BlobError::Invalid(format!("metadata name {name:?}: a-z, 0-9 and - are taken")));
            }
            if value.chars().any(char::is_control) || value.trim() != value {
                let text = format!("metadata {name:?} has control characters, or spaces around it");
                return Err(BlobError::Invalid(text));
            }
            if self.metadata.iter().take(position).any(|(before, _)| before == name) {
                return Err(BlobError::Invalid(format!("metadata {name:?} is there twice")));
            }
        }
        Ok(())
    }
}

/// What becomes a header has to be one.
fn check_header(what: &str, value: &str) -> Result<(), BlobError> {
    if value.len() > HEADER_BYTES {
        return Err(BlobError::TooLarge(format!("a {what} has at most {HEADER_BYTES} bytes")));
    }
    if value.trim().is_empty()
        || value.trim() != value
        || !value.bytes().all(|byte| (32..127).contains(&byte))
    {
        return Err(BlobError::Invalid(format!("a {what} is printable ASCII, without spaces around it")));
    }
    Ok(())
}

/// `image/*` takes every image; parameters such as the charset do not count, nor does case.
fn matches(allowed: &str, content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let allowed = allowed.to_ascii_lowercase();
    match allowed.strip_suffix('*') {
        Some(prefix) => essence.starts_with(prefix),
        None => essence == allowed,
    }
}
