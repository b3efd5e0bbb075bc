//! Objects in a joint commit.

use tollgate_store::{BlobError, CommitError, Joint, Precondition, PutOptions, Statement, Value};

use super::support::{CHUNK, bytes, collected, container, if_match, noise, put};
use crate::support::{DURABLE, Memory, Place, value};

fn statement(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), params: vec![] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_its_row_and_its_key_are_there_together_or_not_at_all() {
    let memory = Memory::default();
    let store = memory.open();
    let (images, kv) = (container(&store, "images"), store.kv("kv", DURABLE).unwrap());
    let database = store.database("d").unwrap();
    database.execute(statement("CREATE TABLE images (id INTEGER PRIMARY KEY)")).await.unwrap();
    let content = noise(1, 40 * CHUNK);
    let prepared = async |key: &str| {
        let mut upload = images.upload(key, PutOptions::default()).unwrap();
        upload.write(&content).await.unwrap();
        upload.prepare().await.unwrap()
    };
    let both = async |key: &str, sql: &str| {
        let joint = Joint::new().set(&kv, "last", key.as_bytes().to_vec(), None).unwrap();
        let joint = joint.statement(&database, statement(sql)).unwrap();
        store.commit(joint.publish(prepared(key).await).unwrap()).await
    };
    let rows =
        async || database.query(statement("SELECT count(*) FROM images")).await.unwrap().rows[0][0].clone();
    both("a", "INSERT INTO images VALUES (1)").await.unwrap();
    assert!(bytes(&images, "a").await.unwrap() == content);
    assert_eq!((rows().await, value(&kv, "last").await), (Value::Integer(1), Some(b"a".to_vec())));
    // A row that is there already: neither object nor key.
    assert!(matches!(both("b", "INSERT INTO images VALUES (1)").await, Err(CommitError::Invalid(_))));
    assert_eq!((bytes(&images, "b").await, value(&kv, "last").await), (None, Some(b"a".to_vec())));
    // Statements that change no page: the object is published all the same.
    both("c", "UPDATE images SET id = 1 WHERE id = 7").await.unwrap();
    assert!(bytes(&images, "c").await.unwrap() == content);
    assert_eq!(collected(&images).await.chunks, 40);
    // The disk fails: nothing of it is there afterwards.
    let upload = prepared("d").await;
    memory.fail(true);
    let joint = Joint::new().set(&kv, "last", b"d".to_vec(), None).unwrap();
    let joint = joint.statement(&database, statement("INSERT INTO images VALUES (4)")).unwrap();
    assert!(store.commit(joint.publish(upload).unwrap()).await.is_err());
    let store = memory.copy().open();
    let (images, kv) = (container(&store, "images"), store.kv("kv", DURABLE).unwrap());
    assert_eq!((bytes(&images, "d").await, value(&kv, "last").await), (None, Some(b"c".to_vec())));
    assert_eq!(collected(&images).await.objects, 2);
}

#[tokio::test]
async fn a_joint_commit_takes_objects_of_its_own_store_without_precondition() {
    let (store, other) = (Place::new().open(), Place::new().open());
    let blobs = container(&store, "a");
    put(&blobs, "k", b"1").await;
    let conditional = blobs.upload("k", if_match(Precondition::absent())).unwrap().prepare().await.unwrap();
    assert!(matches!(Joint::new().publish(conditional), Err(BlobError::Invalid(_))));
    let upload = blobs.upload("k", PutOptions::default()).unwrap().prepare().await.unwrap();
    assert_eq!(upload.info().size, 0);
    let joint = Joint::new().publish(upload).unwrap();
    assert!(matches!(other.commit(joint).await, Err(CommitError::Invalid(_))));
    let upload = blobs.upload("k", PutOptions::default()).unwrap().prepare().await.unwrap();
    store.commit(Joint::new().publish(upload).unwrap()).await.unwrap();
    assert_eq!(bytes(&blobs, "k").await.unwrap(), b"");
}
