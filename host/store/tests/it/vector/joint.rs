//! Vectors in a joint commit.

use tollgate_store::{CommitError, Joint, PutOptions, Statement, Value, VectorError, VectorOptions};

use super::support::{index, near, report, values, vector};
use crate::blob::support::{bytes, container};
use crate::support::{DURABLE, Memory, Place, RELAXED, number, value};

fn statement(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), params: vec![] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vector_its_object_its_row_and_its_key_are_there_together_or_not_at_all() {
    let memory = Memory::default();
    let store = memory.open();
    let (images, objects) = (index(&store, "images", 2), container(&store, "images"));
    let (kv, database) = (store.kv("kv", DURABLE).unwrap(), store.database("d").unwrap());
    database.execute(statement("CREATE TABLE images (id INTEGER PRIMARY KEY)")).await.unwrap();
    let all = async |id: &str, sql: &str| {
        let mut upload = objects.upload(id, PutOptions::default()).unwrap();
        upload.write(id.as_bytes()).await.unwrap();
        let joint = Joint::new().set(&kv, "last", id.as_bytes().to_vec(), None).unwrap();
        let joint = joint.publish(upload.prepare().await.unwrap()).unwrap();
        let joint = joint.vectors(images.prepare_upsert(vec![vector(id, vec![1.0, 2.0])]).await.unwrap());
        store.commit(joint.statement(&database, statement(sql)).unwrap()).await
    };
    let rows =
        async || database.query(statement("SELECT count(*) FROM images")).await.unwrap().rows[0][0].clone();
    all("a", "INSERT INTO images VALUES (1)").await.unwrap();
    assert_eq!(values(&images, "a").await, Some(vec![1.0, 2.0]));
    assert_eq!(bytes(&objects, "a").await.unwrap(), b"a");
    assert_eq!((rows().await, value(&kv, "last").await), (Value::Integer(1), Some(b"a".to_vec())));
    // A row that is there already: nothing of the rest.
    assert!(matches!(all("b", "INSERT INTO images VALUES (1)").await, Err(CommitError::Invalid(_))));
    assert_eq!((values(&images, "b").await, bytes(&objects, "b").await), (None, None));
    assert_eq!(images.query(near(vec![1.0, 1.0], 9)).await.unwrap().len(), 1);
    // Removal and writing in one: the last counts.
    let joint = Joint::new().vectors(images.prepare_upsert(vec![vector("c", vec![0.0, 1.0])]).await.unwrap());
    let joint = joint.vectors(images.prepare_delete(&["a".to_owned(), "c".to_owned()]).await.unwrap());
    let joint = joint.vectors(images.prepare_upsert(vec![vector("c", vec![0.0, 2.0])]).await.unwrap());
    store.commit(joint).await.unwrap();
    assert_eq!((values(&images, "a").await, values(&images, "c").await), (None, Some(vec![0.0, 2.0])));
    assert_eq!(report(&images).await.vectors, 1);
    // The disk fails: nothing of it is there afterwards.
    memory.fail(true);
    assert!(all("d", "INSERT INTO images VALUES (4)").await.is_err());
    let store = memory.copy().open();
    let (images, kv) = (index(&store, "images", 2), store.kv("kv", DURABLE).unwrap());
    assert_eq!((values(&images, "d").await, value(&kv, "last").await), (None, Some(b"a".to_vec())));
    assert_eq!(report(&images).await.vectors, 1);
}

/// Whoever sees the vector sees the key too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_and_keys_of_a_joint_commit_are_visible_together() {
    let store = Place::new().open();
    let (kv, turns) = (store.kv("a", RELAXED).unwrap(), index(&store, "turns", 1));
    let reader = tokio::spawn({
        let (kv, turns) = (kv.clone(), turns.clone());
        async move {
            let mut seen = 0;
            while seen < 100 {
                let found = turns.query(near(vec![1.0], 1)).await.unwrap();
                let in_vector = found.first().map_or(0, |found| found.id.parse().unwrap());
                let in_key = number(&kv, "n").await;
                assert!(in_key >= in_vector && in_vector >= seen, "{in_key} {in_vector} {seen}");
                seen = in_vector;
            }
        }
    });
    for turn in 1..=100 {
        let joint = Joint::new().set(&kv, "n", turn.to_string().into_bytes(), None).unwrap();
        let before = turns.prepare_delete(&[(turn - 1).to_string()]).await.unwrap();
        let next = turns.prepare_upsert(vec![vector(turn, vec![turn as f32])]).await.unwrap();
        store.commit(joint.vectors(before).vectors(next)).await.unwrap();
    }
    reader.await.unwrap();
}

#[tokio::test]
async fn a_joint_commit_takes_vectors_of_its_own_store_and_no_more_than_fit() {
    let (store, other) = (Place::new().open(), Place::new().open());
    let small = store.index("a", VectorOptions { vectors: 2, ..VectorOptions::new(1) }).unwrap();
    let prepared = small.prepare_upsert(vec![vector("a", vec![1.0])]).await.unwrap();
    let elsewhere = other.commit(Joint::new().vectors(prepared)).await;
    assert!(matches!(elsewhere, Err(CommitError::Invalid(_))));
    let three = (0..3).map(|id| vector(id, vec![1.0])).collect();
    assert!(matches!(small.prepare_upsert(three).await, Err(VectorError::TooLarge(_))));
    assert_eq!(report(&small).await.vectors, 0);
}
