//! Hostile and broken guests against one generation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fixture::{BARE, Home, admission, bare, counting, encode, load, request, start, subjects};
use super::{CallError, ComponentError, Engine, Generation, limits};
use crate::capability::Stores;

/// Allows every subject.
const ALLOW: &str = "(call $allow (local.get 15))";

/// Settles without a word.
const SETTLED: &str = "(call $settled)";

async fn admit(guest: &Generation, tokens: u64) -> Result<usize, CallError> {
    let subjects = Arc::from(subjects(2));
    guest.admit(request(tokens), subjects).await.map(|decisions| decisions.len())
}

fn refusal(wasm: &[u8], manifest: &str, stores: &Stores) -> ComponentError {
    load(wasm, manifest, stores).err().unwrap()
}

#[tokio::test]
async fn a_good_guest_answers_and_its_instance_is_kept() {
    let guest = bare(&admission(ALLOW, SETTLED));
    guest.warm().await.unwrap();
    for _ in 0..3 {
        assert_eq!(admit(&guest, 1).await, Ok(2));
    }
    assert_eq!(guest.idle(), 1);
    assert_eq!(guest.counters().calls, 4);
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_deadline_and_lets_others_run_meanwhile() {
    let guest = bare(&admission("(loop $on (br $on)) unreachable", SETTLED));
    let started = Instant::now();
    let (mut call, mut turns) = (std::pin::pin!(admit(&guest, 1)), 0);
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut call => break answer,
            () = tokio::task::yield_now() => turns += 1,
        }
    };
    assert_eq!(answer, Err(CallError::Deadline(limits::ADMIT_DEADLINE)));
    assert!(started.elapsed() >= limits::ADMIT_DEADLINE);
    assert!(turns > 1, "the loop gave up its worker {turns} times");
    assert_eq!(guest.idle(), 0);
}

#[tokio::test]
async fn a_loop_at_the_start_of_an_instance_ends_at_the_deadline_too() {
    let module = r#"(module
        (memory (export "memory") 1)
        (func $start (loop $on (br $on)))
        (start $start)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "tollgate:policy/lifecycle@0.1.0#init") (result i32) unreachable))"#;
    let wasm = encode(module, "export tollgate:policy/lifecycle@0.1.0;");
    let manifest = format!("{BARE}[limits]\ninit-deadline-ms = 30");
    let guest = load(&wasm, &manifest, &Stores::default()).unwrap();
    assert_eq!(guest.warm().await, Err(CallError::Deadline(Duration::from_millis(30))));
}

#[tokio::test]
async fn a_memory_bomb_ends_at_its_limit() {
    let grow = "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let guest = bare(&admission(grow, SETTLED));
    let Err(CallError::Trap(text)) = admit(&guest, 1).await else { panic!("no trap") };
    assert!(text.contains(&limits::MEMORY_BYTES.to_string()), "{text}");
}

#[tokio::test]
async fn an_instance_is_not_used_again_after_a_trap() {
    let sometimes =
        "(if (i64.eq (local.get 10) (i64.const 13)) (then unreachable)) (call $allow (local.get 15))";
    let guest = bare(&admission(sometimes, SETTLED));
    assert_eq!(admit(&guest, 1).await, Ok(2));
    assert_eq!(guest.idle(), 1);
    assert!(matches!(admit(&guest, 13).await, Err(CallError::Trap(_))));
    assert_eq!(guest.idle(), 0);
    assert_eq!(admit(&guest, 1).await, Ok(2));
    assert_eq!(guest.counters().traps, 1);
}

#[tokio::test]
async fn a_dropped_call_drops_its_instance_and_frees_its_slot() {
    let manifest = format!("{BARE}[limits]\ninstances = 1\nadmit-deadline-ms = 3600000");
    let sometimes =
        "(if (i64.eq (local.get 10) (i64.const 13)) (then (loop $on (br $on)))) (call $allow (local.get 15))";
    let guest = load(&admission(sometimes, SETTLED), &manifest, &Stores::default()).unwrap();
    tokio::select! {
        biased;
        answer = admit(&guest, 13) => panic!("the loop ended: {answer:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(guest.idle(), 0);
    assert_eq!(admit(&guest, 1).await, Ok(2));
}

#[tokio::test]
async fn a_call_beyond_the_instances_waits_a_little_and_is_busy() {
    let manifest = format!("{BARE}[limits]\ninstances = 1\nsettle-deadline-ms = 3600000");
    let endless = admission(ALLOW, "(loop $on (br $on)) unreachable");
    let guest = load(&endless, &manifest, &Stores::default()).unwrap();
    let mut settling = std::pin::pin!(guest.settle(Arc::default()));
    tokio::select! {
        biased;
        answer = &mut settling => panic!("the loop ended: {answer:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(admit(&guest, 1).await, Err(CallError::Busy));
}

#[tokio::test]
async fn instances_per_call_are_not_kept() {
    let manifest = format!("{BARE}[limits]\ninstances = \"per-call\"");
    let guest = load(&admission(ALLOW, SETTLED), &manifest, &Stores::default()).unwrap();
    assert_eq!(admit(&guest, 1).await, Ok(2));
    assert_eq!(guest.idle(), 0);
}

#[tokio::test]
async fn an_instance_retires_after_its_calls() {
    let guest = bare(&admission(ALLOW, SETTLED));
    for _ in 0..limits::CALLS_PER_INSTANCE - 1 {
        admit(&guest, 1).await.unwrap();
    }
    assert_eq!(guest.idle(), 1);
    admit(&guest, 1).await.unwrap();
    assert_eq!(guest.idle(), 0);
}

#[tokio::test]
async fn a_list_out_of_the_guests_memory_is_a_trap() {
    let guest = bare(&admission("(call $allow (i32.const 100000000))", SETTLED));
    assert!(matches!(admit(&guest, 1).await, Err(CallError::Trap(_))));
}

#[tokio::test]
async fn stores_that_are_not_granted_or_not_there_cannot_be_opened() {
    let home = Home::new();
    let stores = home.stores(&["quota", "blacklist"]);
    let manifest = format!("{BARE}[grants.kv]\nquota = \"read-write\"");
    let open = async |name| admit(&load(&counting(name), &manifest, &stores).unwrap(), 1).await;
    assert_eq!(open("quota").await, Ok(2));
    // The cases of the error variant, counted from 0: access-denied and no-such-store.
    assert_eq!(open("blacklist").await, Err(CallError::Guest("0".to_owned())));
    assert_eq!(open("nothing").await, Err(CallError::Guest("1".to_owned())));
}

#[tokio::test]
async fn what_a_component_imports_beyond_its_grants_is_refused_by_name() {
    let home = Home::new();
    let stores = home.stores(&["quota"]);
    assert_eq!(
        refusal(&counting("quota"), BARE, &stores),
        ComponentError::NotGranted("tollgate:storage/kv@0.1.0".to_owned())
    );
    let unknown = format!("{BARE}[grants.kv]\nelsewhere = \"read\"");
    let refused = refusal(&counting("quota"), &unknown, &stores);
    assert!(refused.to_string().contains("\"elsewhere\""), "{refused}");
    let component = r#"(component
        (import "wasi:http/outgoing-handler@0.2.0" (instance))
        (instance $hook)
        (export "tollgate:policy/lifecycle@0.1.0" (instance $hook)))"#;
    let refused = refusal(&wat::parse_str(component).unwrap(), BARE, &stores);
    assert_eq!(
        refused.to_string(),
        "imports wasi:http/outgoing-handler@0.2.0, which the manifest does not grant"
    );
    let draft =
        component.replace("http/outgoing-handler@0.2.0", "blobstore/blobstore@0.2.0-draft-2024-09-01");
    let refused = refusal(&wat::parse_str(draft).unwrap(), BARE, &stores).to_string();
    assert!(refused.ends_with("another version: wasi:blobstore/blobstore@0.2.0-draft"), "{refused}");
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    let check = |wasm: &[u8]| refusal(wasm, BARE, &Stores::default()).to_string();
    assert!(check(b"not wasm").contains("no WebAssembly"));
    assert!(check(&wat::parse_str("(module)").unwrap()).contains("core module"));
    assert!(check(&wat::parse_str("(component)").unwrap()).contains("tollgate:policy/admission@0.1.0"));
    assert!(check(&vec![0; limits::COMPONENT_BYTES + 1]).contains("at most"));
    let mut broken = admission(ALLOW, SETTLED);
    // Within the last section, whatever its length.
    broken.truncate(broken.len() - 1);
    assert!(check(&broken).contains("not a valid component"));
}

/// A hundred thousand of them, 300 KB, once ended the server by its stack.
#[tokio::test]
async fn types_nested_without_end_are_refused_and_a_few_are_not() {
    // The section of types and its length, to be filled in; one type; then components' and instances' types in turn, each
    // with one declaration, a type.
    let nested = |depth: usize| {
        let mut types = vec![1];
        for level in 1..depth {
            types.extend([if level % 2 == 0 { 0x41 } else { 0x42 }, 1, 1]);
        }
        types.extend([0x42, 0]);
        let length = u32::try_from(types.len()).unwrap();
        let length =
            [0, 7, 14, 21].map(|shift| (length >> shift) as u8 & 0x7f | if shift < 21 { 0x80 } else { 0 });
        [&b"\0asm\x0d\0\x01\0\x07"[..], &length, &types].concat()
    };
    let check = |depth| refusal(&nested(depth), BARE, &Stores::default()).to_string();
    let hook = refusal(&wat::parse_str("(component)").unwrap(), BARE, &Stores::default()).to_string();
    assert_eq!(check(limits::COMPONENT_DEPTH), hook);
    for depth in [100_000, limits::COMPONENT_DEPTH + 1] {
        assert!(check(depth).contains("types within each other; at most 16"), "{depth}");
    }
}

/// The engine's parser has an assertion about them; it is refused like anything else.
#[tokio::test]
async fn a_chain_of_types_that_the_engine_cannot_take_is_refused() {
    let mut text = String::from("(component $outer (type $t0 (instance))\n");
    for number in 1..=200 {
        let before = number - 1;
        let inner = format!("(alias outer $outer $t{before} (type $u)) (export \"x\" (instance (type $u)))");
        text.push_str(&format!("(type $t{number} (instance {inner}))\n"));
    }
    let refused = refusal(&wat::parse_str(text + ")").unwrap(), BARE, &Stores::default());
    assert_eq!(refused.to_string(), "not a valid component: it is beyond the engine");
}

#[tokio::test]
async fn a_hook_of_another_shape_does_not_start() {
    let component = r#"(component
        (core module $m (func (export "init")))
        (core instance $i (instantiate $m))
        (func $init (canon lift (core func $i "init")))
        (instance $hook (export "init" (func $init)))
        (export "tollgate:policy/lifecycle@0.1.0" (instance $hook)))"#;
    let guest = load(&wat::parse_str(component).unwrap(), BARE, &Stores::default()).unwrap();
    assert!(matches!(guest.init().await, Err(CallError::Trap(_))));
}

#[tokio::test]
async fn dropping_a_generation_frees_its_instances() {
    let engine = Engine::new().unwrap();
    let component = engine.compile(&admission(ALLOW, SETTLED)).unwrap();
    for _ in 0..2 * limits::ENGINE_INSTANCES {
        start(&engine, &component, BARE, &Stores::default()).unwrap().warm().await.unwrap();
    }
}
