//! What a component was made of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const HEAD: &str = "# What the component beside this file was made of; written by `tollgate plugin build`.\n";

/// The stamp of a component, in a file beside it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    /// The SHA-256 of everything that went into it.
    pub(super) inputs: String,
    /// The SHA-256 of the component.
    pub(super) wasm: String,
    /// The compiler that made it; for people, never compared.
    pub(super) toolchain: String,
}

impl Stamp {
    /// The stamp of a component's file; none: there is no stamp, or it cannot be read as one.
    pub(super) fn read(component: &Path) -> anyhow::Result<Option<Stamp>> {
        let path = component.with_extension("stamp");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(toml::from_str(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(super) fn write(&self, component: &Path) -> anyhow::Result<()> {
        let path = component.with_extension("stamp");
        fs::write(&path, format!("{HEAD}{}", toml::to_string(self)?))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The SHA-256 of some bytes, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The SHA-256 of what a plugin is made of: its manifest, package and sources, the shared guest crate, the contracts,
/// and the workspace with its locked dependencies. Names count relative to the folder that all of them are in, so the
/// digest is the same on every machine.
pub(super) fn inputs(name: &str, plugins_dir: &Path) -> anyhow::Result<String> {
    let plugin = plugins_dir.join(name);
    let guest = plugins_dir.join("guest");
    let mut files = Vec::new();
    let roots = [
        ("plugin", plugin.join("plugin.toml")),
        ("plugin", plugin.join("Cargo.toml")),
        ("plugin/src", plugin.join("src")),
        ("guest", guest.join("Cargo.toml")),
        ("guest/src", guest.join("src")),
        ("workspace", plugins_dir.join("Cargo.toml")),
        ("workspace", plugins_dir.join("Cargo.lock")),
        ("wit", plugins_dir.join("../wit")),
    ];
    for (label, path) in roots {
        collect(label, &path, &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for (label, path) in files {
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for part in [label.as_bytes(), &content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Files at or under a path with their names as they count; what is not there does not count.
fn collect(label: &str, path: &Path, files: &mut Vec<(String, PathBuf)>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("cannot read folder {}", path.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            if entry.path().is_dir() {
                collect(&format!("{label}/{name}"), &entry.path(), files)?;
            } else {
                files.push((format!("{label}/{name}"), entry.path()));
            }
        }
    } else if path.is_file() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        files.push((format!("{label}/{name}"), path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) -> PathBuf {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root.join("plugins")
    }

    const FILES: [(&str, &str); 5] = [
        ("plugins/quota/plugin.toml", "name"),
        ("plugins/quota/src/lib.rs", "code"),
        ("plugins/guest/src/lib.rs", "shared"),
        ("plugins/Cargo.lock", "locked"),
        ("wit/kv.wit", "contract"),
    ];

    #[test]
    fn the_digest_does_not_depend_on_place_or_order() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut reversed = FILES;
        reversed.reverse();
        let one = inputs("quota", &write(one.path(), &FILES)).unwrap();
        let two = inputs("quota", &write(two.path(), &reversed)).unwrap();
        assert_eq!(one, two);
    }

    #[test]
    fn every_input_changes_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = vec![inputs("quota", &write(folder.path(), &FILES)).unwrap()];
        for (name, _) in FILES {
            let digest = inputs("quota", &write(folder.path(), &[(name, "changed")])).unwrap();
            assert!(!seen.contains(&digest), "{name} does not count");
            seen.push(digest);
        }
    }

    #[test]
    fn another_plugin_does_not_change_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let before = inputs("quota", &write(folder.path(), &FILES)).unwrap();
        let plugins = write(folder.path(), &[("plugins/sync/src/lib.rs", "other"), ("plugins/target/x", "")]);
        assert_eq!(inputs("quota", &plugins).unwrap(), before);
    }
}
