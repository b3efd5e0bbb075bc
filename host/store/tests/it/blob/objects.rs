//! Writing, reading and removing objects.

use tollgate_store::{
    BlobError, BlobOptions, ByteRange, Etags, GetOptions, Got, Precondition, PutOptions, Unmet,
};

use super::support::{CHUNK, bytes, container, if_match, noise, put, reader, report, text};
use crate::support::Place;

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let place = Place::new();
    let store = place.open();
    let images = container(&store, "images");
    let options = PutOptions {
        content_type: Some("text/plain; charset=utf-8".to_owned()),
        cache_control: Some("no-store".to_owned()),
        metadata: vec![("caption".to_owned(), "ein Bär".to_owned())],
        precondition: Precondition::default(),
    };
    let info = images.put("a/b", b"hello", options).await.unwrap();
    assert_eq!(info.etag, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!((info.size, info.uploaded_ms), (5, 1_000_000));
    assert_eq!(info.content_type, "text/plain; charset=utf-8");
    assert_eq!(info.cache_control.as_deref(), Some("no-store"));
    assert_eq!(info.metadata, [("caption".to_owned(), "ein Bär".to_owned())]);
    for round in 0..2 {
        assert_eq!(images.head("a/b").await.unwrap().as_ref(), Some(&info), "round {round}");
        assert_eq!(bytes(&images, "a/b").await.unwrap(), b"hello", "round {round}");
        store.flush().await.unwrap();
    }
    store.close().await.unwrap();
    let images = container(&place.open(), "images");
    assert_eq!(images.head("a/b").await.unwrap(), Some(info));
    assert_eq!(bytes(&images, "a/b").await.unwrap(), b"hello");
    assert!(images.delete("a/b", Precondition::default()).await.unwrap());
    assert!(!images.delete("a/b", Precondition::default()).await.unwrap());
    assert_eq!((images.head("a/b").await.unwrap(), bytes(&images, "a/b").await), (None, None));
}

#[tokio::test]
async fn contents_of_every_length_come_back() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    for length in [0, 1, 1000, 5000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 40 * CHUNK + 17] {
        for (kind, content) in [("noise", noise(7, length)), ("text", text(7, length))] {
            put(&blobs, kind, &content).await;
            assert!(bytes(&blobs, kind).await.unwrap() == content, "{kind} of {length}");
        }
    }
    report(&blobs).await;
}

#[tokio::test]
async fn an_upload_is_cut_the_same_however_it_is_written() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let content = noise(1, 34 * CHUNK + 5);
    put(&blobs, "whole", &content).await;
    let chunks = report(&blobs).await.chunks;
    for step in [1_000, CHUNK, 5 << 20] {
        let mut upload = blobs.upload("pieces", PutOptions::default()).unwrap();
        for piece in content.chunks(step) {
            upload.write(piece).await.unwrap();
        }
        assert_eq!(upload.size(), content.len() as u64);
        upload.publish().await.unwrap();
        assert!(bytes(&blobs, "pieces").await.unwrap() == content);
        assert_eq!(report(&blobs).await.chunks, chunks, "{step}");
    }
}

#[tokio::test]
async fn ranges_are_cut_to_the_object() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let content = noise(3, 2 * CHUNK + 100);
    let size = content.len() as u64;
    put(&blobs, "k", &content).await;
    let from = |offset, length| ByteRange::From { offset, length };
    let chunk = CHUNK as u64;
    for (range, expected) in [
        (from(0, None), 0..size),
        (from(0, Some(1)), 0..1),
        (from(5, Some(10)), 5..15),
        (from(chunk - 1, Some(2)), chunk - 1..chunk + 1),
        (from(chunk, Some(chunk)), chunk..2 * chunk),
        (from(10, Some(u64::MAX)), 10..size),
        (from(size - 1, None), size - 1..size),
        (ByteRange::Last(1), size - 1..size),
        (ByteRange::Last(150), size - 150..size),
        (ByteRange::Last(u64::MAX), 0..size),
    ] {
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let reader = reader(&blobs, "k", options).await.unwrap();
        assert_eq!(reader.range(), expected);
        let read = reader.read_all().await.unwrap();
        assert!(read == content[expected.start as usize..expected.end as usize], "{range:?}");
    }
    for range in [from(size, None), from(u64::MAX, Some(u64::MAX)), from(3, Some(0)), ByteRange::Last(0)] {
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let got = blobs.get("k", options).await;
        assert!(matches!(got, Err(BlobError::OutOfRange(bytes)) if bytes == size), "{range:?}");
    }
    put(&blobs, "empty", b"").await;
    let options = GetOptions { range: Some(from(0, None)), ..GetOptions::default() };
    assert!(matches!(blobs.get("empty", options).await, Err(BlobError::OutOfRange(0))));
    assert_eq!(bytes(&blobs, "empty").await.unwrap(), b"");
}

#[tokio::test]
async fn preconditions_decide_what_is_written() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let refused = Err(BlobError::PreconditionFailed);
    let present = Precondition { if_match: Some(Etags::Any), if_none_match: None };
    assert_eq!(blobs.put("k", b"1", if_match(present.clone())).await, refused);
    assert_eq!(blobs.put("k", b"1", if_match(Precondition::etag("x"))).await, refused);
    assert_eq!(blobs.head("k").await.unwrap(), None);
    let one = blobs.put("k", b"1", if_match(Precondition::absent())).await.unwrap().etag;
    assert_eq!(blobs.put("k", b"2", if_match(Precondition::absent())).await, refused);
    let not_one = Precondition { if_match: None, if_none_match: Some(Etags::Of(vec![one.clone()])) };
    assert_eq!(blobs.put("k", b"2", if_match(not_one)).await, refused);
    let two = blobs.put("k", b"2", if_match(Precondition::etag(&one))).await.unwrap().etag;
    assert_eq!(blobs.put("k", b"3", if_match(Precondition::etag(&one))).await, refused);
    assert_eq!(bytes(&blobs, "k").await.unwrap(), b"2");
    assert_eq!(blobs.delete("k", Precondition::etag(&one)).await, Err(BlobError::PreconditionFailed));
    assert_eq!(blobs.delete("none", present).await, Err(BlobError::PreconditionFailed));
    assert_eq!(blobs.delete("k", Precondition::etag(&two)).await, Ok(true));
}

#[tokio::test]
async fn preconditions_decide_what_is_read() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let etag = put(&blobs, "k", b"1").await;
    let get = async |key: &str, precondition| match blobs
        .get(key, GetOptions { precondition, ..GetOptions::default() })
        .await
        .unwrap()
    {
        Got::Found(_) => "found",
        Got::Absent => "absent",
        Got::Unmet(Unmet::Match, info) => ["match, absent", "match"][usize::from(info.is_some())],
        Got::Unmet(Unmet::NoneMatch, info) => {
            ["none match, absent", "none match"][usize::from(info.is_some())]
        }
    };
    let none_match = |etags| Precondition { if_match: None, if_none_match: Some(etags) };
    let of = |etag: &str| Etags::Of(vec!["other".to_owned(), etag.to_owned()]);
    assert_eq!(get("k", Precondition::etag(&etag)).await, "found");
    assert_eq!(get("k", Precondition::etag("x")).await, "match");
    assert_eq!(get("none", Precondition::etag("x")).await, "match, absent");
    assert_eq!(get("k", none_match(of(&etag))).await, "none match");
    assert_eq!(get("k", none_match(Etags::Any)).await, "none match");
    assert_eq!(get("k", none_match(of("x"))).await, "found");
    assert_eq!(get("none", none_match(Etags::Any)).await, "absent");
}

#[tokio::test]
async fn only_one_of_many_uploads_creates_an_object() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20u8 {
        let blobs = blobs.clone();
        tasks.spawn(async move {
            let content = vec![number; 1_000];
            (number, blobs.put("k", &content, if_match(Precondition::absent())).await)
        });
    }
    let results = tasks.join_all().await;
    let won: Vec<u8> = results.iter().filter(|(_, put)| put.is_ok()).map(|(number, _)| *number).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(bytes(&blobs, "k").await.unwrap(), vec![won[0]; 1_000]);
}

#[tokio::test]
async fn a_container_takes_what_it_is_configured_for() {
    let store = Place::new().open();
    let options = BlobOptions {
        object_bytes: 10,
        content_types: vec!["image/*".to_owned(), "text/plain".to_owned()],
        cache_control: Some("public, max-age=31536000, immutable".to_owned()),
        ..BlobOptions::default()
    };
    let blobs = store.container("a", options).unwrap();
    let typed = |content_type: &str| PutOptions {
        content_type: Some(content_type.to_owned()),
        ..PutOptions::default()
    };
    let info = blobs.put("k", b"0123456789", typed("Image/PNG")).await.unwrap();
    assert_eq!(info.cache_control.as_deref(), Some("public, max-age=31536000, immutable"));
    blobs.put("k", b"", typed("text/plain; charset=utf-8")).await.unwrap();
    for refused in ["text/html", "imagex", "application/octet-stream"] {
        let put = blobs.put("k", b"", typed(refused)).await;
        assert!(matches!(&put, Err(BlobError::Invalid(text)) if text.contains("image/*")), "{put:?}");
    }
    assert!(matches!(blobs.put("k", b"", PutOptions::default()).await, Err(BlobError::Invalid(_))));
    let long = blobs.put("k", b"0123456789a", typed("image/png")).await;
    assert!(matches!(&long, Err(BlobError::TooLarge(text)) if text.contains("10 bytes")), "{long:?}");
    assert_eq!(blobs.head("k").await.unwrap().unwrap().size, 0);
}

#[tokio::test]
async fn several_objects_are_removed_together() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    for key in ["a", "b", "c"] {
        put(&blobs, key, key.as_bytes()).await;
    }
    let keys = ["a", "none", "c", "a"].map(str::to_owned);
    assert_eq!(blobs.delete_many(&keys).await, Ok(2));
    assert_eq!(bytes(&blobs, "b").await.unwrap(), b"b");
    assert_eq!(report(&blobs).await.objects, 1);
}
