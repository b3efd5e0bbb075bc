//! A component as it is pushed: bytes, or its text, which is easier to change into another good one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};
use tollgate::{
    capability::Stores,
    plugin::{CallError, Engine, Generation, Identity, Manifest},
};
use tollgate_store::{KvOptions, Options, Store};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new().unwrap());
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

/// What it is granted, so that a component that opens stores is started too. Full, they take no more.
static STORES: LazyLock<Stores> = LazyLock::new(|| {
    let store = Store::in_memory(Options::default(), STORE_BYTES).unwrap();
    let kv = BTreeMap::from([(GRANTED.to_owned(), store.kv(GRANTED, KvOptions::default()).unwrap())]);
    Stores::new(kv, BTreeMap::from([(GRANTED.to_owned(), store.database(GRANTED).unwrap())]))
});

const STORE_BYTES: u64 = 64 << 20;

const GRANTED: &str = "x";

const MANIFEST: &str = "name = \"guest\"\n[grants.kv]\nx = \"read-write\"\n[grants.sql]\nx = \"read-write\"\n\
    [limits]\nmemory-bytes = 1048576\ninit-deadline-ms = 20\n";

/// A component passes the checks of a push, is started and prepares itself, or is refused with a reason; nothing else.
pub fn check(input: &[u8]) {
    match input.first() {
        Some(b'(') => {
            let text = std::str::from_utf8(input).ok().and_then(|text| wat::parse_str(text).ok());
            text.iter().for_each(|wasm| push(wasm));
        }
        _ => push(input),
    }
}

fn push(wasm: &[u8]) {
    let component = match ENGINE.compile(wasm) {
        Ok(component) => component,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let identity = Identity { digest: "0".repeat(64), number: 1 };
    let manifest = Manifest::parse(MANIFEST).unwrap();
    match Generation::new(&ENGINE, &component, manifest, identity, &STORES) {
        Ok(generation) => RUNTIME.block_on(start(&generation)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

async fn start(generation: &Generation) {
    assert!(!generation.hooks().names().is_empty());
    for result in [generation.warm().await, generation.init().await] {
        if let Err(error) = result {
            assert!(!matches!(error, CallError::Busy | CallError::NoHook(_)), "{error}");
        }
    }
}
