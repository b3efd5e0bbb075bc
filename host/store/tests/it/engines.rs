//! A store in memory is a store like any other, and this holds all engines to it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tollgate_store::{
    BlobError, BlobList, ByteRange, Container, Etags, GetOptions, Got, Joint, KvError, KvOptions, Options,
    Precondition, PutOptions, SetOptions, SqlError, Statement, StorageError, Store, Swapped, Target, Unmet,
    Value, Vector, VectorOptions, VectorQuery,
};

use crate::{
    blob::support::{self as blobs, container, in_files, noise, put},
    report::{fill, problems},
    support::{DURABLE, Place, RELAXED, number, value},
};

/// What is enough for every test here.
const ROOM: u64 = 64 << 20;

fn in_memory(clock: &Arc<AtomicU64>, room: u64) -> Store {
    let clock = Arc::clone(clock);
    let options = Options { clock: Arc::new(move || clock.load(Ordering::SeqCst)), ..Options::default() };
    Store::in_memory(options, room).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_conforms() {
    let place = Place::new();
    conforms(&place.open(), &place.clock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_folder_conform() {
    let place = Place::new();
    let store = place.open();
    blob(&store, &in_files(&store, "conforming")).await;
    assert_eq!(problems(&store).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    let clock = Arc::new(AtomicU64::new(1_000_000));
    conforms(&in_memory(&clock, ROOM), &clock).await;
}

/// What every engine owes.
async fn conforms(store: &Store, clock: &AtomicU64) {
    for options in [DURABLE, RELAXED] {
        kv(store, options, clock).await;
    }
    blob(store, &container(store, "conforming")).await;
    sql(store).await;
    together(store).await;
    fill(store).await;
    assert_eq!(problems(store).await, [""; 0]);
}

async fn kv(store: &Store, options: KvOptions, clock: &AtomicU64) {
    let kv = store.kv(&format!("{:?}", options.acknowledge), options).unwrap();
    let first = kv.put("a", vec![1], None).await.unwrap();
    assert_eq!(kv.set("a", vec![2], SetOptions { if_absent: true, ttl_ms: None }).await, Ok(false));
    assert!(
        matches!(kv.swap("a", Some(first), vec![3], None).await, Ok(Swapped::Swapped(second)) if second > first)
    );
    assert!(matches!(kv.swap("a", Some(first), vec![4], None).await, Ok(Swapped::Stale(Some(_)))));
    assert_eq!(value(&kv, "a").await, Some(vec![3]));
    kv.put("brief", vec![1], Some(10)).await.unwrap();
    assert_eq!(value(&kv, "brief").await, Some(vec![1]));
    clock.fetch_add(10, Ordering::SeqCst);
    assert_eq!(value(&kv, "brief").await, None);
    assert_eq!(kv.increment("n", 5, None).await, Ok(5));
    assert_eq!(kv.increment("n", -7, None).await, Ok(-2));
    kv.set_many((0..30).map(|key| (format!("many/{key:02}"), vec![key])).collect(), None).await.unwrap();
    let page = kv.list_keys(Some("many/"), None, 20).await.unwrap();
    assert_eq!((page.keys.len(), page.keys[19].as_str()), (20, "many/19"));
    let rest = kv.list_keys(Some("many/"), page.cursor.as_deref(), 20).await.unwrap();
    assert_eq!((rest.keys.len(), rest.cursor), (10, None));
    let mut change = kv.transaction();
    assert_eq!(change.get(&kv, "a").await.unwrap().as_deref(), Some(&[3][..]));
    kv.put("a", vec![5], None).await.unwrap();
    change.set(&kv, "b", vec![6], None).unwrap();
    assert_eq!(change.commit().await, Err(KvError::Conflict));
    assert_eq!(value(&kv, "b").await, None);
    let mut batch = kv.batch();
    batch.delete(&kv, "a").unwrap();
    batch.set(&kv, "b", vec![7], None).unwrap();
    batch.write().await.unwrap();
    assert_eq!((value(&kv, "a").await, value(&kv, "b").await), (None, Some(vec![7])));
}

async fn blob(store: &Store, images: &Container) {
    let bytes = noise(9, 300_000);
    let etag = put(images, "a", &bytes).await;
    assert_eq!(put(images, "b", &bytes).await, etag);
    assert_eq!(blobs::bytes(images, "a").await, Some(bytes.clone()));
    images.delete("a", Precondition::default()).await.unwrap();
    assert_eq!(
        (blobs::bytes(images, "a").await, blobs::bytes(images, "b").await),
        (None, Some(bytes.clone()))
    );
    let last = GetOptions { range: Some(ByteRange::Last(200_000)), ..GetOptions::default() };
    let last = blobs::reader(images, "b", last).await.unwrap();
    assert_eq!(last.range(), 100_000..300_000);
    assert!(last.read_all().await.unwrap() == bytes[100_000..]);
    let again = images.put("b", b"", blobs::if_match(Precondition::absent())).await;
    assert_eq!(again, Err(BlobError::PreconditionFailed));
    let known = GetOptions {
        precondition: Precondition { if_match: None, if_none_match: Some(Etags::Of(vec![etag])) },
        ..GetOptions::default()
    };
    assert!(matches!(images.get("b", known).await, Ok(Got::Unmet(Unmet::NoneMatch, Some(_)))));
    let described = PutOptions {
        content_type: Some("image/png".to_owned()),
        metadata: vec![("caption".to_owned(), "a cat".to_owned())],
        ..PutOptions::default()
    };
    let info = images.put("raw/1", b"1", described).await.unwrap();
    put(images, "raw/2", b"2").await;
    assert_eq!(images.head("raw/1").await.unwrap(), Some(info));
    let list = BlobList { delimiter: Some("/".to_owned()), ..BlobList::default() };
    let page = images.list(list).await.unwrap();
    assert_eq!((page.objects.len(), page.prefixes), (1, vec!["raw/".to_owned()]));
    // Of uploads that are given up nothing is left, nor of what was removed.
    let mut upload = images.upload("never", PutOptions::default()).unwrap();
    upload.write(&noise(8, 5 << 20)).await.unwrap();
    drop(upload);
    store.flush().await.unwrap();
    assert_eq!(blobs::collected(images).await.objects, 3);
}

async fn sql(store: &Store) {
    let database = store.database("conforming").unwrap();
    database.execute("CREATE TABLE t (n INTEGER UNIQUE)".into()).await.unwrap();
    let twice = ["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"].map(Statement::from);
    assert!(matches!(database.batch(twice.into()).await, Err(SqlError::Invalid(_))));
    database.execute("INSERT INTO t VALUES (2)".into()).await.unwrap();
    assert_eq!(database.query("SELECT n FROM t".into()).await.unwrap().rows, [[Value::Integer(2)]]);
}

/// A change of several kinds counts whole.
async fn together(store: &Store) {
    let (kv, index) =
        (store.kv("together", DURABLE).unwrap(), store.index("together", VectorOptions::new(2)).unwrap());
    let vector = Vector { id: "v".to_owned(), values: vec![1.0, 0.0], ..Vector::default() };
    let vectors = index.prepare_upsert(vec![vector]).await.unwrap();
    store.commit(Joint::new().set(&kv, "k", b"1".to_vec(), None).unwrap().vectors(vectors)).await.unwrap();
    assert_eq!(number(&kv, "k").await, 1);
    let found = index.query(VectorQuery::new(Target::Values(vec![1.0, 0.0]))).await.unwrap();
    assert_eq!(found[0].id, "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_counts_together_is_of_one_engine() {
    let clock = Arc::new(AtomicU64::new(1));
    let (left, right) = (in_memory(&clock, ROOM), in_memory(&clock, ROOM));
    let (left, other) = (left.kv("a", DURABLE).unwrap(), right.kv("a", DURABLE).unwrap());
    left.put("k", vec![1], None).await.unwrap();
    assert_eq!(value(&other, "k").await, None);
    assert!(matches!(left.transaction().get(&other, "k").await, Err(KvError::Invalid(_))));
    assert!(matches!(left.batch().set(&other, "k", vec![], None), Err(KvError::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_is_full_says_so_and_takes_no_more() {
    let store = in_memory(&Arc::new(AtomicU64::new(1)), 16 << 20);
    let kv = store.kv("a", DURABLE).unwrap();
    let mut error = None;
    for key in 0..64 {
        error = kv.put(&key.to_string(), noise(key, 1 << 20), None).await.err();
        if error.is_some() {
            break;
        }
    }
    let Some(KvError::Storage(StorageError::DiskFull(text))) = error else { panic!("{error:?}") };
    assert!(text.contains("at most 16777216 bytes"), "{text}");
    assert!(store.stats().poisoned);
}
