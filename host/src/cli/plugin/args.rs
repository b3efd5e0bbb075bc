//! What can be written behind `tollgate plugin`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::duration::duration;
use crate::edge::Runtime;
use crate::plugin::Share;
use crate::project::{Hook, Language};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PluginCommand {
    /// Make the project of a new plugin, in a folder of its name.
    #[command(after_help = "\
The folder has all that the plugin is built with, and a README that says how to go on.

Examples:
  tollgate plugin new hello
  tollgate plugin new hello --hook jobs
  tollgate plugin new hello --hook http
  tollgate plugin new hello --lang js")]
    New(PluginNew),
    /// Build plugins from source into components.
    #[command(after_help = "\
In a plugin's folder it builds that plugin into NAME.wasm there; beside or in a folder of plugins those of it, into its
prebuilt/. Rust is compiled, JavaScript and Python are put into a component together with what runs them. It says what to install
when there is nothing to build with.

Examples:
  tollgate plugin build
  tollgate plugin build quota blacklist")]
    Build {
        /// Plugins of a folder of plugins to build; none: all.
        names: Vec<String>,
    },
    /// Run a plugin's cases: tests written as data, in the real runtime, without a server.
    #[command(after_help = "\
A case is a TOML file in cases/: what is in the stores, which calls come when, what each is to answer, what is left behind.
cases/README.md of a new plugin is the manual. Exit code 1: a case failed.

Examples:
  tollgate plugin test                            the built plugin of the folder that this is
  tollgate plugin test --only closed
  tollgate plugin test hello.wasm --manifest hello.toml --cases hello-cases")]
    Test(PluginTest),
    /// Measure what a plugin's calls cost, in the real runtime, without a server.
    #[command(after_help = "\
The calls of its cases are made again and again, two minutes later each time, one after the other: what half and 99 of 100 of them
take, in microseconds, with an instance that is there already, what it takes to start one, and its memory. Beside it the same for a
policy that does nothing. Writes to kv stores do not wait for the disk.

Examples:
  tollgate plugin bench                           the built plugin of the folder that this is
  tollgate plugin bench --only closed --seconds 10
  tollgate plugin bench hello.wasm --manifest hello.toml --cases hello-cases --json")]
    Bench(PluginBench),
    /// Show what a component is, or what a plugin of the server does.
    #[command(after_help = "\
Of a component: size, digest, hooks, contracts with their versions, imports with the functions it may call, the grants it
cannot do without, and what made it. Of a plugin of the server: which version serves, its grants, and what it has done.

Examples:
  tollgate plugin inspect                         the built plugin of the folder that this is
  tollgate plugin inspect hello.wasm --json
  tollgate plugin inspect quota                   the one that the server runs")]
    Inspect {
        /// A component (its file or a plugin's folder), or the name of a plugin of the server; none: this folder.
        what: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a component without a server: its imports, hooks and, with a manifest, its grants and its behaviour.
    #[command(after_help = "\
With a manifest every hook is called with random valid input, in the real runtime over empty stores: a trap, an overrun or
an answer that no server takes fails the check, and names the seed that brings it back.

Examples:
  tollgate plugin check                           the built plugin of the folder that this is
  tollgate plugin check quota.wasm --manifest quota.toml")]
    Check {
        /// The component, or a plugin's folder with it; none: this folder.
        path: Option<PathBuf>,
        /// Its manifest.
        #[arg(long, value_name = "FILE", requires = "path")]
        manifest: Option<PathBuf>,
        /// Rounds of random calls of each hook.
        #[arg(long, value_name = "N", default_value_t = 100)]
        rounds: u32,
        /// The seed of the random calls; none: a new one.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
    },
    /// Build, test and push the plugin of this folder at every change, until interrupted.
    #[command(after_help = "\
What does not build, fails a case or is refused is told, and the version before serves on.

Example:
  tollgate plugin watch")]
    Watch,
    /// Push a component to the server; returns when it serves.
    #[command(after_help = "\
Without a manifest the present grants stay; one that grants more is refused without --grant. Pushing the running digest makes a new
generation.

With --canary a policy answers a share of the requests first, each from its admission to its settlement; both versions have the
same stores. A call that fails there is answered by the present version. The canary is taken back by itself when it traps, when it
fails more than twice as often as the present version or when its slowest calls take more than twice as long.

Examples:
  tollgate plugin push                            the built plugin of the folder that this is
  tollgate plugin push quota.wasm
  tollgate plugin push target/my_quota.wasm --name quota --manifest plugin.toml
  tollgate plugin push quota.wasm --canary 5% --for 10m")]
    Push(PluginPush),
    /// Make a key to sign components with; prints the public key, which servers trust.
    #[command(after_help = "\
A server whose tollgate.toml has [plugins] trusted_keys takes components only that one of those keys has signed, beside those
that it comes with. Keep the file where components are released, and away from servers.

Example:
  tollgate plugin keygen release.key")]
    Keygen {
        /// The file of the secret key, which must not be there yet; only its owner can read it.
        file: PathBuf,
    },
    /// Sign a component, in its file.
    #[command(after_help = "\
The signature is a part of the component, which runs as before, and has another digest. Several can sign one; who builds it
again begins with none. It speaks for the component, and not for its manifest, or for its being the newest.

Examples:
  tollgate plugin sign --key release.key          the built plugin of the folder that this is
  tollgate plugin sign hello.wasm --key release.key")]
    Sign {
        /// The component, or a plugin's folder with it; none: this folder.
        path: Option<PathBuf>,
        /// The file of the secret key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// List the plugins, or with --versions what is kept of each.
    #[command(after_help = "\
A version is brought back with `tollgate plugin rollback NAME --to DIGEST`. How many are kept says [plugins] keep_versions.

Examples:
  tollgate plugin list
  tollgate plugin list --versions
  tollgate plugin list --json")]
    List {
        /// A line for each push and rollback of each plugin, as far as they are kept.
        #[arg(long, conflicts_with = "json")]
        versions: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the last lines that a plugin wrote, and those of the host about it.
    #[command(after_help = "\
The server keeps some hundred lines of each plugin in memory, at most 50 for each second; its own log has them too.

Examples:
  tollgate plugin logs hello
  tollgate plugin logs hello --follow")]
    Logs {
        /// The plugin's name.
        name: String,
        /// Go on with the lines that come, until interrupted.
        #[arg(long, short)]
        follow: bool,
    },
    /// Make a project that runs plugins elsewhere: as a Cloudflare Worker, or in Node.
    #[command(after_help = "\
The components go into the project as they are, and npm makes modules of them there (`npm install` needs its registry). Node 22.12
runs a Worker's tests, Node 24.10 everything. The project has a README; what another runtime cannot promise is told in
plugins/edge/README.md.

Examples:
  tollgate plugin export edge --to worker              the built plugin of the folder that this is
  tollgate plugin export edge --to worker blacklist quota
  tollgate plugin export local --to node hello.wasm --manifest hello.toml
  cd edge && npm install && npm test && npm start")]
    Export(PluginExport),
    /// Change settings of a plugin, without a push; returns when it serves with them.
    #[command(after_help = "\
They are what [config] of its manifest says. A later push that brings a manifest brings its own settings. No place for secrets.

Examples:
  tollgate plugin set hello greeting=Welcome
  tollgate plugin set hello greeting=Hello --unset footer")]
    Set {
        /// The plugin's name.
        name: String,
        /// Settings and their new values.
        #[arg(value_name = "KEY=VALUE", value_parser = setting, required_unless_present = "unset")]
        settings: Vec<(String, String)>,
        /// A setting that goes; again for each of them.
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
    /// Make a canary the version that serves.
    #[command(after_help = "Example:\n  tollgate plugin promote quota")]
    Promote {
        /// The plugin's name.
        name: String,
    },
    /// Bring back an earlier version, or take back a canary.
    #[command(after_help = "\
While a canary has a share of the requests, it is what a rollback without --to undoes.

Examples:
  tollgate plugin rollback quota
  tollgate plugin rollback quota --to 3f1c…")]
    Rollback {
        /// The plugin's name.
        name: String,
        /// Digest of the version, or how it starts; none: the one before. Of several with it the newest that was not rolled back.
        #[arg(long, value_name = "DIGEST")]
        to: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PluginNew {
    /// The plugin's name and the folder's: a-z, 0-9 and '-', a letter first.
    pub(in crate::cli) name: String,
    /// What it does at first, to be changed into what it is to do.
    #[arg(long, value_enum, default_value = "admission")]
    pub(in crate::cli) hook: Hook,
    /// The language it is written in.
    #[arg(long, value_enum, default_value = "rust")]
    pub(in crate::cli) lang: Language,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PluginExport {
    /// The folder to make.
    #[arg(value_name = "DIR")]
    pub(in crate::cli) folder: PathBuf,
    /// Components, plugins' folders, or names of plugins that come with Tollgate; none: this folder.
    #[arg(value_name = "PLUGIN")]
    pub(in crate::cli) plugins: Vec<String>,
    /// What is to run it.
    #[arg(long, value_enum, value_name = "RUNTIME")]
    pub(in crate::cli) to: Runtime,
    /// The manifest of a component that is named by its file; again for each of them, in their order.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) manifest: Vec<PathBuf>,
}

#[derive(Debug, Default, Args)]
pub(in crate::cli) struct PluginPush {
    /// The component, or a plugin's folder with it and its manifest; none: this folder.
    pub(in crate::cli) path: Option<PathBuf>,
    /// The plugin's name; none: the file's stem.
    #[arg(long, value_name = "NAME", requires = "path")]
    pub(in crate::cli) name: Option<String>,
    /// A manifest to go with it; none: the present one stays.
    #[arg(long, value_name = "FILE", requires = "path")]
    pub(in crate::cli) manifest: Option<PathBuf>,
    /// Grant what its manifest asks for beyond the present grants.
    #[arg(long)]
    pub(in crate::cli) grant: bool,
    /// Let it answer a share of the requests beside the present version, such as 5%; at most 50%.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(in crate::cli) canary: Option<String>,
    /// With --canary: serve after so long without being worse than the present version, such as 10m; none: wait for `promote`.
    #[arg(long = "for", value_name = "TIME", requires = "canary", value_parser = duration)]
    pub(in crate::cli) promote_after: Option<Duration>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    if key.is_empty() { Err("write KEY=VALUE".to_owned()) } else { Ok((key.to_owned(), value.to_owned())) }
}

/// A share as it is written, so that a wrong one is told before the component is sent.
fn share(text: &str) -> Result<String, String> {
    Share::parse(text).map(|share| share.to_string())
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PluginBench {
    #[command(flatten)]
    pub(in crate::cli) test: PluginTest,
    /// How long each of the two is called.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(in crate::cli) seconds: u16,
    /// Print JSON.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Default, Args)]
pub(in crate::cli) struct PluginTest {
    /// The component, or a plugin's folder with it; none: this folder.
    pub(in crate::cli) path: Option<PathBuf>,
    /// Its manifest; none: plugin.toml beside it.
    #[arg(long, value_name = "FILE", requires = "path")]
    pub(in crate::cli) manifest: Option<PathBuf>,
    /// The folder of the cases; none: cases/ beside the component.
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) cases: Option<PathBuf>,
    /// Only cases whose name has this in it.
    #[arg(long, value_name = "PART")]
    pub(in crate::cli) only: Option<String>,
}
