use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tollgate_store::{KvOptions, Options, SetOptions};
use tower::ServiceExt as _;

use super::*;
use crate::accounts;
use crate::capability::Stores;
use crate::gateway::{AccountSpec, Accounts};
use crate::plugin::{Admissions, Compiler, registry};
use crate::secrets::{MasterKey, Vault};
use crate::tokens::Known;

const SECRET: [u8; 32] = [7; 32];
const TOKEN: &str = "token";

fn main_account() -> AccountSpec {
    AccountSpec { name: "main".to_owned(), base_url: "http://h:1".to_owned(), ..AccountSpec::default() }
}

/// The API over a store of its own, with the shipped plugins switched off: nothing here needs one to run.
struct Api {
    admin: Arc<Admin>,
    _home: tempfile::TempDir,
}

fn known(kv: &BTreeMap<String, Kv>, sql: &BTreeMap<String, Database>) -> Known {
    Known {
        kv: kv.keys().cloned().collect(),
        blob: Vec::new(),
        sql: sql.keys().cloned().collect(),
        vector: Vec::new(),
        rules: "gateway".to_owned(),
    }
}

impl Api {
    async fn start() -> Api {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let open = |name: &str| (name.to_owned(), store.kv(name, KvOptions::default()).unwrap());
        let kv = BTreeMap::from([open("blacklist"), open("notes")]);
        let sql = BTreeMap::from([("gateway".to_owned(), store.database("gateway").unwrap())]);
        let keys = Keys::open(sql["gateway"].clone(), &SECRET).await.unwrap();
        let clock = Options::default().clock;
        let tokens = Tokens::open(&store, &SECRET, clock.clone(), known(&kv, &sql)).unwrap();
        let registry = Registry::start(registry::Setup {
            store: store.clone(),
            data_dir: home.path().to_path_buf(),
            secret: Arc::new(SECRET),
            compiler: Compiler::Here,
            stores: Stores::new(kv.clone(), sql.clone()),
            admissions: Admissions::new(clock.clone()),
            clock,
            event_queue_bytes: 1 << 20,
            disabled: ["blacklist", "quota", "ingestion", "sync"].map(str::to_owned).to_vec(),
            keep_versions: crate::plugin::limits::KEPT_VERSIONS,
            trusted_keys: Vec::new(),
        })
        .await
        .unwrap();
        let vault = Vault::open(sql["gateway"].clone(), MasterKey::File(home.path().join("key")), 1);
        let accounts = Roster::open(accounts::Parts {
            database: sql["gateway"].clone(),
            vault: vault.await.unwrap(),
            accounts: Accounts::new(std::time::Duration::from_secs(1)),
            configured: vec![main_account()],
            clock: Options::default().clock,
        })
        .await
        .unwrap();
        let erasure =
            Erasure::open(sql["gateway"].clone(), Vec::new(), Options::default().clock).await.unwrap();
        let keep = std::time::Duration::from_secs(60);
        let trail = Trail::open(sql["gateway"].clone(), Options::default().clock, keep).await.unwrap();
        let reload: Reload = Arc::new(|| Box::pin(async { Err("there is no configuration".to_owned()) }));
        let started = Instant::now();
        Api {
            admin: Arc::new(Admin {
                keys,
                tokens,
                registry,
                store,
                kv,
                sql,
                reading: Reading::default(),
                accounts,
                erasure,
                trail,
                reload,
                started,
            }),
            _home: home,
        }
    }

    async fn ask(&self, router: Router, request: Request<Body>) -> (StatusCode, Value) {
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("not JSON: {body:?}")))
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request =
            Request::builder().method(method).uri(format!("{PREFIX}{path}")).body(body.into()).unwrap();
        self.ask(over_socket(self.admin.clone()), request).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, body.to_string()).await
    }

    /// The status of a request over HTTP with an `authorization` header.
    async fn authorized(&self, path: &str, authorization: Option<&str>) -> (StatusCode, Value) {
        let token = AdminToken::new(&SECRET, AdminToken::hash(&SECRET, TOKEN));
        let mut request = Request::builder().uri(path);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let request = request.body(Body::empty()).unwrap();
        self.ask(over_http(self.admin.clone(), token), request).await
    }
}

fn error(answer: &(StatusCode, Value)) -> (u16, &str) {
    assert!(answer.1["error"]["message"].is_string(), "{answer:?}");
    (answer.0.as_u16(), answer.1["error"]["code"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_nothing_answers_without_the_token() {
    let api = Api::start().await;
    for authorization in
        [None, Some(""), Some("token"), Some("Basic token"), Some("Bearer tokens"), Some("Bearer ")]
    {
        for path in ["/admin/v1/keys", "/admin/v1/no-such-thing"] {
            let answer = api.authorized(path, authorization).await;
            assert_eq!(error(&answer), (401, "unauthorized"), "{authorization:?} {path}");
            assert!(answer.1["error"]["hint"].is_string());
        }
    }
    for authorization in ["Bearer token", "bearer token"] {
        assert_eq!(api.authorized("/admin/v1/keys", Some(authorization)).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_listed_without_the_key_and_revoked() {
    let api = Api::start().await;
    let (status, made) =
        api.post("/keys", json!({ "name": "alice", "limits": { "rpm": 5 }, "models": ["m"] })).await;
    assert_eq!(status, 201);
    let key = made["key"].as_str().unwrap();
    let (_, listed) = api.get("/keys").await;
    assert_eq!(
        (&listed["keys"][0]["name"], &listed["keys"][0]["limits"]["rpm"]),
        (&json!("alice"), &json!(5))
    );
    assert!(!listed.to_string().contains(key));
    assert_eq!(error(&api.post("/keys", json!({ "name": "alice" })).await), (409, "conflict"));
    for wrong in [
        json!({ "name": "" }),
        json!({ "name": "b", "limits": { "rpm": 0 } }),
        json!({ "name": "b", "limits": { "rpm": -1 } }),
        json!({ "name": "b", "rpn": 1 }),
        json!({}),
        json!([]),
    ] {
        assert_eq!(error(&api.post("/keys", wrong.clone()).await), (400, "invalid"), "{wrong}");
    }
    assert_eq!(api.call(Method::DELETE, "/keys/alice", Body::empty()).await.0, 200);
    let again = api.call(Method::DELETE, "/keys/alice", Body::empty()).await;
    assert_eq!(error(&again), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_whole_and_with_what_it_has_used_where_that_is_asked_for() {
    let api = Api::start().await;
    let (_, made) = api.post("/keys", json!({ "name": "alice", "limits": { "rpm": 5 } })).await;
    assert_eq!((made.as_object().unwrap().len(), &made["name"]), (2, &json!("alice")));
    let (_, shown) = api.get("/keys/alice").await;
    let (id, created_ms) = (shown["id"].as_str().unwrap(), shown["created_ms"].as_u64().unwrap());
    let expected = |updated_ms: u64, changed: &[(&str, Value)]| {
        let mut key = json!({
            "id": id, "name": "alice", "description": "", "expires_ms": null, "permissions": [], "models": [],
            "forbidden_models": [], "clients": [], "limits": { "rpm": 5 }, "model_limits": {}, "enabled": true,
            "active": true, "created_ms": created_ms, "updated_ms": updated_ms, "previous_until_ms": null,
        });
        for (name, value) in changed {
            key[*name] = value.clone();
        }
        key
    };
    // Nothing is counted here.
    let counted = expected(created_ms, &[("totals", Value::Null)]);
    assert_eq!(shown, counted);
    assert_eq!(api.get("/keys?totals=true").await.1, json!({ "keys": [counted] }));
    assert_eq!(api.get("/keys").await.1, json!({ "keys": [expected(created_ms, &[])] }));

    let patch = json!({ "limits": { "rpm": null }, "model_limits": { "gpt-*": { "cost_per_day": 0.5 } } });
    let (_, changed) = api.call(Method::PATCH, "/keys/alice", patch.to_string()).await;
    let updated_ms = changed["updated_ms"].as_u64().unwrap();
    let limits = [("limits", json!({})), ("model_limits", json!({ "gpt-*": { "cost_per_day": 0.5 } }))];
    assert_eq!(changed, expected(updated_ms, &limits));

    let (_, rotated) = api.post("/keys/alice/rotate", json!({})).await;
    assert_eq!((rotated.as_object().unwrap().len(), &rotated["name"]), (2, &json!("alice")));
    assert!(rotated["key"].is_string() && rotated["key"] != made["key"]);
    assert_eq!(api.post("/keys/alice/disable", json!({})).await.1, json!({ "disabled": "alice" }));
    assert_eq!(api.post("/keys/alice/enable", json!({})).await.1, json!({ "enabled": "alice" }));
    let gone = async |path: &str| api.call(Method::DELETE, path, Body::empty()).await.1;
    assert_eq!(gone("/keys/alice").await, json!({ "revoked": "alice" }));
    let path = format!("/keys/{id}?records=true");
    assert_eq!(gone(&path).await, json!({ "deleted": id, "id": id }));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_made_shown_changed_and_removed_and_their_keys_never_come_out() {
    let api = Api::start().await;
    let body =
        json!({ "name": "spare", "base_url": "http://h:2", "api_key": "sk-clear", "limits": { "rpm": 5 } });
    let (status, made) = api.post("/accounts", body.clone()).await;
    assert_eq!(
        (status, &made["status"], &made["from"]),
        (StatusCode::CREATED, &json!("serving"), &json!("store"))
    );
    assert_eq!(error(&api.post("/accounts", body).await), (409, "conflict"));
    for wrong in [json!({ "name": "x" }), json!({ "name": "x", "base_url": "h" }), json!([])] {
        assert_eq!(error(&api.post("/accounts", wrong.clone()).await), (400, "invalid"), "{wrong}");
    }
    let patch = async |name: &str, body: Value| {
        api.call(Method::PATCH, &format!("/accounts/{name}"), body.to_string()).await
    };
    assert_eq!(
        patch("spare", json!({ "limits": { "rpm": null }, "active": false })).await.1["status"],
        "disabled"
    );
    assert_eq!(error(&patch("spare", json!({ "rmp": 1 })).await), (400, "invalid"));
    assert_eq!(error(&patch("main", json!({ "limits": { "rpm": 1 } })).await), (409, "conflict"));
    let (_, listed) = api.get("/accounts").await;
    let names: Vec<_> =
        listed["accounts"].as_array().unwrap().iter().map(|a| (&a["name"], &a["from"])).collect();
    assert_eq!(names, [(&json!("main"), &json!("configuration")), (&json!("spare"), &json!("store"))]);
    let (_, shown) = api.get("/accounts/spare").await;
    assert_eq!((&shown["limits"], &shown["has_api_key"]), (&json!({}), &json!(true)));
    for answer in [&made, &listed, &shown] {
        assert!(!answer.to_string().contains("sk-clear"), "{answer}");
    }
    assert_eq!(api.post("/secrets/rotate", json!({})).await.1["secrets"], 1);
    for wrong in [json!({ "new_master_key": "00" }), json!({ "new_master_key": "0".repeat(64) })] {
        assert_eq!(error(&api.post("/secrets/rotate", wrong).await), (400, "invalid"));
    }
    assert_eq!(api.call(Method::DELETE, "/accounts/spare", Body::empty()).await.0, 200);
    assert_eq!(error(&api.get("/accounts/spare").await), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_the_audit_log_when_it_is_answered_and_what_only_reads_is_not() {
    let api = Api::start().await;
    let (_, made) = api.post("/keys", json!({ "name": "alice" })).await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(api.call(Method::DELETE, &format!("/keys/{key}"), Body::empty()).await.0, 404);
    api.get("/keys").await;
    api.post("/sql/gateway", json!({ "sql": "select 1" })).await;
    api.post("/sql/gateway", json!({ "sql": "create table secret_name (a)" })).await;
    let (status, listed) = api.get("/audit").await;
    assert_eq!(status, 200);
    let row = |change: &Value| {
        let text = |field: &str| change[field].as_str().unwrap_or_default().to_owned();
        (text("actor"), text("action"), text("target"), text("code"))
    };
    let socket = |action: &str, target: &str, code: &str| {
        ("admin socket".to_owned(), action.to_owned(), target.to_owned(), code.to_owned())
    };
    let changes: Vec<_> = listed["changes"].as_array().unwrap().iter().map(row).collect();
    assert_eq!(
        changes,
        [
            socket("sql", "gateway", ""),
            socket("key revoke", "", "not_found"),
            socket("key create", "alice", "")
        ]
    );
    assert!(!listed.to_string().contains(key) && !listed.to_string().contains("secret_name"), "{listed}");
    let (_, page) = api.get("/audit?before=3&limit=1&action=key%20create").await;
    assert_eq!(page["changes"].as_array().unwrap().len(), 1);
    for wrong in ["limit=0", "limit=1001", "after=1", "before=x"] {
        assert_eq!(error(&api.get(&format!("/audit?{wrong}")).await), (400, "invalid"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_does_not_go_out_whole_unless_that_is_written_down() {
    let api = Api::start().await;
    api.post("/sql/gateway", json!({ "sql": "drop table audit_log" })).await;
    let refused = api.get("/sql/gateway/file").await;
    assert_eq!(error(&refused), (503, "unavailable"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_read_and_write_with_parameters() {
    let api = Api::start().await;
    let sql = async |sql: &str, params: Value| {
        api.post("/sql/gateway", json!({ "sql": sql, "params": params })).await
    };
    assert_eq!(sql("create table t (a, b)", json!([])).await.0, 200);
    let (_, written) = sql("insert into t values (?1, ?2)", json!([1, { "hex": "00ff" }])).await;
    assert_eq!(written["rows_written"], 1);
    let (_, read) = sql("select a, b, null as c from t where a = ?1", json!([1])).await;
    assert_eq!(read["columns"], json!(["a", "b", "c"]));
    assert_eq!(read["rows"], json!([[1, { "hex": "00ff" }, null]]));
    let (_, returned) = sql("update t set a = 2 returning a", json!([])).await;
    assert_eq!(returned["rows"], json!([[2]]));
    for (statement, expected) in [
        ("selec 1", (400, "invalid")),
        ("select * from nothing", (400, "invalid")),
        ("attach 'x' as y", (403, "access_denied")),
    ] {
        assert_eq!(error(&sql(statement, json!([])).await), expected, "{statement}");
    }
    assert_eq!(error(&api.post("/sql/nowhere", json!({ "sql": "select 1" })).await), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_kv_store_can_be_written_and_removed() {
    let api = Api::start().await;
    let put = async |path: &str| api.call(Method::PUT, path, "closed").await;
    assert_eq!(put("/kv/notes/a%2Fb").await.0, 200);
    let (_, entry) = api.get("/kv/notes/a%2Fb").await;
    assert_eq!((&entry["value"], &entry["expires_ms"]), (&json!("closed"), &Value::Null));
    assert_eq!(put("/kv/notes/a%2Fb?ttl_ms=60000").await.0, 200);
    assert!(api.get("/kv/notes/a%2Fb").await.1["expires_ms"].is_u64());
    assert_eq!(error(&put("/kv/notes/a?ttl=1").await), (400, "invalid"));
    assert_eq!(error(&put("/kv/nowhere/a").await), (404, "not_found"));
    let too_long = format!("/kv/notes/{}", "k".repeat(513));
    assert!(put(&too_long).await.0.is_client_error());
    for _ in 0..2 {
        assert_eq!(api.call(Method::DELETE, "/kv/notes/a%2Fb", Body::empty()).await.0, 200);
    }
    assert_eq!(error(&api.get("/kv/notes/a%2Fb").await), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kv_stores_are_paged_and_keys_may_hold_anything() {
    let api = Api::start().await;
    for (key, value) in [("a/b c", "text".as_bytes()), ("a/é", &[0xff]), ("b", b"")] {
        api.admin.kv["notes"].set(key, value.to_vec(), SetOptions::default()).await.unwrap();
    }
    let (_, first) = api.get("/kv/notes?prefix=a/&limit=1").await;
    assert_eq!(first["keys"], json!(["a/b c"]));
    let cursor = first["cursor"].as_str().unwrap().replace('/', "%2F").replace(' ', "%20");
    let (_, second) = api.get(&format!("/kv/notes?prefix=a/&limit=10&cursor={cursor}")).await;
    assert_eq!(second["keys"], json!(["a/é"]));
    let (_, text) = api.get("/kv/notes/a%2Fb%20c").await;
    assert_eq!((&text["key"], &text["value"]), (&json!("a/b c"), &json!("text")));
    assert_eq!(api.get("/kv/notes/a%2F%C3%A9").await.1["value"], json!({ "hex": "ff" }));
    assert_eq!(error(&api.get("/kv/notes/none").await), (404, "not_found"));
    assert_eq!(error(&api.get("/kv/nowhere").await), (404, "not_found"));
    for limit in ["0", "1001", "x", "-1"] {
        assert_eq!(error(&api.get(&format!("/kv/notes?limit={limit}")).await), (400, "invalid"), "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blacklist_entries_are_made_by_name_or_id() {
    let api = Api::start().await;
    let id = main_account().id();
    let entry = json!({ "account": "main", "model": "m", "reason": "over budget", "ttl_ms": 60_000 });
    let (status, added) = api.post("/blacklist", entry).await;
    assert_eq!((status, &added["key"]), (StatusCode::CREATED, &json!(format!("account:{id}/m"))));
    assert_eq!((&added["name"], &added["entry"]["model"]), (&json!("main"), &json!("m")));
    let until = added["entry"]["until_ms"].as_u64().unwrap() - added["entry"]["created_ms"].as_u64().unwrap();
    assert_eq!(until, 60_000);
    assert!(added["expires_ms"].is_u64());

    assert_eq!(api.get("/blacklist/account/main").await.1["blacklisted"], false);
    assert_eq!(api.get("/blacklist/account/main?model=m").await.1["blacklisted"], true);
    assert_eq!(api.get(&format!("/blacklist/account/{id}?model=m")).await.1["blacklisted"], true);
    assert_eq!(api.get("/blacklist?prefix=client:").await.1["entries"], json!([]));
    assert_eq!(api.get("/blacklist?prefix=account:").await.1["entries"][0]["entry"]["reason"], "over budget");

    for (wrong, expected) in [
        (json!({ "reason": "r" }), (400, "invalid")),
        (json!({ "account": "main", "client": "c", "reason": "r" }), (400, "invalid")),
        (json!({ "account": "main", "reason": " " }), (400, "invalid")),
        (json!({ "account": "main", "reason": "r", "ttl_ms": 0 }), (400, "invalid")),
        (json!({ "account": "other", "reason": "r" }), (404, "not_found")),
        (json!({ "client": "nobody", "reason": "r" }), (404, "not_found")),
    ] {
        assert_eq!(error(&api.post("/blacklist", wrong.clone()).await), expected, "{wrong}");
    }
    let path = "/blacklist/account/main?model=m";
    assert_eq!(api.call(Method::DELETE, path, Body::empty()).await.0, 200);
    assert_eq!(error(&api.call(Method::DELETE, path, Body::empty()).await), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn blacklist_entries_are_added_together_or_not_at_all() {
    let api = Api::start().await;
    api.post("/keys", json!({ "name": "alice" })).await;
    let main = json!({ "account": "main", "reason": "over budget", "ttl_ms": 60_000 });
    let batch = json!({ "entries": [main, { "account": "other", "reason": "r" }] });
    let refused = api.post("/blacklist/batch", batch).await;
    assert_eq!(error(&refused), (404, "not_found"));
    assert!(refused.1["error"]["message"].as_str().unwrap().starts_with("entries[1]: "), "{refused:?}");
    assert_eq!(api.get("/blacklist").await.1["entries"], json!([]));

    let batch = json!({ "entries": [main, { "client": "alice", "model": "m", "reason": "r" }] });
    let (status, added) = api.post("/blacklist/batch", batch).await;
    assert_eq!((status, added["entries"].as_array().unwrap().len()), (StatusCode::CREATED, 2));
    assert_eq!(api.get("/blacklist/client/alice?model=m").await.1["blacklisted"], true);
    assert_eq!(api.get("/blacklist/account/main").await.1["blacklisted"], true);

    let many = vec![main; limits::BLACKLIST_BATCH + 1];
    for entries in [json!([]), json!(many), json!([{}])] {
        assert_eq!(
            error(&api.post("/blacklist/batch", json!({ "entries": entries })).await),
            (400, "invalid")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blacklist_entry_that_is_over_keeps_nobody_out_and_strikes_are_no_entries() {
    let api = Api::start().await;
    let id = main_account().id();
    let put = async |key: String, value: &str| {
        let value = value.as_bytes().to_vec();
        api.admin.kv["blacklist"].set(&key, value, SetOptions::default()).await.unwrap();
    };
    // As the plugin leaves an entry until a request has tried the account again.
    put(format!("account:{id}"), r#"{"reason":"failed","created_ms":1,"until_ms":2}"#).await;
    put(format!("strikes:{id}"), "req_1").await;
    put(format!("client:{id}"), "not to be read").await;
    let (_, checked) = api.get("/blacklist/account/main").await;
    assert_eq!(checked, json!({ "blacklisted": false, "entry": null }));
    assert_eq!(api.get("/blacklist/stats").await.1, json!({ "total": 2, "active": 1, "expired": 1 }));
    let (_, listed) = api.get("/blacklist").await;
    let active = |entry: &Value| (entry["kind"].clone(), entry["active"].clone());
    let active: Vec<_> = listed["entries"].as_array().unwrap().iter().map(active).collect();
    assert_eq!(active, [(json!("account"), json!(false)), (json!("client"), json!(true))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_refused_with_its_reason() {
    let api = Api::start().await;
    let manifest = "/plugins/mine?manifest=name%3D%22mine%22";
    let refused = api.call(Method::PUT, manifest, "no component").await;
    assert_eq!(error(&refused), (422, "refused"));
    assert!(refused.1["error"]["message"].as_str().unwrap().contains("component"), "{refused:?}");
    let large = vec![0; crate::plugin::limits::COMPONENT_BYTES + 1];
    assert_eq!(error(&api.call(Method::PUT, manifest, large).await), (413, "too_large"));
    assert_eq!(error(&api.post("/plugins/mine/rollback", json!({})).await), (404, "not_found"));
    assert_eq!(api.get("/plugins").await.1["plugins"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_bodies_too_large_have_the_same_shape() {
    let api = Api::start().await;
    assert_eq!(error(&api.get("/nothing").await), (404, "not_found"));
    assert_eq!(error(&api.get("/sql/gateway").await), (405, "method_not_allowed"));
    assert_eq!(error(&api.call(Method::POST, "/keys", "{").await), (400, "invalid"));
    let large = vec![b' '; limits::JSON_BYTES + 1];
    assert_eq!(error(&api.call(Method::POST, "/keys", large).await), (413, "too_large"));
    let (status, health) = api.get("/health").await;
    assert_eq!(
        (status.as_u16(), &health["status"], &health["store"]["writable"]),
        (200, &json!("ok"), &json!(true))
    );
}
