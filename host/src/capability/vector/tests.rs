use std::time::{Duration, Instant};

use tollgate_store::{Options, Store, VectorOptions, vector::limits};
use wasmtime::component::ResourceTable;
use wit::HostIndex as _;

use super::*;
use crate::capability::Allowance;
use crate::plugin::Tally;
use crate::plugin::limits::{LIST_ITEMS, POLICY_HOST_BYTES};

/// What one call of a guest has, with a store of its own.
struct Call {
    indexes: Openable<OpenIndex>,
    table: ResourceTable,
    budget: Budget,
    _store: Store,
    _directory: tempfile::TempDir,
}

impl Call {
    fn new(dimensions: usize, access: Access) -> Call {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), Options::default()).unwrap();
        let options = VectorOptions { indexed: vec!["kind".to_owned()], ..VectorOptions::new(dimensions) };
        let indexes = BTreeMap::from([("captions".to_owned(), store.index("captions", options).unwrap())]);
        let grants = BTreeMap::from([("captions".to_owned(), access)]);
        let until = Instant::now() + Duration::from_secs(60);
        Call {
            indexes: granted(&indexes, &grants).unwrap(),
            table: ResourceTable::new(),
            budget: Budget::new(Arc::new(Tally::new("vector")), Allowance::POLICY, until),
            _store: store,
            _directory: directory,
        }
    }

    fn view(&mut self) -> VectorView<'_> {
        View { openable: &self.indexes, table: &mut self.table, budget: &mut self.budget }
    }

    /// A new handle of the index.
    async fn captions(&mut self) -> Resource<OpenIndex> {
        wit::HostIndex::open(&mut self.view(), "captions".to_owned()).await.unwrap()
    }

    async fn upsert(&mut self, vectors: Vec<wit::Vector>) -> Result<(), Error> {
        let captions = self.captions().await;
        self.view().upsert(captions, vectors).await
    }

    async fn query(
        &mut self,
        target: wit::Target,
        options: wit::QueryOptions,
    ) -> Result<Vec<wit::Match>, Error> {
        let captions = self.captions().await;
        self.view().query(captions, target, options).await
    }
}

fn vector(id: &str, values: &[f32], kind: &str) -> wit::Vector {
    let metadata = Some(format!(r#"{{"kind":"{kind}","url":"/{id}"}}"#));
    wit::Vector { id: id.to_owned(), values: values.to_vec(), namespace: None, metadata }
}

fn top(top_k: u32) -> wit::QueryOptions {
    let return_metadata = wit::ReturnMetadata::None;
    wit::QueryOptions { top_k, namespace: None, filter: None, return_values: false, return_metadata }
}

#[tokio::test]
async fn vectors_are_written_found_and_removed_as_the_contract_says() {
    let mut call = Call::new(2, Access::ReadWrite);
    let (one, two) = (vector("1", &[1.0, 0.0], "photo"), vector("2", &[0.0, 1.0], "drawing"));
    call.upsert(vec![one.clone(), two]).await.unwrap();
    let captions = call.captions().await;
    assert!(matches!(call.view().insert(captions, vec![one.clone()]).await, Err(Error::Conflict)));

    let all = wit::QueryOptions { return_values: true, return_metadata: wit::ReturnMetadata::All, ..top(5) };
    let found = call.query(wit::Target::Values(vec![2.0, 0.0]), all).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|found| found.id.as_str()).collect();
    assert_eq!((ids, found[0].score, found[1].score), (vec!["1", "2"], 1.0, 0.0));
    assert_eq!((&found[0].values, &found[0].metadata), (&Some(one.values), &one.metadata));
    let indexed = wit::QueryOptions {
        filter: Some(r#"{"kind": {"$ne": "photo"}}"#.to_owned()),
        return_metadata: wit::ReturnMetadata::Indexed,
        ..top(5)
    };
    let found = call.query(wit::Target::Id("1".to_owned()), indexed).await.unwrap();
    assert_eq!((found.len(), found[0].metadata.as_deref()), (1, Some(r#"{"kind":"drawing"}"#)));
    let missing = call.query(wit::Target::Id("none".to_owned()), top(1)).await;
    assert!(matches!(missing, Err(Error::Invalid(text)) if text.contains("none")));

    let captions = call.captions().await;
    let info = call.view().describe(captions).await.unwrap();
    assert_eq!((info.dimensions, info.metric, info.vectors), (2, wit::Metric::Cosine, 2));
    let captions = call.captions().await;
    let ids = ["1", "none"].map(str::to_owned).to_vec();
    assert!(matches!(call.view().delete_by_ids(captions, ids.clone()).await, Ok(1)));
    let captions = call.captions().await;
    assert!(matches!(call.view().get_by_ids(captions, ids).await, Ok(found) if found.is_empty()));
}

#[tokio::test]
async fn who_may_only_read_changes_nothing() {
    let mut call = Call::new(1, Access::Read);
    assert!(matches!(call.upsert(vec![vector("1", &[1.0], "a")]).await, Err(Error::AccessDenied)));
    let captions = call.captions().await;
    let insert = call.view().insert(captions, vec![vector("1", &[1.0], "a")]).await;
    assert!(matches!(insert, Err(Error::AccessDenied)));
    let captions = call.captions().await;
    let delete = call.view().delete_by_ids(captions, vec!["1".to_owned()]).await;
    assert!(matches!(delete, Err(Error::AccessDenied)));
    assert!(
        matches!(call.query(wit::Target::Values(vec![1.0]), top(1)).await, Ok(found) if found.is_empty())
    );
}

#[tokio::test]
async fn lists_numbers_and_bytes_are_bounded() {
    let mut call = Call::new(limits::DIMENSIONS, Access::ReadWrite);
    let many = vec![vector("1", &[], "a"); LIST_ITEMS + 1];
    assert!(matches!(call.upsert(many).await, Err(Error::TooLarge(_))));
    let captions = call.captions().await;
    let ids = vec!["1".to_owned(); limits::GET_IDS + 1];
    assert!(matches!(call.view().get_by_ids(captions, ids).await, Err(Error::TooLarge(_))));
    for top_k in [0, u32::MAX] {
        let values = vec![1.0; limits::DIMENSIONS];
        let answer = call.query(wit::Target::Values(values), top(top_k)).await;
        assert!(matches!(answer, Err(Error::Invalid(text)) if text.contains("top-k")));
    }
    let not_finite = vector("1", &[f32::NAN; limits::DIMENSIONS], "a");
    assert!(matches!(call.upsert(vec![not_finite]).await, Err(Error::Invalid(_))));
    let one = vector("1", &[1.0; limits::DIMENSIONS], "a");
    call.upsert(vec![one]).await.unwrap();
    // Answers count like arguments, and then the budget ends.
    let values = wit::QueryOptions { return_values: true, ..top(1) };
    let mut answered = 0;
    let ended = loop {
        match call.query(wit::Target::Id("1".to_owned()), values.clone()).await {
            Ok(found) => answered += found[0].values.as_ref().unwrap().len() * size_of::<f32>(),
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, Error::TooLarge(text) if text.contains("bytes")));
    assert!(answered < POLICY_HOST_BYTES);
}
