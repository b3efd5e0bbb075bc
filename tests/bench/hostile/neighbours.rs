//! What stands beside the policies that are measured: for each thing that all plugins share, a neighbour that takes as much of it
//! as it can get.

use crate::guest::{ALLOW, Guest};

/// A policy that is asked as often as the ones that are measured.
pub struct Neighbour {
    pub name: &'static str,
    pub component: Vec<u8>,
    /// Calls of it at once, at most; so many instances it may have.
    pub at_once: usize,
}

/// Calls of most neighbours at once.
const AT_ONCE: usize = 64;

/// As many as a manifest may ask for.
const ALL_INSTANCES: usize = 256;

/// What it may open; `Bench::new` makes the stores.
pub const GRANTS: &str = "[grants.kv]\nhostile = \"read-write\"\ndurable = \"read-write\"\n[grants.sql]\nhostile = \"read\"\n[grants.blob]\nhostile = \"read-write\"";

/// Long beside a request, and over soon when the round is.
const LONG_QUERY: &str =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT sum(i) FROM n";

/// Bytes from 4096 to 194,096 that no other call has: what is the same is stored once.
const NOISE: &str = r#"
    (global $seed (mut i64) (i64.const 88172645463325252))
    (func $noise (param $from i64) (local $at i32)
        (global.set $seed (i64.xor (global.get $seed) (local.get $from)))
        (local.set $at (i32.const 4096))
        (loop $on
            (global.set $seed (i64.xor (global.get $seed) (i64.shl (global.get $seed) (i64.const 13))))
            (global.set $seed (i64.xor (global.get $seed) (i64.shr_u (global.get $seed) (i64.const 7))))
            (global.set $seed (i64.xor (global.get $seed) (i64.shl (global.get $seed) (i64.const 17))))
            (i64.store (local.get $at) (global.get $seed))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $on (i32.lt_u (local.get $at) (i32.const 194096)))))"#;

/// Writes values of 190,000 bytes to a durable store until it may write no more.
const DURABLE_WRITES: &str = "
    (call $noise (local.get 2))
    (loop $on
        (call $set (call $store) (i32.const 700) (i32.const 1) (i32.const 4096) (i32.const 190000)
            (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 800))
        (br_if $on (i32.eqz (i32.load8_u (i32.const 800)))))";

/// Writes an object in pieces of 190,000 bytes until it may write no more, and puts it in the place of the one before.
const OBJECTS: &str = "(local $writer i32)
    (call $noise (local.get 2))
    (if (i32.eq (global.get $kept) (i32.const -1)) (then (global.set $kept (call $container))))
    (local.set $writer (call $writer (global.get $kept)))
    (if (i32.ne (local.get $writer) (i32.const -1)) (then
        (loop $on
            (call $write_piece (local.get $writer) (i32.const 4096) (i32.const 190000) (i32.const 1600))
            (br_if $on (i32.eqz (i32.load8_u (i32.const 1600)))))
        (call $finish (local.get $writer) (i32.const 1600))))";

/// All of them; the first is what the others are compared with.
pub fn all() -> Vec<Neighbour> {
    let many = "(call $get_many (call $store) (i32.const 1536) (i32.const 8) (i32.const 800))";
    let get = "(call $get (call $store) (i32.const 1600) (i32.const 1) (i32.const 800))";
    // Eight keys of one byte, for the values of 1 MiB that `Bench::new` writes.
    let keys: String = (0..8).map(|_| "\\40\\06\\00\\00\\01\\00\\00\\00").collect();
    let keys = format!("(data (i32.const 1536) \"{keys}\") (data (i32.const 1600) \"v\")");
    let print = "(call $print (i32.const 1600) (i32.const 64))";
    let for_ever = |body: &str| format!("(loop $on {body} (br $on)) unreachable");
    let kv = || Guest::new().kv("hostile").define(&keys);
    let durable = Guest::new().kv("durable").define(NOISE).define("(data (i32.const 700) \"k\")");
    let objects =
        Guest::new().blob("hostile").define(NOISE).define("(global $kept (mut i32) (i32.const -1))");
    let queries =
        Guest::new().sql("hostile", "query", LONG_QUERY).admit(&format!("(drop (call $statement)) {ALLOW}"));
    let sleepers = Guest::new().clock().admit(&format!("(call $sleep (i64.const 400000000)) {ALLOW}"));
    let bomb = "(memory.fill (i32.const 0) (i32.const 0) (i32.mul (memory.size) (i32.const 65536)))
        (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))";
    let neighbours = [
        ("a good policy", kv().admit(&format!("{get} {ALLOW}")), AT_ONCE),
        ("nothing", Guest::new(), AT_ONCE),
        ("processor: an endless loop", Guest::new().admit(&for_ever("")), AT_ONCE),
        ("processor: a loop in host calls", kv().admit(&for_ever(get)), AT_ONCE),
        ("instances: a trap on every call", Guest::new().admit("unreachable"), AT_ONCE),
        ("instances: 256 that sleep", sleepers, ALL_INSTANCES),
        ("memory: a bomb", Guest::new().admit(&format!("(loop $on {bomb}) unreachable")), AT_ONCE),
        ("memory: answers of 8 MiB", kv().admit(&for_ever(many)), AT_ONCE),
        ("threads: long queries", queries, AT_ONCE),
        ("commits: durable writes", durable.admit(&format!("{DURABLE_WRITES} {ALLOW}")), AT_ONCE),
        ("threads and commits: objects", objects.admit(&format!("{OBJECTS} {ALLOW}")), AT_ONCE),
        ("the log: a flood", Guest::new().stdout().admit(&for_ever(print)), AT_ONCE),
    ];
    let made = |(name, guest, at_once): (_, Guest, _)| Neighbour { name, component: guest.build(), at_once };
    neighbours.map(made).into_iter().collect()
}
