//! Listing objects.

use tollgate_store::{BlobError, BlobList, Container};

use super::support::{container, put};
use crate::support::Place;

async fn pages(blobs: &Container, prefix: &str, delimiter: Option<&str>, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let delimiter = delimiter.map(str::to_owned);
        let list = BlobList { prefix: prefix.to_owned(), delimiter, cursor, limit };
        let page = blobs.list(list).await.unwrap();
        assert!(page.objects.len() + page.prefixes.len() <= limit);
        let mut names: Vec<String> = page.objects.into_iter().map(|object| object.key).collect();
        names.extend(page.prefixes.into_iter().map(|prefix| format!("{prefix}*")));
        names.sort();
        found.extend(names);
        cursor = page.cursor;
        if cursor.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn a_list_goes_through_prefixes_and_folders_page_by_page() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    put(&container(&store, "before"), "a/1", b"").await;
    let keys =
        ["a", "a/", "a/1", "a/b/1", "a/b/2", "a/c", "b/1", "b/2", "c", "ä/1", "\u{10ffff}", "\u{10ffff}/x"];
    for key in keys {
        put(&blobs, key, b"").await;
    }
    put(&container(&store, "after"), "c", b"").await;
    for limit in [1, 2, 3, 5, 100] {
        assert_eq!(pages(&blobs, "", None, limit).await, keys);
        assert_eq!(pages(&blobs, "a/", None, limit).await, ["a/", "a/1", "a/b/1", "a/b/2", "a/c"]);
        let top = ["a", "a/*", "b/*", "c", "ä/*", "\u{10ffff}", "\u{10ffff}/*"];
        assert_eq!(pages(&blobs, "", Some("/"), limit).await, top);
        assert_eq!(pages(&blobs, "a/", Some("/"), limit).await, ["a/", "a/1", "a/b/*", "a/c"]);
        assert_eq!(pages(&blobs, "a/b/", Some("/"), limit).await, ["a/b/1", "a/b/2"]);
        assert_eq!(pages(&blobs, "", Some("/b"), limit).await[3], "a/b*");
        assert_eq!(pages(&blobs, "none", Some("/"), limit).await, [""; 0]);
        assert_eq!(
            pages(&blobs, "\u{10ffff}", Some("\u{10ffff}"), limit).await,
            ["\u{10ffff}", "\u{10ffff}/x"]
        );
    }
}

#[tokio::test]
async fn a_cursor_may_be_any_text() {
    let store = Place::new().open();
    let blobs = container(&store, "a");
    for key in ["a/1", "a/2", "b"] {
        put(&blobs, key, b"").await;
    }
    let list = async |prefix: &str, delimiter: Option<&str>, cursor: &str| {
        let delimiter = delimiter.map(str::to_owned);
        let cursor = Some(cursor.to_owned());
        let page =
            blobs.list(BlobList { prefix: prefix.to_owned(), delimiter, cursor, limit: 10 }).await.unwrap();
        page.objects.len() + page.prefixes.len()
    };
    assert_eq!(list("a/", None, "").await, 2);
    assert_eq!(list("a/", None, "a").await, 2);
    assert_eq!(list("a/", None, "a/15").await, 1);
    assert_eq!(list("a/", None, "zzz").await, 0);
    assert_eq!(list("", Some("/"), "a/1").await, 1);
    assert_eq!(list("", Some("/"), "a0").await, 1);
    for (delimiter, limit) in [(Some(String::new()), 1), (Some("/".repeat(17)), 1), (None, 0), (None, 1_001)]
    {
        let list = BlobList { delimiter, limit, ..BlobList::default() };
        assert!(matches!(blobs.list(list).await, Err(BlobError::Invalid(_) | BlobError::TooLarge(_))));
    }
    let long = Some("x".repeat(2_000));
    assert!(blobs.list(BlobList { cursor: long, ..BlobList::default() }).await.is_err());
}
