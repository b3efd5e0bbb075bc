//! Looks into a component: which hooks it exports, what it imports, and whether the manifest grants that.

use std::ops::Range;

use std::fmt;

use thiserror::Error;
use wasmparser::{BinaryReader, ComponentType, ComponentTypeDeclaration, Payload};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::manifest::{Grants, Manifest};
use super::needs::short;
use super::{Engine, limits};

/// Why a component cannot be a plugin.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ComponentError {
    /// Over the size limit.
    #[error("the component has {bytes} bytes; at most {most} are allowed")]
    TooLarge {
        /// Bytes of the component.
        bytes: usize,
        /// Bytes allowed.
        most: usize,
    },
    /// It answers requests, and the manifest does not say where.
    #[error("exports {HANDLER}; say in the manifest where: [http] route = \"/NAME/\"")]
    NoRoute,
    /// The manifest has a route, and the component does not answer requests.
    #[error("the manifest has [http], but the component does not export {HANDLER}")]
    NoHandler,
    /// It answers requests, and others wait for another of its hooks.
    #[error(
        "exports {HANDLER} and {0}: slow clients of the one would keep the other waiting; make two components of it"
    )]
    NotTogether(&'static str),
    /// Not a component, or not a valid one.
    #[error("not a valid component: {0}")]
    Invalid(String),
    /// The system did not let the host compile it.
    #[error("cannot compile it now: {0}")]
    NotCompiled(String),
    /// Components and modules in it, one within another or side by side, are too many.
    #[error("the component holds {what}; at most {most} are allowed")]
    TooManyParts {
        /// What there is too much of.
        what: &'static str,
        /// How many are allowed.
        most: usize,
    },
    /// It exports none of the hooks.
    #[error("exports no hook; known hooks are {}", hook_names())]
    NoHook,
    /// An import that this manifest does not grant.
    #[error("imports {0}, which the manifest does not grant")]
    NotGranted(String),
    /// An interface of which this host has another version.
    #[error("imports {import}, of which this host has another version: {served}")]
    OtherVersion {
        /// What it imports.
        import: String,
        /// What there is.
        served: &'static str,
    },
    /// The manifest grants a store that the host does not have.
    #[error("the manifest grants {kind} {name:?}, which the host does not have")]
    NoSuchStore {
        /// `kv store`, `database`, `blob container`, `vector index` or `cache`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It does not fit the interfaces, or cannot be started.
    #[error("does not fit: {0}")]
    Unfit(String),
}

/// Hooks that a component exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `admit` and `settle`.
    pub admission: bool,
    /// `ingest`.
    pub ingestion: bool,
    /// `schedule` and `run`.
    pub jobs: bool,
    /// `init`.
    pub lifecycle: bool,
    /// `handle` of `wasi:http/incoming-handler`.
    pub http: bool,
}

impl Hooks {
    /// The names of the hooks there are, for people.
    pub fn names(self) -> Vec<&'static str> {
        self.there().map(|(name, _)| name).collect()
    }

    /// The interfaces of the hooks there are, with their versions.
    pub(crate) fn interfaces(self) -> impl Iterator<Item = &'static str> {
        self.there().map(|(_, interface)| interface)
    }

    fn there(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let all = [self.admission, self.ingestion, self.jobs, self.lifecycle, self.http];
        HOOKS.into_iter().zip(all).filter(|(_, there)| *there).map(|(hook, _)| hook)
    }
}

/// What a component exports and imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its hooks; at least one.
    pub hooks: Hooks,
    /// What it imports.
    pub imports: Vec<Import>,
}

/// An interface that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name, with its version.
    pub interface: String,
    /// The functions that the component may call, as WIT names them; none of them where the import is a function itself.
    pub functions: Vec<String>,
}

impl fmt::Display for Import {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.interface)?;
        let functions: Vec<&str> = self.functions.iter().map(|name| short(name)).collect();
        if functions.is_empty() { Ok(()) } else { write!(formatter, " ({})", functions.join(", ")) }
    }
}

/// The interface of the admission hook.
pub(crate) const ADMISSION: &str = "tollgate:policy/admission@0.1.0";

const INGESTION: &str = "tollgate:policy/ingestion@0.1.0";

/// The interface of the standard's hook, of which every 0.2 will do.
const HANDLER: &str = "wasi:http/incoming-handler@0.2";

/// Name and interface of each hook, in the order of [`Hooks`].
const HOOKS: [(&str, &str); 5] = [
    ("admission", ADMISSION),
    ("ingestion", INGESTION),
    ("jobs", "tollgate:policy/jobs@0.1.0"),
    ("lifecycle", "tollgate:policy/lifecycle@0.1.0"),
    ("http", HANDLER),
];

const STORAGE_TYPES: &str = "tollgate:storage/types@0.1.0";
pub(super) const STORAGE_CACHE: &str = "tollgate:storage/cache@0.1.0";
pub(super) const STORAGE_KV: &str = "tollgate:storage/kv@0.1.0";
pub(super) const STORAGE_SQL: &str = "tollgate:storage/sql@0.1.0";
pub(super) const STORAGE_BLOB: &str = "tollgate:storage/blob@0.1.0";
pub(super) const STORAGE_VECTOR: &str = "tollgate:storage/vector@0.1.0";

pub(super) const KEYVALUE_STORE: &str = "wasi:keyvalue/store@0.2.0-draft2";
pub(super) const KEYVALUE_ATOMICS: &str = "wasi:keyvalue/atomics@0.2.0-draft2";
pub(super) const KEYVALUE_BATCH: &str = "wasi:keyvalue/batch@0.2.0-draft2";
pub(super) const BLOBSTORE: &str = "wasi:blobstore/blobstore@0.2.0-draft";
pub(super) const BLOBSTORE_CONTAINER: &str = "wasi:blobstore/container@0.2.0-draft";
const BLOBSTORE_TYPES: &str = "wasi:blobstore/types@0.2.0-draft";
const HTTP_TYPES: &str = "wasi:http/types@0.2";
const HTTP_OUTGOING: &str = "wasi:http/outgoing-handler@0.2";
const CONFIG: &str = "wasi:config/store@0.2.0-rc.1";
const LOGGING: &str = "wasi:logging/logging@0.1.0-draft";

/// Interfaces whose versions are drafts, each of which differs from the others.
const DRAFTS: [&str; 8] = [
    KEYVALUE_STORE,
    KEYVALUE_ATOMICS,
    KEYVALUE_BATCH,
    BLOBSTORE,
    BLOBSTORE_CONTAINER,
    BLOBSTORE_TYPES,
    CONFIG,
    LOGGING,
];

/// What Rust's and other languages' runtimes import; always there, and inert.
const INERT: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];

/// Refuses what is too large to be parsed or plainly no component.
pub fn check_bytes(wasm: &[u8]) -> Result<(), ComponentError> {
    /// The magic number, and the version and layer of a component; a core module has another layer.
    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";
    if wasm.len() > limits::COMPONENT_BYTES {
        return Err(ComponentError::TooLarge { bytes: wasm.len(), most: limits::COMPONENT_BYTES });
    }
    if wasm.starts_with(HEAD) {
        return check_parts(wasm);
    }
    let what =
        if wasm.starts_with(b"\0asm") { "a core module, or of another version" } else { "no WebAssembly" };
    Err(ComponentError::Invalid(format!("it is {what}")))
}

/// The engine compiles a component within a component by calling itself, so that deep ones would end the process; and the
/// time it takes grows with the square of their depth. Types within types it reads in the same way. What is no good
/// component otherwise it says itself.
fn check_parts(wasm: &[u8]) -> Result<(), ComponentError> {
    let (mut depth, mut parts) = (0_usize, 0);
    for payload in wasmparser::Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::ComponentSection { .. } | Payload::ModuleSection { .. }) => {
                (depth, parts) = (depth + 1, parts + 1);
            }
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentTypeSection(types)) if types_too_deep(wasm, types.range()) => {
                let what = "types within each other";
                return Err(ComponentError::TooManyParts { what, most: limits::COMPONENT_DEPTH });
            }
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
        if depth > limits::COMPONENT_DEPTH {
            let what = "components within each other";
            return Err(ComponentError::TooManyParts { what, most: limits::COMPONENT_DEPTH });
        }
        if parts > limits::COMPONENT_PARTS {
            let what = "components and modules";
            return Err(ComponentError::TooManyParts { what, most: limits::COMPONENT_PARTS });
        }
    }
    Ok(())
}

/// Whether types of components and instances are declared within each other beyond the limit; false where the section
/// cannot be read, as the engine will say.
fn types_too_deep(wasm: &[u8], section: Range<usize>) -> bool {
    let start = section.start;
    let mut reader = BinaryReader::new(wasm.get(section).unwrap_or_default(), start);
    let Ok(types) = reader.read_var_u32() else { return false };
    // What is left to read of the section and of each type that is open, outermost first.
    let mut open = vec![Open { left: types, is_type: false }];
    while let Some(inner) = open.last_mut() {
        if inner.left == 0 {
            open.pop();
            continue;
        }
        inner.left -= 1;
        match next(&mut reader, inner.is_type) {
            Some(Some(declarations)) => open.push(Open { left: declarations, is_type: true }),
            Some(None) => {}
            None => return false,
        }
        if open.len().saturating_sub(1) > limits::COMPONENT_DEPTH {
            return true;
        }
    }
    false
}

/// A list that is being read.
struct Open {
    left: u32,
    /// The declarations of a type, and not a section's types.
    is_type: bool,
}

/// Reads the next type, or declaration in a type; of one that holds declarations only how many. None: it cannot be read.
fn next(reader: &mut BinaryReader<'_>, is_declaration: bool) -> Option<Option<u32>> {
    const TYPE: u8 = 0x01;
    const COMPONENT: u8 = 0x41;
    const INSTANCE: u8 = 0x42;
    let ahead = |reader: &BinaryReader<'_>| reader.clone().read_u8().ok();
    if is_declaration {
        if ahead(reader)? != TYPE {
            return reader.read::<ComponentTypeDeclaration<'_>>().ok().map(|_| None);
        }
        reader.read_u8().ok()?;
    }
    if matches!(ahead(reader)?, COMPONENT | INSTANCE) {
        reader.read_u8().ok()?;
        return reader.read_var_u32().ok().map(Some);
    }
    reader.read::<ComponentType<'_>>().ok().map(|_| None)
}

impl Inspection {
    /// Looks at a compiled component. One without a hook is refused.
    pub fn of(engine: &Engine, component: &Component) -> Result<Inspection, ComponentError> {
        let kind = component.component_type();
        let mut found = [false; HOOKS.len()];
        for (export, item) in kind.exports(engine.wasm()) {
            let hook = HOOKS.iter().zip(&mut found).find(|((_, interface), _)| is_of(export, interface));
            if let (Some((_, found)), ComponentItem::ComponentInstance(_)) = (hook, item.ty) {
                *found = true;
            }
        }
        let [admission, ingestion, jobs, lifecycle, http] = found;
        let hooks = Hooks { admission, ingestion, jobs, lifecycle, http };
        if hooks == Hooks::default() {
            return Err(ComponentError::NoHook);
        }
        let imports = kind.imports(engine.wasm()).map(|(name, item)| Import {
            interface: name.to_owned(),
            functions: functions(engine, &item.ty),
        });
        let imports = imports.collect();
        Ok(Inspection { hooks, imports })
    }

    /// Whether it can send requests.
    pub fn sends_requests(&self) -> bool {
        self.imports.iter().any(|import| is_of(&import.interface, HTTP_OUTGOING))
    }

    /// Whether the manifest grants every import, and has a route where one is needed.
    pub fn check_manifest(&self, manifest: &Manifest) -> Result<(), ComponentError> {
        match (self.hooks.http, &manifest.http) {
            (true, None) => return Err(ComponentError::NoRoute),
            (false, Some(_)) => return Err(ComponentError::NoHandler),
            (true, Some(_)) | (false, None) => {}
        }
        // They share instances and memory, and every request waits for these.
        let waited_for = [(self.hooks.admission, ADMISSION), (self.hooks.ingestion, INGESTION)];
        if let Some((_, other)) = waited_for.into_iter().find(|(there, _)| *there && self.hooks.http) {
            return Err(ComponentError::NotTogether(other));
        }
        let imports = self.imports.iter().map(|import| import.interface.as_str());
        // By its types alone nothing can be sent.
        let mut imports = imports.filter(|import| !(self.hooks.http && is_of(import, HTTP_TYPES)));
        imports.try_for_each(|import| check_import(import, &manifest.grants))
    }
}

/// Whether an interface is the one asked for, or of a later patch of the version asked for.
fn is_of(interface: &str, asked: &str) -> bool {
    interface.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn check_import(import: &str, grants: &Grants) -> Result<(), ComponentError> {
    let granted = match import {
        STORAGE_TYPES => true,
        STORAGE_CACHE => !grants.cache.is_empty(),
        STORAGE_KV | KEYVALUE_STORE | KEYVALUE_ATOMICS | KEYVALUE_BATCH => !grants.kv.is_empty(),
        CONFIG | LOGGING => true,
        STORAGE_SQL => !grants.sql.is_empty(),
        STORAGE_BLOB | BLOBSTORE | BLOBSTORE_CONTAINER | BLOBSTORE_TYPES => !grants.blob.is_empty(),
        STORAGE_VECTOR => !grants.vector.is_empty(),
        _ if is_of(import, HTTP_TYPES) || is_of(import, HTTP_OUTGOING) => grants.http.is_some(),
        _ if INERT.iter().any(|prefix| import.starts_with(prefix)) => true,
        _ => false,
    };
    if granted {
        return Ok(());
    }
    let name = |interface: &str| interface.split('@').next().map(str::to_owned);
    let other = DRAFTS.into_iter().find(|draft| *draft != import && name(draft) == name(import));
    Err(match other {
        Some(served) => ComponentError::OtherVersion { import: import.to_owned(), served },
        None => ComponentError::NotGranted(import.to_owned()),
    })
}

fn functions(engine: &Engine, item: &ComponentItem) -> Vec<String> {
    let ComponentItem::ComponentInstance(instance) = item else { return Vec::new() };
    let exports = instance.exports(engine.wasm());
    let functions = exports.filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
    functions.map(|(name, _)| name.to_owned()).collect()
}

fn hook_names() -> String {
    HOOKS.map(|(_, interface)| interface).join(", ")
}
