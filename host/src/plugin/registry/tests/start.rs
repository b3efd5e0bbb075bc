//! What a start makes of what the binary ships.

use super::*;
use crate::plugin::signature::SecretKey;

#[tokio::test]
async fn shipped_plugins_follow_the_binary_until_an_operator_replaces_them() {
    let home = tempfile::tempdir().unwrap();
    let digest = async |version| {
        let house = House::open(home.path(), &[shipped(good(version))]).await;
        let digest = house.only().await.digest;
        house.close().await;
        digest
    };
    let one = digest(1).await;
    assert_eq!(digest(1).await, one);
    let two = digest(2).await;
    assert_ne!(two, one);
    let house = House::open(home.path(), &[shipped(good(2))]).await;
    assert_eq!(house.only().await.generations.len(), 2);
    house.registry.rollback("guest", None, "tester").await.unwrap();
    house.close().await;
    assert_eq!(digest(3).await, one);
}

/// The binary of before is not trusted any more, and nobody has signed what it brought.
#[tokio::test]
async fn a_shipped_version_that_is_not_trusted_any_more_gives_way_to_the_one_of_this_binary() {
    let home = tempfile::tempdir().unwrap();
    House::open(home.path(), &[shipped(good(1))]).await.close().await;
    let key = SecretKey::generate().unwrap().public();
    let new = shipped(good(2));
    let house = House::trusting(vec![key], home.path(), &[new]).await;
    assert_eq!(house.only().await.digest, hex::encode(Sha256::digest(new.wasm)));
    let old = house.registry.rollback("guest", None, "tester").await.unwrap_err();
    assert!(matches!(old, Refusal::Untrusted(_)), "{old}");
    assert!(house.is_allowed().await);
    house.close().await;
}

#[tokio::test]
async fn a_shipped_version_that_was_rolled_back_or_refused_is_not_forced_in() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[shipped(good(1))]).await;
    let one = house.only().await.digest;
    house.close().await;
    let house = House::open(home.path(), &[shipped(with_init("unreachable"))]).await;
    assert_eq!(house.only().await.digest, one);
    house.close().await;
    let house = House::open(home.path(), &[shipped(touchy())]).await;
    assert_ne!(house.only().await.digest, one);
    for _ in 0..limits::BURST_TRAPS {
        house.admit(666).await;
    }
    eventually(async || house.only().await.digest == one).await;
    house.close().await;
    let house = House::open(home.path(), &[shipped(touchy())]).await;
    assert_eq!(house.only().await.digest, one);
    house.close().await;
}

/// Whoever set it up, rolled back to it or pushed the binary's own file stands as the one who pushed it.
#[tokio::test]
async fn a_shipped_component_that_an_operator_has_configured_gives_way_likewise() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[shipped(good(1))]).await;
    for number in 0..limits::KEPT_VERSIONS + 1 {
        let settings = Settings::from([("key".to_owned(), Some(number.to_string()))]);
        house.registry.configure("guest", settings, "tester").await.unwrap();
    }
    assert_eq!(house.only().await.pushed_by, "tester");
    house.close().await;
    let key = SecretKey::generate().unwrap().public();
    let new = shipped(good(2));
    let house = House::trusting(vec![key], home.path(), &[new]).await;
    let info = house.only().await;
    assert_eq!((info.digest, info.pushed_by.as_str()), (hex::encode(Sha256::digest(new.wasm)), "shipped"));
    assert!(house.is_allowed().await);
    house.close().await;
}

/// A canary stands as taken back until its promotion, which says nothing of how good it is.
#[tokio::test]
async fn a_shipped_version_that_was_a_canary_when_the_server_stopped_serves() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[shipped(good(1))]).await;
    let tried = house.begin(good(2), MANIFEST, None).await;
    house.close().await;
    let house = House::open(home.path(), &[shipped(good(2))]).await;
    let info = house.only().await;
    assert_eq!((info.digest, info.pushed_by.as_str()), (tried.digest, "shipped"));
    house.close().await;
}
