//! Keys over a real database.

use serde_json::json;
use tollgate_store::{Options, Store};

use super::*;

struct Home {
    keys: Keys,
    database: Database,
    _directory: tempfile::TempDir,
}

async fn home() -> Home {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
    let database = store.database("gateway").unwrap();
    let keys = Keys::open(database.clone(), b"a secret").await.unwrap();
    Home { keys, database, _directory: directory }
}

fn named(name: &str) -> NewKey {
    NewKey { name: name.to_owned(), ..NewKey::default() }
}

/// The id of the key that a secret belongs to, if it is valid.
async fn id(keys: &Keys, secret: &str) -> Option<String> {
    keys.lookup(secret).await.unwrap().map(|key| key.id.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_keeps_its_id_and_both_secrets_are_valid_for_a_while() {
    let Home { keys, .. } = &home().await;
    let first = keys.create(named("a")).await.unwrap();
    let own = id(keys, &first).await;
    assert!(own.is_some());
    let second = keys.rotate("a", OVERLAP_MS).await.unwrap();
    assert_ne!(first, second);
    assert_eq!((id(keys, &first).await, id(keys, &second).await), (own.clone(), own.clone()));
    let third = keys.rotate("a", OVERLAP_MS).await.unwrap();
    assert_eq!(id(keys, &first).await, None, "only the secret before is still valid");
    assert_eq!((id(keys, &second).await, id(keys, &third).await), (own.clone(), own.clone()));
    let fourth = keys.rotate("a", 0).await.unwrap();
    assert_eq!((id(keys, &third).await, id(keys, &fourth).await), (None, own));
    assert!(matches!(keys.rotate("a", OVERLAP_MOST_MS + 1).await, Err(KeyError::Invalid(_))));
    assert!(matches!(keys.rotate("b", 0).await, Err(KeyError::NoSuchKey(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_looked_up_ends_all_the_same_at_its_time() {
    let Home { keys, .. } = &home().await;
    let first = keys.create(named("a")).await.unwrap();
    keys.rotate("a", 200).await.unwrap();
    let until_ms = keys.get("a").await.unwrap().previous_until_ms.unwrap();
    let ends = tokio::time::timeout(Duration::from_secs(20), async {
        while id(keys, &first).await.is_some() {
            tokio::task::yield_now().await;
        }
    });
    ends.await.expect("the secret before the rotation ends");
    assert!(now_ms() >= until_ms, "it ended too early");
    let second = keys.create(NewKey {
        name: "b".to_owned(),
        settings: Settings { expires_ms: Some(now_ms() + 200), ..Settings::default() },
    });
    let second = second.await.unwrap();
    let expires_ms = keys.get("b").await.unwrap().settings.expires_ms.unwrap();
    let ends = tokio::time::timeout(Duration::from_secs(20), async {
        while id(keys, &second).await.is_some() {
            tokio::task::yield_now().await;
        }
    });
    ends.await.expect("the key expires");
    assert!(now_ms() >= expires_ms, "it expired too early");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_is_refused_at_once_and_let_in_again() {
    let Home { keys, .. } = &home().await;
    let secret = keys.create(named("a")).await.unwrap();
    let own = id(keys, &secret).await;
    keys.enable("a", false).await.unwrap();
    assert_eq!(id(keys, &secret).await, None);
    assert!(!keys.get("a").await.unwrap().enabled);
    keys.enable("a", true).await.unwrap();
    assert_eq!(id(keys, &secret).await, own);
    keys.revoke("a").await.unwrap();
    assert!(matches!(keys.enable("a", true).await, Err(KeyError::NoSuchKey(_))));
    assert_eq!(id(keys, &secret).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_changes_what_it_names_and_counts_at_once() {
    let Home { keys, .. } = &home().await;
    let secret = keys.create(named("a")).await.unwrap();
    let before = keys.lookup(&secret).await.unwrap().unwrap();
    let patch = json!({
        "description": "for tests", "limits": { "rpm": 5, "cost_per_day": 2.5 },
        "model_limits": { "gpt-4*": { "tpm": 9 }, "o1": { "rpm": 1 } }, "forbidden_models": ["o3"],
    });
    keys.update("a", &patch).await.unwrap();
    let patch = json!({ "limits": { "rpm": null, "concurrency": 3 }, "model_limits": { "o1": null } });
    let info = keys.update("a", &patch).await.unwrap();
    let key = keys.lookup(&secret).await.unwrap().unwrap();
    assert_eq!(key.id, before.id);
    assert!(!key.may_use("o3") && key.may_use("o4"));
    assert_eq!(
        serde_json::to_value(&info.settings).unwrap(),
        json!({
            "description": "for tests", "expires_ms": null, "permissions": [], "models": [],
            "forbidden_models": ["o3"], "clients": [],
            "limits": { "concurrency": 3, "cost_per_day": 2.5 }, "model_limits": { "gpt-4*": { "tpm": 9 } },
        })
    );
    let limits = &key.subject.limits;
    let further: Vec<_> = limits
        .further
        .iter()
        .map(|limit| (format!("{:?}", limit.measure), limit.most, limit.models.clone()))
        .collect();
    assert_eq!(limits.rpm, None);
    assert_eq!(
        further,
        [
            ("Measure::Concurrency".to_owned(), 3, None),
            ("Measure::CostPerDay".to_owned(), 2_500_000_000, None),
            ("Measure::Tpm".to_owned(), 9, Some("gpt-4*".to_owned())),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_is_refused_by_its_name() {
    let Home { keys, .. } = &home().await;
    keys.create(named("a")).await.unwrap();
    let many: Vec<String> = (0..257).map(|number| number.to_string()).collect();
    let groups: serde_json::Map<_, _> =
        (0..9).map(|number| (number.to_string(), json!({ "rpm": 1 }))).collect();
    for (patch, words) in [
        (json!({ "limit": {} }), "unknown field `limit`"),
        (json!({ "limits": { "rpn": 1 } }), "unknown field `rpn`"),
        (json!({ "limits": [] }), "expected an object of limits"),
        (json!({ "limits": [5] }), "expected an object of limits"),
        (json!({ "limits": 5 }), "expected an object of limits"),
        (json!({ "model_limits": { "m": [5] } }), "expected an object of limits"),
        (json!({ "limits": { "rpm": 0 } }), "`limits.rpm` must be from 1"),
        (json!({ "limits": { "cost_total": 0 } }), "`limits.cost_total` must be an amount over 0"),
        (json!({ "limits": { "cost_total": 1e300 } }), "`limits.cost_total` must be an amount"),
        (json!({ "model_limits": { "m": { "tpm": 0 } } }), "`model_limits.m.tpm` must be from 1"),
        (json!({ "model_limits": { "": { "tpm": 1 } } }), "`model_limits` has at most 8"),
        (json!({ "model_limits": groups }), "`model_limits` has at most 8"),
        (json!({ "models": [""] }), "a list of models has"),
        (json!({ "forbidden_models": many }), "a list of models has"),
        (json!({ "permissions": ["cohere"] }), "unknown variant `cohere`"),
        (json!({ "clients": ["wget"] }), "unknown variant `wget`"),
        (json!({ "description": "a\nb" }), "a key's description has"),
        (json!({ "expires_ms": -1 }), "invalid value"),
    ] {
        let error = keys.update("a", &patch).await.unwrap_err().to_string();
        assert!(error.contains(words), "{patch}: {error}");
    }
    assert_eq!(keys.get("a").await.unwrap().settings, Settings::default());
}

/// The table of the version before had columns for three limits, and one secret for each key.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_version_before_are_valid_with_their_limits() {
    let Home { keys, database, .. } = &home().await;
    let secret = keys.create(named("a")).await.unwrap();
    let own = id(keys, &secret).await.unwrap();
    let before = [
        "DROP TABLE api_keys",
        "CREATE TABLE api_keys (id INTEGER PRIMARY KEY, key_hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
            description TEXT NOT NULL DEFAULT '', rpm INTEGER, tpm INTEGER, rpd INTEGER,
            models TEXT NOT NULL DEFAULT '[]', active INTEGER NOT NULL DEFAULT 1, created_ms INTEGER NOT NULL,
            updated_ms INTEGER NOT NULL, expires_ms INTEGER)",
        "CREATE UNIQUE INDEX api_keys_active_name ON api_keys (name) WHERE active = 1",
    ];
    database.batch(before.map(|sql| statement(sql, Vec::new())).to_vec()).await.unwrap();
    let insert = "INSERT INTO api_keys (key_hash, name, rpm, models, created_ms, updated_ms)
        VALUES (?1, 'a', 7, '[\"m\"]', 1, 1)";
    database.execute(statement(insert, vec![Value::Text(own.clone())])).await.unwrap();
    for _ in 0..2 {
        let keys = Keys::open(database.clone(), b"a secret").await.unwrap();
        let key = keys.lookup(&secret).await.unwrap().unwrap();
        assert_eq!((&*key.id, key.subject.limits.rpm, key.subject.limits.tpm), (own.as_str(), Some(7), None));
        assert!(key.may_use("m") && !key.may_use("n"));
    }
}
