//! Hostile guests and impatient clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};

use super::mounts::Patience;
use super::*;
use crate::capability::Stores;
use crate::plugin::fixture::{BARE, encode, load};
use crate::plugin::limits::HTTP_TEXT_BYTES;
use crate::plugin::{ActivePlugin, CallError, ComponentError};

/// As much of the standard as these guests need.
const WORLD: &str = "import wasi:io/poll@0.2.0;
    import wasi:http/types@0.2.0;
    import wasi:clocks/monotonic-clock@0.2.0;
    export wasi:http/incoming-handler@0.2.0;";

/// A guest whose `handle` has this body: `$wait` waits for ever, `$drop` drops the place for the answer, `$asks` names the
/// authority of a request in so many letters and tells whether that failed.
fn handler(body: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
            (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
                (func $subscribe (param i64) (result i32)))
            (import "wasi:http/types@0.2.0" "[resource-drop]response-outparam" (func $drop (param i32)))
            (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
            (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
            (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
                (func $authority (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (global $asked (mut i32) (i32.const -1))
            (func $asks (param $letters i32) (result i32)
                (if (i32.eq (global.get $asked) (i32.const -1)) (then
                    (memory.fill (i32.const 0) (i32.const 97) (i32.const 65536))
                    (global.set $asked (call $request (call $fields)))))
                (call $authority (global.get $asked) (i32.const 1) (i32.const 0) (local.get $letters)))
            (func $wait (call $block (call $subscribe (i64.const 3600000000000))))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "wasi:http/incoming-handler@0.2.0#handle") (param i32 i32) {body}))"#
    );
    encode(&module, WORLD)
}

const ROUTE: &str = "[http]\nroute = \"/x/\"\n[limits]\ninstances = 1\nhttp-deadline-ms = 20";

/// No test takes as long.
const LONG: Duration = Duration::from_secs(60);

const SHORT: Duration = Duration::from_millis(700);

/// The guest under `/x/`, with room for one request and a short time to the head of its answer.
fn mount(body: &str) -> Mount {
    mount_with(body, ROUTE, Patience { head: SHORT, total: LONG, silence: LONG })
}

fn mount_with(body: &str, manifest: &str, patience: Patience) -> Mount {
    let guest = load(&handler(body), &format!("{BARE}{manifest}"), &Stores::default()).unwrap();
    let mounts = Mounts::with(patience);
    mounts.install([ActivePlugin::new(Arc::new(guest))].iter());
    mounts.of("/x/y").unwrap()
}

async fn ask(mount: &Mount) -> Unanswered {
    let request = Request::get("http://localhost/x/y").body(Empty::<Bytes>::new()).unwrap();
    match mount.answer(request).await {
        Ok(answer) => panic!("answered {:?}", answer.into_body().collect().await.map(|body| body.to_bytes())),
        Err(why) => why,
    }
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_deadline() {
    let why = ask(&mount("(loop $on (br $on))")).await;
    assert!(matches!(why, Unanswered::Failed(CallError::Deadline(_))), "{why}");
}

#[tokio::test]
async fn a_trap_and_an_end_without_an_answer_are_told_apart() {
    let why = ask(&mount("unreachable")).await;
    assert!(matches!(why, Unanswered::Failed(CallError::Trap(_))), "{why}");
    assert!(matches!(ask(&mount("")).await, Unanswered::Nothing));
}

#[tokio::test]
async fn a_guest_that_waits_for_ever_is_given_up_and_meanwhile_there_is_no_room_for_another_request() {
    let mount = mount("(call $wait)");
    let (first, second) = tokio::join!(ask(&mount), ask(&mount));
    assert!(matches!(first, Unanswered::Late), "{first}");
    assert!(matches!(second, Unanswered::Busy), "{second}");
    // It was no failure of the guest's, whose client may have made it wait.
    assert_eq!(mount.traps(), 0);
}

#[tokio::test]
async fn a_guest_that_lets_go_of_its_answer_has_no_more_time_than_others() {
    let why = ask(&mount("(call $drop (local.get 1)) (call $wait)")).await;
    assert!(matches!(why, Unanswered::Late), "{why}");
}

#[tokio::test]
async fn the_end_of_an_exchanges_time_is_no_failure_of_the_guests() {
    let mount = mount_with("(call $wait)", ROUTE, Patience { head: LONG, total: SHORT, silence: LONG });
    let why = ask(&mount).await;
    assert!(matches!(why, Unanswered::Late), "{why}");
    assert_eq!(mount.traps(), 0);
}

#[tokio::test]
async fn the_texts_of_requests_are_short_and_count_as_memory_of_the_guest() {
    let manifest = ROUTE.replace("= 20", "= 5000\nmemory-bytes = 1048576");
    let ask = async |body: &str| {
        ask(&mount_with(body, &manifest, Patience { head: LONG, total: LONG, silence: LONG })).await
    };
    let body = format!("(if (call $asks (i32.const {HTTP_TEXT_BYTES})) (then unreachable))");
    assert!(matches!(ask(&body).await, Unanswered::Nothing));
    let body = format!("(if (i32.eqz (call $asks (i32.const {}))) (then unreachable))", HTTP_TEXT_BYTES + 1);
    assert!(matches!(ask(&body).await, Unanswered::Nothing));
    let why = ask("(loop $on (drop (call $asks (i32.const 8000))) (br $on))").await;
    let Unanswered::Failed(CallError::Trap(text)) = &why else { panic!("{why}") };
    assert!(text.contains("out of its 1048576 bytes of memory"), "{text}");
}

#[tokio::test]
async fn a_guest_whose_client_leaves_goes_with_it() {
    let mount = mount("(call $wait)");
    for _ in 0..3 {
        tokio::select! {
            biased;
            why = ask(&mount) => panic!("{why}"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    // With its place still taken this would be busy.
    assert!(matches!(ask(&mount).await, Unanswered::Late));
}

#[tokio::test]
async fn routes_are_for_handlers_and_handlers_need_routes() {
    let refused = |wasm: &[u8], manifest: &str| load(wasm, manifest, &Stores::default()).err().unwrap();
    assert_eq!(refused(&handler(""), BARE), ComponentError::NoRoute);
    let hook = r#"(component
        (instance $hook)
        (export "tollgate:policy/lifecycle@0.1.0" (instance $hook)))"#;
    let manifest = format!("{BARE}{ROUTE}");
    assert_eq!(refused(&wat::parse_str(hook).unwrap(), &manifest), ComponentError::NoHandler);
}

#[tokio::test]
async fn a_handler_has_no_hook_that_others_wait_for() {
    for other in ["admission", "ingestion"] {
        let both = format!(
            r#"(component
                (instance $hook)
                (export "wasi:http/incoming-handler@0.2.0" (instance $hook))
                (export "tollgate:policy/{other}@0.1.0" (instance $hook)))"#
        );
        let wasm = wat::parse_str(both).unwrap();
        let refused = load(&wasm, &format!("{BARE}{ROUTE}"), &Stores::default()).err().unwrap();
        assert!(matches!(refused, ComponentError::NotTogether(hook) if hook.contains(other)), "{refused}");
    }
}

#[tokio::test]
async fn of_two_plugins_with_one_route_it_stays_with_the_one_that_has_it() {
    let plugin = |name: &str, route: &str| {
        let manifest = format!("name = \"{name}\"\n[http]\nroute = \"{route}\"");
        ActivePlugin::new(Arc::new(load(&handler(""), &manifest, &Stores::default()).unwrap()))
    };
    let mounts = Mounts::default();
    let holder = plugin("second", "/x/");
    mounts.install([&plugin("first", "/y/"), &holder].into_iter());
    mounts.install([&plugin("first", "/x/"), &holder].into_iter());
    assert_eq!(mounts.of("/x/y").unwrap().plugin(), "second");
    assert!(mounts.of("/y/").is_none());
}

#[tokio::test]
async fn a_path_belongs_to_the_longest_route_that_it_is_under() {
    let plugins = ["/a/", "/a/b/"].map(|route| {
        let name = format!("p{}", route.len());
        let manifest = format!("name = \"{name}\"\n[http]\nroute = \"{route}\"");
        ActivePlugin::new(Arc::new(load(&handler(""), &manifest, &Stores::default()).unwrap()))
    });
    let mounts = Mounts::default();
    mounts.install(plugins.iter());
    let of = |path: &str| mounts.of(path).map(|mount| mount.plugin().to_owned());
    assert_eq!(of("/a/x").as_deref(), Some("p3"));
    assert_eq!(of("/a/b/x").as_deref(), Some("p5"));
    assert_eq!((of("/a").as_deref(), of("/a/b").as_deref()), (Some("p3"), Some("p5")));
    assert_eq!((of("/"), of("/ab"), of("/A/")), (None, None, None));
}
