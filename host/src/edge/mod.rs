//! Makes a project that runs plugins elsewhere: in Cloudflare's Workers, or in Node.
//!
//! Components go into it as they are. What serves them is JavaScript, `plugins/edge/kit`, which comes out of this program as
//! the templates of `plugin new` do; npm turns the components into modules when the project is built.

mod config;
mod kit;
mod served;

use clap::ValueEnum;
use sha2::{Digest as _, Sha256};

use crate::plugin::{Inspection, Manifest};
use crate::project::File;
pub use served::Unserved;

/// What runs a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// Cloudflare's Workers.
    Worker,
    /// Node, with SQLite and files.
    Node,
}

impl Runtime {
    fn folder(self) -> &'static str {
        match self {
            Runtime::Worker => "worker",
            Runtime::Node => "node",
        }
    }
}

/// A plugin that goes into a project.
#[derive(Debug)]
pub struct Part {
    /// The component.
    pub wasm: Vec<u8>,
    /// What it exports and imports.
    pub inspection: Inspection,
    /// What it is granted.
    pub manifest: Manifest,
}

impl Part {
    fn digest(&self) -> String {
        hex::encode(Sha256::digest(&self.wasm))
    }

    fn file(&self) -> String {
        format!("plugins/{}.wasm", self.manifest.name)
    }
}

/// All files of a project with these plugins, which are asked in the order of their manifests. The error says which plugin the
/// kit does not serve, and why.
pub fn files(mut parts: Vec<Part>, runtime: Runtime) -> Result<Vec<File>, Unserved> {
    served::check(&parts)?;
    parts.sort_by_key(|part| part.manifest.order);
    let mut files = kit::files(runtime);
    let stores = config::stores(&parts, runtime);
    files.push(("plugins.json".into(), text(&config::plugins(&parts))));
    files.push(("stores.json".into(), text(&stores)));
    if runtime == Runtime::Worker {
        files.push(("wrangler.json".into(), text(&config::wrangler(&parts, &stores))));
    }
    files.extend(parts.into_iter().map(|part| (part.file().into(), part.wasm)));
    Ok(files)
}

/// The plugins that a runtime trusts with a whole database though they are granted tables of it: `PLUGIN (DATABASE)`.
pub fn trusted(parts: &[Part], runtime: Runtime) -> Vec<String> {
    // In Node SQLite itself asks about each table.
    if runtime == Runtime::Node {
        return Vec::new();
    }
    let grants =
        parts.iter().flat_map(|part| part.manifest.grants.sql.iter().map(move |grant| (part, grant)));
    let tables = grants.filter(|(_, (_, grant))| config::names_tables(grant));
    tables.map(|(part, (database, _))| format!("{} ({database})", part.manifest.name)).collect()
}

fn text(value: &serde_json::Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests;
