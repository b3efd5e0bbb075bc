mod secrets;
mod telemetry;

use std::path::Path;
use std::time::Duration;

use tollgate_store::{Metric, Strategy};

use super::*;
use crate::gateway::{Dialect, ForwardProxy};
use crate::limit_set::LimitSet;
use crate::money::ONE;
use crate::secret::Secret;

const ACCOUNT: &str =
    "[[account]]\nname = \"a\"\nbase_url = \"https://api.example.com/v1\"\napi_key = \"sk-1\"\n";

fn environment(name: &str) -> Option<String> {
    match name {
        "SET" => Some(" sk-from-environment \n".to_owned()),
        "EMPTY" => Some("  ".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "tollgate.toml", &environment).map_err(|error| error.to_string())
}

/// The problems that `text` is refused with, a line each.
fn check(text: &str, problems: &[&str]) {
    let expected = problems.iter().map(|p| format!("tollgate.toml:{p}")).collect::<Vec<_>>().join("\n");
    assert_eq!(parse(text).expect_err(text), expected, "for:\n{text}");
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse("# only a comment\n[gateway]\n[storage]\n").unwrap(), Config::default());
}

#[test]
fn every_key_arrives() {
    let config = parse(
        r#"
        listen = "[::1]:9000"
        data = "/var/lib/tollgate"
        workers = 3
        log = "tollgate=debug,info"
        [gateway]
        body_limit_bytes = 1_000
        body_timeout_ms = 1
        connect_timeout_ms = 2
        first_byte_timeout_ms = 3
        answer_timeout_ms = 4
        idle_timeout_ms = 5
        stall_timeout_ms = 6
        total_timeout_ms = 0x10
        queue_requests = 0
        queue_timeout_ms = 17
        strategy = "weighted"
        sticky_sessions = false
        health_interval_ms = 1_000
        [storage]
        engine = "redb"
        page_cache_bytes = 1
        kv_cache_bytes = 0
        event_queue_bytes = 5
        memory_bytes = 16777216
        two_phase = true
        [secrets]
        key_file = "/run/keys/master"
        [audit]
        keep_days = 2
        [telemetry]
        endpoint = "http://127.0.0.1:4318"
        sample_ratio = 0.5
        service_name = "edge"
        [retention]
        request_logs_days = 1
        statistics_days = 3
        [[price]]
        model = "gpt-4o*"
        input = 2.5
        output = 10
        cache_read = 1.25
        [[price]]
        model = "*"
        input = 0
        output = 0.000000001
        cache_write = 3.75
        [[account]]
        proxy = "socks5://10.0.0.1:1080"
        proxy_user = "u"
        proxy_password_env = "SET"
        name = "first"
        dialect = "openai"
        base_url = "HTTPS://api.example.com/v1//"
        api_key = "sk-1"
        models = ["m1", "m2"]
        aliases = { fast = "m1", "big one" = "m2" }
        stream_usage = true
        weight = 7
        priority = 2
        rpm = 10
        tpm = 20
        rpd = 30
        concurrency = 4
        tokens_per_month = 50
        cost_per_day = 2.5
        model_limits = { "m*" = { rpm = 6, cost_total = 7 } }
        [[account]]
        name = "second"
        base_url = "http://127.0.0.1:11434/v1"
        api_key_env = "SET"
        [[plugin]]
        name = "quota"
        file = "quota.wasm"
        manifest = "quota.toml"
        [[plugin]]
        name = "sync"
        enabled = false
        [plugins]
        keep_versions = 3
        trusted_keys = ["ed25519:abababababababababababababababababababababababababababababababab"]
        [kv.notes]
        acknowledge = "relaxed"
        default_ttl_ms = 1000
        limit_bytes = 2000
        engine = "memory"
        [kv.other]
        [sql.reports]
        engine = "redb"
        [sql.scratch]
        engine = "memory"
        [blob.images]
        engine = "memory"
        object_limit_bytes = 1000
        content_types = ["image/*"]
        cache_control = "public, max-age=31536000, immutable"
        [blob.other]
        engine = "files"
        [vector.captions]
        dimensions = 384
        engine = "memory"
        metric = "dot-product"
        indexed = ["kind", "size.width"]
        vector_limit = 5
        exact_up_to = 1000
        [vector.other]
        dimensions = 4096
        [cache.models]
        entries = 20
        bytes = 3000
        strategy = "model-list"
        adaptive = true
        [cache.plain]
        "#,
    )
    .unwrap();
    let account = |name: &str, base_url: &str, key: &str| AccountSpec {
        name: name.to_owned(),
        dialect: Dialect::OpenAi,
        base_url: base_url.to_owned(),
        api_key: Secret::new(key),
        ..AccountSpec::default()
    };
    let expected = Config {
        listen: "[::1]:9000".parse().unwrap(),
        data: "/var/lib/tollgate".into(),
        workers: Some(3),
        log: Some("tollgate=debug,info".to_owned()),
        gateway: Settings {
            body_bytes: 1000,
            body_timeout: Duration::from_millis(1),
            connect_timeout: Duration::from_millis(2),
            first_byte_timeout: Duration::from_millis(3),
            answer_timeout: Duration::from_millis(4),
            idle_timeout: Duration::from_millis(5),
            stall_timeout: Duration::from_millis(6),
            total_timeout: Duration::from_millis(16),
            queue_requests: 0,
            queue_timeout: Duration::from_millis(17),
            strategy: crate::gateway::Strategy::Weighted,
            sticky_sessions: false,
            health_interval: Some(Duration::from_secs(1)),
        },
        secrets: MasterKeySource::File("/run/keys/master".into()),
        audit_keep: Duration::from_secs(2 * 24 * 60 * 60),
        telemetry: Some(crate::telemetry::Settings {
            endpoint: "http://127.0.0.1:4318".to_owned(),
            headers: BTreeMap::new(),
            ca: None,
            sample_ratio: 0.5,
            service_name: "edge".to_owned(),
        }),
        retention: Retention {
            request_logs: Some(Duration::from_secs(24 * 60 * 60)),
            error_logs: None,
            statistics: Some(Duration::from_secs(3 * 24 * 60 * 60)),
        },
        storage: Storage {
            engine: Engine::Redb,
            page_cache_bytes: 1,
            kv_cache_bytes: 0,
            event_queue_bytes: 5,
            two_phase: true,
            memory_bytes: 16 << 20,
        },
        accounts: vec![
            AccountSpec {
                models: vec!["m1".to_owned(), "m2".to_owned()],
                aliases: BTreeMap::from([
                    ("fast".to_owned(), "m1".to_owned()),
                    ("big one".to_owned(), "m2".to_owned()),
                ]),
                weight: 7,
                priority: 2,
                limits: LimitSet {
                    rpm: Some(10),
                    tpm: Some(20),
                    rpd: Some(30),
                    concurrency: Some(4),
                    tokens_per_month: Some(50),
                    cost_per_day: Some(2.5),
                    ..LimitSet::default()
                },
                model_limits: BTreeMap::from([(
                    "m*".to_owned(),
                    LimitSet { rpm: Some(6), cost_total: Some(7.0), ..LimitSet::default() },
                )]),
                proxy: Some(ForwardProxy {
                    url: "socks5://10.0.0.1:1080".to_owned(),
                    credentials: Some(("u".to_owned(), Secret::new("sk-from-environment"))),
                }),
                stream_usage: true,
                ..account("first", "HTTPS://api.example.com/v1", "sk-1")
            },
            account("second", "http://127.0.0.1:11434/v1", "sk-from-environment"),
        ],
        prices: vec![
            (
                "gpt-4o*".to_owned(),
                Price {
                    input: 5 * ONE / 2,
                    output: 10 * ONE,
                    cache_write: 5 * ONE / 2,
                    cache_read: 5 * ONE / 4,
                },
            ),
            ("*".to_owned(), Price { input: 0, output: 1, cache_write: 15 * ONE / 4, cache_read: 0 }),
        ],
        plugins: vec![
            Plugin {
                name: "quota".to_owned(),
                file: Some("quota.wasm".into()),
                manifest: Some("quota.toml".into()),
                enabled: true,
            },
            Plugin { name: "sync".to_owned(), file: None, manifest: None, enabled: false },
        ],
        plugin_settings: PluginSettings {
            keep_versions: 3,
            trusted_keys: PublicKey::parse(&format!("ed25519:{}", "ab".repeat(32))).into_iter().collect(),
        },
        kv: BTreeMap::from([
            (
                "notes".to_owned(),
                KvStore {
                    engine: Engine::Memory,
                    acknowledge: Some(Acknowledge::Relaxed),
                    default_ttl_ms: Some(1000),
                    limit_bytes: Some(2000),
                },
            ),
            ("other".to_owned(), KvStore::default()),
        ]),
        sql: BTreeMap::from([
            ("reports".to_owned(), SqlDatabase::default()),
            ("scratch".to_owned(), SqlDatabase { engine: Engine::Memory }),
        ]),
        blob: BTreeMap::from([
            (
                "images".to_owned(),
                BlobContainer {
                    engine: Engine::Memory,
                    object_limit_bytes: Some(1000),
                    content_types: vec!["image/*".to_owned()],
                    cache_control: Some("public, max-age=31536000, immutable".to_owned()),
                },
            ),
            ("other".to_owned(), BlobContainer { engine: Engine::Files, ..BlobContainer::default() }),
        ]),
        vector: BTreeMap::from([
            (
                "captions".to_owned(),
                VectorIndex {
                    engine: Engine::Memory,
                    options: VectorOptions {
                        dimensions: 384,
                        metric: Metric::DotProduct,
                        indexed: vec!["kind".to_owned(), "size.width".to_owned()],
                        vectors: 5,
                        exact_up_to: 1000,
                    },
                },
            ),
            ("other".to_owned(), VectorIndex { engine: Engine::Redb, options: VectorOptions::new(4096) }),
        ]),
        cache: BTreeMap::from([
            (
                "models".to_owned(),
                CacheOptions { entries: 20, bytes: 3000, strategy: Strategy::MODEL_LIST, adaptive: true },
            ),
            ("plain".to_owned(), CacheOptions::default()),
        ]),
    };
    assert_eq!(config, expected);
}

#[test]
fn unknown_keys_name_their_line_and_the_nearest_right_key() {
    check(
        "[[account]]\nname = \"a\"\nbas_url = \"https://x/v1\"\napi_key = \"k\"\n",
        &[
            "1: missing `base_url` in [[account]]",
            "3: unknown key `bas_url` in [[account]]; did you mean `base_url`?",
        ],
    );
    check("lissten = \"x\"", &["1: unknown key `lissten`; did you mean `listen`?"]);
    check("\n[[accounts]]\n", &["2: unknown key `accounts`; did you mean `account`?"]);
    check("[plug-in]\n", &["1: unknown key `plug-in`; did you mean `plugin`?"]);
    check(
        "[gateway]\nBODY_LIMIT_BYTES = 1",
        &["2: unknown key `BODY_LIMIT_BYTES` in [gateway]; did you mean `body_limit_bytes`?"],
    );
    check(
        "[kv.x]\n\ndefault-ttl-ms = 1",
        &["3: unknown key `default-ttl-ms` in [kv.x]; did you mean `default_ttl_ms`?"],
    );
    check("[sql.x]\nsize = 1", &["2: unknown key `size` in [sql.x]; right: `engine`"]);
    check(
        "[blob.x]\nobject_limit_bytes = 0\ncache_control = \"a\\nb\"\ncontent_types = []",
        &[
            "2: `object_limit_bytes` in [blob.x] must be at least 1; leave it out for the default",
            "3: `cache_control` in [blob.x] must be printable ASCII",
            "4: `content_types` in [blob.x] must not be empty; leave it out",
        ],
    );
    check(
        "[vector.x]\nmetric = \"dot\"\nindexed = [\"a..b\"]\nvector_limit = 100000000",
        &[
            "1: missing `dimensions` in [vector.x]",
            "2: `metric` in [vector.x] cannot be `dot`; did you mean `dot-product`?",
            "3: `indexed` in [vector.x]: invalid: indexed property \"a..b\": the name \"\": a name has 1 to 512 bytes, no dot, no quote, and no $ at its start",
            "4: `vector_limit` in [vector.x] must be from 1 to 10000000",
        ],
    );
    check(
        "[vector.x]\ndimensions = 5000\nexact_up_to = 999",
        &[
            "2: `dimensions` in [vector.x] must be from 1 to 4096",
            "3: `exact_up_to` in [vector.x] must be from 1000 to 10000000",
        ],
    );
    check(
        "[kv.x]\nq = 1",
        &["2: unknown key `q` in [kv.x]; right: `acknowledge`, `default_ttl_ms`, `engine`, `limit_bytes`"],
    );
    check(
        "[storage]\nmemory_bytes = 20000000\n[kv.x]\nengine = \"memory\"\nlimit_bytes = 20000000",
        &["3: `limit_bytes` in [kv.x] must be less than `memory_bytes` in [storage] (20000000)"],
    );
    check(
        "[storage]\nengine = \"memory\"\n[kv.x]\nlimit_bytes = 300000000\n[blob.y]\nengine = \"files\"",
        &[
            "3: `limit_bytes` in [kv.x] must be less than `memory_bytes` in [storage] (268435456)",
            "5: `engine` in [blob.y] cannot be `files`: `engine` in [storage] is `memory`",
        ],
    );
    check(
        "[storage]\nengine = \"files\"",
        &["2: `engine` in [storage] cannot be `files`; possible: `memory`, `redb`"],
    );
    for key in ["naem", "dialetc", "api_keyenv", "model", "wieght", "prio", "rmp"] {
        let error = parse(&format!("{ACCOUNT}{key} = 1")).unwrap_err();
        assert!(error.starts_with("tollgate.toml:5: unknown key `"), "{error}");
        assert!(error.contains("did you mean"), "{error}");
    }
}

#[test]
fn wrong_types_say_what_is_right() {
    for (line, problem) in [
        ("rpm = \"10\"", "`rpm` in [[account]] must be a whole number, not a string"),
        ("rpm = 1.5", "`rpm` in [[account]] must be a whole number, not a float"),
        ("models = \"m\"", "`models` in [[account]] must be a list of strings, not a string"),
        (
            "aliases = [\"m\"]",
            "`aliases` in [[account]] must be a table of strings such as `{ fast = \"gpt-4o-mini\" }`, not an array",
        ),
        ("stream_usage = 1", "`stream_usage` in [[account]] must be true or false, not an integer"),
        ("aliases = { a = \"\" }", "`aliases` in [[account]] has an empty string"),
        (
            "model_limits = { m = 1 }",
            "`model_limits` in [[account]] must be a table of tables such as `{ \"gpt-4*\" = { rpm = 10 } }`, not an integer",
        ),
        (
            "model_limits = { m = { rmp = 1 } }",
            "unknown key `rmp` in `model_limits` of `m`; did you mean `rpm`?",
        ),
        ("dialect = true", "`dialect` in [[account]] must be a string, not a boolean"),
        ("weight = []", "`weight` in [[account]] must be a whole number, not an array"),
        ("weight = 1979-05-27", "`weight` in [[account]] must be a whole number, not a datetime"),
    ] {
        check(&format!("{ACCOUNT}{line}"), &[&format!("5: {problem}")]);
    }
    check("data = 1", &["1: `data` must be a string, not an integer"]);
    check("[storage]\ntwo_phase = 1", &["2: `two_phase` in [storage] must be true or false, not an integer"]);
    check("gateway = 1", &["1: `gateway` must be a table: write [gateway], not an integer"]);
    check(
        "[account]\nname = \"a\"",
        &["1: `account` must be a list of tables: write [[account]], not a table"],
    );
    check("account = [1]", &["1: `account` must be a list of tables: write [[account]], not an array"]);
    check("[cache.x]\nentrys = 1", &["2: unknown key `entrys` in [cache.x]; did you mean `entries`?"]);
    check(
        "[cache.x]\nentries = 0",
        &["2: `entries` in [cache.x] must be at least 1; leave it out for the default"],
    );
    check(
        "[cache.x]\nstrategy = \"heath\"",
        &["2: `strategy` in [cache.x] cannot be `heath`; did you mean `health`?"],
    );
    check("kv = 1", &["1: `kv` must be a table: write [kv.NAME], not an integer"]);
    check("[kv]\nnotes = 1", &["2: `kv.notes` must be a table: write [kv.NAME], not an integer"]);
    check("[[kv]]", &["1: `kv` must be a table: write [kv.NAME], not an array"]);
    let error = parse(&format!("{ACCOUNT}models = [\"m\", 1]")).unwrap_err();
    assert_eq!(error, "tollgate.toml:5: `models` in [[account]] must be a list of strings, not an array");
}

#[test]
fn numbers_keep_to_their_bounds() {
    for (line, problem) in [
        ("rpm = 0", "`rpm` in [[account]] must be at least 1; leave it out for the default"),
        ("tpm = 0", "`tpm` in [[account]] must be at least 1; leave it out for the default"),
        ("rpd = 0", "`rpd` in [[account]] must be at least 1; leave it out for the default"),
        ("concurrency = 0", "`concurrency` in [[account]] must be at least 1; leave it out for the default"),
        ("rpm = -1", "`rpm` in [[account]] must be from 1 to 9007199254740992"),
        ("concurrency = 1000001", "`concurrency` in [[account]] must be from 1 to 1000000"),
        ("cost_per_day = 0", "`cost_per_day` in [[account]] must be over 0; leave it out for none"),
        (
            "model_limits = { m = { rpm = 0 } }",
            "`rpm` in `model_limits` of `m` must be at least 1; leave it out for the default",
        ),
        (
            "model_limits = { \"\" = { rpm = 1 } }",
            "`model_limits` has at most 8 names or patterns of models, of 1 to 100 bytes in [[account]]",
        ),
        ("weight = 0", "`weight` in [[account]] must be at least 1; leave it out for the default"),
        ("weight = 1000001", "`weight` in [[account]] must be from 1 to 1000000"),
        ("priority = 4294967296", "`priority` in [[account]] must be from 0 to 4294967295"),
    ] {
        check(&format!("{ACCOUNT}{line}"), &[&format!("5: {problem}")]);
    }
    check("workers = 0", &["1: `workers` must be at least 1; leave it out for the default"]);
    check("workers = 1025", &["1: `workers` must be from 1 to 1024"]);
    check(
        "[gateway]\nidle_timeout_ms = 86400001",
        &["2: `idle_timeout_ms` in [gateway] must be from 1 to 86400000"],
    );
    check(
        "[gateway]\nhealth_interval_ms = 999",
        &["2: `health_interval_ms` in [gateway] must be from 1000 to 86400000"],
    );
    check("[gateway]\nqueue_requests = 1001", &["2: `queue_requests` in [gateway] must be from 0 to 1000"]);
    check(
        "[gateway]\nbody_limit_bytes = 0",
        &["2: `body_limit_bytes` in [gateway] must be at least 1; leave it out for the default"],
    );
    check(
        "[kv.x]\ndefault_ttl_ms = 0",
        &["2: `default_ttl_ms` in [kv.x] must be at least 1; leave it out for the default"],
    );
}

#[test]
fn prices_are_amounts_of_money_and_none_is_left_out_by_chance() {
    const PRICE: &str = "[[price]]\nmodel = \"m\"\n";
    check(
        &format!("{PRICE}input = -1\noutput = \"2\""),
        &[
            "3: `input` in [[price]] must be a number from 0 to 4000000",
            "4: `output` in [[price]] must be a number, such as 2.5, not a string",
        ],
    );
    check(&format!("{PRICE}input = 1"), &["1: missing `output` in [[price]]; write 0 for what is free"]);
    check(
        "[[price]]\ninput = 1\noutput = inf",
        &["1: missing `model` in [[price]]", "3: `output` in [[price]] must be a number from 0 to 4000000"],
    );
    let free = "input = 0\noutput = 0\n";
    check(&format!("{PRICE}{free}{PRICE}{free}"), &["6: `model` in [[price]] repeats `m`"]);
}

#[test]
fn urls_are_checked_and_not_quoted() {
    for (url, problem) in [
        ("api.example.com/v1", "is no URL; write it like `https://llm.example.com/v1`"),
        ("/v1", "must start with `https://` or `http://`"),
        ("ftp://x/v1", "must start with `https://` or `http://`"),
        ("https://", "is no URL; write it like `https://llm.example.com/v1`"),
        ("https://:80/", "names no host"),
        ("https://user:secret@x/v1", "must not carry a user or password; use `api_key`"),
        ("https://x/v1?key=secret", "must end with its path: no query and no fragment"),
        ("https://x/v1#part", "must end with its path: no query and no fragment"),
        ("https://x y/", "is no URL; write it like `https://llm.example.com/v1`"),
    ] {
        let text = format!("[[account]]\nname = \"a\"\nbase_url = \"{url}\"\napi_key = \"k\"\n");
        check(&text, &[&format!("3: `base_url` in [[account]] {problem}")]);
    }
}

#[test]
fn keys_come_from_one_place_and_are_never_shown() {
    let account = |lines: &str| format!("[[account]]\nname = \"a\"\nbase_url = \"https://x/v1\"\n{lines}");
    check(&account(""), &["1: missing `api_key` or `api_key_env` in [[account]]"]);
    check(&account("api_key = \"\""), &["4: `api_key` in [[account]] must not be empty"]);
    check(
        &account("api_key_env = \"UNSET\""),
        &["4: `api_key_env` in [[account]]: the variable `UNSET` is not set"],
    );
    check(
        &account("api_key_env = \"EMPTY\""),
        &["4: `api_key_env` in [[account]]: the variable `EMPTY` is not set"],
    );
    check(
        &account("api_key = \"k\"\napi_key_env = \"SET\""),
        &["5: `api_key` and `api_key_env` in [[account]]: give one of them"],
    );
    check(
        &account("api_key = \"hidden key\""),
        &["4: `api_key` in [[account]]: a key is printable ASCII without spaces"],
    );
    let config = parse(&account("api_key = \"sk-hidden\"")).unwrap();
    assert_eq!(config.accounts[0].api_key.expose(), "sk-hidden");
    assert!(!format!("{config:?}").contains("hidden"));
}

#[test]
fn what_is_logged_must_be_a_filter() {
    let error = parse("\nlog = \"tollgate=loud\"").unwrap_err();
    assert!(error.starts_with("tollgate.toml:2: `log` is no filter such as"), "{error}");
}

#[test]
fn names_are_plain_and_unique() {
    check(&format!("{ACCOUNT}{ACCOUNT}"), &["6: `name` in [[account]] repeats `a`"]);
    check("[[plugin]]\nname = \"p\"\n[[plugin]]\nname = \"p\"", &["4: `name` in [[plugin]] repeats `p`"]);
    check(
        "[[plugin]]\nname = \"../p\"",
        &["2: `name` in [[plugin]] must be 1 to 64 letters, digits, `-`, `_` or `.`"],
    );
    check("[kv.\"a b\"]", &["1: the name in [kv.a b] must be 1 to 64 letters, digits, `-`, `_` or `.`"]);
    check("[[plugin]]\nfile = \"p.wasm\"", &["1: missing `name` in [[plugin]]"]);
    check("[[plugin]]\nname = \"p\"\nmanifest = \"p.toml\"", &["3: `manifest` in [[plugin]] needs `file`"]);
}

#[test]
fn other_values_name_what_is_possible() {
    check(
        "listen = \"localhost\"",
        &["1: `listen` must be an IP address and a port, such as `127.0.0.1:8080`"],
    );
    check(
        &format!("{ACCOUNT}dialect = \"open-ai\""),
        &["5: `dialect` in [[account]] cannot be `open-ai`; did you mean `openai`?"],
    );
    check(
        &format!("{ACCOUNT}dialect = \"vertex\""),
        &["5: `dialect` in [[account]] cannot be `vertex`; possible: `anthropic`, `gemini`, `openai`"],
    );
    check(
        "[kv.x]\nacknowledge = \"relax\"",
        &["2: `acknowledge` in [kv.x] cannot be `relax`; did you mean `relaxed`?"],
    );
    check(
        "[kv.x]\nengine = \"memroy\"\n[blob.y]\nengine = \"sled\"\n[sql.gateway]\nengine = \"memory\"\n[kv.z]\nengine = \"files\"",
        &[
            "2: `engine` in [kv.x] cannot be `memroy`; did you mean `memory`?",
            "4: `engine` in [blob.y] cannot be `sled`; possible: `files`, `memory`, `redb`",
            "6: `engine` in [sql.gateway] must be `redb`: keys and plugins are kept there",
            "8: `engine` in [kv.z] cannot be `files`; possible: `memory`, `redb`",
        ],
    );
    check(&format!("{ACCOUNT}models = []"), &["5: `models` in [[account]] must not be empty; leave it out"]);
    check(&format!("{ACCOUNT}models = [\"\"]"), &["5: `models` in [[account]] has an empty string"]);
    check(
        &format!("{ACCOUNT}models = [\"m\",\n\"m\"]"),
        &["6: `models` in [[account]] names `m` more than once"],
    );
}

#[test]
fn all_problems_come_at_once_in_order() {
    check(
        "workers = 0\nlist = 1\n[[account]]\nrpm = 0\n",
        &[
            "1: `workers` must be at least 1; leave it out for the default",
            "2: unknown key `list`; did you mean `listen`?",
            "3: missing `name` in [[account]]",
            "3: missing `base_url` in [[account]]",
            "3: missing `api_key` or `api_key_env` in [[account]]",
            "4: `rpm` in [[account]] must be at least 1; leave it out for the default",
        ],
    );
}

#[test]
fn broken_toml_names_its_line() {
    check("data = \"x\"\ndata = \"y\"", &["2: duplicate key `data`"]);
    check("[kv.x]\n[sql.y]\n[kv.x]", &["3: duplicate key `x`"]);
    for text in ["\nlisten = ", "\n[[account]", "\n= 1", "\nlisten = \"x", "\nworkers = 1 2"] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with("tollgate.toml:2: "), "{text:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{text:?}: {error}");
    }
}

#[test]
fn paths_count_from_the_file_that_names_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("my.toml");
    std::fs::write(
        &file,
        "data = \"d\"\n[[plugin]]\nname = \"p\"\nfile = \"/abs/p.wasm\"\nmanifest = \"p.toml\"",
    )
    .unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.data, directory.path().join("d"));
    assert_eq!(config.plugins[0].file.as_deref(), Some(Path::new("/abs/p.wasm")));
    assert_eq!(config.plugins[0].manifest, Some(directory.path().join("p.toml")));

    // A default is not in the file, and other commands look for it where they are started.
    std::fs::write(&file, "").unwrap();
    assert_eq!(Config::load(&file).unwrap().data, Path::new(limits::DATA));

    std::fs::write(&file, "\ndta = 1").unwrap();
    assert_eq!(
        Config::load(&file).unwrap_err().to_string(),
        "my.toml:2: unknown key `dta`; did you mean `data`?"
    );
    let missing = directory.path().join("none.toml");
    assert!(Config::load(&missing).unwrap_err().to_string().starts_with("cannot read "));
}

#[test]
fn a_problem_stays_on_one_line_whatever_it_quotes() {
    check(
        "\"a\\nb\\u001b\" = 1\nlisten = 1",
        &[
            "1: unknown key `a\\nb\\u{1b}`; right: `account`, `audit`, `blob`, `cache`, `data`, `gateway`, `kv`, `listen`, `log`, `plugin`, `plugins`, `price`, `retention`, `secrets`, `sql`, `storage`, `telemetry`, `vector`, `workers`",
            "2: `listen` must be a string, not an integer",
        ],
    );
}

#[test]
fn the_servers_own_kv_store_cannot_be_named() {
    check("[kv.\"host.tollgate\"]\n", &["1: [kv.\"host.tollgate\"] is the server's own; take another name"]);
}
