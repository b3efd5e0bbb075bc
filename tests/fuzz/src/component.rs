//! A component as it is pushed: bytes, or its text, which is easier to change into another good one.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};
use tollgate::{
    capability::Stores,
    plugin::{CallError, Engine, Generation, Identity, Manifest},
};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new().unwrap());
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

const MANIFEST: &str = "name = \"guest\"\n[limits]\nmemory-bytes = 1048576\ninit-deadline-ms = 20\n";

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
    match Generation::new(&ENGINE, &component, manifest, identity, &Stores::default()) {
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
