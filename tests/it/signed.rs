//! Once keys are configured, what nobody trusted has signed does not run, wherever it comes from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::component::shipped;
use crate::support::{Guest, Server, Setup};

/// What a server under test trusts: a key, made by the command line, that is in a folder of its own.
struct Release {
    folder: tempfile::TempDir,
}

impl Release {
    fn new() -> Release {
        Release { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a key; the line of the configuration that trusts it.
    fn key(&self, name: &str) -> String {
        let public = self.run(&["keygen", self.path(name).to_str().unwrap()]);
        format!("[plugins]\ntrusted_keys = [\"{public}\"]")
    }

    /// A component with a number that does nothing, signed by a key.
    fn component(&self, version: u32, key: Option<&str>) -> PathBuf {
        let file = self.path("guest.wasm");
        let guest = Guest::new().define(&format!("(global i32 (i32.const {version}))"));
        std::fs::write(&file, guest.build()).unwrap();
        if let Some(key) = key {
            let key = self.path(key);
            self.run(&["sign", file.to_str().unwrap(), "--key", key.to_str().unwrap()]);
        }
        file
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("plugin").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

fn manifest(server: &Server) -> PathBuf {
    let file = server.home().join("guest.toml");
    std::fs::write(&file, "name = \"guest\"\n").unwrap();
    file
}

fn push(server: &Server, file: &Path) -> Result<(), String> {
    let manifest = manifest(server);
    let push = ["plugin", "push", file.to_str().unwrap(), "--manifest", manifest.to_str().unwrap()];
    let output = server.cli(&push);
    let said = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        code => {
            assert_eq!(code, Some(1), "{said}");
            Err(said)
        }
    }
}

/// The digest that serves, and how many generations there are.
fn serving(server: &Server) -> (String, usize) {
    let text = server.cli_ok(&["plugin", "inspect", "guest", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    (found["digest"].as_str().unwrap().to_owned(), found["generations"].as_array().unwrap().len())
}

fn configure(server: &Server, config: &str) {
    std::fs::write(server.home().join("tollgate.toml"), config).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_taken_only_with_the_signature_of_a_trusted_key() {
    let release = Release::new();
    let trusted = release.key("ours");
    release.key("theirs");
    let server = Setup::demo().config(&trusted).start();
    let unsigned = push(&server, &release.component(1, None)).unwrap_err();
    assert!(unsigned.contains("not signed") && unsigned.contains("tollgate plugin sign"), "{unsigned}");
    let other = push(&server, &release.component(1, Some("theirs"))).unwrap_err();
    assert!(other.contains("no key of [plugins] trusted_keys has signed"), "{other}");
    let file = release.component(1, Some("ours"));
    push(&server, &file).unwrap();
    let first = (std::fs::read(&file).unwrap(), serving(&server).0);

    let mut flipped = first.0.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&file, flipped).unwrap();
    let changed = push(&server, &file).unwrap_err();
    assert!(changed.contains("has changed since it was signed"), "{changed}");
    assert_eq!(serving(&server), (first.1.clone(), 1));

    // A signature says whose a version is, and not that it is the newest: an old one again is a push like any other.
    push(&server, &release.component(2, Some("ours"))).unwrap();
    std::fs::write(&file, &first.0).unwrap();
    push(&server, &file).unwrap();
    assert_eq!(serving(&server), (first.1, 3));
    // What comes with the binary needs no signature, and one byte of it more does.
    let quota = shipped("quota");
    server.cli_ok(&["plugin", "push", quota.to_str().unwrap()]);
    let file = release.path("quota.wasm");
    std::fs::write(&file, [std::fs::read(quota).unwrap().as_slice(), b"\0\x05\x04test"].concat()).unwrap();
    assert_eq!(server.cli(&["plugin", "push", file.to_str().unwrap()]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_is_asked_for_its_signature_again_at_each_start() {
    let release = Release::new();
    let (ours, theirs) = (release.key("ours"), release.key("theirs"));
    let mut server = Setup::demo().start();
    push(&server, &release.component(1, Some("ours"))).unwrap();
    let signed = serving(&server).0;
    push(&server, &release.component(2, None)).unwrap();
    assert_ne!(serving(&server).0, signed);

    configure(&server, &ours);
    server.crash_and_restart();
    assert_eq!(serving(&server).0, signed, "an older version that is trusted takes its place");
    assert!(server.log().contains("cannot load what served last"), "{}", server.log());

    // The key is trusted no longer, and there is nothing older: better no server than one without the policy.
    configure(&server, &theirs);
    let said = does_not_start(&mut server);
    assert!(said.contains("no version of plugin \"guest\" can be loaded"), "{said}");
    assert!(said.contains("no key of [plugins] trusted_keys has signed the component"), "{said}");
    configure(&server, &ours);
    server.crash_and_restart();
    assert_eq!(serving(&server).0, signed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_the_configuration_names_needs_a_signature_too() {
    let release = Release::new();
    let trusted = release.key("ours");
    let mut server = Setup::demo().start();
    let manifest = manifest(&server);
    let config = |file: &Path| {
        format!("{trusted}\n[[plugin]]\nname = \"guest\"\nfile = {file:?}\nmanifest = {manifest:?}\n")
    };
    configure(&server, &config(&release.component(1, None)));
    let said = does_not_start(&mut server);
    assert!(said.contains("plugin `guest` from") && said.contains("not signed"), "{said}");
    configure(&server, &config(&release.component(1, Some("ours"))));
    server.crash_and_restart();
    assert_eq!(serving(&server).1, 1);
}

#[test]
fn keys_are_made_once_for_their_owner_alone_and_nothing_else_is_taken_for_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let release = Release::new();
    release.key("ours");
    let key = release.path("ours");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("plugin").args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["keygen", key.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("cannot make"), "{said}");
    assert_eq!(std::fs::read(&key).unwrap(), before);

    let file = release.component(1, None);
    let file = file.to_str().unwrap();
    let (code, said) = run(&["sign", file, "--key", file]);
    assert!(code == Some(2) && said.contains("tollgate plugin keygen"), "{said}");
    let (code, said) = run(&["sign", key.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("not a component"), "{said}");
    release.run(&["sign", file, "--key", key.to_str().unwrap()]);
    let said = release.run(&["inspect", file]);
    assert!(said.contains("signed_by: ed25519:"), "{said}");
}

/// Starts the server anew, which must not succeed; what it said.
fn does_not_start(server: &mut Server) -> String {
    server.crash();
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(server.home().join("tollgate.toml"))
        .arg("--data")
        .arg(server.home().join("data"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "it started");
    String::from_utf8(output.stderr).unwrap()
}
