//! The guest crate and the contracts, as they were when this program was built.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};
use include_dir::{Dir, include_dir};
use toml::{Table, Value};

use super::File;

static GUEST_SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/guest/src");
static CONTRACTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit");
const GUEST_PACKAGE: &str = include_str!("../../../plugins/guest/Cargo.toml");
const WORKSPACE: &str = include_str!("../../../plugins/Cargo.toml");
const LOCK_FILE: &str = include_str!("../../../plugins/Cargo.lock");

/// The guest crate's name.
const GUEST: &str = "tollgate-guest";

/// Where it lies in a project; its sources look for the contracts two folders up.
const GUEST_FOLDER: &str = "vendor/tollgate-guest";

const HEAD: &str = concat!(
    "# The guest crate of Tollgate ",
    env!("CARGO_PKG_VERSION"),
    "; `tollgate plugin new` wrote it.\n\n"
);

/// The guest crate as files of a project.
pub(super) fn guest() -> anyhow::Result<Vec<File>> {
    let mut files = vec![(Path::new(GUEST_FOLDER).join("Cargo.toml"), guest_package()?.into_bytes())];
    collect(&GUEST_SOURCES, &Path::new(GUEST_FOLDER).join("src"), &mut files);
    Ok(files)
}

/// The contracts as files of a project, in this folder of it.
pub(super) fn contracts(folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    collect(&CONTRACTS, Path::new(folder), &mut files);
    files
}

/// The lock file of a project `name`: the versions that Tollgate's own plugins are built with, so that a project that was
/// built once anywhere builds without a registry, and all of them alike.
pub(super) fn lock_file(name: &str) -> anyhow::Result<String> {
    let Some((head, _)) = LOCK_FILE.split_once("\n[[package]]") else { bail!("the lock file is empty") };
    let own = format!("name = \"{name}\"\nversion = \"0.1.0\"\ndependencies = [\n \"{GUEST}\",\n]");
    let mut packages = dependencies()?;
    packages.push((name.to_owned(), own));
    packages.sort();
    let packages = packages.into_iter().map(|(_, text)| format!("\n[[package]]\n{text}\n"));
    Ok(format!("{head}{}", packages.collect::<String>()))
}

/// Whether a project has a package of this name among its dependencies.
pub(super) fn is_dependency(name: &str) -> anyhow::Result<bool> {
    Ok(dependencies()?.iter().any(|(found, _)| found == name))
}

/// Everything that the guest crate needs, itself included, by name, with its lines of the lock file.
fn dependencies() -> anyhow::Result<Vec<(String, String)>> {
    let locked = locked_packages()?;
    let mut needed = BTreeSet::new();
    let mut next = vec![GUEST.to_owned()];
    while let Some(name) = next.pop() {
        let found = locked.iter().filter(|package| package.name == name);
        next.extend(found.flat_map(|package| package.needs.clone()).filter(|name| !needed.contains(name)));
        needed.insert(name);
    }
    let kept = locked.into_iter().filter(|package| needed.contains(&package.name));
    Ok(kept.map(|package| (package.name, package.text)).collect())
}

struct Locked {
    name: String,
    /// Names of packages; of several versions of one all are kept.
    needs: Vec<String>,
    text: String,
}

fn locked_packages() -> anyhow::Result<Vec<Locked>> {
    LOCK_FILE.split("\n[[package]]\n").skip(1).map(locked_package).collect()
}

fn locked_package(text: &str) -> anyhow::Result<Locked> {
    let table: Table = text.parse().context("cannot read the lock file of the plugins")?;
    let name = table.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let needs = table.get("dependencies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // A dependency is a name, with a version behind it where there are several.
    let needs = needs.iter().filter_map(|need| need.as_str()?.split(' ').next().map(str::to_owned)).collect();
    Ok(Locked { name, needs, text: text.trim_end().to_owned() })
}

/// The guest crate's `Cargo.toml` with what it inherits from the workspace of the plugins written out.
fn guest_package() -> anyhow::Result<String> {
    let unreadable = "cannot read the packages of the plugins";
    let mut package: Table = GUEST_PACKAGE.parse().context(unreadable)?;
    let workspace: Table = WORKSPACE.parse().context(unreadable)?;
    let workspace = workspace.get("workspace").and_then(Value::as_table).context(unreadable)?;
    // Examples stay behind.
    package.remove("example");
    resolve(&mut package, "package", workspace)?;
    resolve(&mut package, "dependencies", workspace)?;
    if let Some(targets) = package.get_mut("target").and_then(Value::as_table_mut) {
        for target in targets.iter_mut().filter_map(|(_, target)| target.as_table_mut()) {
            resolve(target, "dependencies", workspace)?;
        }
    }
    if let Some(lints) = workspace.get("lints") {
        package.insert("lints".to_owned(), lints.clone());
    }
    Ok(format!("{HEAD}{}", toml::to_string(&package)?))
}

/// Replaces each `{ workspace = true }` in a section by what the workspace says there.
fn resolve(package: &mut Table, section: &str, workspace: &Table) -> anyhow::Result<()> {
    let Some(fields) = package.get_mut(section).and_then(Value::as_table_mut) else { return Ok(()) };
    for (name, value) in fields.iter_mut() {
        if value.get("workspace").and_then(Value::as_bool) == Some(true) {
            let inherited = workspace.get(section).and_then(|section| section.get(name));
            *value = inherited.with_context(|| format!("the workspace has no {section}.{name}"))?.clone();
        }
    }
    Ok(())
}

fn collect(dir: &Dir<'_>, folder: &Path, files: &mut Vec<File>) {
    let mut found: Vec<File> =
        dir.files().map(|file| (folder.join(file.path()), file.contents().to_vec())).collect();
    found.sort();
    files.extend(found);
    for inner in dir.dirs() {
        collect(inner, folder, files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files below a folder of the repository, by path.
    fn on_disk(folder: &Path, at: &Path, found: &mut Vec<File>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let at = at.join(path.file_name().unwrap());
            if path.is_dir() {
                on_disk(&path, &at, found);
            } else {
                found.push((at, std::fs::read(path).unwrap()));
            }
        }
    }

    /// Fails when the program holds another state than the repository; cargo does not see a file that is new.
    #[test]
    fn the_program_holds_the_guest_crate_and_the_contracts_as_they_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut expected = Vec::new();
        on_disk(&root.join("plugins/guest/src"), &Path::new(GUEST_FOLDER).join("src"), &mut expected);
        on_disk(&root.join("wit"), Path::new("wit"), &mut expected);
        expected.sort();
        let mut found = guest().unwrap();
        found.remove(0);
        found.extend(contracts("wit"));
        found.sort();
        let names = |files: &[File]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "touch host/src/project/vendored.rs and build again");
        assert!(found == expected, "touch host/src/project/vendored.rs and build again");
    }

    #[test]
    fn the_guest_crate_inherits_nothing_any_more() {
        let text = guest_package().unwrap();
        let package: Table = text.parse().unwrap();
        assert!(!text.contains("workspace"), "{text}");
        assert_eq!(package["package"]["name"].as_str(), Some(GUEST));
        assert!(package["dependencies"]["wit-bindgen"]["version"].is_str(), "{text}");
        assert_eq!(package["lints"]["rust"]["unsafe_code"].as_str(), Some("deny"));
    }

    #[test]
    fn the_lock_file_has_what_a_project_needs_and_no_more() {
        let text = lock_file("hello").unwrap();
        let lock: Table = text.parse().unwrap();
        let packages = lock["package"].as_array().unwrap();
        let names: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
        assert!(names.is_sorted(), "{names:?}");
        for there in ["hello", GUEST, "wit-bindgen", "talc", "serde_json"] {
            assert!(names.contains(&there), "no {there}");
        }
        for other in ["quota", "blacklist", "proptest", "rusqlite"] {
            assert!(!names.contains(&other), "{other} is there");
        }
        assert!(text.starts_with("# This file is automatically @generated by Cargo."), "{text}");
    }
}
