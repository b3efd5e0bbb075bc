//! Readers, writers and the collector at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tollgate_store::{BlobReport, Container, GetOptions, Precondition, Store};

use super::support::{CHUNK, collected, container, in_files, noise, put, reader};
use crate::support::Place;

/// Commits that a reader waits for between two chunks: some steps of collection are among them.
const COMMITS: u64 = 20;

/// Objects are replaced and removed all the time; whoever has opened one reads it whole, long after it has gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_ever_loses_a_chunk() {
    let store = Place::new().open();
    let found = read_what_goes(&store, &container(&store, "a")).await;
    assert!(found.objects <= 3 && found.chunks <= 7, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_ever_loses_a_file() {
    let place = Place::new();
    let store = place.open();
    let found = read_what_goes(&store, &in_files(&store, "a")).await;
    assert!(found.objects <= 3 && found.chunks == 0, "{found:?}");
}

async fn read_what_goes(store: &Store, blobs: &Container) -> BlobReport {
    let shared = Arc::new(noise(0, CHUNK));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|writer: u64| {
            let (blobs, shared, stop) = (blobs.clone(), Arc::clone(&shared), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut turn = 0;
                while !stop.load(Ordering::SeqCst) {
                    turn += 1;
                    let key = format!("k{}", turn % 3);
                    if turn % 3 == writer {
                        blobs.delete(&key, Precondition::default()).await.unwrap();
                    }
                    let own = noise(turn * 2 + writer, CHUNK + 10);
                    put(&blobs, &key, &[shared.as_slice(), &own].concat()).await;
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..4)
        .map(|number| {
            let (store, blobs) = (store.clone(), blobs.clone());
            tokio::spawn(async move {
                let mut read = 0;
                while read < 6 {
                    let options = GetOptions { verify: true, ..GetOptions::default() };
                    let key = format!("k{}", (read + number) % 3);
                    let Some(mut slow) = reader(&blobs, &key, options).await else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let mut bytes = 0;
                    while let Some(piece) = slow.next().await.unwrap() {
                        bytes += piece.len();
                        let commits = store.stats().commits;
                        while store.stats().commits < commits + COMMITS {
                            tokio::task::yield_now().await;
                        }
                    }
                    assert_eq!(bytes, 2 * CHUNK + 10);
                    read += 1;
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    collected(blobs).await
}
