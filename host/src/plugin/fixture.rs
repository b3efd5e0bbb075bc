//! Guests for tests, written by hand: what they do wrong no compiler would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tollgate_store::{Acknowledge, Kv, KvOptions, Options, Store};
use wasmtime::component::Component;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::admission::{Ending, Limits, Request, Subject, SubjectKind, Usage};
use super::{ComponentError, Engine, Generation, Identity, Manifest};
use crate::capability::Stores;

/// Starts of a manifest without grants.
pub(crate) const BARE: &str = "name = \"guest\"\n";

/// A guest with the admission hook, whose `admit` and `settle` have these bodies. Parameter 10 of `admit` is the estimate
/// of tokens and 15 the number of subjects; those of `settle` are the address and number of the settlements. Both
/// return the address of a result: `$allow` and `$settled` set good ones up.
pub(crate) fn admission(admit: &str, settle: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            {ALLOCATOR}
            {ALLOW}
            (func $settled (result i32) (i32.store8 (i32.const 544) (i32.const 0)) i32.const 544)
            (func $failed (result i32)
                (i32.store8 (i32.const 544) (i32.const 1))
                (i32.store (i32.const 548) (i32.const 1024))
                (i32.store (i32.const 552) (i32.const 3))
                i32.const 544)
            (func (export "tollgate:policy/admission@0.1.0#admit")
                (param i32 i32 i64 i32 i32 i32 i32 i32 i32 i64 i64 i32 i64 i32 i32 i32) (result i32)
                {admit})
            (func (export "tollgate:policy/admission@0.1.0#settle") (param i32 i32) (result i32)
                {settle}))"#
    );
    encode(&module, "export tollgate:policy/admission@0.1.0;")
}

/// A guest that allows everything and counts in the kv store `name` what it settles: one key, `e0` to `e5`, for each
/// ending. Where the store refuses, `settle` fails; where it cannot be opened, `admit` fails with one byte of
/// text, the error's case.
pub(crate) fn counting(name: &str) -> Vec<u8> {
    counting_after(name, "")
}

/// The same, but it allows without tickets.
pub(crate) fn ticketless(name: &str) -> Vec<u8> {
    counting_after(name, "(memory.fill (i32.const 1024) (i32.const 0) (i32.const 1152))")
}

fn counting_after(name: &str, allowed: &str) -> Vec<u8> {
    let length = name.len();
    let module = format!(
        r#"(module
            (import "tollgate:storage/kv@0.1.0" "[static]store.open"
                (func $open (param i32 i32 i32)))
            (import "tollgate:storage/kv@0.1.0" "[method]store.increment"
                (func $increment (param i32 i32 i32 i64 i32 i64 i32)))
            {ALLOCATOR}
            (data (i32.const 600) "{name}")
            (data (i32.const 700) "e0")
            (global $store (mut i32) (i32.const -1))
            {ALLOW}
            (func $opened (result i32)
                (if (i32.ne (global.get $store) (i32.const -1)) (then (return (i32.const 1))))
                (call $open (i32.const 600) (i32.const {length}) (i32.const 800))
                (if (i32.load8_u (i32.const 800)) (then (return (i32.const 0))))
                (global.set $store (i32.load (i32.const 804)))
                i32.const 1)
            (func (export "tollgate:policy/admission@0.1.0#admit")
                (param i32 i32 i64 i32 i32 i32 i32 i32 i32 i64 i64 i32 i64 i32 i32 i32) (result i32)
                (if (i32.eqz (call $opened)) (then
                    (i32.store8 (i32.const 560) (i32.add (i32.const 48) (i32.load8_u (i32.const 804))))
                    (i32.store8 (i32.const 512) (i32.const 1))
                    (i32.store (i32.const 516) (i32.const 560))
                    (i32.store (i32.const 520) (i32.const 1))
                    (return (i32.const 512))))
                (call $allow (local.get 15))
                {allowed})
            (func (export "tollgate:policy/admission@0.1.0#settle") (param $at i32) (param $left i32) (result i32)
                (drop (call $opened))
                (i32.store8 (i32.const 544) (i32.const 0))
                (block $done (loop $next
                    (br_if $done (i32.eqz (local.get $left)))
                    (i32.store8 (i32.const 701) (i32.add (i32.const 48) (i32.load8_u offset=48 (local.get $at))))
                    (call $increment (global.get $store) (i32.const 700) (i32.const 2) (i64.const 1)
                        (i32.const 0) (i64.const 0) (i32.const 832))
                    (if (i32.load8_u (i32.const 832)) (then
                        (i32.store8 (i32.const 544) (i32.const 1))
                        (i32.store (i32.const 548) (i32.const 700))
                        (i32.store (i32.const 552) (i32.const 2))
                        (return (i32.const 544))))
                    (local.set $at (i32.add (local.get $at) (i32.const 120)))
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br $next)))
                i32.const 544))"#
    );
    encode(&module, "import tollgate:storage/kv@0.1.0;\nexport tollgate:policy/admission@0.1.0;")
}

/// `$allow` makes so many allows at 1024, of 72 bytes each: the first 16 with an empty ticket, so that they are settled.
const ALLOW: &str = r#"
    (func $allow (param $decisions i32) (result i32)
        (local $each i32)
        (block $done (loop $next
            (br_if $done (i32.or
                (i32.ge_u (local.get $each) (local.get $decisions)) (i32.ge_u (local.get $each) (i32.const 16))))
            (i32.store8 offset=1032 (i32.mul (local.get $each) (i32.const 72)) (i32.const 1))
            (local.set $each (i32.add (local.get $each) (i32.const 1)))
            (br $next)))
        (i32.store8 (i32.const 512) (i32.const 0))
        (i32.store (i32.const 516) (i32.const 1024))
        (i32.store (i32.const 520) (local.get $decisions))
        i32.const 512)"#;

/// A memory of four pages, zero from 1024 to 4096, and a ring of an allocator behind that.
const ALLOCATOR: &str = r#"
    (memory (export "memory") 4)
    (global $top (mut i32) (i32.const 4096))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (local $at i32)
        (if (i32.gt_u (i32.add (global.get $top) (local.get 3)) (i32.const 200000))
            (then (global.set $top (i32.const 4096))))
        (local.set $at (global.get $top))
        (global.set $top
            (i32.and (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 7)) (i32.const -8)))
        (local.get $at))"#;

/// As much of WASI as guests of tests need.
const WASI: &str = r#"
    package wasi:io@0.2.0 {
        interface poll { resource pollable { block: func(); } }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:http@0.2.0 {
        interface types {
            resource incoming-request;
            resource response-outparam;
            resource fields { constructor(); clone: func() -> fields; }
            resource outgoing-request {
                constructor(headers: fields);
                set-authority: func(authority: option<string>) -> result;
            }
        }
        interface incoming-handler {
            use types.{incoming-request, response-outparam};
            handle: func(request: incoming-request, response-out: response-outparam);
        }
    }
"#;

/// Makes a component of a core module in text, for a world with these lines.
pub(crate) fn encode(module: &str, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap();
    let mut resolve = Resolve::default();
    for package in ["storage", "policy", "wasi-keyvalue", "wasi-config", "wasi-logging"] {
        resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit").join(package)).unwrap();
    }
    let source = format!("package test:guest;\nworld guest {{\n{world}\n}}\n{WASI}");
    let package = resolve.push_str("guest.wit", &source).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Loads a guest.
pub(crate) fn load(wasm: &[u8], manifest: &str, stores: &Stores) -> Result<Generation, ComponentError> {
    static ENGINE: std::sync::LazyLock<Engine> = std::sync::LazyLock::new(|| Engine::new().unwrap());
    let component = ENGINE.compile(wasm)?;
    start(&ENGINE, &component, manifest, stores)
}

/// Makes a generation of a compiled guest.
pub(crate) fn start(
    engine: &Engine,
    component: &Component,
    manifest: &str,
    stores: &Stores,
) -> Result<Generation, ComponentError> {
    let identity = Identity { digest: "0".repeat(64), number: 1 };
    Generation::new(engine, component, Manifest::parse(manifest).unwrap(), identity, stores)
}

/// A guest without grants.
pub(crate) fn bare(wasm: &[u8]) -> Arc<Generation> {
    Arc::new(load(wasm, BARE, &Stores::default()).unwrap())
}

/// A store of its own with kv stores of these names.
pub(crate) struct Home {
    pub(crate) store: Store,
    _directory: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Home {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), Options::default()).unwrap();
        Home { store, _directory: directory }
    }

    pub(crate) fn kv(&self, name: &str) -> Kv {
        let options =
            KvOptions { acknowledge: Acknowledge::Relaxed, default_ttl_ms: None, limit_bytes: None };
        self.store.kv(name, options).unwrap()
    }

    pub(crate) fn stores(&self, names: &[&str]) -> Stores {
        let kv = names.iter().map(|name| ((*name).to_owned(), self.kv(name)));
        Stores::new(kv.collect(), BTreeMap::new())
    }
}

pub(crate) fn request(estimated_tokens: u64) -> Arc<Request> {
    Arc::new(Request {
        id: "request".to_owned(),
        now_ms: 1_000_000,
        dialect: "openai".to_owned(),
        endpoint: "/v1/chat/completions".to_owned(),
        model: "gpt".to_owned(),
        prompt_tokens: 0,
        estimated_tokens,
        estimated_cost: None,
        streaming: false,
    })
}

pub(crate) fn subjects(count: usize) -> Vec<Arc<Subject>> {
    let subject = |number: usize| Subject {
        kind: if number == 0 { SubjectKind::Client } else { SubjectKind::Account },
        id: format!("subject-{number}").into(),
        name: format!("subject {number}").into(),
        limits: Limits { rpm: Some(60), tpm: None, rpd: None, further: Vec::new() },
    };
    (0..count).map(|number| Arc::new(subject(number))).collect()
}

pub(crate) fn usage(ending: Ending) -> Usage {
    Usage {
        ending,
        status: Some(200),
        input_tokens: 1,
        output_tokens: 2,
        cost: None,
        duration_ms: 3,
        retry_after_ms: None,
        reached: None,
    }
}
