//! Joint commits: all or nothing.

use tollgate_store::{CommitError, Database, Joint, Kv, KvError, SetOptions, Statement, Store, Value};

use crate::support::{DURABLE, Memory, Place, RELAXED, number, value};

#[tokio::test]
async fn what_is_committed_together_is_there_together() {
    let place = Place::new();
    let store = place.open();
    let (one, two) = (store.kv("one", DURABLE).unwrap(), store.kv("two", RELAXED).unwrap());
    two.set("gone", vec![1], SetOptions::default()).await.unwrap();
    let joint = Joint::new().set(&one, "k", vec![1], None).unwrap();
    let joint = joint.set(&two, "k", vec![2], Some(5)).unwrap().delete(&two, "gone").unwrap();
    store.commit(joint).await.unwrap();
    for round in 0..2 {
        assert_eq!(value(&one, "k").await, Some(vec![1]), "round {round}");
        assert_eq!(value(&two, "k").await, Some(vec![2]), "round {round}");
        assert_eq!(value(&two, "gone").await, None, "round {round}");
        store.flush().await.unwrap();
    }
    place.advance(5);
    assert_eq!(value(&two, "k").await, None);
}

#[tokio::test]
async fn the_last_write_to_a_key_counts() {
    let store = Place::new().open();
    let kv = store.kv("a", DURABLE).unwrap();
    kv.set("k", vec![0], SetOptions::default()).await.unwrap();
    let joint = Joint::new().set(&kv, "k", vec![1], None).unwrap().delete(&kv, "k").unwrap();
    store.commit(joint.set(&kv, "k", vec![2], None).unwrap()).await.unwrap();
    assert_eq!(value(&kv, "k").await, Some(vec![2]));
    store.flush().await.unwrap();
    assert_eq!(value(&kv, "k").await, Some(vec![2]));
}

#[tokio::test]
async fn a_joint_commit_that_fails_changes_nothing() {
    let memory = Memory::default();
    let store = memory.open();
    let kv = store.kv("a", DURABLE).unwrap();
    kv.set("x", vec![0], SetOptions::default()).await.unwrap();
    let before = memory.copy();
    memory.fail(true);
    let joint = Joint::new().set(&kv, "x", vec![1], None).unwrap().set(&kv, "y", vec![1], None).unwrap();
    assert!(matches!(store.commit(joint).await, Err(CommitError::Storage(_))));
    assert_eq!(value(&kv, "x").await, Some(vec![0]));
    // The file is released soon after the answer.
    assert!(matches!(kv.get("y").await, Ok(None) | Err(KvError::Storage(_))));

    for memory in [before, memory.copy()] {
        let store = memory.open();
        let kv = store.kv("a", DURABLE).unwrap();
        assert_eq!(value(&kv, "x").await, Some(vec![0]));
        assert_eq!(value(&kv, "y").await, None);
    }
}

#[tokio::test]
async fn a_joint_commit_is_bounded() {
    let (store, other) = (Place::new().open(), Place::new().open());
    let kv = store.kv("a", DURABLE).unwrap();
    let mut joint = Joint::new();
    for key in 0..9 {
        joint = joint.set(&kv, &key.to_string(), vec![0; 1 << 20], None).unwrap();
    }
    assert!(matches!(store.commit(joint).await, Err(CommitError::TooLarge(_))));
    assert_eq!(value(&kv, "0").await, None);
    let joint = Joint::new().set(&kv, "k", vec![], None).unwrap();
    assert!(matches!(other.commit(joint).await, Err(CommitError::Invalid(_))));
    let joint = both(&kv, &table(&other).await, 1);
    assert!(matches!(store.commit(joint).await, Err(CommitError::Invalid(_))));
}

fn statement(sql: &str, params: Vec<Value>) -> Statement {
    Statement { sql: sql.to_owned(), params }
}

async fn row(database: &Database) -> i64 {
    let outcome = database.query(statement("SELECT n FROM t", vec![])).await.unwrap();
    let Value::Integer(number) = outcome.rows[0][0] else { panic!("{outcome:?}") };
    number
}

async fn table(store: &Store) -> Database {
    let database = store.database("d").unwrap();
    database.execute(statement("CREATE TABLE IF NOT EXISTS t (n INTEGER)", vec![])).await.unwrap();
    database.execute(statement("INSERT INTO t VALUES (0)", vec![])).await.unwrap();
    database
}

fn both(kv: &Kv, database: &Database, number: i64) -> Joint {
    let update = statement("UPDATE t SET n = ?1", vec![Value::Integer(number)]);
    let joint = Joint::new().set(kv, "n", number.to_string().into_bytes(), None).unwrap();
    joint.statement(database, update).unwrap()
}

/// Whoever sees the row sees the key too: the value is visible before any snapshot has the row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_keys_of_a_joint_commit_are_visible_together() {
    let store = Place::new().open();
    let (kv, database) = (store.kv("a", RELAXED).unwrap(), table(&store).await);
    let reader = tokio::spawn({
        let (kv, database) = (kv.clone(), database.clone());
        async move {
            let mut seen = 0;
            while seen < 100 {
                let in_row = row(&database).await;
                let in_key = number(&kv, "n").await;
                assert!(in_key >= in_row && in_row >= seen, "{in_key} {in_row} {seen}");
                seen = in_row;
            }
        }
    });
    for number in 1..=100 {
        store.commit(both(&kv, &database, number)).await.unwrap();
    }
    reader.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joint_commit_with_rows_that_fails_changes_neither() {
    let memory = Memory::default();
    let store = memory.open();
    let (kv, database) = (store.kv("a", DURABLE).unwrap(), table(&store).await);
    store.commit(both(&kv, &database, 1)).await.unwrap();
    let wrong =
        both(&kv, &database, 2).statement(&database, statement("INSERT INTO none VALUES (1)", vec![]));
    assert!(matches!(store.commit(wrong.unwrap()).await, Err(CommitError::Invalid(_))));
    assert_eq!((row(&database).await, number(&kv, "n").await), (1, 1));
    memory.fail(true);
    assert!(store.commit(both(&kv, &database, 3)).await.is_err());
    assert_eq!(number(&kv, "n").await, 1);

    let store = memory.copy().open();
    let (kv, database) = (store.kv("a", DURABLE).unwrap(), store.database("d").unwrap());
    assert_eq!((row(&database).await, number(&kv, "n").await), (1, 1));
}
