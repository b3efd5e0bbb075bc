//! Chunks are stored once, and go when nobody needs them.

use tollgate_store::{GetOptions, Precondition, PutOptions, blob::limits};

use super::support::{CHUNK, bytes, collected, container, noise, put, reader, report, text};
use crate::support::Place;

#[tokio::test]
async fn equal_chunks_are_stored_once_in_a_container_and_again_in_another() {
    let store = Place::new().open();
    let (one, two) = (container(&store, "one"), container(&store, "two"));
    let content = noise(1, 3 * CHUNK);
    put(&one, "a", &content).await;
    let stored = report(&one).await.stored_bytes;
    assert_eq!(stored, content.len() as u64);
    put(&one, "b", &content).await;
    put(&one, "longer", &[&content[..], b"more"].concat()).await;
    let shared = report(&one).await;
    assert_eq!((shared.stored_bytes, shared.chunks, shared.references), (stored + 4, 4, 10));
    put(&two, "a", &content).await;
    assert_eq!(report(&two).await.stored_bytes, stored);

    // Removing all of one container leaves the other whole.
    one.delete_many(&["a", "b", "longer"].map(str::to_owned)).await.unwrap();
    let empty = collected(&one).await;
    assert_eq!((empty.chunks, empty.references, empty.stored_bytes), (0, 0, 0));
    assert!(bytes(&two, "a").await.unwrap() == content);
}

#[tokio::test]
async fn an_object_of_equal_chunks_is_small_and_goes_whole() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    put(&blobs, "k", &vec![0; 50 * CHUNK]).await;
    let found = report(&blobs).await;
    assert_eq!((found.chunks, found.references), (1, 50));
    assert!(found.stored_bytes < 100, "{}", found.stored_bytes);
    blobs.delete("k", Precondition::default()).await.unwrap();
    assert_eq!(collected(&blobs).await.chunks, 0);
}

#[tokio::test]
async fn text_is_compressed_by_more_than_half() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    put(&blobs, "k", &text(1, 10 * CHUNK)).await;
    let found = report(&blobs).await;
    assert!(found.stored_bytes * 2 < found.object_bytes, "{found:?}");
}

#[tokio::test]
async fn a_slow_reader_keeps_what_it_reads() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let (old, new) = (noise(1, 4 * CHUNK), noise(2, CHUNK));
    put(&blobs, "k", &old).await;
    let mut slow = reader(&blobs, "k", GetOptions::default()).await.unwrap();
    let first = slow.next().await.unwrap().unwrap();
    put(&blobs, "k", &new).await;
    blobs.delete("k", Precondition::default()).await.unwrap();
    // The replaced one and the removed one are released; only the one that nobody reads goes.
    loop {
        let found = report(&blobs).await;
        if found.released <= 1 {
            assert_eq!(found.chunks, 4);
            break;
        }
        tokio::task::yield_now().await;
    }
    let rest = slow.read_all().await.unwrap();
    assert!([first, rest].concat() == old);
    assert_eq!(collected(&blobs).await.chunks, 0);
}

#[tokio::test]
async fn an_upload_that_is_dropped_or_refused_leaves_nothing() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    put(&blobs, "k", b"1").await;
    let mut dropped = blobs.upload("dropped", PutOptions::default()).unwrap();
    dropped.write(&noise(1, 70 * CHUNK)).await.unwrap();
    // The first half is on disk, since the second is on its way: nobody sees it, and nobody collects it.
    let found = report(&blobs).await;
    assert!(found.released == 1 && found.chunks > 32, "{found:?}");
    assert_eq!(blobs.head("dropped").await.unwrap(), None);
    drop(dropped);
    let absent = PutOptions { precondition: Precondition::absent(), ..PutOptions::default() };
    assert!(blobs.put("k", &noise(2, CHUNK), absent).await.is_err());
    assert_eq!(collected(&blobs).await.chunks, 1);
}

#[tokio::test]
async fn a_large_object_goes_in_many_small_steps() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    // Short chunks: what counts is how many there are.
    let mut content = vec![0u8; 700 * CHUNK];
    for (number, chunk) in content.chunks_mut(CHUNK).enumerate() {
        chunk[..8].copy_from_slice(&number.to_le_bytes());
    }
    put(&blobs, "k", &content).await;
    assert_eq!(report(&blobs).await.chunks, 700);
    let before = store.stats().commits;
    blobs.delete("k", Precondition::default()).await.unwrap();
    assert_eq!(collected(&blobs).await.references, 0);
    // The removal itself, and a commit for each step.
    let steps = (700 / (limits::COLLECT_CHUNKS + limits::UPLOAD_BYTES / CHUNK) + 1) as u64;
    assert!(store.stats().commits > before + steps, "{} {before}", store.stats().commits);
}
