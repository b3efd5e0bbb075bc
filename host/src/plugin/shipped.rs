//! The plugins that come with the binary.

use super::Manifest;

/// Who pushed a shipped plugin, in the tables.
pub const PUSHED_BY: &str = "shipped";

/// A plugin as it is built into the binary.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// The component.
    pub wasm: &'static [u8],
    /// Its `plugin.toml`.
    pub manifest: &'static str,
}

impl Shipped {
    /// Whether it is the plugin of this name.
    pub(super) fn is(&self, name: &str) -> bool {
        Manifest::parse(self.manifest).is_ok_and(|manifest| manifest.name == name)
    }
}

macro_rules! shipped {
    ($name:literal) => {
        Shipped {
            wasm: include_bytes!(concat!("../../../plugins/prebuilt/", $name, ".wasm")),
            manifest: include_str!(concat!("../../../plugins/", $name, "/plugin.toml")),
        }
    };
}

/// Served on a fresh data directory. One that an operator never replaced follows the binary: a later binary's takes its
/// place at the start. One that an operator pushed or rolled back stays as it is.
pub const SHIPPED: &[Shipped] =
    &[shipped!("blacklist"), shipped!("quota"), shipped!("ingestion"), shipped!("sync")];
