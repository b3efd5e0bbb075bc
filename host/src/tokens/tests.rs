use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_store::Options;

use super::*;
use crate::plugin::Access;

const SECRET: [u8; 32] = [3; 32];

/// Tokens over a store of their own, at a time that the test says.
struct Home {
    tokens: Tokens,
    store: Store,
    now_ms: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

fn home() -> Home {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicU64::new(1_000_000));
    let clock: Clock = {
        let now_ms = now_ms.clone();
        Arc::new(move || now_ms.load(Ordering::SeqCst))
    };
    let options = Options { clock: clock.clone(), ..Options::default() };
    let store = Store::open(&folder.path().join("store"), options).unwrap();
    let tokens = Tokens::open(&store, &SECRET, clock, known()).unwrap();
    Home { tokens, store, now_ms, _folder: folder }
}

fn known() -> Known {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    Known {
        kv: names(&["notes"]),
        blob: names(&["images"]),
        sql: names(&["gateway", "reports"]),
        vector: names(&["captions"]),
        rules: "gateway".to_owned(),
    }
}

fn of(json: serde_json::Value) -> NewToken {
    serde_json::from_value(json).unwrap()
}

fn reader(name: &str) -> NewToken {
    of(serde_json::json!({ "name": name, "kv": { "notes": { "access": "read", "prefix": "a/" } } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_known_until_it_is_revoked_and_its_name_is_free_again() {
    let Home { tokens, store, .. } = home();
    let token = tokens.create(reader("one")).await.unwrap();
    assert!(token.starts_with(PREFIX));
    assert_eq!(tokens.lookup(&token).await.unwrap().unwrap().name, "one");
    assert!(matches!(tokens.create(reader("one")).await, Err(TokenError::NameTaken(name)) if name == "one"));
    tokens.revoke("one").await.unwrap();
    assert!(tokens.lookup(&token).await.unwrap().is_none());
    assert!(matches!(tokens.revoke("one").await, Err(TokenError::NoSuchToken(_))));
    let again = tokens.create(reader("one")).await.unwrap();
    assert_ne!(again, token);
    assert_eq!(tokens.list().await.unwrap().len(), 1);
    // Another secret: what it made is nobody's here.
    let clock = Options::default().clock;
    let other = Tokens::open(&store, &[4; 32], clock, known()).unwrap();
    assert!(other.lookup(&again).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_expires_to_the_millisecond_and_leaves_nothing() {
    let Home { tokens, now_ms, .. } = home();
    let token = tokens.create(NewToken { expires_ms: Some(1_000_500), ..reader("brief") }).await.unwrap();
    now_ms.store(1_000_499, Ordering::SeqCst);
    assert!(tokens.lookup(&token).await.unwrap().is_some());
    now_ms.store(1_000_500, Ordering::SeqCst);
    assert!(tokens.lookup(&token).await.unwrap().is_none());
    assert_eq!(tokens.list().await.unwrap(), []);
    assert!(tokens.create(NewToken { expires_ms: Some(1_000_500), ..reader("late") }).await.is_err());
    tokens.create(reader("brief")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_token_may_be_is_refused_with_its_field() {
    let Home { tokens, .. } = home();
    let long = "x".repeat(limits::PREFIX_BYTES + 1);
    let tables: Vec<_> = (0..=limits::TABLES).map(|table| table.to_string()).collect();
    for (token, field) in [
        (serde_json::json!({ "name": "" }), "`name`"),
        (serde_json::json!({ "name": "x".repeat(65) }), "`name`"),
        (serde_json::json!({ "name": "a\nb" }), "`name`"),
        (serde_json::json!({ "name": "n" }), "1 to 32 scopes"),
        (serde_json::json!({ "name": "n", "kv": { "quota": { "access": "read" } } }), "kv.quota"),
        (serde_json::json!({ "name": "n", "kv": { "host/tokens": { "access": "read" } } }), "kv.host/tokens"),
        (
            serde_json::json!({ "name": "n", "blob": { "images": { "access": "read", "prefix": long } } }),
            "blob.images.prefix",
        ),
        (
            serde_json::json!({ "name": "n", "sql": { "reports": { "access": "read", "tables": [""] } } }),
            "sql.reports.tables",
        ),
        (
            serde_json::json!({ "name": "n", "sql": { "reports": { "access": "read", "tables": tables } } }),
            "sql.reports.tables",
        ),
        (serde_json::json!({ "name": "n", "sql": { "gateway": { "access": "read-write" } } }), "sql.gateway"),
    ] {
        let error = tokens.create(of(token)).await.unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    let misspelt =
        serde_json::json!({ "name": "n", "kv": { "notes": { "access": "read" } }, "expire_ms": 5 });
    assert!(serde_json::from_value::<NewToken>(misspelt).is_err());
}

#[test]
fn a_scope_opens_its_own_store_and_no_further_than_it_goes() {
    let new = of(serde_json::json!({
        "name": "n",
        "kv": { "notes": { "access": "read-write", "prefix": "a/" } },
        "blob": { "images": { "access": "read" } },
        "sql": { "reports": { "access": "read" }, "gateway": { "access": "read-write", "tables": ["t"] } },
        "vector": { "captions": { "access": "read" } },
    }));
    let scopes = Scopes { kv: new.kv, blob: new.blob, sql: new.sql, vector: new.vector };
    let lacks = |denied: Denied| denied.to_string();
    let notes = scopes.keyed(Keyed::Kv, "notes", Access::ReadWrite).unwrap();
    assert!(notes.key("a/b").is_ok() && notes.key("b").is_err() && notes.key("A/b").is_err());
    assert_eq!(notes.list(None), Ok("a/"));
    assert_eq!(notes.list(Some("a/b")), Ok("a/b"));
    assert!(notes.list(Some("")).is_err() && notes.list(Some("a")).is_err());
    assert!(scopes.keyed(Keyed::Blob, "images", Access::Read).is_ok());
    let denied = scopes.keyed(Keyed::Blob, "images", Access::ReadWrite).map(drop).map_err(lacks);
    assert_eq!(denied, Err("the token lacks the scope `blob images:read-write`".to_owned()));
    // The name of a store of one kind opens none of another.
    assert!(scopes.keyed(Keyed::Blob, "notes", Access::Read).is_err());
    assert!(scopes.sql("notes").is_err());
    assert_eq!(scopes.vector("captions", Access::Read), Ok(()));
    let denied = scopes.vector("captions", Access::ReadWrite).map_err(lacks);
    assert_eq!(denied, Err("the token lacks the scope `vector captions:read-write`".to_owned()));
    assert!(scopes.vector("reports", Access::Read).is_err());
    assert_eq!(scopes.sql("reports").map(SqlScope::granted), Ok(tollgate_store::Access::ReadOnly));
    let rules = vec![tollgate_store::TableGrant::read_write("t")];
    assert_eq!(scopes.sql("gateway").map(SqlScope::granted), Ok(tollgate_store::Access::Tables { rules }));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_have_a_number_that_they_do_not_pass() {
    let Home { tokens, .. } = home();
    let mut making = tokio::task::JoinSet::new();
    for number in 0..limits::TOKENS {
        let tokens = tokens.clone();
        making.spawn(async move { tokens.create(reader(&number.to_string())).await.map(drop) });
    }
    while let Some(made) = making.join_next().await {
        made.unwrap().unwrap();
    }
    let error = tokens.create(reader("one more")).await.unwrap_err();
    assert!(error.to_string().contains("revoke some first"), "{error}");
    assert_eq!(tokens.list().await.unwrap().len(), limits::TOKENS as usize);
}
