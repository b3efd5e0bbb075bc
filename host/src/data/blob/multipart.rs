//! Uploads in parts: begun, sent in any order, completed or given up.
//!
//! All of an upload stands in a hidden container beside the objects' own: `ID/about`, whose content is the key and whose
//! information is the object's, and `ID/part/NNNNN`. Completing streams the parts into the object, so that it has the same
//! tag as if it had come whole.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use tollgate_store::{BlobError, BlobInfo, BlobList, Container, GetOptions, Got, Precondition, PutOptions};
use utoipa::ToSchema;

use super::Blob;
use super::uploads::{begun_ms, make_room, open};
use crate::api::error::ApiError;
use crate::api::list::bounded;
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
    #[serde(deserialize_with = "tags")]
    #[schema(min_items = 1, max_items = 10000)]
    parts: Vec<String>,
}

fn tags<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    bounded(from, PARTS as usize, |number| format!("parts[{number}]"))
}

/// What has come of an upload.
#[derive(Serialize)]
pub(super) struct Parts {
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
pub(super) async fn begin(
    blob: &Blob,
    key: String,
    options: PutOptions,
    now_ms: u64,
) -> Result<Begun, ApiError> {
    let options = PutOptions { precondition: Precondition::default(), ..options };
    // Refused now rather than after all parts have come.
    drop(blob.objects.upload(&key, options.clone())?);
    // One after the other: else many could count before one of them is there.
    let _counted = blob.beginning.lock().await;
    let open = open(&blob.parts).await?;
    if open.len() >= MULTIPARTS && !make_room(&blob.parts, &open, now_ms).await? {
        return Err(ApiError::conflict(format!("{MULTIPARTS} uploads in parts are open in this container"))
            .hint("GET /api/uploads/CONTAINER lists them; complete some, or give them up with DELETE"));
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
pub(super) async fn come(blob: &Blob, id: &str, key: &str) -> Result<Parts, ApiError> {
    check(blob, id, key).await?;
    let parts = parts(&blob.parts, id).await?.into_iter().map(|(part, info)| Part::new(part, info)).collect();
    Ok(Parts { key: key.to_owned(), upload: id.to_owned(), parts })
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
    for id in open(&blob.parts).await? {
        let begun_ms = begun_ms(&blob.parts, &id).await?;
        if Duration::from_millis(now_ms.saturating_sub(begun_ms)) >= MULTIPART_LIFE {
            remove(&blob.parts, &id).await?;
        }
    }
    Ok(())
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
pub(super) async fn parts(container: &Container, id: &str) -> Result<Vec<(u32, BlobInfo)>, BlobError> {
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
pub(super) async fn remove(container: &Container, id: &str) -> Result<(), BlobError> {
    let keys: Vec<_> = parts(container, id).await?.into_iter().map(|(_, info)| info.key).collect();
    for keys in keys.chunks(PAGE_MOST as usize) {
        container.delete_many(keys).await?;
    }
    container.delete(&about(id), Precondition::default()).await.map(drop)
}

pub(super) fn about(id: &str) -> String {
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tollgate_store::{BlobOptions, Options, Store};

    use super::*;
    use crate::data::limits::MULTIPART_IDLE;

    fn blob(store: &Store) -> Blob {
        let open = |name: &str| store.container(name, BlobOptions::default()).unwrap();
        Blob::new(open("images"), open("images/parts"))
    }

    async fn begun(blob: &Blob, key: &str, now_ms: u64) -> Result<String, ApiError> {
        begin(blob, key.to_owned(), PutOptions::default(), now_ms).await.map(|begun| begun.upload)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn uploads_that_nobody_completed_are_forgotten_in_their_time_and_no_others() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let blob = blob(&store);
        blob.objects.put("object", b"stays", PutOptions::default()).await.unwrap();
        let id = begun(&blob, "k", 0).await.unwrap();
        for number in [1, 2] {
            blob.parts.put(&place(&id, number), b"part", PutOptions::default()).await.unwrap();
        }
        // Left by a removal that was cut short, it would be found by nothing else.
        let lost = "f".repeat(32);
        blob.parts.put(&place(&lost, 1), b"part", PutOptions::default()).await.unwrap();
        let begun_ms = blob.parts.head(&about(&id)).await.unwrap().unwrap().uploaded_ms;
        let life = u64::try_from(MULTIPART_LIFE.as_millis()).unwrap();
        sweep(&blob, begun_ms + life - 1).await.unwrap();
        assert_eq!(parts(&blob.parts, &id).await.unwrap().len(), 2);
        assert_eq!(parts(&blob.parts, &lost).await.unwrap().len(), 0);
        sweep(&blob, begun_ms + life).await.unwrap();
        assert_eq!(blob.parts.list(BlobList::default()).await.unwrap().objects, []);
        assert_eq!(blob.objects.list(BlobList::default()).await.unwrap().objects.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn in_a_full_container_the_oldest_upload_that_is_idle_gives_way_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(1_000_000));
        let clock = now.clone();
        let clock: tollgate_store::Clock = Arc::new(move || clock.load(Ordering::SeqCst));
        let options = Options { clock, ..Options::default() };
        let store = Store::open(&home.path().join("store"), options).unwrap();
        let blob = blob(&store);
        let pass = |time: Duration| now.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        let now_ms = || now.load(Ordering::SeqCst);
        let first = begun(&blob, "first", now_ms()).await.unwrap();
        pass(Duration::from_secs(1));
        let second = begun(&blob, "second", now_ms()).await.unwrap();
        pass(MULTIPART_IDLE / 2);
        for number in 2..MULTIPARTS {
            begun(&blob, &number.to_string(), now_ms()).await.unwrap();
        }
        assert!(begun(&blob, "full", now_ms()).await.is_err());
        // The first goes on, so that it is the second that has brought nothing for longest.
        blob.parts.put(&place(&first, 1), b"part", PutOptions::default()).await.unwrap();
        pass(MULTIPART_IDLE / 2 - Duration::from_millis(1));
        assert!(begun(&blob, "too early", now_ms()).await.is_err());
        pass(Duration::from_millis(1));
        begun(&blob, "fits", now_ms()).await.unwrap();
        assert!(check(&blob, &second, "second").await.is_err());
        assert_eq!(parts(&blob.parts, &first).await.unwrap().len(), 1);
        assert!(begun(&blob, "full again", now_ms()).await.is_err());
        assert_eq!(open(&blob.parts).await.unwrap().len(), MULTIPARTS);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_that_begin_at_once_no_more_than_fit_do() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let blob = blob(&store);
        let mut beginning = tokio::task::JoinSet::new();
        for number in 0..MULTIPARTS + 20 {
            let blob = blob.clone();
            beginning.spawn(async move { begun(&blob, &number.to_string(), 0).await.is_ok() });
        }
        let all = beginning.join_all().await;
        assert_eq!(all.iter().filter(|begun| **begun).count(), MULTIPARTS);
    }
}
