//! The configuration read again while requests flow.

use crate::support::{Behaviour, Server, Setup, Upstream, eventually};

const FINE: Behaviour = Behaviour::Answer { input: 5, output: 2 };

fn account(name: &str, upstream: &Upstream, extra: &str) -> String {
    format!(
        "[[account]]\nname = \"{name}\"\nbase_url = \"{}\"\napi_key = \"upstream-{name}\"\n{extra}\n",
        upstream.url()
    )
}

fn write(server: &Server, config: &str) {
    std::fs::write(server.home().join("tollgate.toml"), config).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_accounts_and_limits_at_once_and_names_what_needs_a_restart() {
    let upstream = Upstream::start(FINE).await;
    let server = Setup::default().account("first", &upstream, "").start();
    let client = server.client(&server.key("user", &[]));
    assert_eq!(client.chat("m").await.status, 200);
    assert_eq!(server.cli_ok(&["reload"]), "nothing has changed");

    let config = format!(
        "workers = 3\n[gateway]\nbody_limit_bytes = 200\n{}",
        account("second", &upstream, "rpm = 2")
    );
    write(&server, &config);
    assert_eq!(server.cli_ok(&["reload"]), "took over: account, gateway\nneeds a restart: workers");
    for expected in [200, 200, 429] {
        assert_eq!(client.chat("m").await.status, expected);
    }
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (1, 2));
    let long = serde_json::json!({ "model": "m", "messages": [], "metadata": { "text": "x".repeat(200) } });
    assert_eq!(client.post("/v1/chat/completions", &long).await.status, 413);
    // What needs a restart is named until there is one.
    assert_eq!(server.cli_ok(&["reload"]), "needs a restart: workers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_changes_nothing_and_says_why_with_its_line() {
    let upstream = Upstream::start(FINE).await;
    let server = Setup::default().account("first", &upstream, "").start();
    let client = server.client(&server.key("user", &[]));
    for (config, problem) in [
        (
            format!("{}[gateway]\nbody_limit_byte = 1\n", account("second", &upstream, "")),
            "tollgate.toml:7: unknown key",
        ),
        (
            account("second", &upstream, "ca_file = \"none.pem\""),
            "tollgate.toml:5: `ca_file` in [[account]]: cannot read",
        ),
        (
            account("second", &upstream, "").replace("http://", "https://") + "ca_file = \"tollgate.toml\"",
            "account second: ca holds no certificates",
        ),
    ] {
        write(&server, &config);
        let output = server.cli(&["reload"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains(problem), "{said}");
        assert_eq!(client.chat("m").await.status, 200);
    }
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (3, 0));
    let audit = server.cli_ok(&["audit", "list", "--action", "reload"]);
    assert_eq!(audit.matches("admin token\treload\t\tfalse\trefused").count(), 3, "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reloads_and_sets_what_is_logged() {
    let upstream = Upstream::start(Behaviour::Refuse { status: 500, retry_after: None }).await;
    let server = Setup::default().account("first", &upstream, "").start();
    let client = server.client(&server.key("user", &[]));
    assert_eq!(client.chat("m").await.status, 502);
    assert!(!server.log().contains("attempt failed"), "that is for debugging");
    write(&server, &format!("log = \"debug\"\n{}", account("second", &upstream, "")));
    server.signal("HUP");
    eventually("the reload is logged", || async {
        server.log().contains("reloaded the configuration").then_some(())
    })
    .await;
    assert_eq!(client.chat("m").await.status, 502);
    assert!(server.log().contains("attempt failed"), "{}", server.log());
    write(&server, "log = \"tollgate=loud\"");
    server.signal("HUP");
    eventually("the refusal is logged", || async {
        server.log().contains("tollgate.toml:1: `log` is no filter").then_some(())
    })
    .await;
    eventually("both are in the audit log", || async {
        (server.cli_ok(&["audit", "list"]).matches("signal\treload").count() == 2).then_some(())
    })
    .await;
}
