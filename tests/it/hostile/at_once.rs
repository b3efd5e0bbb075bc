//! How much a plugin can do at once: instances, requests to others.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tollgate::plugin::limits::HTTP_SENDS;

use super::House;
use crate::support::Guest;
use crate::support::guest::JOB_ENDS;
use crate::support::wait::PATIENCE;

/// Returns when the key `go` is there, and looks for it a thousand times a second at most, since host calls are counted.
const UNTIL_TOLD: &str = "(local $spins i32)
    (loop $on
        (local.set $spins (i32.const 1000000))
        (loop $spin (br_if $spin (local.tee $spins (i32.sub (local.get $spins) (i32.const 1)))))
        (call $get (call $store) (i32.const 1536) (i32.const 2) (i32.const 800))
        (br_if $on (i32.eqz (i32.load8_u (i32.const 804)))))
    (call $ran (i32.const 1))";

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_instances_are_all_in_use_keeps_nobody_for_long() {
    let words = "(data (i32.const 1536) \"go\") (data (i32.const 700) \"k\")";
    let guest = Guest::new().kv("hostile").define(JOB_ENDS).define(words);
    let house = House::with(&guest.job(UNTIL_TOLD), "instances = 1").await;
    let beside = async {
        house.called("run").await;
        house.serves_on().await;
        house.named("instances", "").await;
        let busy = ["plugin=\"hostile\"", "hook=\"admit\""];
        assert!(house.server.metric_with("tollgate_plugin_busy_total", &busy).await > 0.0);
        house.server.cli_ok(&["kv", "set", "hostile", "go", "1"]);
    };
    let (ran, ()) = tokio::join!(house.job(), beside);
    assert_eq!((ran.status.as_u16(), ran.json()["changed"].as_u64()), (200, Some(1)), "{ran:?}");
    house.never_trapped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_plugin_sends_and_that_nobody_answers_have_an_end() {
    let house = House::open().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = silent.local_addr().unwrap();
    let fetcher = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/components/prebuilt/fetcher.wasm");
    let granted = format!("[http]\nroute = \"/hostile/\"\n[grants.http]\n\"{authority}\" = \"private\"");
    let output = house.push(&std::fs::read(fetcher).unwrap(), &granted);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let client = house.server.client(&house.server.key("asker", &[]));
    let path = format!("/hostile/?{authority}/");
    let (mut asked, mut held) = (Vec::new(), Vec::new());
    for _ in 0..HTTP_SENDS {
        let (client, path) = (client.clone(), path.clone());
        asked.push(tokio::spawn(async move { client.get(&path).await.status }));
        held.push(accept(&silent).await);
    }
    let refused = client.get(&path).await;
    assert_eq!(refused.status, 502, "{refused:?}");
    assert!(refused.text().contains("ConnectionLimitReached"), "{}", refused.text());
    house.named("sends", "").await;
    house.serves_on().await;

    for stream in held {
        answer(stream).await;
    }
    for asked in asked {
        assert_eq!(asked.await.unwrap(), 200);
    }
    let (again, ()) = tokio::join!(client.get(&path), async { answer(accept(&silent).await).await });
    assert_eq!(again.status, 200, "{again:?}");
    house.never_trapped().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(PATIENCE, listener.accept()).await.expect("somebody connects").unwrap().0
}

/// Answers the request of a connection, and closes it.
async fn answer(mut stream: TcpStream) {
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut piece).await.unwrap();
        assert!(length > 0, "the request ends within its head");
        head.extend_from_slice(&piece[..length]);
    }
    let empty = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(empty).await.unwrap();
    // What it has not read, such as the end of an empty body, would turn its end into a reset.
    stream.shutdown().await.unwrap();
    let _ = stream.read_to_end(&mut head).await;
}
