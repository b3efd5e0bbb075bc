use serde_json::json;
use tempfile::TempDir;
use tollgate_store::{Options, Store};

use super::*;
use crate::{limit_set::LimitSet, secret::Secret, secrets::MasterKey};

/// A roster over a store of its own.
struct World {
    roster: Roster,
    accounts: Accounts,
    vault: Vault,
    database: Database,
    home: TempDir,
}

impl World {
    async fn start(configured: Vec<AccountSpec>) -> World {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        World::over(home, store.database("gateway").unwrap(), configured).await.unwrap()
    }

    /// As after the end of the process.
    async fn restart(self, configured: Vec<AccountSpec>) -> Result<World, RosterError> {
        World::over(self.home, self.database, configured).await
    }

    async fn over(
        home: TempDir,
        database: Database,
        configured: Vec<AccountSpec>,
    ) -> Result<World, RosterError> {
        let master = MasterKey::File(home.path().join("master.key"));
        let vault = Vault::open(database.clone(), master, 1).await?;
        let accounts = Accounts::new(std::time::Duration::from_secs(1));
        let roster = Roster::open(Parts {
            database: database.clone(),
            vault: vault.clone(),
            accounts: accounts.clone(),
            configured,
            clock: Arc::new(|| 1_000),
        })
        .await?;
        Ok(World { roster, accounts, vault, database, home })
    }

    fn serving(&self) -> Vec<String> {
        self.accounts.list().iter().map(|account| account.name.to_string()).collect()
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<(), RosterError> {
        self.roster.change(name, patch.as_object().unwrap()).await
    }
}

fn draft(fields: Value) -> Draft {
    let mut all = json!({ "name": "main", "base_url": "http://h:1", "api_key": "sk-clear" });
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn configured(name: &str) -> AccountSpec {
    AccountSpec { name: name.to_owned(), base_url: "http://h:1".to_owned(), ..AccountSpec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_serves_when_it_is_made_and_after_a_restart_with_every_field() {
    let world = World::start(Vec::new()).await;
    assert_eq!(world.serving(), ["demo"; 3]);
    let full = draft(json!({
        "dialect": "anthropic", "description": "d", "email": "a@b.c", "models": ["m1", "m2"], "aliases": { "a": "m1" }, "weight": 7,
        "priority": 3, "proxy": "socks5://h:1080", "proxy_user": "u", "proxy_password": "pw-clear", "expires_ms": 5_000,
        "stream_usage": true,
        "limits": { "rpm": 1, "tpm": 2, "rpd": 3, "concurrency": 4, "cost_per_day": 0.5 }, "model_limits": { "m1": { "tokens_total": 7 } },
    }));
    world.roster.create(full.clone()).await.unwrap();
    assert_eq!(world.serving(), ["main"], "the demo is gone");
    let world = world.restart(Vec::new()).await.unwrap();
    let view = world.roster.get("main").await.unwrap();
    assert_eq!(world.roster.0.state.lock().await.stored[0].draft, full);
    assert_eq!((view.from, view.status, view.created_ms), (Origin::Store, Status::Serving, Some(1_000)));
    assert_eq!(world.accounts.list()[0].key_hash.as_ref(), view.key_hash);
    assert!(!serde_json::to_string(&view).unwrap().contains("clear"), "a key is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_leaves_what_it_does_not_name_and_null_takes_back() {
    let world = World::start(Vec::new()).await;
    world.roster.create(draft(json!({ "limits": { "rpm": 5, "tpm": 6 }, "models": ["m"] }))).await.unwrap();
    world.patch("main", json!({ "weight": 9, "limits": { "rpm": null } })).await.unwrap();
    let view = world.roster.get("main").await.unwrap();
    assert_eq!((view.weight, view.limits.rpm, view.limits.tpm, view.models.len()), (9, None, Some(6), 1));
    assert!(view.has_api_key);
    world.patch("main", json!({ "api_key": "sk-other" })).await.unwrap();
    assert_ne!(world.roster.get("main").await.unwrap().key_hash, view.key_hash);
    world.patch("main", json!({ "api_key": null, "active": false })).await.unwrap();
    assert!(world.serving().is_empty());
    let world = world.restart(Vec::new()).await.unwrap();
    assert!(world.serving().is_empty(), "the demo does not stand in for an account that is switched off");
    let view = world.roster.get("main").await.unwrap();
    assert_eq!((view.status, view.has_api_key), (Status::Disabled, false));
    world.patch("main", json!({ "active": true, "expires_ms": 1_000 })).await.unwrap();
    assert_eq!(world.roster.get("main").await.unwrap().status, Status::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_changes_nothing() {
    let world = World::start(vec![configured("file")]).await;
    world.roster.create(draft(json!({}))).await.unwrap();
    for (fields, part) in [
        (json!({ "name": "main" }), "already"),
        (json!({ "name": "file" }), "already"),
        (json!({ "name": "a b" }), "`name`"),
        (json!({ "name": "x", "base_url": "ftp://x" }), "`base_url`"),
        (json!({ "name": "x", "base_url": "http://user:secret@h" }), "`api_key`"),
        (json!({ "name": "x", "dialect": "open-ai" }), "`dialect`"),
        (json!({ "name": "x", "api_key": "a b" }), "`api_key`"),
        (json!({ "name": "x", "api_key": "" }), "`api_key`"),
        (json!({ "name": "x", "api_key": "k".repeat(limits::CREDENTIAL_BYTES + 1) }), "`api_key`"),
        (json!({ "name": "x", "weight": 0 }), "`weight`"),
        (json!({ "name": "x", "limits": { "rpm": 0 } }), "`limits.rpm`"),
        (json!({ "name": "x", "limits": { "concurrency": 0 } }), "`limits.concurrency`"),
        (json!({ "name": "x", "limits": { "concurrency": 1_000_001 } }), "`limits.concurrency`"),
        (json!({ "name": "x", "limits": { "cost_per_day": 0 } }), "`limits.cost_per_day`"),
        (json!({ "name": "x", "model_limits": { "m": { "rpm": 0 } } }), "`model_limits.m.rpm`"),
        (json!({ "name": "x", "model_limits": { "": { "rpm": 1 } } }), "`model_limits`"),
        (json!({ "name": "x", "models": [""] }), "`models`"),
        (json!({ "name": "x", "models": vec!["m"; limits::MODELS + 1] }), "`models`"),
        (json!({ "name": "x", "aliases": { "a": "" } }), "`aliases`"),
        (json!({ "name": "x", "aliases": { "\n": "m" } }), "`aliases`"),
        (json!({ "name": "x", "email": "a\nb" }), "`email`"),
        (json!({ "name": "x", "description": "d".repeat(limits::DESCRIPTION_BYTES + 1) }), "`description`"),
        (json!({ "name": "x", "base_url": "https://h", "ca": "no pem" }), "certificates"),
        (json!({ "name": "x", "ca": "c".repeat(300_000) }), "`ca`"),
        (json!({ "name": "x", "proxy": "ftp://h:1" }), "`proxy`"),
        (json!({ "name": "x", "proxy": "http://user:secret@h:1" }), "`proxy`"),
        (json!({ "name": "x", "proxy": "http://h:1", "proxy_user": "u" }), "go together"),
        (json!({ "name": "x", "proxy_user": "u", "proxy_password": "p" }), "need `proxy`"),
        (
            json!({ "name": "x", "proxy": "http://h:1", "proxy_user": "u", "proxy_password": "p".repeat(256) }),
            "`proxy_password`",
        ),
    ] {
        let error = world.roster.create(draft(fields.clone())).await.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("secret"), "{fields}: {error}");
    }
    for (name, patch, part) in [
        ("none", json!({ "limits": { "rpm": 1 } }), "no account named none"),
        ("file", json!({ "limits": { "rpm": 1 } }), "from the configuration"),
        ("main", json!({ "limits": { "rpm": "many" } }), "invalid type"),
        ("main", json!({ "limits": [1] }), "expected an object of limits"),
        ("main", json!({ "rmp": 1 }), "unknown field"),
        ("main", json!({ "limits": { "rmp": 1 } }), "unknown field"),
        ("main", json!({ "name": "other" }), "`name`"),
        ("main", json!({ "base_url": null }), "base_url"),
    ] {
        let error = world.patch(name, patch.clone()).await.unwrap_err().to_string();
        assert!(error.contains(part), "{patch}: {error}");
    }
    assert!(matches!(world.roster.delete("file").await, Err(RosterError::Configured(_))));
    assert_eq!(world.serving(), ["file", "main"]);
    let twice = world.restart(vec![configured("main")]).await.err().unwrap();
    assert!(matches!(twice, RosterError::Twice(_)), "{twice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_accounts_than_a_request_can_look_at() {
    let world = World::start(Vec::new()).await;
    let fill = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
        INSERT INTO accounts SELECT 'acc_' || n, 'a' || n, 'openai', 'http://h:1', '', '', '[]', 1, 0,
        1, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, '{}', '{}', '{}', 0 FROM numbers";
    let most = i64::try_from(limits::ACCOUNTS).unwrap();
    world.database.execute(tollgate_store::Statement::new(fill, vec![most.into()])).await.unwrap();
    let world = world.restart(Vec::new()).await.unwrap();
    assert_eq!(world.serving().len(), limits::ACCOUNTS);
    assert!(matches!(world.roster.create(draft(json!({}))).await, Err(RosterError::TooMany)));
    world.roster.delete("a1").await.unwrap();
    world.roster.create(draft(json!({}))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_an_earlier_version_gets_the_columns_that_it_lacks() {
    let world = World::start(Vec::new()).await;
    world.roster.create(draft(json!({}))).await.unwrap();
    for change in [
        "ALTER TABLE accounts DROP COLUMN aliases",
        "ALTER TABLE accounts DROP COLUMN limits",
        "ALTER TABLE accounts DROP COLUMN model_limits",
        "ALTER TABLE accounts DROP COLUMN stream_usage",
        "ALTER TABLE accounts ADD COLUMN rpm INTEGER",
        "ALTER TABLE accounts ADD COLUMN tpm INTEGER",
        "ALTER TABLE accounts ADD COLUMN rpd INTEGER",
        "UPDATE accounts SET rpm = 5",
    ] {
        world.database.execute(change.into()).await.unwrap();
    }
    let world = world.restart(Vec::new()).await.unwrap();
    let view = world.roster.get("main").await.unwrap();
    let limits = LimitSet { rpm: Some(5), ..LimitSet::default() };
    assert_eq!((view.status, view.limits, view.stream_usage), (Status::Serving, limits, false));
    world.patch("main", json!({ "limits": { "concurrency": 7 }, "aliases": { "a": "m" } })).await.unwrap();
    let world = world.restart(Vec::new()).await.unwrap();
    let view = world.roster.get("main").await.unwrap();
    assert_eq!((view.limits.concurrency, view.aliases["a"].as_str()), (Some(7), "m"));
    // A merge patch, down to the single name.
    world.patch("main", json!({ "aliases": { "b": "n", "a": null } })).await.unwrap();
    let view = world.roster.get("main").await.unwrap();
    assert_eq!(view.aliases, [("b".to_owned(), "n".to_owned())].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_cut_short_is_finished_at_the_next_start() {
    let world = World::start(Vec::new()).await;
    let count = limits::RESEALED_AT_ONCE + 2;
    for number in 0..count {
        let name = format!("a{number}");
        world.roster.create(draft(json!({ "name": name, "api_key": format!("sk-{number}") }))).await.unwrap();
    }
    let versions = async |world: &World| {
        let select =
            "SELECT count(DISTINCT substr(api_key, 1, 5)), (SELECT count(*) FROM secret_keys) FROM accounts";
        world.database.query(select.into()).await.unwrap().rows.remove(0)
    };
    assert_eq!(versions(&world).await, [1.into(), 1.into()]);
    // As after a crash in the middle: there is a new key, one account is sealed with it, the others are not.
    world.vault.add_key(2).await.unwrap();
    world.patch("a1", json!({ "api_key": "sk-1" })).await.unwrap();
    assert_eq!(versions(&world).await, [2.into(), 2.into()]);
    let world = world.restart(Vec::new()).await.unwrap();
    assert_eq!(versions(&world).await, [1.into(), 1.into()]);
    assert_eq!(world.roster.rotate_secrets(false, None).await.unwrap(), count);
    assert_eq!(versions(&world).await, [1.into(), 1.into()]);
    let hashes = |world: &World| world.roster.named().to_vec();
    let before = hashes(&world);
    let world = world.restart(Vec::new()).await.unwrap();
    assert_eq!((hashes(&world), world.serving().len()), (before, count));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_sent_to_an_address_that_was_put_into_the_table_by_hand() {
    let world = World::start(Vec::new()).await;
    world.roster.create(draft(json!({}))).await.unwrap();
    world.patch("main", json!({ "base_url": "http://other:1" })).await.unwrap();
    let world = world.restart(Vec::new()).await.unwrap();
    assert_eq!(world.serving(), ["main"]);
    world.database.execute("UPDATE accounts SET base_url = 'http://thief:1'".into()).await.unwrap();
    let world = world.restart(Vec::new()).await.unwrap();
    assert!(world.serving().is_empty());
    assert_eq!(world.roster.get("main").await.unwrap().status, Status::Damaged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_moved_to_another_account_or_damaged_keeps_only_that_account_out() {
    let world = World::start(Vec::new()).await;
    world.roster.create(draft(json!({ "name": "good" }))).await.unwrap();
    world.roster.create(draft(json!({ "name": "bad", "api_key": "sk-other" }))).await.unwrap();
    let steal =
        "UPDATE accounts SET api_key = (SELECT api_key FROM accounts WHERE name = 'good') WHERE name = 'bad'";
    world.database.execute(steal.into()).await.unwrap();
    let world = world.restart(Vec::new()).await.unwrap();
    assert_eq!(world.serving(), ["good"]);
    assert_eq!(world.roster.get("bad").await.unwrap().status, Status::Damaged);
    // A rotation leaves it as it is.
    world.roster.rotate_secrets(true, None).await.unwrap();
    let error = world.patch("bad", json!({ "limits": { "rpm": 1 } })).await.unwrap_err().to_string();
    assert!(error.contains("give it a new `api_key`"), "{error}");
    world.patch("bad", json!({ "api_key": "sk-new" })).await.unwrap();
    let world = world.restart(Vec::new()).await.unwrap();
    assert_eq!(world.serving(), ["bad", "good"]);
    let key = world.roster.0.state.lock().await.stored[0].draft.api_key.clone();
    assert_eq!(key, Some(Secret::new("sk-new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_over_an_account_stays_its_own_when_its_key_is_changed() {
    let world = World::start(vec![configured("file")]).await;
    world.roster.create(draft(json!({}))).await.unwrap();
    let hash = async |world: &World, name: &str| world.roster.get(name).await.unwrap().key_hash;
    let before = hash(&world, "main").await;
    world.patch("main", json!({ "api_key": "sk-other" })).await.unwrap();
    let now = hash(&world, "main").await;
    // What of it is read here.
    let table = "CREATE TABLE api_key_metrics (api_key_hash TEXT PRIMARY KEY, total_requests INTEGER, successful_requests INTEGER
        DEFAULT 0, total_input_tokens INTEGER DEFAULT 0, total_output_tokens INTEGER DEFAULT 0, total_cost INTEGER,
        last_used INTEGER, consecutive_failures INTEGER, last_failure INTEGER, is_healthy INTEGER)";
    world.database.execute(table.into()).await.unwrap();
    for (hash, requests, failures) in [(&before, 7, 9), (&now, 2, 1)] {
        let insert =
            "INSERT INTO api_key_metrics (api_key_hash, total_requests, total_cost, last_used, is_healthy,
            consecutive_failures) VALUES (?1, ?2, 500000000, ?2, ?3 < 5, ?3)";
        let params = vec![hash.as_str().into(), requests.into(), failures.into()];
        world.database.execute(tollgate_store::Statement::new(insert, params)).await.unwrap();
    }
    let world = world.restart(vec![configured("file")]).await.unwrap();
    let view = world.roster.get("main").await.unwrap();
    assert_eq!(view.earlier_key_hashes, std::slice::from_ref(&before));
    let totals = view.totals.unwrap();
    assert_eq!((totals.requests, totals.cost, totals.last_used_ms), (9, 1_000_000_000, Some(7)));
    assert_eq!((totals.failures_in_a_row, totals.is_healthy), (1, true));
    // A key that another account has now is that one's.
    world.roster.create(draft(json!({ "name": "heir" }))).await.unwrap();
    assert_eq!(hash(&world, "heir").await, before);
    assert!(world.roster.get("main").await.unwrap().earlier_key_hashes.is_empty());
    assert_eq!(world.roster.get("heir").await.unwrap().totals.unwrap().requests, 7);
    world.roster.delete("heir").await.unwrap();
    assert_eq!(world.roster.get("main").await.unwrap().earlier_key_hashes, [before]);
    // One of the same name begins anew.
    world.roster.delete("main").await.unwrap();
    world.roster.create(draft(json!({ "api_key": "sk-third" }))).await.unwrap();
    let view = world.roster.get("main").await.unwrap();
    assert_eq!((view.earlier_key_hashes, view.totals), (Vec::new(), None));
}
