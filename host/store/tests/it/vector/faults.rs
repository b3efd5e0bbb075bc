//! Storage that fails under an index.

use std::time::Duration;

use tokio::time::timeout;
use tollgate_store::{Index, VectorError};

use super::support::{index, near, report, values, vector};
use crate::support::Memory;

fn told<T>(answer: Result<T, VectorError>) -> bool {
    matches!(answer, Err(VectorError::Storage(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_are_told_when_the_disk_fails_and_what_was_acknowledged_stays() {
    let memory = Memory::default();
    let store = memory.open();
    let vectors = index(&store, "a", 2);
    vectors.upsert(vec![vector("k", vec![1.0, 0.0])]).await.unwrap();
    memory.fail(true);
    let work = async {
        let many: Vec<_> = (0..10)
            .map(|id| {
                let vectors = vectors.clone();
                tokio::spawn(async move {
                    vectors.upsert(vec![vector("k", vec![0.0, 1.0]), vector(id, vec![0.0, 1.0])]).await
                })
            })
            .collect();
        for write in many {
            assert!(told(write.await.unwrap()));
        }
        assert!(told(vectors.delete_by_ids(&["k".to_owned()]).await));
        assert!(told(vectors.get_by_ids(&["k".to_owned()]).await));
        assert!(told(vectors.query(near(vec![1.0, 0.0], 1)).await));
        assert!(told(vectors.describe().await));
        assert!(told(store.index("b", vectors.options().clone())));
    };
    timeout(Duration::from_secs(60), work).await.unwrap();

    let store = memory.copy().open();
    let vectors = index(&store, "a", 2);
    assert_eq!(values(&vectors, "k").await, Some(vec![1.0, 0.0]));
    assert_eq!(report(&vectors).await.vectors, 1);
}

/// Between the failure of a commit and the end of the committer nobody may see what was not committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_is_never_seen() {
    for _ in 0..20 {
        let memory = Memory::default();
        let store = memory.open();
        let vectors = index(&store, "a", 2);
        vectors.upsert(vec![vector("k", vec![1.0, 0.0])]).await.unwrap();
        let reader = tokio::spawn({
            let vectors = vectors.clone();
            async move {
                loop {
                    match vectors.query(near(vec![1.0, 0.0], 9)).await {
                        Ok(found) => {
                            assert_eq!(found.iter().map(|found| found.score).collect::<Vec<_>>(), [1.0])
                        }
                        error => return told(error),
                    }
                }
            }
        });
        memory.fail(true);
        let late = vec![vector("k", vec![0.0, 1.0]), vector("new", vec![1.0, 1.0])];
        assert!(told(vectors.upsert(late).await));
        assert!(reader.await.unwrap());
    }
}

#[tokio::test]
async fn an_index_that_cannot_be_loaded_says_so_and_changes_nothing() {
    let memory = Memory::default();
    let store = memory.open();
    let many = (0..200).map(|id| vector(id, vec![id as f32; 1_100])).collect();
    index(&store, "a", 1_100).upsert(many).await.unwrap();
    store.close().await.unwrap();

    let failing = memory.copy();
    let mut options = failing.options();
    options.cache_bytes = 0;
    let store = tollgate_store::Store::open(std::path::Path::new("unused"), options).unwrap();
    let vectors: Index = index(&store, "a", 1_100);
    failing.fail_reads();
    assert!(told(vectors.query(near(vec![1.0; 1_100], 1)).await));
    assert!(told(vectors.upsert(vec![vector("x", vec![1.0; 1_100])]).await));

    let store = memory.open();
    assert_eq!(report(&index(&store, "a", 1_100)).await.vectors, 200);
}
