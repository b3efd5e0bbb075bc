//! How many bytes a kv store has, and that it takes no more than it may.

use std::time::{Duration, Instant};

use tollgate_store::{Kv, KvError, KvOptions, SetOptions, Store, StoreKind, Swapped};

use crate::support::{DURABLE, Place, RELAXED};

/// Bytes of keys and values as they are listed.
async fn listed(kv: &Kv) -> u64 {
    let mut bytes = 0;
    for key in kv.list_keys(None, None, 1_000).await.unwrap().keys {
        let value = kv.get(&key).await.unwrap().unwrap().value;
        bytes += (key.len() + value.len()) as u64;
    }
    bytes
}

async fn check(store: &Store, kv: &Kv) {
    store.flush().await.unwrap();
    assert_eq!(kv.bytes(), listed(kv).await);
    let report = store.report(StoreKind::Kv, "a", true, ()).await.unwrap().unwrap();
    assert_eq!(report.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_store_are_those_of_its_rows_whatever_is_written_and_over_restarts() {
    let place = Place::new();
    for round in 0..2 {
        let store = place.open();
        let (kv, other) = (store.kv("a", RELAXED).unwrap(), store.kv("b", DURABLE).unwrap());
        assert_eq!(kv.bytes(), if round == 0 { 0 } else { listed(&kv).await });
        other.put("k", vec![0; 77], None).await.unwrap();
        kv.put("k", vec![0; 100], None).await.unwrap();
        check(&store, &kv).await;
        kv.put("k", vec![0; 300], None).await.unwrap();
        kv.put("k", vec![0; 20], None).await.unwrap();
        let many = (0..50).map(|number| (format!("many {number}"), vec![1; number])).collect();
        kv.set_many(many, None).await.unwrap();
        kv.delete("many 7").await.unwrap();
        kv.delete_many(&["many 8".to_owned(), "none".to_owned()]).await.unwrap();
        check(&store, &kv).await;
        kv.increment("number", 99, None).await.unwrap();
        kv.increment("number", 1, None).await.unwrap();
        let version = kv.get("k").await.unwrap().unwrap().version;
        assert!(matches!(kv.swap("k", Some(version), vec![0; 40], None).await, Ok(Swapped::Swapped(_))));
        let mut batch = store.batch();
        batch.set(&kv, "batched", vec![0; 9], None).unwrap();
        batch.delete(&kv, "many 9").unwrap();
        batch.write().await.unwrap();
        let mut transaction = store.transaction();
        transaction.get(&kv, "batched").await.unwrap();
        transaction.set(&kv, "transacted", vec![0; 11], None).unwrap();
        transaction.commit().await.unwrap();
        check(&store, &kv).await;
        assert_eq!(other.bytes(), 78);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_counts_until_it_is_swept_away() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", DURABLE).unwrap();
    kv.put("brief", vec![0; 100], Some(10)).await.unwrap();
    kv.put("long", vec![0; 50], None).await.unwrap();
    place.advance(20);
    assert_eq!((kv.bytes(), listed(&kv).await), (159, 54));
    let begun = Instant::now();
    while kv.bytes() != 54 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is never swept away");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_what_does_not_grow_and_goes_on_when_something_is_removed() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", KvOptions { limit_bytes: Some(1_000), ..DURABLE }).unwrap();
    kv.put("first", vec![0; 495], None).await.unwrap();
    kv.put("other", vec![0; 485], None).await.unwrap();
    kv.increment("n", 1, None).await.unwrap();
    let is_full = |result: Result<(), KvError>| {
        let Err(KvError::Full(text)) = result else { panic!("not full: {result:?}") };
        assert_eq!(text, "the store has 992 of the 1000 bytes that it may have");
    };
    assert_eq!(kv.bytes(), 992);
    is_full(kv.put("k", vec![0; 8], None).await.map(drop));
    is_full(kv.set("k", vec![0; 8], SetOptions { if_absent: true, ..SetOptions::default() }).await.map(drop));
    is_full(kv.set_many(vec![("k".to_owned(), vec![0; 8])], None).await);
    is_full(kv.swap("k", None, vec![0; 8], None).await.map(drop));
    is_full(kv.increment("another", 1, None).await.map(drop));
    is_full(store.batch().set(&kv, "k", vec![0; 8], None));
    let version = kv.get("other").await.unwrap().unwrap().version;
    is_full(kv.swap("other", Some(version), vec![0; 494], None).await.map(drop));
    assert!(matches!(kv.swap("other", Some(version), vec![1; 485], None).await, Ok(Swapped::Swapped(_))));
    assert_eq!(kv.increment("n", 1, None).await, Ok(2));
    // Without a limit it is the same store.
    store.kv("a", DURABLE).unwrap().put("k", vec![0; 8], None).await.unwrap();
    kv.delete("first").await.unwrap();
    kv.put("k", vec![0; 300], None).await.unwrap();
    assert_eq!(listed(&kv).await, kv.bytes());
}
