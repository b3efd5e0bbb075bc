//! Which plugins the kit serves.

use std::collections::BTreeSet;

use thiserror::Error;

use super::Part;
use crate::plugin::ComponentError;

/// Why a plugin cannot go into a project.
#[derive(Debug, Error)]
pub enum Unserved {
    /// There is none.
    #[error("no plugin is named")]
    None,
    /// The manifest and the component do not fit together.
    #[error("plugin {0}: {1}")]
    Unfit(String, ComponentError),
    /// It answers HTTP requests itself.
    #[error("plugin {0} answers HTTP requests itself, which only Tollgate serves; take one with other hooks")]
    Http(String),
    /// An interface that the kit does not have.
    #[error(
        "plugin {plugin} imports {import}, which only Tollgate serves; a project has tollgate:storage, wasi:config and wasi:logging"
    )]
    Import {
        /// The plugin.
        plugin: String,
        /// What it imports.
        import: String,
    },
    /// Two of one name.
    #[error("two plugins are called {0}; name is a key of plugin.toml")]
    Twice(String),
    /// Two that take the events.
    #[error("plugins {0} and {1} both have the hook ingestion; only one can take the events")]
    TwoIngest(String, String),
}

/// Interfaces that the kit has: our stores, and what the runtimes of languages import.
const SERVED: [&str; 8] = [
    "tollgate:storage/",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:config/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:logging/",
    "wasi:random/",
];

/// Refuses plugins that would not run, or not as their manifests say.
pub(super) fn check(parts: &[Part]) -> Result<(), Unserved> {
    if parts.is_empty() {
        return Err(Unserved::None);
    }
    let mut names = BTreeSet::new();
    for Part { inspection, manifest, .. } in parts {
        let name = || manifest.name.clone();
        inspection.check_manifest(manifest).map_err(|error| Unserved::Unfit(name(), error))?;
        if inspection.hooks.http {
            return Err(Unserved::Http(name()));
        }
        let imports = inspection.imports.iter().map(|import| &import.interface);
        let mut others = imports.filter(|import| !SERVED.iter().any(|served| import.starts_with(served)));
        if let Some(import) = others.next() {
            return Err(Unserved::Import { plugin: name(), import: import.clone() });
        }
        if !names.insert(&manifest.name) {
            return Err(Unserved::Twice(name()));
        }
    }
    let mut ingest = parts.iter().filter(|part| part.inspection.hooks.ingestion);
    match (ingest.next(), ingest.next()) {
        (Some(one), Some(other)) => {
            Err(Unserved::TwoIngest(one.manifest.name.clone(), other.manifest.name.clone()))
        }
        _ => Ok(()),
    }
}
