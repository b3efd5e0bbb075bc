//! Expiry goes by the injected clock, to the millisecond.

use tollgate_store::{Acknowledge, KvOptions, SetOptions, Swapped};

use crate::support::{Place, RELAXED, value};

const TTL: SetOptions = SetOptions { ttl_ms: Some(10), if_absent: false };

#[tokio::test]
async fn a_key_is_absent_from_the_very_millisecond_on() {
    for (cache, flush) in [(0, false), (0, true), (1 << 20, false), (1 << 20, true)] {
        let mut place = Place::new();
        place.kv_cache_bytes = cache;
        let store = place.open();
        let kv = store.kv("a", RELAXED).unwrap();
        kv.set("k", b"1".to_vec(), TTL).await.unwrap();
        if flush {
            store.flush().await.unwrap();
        }
        place.advance(9);
        assert_eq!(value(&kv, "k").await, Some(b"1".to_vec()));
        place.advance(1);
        assert_eq!(value(&kv, "k").await, None);
        assert!(kv.list_keys(None, None, 10).await.unwrap().keys.is_empty());
        assert!(!kv.exists("k").await.unwrap());
        assert!(kv.set("k", b"2".to_vec(), SetOptions { if_absent: true, ..TTL }).await.unwrap());
        place.advance(10);
        assert!(matches!(kv.swap("k", None, b"3".to_vec(), Some(10)).await.unwrap(), Swapped::Swapped(_)));
        place.advance(10);
        assert_eq!(kv.increment("k", 4, Some(10)).await.unwrap(), 4);
        place.advance(5);
        assert_eq!(kv.increment("k", 4, Some(100)).await.unwrap(), 8);
        place.advance(5);
        assert_eq!(kv.increment("k", 1, None).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn the_default_of_a_store_applies_where_nothing_is_said() {
    let place = Place::new();
    let store = place.open();
    let options = KvOptions { acknowledge: Acknowledge::Relaxed, default_ttl_ms: Some(5), limit_bytes: None };
    let kv = store.kv("a", options).unwrap();
    kv.set("short", vec![], SetOptions::default()).await.unwrap();
    kv.set("long", vec![], TTL).await.unwrap();
    place.advance(5);
    assert!(!kv.exists("short").await.unwrap());
    assert!(kv.exists("long").await.unwrap());
}

#[tokio::test]
async fn expired_rows_are_swept_from_the_disk() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", RELAXED).unwrap();
    for number in 0..1500 {
        kv.set(&format!("{number:04}"), vec![], TTL).await.unwrap();
    }
    kv.set("stays", vec![], SetOptions::default()).await.unwrap();
    store.flush().await.unwrap();
    let before = store.stats();
    place.advance(10);
    while store.stats().kv_writes < before.kv_writes + 1500 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    store.close().await.unwrap();
    let database = redb::Database::open(place.path()).unwrap();
    let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
    let table = transaction.open_table(redb::TableDefinition::<&[u8], &[u8]>::new("kv")).unwrap();
    assert_eq!(redb::ReadableTableMetadata::len(&table).unwrap(), 1);
}
