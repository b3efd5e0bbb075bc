//! What a component needs at least, read off what it imports and what it was made by.

use std::collections::BTreeSet;

use wasmparser::{KnownCustom, Payload};

use super::component::{
    BLOBSTORE, BLOBSTORE_CONTAINER, Inspection, KEYVALUE_ATOMICS, KEYVALUE_BATCH, KEYVALUE_STORE,
    STORAGE_BLOB, STORAGE_CACHE, STORAGE_KV, STORAGE_SQL, STORAGE_VECTOR,
};
use super::manifest::Access;

/// Tables of the manifest's grants, interfaces that they open, and the functions of those which only read.
const KINDS: [(&str, &str, &[&str]); 10] = [
    ("grants.cache", STORAGE_CACHE, &["open", "get", "get-many", "stats"]),
    ("grants.kv", STORAGE_KV, &["open", "get", "get-many", "exists", "list-keys", "read"]),
    ("grants.kv", KEYVALUE_STORE, &["open", "get", "exists", "list-keys"]),
    ("grants.kv", KEYVALUE_ATOMICS, &["new", "current"]),
    ("grants.kv", KEYVALUE_BATCH, &["get-many"]),
    ("grants.sql", STORAGE_SQL, &["open", "query"]),
    ("grants.blob", STORAGE_BLOB, &["open", "get", "head", "list-objects", "read", "info", "range"]),
    ("grants.blob", BLOBSTORE, &["get-container", "container-exists"]),
    (
        "grants.blob",
        BLOBSTORE_CONTAINER,
        &[
            "name",
            "info",
            "get-data",
            "list-objects",
            "has-object",
            "object-info",
            "read-stream-object-names",
            "skip-stream-object-names",
        ],
    ),
    ("grants.vector", STORAGE_VECTOR, &["open", "query", "get-by-ids", "describe"]),
];

/// A grant that a component cannot do without. Which stores it opens nobody can tell: it says so only when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The table of the manifest that must have a grant.
    pub table: &'static str,
    /// How far the grant must go for all that the component could call.
    pub access: Access,
}

impl Inspection {
    /// The grants that it cannot do without.
    pub fn needs(&self) -> Vec<Need> {
        let mut needs: Vec<Need> = Vec::new();
        for (table, interface, reading) in KINDS {
            let Some(import) = self.imports.iter().find(|import| import.interface == interface) else {
                continue;
            };
            let reads = import.functions.iter().all(|name| reading.contains(&short(name)));
            let access = if reads { Access::Read } else { Access::ReadWrite };
            match needs.iter_mut().find(|need| need.table == table) {
                Some(_) if reads => {}
                Some(need) => need.access = access,
                None => needs.push(Need { table, access }),
            }
        }
        needs
    }

    /// The packages of interfaces, with their versions, that it exports hooks of or imports.
    pub fn packages(&self) -> BTreeSet<String> {
        let imported = self.imports.iter().map(|import| package(&import.interface));
        imported.chain(self.hooks.interfaces().map(package)).flatten().collect()
    }
}

/// `tollgate:policy@0.1.0` of `tollgate:policy/jobs@0.1.0`.
fn package(interface: &str) -> Option<String> {
    let (package, rest) = interface.split_once('/')?;
    let version = rest.split_once('@').map(|(_, version)| format!("@{version}")).unwrap_or_default();
    Some(format!("{package}{version}"))
}

/// `get` of `[method]store.get`.
pub(crate) fn short(function: &str) -> &str {
    function.rsplit(['.', ']']).next().unwrap_or(function)
}

/// The tools that a component says it was made by, with their versions, in all of its parts.
pub fn made_by(wasm: &[u8]) -> BTreeSet<String> {
    let mut makers = BTreeSet::new();
    // What cannot be read says nothing; whether it is a good component is asked elsewhere.
    for payload in wasmparser::Parser::new(0).parse_all(wasm).flatten() {
        let Payload::CustomSection(section) = payload else { continue };
        let KnownCustom::Producers(fields) = section.as_known() else { continue };
        for field in fields.into_iter().flatten() {
            for value in field.values.into_iter().flatten() {
                makers.insert(format!("{} {}", value.name, value.version).trim_end().to_owned());
            }
        }
    }
    makers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Engine;
    use crate::plugin::component::Import;

    fn shipped(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/../plugins/prebuilt/{name}.wasm", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn inspection(name: &str) -> Inspection {
        let engine = Engine::new().unwrap();
        Inspection::of(&engine, &engine.compile(&shipped(name)).unwrap()).unwrap()
    }

    #[test]
    fn what_the_prebuilt_plugins_need_is_what_they_are_granted() {
        let quota = inspection("quota");
        assert_eq!(quota.needs(), [Need { table: "grants.kv", access: Access::ReadWrite }]);
        let ingestion = inspection("ingestion");
        assert_eq!(ingestion.needs(), [Need { table: "grants.sql", access: Access::ReadWrite }]);
        let packages = ["tollgate:policy@0.1.0", "tollgate:storage@0.1.0"];
        assert!(ingestion.packages().iter().any(|found| found == packages[0]), "{:?}", ingestion.packages());
        assert!(made_by(&shipped("quota")).iter().any(|tool| tool.starts_with("wit-component ")));
    }

    #[test]
    fn who_only_reads_needs_no_more() {
        let functions = ["[static]store.open", "[method]store.get"].map(str::to_owned).to_vec();
        let import = Import { interface: STORAGE_KV.to_owned(), functions };
        let mut inspection = Inspection { hooks: Default::default(), imports: vec![import] };
        assert_eq!(inspection.needs(), [Need { table: "grants.kv", access: Access::Read }]);
        let functions = ["[static]container.open", "[method]container.read", "[method]reader.read"];
        let functions = functions.map(str::to_owned).to_vec();
        inspection.imports.push(Import { interface: STORAGE_BLOB.to_owned(), functions });
        assert_eq!(inspection.needs()[1], Need { table: "grants.blob", access: Access::Read });
        inspection.imports[1].functions.push("[method]container.write".to_owned());
        assert_eq!(inspection.needs()[1], Need { table: "grants.blob", access: Access::ReadWrite });
        inspection.imports.pop();
        inspection.imports[0].functions.push("[method]store.swap".to_owned());
        assert_eq!(inspection.needs(), [Need { table: "grants.kv", access: Access::ReadWrite }]);
        inspection.imports[0].functions.pop();
        let functions = ["[static]cas.new", "swap"].map(str::to_owned).to_vec();
        inspection.imports.push(Import { interface: KEYVALUE_ATOMICS.to_owned(), functions });
        assert_eq!(inspection.needs(), [Need { table: "grants.kv", access: Access::ReadWrite }]);
        let functions = vec!["[method]index.query".to_owned()];
        inspection.imports = vec![Import { interface: STORAGE_VECTOR.to_owned(), functions }];
        assert_eq!(inspection.needs(), [Need { table: "grants.vector", access: Access::Read }]);
        inspection.imports[0].functions.push("[method]index.upsert".to_owned());
        assert_eq!(inspection.needs(), [Need { table: "grants.vector", access: Access::ReadWrite }]);
        let functions = vec!["[method]container.get-data".to_owned()];
        inspection.imports = vec![Import { interface: BLOBSTORE_CONTAINER.to_owned(), functions }];
        assert_eq!(inspection.needs(), [Need { table: "grants.blob", access: Access::Read }]);
        let functions = vec!["copy-object".to_owned()];
        inspection.imports.push(Import { interface: BLOBSTORE.to_owned(), functions });
        assert_eq!(inspection.needs(), [Need { table: "grants.blob", access: Access::ReadWrite }]);
        let functions = vec!["[method]cache.stats".to_owned()];
        inspection.imports = vec![Import { interface: STORAGE_CACHE.to_owned(), functions }];
        assert_eq!(inspection.needs(), [Need { table: "grants.cache", access: Access::Read }]);
    }
}
