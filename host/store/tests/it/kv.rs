//! The functions of a kv store, one by one.

use tollgate_store::{
    Acknowledge, Entry, Joint, KvError, KvOptions, OpenError, SetOptions, Store, Swapped,
    limits::PRESENCE_KEYS,
};

use crate::support::{DURABLE, Place, RELAXED, value};

#[tokio::test]
async fn what_is_set_is_there_also_after_reopening() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", DURABLE).unwrap();
    assert_eq!(value(&kv, "k").await, None);
    assert!(kv.set("k", b"1".to_vec(), SetOptions::default()).await.unwrap());
    assert!(!kv.set("k", b"2".to_vec(), SetOptions { if_absent: true, ttl_ms: None }).await.unwrap());
    assert_eq!(value(&kv, "k").await, Some(b"1".to_vec()));
    assert!(kv.exists("k").await.unwrap());
    let relaxed = store.kv("b", RELAXED).unwrap();
    relaxed.set("k", b"other".to_vec(), SetOptions::default()).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(kv.set("k", vec![], SetOptions::default()).await, Err(KvError::Storage(_))));

    let store = place.open();
    assert_eq!(value(&store.kv("a", DURABLE).unwrap(), "k").await, Some(b"1".to_vec()));
    assert_eq!(value(&store.kv("b", RELAXED).unwrap(), "k").await, Some(b"other".to_vec()));
    let kv = store.kv("a", DURABLE).unwrap();
    kv.delete("k").await.unwrap();
    assert_eq!(value(&kv, "k").await, None);
    drop((store, kv));
    let store = place.open();
    assert_eq!(value(&store.kv("a", DURABLE).unwrap(), "k").await, None);
}

#[tokio::test]
async fn a_key_is_found_after_reopening_however_many_there_are_and_however_it_was_written() {
    let place = Place::new();
    for count in [10, PRESENCE_KEYS + 10] {
        let name = format!("of {count}");
        let store = place.open();
        let kv = store.kv(&name, RELAXED).unwrap();
        for first in (0..count).step_by(500) {
            let last = count.min(first + 500);
            let entries = (first..last).map(|number| (format!("{number}"), vec![1])).collect();
            kv.set_many(entries, None).await.unwrap();
        }
        store.commit(Joint::new().set(&kv, "joint", vec![2], None).unwrap()).await.unwrap();
        kv.increment("sum", 3, None).await.unwrap();
        assert!(matches!(kv.swap("swapped", None, vec![4], None).await, Ok(Swapped::Swapped(_))));
        store.close().await.unwrap();

        let store = place.open();
        let kv = store.kv(&name, RELAXED).unwrap();
        for (key, expected) in [
            ("0".to_owned(), vec![1]),
            (format!("{}", count - 1), vec![1]),
            ("joint".to_owned(), vec![2]),
            ("sum".to_owned(), b"3".to_vec()),
            ("swapped".to_owned(), vec![4]),
        ] {
            assert_eq!(value(&kv, &key).await, Some(expected), "{key} of {count}");
        }
        assert_eq!(value(&kv, "never written").await, None);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_relaxed_write_reaches_the_disk_by_itself() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", RELAXED).unwrap();
    kv.set("k", b"1".to_vec(), SetOptions::default()).await.unwrap();
    assert!(store.stats().overlay_bytes > 0);
    while store.stats().overlay_bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.stats().commits, 1);
    assert_eq!(value(&kv, "k").await, Some(b"1".to_vec()));
}

#[tokio::test]
async fn increment_counts_and_refuses_what_is_no_number() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", RELAXED).unwrap();
    assert_eq!(kv.increment("n", 5, None).await.unwrap(), 5);
    assert_eq!(kv.increment("n", -7, None).await.unwrap(), -2);
    store.flush().await.unwrap();
    assert_eq!(kv.increment("n", 0, None).await.unwrap(), -2);
    kv.set("n", b"x".to_vec(), SetOptions::default()).await.unwrap();
    assert!(matches!(kv.increment("n", 1, None).await, Err(KvError::Invalid(_))));
    kv.set("n", i64::MAX.to_string().into_bytes(), SetOptions::default()).await.unwrap();
    assert!(matches!(kv.increment("n", 1, None).await, Err(KvError::Invalid(_))));
    assert_eq!(kv.increment("n", -1, None).await.unwrap(), i64::MAX - 1);
}

#[tokio::test]
async fn swap_writes_only_over_the_expected_version() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", DURABLE).unwrap();
    assert_eq!(kv.swap("k", Some(1), vec![], None).await.unwrap(), Swapped::Stale(None));
    let Swapped::Swapped(first) = kv.swap("k", None, b"1".to_vec(), None).await.unwrap() else { panic!() };
    let Swapped::Stale(Some(entry)) = kv.swap("k", None, b"2".to_vec(), None).await.unwrap() else {
        panic!()
    };
    assert_eq!((entry.version, &*entry.value), (first, &b"1"[..]));
    let Swapped::Swapped(second) = kv.swap("k", Some(first), b"2".to_vec(), None).await.unwrap() else {
        panic!()
    };
    assert!(second > first);
    kv.delete("k").await.unwrap();
    assert_eq!(kv.swap("k", Some(second), vec![], None).await.unwrap(), Swapped::Stale(None));
}

#[tokio::test]
async fn versions_never_repeat_over_reopening() {
    let place = Place::new();
    let mut last = 0;
    for round in 0..4 {
        let store = place.open();
        let kv = store.kv("a", RELAXED).unwrap();
        for key in ["x", "y"] {
            let before = kv.get(key).await.unwrap().map(|entry| entry.version);
            let Swapped::Swapped(version) = kv.swap(key, before, vec![round], None).await.unwrap() else {
                panic!()
            };
            assert!(version > last);
            last = version;
        }
        if round % 2 == 0 {
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_keys_go_in_one_call() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", DURABLE).unwrap();
    kv.set_many(vec![("x".into(), vec![1]), ("y".into(), vec![2]), ("x".into(), vec![3])], None)
        .await
        .unwrap();
    let keys = ["y".to_owned(), "none".to_owned(), "x".to_owned()];
    let check = async |expected: [Option<u8>; 3]| {
        let found = kv.get_many(&keys).await.unwrap();
        let first = |entry: Option<Entry>| entry.map(|entry| entry.value[0]);
        assert_eq!(found.into_iter().map(first).collect::<Vec<_>>(), expected);
    };
    check([Some(2), None, Some(3)]).await;
    kv.delete_many(&keys[..2]).await.unwrap();
    check([None, None, Some(3)]).await;
}

#[tokio::test]
async fn keys_are_listed_in_order_page_by_page() {
    let place = Place::new();
    let store = place.open();
    let other = store.kv("other", RELAXED).unwrap();
    let kv = store.kv("a", RELAXED).unwrap();
    let last = store.kv("last", RELAXED).unwrap();
    for kv in [&other, &last] {
        kv.set("p-other", vec![], SetOptions::default()).await.unwrap();
    }
    let mut expected = Vec::new();
    for number in 0..25 {
        let key = format!("p-{number:02}ä");
        kv.set(&key, vec![], SetOptions::default()).await.unwrap();
        expected.push(key);
        if number == 12 {
            store.flush().await.unwrap();
        }
    }
    kv.set("q", vec![], SetOptions::default()).await.unwrap();
    kv.delete(&expected.remove(3)).await.unwrap();
    kv.delete(&expected.remove(20)).await.unwrap();
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = kv.list_keys(Some("p-"), cursor.as_deref(), 7).await.unwrap();
        assert!(page.keys.len() <= 7);
        found.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
    assert_eq!(kv.list_keys(None, Some("q"), 10).await.unwrap().keys.len(), 0);
    assert_eq!(kv.list_keys(None, Some("a"), 1000).await.unwrap().keys.len(), 24);
    assert_eq!(kv.list_keys(Some("p-24"), Some("a"), 1).await.unwrap().cursor, None);
}

#[tokio::test]
async fn hostile_sizes_are_refused() {
    let place = Place::new();
    let store = place.open();
    let kv = store.kv("a", RELAXED).unwrap();
    let long = "k".repeat(513);
    let set = SetOptions::default();
    assert!(matches!(kv.get(&long).await, Err(KvError::TooLarge(_))));
    assert!(matches!(kv.get("").await, Err(KvError::Invalid(_))));
    assert!(matches!(kv.set(&long, vec![], set).await, Err(KvError::TooLarge(_))));
    assert!(matches!(kv.set("k", vec![0; (1 << 20) + 1], set).await, Err(KvError::TooLarge(_))));
    assert!(kv.set(&long[..512], vec![0; 1 << 20], set).await.unwrap());
    store.flush().await.unwrap();
    assert_eq!(value(&kv, &long[..512]).await.unwrap().len(), 1 << 20);
    let keys: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
    assert!(matches!(kv.get_many(&keys).await, Err(KvError::TooLarge(_))));
    assert!(matches!(kv.delete_many(&keys).await, Err(KvError::TooLarge(_))));
    let entries = keys.iter().map(|key| (key.clone(), vec![])).collect();
    assert!(matches!(kv.set_many(entries, None).await, Err(KvError::TooLarge(_))));
    let entries = keys.iter().take(9).map(|key| (key.clone(), vec![0; 1 << 20])).collect();
    assert!(matches!(kv.set_many(entries, None).await, Err(KvError::TooLarge(_))));
    assert_eq!(value(&kv, "0").await, None);
    for limit in [0, 1001, u32::MAX] {
        assert!(matches!(kv.list_keys(None, None, limit).await, Err(KvError::Invalid(_))));
    }
    assert!(matches!(kv.list_keys(Some(&long), None, 1).await, Err(KvError::TooLarge(_))));
    assert!(matches!(kv.list_keys(None, Some(&long), 1).await, Err(KvError::TooLarge(_))));
    assert!(matches!(store.kv("", RELAXED), Err(KvError::Invalid(_))));
    assert!(matches!(store.kv(&"n".repeat(129), RELAXED), Err(KvError::Invalid(_))));
    kv.set("k", b"v".to_vec(), SetOptions { ttl_ms: Some(u64::MAX), if_absent: false }).await.unwrap();
    assert_eq!(value(&kv, "k").await, Some(b"v".to_vec()));
}

/// One value asked for a thousand times was a gigabyte.
#[tokio::test]
async fn an_answer_of_many_values_is_bounded_from_memory_and_from_disk() {
    for kv_cache_bytes in [0, 8 << 20] {
        let mut place = Place::new();
        place.kv_cache_bytes = kv_cache_bytes;
        let store = place.open();
        let kv = store.kv("k", DURABLE).unwrap();
        kv.set("a", vec![7; 1 << 20], SetOptions::default()).await.unwrap();
        let keys = |count| vec!["a".to_owned(); count];
        assert_eq!(kv.get_many(&keys(8)).await.unwrap().iter().flatten().count(), 8);
        assert!(matches!(kv.get_many(&keys(9)).await, Err(KvError::TooLarge(_))));
        assert!(kv.get("a").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn writers_wait_when_too_much_waits_for_the_disk() {
    let place = Place::new();
    let store = place.open();
    let kv = store
        .kv("a", KvOptions { acknowledge: Acknowledge::Relaxed, default_ttl_ms: None, limit_bytes: None })
        .unwrap();
    for number in 0..200 {
        kv.set(&number.to_string(), vec![0; 1 << 20], SetOptions::default()).await.unwrap();
        assert!(store.stats().overlay_bytes <= (64 << 20) + (2 << 20));
    }
}

#[tokio::test]
async fn one_file_is_open_once() {
    let place = Place::new();
    let store = place.open();
    assert!(matches!(Store::open(&place.path(), place.options()), Err(OpenError::AlreadyOpen)));
    store.close().await.unwrap();
    store.close().await.unwrap();
    place.open();
}
