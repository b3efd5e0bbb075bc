//! Caches as plugins have them: shared by their calls, bounded, and forgotten by a restart.

use crate::support::guest::ALLOW;
use crate::support::{Behaviour, Guest, Server, Setup, Upstream, eventually};

/// Allows, and writes the key `k` for a minute, unless the cache has it; then it fails, and the request with it.
const ONCE: &str = "
    (call $cache_get (call $cache) (i32.const 700) (i32.const 1) (i32.const 800))
    (if (i32.load8_u (i32.const 800)) (then unreachable))
    (if (i32.load8_u (i32.const 804)) (then
        (if (i32.ne (i32.load8_u (i32.load (i32.const 808))) (i32.const 107)) (then unreachable))
        (return (call $refuse))))
    (call $cache_set (call $cache) (i32.const 700) (i32.const 1) (i32.const 700) (i32.const 1)
        (i32.const 1) (i64.const 60000) (i32.const 1) (i32.const 2) (i32.const 800))
    (if (i32.load8_u (i32.const 800)) (then unreachable))";

/// Fails with a text, without a trap.
const REFUSE: &str = r#"(data (i32.const 700) "k")
    (func $refuse (result i32)
        (i32.store8 (i32.const 512) (i32.const 1))
        (i32.store (i32.const 516) (i32.const 700))
        (i32.store (i32.const 520) (i32.const 1))
        i32.const 512)"#;

/// A server with caches and a plugin that was granted `shared` in this way.
struct House {
    server: Server,
    key: String,
    _upstream: Upstream,
}

impl House {
    async fn open() -> House {
        let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
        let caches =
            "[cache.shared]\nentries = 10\n[cache.private]\nstrategy = \"model-list\"\nadaptive = true";
        let server = Setup::with(&upstream).config(caches).start();
        let key = server.key("free", &[]);
        House { server, key, _upstream: upstream }
    }

    fn push(&self, name: &str, guest: &Guest, access: &str) {
        let (file, manifest) = self.write(name, guest, access);
        self.server.cli_ok(&["plugin", "push", &file, "--manifest", &manifest]);
    }

    /// The paths of a plugin and its manifest.
    fn write(&self, name: &str, guest: &Guest, access: &str) -> (String, String) {
        let at = |ending: &str| self.server.home().join(format!("{name}.{ending}"));
        let (file, manifest) = (at("wasm"), at("toml"));
        std::fs::write(&file, guest.build()).unwrap();
        let text = format!("name = \"{name}\"\norder = 1\n[grants.cache]\nshared = \"{access}\"\n");
        std::fs::write(&manifest, text).unwrap();
        (file.display().to_string(), manifest.display().to_string())
    }

    async fn status(&self) -> u16 {
        self.server.client(&self.key).chat("gpt-test").await.status.as_u16()
    }

    async fn counted(&self, limit: &str) {
        let label = format!("limit=\"{limit}\"");
        eventually(&format!("the limit {limit:?} is counted"), || async {
            let hits = self
                .server
                .metric_with("tollgate_plugin_limit_hits_total", &["plugin=\"caching\"", &label])
                .await;
            (hits > 0.0).then_some(())
        })
        .await;
    }
}

/// The call before answered with an error of this case, whose discriminant lies at 804; else it traps.
fn expects(case: u32) -> String {
    format!(
        "(if (i32.or (i32.eqz (i32.load8_u (i32.const 800))) (i32.ne (i32.load8_u (i32.const 804)) (i32.const {case})))
            (then unreachable)) {ALLOW}"
    )
}

fn once() -> Guest {
    Guest::new().cache("shared").define(REFUSE).admit(&format!("{ONCE} {ALLOW}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_share_a_cache_and_a_restart_forgets_it() {
    let mut house = House::open().await;
    let (file, manifest) = house.write("caching", &once(), "read-write");
    house.server.cli_ok(&["plugin", "check", &file, "--manifest", &manifest]);
    house.push("caching", &once(), "read-write");
    for _ in 0..2 {
        assert_eq!([house.status().await, house.status().await, house.status().await], [200, 503, 503]);
        house.server.crash_and_restart();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_share_a_cache() {
    let house = House::open().await;
    house.push("caching", &once(), "read-write");
    house.push("other", &once(), "read-write");
    // The one finds what the other has written for the same request.
    assert_eq!(house.status().await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_granted_for_reading_is_not_written() {
    let house = House::open().await;
    let set = "(call $cache_set (call $cache) (i32.const 700) (i32.const 1) (i32.const 0) (i32.const 1)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 800))";
    let guest = Guest::new().cache("shared").define(REFUSE).admit(&format!("{set} {}", expects(0)));
    house.push("caching", &guest, "read");
    assert_eq!(house.status().await, 200);
    house.counted("grant").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_was_not_granted_stays_shut() {
    for (name, case) in [("private", 0), ("nowhere", 1)] {
        let house = House::open().await;
        let guest = Guest::new().cache(name).admit(&format!("(drop (call $cache)) {}", expects(case)));
        house.push("caching", &guest, "read-write");
        assert_eq!(house.status().await, 200, "{name}");
        house.counted("grant").await;
    }
    let house = House::open().await;
    let (file, manifest) = (house.server.home().join("bare.wasm"), house.server.home().join("bare.toml"));
    std::fs::write(
        &file,
        Guest::new().cache("shared").admit(&format!("(drop (call $cache)) {ALLOW}")).build(),
    )
    .unwrap();
    for (grants, words) in [
        ("", "tollgate:storage/cache@0.1.0, which the manifest does not grant"),
        ("[grants.cache]\nnowhere = \"read\"", "grants cache \"nowhere\", which the host does not have"),
    ] {
        std::fs::write(&manifest, format!("name = \"bare\"\n{grants}\n")).unwrap();
        let (file, manifest) = (file.to_str().unwrap(), manifest.to_str().unwrap());
        let output = house.server.cli(&["plugin", "push", file, "--manifest", manifest]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(words), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_a_cache_ends_at_its_entries_and_a_large_value_is_refused() {
    let house = House::open().await;
    // Two hundred keys of one byte and a counter, in each priority; then the figures, whose entries are at 808.
    let flood = "
        (loop $on
            (i32.store8 (i32.const 701) (local.get 0))
            (call $cache_set (call $cache) (i32.const 700) (i32.const 2) (i32.const 0) (i32.const 100)
                (i32.const 0) (i64.const 0) (i32.const 1) (i32.rem_u (local.get 0) (i32.const 3)) (i32.const 800))
            (if (i32.load8_u (i32.const 800)) (then unreachable))
            (br_if $on (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 128))))
        (call $cache_stats (call $cache) (i32.const 800))
        (if (i32.load8_u (i32.const 800)) (then unreachable))
        (if (i64.gt_u (i64.load (i32.const 808)) (i64.const 30)) (then unreachable))
        (if (i64.eqz (i64.load (i32.const 808))) (then unreachable))";
    let large = "(drop (memory.grow (i32.const 32)))
        (call $cache_set (call $cache) (i32.const 700) (i32.const 1) (i32.const 0) (i32.const 1048577)
            (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 800))";
    let admit = format!("(local.set 0 (i32.const 0)) {flood} {large} {}", expects(2));
    house.push("caching", &Guest::new().cache("shared").define(REFUSE).admit(&admit), "read-write");
    assert_eq!(house.status().await, 200);
    house.counted("size").await;
    let traps = house.server.metric_with("tollgate_plugin_traps_total", &["plugin=\"caching\""]).await;
    assert_eq!(traps, 0.0);
}
