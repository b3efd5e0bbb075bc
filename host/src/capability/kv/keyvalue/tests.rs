use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atomics::{Host as _, HostCas as _};
use batch::Host as _;
use store::HostBucket as _;
use tollgate_store::{KvOptions, Options, Store, limits};
use wasmtime::component::ResourceTable;

use super::*;
use crate::capability::view::{Openable, View};
use crate::capability::{Allowance, Budget};
use crate::plugin::limits::{HANDLES, POLICY_HOST_BYTES};
use crate::plugin::{Access, Tally};

/// What one call of a guest has: store `notes` under a grant, and store `other` that is not granted.
struct Call {
    stores: Openable<OpenStore>,
    table: ResourceTable,
    budget: Budget,
    _store: Store,
    _directory: tempfile::TempDir,
}

impl Call {
    fn new(access: Access) -> Call {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), Options::default()).unwrap();
        let named =
            ["notes", "other"].map(|name| (name.to_owned(), store.kv(name, KvOptions::default()).unwrap()));
        let grants = BTreeMap::from([("notes".to_owned(), access)]);
        let until = Instant::now() + Duration::from_secs(60);
        Call {
            stores: super::super::granted(&BTreeMap::from(named), &grants).unwrap(),
            table: ResourceTable::new(),
            budget: Budget::new(Arc::new(Tally::new("keyvalue")), Allowance::POLICY, until),
            _store: store,
            _directory: directory,
        }
    }

    fn view(&mut self) -> KvView<'_> {
        View { openable: &self.stores, table: &mut self.table, budget: &mut self.budget }
    }

    async fn open(&mut self, name: &str) -> Result<Resource<OpenStore>, Error> {
        store::Host::open(&mut self.view(), name.to_owned()).await
    }

    /// A new handle of the store.
    async fn notes(&mut self) -> Resource<OpenStore> {
        self.open("notes").await.unwrap()
    }

    async fn set(&mut self, key: &str, value: impl Into<Vec<u8>>) -> Result<(), Error> {
        let notes = self.notes().await;
        self.view().set(notes, key.to_owned(), value.into()).await
    }

    async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let notes = self.notes().await;
        self.view().get(notes, key.to_owned()).await
    }

    async fn cas(&mut self, key: &str) -> Resource<Cas> {
        let notes = self.notes().await;
        atomics::HostCas::new(&mut self.view(), notes, key.to_owned()).await.unwrap()
    }
}

/// The text of an error that is neither of the other two.
fn other<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Other(text)) => text,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("no error"),
    }
}

#[tokio::test]
async fn what_one_interface_writes_the_other_reads() {
    let mut call = Call::new(Access::ReadWrite);
    call.set("a", "1").await.unwrap();
    let (notes, key) = (call.notes().await, "a".to_owned());
    assert_eq!(own::HostStore::get(&mut call.view(), notes, key.clone()).await.unwrap(), Some(b"1".to_vec()));
    let notes = call.notes().await;
    assert_eq!(call.view().increment(notes, key.clone(), 4).await.unwrap(), 5);
    let notes = call.notes().await;
    assert!(call.view().exists(notes, key.clone()).await.unwrap());
    let (notes, asked) = (call.notes().await, vec![key.clone(), "b".to_owned()]);
    let found = call.view().get_many(notes, asked).await.unwrap();
    assert_eq!(found, [(key.clone(), Some(b"5".to_vec())), ("b".to_owned(), None)]);
    let (notes, entries) = (call.notes().await, vec![("b".to_owned(), b"2".to_vec())]);
    call.view().set_many(notes, entries).await.unwrap();
    let notes = call.notes().await;
    call.view().delete_many(notes, vec![key]).await.unwrap();
    let notes = call.notes().await;
    assert_eq!(call.view().list_keys(notes, None).await.unwrap().keys, ["b"]);
    let notes = call.notes().await;
    call.view().delete(notes, "b".to_owned()).await.unwrap();
    assert_eq!(call.get("b").await.unwrap(), None);
}

#[tokio::test]
async fn a_swap_wins_only_over_what_its_handle_was_made_of() {
    let mut call = Call::new(Access::ReadWrite);
    let (first, late) = (call.cas("n").await, call.cas("n").await);
    call.view().swap(first, b"1".to_vec()).await.unwrap();
    let late_rep = Resource::new_own(late.rep());
    assert_eq!(call.view().current(late_rep).await.unwrap(), Some(b"1".to_vec()));
    let Err(CasError::CasFailed(fresh)) = call.view().swap(late, b"2".to_vec()).await else {
        panic!("it won")
    };
    assert_eq!(call.get("n").await.unwrap(), Some(b"1".to_vec()));
    call.view().swap(fresh, b"2".to_vec()).await.unwrap();
    assert_eq!(call.get("n").await.unwrap(), Some(b"2".to_vec()));
}

#[tokio::test]
async fn a_store_that_is_not_granted_is_denied_and_a_readable_one_is_not_written() {
    let mut call = Call::new(Access::Read);
    assert!(matches!(call.open("other").await, Err(Error::AccessDenied)));
    assert!(matches!(call.open("nothing").await, Err(Error::NoSuchStore)));
    assert!(matches!(call.set("a", "1").await, Err(Error::AccessDenied)));
    let notes = call.notes().await;
    assert!(matches!(call.view().increment(notes, "a".to_owned(), 1).await, Err(Error::AccessDenied)));
    let cas = call.cas("a").await;
    let refused = call.view().swap(cas, b"1".to_vec()).await;
    assert!(matches!(refused, Err(CasError::StoreError(Error::AccessDenied))));
    assert_eq!(call.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn keys_values_lists_and_handles_have_the_limits_of_kv() {
    let mut call = Call::new(Access::ReadWrite);
    let key = "k".repeat(limits::KEY_BYTES + 1);
    assert!(other(call.set(&key, "1").await).contains("512"));
    assert!(other(call.set("a", vec![0; limits::VALUE_BYTES + 1]).await).contains("1048576"));
    let (notes, keys) = (call.notes().await, vec!["a".to_owned(); LIST_ITEMS + 1]);
    assert!(other(call.view().get_many(notes, keys).await).contains("1000 items"));
    call.table.set_max_capacity(HANDLES);
    let mut opened = 0;
    let text = loop {
        let notes = Resource::new_own(0);
        match atomics::HostCas::new(&mut call.view(), notes, "a".to_owned()).await {
            Ok(_) => opened += 1,
            error => break other(error),
        }
    };
    assert!(opened < HANDLES && text.contains("handles"), "{opened}: {text}");
}

#[tokio::test]
async fn a_page_has_a_thousand_keys_and_a_cursor_of_the_guests_own_making_does_no_harm() {
    let mut call = Call::new(Access::ReadWrite);
    for batch in 0..2 {
        let entries = (0..LIST_ITEMS).map(|n| (format!("{batch}/{n:04}"), Vec::new())).collect();
        let notes = call.notes().await;
        call.view().set_many(notes, entries).await.unwrap();
    }
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let notes = call.notes().await;
        let page = call.view().list_keys(notes, cursor).await.unwrap();
        assert!(page.keys.len() <= LIST_ITEMS);
        seen.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 2 * LIST_ITEMS);
    assert!(seen.is_sorted());
    for cursor in ["", "zzz", "\0", &"x".repeat(100_000)] {
        let notes = call.notes().await;
        let _ = call.view().list_keys(notes, Some(cursor.to_owned())).await;
    }
}

#[tokio::test]
async fn bytes_through_the_standard_count_like_all_others() {
    let mut call = Call::new(Access::ReadWrite);
    call.set("large", vec![7; limits::VALUE_BYTES]).await.unwrap();
    let mut reads = 0;
    let text = loop {
        match call.get("large").await {
            Ok(_) => reads += 1,
            error => break other(error),
        }
    };
    assert!(text.contains("bytes"), "{text}");
    assert_eq!(reads, POLICY_HOST_BYTES / limits::VALUE_BYTES - 2);
}
