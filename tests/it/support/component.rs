//! Components for tests, made on the spot from the WIT, without a toolchain.

use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve, WorldId};

/// As much of WASI as guests of tests need.
const WASI: &str = r#"
    package wasi:io@0.2.0 {
        interface error { resource error; }
        interface poll { resource pollable { block: func(); } }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream {
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            }
        }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:cli@0.2.0 {
        interface stdout {
            use wasi:io/streams@0.2.0.{output-stream};
            get-stdout: func() -> output-stream;
        }
    }
    package wasi:http@0.2.0 {
        interface types { resource incoming-request; resource response-outparam; }
        interface incoming-handler {
            use types.{incoming-request, response-outparam};
            handle: func(request: incoming-request, response-out: response-outparam);
        }
    }
"#;

/// A component each of whose functions traps. Its world has these lines, such as
/// `export tollgate:policy/admission@0.1.0;`.
pub fn trapping(world: &str) -> Vec<u8> {
    let (resolve, world) = resolve(world);
    encode(dummy_module(&resolve, world, ManglingAndAbi::Standard32), &resolve, world)
}

/// A component of a core module in text, for a world with these lines.
pub fn of_text(module: &str, world: &str) -> Vec<u8> {
    let (resolve, world) = resolve(world);
    encode(wat::parse_str(module).unwrap(), &resolve, world)
}

/// A component of the product, as committed.
pub fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/prebuilt/{name}.wasm"))
}

/// The packages of `wit/`.
pub fn contracts() -> Resolve {
    let mut resolve = Resolve::default();
    for package in ["storage", "policy", "wasi-keyvalue", "wasi-config", "wasi-logging"] {
        resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit").join(package)).unwrap();
    }
    resolve
}

fn resolve(world: &str) -> (Resolve, WorldId) {
    let mut resolve = contracts();
    let source = format!("package test:component;\nworld guest {{\n{world}\n}}\n{WASI}");
    let package = resolve.push_str("test.wit", &source).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    (resolve, world)
}

fn encode(mut module: Vec<u8>, resolve: &Resolve, world: WorldId) -> Vec<u8> {
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
