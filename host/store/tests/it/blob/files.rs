//! Contents that are files: plain bytes, there with their objects, gone with them, and nothing else.

use std::{fs, path::Path};

use tollgate_store::{
    BlobError, BlobOptions, CommitError, GetOptions, Joint, Options, Precondition, PutOptions, Statement,
    StorageError, Store,
};

use super::support::{CHUNK, bytes, collected, container, if_match, in_files, noise, put, reader, report};
use crate::support::{DURABLE, Place, value};

/// The files of a folder, in the order in which they were begun.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// Waits until there are so many. The committer comes to it by itself, once a second at the latest.
pub(super) async fn has_files(folder: &Path, count: usize) {
    while files(folder).len() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_a_file_of_its_bytes_as_long_as_it_is_there() {
    let place = Place::new();
    let store = place.open();
    let blobs = in_files(&store, "a");
    let (first, second) = (noise(1, 40 * CHUNK + 7), noise(2, CHUNK));
    put(&blobs, "k", &first).await;
    put(&blobs, "empty", &[]).await;
    assert!(files(&place.blob_folder()) == [first.clone(), vec![]]);
    let mut slow = reader(&blobs, "k", GetOptions::default()).await.unwrap();
    let begun = slow.next().await.unwrap().unwrap();
    put(&blobs, "k", &second).await;
    // Whoever has opened the first one reads it to its end; then it goes.
    assert!([begun, slow.read_all().await.unwrap()].concat() == first);
    has_files(&place.blob_folder(), 2).await;
    assert!(files(&place.blob_folder()) == [vec![], second.clone()]);
    let found = collected(&blobs).await;
    assert_eq!((found.objects, found.chunks, found.stored_bytes), (2, 0, CHUNK as u64));
    blobs.delete_many(&["k".to_owned(), "empty".to_owned()]).await.unwrap();
    has_files(&place.blob_folder(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_comes_to_nothing_leaves_no_file() {
    let place = Place::new();
    let store = place.open();
    let blobs = in_files(&store, "a");
    put(&blobs, "k", b"here").await;
    let mut given_up = blobs.upload("k", PutOptions::default()).unwrap();
    given_up.write(&noise(1, 40 * CHUNK)).await.unwrap();
    assert_eq!(files(&place.blob_folder()).len(), 2);
    drop(given_up);
    let refused = blobs.put("k", b"other", if_match(Precondition::absent())).await;
    assert_eq!(refused, Err(BlobError::PreconditionFailed));
    drop(blobs.upload("k", PutOptions::default()).unwrap().prepare().await.unwrap());
    has_files(&place.blob_folder(), 1).await;
    assert_eq!(bytes(&blobs, "k").await.unwrap(), b"here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_has_left_goes_after_the_next_start_and_nothing_else_does() {
    let place = Place::new();
    let store = place.open();
    put(&in_files(&store, "a"), "k", b"here").await;
    store.close().await.unwrap();
    drop(store);
    let folder = place.blob_folder();
    let published = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().file_name();
    let number = u64::from_str_radix(published.to_str().unwrap(), 16).unwrap();
    for stray in 1..2_500 {
        fs::write(folder.join(format!("{:016x}", number + stray)), b"half an upl").unwrap();
    }
    // These are not the store's.
    fs::write(folder.join("read.me"), b"a note").unwrap();
    fs::write(folder.join("00000000000000AB"), b"a note").unwrap();
    let store = place.open();
    has_files(&folder, 3).await;
    assert_eq!(bytes(&in_files(&store, "a"), "k").await.unwrap(), b"here");
    report(&in_files(&store, "a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_changed_or_lost_is_told_and_the_rest_goes_on() {
    let place = Place::new();
    let store = place.open();
    let blobs = in_files(&store, "a");
    let content = noise(1, 3 * CHUNK);
    for key in ["changed", "cut", "lost", "whole"] {
        put(&blobs, key, &content).await;
    }
    let mut paths: Vec<_> =
        fs::read_dir(place.blob_folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut changed = content.clone();
    changed[2 * CHUNK] ^= 1;
    fs::write(&paths[0], changed).unwrap();
    fs::write(&paths[1], &content[..CHUNK]).unwrap();
    fs::remove_file(&paths[2]).unwrap();

    let verify = || GetOptions { verify: true, ..GetOptions::default() };
    for (key, options) in [("changed", verify()), ("cut", verify()), ("lost", GetOptions::default())] {
        let found = blobs.get(key, options).await;
        assert!(matches!(found, Err(BlobError::Storage(StorageError::Corrupt(_)))), "{key}: {found:?}");
    }
    let mut cut = reader(&blobs, "cut", GetOptions::default()).await.unwrap();
    assert!(cut.next().await.unwrap().unwrap() == content[..CHUNK]);
    assert!(matches!(cut.next().await, Err(BlobError::Storage(StorageError::Corrupt(_)))));
    drop(cut);
    assert!(bytes(&blobs, "whole").await.unwrap() == content);
    assert_eq!(
        blobs.check(true).await.unwrap().problems,
        [
            "object \"changed\": its file has not the bytes that were uploaded",
            "object \"cut\": its file has not the bytes that were uploaded",
            "object \"lost\": its file is missing",
        ]
    );
    blobs.delete_many(&["changed", "cut", "lost"].map(str::to_owned)).await.unwrap();
    assert_eq!(collected(&blobs).await.objects, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_stops_uploads_and_nothing_else() {
    let place = Place::new();
    let store = place.open();
    let (blobs, kv) = (in_files(&store, "a"), store.kv("kv", DURABLE).unwrap());
    put(&blobs, "k", b"here").await;
    let away = place.blob_folder().with_extension("away");
    fs::rename(place.blob_folder(), &away).unwrap();
    let refused = blobs.put("k", b"other", PutOptions::default()).await;
    assert!(matches!(refused, Err(BlobError::Storage(StorageError::Io(_)))), "{refused:?}");
    kv.put("k", vec![1], None).await.unwrap();
    assert!(!store.stats().poisoned);
    fs::rename(away, place.blob_folder()).unwrap();
    assert_eq!(bytes(&blobs, "k").await.unwrap(), b"here");
    put(&blobs, "k", b"other").await;
    assert_eq!(bytes(&blobs, "k").await.unwrap(), b"other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn a_full_disk_is_told_and_leaves_no_file() {
    let place = Place::new();
    let store = place.open();
    let blobs = in_files(&store, "a");
    put(&blobs, "k", b"here").await;
    let published = fs::read_dir(place.blob_folder()).unwrap().next().unwrap().unwrap().file_name();
    let number = u64::from_str_radix(published.to_str().unwrap(), 16).unwrap();
    // Whatever file comes next is on a disk without room.
    for next in number + 1..number + 20 {
        let path = place.blob_folder().join(format!("{next:016x}"));
        std::os::unix::fs::symlink("/dev/full", path).unwrap();
    }
    let refused = blobs.put("k", b"other", PutOptions::default()).await;
    assert!(matches!(refused, Err(BlobError::Storage(StorageError::DiskFull(_)))), "{refused:?}");
    let mut long = blobs.upload("k", PutOptions::default()).unwrap();
    let refused = long.write(&noise(1, 40 * CHUNK)).await;
    assert!(matches!(refused, Err(BlobError::Storage(StorageError::DiskFull(_)))), "{refused:?}");
    assert!(matches!(long.publish().await, Err(BlobError::Invalid(_))));
    assert_eq!(bytes(&blobs, "k").await.unwrap(), b"here");
    assert!(!store.stats().poisoned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_keeps_what_it_has_when_its_engine_changes() {
    let place = Place::new();
    let store = place.open();
    let (chunks, files) = (container(&store, "a"), in_files(&store, "a"));
    put(&chunks, "chunks", b"in chunks").await;
    put(&files, "file", b"in a file").await;
    for blobs in [&chunks, &files] {
        assert_eq!(bytes(blobs, "chunks").await.unwrap(), b"in chunks");
        assert_eq!(bytes(blobs, "file").await.unwrap(), b"in a file");
    }
    put(&files, "chunks", b"in a file now").await;
    put(&chunks, "file", b"in chunks now").await;
    let found = collected(&chunks).await;
    assert_eq!((found.objects, found.chunks), (2, 1));
    has_files(&place.blob_folder(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_part_of_a_joint_commit_or_gone() {
    let place = Place::new();
    let store = place.open();
    let (blobs, kv) = (in_files(&store, "a"), store.kv("kv", DURABLE).unwrap());
    let database = store.database("d").unwrap();
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)".into()).await.unwrap();
    let both = async |content: &str| {
        let mut upload = blobs.upload("k", PutOptions::default()).unwrap();
        upload.write(content.as_bytes()).await.unwrap();
        let joint = Joint::new().set(&kv, "k", content.as_bytes().to_vec(), None).unwrap();
        let joint = joint.publish(upload.prepare().await.unwrap()).unwrap();
        store.commit(joint.statement(&database, Statement::from("INSERT INTO t VALUES (1)")).unwrap()).await
    };
    both("one").await.unwrap();
    assert!(matches!(both("two").await, Err(CommitError::Invalid(_))));
    assert_eq!((bytes(&blobs, "k").await, value(&kv, "k").await), (Some(b"one".into()), Some(b"one".into())));
    has_files(&place.blob_folder(), 1).await;
}

#[tokio::test]
async fn a_store_without_a_folder_has_no_files() {
    let place = Place::new();
    let options = || Options { blob_folder: None, ..place.options() };
    let store = place.open();
    put(&in_files(&store, "a"), "k", b"here").await;
    store.close().await.unwrap();
    drop(store);
    // Nor does it forget those that are there.
    let store = Store::open(&place.path(), options()).unwrap();
    let refused = store.container("a", BlobOptions { files: true, ..BlobOptions::default() }).unwrap_err();
    assert_eq!(refused, BlobError::Invalid("this store has no folder for files".to_owned()));
    let blobs = container(&store, "a");
    assert!(matches!(blobs.get("k", GetOptions::default()).await, Err(BlobError::Storage(_))));
    blobs.delete("k", Precondition::default()).await.unwrap();
    store.close().await.unwrap();
    drop((store, blobs));
    let store = place.open();
    collected(&in_files(&store, "a")).await;
    has_files(&place.blob_folder(), 0).await;
}
