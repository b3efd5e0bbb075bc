//! A plugin that wants to do harm ends by its limit, with a reason that names it, and everybody else is served on.

mod admit;
mod answers;
mod at_once;
mod beside;
mod filled;
mod pushed;
mod sql;

use serde_json::Value;

use crate::support::client::Answer;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Behaviour, Guest, Server, Setup, Upstream, eventually};

/// Requests a minute of the key by which each test sees that quota, the neighbour, still limits.
const COUNTED: usize = 5;

/// `small` and `hasty` may have 300,000 bytes, `brief` 4 MiB, as each store in memory.
const STORES: &str = "[storage]\nmemory_bytes = 16777216
[kv.hostile]\n[kv.private]\n[kv.small]\nlimit_bytes = 300000\n[kv.hasty]\nacknowledge = \"relaxed\"\nlimit_bytes = 300000
[kv.brief]\nengine = \"memory\"\n[kv.fleeting]\nengine = \"memory\"";

/// A server with the hostile plugin beside what ships.
struct House {
    server: Server,
    _upstream: Upstream,
}

impl House {
    /// Without the plugin yet. There is a kv store `hostile`, some that may have few bytes, and another, `private`, that nobody is
    /// granted.
    async fn open() -> House {
        let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
        let server = Setup::with(&upstream).config(STORES).start();
        House { server, _upstream: upstream }
    }

    /// With the plugin, which may use all these stores but `private`; `limits` are lines of its manifest's table, behind which
    /// others may follow. It fails open, so that requests show what becomes of them beside it.
    async fn with(guest: &Guest, limits: &str) -> House {
        let house = House::open().await;
        let output = house.push(&guest.build(), limits);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        house
    }

    fn push(&self, wasm: &[u8], limits: &str) -> std::process::Output {
        let (file, manifest) =
            (self.server.home().join("hostile.wasm"), self.server.home().join("hostile.toml"));
        std::fs::write(&file, wasm).unwrap();
        let text = format!(
            "name = \"hostile\"\norder = 1\non-error = \"allow\"\n[grants.kv]\nhostile = \"read-write\"\nsmall = \"read-write\"\n\
             hasty = \"read-write\"\nbrief = \"read-write\"\n\
             [limits]\n{limits}\n"
        );
        std::fs::write(&manifest, text).unwrap();
        self.server.cli(&[
            "plugin",
            "push",
            file.to_str().unwrap(),
            "--manifest",
            manifest.to_str().unwrap(),
            "--grant",
        ])
    }

    /// Requests pass, and quota counts them: so many are answered 200, the next one 429.
    async fn serves_on(&self) {
        let key = self.server.key("counted", &["--rpm", &COUNTED.to_string()]);
        let client = self.server.client(&key);
        let mut statuses = Vec::new();
        for _ in 0..=COUNTED {
            statuses.push(client.chat("gpt-test").await.status.as_u16());
        }
        let mut expected = vec![200; COUNTED];
        expected.push(429);
        assert_eq!(statuses, expected);
    }

    /// Runs the plugin's job to its end.
    async fn job(&self) -> Answer {
        self.server.client(ADMIN_TOKEN).post("/admin/v1/plugins/hostile/jobs/work", &Value::Null).await
    }

    /// A call of this hook has begun.
    async fn called(&self, hook: &str) {
        let label = format!("hook=\"{hook}\"");
        let calls = "tollgate_plugin_calls_total";
        eventually(&format!("{hook:?} is called"), || async {
            let calls = self.server.metric_with(calls, &["plugin=\"hostile\"", &label]).await;
            (calls > 0.0).then_some(())
        })
        .await;
    }

    /// No call has trapped: the plugin was told of its limit, and found what it looks for itself.
    async fn never_trapped(&self) {
        let traps = self.server.metric_with("tollgate_plugin_traps_total", &["plugin=\"hostile\""]).await;
        assert_eq!(traps, 0.0, "{}", self.server.log());
    }

    /// A call of this hook has overrun its deadline, by running or (where the machine is busy) by waiting, and the log names
    /// it with these words.
    async fn overran(&self, hook: &str, words: &str) {
        let (overruns, label) = ("tollgate_plugin_deadline_overruns_total", format!("hook=\"{hook}\""));
        eventually("the overrun is counted", || async {
            let overruns = self.server.metric_with(overruns, &["plugin=\"hostile\"", &label]).await;
            (overruns > 0.0).then_some(())
        })
        .await;
        let log = self.server.log();
        assert!(log.contains(words), "the log does not say {words:?}");
    }

    /// The plugin has run into this limit, and the log names it with these words.
    async fn named(&self, limit: &str, words: &str) {
        let label = format!("limit=\"{limit}\"");
        let hits = "tollgate_plugin_limit_hits_total";
        eventually(&format!("the limit {limit:?} is counted"), || async {
            let hits = self.server.metric_with(hits, &["plugin=\"hostile\"", &label]).await;
            (hits > 0.0).then_some(())
        })
        .await;
        let log = self.server.log();
        assert!(log.contains(words), "the log does not say {words:?}");
    }
}
