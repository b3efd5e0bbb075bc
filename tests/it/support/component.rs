//! Components for tests, made on the spot from the WIT: each function of theirs traps.

use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

/// A component whose world has these lines, such as `export tollgate:policy/admission@0.1.0;`.
pub fn trapping(world: &str) -> Vec<u8> {
    let mut resolve = contracts();
    let source = format!("package test:component;\nworld trapping {{\n{world}\n}}\n");
    let package = resolve.push_str("test.wit", &source).unwrap();
    let world = resolve.select_world(&[package], Some("trapping")).unwrap();
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

/// A component of the product, as committed.
pub fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/prebuilt/{name}.wasm"))
}

/// The packages of `wit/`.
pub fn contracts() -> Resolve {
    let mut resolve = Resolve::default();
    for package in ["storage", "policy"] {
        resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit").join(package)).unwrap();
    }
    resolve
}
