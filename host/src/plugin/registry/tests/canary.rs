//! How canaries end that nobody ends.

use tokio::sync::OwnedMutexGuard;
use tollgate_store::Container;

use super::*;
use crate::plugin::admission::Request;

/// Its promotion is due at the first look.
const SOON: Option<Duration> = Some(Duration::from_millis(1));

impl House {
    /// Requests of which a canary has its half.
    async fn ask(&self, tokens: u64) {
        for number in 0..100 {
            let asked = Arc::new(Request { id: format!("req_{number}"), ..(*request(tokens)).clone() });
            let verdicts = self.admissions.admit(asked, subjects(1)).await;
            assert!(matches!(verdicts[..], [Verdict::Allowed(_)]), "{verdicts:?}");
        }
    }

    /// A canary whose promotion by itself waits for the turn, which is held.
    async fn due(&self, wasm: Vec<u8>) -> (Pushed, OwnedMutexGuard<()>) {
        let canary = self.begin(wasm, MANIFEST, SOON).await;
        let turn = self.registry.inner.turn("guest");
        let held = turn.clone().lock_owned().await;
        self.ask(1).await;
        // Those that hold it here, the registry's and that of the promotion.
        eventually(async || Arc::strong_count(&turn) > 3).await;
        (canary, held)
    }

    /// A canary that could not be promoted by itself, since its component was away.
    async fn refused_once(&self, wasm: Vec<u8>) -> Pushed {
        let (canary, held) = self.due(wasm).await;
        self.components().delete_many(std::slice::from_ref(&canary.digest)).await.unwrap();
        let turn = self.registry.inner.turn("guest");
        drop(held);
        // It is had in the order of asking, so that the promotion is over.
        let _held = turn.lock().await;
        assert_eq!(self.only().await.canary.unwrap().generation, canary.generation);
        canary
    }

    fn components(&self) -> Container {
        self.store.container("host/components", BlobOptions::default()).unwrap()
    }
}

/// A store that did not answer at that moment once left it a canary for good.
#[tokio::test]
async fn a_canary_that_could_not_be_promoted_is_tried_again() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    house.push(good(1)).await.unwrap();
    let canary = house.refused_once(good(2)).await;
    house.components().put(&canary.digest, &good(2), PutOptions::default()).await.unwrap();
    eventually(async || house.only().await.generation == canary.generation).await;
    assert!(house.only().await.canary.is_none());
    house.close().await;
}

#[tokio::test]
async fn a_canary_that_could_not_be_promoted_is_watched_on() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let one = house.push(good(1)).await.unwrap();
    house.refused_once(touchy()).await;
    house.ask(666).await;
    eventually(async || house.only().await.canary.is_none()).await;
    let info = house.only().await;
    assert_eq!((info.generation, info.generations[0].state), (one.generation, State::RolledBack));
    house.close().await;
}

#[tokio::test]
async fn a_canary_that_fails_while_its_promotion_waits_is_taken_back() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let one = house.push(good(1)).await.unwrap();
    let (_, held) = house.due(touchy()).await;
    house.ask(666).await;
    drop(held);
    let reason = async || house.only().await.generations.remove(0).reason.unwrap_or_default();
    eventually(async || reason().await.starts_with("a call failed: trapped")).await;
    assert_eq!(house.only().await.generation, one.generation);
    house.close().await;
}

/// Of two one would get no events, without a word.
#[tokio::test]
async fn a_canary_is_not_promoted_while_another_plugin_has_come_to_take_events() {
    let ingesting = |exports: &str, more: &str| {
        let module = format!(
            r#"(module
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                (func (export "tollgate:policy/ingestion@0.1.0#ingest") (param i32 i32) (result i32) unreachable)
                {more})"#
        );
        encode(&module, &format!("export tollgate:policy/ingestion@0.1.0;{exports}"))
    };
    let policy = r#"
        (func (export "tollgate:policy/admission@0.1.0#admit")
            (param i32 i32 i64 i32 i32 i32 i32 i32 i32 i64 i64 i32 i64 i32 i32 i32) (result i32) unreachable)
        (func (export "tollgate:policy/admission@0.1.0#settle") (param i32 i32) (result i32) unreachable)"#;
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), &[]).await;
    let one = house.push(good(1)).await.unwrap();
    let both = ingesting("export tollgate:policy/admission@0.1.0;", policy);
    let canary = house.begin(both, MANIFEST, None).await;
    let manifest = Some("name = \"events\"".to_owned());
    house.registry.push("events", ingesting("", ""), manifest, "tester").await.unwrap();
    let refusal = house.registry.promote("guest").await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Ingesting { by } if by == "events"), "{refusal}");
    let info = house.registry.plugin("guest").await.unwrap();
    assert_eq!((info.generation, info.canary.unwrap().generation), (one.generation, canary.generation));
    assert_eq!(info.generations[0].state, State::Canary);
    house.close().await;
}
