//! Joint commits: all or nothing.

use tollgate_store::{CommitError, Joint, KvError, SetOptions};

use crate::support::{DURABLE, Memory, Place, RELAXED, value};

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
    assert!(matches!(store.commit(joint).await, Err(CommitError::Unavailable(_))));
    assert_eq!(value(&kv, "x").await, Some(vec![0]));
    assert!(matches!(kv.get("y").await, Err(KvError::Unavailable(_))));

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
}
