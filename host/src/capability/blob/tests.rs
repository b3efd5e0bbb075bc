use std::time::{Duration, Instant};

use tollgate_store::{BlobOptions, Options, Store};
use wasmtime::component::ResourceTable;
use wit::{HostContainer as _, HostReader as _};

use super::*;
use crate::capability::Allowance;
use crate::plugin::Tally;

/// What one call of a guest has, with a store of its own.
struct Call {
    containers: Openable<OpenContainer>,
    table: ResourceTable,
    budget: Budget,
    _store: Store,
    _directory: tempfile::TempDir,
}

const NO_CONDITION: wit::Precondition = wit::Precondition { if_match: None, if_none_match: None };

impl Call {
    fn new() -> Call {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), Options::default()).unwrap();
        let container = store.container("images", BlobOptions::default()).unwrap();
        let containers = BTreeMap::from([("images".to_owned(), container)]);
        let grants = BTreeMap::from([("images".to_owned(), Access::ReadWrite)]);
        let until = Instant::now() + Duration::from_secs(60);
        let tally = Arc::new(Tally::new("blob"));
        Call {
            containers: granted(&containers, &grants).unwrap(),
            table: ResourceTable::new(),
            budget: Budget::new(tally, Allowance::WORK, until),
            _store: store,
            _directory: directory,
        }
    }

    fn view(&mut self) -> BlobView<'_> {
        View { openable: &self.containers, table: &mut self.table, budget: &mut self.budget }
    }

    /// A new handle of the container.
    async fn images(&mut self) -> Resource<OpenContainer> {
        wit::HostContainer::open(&mut self.view(), "images".to_owned()).await.unwrap()
    }

    async fn put(
        &mut self,
        key: &str,
        content: &[u8],
        precondition: wit::Precondition,
    ) -> Result<wit::Info, Error> {
        let images = self.images().await;
        let metadata = vec![("a".to_owned(), "b".to_owned())];
        let options = wit::PutOptions { content_type: None, cache_control: None, metadata, precondition };
        self.view().put(images, key.to_owned(), content.to_vec(), options).await
    }

    async fn get(
        &mut self,
        key: &str,
        range: Option<wit::ByteRange>,
        precondition: wit::Precondition,
    ) -> Result<wit::Got, Error> {
        let images = self.images().await;
        self.view().get(images, key.to_owned(), wit::GetOptions { range, precondition }).await
    }
}

fn none_match(etags: wit::Etags) -> wit::Precondition {
    wit::Precondition { if_match: None, if_none_match: Some(etags) }
}

#[tokio::test]
async fn an_object_is_put_and_found_as_the_contract_says() {
    let mut call = Call::new();
    let put = call.put("k", b"0123456789", NO_CONDITION).await.unwrap();
    assert_eq!(
        (put.size, put.metadata.len(), put.content_type.as_str()),
        (10, 1, "application/octet-stream")
    );
    let part = |offset, length| Some(wit::ByteRange::Part(wit::Part { offset, length }));
    for (range, offset, content) in [
        (None, 0, "0123456789"),
        (part(3, Some(2)), 3, "34"),
        (part(8, None), 8, "89"),
        (Some(wit::ByteRange::Last(1)), 9, "9"),
    ] {
        let wit::Got::Found(object) = call.get("k", range, NO_CONDITION).await.unwrap() else { panic!() };
        assert_eq!((object.offset, object.content.as_slice()), (offset, content.as_bytes()));
        assert_eq!(object.info.etag, put.etag);
    }
    assert!(matches!(call.get("none", None, NO_CONDITION).await, Ok(wit::Got::Absent)));
    assert!(matches!(call.get("k", part(10, None), NO_CONDITION).await, Err(Error::Invalid(_))));
    let known = none_match(wit::Etags::Of(vec![put.etag.clone()]));
    let unmet = call.get("k", None, known).await;
    assert!(matches!(unmet, Ok(wit::Got::Unmet(Some(info))) if info.etag == put.etag));
}

#[tokio::test]
async fn a_precondition_that_does_not_hold_is_a_conflict() {
    let mut call = Call::new();
    call.put("k", b"1", none_match(wit::Etags::Any)).await.unwrap();
    assert!(matches!(call.put("k", b"2", none_match(wit::Etags::Any)).await, Err(Error::Conflict)));
    let images = call.images().await;
    let wrong = wit::Precondition { if_match: Some(wit::Etags::Of(vec![])), if_none_match: None };
    assert!(matches!(call.view().delete(images, "k".to_owned(), wrong).await, Err(Error::Conflict)));
    let images = call.images().await;
    assert!(matches!(call.view().delete(images, "k".to_owned(), NO_CONDITION).await, Ok(true)));
    let images = call.images().await;
    assert!(matches!(call.view().head(images, "k".to_owned()).await, Ok(None)));
}

#[tokio::test]
async fn a_list_has_objects_and_prefixes_page_by_page() {
    let mut call = Call::new();
    for key in ["a", "b/1", "b/2", "c"] {
        call.put(key, b"1", NO_CONDITION).await.unwrap();
    }
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let images = call.images().await;
        let delimiter = Some("/".to_owned());
        // A limit out of its bounds is taken to the nearest.
        let options = wit::ListOptions { prefix: None, delimiter, cursor, limit: 0 };
        let page = call.view().list_objects(images, options).await.unwrap();
        found.extend(page.objects.into_iter().map(|info| info.key));
        found.extend(page.prefixes);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, ["a", "b/", "c"]);
    let images = call.images().await;
    let keys = ["a", "b/1", "none"].map(str::to_owned).to_vec();
    assert!(matches!(call.view().delete_many(images, keys).await, Ok(2)));
    let images = call.images().await;
    let many = vec!["k".to_owned(); LIST_ITEMS + 1];
    assert!(matches!(call.view().delete_many(images, many).await, Err(Error::TooLarge(_))));
}

#[tokio::test]
async fn what_a_call_moves_is_bounded_and_a_reader_takes_any_length() {
    let mut call = Call::new();
    let images = call.images().await;
    let content = vec![7; BLOB_GET_BYTES + 1];
    let open = call.table.get(&images).unwrap().container.clone();
    open.put("large", &content, PutOptions::default()).await.unwrap();
    assert!(matches!(call.get("large", None, NO_CONDITION).await, Err(Error::TooLarge(_))));
    let options = wit::GetOptions { range: None, precondition: NO_CONDITION };
    let opened =
        wit::HostContainer::read(&mut call.view(), images, "large".to_owned(), options).await.unwrap();
    let wit::Opened::Found(reader) = opened else { panic!() };
    let handle = || Resource::<OpenReader>::new_borrow(reader.rep());
    assert!(matches!(call.view().range(handle()).await, Ok((0, length)) if length == content.len() as u64));
    let mut lengths = Vec::new();
    for most in [0, 5, u32::MAX] {
        lengths.push(wit::HostReader::read(&mut call.view(), handle(), most).await.unwrap().len());
    }
    assert_eq!(lengths, [1, 5, BLOB_PIECE_BYTES]);
    // All that is left of the budget goes, and then it ends.
    call.budget.answer(crate::plugin::limits::HOST_BYTES - (4 << 20)).unwrap();
    let mut read = 0;
    let ended = loop {
        match wit::HostReader::read(&mut call.view(), handle(), u32::MAX).await {
            Ok(piece) => read += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, Error::TooLarge(_)) && read < 4 << 20, "{read}");
}
