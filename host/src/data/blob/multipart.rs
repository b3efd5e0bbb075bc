//! Uploads in parts: begun, sent in any order, completed or given up.
//!
//! All of an upload stands in a hidden container beside the objects' own: `ID/about`, whose content is the key and whose
//! information is the object's, and `ID/part/NNNNN`. Completing streams the parts into the object, so that it has the same
//! tag as if it had come whole.

use std::time::Duration;

use axum::Json as Answer;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tollgate_store::{BlobError, BlobInfo, BlobList, Container, GetOptions, Got, Precondition, PutOptions};
use utoipa::ToSchema;

use super::Blob;
use crate::api::error::ApiError;
use crate::data::limits::{MULTIPART_LIFE, MULTIPARTS, PAGE_MOST, PARTS};

/// An upload in parts that has begun.
#[derive(Serialize, ToSchema)]
#[schema(as = UploadBegun)]
pub(in crate::data) struct Begun {
    key: String,
    /// Its id, for the parameter `upload`.
    upload: String,
}

/// The parts that make the object.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UploadComplete)]
pub(in crate::data) struct Complete {
    /// The entity tags of the parts 1, 2, … as they were answered, all of them.
    #[schema(min_items = 1, max_items = 10000)]
    parts: Vec<String>,
}

/// What has come of an upload.
#[derive(Serialize)]
struct Parts {
    key: String,
    upload: String,
    /// In the order of their numbers.
    parts: Vec<Part>,
}

/// A part that has come.
#[derive(Serialize, ToSchema)]
#[schema(as = UploadPart)]
pub(in crate::data) struct Part {
    /// Its number.
    part: u32,
    /// Bytes.
    size: u64,
    /// SHA-256 of the part, in hexadecimal.
    etag: String,
}

impl Part {
    pub(super) fn new(part: u32, info: BlobInfo) -> Part {
        Part { part, size: info.size, etag: info.etag }
    }
}

/// Begins an upload of an object with this information.
pub(super) async fn begin(blob: &Blob, key: String, options: PutOptions) -> Result<Begun, ApiError> {
    let options = PutOptions { precondition: Precondition::default(), ..options };
    // Refused now rather than after all parts have come.
    drop(blob.objects.upload(&key, options.clone())?);
    let open = BlobList { delimiter: Some("/".to_owned()), limit: MULTIPARTS, ..BlobList::default() };
    if blob.parts.list(open).await?.prefixes.len() >= MULTIPARTS {
        return Err(ApiError::conflict(format!("{MULTIPARTS} uploads in parts are open in this container"))
            .hint("complete some, or give them up with DELETE"));
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| ApiError::unavailable(format!("no random numbers: {error}")))?;
    let upload = hex::encode(id);
    blob.parts.put(&about(&upload), key.as_bytes(), options).await?;
    Ok(Begun { key, upload })
}

/// Where a part goes.
pub(super) async fn part(blob: &Blob, id: &str, key: &str, part: u32) -> Result<String, ApiError> {
    if !(1..=PARTS).contains(&part) {
        return Err(ApiError::invalid(format!("`part` must be from 1 to {PARTS}")));
    }
    check(blob, id, key).await?;
    Ok(place(id, part))
}

/// What has come so far.
pub(super) async fn list(blob: &Blob, id: &str, key: &str) -> Result<Response, ApiError> {
    check(blob, id, key).await?;
    let parts = parts(&blob.parts, id).await?.into_iter().map(|(part, info)| Part::new(part, info)).collect();
    Ok(Answer(Parts { key: key.to_owned(), upload: id.to_owned(), parts }).into_response())
}

/// Makes the object. If the client goes meanwhile, it can be done again.
pub(super) async fn complete(
    blob: &Blob,
    id: &str,
    key: &str,
    complete: Complete,
    precondition: Precondition,
) -> Result<BlobInfo, ApiError> {
    check(blob, id, key).await?;
    let have = parts(&blob.parts, id).await?;
    let fits = |(number, ((part, info), tag)): (u32, (&(u32, BlobInfo), &String))| {
        *part == number && info.etag == tag.trim_matches('"')
    };
    let whole = !have.is_empty() && have.len() == complete.parts.len();
    if !whole || !(1..).zip(have.iter().zip(&complete.parts)).all(fits) {
        return Err(mismatch());
    }
    let info = blob.parts.head(&about(id)).await?.ok_or_else(|| none(id))?;
    let options = PutOptions {
        content_type: Some(info.content_type),
        cache_control: info.cache_control,
        metadata: info.metadata,
        precondition,
    };
    let mut upload = blob.objects.upload(key, options)?;
    for (part, info) in &have {
        let options = GetOptions { precondition: Precondition::etag(&info.etag), ..GetOptions::default() };
        let Got::Found(mut reader) = blob.parts.get(&place(id, *part), options).await? else {
            return Err(mismatch());
        };
        while let Some(bytes) = reader.next().await? {
            upload.write(&bytes).await?;
        }
    }
    let info = upload.publish().await?;
    // The object is there; parts that cannot be removed now are swept later.
    if let Err(error) = remove(&blob.parts, id).await {
        tracing::warn!(%error, "the parts of a complete upload could not be removed");
    }
    Ok(info)
}

/// Gives an upload up.
pub(super) async fn abandon(blob: &Blob, id: &str, key: &str) -> Result<(), ApiError> {
    check(blob, id, key).await?;
    Ok(remove(&blob.parts, id).await?)
}

/// Removes the uploads that have been open for too long at this time, in milliseconds since 1970.
///
/// # Errors
///
/// When the store fails.
pub async fn sweep(blob: &Blob, now_ms: u64) -> Result<(), BlobError> {
    let mut list =
        BlobList { delimiter: Some("/".to_owned()), limit: PAGE_MOST as usize, ..BlobList::default() };
    loop {
        let page = blob.parts.list(list.clone()).await?;
        for id in page.prefixes.iter().filter_map(|prefix| prefix.strip_suffix('/')) {
            let begun = blob.parts.head(&about(id)).await?.map_or(0, |info| info.uploaded_ms);
            if Duration::from_millis(now_ms.saturating_sub(begun)) >= MULTIPART_LIFE {
                remove(&blob.parts, id).await?;
            }
        }
        match page.cursor {
            Some(cursor) => list.cursor = Some(cursor),
            None => return Ok(()),
        }
    }
}

/// An upload is there for one key only.
async fn check(blob: &Blob, id: &str, key: &str) -> Result<(), ApiError> {
    if id.len() == 32
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && let Got::Found(reader) = blob.parts.get(&about(id), GetOptions::default()).await?
        && reader.read_all().await? == key.as_bytes()
    {
        return Ok(());
    }
    Err(none(id))
}

/// The parts that are there, in order.
async fn parts(container: &Container, id: &str) -> Result<Vec<(u32, BlobInfo)>, BlobError> {
    let prefix = format!("{id}/part/");
    let mut list = BlobList { prefix: prefix.clone(), limit: PAGE_MOST as usize, ..BlobList::default() };
    let mut parts = Vec::new();
    loop {
        let page = container.list(list.clone()).await?;
        parts.extend(page.objects.into_iter().filter_map(|info| {
            let number = info.key.strip_prefix(&prefix)?.parse().ok()?;
            Some((number, info))
        }));
        match page.cursor {
            Some(cursor) => list.cursor = Some(cursor),
            None => return Ok(parts),
        }
    }
}

/// Removes all of an upload, what it is about last: until then it can be found.
async fn remove(container: &Container, id: &str) -> Result<(), BlobError> {
    let keys: Vec<_> = parts(container, id).await?.into_iter().map(|(_, info)| info.key).collect();
    for keys in keys.chunks(PAGE_MOST as usize) {
        container.delete_many(keys).await?;
    }
    container.delete(&about(id), Precondition::default()).await.map(drop)
}

fn about(id: &str) -> String {
    format!("{id}/about")
}

fn place(id: &str, part: u32) -> String {
    format!("{id}/part/{part:05}")
}

fn none(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no upload `{id}` of this key"))
}

fn mismatch() -> ApiError {
    ApiError::conflict("`parts` are not the parts that have come")
        .hint("GET the key with `upload` to see what has come")
}

#[cfg(test)]
mod tests {
    use tollgate_store::{BlobOptions, Options, Store};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn uploads_that_nobody_completed_are_forgotten_in_their_time_and_no_others() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let open = |name: &str| store.container(name, BlobOptions::default()).unwrap();
        let blob = Blob { objects: open("images"), parts: open("images/parts") };
        blob.objects.put("object", b"stays", PutOptions::default()).await.unwrap();
        let id = begin(&blob, "k".to_owned(), PutOptions::default()).await.unwrap().upload;
        for number in [1, 2] {
            blob.parts.put(&place(&id, number), b"part", PutOptions::default()).await.unwrap();
        }
        // Left by a removal that was cut short, it would be found by nothing else.
        let lost = "f".repeat(32);
        blob.parts.put(&place(&lost, 1), b"part", PutOptions::default()).await.unwrap();
        let begun = blob.parts.head(&about(&id)).await.unwrap().unwrap().uploaded_ms;
        let life = u64::try_from(MULTIPART_LIFE.as_millis()).unwrap();
        sweep(&blob, begun + life - 1).await.unwrap();
        assert_eq!(parts(&blob.parts, &id).await.unwrap().len(), 2);
        assert_eq!(parts(&blob.parts, &lost).await.unwrap().len(), 0);
        sweep(&blob, begun + life).await.unwrap();
        assert_eq!(blob.parts.list(BlobList::default()).await.unwrap().objects, []);
        assert_eq!(blob.objects.list(BlobList::default()).await.unwrap().objects.len(), 1);
    }
}
