//! Whatever is asked is answered.

use tollgate_store::{
    BlobError, BlobOptions, Container, Etags, GetOptions, Precondition, PutOptions, blob::limits,
};

use super::support::{collected, container, put, report};
use crate::support::Place;

async fn refused(blobs: &Container, options: PutOptions) -> String {
    match blobs.put("k", b"1", options).await {
        Err(BlobError::TooLarge(text) | BlobError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_over_a_limit_or_no_header_is_refused_with_its_name() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let metadata = |entries: Vec<(String, String)>| PutOptions { metadata: entries, ..PutOptions::default() };
    let entry = |name: &str, value: &str| metadata(vec![(name.to_owned(), value.to_owned())]);
    let many = (0..=limits::METADATA_ENTRIES).map(|number| (number.to_string(), String::new()));
    assert!(refused(&blobs, metadata(many.collect())).await.contains("32 entries"));
    assert!(refused(&blobs, entry("a", &"x".repeat(1 << 20))).await.contains("2048 bytes"));
    assert!(refused(&blobs, entry(&"x".repeat(65), "")).await.contains("a name 64"));
    for name in ["", "A", "ä", "a b", "a\r\nx"] {
        assert!(refused(&blobs, entry(name, "")).await.contains("a-z"), "{name:?}");
    }
    for value in ["a\nb", "\0", " a", "\u{85}"] {
        assert!(refused(&blobs, entry("a", value)).await.contains("control characters"), "{value:?}");
    }
    let twice = vec![("a".to_owned(), String::new()), ("a".to_owned(), String::new())];
    assert!(refused(&blobs, metadata(twice)).await.contains("twice"));
    for value in ["", " ", "a\r\nset-cookie: x", "é", &"x".repeat(257)] {
        let typed = PutOptions { content_type: Some(value.to_owned()), ..PutOptions::default() };
        assert!(refused(&blobs, typed).await.contains("content type"), "{value:?}");
        let cached = PutOptions { cache_control: Some(value.to_owned()), ..PutOptions::default() };
        assert!(refused(&blobs, cached).await.contains("cache control"), "{value:?}");
    }
    let etags = Etags::Of(vec![String::new(); 17]);
    let many = Precondition { if_match: Some(etags), if_none_match: None };
    assert!(
        refused(&blobs, PutOptions { precondition: many.clone(), ..PutOptions::default() })
            .await
            .contains("16")
    );
    assert!(
        blobs.get("k", GetOptions { precondition: many.clone(), ..GetOptions::default() }).await.is_err()
    );
    assert!(blobs.delete("k", many).await.is_err());
    assert_eq!(collected(&blobs).await.chunks, 0);
}

#[tokio::test]
async fn keys_have_limits_and_may_be_strange() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let longest = "k".repeat(limits::KEY_BYTES);
    let longer = "k".repeat(limits::KEY_BYTES + 1);
    for key in ["../../etc/passwd", "/", "a\0b", "a\nb", "\u{10ffff}", " ", &longest] {
        put(&blobs, key, key.as_bytes()).await;
        assert_eq!(blobs.head(key).await.unwrap().unwrap().key, key);
    }
    for key in ["", &longer] {
        assert!(blobs.put(key, b"", PutOptions::default()).await.is_err());
        assert!(blobs.head(key).await.is_err());
        assert!(blobs.get(key, GetOptions::default()).await.is_err());
        assert!(blobs.delete(key, Precondition::default()).await.is_err());
        assert!(blobs.delete_many(&[key.to_owned()]).await.is_err());
    }
    assert!(matches!(blobs.delete_many(&vec!["k".to_owned(); 1_001]).await, Err(BlobError::TooLarge(_))));
    assert_eq!(report(&blobs).await.objects, 7);
}

#[tokio::test]
async fn an_upload_over_the_limit_stays_refused_and_leaves_nothing() {
    let store = Place::new().open();
    let options = BlobOptions { object_bytes: 10 << 20, ..BlobOptions::default() };
    let blobs = store.container("a", options).unwrap();
    let mut upload = blobs.upload("k", PutOptions::default()).unwrap();
    for _ in 0..10 {
        upload.write(&vec![7; 1 << 20]).await.unwrap();
    }
    assert!(matches!(upload.write(b"1").await, Err(BlobError::TooLarge(_))));
    assert!(matches!(upload.write(b"").await, Err(BlobError::Invalid(_))));
    assert!(upload.publish().await.is_err());
    assert_eq!(blobs.head("k").await.unwrap(), None);
    assert_eq!(collected(&blobs).await.chunks, 0);
    let endless = BlobOptions { object_bytes: u64::MAX, ..BlobOptions::default() };
    assert!(matches!(store.container("b", endless), Err(BlobError::Invalid(_))));
    assert!(matches!(store.container("", BlobOptions::default()), Err(BlobError::Invalid(_))));
}

/// A call that is cancelled in the middle may have lost a part of the content: such an upload must never be published.
#[tokio::test]
async fn an_upload_that_was_interrupted_cannot_be_published() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let mut upload = blobs.upload("k", PutOptions::default()).unwrap();
    let bytes = vec![7; 20 << 20];
    {
        let mut write = std::pin::pin!(upload.write(&bytes));
        let waker = std::task::Waker::noop();
        let polled = write.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending());
    }
    assert!(matches!(upload.write(b"more").await, Err(BlobError::Invalid(_))));
    assert!(matches!(upload.publish().await, Err(BlobError::Invalid(_))));
    assert_eq!(blobs.head("k").await.unwrap(), None);
}
