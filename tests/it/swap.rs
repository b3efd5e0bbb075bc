//! A new version of a plugin takes over between two requests; a bad one never does, or not for long.

mod load;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Method;

use crate::support::component::{shipped, trapping};
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Behaviour, Guest, Server, Setup, Upstream, eventually};

use load::Load;

/// Swaps under load.
const SWAPS: u64 = 50;

/// Pushes in the default run; `TOLLGATE_PUSHES` sets another number for the long one.
const PUSHES: usize = 60;

/// What they push in turn: all hooks are among them.
const PUSHED: [&str; 5] = ["quota", "blacklist", "ingestion", "sync", "guestbook"];

/// Pushes before what the server holds is looked at: both versions of each. Before a long run there are a tenth of its own, since
/// what requests leave in caches and heaps takes minutes to level off.
const PUSHES_BEFORE: usize = 15;

/// Requests whose times are taken while nothing is pushed, in the default run.
const QUIET: usize = 1_000;

/// Requests a minute of the key whose count must carry on over all swaps.
const COUNTED: u64 = 100;

/// Growth of resident memory that counts as flat: allocator slack, not forty generations.
const SLACK_KIB: u64 = 24 * 1024;

const ADMISSION: &str = "export tollgate:policy/admission@0.1.0;";
const LIFECYCLE: &str = "export tollgate:policy/lifecycle@0.1.0;";

async fn started() -> (Upstream, Server) {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::with(&upstream).start();
    (upstream, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_swaps_of_quota_at_full_load_fail_no_request_and_forget_no_count() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    // Small caches are full at once: what grows then is not what the requests themselves leave in them.
    let caches = "[storage]\npage_cache_bytes = 1048576\nkv_cache_bytes = 1048576";
    let server = Arc::new(Setup::with(&upstream).config(caches).start());
    let free = Load::chats(&server.client(&server.key("free", &["--rpm", "100000000"])));
    let counted = Load::chats(&server.client(&server.key("counted", &["--rpm", &COUNTED.to_string()])));
    let file = shipped("quota");
    let mut resident = 0;
    for swap in 0..SWAPS {
        let (server, file) = (server.clone(), file.clone());
        let kib = tokio::task::spawn_blocking(move || {
            server.cli_ok(&["plugin", "push", file.to_str().unwrap()]);
            server.resident_kib()
        });
        let kib = kib.await.unwrap();
        if swap == 10 {
            resident = kib;
        }
    }
    let grown = server.resident_kib().saturating_sub(resident);
    let (free, counted) = (free.stop().await, counted.stop().await);
    assert!(free.admitted > SWAPS, "only {} requests ran beside {SWAPS} swaps", free.admitted);
    assert_eq!((free.refused, free.failed), (0, 0));
    assert_eq!((counted.admitted, counted.failed), (COUNTED, 0));
    assert!(grown < SLACK_KIB, "forty swaps grew the server by {grown} KiB");
}

/// What a process holds.
#[derive(Debug)]
struct Held {
    resident_kib: u64,
    threads: u64,
    maps: usize,
    handles: usize,
}

impl Held {
    fn by(server: &Server) -> Held {
        let (resident_kib, threads) = (server.resident_kib(), server.threads());
        Held { resident_kib, threads, maps: server.maps(), handles: server.handles() }
    }
}

/// A plugin's component, and another version of it: the same code with one more (empty) custom section.
fn versions(name: &str) -> [Vec<u8>; 2] {
    let file =
        if name == "guestbook" { test_components().join("prebuilt/guestbook.wasm") } else { shipped(name) };
    let component = std::fs::read(file).unwrap();
    [[component.as_slice(), b"\0\x05\x04test"].concat(), component]
}

fn test_components() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/components")
}

/// What is asked of all hooks meanwhile: chats go through quota, blacklist and ingestion, a page is the guestbook's.
struct Loads {
    chats: Load,
    pages: Load,
    jobs: Load,
}

impl Loads {
    fn start(server: &Server) -> Loads {
        let user = server.client(&server.key("user", &["--rpm", "100000000"]));
        let chats = Load::chats(&user);
        let pages = Load::start(1, move || {
            let user = user.clone();
            async move { user.get("/guestbook/entries").await.status.as_u16() }
        });
        let admin = server.client(ADMIN_TOKEN);
        let jobs = Load::start(1, move || {
            let admin = admin.clone();
            async move {
                let path = "/admin/v1/plugins/sync/jobs/blacklist-to-database";
                admin.post(path, &serde_json::Value::Null).await.status.as_u16()
            }
        });
        Loads { chats, pages, jobs }
    }
}

/// `TOLLGATE_PUSHES=10000 cargo test --test it swaps_of_all_hooks -- --nocapture` is the long run; it prints the times of requests
/// with and without swaps.
#[tokio::test(flavor = "multi_thread")]
async fn swaps_of_all_hooks_under_load_fail_nothing_and_leave_memory_threads_maps_and_handles_where_they_were()
 {
    let pushes = std::env::var("TOLLGATE_PUSHES").ok().and_then(|n| n.parse().ok()).unwrap_or(PUSHES);
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let caches = "[storage]\npage_cache_bytes = 1048576\nkv_cache_bytes = 1048576\n[kv.guestbook]";
    let server = Setup::with(&upstream).config(caches).start();
    let manifest = test_components().join("guestbook/plugin.toml");
    let file = test_components().join("prebuilt/guestbook.wasm");
    let [file, manifest] = [&file, &manifest].map(|path| path.to_str().unwrap());
    server.cli_ok(&["plugin", "push", file, "--manifest", manifest, "--grant"]);
    let (admin, versions) = (server.client(ADMIN_TOKEN), PUSHED.map(versions));
    let push = async |number: usize| {
        let (plugin, version) = (number % PUSHED.len(), number / PUSHED.len() % 2);
        let path = format!("/admin/v1/plugins/{}", PUSHED[plugin]);
        let pushed = admin.call(Method::PUT, &path, &[], versions[plugin][version].clone()).await;
        assert_eq!(pushed.status, 200, "{path}: {}", pushed.text());
    };
    let Loads { chats, pages, jobs } = Loads::start(&server);
    // What is kept for the next time is there after these: compiled code, caches, threads for blocking work.
    let first = PUSHES_BEFORE.max(pushes / 10);
    for number in 0..first {
        push(number).await;
    }
    chats.times();
    chats.wait_for(QUIET.max(pushes / 10)).await;
    let (quiet, before) = (chats.times(), Held::by(&server));
    for number in first..first + pushes {
        push(number).await;
    }
    let swapping = chats.times();
    eprintln!(
        "chats without swaps: {quiet}\nchats during {pushes} swaps: {swapping}\npages: {}",
        pages.times()
    );
    // Threads and generations go a moment after their last use; what is there for each push never does.
    eventually("the server holds what it held before", || async {
        let now = Held::by(&server);
        // Maps come and go by some 25, however many the pushes; of few pushes not half may leave one behind.
        let (grown, most) = (now.resident_kib.saturating_sub(before.resident_kib), (pushes / 2).min(64));
        let back = grown < SLACK_KIB
            && now.threads <= before.threads + most as u64
            && now.maps <= before.maps + most
            && now.handles <= before.handles + most;
        if !back {
            eprintln!("before {before:?}, after {pushes} pushes {now:?}");
        }
        back.then_some(())
    })
    .await;
    let (chats, pages, jobs) = (chats.stop().await, pages.stop().await, jobs.stop().await);
    assert_eq!((chats.refused, chats.failed), (0, 0), "{chats:?}");
    assert_eq!((pages.refused, pages.failed), (0, 0), "{pages:?}");
    // Only that one of its schedule was under way.
    assert_eq!((jobs.failed, jobs.admitted > 0), (0, true), "{jobs:?}");
    eventually("every request is in the log", || async {
        let stored = server.count("SELECT count(*) FROM request_logs WHERE status_code = 200");
        (stored == chats.admitted).then_some(())
    })
    .await;
    let own = "SELECT count(*) FROM plugin_generations WHERE state = 'rolled-back'";
    assert_eq!(server.count(own), 0, "a good version was rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_component_is_refused_and_the_old_version_serves_on() {
    let (_upstream, server) = started().await;
    refused(&server, b"not wasm at all", &["component"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_traps_in_init_is_refused_and_the_old_version_serves_on() {
    let (_upstream, server) = started().await;
    refused(&server, &trapping(&format!("{ADMISSION}{LIFECYCLE}")), &["init"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_wants_what_it_was_not_granted_is_refused_by_the_imports_name() {
    let (_upstream, server) = started().await;
    let wants_sql = trapping(&format!("import tollgate:storage/sql@0.1.0;{ADMISSION}"));
    refused(&server, &wants_sql, &["tollgate:storage/sql"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_starts_trapping_is_rolled_back_by_itself() {
    let (_upstream, server) = started().await;
    let before = serving(&server);
    let client = server.client(&server.key("user", &["--rpm", "1000000"]));
    let file = server.home().join("quota.wasm");
    std::fs::write(&file, trapping(ADMISSION)).unwrap();
    server.cli_ok(&["plugin", "push", file.to_str().unwrap()]);
    eventually("the old version is back", || async {
        client.chat("gpt-test").await;
        (serving(&server) == before).then_some(())
    })
    .await;
    assert_eq!(client.chat("gpt-test").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_version_is_brought_back_by_its_digest() {
    let (_upstream, server) = started().await;
    let shipped_digest = serving(&server);
    let other = server.home().join("quota.wasm");
    // The same code with one more (empty) custom section: another digest.
    let mut bytes = std::fs::read(shipped("quota")).unwrap();
    bytes.extend_from_slice(&[0, 5, 4, b't', b'e', b's', b't']);
    std::fs::write(&other, bytes).unwrap();
    server.cli_ok(&["plugin", "push", other.to_str().unwrap()]);
    assert_ne!(serving(&server), shipped_digest);
    server.cli_ok(&["plugin", "rollback", "quota", "--to", &shipped_digest]);
    assert_eq!(serving(&server), shipped_digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_versions_as_configured_are_kept_and_shown_and_can_be_brought_back() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::with(&upstream).config("[plugins]\nkeep_versions = 3").start();
    let shipped_digest = serving(&server);
    let file = server.home().join("quota.wasm");
    let bytes = std::fs::read(shipped("quota")).unwrap();
    let mut digests = Vec::new();
    for note in [b"one1", b"two2", b"tre3"] {
        std::fs::write(&file, [bytes.as_slice(), b"\0\x05\x04", note].concat()).unwrap();
        server.cli_ok(&["plugin", "push", file.to_str().unwrap()]);
        digests.push(serving(&server));
    }
    let listed = server.cli_ok(&["plugin", "list", "--versions"]);
    let quota = listed.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let quota: Vec<_> =
        quota.filter(|fields| fields[0] == "quota").map(|fields| (fields[2], fields[3])).collect();
    let expected = [("serving", &digests[2]), ("superseded", &digests[1]), ("superseded", &digests[0])];
    assert_eq!(quota, expected.map(|(state, digest)| (state, digest.as_str())), "{listed}");
    assert_eq!(server.cli(&["plugin", "rollback", "quota", "--to", &shipped_digest]).status.code(), Some(1));
    server.cli_ok(&["plugin", "rollback", "quota", "--to", &digests[0]]);
    assert_eq!(serving(&server), digests[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_grants_no_more_than_before_unless_it_is_told_to() {
    let server = Setup::demo().config("[kv.notes]").start();
    let file = server.home().join("guest.wasm");
    let manifest = server.home().join("guest.toml");
    std::fs::write(&file, Guest::new().kv("notes").build()).unwrap();
    let push = |access: &str, more: &[&str]| {
        std::fs::write(&manifest, format!("name = \"guest\"\n[grants.kv]\nnotes = \"{access}\"\n")).unwrap();
        let [file, manifest] = [&file, &manifest].map(|path| path.to_str().unwrap());
        let output = server.cli(&[&["plugin", "push", file, "--manifest", manifest], more].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(push("read", &[]).0, Some(0), "a new plugin is granted what its manifest says");
    let (code, said) = push("read-write", &[]);
    assert!(code == Some(1) && said.contains("kv.notes = \"read-write\"; push it with --grant"), "{said}");
    assert!(server.cli_ok(&["plugin", "inspect", "guest"]).contains("kv.notes = \"read\""));
    assert_eq!(push("read-write", &["--grant"]).0, Some(0));
    assert_eq!(push("read", &[]).0, Some(0), "less needs no word");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pushed_version_serves_after_a_restart() {
    let (_upstream, mut server) = started().await;
    let other = server.home().join("quota.wasm");
    let mut bytes = std::fs::read(shipped("quota")).unwrap();
    bytes.extend_from_slice(&[0, 5, 4, b't', b'e', b's', b't']);
    std::fs::write(&other, bytes).unwrap();
    server.cli_ok(&["plugin", "push", other.to_str().unwrap()]);
    let pushed = serving(&server);
    server.crash_and_restart();
    assert_eq!(serving(&server), pushed);
}

/// Pushes `bytes` as quota: refused with exit code 1 and every word of `reason`, and quota still serves.
async fn refused(server: &Server, bytes: &[u8], reason: &[&str]) {
    let before = serving(server);
    let file = server.home().join("quota.wasm");
    std::fs::write(&file, bytes).unwrap();
    let output = push(server, &file);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    for word in reason {
        assert!(message.contains(word), "{word:?} is not in the reason: {message}");
    }
    assert_eq!(serving(server), before);
    let client = server.client(&server.key("user", &["--rpm", "1"]));
    assert_eq!(client.chat("gpt-test").await.status, 200);
    assert_eq!(client.chat("gpt-test").await.status, 429, "quota no longer limits");
}

fn push(server: &Server, file: &Path) -> std::process::Output {
    server.cli(&["plugin", "push", file.to_str().unwrap()])
}

/// The digest of the quota version that serves.
fn serving(server: &Server) -> String {
    let query = "SELECT digest FROM plugin_generations WHERE name = 'quota' AND state = 'serving'";
    let rows = server.sql(query);
    assert_eq!(rows.len(), 1, "one version serves: {rows:?}");
    rows[0][0].clone()
}
