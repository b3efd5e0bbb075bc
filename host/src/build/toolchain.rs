//! Finds a Rust toolchain that compiles to WebAssembly, and runs it.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The oldest compiler that knows what the guests need: the `rust-version` of the plugins' workspace.
const OLDEST_MINOR: u32 = 90;

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld";

const NONE_FOUND: &str = "no Rust toolchain that compiles to WebAssembly was found; install one of these:
  with rustup:     rustup target add wasm32-wasip2
  Debian, Ubuntu:  apt-get update && apt-get install -y --no-install-recommends rustc-web cargo-web rust-web-src lld";

/// What is to be compiled.
pub(super) struct Order<'a> {
    /// Packages, each a plugin.
    pub(super) names: Vec<String>,
    /// The folder of the workspace that has them.
    pub(super) folder: &'a Path,
    /// Whether the lock file, where there is one, must fit as it is.
    pub(super) locked: bool,
}

/// A toolchain, and the way to a component with it.
pub(super) struct Toolchain {
    kind: Kind,
    version: String,
    sysroot: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Rustup's, with the target's standard library installed; its linker makes components.
    Wasip2,
    /// Debian's packages for web browsers: the standard library comes as source and is built along.
    DebianWeb,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.version, self.target())
    }
}

impl Toolchain {
    /// The best toolchain of this machine; the error says what to install.
    pub(super) fn find(plugins_dir: &Path) -> anyhow::Result<Toolchain> {
        Self::choose(find_wasip2(plugins_dir), || find_debian(plugins_dir))
    }

    fn choose(
        wasip2: Option<Toolchain>,
        debian: impl FnOnce() -> Option<Toolchain>,
    ) -> anyhow::Result<Toolchain> {
        if let Some(toolchain) = wasip2 {
            return Ok(toolchain);
        }
        match debian() {
            Some(toolchain) if toolchain.minor().is_some_and(|minor| minor < OLDEST_MINOR) => bail!(
                "{} is too old, 1.{OLDEST_MINOR} is needed; run apt-get update and install rustc-web again",
                toolchain.version
            ),
            Some(toolchain) => Ok(toolchain),
            None => bail!(NONE_FOUND),
        }
    }

    /// Compiles plugins; their names with what the compiler made, in the order asked. `progress` hears the name of
    /// each unit that is done.
    pub(super) fn compile(
        &self,
        order: &Order<'_>,
        progress: &dyn Fn(&str),
    ) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut cargo = self.cargo(order);
        let mut child = cargo.spawn().context("cannot start cargo")?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("cargo has no output");
        };
        let diagnostics = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut artifacts = Vec::new();
        for line in BufReader::new(stdout).lines() {
            let Ok(artifact) = serde_json::from_str::<Artifact>(&line?) else { continue };
            progress(&artifact.target.name);
            artifacts.push(artifact);
        }
        let status = child.wait().context("cannot wait for cargo")?;
        if !status.success() {
            bail!("cargo failed:\n{}", diagnostics.join().unwrap_or_default().trim_end());
        }
        order.names.iter().map(|name| Ok((name.clone(), module_of(name, &artifacts)?))).collect()
    }

    /// Paths that would tell where a component was built.
    pub(super) fn machine_paths(&self, plugins_dir: &Path) -> Vec<String> {
        let mut paths: Vec<String> = self.remapped(plugins_dir).into_iter().map(|(path, _)| path).collect();
        paths.extend(std::env::home_dir().map(|home| format!("{}/", home.display())));
        paths
    }

    fn target(&self) -> &'static str {
        match self.kind {
            Kind::Wasip2 => "wasm32-wasip2",
            Kind::DebianWeb => "wasm32-unknown-unknown",
        }
    }

    fn minor(&self) -> Option<u32> {
        self.version.split('.').nth(1)?.parse().ok()
    }

    fn cargo(&self, Order { names, folder, locked }: &Order<'_>) -> Command {
        let mut cargo = match self.kind {
            Kind::Wasip2 => Command::new("cargo"),
            Kind::DebianWeb => Command::new(DEBIAN_CARGO),
        };
        // What the calling cargo or a developer's shell set is for native code.
        for variable in ["CARGO", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR"]
        {
            cargo.env_remove(variable);
        }
        cargo.args(["build", "--release", "--quiet", "--message-format=json-render-diagnostics"]);
        cargo.args(["--target", self.target()]);
        if *locked && folder.join("Cargo.lock").is_file() {
            cargo.arg("--locked");
        }
        names.iter().for_each(|name| {
            cargo.args(["--package", name]);
        });
        if self.kind == Kind::DebianWeb {
            cargo.arg("-Zbuild-std=std,panic_abort");
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
        }
        let remaps = self.remapped(folder);
        let flags: Vec<String> =
            remaps.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        cargo.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        cargo
    }

    /// Folders that would be named in panic messages, with what stands there instead.
    fn remapped(&self, plugins_dir: &Path) -> Vec<(String, &'static str)> {
        let mut remapped = vec![
            (format!("{}/lib/rustlib/src/rust", self.sysroot), "rust"),
            (plugins_dir.display().to_string(), "plugins"),
        ];
        if let Some(folder) = cargo_home() {
            remapped.push((folder.display().to_string(), "cargo"));
        }
        remapped
    }
}

#[derive(Deserialize)]
struct Artifact {
    target: Target,
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn module_of(name: &str, artifacts: &[Artifact]) -> anyhow::Result<Vec<u8>> {
    let crate_name = name.replace('-', "_");
    let path = artifacts
        .iter()
        .filter(|artifact| artifact.target.name.replace('-', "_") == crate_name)
        .flat_map(|artifact| &artifact.filenames)
        .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .with_context(|| {
            format!("cargo made no wasm of {name}; its [lib] needs crate-type = [\"cdylib\"]")
        })?;
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn find_wasip2(plugins_dir: &Path) -> Option<Toolchain> {
    let library = ask("rustc", &["--print", "target-libdir", "--target", "wasm32-wasip2"], plugins_dir)?;
    if !Path::new(&library).is_dir() {
        return None;
    }
    toolchain(Kind::Wasip2, "rustc", plugins_dir)
}

fn find_debian(plugins_dir: &Path) -> Option<Toolchain> {
    let toolchain = toolchain(Kind::DebianWeb, DEBIAN_RUSTC, plugins_dir)?;
    let library = Path::new(&toolchain.sysroot).join("lib/rustlib/src/rust/library/std");
    let complete =
        library.is_dir() && Path::new(DEBIAN_CARGO).is_file() && Path::new(DEBIAN_LINKER).is_file();
    complete.then_some(toolchain)
}

fn toolchain(kind: Kind, rustc: &str, plugins_dir: &Path) -> Option<Toolchain> {
    let version = ask(rustc, &["--version"], plugins_dir)?;
    // The version alone, `rustc 1.96.0`, without the commit and the vendor.
    let version = version.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let sysroot = ask(rustc, &["--print", "sysroot"], plugins_dir)?;
    Some(Toolchain { kind, version, sysroot })
}

fn ask(program: &str, args: &[&str], folder: &Path) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned())
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(kind: Kind, version: &str) -> Toolchain {
        Toolchain { kind, version: version.to_owned(), sysroot: String::new() }
    }

    #[test]
    fn without_a_toolchain_both_ways_to_one_are_told() {
        let Err(error) = Toolchain::choose(None, || None) else { panic!("found one") };
        let error = error.to_string();
        assert!(error.contains("rustup target add wasm32-wasip2"), "{error}");
        assert!(error.contains("apt-get install -y --no-install-recommends rustc-web cargo-web"), "{error}");
    }

    #[test]
    fn rustups_comes_first_and_an_old_one_of_debian_is_refused() {
        let rustup = toolchain(Kind::Wasip2, "rustc 1.95.0");
        let chosen = Toolchain::choose(Some(rustup), || panic!("not asked")).ok().unwrap();
        assert_eq!(chosen.to_string(), "rustc 1.95.0 wasm32-wasip2");
        let Err(error) = Toolchain::choose(None, || Some(toolchain(Kind::DebianWeb, "rustc 1.63.0"))) else {
            panic!("an old one was taken");
        };
        assert!(error.to_string().contains("too old"), "{error}");
    }
}
