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
    let mut batch = store.batch();
    batch.set(&kv, "k", vec![0; 8], None).unwrap();
    is_full(batch.write().await);
    let mut transaction = store.transaction();
    transaction.set(&kv, "k", vec![0; 8], None).unwrap();
    is_full(transaction.commit().await);
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

#[tokio::test(flavor = "multi_thread")]
async fn what_replaces_as_much_is_taken_by_a_full_store_however_it_is_written() {
    let place = Place::new();
    let store = place.open();
    for acknowledge in [DURABLE, RELAXED] {
        let kv = store.kv("a", KvOptions { limit_bytes: Some(1_000), ..acknowledge }).unwrap();
        kv.put("first", vec![0; 495], None).await.unwrap();
        kv.put("other", vec![0; 495], None).await.unwrap();
        kv.put("first", vec![1; 495], None).await.unwrap();
        kv.set("first", vec![2; 495], SetOptions::default()).await.unwrap();
        let both = |value, other| {
            [("first".to_owned(), vec![value; 495]), ("other".to_owned(), vec![value; other])].to_vec()
        };
        kv.set_many(both(3, 495), None).await.unwrap();
        let mut batch = store.batch();
        for (key, value) in both(4, 495) {
            batch.set(&kv, &key, value, None).unwrap();
        }
        batch.write().await.unwrap();
        let mut transaction = store.transaction();
        assert_eq!(transaction.get(&kv, "other").await.unwrap().as_deref(), Some(&[4; 495][..]));
        for (key, value) in both(5, 495) {
            transaction.set(&kv, &key, value, None).unwrap();
        }
        transaction.commit().await.unwrap();
        assert!(matches!(kv.put("first", vec![6; 496], None).await, Err(KvError::Full(_))));
        assert!(matches!(kv.set_many(both(6, 496), None).await, Err(KvError::Full(_))));
        // What is removed makes room at once, and in the same batch.
        kv.delete("other").await.unwrap();
        kv.put("another", vec![7; 493], None).await.unwrap();
        let mut batch = store.batch();
        batch.delete(&kv, "another").unwrap();
        batch.set(&kv, "other", vec![8; 495], None).unwrap();
        batch.write().await.unwrap();
        store.flush().await.unwrap();
        assert_eq!((kv.bytes(), listed(&kv).await), (1_000, 1_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_disk_counts_so_that_no_store_goes_past_its_limit() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", KvOptions { limit_bytes: Some(1_000_000), ..RELAXED }).unwrap();
    let mut written = 0;
    while kv.put(&format!("{written:02}"), vec![0; 99_998], None).await.is_ok() {
        written += 1;
        assert!(written <= 10, "more than it may have");
    }
    store.flush().await.unwrap();
    assert_eq!((written, kv.bytes()), (10, 1_000_000));
    // Each alone would fit.
    let other = store.kv("b", KvOptions { limit_bytes: Some(1_000), ..RELAXED }).unwrap();
    let mut batch = store.batch();
    batch.set(&other, "one", vec![0; 700], None).unwrap();
    batch.set(&other, "two", vec![0; 700], None).unwrap();
    assert!(matches!(batch.write().await, Err(KvError::Full(_))));
    assert_eq!(batch.len(), 2);
    assert_eq!(other.get("one").await.unwrap(), None);
    let mut transaction = store.transaction();
    transaction.set(&other, "one", vec![0; 700], None).unwrap();
    transaction.set(&other, "two", vec![0; 700], None).unwrap();
    assert!(matches!(transaction.commit().await, Err(KvError::Full(_))));
    // Nothing of what was refused is counted.
    other.put("one", vec![0; 997], None).await.unwrap();
    // A number that is written again and again waits but once.
    for _ in 0..1_000 {
        other.put("one", vec![0; 997], None).await.unwrap();
    }
}
