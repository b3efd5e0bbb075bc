//! What a store says of itself, and that it notices damage.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tollgate_store::{
    Options, Statement, Store, StoreKind, StoreReport, Vector, VectorOptions, blob::limits::CHUNK_BYTES,
};

use crate::{
    blob::support::{container, noise, put},
    support::{DURABLE, Memory, Place, RELAXED},
};

/// Something of every kind, some of it dead.
pub(crate) async fn fill(store: &Store) {
    let kv = store.kv("notes", RELAXED).unwrap();
    for key in 0..5 {
        kv.put(&format!("key {key}"), vec![key; 100], None).await.unwrap();
    }
    kv.put("brief", vec![1], Some(1_000)).await.unwrap();
    kv.put("long", b"a value that is damaged".to_vec(), Some(1_000_000)).await.unwrap();
    kv.delete("key 0").await.unwrap();
    let images = container(store, "images");
    for (key, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        put(&images, key, &noise(seed, 3 * CHUNK_BYTES)).await;
    }
    let sql = store.database("reports").unwrap();
    let schema = [
        "CREATE TABLE \"odd \"\" name\" (id INTEGER PRIMARY KEY, a TEXT, b TEXT)",
        "CREATE INDEX i ON \"odd \"\" name\" (a)",
    ];
    sql.batch(schema.map(Statement::from).into()).await.unwrap();
    for row in 0..20 {
        let insert =
            "INSERT INTO \"odd \"\" name\" (a, b) VALUES ('the row ' || ?1 || ' is of', ' the table')";
        sql.execute(Statement::new(insert, vec![i64::from(row).into()])).await.unwrap();
    }
    let index = store.index("captions", VectorOptions::new(4)).unwrap();
    let vector = |id: &str| Vector { id: id.to_owned(), values: vec![0.5; 4], ..Vector::default() };
    index.upsert(["left", "right", "gone"].map(vector).into()).await.unwrap();
    index.delete_by_ids(&["gone".to_owned()]).await.unwrap();
    let queue = store.queue("events", 1 << 20).unwrap();
    queue.append(b"one".to_vec()).unwrap();
    queue.append(b"two".to_vec()).unwrap();
    store.flush().await.unwrap();
}

/// The report of each store by its kind, and what is wrong.
pub(crate) async fn problems(store: &Store) -> Vec<String> {
    let mut problems = Vec::new();
    for (kind, name) in store.names().await.unwrap() {
        let report = store.report(kind, &name, true, ()).await.unwrap().unwrap();
        problems.extend(report.problems().iter().map(|problem| format!("{}/{name}: {problem}", kind.name())));
    }
    problems
}

async fn check_figures(store: &Store, thorough: bool) {
    let report = async |kind, name| store.report(kind, name, thorough, ()).await.unwrap().unwrap();
    let StoreReport::Kv(kv) = report(StoreKind::Kv, "notes").await else { panic!() };
    assert_eq!((kv.keys, kv.expiring), (5, 1));
    // Unless it was swept away already.
    assert!(kv.expired <= 1);
    assert_eq!((kv.key_bytes, kv.value_bytes), (4 * 5 + 4, 4 * 100 + 23));
    let StoreReport::Blob(blob) = report(StoreKind::Blob, "images").await else { panic!() };
    assert_eq!((blob.objects, blob.chunks, blob.references), (3, 6, 9));
    assert_eq!(blob.object_bytes, 9 * CHUNK_BYTES as u64);
    let StoreReport::Sql(sql) = report(StoreKind::Sql, "reports").await else { panic!() };
    assert_eq!(sql.tables, [("odd \" name".to_owned(), Some(20))]);
    assert!(sql.pages >= 3 && sql.page_bytes == 4_096 && sql.stored_bytes > 500, "{sql:?}");
    let StoreReport::Vector(vector) = report(StoreKind::Vector, "captions").await else { panic!() };
    assert_eq!((vector.vectors, vector.value_bytes), (2, 2 * 4 * 4));
    let StoreReport::Queue(queue) = report(StoreKind::Queue, "events").await else { panic!() };
    assert_eq!((queue.events, queue.event_bytes), (2, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_store_says_what_is_in_it_whether_it_is_open_or_not() {
    let place = Place::new();
    let store = place.open();
    fill(&store).await;
    place.advance(2_000);
    for thorough in [false, true] {
        check_figures(&store, thorough).await;
    }
    assert_eq!(problems(&store).await, [""; 0]);
    store.close().await.unwrap();

    let store = place.open();
    let names = store.names().await.unwrap();
    let names: Vec<_> = names.iter().map(|(kind, name)| format!("{}/{name}", kind.name())).collect();
    assert_eq!(names, ["kv/notes", "sql/reports", "blob/images", "vector/captions", "queue/events"]);
    for thorough in [false, true] {
        check_figures(&store, thorough).await;
    }
    assert_eq!(problems(&store).await, [""; 0]);
    assert_eq!(store.report(StoreKind::Blob, "notes", true, ()).await, Ok(None));
    assert_eq!(store.report(StoreKind::Sql, "none", true, ()).await, Ok(None));

    let file = store.file_report(()).await.unwrap();
    let table = |name: &str| file.tables.iter().find(|table| table.name == name).unwrap();
    assert_eq!(table("blob-objects").rows, 3);
    assert!(table("blob-parts").stored_bytes > 6 * CHUNK_BYTES as u64 * 9 / 10);
    assert_eq!(file.file_bytes, Some(std::fs::metadata(place.path()).unwrap().len()));
    assert!(file.free_bytes() < file.file_bytes, "{file:?}");
}

/// Changes the byte at `at` behind every place where `pattern` stands.
fn damage(memory: &Memory, pattern: &[u8], at: usize) {
    memory.damage(|bytes| {
        let places: Vec<_> = memchr::memmem::find_iter(bytes, pattern).collect();
        assert!(!places.is_empty(), "{pattern:?} stands nowhere");
        for place in places {
            bytes[place + at] ^= 0x20;
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_named() {
    let memory = Memory::default();
    let store = memory.open();
    fill(&store).await;
    store.close().await.unwrap();
    drop(store);
    let first_of_chunk = noise(2, 64);
    // A row of the table has both texts one behind the other, a row of the index has not. A record of a vector begins with its
    // version and the length of its id.
    for (pattern, at, expected) in [
        (first_of_chunk.as_slice(), 0, "blob/images: a chunk has not the bytes that were uploaded"),
        (b"the row 7 is of the table".as_slice(), 4, "sql/reports: row 8 missing from index i"),
        (b"\x01\x04\0\0\0left".as_slice(), 5, "vector/captions: "),
        (b"a value that is damaged".as_slice(), 0, ""),
    ] {
        let copy = memory.copy();
        damage(&copy, pattern, at);
        let store = Store::open("unused".as_ref(), copy.options()).unwrap();
        let found = problems(&store).await;
        match expected {
            // Nothing but redb's checksum knows of a value that is another.
            "" => assert_eq!(found, [""; 0]),
            expected => {
                assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:?}")
            }
        }
        let others = found.iter().filter(|problem| problem.split(':').next() != expected.split(':').next());
        assert_eq!(others.count(), 0, "{found:?}");
    }
}

/// A reader that goes on for as long as it likes, and a writer, meet no report that is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_serves_while_it_is_checked() {
    let store =
        Store::open("unused".as_ref(), Options { cache_bytes: 1 << 20, ..Memory::default().options() })
            .unwrap();
    fill(&store).await;
    let kv = store.kv("counted", DURABLE).unwrap();
    let checking = tokio::spawn({
        let store = store.clone();
        async move {
            for _ in 0..20 {
                assert_eq!(problems(&store).await, [""; 0]);
                store.file_report(()).await.unwrap();
            }
        }
    });
    let mut written = 0;
    while !checking.is_finished() {
        written += 1;
        assert_eq!(kv.increment("n", 1, None).await, Ok(written));
    }
    checking.await.unwrap();
    assert!(written > 10, "{written}");
}

/// Whoever bounds how many reports are made must not be told that one has ended while it still reads.
#[test]
fn a_report_that_nobody_waits_for_keeps_its_place_until_it_has_ended() {
    let runtime = |blocking| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).max_blocking_threads(blocking).enable_all().build().unwrap()
    };
    let memory = Memory::default();
    runtime(8).block_on(async {
        let store = memory.open();
        fill(&store).await;
        store.close().await.unwrap();
    });
    runtime(1).block_on(async {
        let store = memory.open();
        let places = Arc::new(Semaphore::new(1));
        for (kind, name) in store.names().await.unwrap() {
            // Its snapshot comes from the committer first.
            if kind == StoreKind::Kv {
                continue;
            }
            // The only thread that may block is held up, so that the report has begun and not ended.
            let (go, held) = std::sync::mpsc::channel::<()>();
            let thread = tokio::task::spawn_blocking(move || held.recv());
            let place = places.clone().acquire_owned().await.unwrap();
            tokio::select! {
                biased;
                report = store.report(kind, &name, true, place) => panic!("{report:?}"),
                () = std::future::ready(()) => {}
            }
            assert_eq!(places.available_permits(), 0, "{}/{name}", kind.name());
            drop(go);
            assert!(thread.await.unwrap().is_err());
            drop(places.acquire().await.unwrap());
        }
    });
}
