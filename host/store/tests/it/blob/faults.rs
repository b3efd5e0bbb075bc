//! Storage that fails under uploads and readers.

use std::time::Duration;

use tokio::time::timeout;
use tollgate_store::{BlobError, GetOptions, Precondition, PutOptions, StorageError};

use super::support::{CHUNK, bytes, collected, container, noise, put, reader};
use crate::support::Memory;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_end_with_an_error_when_the_disk_fails_and_leave_no_half_object() {
    let memory = Memory::default();
    let store = memory.open();
    let blobs = container(&store, "a");
    let content = noise(1, 40 * CHUNK);
    put(&blobs, "k", &content).await;
    let mut begun = blobs.upload("k", PutOptions::default()).unwrap();
    begun.write(&noise(2, 40 * CHUNK)).await.unwrap();
    memory.fail(true);
    let work = async {
        let many: Vec<_> = (0..10)
            .map(|number| {
                let blobs = blobs.clone();
                tokio::spawn(
                    async move { blobs.put("k", &noise(number, 100_000), PutOptions::default()).await },
                )
            })
            .collect();
        for put in many {
            assert!(matches!(put.await.unwrap(), Err(BlobError::Storage(_))));
        }
        // How far it gets depends on when it learns of the failure.
        let mut written = Ok(());
        for seed in 3..6 {
            if written.is_ok() {
                written = begun.write(&noise(seed, 40 * CHUNK)).await;
            }
        }
        assert!(matches!(written, Err(BlobError::Storage(_))), "{written:?}");
        assert!(begun.publish().await.is_err());
        let deleted = blobs.delete("k", Precondition::default()).await;
        assert!(matches!(deleted, Err(BlobError::Storage(_))));
        assert!(matches!(blobs.upload("k", PutOptions::default()), Err(BlobError::Storage(_))));
        assert!(matches!(blobs.head("k").await, Err(BlobError::Storage(_))));
    };
    timeout(Duration::from_secs(60), work).await.unwrap();

    let store = memory.copy().open();
    let blobs = container(&store, "a");
    assert!(bytes(&blobs, "k").await.unwrap() == content);
    assert_eq!(collected(&blobs).await.chunks, 40);
}

#[tokio::test]
async fn a_reader_is_told_when_the_store_is_closed() {
    let memory = Memory::default();
    let store = memory.open();
    let blobs = container(&store, "a");
    put(&blobs, "k", &noise(1, 3 * CHUNK)).await;
    let mut slow = reader(&blobs, "k", GetOptions::default()).await.unwrap();
    slow.next().await.unwrap().unwrap();
    store.close().await.unwrap();
    assert!(matches!(slow.next().await, Err(BlobError::Storage(_))));
}

#[tokio::test]
async fn bytes_that_the_disk_has_changed_are_found_when_asked_for() {
    let memory = Memory::default();
    let store = memory.open();
    let blobs = container(&store, "a");
    let content = noise(1, 3 * CHUNK);
    put(&blobs, "k", &content).await;
    store.close().await.unwrap();
    memory.damage(|bytes| {
        let found = &content[CHUNK + 1_000..CHUNK + 1_016];
        let at = (0..bytes.len()).find(|at| bytes[*at..].starts_with(found)).unwrap();
        bytes[at] ^= 1;
    });

    let store = memory.open();
    let blobs = container(&store, "a");
    let verify = GetOptions { verify: true, ..GetOptions::default() };
    let mut verified = reader(&blobs, "k", verify).await.unwrap();
    assert!(verified.next().await.unwrap().unwrap() == content[..CHUNK]);
    let damaged = verified.next().await;
    assert!(
        matches!(&damaged, Err(BlobError::Storage(StorageError::Corrupt(text))) if text.contains("uploaded")),
        "{damaged:?}"
    );
    let report = blobs.check(true).await.unwrap();
    assert_eq!(report.problems, ["a chunk has not the bytes that were uploaded"]);
}
